"""Segmentations of CT and MR, each in the grid of its own image."""

from __future__ import annotations

import dataclasses
import logging
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.inputs.label_schemes import in_task_numbers, names_of_labels, table_beside
from hedypet_bids.inputs.plausibility import check_overlap
from hedypet_bids.io.nifti_read import FrameReader, read_labels, read_volume
from hedypet_bids.io.nifti_write import write_nifti
from hedypet_bids.io.store import Stamp, Writer
from hedypet_bids.io.work_dir import folder_of_run
from hedypet_bids.kernels.hounsfield import without_padding
from hedypet_bids.kernels.quality import QualityCheck, quality_check
from hedypet_bids.kernels.resampling.resample import resample_labels
from hedypet_bids.kernels.segmentation_checks import segmentation_checks
from hedypet_bids.labels import CT_TASKS, Task, task
from hedypet_bids.model import Grid, IntArray, Scan
from hedypet_bids.names import Source
from hedypet_bids.settings import plain
from hedypet_bids.steps.step import SEGMENTATION, Context, Plan, Skip, Step
from hedypet_bids.tools import gpu, synthseg, totalsegmentator
from hedypet_bids.tools.body_segmentation import BodySegmentation

_log = logging.getLogger("hedypet")

PARCELS, CORTEX = task("synthsegparc"), task("synthseg")

# FreeSurfer's numbers: parcels are 1000 + k on the left and 2000 + k on the right (aparc).
_LEFT_PARCELS, _RIGHT_PARCELS = range(1001, 1036), range(2001, 2036)
_AIR_HU = -1000.0
_FEWEST_INTENSITIES = 16
_ESTIMATED_HU = "Hounsfield units (air about -1000, water 0)"


@dataclass(eq=False)
class Segmentation(Step):
    """The segmentation of one task, as a label image in the grid of its image."""

    scan: Scan
    task: Task

    @property
    def name(self) -> str:
        """``segment <task>``."""
        return f"segment {self.task.name}"

    @property
    def about(self) -> str:
        """The image that is segmented; empty where the participant has one scan."""
        return "" if self.scan.alone or self.image is None else self.image.stem

    @property
    def identity(self) -> object:
        """Scans that share an image share its segmentation."""
        return ("segment", self.task, self.image.path) if self.image else self

    @property
    @abstractmethod
    def image(self) -> Source | None:
        """The image that is segmented."""

    @property
    def labels(self) -> dict[str, Path]:
        """The label image by task name; empty where there is none."""
        path = self.outputs.get("labels", self.task.name)
        return {self.task.name: path} if path else {}

    def plan(self) -> Plan | Skip:
        """Take a ready segmentation over, else make one."""
        if self.image is None:
            return Skip(f"no {'CT' if self.task in CT_TASKS else 'T1w image (MPRAGE)'} was found")
        if self._ready is not None:
            table = table_beside(self._ready)
            return self._plan([self.image.path, self._ready, *([table] if table else [])])
        return self._plan_to_make(self.image)

    def run(self, plan: Plan, writer: Writer) -> None:
        """Write the segmentation, checked."""
        assert self.image is not None
        if self._ready is not None:
            self._take_over(self.image, self._ready, plan, writer)
        else:
            self._make(self.image, plan, writer)

    @abstractmethod
    def _plan_to_make(self, image: Source) -> Plan | Skip:
        """What making the segmentation takes, or why that is not possible."""

    @abstractmethod
    def _make(self, image: Source, plan: Plan, writer: Writer) -> None:
        """Make the segmentation."""

    def _plan(self, reads: Iterable[Path], **more: Any) -> Plan:
        assert self.image is not None
        path = self.context.store.path(names.segmentation(self.image, self.task.name))
        return Plan(reads, {("labels", self.task.name): path}, **more)

    def _take_over(self, image: Source, ready: Path, plan: Plan, writer: Writer) -> None:
        """Write a ready segmentation, checked."""
        labels, found = read_labels(ready)
        labels = in_task_numbers(labels, names_of_labels(ready), self._task, ready)
        check_labels(labels, self._task, ready)
        labels, grid = self._placed(labels, found, ready, image)
        description = f"{self.task.readout_name} segmentation, taken over from ready derivatives"
        self._write(image, plan, writer, labels, grid, self._checks(image, labels, grid), description)

    def _placed(self, labels: IntArray, found: Grid, ready: Path, image: Source) -> tuple[IntArray, Grid]:
        """Labels and their grid, which is that of the image."""
        grid = grid_of(image.path)
        return on_image_grid(labels, found, grid, segmentation=ready, image=image.path), grid

    def _write(
        self,
        image: Source,
        plan: Plan,
        writer: Writer,
        labels: IntArray,
        grid: Grid,
        checks: Iterable[QualityCheck],
        description: str,
        **sidecar: Any,
    ) -> None:
        writer.segmentation(
            image,
            self._task,
            None,
            labels,
            grid,
            sources=plan.reads,
            Checks=[dataclasses.asdict(item) for item in checks],
            Description=description,
            **sidecar,
        )

    def _checks(self, image: Source, labels: IntArray, grid: Grid) -> list[QualityCheck]:
        """Checks of a segmentation of the body; none for the brain's."""
        if self.task not in CT_TASKS:
            return []
        is_ct = image.suffix == names.CT_SUFFIX
        hu = read_volume(image.path, int16=True)[0] if is_ct else None
        return segmentation_checks(labels, grid, self._task.table, hu, sex=self.scan.person.sex)

    @property
    def _task(self) -> Task:
        """The task with the regions that it has in this scan."""
        return self.scan.task(self.task.name)

    @property
    def _ready(self) -> Path | None:
        return self.scan.ready_segmentations.get(self.task.name)


@dataclass(eq=False)
class Networks:
    """The process that segments an image, shared by the steps of its tasks: it is read and resampled once."""

    running: BodySegmentation | None = None


@dataclass(eq=False)
class SegmentBody(Segmentation):
    """TotalSegmentator on the CT, else on the MR of the body, where no ready segmentation is found.

    The first of the tasks of an image that runs starts a process for all of those that have to run; the
    others take what it has made by then.
    """

    networks: Networks = field(default_factory=Networks)

    uses = SEGMENTATION

    @property
    def image(self) -> Source | None:
        """The CT or the MR of the body; ready segmentations may be of another image."""
        scan = self.scan
        if self._ready is not None or scan.ct is not None:
            return scan.anatomy
        # All segmentations of the body lie on one image; there is no network for PET.
        has_network = self.task.name in totalsegmentator.MR_NETWORKS
        return scan.body_mr if has_network and scan.body_image == scan.body_mr else None

    def _plan_to_make(self, image: Source) -> Plan | Skip:
        tools = self.context.tools
        if tools.totalsegmentator is None or self._network in tools.without:
            reason = tools.without.get(self._network, "TotalSegmentator is not used")
            return Skip(
                f"{reason}, and no ready segmentation was found (--derivatives totalsegmentator=PATH)"
            )
        settings = plain(self.context.settings.segment)
        chosen = {key: settings[key] for key in ("totalseg_fast", "totalseg_roi_subset")}
        wanted = set(chosen["totalseg_roi_subset"])
        if self.task.name == "total" and wanted and not wanted & set(self._task.table.names):
            return Skip(
                f"{image.path.name} shows none of the regions of --totalseg-roi-subset to its network"
            )
        return self._plan([image.path], settings=chosen)

    def _make(self, image: Source, plan: Plan, writer: Writer) -> None:
        if self.networks.running is None or not self.networks.running.does(self._network):
            self.close()
            self.networks.running = self._start(image)
        made = self.networks.running.take(self._network)
        for remark in made.remarks:
            _log.warning("sub-%s %s: %s", self.scan.label, self.name, remark)
        grid = grid_of(image.path)
        labels = in_task_numbers(made.labels, made.regions, self._task, image.path)
        labels = on_image_grid(labels, made.grid, grid, segmentation=image.path, image=image.path)
        self._write(
            image,
            plan,
            writer,
            labels,
            grid,
            self._checks(image, labels, grid),
            f"{self.task.readout_name} segmentation by TotalSegmentator",
            Tool={
                "Name": "TotalSegmentator",
                "Version": made.versions["TotalSegmentator"],
                "NnunetVersion": made.versions["nnunetv2"],
                "Task": totalsegmentator.TASK_NAMES[self._network],
                "Weights": made.weights,
                "Device": made.device,
                "Engine": made.engine,
                "RanOn": made.ways,
                "Remarks": made.remarks,
                "Seconds": round(made.seconds, 1),
                "PhaseSeconds": made.phase_seconds,
                "GpuPeakMB": made.gpu_peak_mb,
            },
        )

    def close(self) -> None:
        """End the process, where there still is one."""
        if self.networks.running is not None:
            self.networks.running.close()

    def _start(self, image: Source) -> BodySegmentation:
        """Have this task done, and those after it that have to run as well."""
        settings, tool = self.context.settings.segment, self.context.tools.totalsegmentator
        assert tool is not None
        tasks = [self._network, *(network for each in CT_TASKS for network in self._comes_next(each))]
        voxels, grid = read_volume(image.path, int16=True)
        if image.suffix == names.CT_SUFFIX:
            voxels, _ = without_padding(voxels, _AIR_HU)
            check_ct(voxels, image.path)
        else:
            check_mr(voxels, image.path)
        chosen: dict[str, Any] = {"fast": settings.totalseg_fast, "roi_subset": settings.totalseg_roi_subset}
        models = [m for name in tasks for m in totalsegmentator.models_of_task(name, **chosen)]
        check_extent(grid, max(model.spacing_mm for model in models), image.path)
        return BodySegmentation(
            tool,
            tasks,
            voxels,
            grid,
            **chosen,
            threads=self.context.threads,
            timeout_s=settings.timeout_s,
            work_dir=self.context.tools.work_dir,
            log=_log_of(self.context, f"totalsegmentator-{'-'.join(tasks)}", self.about),
        )

    def _comes_next(self, task: Task) -> Iterator[str]:
        """The network of a task after this one, where it is still to be made for the same image."""
        if CT_TASKS.index(task) <= CT_TASKS.index(self.task) or task.name in self.scan.ready_segmentations:
            return
        other = SegmentBody(self.scan, task)
        other.context = self.context
        plan = other.plan()
        if isinstance(plan, Skip):
            return
        stamp = Stamp.of(other.name, plan.reads, plan.settings, self.context.store)
        if stamp.reason_to_run(plan.makes.values()):
            yield other._network

    @property
    def _network(self) -> str:
        """What makes the segmentation, in the words of :mod:`hedypet_bids.tools.totalsegmentator`."""
        return self.task.name if self.scan.ct else totalsegmentator.MR_NETWORKS[self.task.name]


class _OfHeadMr(Segmentation):
    """A segmentation of the brain on the T1w image."""

    @property
    def image(self) -> Source | None:
        """The T1w image."""
        return self.scan.head_mr

    def _placed(self, labels: IntArray, found: Grid, ready: Path, image: Source) -> tuple[IntArray, Grid]:
        """Labels and their grid, which may be their own: SynthSeg makes voxels of 1 mm unless told not to."""
        if same_voxels(found, grid_of(image.path)):
            return super()._placed(labels, found, ready, image)
        check_overlap(ready, image.path)
        return labels, found


@dataclass(eq=False)
class SegmentParcels(_OfHeadMr):
    """SynthSeg with cortical parcels on the T1w image, where no ready segmentation is found."""

    task: Task = PARCELS
    uses = SEGMENTATION

    def _plan_to_make(self, image: Source) -> Plan | Skip:
        if self.context.tools.synthseg is None:
            return Skip(NO_SYNTHSEG)
        settings = {"synthseg_robust": self.context.settings.segment.synthseg_robust}
        plan = self._plan([image.path], settings=settings)
        volumes = self.context.store.path(names.synthseg_volumes(image))
        return dataclasses.replace(plan, makes={**plan.makes, ("synthseg_volumes",): volumes})

    def _make(self, image: Source, plan: Plan, writer: Writer) -> None:
        settings, tool = self.context.settings.segment, self.context.tools.synthseg
        assert tool is not None
        with folder_of_run(self.context.tools.work_dir, self.scan.label) as folder:
            copy, result = folder / "t1w.nii.gz", folder / "segmentation.nii.gz"
            voxels, grid = read_volume(image.path, int16=True)
            write_nifti(copy, voxels, grid)
            with gpu.reserved(synthseg.device_of(tool), folder.parent) as reserved:
                made = synthseg.run_synthseg(
                    tool,
                    copy,
                    result,
                    robust=settings.synthseg_robust,
                    threads=self.context.threads,
                    timeout_s=settings.timeout_s,
                    log=_log_of(self.context, "synthseg", self.about),
                    gpu=reserved,
                )
            labels, found = read_labels(result)
        check_labels(labels, self.task, result)
        labels = on_image_grid(labels, found, grid, segmentation=result, image=image.path)
        self._write(
            image,
            plan,
            writer,
            labels,
            grid,
            [quality_check("synthseg_lowest_score", min(made.qc_scores.values(), default=float("nan")))],
            "synthseg segmentation with cortical parcels",
            QualityScores=made.qc_scores,
            Tool={"Name": "mri_synthseg", "Device": made.device, "Seconds": round(made.seconds, 1)},
        )
        writer.table(
            names.synthseg_volumes(image),
            pd.DataFrame({"name": made.volumes_mm3.keys(), "volume": made.volumes_mm3.values()}),
            sources=plan.reads,
            Description="Volumes as SynthSeg estimates them from its soft segmentation",
            Columns={"name": {"Description": "region"}, "volume": {"Units": "mm^3"}},
        )


@dataclass(eq=False)
class MergeParcels(_OfHeadMr):
    """The map with the cortex in one piece a side, from the one with parcels."""

    parcels: SegmentParcels = field(kw_only=True)
    task: Task = CORTEX

    def _plan_to_make(self, _image: Source) -> Plan | Skip:
        parcels = self.parcels.labels.get(PARCELS.name)
        if parcels is not None:
            return self._plan([parcels])
        if self.context.tools.synthseg is None:
            return Skip(NO_SYNTHSEG)
        return Skip("the segmentation with parcels, from which it is made, is not there")

    def _make(self, image: Source, plan: Plan, writer: Writer) -> None:
        """Give every parcel the number of its side's cortex."""
        (parcels,) = plan.reads
        labels, grid = read_labels(parcels)
        cortex = self.task.table
        number = np.arange(max(*_RIGHT_PARCELS, int(labels.max(initial=0))) + 1)
        number[list(_LEFT_PARCELS)] = cortex.index_of("Left-Cerebral-Cortex")
        number[list(_RIGHT_PARCELS)] = cortex.index_of("Right-Cerebral-Cortex")
        merged: IntArray = number.astype(np.uint16)[labels]
        check_labels(merged, self.task, parcels)
        description = "synthseg segmentation, cortical parcels put together"
        self._write(image, plan, writer, merged, grid, [], description)


NO_SYNTHSEG = (
    "mri_synthseg is not installed (--mri-synthseg PATH), and no ready segmentation was found "
    "(--derivatives synthseg=PATH)"
)


def labels_of(segmentations: Iterable[Segmentation]) -> dict[str, Path]:
    """The label images of several tasks by task name."""
    return {name: path for each in segmentations for name, path in each.labels.items()}


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


def check_mr(intensities: Any, path: Path) -> None:
    """Raise BadDataError when an image cannot be an MR of which a network sees something."""
    if not np.isfinite(intensities).all():
        n = int(np.count_nonzero(~np.isfinite(intensities)))
        raise BadDataError(f"{path}: expected intensities of an MR; {n} voxels are NaN or infinite.")
    low, high = float(intensities.min()), float(intensities.max())
    if high - low < _FEWEST_INTENSITIES:
        raise BadDataError(
            f"{path}: expected intensities of an MR over {_FEWEST_INTENSITIES} or more, as TotalSegmentator "
            f"cuts them to whole numbers; found {low:g} to {high:g}. Scale them, for example to 0 to 1000."
        )


def check_extent(grid: Grid, spacing_mm: float, path: Path) -> None:
    """Raise BadDataError when nothing would be left of an image at the resolution of a network."""
    extent_mm = grid.voxel_sizes_mm * grid.shape
    if extent_mm.min() <= spacing_mm / 2:
        found = " x ".join(f"{mm:g}" for mm in extent_mm)
        raise BadDataError(
            f"{path}: expected an image that is thicker than half of a network's voxel ({spacing_mm:g} mm); "
            f"found {found} mm. Was it cut to a single slice?"
        )


def _log_of(context: Context, program: str, about: str) -> Path:
    return context.tools.log_folder / f"{'_'.join(filter(None, [program, about]))}.log"


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
