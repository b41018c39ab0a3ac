"""Segmentation tasks and their label tables, looked up by name.

A task is one segmentation of the body or of a part of it. Its table (index,
name) ships as ``data/labels/<task>_dseg.tsv``: total, tissue and body are
TotalSegmentator's classes and synthseg, synthsegparc SynthSeg's, under the names
of the hedyPET tables; totalmr holds those of TotalSegmentator's ``total_mr``.
"""

from __future__ import annotations

import colorsys
import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

Modality = Literal["ct", "mr", "pet", "none"]


@dataclass(frozen=True)
class LabelTable:
    """Indices and names of the regions of one task, in table order."""

    task: str
    indices: tuple[int, ...]
    names: tuple[str, ...]

    def index_of(self, name: str) -> int:
        """Label index of a region name; KeyError for a name that is not in the table."""
        try:
            return self.indices[self.names.index(name)]
        except ValueError:
            raise KeyError(f"{name!r} is not a region of the {self.task} label table") from None

    def only(self, names: Collection[str]) -> LabelTable:
        """The part of the table with these names; those that it lacks are passed over."""
        kept = [(i, name) for i, name in zip(self.indices, self.names, strict=True) if name in names]
        return LabelTable(self.task, tuple(i for i, _ in kept), tuple(name for _, name in kept))

    def indices_of(self, *names: str) -> tuple[int, ...]:
        """Label indices of several region names."""
        return tuple(self.index_of(name) for name in names)


@dataclass(frozen=True)
class Task:
    """A segmentation: its name in file names, in the readout tables, and where it comes from."""

    name: str
    readout_name: str
    modality: Modality
    table_name: str
    eroded: bool = True

    @property
    def table(self) -> LabelTable:
        """The label table of the task."""
        return label_table(self.table_name)


CT_TASKS = (
    Task("total", "ts_total", "ct", "total"),
    Task("tissue", "ts_tissue", "ct", "tissue"),
    Task("body", "ts_body", "ct", "body"),
)
MR_TASKS = (
    Task("synthseg", "synthseg", "mr", "synthseg"),
    Task("synthsegparc", "synthsegparc", "mr", "synthsegparc"),
)
AORTA_TASK = Task("aorta", "aortasegments", "pet", "aorta")
VOI_TASKS = (
    Task("aortavoifull3px", "aortavois_ml-full_width-3", "pet", "aorta", eroded=False),
    Task("aortavoi1ml3px", "aortavois_ml-1_width-3", "pet", "aorta", eroded=False),
    Task("aortavoi2ml5px", "aortavois_ml-2_width-5", "pet", "aorta", eroded=False),
    # Not one of hedyPET's twelve: every voxel of the others in the descending aorta.
    Task("aortavoicombined", "aortavois_combined", "pet", "aortacombined", eroded=False),
)
HEART_VOI_TASK = Task("heartvoi1ml", "heartvois_ml-1", "pet", "heartvoi", eroded=False)
INPUT_TASKS = (*VOI_TASKS, HEART_VOI_TASK)
"""Every kind of volume that input functions come from; those of the aorta alone are VOI_TASKS."""
WHOLE_IMAGE_TASK = Task("totalimage", "totalimage", "none", "totalimage", eroded=False)

MR_TABLES: Mapping[str, str] = {"total": "totalmr"}
"""Tables of tasks whose network for MR tells other regions apart; one name has one number in both."""

SEGMENTATION_TASKS = CT_TASKS + MR_TASKS
ALL_TASKS = (*SEGMENTATION_TASKS, AORTA_TASK, *INPUT_TASKS, WHOLE_IMAGE_TASK)


@cache
def label_table(name: str) -> LabelTable:
    """The label table shipped as ``data/labels/<name>_dseg.tsv``."""
    text = resources.files("hedypet_bids").joinpath(f"data/labels/{name}_dseg.tsv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    return LabelTable(name, tuple(int(r["index"]) for r in rows), tuple(r["name"] for r in rows))


# TotalSegmentator's names of regions that hedyPET's tables call otherwise.
OTHER_NAMES: Mapping[str, str] = {
    "torso_fat": "visceral_fat",
    "body_trunc": "trunk",
    "body_extremities": "extremeties",
}


@cache
def former_regions(table_name: str) -> Mapping[str, str]:
    """Region (or ``n/a``) by the name that TotalSegmentator 1 gave it; empty for tables it did not have."""
    if table_name != "total":
        return {}
    text = resources.files("hedypet_bids").joinpath("data/labels/total_v1.tsv").read_text("utf-8")
    return {row["name"]: row["region"] for row in csv.DictReader(text.splitlines(), delimiter="\t")}


def color(index: int) -> str:
    """The colour of a label in label tables, ``#rrggbb``; neighbouring numbers differ much."""
    # Steps of the golden ratio around the circle of hues never come close to an earlier one.
    hue = (index * 0.618033988749895) % 1.0
    rgb = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (index % 2), 0.95 - 0.2 * (index % 3 == 0))
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


@cache
def regions_of_body() -> dict[int, str]:
    """The regions of the total task by label, with those that only its network for MR tells apart."""
    tables = (label_table("total"), label_table(MR_TABLES["total"]))
    return {index: name for table in tables for index, name in zip(table.indices, table.names, strict=True)}


def task(name: str) -> Task:
    """The task with this name in file names; KeyError for an unknown one."""
    for candidate in ALL_TASKS:
        if candidate.name == name:
            return candidate
    raise KeyError(f"{name!r} is not a segmentation task; known: {', '.join(t.name for t in ALL_TASKS)}")
