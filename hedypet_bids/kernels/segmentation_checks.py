"""Numbers that show whether a segmentation of the body can be right."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.kernels.quality import QualityCheck, quality_check
from hedypet_bids.labels import LabelTable
from hedypet_bids.model import Grid, IntArray, Sex

SIZED_ORGANS = ("brain", "liver", "aorta")
_ON_THE_LEFT, _ON_THE_RIGHT = "spleen", "liver"
_OF_MEN = "prostate"
# Above lung and air, below fat.
_LOWEST_TISSUE_HU = -300.0
_MOST_VOXELS = 2e7


def segmentation_checks(
    labels: IntArray, grid: Grid, table: LabelTable, hu: NDArray[Any] | None, *, sex: Sex | None = None
) -> list[QualityCheck]:
    """Volumes of large organs, sides, organs that the sex rules out, that are cut, or outside the body.

    Parameters
    ----------
    labels
        Shape ``grid.shape``.
    hu
        The CT in Hounsfield units, same shape; None leaves out where the body is.
    sex
        None where it is not known.
    """
    counts = np.bincount(labels.ravel(order="K"), minlength=max(table.indices) + 1)
    checks = [
        quality_check(f"{organ}_volume_ml", float(counts[table.index_of(organ)]) * grid.voxel_volume_ml)
        for organ in SIZED_ORGANS
        if organ in table.names
    ]
    if _ON_THE_LEFT in table.names:
        checks.append(quality_check("spleen_left_of_liver_mm", _left_of(labels, grid, table)))
        checks += _side_checks(labels, grid, table)
        if sex == "F":
            volume_ml = float(counts[table.index_of(_OF_MEN)]) * grid.voxel_volume_ml
            checks.append(quality_check("prostate_of_a_woman_ml", volume_ml))
        checks.append(quality_check("organs_cut", float(len(cut_regions(labels, grid, table)))))
    if hu is not None:
        checks.append(quality_check("labels_outside_body", _part_outside(labels, hu, _long_axis(grid))))
    return checks


def cut_regions(labels: IntArray, grid: Grid, table: LabelTable) -> list[str]:
    """Regions that touch the first or last slice of the field of view (feet and head)."""
    axis = _long_axis(grid)
    ends = np.concatenate([np.unique(labels.take(index, axis=axis)) for index in (0, -1)])
    name_of = dict(zip(table.indices, table.names, strict=True))
    return [name_of[index] for index in np.unique(ends).tolist() if index in name_of]


def body_mask(hu: NDArray[Any], long_axis: int) -> NDArray[np.bool_]:
    """Where the body (or the couch) is: tissue, and whatever it encloses in a slice across the long axis."""
    slices = np.moveaxis(hu > _LOWEST_TISSUE_HU, long_axis, 0)
    filled = np.stack([ndimage.binary_fill_holes(tissue) for tissue in slices])
    return np.moveaxis(filled, 0, long_axis)


def _long_axis(grid: Grid) -> int:
    """The voxel axis that runs along the body."""
    return int(np.argmax(np.abs(grid.affine[2, :3] / grid.voxel_sizes_mm)))


def _step(labels: IntArray) -> int:
    """Every how many voxels are looked at along each axis: a part of a large image shows it as well."""
    return max(1, math.ceil(math.cbrt(labels.size / _MOST_VOXELS)))


def _part_outside(labels: IntArray, hu: NDArray[Any], long_axis: int) -> float:
    """Part of the labelled voxels that are outside the body; NaN where nothing is labelled."""
    thin = (slice(None, None, _step(labels)),) * 3
    labelled = labels[thin] > 0
    n_labelled = int(np.count_nonzero(labelled))
    if not n_labelled:
        return math.nan
    return int(np.count_nonzero(labelled & ~body_mask(hu[thin], long_axis))) / n_labelled


def _side_checks(labels: IntArray, grid: Grid, table: LabelTable) -> Iterator[QualityCheck]:
    """Whether regions lie on the side that their names say, and the heart to the left of the middle."""
    x = dict(zip(table.names, _middles_x(labels, grid, table), strict=True))
    rights = {name: name.replace("left", "right") for name in table.names if "left" in name}
    sides = [(x[left], x[right]) for left, right in rights.items() if right in x]
    both = [pair for pair in sides if math.isfinite(sum(pair))]
    if not both:
        return
    # World coordinates are RAS+: left is negative.
    yield quality_check("sides_swapped", float(sum(left > right for left, right in both)))
    if math.isfinite(x["heart"]):
        yield quality_check("heart_left_of_midline_mm", float(np.mean(both)) - x["heart"])


def _middles_x(labels: IntArray, grid: Grid, table: LabelTable) -> list[float]:
    """World x of the middle of each region, mm; NaN where it is not there."""
    step = _step(labels)
    thin = labels[(slice(None, None, step),) * 3]
    n = max(table.indices) + 1
    counts = np.zeros(n)
    sums = np.zeros((3, n))
    for axis in range(3):
        for index in range(thin.shape[axis]):
            found = np.bincount(thin.take(index, axis=axis).ravel(), minlength=n)[:n]
            sums[axis] += index * step * found
            counts += found if axis == 0 else 0
    with np.errstate(invalid="ignore", divide="ignore"):
        middles = grid.affine[0, :3] @ (sums / counts) + grid.affine[0, 3]
    return [float(middles[index]) for index in table.indices]


def _left_of(labels: IntArray, grid: Grid, table: LabelTable) -> float:
    """How far the spleen lies to the left of the liver, mm; NaN where one of them is not there."""
    middles = []
    for organ in (_ON_THE_LEFT, _ON_THE_RIGHT):
        voxels = np.argwhere(labels == table.index_of(organ))
        if not len(voxels):
            return float("nan")
        middles.append(grid.affine[0, :3] @ voxels.mean(axis=0) + grid.affine[0, 3])
    # World coordinates are RAS+: left is negative.
    return float(middles[1] - middles[0])
