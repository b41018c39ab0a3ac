"""The pipeline against phantoms whose curves have delays, blood and metabolites of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from coarse_phantom import COARSE
from running import hedypet, only, truth

from hedypet_bids import Settings, Study, fit
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom import Voxels, write_phantom

pytestmark = pytest.mark.slow

# Eroded organs keep voxels.
FINER = Voxels((54, 37, 133), (8.0, 8.0, 8.0))
SIZE = replace(COARSE, ct=FINER, dynamic=FINER)
BLOOD = "aortavoicombineddescending"
ORGANS = (
    "liver",
    "spleen",
    "kidney_left",
    "pancreas",
    "stomach",
    "vertebrae_L3",
    "gluteus_maximus_right",
    "femur_left",
)


@pytest.fixture(scope="module")
def delayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A phantom with delays in hedyPET's frames, without noise, and the fits of its eroded organs."""
    folder = tmp_path_factory.mktemp("delayed")
    bids = write_phantom(
        folder / "bids",
        participants=1,
        seed=1,
        size=SIZE,
        noise=0.0,
        delays=True,
        without={"001": ("mr", "topogram", "static")},
    )
    (folder / "study.toml").write_text("[kinetics.compartments]\nmaps = false\n")
    asked = ["--model", "TwoTissueIrr", "--settings", folder / "study.toml", "--skip-bids-validation"]
    done = hedypet(bids, folder / "out", "participant", *asked)
    assert done.returncode == 0, done.stderr
    fits = Study(folder / "out").kinetics("sub-001", "TwoTissueIrr", "total", erosion=1)
    return bids, fits[fits["input_function"] == BLOOD].set_index("name")


@pytest.mark.parametrize("organ", ORGANS)
def test_rates_blood_and_delay_are_those_of_the_phantom(delayed, organ: str) -> None:
    bids, fits = delayed
    known, found = truth(bids, "001")["kinetics"][organ], fits.loc[organ]
    assert found["K1"] == pytest.approx(known["K1"], rel=0.005)
    assert found["Ki"] == pytest.approx(known["ki"], rel=0.005)
    assert found["vB"] == pytest.approx(known["vb"], abs=0.001)
    assert found["delay"] == pytest.approx(known["delay_s"], abs=0.05)
    assert pd.isna(found["reason"])


def test_blood_that_comes_before_the_aorta_is_called_doubtful(delayed) -> None:
    bids, fits = delayed
    known, found = truth(bids, "001")["kinetics"]["lung_upper_lobe_left"], fits.loc["lung_upper_lobe_left"]
    assert found["delay"] == pytest.approx(known["delay_s"], abs=0.05) and known["delay_s"] < -1
    assert "delay" in found["reason"]


CEREBELLUM = ("Left-Cerebellum-Cortex", "Right-Cerebellum-Cortex")
T_STAR_MIN = 20.0


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    """A phantom of a reversible tracer whose blood is sampled, and fits with the samples."""
    folder = tmp_path_factory.mktemp("sampled")
    bids = write_phantom(
        folder / "bids",
        participants=1,
        seed=1,
        size=replace(SIZE, mprage=Voxels((64, 78, 70), (3.0, 3.0, 3.0))),
        noise=0.0,
        tracers=("11CUCBJ",),
        blood=True,
        without={"001": ("topogram", "static")},
    )
    (folder / "study.toml").write_text(
        f'[kinetics]\nmap_input_function = "measured"\nt_star_min = {T_STAR_MIN}\n'
        "[resample]\nhead_voxel_mm = 4.0\n"
    )
    asked = ["--model", "MA1", "Logan", "SRTM", "OneTissue", "--reference-region", *CEREBELLUM]
    done = hedypet(bids, folder / "out", "participant", *asked, "--settings", folder / "study.toml")
    assert done.returncode == 0, done.stderr
    return bids, Study(folder / "out")


@pytest.mark.parametrize("model", ["MA1", "Logan"])
def test_measured_blood_gives_the_volumes_of_distribution(sampled, model: str) -> None:
    bids, study = sampled
    known = truth(bids, "001")
    found = study.kinetics("sub-001", model, "total", erosion=1)
    found = found[found["input_function"] == "measured"].set_index("name")
    # Whole blood over the tracer in plasma: what vessels add to the volume of a region.
    start_s, lengths_s = np.array(known["frame_start_s"]), np.array(known["frame_duration_s"])
    late = start_s + lengths_s / 2 >= 60 * T_STAR_MIN
    ratio = np.array(known["blood"]["whole_blood"])[late] / np.array(known["input_function"])[late]
    in_vessels = np.average(ratio, weights=lengths_s[late])
    assert in_vessels > 1.5
    for organ in ORGANS:
        of_organ = known["kinetics"][organ]
        whole = (1 - of_organ["vb"]) * of_organ["vt"] + of_organ["vb"] * in_vessels
        assert found.loc[organ, "VT"] == pytest.approx(whole, rel=0.015), organ
        assert pd.isna(found.loc[organ, "reason"])


def test_a_region_that_binds_nothing_gives_the_binding_of_others(sampled) -> None:
    bids, study = sampled
    known = truth(bids, "001")
    found = study.kinetics("sub-001", "SRTM", "synthseg", erosion=1).set_index("name")
    for region in ("Left-Cerebral-Cortex", "Right-Cerebral-Cortex"):
        # Blood in the vessels of both regions, which the model leaves out, takes some per cent.
        assert found.loc[region, "BPND"] == pytest.approx(known["bp_nd"][region], rel=0.05)
    assert known["bp_nd"]["cerebellar_cortex"] == 0 and known["kinetics"]["cerebellar_cortex"]["k3"] == 0


def test_weights_are_those_of_the_scans_radionuclide(sampled) -> None:
    _, study = sampled
    told = json.loads(only(study.root, "*_seg-total_desc-eroded1_model-OneTissue_kinpar.json").read_text())
    assert told["WeightsHalfLife"] == pytest.approx(20.385 * 60) and "C11" in told["WeightsHalfLifeSource"]
    found = study.kinetics("sub-001", "OneTissue", "total", erosion=1).set_index(["name", "input_function"])
    tacs = study.tacs("sub-001", "total", erosion=1)
    frames = FrameTimes(tacs["frame_start"], tacs["frame_end"] - tacs["frame_start"])
    blood = study.input_functions("sub-001")[[BLOOD]]

    def k1(half_life_s: float) -> float:
        settings = Settings().with_values({"kinetics": {"compartments": {"half_life_s": half_life_s}}})
        return fit("OneTissue", tacs[["pancreas"]], blood, frames, settings)["K1"][0]

    assert found.loc[("pancreas", BLOOD), "K1"] == pytest.approx(k1(20.385 * 60), rel=1e-6)
    assert found.loc[("pancreas", BLOOD), "K1"] != pytest.approx(k1(109.77 * 60), rel=1e-6)
