"""Running an external program: its own process group, a time limit, its words in a log."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hedypet_bids.errors import HedypetError, MissingProgramError, ReadWriteError, TryAgainError
from hedypet_bids.io.atomic import write_error
from hedypet_bids.tools import end_with_parent as guard

_LINES_SHOWN = 8
_LOG_BYTES_READ = 20_000
_GRACE_S = 10.0
_DISK_FULL = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True)
class Finished:
    """How long a program ran, and where its words are."""

    seconds: float
    log: Path


def run_program(
    command: Sequence[str],
    *,
    what: str,
    log: Path,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    handles: Sequence[int] = (),
) -> Finished:
    """Run a program to its end; its standard output and error go to ``log``.

    It is ended with this process, also where that is killed: see :mod:`hedypet_bids.tools.end_with_parent`.

    Parameters
    ----------
    command
        Program and arguments; no shell is involved.
    what
        What it does, for messages: ``TotalSegmentator (total)``.
    environment
        Variables on top of this process's own.
    handles
        File descriptors that are to stay open until the program and its children have ended.

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
    """
    began = time.monotonic()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        words = log.open("wb")
    except OSError as fault:
        raise write_error(log, fault) from fault
    with words:
        try:
            # A session of its own, so that its children can be ended with it.
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                pass_fds=handles,
            )
        except OSError as fault:
            raise TryAgainError(f"{what}: no process can be started: {fault}.") from fault
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as fault:
            raise HedypetError(
                f"{what} did not finish within {timeout_s:.0f} s and was ended. Its last words, in {log}:\n"
                f"{last_words(log)}\nGive it more time with [segment] timeout_s in --settings."
            ) from fault
        finally:
            _end_group(process)
    if code == guard.CANNOT_START:
        raise MissingProgramError(f"{what}: {command[0]} cannot be started: {last_words(log).strip()}.")
    if code != 0:
        raise _failure(what, code, log)
    return Finished(time.monotonic() - began, log)


def last_words(log: Path) -> str:
    """The last lines of a log that say something, indented."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_BYTES_READ))
        text = file.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return "\n".join(f"  {line[:300]}" for line in lines[-_LINES_SHOWN:]) or "  (it said nothing)"


def _failure(what: str, code: int, log: Path) -> HedypetError:
    words = last_words(log)
    if any(sign in words for sign in _DISK_FULL):
        return ReadWriteError(f"{what} found no space left on the disk. Its last words, in {log}:\n{words}")
    if code < 0:
        return TryAgainError(
            f"{what} was killed by {signal.Signals(-code).name}, most often for lack of memory. Use fewer "
            f"processes (--nprocs) or a machine with more memory. Its last words, in {log}:\n{words}"
        )
    return HedypetError(f"{what} failed with exit code {code}. Its last words, in {log}:\n{words}")


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
