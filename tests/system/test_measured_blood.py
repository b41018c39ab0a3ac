"""Blood samples of the raw dataset as an input function, from two recordings in other units and times."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from coarse_phantom import write_coarse
from running import Run, hedypet, only, truth

import hedypet_bids
from hedypet_bids import Study
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom.kinetics import FengInput, feng_input
from hedypet_bids.tools.validator import find_validator

pytestmark = pytest.mark.slow

INJECTION_S = 137.0
# Plasma has 1.1 times the activity of whole blood, of which less and less is the tracer itself.
RATIO, PARENT_S, PARENT = 1.1, [0.0, 3600.0], [1.0, 0.6]
SETTINGS = '[kinetics]\nmodels = ["Patlak", "TwoTissueIrr", "MA1"]\nmap_input_function = "measured"\n'


def parent_at(time_s: np.ndarray) -> np.ndarray:
    return np.interp(time_s, PARENT_S, PARENT)


def write_blood(bids: Path) -> None:
    """An autosampler for 5 min, and plasma by hand every 5 min; its tracer is the phantom's own input."""
    known = FengInput(**truth(bids, "001")["input_parameters"])
    pet = only(bids / "sub-001", "*_rec-acdynPSF_pet.nii.gz")
    stem = pet.name.partition("_rec-")[0]
    early, late = np.arange(0.0, 301.0), np.arange(300.0, 4201.0, 300.0)

    def write(label: str, columns: dict[str, np.ndarray], **sidecar: object) -> None:
        path = pet.with_name(f"{stem}_recording-{label}_blood.tsv")
        pd.DataFrame(columns).to_csv(path, sep="\t", index=False, na_rep="n/a")
        required = {"DispersionCorrected": False, "WholeBloodAvail": True}
        time = {"Description": "From TimeZero", "Units": "s"}
        path.with_suffix(".json").write_text(json.dumps({**required, "time": time, **sidecar}))

    def described(units: str) -> dict[str, str]:
        return {"Description": "Activity", "Units": units}

    write(
        "autosampler",
        {
            "time": early + INJECTION_S,
            "whole_blood_radioactivity": feng_input(early, known) / parent_at(early) / RATIO / 1000,
        },
        PlasmaAvail=False,
        MetaboliteAvail=False,
        whole_blood_radioactivity=described("kBq/mL"),
    )
    plasma = feng_input(late, known) / parent_at(late)
    write(
        "manual",
        {
            "time": (late + INJECTION_S)[::-1],
            "plasma_radioactivity": plasma[::-1] / 37,
            "whole_blood_radioactivity": plasma[::-1] / RATIO / 1e3,
            "metabolite_parent_fraction": parent_at(late)[::-1],
        },
        PlasmaAvail=True,
        MetaboliteAvail=True,
        MetaboliteMethod="HPLC",
        MetaboliteRecoveryCorrectionApplied=False,
        plasma_radioactivity=described("nCi/mL"),
        whole_blood_radioactivity=described("MBq/L"),
        metabolite_parent_fraction=described("unitless"),
    )


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The coarse phantom with blood samples, whose TimeZero is 137 s before the injection."""
    folder = tmp_path_factory.mktemp("sampled")
    bids = write_coarse(folder / "bids", ())
    for path in bids.glob("sub-*/**/*_pet.json"):
        sidecar = json.loads(path.read_text())
        moved = ("ScanStart", "InjectionStart", "ImageDecayCorrectionTime")
        sidecar |= {key: sidecar[key] + INJECTION_S for key in moved}
        sidecar["FrameTimesStart"] = [start + INJECTION_S for start in sidecar["FrameTimesStart"]]
        path.write_text(json.dumps(sidecar))
    write_blood(bids)
    (folder / "study.toml").write_text(SETTINGS)
    settings = ["--settings", str(folder / "study.toml")]
    done = [hedypet(bids, folder / "out", level, *settings) for level in ("participant", "group")]
    return Run(bids, folder / "out", *done)


def frames_of(known: dict[str, list[float]]) -> FrameTimes:
    return FrameTimes(known["frame_start_s"], known["frame_duration_s"])


def test_datasets_with_blood_are_valid(sampled: Run) -> None:
    assert sampled.participant.returncode == 0, sampled.participant.stderr
    assert sampled.group.returncode == 0, sampled.group.stderr
    for dataset in (sampled.bids, sampled.output):
        command = [find_validator(), str(dataset), "--ignoreWarnings"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_measured_input_function_is_the_true_one(sampled: Run) -> None:
    known = truth(sampled.bids, "001")
    expected = np.array(known["input_function"])
    found = Study(sampled.output).input_functions("sub-001")
    assert len(found.columns) == 2 + 14
    np.testing.assert_allclose(found["frame_start"], known["frame_start_s"], atol=1e-9)
    np.testing.assert_allclose(found["measured"], expected, rtol=0.015, atol=0.005 * expected.max())
    path = only(sampled.output, "*_recording-measured_desc-sampled_blood.tsv")
    table, told = pd.read_csv(path, sep="\t"), json.loads(path.with_suffix(".json").read_text())
    np.testing.assert_allclose(
        table["plasma_radioactivity"], RATIO * table["whole_blood_radioactivity"], rtol=1e-3
    )
    late = table["frame_start"] - INJECTION_S > 600
    frames = frames_of(known)
    np.testing.assert_allclose(
        table["metabolite_parent_fraction"][late], parent_at(frames.mid_s)[late], rtol=0.02
    )
    assert told["Recordings"] == ["autosampler", "manual"]
    assert told["Assumed"] == [] and told["Flags"] == []
    assert any("not in order" in note for note in told["Notes"])


def test_fits_with_it_are_those_with_the_true_input_function(sampled: Run) -> None:
    known, study = truth(sampled.bids, "001"), Study(sampled.output)
    tacs = study.tacs("sub-001", "total", erosion=1)
    curves = tacs.drop(columns=["frame_start", "frame_end"])[["liver", "spleen", "brain"]]
    inputs = {"true": known["input_function"]}
    expected = hedypet_bids.fit("Patlak", curves, inputs, frames_of(known)).set_index(["name", "last_frames"])
    fits = study.kinetics("sub-001", "Patlak", "total", erosion=1)
    # The rows of a region stand together, as without samples.
    assert fits["name"].ne(fits["name"].shift()).sum() == fits["name"].nunique()
    found = fits[fits["input_function"] == "measured"].set_index(["name", "last_frames"])
    for key in [(name, 8) for name in ("liver", "spleen", "brain")]:
        assert found.loc[key, "Ki"] == pytest.approx(expected.loc[key, "Ki"], rel=0.03, abs=2e-5)
    # With a parent fraction that was measured there is a distribution volume, and none without.
    ma1 = study.kinetics("sub-001", "MA1", "total", erosion=1).set_index(["name", "input_function"])
    assert "plasma_to_blood" in ma1.loc[("liver", "aortavoicombineddescending"), "reason"]
    assert "plasma_to_blood" not in str(ma1.loc[("liver", "measured"), "reason"])


def test_maps_group_and_page_take_it(sampled: Run) -> None:
    ki_map = only(sampled.output, "*_model-Patlak_meas-Ki_mimap.json")
    assert json.loads(ki_map.read_text())["InputFunction"] == "measured"
    kinetics = Study(sampled.output).readout("kinetics")
    assert set(kinetics["Input Function Identifier"].dropna()) == {"measured"}
    assert "measured" in set(Study(sampled.output).readout("patlak_ki")["Input Function Identifier"])
    page = (sampled.output / "sub-001.html").read_text("utf-8")
    assert "blood samples" in page and "input function measured" in page


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda told: told["plasma_radioactivity"].update(Units="counts"), "'counts'"),
        (lambda told: told.pop("plasma_radioactivity"), "found nothing"),
        (lambda told: told["time"].update(Units="ticks"), "'ticks'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_file(sampled: Run, tmp_path: Path, edit, words) -> None:
    bids = tmp_path / "bids"
    shutil.copytree(sampled.bids, bids)
    path = only(bids, "*_recording-manual_blood.json")
    told = json.loads(path.read_text())
    edit(told)
    path.write_text(json.dumps(told))
    done = hedypet(bids, tmp_path / "out", "participant", "--skip-bids-validation")
    assert done.returncode == 65, done.stderr
    assert "recording-manual_blood.tsv" in done.stderr and words in done.stderr
