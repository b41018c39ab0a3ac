"""Motion is seen while the frames pass by, also when large frames are thinned out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from hedypet_bids.model import FrameTimes, Grid
from hedypet_bids.steps.quality import FrameWatch

SPACING_MM = 4.0


@pytest.fixture(scope="module")
def body() -> np.ndarray:
    """A smooth body with two organs."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in (48, 40, 64)], indexing="ij")
    inside = ((axes[0] / 0.6) ** 2 + (axes[1] / 0.5) ** 2 + (axes[2] / 0.8) ** 2 < 1) * 1000.0
    organ = ((axes[0] - 0.2) ** 2 + axes[1] ** 2 + (axes[2] + 0.2) ** 2 < 0.05) * 4000.0
    return gaussian_filter(inside + organ, 1.5)


@pytest.mark.parametrize("most_voxels", [1e9, 3e4])
@pytest.mark.parametrize("moved_mm", [0.0, 3.0])
def test_a_shift_of_the_body_is_measured(body: np.ndarray, most_voxels: float, moved_mm: float) -> None:
    frames = FrameTimes(np.array([0.0, 1800.0, 2100.0]), np.array([300.0, 300.0, 300.0]))
    series = [body * 0.1, body, shift(body, (0, 0, moved_mm / SPACING_MM), order=3)]
    watch = FrameWatch(frames, Grid(body.shape, np.diag([-SPACING_MM] * 2 + [SPACING_MM, 1])), most_voxels)
    passed = list(watch.passing(enumerate(series)))
    assert all(after is before for after, before in zip(passed, series, strict=True))
    table = watch.table()
    assert list(table["frame"]) == [1, 2]
    last = table.iloc[1]
    assert last["shift_z"] == pytest.approx(moved_mm, abs=0.3)
    assert abs(last["shift_x"]) < 0.2 and abs(last["shift_y"]) < 0.2
    assert last["centroid_shift"] == pytest.approx(moved_mm, abs=0.3)


def test_empty_frames_are_passed_over(body: np.ndarray) -> None:
    frames = FrameTimes(np.array([1800.0, 2100.0, 2400.0]), np.array([300.0, 300.0, 300.0]))
    watch = FrameWatch(frames, Grid(body.shape, np.eye(4)))
    list(watch.passing(enumerate([np.zeros_like(body), body, -body])))
    table = watch.table()
    assert list(table["frame"]) == [1, 2]
    assert table["n_negative"].iloc[1] > 0.1 * body.size
