"""Every region of the phantom: its code, its tissue, and its label in each segmentation task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.labels import label_table

TASKS = ("total", "tissue", "body", "synthseg", "synthsegparc")
CT_TASKS, MR_TASKS = TASKS[:3], TASKS[3:]

SKIN_FAT, INNER_FAT, MUSCLE = "subcutaneous_fat", "visceral_fat", "muscle"
LEG_FAT, LEG_MUSCLE, TABLE = "leg_fat", "leg_muscle", "table"
CORTEX = ("ctx-lh-", "ctx-rh-")
PARCELS_PER_HEMISPHERE = 34

_MUSCLES = ("gluteus", "autochthon", "iliopsoas")
# Material of the regions of the total task: by name or by how the name begins; the rest is blood.
_TOTAL_MATERIALS = (
    *((name, name) for name in ("spleen", "kidney", "liver", "stomach", "pancreas", "lung", "colon")),
    ("gallbladder", "bile"),
    ("adrenal_gland", "gland"),
    ("thyroid_gland", "gland"),
    ("esophagus", "soft"),
    ("prostate", "gland"),
    ("trachea", "lumen"),
    ("small_bowel", "bowel"),
    ("duodenum", "bowel"),
    ("urinary_bladder", "urine"),
    ("spinal_cord", "cord"),
    ("costal_cartilages", "cartilage"),
    *((name, "muscle") for name in _MUSCLES),
    *((name, "cortical_bone") for name in ("femur", "humerus", "skull", "rib", "scapula", "clavicula")),
    *((name, "spongy_bone") for name in ("vertebrae", "sacrum", "hip", "sternum")),
)
_BRAIN_MATERIALS = (
    ("White-Matter", "white_matter"),
    ("Cerebellum-Cortex", "cerebellar_cortex"),
    ("Cerebral-Cortex", "gray_matter"),
    ("Vent", "csf"),
    ("CSF", "csf"),
    ("Brain-Stem", "brain_stem"),
    ("Hippocampus", "limbic_gray_matter"),
    ("Amygdala", "limbic_gray_matter"),
)


@dataclass(frozen=True)
class Region:
    """A part of the body with one material and at most one label in each task.

    Parameters
    ----------
    material
        Key of :data:`hedypet_bids.phantom.materials.MATERIALS`.
    total, tissue, body, synthseg, synthsegparc
        Label names; empty for background.
    """

    name: str
    material: str
    total: str = ""
    tissue: str = ""
    body: str = "trunk"
    synthseg: str = ""
    synthsegparc: str = ""

    def label(self, task: str) -> str:
        """The region's label name in a task; empty for background."""
        names = (self.total, self.tissue, self.body, self.synthseg, self.synthsegparc)
        return names[TASKS.index(task)]


@cache
def regions() -> tuple[Region, ...]:
    """All regions; the place in the tuple is the code, and code 0 is the air around the body."""
    return tuple(_all_regions())


@cache
def code_of(name: str) -> int:
    """The code of a region; KeyError for an unknown name."""
    for code, region in enumerate(regions()):
        if region.name == name:
            return code
    raise KeyError(f"{name!r} is not a region of the phantom")


@cache
def label_lut(task: str) -> NDArray[np.int16]:
    """Label index of each code in a task, shape (n_regions,): ``label_lut(task)[codes]``."""
    table = label_table(task)
    names = [region.label(task) for region in regions()]
    return np.array([table.index_of(name) if name else 0 for name in names], dtype=np.int16)


def material_of_label(task: str, name: str) -> str:
    """The one material of all regions with this label; empty if there are several or none."""
    found = {region.material for region in regions() if region.label(task) == name}
    return found.pop() if len(found) == 1 else ""


def _all_regions() -> Iterator[Region]:
    yield Region("air", "air", body="")
    yield Region(TABLE, "table", body="")
    yield Region(SKIN_FAT, "subcutaneous_fat", tissue="subcutaneous_fat")
    yield Region(INNER_FAT, "visceral_fat", tissue="visceral_fat")
    yield Region(MUSCLE, "muscle", tissue="skeletal_muscle")
    yield Region(LEG_FAT, "subcutaneous_fat", tissue="subcutaneous_fat", body="extremeties")
    yield Region(LEG_MUSCLE, "muscle", tissue="skeletal_muscle", body="extremeties")
    for name in label_table("total").names:
        if name != "brain":
            yield _total_region(name)
    for name in label_table("synthseg").names:
        if "Cerebral-Cortex" not in name:
            yield Region(name, _brain_material(name), total="brain", synthseg=name, synthsegparc=name)
    for prefix, side in zip(CORTEX, ("Left", "Right"), strict=True):
        for parcel in (name for name in label_table("synthsegparc").names if name.startswith(prefix)):
            yield Region(
                parcel, "gray_matter", "brain", synthseg=f"{side}-Cerebral-Cortex", synthsegparc=parcel
            )


def _total_region(name: str) -> Region:
    material = next((m for start, m in _TOTAL_MATERIALS if name.startswith(start)), "blood")
    return Region(
        name,
        material,
        total=name,
        tissue="skeletal_muscle" if name.startswith(_MUSCLES) else "",
        body="extremeties" if name.startswith("femur") else "trunk",
    )


def _brain_material(name: str) -> str:
    return next((m for part, m in _BRAIN_MATERIALS if part in name), "deep_gray_matter")
