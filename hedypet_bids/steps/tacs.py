"""Time-activity curves of every region of every segmentation, in one pass over the dynamic PET."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.io.nifti_read import FrameReader, read_labels
from hedypet_bids.io.store import Writer
from hedypet_bids.io.tables import FRAME_END, FRAME_START, frame_times
from hedypet_bids.kernels.erosion import erode_labels
from hedypet_bids.kernels.region_statistics import (
    JointLabels,
    RegionKey,
    RegionSet,
    RegionStats,
    region_statistics,
)
from hedypet_bids.labels import WHOLE_IMAGE_TASK, Task, task
from hedypet_bids.model import FrameTimes, Grid
from hedypet_bids.settings import plain
from hedypet_bids.steps.aorta import AortaImages
from hedypet_bids.steps.quality import FrameWatch
from hedypet_bids.steps.step import Step, Subject, pet_facts


@dataclass(frozen=True)
class Curves:
    """Curve tables (mean, Bq/mL per frame and region) by task and erosion, and a table on the frames."""

    paths: Mapping[RegionKey, Path] = field(default_factory=dict, hash=False)
    frame_quality: Path | None = None


@dataclass(frozen=True)
class MeasureCurves(Step[Curves]):
    """Mean and standard deviation per frame of every region, erosion and aorta volume of interest."""

    subject: Subject
    labels: Mapping[str, Path]
    aorta: AortaImages

    @property
    def name(self) -> str:
        """``tacs``."""
        return "tacs"

    def skip_reason(self) -> str:
        """Why there are no curves."""
        return "" if self.subject.inputs.dynamic else "no dynamic PET was found"

    def sources(self) -> Iterable[Path]:
        """The dynamic PET and all label images on its grid."""
        return [self.subject.dynamic.path, *self._label_images().values()]

    def settings(self) -> Mapping[str, Any]:
        """Number of erosions, frame times and units, and which tasks there are."""
        facts = pet_facts(self.subject.metadata(self.subject.dynamic))
        return {**plain(self.subject.settings.curves), **facts, "tasks": sorted(self._label_images())}

    def results(self) -> Curves:
        """Tables of means by task and erosion."""
        store = self.subject.store
        return Curves(
            paths={key: store.path(names.curves(self.subject.dynamic, *key)) for key in self._keys()},
            frame_quality=store.path(names.frame_quality(self.subject.dynamic)),
        )

    def nothing(self) -> Curves:
        """No curves."""
        return Curves()

    def outputs(self) -> Iterable[Path]:
        """Tables of means, standard deviations and volumes, and the table on the frames."""
        quality = self.subject.store.path(names.frame_quality(self.subject.dynamic))
        return [quality] + [
            self.subject.store.path(name)
            for key in self._keys()
            for name in (
                names.curves(self.subject.dynamic, *key),
                names.curves(self.subject.dynamic, *key, statistic="std"),
                names.volumes(self.subject.dynamic, *key),
            )
        ]

    def run(self, writer: Writer) -> None:
        """Pass over the frames once and write three tables per task and erosion."""
        reader = FrameReader(self.subject.dynamic.path)
        metadata = self.subject.metadata(self.subject.dynamic)
        images = self._label_images()
        joint = JointLabels.combine(region_sets(self._keys(), images, reader.grid))
        watch = FrameWatch(metadata.frames, reader.grid)
        measured = region_statistics(watch.passing(reader.frames()), joint)
        for key, stats in measured.items():
            label_image = images.get(key[0])
            sources = [self.subject.dynamic.path, *([label_image] if label_image else [])]
            # The factors to Bq/mL, decay-corrected to injection, differ by frame only.
            self._write(writer, key, stats, metadata.scale, metadata.frames, reader.grid, sources)

        writer.table(
            names.frame_quality(self.subject.dynamic),
            watch.table(),
            sources=[self.subject.dynamic.path],
            Description="Frames after 30 min against the first of them: displacement of the body in world mm "
            "(RAS+), distance of its centroid, correlation inside it, and negative voxels of those looked at",
        )

    def _write(
        self,
        writer: Writer,
        key: RegionKey,
        stats: RegionStats,
        scale: np.ndarray[Any, np.dtype[np.float64]],
        frames: FrameTimes,
        grid: Grid,
        sources: list[Path],
    ) -> None:
        table = task(key[0]).table
        for statistic, values in (("mean", stats.mean), ("std", stats.std)):
            writer.table(
                names.curves(self.subject.dynamic, *key, statistic=statistic),  # type: ignore[arg-type]
                curve_table(values * scale, table.names, frames),
                sources=sources,
                Description=f"{statistic} activity concentration of each region per frame",
                Units="Bq/mL",
                frame_start={"Description": "Start of the frame after injection", "Units": "s"},
                frame_end={"Description": "End of the frame after injection", "Units": "s"},
                ErosionIterations=key[1],
            )
        writer.table(
            names.volumes(self.subject.dynamic, *key),
            pd.DataFrame(
                {
                    "index": table.indices,
                    "name": table.names,
                    "n_voxels": stats.n_voxels,
                    "n_valid": stats.n_valid.min(axis=1),
                    "volume": stats.n_voxels * grid.voxel_volume_ml,
                }
            ),
            sources=sources,
            volume={"Description": "Volume of the region", "Units": "mL"},
            n_valid={"Description": "Finite voxels, the smallest number over the frames"},
        )

    def _label_images(self) -> dict[str, Path]:
        segments = {"aorta": self.aorta.segments} if self.aorta.segments else {}
        return {**self.labels, **segments, **self.aorta.vois}

    def _keys(self) -> list[RegionKey]:
        return curve_keys(self._label_images(), self.subject.settings.curves.erosions)


def curve_keys(tasks: Iterable[str], erosions: Iterable[int]) -> list[RegionKey]:
    """Task and erosion of every table: eroded tasks with each erosion, the others and the image once."""
    keys = [(name, e) for name in tasks for e in erosions if task(name).eroded or e == 0]
    return [*keys, (WHOLE_IMAGE_TASK.name, 0)]


def region_sets(keys: Iterable[RegionKey], images: Mapping[str, Path], grid: Grid) -> Iterator[RegionSet]:
    """The regions of every task and erosion on one grid; each label image is in memory only while used."""
    for name in dict.fromkeys(key[0] for key in keys):
        erosions = [key[1] for key in keys if key[0] == name]
        for erosion, labels in _eroded(task(name), images.get(name), grid, erosions):
            yield RegionSet(key=(name, erosion), labels=labels, indices=np.array(task(name).table.indices))


def _eroded(
    what: Task, image: Path | None, grid: Grid, erosions: list[int]
) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[Any]]]]:
    if image is None:
        yield 0, np.broadcast_to(np.uint8(what.table.indices[0]), grid.shape)
        return
    labels, _ = read_labels(image)
    for erosion in erosions:
        yield erosion, erode_labels(labels, iterations=erosion) if erosion else labels


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


def read_curves(table: pd.DataFrame) -> tuple[FrameTimes, np.ndarray[Any, np.dtype[np.float64]]]:
    """Frame times and curves (n_regions, n_frames) of a curve table."""
    regions = table.drop(columns=[FRAME_START, FRAME_END])
    return frame_times(table), regions.to_numpy(dtype=np.float64).T
