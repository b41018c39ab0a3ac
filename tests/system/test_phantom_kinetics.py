"""The pipeline against phantoms whose curves have delays, blood and metabolites of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from coarse_phantom import COARSE
from running import hedypet, truth

from hedypet_bids import Study
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
