"""Peak memory of a part of this process's life."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """The largest resident memory (MB) since construction, of this process or a child that has ended.

    Parameters
    ----------
    begin
        False: since the last one began, so that what others in this process measure goes on.
    """

    def __init__(self, *, begin: bool = True) -> None:
        # Linux keeps the peak of the whole life; writing 5 begins a new one. Where that is not
        # allowed the peak so far is an upper bound.
        if begin:
            with suppress(OSError):
                _RESET.write_text("5")
        self._children_mb = _ended_children_mb()

    def mb(self) -> float:
        """The peak so far."""
        own = _own_peak_mb()
        children = _ended_children_mb()
        # The system remembers only the largest child of all.
        return max(own, children) if children > self._children_mb else own


def _own_peak_mb() -> float:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _ended_children_mb() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
