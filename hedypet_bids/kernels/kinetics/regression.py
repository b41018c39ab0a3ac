"""Linear least squares of many curves at once, and why a fit has no value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.kernels.kinetics.patlak import integrate
from hedypet_bids.model import FloatArray, FrameTimes

# Regressors whose angle is smaller than this tell no two parameters apart.
_SMALLEST_ANGLE = 1e-7

FIT_COLUMNS: Mapping[str, Any] = {
    "r2": {"Description": "Coefficient of determination"},
    "n_used": {"Description": "Frames in the fit"},
    "t_start": {"Description": "Start of the first frame in the fit", "Units": "s"},
    "t_end": {"Description": "End of the last frame in the fit", "Units": "s"},
    "reason": {"Description": "Why there is no value"},
}
"""What the columns beside the parameters mean, of a model with one window."""


Mask = NDArray[np.bool_] | np.bool_ | bool
"""Where a case holds: by region and input function, or everywhere."""


class LinearFit(NamedTuple):
    """Coefficients, shape (..., n), their covariance, (..., n, n), and the coefficient of determination."""

    beta: NDArray[np.float64]
    covariance: NDArray[np.float64]
    r2: NDArray[np.float64]

    def se_of(self, *gradient: FloatArray) -> NDArray[np.float64]:
        """Standard error of a function of the coefficients, from its derivative by each (delta method)."""
        slope = np.stack(np.broadcast_arrays(*gradient), axis=-1)
        with np.errstate(invalid="ignore", over="ignore"):
            variance = np.einsum("...i,...ij,...j->...", slope, self.covariance, slope)
            return np.asarray(np.sqrt(np.maximum(variance, 0.0)), dtype=np.float64)


def fit_linear(
    y: FloatArray,
    regressors: list[FloatArray],
    weights: FloatArray,
    noise: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
) -> LinearFit:
    """Weighted least squares of ``y`` on the regressors, whose shapes broadcast to (..., n_frames).

    Parameters
    ----------
    y
        Bq/mL or what the model makes of it.
    regressors
        One for each coefficient.
    weights
        Inverse variance of each frame but for a factor, shape (n_frames,).
    noise
        How the errors of the data enter the residuals of given coefficients, shape (..., n_frames, n_errors);
        by default each frame has one of its own. With integrals of noisy curves among the regressors errors
        are in several frames.

    Returns
    -------
    LinearFit
        NaN where a value is not finite, where there are not more frames than coefficients, and where the
        regressors do not tell the coefficients apart.

    Examples
    --------
    >>> x = np.arange(4.0)
    >>> fit_linear(3 * x + 1, [x, np.ones(4)], np.ones(4)).beta.round(6).tolist()
    [3.0, 1.0]
    """
    root = np.sqrt(np.asarray(weights, dtype=np.float64))
    observed, *columns = np.broadcast_arrays(y, *regressors)
    design = np.stack(columns, axis=-1) * root[:, None]
    target = observed * root
    n_frames, n_coefficients = design.shape[-2:]
    possible = np.isfinite(design).all(axis=(-2, -1)) & np.isfinite(target).all(axis=-1)
    possible &= n_frames > n_coefficients
    if n_frames <= n_coefficients:
        design = np.zeros((*design.shape[:-2], n_coefficients + 1, n_coefficients))
        target = np.zeros((*target.shape[:-1], n_coefficients + 1))
        root = np.ones(n_coefficients + 1)
    design = np.where(possible[..., None, None], design, 0.0)
    target = np.where(possible[..., None], target, 0.0)
    size = np.linalg.norm(design, axis=-2)
    size = np.where(size > 0, size, 1.0)
    q, r = np.linalg.qr(design / size[..., None, :])
    possible &= np.abs(np.diagonal(r, axis1=-2, axis2=-1)).min(axis=-1) > _SMALLEST_ANGLE
    inverse = np.linalg.inv(np.where(possible[..., None, None], r, np.eye(n_coefficients)))
    beta = np.einsum("...ij,...kj,...k->...i", inverse, q, target) / size
    residual = target - np.einsum("...ki,...i->...k", design, beta)
    sse = (residual**2).sum(axis=-1)
    errors = np.eye(len(root)) if noise is None or n_frames <= n_coefficients else root[:, None] * noise(beta)
    of_beta = np.swapaxes(q, -1, -2) @ errors
    left = ((errors - q @ of_beta) ** 2).sum(axis=(-2, -1))
    of_beta = (inverse @ of_beta) / size[..., None]
    covariance = (
        of_beta @ np.swapaxes(of_beta, -1, -2) * (sse / np.where(left > 0, left, 1.0))[..., None, None]
    )
    mean = (target * root).sum(axis=-1) / (root**2).sum()
    total = ((target - mean[..., None] * root) ** 2).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(total > 0, 1.0 - sse / total, np.nan)
    return LinearFit(
        np.where(possible[..., None], beta, np.nan),
        np.where(possible[..., None, None], covariance, np.nan),
        np.where(possible, r2, np.nan),
    )


def noise_of(frames: FrameTimes, index: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How the noise of all frames enters the curve and its integral in some of them.

    The variance of a frame is taken to be inverse to its length.

    Returns
    -------
    tuple
        Two arrays of shape (n_index, n_frames).
    """
    size = 1.0 / np.sqrt(frames.duration_s)
    every = np.eye(len(frames))
    return every[index] * size, integrate(every, frames, rule="frames").T[index] * size


def reasons(*cases: tuple[Mask, str]) -> NDArray[Any]:
    """The text of the first case that holds, by region and input function; None where none does."""
    masks = np.broadcast_arrays(*(mask for mask, _ in cases))
    texts = np.full(masks[0].shape, None, dtype=object)
    for mask, (_, text) in reversed(list(zip(masks, cases, strict=True))):
        texts[mask] = text
    return texts


def fits_of_one_window(
    values: Mapping[str, FloatArray], why: NDArray[Any], frames: FrameTimes, index: NDArray[np.intp]
) -> dict[str, Any]:
    """Columns of a model with one window; no value where there is a reason.

    Parameters
    ----------
    values
        Of shape (n_regions, n_inputs), by column.
    why
        The reasons, of the same shape.
    index
        The frames in the fit.
    """
    kept = np.array([text is None for text in why.ravel()]).reshape(why.shape)
    return {
        **{name: np.where(kept, value, np.nan)[..., None] for name, value in values.items()},
        "n_used": len(index),
        "t_start": frames.start_s[index[0]] if len(index) else np.nan,
        "t_end": frames.end_s[index[-1]] if len(index) else np.nan,
        "reason": why[..., None],
    }


def mean_ratio(
    above: FloatArray, below: FloatArray, weights: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ratio of the weighted means over the frames (the last axis), and its standard error.

    The error is that of a ratio estimator: from how far the frames scatter about the ratio.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        total = (below * weights).sum(axis=-1)
        ratio = (above * weights).sum(axis=-1) / total
        left = weights * (above - ratio[..., None] * below)
        n = len(weights)
        se = np.sqrt((left**2).sum(axis=-1) * (n / (n - 1) if n > 1 else np.nan)) / np.abs(total)
    return np.asarray(ratio), np.asarray(se)
