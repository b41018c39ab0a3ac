"""Resampling against formulas, scipy and itself in other storage orders."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.resampling.resample import (
    clip_negative,
    head_grid,
    moved,
    resample_image,
    resample_labels,
    resample_slabs,
    topogram_grid,
)
from hedypet_bids.model import Grid


def affine(columns, origin) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(columns, dtype=float).T
    matrix[:3, 3] = origin
    return matrix


def ras(voxel_mm, origin) -> np.ndarray:
    return affine(np.diag(np.broadcast_to(voxel_mm, 3)), origin)


def rigid(rotation_deg, shift_mm) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", rotation_deg, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


def world(grid: Grid) -> np.ndarray:
    index = np.indices(grid.shape).reshape(3, -1)
    return (grid.affine[:3, :3] @ index + grid.affine[:3, 3:]).reshape(3, *grid.shape)


def reference(data, source: Grid, target: Grid, order: int, outside: float) -> np.ndarray:
    """scipy at every target voxel: mirrored spline, coordinates clamped to the outer centres."""
    x = (np.linalg.inv(source.affine) @ target.affine)[:3]
    at = x[:, :3] @ np.indices(target.shape).reshape(3, -1) + x[:, 3:]
    n = np.array(source.shape)[:, None]
    inside = ((at > -0.5 - 1e-3) & (at < n - 0.5 + 1e-3)).all(axis=0)
    values = ndimage.map_coordinates(
        np.asarray(data, float), np.clip(at, 0, n - 1), order=order, mode="mirror"
    )
    return np.where(inside, values, outside).reshape(target.shape)


def stored_otherwise(data, grid: Grid, order, flips) -> tuple[np.ndarray, Grid]:
    """The same world image with axes permuted and flipped."""
    matrix = grid.affine.copy()
    for axis in range(3):
        if flips[axis]:
            data = np.flip(data, axis)
            matrix[:3, 3] += matrix[:3, axis] * (grid.shape[axis] - 1)
            matrix[:3, axis] *= -1
    data = data.transpose(order)
    matrix[:3, :3] = matrix[:3, :3][:, list(order)]
    return data, Grid(data.shape, matrix)


ORIENTATIONS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]

SOURCE = Grid((23, 31, 27), affine(((-2, 0, 0), (0, 2.5, 0), (0, 0, 3)), (22, -38, -40)))
ALIGNED = Grid((50, 45, 41), affine(((0, 1.1, 0), (0, 0, -1.3), (1.7, 0, 0)), (-41, -30, 29)))
OBLIQUE = Grid((31, 33, 29), rigid((12, -9, 20), (-22, -30, -25)) @ ras(1.7, (0, 0, 0)))
NOISE = np.random.default_rng(3).normal(size=SOURCE.shape).astype(np.float32)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("target", [ALIGNED, OBLIQUE], ids=["aligned", "oblique"])
@pytest.mark.parametrize(
    "stored",
    [
        np.ascontiguousarray,
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: a.astype(">f8"),
    ],
    ids=["C", "F", "strided", "big-endian"],
)
def test_any_grid_agrees_with_scipy(order, target, stored):
    found = resample_image(stored(NOISE), SOURCE, target, order=order, outside=-7.0, low_pass=False)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(NOISE, SOURCE, target, order, -7.0), atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_shapes_and_affines_at_random_agree_with_scipy(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = tuple(data.draw(st.tuples(*[st.integers(1, 9)] * 3)))
    source = Grid(shape, rigid(rng.uniform(-180, 180, 3), rng.normal(size=3)) @ ras(rng.uniform(1, 3, 3), 0))
    image = rng.normal(size=shape)
    turn = rigid(rng.uniform(-90, 90, 3), 0) if data.draw(st.booleans()) else np.eye(4)
    inner = turn @ ras(rng.uniform(0.4, 2, 3), rng.uniform(-1, 1, 3))
    target = Grid(tuple(rng.integers(1, 12, 3)), source.affine @ inner)
    found = resample_image(image, source, target, low_pass=False, outside=5.0)
    # A voxel on the very edge may fall to either side; none does with these random numbers.
    np.testing.assert_allclose(found, reference(image, source, target, 3, 5.0), atol=5e-5)


@pytest.mark.parametrize("target_mm", [1.0, 4.0], ids=["finer", "coarser"])
@pytest.mark.parametrize("order", [1, 3])
def test_fast_path_equals_general_path(order, target_mm):
    """A turn of a hundredth of a degree makes axes oblique, and moves no voxel by more than 0.01 mm."""
    affine = ras(target_mm, (-18.3, -33.1, -37.7))
    shape = tuple(int(n) for n in np.ceil(np.array((14, 15, 19)) / max(1.0, target_mm / 2)))
    turned = affine @ rigid((0.01, 0.01, 0.01), 0)
    fast = resample_image(NOISE, SOURCE, Grid(shape, affine), order=order, outside=-1.0)
    general = resample_image(NOISE, SOURCE, Grid(shape, turned), order=order, outside=-1.0)
    inside = (fast != -1.0) & (general != -1.0)
    assert inside.mean() > 0.2
    assert np.abs(fast - general)[inside].max() <= 0.02 * np.ptp(NOISE)


def test_long_lines_in_slabs_equal_the_whole():
    source = Grid((5, 6, 400), ras(1.0, 0))
    image = np.random.default_rng(0).normal(size=source.shape)
    target = Grid((5, 6, 610), ras((1, 1, 0.65), (0, 0, 0.2)))
    found = resample_image(np.asfortranarray(image), source, target)
    np.testing.assert_allclose(found, reference(image, source, target, 3, 0.0), atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("target", [ALIGNED, OBLIQUE], ids=["aligned", "oblique"])
def test_threads_do_not_change_a_bit(target, threads):
    np.testing.assert_array_equal(
        resample_image(NOISE, SOURCE, target, threads=threads), resample_image(NOISE, SOURCE, target)
    )


def gaussian(points, centre, sigma_mm) -> np.ndarray:
    return np.exp(-((points - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(axis=0) / (2 * sigma_mm**2))


TARGETS = {
    "shifted": Grid((24, 25, 26), ras(2.0, (-23.3, -24.7, -25.1))),
    "scaled": Grid((40, 41, 42), ras((1.1, 1.2, 1.3), (-22, -24, -27))),
    "flipped": Grid((20, 20, 20), affine(((0, 0, 2), (-2, 0, 0), (0, 2, 0)), (19, -18, -20))),
    "rotated": Grid((30, 30, 30), rigid((20, 10, -30), 0) @ ras(1.3, (-19, -19, -19))),
}


@pytest.mark.parametrize("name", TARGETS)
def test_gaussian_and_ramp_match_their_formula(name):
    source, target = Grid((40, 40, 40), ras(2.0, (-39, -39, -39))), TARGETS[name]
    centre = (1.3, -2.2, 0.7)
    blob = resample_image(gaussian(world(source), centre, 6.0), source, target)
    assert np.abs(blob - gaussian(world(target), centre, 6.0)).max() < 2e-3
    ramp = np.tensordot((0.5, -1.0, 2.0), world(source), 1)
    for order in (1, 3):
        found = resample_image(ramp, source, target, order=order)
        # Mirrored edges bend a cubic ramp near the border of the field of view only.
        np.testing.assert_allclose(found, np.tensordot((0.5, -1.0, 2.0), world(target), 1), atol=0.02)


def test_low_pass_gives_the_point_spread_of_the_target_voxel():
    source = Grid((61, 61, 61), ras(1.0, -30.0))
    for target_mm in (1.2, 2.0, 3.7, 6.0):
        target = Grid((61, 61, 61), ras((target_mm, 1, 1), (-30 * target_mm, -30, -30)))
        blob = resample_image(gaussian(world(source), (0, 0, 0), 4.0), source, target)
        x = world(target)[0]
        variance = (blob * x**2).sum(dtype=float) / blob.sum(dtype=float)
        expected = 4.0**2 + (target_mm**2 - 1) / (8 * np.log(2))
        assert variance == pytest.approx(expected, rel=2e-3)


def test_low_pass_keeps_a_coarser_target_from_aliasing():
    source = Grid((60, 20, 20), ras(1.0, 0))
    stripes = np.broadcast_to((np.arange(60) % 2).reshape(-1, 1, 1), source.shape)
    target = Grid((10, 8, 8), ras((4.0, 1, 1), (9, 6, 6)))
    assert np.abs(resample_image(stripes, source, target) - 0.5).max() < 0.01
    aliased = resample_image(stripes, source, target, low_pass=False)
    assert np.abs(aliased - 0.5).max() > 0.4


@pytest.mark.parametrize("target", [ALIGNED, OBLIQUE], ids=["aligned", "oblique"])
def test_48_storage_orders_give_the_same_world_image(target):
    labels = (NOISE * 100).astype(np.int16)
    image, nearest = resample_image(NOISE, SOURCE, target), resample_labels(labels, SOURCE, target)
    for order, flips in ORIENTATIONS:
        stored, grid = stored_otherwise(NOISE, SOURCE, order, flips)
        np.testing.assert_allclose(resample_image(stored, grid, target), image, atol=2e-5)
        stored, grid = stored_otherwise(labels, SOURCE, order, flips)
        np.testing.assert_array_equal(resample_labels(stored, grid, target), nearest)


def test_ties_between_labels_do_not_depend_on_storage():
    source = Grid((8, 8, 8), ras(1.0, 0))
    target = Grid((4, 4, 4), ras(2.0, 0.5))  # every target centre is a corner of eight source voxels
    labels = np.arange(512).reshape(8, 8, 8)
    nearest = resample_labels(labels, source, target)
    assert nearest[0, 0, 0] == labels[0, 0, 0]  # of equally near voxels the lower one in the world
    for order, flips in ORIENTATIONS:
        stored, grid = stored_otherwise(labels, source, order, flips)
        np.testing.assert_array_equal(resample_labels(stored, grid, target), nearest)
        turned, _ = stored_otherwise(nearest, target, order, flips)
        _, onto = stored_otherwise(np.zeros(target.shape), target, order, flips)
        np.testing.assert_array_equal(resample_labels(labels, source, onto), turned)


@pytest.mark.parametrize("target", [ALIGNED, OBLIQUE], ids=["aligned", "oblique"])
def test_labels_are_those_of_the_nearest_voxel(target):
    labels = np.random.default_rng(1).integers(0, 118, SOURCE.shape)
    shifted = Grid(target.shape, ras(1, -1e-3) @ target.affine)  # ties go to the lower coordinate
    at = (np.linalg.inv(SOURCE.affine) @ shifted.affine)[:3]
    index = np.rint(at[:, :3] @ np.indices(target.shape).reshape(3, -1) + at[:, 3:]).astype(int)
    inside = ((index >= 0) & (index < np.array(SOURCE.shape)[:, None])).all(axis=0)
    expected = np.where(inside, labels[tuple(np.where(inside, index, 0))], 0).reshape(target.shape)
    found = resample_labels(labels, SOURCE, target)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((0, 255), np.uint8),
        ((0, 256), np.int16),
        ((-1, 3), np.int16),
        ((0, 2035), np.int16),
        ((0, 40000), np.uint16),
        ((0, 70000), np.int32),
        ((0, 2**40), np.int64),
    ],
)
def test_labels_take_the_smallest_integer_type(values, kind):
    labels = np.full((3, 3, 3), values[0])
    labels[1, 1, 1] = values[1]
    grid = Grid((3, 3, 3), np.eye(4))
    found = resample_labels(labels, grid, grid)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("turn", [np.eye(4), rigid((10, 5, 20), (1, 2, 3))], ids=["aligned", "oblique"])
def test_labels_keep_their_volume(turn):
    source = Grid((80, 80, 80), ras(1.0, -39.5))
    ball = (np.linalg.norm(world(source), axis=0) < 25).astype(np.int32)
    for voxel_mm in (0.7, 1.3, 2.0):
        n = int(np.ceil(76 / voxel_mm))
        target = Grid((n, n, n), turn @ ras(voxel_mm, -voxel_mm * (n - 1) / 2))
        found = resample_labels(ball, source, target)
        volume_ml = np.count_nonzero(found) * target.voxel_volume_ml
        assert volume_ml == pytest.approx(np.count_nonzero(ball) / 1000, rel=0.01)


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.float64, np.uint8])
def test_the_same_grid_gives_the_same_values(kind):
    image = np.random.default_rng(0).integers(0, 200, SOURCE.shape).astype(kind)
    np.testing.assert_array_equal(resample_image(image, SOURCE, SOURCE), image)
    order, flips = (2, 0, 1), (True, False, True)
    turned, grid = stored_otherwise(image, SOURCE, order, flips)
    np.testing.assert_array_equal(resample_image(image, SOURCE, grid), turned)


def test_there_and_back_again():
    source = Grid((40, 40, 40), ras(2.0, -39.0))
    image = gaussian(world(source), (3, -4, 5), 7.0)
    matrix = rigid((8, -12, 5), (4, -6, 3))
    there = resample_image(image, moved(source, matrix), source)
    back = resample_image(there, moved(source, np.linalg.inv(matrix)), source)
    assert np.abs(back - image).max() < 3e-3


def test_moved_puts_the_image_where_the_matrix_says():
    source, target = Grid((40, 40, 40), ras(2.0, -39.0)), Grid((50, 50, 50), ras(1.5, -37.0))
    matrix = rigid((10, 20, -5), (5, 3, -8))
    centre = np.array([2.0, -3.0, 1.0, 1.0])
    found = resample_image(gaussian(world(source), centre[:3], 6.0), moved(source, matrix), target)
    assert np.abs(found - gaussian(world(target), (matrix @ centre)[:3], 6.0)).max() < 2e-3


@pytest.mark.parametrize("target", [ALIGNED, OBLIQUE], ids=["aligned", "oblique"])
def test_nan_stays_where_it_is(target):
    image = gaussian(world(SOURCE), (0, 0, 0), 12.0).astype(np.float32)
    holed = image.copy()
    holed[11, 15:17, 13] = np.nan
    holed[:4] = np.nan
    holed[20, 20, 20] = np.inf
    kept = holed.copy()
    found = resample_image(holed, SOURCE, target, outside=-1.0, low_pass=False)
    nearest = resample_labels((~np.isfinite(holed)).astype(np.uint8), SOURCE, target) > 0
    np.testing.assert_array_equal(np.isnan(found), nearest)
    whole = resample_image(image, SOURCE, target, outside=-1.0, low_pass=False)
    assert np.abs(found - whole)[~nearest].max() < 0.05
    np.testing.assert_array_equal(holed, kept)


def test_an_image_without_a_finite_voxel_is_nan():
    found = resample_image(np.full(SOURCE.shape, np.nan), SOURCE, ALIGNED, outside=0.0)
    assert np.isnan(found).any()
    assert not (found[~np.isnan(found)] != 0).any()


def test_edges_are_held_for_half_a_voxel_then_outside():
    source = Grid((4, 1, 1), ras(2.0, 0))
    target = Grid((9, 1, 1), ras((1.0, 2, 2), (-1.5, 0, 0)))
    ramp = np.array([1.0, 2, 3, 4]).reshape(4, 1, 1)
    found = resample_image(ramp, source, target, order=1, outside=-9.0, low_pass=False)[:, 0, 0]
    np.testing.assert_allclose(found, [-9, 1, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4])
    mostly_out = Grid((3, 3, 3), ras(1.0, 1000.0))
    assert (resample_image(ramp, source, mostly_out, outside=-1024.0) == -1024.0).all()
    assert (resample_labels(np.ones((4, 1, 1), int), source, mostly_out) == 0).all()


@pytest.mark.parametrize("thin", [0, 1, 2])
@pytest.mark.parametrize("turn", [np.eye(4), rigid((3, -2, 4), (1, 2, 3))], ids=["aligned", "tilted"])
def test_topogram_lands_on_its_own_plane(thin, turn):
    shape = [40, 50, 60]
    shape[thin] = 1
    origin = np.array([-40.0, -50.0, -60.0])
    origin[thin] = 7.25
    source = Grid(tuple(shape), turn @ ras(2.0, origin))
    target = Grid((30, 30, 30), affine(((-3, 0, 0), (0, 3, 0), (0, 0, 3)), (43.0, -44.0, -43.5)))
    grid = topogram_grid(source, target)
    assert grid.shape == tuple(1 if axis == thin else 30 for axis in range(3))
    local = np.tensordot(np.linalg.inv(turn)[:3, :3], world(grid), 1) + np.linalg.inv(turn)[:3, 3].reshape(
        3, 1, 1, 1
    )
    np.testing.assert_allclose(local[thin], 7.25, atol=1e-9)
    if np.allclose(turn, np.eye(4)):
        in_plane = [axis for axis in range(3) if axis != thin]
        np.testing.assert_allclose(world(grid)[in_plane], world(target).take([0], axis=1 + thin)[in_plane])
    ramp = np.tensordot((1.0, -2.0, 0.5), world(source), 1)
    found = resample_image(ramp, source, grid, order=1, outside=np.nan)
    kept = np.isfinite(found)
    assert kept.sum() > 500
    expected = np.tensordot((1.0, -2.0, 0.5), world(grid), 1)
    # Coarser pixels blur the ramp where it is cut at the edge of the film.
    assert np.quantile(np.abs(found - expected)[kept], 0.8) < 1e-3


def test_a_thin_image_is_not_interpolated_across():
    source = Grid((20, 1, 20), ras((2, 3, 2), (0, 10, 0)))
    film = np.random.default_rng(0).normal(size=source.shape)
    target = Grid((20, 7, 20), ras((2, 1, 2), (0, 7, 0)))
    found = resample_image(film, source, target, outside=-5.0)
    np.testing.assert_allclose(found[:, 2:5], np.repeat(film, 3, axis=1), atol=1e-6)
    assert (found[:, [0, 1, 5, 6]] == -5.0).all()


def test_head_grid_is_centred_on_the_brain_to_a_fraction_of_a_voxel():
    source = Grid((60, 70, 80), affine(((-1.52, 0, 0), (0, 1.52, 0), (0, 0, 1.65)), (45.3, -50.7, 1203.4)))
    brain = np.zeros(source.shape, bool)
    brain[10:41, 20:50, 30:71] = True
    brain[5, 30, 40] = True
    grid = head_grid(brain, source)
    assert grid.shape == (179, 230, 205)
    np.testing.assert_allclose(grid.affine[:3, :3], np.eye(3))
    inside = world(source)[:, brain]
    centre = (inside.min(axis=1) + inside.max(axis=1)) / 2
    np.testing.assert_allclose(grid.affine[:3] @ [89, 114.5, 102, 1], centre)
    small = head_grid(brain, source, size_mm=(100, 120, 110), voxel_mm=2.0)
    assert small.shape == (50, 60, 55)
    for order, flips in ORIENTATIONS[::5]:
        stored, other = stored_otherwise(brain, source, order, flips)
        assert head_grid(stored, other).matches(grid)


def test_clip_negative_counts_what_it_clips():
    data = np.array([[-1.0, 0.0, 2.0], [np.nan, -1e-6, 3.0]], np.float32, order="F")
    assert clip_negative(data) == 2
    np.testing.assert_array_equal(data, np.array([[0, 0, 2], [np.nan, 0, 3]], np.float32))
    assert clip_negative(data) == 0


@pytest.mark.parametrize("tilt", [0.0, 0.1], ids=["aligned", "oblique"])
def test_slabs_are_the_planes_of_the_whole_image(tilt):
    rng = np.random.default_rng(3)
    data = rng.normal(size=(30, 31, 40)).astype(np.float32)
    data[4, 5, 6] = np.nan
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    source = Grid(data.shape, np.diag([2.0, 2.0, 3.0, 1.0]))
    affine = np.eye(4)
    affine[:3, :3] = turn
    target = Grid((50, 52, 130), affine)
    whole = resample_image(data, source, target, outside=-7.0, threads=2)
    for threads in (1, 3):
        slabs = list(resample_slabs(data, source, target, outside=-7.0, threads=threads))
        assert len(slabs) > 2 and max(slab.shape[2] for slab in slabs) < 60
        np.testing.assert_array_equal(np.concatenate(slabs, axis=2), whole)
    with pytest.raises(BadDataError):
        resample_slabs(data[1:], source, target)


def test_slabs_beyond_the_source_get_the_outside_value():
    data = np.full((20, 20, 12), 5.0, np.float32)
    source = Grid(data.shape, np.diag([1.0, 1.0, 1.0, 1.0]))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (0, 0, -60)
    found = resample_image(data, source, Grid((10, 10, 80), affine), outside=-3.0)
    inside = np.zeros((10, 10, 80), bool)
    inside[:, :, 30:36] = True  # centres from 0 to 10 mm; the source ends at 11.5 mm
    assert (found[~inside] == -3.0).all()
    np.testing.assert_allclose(found[inside], 5.0, rtol=1e-5)


BAD = {
    "image shape": lambda: resample_image(NOISE[1:], SOURCE, ALIGNED),
    "label shape": lambda: resample_labels(np.zeros((2, 2, 2), int), SOURCE, ALIGNED),
    "labels as numbers": lambda: resample_labels(NOISE, SOURCE, ALIGNED),  # type: ignore[arg-type]
    "empty brain": lambda: head_grid(np.zeros(SOURCE.shape, bool), SOURCE),
    "brain shape": lambda: head_grid(np.ones((2, 2, 2), bool), SOURCE),
    "no thin axis": lambda: topogram_grid(SOURCE, ALIGNED),
    "singular transform": lambda: moved(SOURCE, np.diag([1.0, 1.0, 0.0, 1.0])),
    "not affine": lambda: moved(SOURCE, np.ones((4, 4))),
    "NaN transform": lambda: moved(SOURCE, np.diag([1.0, np.nan, 1.0, 1.0])),
    "3x4 transform": lambda: moved(SOURCE, np.eye(4)[:3]),
}


@pytest.mark.parametrize("case", BAD)
def test_impossible_input_is_refused(case):
    with pytest.raises(BadDataError):
        BAD[case]()


def test_other_orders_are_refused():
    with pytest.raises(ValueError, match="order must be 1"):
        resample_image(NOISE, SOURCE, ALIGNED, order=2)
