"""Kinetic models: importing this package makes those that ship with hedypet known."""

from hedypet_bids.kernels.kinetics.compartments import OneTissue, TwoTissue
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

register(Patlak())
register(TwoTissue())
register(OneTissue())

__all__ = [
    "Fits",
    "KineticModel",
    "OneTissue",
    "Parameter",
    "Patlak",
    "TwoTissue",
    "kinetic_models",
    "known_models",
    "register",
    "why_not",
]
