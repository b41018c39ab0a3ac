"""The centreline of a tubular mask in world mm, whatever order the voxels are stored in.

Everything runs in one canonical storage order on a cropped copy, in mm relative
to the corner of the crop. All 48 axis orders and flips of an image therefore take
the same numbers through the same operations and give identical results.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from hedypet_bids.errors import BadDataError
from hedypet_bids.model import BoolArray, Matrix

Points = NDArray[np.float64]
Indices = NDArray[np.int64]

STEP_MM = 1.0
# Cost per mm is depth ** -4: leaving the middle (12 mm deep) through a contact between two limbs
# (3 mm deep) costs 256 times as much per mm, more than any way round through the arch.
_COST_POWER = 4
# A third of the radius of the arch: stiffer would cut its corner.
_STIFF_MM = 10.0
_NEIGHBOURS = np.array([o for o in product((-1, 0, 1), repeat=3) if o > (0, 0, 0)], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Crop:
    """The smallest box around a mask, read in canonical (closest to RAS+) storage order.

    Parameters
    ----------
    slices
        The box in the input array.
    axes, flips
        Canonical axis k is input axis ``axes[k]``, reversed where ``flips[k]``.
    linear
        3x3 matrix from canonical voxel steps to mm.
    origin_mm
        World position of the first canonical voxel of the box.
    at_low, at_high
        Whether the box touches the first or last plane of the image, per canonical axis.
    """

    slices: tuple[slice, slice, slice]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    linear: NDArray[np.float64]
    origin_mm: NDArray[np.float64]
    at_low: tuple[bool, bool, bool]
    at_high: tuple[bool, bool, bool]

    @property
    def box_shape(self) -> tuple[int, int, int]:
        """Shape of the box in canonical order."""
        i, j, k = (self.slices[a].stop - self.slices[a].start for a in self.axes)
        return i, j, k

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel, mL."""
        return float(abs(np.linalg.det(self.linear)) / 1000.0)

    @property
    def voxel_sizes_mm(self) -> NDArray[np.float64]:
        """Length of the voxel edges along the canonical axes, mm."""
        sizes: NDArray[np.float64] = np.sqrt((self.linear**2).sum(axis=0))
        return sizes

    def take(self, array: NDArray[Any]) -> NDArray[Any]:
        """The box of an input-order array, contiguous in canonical order."""
        box = array[self.slices].transpose(self.axes)
        return np.ascontiguousarray(np.flip(box, tuple(k for k in range(3) if self.flips[k])))

    def put(self, box: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """A zero array of the input shape and order with the canonical box put back in its place."""
        out = np.zeros(shape, dtype=box.dtype)
        unflipped = np.flip(box, tuple(k for k in range(3) if self.flips[k]))
        out[self.slices] = unflipped.transpose(np.argsort(self.axes))
        return out

    def to_mm(self, voxels: Indices) -> Points:
        """Position of canonical voxels, mm from the first voxel of the box along world axes."""
        position: Points = voxels.astype(np.float64) @ self.linear.T
        return position

    def to_voxels(self, points: Points) -> Points:
        """Fractional canonical voxel indices of points given in mm from the first voxel."""
        voxels: Points = np.asarray(np.linalg.solve(self.linear, points.T).T, dtype=np.float64)
        return voxels


def crop_to(mask: BoolArray, affine: Matrix) -> Crop:
    """The canonical box around the true voxels of a mask.

    Raises
    ------
    BadDataError
        The mask has no true voxel.
    """
    spans = _true_spans(mask)
    axes, flips = _canonical_order(affine[:3, :3])
    corner = [spans[a].stop - 1 if f else spans[a].start for a, f in zip(axes, flips, strict=True)]
    corner_in_input_order = np.array(corner, dtype=np.float64)[np.argsort(axes)]
    low = [spans[a].start == 0 for a in axes]
    high = [spans[a].stop == mask.shape[a] for a in axes]
    ends = [(h, lo) if f else (lo, h) for lo, h, f in zip(low, high, flips, strict=True)]
    signs = np.where(flips, -1.0, 1.0)
    return Crop(
        slices=spans,
        axes=axes,
        flips=flips,
        linear=affine[:3, :3][:, list(axes)] * signs,
        origin_mm=affine[:3, :3] @ corner_in_input_order + affine[:3, 3],
        at_low=(ends[0][0], ends[1][0], ends[2][0]),
        at_high=(ends[0][1], ends[1][1], ends[2][1]),
    )


def _true_spans(mask: BoolArray) -> tuple[slice, slice, slice]:
    """The slice from the first to the last true voxel, per axis."""
    plane = np.any(mask, axis=2)
    lines = (np.any(plane, axis=1), np.any(plane, axis=0), np.any(mask, axis=(0, 1)))
    if not np.any(plane):
        raise BadDataError("The mask is empty; expected at least one voxel of the structure to be traced.")
    hits = [np.flatnonzero(line) for line in lines]
    a, b, c = (slice(int(h[0]), int(h[-1]) + 1) for h in hits)
    return a, b, c


def _canonical_order(linear: NDArray[np.float64]) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Axis order and flips that bring the voxel axes closest to +x, +y, +z.

    A tie (a grid turned by 45 degrees) is broken by the resulting matrix, so that it does not depend
    on the order in which the voxels happen to be stored.
    """
    cosines = linear / np.sqrt((linear**2).sum(axis=0))
    best: tuple[float, list[float]] | None = None
    order, flips = (0, 1, 2), (False, False, False)
    for p in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        flipped = tuple(bool(cosines[k, p[k]] < 0) for k in range(3))
        turned = cosines[:, list(p)] * np.where(flipped, -1.0, 1.0)
        key = (round(float(np.trace(turned)), 9), np.round(turned, 9).ravel().tolist())
        if best is None or key > best:
            best, order, flips = key, p, (flipped[0], flipped[1], flipped[2])
    return order, flips


@dataclass(frozen=True, eq=False)
class Cloud:
    """The voxels of a mask as points.

    Parameters
    ----------
    voxels
        Canonical indices, shape (n, 3), in storage order.
    points
        The same in mm from the first voxel of the box.
    depth_mm
        Distance to the nearest voxel outside the mask (the edge of the image counts as outside), shape (n,).
    """

    crop: Crop
    voxels: Indices
    points: Points
    depth_mm: NDArray[np.float64]

    def only(self, chosen: NDArray[Any]) -> Cloud:
        """The cloud of some of the voxels, depths unchanged."""
        return Cloud(self.crop, self.voxels[chosen], self.points[chosen], self.depth_mm[chosen])


def cloud_of(box: BoolArray, crop: Crop) -> Cloud:
    """The voxels of a canonical mask with their depth below its surface.

    The nearest outside voxel of any voxel has a face neighbour inside, so a search among those voxels
    alone is an exact distance transform; it also holds for sheared grids and costs less than one.
    """
    padded = np.pad(box, 1)
    shell = ndimage.binary_dilation(padded) & ~padded
    voxels = np.argwhere(box)
    points = crop.to_mm(voxels)
    depth, _ = cKDTree(crop.to_mm(np.argwhere(shell) - 1)).query(points)
    return Cloud(crop, voxels, points, np.asarray(depth, dtype=np.float64))


def trace(cloud: Cloud, links: list[tuple[int, int]]) -> Points:
    """A central path between the two ends of a tube that lie furthest apart along it, shape (n, 3), mm.

    Two sweeps: from the lowest deep voxel to the end furthest along the tube, and from there to the
    end furthest along the tube, which need not be the first voxel (an iliac stump, a cut limb).

    Parameters
    ----------
    cloud
        Voxels of the tube.
    links
        Pairs of voxel numbers to be joined although they do not touch (bridges across gaps).
    """
    graph = _graph(cloud, links)
    low = cloud.points[:, 2] < cloud.points[:, 2].min() + 12.0
    start = int(np.flatnonzero(low)[np.argmax(cloud.depth_mm[low])])
    far = _sweep(graph, cloud, start)[-1]
    path = _sweep(graph, cloud, far)
    return cloud.points[_without_corners(path, cloud)]


def _graph(cloud: Cloud, links: list[tuple[int, int]]) -> Any:
    """Sparse matrix of the costs between 26-connected voxels, each pair once."""
    numbers = np.full(cloud.voxels.max(axis=0) + 3, -1, dtype=np.int64)
    cells = cloud.voxels + 1
    numbers[tuple(cells.T)] = np.arange(len(cells))
    cost = np.maximum(cloud.depth_mm, 1e-3) ** -_COST_POWER
    rows, columns, weights = [], [], []
    for offset in _NEIGHBOURS:
        other = numbers[tuple((cells + offset).T)]
        here = np.flatnonzero(other >= 0)
        there = other[here]
        length = float(np.linalg.norm(cloud.crop.linear @ offset))
        rows.append(here)
        columns.append(there)
        weights.append(length * (cost[here] + cost[there]) / 2)
    for a, b in links:
        length = float(np.linalg.norm(cloud.points[a] - cloud.points[b]))
        rows.append(np.array([a]))
        columns.append(np.array([b]))
        weights.append(np.array([length * float(np.median(cost))]))
    n = len(cells)
    entries = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    return coo_array(entries, shape=(n, n)).tocsr()


def _sweep(graph: Any, cloud: Cloud, start: int) -> Indices:
    """The cheapest path from a voxel to the voxel whose cheapest path is longest in mm."""
    _, trees = dijkstra(graph, directed=False, indices=[start], return_predecessors=True)
    before = trees[0]
    parent = np.where(before >= 0, before, np.arange(len(before)))
    length = np.linalg.norm(cloud.points - cloud.points[parent], axis=1)
    # Pointer doubling: length is always that from a voxel to its current parent.
    while (parent != parent[parent]).any():
        length = length + length[parent]
        parent = parent[parent]
    end = int(np.argmax(length))
    path = [end]
    while path[-1] != start:
        path.append(int(before[path[-1]]))
    return np.array(path[::-1], dtype=np.int64)


def _without_corners(path: Indices, cloud: Cloud) -> Indices:
    """The path without its two last stretches, where it leaves the middle for a corner of the end face."""
    depth = cloud.depth_mm[path]
    travelled = arc_length(cloud.points[path])
    head = travelled <= 30.0
    tail = travelled >= travelled[-1] - 30.0
    first = int(np.argmax(head & (depth >= 0.9 * depth[head].max())))
    last = len(path) - int(np.argmax((tail & (depth >= 0.9 * depth[tail].max()))[::-1]))
    return path[first:last] if last - first >= 2 else path


def nearest_points(line: Points, points: Points) -> tuple[NDArray[np.float64], Indices]:
    """Distance to the line, mm, and the number of its nearest point, for each of some points."""
    distance, nearest = cKDTree(line).query(points)
    return np.asarray(distance, dtype=np.float64), np.asarray(nearest, dtype=np.int64)


def arc_length(points: Points) -> NDArray[np.float64]:
    """Length of a polyline from its first point to each of its points, mm, shape (n,)."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def resample(points: Points, step_mm: float = STEP_MM) -> Points:
    """A polyline with points every step_mm along it; the last point is kept to within half a step."""
    travelled = arc_length(points)
    n = max(2, round(travelled[-1] / step_mm) + 1)
    at = np.linspace(0.0, travelled[-1], n)
    return np.column_stack([np.interp(at, travelled, points[:, k]) for k in range(3)])


def smooth_path(points: Points, sigma_mm: float) -> Points:
    """A 1 mm polyline smoothed along itself, its ends held in place.

    Reflecting through the end points keeps the ends where they are and their direction straight.
    """
    n = min(len(points) - 1, int(np.ceil(4 * sigma_mm / STEP_MM)))
    head = 2 * points[0] - points[n:0:-1]
    tail = 2 * points[-1] - points[-2 : -n - 2 : -1]
    padded = np.concatenate([head, points, tail])
    rounded: Points = ndimage.gaussian_filter1d(padded, sigma_mm / STEP_MM, axis=0, mode="nearest")
    return rounded[n : n + len(points)]


def centre(path: Points, cloud: Cloud) -> Points:
    """A smooth centreline at 1 mm steps from a voxel path, running from end to end of the tube.

    Each round moves the line to the depth-weighted centre of the voxels around it. The weights keep
    side branches and contacts with a neighbouring limb, which are shallow, from pulling at the line.
    """
    sigma_mm = max(4.0, 0.75 * float(cloud.crop.voxel_sizes_mm.mean()))
    line = smooth_path(resample(path), sigma_mm)
    for _ in range(2):
        # Slabs across a line that wiggles make it wiggle more, so they are laid across a stiff one.
        line = _recentred(smooth_path(line, _STIFF_MM), cloud, sigma_mm)
    return _extended(line, cloud)


def _recentred(line: Points, cloud: Cloud, sigma_mm: float) -> Points:
    """The line moved to the local centre of the tube, across its own direction only, and smoothed."""
    distance, nearest = nearest_points(line, cloud.points)
    voxel_mm = float(cloud.crop.voxel_sizes_mm.max())
    reach = 1.3 * float(np.median(cloud.depth_mm[distance <= voxel_mm]))
    tangent = np.gradient(line, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    # The last points of the line have all that lies beyond them for neighbours; only their slab counts.
    ahead = np.abs(((cloud.points - line[nearest]) * tangent[nearest]).sum(axis=1))
    near = (distance <= reach) & (ahead <= voxel_mm)
    nearest, weight = nearest[near], cloud.depth_mm[near] ** 2
    shift = cloud.points[near] - line[nearest]
    total = np.bincount(nearest, weight, len(line))
    sums = np.column_stack([np.bincount(nearest, weight * shift[:, k], len(line)) for k in range(3)])
    spread = sigma_mm / STEP_MM
    total = ndimage.gaussian_filter1d(total, spread, mode="nearest")
    sums = ndimage.gaussian_filter1d(sums, spread, axis=0, mode="nearest")
    # In a gap there is next to nothing to be in the middle of: there the line stays where it is.
    move = sums / (total + 0.2 * float(np.median(total)))[:, None]
    along: Points = (move * tangent).sum(axis=1, keepdims=True) * tangent
    return smooth_path(resample(line + move - along), sigma_mm)


def _extended(line: Points, cloud: Cloud) -> Points:
    """The line with both ends carried on to where they leave the mask."""
    inside = np.zeros(cloud.voxels.max(axis=0) + 2, dtype=bool)
    inside[tuple(cloud.voxels.T)] = True
    limit_mm = 1.5 * float(cloud.depth_mm.max())
    tail = _continuation(line, cloud.crop, inside, limit_mm)
    head = _continuation(line[::-1], cloud.crop, inside, limit_mm)
    return resample(np.concatenate([head[::-1], line, tail]))


def _continuation(line: Points, crop: Crop, inside: BoolArray, limit_mm: float) -> Points:
    """Points every 1 mm beyond the last point of a line, as long as they stay in the mask.

    The line goes on as it bends over its last 3 cm; going on straight would leave an arch at its roof.
    """
    known = line[-min(len(line), 30) :]
    order = 2 if len(known) >= 15 else 1
    bend = np.polynomial.polynomial.polyfit(np.arange(1 - len(known), 1), known, order)
    on = np.arange(STEP_MM, limit_mm + STEP_MM, STEP_MM)
    shift = line[-1] - bend[0]
    ahead = np.polynomial.polynomial.polyval(on / STEP_MM, bend).T + shift
    within = inside_at(ahead, crop, inside)
    kept: Points = ahead[: len(within) if within.all() else int(np.argmin(within))]
    return kept


def inside_at(points: Points, crop: Crop, box: BoolArray) -> BoolArray:
    """Whether the voxel nearest to each point is true; outside the box it is not."""
    voxels = np.rint(crop.to_voxels(points)).astype(np.int64)
    valid = np.all((voxels >= 0) & (voxels < box.shape), axis=1)
    out = np.zeros(len(points), dtype=bool)
    out[valid] = box[tuple(voxels[valid].T)]
    return out
