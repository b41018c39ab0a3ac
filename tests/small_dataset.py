"""Datasets of images of a few voxels, under the names of BIDS, with the sidecars that PET needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

N_FRAMES = 4
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])

FULL = (
    "sub-01/ses-a/pet/sub-01_ses-a_rec-acdynPSF_pet.nii.gz",
    "sub-01/ses-a/pet/sub-01_ses-a_rec-acstatPSF_pet.nii.gz",
    "sub-01/ses-a/pet/sub-01_ses-a_rec-acstatOSEM_pet.nii.gz",
    "sub-01/ses-a/ct/sub-01_ses-a_rec-br38f_ct.nii.gz",
    "sub-01/ses-a/ct/sub-01_ses-a_rec-ac_ct.nii.gz",
    "sub-01/ses-a/ct/sub-01_ses-a_Xray.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-MPRAGE_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-DIXONbodyIN_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-DIXONbodyW_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-DIXONheadIN_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-FASTVIEW_T1w.nii.gz",
)
"""One scan with everything; ``dyn`` in a name stands for a dynamic series."""


def dataset(root: Path, *names: str) -> Path:
    """A dataset with these images."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for name in names:
        image(root / name, frames=N_FRAMES if "dyn" in name else 1)
    return root


def image(path: Path, *, frames: int = 1) -> None:
    """An image of zeros and, for PET, its sidecar."""
    shape = (2, 2, 2) if frames == 1 else (2, 2, 2, frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), AFFINE), path)
    if path.parent.name == "pet":
        sidecar_of(path).write_text(json.dumps(pet_sidecar(frames)))


def sidecar_of(path: Path) -> Path:
    """The JSON file beside an image."""
    return path.with_name(path.name.split(".")[0] + ".json")


def pet_sidecar(frames: int) -> dict[str, Any]:
    """Frames of ten minutes, decay-corrected to the injection."""
    return {
        "Units": "Bq/mL",
        "TracerRadionuclide": "F18",
        "InjectedRadioactivity": 200,
        "InjectedRadioactivityUnits": "MBq",
        "TimeZero": "10:00:00",
        "ScanStart": 0,
        "InjectionStart": 0,
        "FrameTimesStart": [600.0 * frame for frame in range(frames)],
        "FrameDuration": [600.0] * frames,
        "ImageDecayCorrected": True,
        "ImageDecayCorrectionTime": 0,
    }


def session_table(root: Path, label: str, **times: str) -> None:
    """``sub-<L>_sessions.tsv`` with the date and time of each session."""
    rows = "".join(f"ses-{session}\t{time}\n" for session, time in times.items())
    (root / f"sub-{label}" / f"sub-{label}_sessions.tsv").write_text(f"session_id\tacq_time\n{rows}")
