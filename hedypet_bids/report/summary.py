"""What a page says about a scan besides results and pictures: input, notes, checks, steps, versions."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from hedypet_bids import names
from hedypet_bids.figures.planes import world_shape, world_sizes_mm
from hedypet_bids.io.manifest import ScanOutputs, StepRecord
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.io.store import Store, flags_of
from hedypet_bids.labels import SEGMENTATION_TASKS, VOI_TASKS
from hedypet_bids.model import Grid, PetMetadata, Scan
from hedypet_bids.names import Source
from hedypet_bids.report.methods import MADE, READY, Performed
from hedypet_bids.report.past_runs import PastRuns, crash_text
from hedypet_bids.settings import Settings

_PACKAGES = ("numpy", "scipy", "pandas", "nibabel", "matplotlib")
_VERDICTS: Mapping[str, str] = {"normal": "pass", "outside": "FLAG", "unknown": "not known"}
_MODALITIES = {names.PET_SUFFIX: "PET", names.MR_SUFFIX: "MR image"}


@dataclass(frozen=True, eq=False)
class ScanPage:
    """What the page of a scan is made from.

    Parameters
    ----------
    statics
        Every static image with its metadata, the one that stands for the scan first; also one that was
        made from frames.
    outputs
        Everything that the steps of the scan made.
    records
        What became of these steps in this run.
    log_folder
        That of this run.
    """

    scan: Scan
    statics: Mapping[Source, PetMetadata]
    outputs: ScanOutputs
    records: Sequence[StepRecord]
    settings: Settings
    store: Store
    log_folder: Path

    @property
    def static(self) -> Source | None:
        """The static image that stands for the scan."""
        return next(iter(self.statics), None)

    @property
    def pets(self) -> dict[Source, PetMetadata]:
        """Every PET image, static ones first."""
        dynamic = self.scan.dynamic
        return {**self.statics, **({dynamic: self.scan.metadata(dynamic)} if dynamic else {})}


def summary_of(page: ScanPage) -> dict[str, Any]:
    """What the template shows of a scan and of the run."""
    records = page.records
    past = PastRuns.before(page.log_folder)
    quality = page.outputs.get("quality")
    checks = read_sidecar(quality).get("Checks", []) if quality else []
    return {
        "files": list(_files(page)),
        "overview": list(_overview(page)),
        "notes": list(_notes(page)),
        "missing": [
            *((title_of(r, page.scan), r.reason) for r in records if r.state == "skipped"),
            *dict.fromkeys(item for r in records for item in r.missing),
        ],
        "errors": list(_errors(page, past)),
        "checks": [{**check, "verdict": _VERDICTS.get(check["state"], check["state"])} for check in checks],
        "flags": flags_of(page.outputs.files.values()),
        "steps": [_timing(record, page.scan, past) for record in records],
        "total_s": sum(record.seconds for record in records),
        "most_mb": max((record.peak_mb for record in records), default=0.0),
        "versions": list(_versions(page.outputs)),
        "run": page.log_folder.name,
    }


def title_of(record: StepRecord, scan: Scan) -> str:
    """A step on the page of a scan: what it worked on is said where that is not the scan alone."""
    return record.step if record.about == scan.about else record.title


def minutes_of(start_s: float, end_s: float) -> str:
    """When frames were acquired."""
    return f"{start_s / 60:g} to {end_s / 60:g} min after injection"


def with_unit(value: float | None, unit: str) -> str:
    """A number with its unit, or that it is not known."""
    return "not known" if value is None or pd.isna(value) else f"{value:.5g} {unit}"


def performed_for(page: ScanPage) -> Performed:
    """What was done for a scan, for the methods text."""
    scan, outputs = page.scan, page.outputs
    method = page.settings.register.method
    return Performed(
        segmented={
            task.name: READY if task.name in scan.ready_segmentations else MADE
            for task in SEGMENTATION_TASKS
            if outputs.get("labels", task.name)
        },
        registered={
            body_part: "given" if body_part in scan.given_transforms else method
            for body_part in ("head", "body")
            if outputs.get("transform", body_part)
        },
        static=page.static is not None,
        static_from_frames=outputs.get("static_image") is not None,
        dynamic=scan.dynamic is not None,
        head_space=bool(outputs.of("labels", "head") or outputs.of("image", "head")),
        constants=outputs.get("constants") is not None,
        aorta=any(outputs.get("labels", "bodydyn", voi.name) for voi in VOI_TASKS),
        sampled=outputs.get("blood", names.MEASURED) is not None,
        fitted={str(kind[1]) for kind in outputs.files if kind[0] == "kinetics"},
        mapped={str(kind[1]) for kind in outputs.files if kind[0] == "map"},
        labelled=_MODALITIES.get(scan.body_image.suffix, "CT") if scan.body_image else "CT",
        fixed="CT" if scan.ct else "PET",
    )


def spaces_of(page: ScanPage) -> Iterator[dict[str, str]]:
    """Grids of the spaces and of the images that they come from."""
    scan = page.scan
    in_head_space = [*page.outputs.of("labels", "head").values(), *page.outputs.of("image", "head").values()]
    for name, image, origin in (
        ("bodystat", page.static, "the grid of the static PET"),
        ("bodydyn", scan.dynamic, "the grid of the dynamic PET"),
        ("head", next(iter(in_head_space), None), "made around the brain"),
        ("CT", scan.ct, "as scanned"),
        ("head MR", scan.head_mr, "as scanned"),
        ("body MR", scan.body_mr, "as scanned"),
    ):
        if image is not None:
            path = image.path if isinstance(image, Source) else image
            yield {"name": name, "origin": origin, **_grid(FrameReader(path).grid)}


def _grid(grid: Grid) -> dict[str, str]:
    shape, sizes_mm = world_shape(grid), world_sizes_mm(grid)
    extent = (n * mm for n, mm in zip(shape, sizes_mm, strict=True))
    return {
        "shape": " x ".join(str(n) for n in shape),
        "voxel": " x ".join(f"{mm:.4g}" for mm in sizes_mm),
        "extent": " x ".join(f"{mm:.0f}" for mm in extent),
    }


def _files(page: ScanPage) -> Iterator[tuple[str, list[str]]]:
    """The files of every kind of input, the one used first; none where nothing was found."""
    scan, uri = page.scan, page.store.uri
    for kind, images in (
        ("dynamic PET", [scan.dynamic]),
        ("static PET", list(page.statics)),
        ("CT", list(scan.cts)),
        ("topogram", [scan.topogram]),
        ("head MR", list(scan.head_mrs)),
        ("body MR", list(scan.body_mrs)),
    ):
        yield kind, [uri(image.path) for image in images if image]
    ready = [(f"ready segmentation {task}", path) for task, path in scan.ready_segmentations.items()]
    given = [(f"given transform of the {where} MR", path) for where, path in scan.given_transforms.items()]
    correction = [("given aorta", scan.aorta_correction)] if scan.aorta_correction else []
    yield from ((kind, [uri(path)]) for kind, path in [*ready, *given, *correction])


def _overview(page: ScanPage) -> Iterator[tuple[str, str]]:
    """Who was scanned and how."""
    scan, person = page.scan, page.scan.person
    if not scan.alone:
        for title in ("session", "tracer", "run"):
            value = getattr(scan.name, title)
            if value:
                yield title, value
    yield "sex", str(person.sex or "not known")
    yield "age", with_unit(person.age, "years")
    yield "weight", with_unit(person.weight_kg, "kg")
    yield "height", with_unit(person.height_m, "m")
    for metadata in list(page.pets.values())[:1]:
        yield "injected activity", with_unit(metadata.dose_bq / 1e6, "MBq")
    if scan.dynamic:
        frames = page.pets[scan.dynamic].frames
        yield "dynamic PET", f"{len(frames)} frames, {minutes_of(frames.start_s[0], frames.end_s[-1])}"
    if page.static:
        frames = page.statics[page.static].frames
        yield "static PET", minutes_of(frames.start_s[0], frames.end_s[-1])


def _notes(page: ScanPage) -> Iterator[str]:
    yield from page.scan.person.notes
    yield from page.scan.notes
    for recording in page.scan.blood:
        yield from recording.notes
    for image, metadata in page.pets.items():
        yield from (f"{image.path.name}: {note}" for note in metadata.notes)


def _versions(outputs: ScanOutputs) -> Iterator[tuple[str, str]]:
    """Programs and libraries; TotalSegmentator and SynthSeg where they made a segmentation."""
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield from ((package, version(package)) for package in _PACKAGES)
    for task in SEGMENTATION_TASKS:
        labels = outputs.get("labels", task.name)
        tool = read_sidecar(labels).get("Tool") if labels else None
        if isinstance(tool, dict):
            made_by = f"{tool.get('Version', '')} on {tool.get('Device')}".strip()
            yield f"{tool.get('Name')} ({task.name})", made_by


def _timing(record: StepRecord, scan: Scan, past: PastRuns) -> dict[str, Any]:
    """Time and memory of a step, from the run that did the work."""
    before = past.of(record)
    if record.state == "done" and before and before.state == "ran":
        seconds, peak_mb, remark = before.seconds, before.peak_mb, f"made in run {before.run}"
    else:
        seconds, peak_mb, remark = record.seconds, record.peak_mb, record.reason
    shown = record.state != "skipped"
    return {
        "step": title_of(record, scan),
        "state": record.state,
        "seconds": seconds if shown else None,
        "peak_mb": peak_mb if shown and peak_mb else None,
        "remark": remark,
    }


def _errors(page: ScanPage, past: PastRuns) -> Iterator[tuple[str, str, str]]:
    """Step, message and crash text of what failed, in this run or in an earlier one and not tried since."""
    logs = page.log_folder
    for record in page.records:
        before, title = past.of(record), title_of(record, page.scan)
        if record.state == "failed":
            yield title, record.reason, crash_text(logs, record)
        elif record.state == "skipped" and before and before.state == "failed":
            message = f"{before.reason} (in run {before.run})"
            yield title, message, crash_text(logs.parent / before.run, record)
