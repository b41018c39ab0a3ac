"""SUV and SUL constants of a scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.io.nifti_read import read_labels, read_volume
from hedypet_bids.io.store import Writer
from hedypet_bids.io.tables import read_table
from hedypet_bids.kernels.lean_mass import (
    FatRange,
    NormalisationConstant,
    fat_between_hip_and_skull,
    normalisation_constants,
)
from hedypet_bids.labels import label_table
from hedypet_bids.model import Scan
from hedypet_bids.names import Source
from hedypet_bids.steps.segment import Segmentation, labels_of
from hedypet_bids.steps.static import Static
from hedypet_bids.steps.step import CannotRun, Plan, Skip, Step

# Whether it can be computed is seen only on the CT.
_FROM_FAT = "sul_decazes"


@dataclass(eq=False)
class Normalise(Step):
    """The four constants that turn Bq/mL into SUV and SUL; n/a with its reason where one is unknown."""

    scan: Scan
    static: Static
    segmentations: Sequence[Segmentation]

    @property
    def name(self) -> str:
        """``normalise``."""
        return "normalise"

    @property
    def constants(self) -> Path | None:
        """The table of constants; None where there is none."""
        return self.outputs.get("constants")

    def plan(self) -> Plan | Skip:
        """Constants from the dose, the tables on the participant, and the fat on the CT."""
        pet = self._pet
        if pet is None:
            return Skip("no PET was found")
        labels = labels_of(self.segmentations)
        return Plan(
            reads=[labels[name] for name in ("total", "tissue") if name in labels],
            makes={("constants",): self.context.store.path(names.constants(pet))},
            settings={
                "Participant": dataclasses.asdict(self.scan.person),
                "InjectedActivityBq": self.static.metadata(pet).dose_bq,
            },
            missing={
                c.name: c.reason for c in self._constants(pet, None) if c.reason and c.name != _FROM_FAT
            },
        )

    def run(self, plan: Plan, writer: Writer) -> None:
        """Compute the constants and write them with how and why."""
        pet, person = self._pet, self.scan.person
        assert pet is not None
        metadata = self.static.metadata(pet)
        fat = self._fat()
        constants = self._constants(pet, fat)
        writer.table(
            names.constants(pet),
            pd.DataFrame(
                {
                    "name": [c.name for c in constants],
                    "value": [c.value for c in constants],
                    "units": [c.units for c in constants],
                    "method": [c.method for c in constants],
                    "reason": ["; ".join(filter(None, (c.reason, c.flag))) or None for c in constants],
                }
            ),
            sources=[pet.path, *plan.reads],
            Description="An image in Bq/mL divided by a constant is SUV or SUL (g/mL)",
            Participant=dataclasses.asdict(person),
            InjectedActivityBq=metadata.dose_bq,
            DoseNotes=list(metadata.notes),
            FatVolumeMl=fat.volume_ml if fat else None,
        )

    def _constants(self, pet: Source, fat: FatRange | None) -> tuple[NormalisationConstant, ...]:
        metadata, person = self.static.metadata(pet), self.scan.person
        return normalisation_constants(
            dose_bq=metadata.dose_bq,
            weight_kg=person.weight_kg,
            height_m=person.height_m,
            sex=person.sex,
            fat=fat,
            dose_reason=metadata.dose_reason,
        )

    def _fat(self) -> FatRange | None:
        """Fat between hip and skull on the CT; None without the two segmentations."""
        labels = labels_of(self.segmentations)
        if not {"total", "tissue"} <= labels.keys():
            return None
        total, grid = read_labels(labels["total"])
        tissue, _ = read_labels(labels["tissue"])
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

    @property
    def _pet(self) -> Source | None:
        return self.static.image or self.scan.dynamic


@dataclass(eq=False)
class SuvImage(Step):
    """The static PET divided by the SUV constant, where it is asked for."""

    scan: Scan
    static: Static
    normalise: Normalise

    @property
    def name(self) -> str:
        """``normalise suv``."""
        return "normalise suv"

    def plan(self) -> Plan | Skip:
        """Divide the static PET that stands for the scan."""
        static, constants = self.static.image, self.normalise.constants
        if not self.context.settings.normalise.write_suv:
            return Skip()
        if static is None:
            return Skip("no static PET was found")
        if constants is None:
            return Skip("there are no constants")
        return Plan(
            reads=[static.path, constants],
            makes={("suv_image",): self.context.store.path(names.suv_image(static))},
            settings=self.static.metadata(static).timing_and_scale,
        )

    def run(self, plan: Plan, writer: Writer) -> None:
        """Divide and write."""
        static, constants = self.static.image, self.normalise.constants
        assert static is not None
        assert constants is not None
        constant = float(read_table(constants).set_index("name").loc["suv", "value"])
        if not np.isfinite(constant):
            raise CannotRun("the SUV constant is unknown")
        image, grid = read_volume(static.path)
        scale = float(self.static.metadata(static).scale[0])
        writer.image(
            names.suv_image(static),
            image * np.float32(scale / constant),
            grid,
            dtype=np.float32,
            sources=plan.reads,
            Units="g/mL",
            SkullStripped=False,
            Description="Standardised uptake value, body weight",
        )
