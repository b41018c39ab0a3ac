"""The picture of the aorta, in world mm."""

from __future__ import annotations

import numpy as np
import pytest
from aorta_masks import (
    OFFSET_MM,
    Anatomy,
    make,
    stored_as,
)

from hedypet_bids.errors import BadDataError
from hedypet_bids.figures.aorta import draw_aorta, draw_aorta_labels
from hedypet_bids.kernels.aorta import (
    place_vois,
    segment_aorta,
)
from hedypet_bids.model import Grid

STRAIGHT = Anatomy()


def test_the_picture_shows_everything_in_world_mm() -> None:
    made = make(STRAIGHT, voxel_mm=4.0)
    mask, affine = stored_as(made.mask, made.affine, (2, 0, 1), (True, False, True))
    found = segment_aorta(mask, affine)
    vois = {"1 mL": place_vois(found, affine, width_mm=12.0, volume_ml=1.0, early_mean=None).labels}
    pet = mask * 100.0
    grid = Grid((mask.shape[0], mask.shape[1], mask.shape[2]), affine)
    figure = draw_aorta(pet, found, vois, grid)
    coronal, sagittal = figure.axes[0], figure.axes[1]
    for axis, across in ((coronal, 0), (sagittal, 1)):
        line = axis.lines[0].get_xydata()
        np.testing.assert_allclose(line, found.points_mm[:, [across, 2]])
        left, right = axis.get_xlim()
        assert left < found.points_mm[:, across].min() < found.points_mm[:, across].max() < right
        background = axis.images[0]
        x0, x1, z0, z1 = background.get_extent()
        pixels = np.asarray(background.get_array())
        columns = np.flatnonzero(pixels.max(axis=0) > 50)
        middle = x0 + (x1 - x0) * (columns.mean() + 0.5) / pixels.shape[1]
        truth = (np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3])[:, across]
        assert middle == pytest.approx((truth.min() + truth.max()) / 2, abs=3.0)
        rows = np.flatnonzero(pixels.max(axis=1) > 50)
        top = z0 + (z1 - z0) * (rows.max() + 1) / pixels.shape[0]
        assert top == pytest.approx(OFFSET_MM[2] + STRAIGHT.bend_mm + STRAIGHT.radius_arch_mm, abs=6.0)
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["ascending", "top", "upper descending", "lower descending", "centreline"]
    assert len(draw_aorta_labels(found.labels, vois, grid).axes) == 4


def test_the_picture_refuses_images_of_another_grid() -> None:
    grid = Grid((3, 3, 3), np.eye(4))
    with pytest.raises(BadDataError, match="expected that of the grid"):
        draw_aorta_labels(np.ones((2, 3, 3), np.uint8), {}, grid)
    with pytest.raises(BadDataError, match="no aorta segment"):
        draw_aorta_labels(np.zeros((3, 3, 3), np.uint8), {}, grid)
