"""Compartment models against analytic responses, other solvers, and what must not change them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.linalg import expm
from scipy.optimize import curve_fit, nnls

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.kinetics import Fits, KineticModel, OneTissue, TwoTissue, known_models
from hedypet_bids.kernels.kinetics.body_voxels import BodyVoxels
from hedypet_bids.kernels.kinetics.compartments import fit_compartments
from hedypet_bids.kernels.kinetics.input_curve import InputCurve
from hedypet_bids.kernels.kinetics.shares import non_negative
from hedypet_bids.labels import LabelTable
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom.kinetics import Kinetics, input_function, scaled_feng_input, tissue_curve
from hedypet_bids.settings import Settings
from hedypet_bids.steps.kinetics import kinetics_table

READOUTS = Path(__file__).resolve().parents[5] / "shared" / "data" / "readouts"
HEDYPET_S = np.repeat([2.0, 5, 10, 60, 120, 300], [20, 10, 15, 6, 10, 8])
TEN_SECONDS_S = np.repeat([10.0, 30, 60, 300], [18, 4, 5, 12])
ARRIVAL_S, HALF_LIFE_S = 17.3, 6586.2

TISSUES = {  # K1 mL/min/mL, k2, k3 1/min, vB, delay s: as in the literature, rounded; none on the grid
    "grey matter": (0.10, 0.13, 0.062, 0.05, 3.1),
    "white matter": (0.054, 0.109, 0.045, 0.03, 4.3),
    "muscle": (0.04, 0.30, 0.026, 0.03, 8.7),
    "liver": (0.75, 0.75, 0.003, 0.15, 6.2),
    "spleen": (1.2, 1.6, 0.006, 0.20, 2.8),
    "kidney": (1.5, 1.2, 0.02, 0.20, 1.3),
    "myocardium": (0.6, 1.2, 0.1, 0.20, 0.7),
    "marrow": (0.4, 0.8, 0.03, 0.05, 5.1),
    "tumour": (0.25, 0.5, 0.1, 0.10, 6.9),
    "fat": (0.02, 0.3, 0.01, 0.02, 12.3),
    "bowel wall": (0.3, 0.5, 0.015, 0.05, 7.7),
}


def frames_of(durations_s, start_s=0.0):
    return FrameTimes(start_s + np.cumsum(durations_s) - durations_s, np.asarray(durations_s, dtype=float))


FRAMES = frames_of(HEDYPET_S)


def simulate(frames, K1, k2, k3, vB, delay_s, arrival_s=ARRIVAL_S):
    """Exact frame means of tissue for a ramp and three exponentials, by matrix exponentials."""
    a1, a2, a3, l1, l2, l3 = 85100.0, 2188.0, 2081.0, 4.1339, 0.1191, 0.0104
    fast, ramp, middle, slow, free, bound, area = np.eye(7)
    blood = a1 * ramp - (a2 + a3) * fast + a2 * middle + a3 * slow
    rates = np.array(
        [
            -l1 * fast,
            fast - l1 * ramp,
            -l2 * middle,
            -l3 * slow,
            K1 * blood - (k2 + k3) * free,
            k3 * free,
            (1 - vB) * (free + bound) + vB * blood,
        ]
    )
    edges = np.maximum(np.stack([frames.start_s, frames.end_s]) - arrival_s - delay_s, 0.0) / 60
    at_start, at_end = expm(rates * edges[..., None, None]) @ (fast + middle + slow)
    return (at_end - at_start) @ area / (frames.duration_s / 60)


def blood_of(frames, arrival_s=ARRIVAL_S):
    return simulate(frames, 0.0, 0.0, 0.0, 1.0, 0.0, arrival_s)


def noise_of(frames, sd_late):
    """Standard deviation of each frame: by its counts, and this in the last one."""
    weights = frames.duration_s * np.exp2(-frames.mid_s / HALF_LIFE_S)
    return sd_late * np.sqrt(weights[-1] / weights)


def truths(tissue):
    K1, k2, k3, vB, delay_s = TISSUES[tissue]
    return {"Ki": K1 * k3 / (k2 + k3), "K1": K1, "k2": k2, "k3": k3, "vB": vB, "delay": delay_s}


@pytest.fixture(scope="module")
def curves():
    return np.array([simulate(FRAMES, *values) for values in TISSUES.values()])


BLOOD = blood_of(FRAMES)


@pytest.mark.parametrize("durations_s", [HEDYPET_S, TEN_SECONDS_S], ids=["hedyPET", "10 s"])
def test_parameters_of_eleven_tissues_are_found(durations_s) -> None:
    frames = frames_of(durations_s)
    noiseless = np.array([simulate(frames, *values) for values in TISSUES.values()])
    fits = fit_compartments(noiseless, blood_of(frames)[None], frames)
    found = fits.parameters("2TCM")
    assert set(fits.chosen.ravel()) == {"2TCM"}
    assert not any(found["reason"].ravel())
    for i, tissue in enumerate(TISSUES):
        true = truths(tissue)
        assert found["K1"][i, 0] == pytest.approx(true["K1"], rel=0.015), tissue
        assert found["Ki"][i, 0] == pytest.approx(true["Ki"], rel=0.015), tissue
        assert found["vB"][i, 0] == pytest.approx(true["vB"], abs=0.01), tissue
        assert found["delay"][i, 0] == pytest.approx(true["delay"], abs=0.5), tissue


def test_one_tissue_is_found_and_chosen() -> None:
    water = simulate(FRAMES, 0.3, 0.4, 0.0, 0.06, 4.4)
    noisy = water + noise_of(FRAMES, 0.005 * water[-1]) * np.random.default_rng(3).normal(size=len(FRAMES))
    fits = fit_compartments([water, noisy], BLOOD[None], FRAMES)
    found = fits.parameters("1TCM")
    for name, true in {"K1": 0.3, "k2": 0.4, "VT": 0.75, "vB": 0.06}.items():
        assert found[name][0, 0] == pytest.approx(true, rel=0.015)
        assert abs(found[name][1, 0] - true) < 4 * found[f"{name}_se"][1, 0]
    assert fits.aicc[1, 0].argmin() >= 1
    assert fits.parameters("2TCM")["Ki"][0, 0] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("tissue", ["grey matter", "muscle", "liver", "marrow"])
def test_curve_fit_finds_the_same_minimum(tissue) -> None:
    """The referee starts at the truth, in the parameters themselves, and takes numerical derivatives."""
    curve, input_curve = simulate(FRAMES, *TISSUES[tissue]), InputCurve(BLOOD, FRAMES)
    sd = noise_of(FRAMES, 0.005 * curve[-1])
    noisy = curve + sd * np.random.default_rng(11).normal(size=len(FRAMES))

    def model(_t, K1, k2, k3, vB, delay_s):
        a = k2 + k3
        kept = K1 * k3 / a * input_curve.integral(delay_s) + K1 * k2 / a * input_curve.convolved(a, delay_s)
        return (1 - vB) * kept + vB * input_curve.shifted(delay_s)

    best, covariance = curve_fit(
        model, FRAMES.mid_s, noisy, TISSUES[tissue], sd, method="trf", x_scale=TISSUES[tissue], xtol=1e-12
    )
    found = fit_compartments(noisy[None], BLOOD[None], FRAMES).parameters("2TCM")
    errors = np.sqrt(np.diag(covariance))
    for name, value, se in zip(("K1", "k2", "k3", "vB", "delay"), best, errors, strict=True):
        assert found[name].item() == pytest.approx(value, abs=0.02 * se)
        assert found[f"{name}_se"].item() == pytest.approx(se, rel=0.02)


def test_units_order_and_time_do_not_matter(curves) -> None:
    sd = noise_of(FRAMES, 0.01) * curves[:, -1:]
    noisy = curves + sd * np.random.default_rng(2).normal(size=curves.shape)
    plain = fit_compartments(noisy, BLOOD[None], FRAMES).parameters("2TCM")
    order = np.random.default_rng(0).permutation(len(noisy))
    permuted = fit_compartments(noisy[order], np.stack([BLOOD, BLOOD]), FRAMES).parameters("2TCM")
    scaled = fit_compartments(1e-3 * noisy, 1e-3 * BLOOD[None], FRAMES).parameters("2TCM")
    doubled = fit_compartments(0.5 * noisy, BLOOD[None], FRAMES).parameters("2TCM")
    for name in ("Ki", "K1", "k2", "k3", "vB", "delay", "Ki_se", "delay_se"):
        np.testing.assert_allclose(permuted[name], np.tile(plain[name][order], 2), rtol=1e-9)
        np.testing.assert_allclose(scaled[name], plain[name], rtol=1e-6)
    np.testing.assert_allclose(doubled["k2"], plain["k2"], rtol=1e-5)
    np.testing.assert_allclose(doubled["vB"], plain["vB"] / 2, rtol=1e-5, atol=1e-8)


def test_blood_that_comes_later_to_both_changes_nothing_but_the_clock() -> None:
    frames = frames_of(np.full(300, 2.0))
    found = [
        fit_compartments(
            simulate(frames, *TISSUES["tumour"], arrival_s=arrival_s)[None],
            blood_of(frames, arrival_s)[None],
            frames,
        ).parameters("2TCM")
        for arrival_s in (10.0, 14.0)
    ]
    for name in ("K1", "vB", "delay"):
        assert found[1][name].item() == pytest.approx(found[0][name].item(), rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("tissue", ["grey matter", "muscle", "liver", "spleen", "marrow"])
def test_intervals_cover_the_truth(tissue) -> None:
    """2,000 draws with 0.5 % noise in the last frame, and what belongs to that in the others."""
    curve, n = simulate(FRAMES, *TISSUES[tissue]), 2000
    draws = np.random.default_rng(1).normal(size=(n, len(FRAMES)))
    noisy = curve + noise_of(FRAMES, 0.005 * curve[-1]) * draws
    found = fit_compartments(noisy, BLOOD[None], FRAMES).parameters("2TCM")
    within = stats.t.ppf(0.975, len(FRAMES) - 5)
    for name in ("Ki", "K1", "vB", "delay"):
        values, errors = found[name].ravel(), found[f"{name}_se"].ravel()
        known = np.isfinite(errors)
        assert known.mean() > 0.95, name
        covered = np.mean(np.abs(values - truths(tissue)[name])[known] < within * errors[known])
        assert 0.90 <= covered <= 0.97, (name, covered)


def test_shares_are_those_of_nnls() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        columns = rng.normal(size=(8, 3)) + rng.uniform(0, 3)
        curve = rng.normal(size=8) + columns @ rng.normal(size=3)
        allowed = int(rng.integers(1, 8))
        used = [i for i in range(3) if allowed >> i & 1]
        shares = np.empty(3)
        explained = non_negative(columns.T @ columns, columns.T @ curve, allowed, shares)
        expected, rest = nnls(columns[:, used], curve)
        np.testing.assert_allclose(shares[used], expected, atol=1e-8)
        assert explained == pytest.approx(curve @ curve - rest**2, abs=1e-7)


# ---- what is n/a, and why


def with_last(values, n, value):
    return np.concatenate([values[:-n], np.full(n, value)])


BAD_INPUTS = {
    "ends": with_last(BLOOD, 3, np.nan),
    "flat": np.full(len(FRAMES), 100.0),
    "negative": -BLOOD,
    "peaks": BLOOD[::-1],
    "no values": np.full(len(FRAMES), np.nan),
}


@pytest.mark.parametrize("word", BAD_INPUTS)
def test_input_functions_that_allow_no_fit_are_named(word, curves) -> None:
    found = fit_compartments(curves[:2], np.stack([BAD_INPUTS[word], BLOOD]), FRAMES).parameters("2TCM")
    assert word in found["reason"][0, 0]
    assert np.isnan([values[:, 0].astype(float) for name, values in found.items() if name != "reason"]).all()
    assert np.isfinite(found["K1"][:, 1]).all()


def test_curves_that_allow_no_fit_are_named(curves) -> None:
    holed = np.where(np.arange(len(FRAMES)) == 9, np.nan, curves[0])
    fits = fit_compartments([holed, 0 * BLOOD, 1.2 * BLOOD, curves[0]], BLOOD[None], FRAMES)
    for model in ("1TCM", "2TCM"):
        found = fits.parameters(model)
        for word, text in zip(("no value", "above 0", "blood"), found["reason"][:, 0], strict=False):
            assert word in text
        assert np.isnan(found["K1"][:3]).all() and np.isfinite(found["K1"][3]).all()


def test_bounds_gaps_and_missed_blood_are_told() -> None:
    late = simulate(FRAMES, 0.1, 0.2, 0.05, 0.1, 55.0)
    # Blood that arrives spread out leaves no room for a sharp first pass.
    bloodless = np.mean([simulate(FRAMES, 0.1, 0.2, 0.05, 0.0, d) for d in np.linspace(2.0, 26.0, 9)], axis=0)
    early = simulate(FRAMES, 0.1, 0.2, 0.05, 0.1, -4.0)
    found = fit_compartments([late, bloodless, early], BLOOD[None], FRAMES).parameters("2TCM")
    assert "delay is at a bound" in found["reason"][0, 0] and np.isnan(found["K1_se"][0, 0])
    assert "vB is 0" in found["reason"][1, 0] and found["vB"][1, 0] == 0 and np.isnan(found["vB_se"][1, 0])
    assert "below -1 s" in found["reason"][2, 0] and np.isfinite(found["K1_se"][2, 0])
    seen = (FRAMES.start_s > 30) & ((FRAMES.start_s < 600) | (FRAMES.start_s > 3000))
    frames = FrameTimes(FRAMES.start_s[seen], FRAMES.duration_s[seen])
    text = fit_compartments(early[seen][None], BLOOD[seen][None], frames).parameters("2TCM")["reason"].item()
    assert "missed" in text and "gap" in text


def test_columns_and_frames_must_agree(curves) -> None:
    for regions, blood in ((curves[:, :-1], BLOOD), (curves, BLOOD[:-1])):
        with pytest.raises(BadDataError, match="69 frames"):
            fit_compartments(regions, blood[None], FRAMES)


@pytest.mark.parametrize(
    ("durations_s", "word"),
    [
        (np.full(7, 10.0), "8 frames"),
        (np.full(14, 300.0), "300 s"),
        (np.append(HEDYPET_S[:50], 3000.0), "50 min"),
        (HEDYPET_S, ""),
        (TEN_SECONDS_S, ""),
    ],
)
def test_frames_that_show_no_delay_are_refused(durations_s, word) -> None:
    reason = TwoTissue().why_not_with(frames_of(durations_s), Settings())
    assert word in reason and bool(reason) == bool(word)


# ---- as models of the registry


@pytest.mark.parametrize("model", [TwoTissue(), OneTissue()], ids=lambda model: model.name)
def test_tables_leave_out_regions_that_are_no_tissue(model: KineticModel, curves) -> None:
    regions = LabelTable("some", (1, 2, 3, 4), ("brain", "aorta", "urinary_bladder", "heart"))
    fits = model.fit(np.repeat(curves[:1], 4, axis=0), np.stack([BLOOD, -BLOOD]), FRAMES, Settings())
    table = kinetics_table(model, fits, regions, {"good": "x", "bad": "y"}).set_index(
        ["name", "input_function"]
    )
    for name in (parameter.name for parameter in model.parameters):
        assert np.isfinite(table.loc[("brain", "good"), name])
        assert table[[name, f"{name}_se"]].drop(("brain", "good")).isna().all(axis=None)
    assert pd.isna(table.loc[("brain", "good"), "reason"]) or model.name == "OneTissue"
    assert "urine" in table.loc[("urinary_bladder", "good"), "reason"]
    assert "negative" in table.loc[("brain", "bad"), "reason"]
    assert known_models()[model.name].title == model.title


def test_settings_bound_the_delay_and_stand_in_options_and_methods(curves) -> None:
    settings = Settings().with_values({"kinetics": {"compartments": {"delay_s": (0.0, 2.0)}}})
    model = TwoTissue()
    values = model.fit(curves, BLOOD[None], FRAMES, settings).values
    assert values["delay"].max() <= 2.0 and "delay is at a bound" in values["reason"].item(0)
    assert model.options(settings) != model.options(Settings())
    assert "from 0 to 2 s" in model.methods(settings)


@pytest.mark.parametrize("word", BAD_INPUTS)
def test_no_map_is_made_with_an_input_function_that_allows_no_fit(word) -> None:
    def frames_of_body(_first, _last):
        raise AssertionError("no frame is needed")

    body = BodyVoxels((2, 1, 1), np.ones(3), np.array([0, 1]), np.ones(len(FRAMES)), frames_of_body)
    with pytest.raises(BadDataError, match=f"{word}.*map_input_function"):
        TwoTissue().body_maps(BAD_INPUTS[word], FRAMES, Settings(), body)


def test_models_that_say_nothing_of_regions_have_no_reasons() -> None:
    regions = LabelTable("some", (1,), ("aorta",))
    table = kinetics_table(known_models()["Patlak"], Fits({}, {"Ki": 0.1, "V0": 0.2}), regions, {"good": "x"})
    assert "reason" not in table and table["Ki"].tolist() == [0.1]


@pytest.mark.skipif(not READOUTS.is_dir(), reason="the measured hedyPET tables are not here")
@pytest.mark.slow
def test_measured_participants_are_as_known() -> None:
    """Medians of 41 people: brain K1 about .08, Ki .032, vB .03, delay some 3 s; every curve in time."""
    tacs = pd.read_csv(READOUTS / "tacs.tsv.gz", sep="\t")
    blood = pd.read_csv(READOUTS / "input_function_tacs.tsv.gz", sep="\t")
    blood = blood[
        (blood["Task"] == "aortavois_ml-1_width-3") & (blood["Label Name"] == "aorta_descending_upper")
    ]
    medians = []
    for subject, rows in tacs[tacs["Erosion Iterations"] == 0].groupby("Subject"):
        cube = rows.pivot_table(index="Label Name", columns="Frame Index", values="PET Mean [Bq/mL]")
        inputs = blood[blood["Subject"] == subject].sort_values("Frame Index")["PET Mean [Bq/mL]"].to_numpy()
        found = fit_compartments(cube.to_numpy(), inputs[None], FRAMES).parameters("2TCM")
        columns = {name: found[name][:, 0] for name in ("Ki", "K1", "vB", "delay")}
        medians.append(pd.DataFrame(columns, index=cube.index))
    assert len(medians) == 41
    found = pd.concat(medians).groupby(level=0).median()
    brain = found.loc["Brain"]
    assert brain["K1"] == pytest.approx(0.08, abs=0.01) and brain["Ki"] == pytest.approx(0.032, abs=0.003)
    assert brain["vB"] == pytest.approx(0.03, abs=0.01) and brain["delay"] == pytest.approx(3.0, abs=1.5)
    for region, low, high in (
        ("Gray matter", 0.07, 0.12),
        ("Skeletal muscle", 0.02, 0.06),
        ("Liver", 0.4, 0.9),
        ("Spleen", 0.7, 1.5),
        ("Vertebral column", 0.06, 0.15),
    ):
        assert low < found.loc[region, "K1"] < high, region


def test_whole_blood_that_is_the_input_function_changes_nothing(curves):
    usual = fit_compartments(curves, BLOOD[None], FRAMES).parameters("2TCM")
    found = fit_compartments(curves, BLOOD[None], FRAMES, whole_blood=BLOOD[None]).parameters("2TCM")
    for name in ("K1", "Ki", "vB", "delay", "K1_se"):
        np.testing.assert_allclose(found[name], usual[name], rtol=1e-9)


@pytest.mark.parametrize("tissue", ["grey matter", "spleen", "tumour"])
def test_whole_blood_fills_the_vessels_and_plasma_feeds_the_tissue(tissue):
    """Plasma has 0.7 of the activity of blood that comes with it and clears otherwise."""
    K1, k2, k3, vB, delay_s = TISSUES[tissue]
    plasma = 0.7 * BLOOD
    blood = BLOOD + 0.5 * simulate(FRAMES, 0.3, 0.2, 0.01, 0.0, 0.0)
    late = simulate(FRAMES, 0.0, 0.0, 0.0, 1.0, delay_s) + 0.5 * simulate(
        FRAMES, 0.3, 0.2, 0.01, 0.0, delay_s
    )
    curve = 0.7 * (1 - vB) * simulate(FRAMES, K1, k2, k3, 0.0, delay_s) + vB * late
    found = TwoTissue().fit_plasma(
        curve[None], plasma[None], blood[None], FRAMES, Settings(), parent_known=True
    )
    table = found.table([tissue], ["measured"]).iloc[0]
    for name, truth in truths(tissue).items():
        if name in ("K1", "Ki"):
            assert table[name] == pytest.approx(truth, rel=0.015), name
    assert table["vB"] == pytest.approx(vB, abs=0.01)
    assert table["delay"] == pytest.approx(delay_s, abs=0.5)
    # Plasma in the vessels as well would be another blood fraction.
    alone = TwoTissue().fit(curve[None], plasma[None], FRAMES, Settings()).table([tissue], ["x"]).iloc[0]
    assert abs(alone["vB"] / vB - 1) > 0.2


def test_frames_have_the_weights_of_the_scans_radionuclide() -> None:
    c11_s, rng = 1223.1, np.random.default_rng(4)
    rates = TISSUES["grey matter"]
    blood = scaled_feng_input(8000.0, delay_s=ARRIVAL_S)

    def modelled(_: object, K1: float, k2: float, k3: float, vB: float, delay_s: float) -> np.ndarray:
        return tissue_curve(FRAMES, replace(blood, delay_s=ARRIVAL_S + delay_s), Kinetics(K1, k2, k3, vB))

    curve = modelled(None, *rates)
    # Noise as of F-18, so that the weights of C-11 change the fit.
    curve = curve + noise_of(FRAMES, 0.03 * curve[-1]) * rng.normal(size=len(FRAMES))

    def fitted(model: KineticModel, settings: Settings) -> pd.Series:
        fits = model.fit(curve[None], input_function(FRAMES, blood)[None], FRAMES, settings)
        return fits.table(["grey matter"], ["aorta"]).iloc[0]

    def referee(half_life_s: float) -> np.ndarray:
        sigma = 1 / np.sqrt(FRAMES.duration_s * np.exp2(-FRAMES.mid_s / half_life_s))
        start = np.array(rates)
        return curve_fit(modelled, FRAMES.mid_s, curve, start, sigma, x_scale=start, bounds=(-10, 20))[0]

    of_scan = TwoTissue().of_nuclide("C11", c11_s)
    asked = Settings().with_values({"kinetics": {"compartments": {"half_life_s": c11_s}}})
    cases = {
        "scan": (of_scan, Settings(), c11_s, "C11"),
        "setting": (TwoTissue().of_nuclide("F18", HALF_LIFE_S), asked, c11_s, "half_life_s"),
        "nobody": (TwoTissue().of_nuclide("", np.nan), Settings(), HALF_LIFE_S, "not known"),
    }
    expected = {half_life_s: referee(half_life_s) for half_life_s in (c11_s, HALF_LIFE_S)}
    assert abs(expected[c11_s][0] / expected[HALF_LIFE_S][0] - 1) > 0.01
    for case, (model, settings, half_life_s, source) in cases.items():
        found = fitted(model, settings)
        K1, k2, k3, vB, delay_s = expected[half_life_s]
        np.testing.assert_allclose(found[["K1", "k2", "k3"]].astype(float), [K1, k2, k3], 2e-3, err_msg=case)
        assert found["vB"] == pytest.approx(vB, abs=5e-3) and found["delay"] == pytest.approx(
            delay_s, abs=0.2
        )
        told = model.sidecar(FRAMES, settings)
        assert told["WeightsHalfLife"] == half_life_s and source in told["WeightsHalfLifeSource"]
        assert model.options(settings)["half_life_s"] == half_life_s
        assert TwoTissue().map_sidecar(FRAMES, asked)["WeightsHalfLife"] == c11_s
