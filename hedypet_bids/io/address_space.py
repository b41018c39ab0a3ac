"""How much memory the system lets this process have."""

from __future__ import annotations

import resource

from hedypet_bids.errors import TryAgainError

# With less, libraries crash while they are imported: they reserve much that they never use.
_LEAST_MB = 1200


def check_address_space() -> None:
    """Raise TryAgainError where ``ulimit -v`` does not even let the libraries be imported."""
    limit_mb = _limit_mb()
    if limit_mb is not None and limit_mb < _LEAST_MB:
        raise TryAgainError(
            f"The address space is limited to {limit_mb} MB (ulimit -v), and hedypet needs {_LEAST_MB} MB to "
            "start. Raise the limit (ulimit -v unlimited); --mem-mb bounds the memory that is used."
        )


def out_of_memory(fault: MemoryError) -> TryAgainError:
    """The error of a process that got no more memory."""
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
