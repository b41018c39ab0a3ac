"""hedypet: total-body dynamic FDG PET/CT/MR datasets to quantitative readouts.

===========================  ==========================================================================
:class:`Study`               the outputs in Python: images, curves, fits, tables
:func:`run_participant`      one participant from images to readouts, as the command line does
:func:`run_group`            the tables and the page of the group
:class:`Settings`            every parameter of the study
:func:`resample_image`       an image on another grid
:func:`region_statistics`    mean and standard deviation of many regions in one pass over the frames
:func:`fit`                  any kinetic model on curves of one's own
:func:`fit_patlak`           Patlak fits of many regions at once
===========================  ==========================================================================
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hedypet_bids.version import __version__

if TYPE_CHECKING:
    from hedypet_bids.kernels.kinetics.own_curves import fit
    from hedypet_bids.kernels.kinetics.patlak import fit_patlak
    from hedypet_bids.kernels.region_statistics import region_statistics
    from hedypet_bids.kernels.resampling.resample import resample_image
    from hedypet_bids.run.api import run_group, run_participant
    from hedypet_bids.settings import Settings
    from hedypet_bids.study import Study

__all__ = [
    "Settings",
    "Study",
    "__version__",
    "fit",
    "fit_patlak",
    "region_statistics",
    "resample_image",
    "run_group",
    "run_participant",
]

_HOMES = {
    "Settings": "settings",
    "Study": "study",
    "fit": "kernels.kinetics.own_curves",
    "fit_patlak": "kernels.kinetics.patlak",
    "region_statistics": "kernels.region_statistics",
    "resample_image": "kernels.resampling.resample",
    "run_group": "run.api",
    "run_participant": "run.api",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: pandas, pyarrow and numba take seconds that --version and --help do not have.
    if name in _HOMES:
        return getattr(import_module(f"hedypet_bids.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
