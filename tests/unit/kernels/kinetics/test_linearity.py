"""The slope of a bent plot changes as that of the parabola it is; a straight one is rarely called bent."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hedypet_bids.kernels.kinetics import known_models
from hedypet_bids.kernels.kinetics.linearity import LEAST_FRAMES, slope_change
from hedypet_bids.kernels.kinetics.patlak import patlak_abscissa
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom.kinetics import (
    Kinetics,
    hedypet_frames,
    input_function,
    scaled_feng_input,
    tissue_curve,
)
from hedypet_bids.settings import Settings

# K1, k2, k3, vB of grey matter, muscle, liver, spleen, kidney, marrow and a tumour.
TISSUES = (
    (0.10, 0.13, 0.062, 0.05),
    (0.04, 0.30, 0.026, 0.03),
    (0.75, 0.75, 0.003, 0.15),
    (1.2, 1.6, 0.006, 0.20),
    (1.5, 1.2, 0.02, 0.20),
    (0.4, 0.8, 0.03, 0.05),
    (0.25, 0.5, 0.1, 0.10),
)
FRAMES, FENG = hedypet_frames(), scaled_feng_input(8000.0)
BLOOD = input_function(FRAMES, FENG)


def fits_of(curves: np.ndarray, last_frames: int = 8, blood: np.ndarray = BLOOD) -> pd.DataFrame:
    table = known_models()["Patlak"].fit(curves, blood[None], FRAMES, Settings())
    rows = table.table([str(number) for number in range(len(curves))], ["blood"])
    return rows[rows["last_frames"] == last_frames].reset_index(drop=True)


def curves_with(k4: float) -> np.ndarray:
    return np.array([tissue_curve(FRAMES, FENG, Kinetics(*tissue, k4)) for tissue in TISSUES])


def test_the_change_is_that_of_a_polynomial_through_the_points() -> None:
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(20, 90, 9))
    y = 0.4 + 0.03 * x - 1e-4 * x**2 + 0.01 * rng.normal(size=9)
    blood = rng.uniform(1, 2, 9)
    found, se = slope_change((y * blood)[None], blood[None], x[None])
    coefficients, covariance = np.polyfit(x, y, 2, cov=True)
    length = 2 * (x[-1] - x[0])
    assert found.item() == pytest.approx(coefficients[0] * length, rel=1e-9)
    assert se.item() == pytest.approx(np.sqrt(covariance[0, 0]) * length, rel=1e-9)


def test_trapped_tracers_have_lines_and_others_have_not() -> None:
    trapped, let_go = fits_of(curves_with(0.0)), fits_of(curves_with(0.01))
    assert trapped["reason"].isna().all() and trapped["slope_change"].abs().max() < 0.1
    assert let_go["reason"].str.contains("not a line").all()
    assert (let_go["slope_change"] < -0.2).all()


def test_without_trapping_the_slope_is_as_much_too_low_as_the_methods_say() -> None:
    ki = np.array([K1 * k3 / (k2 + k3) * (1 - vb) for K1, k2, k3, vb in TISSUES])
    np.testing.assert_allclose(fits_of(curves_with(0.0))["Ki"], ki, rtol=0.03)
    bias = fits_of(curves_with(0.01))["Ki"] / ki - 1
    assert bias.min() == pytest.approx(-0.45, abs=0.01) and bias.max() == pytest.approx(-0.28, abs=0.01)
    assert "28 to 45 %" in known_models()["Patlak"].methods(Settings())


def test_noise_alone_is_called_a_bend_in_no_more_than_one_of_a_hundred() -> None:
    x = patlak_abscissa(BLOOD, FRAMES, rule="simpson")
    rng = np.random.default_rng(1)
    # So noisy that nearly every change of this level exceeds 10 %.
    lines = (0.01 * x + 0.5 + 0.05 * rng.normal(size=(5000, len(x)))) * BLOOD
    bent = fits_of(lines)["reason"].str.contains("not a line", na=False).mean()
    assert 0.004 < bent < 0.013


def test_what_cannot_be_told_has_its_reason() -> None:
    curves = curves_with(0.0)
    few = fits_of(curves, LEAST_FRAMES - 1)
    assert few["slope_change"].isna().all() and few["reason"].str.contains(str(LEAST_FRAMES)).all()
    assert few["Ki"].notna().all()
    assert fits_of(curves, LEAST_FRAMES)["slope_change"].notna().all()
    curves[0, -3] = np.nan
    broken = fits_of(curves)
    assert np.isnan(broken.loc[0, "Ki"]) and "missing" in broken.loc[0, "reason"]
    assert broken.loc[1:, "reason"].isna().all()
    no_blood = fits_of(curves, blood=np.zeros(len(FRAMES)))
    assert no_blood["Ki"].isna().all() and no_blood["reason"].str.contains("blood").all()
    noise = np.random.default_rng(2).normal(size=(50, len(FRAMES)))
    flat = fits_of(noise)
    uncertain = flat["Ki"] < 2 * flat["Ki_se"]
    assert (flat["slope_change"].isna() == uncertain).all() and flat.loc[uncertain, "reason"].notna().all()


def test_a_series_shorter_than_the_window_says_so() -> None:
    frames = FrameTimes(np.arange(4) * 900.0, np.full(4, 900.0))
    fits = known_models()["Patlak"].fit(np.ones((1, 4)), np.ones((1, 4)), frames, Settings())
    table = fits.table(["liver"], ["blood"]).set_index("last_frames")
    assert "fewer than 8 frames" in table.loc[8, "reason"] and np.isnan(table.loc[8, "Ki"])
