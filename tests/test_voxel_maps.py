"""Voxel maps: the plain weighted sum, voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest

from hedypet_bids.kernels.voxel_maps import weighted_sums


@pytest.fixture
def series() -> np.ndarray:
    return np.random.default_rng(0).normal(1e4, 2e3, (7, 6, 5, 9)).astype(np.float32)


def test_equal_to_the_plain_sum(series: np.ndarray) -> None:
    weights = np.random.default_rng(1).normal(size=(2, 9))
    found = weighted_sums(((i, series[..., i]) for i in range(9)), weights)
    expected = np.einsum("xyzf,mf->mxyz", series.astype(np.float64), weights)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-3)
    assert found.dtype == np.float32


def test_the_mean_of_a_map_is_the_sum_of_the_mean(series: np.ndarray) -> None:
    weights = np.random.default_rng(2).normal(size=(1, 9))
    found = weighted_sums(((i, series[..., i]) for i in range(9)), weights)
    assert found.mean(dtype=np.float64) == pytest.approx(
        (series.mean(axis=(0, 1, 2), dtype=np.float64) * weights[0]).sum(), rel=1e-6
    )


def test_a_nan_voxel_is_nan_in_that_voxel_only(series: np.ndarray) -> None:
    series[1, 2, 3, 4] = np.nan
    found = weighted_sums(((i, series[..., i]) for i in range(9)), np.ones((2, 9)))
    assert np.isnan(found[:, 1, 2, 3]).all()
    assert np.isnan(found).sum() == 2


def test_frames_without_weight_do_not_matter(series: np.ndarray) -> None:
    weights = np.ones((2, 9))
    weights[:, 3] = 0
    weights[0, 5] = 0
    spoiled = series.copy()
    spoiled[..., 3] = np.nan
    spoiled[..., 5] = np.nan
    found = weighted_sums(((i, spoiled[..., i]) for i in range(9)), weights)
    expected = series[..., [0, 1, 2, 4, 6, 7, 8]].sum(axis=-1, dtype=np.float64)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    assert np.isnan(found[1]).all()


def test_nothing_to_sum_and_unequal_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="no frame"):
        weighted_sums(iter([]), np.ones((1, 1)))
    with pytest.raises(ValueError, match="cannot be summed"):
        weighted_sums([(0, np.ones((2, 2, 2))), (1, np.ones((2, 2, 3)))], np.ones((1, 2)))
