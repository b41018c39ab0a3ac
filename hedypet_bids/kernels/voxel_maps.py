"""Voxel maps as weighted sums over streamed frames, and their smoothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.model import FloatArray

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


def weighted_sums(frames: Iterable[tuple[int, FloatArray]], weights: FloatArray) -> NDArray[np.float32]:
    """Sums over the frames of weight times frame, one map per row of weights.

    Parameters
    ----------
    frames
        Index and voxels of each frame; frames without a weight are passed over.
    weights
        Shape (n_maps, n_frames).

    Returns
    -------
    NDArray
        float32, shape (n_maps, i, j, k), each map in Fortran order; summed in float64. A NaN voxel
        is NaN in that voxel only.

    Raises
    ------
    ValueError
        There is no frame, or frames differ in shape.
    """
    factors = np.ascontiguousarray(weights, dtype=np.float64)
    sums: NDArray[np.float64] | None = None
    shape: tuple[int, ...] = ()
    for index, frame in frames:
        if sums is None:
            shape = frame.shape
            sums = np.zeros((frame.size, len(factors)), dtype=np.float64)
        if frame.shape != shape:
            raise ValueError(f"frames of shapes {shape} and {frame.shape} cannot be summed")
        if factors[:, index].any():
            _add(frame.reshape(-1, order="F"), factors[:, index], sums)
    if sums is None:
        raise ValueError("there is no frame to sum")
    maps = np.empty((len(factors), *shape), dtype=np.float32)
    for number, values in enumerate(sums.T):
        maps[number] = values.reshape(shape, order="F")
    return maps


def smooth(image: FloatArray, *, fwhm_mm: float, voxel_sizes_mm: FloatArray) -> NDArray[np.float32]:
    """An image after a Gaussian filter of the given width in mm.

    Smoothing and weighting frames are both linear, so the smoothed map is the map of smoothed frames.
    NaN voxels stay NaN and give nothing to their neighbours, whose weights are those of the finite
    voxels alone. At the edge the image is continued by its mirror image.

    Parameters
    ----------
    image
        Shape (i, j, k).
    fwhm_mm
        Full width at half maximum; 0 changes nothing.
    voxel_sizes_mm
        Along i, j and k.

    Raises
    ------
    ValueError
        The width is negative.
    """
    if fwhm_mm < 0:
        raise ValueError(f"the width of a filter must not be negative; found {fwhm_mm} mm")
    sigma = fwhm_mm / FWHM_PER_SIGMA / np.asarray(voxel_sizes_mm, dtype=np.float64)
    finite = np.isfinite(image)
    if finite.all():
        return np.asarray(ndimage.gaussian_filter(image, sigma, output=np.float32))
    # Normalised convolution (Knutsson and Westin, CVPR 1993).
    filled = np.where(finite, image, 0)
    weight = ndimage.gaussian_filter(finite.astype(np.float32), sigma)
    smoothed = ndimage.gaussian_filter(filled, sigma, output=np.float32)
    return np.divide(smoothed, weight, out=np.full(image.shape, np.nan, dtype=np.float32), where=finite)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(frame: FloatArray, factors: NDArray[np.float64], sums: NDArray[np.float64]) -> None:
    used = np.flatnonzero(factors)
    for v in range(frame.size):
        value = np.float64(frame[v])
        for m in used:
            sums[v, m] += factors[m] * value
