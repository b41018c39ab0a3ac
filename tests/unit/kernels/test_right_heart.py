"""A volume in the right heart: placed where undiluted blood comes first, or refused with the reason."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.aorta import RightHeartVoi, place_right_heart
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom.kinetics import input_function, scaled_feng_input

FRAMES = FrameTimes(np.arange(0.0, 90.0, 2.0), np.full(45, 2.0))
AORTA_S, RIGHT_S = 24.0, 15.0
RADIUS_MM = 45.0
# Voxel sizes, and which way the first axis runs.
GRIDS = {
    "fine": (3.0, 3.0, 3.0),
    "flipped": (-3.0, 3.0, 3.0),
    "oblong": (2.5, 4.0, 5.0),
    "coarse": (14.0,) * 3,
}


def bolus(arrival_s: float, scale: float = 1.0) -> NDArray[np.float64]:
    shape = scaled_feng_input(8000.0, delay_s=arrival_s)
    return input_function(FRAMES, dataclasses.replace(shape, a1=scale * shape.a1))


@dataclasses.dataclass(frozen=True)
class Heart:
    """A ball around the world's origin; its right half and the rest have a curve each."""

    sizes_mm: tuple[float, ...] = GRIDS["fine"]
    radius_mm: float = RADIUS_MM

    @property
    def affine(self) -> NDArray[np.float64]:
        n = 2 * self.reach + 1
        affine = np.diag([*self.sizes_mm, 1.0])
        affine[:3, 3] = -affine[:3, :3] @ ((n - 1) / 2)
        return affine

    @property
    def reach(self) -> NDArray[np.int64]:
        return np.ceil(self.radius_mm / np.abs(self.sizes_mm)).astype(int) + 1

    @property
    def world_mm(self) -> NDArray[np.float64]:
        grid = np.indices(2 * self.reach + 1).reshape(3, -1).T
        return np.asarray(grid @ self.affine[:3, :3].T + self.affine[:3, 3])

    @property
    def mask(self) -> NDArray[np.bool_]:
        inside = np.linalg.norm(self.world_mm, axis=1) <= self.radius_mm
        return inside.reshape(2 * self.reach + 1)

    def place(
        self,
        right: NDArray[np.float64],
        rest: NDArray[np.float64],
        aorta: NDArray[np.float64],
        *,
        cava: float = 0.0,
    ) -> RightHeartVoi:
        """Placed in a heart whose right ventricle, a ball in its right half, has a curve of its own."""
        world = self.world_mm[self.mask.ravel()]
        ventricle = np.linalg.norm(world - [22.0, 5.0, 0.0], axis=1) < 18.0
        early = np.where(ventricle, right[:, None], rest[:, None])
        # At the surface, where the vena cava reaches into the mask.
        early[:, (world[:, 0] > 0) & (np.linalg.norm(world, axis=1) > self.radius_mm - 3)] += (
            cava * right.max()
        )
        return place_right_heart(early, self.mask, self.affine, FRAMES, aorta)


@pytest.mark.parametrize("grid", GRIDS)
def test_it_is_placed_in_the_right_ventricle(grid: str) -> None:
    heart = Heart(GRIDS[grid])
    found = heart.place(bolus(RIGHT_S, 1.5), bolus(AORTA_S), bolus(AORTA_S))
    assert found.reason == ""
    chosen = found.labels.ravel() == 1
    assert (heart.world_mm[chosen, 0] >= 0).all()
    assert np.linalg.norm(heart.world_mm[chosen] - [22.0, 5.0, 0.0], axis=1).max() < 18.0
    voxel_ml = abs(np.prod(heart.sizes_mm)) / 1000
    assert found.volume_ml == pytest.approx(max(1.0, voxel_ml), abs=voxel_ml / 2)
    assert found.volume_ml == pytest.approx(chosen.sum() * voxel_ml)
    assert ndimage.label(found.labels)[1] == 1
    assert found.lead_s == pytest.approx(AORTA_S - RIGHT_S, abs=1.0)
    assert found.peak_s == pytest.approx(RIGHT_S + 15.0, abs=2.0)
    assert found.peak_bq_ml == pytest.approx(bolus(RIGHT_S, 1.5).max())


def test_it_keeps_away_from_the_surface_where_the_vena_cava_enters() -> None:
    heart = Heart()
    found = heart.place(bolus(RIGHT_S, 1.5), bolus(AORTA_S), bolus(AORTA_S), cava=5.0)
    distance_mm = np.linalg.norm(heart.world_mm[found.labels.ravel() == 1], axis=1)
    assert distance_mm.max() < heart.radius_mm - 5.0
    assert found.peak_bq_ml == pytest.approx(bolus(RIGHT_S, 1.5).max())


def test_a_thin_heart_has_no_margin() -> None:
    heart = Heart(radius_mm=12.0)
    found = heart.place(bolus(RIGHT_S, 1.5), bolus(RIGHT_S, 1.5), bolus(AORTA_S))
    assert found.reason == "" and found.volume_ml == pytest.approx(1.0, abs=0.02)


REFUSED = {
    "a homogeneous heart, half as active": (0.5 * bolus(18.0), 0.5 * bolus(18.0), bolus(AORTA_S), "kBq/mL"),
    "no earlier than the aorta": (2 * bolus(AORTA_S + 2.0), bolus(AORTA_S), bolus(AORTA_S), "no earlier"),
    "the left heart alone": (bolus(AORTA_S - 2.0, 1.1), bolus(AORTA_S), bolus(AORTA_S), "s before the aorta"),
    "diluted": (bolus(RIGHT_S, 0.8), 0.1 * bolus(RIGHT_S), bolus(AORTA_S), "undiluted"),
    "an aorta without a bolus": (bolus(RIGHT_S), bolus(AORTA_S), np.full(45, 9.0), "first pass"),
    "a heart without a bolus": (np.zeros(45), np.zeros(45), bolus(AORTA_S), "first pass"),
    "there as the scan begins": (bolus(-12.0, 1.5), bolus(-12.0), bolus(AORTA_S), "first frame"),
    "before the scan": (bolus(-30.0, 9.0), bolus(-30.0), bolus(AORTA_S), "first pass"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_where_the_right_heart_is_not_seen_there_is_none(case: str) -> None:
    *curves, words = REFUSED[case]
    found = Heart().place(*curves)
    assert words in found.reason
    assert not found.labels.any() and found.volume_ml == 0


def test_without_a_heart_there_is_none() -> None:
    heart = Heart()
    nothing = np.zeros_like(heart.mask)
    found = place_right_heart(np.empty((45, 0)), nothing, heart.affine, FRAMES, bolus(AORTA_S))
    assert "no room" in found.reason and not found.labels.any()
    small = nothing.copy()
    small[3:6, 3, 3] = True
    found = place_right_heart(np.ones((45, 3)), small, heart.affine, FRAMES, bolus(AORTA_S))
    assert "1 mL" in found.reason


def test_voxels_without_a_value_are_passed_over() -> None:
    heart = Heart()
    world = heart.world_mm[heart.mask.ravel()]
    early = np.repeat(bolus(RIGHT_S, 1.5)[:, None], len(world), axis=1)
    early[7, world[:, 1] > 0] = np.nan
    found = place_right_heart(early, heart.mask, heart.affine, FRAMES, bolus(AORTA_S))
    assert found.reason == ""
    assert (heart.world_mm[found.labels.ravel() == 1, 1] <= 0).all()


def test_values_of_another_mask_are_refused() -> None:
    with pytest.raises(BadDataError, match="expected 45 frames"):
        place_right_heart(np.ones((45, 7)), Heart().mask, Heart().affine, FRAMES, bolus(AORTA_S))
