"""Locks between processes, also of other runs: held as long as the process lives, released by the system."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hedypet_bids.errors import TryAgainError
from hedypet_bids.io.atomic import write_error

_log = logging.getLogger("hedypet")


@contextmanager
def exclusive(
    path: Path, *, wait: bool, holder: str, flock: Callable[[int, int], None] = fcntl.flock
) -> Iterator[int]:
    """Hold the lock of a file (made if it is not there) while the block runs; gives its file descriptor.

    A program that inherits the descriptor holds the lock as well, until it ends.

    Parameters
    ----------
    wait
        Wait for another holder to end; otherwise its presence is an error.
    holder
        What the lock stands for, for the message.
    flock
        What locks a file. Where it says that it cannot, the block runs unguarded, with a warning.

    Raises
    ------
    TryAgainError
        Another process holds the lock, and ``wait`` is False.
    OutputError
        The file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _open(path)
    except OSError as fault:
        raise write_error(path, fault) from fault
    try:
        _lock(handle, path, wait, holder, flock)
        yield handle
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        # Another user's file, in a folder for all: it can be locked without being written.
        return os.open(path, os.O_RDONLY)


def _lock(handle: int, path: Path, wait: bool, holder: str, flock: Callable[[int, int], None]) -> None:
    try:
        flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as fault:
        raise TryAgainError(
            f"Another run is working on {holder} (it holds {path}). Wait for its end, then run the same "
            "command again."
        ) from fault
    except OSError as fault:
        # Better unguarded than not at all.
        _log.warning(
            "The file system of %s has no locks (%s): nothing keeps a second run off %s. Run one at a time, "
            "or choose an output folder on another file system.",
            path,
            fault.strerror,
            holder,
        )
