"""Locks between processes, also of other runs: held as long as the process lives, released by the system."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hedypet_bids.errors import TryAgainError
from hedypet_bids.io.atomic import write_error


@contextmanager
def exclusive(path: Path, *, wait: bool, what: str) -> Iterator[None]:
    """Hold the lock of a file (made if it is not there) while the block runs.

    Parameters
    ----------
    wait
        Wait for another holder to end; otherwise its presence is an error.
    what
        What the lock stands for, for the message.

    Raises
    ------
    TryAgainError
        Another process holds the lock, and ``wait`` is False.
    OutputError
        The file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as fault:
        raise write_error(path, fault) from fault
    try:
        _lock(handle, path, wait, what)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path, wait: bool, what: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as fault:
        raise TryAgainError(
            f"Another run is working on {what} (it holds {path}). Wait for its end, then run the same "
            "command again."
        ) from fault
    except OSError:
        # A file system without locks: better unguarded than not at all.
        return
