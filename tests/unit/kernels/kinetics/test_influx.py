"""FUR, the relative Patlak plot and the metabolism of glucose against curves of known influx."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from hedypet_bids.errors import UsageError
from hedypet_bids.inputs.participant_metadata import read_participant
from hedypet_bids.kernels.kinetics import FUR, CMRglc, KineticModel, Patlak, RelativePatlak, why_not
from hedypet_bids.model import FrameTimes, Person
from hedypet_bids.phantom import hedypet_frames
from hedypet_bids.phantom.kinetics import FengInput, Kinetics, input_function, tissue_curve
from hedypet_bids.settings import Settings

FRAMES = hedypet_frames()
INPUT = FengInput(851100.0, 21880.0, 20810.0, delay_s=15.0)
BLOOD = input_function(FRAMES, INPUT)
KI = 0.03
TRAPPED = tissue_curve(FRAMES, INPUT, Kinetics(KI, 0.0, 0.0, 0.0))
"""All that leaves the blood is trapped: the curve is Ki times the integral of the input function."""
CORTEX = tissue_curve(FRAMES, INPUT, Kinetics(0.10, 0.15, 0.08, 0.05))


def settings_of(**kinetics: Any) -> Settings:
    return Settings().with_values({"kinetics": kinetics})


def fitted(model: KineticModel, curves: Any, blood: Any = BLOOD, **kinetics: Any) -> dict[str, Any]:
    fits = model.fit(np.atleast_2d(curves), np.atleast_2d(blood), FRAMES, settings_of(**kinetics))
    return {name: np.ravel(value)[0] for name, value in fits.values.items()}


def test_fur_is_ki_where_everything_is_trapped_and_more_where_it_is_not() -> None:
    assert fitted(FUR(), TRAPPED)["FUR"] == pytest.approx(KI, rel=1e-3)
    ki = 0.95 * 0.10 * 0.08 / 0.23
    assert fitted(FUR(), CORTEX)["FUR"] > 1.05 * ki
    later = fitted(FUR(), CORTEX, late_window_min=[60, 70])["FUR"]
    assert later < fitted(FUR(), CORTEX, late_window_min=[30, 40])["FUR"]


def test_standard_error_of_fur_is_the_scatter_of_noisy_draws() -> None:
    noise = np.random.default_rng(1).normal(size=(3000, len(FRAMES))) * 0.02 * TRAPPED[-1]
    fits = FUR().fit(TRAPPED + noise, BLOOD[None], FRAMES, settings_of(late_window_min=[30, 70]))
    se, values = fits.values["FUR_se"].ravel(), fits.values["FUR"].ravel()
    assert np.sqrt((se**2).mean()) == pytest.approx(values.std(), rel=0.1)


def test_the_relative_plot_is_a_line_through_the_late_frames_alone() -> None:
    late = np.flatnonzero(FRAMES.mid_s >= 1800)
    area = np.cumsum(BLOOD[late] * 5.0) - BLOOD[late] * 2.5
    expected = stats.linregress(area / BLOOD[late], CORTEX[late] / BLOOD[late])
    early = BLOOD.copy()
    early[: late[0]] = np.nan
    for blood in (BLOOD, early):
        found = fitted(RelativePatlak(), CORTEX, blood)
        assert found["slope"] == pytest.approx(expected.slope, rel=1e-9)
        assert found["slope_se"] == pytest.approx(expected.stderr, rel=1e-6)
        assert found["intercept"] == pytest.approx(expected.intercept, rel=1e-9)
        assert found["intercept_se"] == pytest.approx(expected.intercept_stderr, rel=1e-6)


def test_relative_slopes_are_proportional_to_ki_within_a_scan() -> None:
    """The factor differs from 1, so the slope is no Ki, but it is the same for all regions."""
    tissues = [Kinetics(0.10, 0.8, k3, 0.0) for k3 in (0.05, 0.10, 0.20)]
    curves = np.array([tissue_curve(FRAMES, INPUT, tissue) for tissue in tissues])
    slopes = RelativePatlak().fit(curves, BLOOD[None], FRAMES, Settings()).values["slope"].ravel()
    factors = slopes / [tissue.ki for tissue in tissues]
    assert factors == pytest.approx(np.full(3, factors.mean()), rel=0.02)
    assert factors.mean() > 1.2


@pytest.mark.parametrize("model", [FUR(), RelativePatlak()], ids=["FUR", "RelativePatlak"])
def test_scaling_both_curves_changes_no_parameter(model: KineticModel) -> None:
    once, scaled = fitted(model, CORTEX), fitted(model, 7 * CORTEX, 7 * BLOOD)
    for parameter in model.parameters:
        assert scaled[parameter.name] == pytest.approx(once[parameter.name])


@pytest.mark.parametrize("model", [FUR(), RelativePatlak()], ids=["FUR", "RelativePatlak"])
@pytest.mark.parametrize(
    ("curve", "blood", "changes"),
    [
        (CORTEX, np.zeros(69), {}),
        (CORTEX, np.full(69, np.nan), {}),
        (np.full(69, np.nan), BLOOD, {}),
        (CORTEX, BLOOD, {"t_star_min": 90, "late_window_min": [90, 99]}),
    ],
    ids=["no blood", "NaN blood", "no voxel", "window after the scan"],
)
def test_what_has_no_value_says_why(model: KineticModel, curve: Any, blood: Any, changes: Any) -> None:
    found = fitted(model, curve, blood, **changes)
    for parameter in model.parameters:
        assert np.isnan(found[parameter.name]) and np.isnan(found[f"{parameter.name}_se"])
    assert isinstance(found["reason"], str) and found["reason"]


def test_no_parameter_but_patlaks_is_called_ki() -> None:
    for model in (FUR(), RelativePatlak(), CMRglc()):
        assert all(parameter.name.lower() != "ki" for parameter in model.parameters)


def test_a_scan_that_starts_late_has_a_relative_plot_only() -> None:
    late = FrameTimes(FRAMES.start_s[-8:], FRAMES.duration_s[-8:])
    assert why_not(RelativePatlak(), "FDG", late, Settings()) == ""
    assert "after injection" in why_not(FUR(), "FDG", late, Settings())


GLUCOSE = {"lumped_constant": 0.65, "tissue_density_g_per_ml": 1.04}


def test_metabolic_rate_is_ki_times_glucose_over_lumped_constant_and_density() -> None:
    model = CMRglc().of(Person("001", glucose_mmol_l=5.0))
    fits = model.fit(CORTEX[None], BLOOD[None], FRAMES, settings_of(**GLUCOSE))
    ki = Patlak().fit(CORTEX[None], BLOOD[None], FRAMES, Settings()).values
    # mL/min/mL times umol/mL is umol/min/mL; 100 g have 100/1.04 mL.
    expected = ki["Ki"] * 5.0 / 0.65 * (100 / 1.04)
    np.testing.assert_allclose(fits.values["CMRglc"], expected, rtol=1e-12)
    np.testing.assert_allclose(fits.values["CMRglc_se"] / expected, ki["Ki_se"] / ki["Ki"], rtol=1e-9)
    assert 20 < fits.values["CMRglc"].ravel()[-1] < 40  # grey matter, umol/100 g/min


@pytest.mark.parametrize(
    ("person", "kinetics", "word"),
    [
        (Person("1", glucose_mmol_l=5.0), {}, "lumped_constant"),
        (Person("1"), GLUCOSE, "blood_glucose"),
        (Person("1", notes=("blood glucose in participants.tsv is '90': its units",)), GLUCOSE, "'90'"),
    ],
)
def test_without_glucose_or_lumped_constant_there_is_no_metabolic_rate(
    person: Person, kinetics: Any, word: str
) -> None:
    assert word in why_not(CMRglc().of(person), "FDG", FRAMES, settings_of(**kinetics))


@pytest.mark.parametrize(
    ("row", "units", "expected"),
    [
        ("5.2", "mmol/L", 5.2),
        ("90", "mg/dL", 90 * 0.0555),
        ("90", "mmol/L", None),
        ("5.2", None, None),
        ("5.2", "g/L", None),
        ("high", "mmol/L", None),
    ],
)
def test_glucose_has_units_or_is_refused(row: str, units: str | None, expected: float | None) -> None:
    columns = {"blood_glucose": {"Units": units}} if units else {}
    person = read_participant("1", {"blood_glucose": row}, columns=columns)
    assert person.glucose_mmol_l == (None if expected is None else pytest.approx(expected))
    assert bool(person.notes) == (expected is None)


def test_glucose_of_the_session_goes_before_that_of_the_participant() -> None:
    columns = {"blood_glucose": {"Units": "mmol/L"}}
    person = read_participant("1", {"blood_glucose": 5.0}, columns=columns, session={"blood_glucose": "6.0"})
    assert person.glucose_mmol_l == 6.0


@pytest.mark.parametrize(
    "kinetics",
    [
        {"parent_fraction": [[0, 1.2]]},
        {"parent_fraction": [[10, 0.5], [5, 0.8]]},
        {"plasma_to_blood": -1},
        {"late_window_min": [70, 50]},
        {"tissue_density_g_per_ml": 0},
        {"reference_region": ["a", "a"]},
    ],
)
def test_settings_that_mean_nothing_are_refused(kinetics: Any) -> None:
    with pytest.raises(UsageError, match=r"\[kinetics\]"):
        settings_of(**kinetics)
