"""SUV and SUL constants of a participant."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.io.nifti_read import read_labels, read_volume
from hedypet_bids.io.store import Writer
from hedypet_bids.io.tables import read_table
from hedypet_bids.kernels.lean_mass import (
    FatRange,
    fat_between_hip_and_skull,
    normalisation_constants,
)
from hedypet_bids.labels import label_table
from hedypet_bids.names import Source
from hedypet_bids.steps.step import CannotRun, Step, Subject, pet_facts


@dataclass(frozen=True)
class Normalise(Step[Path | None]):
    """The four constants that turn Bq/mL into SUV and SUL; n/a with its reason where one is unknown."""

    subject: Subject
    segmentations: Mapping[str, Path]

    @property
    def name(self) -> str:
        """``normalise``."""
        return "normalise"

    def skip_reason(self) -> str:
        """Why there are no constants."""
        return "" if self.subject.inputs.pet else "no PET was found"

    def sources(self) -> Iterable[Path]:
        """The segmentations that measure fat."""
        return [self.segmentations[t] for t in ("total", "tissue") if t in self.segmentations]

    def settings(self) -> Mapping[str, Any]:
        """What the tables and the sidecar say about the participant and the dose."""
        return {
            "Participant": dataclasses.asdict(self.subject.facts),
            "InjectedActivityBq": self._dose_bq(),
        }

    def results(self) -> Path | None:
        """The table of constants."""
        return self.subject.store.path(names.constants(self._pet))

    def nothing(self) -> Path | None:
        """No constants."""
        return None

    def outputs(self) -> Iterable[Path]:
        """The table of constants."""
        return [self.subject.store.path(names.constants(self._pet))]

    def run(self, writer: Writer) -> None:
        """Compute the constants and write them with how and why."""
        facts, metadata = self.subject.facts, self.subject.metadata(self._pet)
        fat = self._fat()
        constants = normalisation_constants(
            dose_bq=metadata.dose_bq,
            weight_kg=facts.weight_kg,
            height_m=facts.height_m,
            sex=facts.sex,
            fat=fat,
            dose_reason=metadata.dose_reason,
        )
        writer.table(
            names.constants(self._pet),
            pd.DataFrame(
                {
                    "name": [c.name for c in constants],
                    "value": [c.value for c in constants],
                    "units": [c.units for c in constants],
                    "method": [c.method for c in constants],
                    "reason": ["; ".join(filter(None, (c.reason, c.flag))) or None for c in constants],
                }
            ),
            sources=[self._pet.path, *self.sources()],
            Description="An image in Bq/mL divided by a constant is SUV or SUL (g/mL)",
            Participant=dataclasses.asdict(facts),
            InjectedActivityBq=self._dose_bq(),
            DoseNotes=list(metadata.notes),
            FatVolumeMl=fat.volume_ml if fat else None,
        )

    def _fat(self) -> FatRange | None:
        """Fat between hip and skull on the CT; None without the two segmentations."""
        if not {"total", "tissue"} <= self.segmentations.keys():
            return None
        total, grid = read_labels(self.segmentations["total"])
        tissue, _ = read_labels(self.segmentations["tissue"])
        total_table, tissue_table = label_table("total"), label_table("tissue")
        return fat_between_hip_and_skull(
            tissue,
            total,
            grid,
            subcutaneous=tissue_table.index_of("subcutaneous_fat"),
            torso=tissue_table.index_of("visceral_fat"),
            hips=total_table.indices_of("hip_left", "hip_right"),
            skull=total_table.index_of("skull"),
        )

    def _dose_bq(self) -> float:
        return self.subject.metadata(self._pet).dose_bq

    @property
    def _pet(self) -> Source:
        assert self.subject.inputs.pet is not None
        return self.subject.inputs.pet


@dataclass(frozen=True)
class WriteSuv(Step[Path | None]):
    """The static PET divided by the SUV constant."""

    subject: Subject
    constants: Path | None

    @property
    def name(self) -> str:
        """``SUV image``."""
        return "SUV image"

    @property
    def group(self) -> str:
        """``normalise``."""
        return "normalise"

    def skip_reason(self) -> str:
        """Why no SUV image is written."""
        if self.subject.inputs.static is None:
            return "no static PET was found"
        return "" if self.constants else "there are no constants"

    def sources(self) -> Iterable[Path]:
        """The static PET and the constants."""
        return [self.subject.static.path, *([self.constants] if self.constants else [])]

    def settings(self) -> Mapping[str, Any]:
        """Units and decay factors."""
        return pet_facts(self.subject.metadata(self.subject.static))

    def results(self) -> Path | None:
        """The image."""
        return self.subject.store.path(names.suv_image(self.subject.static))

    def nothing(self) -> Path | None:
        """No image."""
        return None

    def outputs(self) -> Iterable[Path]:
        """The image."""
        return [self.subject.store.path(names.suv_image(self.subject.static))]

    def run(self, writer: Writer) -> None:
        """Divide and write."""
        assert self.constants is not None
        constant = float(read_table(self.constants).set_index("name").loc["suv", "value"])
        if not np.isfinite(constant):
            raise CannotRun("the SUV constant is unknown")
        image, grid = read_volume(self.subject.static.path)
        scale = float(self.subject.metadata(self.subject.static).scale[0])
        writer.image(
            names.suv_image(self.subject.static),
            image * np.float32(scale / constant),
            grid,
            dtype=np.float32,
            sources=self.sources(),
            Units="g/mL",
            SkullStripped=False,
            Description="Standardised uptake value, body weight",
        )
