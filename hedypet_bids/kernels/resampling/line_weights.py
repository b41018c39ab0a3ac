"""Weights of the samples of a line: interpolation between them, blurring, mirrored ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive


def gaussian(variance: float) -> NDArray[np.float64]:
    """Weights of the discrete Gaussian, which has exactly this variance even when it is small.

    Lindeberg, IEEE PAMI 1990;12(3):234.
    """
    radius = int(np.ceil(5.0 * np.sqrt(variance))) + 2 if variance > 0 else 0
    weights = ive(np.abs(np.arange(-radius, radius + 1)), variance)
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised


def interpolation(x: NDArray[np.float64], order: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First sample and weights (n, taps) for interpolation at the positions ``x``."""
    base = np.floor(x).astype(np.int64)
    t = x - base
    if order == 1:
        return base, np.stack([1.0 - t, t], axis=1)
    u = 1.0 - t
    w1, w2 = 2 / 3 - t * t * (2.0 - t) / 2, 2 / 3 - u * u * (2.0 - u) / 2
    return base - 1, np.stack([u**3 / 6, w1, w2, t**3 / 6], axis=1)


def folded(
    first: NDArray[np.int64], weights: NDArray[np.float64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """First samples and weights of the same sums on a line of ``n``, mirrored at its ends."""
    taps = weights.shape[1]
    kept = min(taps, n)
    start = np.clip(first, 0, n - kept)
    period = max(2 * n - 2, 1)
    index = (first[:, None] + np.arange(taps)) % period
    index = np.where(index < n, index, period - index) - start[:, None]
    kept_weights = np.zeros((first.size, kept))
    rows = np.broadcast_to(np.arange(first.size)[:, None], index.shape)
    np.add.at(kept_weights, (rows, index), weights)
    return start, kept_weights.astype(np.float32)
