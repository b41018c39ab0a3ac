"""Mean uptake of every region in every static PET."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.io.manifest import Kind
from hedypet_bids.io.nifti_read import FrameReader, read_labels
from hedypet_bids.io.store import Writer
from hedypet_bids.kernels.region_statistics import JointLabels, RegionKey, region_statistics
from hedypet_bids.labels import MR_TASKS, task
from hedypet_bids.model import FloatArray, Grid, IntArray, Scan
from hedypet_bids.names import Source, Space
from hedypet_bids.settings import plain
from hedypet_bids.steps.resample import Resample
from hedypet_bids.steps.static import Static
from hedypet_bids.steps.step import Plan, Skip, Step
from hedypet_bids.steps.tacs import VOLUME_COLUMNS, curve_keys, region_sets, volumes_of

# A field of view that is so much shorter than that of the scan shows the head alone.
_HEAD_ONLY = 0.5


@dataclass(frozen=True)
class _Measured:
    """One static image as it is measured.

    Parameters
    ----------
    source
        The reconstruction.
    path
        The image: itself, or resampled into the head space.
    scale
        Stored value to Bq/mL.
    space
        Whose labels are used, ``head`` for what shows the head alone; None: on its own grid.
    tasks
        The segmentations that are measured, but for the whole image.
    labels_of
        Their labels on the grid of the image.
    reads
        The files of these labels.
    """

    source: Source
    path: Path
    scale: float
    space: Space | None
    tasks: Sequence[str]
    labels_of: Callable[[str], IntArray]
    reads: Sequence[Path]


@dataclass(eq=False)
class MeasureStatic(Step):
    """Mean, standard deviation and volume of every region and erosion in every static reconstruction.

    A reconstruction on another grid than the one that stands for the scan is measured on its own, with the
    segmentations brought there; one that shows the head alone in the head space.
    """

    scan: Scan
    static: Static
    bodystat: Resample
    head: Resample

    @property
    def name(self) -> str:
        """``means``."""
        return "means"

    def plan(self) -> Plan | Skip:
        """Measure every static reconstruction."""
        if self.static.image is None:
            return Skip("no static PET was found")
        images = list(self._images())
        makes: dict[Kind, Path] = {}
        for image in images:
            for key in self._keys(image):
                makes["means", image.source.path.name, *key] = self.context.store.path(self._file(image, key))
        return Plan(
            reads=dict.fromkeys(path for image in images for path in (image.path, *image.reads)),
            makes=makes,
            settings={
                **plain(self.context.settings.curves),
                "pet": {i.path.name: self.static.metadata(i).timing_and_scale for i in self.static.images},
                "tasks": sorted(self.bodystat.labels),
            },
            missing={
                f"means of {image.path.name}": "it shows the head alone, and there is no head space"
                for image in self.static.images
                if image not in [found.source for found in images]
            },
        )

    def run(self, _plan: Plan, writer: Writer) -> None:
        """Measure every region and write one table per image, task and erosion."""
        for image in self._images():
            self._measure(image, writer)

    def _measure(self, image: _Measured, writer: Writer) -> None:
        reader = FrameReader(image.path)
        joint = JointLabels.combine(
            region_sets(self._keys(image), self.scan.task, image.labels_of, reader.grid)
        )
        negative = 0

        def frames() -> Iterator[FloatArray]:
            nonlocal negative
            for _, frame in reader.frames():
                negative += sum(int(np.count_nonzero(plane < 0)) for plane in frame.T)
                yield frame

        for key, stats in region_statistics(frames(), joint).items():
            table = self.scan.task(key[0]).table
            labels = (self.head if image.space else self.bodystat).labels.get(key[0])
            writer.table(
                self._file(image, key),
                pd.DataFrame(
                    {
                        "index": table.indices,
                        "name": table.names,
                        "mean": stats.mean[:, 0] * image.scale,
                        "std": stats.std[:, 0] * image.scale,
                        "n_voxels": stats.n_voxels,
                        "n_valid": stats.n_valid[:, 0],
                        **volumes_of(stats, reader.grid),
                    }
                ),
                sources=[image.path, *([labels] if labels else [])],
                mean={"Description": "Mean activity concentration of the region", "Units": "Bq/mL"},
                std={"Description": "Population standard deviation over the voxels", "Units": "Bq/mL"},
                **VOLUME_COLUMNS,
                ErosionIterations=key[1],
                NegativeVoxels=negative,
            )

    def _images(self) -> Iterator[_Measured]:
        """How each static reconstruction is measured; without those that cannot be."""
        first, *others = self.static.images
        yield self._on_own_grid(first, lambda name: read_labels(self.bodystat.labels[name])[0])
        for image in others:
            # Read here: one that is made from frames has no others, and is not there in a plan.
            grid, own = FrameReader(first.path).grid, FrameReader(image.path).grid
            if own.matches(grid):
                yield self._on_own_grid(image, lambda name: read_labels(self.bodystat.labels[name])[0])
            elif _height_mm(own) >= _HEAD_ONLY * _height_mm(grid):
                yield self._on_own_grid(image, partial(self.bodystat.labels_on, target=own))
            elif image.path.name in self.head.images:
                brain = [name for name in self.head.labels if task(name) in MR_TASKS]
                tasks = brain or [name for name in self.head.labels if name == "total"]
                yield _Measured(
                    image,
                    self.head.images[image.path.name],
                    1.0,
                    "head",
                    tasks,
                    lambda name: read_labels(self.head.labels[name])[0],
                    [self.head.labels[name] for name in tasks],
                )

    def _on_own_grid(self, image: Source, labels_of: Callable[[str], IntArray]) -> _Measured:
        scale = float(self.static.metadata(image).scale[0])
        reads = [*self.bodystat.labels.values(), *self.bodystat.sources_of_labels()]
        return _Measured(image, image.path, scale, None, list(self.bodystat.labels), labels_of, reads)

    def _file(self, image: _Measured, key: RegionKey) -> str:
        space = self.scan.space(image.space) if image.space else None
        return names.volumes(image.source, *key, space=space)

    def _keys(self, image: _Measured) -> list[RegionKey]:
        return curve_keys(image.tasks, self.context.settings.curves.erosions)


def _height_mm(grid: Grid) -> float:
    """Extent of a grid along the body."""
    edges = grid.affine[2, :3] * np.array(grid.shape)
    return float(np.abs(edges).sum())
