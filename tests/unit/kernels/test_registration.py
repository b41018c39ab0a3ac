"""Rigid registration against known transforms of a made head and of the realistic dataset."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.registration.rigid import crop_to_head, register_rigid, remove_table
from hedypet_bids.kernels.resampling.resample import moved, resample_image
from hedypet_bids.model import Grid

SHARED = Path(__file__).resolve().parents[4] / "shared"
REALISTIC = SHARED / "data" / "realistic"


def rigid(rotation_deg, shift_mm, centre=(0.0, 0.0, 0.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", rotation_deg, degrees=True).as_matrix()
    matrix[:3, 3] = np.array(shift_mm) + centre - matrix[:3, :3] @ centre
    return matrix


def target_error_mm(found, truth, points) -> np.ndarray:
    """Distance between where two matrices take each point, shape (n,)."""
    return np.linalg.norm((found - truth)[:3, :3] @ points.T + (found - truth)[:3, 3:], axis=0)


def ellipsoid(world, centre, radii):
    return sum(((world[i] - centre[i]) / radii[i]) ** 2 for i in range(3)) < 1


@pytest.fixture(scope="module")
def made_head():
    """CT and MR of the same lopsided head on one 3 mm grid, and points inside it."""
    grid = Grid((54, 64, 58), np.diag([3.0, 3.0, 3.0, 1.0]) @ rigid((0, 0, 0), (-26.5, -31.5, -28.5)))
    index = np.indices(grid.shape).reshape(3, -1)
    world = (grid.affine[:3, :3] @ index + grid.affine[:3, 3:]).reshape(3, *grid.shape)
    ct, mr = np.full(grid.shape, -1000.0), np.zeros(grid.shape)
    for centre, radii, hu, signal in (
        ((0, 0, 0), (66, 80, 74), 40.0, 300.0),
        ((0, 2, 2), (62, 76, 70), 900.0, 20.0),
        ((0, 2, 2), (57, 71, 65), 35.0, 600.0),
        ((12, 5, 8), (8, 25, 9), 5.0, 150.0),
        ((-14, 8, 6), (7, 22, 10), 5.0, 150.0),
        ((20, -40, -30), (25, 18, 14), 45.0, 700.0),
        ((0, 70, -40), (12, 14, 18), -900.0, 0.0),
        ((-35, 30, 20), (14, 9, 17), 60.0, 450.0),
    ):
        inside = ellipsoid(world, centre, radii)
        ct[inside], mr[inside] = hu, signal
    rng = np.random.default_rng(0)
    ct = ndimage.gaussian_filter(ct, 0.5) + rng.normal(scale=10, size=ct.shape)
    mr = np.abs(ndimage.gaussian_filter(mr, 0.5) + rng.normal(scale=10, size=mr.shape))
    head = ellipsoid(world, (0, 0, 0), (66, 80, 74))
    return ct, mr, grid, world[:, head].T[::17]


TRUTH = rigid((6, -9, 12), (12, -18, 9))


@pytest.fixture(scope="module")
def made_result(made_head):
    ct, mr, grid, _ = made_head
    return register_rigid(ct, grid, mr, moved(grid, np.linalg.inv(TRUTH)))


def test_a_known_transform_is_found_and_scored(made_head, made_result):
    points = (np.linalg.inv(TRUTH) @ np.c_[made_head[3], np.ones(len(made_head[3]))].T)[:3].T
    assert target_error_mm(made_result.matrix, TRUTH, points).mean() < 0.3
    assert made_result.flags == ()
    assert made_result.metric_after > made_result.metric_before + 0.1
    assert made_result.inverse_consistency_mm < 1.0
    assert made_result.overlap > 0.6
    np.testing.assert_allclose(
        made_result.matrix[:3, :3] @ made_result.matrix[:3, :3].T, np.eye(3), atol=1e-9
    )


def test_runs_and_thread_counts_give_the_same_bits(made_head, made_result):
    ct, mr, grid, _ = made_head
    again = register_rigid(ct, grid, mr, moved(grid, np.linalg.inv(TRUTH)), threads=2)
    np.testing.assert_array_equal(again.matrix, made_result.matrix)
    assert again.metric_after == made_result.metric_after
    assert again.inverse_consistency_mm == made_result.inverse_consistency_mm
    other = register_rigid(ct, grid, mr, moved(grid, np.linalg.inv(TRUTH)), seed=7, check_inverse=False)
    assert not np.array_equal(other.matrix, made_result.matrix)
    assert np.isnan(other.inverse_consistency_mm)


def test_the_matrix_brings_the_moving_image_onto_the_fixed_one(made_head, made_result):
    _, mr, grid, _ = made_head
    there = moved(grid, np.linalg.inv(TRUTH))
    aligned = resample_image(mr, moved(there, made_result.matrix), grid)
    inner = (slice(12, -12),) * 3
    assert np.corrcoef(aligned[inner].ravel(), mr[inner].ravel())[0, 1] > 0.97


def test_storage_order_does_not_matter(made_head):
    ct, mr, grid, points = made_head
    flip = 1
    matrix = grid.affine.copy()
    matrix[:3, 3] += matrix[:3, flip] * (grid.shape[flip] - 1)
    matrix[:3, flip] *= -1
    order = [1, 2, 0]
    stored = np.flip(mr, flip).transpose(order)
    matrix[:3, :3] = matrix[:3, order]
    there = moved(Grid(stored.shape, matrix), np.linalg.inv(TRUTH))
    found = register_rigid(ct, grid, stored, there, check_inverse=False)
    local = (np.linalg.inv(TRUTH) @ np.c_[points, np.ones(len(points))].T)[:3].T
    assert target_error_mm(found.matrix, TRUTH, local).mean() < 0.4


def test_images_without_relation_are_flagged(made_head):
    ct, _, grid, _ = made_head
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=grid.shape), 2)
    assert register_rigid(ct, grid, noise, grid, check_inverse=False).flags != ()


BAD = {
    "constant": (lambda _, grid: (np.zeros(grid.shape), grid), "constant"),
    "all NaN": (lambda _, grid: (np.full(grid.shape, np.nan), grid), "no finite"),
    "wrong shape": (lambda ct, grid: (ct[1:], grid), "must agree"),
    "too thin": (lambda ct, grid: (ct[:3], Grid((3, *grid.shape[1:]), grid.affine)), "at least"),
}


@pytest.mark.parametrize("case", BAD)
def test_images_that_cannot_be_registered_are_refused(made_head, case):
    ct, mr, grid, _ = made_head
    make, message = BAD[case]
    with pytest.raises(BadDataError, match=message):
        register_rigid(*make(ct, grid), mr, grid)
    with pytest.raises(BadDataError, match=message):
        register_rigid(ct, grid, *make(mr, grid))


def test_a_ct_outside_the_window_is_refused(made_head):
    ct, mr, grid, _ = made_head
    with pytest.raises(BadDataError, match="HU"):
        register_rigid(ct + 5000, grid, mr, grid)


def test_head_crop_keeps_every_voxel_where_it_was():
    affine = rigid((5, 10, 20), (3, 2, 1)) @ np.diag([-2.0, 2.0, 3.0, 1.0])
    grid = Grid((40, 50, 60), affine)
    data = np.arange(grid.n_voxels).reshape(grid.shape)
    brain = np.zeros(grid.shape, bool)
    brain[12:20, 15:30, 45:58] = True
    part, part_grid = crop_to_head(data, grid, brain, margin_mm=10.0)
    assert part.shape == part_grid.shape == (18, 25, 19)
    first = np.argwhere(data == part[0, 0, 0])[0]
    np.testing.assert_array_equal(first, (7, 10, 41))
    np.testing.assert_allclose(part_grid.affine @ [0, 0, 0, 1], affine @ [*first, 1])
    np.testing.assert_array_equal(part, data[7:25, 10:35, 41:60])
    with pytest.raises(BadDataError, match="empty"):
        crop_to_head(data, grid, np.zeros_like(brain))
    with pytest.raises(BadDataError, match="same shape"):
        crop_to_head(data, grid, brain[1:])


def test_remove_table_leaves_the_body_alone():
    ct = np.random.default_rng(0).integers(-900, 900, (6, 7, 8)).astype(np.int16)
    body = np.zeros(ct.shape, bool)
    body[2:5, 2:6] = True
    kept = ct.copy()
    cleaned = remove_table(ct, body)
    assert cleaned.dtype == np.int16
    np.testing.assert_array_equal(cleaned[body], ct[body])
    assert (cleaned[~body] == -1024).all()
    np.testing.assert_array_equal(ct, kept)
    with pytest.raises(BadDataError):
        remove_table(ct, np.zeros_like(body))


def load(pattern: str) -> tuple[np.ndarray, Grid]:
    image = nib.load(next(REALISTIC.glob(pattern)))
    return np.asanyarray(image.dataobj), Grid(image.shape[:3], image.affine)


def points_in(mask, grid: Grid) -> np.ndarray:
    index = np.argwhere(mask)[::97]
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


@pytest.fixture(scope="module")
def realistic():
    if not REALISTIC.is_dir():
        pytest.skip(f"The realistic dataset is not at {REALISTIC}.")
    ct, grid = load("sub-001/*/ct/*br38f_ct.nii.gz")
    total, _ = load("derivatives/totalsegmentator/sub-001/*/ct/*seg-total_dseg.nii.gz")
    truth = json.loads((SHARED / "data" / "realistic_truth" / "sub-001.json").read_text())
    return ct, grid, total == 90, {name: np.array(truth[name]) for name in ("mr2ct_head", "mr2ct_body")}


def body_case(realistic):
    ct, grid, _, truth = realistic
    mr, mr_grid = load("sub-001/*/anat/*DIXONbodyIN_T1w.nii.gz")
    body, _ = load("derivatives/totalsegmentator/sub-001/*/ct/*seg-body_dseg.nii.gz")
    inverse = np.linalg.inv(truth["mr2ct_body"])
    points = points_in(body > 0, grid) @ inverse[:3, :3].T + inverse[:3, 3]
    return ct, grid, mr, mr_grid, truth["mr2ct_body"], points


def head_case(realistic):
    ct, grid, brain, truth = realistic
    crop, crop_grid = crop_to_head(ct, grid, brain)
    mr, mr_grid = load("sub-001/*/anat/*MPRAGE_T1w.nii.gz")
    labels, label_grid = load("derivatives/synthseg/sub-001/*/anat/*seg-synthseg_dseg.nii.gz")
    return crop, crop_grid, mr, mr_grid, truth["mr2ct_head"], points_in(labels > 0, label_grid)


CASES = {"body": (body_case, 0.4), "head": (head_case, 0.6)}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_realistic_transforms_are_recovered(realistic, case):
    make, most_mm = CASES[case]
    fixed, fixed_grid, mr, mr_grid, truth, points = make(realistic)
    found = register_rigid(fixed, fixed_grid, mr, mr_grid)
    assert target_error_mm(found.matrix, truth, points).mean() <= most_mm
    assert found.flags == ()


Z, XY = ((0, 0, 20), (40, 0, 0)), ((-14, 14, 0), (0, -28, 28))


@pytest.mark.parametrize(
    ("case", "rotation_deg", "shift_mm"),
    [
        pytest.param("body", *Z, marks=pytest.mark.slow, id="body, z"),
        pytest.param("head", *XY, marks=pytest.mark.slow, id="head, xy"),
        pytest.param("body", *XY, marks=pytest.mark.exhaustive, id="body, xy"),
        pytest.param("head", *Z, marks=pytest.mark.exhaustive, id="head, z"),
    ],
)
def test_large_start_errors_are_recovered(realistic, case, rotation_deg, shift_mm):
    make, most_mm = CASES[case]
    fixed, fixed_grid, mr, mr_grid, truth, points = make(realistic)
    error = rigid(rotation_deg, shift_mm, points.mean(axis=0))
    found = register_rigid(fixed, fixed_grid, mr, moved(mr_grid, error), check_inverse=False)
    assert target_error_mm(found.matrix @ error, truth, points).mean() <= most_mm
    assert found.flags == ()


@pytest.mark.slow
def test_a_cropped_view_is_recovered(realistic):
    fixed, fixed_grid, mr, mr_grid, truth, points = body_case(realistic)
    start = mr.shape[2] // 2
    upper = mr_grid.affine.copy()
    upper[:3, 3] += start * upper[:3, 2]
    part = mr[..., start:]
    found = register_rigid(fixed, fixed_grid, part, Grid(part.shape, upper), check_inverse=False)
    assert target_error_mm(found.matrix, truth, points).mean() <= 1.0
    assert found.flags == ()
