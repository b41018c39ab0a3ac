"""The page of one participant: what was found, what came out, how it looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedypet_bids import bids_names as names
from hedypet_bids.io.atomic import write_bytes
from hedypet_bids.io.frames import read_labels, read_volume
from hedypet_bids.io.store import read_sidecar
from hedypet_bids.io.tables import read_table
from hedypet_bids.kernels.region_stats import RegionKey
from hedypet_bids.report.figures import (
    draw_alignment,
    draw_curves,
    draw_input_functions,
    draw_labels,
    draw_projections,
)
from hedypet_bids.report.page import Picture, write_page
from hedypet_bids.steps.aorta import AortaImages
from hedypet_bids.steps.input_functions import InputFunctions
from hedypet_bids.steps.resample import ImagesInSpace
from hedypet_bids.steps.step import StepRecord, Subject
from hedypet_bids.steps.tacs import Curves

MAIN_ORGANS = (
    "brain",
    "heart",
    "liver",
    "spleen",
    "kidney_left",
    "kidney_right",
    "pancreas",
    "colon",
    "urinary_bladder",
    "aorta",
    "gluteus_maximus_left",
    "gluteus_maximus_right",
)
CURVE_ORGANS = ("aorta", "brain", "heart", "liver", "spleen", "kidney_left", "colon", "gluteus_maximus_left")
REPORTED_KEY: RegionKey = ("total", 1)


@dataclass(frozen=True)
class Findings:
    """The results that the page shows."""

    static_space: ImagesInSpace
    head_space: ImagesInSpace
    constants: Path | None
    means: Mapping[RegionKey, Path]
    aorta: AortaImages
    curves: Curves
    blood: InputFunctions
    kinetics: Mapping[RegionKey, Path]
    maps: Mapping[str, Path]
    quality: Path | None


def write_report(subject: Subject, records: Sequence[StepRecord], findings: Findings) -> None:
    """Write ``sub-<L>.html`` and its pictures; the page tells of this run, so it is always made anew."""
    pictures = dict(_pictures(subject, findings))
    for name, picture in pictures.items():
        if name != "aorta":
            write_bytes(subject.store.path(names.figure(subject.label, name)), picture.svg)
    organs = _organs(subject, findings)
    write_page(
        subject.store.path(names.report(subject.label)),
        "participant.html",
        label=subject.label,
        found=list(_found(subject)),
        missing=[
            *((r.step, r.reason) for r in records if r.state == "skipped"),
            *dict.fromkeys(part for r in records for part in r.missing),
        ],
        errors=[(r.step, r.reason) for r in records if r.state == "failed"],
        constants=_rows(read_table(findings.constants)) if findings.constants else [],
        checks=read_sidecar(findings.quality).get("Checks", []) if findings.quality else [],
        flags=_flags(subject),
        organs=organs,
        organs_note=_organs_note(subject, findings),
        pictures=list(pictures.values()),
        records=records,
    )


def _found(subject: Subject) -> Iterator[tuple[str, str]]:
    inputs = subject.inputs
    for part, source in (
        ("dynamic PET", inputs.dynamic),
        ("static PET", inputs.static),
        ("CT", inputs.ct),
        ("topogram", inputs.topogram),
        ("head MR", inputs.head_mr),
        ("body MR", inputs.body_mr),
    ):
        yield part, source.path.name if source else "not found"
    facts = subject.facts
    yield "weight, height, sex", f"{facts.weight_kg} kg, {facts.height_m} m, {facts.sex}"
    yield from (("note", note) for note in facts.notes)
    for source in (inputs.static, inputs.dynamic):
        if source:
            yield from (("note", note) for note in subject.metadata(source).notes)


def _flags(subject: Subject) -> dict[str, str]:
    """What the sidecars of this participant's results flag, each with the first file that says so."""
    folder = subject.store.path(f"sub-{subject.label}")
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.json")):
        sidecar = read_sidecar(path)
        quality = sidecar.get("Quality")
        flags = [*sidecar.get("Flags", []), *(quality.get("Flags", []) if isinstance(quality, dict) else [])]
        found |= {flag: path.name for flag in flags if flag not in found}
    return found


def _suv_constant(findings: Findings) -> float:
    if findings.constants is None:
        return float("nan")
    values = read_table(findings.constants).set_index("name")["value"]
    return float(values.get("suv", float("nan")))


def _organs(subject: Subject, findings: Findings) -> list[dict[str, Any]]:
    """Volume, uptake and Ki of the main organs, as far as they were measured."""
    if REPORTED_KEY not in findings.means:
        return []
    means = read_table(findings.means[REPORTED_KEY]).set_index("name")
    ki = _reported_ki(subject, findings)
    suv = _suv_constant(findings)
    return [
        {
            "name": organ,
            "volume": means.loc[organ, "volume"],
            "mean": means.loc[organ, "mean"],
            "suv": means.loc[organ, "mean"] / suv,
            "ki": ki["Ki"].get(organ),
            "ki_se": ki["Ki_se"].get(organ),
        }
        for organ in MAIN_ORGANS
        if means.loc[organ, "n_voxels"] > 0
    ]


def _reported_ki(subject: Subject, findings: Findings) -> pd.DataFrame:
    """Ki by organ for the input function and window of the maps."""
    if REPORTED_KEY not in findings.kinetics:
        return pd.DataFrame({"Ki": {}, "Ki_se": {}})
    settings = subject.settings.patlak
    table = read_table(findings.kinetics[REPORTED_KEY])
    chosen = (table["input_function"] == settings.map_input_function) & (
        table["last_frames"] == settings.map_last_frames
    )
    return table[chosen].set_index("name")


def _organs_note(subject: Subject, findings: Findings) -> str:
    note = "Regions eroded by one voxel; mean of the static PET."
    if REPORTED_KEY in findings.kinetics:
        settings = subject.settings.patlak
        note += (
            f" Ki: Patlak, last {settings.map_last_frames} frames, input function "
            f"{settings.map_input_function}, integration rule {settings.rule}."
        )
    return note


def _pictures(subject: Subject, findings: Findings) -> Iterator[tuple[str, Picture]]:
    suv = _suv_constant(findings)
    static, ct = subject.inputs.static, subject.inputs.ct
    if static:
        image, grid = read_volume(static.path)
        scaled = image * subject.metadata(static).scale[0]
        yield (
            "mip",
            Picture.of(
                draw_projections(scaled, grid, suv_constant=suv),
                "Static PET, maximum intensity projections",
                "Coronal and sagittal maximum intensity projection of the static PET",
            ),
        )
    yield from _label_pictures(findings, ct.path.name if ct else "")
    yield from _alignment_pictures(subject, findings)
    if findings.aorta.picture:
        yield (
            "aorta",
            Picture(
                "Aorta: segments and volumes of interest on the early PET, and unrolled along the centreline",
                "Coronal and sagittal projection of the aorta's segments and volumes of interest",
                findings.aorta.picture.read_bytes(),
            ),
        )
    if findings.blood.paths:
        tables = {name: read_table(path) for name, path in findings.blood.paths.items()}
        yield (
            "inputfunctions",
            Picture.of(
                draw_input_functions(tables),
                "Image-derived input functions",
                "Whole-blood activity over time of every aorta volume of interest",
            ),
        )
    if REPORTED_KEY in findings.curves.paths:
        known = np.isfinite(suv)
        table = read_table(findings.curves.paths[REPORTED_KEY])
        figure = draw_curves(
            table,
            CURVE_ORGANS,
            scale=suv if known else 1000.0,
            units="SUV [g/mL]" if known else "activity concentration [kBq/mL]",
        )
        yield (
            "tacs",
            Picture.of(
                figure, "Time-activity curves (regions eroded by one voxel)", "Curves of the main organs"
            ),
        )


def _label_pictures(findings: Findings, ct_name: str) -> Iterator[tuple[str, Picture]]:
    space = findings.static_space
    if ct_name not in space.images:
        return
    ct, grid = read_volume(space.images[ct_name])
    for task in ("total", "tissue"):
        if task in space.labels:
            labels, _ = read_labels(space.labels[task])
            yield (
                f"seg{task}",
                Picture.of(
                    draw_labels(ct, labels, grid, title=task),
                    f"Segmentation {task} on the CT, in the static PET's space",
                    f"Coronal and sagittal slice of the CT with the labels of {task} in colours",
                ),
            )


def _alignment_pictures(subject: Subject, findings: Findings) -> Iterator[tuple[str, Picture]]:
    ct = subject.inputs.ct
    if ct is None:
        return
    for part, mr, space in (
        ("head", subject.inputs.head_mr, findings.head_space),
        ("body", subject.inputs.body_mr, findings.static_space),
    ):
        if mr is None or mr.path.name not in space.images:
            continue
        fixed, grid = read_volume(space.images[ct.path.name])
        moved, _ = read_volume(space.images[mr.path.name])
        yield (
            f"align{part}",
            Picture.of(
                draw_alignment(fixed, moved, grid, title=f"MR contour on CT, {part}"),
                f"Registration of the {part} MR to the CT",
                f"Contour of the registered {part} MR image on three slices of the CT",
            ),
        )


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{**row, "reason": row["reason"] or ""} for row in rows]
