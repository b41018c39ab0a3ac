"""Mean uptake of every region in the static PET."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.store import Writer
from hedypet_bids.kernels.region_statistics import JointLabels, RegionKey, region_statistics
from hedypet_bids.labels import task
from hedypet_bids.model import FloatArray
from hedypet_bids.settings import plain
from hedypet_bids.steps.step import Step, Subject, pet_facts
from hedypet_bids.steps.tacs import curve_keys, region_sets


@dataclass(frozen=True)
class MeasureStatic(Step[dict[RegionKey, Path]]):
    """Mean, standard deviation and volume of every region and erosion in the static PET."""

    subject: Subject
    labels: Mapping[str, Path]

    @property
    def name(self) -> str:
        """``static means``."""
        return "static means"

    @property
    def group(self) -> str:
        """``means``."""
        return "means"

    def skip_reason(self) -> str:
        """Why there are no means."""
        return "" if self.subject.inputs.static else "no static PET was found"

    def sources(self) -> Iterable[Path]:
        """The static PET and all label images on its grid."""
        return [self.subject.static.path, *self.labels.values()]

    def settings(self) -> Mapping[str, Any]:
        """Number of erosions, frame times and units, and which tasks there are."""
        facts = pet_facts(self.subject.metadata(self.subject.static))
        return {**plain(self.subject.settings.curves), **facts, "tasks": sorted(self.labels)}

    def results(self) -> dict[RegionKey, Path]:
        """Tables of means by task and erosion."""
        return {
            key: self.subject.store.path(names.volumes(self.subject.static, *key)) for key in self._keys()
        }

    def nothing(self) -> dict[RegionKey, Path]:
        """No means."""
        return {}

    def outputs(self) -> Iterable[Path]:
        """The tables."""
        return self.results().values()

    def run(self, writer: Writer) -> None:
        """Measure every region and write one table per task and erosion."""
        reader = FrameReader(self.subject.static.path)
        scale = float(self.subject.metadata(self.subject.static).scale[0])
        joint = JointLabels.combine(region_sets(self._keys(), self.labels, reader.grid))
        negative = 0

        def frames() -> Iterator[FloatArray]:
            nonlocal negative
            for _, frame in reader.frames():
                negative += sum(int(np.count_nonzero(plane < 0)) for plane in frame.T)
                yield frame

        for key, stats in region_statistics(frames(), joint).items():
            table = task(key[0]).table
            image = self.labels.get(key[0])
            writer.table(
                names.volumes(self.subject.static, *key),
                pd.DataFrame(
                    {
                        "index": table.indices,
                        "name": table.names,
                        "mean": stats.mean[:, 0] * scale,
                        "std": stats.std[:, 0] * scale,
                        "n_voxels": stats.n_voxels,
                        "n_valid": stats.n_valid[:, 0],
                        "volume": stats.n_voxels * reader.grid.voxel_volume_ml,
                    }
                ),
                sources=[self.subject.static.path, *([image] if image else [])],
                mean={"Description": "Mean activity concentration of the region", "Units": "Bq/mL"},
                std={"Description": "Population standard deviation over the voxels", "Units": "Bq/mL"},
                volume={"Description": "Volume of the region", "Units": "mL"},
                ErosionIterations=key[1],
                NegativeVoxels=negative,
            )

    def _keys(self) -> list[RegionKey]:
        return curve_keys(self.labels, self.subject.settings.curves.erosions)
