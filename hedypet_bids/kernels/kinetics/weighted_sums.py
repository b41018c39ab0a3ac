"""Voxel maps as weighted sums over streamed frames, and their smoothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.model import FloatArray

_NARROWED_AT_ONCE = 1 << 20
_PIECE_VOXELS = 1 << 20

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


def weighted_sums(
    chunks: Iterable[tuple[int, int, FloatArray]], weights: FloatArray, *, n_voxels: int
) -> Iterator[NDArray[np.float32]]:
    """Each map in turn: the sum over the frames of weight times frame, flat, float32.

    Parameters
    ----------
    chunks
        Index of the frame, position of the first voxel and flat values of every piece of the
        frames, in any order; frames without a weight in a map are passed over for that map.
    weights
        Shape (n_maps, n_frames).
    n_voxels
        Voxels of a frame.

    Returns
    -------
    Iterator
        Summed in float64; the memory of a sum is free once its map has been taken. A NaN voxel is
        NaN in that voxel only.

    Raises
    ------
    ValueError
        A piece reaches beyond the frame, or there is none.
    """
    factors = np.asarray(weights, dtype=np.float64)
    sums = [np.zeros(n_voxels, dtype=np.float64) for _ in factors]
    n_chunks = 0
    for index, position, values in chunks:
        n_chunks += 1
        if position + values.size > n_voxels:
            raise ValueError(f"a piece of {values.size} voxels at {position} of a frame of {n_voxels} voxels")
        for total, factor in zip(sums, factors[:, index], strict=True):
            if factor:
                _add(values, factor, total[position : position + values.size])
    if n_chunks == 0:
        raise ValueError("there is no frame to sum")
    while sums:
        yield _narrowed(sums.pop(0))


def weighted_sums_of_pieces(
    piece: Callable[[int, int, int], FloatArray], weights: FloatArray, *, n_voxels: int, threads: int = 1
) -> NDArray[np.float32]:
    """What :func:`weighted_sums` gives, from frames of which any piece can be had at any time.

    Parameters
    ----------
    piece
        Values of a frame from one voxel to another; called in several threads.
    weights
        Shape (n_maps, n_frames).
    n_voxels
        Voxels of a frame.

    Returns
    -------
    ndarray
        Shape (n_maps, n_voxels); the same bits as the other.
    """
    factors = np.asarray(weights, dtype=np.float64)
    used = np.flatnonzero(factors.any(axis=0))
    maps = np.empty((len(factors), n_voxels), dtype=np.float32)

    def fill(start: int) -> None:
        stop = min(start + _PIECE_VOXELS, n_voxels)
        totals = np.zeros((len(factors), stop - start))
        for index in used.tolist():
            values = piece(index, start, stop)
            for total, factor in zip(totals, factors[:, index], strict=True):
                if factor:
                    _add(values, factor, total)
        maps[:, start:stop] = totals

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(0, n_voxels, _PIECE_VOXELS)))
    return maps


def _narrowed(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The values as float32, in the memory that they had as float64: a copy would be the peak."""
    narrow = values.view(np.float32)[: values.size]
    for start in range(0, values.size, _NARROWED_AT_ONCE):
        # A value lies behind where it goes, so none is overwritten before it is read.
        narrow[start : start + _NARROWED_AT_ONCE] = values[start : start + _NARROWED_AT_ONCE].astype(
            np.float32
        )
    return narrow


def smooth_image(image: FloatArray, *, fwhm_mm: float, voxel_sizes_mm: FloatArray) -> NDArray[np.float32]:
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
def _add(values: FloatArray, factor: float, total: NDArray[np.float64]) -> None:
    for v in range(values.size):
        total[v] += factor * np.float64(values[v])
