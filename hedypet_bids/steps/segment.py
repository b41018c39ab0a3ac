"""Segmentations of CT and MR, each in the grid of its own image."""

from __future__ import annotations

import dataclasses
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, OutputError
from hedypet_bids.inputs.label_schemes import in_task_numbers, names_of_labels, table_beside
from hedypet_bids.io.nifti_read import FrameReader, read_labels, read_volume
from hedypet_bids.io.nifti_write import write_nifti
from hedypet_bids.io.store import Writer
from hedypet_bids.kernels.quality import QualityCheck, check
from hedypet_bids.kernels.resampling.resample import resample_labels
from hedypet_bids.kernels.segmentation_checks import segmentation_checks
from hedypet_bids.labels import CT_TASKS, Task, task
from hedypet_bids.model import Grid, IntArray
from hedypet_bids.names import Source
from hedypet_bids.settings import plain
from hedypet_bids.steps.step import Step, Subject
from hedypet_bids.tools import gpu, synthseg, totalsegmentator

PARCELS, CORTEX = task("synthsegparc"), task("synthseg")
SEGMENTATION_ORDER = (*CT_TASKS, PARCELS, CORTEX)
"""The map without parcels can be made from the one with them."""

# FreeSurfer's numbers: parcels are 1000 + k on the left and 2000 + k on the right (aparc).
_LEFT_PARCELS, _RIGHT_PARCELS = range(1001, 1036), range(2001, 2036)
_ESTIMATED_HU = "Hounsfield units (air about -1000, water 0)"


def segment(subject: Subject, what: Task, done: Mapping[str, Path]) -> Segment:
    """The step that gives the segmentation of a task: taken over when it is ready, else made."""
    if what.name in subject.inputs.ready_segmentations:
        return TakeReady(subject, what)
    if what in CT_TASKS:
        return SegmentCt(subject, what)
    if what == CORTEX and PARCELS.name in done:
        return MergeParcels(subject, what, done[PARCELS.name])
    return SegmentMr(subject, what)


@dataclass(frozen=True)
class Segment(Step[dict[str, Path]]):
    """The segmentation of one task, as a label image in the grid of its image."""

    subject: Subject
    task: Task

    @property
    def name(self) -> str:
        """``segment <task>``."""
        return f"segment {self.task.name}"

    def skip_reason(self) -> str:
        """Why there is no segmentation of this task."""
        if self._image is None:
            return f"no {'CT' if self.task in CT_TASKS else 'T1w image (MPRAGE)'} was found"
        return self._reason_without_tool()

    def results(self) -> dict[str, Path]:
        """The label image by task name."""
        return {self.task.name: self.subject.store.path(names.segmentation(self._source, self.task.name))}

    def nothing(self) -> dict[str, Path]:
        """No label image."""
        return {}

    def outputs(self) -> Iterable[Path]:
        """The label image."""
        return self.results().values()

    @abstractmethod
    def _reason_without_tool(self) -> str:
        """Why the segmentation cannot be made or taken over although its image is there."""

    def _write(
        self, writer: Writer, labels: IntArray, grid: Grid, checks: Iterable[QualityCheck], **sidecar: Any
    ) -> None:
        writer.segmentation(
            self._source,
            self.task,
            None,
            labels,
            grid,
            sources=self.sources(),
            Checks=[dataclasses.asdict(item) for item in checks],
            **sidecar,
        )

    def _checks(self, labels: IntArray, grid: Grid) -> list[QualityCheck]:
        """Checks of a segmentation of the body; none for the brain's."""
        if self.task not in CT_TASKS:
            return []
        is_ct = self._source.suffix == names.CT_SUFFIX
        hu = read_volume(self._source.path, int16=True)[0] if is_ct else None
        return segmentation_checks(labels, grid, self.task.table, hu)

    @property
    def _image(self) -> Source | None:
        return self.subject.inputs.ct if self.task in CT_TASKS else self.subject.inputs.head_mr

    @property
    def _source(self) -> Source:
        assert self._image is not None
        return self._image


class TakeReady(Segment):
    """Takes over a ready segmentation after checking its grid and its labels."""

    def _reason_without_tool(self) -> str:
        return ""

    def sources(self) -> Iterable[Path]:
        """The image, its ready segmentation and that one's label table."""
        table = table_beside(self._ready)
        return [self._source.path, self._ready, *([table] if table else [])]

    @property
    def _image(self) -> Source | None:
        return super()._image if self.task not in CT_TASKS else self.subject.inputs.anatomy

    def run(self, writer: Writer) -> None:
        """Write the segmentation in the grid of its image."""
        labels, found = read_labels(self._ready)
        labels = in_task_numbers(labels, names_of_labels(self._ready), self.task, self._ready)
        check_labels(labels, self.task, self._ready)
        grid = grid_of(self._source.path)
        labels = on_image_grid(labels, found, grid, segmentation=self._ready, image=self._source.path)
        self._write(
            writer,
            labels,
            grid,
            self._checks(labels, grid),
            Description=f"{self.task.readout_name} segmentation, taken over from ready derivatives",
        )

    @property
    def _ready(self) -> Path:
        return self.subject.inputs.ready_segmentations[self.task.name]


class SegmentCt(Segment):
    """Runs TotalSegmentator on the CT."""

    def _reason_without_tool(self) -> str:
        if self.subject.tools.totalsegmentator is not None and self.task.name not in self._without:
            return ""
        reason = self._without.get(self.task.name, "TotalSegmentator is not used")
        return f"{reason}, and no ready segmentation was found (--derivatives totalsegmentator=PATH)"

    def sources(self) -> Iterable[Path]:
        """The CT."""
        return [self._source.path]

    def settings(self) -> Mapping[str, Any]:
        """Resolution and subset of regions."""
        settings = plain(self.subject.settings.segment)
        return {key: settings[key] for key in ("totalseg_fast", "totalseg_roi_subset")}

    def run(self, writer: Writer) -> None:
        """Segment the CT and check what came out."""
        settings, tool = self.subject.settings.segment, self.subject.tools.totalsegmentator
        assert tool is not None
        with _work_folder(self.subject) as folder:
            image, result = folder / "ct.nii", folder / "segmentation.nii.gz"
            grid = self._write_ct(image)
            with gpu.reserved(tool.device, folder.parent) as reserved:
                made = totalsegmentator.segment(
                    tool,
                    self.task.name,
                    image,
                    result,
                    fast=settings.totalseg_fast,
                    roi_subset=settings.totalseg_roi_subset,
                    threads=self.subject.threads,
                    timeout_s=settings.timeout_s,
                    log=_log_of(self.subject, f"totalsegmentator-{self.task.name}"),
                    gpu=reserved,
                )
            labels, found = read_labels(result)
        check_labels(labels, self.task, result)
        labels = on_image_grid(labels, found, grid, segmentation=result, image=self._source.path)
        self._write(
            writer,
            labels,
            grid,
            self._checks(labels, grid),
            Description=f"{self.task.readout_name} segmentation by TotalSegmentator",
            Tool={
                "Name": "TotalSegmentator",
                "Version": made.version,
                "Task": totalsegmentator.TASKS[self.task.name],
                "Weights": made.weights,
                "Device": made.device,
                "Seconds": round(made.seconds, 1),
            },
        )

    def _write_ct(self, path: Path) -> Grid:
        """A plain three-dimensional copy of the CT, after a look whether it is one."""
        hu, grid = read_volume(self._source.path, int16=True)
        check_ct(hu, self._source.path)
        write_nifti(path, hu, grid)
        return grid

    @property
    def _without(self) -> Mapping[str, str]:
        return self.subject.tools.without


class SegmentMr(Segment):
    """Runs SynthSeg, with cortical parcels, on the T1w image."""

    def _reason_without_tool(self) -> str:
        if self.subject.tools.synthseg is not None and self.task == PARCELS:
            return ""
        if self.subject.tools.synthseg is not None:
            return "the segmentation with parcels, from which it is made, is not there"
        return (
            "mri_synthseg is not installed (--mri-synthseg PATH), and no ready segmentation was found "
            "(--derivatives synthseg=PATH)"
        )

    def sources(self) -> Iterable[Path]:
        """The T1w image."""
        return [self._source.path]

    def settings(self) -> Mapping[str, Any]:
        """Whether SynthSeg runs in its robust mode."""
        return {"synthseg_robust": self.subject.settings.segment.synthseg_robust}

    def outputs(self) -> Iterable[Path]:
        """The label image and the volumes that SynthSeg measured."""
        return [*super().outputs(), self.subject.store.path(names.synthseg_volumes(self._source))]

    def run(self, writer: Writer) -> None:
        """Segment the image; keep SynthSeg's volumes and its own quality scores."""
        settings, tool = self.subject.settings.segment, self.subject.tools.synthseg
        assert tool is not None
        with _work_folder(self.subject) as folder:
            image, result = folder / "t1w.nii.gz", folder / "segmentation.nii.gz"
            voxels, grid = read_volume(self._source.path, int16=True)
            write_nifti(image, voxels, grid)
            with gpu.reserved(synthseg.device_of(tool), folder.parent) as reserved:
                made = synthseg.segment(
                    tool,
                    image,
                    result,
                    robust=settings.synthseg_robust,
                    threads=self.subject.threads,
                    timeout_s=settings.timeout_s,
                    log=_log_of(self.subject, "synthseg"),
                    gpu=reserved,
                )
            labels, found = read_labels(result)
        check_labels(labels, self.task, result)
        labels = on_image_grid(labels, found, grid, segmentation=result, image=self._source.path)
        self._write(
            writer,
            labels,
            grid,
            [check("synthseg_lowest_score", min(made.qc_scores.values(), default=float("nan")))],
            Description="synthseg segmentation with cortical parcels",
            QualityScores=made.qc_scores,
            Tool={"Name": "mri_synthseg", "Device": made.device, "Seconds": round(made.seconds, 1)},
        )
        writer.table(
            names.synthseg_volumes(self._source),
            pd.DataFrame({"name": made.volumes_mm3.keys(), "volume": made.volumes_mm3.values()}),
            sources=self.sources(),
            Description="Volumes as SynthSeg estimates them from its soft segmentation",
            Columns={"name": {"Description": "region"}, "volume": {"Units": "mm^3"}},
        )


@dataclass(frozen=True)
class MergeParcels(Segment):
    """The map with the cortex in one piece a side, from the one with parcels."""

    parcels: Path

    def _reason_without_tool(self) -> str:
        return ""

    def sources(self) -> Iterable[Path]:
        """The segmentation with parcels."""
        return [self.parcels]

    def run(self, writer: Writer) -> None:
        """Give every parcel the number of its side's cortex."""
        labels, grid = read_labels(self.parcels)
        cortex = self.task.table
        number = np.arange(max(*_RIGHT_PARCELS, int(labels.max(initial=0))) + 1)
        number[list(_LEFT_PARCELS)] = cortex.index_of("Left-Cerebral-Cortex")
        number[list(_RIGHT_PARCELS)] = cortex.index_of("Right-Cerebral-Cortex")
        merged: IntArray = number.astype(np.uint16)[labels]
        check_labels(merged, self.task, self.parcels)
        self._write(
            writer, merged, grid, [], Description="synthseg segmentation, cortical parcels put together"
        )


def check_ct(hu: Any, path: Path) -> None:
    """Raise BadDataError when an image cannot be a CT in Hounsfield units."""
    if hu.dtype.kind == "f" and not np.isfinite(hu).all():
        n = int(np.count_nonzero(~np.isfinite(hu)))
        raise BadDataError(f"{path}: expected {_ESTIMATED_HU}; {n} voxels are NaN or infinite.")
    low, high = float(hu.min()), float(hu.max())
    if low >= 0 and 1000 <= high <= 5000 and float(np.median(hu)) < 2000:
        raise BadDataError(
            f"{path}: expected {_ESTIMATED_HU}; found {low:g} to {high:g}, which looks like stored values "
            "without their offset. Set the rescale intercept (scl_inter), most often to -1024."
        )
    if low > -200 or high < 0 or high > 70000:
        raise BadDataError(
            f"{path}: expected {_ESTIMATED_HU}; found {low:g} to {high:g}. Is it a CT, and scaled?"
        )


def _log_of(subject: Subject, program: str) -> Path:
    return subject.tools.log_folder / f"{program}.log"


@contextmanager
def _work_folder(subject: Subject) -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(
            prefix=f"hedypet-{subject.label}-", dir=subject.tools.work_dir, ignore_cleanup_errors=True
        )
    except OSError as fault:
        raise OutputError(
            f"No temporary folder can be made in {subject.tools.work_dir or tempfile.gettempdir()}: "
            f"{fault.strerror}. Choose another with --work-dir."
        ) from fault
    with folder as name:
        yield Path(name)


def grid_of(path: Path) -> Grid:
    """The voxel grid of an image, from its header."""
    return FrameReader(path).grid


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
