"""Grids made from grids: moved by a registration, centred on the head, cut to one plane."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError
from hedypet_bids.model import BoolArray, Grid, Matrix


def moved(grid: Grid, matrix: Matrix) -> Grid:
    """The grid of an image after its world is moved by a 4x4 ``matrix`` (moving to fixed, RAS mm).

    Raises
    ------
    BadDataError
        The matrix is not a finite, invertible 4x4 matrix with last row 0 0 0 1.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.allclose(matrix[3], (0.0, 0.0, 0.0, 1.0), atol=1e-6):
        raise BadDataError(
            f"A transform must be a 4x4 matrix with last row 0 0 0 1; found shape {matrix.shape} "
            f"and last row {matrix[-1].tolist() if matrix.ndim else matrix}."
        )
    return Grid(grid.shape, matrix @ grid.affine)


def head_grid(
    brain: BoolArray,
    source: Grid,
    *,
    size_mm: tuple[float, float, float] = (179.0, 230.0, 205.0),
    voxel_mm: float = 1.0,
) -> Grid:
    """A RAS grid of isotropic voxels whose centre is the centre of the brain's bounding box in the world.

    Parameters
    ----------
    brain
        Shape of ``source``, true inside the brain.
    size_mm
        Extent to the right, front and top, rounded to whole voxels.

    Raises
    ------
    BadDataError
        The brain is empty or its shape is not the grid's.
    """
    low, high = world_box(brain, source)
    shape = tuple(max(1, round(size / voxel_mm)) for size in size_mm)
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = (low + high) / 2 - (np.array(shape) - 1) / 2 * voxel_mm
    return Grid((shape[0], shape[1], shape[2]), affine)


def world_box(mask: BoolArray, grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest world coordinates (mm, RAS) of the voxel centres in ``mask``.

    Raises
    ------
    BadDataError
        The mask is empty or its shape is not the grid's.
    """
    if mask.shape != grid.shape:
        raise BadDataError(f"The mask has shape {mask.shape}, its grid {grid.shape}; they must agree.")
    index = np.nonzero(mask)
    if index[0].size == 0:
        raise BadDataError(
            "The mask has no voxel, so nothing can be centred on it; "
            "check that the label is in the segmentation."
        )
    axes = grid.affine[:3]
    world = [sum(axes[row, i] * index[i] for i in range(3)) + axes[row, 3] for row in range(3)]
    return np.array([x.min() for x in world]), np.array([x.max() for x in world])


def topogram_grid(source: Grid, target: Grid) -> Grid:
    """The grid of ``target`` cut to the one plane in which a one-voxel-thick ``source`` lies.

    One voxel thick along the target axis that is closest to the thin axis of the source, as
    thick as the source, and in its plane: the in-plane axes and the origin of the target are
    projected onto it, which changes nothing when the two grids are aligned.

    Raises
    ------
    BadDataError
        No axis, or more than one, of the source is one voxel thick.
    """
    thin = [axis for axis in range(3) if source.shape[axis] == 1]
    if len(thin) != 1:
        raise BadDataError(
            f"A topogram is one voxel thick along exactly one axis; found shape {source.shape}."
        )
    thickness = source.affine[:3, thin[0]]
    in_plane = [source.affine[:3, axis] for axis in range(3) if axis != thin[0]]
    normal = np.cross(in_plane[0], in_plane[1])
    normal /= np.linalg.norm(normal)
    cosines = normal @ (target.affine[:3, :3] / target.voxel_sizes_mm)
    across = int(np.argmax(np.abs(cosines)))
    affine = target.affine.copy()
    affine[:3, :3] -= np.outer(normal, normal @ affine[:3, :3])
    affine[:3, 3] -= normal * (normal @ (affine[:3, 3] - source.affine[:3, 3]))
    affine[:3, across] = thickness * np.sign((normal @ thickness) * cosines[across])
    shape = [1 if axis == across else n for axis, n in enumerate(target.shape)]
    return Grid((shape[0], shape[1], shape[2]), affine)
