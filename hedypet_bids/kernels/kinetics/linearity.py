"""Whether the points of a graphical analysis lie on a line: how much its slope changes within the window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from hedypet_bids.model import FloatArray

LEAST_FRAMES = 5
"""Frames that tell whether a line is bent; with fewer, noise of one frame decides."""

# Of 100 straight lines one is called bent, if its change is also worth a remark.
_LEVEL = 0.01
_LEAST_CHANGE = 0.1
# A slope that is not this many of its errors above zero has no change in per cent.
_LEAST_ERRORS = 2.0
_ROUNDING = 1e-10


def slope_change(
    curves: FloatArray, inputs: FloatArray, abscissa: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Change of the slope of C/Cp from the first to the last frame, and its standard error.

    A parabola is fitted by ordinary least squares to the points of the line; its second derivative times the
    length of the abscissa is the change. Where the residuals of the line have no trend, it is zero but for
    noise.

    Parameters
    ----------
    curves
        C, Bq/mL, shape (n_regions, n_frames).
    inputs
        Cp, Bq/mL, shape (n_inputs, n_frames); frames in which it is not positive are left out.
    abscissa
        Integral of Cp over Cp, min, shape (n_inputs, n_frames).

    Returns
    -------
    tuple
        Two arrays of shape (n_regions, n_inputs), mL/min/mL; NaN with fewer than ``LEAST_FRAMES`` frames, and
        where a value is not finite.

    Examples
    --------
    The slope of x + 0.1 x**2 is 1 at 0 and 2 at 5:

    >>> x = np.arange(6.0)
    >>> change, _ = slope_change((x + 0.1 * x**2)[None], np.ones((1, 6)), x[None])
    >>> round(float(change[0, 0]), 6)
    1.0
    """
    regions: NDArray[np.float64] = np.asarray(curves, dtype=np.float64)
    found = np.full((2, len(regions), len(inputs)), np.nan)
    for number, (cp, x) in enumerate(zip(np.asarray(inputs), np.asarray(abscissa), strict=True)):
        used = ~(cp <= 0)
        n = int(used.sum())
        if n < LEAST_FRAMES or not np.isfinite(x[used]).all():
            continue
        centred = x[used] - x[used].mean()
        reach = np.abs(centred).max()
        if reach <= _ROUNDING * np.abs(x[used]).max():
            continue
        q, r = np.linalg.qr(np.vander(centred / reach, 3, increasing=True))
        if np.abs(np.diag(r)).min() <= _ROUNDING:
            continue
        y = (regions[:, used] / cp[used]).T
        along = q.T @ y
        # The last row of the triangle has the coefficient of the square alone.
        bend, size = along[2] / r[2, 2], 2.0 * (centred[-1] - centred[0]) / reach**2
        variance = ((y - q @ along) ** 2).sum(axis=0) / (n - 3)
        found[:, :, number] = bend * size, np.sqrt(variance) * abs(size / r[2, 2])
    return found[0], found[1]


def remarks(
    slope: FloatArray,
    slope_se: FloatArray,
    change: FloatArray,
    change_se: FloatArray,
    n_used: NDArray[np.int64],
    asked: Sequence[int | None],
) -> NDArray[Any]:
    """Why a slope or its change has no value, or that the line is bent; None where nothing is to be said.

    Parameters
    ----------
    slope, slope_se
        Of the line, shape (n_regions, n_inputs, n_windows).
    change, change_se
        Of the slope within the window, over the slope, same shape.
    n_used
        Frames in the fit, shape (n_inputs, n_windows).
    asked
        Frames of each window, length n_windows; None where its start defines it.

    Returns
    -------
    NDArray
        Texts, shape (n_regions, n_inputs, n_windows).
    """
    slope, change = np.asarray(slope), np.asarray(change)
    n = np.broadcast_to(n_used, slope.shape)
    none = ~np.isfinite(slope)
    said: NDArray[Any] = np.select(
        [
            none & (n < 2),
            none,
            n < LEAST_FRAMES,
            ~has_change(slope, slope_se),
            ~np.isfinite(change),
        ],
        [
            np.full(slope.shape, "fewer than 2 frames with blood activity", dtype=object),
            np.full(slope.shape, "a value is missing, or blood allows no line", dtype=object),
            np.full(slope.shape, f"fewer than {LEAST_FRAMES} frames cannot show a bend", dtype=object),
            np.full(slope.shape, f"Ki is below {_LEAST_ERRORS:g} standard errors", dtype=object),
            np.full(slope.shape, "the frames do not tell a bend from a slope", dtype=object),
        ],
        np.full(slope.shape, None, dtype=object),
    )
    for window, frames in enumerate(asked):
        if frames is not None:
            short = none[..., window] & (n[..., window] >= 2) & (n[..., window] < frames)
            said[short, window] = f"fewer than {frames} frames with blood activity"
    with np.errstate(invalid="ignore"):
        limit = stdtrit(np.maximum(n - 3, 1), 1.0 - _LEVEL / 2.0) * np.asarray(change_se)
        bent = np.isfinite(change) & (np.abs(change) > np.maximum(limit, _LEAST_CHANGE))
    for at in zip(*np.nonzero(bent), strict=True):
        said[at] = f"not a line: the slope changes by {change[at]:+.0%} within the window"
    return said


def has_change(slope: FloatArray, slope_se: FloatArray) -> NDArray[np.bool_]:
    """Whether a slope is far enough above zero for its change to be told in per cent."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.asarray(slope) > _LEAST_ERRORS * np.asarray(slope_se), dtype=np.bool_)
