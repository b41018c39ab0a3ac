"""Kinetic models: importing this package makes those that ship with hedypet known."""

from hedypet_bids.kernels.kinetics.model import (
    Fits,
    KineticModel,
    Parameter,
    known_models,
    models_of,
    register,
    why_not,
)
from hedypet_bids.kernels.kinetics.patlak import Patlak

register(Patlak())

__all__ = ["Fits", "KineticModel", "Parameter", "Patlak", "known_models", "models_of", "register", "why_not"]
