"""How much values of several participants differ: a middle and a band around it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

Band = Literal["none", "SD", "95 % CI of the mean", "95 % prediction"]
BANDS: tuple[Band, ...] = ("none", "SD", "95 % CI of the mean", "95 % prediction")
Float64s = NDArray[np.float64]


def mean_and_half_width(values: Float64s, band: Band) -> tuple[Float64s, Float64s, NDArray[np.intp]]:
    """Mean, half the width of the band and number of the finite values along the first axis.

    The SD is the sample's (n - 1). With t the 97.5 % quantile of Student's distribution of n - 1 degrees of
    freedom, the confidence interval of the mean is t SD / sqrt(n), and the interval in which another
    participant is expected t SD sqrt(1 + 1/n).

    Parameters
    ----------
    values
        Shape (n_participants, ...); what is not finite is left out.

    Returns
    -------
    tuple
        Of the shape (...); NaN where no value is finite, half-widths also where there is only one.
    """
    finite = np.isfinite(values)
    n = finite.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(finite, values, 0.0).sum(axis=0) / np.where(n > 0, n, np.nan)
        squares = np.where(finite, values - mean, 0.0) ** 2
        sd = np.sqrt(squares.sum(axis=0) / np.where(n > 1, n - 1, np.nan))
        if band == "SD":
            return mean, sd, n
        if band == "none":
            return mean, np.full_like(sd, np.nan), n
        t = special.stdtrit(np.where(n > 1, n - 1, np.nan), 0.975)
        factor = 1.0 / np.sqrt(n) if band == "95 % CI of the mean" else np.sqrt(1.0 + 1.0 / n)
        return mean, t * sd * factor, n
