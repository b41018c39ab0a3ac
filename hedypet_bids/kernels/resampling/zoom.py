"""Whole volumes on finer or coarser voxels: what ``scipy.ndimage.zoom`` gives, in less memory and time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.model import IntArray

_SLAB_VOXELS = 1 << 22


def zoom_linear(volume: NDArray[Any], factors: Sequence[float], *, threads: int = 1) -> IntArray:
    """A volume, interpolated linearly and cut to whole numbers.

    Equal to ``zoom(volume.astype(float), factors, order=1, mode="nearest").astype(int32)`` in every voxel,
    but made slab by slab, so that no volume of floats is ever whole in memory.

    Parameters
    ----------
    factors
        Voxels of the result for each voxel of the volume, one factor an axis.
    """
    shape = tuple(round(n * factor) for n, factor in zip(volume.shape, factors, strict=True))
    kind = volume.dtype if volume.dtype == np.int16 else np.dtype(np.int32)
    # The distance of two voxels of the result, in voxels of the volume: both grids share their end points.
    steps = [(n - 1) / (m - 1) if m > 1 else 1.0 for n, m in zip(volume.shape, shape, strict=True)]
    if 0 in steps:
        # A single plane: the bounds of slabs have no place along it.
        zoomed = ndimage.zoom(volume.astype(np.float64), factors, order=1, mode="nearest")
        return zoomed.astype(kind)
    result = np.empty(shape, kind)
    volume = np.ascontiguousarray(volume)  # twice as fast as in Fortran order

    def fill(bounds: tuple[int, int]) -> None:
        low, high = bounds
        slab = np.empty((high - low, *shape[1:]))
        offset = [steps[0] * low, 0.0, 0.0]
        ndimage.affine_transform(volume, steps, offset, output=slab, order=1, mode="nearest")
        result[low:high] = slab.astype(kind)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, pairwise(_bounds(shape, steps[0]))))
    return result


def _bounds(shape: tuple[int, ...], step: float) -> list[int]:
    """Where slabs begin, and the end of the last one.

    ``affine_transform`` takes an offset in voxels of the volume and divides it by the step again; only
    where that gives the whole number back are its voxels those of ``zoom``.
    """
    n_planes = max(1, _SLAB_VOXELS // max(1, shape[1] * shape[2]))
    bounds = [0]
    for plane in range(1, shape[0]):
        if plane >= bounds[-1] + n_planes and plane * step / step == plane:
            bounds.append(plane)
    return [*bounds, shape[0]]


def zoom_nearest(labels: IntArray, shape: Sequence[int]) -> IntArray:
    """Labels on a grid of another shape, each voxel with the label nearest to it.

    Equal to ``zoom(labels, shape / labels.shape, order=0, mode="nearest")`` in every voxel.
    """
    for axis, (n, wanted) in enumerate(zip(labels.shape, shape, strict=True)):
        # Along each axis on its own: scipy rounds every coordinate by itself.
        nearest = ndimage.zoom(np.arange(n, dtype=np.float64), wanted / n, order=0, mode="nearest")
        labels = labels.take(nearest.astype(np.intp), axis=axis)
    return labels
