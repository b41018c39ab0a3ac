"""Mean and standard deviation of every region of every segmentation, in one pass over the frames.

All label maps of a grid are combined into one joint label per voxel. Neighbouring voxels (in memory)
with the same joint label form a run, and only runs are visited. Sums are taken per joint label and
folded back per region.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hedypet_bids.model import FloatArray, IntArray

# What a thread sums at a time.
_PART_VOXELS = 1 << 23

RegionKey = tuple[str, int]
"""Task and number of erosions."""


@dataclass(frozen=True, eq=False)
class RegionSet:
    """The regions of one label map: one task with one erosion.

    Parameters
    ----------
    key
        Task and number of erosions; names the set in the results.
    labels
        Integers, shape of the grid.
    indices
        The labels that are regions, in the order of the results; those without voxels count as empty.
    """

    key: RegionKey
    labels: IntArray
    indices: IntArray


@dataclass(frozen=True, eq=False)
class RegionStats:
    """Statistics of the regions of one set.

    Parameters
    ----------
    mean, std
        Mean and population standard deviation over the finite voxels, shape (n_regions, n_frames);
        NaN where there is none.
    n_valid
        Number of finite voxels, shape (n_regions, n_frames).
    n_voxels
        Number of voxels, shape (n_regions,).
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    n_valid: NDArray[np.int64]
    n_voxels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Members:
    """Which joint labels make up which regions of a set: pairs (region, joint label)."""

    n_regions: int
    region: NDArray[np.int64]
    joint: NDArray[np.int64]

    def sum(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Per region the sum over its joint labels of ``values`` (one per pair)."""
        return np.bincount(self.region, weights=values, minlength=self.n_regions).astype(
            np.float64, copy=False
        )


@dataclass(frozen=True, eq=False)
class JointLabels:
    """Every set of regions on one grid, as runs of voxels with the same joint label.

    Parameters
    ----------
    shape
        Of the grid.
    run_start, run_stop
        First and one past the last voxel of each run, counted in Fortran order.
    run_joint
        Joint label of each run.
    n_voxels
        Voxels of each joint label.
    members
        The joint labels of every region, by set.
    """

    shape: tuple[int, ...]
    run_start: NDArray[np.int64]
    run_stop: NDArray[np.int64]
    run_joint: NDArray[np.int32]
    n_voxels: NDArray[np.int64]
    members: Mapping[RegionKey, _Members]

    @classmethod
    def combine(cls, sets: Iterable[RegionSet]) -> JointLabels:
        """The joint labels of some sets; each label map is needed only while it is taken in.

        Parameters
        ----------
        sets
            Sets of regions whose label maps have the same shape.

        Returns
        -------
        JointLabels
            What :func:`region_statistics` takes.

        Raises
        ------
        ValueError
            There is no set, the shapes differ, or an index is negative.
        """
        joint: NDArray[np.int32] | None = None
        shape: tuple[int, ...] = ()
        # Row j holds the region (counted from 1, 0 for none) of joint label j in each set so far.
        rows = np.zeros((1, 0), dtype=np.int32)
        keys: list[RegionKey] = []
        sizes: list[int] = []
        for each in sets:
            if joint is None:
                shape = each.labels.shape
                joint = np.zeros(int(np.prod(shape)), dtype=np.int32)
            if each.labels.shape != shape:
                raise ValueError(f"label maps of shapes {shape} and {each.labels.shape} cannot be combined")
            regions = _region_of_label(each)
            rows = _refine(joint, each.labels, regions, rows, len(each.indices))
            keys.append(each.key)
            sizes.append(len(each.indices))
        if joint is None:
            raise ValueError("there is no label map to combine")
        start, stop, run_joint = _runs(joint, (rows != 0).any(axis=1))
        counts = np.bincount(run_joint, weights=stop - start, minlength=len(rows)).astype(np.int64)
        members = {
            key: _members(rows[:, column], size)
            for column, (key, size) in enumerate(zip(keys, sizes, strict=True))
        }
        return cls(shape, start, stop, run_joint, counts, members)


def region_statistics(
    frames: Iterable[FloatArray], joint: JointLabels, *, threads: int = 1
) -> dict[RegionKey, RegionStats]:
    """Statistics of every region in every frame.

    Sums are float64; deviations are taken from the mean of each joint label in a second pass over
    the frame, so the standard deviation is right however small it is against the mean.

    Parameters
    ----------
    frames
        Images of the grid's shape, one at a time.
    joint
        The label maps, from :meth:`JointLabels.combine`.
    threads
        Threads that sum; the results do not depend on it.

    Returns
    -------
    dict
        The statistics of each set of regions by its key.

    Raises
    ------
    ValueError
        A frame has another shape.

    Examples
    --------
    >>> labels = np.array([[[1, 1, 2, 0]]])
    >>> joint = JointLabels.combine([RegionSet(("total", 0), labels, np.array([1, 2]))])
    >>> frames = [np.array([[[1.0, 3.0, 5.0, 9.0]]]), np.array([[[2.0, 2.0, np.nan, 9.0]]])]
    >>> found = region_statistics(frames, joint)["total", 0]
    >>> found.mean.tolist()
    [[2.0, 2.0], [5.0, nan]]
    >>> found.n_valid.tolist()
    [[2, 2], [1, 0]]
    """
    with ThreadPoolExecutor(threads) as pool:
        moments = [_moments(frame, joint, pool) for frame in frames]
    n, mean, squares = (np.array([m[part] for m in moments]) for part in range(3))
    return {key: _fold(members, joint, n, mean, squares) for key, members in joint.members.items()}


def _moments(
    frame: FloatArray, joint: JointLabels, pool: ThreadPoolExecutor
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Per joint label: finite voxels, their mean, and the sum of their squared deviations from it."""
    if frame.shape != joint.shape:
        raise ValueError(f"a frame of shape {frame.shape} does not fit labels of shape {joint.shape}")
    flat = frame.reshape(-1, order="F")
    size = len(joint.n_voxels)

    def sums(runs: slice) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        n, total = np.zeros(size, dtype=np.int64), np.zeros(size)
        _sum_runs(flat, joint.run_start[runs], joint.run_stop[runs], joint.run_joint[runs], n, total)
        return n, total

    def squares_of(runs: slice) -> NDArray[np.float64]:
        squares = np.zeros(size)
        _sum_squares_of_runs(
            flat, joint.run_start[runs], joint.run_stop[runs], joint.run_joint[runs], mean, squares
        )
        return squares

    # Parts of one size, whatever the number of threads: so the order of the sums is always the same.
    bounds = np.searchsorted(joint.run_start, np.arange(0, flat.size, _PART_VOXELS)).tolist()
    parts = [slice(*each) for each in pairwise([*bounds, len(joint.run_start)])]
    n, total = (sum(each) for each in zip(*pool.map(sums, parts), strict=True))
    mean = np.divide(total, n, out=np.zeros(size), where=n > 0)
    return n, mean, sum(pool.map(squares_of, parts), np.zeros(size))


def _fold(
    members: _Members,
    joint: JointLabels,
    n: NDArray[np.int64],
    mean: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> RegionStats:
    """Statistics of the regions of a set from those of their joint labels, by the parallel-axis rule."""
    folded = [_fold_frame(members, n[f], mean[f], squares[f]) for f in range(len(n))]
    region_n, region_mean, region_std = (
        np.array([f[part] for f in folded]).reshape(len(folded), members.n_regions).T for part in range(3)
    )
    return RegionStats(
        mean=region_mean,
        std=region_std,
        n_valid=region_n.astype(np.int64),
        n_voxels=members.sum(joint.n_voxels[members.joint]).astype(np.int64),
    )


def _fold_frame(
    members: _Members, n: NDArray[np.int64], mean: NDArray[np.float64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    n_part, mean_part = n[members.joint], mean[members.joint]
    count = members.sum(n_part)
    empty = np.full(members.n_regions, np.nan)
    region_mean = np.divide(members.sum(n_part * mean_part), count, out=empty, where=count > 0)
    spread = np.where(n_part > 0, n_part * (mean_part - region_mean[members.region]) ** 2, 0.0)
    total = members.sum(squares[members.joint] + spread)
    variance = np.divide(total, count, out=np.full(members.n_regions, np.nan), where=count > 0)
    return count, region_mean, np.sqrt(variance)


def _region_of_label(each: RegionSet) -> NDArray[np.int32]:
    """For every label up to the largest in the map, its region counted from 1, or 0."""
    indices = np.asarray(each.indices)
    if indices.size and indices.min() < 0:
        raise ValueError(f"label indices must not be negative; found {indices.min()}")
    largest = int(max(indices.max(initial=0), each.labels.max(initial=0)))
    regions = np.zeros(largest + 1, dtype=np.int32)
    regions[indices] = np.arange(1, indices.size + 1)
    return regions


def _refine(
    joint: NDArray[np.int32],
    labels: IntArray,
    regions: NDArray[np.int32],
    rows: NDArray[np.int32],
    n_regions: int,
) -> NDArray[np.int32]:
    """Split the joint labels (in place) by the regions of one more set; the rows of the new ones."""
    # Most label maps refine few joint labels: new numbers are given as combinations are met.
    table = np.full((len(rows), n_regions + 1), -1, dtype=np.int32)
    n_new = _renumber(joint, labels.reshape(-1, order="F"), regions, table)
    old, region = np.nonzero(table >= 0)
    order = np.argsort(table[old, region])
    assert len(order) == n_new
    return np.column_stack([rows[old[order]], region[order].astype(np.int32)])


def _members(regions: NDArray[np.int32], n_regions: int) -> _Members:
    joint = np.flatnonzero(regions)
    return _Members(n_regions, regions[joint].astype(np.int64) - 1, joint)


def _runs(
    joint: NDArray[np.int32], wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Runs of voxels with the same joint label, without those that belong to no region."""
    n = _count_runs(joint, wanted)
    start, stop = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    run_joint = np.empty(n, dtype=np.int32)
    _fill_runs(joint, wanted, start, stop, run_joint)
    return start, stop, run_joint


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _renumber(
    joint: NDArray[np.int32], labels: NDArray[Any], regions: NDArray[np.int32], table: NDArray[np.int32]
) -> int:
    n_new = 0
    for v in range(joint.size):
        region = regions[labels[v]]
        new = table[joint[v], region]
        if new < 0:
            new = n_new
            table[joint[v], region] = new
            n_new += 1
        joint[v] = new
    return n_new


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _count_runs(joint: NDArray[np.int32], wanted: NDArray[np.bool_]) -> int:
    n = 0
    before = -1
    for v in range(joint.size):
        if joint[v] != before:
            before = joint[v]
            if wanted[before]:
                n += 1
    return n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill_runs(
    joint: NDArray[np.int32],
    wanted: NDArray[np.bool_],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    run_joint: NDArray[np.int32],
) -> None:
    n = -1
    before = -1
    for v in range(joint.size):
        if joint[v] != before:
            before = joint[v]
            if wanted[before]:
                n += 1
                start[n] = v
                run_joint[n] = before
        if wanted[before]:
            stop[n] = v + 1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sum_runs(
    values: FloatArray,
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    run_joint: NDArray[np.int32],
    n: NDArray[np.int64],
    total: NDArray[np.float64],
) -> None:
    for r in range(start.size):
        count = 0
        run_total = 0.0
        for v in range(start[r], stop[r]):
            value = np.float64(values[v])
            if np.isfinite(value):
                count += 1
                run_total += value
        n[run_joint[r]] += count
        total[run_joint[r]] += run_total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sum_squares_of_runs(
    values: FloatArray,
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    run_joint: NDArray[np.int32],
    mean: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    for r in range(start.size):
        centre = mean[run_joint[r]]
        run_squares = 0.0
        for v in range(start[r], stop[r]):
            value = np.float64(values[v])
            if np.isfinite(value):
                run_squares += (value - centre) ** 2
        squares[run_joint[r]] += run_squares
