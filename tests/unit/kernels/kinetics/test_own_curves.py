"""Models on plain curves give what the pipeline gives, and say what is wrong with curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from running import Run

from hedypet_bids import Settings, Study, fit
from hedypet_bids.errors import BadDataError, UsageError
from hedypet_bids.kernels.kinetics import Patlak
from hedypet_bids.model import FrameTimes

FRAMES = FrameTimes(np.arange(0.0, 3600.0, 300.0), np.full(12, 300.0))
BLOOD = np.linspace(9000.0, 4000.0, 12)


@pytest.mark.slow
def test_curves_of_a_run_give_its_tables(coarse_run: Run) -> None:
    study = Study(coarse_run.output)
    curves, blood = study.tacs("001", "total", erosion=1), study.input_functions("001")
    frames = FrameTimes(curves["frame_start"], curves["frame_end"] - curves["frame_start"])
    inputs = blood.drop(columns=["frame_start", "frame_end"])
    found = fit("Patlak", curves.drop(columns=["frame_start", "frame_end"]), inputs, frames)
    table = study.kinetics("001", "Patlak", "total", erosion=1)
    keys = ["name", "input_function", "last_frames"]
    both = found.merge(table, on=keys, suffixes=("", "_of_run"), validate="one_to_one")
    assert len(both) == len(found) == len(table)
    assert both["Ki"].notna().sum() > 1000
    # Files have six digits.
    for column in ("Ki", "Ki_se", "V0", "r2"):
        np.testing.assert_allclose(both[column], both[f"{column}_of_run"], rtol=1e-4, atol=1e-7)


def test_arrays_mappings_and_tables_are_the_same_curves() -> None:
    curves = {"a": 0.01 * np.cumsum(BLOOD), "b": 0.02 * np.cumsum(BLOOD)}
    named = fit("Patlak", curves, {"aorta": BLOOD}, FRAMES)
    table = fit(Patlak(), pd.DataFrame(curves), pd.DataFrame({"aorta": BLOOD}), FRAMES)
    plain = fit("Patlak", np.array(list(curves.values())), BLOOD.tolist(), FRAMES)
    pd.testing.assert_frame_equal(named, table)
    assert list(dict.fromkeys(plain["name"])) == ["region 1", "region 2"]
    assert set(plain["input_function"]) == {"input function 1"}
    pd.testing.assert_frame_equal(
        plain.drop(columns=["name", "input_function"]), named.drop(columns=["name", "input_function"])
    )
    assert set(fit("Patlak", curves["a"], BLOOD, FRAMES)["name"]) == {"region 1"}
    settings = Settings().with_values({"kinetics": {"patlak": {"last_frames": [3]}}})
    assert len(fit("Patlak", curves, BLOOD, FRAMES, settings)) == 2


@pytest.mark.parametrize(
    ("model", "curves", "blood", "error", "words"),
    [
        ("Patlack", BLOOD, BLOOD, UsageError, "Patlak"),
        ("no model at all", BLOOD, BLOOD, UsageError, "SRTM"),
        ("Patlak", {"liver": BLOOD[:-1]}, BLOOD, BadDataError, "liver.*12 frames"),
        ("Patlak", BLOOD, BLOOD[:, None], BadDataError, "input function 1"),
        ("Patlak", {"liver": ["a"] * 12}, BLOOD, BadDataError, "liver"),
        ("Patlak", {}, BLOOD, BadDataError, "region"),
        ("TwoTissueIrr", BLOOD, BLOOD, BadDataError, "frame"),
    ],
)
def test_what_cannot_be_fitted_is_said(model, curves, blood, error, words: str) -> None:
    with pytest.raises(error, match=words):
        fit(model, curves, blood, FRAMES)
