"""Runs from Python: what the command line makes, and errors where it has exit codes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from running import Run

import hedypet_bids
from hedypet_bids import Study, run_group, run_participant
from hedypet_bids.errors import (
    BadDataError,
    HedypetError,
    MissingInputError,
    NothingSelectedError,
    UsageError,
)
from hedypet_bids.io.manifest import Manifest


def test_a_run_makes_what_the_command_line_makes(phantom: Path, phantom_run: Run, tmp_path: Path) -> None:
    made = run_participant(phantom, tmp_path / "out", "sub-002", validate=False)
    expected = Manifest.read(phantom_run.output, "002")
    assert [(output.kind, output.path) for output in made.outputs] == [
        (output.kind, output.path) for output in expected.outputs
    ]
    assert not made.failed and Manifest.read(tmp_path / "out", "002") == made
    study = run_group(tmp_path / "out", nprocs=1)
    liver = {"tasks": ["ts_total"], "labels": ["liver"], "normalise": "SUV"}
    found = study.readout("means", **liver)
    there = Study(phantom_run.output).readout("means", subjects=["002"], **liver)
    assert found["SUV Mean [g/mL]"].tolist() == there["SUV Mean [g/mL]"].tolist() and len(found) == 2


def test_what_cannot_be_done_is_an_error(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingSelectedError, match="003"):
        run_participant(phantom, tmp_path, "003", validate=False)
    with pytest.raises(UsageError, match="inside the raw dataset"):
        run_participant(phantom, phantom / "out", "001")
    with pytest.raises(UsageError, match="did you mean 'register'"):
        run_participant(phantom, tmp_path, "001", steps=["registers"])
    with pytest.raises(UsageError, match="did you mean 'synthseg'"):
        run_participant(phantom, tmp_path, "001", derivatives={"synthsegs": tmp_path})
    with pytest.raises(MissingInputError, match="participant"):
        run_group(tmp_path / "nothing")


def test_a_broken_participant_is_an_error_of_its_kind(phantom: Path, tmp_path: Path) -> None:
    bids = Path(shutil.copytree(phantom, tmp_path / "bids"))
    for image in (bids / "sub-002").rglob("*_pet.nii.gz"):
        image.write_bytes(b"no image")
    with pytest.raises(BadDataError, match="sub-002"):
        run_participant(bids, tmp_path / "out", "002", validate=False)


def test_a_group_with_a_participant_that_cannot_be_read_is_an_error(phantom_run: Run, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(phantom_run.output, output)
    (output / "sub-002" / "sub-002_manifest.json").write_text("{")
    with pytest.raises(HedypetError, match="sub-002"):
        run_group(output, nprocs=1)
    assert set(hedypet_bids.Study(output).readout("means")["Subject"]) == {"sub-001"}
