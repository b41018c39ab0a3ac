"""The text files of the phantom dataset: sidecars, tables and descriptions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hedypet_bids.labels import label_table
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom.subject import PhantomParticipant

_BIDS_VERSION = "1.10.0"
_COLUMNS = ("participant_id", "sex", "age", "weight", "height", "demographic-group")

README_TEXT = """\
# hedypet phantom

A made-up total-body dynamic FDG PET/CT/MR dataset: nobody was scanned. Bodies are ellipsoids, tubes
and lofts; activity follows the irreversible two-tissue model with one blood curve per participant.
Written by `hedypet-phantom`; the folder with `_truth` after this one's name holds, for each
participant, every number that went in.

CT, topogram and PET are in session quadra, MR in session vida. Ready segmentations of CT and MPRAGE
are under `derivatives`.
"""


def write_dataset_files(out: Path, participants: Sequence[PhantomParticipant], *, size: str) -> None:
    """Description, README, ignore file and participant tables of the raw dataset."""
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
    write_text(out / "README", README_TEXT)
    write_text(out / ".bidsignore", "**/ct\n")
    rows = [
        (f"sub-{p.label}", p.sex, p.age, p.weight_kg, p.height_m, p.demographic_group) for p in participants
    ]
    lines = ["\t".join(str(cell) for cell in row) for row in (_COLUMNS, *rows)]
    write_text(out / "participants.tsv", "\n".join(lines) + "\n")
    write_json(out / "participants.json", _PARTICIPANT_COLUMNS)


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
    rows = [f"{index}\t{name}" for index, name in zip(table.indices, table.names, strict=True)]
    write_text(image.with_name(stem + ".tsv"), "\n".join(["index\tname", *rows]) + "\n")


def pet_sidecar(participant: PhantomParticipant, frames: FrameTimes) -> dict[str, Any]:
    """The sidecar of a PET image."""
    return {
        "Modality": "PT",
        "Manufacturer": "Siemens Healthineers",
        "ManufacturersModelName": "Biograph Vision Quadra",
        "BodyPart": "WHOLEBODY",
        "Units": "Bq/mL",
        "TracerName": "FDG",
        "TracerRadionuclide": "F18",
        "InjectedRadioactivity": participant.dose_mbq,
        "InjectedRadioactivityUnits": "MBq",
        "InjectedMass": "n/a",
        "InjectedMassUnits": "n/a",
        "SpecificRadioactivity": "n/a",
        "SpecificRadioactivityUnits": "n/a",
        "ModeOfAdministration": "bolus",
        "TimeZero": "10:00:00",
        "ScanStart": 0,
        "InjectionStart": 0,
        "AcquisitionMode": "list mode",
        "ImageDecayCorrected": True,
        "ImageDecayCorrectionTime": 0,
        "ReconMethodName": "PSF+TOF",
        "ReconMethodParameterLabels": ["iterations", "subsets"],
        "ReconMethodParameterUnits": ["none", "none"],
        "ReconMethodParameterValues": [4, 5],
        "ReconFilterType": "none",
        "AttenuationCorrection": "CT-based",
        "FrameTimesStart": frames.start_s.tolist(),
        "FrameDuration": frames.duration_s.tolist(),
    }


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
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
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
