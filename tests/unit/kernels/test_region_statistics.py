"""Region statistics against a plain loop over regions and frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hedypet_bids.kernels.erosion import erode_labels
from hedypet_bids.kernels.region_statistics import JointLabels, RegionSet, RegionStats, region_statistics

FINE = settings(max_examples=60, deadline=None)


def loop(frames: Sequence[np.ndarray], labels: np.ndarray, indices: Sequence[int]) -> RegionStats:
    """The definition, region by region and frame by frame."""
    mean, std, n_valid = (np.full((len(indices), len(frames)), np.nan) for _ in range(3))
    n_voxels = np.array([(labels == index).sum() for index in indices])
    for r, index in enumerate(indices):
        for f, frame in enumerate(frames):
            inside = frame[labels == index].astype(np.float64)
            inside = inside[np.isfinite(inside)]
            n_valid[r, f] = inside.size
            if inside.size:
                mean[r, f], std[r, f] = inside.mean(), inside.std()
    return RegionStats(mean, std, n_valid.astype(int), n_voxels)


def same(found: RegionStats, expected: RegionStats) -> None:
    np.testing.assert_array_equal(found.n_voxels, expected.n_voxels)
    np.testing.assert_array_equal(found.n_valid, expected.n_valid)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(found.std, expected.std, rtol=1e-9, atol=1e-7)


def measured(frames: Sequence[np.ndarray], *sets: RegionSet) -> dict[Any, RegionStats]:
    return region_statistics(iter(frames), JointLabels.combine(iter(sets)))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[np.ndarray], list[RegionSet]]:
    shape = tuple(draw(st.tuples(*[st.integers(1, 9)] * 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sets = []
    for number in range(draw(st.integers(1, 4))):
        highest = draw(st.sampled_from([1, 3, 40, 2035]))
        dtype = draw(st.sampled_from(["u1", "i2", "u2", "i4"] if highest < 256 else ["i2", "u2", "i4"]))
        labels = rng.integers(0, highest + 1, shape).astype(dtype)
        labels[rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))] = 0
        labels = np.asfortranarray(labels) if draw(st.booleans()) else labels
        wanted = rng.permutation(np.arange(1, highest + 5))[: draw(st.integers(1, 12))]
        sets.append(RegionSet((f"task{number}", 0), labels, wanted))
    frames = []
    for _ in range(draw(st.integers(1, 3))):
        frame = rng.normal(draw(st.sampled_from([0.0, 1e4])), 50, shape)
        frame[rng.random(shape) < draw(st.sampled_from([0.0, 0.2, 1.0]))] = draw(
            st.sampled_from([np.nan, np.inf, 0.0])
        )
        frame = frame.astype(draw(st.sampled_from(["f4", "f8"])))
        frames.append(np.asfortranarray(frame) if draw(st.booleans()) else frame)
    return frames, sets


@FINE
@given(scenes())
def test_equal_to_a_plain_loop(scene: tuple[list[np.ndarray], list[RegionSet]]) -> None:
    frames, sets = scene
    found = measured(frames, *sets)
    for each in sets:
        same(found[each.key], loop(frames, each.labels, each.indices))


@pytest.fixture
def scene() -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 6, (20, 21, 22)).astype(np.uint8)
    return [rng.normal(100, 9, labels.shape).astype(np.float32) for _ in range(3)], labels


def test_a_large_region_has_its_small_spread_right() -> None:
    rng = np.random.default_rng(0)
    frame = np.asfortranarray((1e6 + rng.choice([-1.0, 1.0], (100, 100, 200))).astype(np.float32))
    found = measured([frame], RegionSet(("all", 0), np.ones(frame.shape, np.uint8), np.array([1])))[
        ("all", 0)
    ]
    assert found.std[0, 0] == pytest.approx(frame.astype(np.float64).std(), abs=1e-6)


def test_an_outlier_first_does_not_spoil_the_spread() -> None:
    frame = np.full((50, 50, 50), 1e6)
    frame[::2] += 1.0
    frame[0, 0, 0] = 0.0
    labels = np.ones(frame.shape, np.uint8)
    found = measured([frame], RegionSet(("a", 0), labels, np.array([1])))[("a", 0)]
    assert found.std[0, 0] == pytest.approx(frame.std(), rel=1e-12)


def test_nothing_is_nan_and_one_voxel_has_no_spread() -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[1, 1, 1] = 4
    found = measured([np.full(labels.shape, 7.0)], RegionSet(("a", 0), labels, np.array([4, 9])))[("a", 0)]
    assert found.mean[0, 0] == 7.0 and found.std[0, 0] == 0.0
    assert np.isnan(found.mean[1, 0]) and np.isnan(found.std[1, 0])
    assert found.n_voxels.tolist() == [1, 0]


def test_permuting_labels_permutes_the_results(scene: tuple[list[np.ndarray], np.ndarray]) -> None:
    frames, labels = scene
    order = np.array([3, 5, 1, 2, 4])
    plain = measured(frames, RegionSet(("a", 0), labels, np.arange(1, 6)))[("a", 0)]
    permuted = measured(frames, RegionSet(("a", 0), labels, order))[("a", 0)]
    np.testing.assert_array_equal(permuted.mean, plain.mean[order - 1])
    relabelled = np.concatenate([[0], order])[labels].astype(np.uint8)
    np.testing.assert_array_equal(
        measured(frames, RegionSet(("a", 0), relabelled, order))[("a", 0)].std, plain.std
    )


def test_other_sets_and_empty_labels_change_nothing(scene: tuple[list[np.ndarray], np.ndarray]) -> None:
    frames, labels = scene
    alone = measured(frames, RegionSet(("a", 0), labels, np.arange(1, 6)))[("a", 0)]
    rng = np.random.default_rng(9)
    other = RegionSet(("b", 1), rng.integers(0, 30, labels.shape).astype(np.int16), np.arange(1, 30))
    both = measured(frames, other, RegionSet(("a", 0), labels, np.array([1, 2, 3, 4, 5, 77])))[("a", 0)]
    np.testing.assert_allclose(both.mean[:5], alone.mean, rtol=1e-14)
    np.testing.assert_allclose(both.std[:5], alone.std, rtol=1e-12)
    assert np.isnan(both.mean[5]).all()


def test_a_split_region_adds_up_to_the_whole(scene: tuple[list[np.ndarray], np.ndarray]) -> None:
    frames, labels = scene
    split = labels.copy()
    split[:10][labels[:10] == 2] = 9
    whole = measured(frames, RegionSet(("a", 0), labels, np.array([2])))[("a", 0)]
    parts = measured(frames, RegionSet(("a", 0), split, np.array([2, 9])))[("a", 0)]
    n = parts.n_voxels[:, np.newaxis]
    np.testing.assert_allclose((n * parts.mean).sum(axis=0) / n.sum(), whole.mean[0], rtol=1e-14)


def test_the_whole_image_needs_no_label_map_of_its_own(scene: tuple[list[np.ndarray], np.ndarray]) -> None:
    frames, labels = scene
    everything = np.broadcast_to(np.uint8(1), labels.shape)
    found = measured(
        frames,
        RegionSet(("a", 0), labels, np.arange(1, 6)),
        RegionSet(("totalimage", 0), everything, np.array([1])),
    )
    same(found[("totalimage", 0)], loop(frames, np.ones(labels.shape, int), [1]))
    same(found[("a", 0)], loop(frames, labels, [1, 2, 3, 4, 5]))


def test_shapes_that_do_not_fit_are_refused() -> None:
    a = RegionSet(("a", 0), np.ones((2, 2, 2), np.uint8), np.array([1]))
    b = RegionSet(("b", 0), np.ones((2, 2, 3), np.uint8), np.array([1]))
    with pytest.raises(ValueError, match="cannot be combined"):
        JointLabels.combine([a, b])
    with pytest.raises(ValueError, match="no label map"):
        JointLabels.combine([])
    with pytest.raises(ValueError, match="does not fit"):
        measured([np.zeros((2, 2, 3))], a)


def test_equal_to_nifti_dynamic_within_its_float32_error(scene: tuple[list[np.ndarray], np.ndarray]) -> None:
    tacs = pytest.importorskip("nifti_dynamic.tacs")
    frames, labels = scene
    series = np.stack(frames, axis=-1)
    found = measured(frames, RegionSet(("a", 0), labels, np.arange(1, 6)))[("a", 0)]
    for index in range(1, 6):
        mean, std, n = tacs.extract_tac(series, labels == index)[:3]
        np.testing.assert_allclose(found.mean[index - 1], mean, rtol=1e-5)
        np.testing.assert_allclose(found.std[index - 1], std, rtol=1e-3)
        assert np.all(found.n_voxels[index - 1] == n)


@FINE
@given(
    st.tuples(*[st.integers(1, 10)] * 3),
    st.integers(1, 4),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_erosion_equals_eroding_each_label_alone(
    shape: tuple[int, int, int], highest: int, iterations: int, fortran: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    blobs = ndimage.zoom(rng.integers(0, highest + 1, [max(1, n // 3) for n in shape]), 3, order=0)
    labels = np.zeros(shape, np.int16)
    cut = tuple(slice(0, min(a, b)) for a, b in zip(shape, blobs.shape, strict=True))
    labels[cut] = blobs[cut]
    labels = np.asfortranarray(labels) if fortran else labels
    before = labels.copy()
    found = erode_labels(labels, iterations=iterations)
    np.testing.assert_array_equal(labels, before)
    for label in range(1, highest + 1):
        mask = labels == label
        expected = ndimage.binary_erosion(mask, iterations=iterations) if iterations else mask
        np.testing.assert_array_equal(found == label, expected)


def test_large_frames_are_summed_in_threads_to_the_same_bits() -> None:
    rng = np.random.default_rng(5)
    shape = (300, 200, 150)  # more than one part
    labels = np.repeat(rng.integers(0, 5, (30, 20, 15)), 10, axis=0).repeat(10, axis=1).repeat(10, axis=2)
    frame = rng.normal(100, 5, shape).astype(np.float32)
    frame[labels == 3] = np.where(rng.random((labels == 3).sum()) < 0.1, np.nan, 7.0)
    joint = JointLabels.combine([RegionSet(("total", 0), labels.astype(np.uint8), np.arange(1, 5))])
    one, several = (region_statistics([frame], joint, threads=n)["total", 0] for n in (1, 4))
    for name in ("mean", "std", "n_valid"):
        np.testing.assert_array_equal(getattr(one, name), getattr(several, name))
    for position, index in enumerate(range(1, 5)):
        inside = frame[labels == index].astype(np.float64)
        assert one.n_valid[position, 0] == np.isfinite(inside).sum()
        np.testing.assert_allclose(one.mean[position, 0], np.nanmean(inside), rtol=1e-12)
        np.testing.assert_allclose(one.std[position, 0], np.nanstd(inside), rtol=1e-10, atol=1e-12)
