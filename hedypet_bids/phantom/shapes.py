"""Solids given by formulas, and painting them on any voxel grid.

A solid answers for points, not voxels, so every grid samples the same continuous body. Painting looks
at each solid's bounding box only, a few planes of the grid at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.model import BoolArray, Grid, Matrix

Coords = NDArray[np.float64]
Bounds = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Lower and upper corner of a box, mm."""

# Voxels that are painted together (whole planes): large enough for numpy, small in memory.
_SLAB_VOXELS = 1 << 22


class Solid(Protocol):
    """A set of points."""

    @property
    def bounds(self) -> Bounds:
        """A box around it."""

    def inside(self, x: Coords, y: Coords, z: Coords) -> BoolArray:
        """Whether points (arrays that broadcast together, mm) belong to it."""


class Parcels(Protocol):
    """A numbering of points from 0, to divide a solid into several regions."""

    def number(self, x: Coords, y: Coords, z: Coords) -> NDArray[np.int64]:
        """The parcel of each point."""


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid along the axes, cut by the half spaces ``nx x + ny y + nz z <= d``."""

    centre: tuple[float, float, float]
    semi: tuple[float, float, float]
    cuts: tuple[tuple[float, float, float, float], ...] = ()

    @property
    def bounds(self) -> Bounds:
        """A box around it."""
        (cx, cy, cz), (a, b, c) = self.centre, self.semi
        return (cx - a, cy - b, cz - c), (cx + a, cy + b, cz + c)

    @property
    def volume_mm3(self) -> float:
        """Volume of the whole ellipsoid, without regard to its cuts."""
        return float(4.0 / 3.0 * np.pi * np.prod(self.semi))

    def inside(self, x: Coords, y: Coords, z: Coords) -> BoolArray:
        """Whether points belong to it."""
        (cx, cy, cz), (a, b, c) = self.centre, self.semi
        result: BoolArray = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 + ((z - cz) / c) ** 2 <= 1.0
        for nx, ny, nz, d in self.cuts:
            result &= nx * x + ny * y + nz * z <= d
        return result


@dataclass(frozen=True)
class Cone:
    """The points within a radius, changing linearly, of a line segment (round ends)."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius_start: float
    radius_end: float

    @property
    def bounds(self) -> Bounds:
        """A box around it."""
        radius = max(self.radius_start, self.radius_end)
        low, high = np.minimum(self.start, self.end) - radius, np.maximum(self.start, self.end) + radius
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def inside(self, x: Coords, y: Coords, z: Coords) -> BoolArray:
        """Whether points belong to it."""
        (sx, sy, sz), step = self.start, np.subtract(self.end, self.start)
        along = ((x - sx) * step[0] + (y - sy) * step[1] + (z - sz) * step[2]) / float(step @ step)
        along = np.clip(along, 0.0, 1.0)
        distance_2 = (x - sx - along * step[0]) ** 2
        distance_2 += (y - sy - along * step[1]) ** 2
        distance_2 += (z - sz - along * step[2]) ** 2
        radius = self.radius_start + (self.radius_end - self.radius_start) * along
        result: BoolArray = distance_2 <= radius**2
        return result


@dataclass(frozen=True)
class Section:
    """One cross-section of a :class:`Loft`: an ellipse at the height z."""

    z: float
    x0: float
    y0: float
    a: float
    b: float


@dataclass(frozen=True)
class Loft:
    """A stack of ellipses along z; between two sections centre and semi-axes change linearly."""

    sections: tuple[Section, ...]
    margin: float = 0.0

    @property
    def bounds(self) -> Bounds:
        """A box around it."""
        low_x = min(s.x0 - s.a for s in self.sections) - self.margin
        low_y = min(s.y0 - s.b for s in self.sections) - self.margin
        high_x = max(s.x0 + s.a for s in self.sections) + self.margin
        high_y = max(s.y0 + s.b for s in self.sections) + self.margin
        return (low_x, low_y, self.sections[0].z), (high_x, high_y, self.sections[-1].z)

    def inside(self, x: Coords, y: Coords, z: Coords) -> BoolArray:
        """Whether points belong to it."""
        table = np.array([(s.z, s.x0, s.y0, s.a, s.b) for s in self.sections]).T
        x0, y0, a, b = (np.interp(z, table[0], row) for row in table[1:])
        result: BoolArray = ((x - x0) / (a + self.margin)) ** 2 + ((y - y0) / (b + self.margin)) ** 2 <= 1.0
        result &= (z >= table[0, 0]) & (z <= table[0, -1])
        return result


@dataclass(frozen=True)
class Box:
    """A box along the axes."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @property
    def bounds(self) -> Bounds:
        """The box itself."""
        return self.low, self.high

    def inside(self, x: Coords, y: Coords, z: Coords) -> BoolArray:
        """Whether points belong to it."""
        (x0, y0, z0), (x1, y1, z1) = self.low, self.high
        result: BoolArray = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1) & (z >= z0) & (z <= z1)
        return result


@dataclass(frozen=True)
class Stroke:
    """One painting of a solid with a region's code.

    Parameters
    ----------
    code
        The value that is painted; with ``parcels`` that of parcel 0, and the next ones follow.
    over
        Codes that may be painted over; None: all.
    """

    solid: Solid
    code: int
    over: frozenset[int] | None = None
    parcels: Parcels | None = None


def tube(points: Sequence[Sequence[float]], radii: Sequence[float]) -> tuple[Cone, ...]:
    """The cones along a polyline of points (mm) with the radius at each point."""
    corners = [(float(p[0]), float(p[1]), float(p[2])) for p in points]
    return tuple(
        Cone(start, end, float(r0), float(r1))
        for start, end, r0, r1 in zip(corners[:-1], corners[1:], radii[:-1], radii[1:], strict=True)
    )


def paint(
    strokes: Sequence[Stroke], grid: Grid, to_body: Matrix, *, onto: NDArray[np.int16] | None = None
) -> NDArray[np.int16]:
    """Codes at the voxel centres of a grid, shape ``grid.shape``, 0 where nothing was painted.

    Parameters
    ----------
    strokes
        In the order of painting: later ones cover earlier ones.
    to_body
        4x4 matrix from the grid's world to the coordinates of the solids.
    onto
        Codes to paint over, in place; by default none.
    """
    affine = np.asarray(to_body @ grid.affine)
    codes = np.zeros(grid.shape, dtype=np.int16, order="F") if onto is None else onto
    boxes = _index_boxes([stroke.solid.bounds for stroke in strokes], affine, grid.shape)
    planes = max(1, _SLAB_VOXELS // (grid.shape[0] * grid.shape[1]))
    for first in range(0, grid.shape[2], planes):
        slab = (0, 0, first), (*grid.shape[:2], min(first + planes, grid.shape[2]))
        start, stop = np.maximum(boxes[0], slab[0]), np.minimum(boxes[1], slab[1])
        for number in np.flatnonzero((start < stop).all(axis=1)).tolist():
            _paint_box(codes, strokes[number], affine, start[number].tolist(), stop[number].tolist())
    return codes


def _index_boxes(
    bounds: Sequence[Bounds], affine: Matrix, shape: tuple[int, int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and one-past-last voxel along each axis that can lie in each box, shape (n_boxes, 3)."""
    ends = np.array(bounds)
    pick = np.indices((2, 2, 2)).reshape(3, 8)
    corners = np.stack([ends[:, pick[axis], axis] for axis in range(3)], axis=1)
    voxels = np.linalg.inv(affine[:3, :3]) @ (corners - affine[:3, 3:])
    # A solid may touch a voxel centre exactly: rounding must not lose it.
    low = np.ceil(voxels.min(axis=2) - 1e-6).astype(np.int64)
    high = np.floor(voxels.max(axis=2) + 1e-6).astype(np.int64) + 1
    return np.clip(low, 0, shape), np.clip(high, 0, shape)


def _paint_box(
    codes: NDArray[np.int16], stroke: Stroke, affine: Matrix, start: Sequence[int], stop: Sequence[int]
) -> None:
    x, y, z = _coordinates(affine, start, stop)
    target = codes[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]]
    mask = np.broadcast_to(stroke.solid.inside(x, y, z), target.shape)
    if stroke.over is not None:
        mask = mask & np.isin(target, list(stroke.over), kind="table")
    if stroke.parcels is None:
        target[mask] = stroke.code
    else:
        points = [np.broadcast_to(c, target.shape)[mask] for c in (x, y, z)]
        target[mask] = stroke.code + stroke.parcels.number(*points)


def _coordinates(affine: Matrix, start: Sequence[int], stop: Sequence[int]) -> tuple[Coords, Coords, Coords]:
    """World x, y and z of a box of voxels: one-dimensional where the axes are aligned, else full."""
    steps = np.meshgrid(
        *(np.arange(a, b, dtype=np.float64) for a, b in zip(start, stop, strict=True)),
        indexing="ij",
        sparse=True,
    )
    x, y, z = (
        sum((row[axis] * steps[axis] for axis in range(3) if row[axis]), np.full((1, 1, 1), row[3]))
        for row in affine[:3]
    )
    return x, y, z
