"""Whole volumes on other voxels, against scipy's zoom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hedypet_bids.kernels.resampling.zoom import zoom_linear, zoom_nearest

SHAPES = st.tuples(*[st.integers(1, 30)] * 3)


@settings(max_examples=25, deadline=None)
@given(
    shape=SHAPES,
    factors=st.tuples(*[st.floats(0.34, 3.0)] * 3),
    kind=st.sampled_from([np.int16, np.int32, np.float32]),
    seed=st.integers(0, 1000),
)
def test_linear_zoom_is_that_of_scipy_in_every_bit(shape, factors, kind, seed: int) -> None:
    volume = (np.random.default_rng(seed).random(shape) * 4000 - 1500).astype(kind)
    if min(round(n * factor) for n, factor in zip(shape, factors, strict=True)) < 1:
        return
    expected = ndimage.zoom(volume.astype(float), factors, order=1, mode="nearest").astype(np.int32)
    np.testing.assert_array_equal(zoom_linear(volume, factors, threads=2), expected)


@pytest.mark.parametrize("order", ["C", "F"])
def test_linear_zoom_of_many_slabs_is_that_of_scipy(order) -> None:
    volume = np.random.default_rng(1).integers(-1000, 3000, (150, 90, 90)).astype(np.int16, order=order)
    factors = np.array([1.37, 3.1, 3.2])
    expected = ndimage.zoom(volume.astype(float), factors, order=1, mode="nearest")
    assert expected.size > 2 << 22  # more than two slabs
    found = zoom_linear(volume, factors, threads=2)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, expected.astype(np.int32))


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, wanted=st.tuples(*[st.integers(1, 60)] * 3), seed=st.integers(0, 1000))
def test_nearest_zoom_is_that_of_scipy(shape, wanted, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 118, shape).astype(np.uint8)
    factors = np.array(wanted) / np.array(shape)
    expected = ndimage.zoom(labels.astype(float), factors, order=0, mode="nearest").astype(np.uint8)
    np.testing.assert_array_equal(zoom_nearest(labels, wanted), expected)
