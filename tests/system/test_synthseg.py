"""A stand-in for mri_synthseg: maps, scores, faults and devices."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from running import ROOT, hedypet, only

from hedypet_bids.errors import (
    HedypetError,
    MissingProgramError,
    ReadWriteError,
    TryAgainError,
)
from hedypet_bids.run.options import STEP_NAMES
from hedypet_bids.tools import synthseg

# Neither of the registration, which takes most of the time, nor of the page is anything asked here.
OWN_STEPS = ("--steps", *(name for name in STEP_NAMES if name not in ("register", "report")))


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A FreeSurfer with the stand-in for mri_synthseg."""
    program = tmp_path / "freesurfer" / "bin" / "mri_synthseg"
    program.parent.mkdir(parents=True)
    source = (ROOT / "tests" / "fake_mri_synthseg.py").read_text()
    program.write_text(f"#!{sys.executable}\n{source}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@pytest.fixture
def answer(coarse_with_mr: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The segmentation with parcels that the stand-in gives: the phantom's own."""
    path = only(coarse_with_mr / "derivatives" / "synthseg" / "sub-001", "*seg-synthsegparc_dseg.nii.gz")
    monkeypatch.setenv("FAKE_SYNTHSEG_ANSWER", str(path))
    monkeypatch.delenv("FREESURFER_HOME", raising=False)
    return path


@pytest.fixture
def t1w(coarse_with_mr: Path) -> Path:
    return only(coarse_with_mr / "sub-001", "*acq-MPRAGE_T1w.nii.gz")


@pytest.mark.slow
@pytest.mark.usefixtures("answer")
def test_both_maps_come_from_one_run(
    coarse_with_mr: Path, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(coarse_with_mr, raw, ignore=shutil.ignore_patterns("synthseg"))
    output = tmp_path / "out"
    monkeypatch.setenv("FAKE_SYNTHSEG_FAULT", "bad score")
    done = hedypet(raw, output, "participant", "--mri-synthseg", fake, "--device", "cpu", *OWN_STEPS)
    assert done.returncode == 0, done.stderr
    for task in ("synthseg", "synthsegparc"):
        found = nib.load(only(output, f"*MPRAGE_seg-{task}_dseg.nii.gz"))
        ready = only(coarse_with_mr / "derivatives" / "synthseg" / "sub-001", f"*_seg-{task}_dseg.nii.gz")
        truth = nib.load(ready)
        np.testing.assert_array_equal(np.asanyarray(found.dataobj), np.asanyarray(truth.dataobj))
    sidecar = json.loads(only(output, "*MPRAGE_seg-synthsegparc_dseg.json").read_text())
    assert sidecar["QualityScores"]["general white matter"] == pytest.approx(0.4)
    volumes = only(output, "*desc-synthsegvolumes_morph.tsv").read_text()
    assert "total intracranial\t1512345.5" in volumes
    checks = json.loads(only(output, "*rec-acdynPSF_qc.json").read_text())
    assert any("SynthSeg" in flag and "0.4" in flag for flag in checks["Flags"])


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("crash", HedypetError, "exit code 1"),
        ("hang", HedypetError, "did not finish"),
        ("killed", TryAgainError, "SIGKILL"),
        ("disc full", ReadWriteError, "no space left"),
        ("no result", HedypetError, "without a result"),
    ],
)
def test_faults_of_synthseg(
    fault: str,
    error: type[HedypetError],
    message: str,
    fake: Path,
    t1w: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_SYNTHSEG_FAULT", fault)
    with pytest.raises(error, match=message):
        synthseg.run_synthseg(
            synthseg.SynthSeg(fake, "cpu"),
            t1w,
            tmp_path / "out.nii.gz",
            timeout_s=3 if fault == "hang" else 60,
            log=tmp_path / "log",
        )


@pytest.mark.parametrize(
    ("device", "driver", "only_cpu", "expected"),
    [
        ("auto", True, False, "auto"),
        ("auto", False, False, "cpu"),
        ("gpu:1", True, False, "gpu:1"),
        ("cpu", True, False, "cpu"),
        ("auto", True, True, "cpu"),
        ("gpu:1", True, True, "cpu"),
    ],
)
@pytest.mark.usefixtures("answer")
def test_synthseg_runs_on_the_processor_where_it_can_use_no_gpu(
    device: str,
    driver: bool,
    only_cpu: bool,
    expected: str,
    fake: Path,
    t1w: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    if driver:
        (programs / "nvidia-smi").write_text("#!/bin/sh\n")
        (programs / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv(synthseg.DEVICE_VARIABLE, "cpu" if only_cpu else "")
    tool = synthseg.SynthSeg(fake, device)
    assert synthseg.device_of(tool) == expected
    monkeypatch.setenv("FAKE_SYNTHSEG_ARGUMENTS", str(tmp_path / "arguments"))
    made = synthseg.run_synthseg(tool, t1w, tmp_path / "out.nii.gz", timeout_s=60, log=tmp_path / "log")
    assert made.device == ("cpu" if expected == "cpu" else "gpu")
    assert ("--cpu" in (tmp_path / "arguments").read_text().split()) == (expected == "cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("answer")
def test_a_map_of_another_shape_fails_its_step_only(
    coarse_with_mr: Path, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(coarse_with_mr, raw, ignore=shutil.ignore_patterns("synthseg"))
    monkeypatch.setenv("FAKE_SYNTHSEG_FAULT", "other shape")
    output = tmp_path / "out"
    done = hedypet(raw, output, "participant", "--mri-synthseg", fake, "--device", "cpu", *OWN_STEPS)
    assert done.returncode == 65, done.stderr
    assert "does not lie on the grid" in done.stdout + done.stderr
    assert only(output / "sub-001", "*model-Patlak_meas-Ki_mimap.nii.gz")
    assert not list(output.rglob("*seg-synthseg*"))


def test_the_program_is_found_or_asked_for(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("FREESURFER_HOME", raising=False)
    assert synthseg.find_synthseg() is None
    monkeypatch.setenv("FREESURFER_HOME", str(fake.parents[1]))
    assert synthseg.find_synthseg() == fake
    with pytest.raises(MissingProgramError, match="expected an executable file"):
        synthseg.find_synthseg(tmp_path / "no")
    monkeypatch.delenv("FREESURFER_HOME")
    monkeypatch.setenv("PATH", str(fake.parent) + os.pathsep + "/usr/bin")
    assert synthseg.find_synthseg() == fake
    done = subprocess.run([str(fake)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "FREESURFER_HOME" in done.stderr
