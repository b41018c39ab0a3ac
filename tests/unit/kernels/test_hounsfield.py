"""Padding of a CT is told from what was measured, whatever the type of the voxels."""

from __future__ import annotations

import numpy as np
import pytest

from hedypet_bids.kernels.hounsfield import padding, without_padding


@pytest.mark.parametrize("value", [-32768, -8192, -3024, -2000])
def test_padding_becomes_air_and_the_rest_stays(value: int) -> None:
    hu = np.array([value, -1024, -1000, 0, 3071, value], np.int16)
    filled, n = without_padding(hu.copy(), -1024.0)
    assert n == 2
    assert filled.tolist() == [-1024, -1024, -1000, 0, 3071, -1024]


def test_padding_without_its_sign_and_nan() -> None:
    hu = np.array([63536.0, np.nan, 30000.0, -1024.0], np.float32)
    assert padding(hu).tolist() == [True, False, False, False]
