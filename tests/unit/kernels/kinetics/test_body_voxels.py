"""Maps over a body: delays of neighbourhoods, smoothing within the body, and slabs that change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.kernels.kinetics.body_voxels import BodyVoxels, body_maps, smooth_within
from hedypet_bids.kernels.kinetics.input_curve import InputCurve
from hedypet_bids.kernels.kinetics.voxel_compartments import (
    CurveSpace,
    curve_space,
    fit_voxels,
    weighted_sums_of_frames,
)
from hedypet_bids.phantom.kinetics import (
    Kinetics,
    hedypet_frames,
    input_function,
    scaled_feng_input,
    tissue_curve,
)

FRAMES = hedypet_frames()
SHAPE, SIZES_MM = (22, 18, 40), np.array([4.0, 5.0, 3.0])
NAMES = ("Ki", "K1", "vB", "delay")
# The lower half and the upper half.
LIVER, MUSCLE = (Kinetics(0.75, 0.75, 0.003, 0.15), 6.2), (Kinetics(0.04, 0.3, 0.026, 0.03), 14.7)


def curve_of(tissue: Kinetics, delay_s: float) -> NDArray:
    return tissue_curve(FRAMES, scaled_feng_input(8000.0, delay_s=17.3 + delay_s), tissue)


@pytest.fixture(scope="module")
def space() -> CurveSpace:
    return curve_space(InputCurve(input_function(FRAMES, scaled_feng_input(8000.0, delay_s=17.3)), FRAMES))


@pytest.fixture(scope="module")
def positions() -> NDArray:
    """An ellipsoid, flat in Fortran order."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return np.flatnonzero((sum(axis**2 for axis in axes) < 1).ravel(order="F"))


def body_of(values: NDArray, positions: NDArray, scale: NDArray | None = None) -> BodyVoxels:
    def frames_of(first: int, last: int):
        def read(frame: int, start: int, stop: int) -> NDArray:
            assert first <= start < stop <= last
            return values[frame, start:stop]

        return read

    factors = np.ones(len(FRAMES)) if scale is None else scale
    return BodyVoxels(SHAPE, SIZES_MM, positions, factors, frames_of)


def halves(positions: NDArray, noise: float = 0.0) -> tuple[NDArray, NDArray]:
    """Frames of the body (n_frames, n_voxels), and which of its voxels are in the upper half."""
    upper = positions // (SHAPE[0] * SHAPE[1]) >= SHAPE[2] // 2
    curves = np.where(upper, curve_of(*MUSCLE)[:, None], curve_of(*LIVER)[:, None])
    draws = np.random.default_rng(1).normal(size=curves.shape)
    sd = noise * curves[-1] * np.sqrt(300.0 / FRAMES.duration_s)[:, None]
    return (curves + sd * draws).astype(np.float32), upper


def test_two_tissues_are_found_with_their_delays(positions: NDArray, space: CurveSpace) -> None:
    values, upper = halves(positions)
    planes = positions // (SHAPE[0] * SHAPE[1])
    # Blocks of both tissues are apart from those of one.
    apart = np.abs(planes - SHAPE[2] / 2) > 16
    maps = body_maps(body_of(values, positions), space)
    for (tissue, delay_s), where in ((LIVER, ~upper & apart), (MUSCLE, upper & apart)):
        true = {"Ki": tissue.ki, "K1": tissue.K1, "vB": tissue.vb}
        for name, value in true.items():
            np.testing.assert_allclose(maps[name][where], value, rtol=0.015, err_msg=name)
        np.testing.assert_allclose(maps["delay"][where], delay_s, atol=0.5)


@pytest.mark.parametrize("fwhm_mm", [0.0, 9.0])
def test_slabs_and_threads_change_no_bit(positions: NDArray, space: CurveSpace, fwhm_mm: float) -> None:
    values, _ = halves(positions, noise=0.1)
    values[30, ::501] = np.nan
    whole = body_maps(body_of(values, positions), space, fwhm_mm=fwhm_mm)
    for slab_voxels, threads in ((1, 2), (3000, 1)):
        options = {"fwhm_mm": fwhm_mm, "slab_voxels": slab_voxels, "threads": threads}
        parts = body_maps(body_of(values, positions), space, **options)
        for name in NAMES:
            np.testing.assert_array_equal(parts[name], whole[name])
    for name in NAMES:
        assert np.isnan(whole[name][::501]).all()
        assert np.isfinite(whole[name]).mean() > 0.9


def test_a_neighbourhood_keeps_a_noisy_voxel_from_straying(positions: NDArray, space: CurveSpace) -> None:
    values, upper = halves(positions)
    planes = positions // (SHAPE[0] * SHAPE[1])
    noisy = np.flatnonzero(upper & (planes > SHAPE[2] / 2 + 6))[::151]
    draws = np.random.default_rng(0).normal(size=(len(FRAMES), noisy.size))
    values[:, noisy] += 0.3 * values[-1, noisy] * draws * np.sqrt(300.0 / FRAMES.duration_s)[:, None]
    alone = fit_voxels(weighted_sums_of_frames(values[:, noisy], space.weights), space)["delay"]
    delay = body_maps(body_of(values, positions), space)["delay"][noisy]
    assert np.nanmax(np.abs(delay - MUSCLE[1])) < 3.5
    assert np.nanmax(np.abs(alone - MUSCLE[1])) > 7.0


def test_around_a_delay_out_of_range_only_influx_is_told(positions: NDArray, space: CurveSpace) -> None:
    upper = positions // (SHAPE[0] * SHAPE[1]) >= SHAPE[2] // 2
    early = Kinetics(0.1, 0.2, 0.05, 0.1)
    values = np.where(upper, curve_of(early, -15.0)[:, None], curve_of(*LIVER)[:, None])
    empty = positions // (SHAPE[0] * SHAPE[1]) < 12
    values[:, empty] = 0.0
    maps = body_maps(body_of(values.astype(np.float32), positions), space)
    planes = positions // (SHAPE[0] * SHAPE[1])
    deep = planes > SHAPE[2] / 2 + 6
    for name in ("K1", "vB", "delay"):
        assert np.isnan(maps[name][deep]).all()
    np.testing.assert_allclose(maps["Ki"][deep], early.ki, rtol=0.1)
    for name in NAMES:
        assert np.isnan(maps[name][empty]).all()


def test_frames_are_scaled(positions: NDArray, space: CurveSpace) -> None:
    values, _ = halves(positions)
    scale = np.linspace(1.0, 3.0, len(FRAMES))
    plain = body_maps(body_of(values, positions), space)
    scaled = body_maps(body_of(values / scale[:, None], positions, scale), space)
    np.testing.assert_allclose(scaled["K1"], plain["K1"], rtol=1e-4)


def test_smoothing_is_a_gaussian_far_from_the_border() -> None:
    image = np.random.default_rng(0).normal(size=(24, 26, 28)).astype(np.float32)
    values = np.stack([image.ravel(order="F"), 2 * image.ravel(order="F")], axis=1)
    found = smooth_within(
        values, np.arange(image.size), image.shape, fwhm_mm=6.0, voxel_sizes_mm=SIZES_MM, threads=2
    )
    sigma = 6.0 / np.sqrt(8 * np.log(2)) / SIZES_MM
    expected = ndimage.gaussian_filter(image.astype(np.float64), sigma)
    inner = (slice(4, -4), slice(4, -4), slice(5, -5))
    for column, factor in ((0, 1), (1, 2)):
        smoothed = found[:, column].reshape(image.shape, order="F")
        np.testing.assert_allclose(smoothed[inner], factor * expected[inner], atol=2e-6)


def test_smoothing_takes_nothing_from_outside_and_spreads_no_hole(positions: NDArray) -> None:
    values = np.full((positions.size, 2), 7.0, dtype=np.float32)
    values[100:110] = np.nan
    found = smooth_within(values, positions, SHAPE, fwhm_mm=8.0, voxel_sizes_mm=SIZES_MM)
    assert np.isnan(found[100:110]).all()
    np.testing.assert_allclose(np.delete(found, slice(100, 110), axis=0), 7.0, rtol=1e-6)
    some = smooth_within(values, positions, SHAPE, fwhm_mm=8.0, voxel_sizes_mm=SIZES_MM, only=slice(90, 300))
    np.testing.assert_array_equal(some, found[90:300])
