"""Time-activity curves of every region of every segmentation, in one pass over the dynamic PET."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.io.frame_copy import FrameCopy
from hedypet_bids.io.manifest import Kind
from hedypet_bids.io.nifti_read import FrameReader, read_labels
from hedypet_bids.io.store import Writer
from hedypet_bids.io.tables import FRAME_END, FRAME_START
from hedypet_bids.kernels.erosion import erode_labels
from hedypet_bids.kernels.kinetics import KineticModel, why_not
from hedypet_bids.kernels.region_statistics import (
    JointLabels,
    RegionKey,
    RegionSet,
    RegionStats,
    region_statistics,
)
from hedypet_bids.labels import HEART_VOI_TASK, WHOLE_IMAGE_TASK, Task, task
from hedypet_bids.model import FrameTimes, Grid, IntArray, Scan
from hedypet_bids.names import Source
from hedypet_bids.settings import plain
from hedypet_bids.steps.aorta import PlaceAortaVois
from hedypet_bids.steps.quality import FrameWatch
from hedypet_bids.steps.resample import Resample
from hedypet_bids.steps.step import MAPS, SERIES, Plan, Skip, Step


@dataclass(eq=False)
class MeasureCurves(Step):
    """Mean and standard deviation per frame of every region, erosion and aorta volume of interest."""

    scan: Scan
    bodydyn: Resample
    aorta: PlaceAortaVois
    models: Sequence[KineticModel] = ()
    copy: FrameCopy = field(default_factory=FrameCopy)
    body: FrameCopy = field(default_factory=FrameCopy)
    uses: ClassVar[str] = SERIES

    @property
    def name(self) -> str:
        """``tacs``."""
        return "tacs"

    def plan(self) -> Plan | Skip:
        """Measure every task and erosion in one pass."""
        dynamic, store = self.scan.dynamic, self.context.store
        if dynamic is None:
            return Skip("no dynamic PET was found")
        images = self._label_images()
        makes: dict[Kind, Path] = {("frames",): store.path(names.frame_quality_table(dynamic))}
        for key in curve_keys(images, self.context.settings.curves.erosions):
            makes["mean", *key] = store.path(names.curves(dynamic, *key))
            makes["std", *key] = store.path(names.curves(dynamic, *key, statistic="std"))
            makes["volumes", *key] = store.path(names.volumes(dynamic, *key))
        return Plan(
            reads=[dynamic.path, *images.values()],
            makes=makes,
            settings={
                **plain(self.context.settings.curves),
                **self.scan.metadata(dynamic).timing_and_scale,
                **self.scan.metadata(dynamic).time_origin,
                "tasks": sorted(images),
            },
        )

    def run(self, _plan: Plan, writer: Writer) -> None:
        """Pass over the frames once and write three tables per task and erosion."""
        dynamic = self.scan.dynamic
        assert dynamic is not None
        reader, metadata = FrameReader(dynamic.path), self.scan.metadata(dynamic)
        images = self._label_images()
        # Before the labels of all tasks are in memory.
        voxels = self.body_voxels() if any(model.of_body for model in self._mapped()) else None
        keys = curve_keys(images, self.context.settings.curves.erosions)
        joint = JointLabels.combine(
            region_sets(keys, self.scan.task, lambda name: read_labels(images[name])[0], reader.grid)
        )
        watch = FrameWatch(metadata.frames, reader.grid)
        work = self.context.tools.work_dir
        frames = self.copy.passing(reader.frames(), self._frames_of_maps(metadata.frames), work)
        if voxels is not None:
            frames = self.body.passing(frames, range(reader.n_frames), work, voxels=voxels)
        measured = region_statistics(watch.passing(frames), joint, threads=self.context.threads)
        for key, stats in measured.items():
            label_image = images.get(key[0])
            sources = [dynamic.path, *([label_image] if label_image else [])]
            # The factors to Bq/mL, decay-corrected to injection, differ by frame only.
            self._write(dynamic, writer, key, stats, reader.grid, sources)

        writer.table(
            names.frame_quality_table(dynamic),
            watch.table(),
            sources=[dynamic.path],
            Description="Frames after 30 min against the first of them: displacement of the body in world mm "
            "(RAS+), distance of its centroid, correlation inside it, and negative voxels of those looked at",
        )

    def _write(
        self,
        dynamic: Source,
        writer: Writer,
        key: RegionKey,
        stats: RegionStats,
        grid: Grid,
        sources: list[Path],
    ) -> None:
        table, metadata = self.scan.task(key[0]).table, self.scan.metadata(dynamic)
        statistics: tuple[tuple[Literal["mean", "std"], Any], ...] = (
            ("mean", stats.mean),
            ("std", stats.std),
        )
        for statistic, values in statistics:
            writer.table(
                names.curves(dynamic, *key, statistic=statistic),
                curve_table(
                    values * metadata.scale, table.names, metadata.frames.later(metadata.injection_start_s)
                ),
                sources=sources,
                Description=f"{statistic} activity concentration of each region per frame",
                Units="Bq/mL",
                frame_start={"Description": "Start of the frame from TimeZero", "Units": "s"},
                frame_end={"Description": "End of the frame from TimeZero", "Units": "s"},
                **metadata.time_origin,
                ErosionIterations=key[1],
            )
        writer.table(
            names.volumes(dynamic, *key),
            pd.DataFrame(
                {
                    "index": table.indices,
                    "name": table.names,
                    "n_voxels": stats.n_voxels,
                    "n_valid": stats.n_valid.min(axis=1),
                    **volumes_of(stats, grid),
                }
            ),
            sources=sources,
            **VOLUME_COLUMNS,
            n_valid={"Description": "Finite voxels, the smallest number over the frames"},
        )

    def close(self) -> None:
        """Remove the frames that were kept for the maps."""
        self.copy.close()
        self.body.close()

    def body_voxels(self) -> NDArray[np.intp]:
        """The voxels of the body but for the lungs, counted in Fortran order; none without segmentation."""
        inside: NDArray[np.bool_] | None = None
        lungs: NDArray[np.bool_] | None = None
        for name, path in self.bodydyn.labels.items():
            labels, table = read_labels(path)[0].reshape(-1, order="F"), self.scan.task(name).table
            inside = labels > 0 if inside is None else np.logical_or(inside, labels, out=inside)
            of_lungs = [i for i, region in zip(table.indices, table.names, strict=True) if "lung" in region]
            if of_lungs:
                found = np.isin(labels, of_lungs)
                lungs = found if lungs is None else lungs | found
        if inside is None:
            return np.empty(0, dtype=np.intp)
        if lungs is not None:
            inside &= ~lungs
        return np.flatnonzero(inside)

    def _frames_of_maps(self, frames: FrameTimes) -> set[int]:
        """The whole frames that maps will be made of after this pass."""
        models = (model for model in self._mapped() if not model.of_body)
        return {index for model in models for index in model.map_frames(frames, self.context.settings)}

    def _mapped(self) -> list[KineticModel]:
        """The models of which maps will be made after this pass."""
        settings, dynamic = self.context.settings, self.scan.dynamic
        if dynamic is None or not self.context.wants(MAPS) or not (self.aorta.vois or self.scan.blood):
            return []
        metadata = self.scan.metadata(dynamic)
        tracer = metadata.tracer or self.scan.name.tracer
        return [
            model
            for model in self.models
            if model.maps
            and not model.why_no_maps(metadata.frames, settings)
            and not why_not(model, tracer, metadata.frames, settings)
        ]

    def _label_images(self) -> dict[str, Path]:
        images = {**self.bodydyn.labels, **self.aorta.labels}
        if self.aorta.why_no_right_heart:
            images.pop(HEART_VOI_TASK.name, None)
        return images


VOLUME_COLUMNS: Mapping[str, Any] = {
    "volume": {"Description": "Volume of the region", "Units": "mL"},
    "volume-mm3": {"Description": "The same, by which petfit weights regions", "Units": "mm^3"},
}
"""What :func:`volumes_of` gives."""


def volumes_of(stats: RegionStats, grid: Grid) -> dict[str, NDArray[np.floating[Any]]]:
    """The volume of each region on the grid that it was measured on, in both units."""
    volume_ml = stats.n_voxels * grid.voxel_volume_ml
    return {"volume": volume_ml, "volume-mm3": 1000 * volume_ml}


def curve_keys(tasks: Iterable[str], erosions: Iterable[int]) -> list[RegionKey]:
    """Task and erosion of every table: eroded tasks with each erosion, the others and the image once."""
    keys = [(name, e) for name in tasks for e in erosions if task(name).eroded or e == 0]
    return [*keys, (WHOLE_IMAGE_TASK.name, 0)]


def region_sets(
    keys: Iterable[RegionKey],
    task_of: Callable[[str], Task],
    labels_of: Callable[[str], IntArray],
    grid: Grid,
) -> Iterator[RegionSet]:
    """The regions of every task and erosion on one grid; the labels of a task are in memory while used.

    Parameters
    ----------
    task_of
        Gives a task, with the regions that it has in the scan, by its name.
    labels_of
        Gives the labels of a task on the grid.
    """
    for name in dict.fromkeys(key[0] for key in keys):
        indices = np.array(task_of(name).table.indices)
        if name == WHOLE_IMAGE_TASK.name:
            whole = np.broadcast_to(np.uint8(indices[0]), grid.shape)
            yield RegionSet(key=(name, 0), labels=whole, indices=indices)
            continue
        labels = labels_of(name)
        for erosion in (key[1] for key in keys if key[0] == name):
            eroded = erode_labels(labels, iterations=erosion) if erosion else labels
            yield RegionSet(key=(name, erosion), labels=eroded, indices=indices)


def curve_table(
    values: np.ndarray[Any, np.dtype[np.float64]], regions: Iterable[str], frames: FrameTimes
) -> pd.DataFrame:
    """Curves (n_regions, n_frames) as a table: frame_start, frame_end, one column a region."""
    return pd.DataFrame(
        {
            FRAME_START: frames.start_s,
            FRAME_END: frames.end_s,
            **dict(zip(regions, values, strict=True)),
        }
    )
