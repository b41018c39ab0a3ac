"""What a scan lacks and why, from the records of the steps in its participant's manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hedypet_bids import names
from hedypet_bids.group.dictionary import kinetic_quantity
from hedypet_bids.io.manifest import Manifest, ScanEntry, ScanOutputs, StepRecord
from hedypet_bids.kernels.kinetics import kinetic_models
from hedypet_bids.labels import SEGMENTATION_TASKS, VOI_TASKS, WHOLE_IMAGE_TASK
from hedypet_bids.names import ScanName
from hedypet_bids.settings import Settings

UNREADABLE = "unreadable: "
"""How the column Missing begins for a scan whose tables cannot be read."""

_NOT_RECORDED = "no reason is recorded"


@dataclass(frozen=True)
class Gap:
    """What a scan has no result of, and why.

    Parameters
    ----------
    kind
        A ``part`` of the study, a step that ``failed`` in the last run, or a ``detail`` that a step left out
        although it ran.
    """

    name: str
    reason: str
    kind: Literal["part", "failed", "detail"] = "part"


def gaps_of(manifest: Manifest, entry: ScanEntry, settings: Settings) -> tuple[Gap, ...]:
    """The parts that a scan lacks, the steps that failed in the last run, and what others left out."""
    records = records_of(manifest, entry)
    outputs = manifest.of_scan(entry)
    lacking = [
        Gap(part, _reason(records, step))
        for part, step, is_there in _parts(outputs, settings)
        if not is_there
    ]
    details = [
        # Without a constant whole columns of the tables are empty.
        Gap(name, reason, "part" if record.step == "normalise" else "detail")
        for record in records
        for name, reason in record.missing
    ]
    return (*lacking, *failures(records), *details)


def missing_text(gaps: Sequence[Gap]) -> str | None:
    """What the column Missing says of them; None where nothing is missing."""
    return ", ".join(gap.name for gap in gaps if gap.kind != "detail") or None


def failures(records: Sequence[StepRecord]) -> tuple[Gap, ...]:
    """The steps that failed."""
    failed = [record for record in records if record.state == "failed"]
    return tuple(
        Gap(f"{record.step} ({_failure(record)})", f"failed: {record.reason}", "failed") for record in failed
    )


def _failure(record: StepRecord) -> str:
    """Where the inputs cannot be used, why: no page says it."""
    return f"failed: {record.reason}" if record.step == "inputs" else "failed"


def records_of(manifest: Manifest, entry: ScanEntry) -> list[StepRecord]:
    """The records of a scan's own steps and of those that it shares with other scans."""
    return [record for record in manifest.steps if not record.scans or str(entry.name) in record.scans]


def broken_scans(manifest: Manifest) -> dict[ScanName, tuple[Gap, ...]]:
    """The scans that have failures on record and are not listed, as their images cannot be used."""
    listed = {str(scan.name) for scan in manifest.scans}
    failed = [r for r in manifest.steps if r.state == "failed" and r.about not in listed]
    broken: dict[ScanName, list[StepRecord]] = {}
    for record in failed:
        if _is_scan(record.about) or not (record.about or manifest.scans):
            entities = names.entities_of(record.about)
            name = ScanName(*(entities.get(key, "") for key in ("ses", "trc", "run")))
            broken.setdefault(name, []).append(record)
    return {name: failures(records) for name, records in sorted(broken.items())}


def _is_scan(about: str) -> bool:
    """Whether a record is about a scan, not about an image or the whole participant."""
    entities = names.entities_of(about)
    return bool(entities) and entities.keys() <= {"ses", "trc", "run"}


def _parts(outputs: ScanOutputs, settings: Settings) -> Iterator[tuple[str, str, bool]]:
    """Every part of the study, the step that makes it, and whether it is there."""
    curves = {task for task, _ in outputs.of("mean")}
    vois = {task.name for task in VOI_TASKS}
    yield "constants", "normalise", outputs.get("constants") is not None
    yield "static means", "means", bool(outputs.of("means"))
    yield "curves", "tacs", WHOLE_IMAGE_TASK.name in curves
    yield "input functions", "input_functions", bool(outputs.of("blood")) and bool(curves & vois)
    for model in kinetic_models(settings):
        fits = bool(outputs.of("kinetics", model.name))
        yield kinetic_quantity(model.name, model.parameters[0].name), f"kinetics {model.name}", fits
    for task in SEGMENTATION_TASKS:
        there = outputs.get("labels", task.name) is not None
        yield f"{task.name} segmentation", f"segment {task.name}", there


def _reason(records: Sequence[StepRecord], step: str) -> str:
    """Why a step made nothing."""
    record = next((record for record in records if record.step == step), None)
    if record is None or not record.reason:
        return _NOT_RECORDED
    return f"failed: {record.reason}" if record.state == "failed" else record.reason
