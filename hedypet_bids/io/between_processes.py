"""What processes that work side by side need of the system."""

from __future__ import annotations

from multiprocessing import get_context

from hedypet_bids.errors import TryAgainError


def check_locks_between() -> None:
    """Raise TryAgainError where processes cannot make the locks between them, as without ``/dev/shm``."""
    try:
        get_context("spawn").Lock()
    except OSError as fault:
        raise TryAgainError(
            f"Processes cannot work side by side, as /dev/shm cannot be written: {fault.strerror}. Make it "
            "writable, with free space (docker run --shm-size 64m), or use --nprocs 1."
        ) from fault
