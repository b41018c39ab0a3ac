"""Kinetic models: importing this package makes those that ship with hedypet known, by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hedypet_bids.kernels.kinetics.model import (
    Fits,
    KineticModel,
    Parameter,
    fits_with,
    kinetic_models,
    known_models,
    model_names,
    register,
    ship,
    why_not,
)

if TYPE_CHECKING:
    from hedypet_bids.kernels.kinetics.compartments import OneTissue, TwoTissue
    from hedypet_bids.kernels.kinetics.dual_input import LiverDualInput
    from hedypet_bids.kernels.kinetics.graphical import MA1, Logan
    from hedypet_bids.kernels.kinetics.influx import FUR, CMRglc, RelativePatlak
    from hedypet_bids.kernels.kinetics.lung import LungRightHeart
    from hedypet_bids.kernels.kinetics.patlak import Patlak
    from hedypet_bids.kernels.kinetics.population_patlak import PatlakPBIF
    from hedypet_bids.kernels.kinetics.reference_region import MRTM, MRTM2, SRTM, SUVR

# The module and class of each model.
_SHIPPED = {
    "Patlak": ("patlak", "Patlak"),
    "PatlakPBIF": ("population_patlak", "PatlakPBIF"),
    "TwoTissueIrr": ("compartments", "TwoTissue"),
    "OneTissue": ("compartments", "OneTissue"),
    "LiverDualInput": ("dual_input", "LiverDualInput"),
    "LungRightHeart": ("lung", "LungRightHeart"),
    "MA1": ("graphical", "MA1"),
    "Logan": ("graphical", "Logan"),
    "SRTM": ("reference_region", "SRTM"),
    "MRTM": ("reference_region", "MRTM"),
    "MRTM2": ("reference_region", "MRTM2"),
    "SUVR": ("reference_region", "SUVR"),
    "FUR": ("influx", "FUR"),
    "RelativePatlak": ("influx", "RelativePatlak"),
    "CMRglc": ("influx", "CMRglc"),
}
_HOMES = {class_name: f"{__name__}.{module}" for module, class_name in _SHIPPED.values()}

for _model, (_, _class) in _SHIPPED.items():
    ship(_model, _HOMES[_class], _class)

__all__ = [
    "FUR",
    "MA1",
    "MRTM",
    "MRTM2",
    "SRTM",
    "SUVR",
    "CMRglc",
    "Fits",
    "KineticModel",
    "LiverDualInput",
    "Logan",
    "LungRightHeart",
    "OneTissue",
    "Parameter",
    "Patlak",
    "PatlakPBIF",
    "RelativePatlak",
    "TwoTissue",
    "fits_with",
    "kinetic_models",
    "known_models",
    "model_names",
    "register",
    "ship",
    "why_not",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
