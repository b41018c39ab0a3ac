"""Voxel maps as weighted sums over streamed frames."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hedypet_bids.model import FloatArray


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


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(frame: FloatArray, factors: NDArray[np.float64], sums: NDArray[np.float64]) -> None:
    used = np.flatnonzero(factors)
    for v in range(frame.size):
        value = np.float64(frame[v])
        for m in used:
            sums[v, m] += factors[m] * value
