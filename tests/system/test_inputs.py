"""Choosing, correcting and judging inputs: flags, corrections, the table of --dry-run, a static mean."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from running import hedypet, only
from small_dataset import FULL, dataset

from hedypet_bids import names
from hedypet_bids.errors import (
    BadDataError,
    MissingInputError,
    MissingProgramError,
    NothingSelectedError,
    OutputError,
)
from hedypet_bids.inputs.dataset import Dataset, Request
from hedypet_bids.inputs.index import images_of
from hedypet_bids.inputs.pet_metadata import read_pet_metadata
from hedypet_bids.inputs.plausibility import not_hounsfield
from hedypet_bids.inputs.subject import read_subject
from hedypet_bids.settings import Selection
from hedypet_bids.tools.validator import validate_dataset

PET = "sub-001/ses-quadra/pet/sub-001_ses-quadra_trc-18FFDG_rec-"
CT = "sub-001/ses-quadra/ct/sub-001_ses-quadra_rec-br38f_ct"


@pytest.fixture
def bids(coarse: Path, tmp_path: Path) -> Path:
    """A copy of the coarse phantom whose files are links, to be replaced and never written into."""
    return Path(shutil.copytree(coarse, tmp_path / "bids", copy_function=os.link))


@pytest.fixture
def complete(phantom: Path, tmp_path: Path) -> Path:
    """The same of the phantom with MR."""
    return Path(shutil.copytree(phantom, tmp_path / "bids", copy_function=os.link))


def change(path: Path, **entries: Any) -> None:
    """Other entries in a JSON file; None takes one away."""
    content = {**json.loads(path.read_text()), **entries}
    path.unlink()
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def replace_image(path: Path, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nib.load(path)
    data = edit(np.asarray(image.dataobj))
    path.unlink()
    nib.save(nib.Nifti1Image(data, image.affine), path)


def plan(root: Path, output: Path, *options: str) -> str:
    done = hedypet(root, output, "participant", "--dry-run", "--skip-bids-validation", *options)
    assert not output.exists()
    return done.stdout + done.stderr


# ---- selection


def test_participants_can_be_left_out(tmp_path: Path) -> None:
    root = dataset(tmp_path, *(f"sub-{n}/pet/sub-{n}_pet.nii.gz" for n in ("1", "2", "3")))
    assert Dataset(root, Request(excluded_labels=("2",))).labels == ("1", "3")
    assert Dataset(root, Request(participant_labels=("1", "2"), excluded_labels=("2",))).labels == ("1",)
    with pytest.raises(NothingSelectedError, match="leaves no participant"):
        Dataset(root, Request(excluded_labels=("1", "2", "3")))
    with pytest.raises(NothingSelectedError, match="No folder for participant 9"):
        Dataset(root, Request(excluded_labels=("9",)))


@pytest.mark.parametrize(
    ("wanted", "statics"),
    [
        ({}, ["trc-FDG_rec-x_run-1", "trc-PIB_rec-x_run-1", "trc-PIB_rec-y_run-2"]),
        ({"tracer": ("FDG",)}, ["trc-FDG_rec-x_run-1"]),
        ({"tracer": ("PIB",), "run": ("1",)}, ["trc-PIB_rec-x_run-1"]),
        ({"reconstruction": ("y",)}, [None, None, "trc-PIB_rec-y_run-2"]),
        ({"run": ("2",)}, ["trc-PIB_rec-y_run-2"]),
        ({"tracer": ("none",)}, []),
        ({"tracer": (), "run": ("2",)}, ["trc-PIB_rec-y_run-2"]),
    ],
)
def test_pet_images_are_chosen_by_tracer_reconstruction_and_run(
    tmp_path: Path, wanted: dict[str, tuple[str, ...]], statics: list[str | None]
) -> None:
    stems = ("trc-FDG_rec-x_run-1", "trc-PIB_rec-x_run-1", "trc-PIB_rec-y_run-2")
    root = dataset(tmp_path, *(f"sub-1/pet/sub-1_{stem}_pet.nii.gz" for stem in stems))
    scans = read_subject(Dataset(root, Request(pet_labels=wanted)), "1").scans
    found = [scan.static.stem if scan.static else None for scan in scans]
    assert found == [f"sub-1_{stem}" if stem else None for stem in statics]


def test_filters_that_leave_no_scan_say_so(bids: Path, tmp_path: Path) -> None:
    given = (bids, tmp_path / "out", "participant", "--skip-bids-validation", "--no-totalsegmentator")
    for how in ((), ("--dry-run",)):
        done = hedypet(*given, "--tracer-label", "none", *how)
        assert done.returncode == 18, done.stdout + done.stderr
    assert not list((tmp_path / "out").rglob("*_manifest.json"))


def test_reconstructions_are_chosen_by_flag(tmp_path: Path) -> None:
    data = Dataset(dataset(tmp_path, *FULL), selection=Selection(static_rec="acstatOSEM", ct_rec="ac"))
    (scan,) = read_subject(data, "01").scans
    assert scan.static is not None and scan.static.entities["reconstruction"] == "acstatOSEM"
    assert scan.ct is not None and scan.ct.entities["reconstruction"] == "ac"


def test_a_kept_index_is_used_until_files_come_or_go(tmp_path: Path) -> None:
    root = dataset(tmp_path / "raw", "sub-1/pet/sub-1_rec-x_pet.nii.gz")
    kept = tmp_path / "kept"
    once = images_of(root, "1", database_dir=kept)
    assert once == images_of(root, "1")

    state = kept / "sub-1" / "state.txt"
    made = state.stat().st_mtime_ns
    assert images_of(root, "1", database_dir=kept) == once and state.stat().st_mtime_ns == made
    dataset(root, "sub-1/pet/sub-1_rec-y_pet.nii.gz")
    again = images_of(root, "1", database_dir=kept)
    assert [image.entities["reconstruction"] for image in again] == ["x", "y"]
    (root / "sub-1/pet/sub-1_rec-x_pet.nii.gz").unlink()
    assert len(images_of(root, "1", database_dir=kept)) == 1

    with pytest.raises(OutputError, match=re.escape(str(state))):
        images_of(root, "1", database_dir=state)


# ---- corrections


def test_corrections_replace_sidecar_entries_and_are_told_of(bids: Path, tmp_path: Path) -> None:
    corrections = tmp_path / "corrections"
    sidecar = corrections / f"{PET}acstatPSF_pet.json"
    sidecar.parent.mkdir(parents=True)
    sidecar.write_text('{"InjectedRadioactivity": 100.5, "InjectedRadioactivityUnits": "MBq"}')
    (sidecar.parent / "sub-001_rec-typo_pet.json").write_text("{}")
    options = ("--participant-label", "001", "--no-totalsegmentator", "--corrections", str(corrections))

    told = plan(bids, tmp_path / "none", *options)
    assert re.search(r"static PET +ok .*100\.5 MBq", told)
    assert re.search(r"static PET +converted +InjectedRadioactivity is 100\.5 by --corrections", told)
    assert re.search(r"corrected +problem .*rec-typo_pet\.json corrects nothing", told)

    done = hedypet(
        bids, tmp_path / "out", "participant", "--skip-bids-validation", *options, "--steps", "normalise"
    )
    assert done.returncode == 0, done.stderr
    constants = pd.read_csv(only(tmp_path / "out", "*_norm.tsv"), sep="\t").set_index("name")["value"]
    weight_kg = pd.read_csv(bids / "participants.tsv", sep="\t").set_index("participant_id").loc["sub-001"]
    assert constants["suv"] == pytest.approx(100.5e6 / (1000 * weight_kg["weight"]), rel=1e-6)
    log = only(tmp_path / "out", "hedypet.log").read_text()
    assert "by --corrections" in log and "corrects nothing" in log


def test_corrected_masks_and_matrices_replace_ready_ones(tmp_path: Path) -> None:
    root = dataset(tmp_path / "raw", *FULL)
    ready, corrections = root / "derivatives/totalsegmentator", tmp_path / "corrections"
    for folder, tasks in ((ready, ("total", "body")), (corrections, ("total",))):
        for task in tasks:
            dataset(folder, f"sub-01/ses-a/sub-01_ses-a_rec-br38f_seg-{task}_dseg.nii.gz")
    matrix = corrections / "sub-01/sub-01_acq-MPRAGE_from-T1w_to-CT_mode-image_xfm.txt"
    matrix.write_text("1 0 0 0\n")
    dataset(corrections, "sub-01/sub-01_desc-aorta_mask.nii.gz")
    data = Dataset(root, Request(corrections=corrections))
    subject = read_subject(data, "01")
    (inputs,) = subject.scans
    assert inputs.ready_segmentations["total"].is_relative_to(corrections)
    assert inputs.ready_segmentations["body"].is_relative_to(ready)
    assert inputs.given_transforms == {"head": matrix}
    assert inputs.aorta_correction == corrections / "sub-01/sub-01_desc-aorta_mask.nii.gz"
    assert not [check for check in subject.checks if check.kind == "corrected" and check.state == "problem"]
    with pytest.raises(MissingInputError, match="--corrections"):
        Dataset(root, Request(corrections=tmp_path / "none"))


# ---- the table of --dry-run


def test_the_plan_tells_of_every_input_and_all_that_is_wrong(complete: Path, tmp_path: Path) -> None:
    change(complete / f"{PET}acdynPSF_pet.json", Units="kBq/mL", InjectedRadioactivity=None)
    change(complete / f"{PET}acstatPSF_pet.json", FrameDuration=[1200, 1200])
    replace_image(complete / f"{CT}.nii.gz", lambda ct: (ct + 1024).astype(np.int16))
    participants = pd.read_csv(complete / "participants.tsv", sep="\t").drop(columns="weight")
    (complete / "participants.tsv").unlink()
    participants.to_csv(complete / "participants.tsv", sep="\t", index=False)

    told = plan(complete, tmp_path / "none", "--participant-label", "001")
    for row in (
        r"dynamic PET +ok +.*acdynPSF_pet.nii.gz \(.* mm, 69 frames, 0 to 70 min, kBq/mL",
        r"dynamic PET +converted +the image is in kBq/mL; it was converted to Bq/mL",
        r"dynamic PET +problem +the injected activity is unknown",
        r"images +problem +.*FrameDuration has 2 entries, the image 1 frames",
        r"CT +problem +.*starts with values from 0 to .*RescaleIntercept",
        r"head MR +ok +.*MPRAGE",
        r"seg total +ok +.*seg-total_dseg",
        r"person +problem +weight is unknown \(no SUV\): add a column weight to participants.tsv",
    ):
        assert re.search(row, told), (row, told)


def test_times_counted_from_the_scan_are_recognised() -> None:
    """A static image from 50 to 70 min whose sidecar has its frame at 0 but its factors as they are."""
    rate, start_s, duration_s = np.log(2) / (109.77 * 60), 3000.0, 1200.0
    decay = rate * duration_s
    factor = float(np.exp(rate * start_s) * decay / (1 - np.exp(-decay)))
    sidecar = {
        "TimeZero": "10:00:00",
        "InjectionStart": 0,
        "ScanStart": 0,
        "FrameTimesStart": [0],
        "FrameDuration": [duration_s],
        "Units": "Bq/mL",
        "TracerRadionuclide": "F18",
        "ImageDecayCorrected": True,
        "ImageDecayCorrectionTime": 0,
        "DecayCorrectionFactor": [factor],
        "InjectedRadioactivity": 200,
        "InjectedRadioactivityUnits": "MBq",
    }
    with pytest.raises(BadDataError, match=r"3000 s later\. Are FrameTimesStart"):
        read_pet_metadata(sidecar, n_frames=1, where="x")
    right = read_pet_metadata(sidecar | {"FrameTimesStart": [start_s]}, n_frames=1, where="x")
    assert right.problems == ()
    # A factor that no shift explains is only pointed at.
    wrong = read_pet_metadata(sidecar | {"DecayCorrectionFactor": [0.5]}, n_frames=1, where="x")
    assert wrong.problems[0].endswith("check them")


@pytest.mark.parametrize(
    ("offset", "scale", "is_wrong"), [(0, 1, False), (1024, 1, True), (0, 100, True), (0, 0.001, True)]
)
def test_hounsfield_units_are_told_from_others(
    phantom: Path, tmp_path: Path, offset: int, scale: float, is_wrong: bool
) -> None:
    image = nib.load(phantom / f"{CT}.nii.gz")
    data = (np.asarray(image.dataobj).astype(np.float32) + offset) * scale
    nib.save(nib.Nifti1Image(data, image.affine), tmp_path / "ct.nii.gz")
    assert bool(not_hounsfield(tmp_path / "ct.nii.gz")) is is_wrong


# ---- a static image of a dynamic one


def only_dynamic(bids: Path) -> None:
    for path in (bids / "sub-001").rglob("*acstatPSF*"):
        path.unlink()


@pytest.mark.parametrize(
    ("options", "frames"), [((), (50, 70)), (("--static-window", "12", "33.5"), (12, 33.5))]
)
def test_a_static_image_is_the_weighted_mean_of_frames(
    bids: Path, tmp_path: Path, options: tuple[str, ...], frames: tuple[float, float]
) -> None:
    only_dynamic(bids)
    change(bids / f"{PET}acdynPSF_pet.json", Units="kBq/mL")
    done = hedypet(
        *(bids, tmp_path / "out", "participant", "--participant-label", "001", "--skip-bids-validation"),
        *(
            "--no-totalsegmentator",
            "--steps",
            "segment",
            "static",
            "resample",
            "means",
            "normalise",
            *options,
        ),
    )
    assert done.returncode == 0, done.stderr
    made = nib.load(only(tmp_path / "out", "*_rec-acdynPSFmean_pet.nii.gz"))

    # The same by a loop over seconds: each second of the window belongs to one frame.
    dynamic = nib.load(bids / f"{PET}acdynPSF_pet.nii.gz")
    sidecar = json.loads((bids / f"{PET}acdynPSF_pet.json").read_text())
    ends = np.add(sidecar["FrameTimesStart"], sidecar["FrameDuration"])
    seconds = np.arange(60 * frames[0], 60 * frames[1]) + 0.5
    of_second = np.searchsorted(ends, seconds, side="right")
    data = np.asarray(dynamic.dataobj, dtype=np.float64)
    expected = sum(data[..., frame] for frame in of_second) / len(seconds) * 1000
    np.testing.assert_allclose(made.get_fdata(), expected, rtol=1e-5, atol=1e-3)

    written = json.loads(only(tmp_path / "out", "*_rec-acdynPSFmean_pet.json").read_text())
    assert written["FrameTimesStart"] == [60 * frames[0]]
    assert written["FrameDuration"] == [60 * (frames[1] - frames[0])]
    assert (written["Units"], written["ImageDecayCorrectionTime"]) == ("Bq/mL", 0)
    table = only(tmp_path / "out", "*_rec-acdynPSFmean_seg-total_morph.tsv")
    liver = pd.read_csv(table, sep="\t").set_index("name").loc["liver"]
    assert liver["n_voxels"] > 100 and liver["mean"] > 0


def test_a_window_that_the_scan_does_not_cover_gives_no_image(bids: Path, tmp_path: Path) -> None:
    only_dynamic(bids)
    told = plan(bids, tmp_path / "none", "--participant-label", "001", "--static-window", "60", "80")
    assert "does not cover 60 to 80 min; choose another time with --static-window" in told


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("sub-1_ses-a_trc-FDG_rec-x_run-2_pet", "sub-1_ses-a_trc-FDG_rec-xmean_run-2_pet"),
        ("sub-1_run-2_pet", "sub-1_rec-mean_run-2_pet"),
        ("sub-1_pet", "sub-1_rec-mean_pet"),
    ],
)
def test_the_static_mean_has_a_name_of_its_own(tmp_path: Path, name: str, mean: str) -> None:
    folder = "sub-1/ses-a/pet" if "ses" in name else "sub-1/pet"
    (image,) = images_of(dataset(tmp_path, f"{folder}/{name}.nii.gz"), "1")
    assert names.static_mean(image) == f"{folder}/{mean}.nii.gz"


# ---- where Patlak makes no sense


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        (
            {"TracerName": "[11C]PIB"},
            r"kinetics Patlak +skipped .* trapped.*PIB",
        ),
        ({"TracerName": "18F-fluorodeoxyglucose"}, "kinetics Patlak +to run"),
        ({"TracerName": None}, "kinetics Patlak +to run"),
        (
            {"InjectionStart": -600},
            r"kinetics Patlak +skipped .* 10\.0 min after injection",
        ),
    ],
)
def test_patlak_is_left_out_where_its_model_does_not_apply(
    bids: Path, tmp_path: Path, entries: dict[str, Any], why: str
) -> None:
    for image in ("acdynPSF", *(["acstatPSF"] if "InjectionStart" in entries else [])):
        change(bids / f"{PET}{image}_pet.json", **entries)
    told = plan(bids, tmp_path / "none", "--participant-label", "001", "--no-totalsegmentator")
    assert re.search(why, told), told
    assert re.search(why.replace("kinetics Patlak +", "maps Patlak +"), told), told


# ---- the validator


def test_only_the_participants_asked_for_are_validated(bids: Path, tmp_path: Path) -> None:
    change(bids / "sub-002/ses-quadra/pet/sub-002_ses-quadra_trc-18FFDG_rec-acstatPSF_pet.json", Units=None)
    common = (bids, tmp_path / "out", "participant", "--no-totalsegmentator", "--steps", "normalise")
    refused = hedypet(*common)
    assert refused.returncode == 16
    assert "sub-002" in refused.stderr and "Units" in refused.stderr
    kept = json.loads((tmp_path / "out" / names.VALIDATOR_LOG).read_text())
    assert any("sub-002" in issue["location"] for issue in kept["issues"]["issues"])

    done = hedypet(*common, "--participant-label", "001")
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "out" / names.VALIDATOR_LOG).read_text())
    assert kept["summary"]["subjects"] == ["001"]
    assert kept["issues"]["issues"] == []


CRASHES = {
    "says nothing": "exit 1",
    "cannot make a cache": "echo 'error: Could not create the cache' >&2; exit 1",
    "is killed": "kill -9 $$",
    "half an answer": 'echo \'{"issues": {"iss\'; exit 1',
}


@pytest.mark.parametrize("words", CRASHES.values(), ids=CRASHES)
def test_a_validator_that_crashes_says_nothing_of_the_dataset(words: str, bids: Path, tmp_path: Path) -> None:
    program = tmp_path / "validator"
    program.write_text(f"#!/bin/sh\n{words}\n")
    program.chmod(0o755)
    log = tmp_path / "log.json"
    with pytest.raises(MissingProgramError, match="no answer") as error:
        validate_dataset(bids, log=log, program=str(program))
    assert not log.exists()
    assert "cache" not in words or "Could not create the cache" in str(error.value)


# ---- odd voxels


def test_negative_and_missing_voxels_of_the_static_image_are_flagged(bids: Path, tmp_path: Path) -> None:
    def spoil(pet: np.ndarray) -> np.ndarray:
        pet = pet.astype(np.float32)
        pet[:, :, : pet.shape[2] // 4] = -1.0
        pet[0, 0, -3:] = np.nan
        return pet

    replace_image(bids / f"{PET}acstatPSF_pet.nii.gz", spoil)
    done = hedypet(
        *(bids, tmp_path / "out", "participant", "--participant-label", "001", "--skip-bids-validation"),
        *("--no-totalsegmentator", "--steps", "segment", "resample", "means", "quality"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(only(tmp_path / "out", "*_qc.json").read_text())["Checks"]
    checks = {check["name"]: check for check in found}
    image = nib.load(bids / f"{PET}acstatPSF_pet.nii.gz")
    expected = float((np.asarray(image.dataobj) < 0).mean())
    assert checks["static_negative_fraction"]["value"] == pytest.approx(expected)
    assert checks["static_negative_fraction"]["state"] == "outside"
    assert checks["static_not_finite_voxels"]["value"] == 3


@pytest.mark.slow
def test_content_that_was_not_fetched_is_named_where_the_dataset_is_validated(
    bids: Path, tmp_path: Path
) -> None:
    image = bids / f"{PET}acstatPSF_pet.nii.gz"
    image.unlink()
    image.symlink_to("../../../.git/annex/objects/ab/cd/SHA256E-s9--0.nii.gz/SHA256E-s9--0.nii.gz")
    done = hedypet(bids, tmp_path / "out", "participant", "--dry-run")
    assert done.returncode == 16, done.stderr
    assert image.name in done.stderr and "datalad get" in done.stderr
