"""The page of one participant: what was found, what came out, how it looks."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from hedypet_bids import names
from hedypet_bids.errors import HedypetError
from hedypet_bids.figures.pictures import Picture
from hedypet_bids.figures.planes import world_shape, world_sizes_mm
from hedypet_bids.figures.rasters import ABOVE_COLOUR, BELOW_COLOUR
from hedypet_bids.io.atomic import write_bytes, write_text
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.store import read_sidecar
from hedypet_bids.io.tables import read_table
from hedypet_bids.kernels.region_statistics import RegionKey
from hedypet_bids.labels import SEGMENTATION_TASKS
from hedypet_bids.model import Grid
from hedypet_bids.names import Source
from hedypet_bids.report.kinetics import Kinetics
from hedypet_bids.report.methods import MADE, READY, Parts, methods_of, methods_of_dataset
from hedypet_bids.report.organs import CONSTANTS, REPORTED_ORGANS, organ_values
from hedypet_bids.report.page import write_page
from hedypet_bids.report.past_runs import PastStep, crash_text, past_steps
from hedypet_bids.report.pictures import Gallery
from hedypet_bids.steps.aorta import AortaImages
from hedypet_bids.steps.input_functions import InputFunctions
from hedypet_bids.steps.resample import ImagesInSpace
from hedypet_bids.steps.step import StepRecord, Subject
from hedypet_bids.steps.tacs import Curves

PartT = TypeVar("PartT")

MAIN_ORGANS = tuple(region for organ in REPORTED_ORGANS if organ.task == "total" for region in organ.regions)
"""The regions of the CT in the table of organs; the group's page shows them first."""

CITATION = "logs/CITATION"
_PACKAGES = ("numpy", "scipy", "pandas", "nibabel", "matplotlib")
_STATES: Mapping[str, str] = {"normal": "pass", "outside": "FLAG", "unknown": "not known"}
_DONE = ("ran", "done")


@dataclass(frozen=True)
class StaticFindings:
    """What the static PET gave: images in its space, constants, and the means of regions."""

    space: ImagesInSpace
    constants: Path | None
    means: Mapping[RegionKey, Path]


@dataclass(frozen=True)
class DynamicFindings:
    """What the dynamic PET gave: the aorta, curves, input functions, Patlak fits and maps."""

    aorta: AortaImages
    curves: Curves
    blood: InputFunctions
    kinetics: Mapping[RegionKey, Path]
    maps: Mapping[str, Path]


@dataclass(frozen=True)
class Findings:
    """The results that the page shows."""

    static: StaticFindings
    dynamic: DynamicFindings
    head_space: ImagesInSpace
    quality: Path | None


def write_report(subject: Subject, records: Sequence[StepRecord], findings: Findings) -> None:
    """Write ``sub-<L>.html``, its pictures and ``logs/CITATION``; always anew, as the page is of this run."""
    sections = _Sections()
    kinetics = Kinetics(
        subject,
        findings.static.constants,
        findings.dynamic.curves,
        findings.dynamic.blood,
        findings.dynamic.kinetics,
    )
    gallery = Gallery(
        subject, findings.static.space, findings.head_space, findings.static.constants, findings.dynamic.maps
    )
    methods = methods_of(subject.settings, parts_of(subject, records, findings))
    organs = sections.get("the table of organs", lambda: _organs(findings, kinetics))
    content: dict[str, Any] = {
        "organs": organs,
        "constants": sections.get(
            "the normalisation constants", lambda: _constants(findings.static.constants)
        ),
        "organs_note": kinetics.note(),
        "patlak": sections.get("the Patlak plots", kinetics.patlak_pictures),
        "input_functions": sections.get("the input functions", kinetics.input_function_pictures),
        "curves": sections.get("the curves", kinetics.curve_pictures),
        "uptake": sections.get("the projections of the PET", gallery.uptake),
        "ki_map": sections.get("the projections of the Ki map", gallery.ki_map),
        "segmentations": sections.get("the segmentations", gallery.segmentations),
        "alignments": sections.get("the alignment", gallery.alignments),
        "aorta": _aorta(findings.dynamic.aorta),
        "spaces": sections.get("the spaces", lambda: list(_spaces(subject, findings))),
    }
    _write_pictures(subject, content)
    write_page(
        subject.store.path(names.report(subject.label)),
        "participant.html",
        label=subject.label,
        **content,
        problems=sections.problems,
        **_summary(subject, records, findings),
        methods=methods,
        outline_colours=(BELOW_COLOUR, ABOVE_COLOUR),
        reason={r.step: r.reason for r in records if r.state in ("skipped", "failed")},
        settings=subject.settings.to_toml(),
    )
    _write_citation(subject)


class _Sections:
    """Makes the parts of the page one by one: one that cannot be shown does not keep the rest out."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []

    def get(self, what: str, make: Callable[[], PartT]) -> PartT | None:
        """What is to be shown; None, with the reason among the problems, where that failed."""
        try:
            return make()
        except HedypetError as error:
            self.problems.append((what, str(error)))
            return None


_MODALITIES = {names.PET_SUFFIX: "PET", names.MR_SUFFIX: "MR image"}


def parts_of(subject: Subject, records: Sequence[StepRecord], findings: Findings) -> Parts:
    """What took place, for the methods text."""
    done = {record.step for record in records if record.state in _DONE}
    inputs = subject.inputs
    method = subject.settings.register.method
    return Parts(
        segmented={
            task.name: READY if task.name in inputs.ready_segmentations else MADE
            for task in SEGMENTATION_TASKS
            if f"segment {task.name}" in done
        },
        registered={
            part: "given" if part in inputs.given_transforms else method
            for part in ("head", "body")
            if f"register {part}" in done
        },
        static=inputs.static is not None,
        static_from_frames="static image" in done,
        dynamic=inputs.dynamic is not None,
        head_space="resample head" in done,
        constants=findings.static.constants is not None,
        aorta=bool(findings.dynamic.aorta.vois),
        kinetics=bool(findings.dynamic.kinetics),
        maps=bool(findings.dynamic.maps),
        labelled=_MODALITIES.get(inputs.anatomy.suffix, "CT") if inputs.anatomy else "CT",
        fixed="CT" if inputs.ct else "PET",
    )


def _summary(subject: Subject, records: Sequence[StepRecord], findings: Findings) -> dict[str, Any]:
    logs = subject.tools.log_folder
    past = past_steps(logs.parent, but=logs)
    errors = list(_errors(records, past, logs))
    checks = read_sidecar(findings.quality).get("Checks", []) if findings.quality else []
    return {
        "files": list(_files(subject)),
        "facts": list(_facts(subject)),
        "notes": list(_notes(subject)),
        "missing": [
            *((r.step, r.reason) for r in records if r.state == "skipped"),
            *dict.fromkeys(part for r in records for part in r.missing),
        ],
        "errors": errors,
        "checks": [{**check, "word": _STATES.get(check["state"], check["state"])} for check in checks],
        "flags": _flags(subject),
        "steps": [_timing(record, past) for record in records],
        "total_s": sum(record.seconds for record in records),
        "most_mb": max((record.peak_mb for record in records), default=0.0),
        "versions": list(_versions(subject)),
        "run": logs.name,
    }


def _files(subject: Subject) -> Iterator[tuple[str, list[str]]]:
    """The files of every part, the one that is measured first; none for a part that was not found."""
    inputs, uri = subject.inputs, subject.store.uri
    for part, sources in (
        ("dynamic PET", [inputs.dynamic]),
        ("static PET", list(inputs.statics)),
        ("CT", list(inputs.cts)),
        ("topogram", [inputs.topogram]),
        ("head MR", list(inputs.head_mrs)),
        ("body MR", list(inputs.body_mrs)),
    ):
        yield part, [uri(source.path) for source in sources if source]
    ready = [(f"ready segmentation {task}", path) for task, path in inputs.ready_segmentations.items()]
    given = [(f"given transform of the {part} MR", path) for part, path in inputs.given_transforms.items()]
    correction = [("given aorta", inputs.aorta_correction)] if inputs.aorta_correction else []
    yield from ((part, [uri(path)]) for part, path in [*ready, *given, *correction])


def _facts(subject: Subject) -> Iterator[tuple[str, str]]:
    facts = subject.facts
    yield "sex", str(facts.sex or "not known")
    yield "age", _with_unit(facts.age, "years")
    yield "weight", _with_unit(facts.weight_kg, "kg")
    yield "height", _with_unit(facts.height_m, "m")
    pet = subject.inputs.pet
    if pet:
        metadata = subject.metadata(pet)
        dose_mbq = None if metadata.dose_bq is None else metadata.dose_bq / 1e6
        yield "injected activity", _with_unit(dose_mbq, "MBq")
    if subject.inputs.dynamic:
        frames = subject.metadata(subject.inputs.dynamic).frames
        span = f"{frames.start_s[0] / 60:g} to {frames.end_s[-1] / 60:g} min after injection"
        yield "dynamic PET", f"{len(frames)} frames, {span}"
    if subject.inputs.static:
        frames = subject.metadata(subject.inputs.static).frames
        yield "static PET", f"{frames.start_s[0] / 60:g} to {frames.end_s[-1] / 60:g} min after injection"


def _with_unit(value: float | None, unit: str) -> str:
    return "not known" if value is None or pd.isna(value) else f"{value:.5g} {unit}"


def _notes(subject: Subject) -> Iterator[str]:
    yield from subject.facts.notes
    for source in (subject.inputs.static, subject.inputs.dynamic):
        if source:
            yield from (f"{source.path.name}: {note}" for note in subject.metadata(source).notes)


def _versions(subject: Subject) -> Iterator[tuple[str, str]]:
    """Programs and libraries; TotalSegmentator and SynthSeg where they made a segmentation."""
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield from ((package, version(package)) for package in _PACKAGES)
    for task in SEGMENTATION_TASKS:
        source = subject.inputs.ct if task.modality == "ct" else subject.inputs.head_mr
        if source is None:
            continue
        tool = read_sidecar(subject.store.path(names.segmentation(source, task.name))).get("Tool")
        if isinstance(tool, dict):
            yield (
                f"{tool.get('Name')} ({task.name})",
                f"{tool.get('Version', '')} on {tool.get('Device')}".strip(),
            )


def _timing(record: StepRecord, past: Mapping[str, PastStep]) -> dict[str, Any]:
    """Time and memory of a step: of the run that did the work."""
    before = past.get(record.step)
    if record.state == "done" and before and before.state == "ran":
        seconds, peak_mb, run = before.seconds, before.peak_mb, before.run
    else:
        seconds, peak_mb, run = record.seconds, record.peak_mb, ""
    shown = record.state != "skipped"
    return {
        "step": record.step,
        "state": record.state,
        "seconds": seconds if shown else None,
        "peak_mb": peak_mb if shown and peak_mb else None,
        "remark": record.reason if not run else f"made in run {run}",
    }


def _errors(
    records: Sequence[StepRecord], past: Mapping[str, PastStep], logs: Path
) -> Iterator[tuple[str, str, str]]:
    """Step, message and crash text of what failed, in this run or in an earlier one and not tried since."""
    for record in records:
        before = past.get(record.step)
        if record.state == "failed":
            yield record.step, record.reason, crash_text(logs, record.step)
        elif record.state == "skipped" and before and before.state == "failed":
            message = f"{before.reason} (in run {before.run})"
            yield record.step, message, crash_text(logs.parent / before.run, record.step)


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


def _organs(findings: Findings, kinetics: Kinetics) -> list[dict[str, Any]]:
    rows = []
    for organ in organ_values(findings.static.means, findings.static.constants):
        ki, ki_se = kinetics.ki(organ.title)
        uptake = dict(zip(CONSTANTS, organ.uptake, strict=True))
        rows.append(
            {
                "name": organ.title,
                "erosion": organ.erosion,
                "volume": organ.volume_ml,
                "mean": organ.mean,
                "ki": ki,
                "ki_se": ki_se,
                **uptake,
            }
        )
    return rows


def _aorta(aorta: AortaImages) -> Picture | None:
    if aorta.picture is None or not aorta.picture.is_file():
        return None
    return Picture(
        "aorta",
        "Segments and volumes of interest on the early PET, seen from the front and from the side, "
        "and the PET along the straightened centreline.",
        "Coronal and sagittal projection of the aorta's segments and volumes of interest",
        aorta.picture.read_bytes(),
    )


def _spaces(subject: Subject, findings: Findings) -> Iterator[dict[str, Any]]:
    """Grids of the spaces and of the images that they come from."""
    inputs = subject.inputs
    head = next(iter([*findings.head_space.labels.values(), *findings.head_space.images.values()]), None)
    for name, path, what in (
        ("bodystat", _path(inputs.static), "the grid of the static PET"),
        ("bodydyn", _path(inputs.dynamic), "the grid of the dynamic PET"),
        ("head", head, "made around the brain"),
        ("CT", _path(inputs.ct), "as scanned"),
        ("head MR", _path(inputs.head_mr), "as scanned"),
        ("body MR", _path(inputs.body_mr), "as scanned"),
    ):
        if path is not None:
            yield {"name": name, "what": what, **_grid(FrameReader(path).grid)}


def _path(source: Source | None) -> Path | None:
    return source.path if source else None


def _grid(grid: Grid) -> dict[str, str]:
    shape, sizes_mm = world_shape(grid), world_sizes_mm(grid)
    extent = (n * mm for n, mm in zip(shape, sizes_mm, strict=True))
    return {
        "shape": " x ".join(str(n) for n in shape),
        "voxel": " x ".join(f"{mm:.4g}" for mm in sizes_mm),
        "extent": " x ".join(f"{mm:.0f}" for mm in extent),
    }


def _constants(path: Path | None) -> list[dict[str, Any]]:
    if path is None:
        return []
    table = read_table(path)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{**row, "reason": row["reason"] or ""} for row in rows]


def _write_pictures(subject: Subject, content: Mapping[str, Any]) -> None:
    """The pictures of the page, but that of the aorta, which its step has written, also as files."""
    for picture in _pictures_in([value for key, value in content.items() if key != "aorta"]):
        path = subject.store.path(names.figure(subject.label, picture.name)).with_suffix(picture.extension)
        write_bytes(path, picture.content)


def _pictures_in(content: Any) -> Iterator[Picture]:
    if isinstance(content, Picture):
        yield content
    elif dataclasses.is_dataclass(content):
        yield from _pictures_in([getattr(content, field.name) for field in dataclasses.fields(content)])
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _pictures_in(value)


def _write_citation(subject: Subject) -> None:
    """The methods text of the dataset and its references, unless they are there as they should be."""
    methods = methods_of_dataset(subject.settings)
    for extension, text in ((".md", methods.markdown()), (".bib", methods.bibtex())):
        path = subject.store.path(CITATION + extension)
        if not path.is_file() or path.read_text("utf-8") != text:
            write_text(path, text)
