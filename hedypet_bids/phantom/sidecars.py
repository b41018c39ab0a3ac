"""The text files of the phantom dataset: sidecars, tables and descriptions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hedypet_bids.labels import label_table
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom.kinetics import feng_input
from hedypet_bids.phantom.scans import MR_SESSION, PhantomScan, PhantomSession, mr_start
from hedypet_bids.phantom.subject import PhantomParticipant
from hedypet_bids.phantom.tracers import FDG

_BIDS_VERSION = "1.10.0"
_COLUMNS = ("participant_id", "sex", "age", "weight", "height", "demographic-group")

_README = """\
# hedypet phantom

A made-up total-body dynamic {tracers} PET/CT/MR dataset: nobody was scanned. Bodies are ellipsoids, tubes
and lofts; activity follows the {model} model with one blood curve per {unit}.
Written by `hedypet-phantom`; the folder with `_truth` after this one's name holds, for each
{unit}, every number that went in.

{sessions} Ready segmentations of CT and MPRAGE
are under `derivatives`.
"""


def write_dataset_files(
    out: Path, people: Sequence[tuple[PhantomParticipant, Sequence[PhantomSession]]], *, size: str
) -> None:
    """Description, README, ignore file and the tables of participants and sessions of the raw dataset."""
    write_json(
        out / "dataset_description.json",
        {
            "Name": f"hedypet phantom ({size})",
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["The hedypet developers"],
            "GeneratedBy": [{"Name": "hedypet-phantom"}],
        },
    )
    write_file(out / "README", _readme(people[0][1]))
    write_file(out / ".bidsignore", "**/ct\n")
    rows = [(f"sub-{p.label}", p.sex, p.age, p.weight_kg, p.height_m, p.demographic_group) for p, _ in people]
    _write_table(out / "participants.tsv", _COLUMNS, rows)
    write_json(out / "participants.json", _PARTICIPANT_COLUMNS)
    for participant, sessions in people:
        if len(sessions) > 1:
            _write_sessions(out / f"sub-{participant.label}", sessions)


def _readme(sessions: Sequence[PhantomSession]) -> str:
    scans = [scan for session in sessions for scan in session.scans]
    tracers = {scan.tracer.label: scan.tracer for scan in scans}.values()
    models = {
        "reversible one- or two-tissue" if tracer.is_reversible else "irreversible two-tissue"
        for tracer in tracers
    }
    names = f"session{'s' * (len(sessions) > 1)} {', '.join(session.label for session in sessions)}"
    where = f"CT, topogram and PET are in {names}, MR in session {MR_SESSION}."
    return _README.format(
        tracers=" and ".join(tracer.name for tracer in tracers),
        model=" or ".join(sorted(models)),
        unit="participant" if len(scans) == 1 else "scan",
        sessions=where if sessions[0].label else "There are no sessions.",
    )


def _write_sessions(folder: Path, sessions: Sequence[PhantomSession]) -> None:
    """When each session began, in that order, and the body weight at those with PET."""
    rows = [(s.start, s.label, str(s.participant.weight_kg)) for s in sessions]
    rows.append((mr_start(sessions), MR_SESSION, "n/a"))
    cells = [(f"ses-{label}", f"{start:%Y-%m-%dT%H:%M:%S}", weight) for start, label, weight in sorted(rows)]
    path = folder / f"{folder.name}_sessions.tsv"
    _write_table(path, ("session_id", "acq_time", "weight"), cells)
    write_json(path.with_suffix(".json"), _SESSION_COLUMNS)


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    lines = ["\t".join(str(cell) for cell in row) for row in (columns, *rows)]
    write_file(path, "\n".join(lines) + "\n")


def write_derivative_description(folder: Path, name: str) -> None:
    """``dataset_description.json`` of a folder of ready segmentations."""
    write_json(
        folder / "dataset_description.json",
        {
            "Name": name,
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": name, "Description": "The labels that the phantom was made with"}],
            "DatasetLinks": {"raw": "../.."},
        },
    )


def write_label_files(image: Path, task: str, *, source: str) -> None:
    """Sidecar and label table beside a label image made from ``source`` (path in the raw dataset)."""
    stem = image.name.split(".")[0]
    write_json(image.with_name(stem + ".json"), {"Sources": [f"bids:raw:{source}"], "Manual": False})
    table = label_table(task)
    rows = list(zip(table.indices, table.names, strict=True))
    _write_table(image.with_name(stem + ".tsv"), ("index", "name"), rows)


def pet_sidecar(scan: PhantomScan, frames: FrameTimes, *, method: str) -> dict[str, Any]:
    """The sidecar of a PET image; ``method`` is that of its reconstruction, as ``PSF+TOF``."""
    # Under dcm2niix's name. FDG's sidecars do without: their text is what it always was.
    half_life = {} if scan.tracer is FDG else {"RadionuclideHalfLife": scan.tracer.half_life_s}
    return {
        "Modality": "PT",
        "Manufacturer": "Siemens Healthineers",
        "ManufacturersModelName": "Biograph Vision Quadra",
        "BodyPart": "WHOLEBODY",
        "Units": "Bq/mL",
        "TracerName": scan.tracer.name,
        "TracerRadionuclide": scan.tracer.radionuclide,
        **half_life,
        "InjectedRadioactivity": scan.participant.dose_mbq,
        "InjectedRadioactivityUnits": "MBq",
        "InjectedMass": "n/a",
        "InjectedMassUnits": "n/a",
        "SpecificRadioactivity": "n/a",
        "SpecificRadioactivityUnits": "n/a",
        "ModeOfAdministration": "bolus",
        "TimeZero": scan.time_zero,
        "ScanStart": 0,
        "InjectionStart": 0,
        "AcquisitionMode": "list mode",
        "ImageDecayCorrected": True,
        "ImageDecayCorrectionTime": 0,
        "ReconMethodName": method,
        "ReconMethodParameterLabels": ["iterations", "subsets"],
        "ReconMethodParameterUnits": ["none", "none"],
        "ReconMethodParameterValues": [4, 5],
        "ReconFilterType": "none",
        "AttenuationCorrection": "CT-based",
        "FrameTimesStart": frames.start_s.tolist(),
        "FrameDuration": frames.duration_s.tolist(),
    }


def write_blood(path: Path, scan: PhantomScan) -> None:
    """Write the blood samples of a scan, without noise, and their sidecar."""
    p, split = scan.participant, scan.participant.split
    assert split is not None
    last_s = float(scan.frames.end_s[-1])
    time_s = np.concatenate([np.arange(start, stop, step) for start, stop, step in _SAMPLED_S])
    time_s = np.append(time_s[time_s < last_s], last_s)
    parent = split.parent_fraction(time_s, p.blood.delay_s)
    plasma = feng_input(time_s, p.blood) / parent
    columns = (time_s, plasma / split.plasma_to_blood, plasma, parent)
    rows = [[f"{value:.9g}" for value in row] for row in np.transpose(columns)]
    _write_table(path, tuple(_BLOOD_COLUMNS), rows)
    write_json(path.with_suffix(".json"), {**_BLOOD_SIDECAR, **_BLOOD_COLUMNS})


def ct_sidecar() -> dict[str, Any]:
    """The sidecar of a CT image or topogram."""
    return {
        "Modality": "CT",
        "Manufacturer": "Siemens Healthineers",
        "ManufacturersModelName": "Biograph Vision Quadra",
        "Units": "HU",
    }


def mr_sidecar(acquisition: str) -> dict[str, Any]:
    """The sidecar of an MR image."""
    return {
        "Modality": "MR",
        "MagneticFieldStrength": 3,
        "Manufacturer": "Siemens Healthineers",
        "ManufacturersModelName": "MAGNETOM Vida",
        "NonlinearGradientCorrection": True,
        "ProtocolName": acquisition,
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, making its folder."""
    write_file(path, json.dumps(content, indent=2) + "\n")


def write_file(path: Path, text: str) -> None:
    """Write a text file in UTF-8 with Unix line ends, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


_PARTICIPANT_COLUMNS = {
    "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
    "age": {"Description": "Age at the scan", "Units": "years"},
    "weight": {"Description": "Body weight at the scan", "Units": "kg"},
    "height": {"Description": "Body height", "Units": "m"},
    "demographic-group": {"Description": "Sex and age group, for example F18-34"},
}

_SESSION_COLUMNS = {
    "acq_time": {"Description": "Start of the session"},
    "weight": {"Description": "Body weight at the session", "Units": "kg"},
}

# Start, end and interval of drawing blood, s.
_SAMPLED_S = ((0, 60, 2), (60, 180, 5), (180, 600, 30), (600, 1800, 120), (1800, 4200, 300))
_BLOOD_COLUMNS = {
    "time": {"Description": "Time of the sample from TimeZero", "Units": "s"},
    "whole_blood_radioactivity": {"Description": "Activity in whole blood", "Units": "Bq/mL"},
    "plasma_radioactivity": {"Description": "Activity in plasma", "Units": "Bq/mL"},
    "metabolite_parent_fraction": {
        "Description": "Part of the activity in plasma that is the tracer itself",
        "Units": "unitless",
    },
}
_BLOOD_SIDECAR = {
    "PlasmaAvail": True,
    "WholeBloodAvail": True,
    "MetaboliteAvail": True,
    "MetaboliteMethod": "HPLC",
    "MetaboliteRecoveryCorrectionApplied": False,
    "DispersionCorrected": False,
    "BloodDecayCorrected": True,
    "BloodDecayCorrectionTime": 0,
}
