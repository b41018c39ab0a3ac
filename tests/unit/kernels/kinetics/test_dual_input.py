"""The liver with two inputs: what was simulated on a fine grid comes back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from hedypet_bids import fit
from hedypet_bids.kernels.kinetics import LiverDualInput
from hedypet_bids.kernels.kinetics.compartments import fit_compartments
from hedypet_bids.kernels.kinetics.dual_input import fit_dual_input
from hedypet_bids.phantom.kinetics import feng_input, hedypet_frames, scaled_feng_input

FRAMES = hedypet_frames()
STEP_S = 0.05
# K1, k2, k3, vB, delay of the artery (s), ka: off the grid of the fit.
LIVERS = [
    (0.9, 1.0, 0.01, 0.15, 3.3, 2.7),
    (1.2, 1.1, 0.02, 0.2, 0.4, 1.7),
    (0.7, 0.9, 0.005, 0.1, 7.2, 5.5),
]


def convolved(curve: NDArray[np.float64], rate_per_s: float) -> NDArray[np.float64]:
    """With exp(-rate t), exactly for straight lines between the samples."""
    kept, level = np.exp(-rate_per_s * STEP_S), -np.expm1(-rate_per_s * STEP_S) / rate_per_s
    ramp = (STEP_S - level) / rate_per_s
    added = np.zeros_like(curve)
    added[1:] = curve[:-1] * level + np.diff(curve) / STEP_S * ramp
    return np.asarray(lfilter([1.0], [1.0, -kept], added))


def area(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum((curve[1:] + curve[:-1]) / 2 * STEP_S)])


def means(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    times = np.arange(len(curve)) * STEP_S
    ends = (np.interp(edge, times, area(curve)) for edge in (FRAMES.end_s, FRAMES.start_s))
    return np.asarray(np.subtract(*ends) / FRAMES.duration_s)


def liver(
    K1: float, k2: float, k3: float, vb: float, delay_s: float, ka: float, *, fraction: float = 0.25
) -> NDArray[np.float64]:
    """Means over the frames."""
    times = np.arange(0.0, FRAMES.end_s[-1] + STEP_S / 2, STEP_S)
    artery, late = (
        feng_input(times, scaled_feng_input(8000.0, delay_s=15.0 + by_s)) for by_s in (0.0, delay_s)
    )
    blood = fraction * late + (1 - fraction) * ka / 60 * convolved(artery, ka / 60)
    trapped, exchanged = k3 / (k2 + k3) * area(blood), k2 / (k2 + k3) * convolved(blood, (k2 + k3) / 60)
    return means((1 - vb) * K1 / 60 * (trapped + exchanged) + vb * blood)


@pytest.fixture(scope="module")
def aorta() -> NDArray[np.float64]:
    return liver(0.0, 1.0, 0.0, 1.0, 0.0, 1.0, fraction=1.0)


def test_livers_come_back_and_one_input_is_far_off(aorta: NDArray[np.float64]) -> None:
    curves = np.array([liver(*rates) for rates in LIVERS])
    fits = fit_dual_input(curves, aorta[None], FRAMES)
    found = {name: values[:, 0] for name, values in fits.tissue.parameters("2TCM").items()}
    K1, k2, k3, vb, delay_s, ka = np.array(LIVERS).T
    np.testing.assert_allclose(found["K1"], K1, rtol=0.015)
    np.testing.assert_allclose(found["Ki"], K1 * k3 / (k2 + k3), rtol=0.015)
    np.testing.assert_allclose(found["vB"], vb, atol=0.01)
    np.testing.assert_allclose(found["delay"], delay_s, atol=0.5)
    np.testing.assert_allclose(fits.portal_per_min[:, 0], ka, rtol=0.01)
    alone = fit_compartments(curves, aorta[None], FRAMES).parameters("2TCM")["Ki"][:, 0]
    assert (alone < 0.92 * found["Ki"]).all()


def test_with_arterial_blood_alone_it_is_the_model_with_one_input(aorta: NDArray[np.float64]) -> None:
    curve = liver(0.5, 0.6, 0.02, 0.1, 3.0, 2.0, fraction=1.0)
    dual = fit_dual_input(curve, aorta, FRAMES, arterial_fraction=1.0).tissue.parameters("2TCM")
    single = fit_compartments(curve, aorta, FRAMES).parameters("2TCM")
    for name in ("K1", "Ki", "vB", "delay"):
        assert dual[name].item() == pytest.approx(single[name].item(), rel=1e-3)


def test_standard_errors_are_the_scatter_of_noisy_curves(aorta: NDArray[np.float64]) -> None:
    truth, rng = liver(*LIVERS[0]), np.random.default_rng(3)
    weights = FRAMES.duration_s * np.exp2(-FRAMES.mid_s / 6586.2)
    sigma = 0.005 * truth[-1] * np.sqrt(weights[-1] / weights)
    curves = truth + sigma * rng.standard_normal((60, len(FRAMES)))
    fits = fit_dual_input(curves, aorta, FRAMES)
    found = {name: values[:, 0] for name, values in fits.tissue.parameters("2TCM").items()}
    known = np.isfinite(found["Ki_se"])
    assert known.mean() > 0.7
    for name in ("Ki", "delay"):
        scatter, told = found[name][known].std(ddof=1), np.median(found[f"{name}_se"][known])
        assert 0.7 < scatter / told < 1.4, name


def test_what_allows_no_fit_is_said(aorta: NDArray[np.float64]) -> None:
    broken = liver(*LIVERS[0])
    broken[5] = np.nan
    table = fit("LiverDualInput", {"liver": broken}, {"aorta": aorta, "flat": np.ones(len(FRAMES))}, FRAMES)
    assert table["Ki"].isna().all() and table["ka"].isna().all()
    assert ["frame" in table["reason"][0], "flat" in table["reason"][1]] == [True, True]


def test_plasma_and_whole_blood_may_differ(aorta: NDArray[np.float64]) -> None:
    # With the same plasma, blood of half the activity needs twice the fraction.
    curve = liver(*LIVERS[0])
    half = fit_dual_input(curve, aorta, FRAMES, whole_blood=0.5 * aorta)
    same = fit_dual_input(curve, aorta, FRAMES)
    assert half.tissue.shares[0, 0, 2, 0] == pytest.approx(2 * same.tissue.shares[0, 0, 2, 0], rel=1e-3)


def test_the_value_of_the_artery_alone_stands_beside(aorta: NDArray[np.float64]) -> None:
    curve = {"liver": liver(*LIVERS[1])}
    both, alone = (
        fit(model, curve, {"aorta": aorta}, FRAMES) for model in ("LiverDualInput", "TwoTissueIrr")
    )
    pd.testing.assert_series_equal(both["Ki_arterial"], alone["Ki"], check_names=False)
    pd.testing.assert_series_equal(both["K1_arterial"], alone["K1"], check_names=False)
    assert LiverDualInput.regions == ("liver",)
