"""A console that is closed, full, or has too few letters, which costs no run its work."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from hedypet_bids.errors import ReadWriteError

_P = ParamSpec("_P")


def on_console(main: Callable[_P, int]) -> Callable[_P, int]:
    """A ``main`` that goes on where its console cannot be written.

    Nobody reads what is written to a console that was closed, so nothing is said; where what was asked for
    (the answer on standard output) is lost on a full disc, the exit status says so.
    """

    @wraps(main)
    def run(*arguments: _P.args, **named: _P.kwargs) -> int:
        with _patient_streams() as lost:
            try:
                code = main(*arguments, **named)
            except SystemExit as end:  # as argparse ends --help and --version
                if end.code or not lost():
                    raise
                code = 0
            fault = lost()
            if fault and not code:
                program = Path(sys.argv[0]).stem
                print(f"{program}: writing to standard output failed: {fault.strerror}.", file=sys.stderr)
                return ReadWriteError.exit_code
            return code

    return run


class _PatientFile(io.FileIO):
    """A descriptor that keeps the fault of a write instead of raising it, and waits for a slow reader."""

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        """Write as much as can be written; what cannot be is dropped."""
        try:
            while (written := super().write(data)) is None:  # somebody made the descriptor non-blocking
                select.select([], [self], [])
        except OSError as fault:
            self.fault = fault
            return memoryview(data).nbytes
        return written


@contextmanager
def _patient_streams() -> Iterator[Callable[[], OSError | None]]:
    """Standard output and error as patient files; gives what was lost of the output so far."""
    _open_closed()
    before = sys.stdout, sys.stderr
    out = _patient(sys.stdout, sys.__stdout__, 1)
    sys.stdout, sys.stderr = out or before[0], _patient(sys.stderr, sys.__stderr__, 2) or before[1]

    def lost() -> OSError | None:
        sys.stdout.flush()
        fault = out.buffer.raw.fault if out else None
        return None if fault is None or fault.errno == errno.EPIPE else fault

    try:
        yield lost
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Open the standard descriptors that are closed: the next file that is opened would take their place."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, as those below are open
            os.set_inheritable(descriptor, True)


def _patient(stream: Any, own: Any, descriptor: int) -> Any:
    """The stream in a patient version; None for one that somebody put in the place of the console."""
    if stream is not own:
        return None
    with suppress(AttributeError, OSError, ValueError):
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_PatientFile(descriptor, "w", closefd=False)),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        # File names may be no text at all, and the locale may know no letters but those of English.
        errors="backslashreplace",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
    )
