"""What all fits of shares have in common: the rates that are tried, the weights of frames, the solution."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hedypet_bids.model import FrameTimes

# Faster exchange looks like blood in frames of seconds, slower like trapping in an hour.
RATES_PER_MIN = np.geomspace(0.02, 8.0, 32)
"""Of exchange with blood, from the slowest to the fastest that frames can show."""
F18_HALF_LIFE_S = 6586.2
"""Of the radionuclide that is taken where nobody says which it is, s."""
# Beyond rounding: columns whose angle is smaller than its root are one.
_SINGULAR = 1e-12


def root_weights(frames: FrameTimes, half_life_s: float) -> NDArray[np.float64]:
    """Square roots of the weights of frames: their length times the activity that remains.

    Parameters
    ----------
    frames
        When they are, s from injection.
    half_life_s
        Of the radionuclide, s.

    Returns
    -------
    ndarray
        Shape (n_frames,); the mean of their squares is 1.

    Examples
    --------
    >>> root_weights(FrameTimes([0.0, 60.0], [60.0, 60.0]), 6586.2).round(3).tolist()
    [1.002, 0.998]
    """
    weights = frames.duration_s * np.exp2(-frames.mid_s / half_life_s)
    return np.asarray(np.sqrt(weights / weights.mean()))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def non_negative(
    gram: NDArray[np.float64], dots: NDArray[np.float64], allowed: int, shares: NDArray[np.float64]
) -> float:
    """Non-negative least squares of up to three columns, by trying every subset of them.

    Parameters
    ----------
    gram
        Products of the columns with each other, shape (3, 3).
    dots
        Products with the curve, shape (3,).
    allowed
        The columns that may be used, as the bits of a number from 1 to 7.
    shares
        Where the solution goes, shape (3,).

    Returns
    -------
    float
        The sum of squares that it explains.
    """
    best = 0.0
    shares[:] = 0.0
    lower, found = np.empty((3, 3)), np.empty(3)
    members = np.empty(3, dtype=np.int64)
    for subset in range(allowed, 0, -1):
        if subset & ~allowed:
            continue
        size = 0
        for column in range(3):
            if subset >> column & 1:
                members[size] = column
                size += 1
        feasible, explained = True, 0.0
        for i in range(size):  # Cholesky, with forward substitution on the way
            found[i] = dots[members[i]]
            rest = gram[members[i], members[i]]
            for j in range(i):
                lower[i, j] = gram[members[i], members[j]]
                for k in range(j):
                    lower[i, j] -= lower[i, k] * lower[j, k]
                lower[i, j] /= lower[j, j]
                found[i] -= lower[i, j] * found[j]
                rest -= lower[i, j] ** 2
            if rest <= _SINGULAR * gram[members[i], members[i]]:
                feasible = False
                break
            lower[i, i] = np.sqrt(rest)
            found[i] /= lower[i, i]
            explained += found[i] ** 2
        if not feasible or explained <= best:
            continue
        for i in range(size - 1, -1, -1):
            for k in range(i + 1, size):
                found[i] -= lower[k, i] * found[k]
            found[i] /= lower[i, i]
            feasible = feasible and found[i] >= 0
        if feasible:
            best = explained
            shares[:] = 0.0
            for i in range(size):
                shares[members[i]] = found[i]
            if subset == allowed:
                break
    return best
