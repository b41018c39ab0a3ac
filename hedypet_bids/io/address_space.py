"""How much memory the system lets this process have."""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress

from hedypet_bids.errors import TryAgainError

# With less, libraries crash while they are imported: they reserve much that they never use.
_LEAST_MB = 1200
# Steps side by side hold more at a time. Where a C library gets nothing, it ends the process without a word.
_THREAD_MB = 1200
_M_ARENA_MAX = -8  # malloc.h


def check_address_space() -> None:
    """Make do with the address space that ``ulimit -v`` leaves.

    Raises
    ------
    TryAgainError
        The libraries cannot even be imported.
    """
    limit_mb = _limit_mb()
    if limit_mb is None:
        return
    if limit_mb < _LEAST_MB:
        raise TryAgainError(
            f"The address space is limited to {limit_mb} MB (ulimit -v), and hedypet needs {_LEAST_MB} MB to "
            "start. Raise the limit (ulimit -v unlimited); --mem-mb bounds the memory that is used."
        )
    # glibc reserves 64 MB and more for every thread, whether it uses them or not: here they share.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")  # for processes that this one starts
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def threads_within_limit(threads: int) -> int:
    """How many of these threads ``ulimit -v`` lets work side by side, at least one."""
    limit_mb = _limit_mb()
    return threads if limit_mb is None else max(1, min(threads, 1 + (limit_mb - _LEAST_MB) // _THREAD_MB))


def out_of_memory(fault: Exception) -> TryAgainError | None:
    """The error of a process that got no more memory, or no thread for lack of it; None for other faults."""
    if not isinstance(fault, MemoryError) and str(fault) != "can't start new thread":
        return None
    limit_mb = _limit_mb()
    limit = "" if limit_mb is None else f" within the {limit_mb} MB of ulimit -v"
    what = f" ({fault})" if str(fault) else ""
    return TryAgainError(
        f"There is not enough memory{limit}{what}. Use fewer processes (--nprocs, --low-mem), raise the "
        "limit, or take a machine with more memory; finished steps are kept."
    )


def _limit_mb() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft >> 20
