"""Kinetic models: importing this package makes those that ship with hedypet known."""

from hedypet_bids.kernels.kinetics.compartments import OneTissue, TwoTissue
from hedypet_bids.kernels.kinetics.graphical import MA1, Logan
from hedypet_bids.kernels.kinetics.influx import FUR, CMRglc, RelativePatlak
from hedypet_bids.kernels.kinetics.model import (
    Fits,
    KineticModel,
    Parameter,
    kinetic_models,
    known_models,
    register,
    why_not,
)
from hedypet_bids.kernels.kinetics.patlak import Patlak
from hedypet_bids.kernels.kinetics.reference_region import MRTM, MRTM2, SRTM, SUVR

for _model in (
    Patlak,
    TwoTissue,
    OneTissue,
    MA1,
    Logan,
    SRTM,
    MRTM,
    MRTM2,
    SUVR,
    FUR,
    RelativePatlak,
    CMRglc,
):
    register(_model())

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
    "Logan",
    "OneTissue",
    "Parameter",
    "Patlak",
    "RelativePatlak",
    "TwoTissue",
    "kinetic_models",
    "known_models",
    "register",
    "why_not",
]
