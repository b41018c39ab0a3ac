"""Aortas made of formulas, with the segments that they have by construction.

The vessel is swept along a root-to-iliac line: a straight ascending limb, a half circle and a
straight descending limb, with the radius falling from root to iliac. A voxel belongs to it if its
middle is within the radius of the line and between the flat end faces. The truth follows from the
same formulas, in the frame of the patient: it never looks at voxels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from hedypet_bids.model import FrameTimes

# Where the patient lies in the world.
OFFSET_MM = np.array([7.3, -112.9, 841.7])


@dataclass(frozen=True)
class Anatomy:
    """Sizes in mm of an adult aorta; the height 0 is where the arch springs from both limbs."""

    ascending_mm: float = 45.0
    descending_mm: float = 290.0
    root: tuple[float, float] = (18.0, 18.0)  # x (right), y (front) of the ascending limb
    down: tuple[float, float] = (-16.0, -38.0)  # of the descending limb
    radius_root_mm: float = 14.0
    radius_arch_mm: float = 12.5
    radius_low_mm: float = 9.0
    aneurysm_mm: float = 0.0  # added to the radius around 180 mm below the arch
    iliac_mm: float = 0.0  # length of two stumps at the lower end

    def line(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points of the centreline from root to lower end, and the radius at each."""
        a, b = np.array([*self.root, 0.0]), np.array([*self.down, 0.0])
        up = a + np.linspace([0, 0, -self.ascending_mm], [0, 0, 0], 181)
        angle = np.linspace(0, np.pi, 400)[1:, None]
        arch = (a + b) / 2 + np.cos(angle) * (a - b) / 2
        arch[:, 2] = self.bend_mm * np.sin(angle[:, 0])
        low = b + np.linspace([0, 0, 0], [0, 0, -self.descending_mm], 1200)[1:]
        points = np.concatenate([up, arch, low])
        t = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        knots = [0, self.ascending_mm, self.ascending_mm + np.pi * self.bend_mm, t[-1]]
        radius = np.interp(
            t, knots, [self.radius_root_mm, self.radius_arch_mm, self.radius_arch_mm, self.radius_low_mm]
        )
        bulge = np.exp(-(((points[:, 2] + 180) / 25) ** 2)) * (t > knots[2])
        return points, radius + self.aneurysm_mm * bulge

    @property
    def bend_mm(self) -> float:
        return float(np.hypot(*(np.subtract(self.root, self.down)))) / 2

    @property
    def inner_z(self) -> float:
        return self.bend_mm - self.radius_arch_mm


@dataclass(frozen=True)
class Made:
    """A mask with its truth on one grid."""

    mask: NDArray[np.bool_]
    truth: NDArray[np.uint8]
    affine: NDArray[np.float64]

    def with_mask(self, mask: NDArray[np.bool_]) -> Made:
        """Another mask of the same aorta: voxels outside the true one take the label of the nearest."""
        if not (mask & (self.truth == 0)).any():
            return replace(self, mask=mask, truth=np.where(mask, self.truth, 0).astype(np.uint8))
        far = ndimage.distance_transform_edt(self.truth == 0, return_distances=False, return_indices=True)
        grown = self.truth[tuple(far)]
        return replace(self, mask=mask, truth=np.where(mask, grown, 0).astype(np.uint8))


def rotation(x: float = 0, y: float = 0, z: float = 0) -> NDArray[np.float64]:
    """Rotation by degrees about the world axes, x first."""
    out = np.eye(3)
    for axis, degrees in ((0, x), (1, y), (2, z)):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        out = turn @ out
    return out


def make(
    anatomy: Anatomy = Anatomy(),
    *,
    voxel_mm: float | tuple[float, float, float] = 2.0,
    turned: NDArray[np.float64] | None = None,
    z_range: tuple[float, float] | None = None,
    pad_mm: float = 12.0,
) -> Made:
    """The mask of an aorta turned in the world, on a RAS grid around it; z_range cuts the field of view."""
    turned = np.eye(3) if turned is None else turned
    voxel = np.broadcast_to(np.asarray(voxel_mm, dtype=float), (3,))
    points, radius = anatomy.line()
    world = points @ turned.T
    low, high = world.min(axis=0) - radius.max() - pad_mm, world.max(axis=0) + radius.max() + pad_mm
    if anatomy.iliac_mm:
        low = low - np.array([anatomy.iliac_mm, 0, anatomy.iliac_mm])
        high = high + np.array([anatomy.iliac_mm, 0, 0])
    if z_range is not None:
        low[2], high[2] = z_range
    shape = tuple(int(n) for n in np.floor((high - low) / voxel))
    centres = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1) * voxel + low
    labels = _labels(centres.reshape(-1, 3) @ turned, anatomy).reshape(shape)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(voxel)
    affine[:3, 3] = low + OFFSET_MM
    return Made(labels > 0, labels, affine)


def _labels(where: NDArray[np.float64], anatomy: Anatomy) -> NDArray[np.uint8]:
    """The true label at points in the frame of the patient."""
    points, radius = anatomy.line()
    distance, k = cKDTree(points).query(where, distance_upper_bound=radius.max() + 1)
    near = np.isfinite(distance)
    k = np.where(near, k, 0)
    n = len(points)
    beyond = ((k == 0) & (where[:, 2] < points[0, 2])) | ((k == n - 1) & (where[:, 2] < points[-1, 2]))
    inside = near & (distance <= radius[k]) & ~beyond
    apex = int(np.argmax(points[:, 2]))
    descending = np.where(where[:, 2] < -anatomy.ascending_mm, 4, 3)
    labels = np.where(where[:, 2] >= anatomy.inner_z, 2, np.where(k < apex, 1, descending))
    labels = np.where(inside, labels, 0)
    if anatomy.iliac_mm:
        labels[_iliac(where, anatomy) & (labels == 0)] = 4
    return labels.astype(np.uint8)


def _iliac(where: NDArray[np.float64], anatomy: Anatomy) -> NDArray[np.bool_]:
    """Two stumps of 6 mm radius that leave the lower end at 40 degrees to each side."""
    end = anatomy.line()[0][-1]
    out = np.zeros(len(where), dtype=bool)
    for side in (-1.0, 1.0):
        direction = np.array([side * np.sin(np.radians(40)), 0.0, -np.cos(np.radians(40))])
        start = end + np.array([side * 3.0, 0.0, 3.0])
        along = (where - start) @ direction
        across = np.linalg.norm(where - start - along[:, None] * direction, axis=1)
        out |= (along >= 0) & (along <= anatomy.iliac_mm) & (across <= 6.0)
    return out


def stored_as(
    array: NDArray[np.generic], affine: NDArray[np.float64], axes: tuple[int, ...], flips: tuple[bool, ...]
) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """The same image with its axes permuted and some of them reversed."""
    out, new = array.transpose(axes), affine.copy()
    new[:3, :3] = affine[:3, :3][:, list(axes)]
    for k in range(3):
        if flips[k]:
            out = np.flip(out, k)
            new[:3, 3] += new[:3, k] * (out.shape[k] - 1)
            new[:3, k] *= -1
    return out, new


def unstored(
    array: NDArray[np.generic], axes: tuple[int, ...], flips: tuple[bool, ...]
) -> NDArray[np.generic]:
    """An image of :func:`stored_as` back in the original storage order."""
    return np.flip(array, [k for k in range(3) if flips[k]]).transpose(np.argsort(axes))


def oblique(anatomy: Anatomy, grid: NDArray[np.float64], voxel_mm: float) -> Made:
    """A straight patient on a grid that is turned in the world."""
    made = make(anatomy, voxel_mm=voxel_mm, turned=grid.T)
    turn = np.eye(4)
    turn[:3, :3] = grid
    return replace(made, affine=turn @ made.affine)


def patient_mm(made: Made) -> NDArray[np.float64]:
    """Position of every voxel in the frame of an unturned patient made with the default offset, (..., 3)."""
    voxels = np.moveaxis(np.indices(made.mask.shape), 0, -1)
    return voxels @ made.affine[:3, :3].T + made.affine[:3, 3] - OFFSET_MM


def with_gap(made: Made, where: str, width_mm: float) -> Made:
    """A gap across the named segment."""
    at = patient_mm(made)
    if where == "top":
        anatomy = Anatomy()
        across = np.subtract(anatomy.root, anatomy.down)
        middle = np.add(anatomy.root, anatomy.down) / 2
        off = ((at[..., :2] - middle) @ across) / np.linalg.norm(across)
        label = 2
    else:
        label, z = {"ascending": (1, -15.0), "upper": (3, -15.0), "lower": (4, -150.0)}[where]
        off = at[..., 2] - z
    return made.with_mask(made.mask & ~((np.abs(off) < width_mm / 2) & (made.truth == label)))


def with_balls(made: Made, centres: list[tuple[float, float, float]], radius_mm: float) -> Made:
    """Debris beside the aorta, which is in the mask and in no segment."""
    at = patient_mm(made)
    extra = np.zeros(made.mask.shape, dtype=bool)
    for centre in centres:
        extra |= ((at - centre) ** 2).sum(axis=-1) < radius_mm**2
    return replace(made, mask=made.mask | extra)


def noisy(made: Made, chance: float, seed: int = 1) -> Made:
    """Voxels on both sides of the surface flipped with a chance."""
    rng = np.random.default_rng(seed)
    grown = ndimage.binary_dilation(made.mask)
    core = ndimage.binary_erosion(made.mask)
    flip = (grown & ~core) & (rng.random(made.mask.shape) < chance)
    return made.with_mask(made.mask ^ flip)


def dice(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[int, float]:
    """Dice per segment that is in either."""
    out = {}
    for s in (1, 2, 3, 4):
        a, b = found == s, truth == s
        if a.any() or b.any():
            out[s] = float(2 * (a & b).sum() / (a.sum() + b.sum()))
    return out


HEDYPET_DURATIONS = [2] * 20 + [5] * 10 + [10] * 15 + [60] * 6 + [120] * 10 + [300] * 8
"""Of the frames of hedyPET, s."""


def frames_of(durations: list[float], first_s: float = 0.0) -> FrameTimes:
    """Frames without gaps of these durations, s."""
    d = np.array(durations, dtype=float)
    return FrameTimes(first_s + np.concatenate([[0], np.cumsum(d)[:-1]]), d)
