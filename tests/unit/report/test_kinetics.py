"""Tables of kinetic models on the page, for a model that the page has never heard of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_model import Ratio

from hedypet_bids.io.manifest import ScanOutputs
from hedypet_bids.io.tables import write_table
from hedypet_bids.kernels.kinetics import register
from hedypet_bids.model import FrameTimes
from hedypet_bids.report.kinetics import DynamicSections
from hedypet_bids.settings import Settings

BLOOD = "aortavoicombineddescending"
MUSCLES = ("gluteus_maximus_left", "gluteus_maximus_right")
CURVES = {"liver": 4.0, MUSCLES[0]: 1.0, MUSCLES[1]: 2.0}
VOXELS = {"liver": 10, MUSCLES[0]: 30, MUSCLES[1]: 10}


@pytest.fixture
def outputs(tmp_path: Path) -> ScanOutputs:
    """Constant curves, blood of 2 Bq/mL, and the fits of the toy model with two input functions."""
    frames = FrameTimes(np.arange(5) * 60.0, np.full(5, 60.0))
    times = {"frame_start": frames.start_s, "frame_end": frames.end_s}
    fits = Ratio().fit(
        np.array([np.full(5, value) for value in CURVES.values()]),
        np.full((2, 5), [[2.0], [8.0]]),
        frames,
        None,
    )
    tables = {
        ("mean", "total", 1): pd.DataFrame({**times, **CURVES}),
        ("volumes", "total", 1): pd.DataFrame({"name": list(VOXELS), "n_voxels": list(VOXELS.values())}),
        ("kinetics", "Ratio", "total", 1): fits.table(list(CURVES), [BLOOD, "other"]),
        ("blood", BLOOD): pd.DataFrame(
            {**times, "whole_blood_radioactivity": 2.0, "std": 0.1, "n_voxels": 7}
        ),
    }
    files = {}
    for number, (kind, table) in enumerate(tables.items()):
        files[kind] = tmp_path / f"sub-01_recording-{BLOOD}_{number}.tsv"
        write_table(files[kind], table)
        files[kind].with_suffix(".json").write_text('{"InjectionStart": 0}')
    return ScanOutputs(files)


def test_a_new_model_has_a_table_of_organs(outputs: ScanOutputs) -> None:
    register(Ratio())
    settings = Settings().with_values({"kinetics": {"models": ("Ratio",)}})
    [fits] = DynamicSections(outputs, settings).models()
    assert (fits.name, fits.input_functions) == ("Ratio", [BLOOD])
    assert [organ.title for organ in fits.organs] == ["liver", "muscle (gluteus maximus)"]
    liver, muscle = (organ.estimates[0] for organ in fits.organs)
    assert liver == pytest.approx((2.0, 0.02))
    # The mean of 30 voxels of 1 Bq/mL and 10 of 2 Bq/mL over the blood.
    assert muscle == pytest.approx((0.625, 0.00625))


def test_a_model_that_was_not_fitted_has_no_organs(outputs: ScanOutputs) -> None:
    register(Ratio())
    patlak, ratio = DynamicSections(outputs, Settings()).models()
    assert (patlak.name, patlak.organs) == ("Patlak", [])
    assert ratio.name == "Ratio"
    assert np.isnan(DynamicSections(outputs, Settings()).ki("liver")).all()
