"""The published hedyPET tables, recomputed with the functions that the pipeline uses."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hedypet_bids.kernels.kinetics.patlak import Window, fit_patlak
from hedypet_bids.kernels.lean_mass import normalisation_constants
from hedypet_bids.model import FrameTimes

READOUTS = Path(__file__).resolve().parents[4] / "shared" / "data" / "readouts"
pytestmark = pytest.mark.skipif(
    not READOUTS.is_dir(), reason="the measured hedyPET tables (shared/data/readouts) are not here"
)

DURATIONS_S = np.repeat([2.0, 5, 10, 60, 120, 300], [20, 10, 15, 6, 10, 8])
FRAMES = FrameTimes(start_s=np.cumsum(DURATIONS_S) - DURATIONS_S, duration_s=DURATIONS_S)
WINDOWS = tuple(Window(last_frames=n) for n in range(2, 9))
CURVE = ["Subject", "Label Name", "Erosion Iterations"]


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(READOUTS / f"{name}.tsv.gz", sep="\t")


def test_frames_are_those_of_the_tables():
    mids = read("input_function_tacs").groupby("Frame Index")["Frame Time Middle [s]"].unique()
    np.testing.assert_array_equal(np.stack(mids.to_list())[:, 0], FRAMES.mid_s)


def test_constants_of_all_participants():
    metadata = read("metadata")
    assert len(metadata) == 41
    for row in metadata.to_dict("records"):
        suv, james, janma, decazes = normalisation_constants(
            dose_bq=row["Injected Activity [MBq]"] * 1e6,
            weight_kg=row["Weight [kg]"],
            height_m=row["Height [m]"],
            sex=row["Demographic Group [Sex,Age]"][0],
        )
        for constant, column in (
            (suv, "SUV Denominator [Bq/mL]"),
            (janma, "SUL Janma Denominator [Bq/mL]"),
            (james, "SUL James Denominator [Bq/mL]"),
        ):
            assert constant.value == pytest.approx(row[column], rel=1e-12), (row["Subject"], constant)
        assert np.isnan(decazes.value)
        assert decazes.reason


def test_every_published_ki():
    """All rows of the table through fit_patlak, one call a participant, in under 10 s."""
    published = read("patlak_ki_matching")
    tacs = read("tacs").sort_values([*CURVE, "Frame Index"])
    blood = read("input_function_tacs").sort_values("Frame Index")
    blood["Input Function Identifier"] = blood["Task"] + "_" + blood["Label Name"]
    started = time.process_time()
    tables = []
    for subject, rows in tacs.groupby("Subject", sort=False):
        curves = rows.pivot_table(
            index=CURVE, columns="Frame Index", values="PET Mean [Bq/mL]", dropna=False, observed=True
        ).dropna(how="all")
        inputs = blood[blood["Subject"] == subject].pivot_table(
            index="Input Function Identifier", columns="Frame Index", values="PET Mean [Bq/mL]"
        )
        fit = fit_patlak(curves.to_numpy(), inputs.to_numpy(), FRAMES, windows=WINDOWS, rule="simpson")
        cube = pd.DataFrame(
            fit.ki.reshape(len(curves), -1),
            index=curves.index,
            columns=pd.MultiIndex.from_product(
                [inputs.index, range(2, 9)], names=["Input Function Identifier", "Regression Frames"]
            ),
        )
        tables.append(cube.stack(["Input Function Identifier", "Regression Frames"], future_stack=True))
    computed = pd.concat(tables).rename("Ki").reset_index()
    elapsed_s = time.process_time() - started

    both = published.merge(computed, how="left", validate="one_to_one")
    assert len(both) == len(published) == 63322
    assert not both["Ki"].isna().any()
    np.testing.assert_allclose(both["Ki"], both["Patlak Ki"], rtol=1e-8, atol=1e-10)
    assert elapsed_s < 10
