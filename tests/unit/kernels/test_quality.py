from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.lean_mass import normalisation_constants
from hedypet_bids.kernels.quality import (
    NORMAL_RANGES,
    activity_fraction,
    blood_checks,
    body_reference,
    drift_checks,
    frame_quality,
    quality_check,
    static_over_dynamic,
)
from hedypet_bids.model import FrameTimes, Grid

SHAPE = (40, 32, 60)
AFFINE = np.array([[-3.0, 0, 0, 60], [0, 3.0, 0, -50], [0, 0, 4.0, -800], [0, 0, 0, 1]])
GRID = Grid(SHAPE, AFFINE)


def torso(shift_mm=(0.0, 0.0, 0.0), *, organ=6.0, noise=0.02, seed=0, affine=AFFINE, shape=SHAPE):
    """A blurred ellipsoid with organs, displaced in world mm, with noise everywhere."""
    index = np.indices(shape).reshape(3, -1)
    world = (affine[:3, :3] @ index).T + affine[:3, 3] - np.asarray(shift_mm)
    image = np.zeros(len(world))
    for centre, size, uptake in (
        ((2, -4, -680), (42, 32, 90), 1.0),
        ((20, 0, -640), (12, 12, 20), organ),
        ((-15, 5, -700), (10, 8, 25), 3.0),
        ((0, -10, -730), (15, 10, 12), 2.0),
    ):
        inside = (((world - centre) / size) ** 2).sum(axis=1)
        # An edge as wide as the scanner's resolution, so that shifts below a voxel show.
        image = np.maximum(image, uptake / (1 + np.exp(20 * (np.sqrt(inside) - 1))))
    image = image.reshape(shape) + np.random.default_rng(seed).normal(0, noise, shape)
    return (1000 * image).astype(np.float32)


REFERENCE = body_reference(torso(), GRID)


# ---- activity


def test_suv_of_a_uniform_phantom_with_the_whole_dose_in_view_is_one():
    """70 L of water, 70 kg: dose/volume everywhere."""
    dose_bq, volume_ml = 200e6, GRID.n_voxels * GRID.voxel_volume_ml
    image = np.full(SHAPE, dose_bq / volume_ml, dtype=np.float32)
    suv, *_ = normalisation_constants(
        dose_bq=dose_bq, weight_kg=volume_ml / 1000, height_m=None, sex=None, fat=None
    )
    np.testing.assert_allclose(image / suv.value, 1, rtol=1e-6)
    quality = frame_quality(image, REFERENCE)
    fraction = activity_fraction(quality.total, voxel_volume_ml=GRID.voxel_volume_ml, dose_bq=dose_bq)
    assert fraction == pytest.approx(1, rel=1e-6)
    assert math.isnan(quality.ncc)  # nothing in a constant image to compare


@pytest.mark.parametrize("dose_bq", [0.0, -1.0, math.nan])
def test_activity_fraction_of_an_unknown_dose_is_nan(dose_bq):
    assert math.isnan(activity_fraction(1.0, voxel_volume_ml=1.0, dose_bq=dose_bq))


def test_counts_and_total_of_voxels_good_and_bad():
    image = torso()
    image[0, 0, :5], image[1, 0, 0], image[1, 0, 1], image[1, 0, 2] = np.nan, np.inf, -np.inf, -7
    quality = frame_quality(image, REFERENCE)
    good = image[np.isfinite(image)].astype(np.float64)
    assert quality.n_not_finite == 7
    assert quality.n_negative == (good < 0).sum()
    assert quality.total == pytest.approx(good.sum(), rel=1e-12)
    # Bad voxels in the air do not hide that nothing moved.
    assert np.abs(quality.shift_mm).max() < 0.01


# ---- static against dynamic

FRAMES = FrameTimes(start_s=[0, 60, 180, 300], duration_s=[60, 120, 100, 300])


def test_static_over_dynamic_weights_frames_by_their_part_of_the_window():
    curves = np.array([[1.0, 2.0, 4.0, 8.0], [3.0, 3.0, 3.0, 3.0]])
    # 60 to 180 s whole, 100 of 120 s between 180 and 300 s, nothing of the last frame: 120 + 100 s.
    found = static_over_dynamic(np.array([3.0, 3.3]), curves, FRAMES, start_s=60, end_s=280)
    np.testing.assert_allclose(found, [3.0 / ((2 * 120 + 4 * 100) / 220), 1.1])


def test_static_over_dynamic_of_part_of_a_frame():
    found = static_over_dynamic(np.array([6.0]), np.array([[1.0, 2, 4, 8]]), FRAMES, start_s=30, end_s=120)
    np.testing.assert_allclose(found, [6.0 / ((1 * 30 + 2 * 60) / 90)])


@pytest.mark.parametrize(("start_s", "end_s"), [(60, 400), (500, 900), (1000, 1100)])
def test_a_window_that_the_frames_do_not_cover_has_no_ratio(start_s, end_s):
    """There is a gap of 20 s before the last frame, and nothing after 600 s."""
    assert np.isnan(
        static_over_dynamic(np.ones(2), np.ones((2, 4)), FRAMES, start_s=start_s, end_s=end_s)
    ).all()


def test_regions_without_activity_have_no_ratio():
    curves = np.array([[0.0] * 4, [np.nan] * 4, [-1.0] * 4, [1.0, np.nan, 1.0, np.nan]])
    found = static_over_dynamic(np.ones(4), curves, FRAMES, start_s=180, end_s=280)
    assert np.isnan(found).tolist() == [True, True, True, False]


@given(st.integers(1, 12), st.floats(0.5, 2))
@settings(max_examples=30, deadline=None)
def test_a_static_image_that_is_the_mean_of_the_frames_has_ratio_one(n_regions, factor):
    curves = np.random.default_rng(n_regions).uniform(1, 5, (n_regions, 4))
    static = factor * (curves[:, 1] * 120 + curves[:, 2] * 100) / 220
    found = static_over_dynamic(static, curves, FRAMES, start_s=60, end_s=280)
    np.testing.assert_allclose(found, factor)


# ---- motion


@given(st.tuples(*[st.floats(-3, 3)] * 3), st.integers(1, 1000))
@settings(max_examples=25, deadline=None)
def test_small_displacements_are_measured_in_world_mm(shift_mm, seed):
    quality = frame_quality(torso(shift_mm, seed=seed), REFERENCE)
    np.testing.assert_allclose(quality.shift_mm, shift_mm, atol=0.6)
    np.testing.assert_allclose(quality.centroid_mm - REFERENCE.centroid_mm, shift_mm, atol=1.0)
    assert quality.centroid_shift_mm == pytest.approx(
        np.linalg.norm(quality.centroid_mm - REFERENCE.centroid_mm)
    )


@pytest.mark.parametrize("mm", [10.0, 20.0])
def test_large_displacements_are_flagged(mm):
    quality = frame_quality(torso((mm, 0, 0), seed=1), REFERENCE)
    frames = FrameTimes(start_s=[3000], duration_s=[300])
    assert quality.centroid_shift_mm == pytest.approx(mm, rel=0.15)
    assert "outside" in {c.state for c in drift_checks([quality], frames)}


@pytest.mark.parametrize("organ", [1.0, 4.0, 9.0, 15.0])
def test_uptake_that_changes_is_no_motion(organ):
    """An organ that fills while the body stays where it is."""
    quality = frame_quality(torso(organ=organ, seed=2), REFERENCE)
    assert np.linalg.norm(quality.shift_mm) < 0.35
    assert quality.centroid_shift_mm < 0.3


@pytest.mark.parametrize(
    "turn",
    [
        np.eye(4),
        np.diag([-1, 1, -1, 1.0]),
        np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]]),
    ],
    ids=["as it is", "flipped", "axes exchanged"],
)
@pytest.mark.parametrize("order", "CF")
def test_results_do_not_depend_on_storage(turn, order):
    """The same body in world coordinates, stored in another order of axes and memory."""
    axes = np.abs(turn[:3, :3]).argmax(axis=0)
    flips = turn[:3, :3].sum(axis=0) < 0

    def store(image):
        turned = np.transpose(image, np.argsort(axes))
        return np.asarray(np.flip(turned, np.flatnonzero(flips[np.argsort(axes)])), order=order)

    probe = store(np.arange(np.prod(SHAPE)).reshape(SHAPE))
    # Where three voxels and the first one went tells the affine of the stored image.
    corner = np.stack(np.unravel_index(probe[0, 0, 0], SHAPE))
    steps = [
        np.stack(np.unravel_index(probe[tuple(np.eye(3, dtype=int)[a])], SHAPE)) - corner for a in range(3)
    ]
    affine = AFFINE.copy()
    affine[:3, :3] = AFFINE[:3, :3] @ np.stack(steps, axis=1)
    affine[:3, 3] = AFFINE[:3, :3] @ corner + AFFINE[:3, 3]
    reference = body_reference(store(torso()), Grid(probe.shape, affine))
    found = frame_quality(store(torso((2, -1, 1.5), seed=3)), reference)
    expected = frame_quality(torso((2, -1, 1.5), seed=3), REFERENCE)
    np.testing.assert_allclose(reference.centroid_mm, REFERENCE.centroid_mm, atol=1e-6)
    np.testing.assert_allclose(found.shift_mm, expected.shift_mm, atol=1e-6)
    np.testing.assert_allclose(found.centroid_mm, expected.centroid_mm, atol=1e-6)
    assert found.ncc == pytest.approx(expected.ncc, rel=1e-9)


def test_ncc_and_shift_equal_plain_formulas():
    """Pearson's coefficient and least squares by numpy on the levelled images."""
    image = torso((1, 0.5, -1), seed=5)
    body = REFERENCE.body
    x = image / (np.abs(image) + image[body].mean(dtype=np.float64))
    inner = np.zeros(SHAPE, bool)
    inner[1:-1, 1:-1, 1:-1] = body[1:-1, 1:-1, 1:-1]
    r = REFERENCE.level.astype(np.float64)
    columns = [r[inner], np.ones(inner.sum()), *(g[inner] for g in np.gradient(r))]
    solution, *_ = np.linalg.lstsq(np.stack(columns, axis=1), x[inner], rcond=None)
    found = frame_quality(image, REFERENCE)
    assert found.ncc == pytest.approx(np.corrcoef(x[inner], r[inner])[0, 1], rel=1e-5)
    np.testing.assert_allclose(
        found.shift_mm, AFFINE[:3, :3] @ (-solution[2:] / solution[0]), rtol=1e-3, atol=1e-4
    )


def test_frames_of_the_first_pass_are_not_compared():
    """Other things are bright; a displacement from them would be invented."""
    early = torso(organ=0.0, seed=4)
    early[REFERENCE.body] = np.random.default_rng(0).permutation(early[REFERENCE.body])
    quality = frame_quality(early, REFERENCE)
    assert quality.ncc < 0.5
    assert np.isnan(quality.shift_mm).all()


@pytest.mark.parametrize("empty", [np.zeros(SHAPE), np.full(SHAPE, np.nan), np.full(SHAPE, -3.0)])
def test_an_empty_frame_has_counts_and_no_position(empty):
    quality = frame_quality(empty.astype(np.float32), REFERENCE)
    assert np.isnan(quality.centroid_mm).all()
    assert np.isnan([quality.ncc, quality.centroid_shift_mm]).all()
    assert quality.n_negative + quality.n_not_finite in (0, GRID.n_voxels)


@pytest.mark.parametrize("image", [np.zeros(SHAPE), np.full(SHAPE, 5.0), np.full(SHAPE, np.nan)])
def test_a_reference_without_a_body_is_refused(image):
    with pytest.raises(BadDataError, match="no body"):
        body_reference(image.astype(np.float32), GRID)


def test_a_given_body_is_used_and_shapes_are_checked():
    body = ndimage.binary_dilation(REFERENCE.body, iterations=2)
    assert body_reference(torso(), GRID, body=body).body is body
    with pytest.raises(BadDataError, match="not on the grid"):
        body_reference(torso(), GRID, body=body[1:])
    with pytest.raises(BadDataError, match="not on the grid"):
        frame_quality(torso()[1:], REFERENCE)


# ---- flags


def test_only_settled_frames_are_judged():
    moved, still = (frame_quality(torso((mm, 0, 0), seed=6), REFERENCE) for mm in (9.0, 0.0))
    frames = FrameTimes(start_s=[0, 1700, 1800, 2100], duration_s=[60, 100, 300, 300])
    assert [c.state for c in drift_checks([moved, moved, still, still], frames)] == ["normal"] * 3
    assert drift_checks([still, still, moved, still], frames)[0].state == "outside"
    assert [c.state for c in drift_checks([moved], FrameTimes([0], [60]))] == ["unknown"] * 3


@pytest.mark.parametrize(
    ("name", "value", "state"),
    [
        ("activity_fraction", 0.85, "normal"),
        ("activity_fraction", 0.657, "normal"),  # the lowest of the published participants
        ("activity_fraction", 0.30, "outside"),
        ("activity_fraction", 1.2, "outside"),
        ("activity_fraction", math.nan, "unknown"),
        ("static_over_dynamic", 1.003, "normal"),
        ("static_over_dynamic", 0.5, "outside"),
        ("not_finite_voxels", 0, "normal"),
        ("not_finite_voxels", 1, "outside"),
        ("negative_fraction", 0.3, "outside"),
        ("body_ncc", 0.5, "outside"),
    ],
)
def test_normal_ranges(name, value, state):
    found = quality_check(name, value)
    assert found.state == state
    assert bool(found.text) == (state != "normal")
    if state == "outside":
        assert f"{value:.4g}" in found.text
        assert NORMAL_RANGES[name].outside in found.text


@pytest.mark.parametrize(
    ("start_s", "duration_s", "values", "states"),
    [
        ([0, 60, 120], [60, 60, 60], [0, 0], ["normal", "normal"]),
        # A scan that begins before the injection has missed nothing.
        ([-10, 50, 110], [60, 60, 60], [0, 0], ["normal", "normal"]),
        ([5, 65, 248], [60, 60, 60], [5, 2.05], ["normal", "outside"]),
        ([6, 66, 246], [60, 60, 60], [6, 2], ["outside", "normal"]),
        # Two windows, 0 to 10 and 50 to 70 min.
        ([0, 300, 3000, 3600], [300, 300, 600, 600], [0, 4], ["normal", "outside"]),
        ([0], [60], [0, 0], ["normal", "normal"]),
    ],
)
def test_blood_that_was_not_seen_is_a_number_with_a_limit(
    start_s: list[float], duration_s: list[float], values: list[float], states: list[str]
) -> None:
    missed, gap = blood_checks(FrameTimes(start_s, duration_s))
    assert [missed.value, gap.value] == pytest.approx(values)
    assert [missed.state, gap.state] == states
