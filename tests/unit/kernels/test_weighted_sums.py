"""Voxel maps: the plain weighted sum, voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest

from hedypet_bids.kernels.kinetics.weighted_sums import smooth_image, weighted_sums, weighted_sums_of_pieces


def maps(series: np.ndarray, weights: np.ndarray, piece: int = 50) -> np.ndarray:
    """The maps of a series handed over in pieces."""
    flat = [series[..., i].ravel(order="F") for i in range(series.shape[-1])]
    chunks = (
        (i, start, frame[start : start + piece])
        for i, frame in enumerate(flat)
        for start in range(0, frame.size, piece)
    )
    found = weighted_sums(chunks, weights, n_voxels=flat[0].size)
    return np.stack([m.reshape(series.shape[:-1], order="F") for m in found])


@pytest.fixture
def series() -> np.ndarray:
    return np.random.default_rng(0).normal(1e4, 2e3, (7, 6, 5, 9)).astype(np.float32)


def test_equal_to_the_plain_sum(series: np.ndarray) -> None:
    weights = np.random.default_rng(1).normal(size=(2, 9))
    found = maps(series, weights)
    expected = np.einsum("xyzf,mf->mxyz", series.astype(np.float64), weights)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-3)
    assert found.dtype == np.float32


def test_the_mean_of_a_map_is_the_sum_of_the_mean(series: np.ndarray) -> None:
    weights = np.random.default_rng(2).normal(size=(1, 9))
    found = maps(series, weights)
    assert found.mean(dtype=np.float64) == pytest.approx(
        (series.mean(axis=(0, 1, 2), dtype=np.float64) * weights[0]).sum(), rel=1e-6
    )


def test_a_nan_voxel_is_nan_in_that_voxel_only(series: np.ndarray) -> None:
    series[1, 2, 3, 4] = np.nan
    found = maps(series, np.ones((2, 9)))
    assert np.isnan(found[:, 1, 2, 3]).all()
    assert np.isnan(found).sum() == 2


def test_frames_without_weight_do_not_matter(series: np.ndarray) -> None:
    weights = np.ones((2, 9))
    weights[:, 3] = 0
    weights[0, 5] = 0
    spoiled = series.copy()
    spoiled[..., 3] = np.nan
    spoiled[..., 5] = np.nan
    found = maps(spoiled, weights)
    expected = series[..., [0, 1, 2, 4, 6, 7, 8]].sum(axis=-1, dtype=np.float64)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    assert np.isnan(found[1]).all()


def test_pieces_of_any_size_give_the_same_map(series: np.ndarray) -> None:
    weights = np.random.default_rng(5).normal(size=(2, 9))
    whole = maps(series, weights, piece=10_000)
    for piece in (1, 7, 210):
        np.testing.assert_array_equal(maps(series, weights, piece=piece), whole)


def test_nothing_to_sum_and_pieces_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="no frame"):
        list(weighted_sums(iter([]), np.ones((1, 1)), n_voxels=8))
    with pytest.raises(ValueError, match="a piece of 5 voxels at 4"):
        list(weighted_sums([(0, 4, np.ones(5))], np.ones((1, 1)), n_voxels=8))


def test_smoothing_a_point_gives_a_gaussian_of_the_width_asked_for() -> None:
    sizes = np.array([2.0, 1.0, 3.0])
    image = np.zeros((41, 61, 31))
    image[20, 30, 15] = 1.0
    found = smooth_image(image, fwhm_mm=8.0, voxel_sizes_mm=sizes)
    axes = [(np.arange(n) - n // 2) * size for n, size in zip(image.shape, sizes, strict=True)]
    for axis, positions in enumerate(axes):
        profile = found.sum(axis=tuple(a for a in range(3) if a != axis))
        spread = np.sqrt((profile * positions**2).sum() / profile.sum())
        assert spread == pytest.approx(8.0 / 2.3548, rel=0.02)
    assert found.sum() == pytest.approx(1.0, rel=1e-4)


def test_a_smoothed_map_is_the_map_of_smoothed_frames(series: np.ndarray) -> None:
    weights = np.random.default_rng(4).normal(size=(1, 9))
    sizes = np.array([2.0, 2.0, 3.0])
    smoothed = [smooth_image(series[..., i], fwhm_mm=5, voxel_sizes_mm=sizes) for i in range(9)]
    before = maps(np.stack(smoothed, axis=-1), weights)[0]
    after = smooth_image(maps(series, weights)[0], fwhm_mm=5, voxel_sizes_mm=sizes)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6 * np.abs(before).max())


def test_nan_does_not_spread_and_constants_stay() -> None:
    image = np.full((9, 9, 9), 3.0)
    image[4, 4, 4] = np.nan
    found = smooth_image(image, fwhm_mm=4.0, voxel_sizes_mm=np.ones(3))
    assert np.isnan(found).sum() == 1 and np.isnan(found[4, 4, 4])
    np.testing.assert_allclose(found[np.isfinite(found)], 3.0, rtol=1e-6)
    np.testing.assert_array_equal(smooth_image(image, fwhm_mm=0.0, voxel_sizes_mm=np.ones(3)), image)
    with pytest.raises(ValueError, match="negative"):
        smooth_image(image, fwhm_mm=-1.0, voxel_sizes_mm=np.ones(3))


def test_sums_of_pieces_are_those_of_the_series_in_every_bit() -> None:
    rng = np.random.default_rng(4)
    n_voxels = (1 << 20) + 12345  # more than a piece
    frames = rng.normal(size=(4, n_voxels)).astype(np.float32)
    frames[2, 17] = np.nan
    weights = np.array([[0.0, 0.3, -1.7, 2.1], [0.0, 0.0, 1 / 3, -0.1]])
    expected = list(weighted_sums(((i, 0, frames[i]) for i in range(4)), weights, n_voxels=n_voxels))
    for threads in (1, 3):
        found = weighted_sums_of_pieces(
            lambda index, start, stop: frames[index, start:stop], weights, n_voxels=n_voxels, threads=threads
        )
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.array(expected))
