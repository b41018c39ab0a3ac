"""Running an external program: its own process group, a time limit, its text in a log."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hedypet_bids.errors import (
    HedypetError,
    MissingProgramError,
    ReadWriteError,
    StoppedBySignal,
    TryAgainError,
)
from hedypet_bids.io import stop
from hedypet_bids.io.atomic import write_error
from hedypet_bids.tools import end_with_parent as guard

_LINES_SHOWN = 8
_LOG_BYTES_READ = 20_000
_GRACE_S = 10.0
# A thread that waits for a program looks so often whether the run is to end.
_LOOK_UP_S = 0.2
_DISK_FULL = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True)
class Finished:
    """How long a program ran, and where its text is."""

    seconds: float
    log: Path


def run_program(
    command: Sequence[str],
    *,
    title: str,
    log: Path,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    handles: Sequence[int] = (),
    cancelled: threading.Event | None = None,
) -> Finished:
    """Run a program to its end; its standard output and error go to ``log``.

    It is ended with this process, also where that is killed: see :mod:`hedypet_bids.tools.end_with_parent`.

    Parameters
    ----------
    command
        Program and arguments; no shell is involved.
    title
        What it does, for messages: ``TotalSegmentator (total)``.
    environment
        Variables on top of this process's own.
    handles
        File descriptors that are to stay open until the program and its children have ended.
    cancelled
        Set when nobody wants the program any more.

    Raises
    ------
    MissingProgramError
        It cannot be started.
    ReadWriteError
        The disk was full, or the log cannot be written.
    TryAgainError
        It was killed by a signal, most often for lack of memory.
    HedypetError
        It failed, or ran longer than ``timeout_s``; it and its children are then ended.
    StoppedBySignal
        This process is to end, or the program was cancelled.
    """
    began = time.monotonic()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        text = log.open("wb")
    except OSError as fault:
        raise write_error(log, fault) from fault
    with text:
        try:
            # A session of its own, so that its children can be ended with it.
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=text,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                pass_fds=handles,
            )
        except OSError as fault:
            raise TryAgainError(f"{title}: no process can be started: {fault}.") from fault
        try:
            code = _exit_code(process, began + timeout_s, cancelled)
        finally:
            _end_group(process)
    if code is None:
        raise HedypetError(
            f"{title} did not finish within {timeout_s:.0f} s and was ended. The end of its log, {log}:\n"
            f"{end_of(log)}\nGive it more time with [segment] timeout_s in --settings."
        )
    if code == guard.CANNOT_START:
        raise MissingProgramError(f"{title}: {command[0]} cannot be started: {end_of(log).strip()}.")
    if code != 0:
        raise _failure(title, code, log)
    return Finished(time.monotonic() - began, log)


def _exit_code(process: subprocess.Popen[bytes], end: float, cancelled: threading.Event | None) -> int | None:
    """The exit code of a program; None when it still runs at the end of its time (monotonic, s)."""
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(_LOOK_UP_S, max(0.0, end - time.monotonic())))
        stop.raise_if_asked()
        if cancelled is not None and cancelled.is_set():
            raise StoppedBySignal
    return process.poll()


def end_of(log: Path) -> str:
    """The last lines of a log that say something, indented."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_BYTES_READ))
        text = file.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return "\n".join(f"  {line[:300]}" for line in lines[-_LINES_SHOWN:]) or "  (it is empty)"


def _failure(title: str, code: int, log: Path) -> HedypetError:
    text = end_of(log)
    if any(sign in text for sign in _DISK_FULL):
        return ReadWriteError(f"{title} found no space left on the disk. The end of its log, {log}:\n{text}")
    if code < 0:
        return TryAgainError(
            f"{title} was killed by {signal.Signals(-code).name}, most often for lack of memory. Use fewer "
            f"processes (--nprocs) or a machine with more memory. The end of its log, {log}:\n{text}"
        )
    return HedypetError(f"{title} failed with exit code {code}. The end of its log, {log}:\n{text}")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the program, if it still runs, and whatever children it left behind."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
