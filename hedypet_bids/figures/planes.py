"""Planes and projections of images that are read slab by slab, so that no volume is ever in memory.

All are seen along the world axes nearest to the voxel axes: the first axis of an array runs to the patient's
right (in a sagittal view to the front), the second upwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from hedypet_bids.io.nifti_read import CHUNK_VOXELS, FrameReader
from hedypet_bids.model import Grid

SAGITTAL, CORONAL, AXIAL = 0, 1, 2
VIEW_NAMES = ("sagittal", "coronal", "axial")

Voxel = tuple[int, int, int]
"""Indices along the world axes x, y, z, each counted from the low end."""


@dataclass(frozen=True, eq=False)
class View:
    """A plane or a projection of an image.

    Parameters
    ----------
    along
        The world axis that is cut or projected: ``SAGITTAL``, ``CORONAL`` or ``AXIAL``.
    values
        Shape (across, up).
    pixel_mm
        Size of a pixel across and up.
    """

    along: int
    values: NDArray[Any]
    pixel_mm: tuple[float, float]

    @property
    def name(self) -> str:
        """``sagittal``, ``coronal`` or ``axial``."""
        return VIEW_NAMES[self.along]

    def cropped(self, box: ShownBox) -> View:
        """The part inside a box."""
        across, up = (axis for axis in range(3) if axis != self.along)
        values = self.values[box.low[across] : box.high[across], box.low[up] : box.high[up]]
        return View(self.along, values, self.pixel_mm)


@dataclass(frozen=True)
class ShownBox:
    """A part of a grid: first index inside and first index beyond, along the world axes."""

    low: Voxel
    high: Voxel

    @classmethod
    def around(cls, marginals: Sequence[NDArray[np.int64]], margins: Sequence[int]) -> ShownBox:
        """The smallest box with all that is counted along each axis and a margin; all if that is nothing."""
        low, high = [], []
        for counts, margin in zip(marginals, margins, strict=True):
            there = np.flatnonzero(counts)
            first, last = (int(there[0]), int(there[-1])) if there.size else (0, counts.size - 1)
            low.append(max(0, first - margin))
            high.append(min(counts.size, last + 1 + margin))
        return cls((low[0], low[1], low[2]), (high[0], high[1], high[2]))


@dataclass(frozen=True, eq=False)
class Survey:
    """What is in a label image: voxels by label, and labelled voxels along each world axis."""

    counts: Mapping[int, int]
    marginals: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

    def centre(self, x: float = 0.5) -> Voxel:
        """The median of the labelled voxels along each axis; the middle of the grid when there is none.

        ``x`` is the share of them to the left of the voxel: 0.35 shows a hemisphere instead of the gap.
        """
        found = [
            _quantile(counts, share) for counts, share in zip(self.marginals, (x, 0.5, 0.5), strict=True)
        ]
        return found[0], found[1], found[2]


class _Axes:
    """How the voxel axes of a grid lie along the world axes."""

    def __init__(self, grid: Grid) -> None:
        orientation = nib.orientations.io_orientation(grid.affine)
        self.world = tuple(int(axis) for axis in orientation[:, 0])
        self.backwards = tuple(bool(sign < 0) for sign in orientation[:, 1])
        self._sizes = grid.voxel_sizes_mm

    def voxel_axis(self, world: int) -> int:
        return self.world.index(world)

    def voxel_index(self, world: int, index: int, shape: Sequence[int]) -> int:
        axis = self.voxel_axis(world)
        return shape[axis] - 1 - index if self.backwards[axis] else index

    def view(self, along: int, values: NDArray[Any]) -> View:
        """A plane whose axes are the voxel axes that are left, as they follow each other."""
        left = [axis for axis in range(3) if axis != self.voxel_axis(along)]
        for position, axis in enumerate(left):
            if self.backwards[axis]:
                values = np.flip(values, position)
        if self.world[left[0]] > self.world[left[1]]:
            values, left = values.T, left[::-1]
        return View(along, values, (float(self._sizes[left[0]]), float(self._sizes[left[1]])))


def world_shape(grid: Grid) -> Voxel:
    """Number of voxels along x, y and z."""
    axes = _Axes(grid)
    x, y, z = (grid.shape[axes.voxel_axis(world)] for world in range(3))
    return x, y, z


def world_sizes_mm(grid: Grid) -> tuple[float, float, float]:
    """Voxel size along x, y and z."""
    axes = _Axes(grid)
    x, y, z = (float(grid.voxel_sizes_mm[axes.voxel_axis(world)]) for world in range(3))
    return x, y, z


def read_projections(path: Path, along: Sequence[int] = (CORONAL, SAGITTAL)) -> dict[int, View]:
    """Maximum intensity projections of an image; values that are not finite do not count.

    Raises
    ------
    BadDataError
        The file cannot be read as an image.
    """
    reader = FrameReader(path)
    axes = _Axes(reader.grid)
    shape = reader.grid.shape
    wanted = {world: axes.voxel_axis(world) for world in along}
    found = {
        world: np.full([n for axis, n in enumerate(shape) if axis != voxel], -np.inf, np.float32)
        for world, voxel in wanted.items()
    }
    for first, slab in _slabs(reader):
        values = np.where(np.isfinite(slab), slab, -np.inf)
        for world, voxel in wanted.items():
            passed = found[world] if voxel == 2 else found[world][:, first : first + slab.shape[2]]
            np.maximum(passed, values.max(axis=voxel), out=passed)
    return {w: axes.view(w, np.where(np.isfinite(v), v, 0.0)) for w, v in found.items()}


def read_planes(path: Path, at: Voxel, along: Sequence[int] = (SAGITTAL, CORONAL, AXIAL)) -> dict[int, View]:
    """The planes of an image through a voxel; what is not finite is 0. Raises as :func:`read_projections`."""
    reader = FrameReader(path)
    axes = _Axes(reader.grid)
    shape = reader.grid.shape
    wanted = {w: (axes.voxel_axis(w), axes.voxel_index(w, at[w], shape)) for w in along}
    found = {
        world: np.zeros([n for axis, n in enumerate(shape) if axis != voxel], np.float32)
        for world, (voxel, _) in wanted.items()
    }
    for first, slab in _slabs(reader):
        last = first + slab.shape[2]
        for world, (voxel, index) in wanted.items():
            if voxel != 2:
                # Not take, which copies the whole slab.
                found[world][:, first:last] = slab[index] if voxel == 0 else slab[:, index]
            elif first <= index < last:
                found[world][:] = slab[:, :, index - first]
    return {w: axes.view(w, np.nan_to_num(v, posinf=0.0, neginf=0.0)) for w, v in found.items()}


def survey_labels(path: Path) -> Survey:
    """What labels an image holds, and where. Raises as :func:`read_projections`."""
    reader = FrameReader(path)
    axes = _Axes(reader.grid)
    counts = np.zeros(1, dtype=np.int64)
    along = [np.zeros(n, dtype=np.int64) for n in reader.grid.shape]
    for first, slab in _slabs(reader):
        labels = slab.astype(np.int32)
        found = np.bincount(labels.ravel(order="K"))
        counts = np.pad(counts, (0, max(0, found.size - counts.size)))
        counts[: found.size] += found
        there = labels > 0
        along[0] += there.sum(axis=(1, 2))
        along[1] += there.sum(axis=(0, 2))
        along[2][first : first + slab.shape[2]] = there.sum(axis=(0, 1))
    x, y, z = (
        np.flip(along[a]) if axes.backwards[a] else along[a] for a in (axes.voxel_axis(w) for w in range(3))
    )
    return Survey({int(i): int(counts[i]) for i in np.flatnonzero(counts) if i}, (x, y, z))


def _slabs(reader: FrameReader) -> Iterator[tuple[int, NDArray[Any]]]:
    """The first frame as slabs along the last voxel axis, each with the index that it begins at."""
    n_x, n_y, _ = reader.grid.shape
    per_plane = n_x * n_y
    thickness = max(1, CHUNK_VOXELS // per_plane)
    for _, position, values in reader.chunks(0, 1, n_voxels=thickness * per_plane):
        yield position // per_plane, values.reshape((n_x, n_y, -1), order="F")


def _quantile(counts: NDArray[np.int64], share: float) -> int:
    total = np.cumsum(counts)
    return int(np.searchsorted(total, total[-1] * share)) if total[-1] else counts.size // 2
