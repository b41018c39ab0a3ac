"""Maps of the two-tissue model over a body, slab by slab, with the delay of each voxel's neighbourhood first.

A delay is no property of a voxel: blood comes to neighbours at the same time, and with the noise of one voxel
a delay that is free would take what is due to the blood fraction. So it is found in blocks of neighbours, and
that of a voxel is looked for near it. A slab holds some layers of such blocks and what lies around them, so
that its size changes nothing but the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hedypet_bids.kernels.kinetics.voxel_compartments import (
    CurveSpace,
    find_delays,
    fit_voxels,
    weighted_sums_of_frames,
)
from hedypet_bids.kernels.kinetics.weighted_sums import FWHM_PER_SIGMA
from hedypet_bids.model import FloatArray

NEIGHBOURHOOD_MM = 16.0
"""Edge of the blocks in which the delay is found first, mm."""
SLAB_VOXELS = 1 << 19
# Frames of so many voxels are read at a time; no power of two, whose strides fall on one line of a cache.
_READ_AT_ONCE = 60_000
_SMOOTHED_AT_ONCE = 1 << 14
# Beyond so many standard deviations a Gaussian is 0.
_TRUNCATE = 4.0


Frames = Callable[[int, int, int], FloatArray]
"""What a frame holds in the voxels from one place among those of a body to another."""


@dataclass(frozen=True, eq=False)
class BodyVoxels:
    """The voxels of a body in the frames of a series.

    Parameters
    ----------
    shape
        Voxels of the grid along i, j and k.
    voxel_sizes_mm
        Along the same.
    positions
        Of the body's voxels in the grid, flat in Fortran order, increasing.
    scale
        What the values of each frame are multiplied by to be Bq/mL, shape (n_frames,).
    frames_of
        Gives for the voxels from one place among ``positions`` to another a function that reads their frames.
        The places increase from call to call, but for what slabs have in common; what it gives is called in
        several threads.

    Examples
    --------
    >>> values = np.ones((2, 3))
    >>> read = lambda frame, first, last: values[frame, first:last]
    >>> body = BodyVoxels((2, 2, 1), np.ones(3), np.array([0, 1, 3]), np.ones(2), lambda *_: read)
    >>> body.places(0, 1)
    (0, 3)
    """

    shape: tuple[int, int, int]
    voxel_sizes_mm: NDArray[np.float64]
    positions: NDArray[np.integer]
    scale: NDArray[np.float64]
    frames_of: Callable[[int, int], Frames]

    def places(self, first_plane: int, last_plane: int) -> tuple[int, int]:
        """The places of the voxels from one plane of the last axis to before another.

        Parameters
        ----------
        first_plane, last_plane
            Counted from 0.

        Returns
        -------
        tuple
            From and to.
        """
        per_plane = self.shape[0] * self.shape[1]
        first, last = np.searchsorted(self.positions, [first_plane * per_plane, last_plane * per_plane])
        return int(first), int(last)


class _Slab(NamedTuple):
    """Planes of which the voxels are fitted, and those that have to be known for it."""

    first: int
    last: int
    outer_first: int
    outer_last: int


def body_maps(
    body: BodyVoxels,
    space: CurveSpace,
    *,
    fwhm_mm: float = 0.0,
    threads: int = 1,
    slab_voxels: int = SLAB_VOXELS,
) -> dict[str, NDArray[np.float32]]:
    """Ki, K1, blood fraction and delay of every voxel of a body.

    The delay is found in blocks of :data:`NEIGHBOURHOOD_MM`, interpolated linearly between them, and then
    looked for in each voxel at most ``REACH_S`` away from that.

    Parameters
    ----------
    body
        Its voxels and their frames.
    space
        That of the input function.
    fwhm_mm
        Width of the Gaussian that smooths the frames before voxels are fitted, mm, over the body alone; 0:
        none.
    threads
        Their number changes nothing.
    slab_voxels
        So many voxels are fitted at a time, or a layer of blocks; changes nothing but the memory.

    Returns
    -------
    dict
        As :func:`~hedypet_bids.kernels.kinetics.voxel_compartments.fit_voxels`, shape (n_positions,).
    """
    edges = np.maximum(1, np.rint(NEIGHBOURHOOD_MM / body.voxel_sizes_mm)).astype(np.int64)
    maps: dict[str, NDArray[np.float32]] = {}
    for slab in _slabs(body, int(edges[2]), _radius(fwhm_mm, body.voxel_sizes_mm[2]), slab_voxels):
        first, last = body.places(slab.first, slab.last)
        if first == last:
            continue
        outer_first, outer_last = body.places(slab.outer_first, slab.outer_last)
        sums = _sums(body, outer_first, outer_last, space.weights, threads)
        local = body.positions[outer_first:outer_last] - slab.outer_first * body.shape[0] * body.shape[1]
        shape = (*body.shape[:2], slab.outer_last - slab.outer_first)
        inner = slice(first - outer_first, last - outer_first)
        near_s = neighbourhood_delays(sums, local, shape, space, edges, threads=threads)[inner]
        if fwhm_mm:
            sums = smooth_within(
                sums,
                local,
                shape,
                fwhm_mm=fwhm_mm,
                voxel_sizes_mm=body.voxel_sizes_mm,
                only=inner,
                threads=threads,
            )
        else:
            sums = sums[inner]
        for name, values in fit_voxels(sums, space, near_s=near_s, threads=threads).items():
            maps.setdefault(name, np.full(len(body.positions), np.nan, dtype=np.float32))[first:last] = values
    return maps


def neighbourhood_delays(
    sums: NDArray[np.float32],
    positions: NDArray[np.integer],
    shape: tuple[int, int, int],
    space: CurveSpace,
    edges: NDArray[np.int64],
    *,
    threads: int = 1,
) -> NDArray[np.float64]:
    """The delay around each voxel.

    Parameters
    ----------
    sums
        Weighted sums of the frames of each voxel, shape (n_voxels, n_sums).
    positions
        Of the voxels, flat in Fortran order.
    shape
        Of the grid, which begins with a whole block.
    space
        That of the input function.
    edges
        Voxels along the edges of a block.
    threads
        Their number changes nothing.

    Returns
    -------
    ndarray
        s, shape (n_voxels,): linear between the middles of blocks whose delay is within its range; an end of
        the range in all of a block whose delay is there; NaN where there is no delay around.
    """
    n_blocks = -(-np.array(shape) // edges)
    means = np.zeros((int(n_blocks.prod()), sums.shape[1]))
    _block_means(sums, positions, np.array(shape), edges, n_blocks, means)
    delays, near_s = find_delays(means.astype(np.float32), space, threads=threads), np.empty(len(positions))
    ends = np.array([space.delay_s[0], space.delay_s[-1]])
    _between_blocks(delays, ends, positions, np.array(shape), edges, n_blocks, near_s)
    return near_s


def smooth_within(
    values: NDArray[np.float32],
    positions: NDArray[np.integer],
    shape: tuple[int, int, int],
    *,
    fwhm_mm: float,
    voxel_sizes_mm: FloatArray,
    only: slice = slice(None),
    threads: int = 1,
) -> NDArray[np.float32]:
    """Values of voxels after a Gaussian filter over these voxels alone.

    Along one axis after the other each voxel takes the mean of those of the body, so that nothing comes from
    outside; voxels that are NaN stay so and give nothing.

    Parameters
    ----------
    values
        Shape (n_voxels, n_values).
    positions
        Of the voxels, flat in Fortran order, increasing.
    shape
        Of the grid.
    fwhm_mm
        Full width at half maximum.
    voxel_sizes_mm
        Along i, j and k.
    only
        The voxels that are asked for.
    threads
        Their number changes nothing.

    Returns
    -------
    ndarray
        Of the voxels asked for.
    """
    known = np.isfinite(values[:, 0])
    place = np.full(int(np.prod(shape)), -1, dtype=np.int32)
    place[positions[known]] = np.flatnonzero(known)
    weight = known.astype(np.float32)
    for axis in range(3):
        first, last, _ = (only if axis == 2 else slice(None)).indices(len(positions))
        radius = _radius(fwhm_mm, voxel_sizes_mm[axis])
        distance = np.arange(-radius, radius + 1) * voxel_sizes_mm[axis] * FWHM_PER_SIGMA / fwhm_mm
        along = _Axis(int(np.prod(shape[:axis])), shape[axis], np.exp(-(distance**2) / 2).astype(np.float32))
        values, weight = _smoothed_along(along, values, weight, positions, place, (first, last), threads)
    return values


class _Axis(NamedTuple):
    """An axis of a grid: voxels from one to the next and along it, and the filter."""

    stride: int
    length: int
    taps: NDArray[np.float32]


def _smoothed_along(
    axis: _Axis,
    values: NDArray[np.float32],
    weight: NDArray[np.float32],
    positions: NDArray[np.integer],
    place: NDArray[np.int32],
    asked: tuple[int, int],
    threads: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Values of the voxels that are asked for and their weights, smoothed along an axis."""
    first, last = asked
    smoothed = np.empty((last - first, values.shape[1]), dtype=np.float32)
    its_weight = np.empty(last - first, dtype=np.float32)

    def smooth(start: int) -> None:
        some, into = slice(start, start + _SMOOTHED_AT_ONCE), start - first
        ends = slice(into, into + _SMOOTHED_AT_ONCE)
        at = positions[:last][some]
        _smooth_along(values, weight, at, place, *axis, smoothed[ends], its_weight[ends])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(smooth, range(first, last, _SMOOTHED_AT_ONCE)))
    return smoothed, its_weight


def _radius(fwhm_mm: float, voxel_size_mm: float) -> int:
    return int(_TRUNCATE * fwhm_mm / FWHM_PER_SIGMA / voxel_size_mm + 0.5)


def _slabs(body: BodyVoxels, depth: int, radius: int, most_voxels: int) -> Iterator[_Slab]:
    """Slabs of whole layers of blocks, with a layer on both sides and what the filter needs."""
    n_planes = body.shape[2]
    around = depth * max(1, -(-radius // depth))
    first = 0
    while first < n_planes:
        last = first + depth
        while last < n_planes and np.subtract(*body.places(first, last + depth)[::-1]) <= most_voxels:
            last += depth
        last = min(last, n_planes)
        yield _Slab(first, last, max(first - around, 0), min(last + around, n_planes))
        first = last


def _sums(
    body: BodyVoxels, first: int, last: int, weights: NDArray[np.float64], threads: int
) -> NDArray[np.float32]:
    """The weighted sums of the voxels from one place to another."""
    read, n_frames = body.frames_of(first, last), len(body.scale)
    weights = weights * body.scale[:, None]
    sums = np.empty((last - first, weights.shape[1]), dtype=np.float32)

    def fill(start: int) -> None:
        stop = min(start + _READ_AT_ONCE, last)
        values = np.empty((n_frames, stop - start), dtype=np.float32)
        for frame in range(n_frames):
            values[frame] = read(frame, start, stop)
        sums[start - first : stop - first] = weighted_sums_of_frames(values, weights)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(first, last, _READ_AT_ONCE)))
    return sums


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _smooth_along(
    values: NDArray[np.float32],
    weight: NDArray[np.float32],
    positions: NDArray[np.integer],
    place: NDArray[np.int32],
    stride: int,
    length: int,
    taps: NDArray[np.float32],
    smoothed: NDArray[np.float32],
    its_weight: NDArray[np.float32],
) -> None:
    """Weighted means along an axis; the weights are those of the axes before."""
    radius = len(taps) // 2
    for v in range(len(positions)):
        position = positions[v]
        if place[position] < 0:
            smoothed[v] = np.nan
            its_weight[v] = 0.0
            continue
        at = position // stride % length
        smoothed[v] = 0.0
        total = np.float32(0.0)
        for t in range(max(-radius, -at), min(radius, length - 1 - at) + 1):
            other = place[position + t * stride]
            if other < 0:
                continue
            part = taps[radius + t] * weight[other]
            total += part
            for k in range(values.shape[1]):
                smoothed[v, k] += part * values[other, k]
        for k in range(values.shape[1]):
            smoothed[v, k] /= total
        its_weight[v] = total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _block_means(
    sums: NDArray[np.float32],
    positions: NDArray[np.integer],
    shape: NDArray[np.int64],
    edges: NDArray[np.int64],
    n_blocks: NDArray[np.int64],
    means: NDArray[np.float64],
) -> None:
    """The mean of the voxels in each block; NaN where it has none."""
    counts = np.zeros(len(means), dtype=np.int64)
    for v in range(len(positions)):
        if not np.isfinite(sums[v, 0]):
            continue
        position = positions[v]
        i, j, k = position % shape[0], position // shape[0] % shape[1], position // (shape[0] * shape[1])
        block = i // edges[0] + n_blocks[0] * (j // edges[1] + n_blocks[1] * (k // edges[2]))
        counts[block] += 1
        for n in range(sums.shape[1]):
            means[block, n] += np.float64(sums[v, n])
    for block in range(len(means)):
        if counts[block]:
            means[block] /= counts[block]
        else:
            means[block] = np.nan


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _between_blocks(
    values: NDArray[np.float64],
    ends: NDArray[np.float64],
    positions: NDArray[np.integer],
    shape: NDArray[np.int64],
    edges: NDArray[np.int64],
    n_blocks: NDArray[np.int64],
    found: NDArray[np.float64],
) -> None:
    """Values of blocks at voxels, linear between the middles of those whose values are between the ends."""
    at, below, part = np.empty(3, dtype=np.int64), np.empty(3, dtype=np.int64), np.empty(3)
    for v in range(len(positions)):
        position = positions[v]
        at[0], at[1] = position % shape[0], position // shape[0] % shape[1]
        at[2] = position // (shape[0] * shape[1])
        own = at[0] // edges[0] + n_blocks[0] * (at[1] // edges[1] + n_blocks[1] * (at[2] // edges[2]))
        if values[own] <= ends[0] or values[own] >= ends[1]:
            found[v] = values[own]
            continue
        for axis in range(3):
            exact = (at[axis] + 0.5) / edges[axis] - 0.5
            below[axis] = int(np.floor(exact))
            part[axis] = exact - below[axis]
        total, weights = 0.0, 0.0
        for corner in range(8):
            block, weight, inside = 0, 1.0, True
            for axis in range(2, -1, -1):
                upper = corner >> axis & 1
                n = below[axis] + upper
                inside = inside and 0 <= n < n_blocks[axis]
                weight *= part[axis] if upper else 1 - part[axis]
                block = block * n_blocks[axis] + n
            if inside and weight > 0 and ends[0] < values[block] < ends[1]:
                total += weight * values[block]
                weights += weight
        found[v] = total / weights if weights > 0 else np.nan
