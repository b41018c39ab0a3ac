from __future__ import annotations

import itertools
import math

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.lean_mass import (
    FatRange,
    decazes_lbm_kg,
    fat_between_hip_and_skull,
    james_lbm_kg,
    james_turning_bmi,
    janmahasatian_lbm_kg,
    normalisation_constants,
)
from hedypet_bids.model import Grid

LABELS = {"subcutaneous": 1, "torso": 2, "hips": (77, 78), "skull": 91}
HIP_LEFT, HIP_RIGHT, SKULL = 77, 78, 91


def constants(**changes):
    given = {"dose_bq": 100e6, "weight_kg": 70.0, "height_m": 1.75, "sex": "F"} | changes
    return {c.name: c for c in normalisation_constants(**given)}


# ---- constants


@pytest.mark.parametrize(
    ("sex", "weight_kg", "height_m", "dose_mbq", "suv", "janma", "james"),
    [
        ("F", 70, 1.7, 27.895853241040463, 398.5121891577209, 631.5164884655907, 560.0837556124171),
        ("M", 100, 1.8, 41.420308732086326, 414.20308732086323, 596.3571239240333, 587.5735564446571),
    ],
)
def test_published_constants(sex, weight_kg, height_m, dose_mbq, suv, janma, james):
    found = constants(dose_bq=dose_mbq * 1e6, weight_kg=weight_kg, height_m=height_m, sex=sex)
    assert found["suv"].value == pytest.approx(suv, rel=1e-12)
    assert found["sul_janma"].value == pytest.approx(janma, rel=1e-12)
    assert found["sul_james"].value == pytest.approx(james, rel=1e-12)
    assert {c.units for c in found.values()} == {"Bq/g"}
    assert all(not c.flag for c in found.values())


def test_order_and_names():
    assert list(constants()) == ["suv", "sul_james", "sul_janma", "sul_decazes"]


def test_decazes_from_fat_volume():
    """20 L of fat in the range: 18.46 kg there, 25.782 kg in the whole body."""
    fat = FatRange(20_000.0, -800.0, 100.0)
    assert decazes_lbm_kg(90.0, 20_000.0) == pytest.approx(90 - 18.46 / 0.716)
    value = constants(weight_kg=90.0, fat=fat)["sul_decazes"].value
    assert value == pytest.approx(100e6 / (1000 * (90 - 18.46 / 0.716)), rel=1e-12)


@given(st.sampled_from("MF"), st.floats(1.4, 2.1), st.floats(17, 36))
@settings(max_examples=100, deadline=None)
def test_lean_mass_is_part_of_the_body_and_grows_with_weight(sex, height_m, bmi):
    """Below the turning point of James' formula; the two formulas differ by less than a fifth."""
    weight_kg = bmi * height_m**2
    for formula in (james_lbm_kg, janmahasatian_lbm_kg):
        assert 0 < formula(weight_kg, height_m, sex) < weight_kg
        assert formula(weight_kg * 1.001, height_m, sex) > formula(weight_kg, height_m, sex)
    james, janma = james_lbm_kg(weight_kg, height_m, sex), janmahasatian_lbm_kg(weight_kg, height_m, sex)
    assert abs(james / janma - 1) < 0.3


@pytest.mark.parametrize("sex", "MF")
def test_james_turns_where_the_flag_says(sex):
    height_m = 1.7
    weights = np.linspace(40, 200, 160_001)
    lean = np.array([james_lbm_kg(w, height_m, sex) for w in weights])
    highest = weights[lean.argmax()] / height_m**2
    assert highest == pytest.approx(james_turning_bmi(sex), abs=1e-3)
    before, after = ((highest + d) * height_m**2 for d in (-0.1, 0.1))
    assert not constants(sex=sex, weight_kg=before, height_m=height_m)["sul_james"].flag
    flagged = constants(sex=sex, weight_kg=after, height_m=height_m)["sul_james"]
    assert "turning" in flagged.flag or "past" in flagged.flag
    assert flagged.value > 0


ALL, LEAN = ("suv", "sul_james", "sul_janma", "sul_decazes"), ("sul_james", "sul_janma")


@pytest.mark.parametrize(
    ("changes", "lost", "words"),
    [
        ({"dose_bq": None}, ALL, "injected activity is unknown"),
        ({"dose_bq": math.nan, "dose_reason": "no units"}, ALL, "no units"),
        ({"dose_bq": 0.0}, ALL, "0 Bq"),
        ({"dose_bq": -5.0}, ALL, "-5 Bq"),
        ({"weight_kg": None}, ALL, "weight is unknown"),
        ({"weight_kg": math.nan}, ALL, "weight is unknown"),
        ({"weight_kg": 2.0}, ALL, "weight is 2 kg"),
        ({"weight_kg": 70_000.0}, ALL, "weight is 70000 kg"),
        ({"height_m": None}, LEAN, "height is unknown"),
        ({"height_m": 175.0}, LEAN, "height is 175 m"),
        ({"height_m": 0.5}, LEAN, "height is 0.5 m"),
        ({"sex": None}, LEAN, "sex"),
        ({"fat": None}, ("sul_decazes",), "tissue"),
        ({"fat": FatRange.unknown("the hip is cut")}, ("sul_decazes",), "the hip is cut"),
        # 60 L of fat weigh more than the participant; James is negative at BMI 90; both are no masses.
        ({"fat": FatRange(60_000.0, 0.0, 1.0)}, ("sul_decazes",), "lean body mass"),
        ({"weight_kg": 300.0, "height_m": 1.6}, ("sul_james",), "lean body mass"),
        # Very thin and tall: James gives more lean mass than there is body.
        ({"weight_kg": 20.0, "height_m": 2.2}, ("sul_james", "sul_decazes"), "lean body mass"),
    ],
)
def test_what_lacks_is_nan_with_its_reason(changes, lost, words):
    found = constants(**{"fat": FatRange(20_000.0, 0.0, 1.0), **changes})
    for name, constant in found.items():
        assert math.isnan(constant.value) == bool(constant.reason)
        assert (name in lost) == math.isnan(constant.value), constant
    assert words in found[lost[0]].reason


# ---- fat between hip and skull


def body(shape=(12, 10, 30)):
    """Label images in RAS order: fat everywhere, hips near the bottom, the skull near the top."""
    tissue = np.zeros(shape, np.uint8)
    tissue[2:6], tissue[6:10], tissue[5:7, 4:6] = 1, 2, 3
    total = np.zeros(shape, np.uint8)
    total[3:5, 4:6, 5:9], total[7:9, 4:6, 4:8] = HIP_LEFT, HIP_RIGHT
    total[4:8, 4:8, 22:26] = SKULL
    return tissue, total


AFFINE = np.array([[1.5, 0, 0, -9], [0, 2.0, 0, -10], [0, 0, 3.0, -700], [0, 0, 0, 1]])


def naive_fat_ml(tissue, total, affine):
    z = {index: affine[2] @ [*index, 1.0] for index in itertools.product(*(range(n) for n in tissue.shape))}
    low = min(z[i] for i in z if total[i] in (HIP_LEFT, HIP_RIGHT))
    high = max(z[i] for i in z if total[i] == SKULL)
    n = sum(1 for i in z if tissue[i] in (1, 2) and low - 1e-3 <= z[i] <= high + 1e-3)
    return n * abs(np.linalg.det(affine[:3, :3])) / 1000, low, high


def fat(tissue, total, affine):
    return fat_between_hip_and_skull(tissue, total, Grid(tissue.shape, affine), **LABELS)


def test_fat_of_slices_4_to_25():
    tissue, total = body()
    found = fat(tissue, total, AFFINE)
    assert found.reason == ""
    assert found.lower_z_mm == -700 + 3 * 4
    assert found.upper_z_mm == -700 + 3 * 25
    assert found.volume_ml == pytest.approx(22 * (80 - 4) * 9.0 / 1000)


STORAGES = [
    "".join(code) for axes in itertools.permutations(("LR", "AP", "IS")) for code in itertools.product(*axes)
]


@pytest.mark.parametrize("codes", STORAGES)
@pytest.mark.parametrize("order", "CF")
def test_fat_does_not_depend_on_the_storage(codes, order):
    tissue, total = body()
    start = nib.orientations.io_orientation(AFFINE)
    turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(codes))
    affine = AFFINE @ nib.orientations.inv_ornt_aff(turn, tissue.shape)
    stored = [
        np.asarray(nib.orientations.apply_orientation(labels, turn), order=order)
        for labels in (tissue, total)
    ]
    assert "".join(nib.aff2axcodes(affine)) == codes
    found, expected = fat(*stored, affine), fat(tissue, total, AFFINE)
    assert found.volume_ml == pytest.approx(expected.volume_ml, rel=1e-12)
    assert found.lower_z_mm == pytest.approx(expected.lower_z_mm)


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(-3, 3))
@settings(max_examples=12, deadline=None)
def test_fat_of_oblique_images_equals_the_voxel_by_voxel_count(tilt, roll, yaw):
    tissue, total = body()
    turn = np.eye(4)
    for axis, angle in ((0, tilt), (1, roll), (2, yaw)):
        i, j = (k for k in range(3) if k != axis)
        step = np.eye(4)
        step[i, i] = step[j, j] = math.cos(angle)
        step[i, j], step[j, i] = -math.sin(angle), math.sin(angle)
        turn = step @ turn
    affine = turn @ AFFINE
    volume_ml, low, high = naive_fat_ml(tissue, total, affine)
    found = fat(tissue, total, affine)
    assert found.volume_ml == pytest.approx(volume_ml, rel=1e-12)
    assert (found.lower_z_mm, found.upper_z_mm) == pytest.approx((low, high))


@pytest.mark.parametrize("flip", [False, True], ids=["stored upwards", "stored downwards"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tissue, total: (tissue, np.where(np.isin(total, (77, 78)), 0, total)), "no hip"),
        (lambda tissue, total: (tissue, np.where(total == SKULL, 0, total)), "no skull"),
        (lambda tissue, total: (tissue[:, :, 4:], total[:, :, 4:]), "hip is cut"),
        (lambda tissue, total: (tissue[:, :, :26], total[:, :, :26]), "skull is cut"),
        (lambda tissue, total: (tissue * 0, total), "no fat"),
        (lambda tissue, total: (tissue, total[:, :, ::-1]), "below the hip"),
    ],
)
def test_a_range_that_is_not_whole_has_a_reason_and_no_volume(change, words, flip):
    tissue, total = change(*body())
    affine = AFFINE.copy()
    if flip:
        tissue, total = tissue[:, :, ::-1], total[:, :, ::-1]
        affine = AFFINE @ np.diag([1, 1, -1, 1.0])
    found = fat(tissue, total, affine)
    assert words in found.reason
    assert math.isnan(found.volume_ml)
    assert words in constants(fat=found)["sul_decazes"].reason


def test_one_hip_is_enough():
    """The higher one, when the other is missing: the range starts at slice 5 instead of 4."""
    tissue, total = body()
    assert fat(tissue, np.where(total == HIP_RIGHT, 0, total), AFFINE).lower_z_mm == -700 + 3 * 5


def test_segmentations_of_another_grid_are_refused():
    tissue, total = body()
    with pytest.raises(BadDataError, match="tissue segmentation"):
        fat_between_hip_and_skull(tissue[1:], total, Grid(total.shape, AFFINE), **LABELS)
