"""Fits of voxels from weighted sums: analytic tissues, two referees, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from hedypet_bids.kernels.kinetics.compartments import fit_compartments
from hedypet_bids.kernels.kinetics.input_curve import InputCurve
from hedypet_bids.kernels.kinetics.voxel_compartments import (
    REACH_S,
    CurveSpace,
    curve_space,
    fit_voxels,
    weighted_sums_of_frames,
)
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom.kinetics import (
    Kinetics,
    hedypet_frames,
    input_function,
    scaled_feng_input,
    tissue_curve,
)

FRAMES, ARRIVAL_S, HALF_LIFE_S = hedypet_frames(), 17.3, 6586.2
NAMES = ("Ki", "K1", "vB", "delay")

TISSUES = {  # K1 mL/min/mL, k2, k3 1/min, vB, delay s; none on the grid
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
TRUE = {
    name: {"Ki": K1 * k3 / (k2 + k3), "K1": K1, "vB": vB, "delay": delay_s}
    for name, (K1, k2, k3, vB, delay_s) in TISSUES.items()
}


def simulate(frames: FrameTimes, K1: float, k2: float, k3: float, vB: float, delay_s: float) -> NDArray:
    """Exact frame means where blood comes later than to the place of the input function."""
    late = scaled_feng_input(8000.0, delay_s=ARRIVAL_S + delay_s, late_s=3600.0 + delay_s)
    return tissue_curve(frames, late, Kinetics(K1, k2, k3, vB))


def of_tissues(frames: FrameTimes) -> NDArray:
    return np.array([simulate(frames, *values) for values in TISSUES.values()])


def blood_of(frames: FrameTimes) -> NDArray:
    return input_function(frames, scaled_feng_input(8000.0, delay_s=ARRIVAL_S))


def noise_of(curve: NDArray, part: float) -> NDArray:
    """Standard deviation in each frame by its counts, and this part of the activity in the last one."""
    weights = FRAMES.duration_s * np.exp2(-FRAMES.mid_s / HALF_LIFE_S)
    return part * curve[-1] * np.sqrt(weights[-1] / weights)


@pytest.fixture(scope="module")
def curves() -> NDArray:
    return of_tissues(FRAMES)


@pytest.fixture(scope="module")
def space() -> CurveSpace:
    return curve_space(InputCurve(blood_of(FRAMES), FRAMES))


@pytest.fixture(scope="module")
def noisy(curves: NDArray) -> NDArray:
    """200 voxels of each tissue in turn."""
    draws = np.random.default_rng(5).normal(size=(200, *curves.shape))
    return (curves + draws * [noise_of(curve, 0.05) for curve in curves]).reshape(-1, len(FRAMES))


def fitted(curves: NDArray, space: CurveSpace, **options: object) -> dict[str, NDArray]:
    return fit_voxels(
        weighted_sums_of_frames(np.ascontiguousarray(curves.T), space.weights), space, **options
    )


@pytest.mark.parametrize("staged", [False, True], ids=["joint", "staged"])
@pytest.mark.parametrize("schedule", ["hedyPET", "10 s"])
def test_parameters_of_eleven_tissues_are_found(schedule: str, staged: bool) -> None:
    durations_s = np.repeat([10.0, 30, 60, 300], [18, 4, 5, 12])
    ten_seconds = FrameTimes(np.cumsum(durations_s) - durations_s, durations_s)
    frames = FRAMES if schedule == "hedyPET" else ten_seconds
    delays = np.array([true["delay"] for true in TRUE.values()])
    found = fitted(
        of_tissues(frames),
        curve_space(InputCurve(blood_of(frames), frames)),
        near_s=delays + 0.8 * REACH_S * np.tile([1, -1], 6)[:11] if staged else None,
    )
    for i, (tissue, true) in enumerate(TRUE.items()):
        assert found["Ki"][i] == pytest.approx(true["Ki"], rel=0.015), tissue
        assert found["K1"][i] == pytest.approx(true["K1"], rel=0.015), tissue
        assert found["vB"][i] == pytest.approx(true["vB"], abs=0.01), tissue
        assert found["delay"][i] == pytest.approx(true["delay"], abs=0.5), tissue


def test_some_thirty_sums_hold_every_curve_of_the_model(space: CurveSpace) -> None:
    assert 25 <= space.n_sums <= 38
    blood, rng = InputCurve(blood_of(FRAMES), FRAMES), np.random.default_rng(0)
    weights = FRAMES.duration_s * np.exp2(-FRAMES.mid_s / HALF_LIFE_S)
    root = np.sqrt(weights / weights.mean())
    for rate, delay_s in zip(np.exp(rng.uniform(-3.9, 2, 40)), rng.uniform(-10, 40, 40), strict=True):
        for curve in (blood.convolved(rate, delay_s), blood.integral(delay_s), blood.shifted(delay_s)):
            whole, held = ((root * curve) ** 2).sum(), ((curve @ space.weights) ** 2).sum()
            assert whole * (1 - 1e-5) < held < whole * (1 + 1e-9)


def test_curve_fit_finds_the_same_minimum(curves: NDArray, space: CurveSpace) -> None:
    """The referee starts at the truth, in the parameters themselves, with all frames.

    Noise can give two minima, of which it may find the other one.
    """
    blood = InputCurve(blood_of(FRAMES), FRAMES)

    def model(_t: object, K1: float, k2: float, k3: float, vB: float, delay_s: float) -> NDArray:
        a = k2 + k3
        kept = K1 * k3 / a * blood.integral(delay_s) + K1 * k2 / a * blood.convolved(a, delay_s)
        return (1 - vB) * kept + vB * blood.shifted(delay_s)

    rng, apart = np.random.default_rng(3), []
    for tissue in ("muscle", "liver", "spleen", "myocardium", "tumour"):
        curve = curves[list(TISSUES).index(tissue)]
        sd = noise_of(curve, 0.02)
        for draw in rng.normal(size=(3, len(FRAMES))):
            noisy = curve + sd * draw
            best, covariance = curve_fit(
                model, FRAMES.mid_s, noisy, TISSUES[tissue], sd, method="trf", x_scale=TISSUES[tissue]
            )
            errors, found = np.sqrt(np.diag(covariance)), fitted(noisy[None], space)
            values = [found[name][0] for name in ("K1", "vB", "delay")]
            apart.append(np.abs(values - best[[0, 3, 4]]) / errors[[0, 3, 4]])
    assert np.median(apart, axis=0).max() < 0.05
    assert (np.array(apart) < 0.2).mean() > 0.9


def test_regions_are_fitted_alike(noisy: NDArray, space: CurveSpace) -> None:
    """The fit of regions has a finer grid, all frames and Gauss-Newton steps."""
    some = noisy[:550]
    found = fitted(some, space)
    regions = fit_compartments(some, blood_of(FRAMES)[None], FRAMES).parameters("2TCM")
    for name in NAMES:
        apart = np.abs(found[name] - regions[name][:, 0]) / regions[f"{name}_se"][:, 0]
        known = np.isfinite(apart)
        assert known.mean() > 0.7, name
        assert np.median(apart[known]) < 0.05, name
        assert np.mean(apart[known] < 0.5) > 0.9, name


def test_units_and_order_do_not_matter(noisy: NDArray, space: CurveSpace) -> None:
    plain = fitted(noisy, space)
    order = np.random.default_rng(0).permutation(len(noisy))
    permuted, threaded = fitted(noisy[order], space), fitted(noisy, space, threads=2)
    parts = [fitted(part, space) for part in np.array_split(noisy, 7)]
    halved = fitted(noisy / 2, space)
    for name in NAMES:
        np.testing.assert_array_equal(permuted[name], plain[name][order])
        np.testing.assert_array_equal(threaded[name], plain[name])
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), plain[name])
    np.testing.assert_allclose(halved["vB"], plain["vB"] / 2, rtol=1e-5)
    np.testing.assert_allclose(halved["delay"], plain["delay"], atol=1e-3)


def test_a_delay_stays_near_that_of_the_neighbourhood(noisy: NDArray, space: CurveSpace) -> None:
    near_s = np.random.default_rng(1).uniform(-9.0, 39.0, len(noisy))
    delay = fitted(noisy, space, near_s=near_s)["delay"]
    known = np.isfinite(delay)
    assert known.mean() > 0.9
    # The neighbourhood's counts to the next of the delays, which are half a second apart.
    assert np.abs(delay - near_s)[known].max() <= REACH_S + 0.26


def test_a_free_delay_takes_from_the_blood_what_a_neighbourhood_leaves_it(
    curves: NDArray, space: CurveSpace
) -> None:
    """Why the delay of a voxel is looked for near that of its neighbours."""
    i = list(TISSUES).index("grey matter")
    draws = np.random.default_rng(2).normal(size=(2000, len(FRAMES)))
    voxels = curves[i] + draws * noise_of(curves[i], 0.07)
    free = np.nanmedian(fitted(voxels, space)["vB"])
    staged = np.nanmedian(fitted(voxels, space, near_s=np.full(2000, TISSUES["grey matter"][4]))["vB"])
    assert free > 1.8 * TRUE["grey matter"]["vB"]
    assert staged == pytest.approx(TRUE["grey matter"]["vB"], rel=0.25)


def test_values_that_mean_nothing_are_missing(curves: NDArray, space: CurveSpace) -> None:
    blood = blood_of(FRAMES)
    voxels = {
        "hole": np.where(np.arange(len(FRAMES)) == 30, np.nan, curves[0]),
        "endless": np.where(np.arange(len(FRAMES)) == 30, np.inf, curves[0]),
        "nothing": 0 * blood,
        "negative": -curves[0],
        "blood": 1.2 * blood,
        "late": simulate(FRAMES, 0.1, 0.2, 0.05, 0.1, 70.0),
        "early": simulate(FRAMES, 0.1, 0.2, 0.05, 0.1, -14.0),
        "slow": simulate(FRAMES, 0.1, 0.002, 0.001, 0.1, 5.0),
        "tissue": curves[0],
    }
    found = fitted(np.array(list(voxels.values())), space)
    missing = {voxel: {name for name in NAMES if np.isnan(found[name][i])} for i, voxel in enumerate(voxels)}
    for voxel in ("hole", "endless", "nothing", "negative", "blood"):
        assert missing[voxel] == set(NAMES), voxel
    assert missing["late"] == missing["early"] == {"K1", "vB", "delay"}
    assert missing["slow"] == {"Ki", "K1"}
    assert missing["tissue"] == set()
    nowhere = fitted(curves, space, near_s=np.full(len(curves), np.nan))
    assert np.isnan([nowhere[name] for name in NAMES]).all()
