"""The aorta: segments, volumes of interest, bolus and quality measures against formulas and real data."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from functools import cache
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from aorta_masks import (
    OFFSET_MM,
    Anatomy,
    Made,
    dice,
    frames_of,
    make,
    noisy,
    oblique,
    patient_mm,
    rotation,
    stored_as,
    unstored,
    with_balls,
    with_gap,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.aorta import (
    AortaSegments,
    early_weights,
    find_bolus,
    late_max_over_min,
    place_vois,
    refine_with_pet,
    segment_aorta,
    unordered,
    unusual,
    wall_distance_mm,
)
from hedypet_bids.kernels.aorta.centreline import cloud_of, crop_to
from hedypet_bids.model import FrameTimes
from hedypet_bids.tools.nifti_dynamic import library_segments, library_vois

SHARED = Path(__file__).resolve().parents[4] / "shared"
REALISTIC = SHARED / "data" / "realistic"

STRAIGHT = Anatomy()
ORDERS = [(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]


def segmented(made: Made) -> AortaSegments:
    return segment_aorta(made.mask, made.affine)


# --- segments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "voxel_mm",
    [
        pytest.param(1.5, marks=pytest.mark.exhaustive),
        1.65,
        2.0,
        3.0,
        4.0,
        6.0,
        8.0,
        (1.65, 1.65, 3.0),
        (1, 1, 5),
        (4, 2, 2),
    ],
)
def test_segments_of_a_whole_aorta(voxel_mm: float | tuple[float, float, float]) -> None:
    made = make(STRAIGHT, voxel_mm=voxel_mm, pad_mm=20)
    found = segmented(made)
    assert min(dice(found.labels, made.truth).values()) >= 0.95
    assert (found.labels > 0).sum() == made.mask.sum()
    assert found.flags == ()


@pytest.mark.parametrize(
    "degrees", [(20, 0, 0), (-20, 0, 0), (0, 20, 0), (0, -20, 0), (0, 0, 20), (20, 20, 20)]
)
def test_segments_of_a_turned_patient(degrees: tuple[float, float, float]) -> None:
    made = make(STRAIGHT, voxel_mm=3.0, turned=rotation(*degrees))
    found = segmented(made)
    assert min(dice(found.labels, made.truth).values()) >= 0.9
    assert any("leans" in f for f in found.flags) == (degrees != (0, 0, 20))


@pytest.mark.parametrize("degrees", [(20, 0, 0), (0, -20, 0), (25, 15, -30), (45, 0, 0), (0, 0, 45)])
def test_segments_on_a_turned_grid(degrees: tuple[float, float, float]) -> None:
    made = oblique(STRAIGHT, rotation(*degrees), voxel_mm=3.0)
    found = segmented(made)
    assert min(dice(found.labels, made.truth).values()) >= 0.9
    assert not any("leans" in f for f in found.flags)


@pytest.mark.parametrize(
    "turned",
    [
        pytest.param(None, id="along"),
        pytest.param(rotation(20, -10, 15), id="oblique"),
        pytest.param(rotation(45, 0, 0), marks=pytest.mark.exhaustive, id="45"),
    ],
)
def test_all_storage_orders_give_the_same_voxels(turned: np.ndarray | None) -> None:
    base = noisy(make(STRAIGHT, voxel_mm=(4, 3, 5)), 0.15)
    made = base if turned is None else noisy(oblique(STRAIGHT, turned, 4.0), 0.15)
    uptake = np.random.default_rng(5).normal(100.0, 10.0, made.mask.shape)
    want = segmented(made)
    want_voi = place_vois(want, made.affine, width_mm=11.0, volume_ml=2.0, early_mean=uptake)
    for axes, flips in ORDERS:
        mask, affine = stored_as(made.mask, made.affine, axes, flips)
        pet, _ = stored_as(uptake, made.affine, axes, flips)
        found = segment_aorta(mask, affine)
        np.testing.assert_array_equal(unstored(found.labels, axes, flips), want.labels)
        np.testing.assert_allclose(found.points_mm, want.points_mm, atol=1e-9)
        np.testing.assert_array_equal(found.segment, want.segment)
        assert found.flags == want.flags
        voi = place_vois(found, affine, width_mm=11.0, volume_ml=2.0, early_mean=pet)
        np.testing.assert_array_equal(unstored(voi.labels, axes, flips), want_voi.labels)


def at_3mm(anatomy: Anatomy = STRAIGHT, **options: object) -> Made:
    return make(anatomy, voxel_mm=3.0, **options)  # type: ignore[arg-type]


@cache
def at_2mm() -> Made:
    return make(STRAIGHT, voxel_mm=2.0)


CASES: dict[str, tuple[Callable[[], Made], float, str]] = {
    # name: (mask, least Dice that is accepted without a word, words of the flag; "" for no flag)
    "boundary noise 10 %": (lambda: noisy(at_2mm(), 0.1), 0.95, ""),
    "boundary noise 30 %": (lambda: noisy(at_2mm(), 0.3), 0.95, ""),
    "dilated": (lambda: grown(at_2mm(), 1), 0.94, "median radius"),
    "eroded": (lambda: grown(at_2mm(), -1), 0.94, ""),
    "dilated by 6 mm": (lambda: grown(at_2mm(), 3), 0.85, "median radius"),
    "eroded by 4 mm": (lambda: grown(at_2mm(), -2), 0.85, "median radius"),
    "aneurysm": (lambda: at_3mm(Anatomy(aneurysm_mm=18)), 0.95, "aneurysm"),
    "iliac stumps": (lambda: at_3mm(Anatomy(iliac_mm=40)), 0.95, ""),
    "right-sided arch": (lambda: at_3mm(Anatomy(root=(-18, 18), down=(16, -38))), 0.95, "Right-sided"),
    "limbs side by side": (lambda: at_3mm(Anatomy(root=(30, 0), down=(-30, 0))), 0.95, "shorter one"),
    "narrow arch": (lambda: make(Anatomy(root=(10, 8), down=(-6, -16)), voxel_mm=2.0), 0.95, ""),
    "limbs that touch": (lambda: touching(at_2mm()), 0.9, ""),
    "cut at the root": (lambda: at_3mm(z_range=(-45, 70)), 0.95, "No lower descending"),
    "cut in the ascending aorta": (lambda: at_3mm(z_range=(-20, 70)), 0.95, "cuts the ascending"),
    "only the arch": (lambda: at_3mm(z_range=(5, 70)), 0.95, "cuts the ascending"),
    "cut in the abdomen": (lambda: at_3mm(z_range=(-150, 70)), 0.95, "cuts the lower end"),
    "descending shorter than ascending": (lambda: shortened(at_3mm(), -25.0), 0.95, "is cut or incomplete"),
    "cut through the arch": (lambda: at_3mm(z_range=(-320, 30)), 0.9, "cuts the arch"),
    "cut below the arch": (lambda: at_3mm(z_range=(-320, 6)), 0.95, "arch is missing"),
    "mask without an arch": (lambda: shortened_from_above(at_3mm(), 10.0), 0.95, "arch is missing"),
    "abdomen only": (lambda: at_3mm(z_range=(-320, -60)), 0.95, "No arch"),
    "small debris": (lambda: with_balls(at_3mm(pad_mm=40), [(35, -38, -100), (-45, -38, -200)], 4), 0.95, ""),
    "big debris": (lambda: with_balls(at_3mm(pad_mm=40), [(25, -38, -100)], 9), 0.95, "not part of"),
    "debris under the arch": (lambda: with_balls(at_3mm(), [(1, -10, -40)], 9), 0.95, "not part of"),
}
for _where, _width in product(("ascending", "top", "upper", "lower"), (4, 10, 20)):
    CASES[f"gap of {_width} mm in {_where}"] = (
        lambda where=_where, width=_width: with_gap(at_2mm(), where, width),  # type: ignore[misc]
        0.9,
        "bridged",
    )


def grown(made: Made, steps: int) -> Made:
    change = ndimage.binary_dilation if steps > 0 else ndimage.binary_erosion
    return made.with_mask(change(made.mask, iterations=abs(steps)))


def touching(made: Made) -> Made:
    """A 12 mm wide bridge between the limbs halfway down, as a leak of the segmentation makes it."""
    at = patient_mm(made)
    a, b = np.array([*STRAIGHT.root, -20.0]), np.array([*STRAIGHT.down, -20.0])
    t = np.clip((at - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
    return made.with_mask(made.mask | (np.linalg.norm(at - a - t[..., None] * (b - a), axis=-1) < 6.0))


def shortened(made: Made, z_mm: float) -> Made:
    """The descending aorta taken away below a level."""
    at = patient_mm(made)
    return made.with_mask(made.mask & ~((at[..., 2] < z_mm) & np.isin(made.truth, (3, 4))))


def shortened_from_above(made: Made, z_mm: float) -> Made:
    """Everything above a level taken away, inside the field of view."""
    return made.with_mask(made.mask & (patient_mm(made)[..., 2] < z_mm))


@pytest.mark.parametrize("name", CASES)
def test_segments_are_right_or_flagged(name: str) -> None:
    build, least, words = CASES[name]
    made = build()
    found = segmented(made)
    assert min(dice(found.labels, made.truth).values()) >= least
    assert any(words in flag for flag in found.flags) if words else found.flags == ()


@pytest.mark.parametrize("seed", range(3))
def test_debris_is_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clean = at_3mm(pad_mm=60)
    centre = (60.0, float(rng.uniform(-40, 20)), float(rng.uniform(-250, -80)))
    dirty = with_balls(clean, [centre], 9.0)
    found = segmented(dirty)
    want = (dirty.mask.sum() - clean.mask.sum()) * 0.027
    assert found.qc["dropped_ml"] == pytest.approx(want)
    assert found.qc["dropped_ml"] + sum(found.qc[f"volume_ml_{k}"] for k in (1, 2, 3, 4)) == pytest.approx(
        dirty.mask.sum() * 0.027
    )


def test_a_patient_stored_the_wrong_way_round_is_noticed() -> None:
    made = at_3mm()
    back_to_front = made.affine.copy()
    back_to_front[1, 1] *= -1
    found = segment_aorta(made.mask, back_to_front)
    assert min(dice(found.labels, made.truth).values()) >= 0.95
    assert any("Check the orientation" in flag for flag in found.flags)


@pytest.mark.parametrize("voxel_mm", [1.65, 2.0, 4.0])
def test_the_centreline_is_in_the_middle(voxel_mm: float) -> None:
    made = make(STRAIGHT, voxel_mm=voxel_mm)
    found = segmented(made)
    truth, radius = STRAIGHT.line()
    off, _ = cKDTree(truth).query(found.points_mm - OFFSET_MM)
    assert off.max() < max(2.0, 0.75 * voxel_mm)
    assert np.median(off) < 1.0
    length = np.linalg.norm(np.diff(truth, axis=0), axis=1).sum()
    assert found.qc["centreline_length_mm"] == pytest.approx(length, rel=0.03)
    assert found.qc["median_radius_mm"] == pytest.approx(np.median(radius), rel=0.08)
    np.testing.assert_allclose(np.linalg.norm(np.diff(found.points_mm, axis=0), axis=1), 1.0, atol=0.02)
    assert found.points_mm[0, 2] < found.points_mm[:, 2].max()  # it starts at the root
    assert (np.diff(found.segment.astype(int)) >= 0).all()  # and follows the blood


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((9, 9, 9), bool), "empty"),
        (np.ones((9, 9), bool), "three dimensions"),
        (np.ones((9, 9, 9, 2), bool), "three dimensions"),
        (np.ones((3, 3, 3), bool), "holds 0.03 mL"),
        (np.ones((20, 20, 20), bool), "long"),
    ],
)
def test_what_is_no_aorta_is_refused(mask: np.ndarray, words: str) -> None:
    with pytest.raises(BadDataError, match=words):
        segment_aorta(mask, np.eye(4))


def test_depth_equals_the_distance_transform() -> None:
    made = noisy(make(STRAIGHT, voxel_mm=(3, 4, 2)), 0.3)
    crop = crop_to(made.mask, made.affine)
    box = crop.take(made.mask)
    cloud = cloud_of(box, crop)
    want = ndimage.distance_transform_edt(np.pad(box, 1), sampling=(3, 4, 2))[1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(cloud.depth_mm, want[tuple(cloud.voxels.T)], rtol=1e-9)


@pytest.mark.slow
def test_speed_at_the_real_size() -> None:
    small = make(STRAIGHT, voxel_mm=1.65)
    mask = np.zeros((440, 440, 645), bool)
    a, b, c = small.mask.shape
    mask[180 : 180 + a, 150 : 150 + b, 200 : 200 + c] = small.mask
    start = time.perf_counter()
    segment_aorta(mask, small.affine)
    assert time.perf_counter() - start < 3.0


# --- volumes of interest ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fine() -> tuple[Made, AortaSegments]:
    made = make(STRAIGHT, voxel_mm=1.65)
    return made, segmented(made)


@pytest.fixture(scope="module")
def coarse() -> tuple[Made, AortaSegments]:
    made = make(STRAIGHT, voxel_mm=4.0)
    return made, segmented(made)


@given(
    width_voxels=st.integers(3, 7),
    volume_ml=st.floats(0.3, 4.0),
    seed=st.integers(0, 99),
    with_pet=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_vois_have_the_volume_and_stay_inside(
    coarse: tuple[Made, AortaSegments], width_voxels: int, volume_ml: float, seed: int, with_pet: bool
) -> None:
    made, found = coarse
    pet = np.random.default_rng(seed).gamma(4.0, 25.0, made.mask.shape) if with_pet else None
    result = place_vois(found, made.affine, width_mm=4.0 * width_voxels, volume_ml=volume_ml, early_mean=pet)
    slab_ml = np.pi / 4 * (width_voxels + 1) ** 2 * 0.064
    line = cKDTree(found.points_mm)
    for k in (1, 2, 3, 4):
        voi = result.labels == k
        assert voi.any()
        assert (found.labels[voi] == k).all()
        assert result.volume_ml[k] == pytest.approx(voi.sum() * 0.064)
        where = np.argwhere(voi) @ made.affine[:3, :3].T + made.affine[:3, 3]
        assert line.query(where)[0].max() <= 2.0 * width_voxels + 1e-5
        assert abs(result.volume_ml[k] - volume_ml) <= slab_ml or any("instead of" in f for f in result.flags)


def test_the_cross_section_is_a_disc_of_three_voxels(fine: tuple[Made, AortaSegments]) -> None:
    made, found = fine
    voi = place_vois(found, made.affine, width_mm=3 * 1.65, volume_ml=None, early_mean=None)
    per_slice = (voi.labels == 4).sum(axis=(0, 1))
    per_slice = per_slice[per_slice > 0]
    assert per_slice.mean() == pytest.approx(np.pi * 1.5**2, rel=0.15)
    assert per_slice.max() <= 9


def test_the_full_length_keeps_its_last_slices(fine: tuple[Made, AortaSegments]) -> None:
    made, found = fine
    voi = place_vois(found, made.affine, width_mm=3 * 1.65, volume_ml=None, early_mean=None)
    for k in (1, 3, 4):
        span = [
            np.flatnonzero((image == k).any(axis=(0, 1)))[[0, -1]] for image in (found.labels, voi.labels)
        ]
        assert abs(span[0] - span[1]).max() <= 1
    assert voi.flags == ()


@pytest.mark.parametrize(("label", "z_mm"), [(1, -20.0), (3, -15.0), (4, -200.0)])
def test_the_wanted_volume_is_taken_where_uptake_is_highest(
    fine: tuple[Made, AortaSegments], label: int, z_mm: float
) -> None:
    made, found = fine
    z = patient_mm(made)[..., 2]
    pet = 100.0 + 50.0 * np.exp(-(((z - z_mm) / 8.0) ** 2))
    voi = place_vois(found, made.affine, width_mm=3 * 1.65, volume_ml=0.5, early_mean=pet)
    assert z[voi.labels == label].mean() == pytest.approx(z_mm, abs=3.0)


def test_a_volume_keeps_away_from_the_ends_of_its_segment(fine: tuple[Made, AortaSegments]) -> None:
    made, found = fine
    z = patient_mm(made)[..., 2]
    voi = place_vois(found, made.affine, width_mm=3 * 1.65, volume_ml=0.5, early_mean=1000.0 - z)
    own = z[found.labels == 4]
    assert z[voi.labels == 4].min() >= own.min() + 6.0


def test_a_volume_that_does_not_fit_is_flagged(coarse: tuple[Made, AortaSegments]) -> None:
    made, found = coarse
    result = place_vois(found, made.affine, width_mm=12.0, volume_ml=50.0, early_mean=None)
    full = place_vois(found, made.affine, width_mm=12.0, volume_ml=None, early_mean=None)
    np.testing.assert_array_equal(result.labels, full.labels)
    assert len(result.flags) == 4
    assert all("all that there is" in flag for flag in result.flags)


def test_a_segment_off_the_line_is_flagged_not_silent(coarse: tuple[Made, AortaSegments]) -> None:
    made, found = coarse
    near = cKDTree(found.points_mm).query(patient_mm(made) + OFFSET_MM)[0] < 7.0
    hollow = dataclasses.replace(found, labels=np.where(near & (found.labels == 2), 0, found.labels))
    result = place_vois(hollow, made.affine, width_mm=12.0, volume_ml=1.0, early_mean=None)
    assert result.volume_ml[2] == 0.0
    assert any("top" in flag and "empty" in flag for flag in result.flags)


@pytest.mark.parametrize("name", ["cut below the arch", "abdomen only", "cut at the root"])
def test_vois_of_an_incomplete_aorta(name: str) -> None:
    made = CASES[name][0]()
    found = segmented(made)
    result = place_vois(found, made.affine, width_mm=9.0, volume_ml=1.0, early_mean=None)
    assert set(result.volume_ml) == {int(k) for k in np.unique(made.truth)} - {0}
    assert all(v > 0 for v in result.volume_ml.values())


@pytest.mark.parametrize("voxel_mm", [6.0, 8.0])
def test_coarse_grids_have_no_empty_voi(voxel_mm: float) -> None:
    made = make(STRAIGHT, voxel_mm=voxel_mm)
    found = segmented(made)
    for width, volume in ((3, None), (3, 1.0), (5, 2.0)):
        result = place_vois(found, made.affine, width_mm=width * voxel_mm, volume_ml=volume, early_mean=None)
        assert all(result.volume_ml[k] > 0 for k in (1, 2, 3, 4))
        assert not (result.labels[~made.mask]).any()


def test_vois_refuse_nonsense(coarse: tuple[Made, AortaSegments]) -> None:
    made, found = coarse
    with pytest.raises(BadDataError, match="positive width"):
        place_vois(found, made.affine, width_mm=0.0, volume_ml=1.0, early_mean=None)
    with pytest.raises(BadDataError, match="positive width and volume"):
        place_vois(found, made.affine, width_mm=9.0, volume_ml=0.0, early_mean=None)
    with pytest.raises(BadDataError, match="expected one grid"):
        place_vois(found, made.affine, width_mm=9.0, volume_ml=1.0, early_mean=np.ones((3, 3, 3)))


# --- refinement -------------------------------------------------------------------------------------------


def test_refinement_drops_cold_voxels_per_segment(coarse: tuple[Made, AortaSegments]) -> None:
    _, found = coarse
    level = np.array([0.0, 1000.0, 300.0, 100.0, 10.0])[found.labels]
    wall = found.labels.astype(bool) & ~ndimage.binary_erosion(found.labels > 0)
    pet = np.where(wall, level * 0.5, level)
    labels, kept = refine_with_pet(found.labels, pet)
    for k in (1, 2, 3, 4):
        here = found.labels == k
        median = np.median(pet[here])
        want = here & (pet >= 2 / 3 * median)
        np.testing.assert_array_equal(labels == k, want)
        assert kept[k] == pytest.approx(want.sum() / here.sum())


def test_refinement_fills_cavities_of_noise(coarse: tuple[Made, AortaSegments]) -> None:
    _, found = coarse
    deep = np.argwhere(ndimage.binary_erosion(found.labels == 4))[5]
    pet = np.full(found.labels.shape, 100.0)
    pet[tuple(deep)] = 1.0
    labels, kept = refine_with_pet(found.labels, pet)
    np.testing.assert_array_equal(labels, found.labels)
    assert kept == {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}


def test_refinement_without_tracer_changes_nothing_and_says_so(coarse: tuple[Made, AortaSegments]) -> None:
    _, found = coarse
    labels, kept = refine_with_pet(found.labels, np.where(found.labels == 4, 0.0, 5.0))
    np.testing.assert_array_equal(labels, found.labels)
    assert np.isnan(kept[4])
    assert kept[1] == 1.0
    with pytest.raises(BadDataError, match="no finite value"):
        refine_with_pet(found.labels, np.full(found.labels.shape, np.nan))
    with pytest.raises(BadDataError, match="expected one grid"):
        refine_with_pet(found.labels, np.ones((2, 2, 2)))


# --- quality ----------------------------------------------------------------------------------------------


def test_wall_distance_equals_the_distance_transform(coarse: tuple[Made, AortaSegments]) -> None:
    made, found = coarse
    vois = place_vois(found, made.affine, width_mm=12.0, volume_ml=None, early_mean=None).labels
    vois[0, 0, 0] = 2
    depth = ndimage.distance_transform_edt(made.mask, sampling=4.0)
    distances = wall_distance_mm(vois, made.mask, made.affine)
    for k in (1, 2, 3, 4):
        assert distances[k].least_mm == pytest.approx(depth[vois == k].min())
        assert distances[k].median_mm == pytest.approx(np.median(depth[vois == k]))
    assert distances[2].least_mm == 0.0


def test_unusual_measures_are_named() -> None:
    assert unusual({"median_radius_mm": 10.0, "delay_s": 3.0, "late_max_over_min": 1.1}) == ()
    flags = unusual({"median_radius_mm": 15.0, "delay_s": float("nan")})
    assert "median_radius_mm is 15.00; normal is 8.7 to 13" in flags[0]
    assert "delay_s could not be measured" in flags[1]
    assert unordered({1: 0.0, 2: 3.0, 3: 1.0, 4: 4.0}) == (
        "The bolus reaches the upper descending aorta 2.0 s before the top.",
    )


def test_late_means_are_weighted_by_duration() -> None:
    frames = frames_of([2400.0, 100.0, 300.0])
    curves = {1: np.array([9.0, 4.0, 8.0]), 4: np.array([9.0, 2.0, 2.0])}
    assert late_max_over_min(curves, frames) == pytest.approx(7.0 / 2.0)
    assert np.isnan(late_max_over_min({1: curves[1]}, frames))
    assert np.isnan(late_max_over_min(curves, frames_of([10.0, 10.0, 10.0])))


# --- real anatomy and the library -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    """The real aorta of the realistic dataset, 3 mm."""
    found = sorted(REALISTIC.glob("derivatives/totalsegmentator/sub-001/**/*seg-total_dseg.nii.gz"))
    if not found:
        pytest.skip("needs data/realistic of the shared data")
    image = nib.load(found[0])
    mask = np.asanyarray(image.dataobj) == 52
    box = tuple(slice(int(i.min()) - 6, int(i.max()) + 7) for i in np.nonzero(mask))
    affine = image.affine.copy()
    affine[:3, 3] = image.affine[:3] @ [*(s.start for s in box), 1]
    assert all(s.start >= 0 for s in box)
    return mask[box], affine


def world_mean(labels: np.ndarray, affine: np.ndarray, k: int) -> np.ndarray:
    return np.argwhere(labels == k).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]


def test_a_real_aorta_makes_anatomical_sense(real: tuple[np.ndarray, np.ndarray]) -> None:
    mask, affine = real
    found = segment_aorta(mask, affine)
    ascending, top, upper, lower = (world_mean(found.labels, affine, k) for k in (1, 2, 3, 4))
    assert ascending[1] > upper[1] + 30  # in front
    assert ascending[0] > upper[0]  # and to the right
    assert top[2] > max(ascending[2], upper[2]) + 20
    assert lower[2] < upper[2] - 50
    assert 350 < found.qc["centreline_length_mm"] < 500
    assert found.qc["dropped_ml"] == 0
    depth = ndimage.distance_transform_edt(mask, sampling=3.0)
    voxels = np.rint((found.points_mm - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
    on_line = depth[tuple(voxels.T)]
    assert (on_line > 0).mean() > 0.99
    assert np.median(on_line) > 9.0


def test_the_library_agrees_on_a_real_aorta(real: tuple[np.ndarray, np.ndarray]) -> None:
    mask, affine = real
    pet = np.full(mask.shape, 100.0)
    library = library_segments(mask, affine, pet)
    ours = segment_aorta(mask, affine).labels
    assert min(dice(ours, library).values()) > 0.9  # one slice of 3 mm at the arch


def test_the_library_is_used_as_it_is(
    real: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    from nifti_dynamic.aorta_rois import extract_aorta_segments, extract_aorta_vois

    mask, affine = real
    pet = np.random.default_rng(1).gamma(20.0, 5.0, mask.shape)
    assert nib.aff2axcodes(affine) == ("L", "A", "S")
    image = nib.Nifti1Image(mask.astype(np.int16), affine)
    direct = extract_aorta_segments(image, pet)
    direct_vois = extract_aorta_vois(direct, pet, use_full_length=True, cylinder_width=3)
    capsys.readouterr()
    for axes, flips in (((0, 1, 2), (False,) * 3), ((2, 0, 1), (True, False, True))):
        m, new = stored_as(mask, affine, axes, flips)
        p, _ = stored_as(pet, affine, axes, flips)
        segments = library_segments(m, new, p)
        np.testing.assert_array_equal(unstored(segments, axes, flips), np.asarray(direct.dataobj))
        vois = library_vois(segments, new, p, volume_ml=None, width_voxels=3)
        np.testing.assert_array_equal(unstored(vois, axes, flips), np.asarray(direct_vois.dataobj))
    assert capsys.readouterr().out == ""


def test_failures_of_the_library_are_explained() -> None:
    made = at_3mm(z_range=(-320, -60))
    with pytest.raises(BadDataError, match=r"could not cut the aorta.*Expected 1 match.*centreline"):
        library_segments(made.mask, made.affine, np.ones(made.mask.shape))
    whole = at_3mm()
    with pytest.raises(BadDataError, match=r"could not place.*too long.*centreline"):
        library_vois(whole.truth, whole.affine, np.ones(whole.mask.shape), volume_ml=90.0, width_voxels=3)
    with pytest.raises(BadDataError, match="one 3D grid"):
        library_segments(whole.mask, whole.affine, np.ones((2, 2, 2)))


@pytest.mark.slow
def test_input_functions_of_the_realistic_series(real: tuple[np.ndarray, np.ndarray]) -> None:
    mask, affine = real
    path = next(REALISTIC.glob("sub-001/**/*acdynPSF_pet.nii.gz"))
    truth = json.loads((SHARED / "data" / "realistic_truth" / "sub-001.json").read_text())["curves"]["aorta"]
    metadata = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    frames = FrameTimes(metadata["FrameTimesStart"], metadata["FrameDuration"])
    image = nib.load(path)
    matrix = np.linalg.solve(affine, image.affine)
    on_pet = ndimage.affine_transform(
        mask.astype(np.uint8), matrix[:3, :3], matrix[:3, 3], image.shape[:3], order=0
    ).astype(bool)
    series = np.asanyarray(image.dataobj)
    curve = np.median(series[on_pet], axis=0)
    weights = early_weights(frames, find_bolus(curve, frames))
    early = series @ weights
    found = segment_aorta(on_pet, image.affine)
    refined, kept = refine_with_pet(found.labels, early)
    assert min(kept.values()) > 0.9
    found = dataclasses.replace(found, labels=refined)
    late = frames.mid_s > 30
    for width, volume in ((3, 1.0), (5, 2.0), (3, None)):
        vois = place_vois(found, image.affine, width_mm=width * 4.0, volume_ml=volume, early_mean=early)
        for k in (1, 2, 3, 4):
            measured = series[vois.labels == k].mean(axis=0)
            np.testing.assert_allclose(measured[late], np.asarray(truth)[late], rtol=0.05)
