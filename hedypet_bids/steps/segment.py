"""Segmentations of CT and MR, each in the grid of its own image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from hedypet_bids import bids_names as names
from hedypet_bids.bids_names import Source
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.frames import read_labels
from hedypet_bids.io.store import Writer
from hedypet_bids.kernels.resampling import resample_labels
from hedypet_bids.labels import CT_TASKS, Task
from hedypet_bids.model import Grid, IntArray
from hedypet_bids.steps.step import Step, Subject


@dataclass(frozen=True)
class Segment(Step[dict[str, Path]]):
    """Takes over the ready segmentation of one task after checking its grid and its labels."""

    subject: Subject
    task: Task

    @property
    def name(self) -> str:
        """``segment <task>``."""
        return f"segment {self.task.name}"

    def skip_reason(self) -> str:
        """Why there is no segmentation of this task."""
        is_ct = self.task in CT_TASKS
        if self._image is None:
            return f"no {'CT' if is_ct else 'T1w image (MPRAGE)'} was found"
        if self._ready is None:
            dataset = "totalsegmentator" if is_ct else "synthseg"
            return f"no ready segmentation was found; give one with --derivatives {dataset}=PATH"
        return ""

    def sources(self) -> Iterable[Path]:
        """The image and its ready segmentation."""
        return [self._source.path, self._segmentation]

    def results(self) -> dict[str, Path]:
        """The label image by task name."""
        return {self.task.name: self.subject.store.path(names.segmentation(self._source, self.task.name))}

    def nothing(self) -> dict[str, Path]:
        """No label image."""
        return {}

    def outputs(self) -> Iterable[Path]:
        """The label image."""
        return self.results().values()

    def run(self, writer: Writer) -> None:
        """Write the segmentation in the grid of its image."""
        labels, found = read_labels(self._segmentation)
        check_labels(labels, self.task, self._segmentation)
        grid = grid_of(self._source.path)
        writer.segmentation(
            self._source,
            self.task,
            None,
            on_image_grid(labels, found, grid, segmentation=self._segmentation, image=self._source.path),
            grid,
            sources=[self._source.path, self._segmentation],
            Description=f"{self.task.readout_name} segmentation, taken over from ready derivatives",
        )

    @property
    def _image(self) -> Source | None:
        return self.subject.inputs.ct if self.task in CT_TASKS else self.subject.inputs.head_mr

    @property
    def _ready(self) -> Path | None:
        return self.subject.inputs.ready_segmentations.get(self.task.name)

    @property
    def _source(self) -> Source:
        assert self._image is not None
        return self._image

    @property
    def _segmentation(self) -> Path:
        assert self._ready is not None
        return self._ready


def grid_of(path: Path) -> Grid:
    """The voxel grid of an image, from its header."""
    header = nib.load(path)
    try:
        return Grid(header.shape[:3], header.affine)
    except BadDataError as fault:
        raise BadDataError(f"{path}: {fault}") from fault


def check_labels(labels: IntArray, task: Task, path: Path) -> None:
    """Raise BadDataError when a label image holds labels that its task does not know."""
    present = np.flatnonzero(np.bincount(labels.ravel(order="K")))
    unknown = sorted(set(present.tolist()) - {0, *task.table.indices})
    if unknown:
        raise BadDataError(
            f"{path} holds the labels {names.listed(unknown[:10])}, which the {task.name} label table does "
            f"not know. It expects the {len(task.table.indices)} classes of hedyPET's {task.readout_name} "
            "table; give a segmentation of that scheme."
        )


def on_image_grid(
    labels: IntArray, found: Grid, wanted: Grid, *, segmentation: Path, image: Path
) -> IntArray:
    """Labels on the grid of the image that they segment; only the storage order may differ.

    Raises
    ------
    BadDataError
        The two grids cover different voxels of the world.
    """
    if found.matches(wanted, tolerance_mm=0.01):
        return labels
    if not same_voxels(found, wanted):
        raise BadDataError(
            f"The segmentation {segmentation} does not lie on the grid of its image {image}: "
            f"expected shape {wanted.shape} with affine {wanted.affine.round(3).tolist()}, "
            f"found shape {found.shape} with affine {found.affine.round(3).tolist()}. "
            "Give the segmentation in the image's own grid."
        )
    return resample_labels(labels, found, wanted)


def same_voxels(found: Grid, wanted: Grid) -> bool:
    """Whether two grids hold the same voxels, stored in any order or direction."""
    index_map = np.linalg.inv(wanted.affine) @ found.affine
    rounded = np.round(index_map)
    axes = np.abs(rounded[:3, :3])
    if not np.allclose(index_map, rounded, atol=0.01) or (axes.sum(axis=0) != 1).any():
        return False
    corners = np.array([[0, 0, 0, 1], [*(n - 1 for n in found.shape), 1]]) @ rounded.T
    low, high = corners[:, :3].min(axis=0), corners[:, :3].max(axis=0)
    return bool((low == 0).all() and (high == np.array(wanted.shape) - 1).all())
