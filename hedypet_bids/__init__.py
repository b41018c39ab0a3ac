"""hedypet: total-body dynamic FDG PET/CT/MR datasets to quantitative readouts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hedypet_bids.version import __version__

if TYPE_CHECKING:
    from hedypet_bids.study import Study

__all__ = ["Study", "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: pandas and pyarrow take a second that --version and --help do not have.
    if name == "Study":
        from hedypet_bids.study import Study

        return Study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
