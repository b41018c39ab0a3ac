"""A step of two methods, that of docs/add-a-step.md: planned, run, done and skipped by the schedule."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
from running import ROOT, only, python_blocks

from hedypet_bids.inputs.dataset import Dataset, Request
from hedypet_bids.inputs.subject import read_subject
from hedypet_bids.io.manifest import StepRecord
from hedypet_bids.io.store import Store
from hedypet_bids.io.tables import read_table
from hedypet_bids.phantom import write_phantom
from hedypet_bids.pipeline import process_scan
from hedypet_bids.run.schedule import Schedule
from hedypet_bids.settings import Settings
from hedypet_bids.steps.means import MeasureStatic
from hedypet_bids.steps.step import Context

pytestmark = pytest.mark.slow

TO_MEANS = ("segment", "register", "static", "resample", "means")


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The page's code as a module."""
    path = tmp_path_factory.mktemp("module") / "noise.py"
    path.write_text(python_blocks(ROOT / "docs" / "add-a-step.md")[0])
    spec = importlib.util.spec_from_file_location("noise", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT and a static PET, with ready segmentations."""
    root = tmp_path_factory.mktemp("step") / "bids"
    return write_phantom(
        root, participants=1, seed=3, size="tiny", without={"001": ("mr", "topogram", "dynamic")}
    )


def scheduled(
    noise: ModuleType, bids: Path, output: Path, *, steps: Sequence[str], dry: bool = False
) -> StepRecord:
    """What becomes of the step when it is added to the pipeline."""
    subject = read_subject(Dataset(bids, Request(participant_labels=("001",))), "001")
    schedule = Schedule("001", Context(Settings(), Store(output)), steps=steps, dry=dry)
    [scan] = subject.scans
    report = process_scan(scan, (), schedule.add)
    means = next(step for step in report.measured if isinstance(step, MeasureStatic))
    step = schedule.add(noise.MeasureNoise(scan, report.static, means))
    schedule.run()
    assert step.group == "noise"
    return next(record for record in schedule.records if record.step == "noise")


@pytest.fixture(scope="module")
def output(noise: ModuleType, bids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with the means, and the step run on it."""
    folder = tmp_path_factory.mktemp("output") / "out"
    assert scheduled(noise, bids, folder, steps=TO_MEANS).state == "skipped"
    planned = scheduled(noise, bids, folder, steps=("noise",), dry=True)
    assert planned.state == "to run"
    assert scheduled(noise, bids, folder, steps=("noise",)).state == "ran"
    return folder


def test_it_writes_a_table_with_its_sidecar(output: Path) -> None:
    table = only(output, "*_desc-noise_qc.tsv")
    found = read_table(table)
    assert found["name"].tolist() == ["liver"]
    # From the images themselves: the labels on the grid of the PET, without voxels that touch others.
    pet = nib.load(only(output, "*_space-bodystat_pet.nii.gz")).get_fdata()
    labels = np.asanyarray(nib.load(only(output, "*_space-bodystat_seg-total_dseg.nii.gz")).dataobj)
    inner = labels == 5
    for axis in range(3):
        for shift in (1, -1):
            inner &= np.roll(labels, shift, axis) == 5
    assert found["noise"].tolist() == pytest.approx([pet[inner].std() / pet[inner].mean()], rel=1e-4)
    sidecar = json.loads(table.with_suffix(".json").read_text())
    assert sidecar["hedypet"]["Step"] == "noise" and len(sidecar["Sources"]) == 1


def test_it_is_done_until_what_it_reads_changes(noise: ModuleType, bids: Path, output: Path) -> None:
    assert scheduled(noise, bids, output, steps=("noise",)).state == "done"
    means = only(output, "*_seg-total_desc-eroded1_morph.tsv")
    means.write_text(means.read_text() + "\n")
    assert scheduled(noise, bids, output, steps=("means",)).state == "skipped"
    assert scheduled(noise, bids, output, steps=("noise",)).state == "ran"


def test_it_says_why_it_does_not_apply(noise: ModuleType, bids: Path, tmp_path: Path) -> None:
    record = scheduled(noise, bids, tmp_path / "out", steps=("noise",))
    assert record.state == "skipped" and "means" in record.reason
