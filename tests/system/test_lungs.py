"""Lungs with the right heart as input: placed, measured and fitted where the right heart is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from coarse_phantom import COARSE
from edits import DYNAMIC, voxels
from numpy.typing import NDArray
from running import Run, hedypet, only, truth

from hedypet_bids import Study, fit
from hedypet_bids.kernels.kinetics import LungRightHeart
from hedypet_bids.labels import INPUT_TASKS, label_table
from hedypet_bids.phantom import hedypet_frames, write_phantom
from hedypet_bids.phantom.kinetics import FengInput, Kinetics, tissue_curve

LOBES = [name for name in LungRightHeart.regions if name in label_table("total").names]
RECORDING, IDENTIFIER = "heartvoi1mlright", "heartvois_ml-1_right"
AORTA = "aortavoicombineddescending"
MODELS = ("Patlak", "TwoTissueIrr", "LungRightHeart")
PIECES = ("segment", "static", "resample", "aorta", "tacs", "input_functions", "kinetics")
LEAD_S = 8.0
TISSUE, DELAY_S = Kinetics(0.05, 0.2, 0.01, 0.16), 2.3
BLOOD = Kinetics(0.0, 0.0, 0.0, 1.0)
FRAMES = hedypet_frames()


def right_heart(aorta: FengInput) -> FengInput:
    """A higher and earlier bolus."""
    return replace(aorta, a1=1.6 * aorta.a1, delay_s=aorta.delay_s - LEAD_S)


def with_right_heart(
    labels: NDArray[Any], affine: NDArray[np.float64], aorta: FengInput
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The right half of the heart filled before the aorta, and lungs that it feeds."""
    right = right_heart(aorta)
    late = replace(right, delay_s=right.delay_s + DELAY_S)
    of_right = tissue_curve(FRAMES, right, BLOOD)
    of_lung = tissue_curve(FRAMES, late, TISSUE)
    heart = labels == label_table("total").index_of("heart")
    x = nib.affines.apply_affine(affine, np.argwhere(heart))[:, 0]
    chosen = np.zeros_like(heart)
    chosen[heart] = x >= np.median(x)
    lungs = np.isin(labels, label_table("total").indices_of(*LOBES))

    def change(series: NDArray[Any]) -> NDArray[Any]:
        series = series.copy()
        series[chosen], series[lungs] = np.rint(of_right), np.rint(of_lung)
        return series

    return change


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lungs")
    without = {"001": ("mr", "topogram")}
    bids = write_phantom(folder / "bids", participants=1, seed=1, size=COARSE, frames=FRAMES, without=without)
    settings, out = folder / "study.toml", folder / "out"
    settings.write_text("[curves]\nerosions = [0]\n[kinetics.compartments]\nmaps = false\n")
    arguments = (bids, out, "participant", "--settings", settings, "--model", *MODELS, "--steps")
    done = hedypet(*arguments, "segment", "static", "resample")
    assert done.returncode == 0, done.stderr
    labels = nib.load(only(out, "*_space-bodydyn_seg-total_dseg.nii.gz"))
    aorta = FengInput(**truth(bids, "001")["input_parameters"])
    voxels(DYNAMIC, with_right_heart(np.asarray(labels.dataobj), labels.affine, aorta))(bids)
    for done in (
        hedypet(*arguments, *PIECES, "report"),
        hedypet(bids, out, "group", "--settings", settings, "--model", *MODELS),
    ):
        assert done.returncode == 0, done.stderr
    return out


def test_lungs_come_back_and_the_aorta_is_far_off(output: Path) -> None:
    study = Study(output)
    fits = study.kinetics("sub-001", "LungRightHeart", "total").set_index("name")
    assert list(fits.index) == LOBES and set(fits["input_function"]) == {RECORDING}
    assert fits["reason"].isna().all()
    for name, true in (("K1", TISSUE.K1), ("Ki", TISSUE.ki), ("k2", TISSUE.k2), ("k3", TISSUE.k3)):
        np.testing.assert_allclose(fits[name], true, rtol=0.005, err_msg=name)
    np.testing.assert_allclose(fits["vB"], TISSUE.vb, atol=0.001)
    np.testing.assert_allclose(fits["delay"], DELAY_S, atol=0.05)
    # With the aorta as it was measured, which is partly other tissue, and as it was made.
    alone = study.kinetics("sub-001", "TwoTissueIrr", "total")
    alone = alone[alone["name"].isin(LOBES) & (alone["input_function"] == AORTA)]
    assert len(alone) == len(LOBES)
    aorta = FengInput(**truth(output.parent / "bids", "001")["input_parameters"])
    exact = fit(
        "TwoTissueIrr",
        study.tacs("sub-001", "total", erosion=0)[LOBES],
        {"aorta": tissue_curve(FRAMES, aorta, BLOOD)},
        FRAMES,
    )
    for found, least in ((alone, 0.15), (exact, 0.3)):
        assert (found["K1"] < (1 - least) * TISSUE.K1).all()
        assert (found["vB"] > TISSUE.vb + 0.05).all() and (found["delay"] < -1).all()


def test_its_blood_is_that_of_the_right_heart(output: Path) -> None:
    sidecar = json.loads(only(output, "*_seg-heartvoi1ml_dseg.json").read_text())
    assert sidecar["Reason"] == "" and sidecar["LeadS"] == pytest.approx(LEAD_S, abs=1)
    assert sidecar["PeakBqMl"] > sidecar["AortaPeakBqMl"] and sidecar["PeakS"] < sidecar["AortaPeakS"]
    blood = pd.read_csv(only(output, f"*_recording-{RECORDING}_desc-idif_blood.tsv"), sep="\t")
    aorta = FengInput(**truth(output.parent / "bids", "001")["input_parameters"])
    of_right = tissue_curve(FRAMES, right_heart(aorta), BLOOD)
    np.testing.assert_allclose(blood["whole_blood_radioactivity"], of_right, atol=0.51)
    about = json.loads(only(output, f"*_recording-{RECORDING}_desc-idif_blood.json").read_text())
    assert about["VolumeOfInterestChecksum"] == sidecar["Checksum"]
    assert only(output, f"*_recording-{RECORDING}_desc-idif_inputfunction.tsv").is_file()


def test_other_models_keep_the_aorta(output: Path) -> None:
    study = Study(output)
    patlak = study.readout("patlak_ki")["Input Function Identifier"]
    assert patlak.nunique() == 13 and IDENTIFIER not in set(patlak)
    for model in ("Patlak", "TwoTissueIrr"):
        assert RECORDING not in set(study.kinetics("sub-001", model, "total")["input_function"])
    blood = study.readout("input_function_tacs")
    assert set(blood["Task"]) == {task.readout_name for task in INPUT_TASKS}
    fits = study.readout("kinetics")
    fits = fits[fits["Model"] == "LungRightHeart"]
    assert set(fits["Label Name"]) == set(LOBES)
    assert set(fits["Input Function Identifier"]) == {IDENTIFIER}
    assert set(fits["Parameter"]) == {parameter.name for parameter in LungRightHeart.parameters}


def test_pages_show_lungs_alone(output: Path) -> None:
    page = (output / "sub-001.html").read_text("utf-8")
    _, _, section = page.partition('id="kinetics-LungRightHeart"')
    section = section.partition("</table>")[0]
    assert RECORDING in page and "lungs" in section
    assert "liver" not in section and "muscle" not in section


def test_where_the_heart_is_homogeneous_there_is_no_model_and_a_reason(coarse_run: Run) -> None:
    out = coarse_run.output
    reason = json.loads(only(out, "*_seg-heartvoi1ml_dseg.json").read_text())["Reason"]
    assert "right part of the heart" in reason
    assert not list(out.rglob("*recording-heart*"))
    done = hedypet(coarse_run.bids, out, "participant", "--dry-run", "--model", "LungRightHeart")
    assert done.returncode == 0, done.stderr
    assert reason in done.stdout
