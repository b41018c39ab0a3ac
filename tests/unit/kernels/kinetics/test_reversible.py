"""MA1, Logan, SRTM, MRTM, MRTM2 and SUVR against curves of known kinetics, solved by matrix exponentials."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from hedypet_bids.kernels.kinetics import MA1, MRTM, MRTM2, SRTM, SUVR, KineticModel, Logan
from hedypet_bids.kernels.kinetics.reference_region import convolved
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom import hedypet_frames
from hedypet_bids.phantom.kinetics import FengInput, Kinetics, input_function, tissue_curve
from hedypet_bids.settings import Settings

BLOOD = FengInput(851100.0, 21880.0, 20810.0, delay_s=15.0)
PLASMA = {"plasma_to_blood": 1.0, "parent_fraction": [[0.0, 1.0]]}
# K1 mL/min/mL, k2, k3 1/min, vB, k4: one and two tissues, VT from 1 to 12.
TISSUES = {
    "cerebellum": Kinetics(0.12, 0.12, 0.0, 0.0),
    "cortex": Kinetics(0.15, 0.05, 0.0, 0.0),
    "liver": Kinetics(0.60, 0.30, 0.0, 0.0),
    "two tissues": Kinetics(0.10, 0.25, 0.08, 0.0, 0.15),
    "kidney": Kinetics(0.40, 0.40, 0.20, 0.0, 0.10),
}
FRAMINGS = {
    "hedyPET": hedypet_frames(),
    "brain": FrameTimes(
        np.cumsum([0.0, *np.repeat([10.0, 60, 180, 300], [6, 4, 5, 14])])[:-1],
        np.repeat([10.0, 60, 180, 300], [6, 4, 5, 14]),
    ),
}


def settings_of(**kinetics: Any) -> Settings:
    return Settings().with_values({"kinetics": kinetics})


def fitted(
    model: KineticModel, curves: Any, inputs: Any, frames: FrameTimes, **kinetics: Any
) -> dict[str, Any]:
    """Columns of the fits with one input function, a value a region."""
    fits = model.fit(np.atleast_2d(curves), np.atleast_2d(inputs), frames, settings_of(**kinetics))
    shape = (len(np.atleast_2d(curves)), 1, 1)
    return {name: np.broadcast_to(value, shape)[:, 0, 0] for name, value in fits.values.items()}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("model", [MA1(), Logan()], ids=["MA1", "Logan"])
@pytest.mark.parametrize("tissue", TISSUES)
def test_distribution_volumes_of_noiseless_curves(model: KineticModel, tissue: str, framing: str) -> None:
    frames = FRAMINGS[framing]
    curve = tissue_curve(frames, BLOOD, TISSUES[tissue])
    found = fitted(model, curve, input_function(frames, BLOOD), frames, **PLASMA)
    assert found["VT"] == pytest.approx(TISSUES[tissue].vt, rel=0.01)
    assert found["reason"] == [None]
    assert found["b"] < 0


def test_plasma_is_made_of_blood_and_its_parent_fraction() -> None:
    """Blood of which plasma has 1.25 times the activity, half of it metabolites at the end."""
    frames = FRAMINGS["hedyPET"]
    parent = np.interp(frames.mid_s / 60, [2.0, 60.0], [1.0, 0.5])
    blood = input_function(frames, BLOOD) / 1.25 / parent
    curve = tissue_curve(frames, BLOOD, TISSUES["cortex"])
    known = {"plasma_to_blood": 1.25, "parent_fraction": [[2.0, 1.0], [60.0, 0.5]]}
    assert fitted(MA1(), curve, blood, frames, **known)["VT"] == pytest.approx(3.0, rel=0.01)
    # Taken as they are, the same curves give another VT: so without both there is none.
    assert abs(fitted(MA1(), curve, blood, frames, **PLASMA)["VT"] / 3.0 - 1) > 0.1
    for missing in known:
        found = fitted(MA1(), curve, blood, frames, **{k: v for k, v in known.items() if k != missing})
        assert np.isnan(found["VT"]) and np.isnan(found["b"])
        assert "parent_fraction" in found["reason"][0]


@pytest.mark.parametrize("model", [MA1(), Logan()], ids=["MA1", "Logan"])
def test_standard_errors_of_vt_are_the_scatter_of_noisy_draws(model: KineticModel) -> None:
    frames = FRAMINGS["hedyPET"]
    blood, curve = input_function(frames, BLOOD), tissue_curve(frames, BLOOD, TISSUES["cortex"])
    draws = np.random.default_rng(3).normal(size=(2000, len(frames)))
    noisy = curve + 0.02 * curve.mean() * draws * np.sqrt(300.0 / frames.duration_s)
    found = fitted(model, noisy, blood, frames, **PLASMA)
    scatter = found["VT"].std()
    assert np.sqrt((found["VT_se"] ** 2).mean()) == pytest.approx(scatter, rel=0.2)


def reference_curves(frames: FrameTimes, tissues: list[Kinetics]) -> tuple[np.ndarray, np.ndarray]:
    """The reference region's curve and those of the tissues."""
    return tissue_curve(frames, BLOOD, TISSUES["cerebellum"]), np.array(
        [tissue_curve(frames, BLOOD, tissue) for tissue in tissues]
    )


# One tissue each: VT over that of the reference region, 1, is 1 + BPND.
BOUND = [Kinetics(0.15, 0.15 / (1 + bp), 0.0, 0.0) for bp in (0.2, 1.0, 2.5, 4.0)]
TRUE_BPND = np.array([0.2, 1.0, 2.5, 4.0])


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("model", [SRTM(), MRTM(), MRTM2()], ids=["SRTM", "MRTM", "MRTM2"])
def test_binding_potentials_of_noiseless_curves(model: KineticModel, framing: str) -> None:
    frames = FRAMINGS[framing]
    reference, curves = reference_curves(frames, BOUND)
    found = fitted(model, curves, reference, frames)
    # 1 % of the distribution volume ratio where there is little binding.
    assert found["BPND"] == pytest.approx(TRUE_BPND, rel=0.01, abs=0.005)
    assert found["R1"] == pytest.approx(0.15 / 0.12, rel=0.02)
    if model.name == "SRTM":
        assert found["k2"] == pytest.approx(0.15, rel=0.01)
    else:
        assert found["k2prime"] == pytest.approx(0.12, rel=0.06)
    assert list(found["reason"]) == [None] * 4


def test_mrtm2_takes_the_k2_prime_that_is_given() -> None:
    frames = FRAMINGS["hedyPET"]
    reference, curves = reference_curves(frames, BOUND[:1])
    none = fitted(MRTM2(), curves, reference, frames)
    assert np.isnan(none["BPND"]) and "k2_prime_per_min" in none["reason"][0]
    given = fitted(MRTM2(), curves, reference, frames, k2_prime_per_min=0.12)
    assert given["BPND"] == pytest.approx(0.2, abs=0.005)


def test_srtm_is_what_curve_fit_finds_in_noisy_curves() -> None:
    frames = FRAMINGS["brain"]
    reference, [curve] = reference_curves(frames, BOUND[1:2])
    noisy = curve * (1 + 0.03 * np.random.default_rng(5).normal(size=len(frames)))

    def model(_: Any, r1: float, k2: float, bp: float) -> np.ndarray:
        rate = k2 / (1 + bp)
        return r1 * reference + (k2 - r1 * rate) * convolved(reference, frames, np.array([rate]))[0]

    best, covariance = curve_fit(
        model, frames.mid_s, noisy, p0=[1.0, 0.1, 0.5], sigma=1 / np.sqrt(frames.duration_s)
    )
    found = fitted(SRTM(), noisy, reference, frames)
    for number, name in enumerate(("R1", "k2", "BPND")):
        assert found[name] == pytest.approx(best[number], rel=2e-3)
        assert found[f"{name}_se"] == pytest.approx(np.sqrt(covariance[number, number]), rel=0.02)


@pytest.mark.parametrize("name", ["BPND", "R1"])
@pytest.mark.parametrize("model", [SRTM(), MRTM2()], ids=["SRTM", "MRTM2"])
def test_standard_errors_of_bpnd_are_the_scatter_of_noisy_draws(model: KineticModel, name: str) -> None:
    frames = FRAMINGS["brain"]
    reference, [curve] = reference_curves(frames, BOUND[1:2])
    draws = np.random.default_rng(4).normal(size=(1000, len(frames)))
    noise = curve.mean() * 0.02 * draws * np.sqrt(300.0 / frames.duration_s)
    found = fitted(model, curve + noise, reference, frames, k2_prime_per_min=0.12)
    assert np.sqrt(np.nanmean(found[f"{name}_se"] ** 2)) == pytest.approx(np.nanstd(found[name]), rel=0.2)


def test_suvr_is_the_ratio_in_the_window() -> None:
    frames = FRAMINGS["hedyPET"]
    reference, curves = reference_curves(frames, BOUND)
    found = fitted(SUVR(), curves, reference, frames, late_window_min=[50, 70])
    late = frames.start_s >= 3000
    assert found["SUVR"] == pytest.approx(curves[:, late].mean(axis=1) / reference[late].mean())
    assert (found["n_used"][0], found["t_start"][0], found["t_end"][0]) == (4, 3000, 4200)


def test_convolution_is_the_one_tissue_model() -> None:
    """A fine framing of the input and the exact curve of a tissue with K1 = 1."""
    for frames in FRAMINGS.values():
        blood = tissue_curve(frames, BLOOD, TISSUES["cerebellum"])
        fine = FrameTimes(np.arange(0.0, 4200.0, 0.5), np.full(8400, 0.5))
        dense = tissue_curve(fine, BLOOD, TISSUES["cerebellum"])
        decay = np.exp(-0.04 * fine.mid_s / 60)
        exact = (decay * np.cumsum(dense / decay) - dense / 2) * 0.5 / 60
        means = [
            exact[(fine.mid_s > start) & (fine.mid_s < end)].mean()
            for start, end in zip(frames.start_s, frames.end_s, strict=True)
            if end <= 4200
        ]
        found = convolved(blood, frames, np.array([0.04]))[0, : len(means)]
        late = frames.mid_s[: len(means)] > 120
        np.testing.assert_allclose(found[late], np.array(means)[late], rtol=2e-3)


def test_a_gap_is_bridged() -> None:
    frames = FRAMINGS["hedyPET"]
    kept = np.delete(np.arange(69), np.s_[60:62])
    broken = FrameTimes(frames.start_s[kept], frames.duration_s[kept])
    reference, curves = reference_curves(frames, BOUND)
    found = fitted(SRTM(), curves[:, kept], reference[kept], broken)
    assert found["BPND"] == pytest.approx(TRUE_BPND, rel=0.01, abs=0.005)


ALL = [MA1(), Logan(), SRTM(), MRTM(), MRTM2(), SUVR()]


@given(st.sampled_from(ALL), st.floats(1e-3, 1e3))
@hypothesis_settings(max_examples=30, deadline=None)
def test_scaling_both_curves_changes_no_parameter(model: KineticModel, factor: float) -> None:
    frames = FRAMINGS["brain"]
    reference, curves = reference_curves(frames, BOUND[1:])
    once = fitted(model, curves, reference, frames, **PLASMA)
    scaled = fitted(model, factor * curves, factor * reference, frames, **PLASMA)
    for parameter in model.parameters:
        np.testing.assert_allclose(scaled[parameter.name], once[parameter.name], rtol=1e-6)


@pytest.mark.parametrize("model", ALL, ids=[model.name for model in ALL])
def test_what_has_no_value_says_why(model: KineticModel) -> None:
    frames = FRAMINGS["hedyPET"]
    reference, curves = reference_curves(frames, BOUND)
    flat = np.zeros(69)
    broken = {
        "no blood": (curves, flat, frames, {}),
        "NaN blood": (curves, np.full(69, np.nan), frames, {}),
        "no voxel": (np.full((4, 69), np.nan), reference, frames, {}),
        "window after the scan": (curves, reference, frames, {"t_star_min": 90, "late_window_min": [90, 99]}),
        "one frame": (curves[:, :1], reference[:1], FrameTimes([0.0], [60.0]), {}),
    }
    for case, (tissue, blood, times, changes) in broken.items():
        if case == "window after the scan" and model.name == "SRTM":
            continue  # which takes all frames
        found = fitted(model, tissue, blood, times, **{**PLASMA, **changes})
        for parameter in model.parameters:
            assert np.isnan(found[parameter.name]).all(), case
            assert np.isnan(found[f"{parameter.name}_se"]).all(), case
        assert all(isinstance(reason, str) and reason for reason in found["reason"]), case


@pytest.mark.parametrize("model", [MA1(), Logan()], ids=["MA1", "Logan"])
def test_a_trapped_tracer_has_no_distribution_volume(model: KineticModel) -> None:
    frames = FRAMINGS["hedyPET"]
    blood = input_function(frames, BLOOD)
    area = np.cumsum(blood * frames.duration_s / 60)
    found = fitted(model, 0.03 * area + 10 * area**1.2 / area.max() ** 0.2, blood, frames, **PLASMA)
    assert np.isnan(found["VT"]) and "leaves" in found["reason"][0]


@pytest.mark.parametrize("model", [SRTM(), MRTM(), MRTM2(), SUVR()], ids=["SRTM", "MRTM", "MRTM2", "SUVR"])
def test_the_reference_region_is_not_compared_with_itself(model: KineticModel) -> None:
    frames = FRAMINGS["hedyPET"]
    reference, curves = reference_curves(frames, BOUND)
    found = fitted(model, [reference, *curves], reference, frames)
    assert "itself" in found["reason"][0] and found["reason"][1] is None


@pytest.mark.parametrize("model", [MA1(), Logan()], ids=["MA1", "Logan"])
def test_measured_plasma_needs_no_settings_but_its_parent_fraction(model: KineticModel) -> None:
    frames = FRAMINGS["hedyPET"]
    plasma, curve = input_function(frames, BLOOD)[None], tissue_curve(frames, BLOOD, TISSUES["cortex"])
    settings = Settings().with_values({"kinetics": {"plasma_to_blood": 5.0}})
    for known in (True, False):
        fits = model.fit_plasma(curve[None], plasma, 1.4 * plasma, frames, settings, parent_known=known)
        row = model.table(fits, ["cortex"], ["measured"]).iloc[0]
        if known:
            assert row["VT"] == pytest.approx(TISSUES["cortex"].vt, rel=0.01)
        else:
            assert np.isnan(row["VT"]) and "parent_fraction" in row["reason"]
