"""Mattes mutual information of two images at fixed sample points, as a function of a rigid transform.

Mattes et al., IEEE TMI 2003;22(1):120: the joint histogram takes the fixed value's bin as it is and
spreads the moving value over four bins with a cubic B-spline, so that the measure changes smoothly
with the pose. The sample points are drawn once; between evaluations nothing is random.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hedypet_bids.model import Grid, Matrix

N_BINS = 50

# The cubic window reaches two bins beyond the value's own.
_PADDING = 2

# Histograms of so many parts are added in order: the sum is the same for every number of threads.
_PARTS = 4

# Steps of an additive recurrence that covers the cube evenly: powers of 1/g with g**4 = g + 1
# (Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018).
_EVEN_STEPS = 1.2207440846057596 ** -np.arange(1.0, 4.0)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _joint_histogram(
    points: NDArray[np.float64],
    fixed_bin: NDArray[np.int64],
    moving_bin: NDArray[np.float32],
    mapping: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Joint histogram (fixed, moving) over the points that land in the moving image.

    ``moving_bin`` is the moving image in units of bins; ``mapping`` (3, 4) takes a point to its index.
    """
    joint = np.zeros((N_BINS, N_BINS))
    n0, n1, n2 = moving_bin.shape
    for s in range(points.shape[0]):
        p, q, r = points[s, 0], points[s, 1], points[s, 2]
        x = mapping[0, 0] * p + mapping[0, 1] * q + mapping[0, 2] * r + mapping[0, 3]
        y = mapping[1, 0] * p + mapping[1, 1] * q + mapping[1, 2] * r + mapping[1, 3]
        z = mapping[2, 0] * p + mapping[2, 1] * q + mapping[2, 2] * r + mapping[2, 3]
        if x < 0 or y < 0 or z < 0 or x >= n0 - 1 or y >= n1 - 1 or z >= n2 - 1:
            continue
        i, j, k = int(x), int(y), int(z)
        u, v, w = x - i, y - j, z - k
        a = moving_bin[i, j, k] * (1 - w) + moving_bin[i, j, k + 1] * w
        b = moving_bin[i, j + 1, k] * (1 - w) + moving_bin[i, j + 1, k + 1] * w
        c = moving_bin[i + 1, j, k] * (1 - w) + moving_bin[i + 1, j, k + 1] * w
        d = moving_bin[i + 1, j + 1, k] * (1 - w) + moving_bin[i + 1, j + 1, k + 1] * w
        value = (a * (1 - v) + b * v) * (1 - u) + (c * (1 - v) + d * v) * u
        m = int(value)
        t = value - m
        f = fixed_bin[s]
        joint[f, m - 1] += (1 - t) ** 3 / 6
        joint[f, m] += 2 / 3 - t * t * (2 - t) / 2
        joint[f, m + 1] += 2 / 3 - (1 - t) ** 2 * (1 + t) / 2
        joint[f, m + 2] += t**3 / 6
    return joint


def _in_bins(values: NDArray[Any]) -> NDArray[np.float32]:
    """Values scaled to bins, with room for the window at both ends."""
    low, high = float(values.min()), float(values.max())
    scaled = (np.asarray(values, np.float32) - low) / (high - low) * (N_BINS - 1 - 2 * _PADDING) + _PADDING
    return np.ascontiguousarray(scaled, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Similarity:
    """Mutual information of a fixed and a moving image for any rigid transform.

    Parameters
    ----------
    points
        World positions (mm) in the fixed image, shape (n, 3).
    fixed_bin
        Bin of the fixed image at the points.
    moving_bin
        Moving image in units of bins.
    to_index
        4x4, world to moving voxel index.
    centre
        World position that rotations turn about.
    """

    points: NDArray[np.float64]
    fixed_bin: NDArray[np.int64]
    moving_bin: NDArray[np.float32]
    to_index: Matrix
    centre: NDArray[np.float64]

    def histogram(self, fixed_to_moving: Matrix, pool: Executor | None = None) -> NDArray[np.float64]:
        """Joint histogram (fixed, moving), not normalised, for a world transform.

        Without a pool in this thread, which is faster for few points.
        """
        mapping = np.ascontiguousarray((self.to_index @ fixed_to_moving)[:3])
        n = len(self.points)
        bounds = [n * part // _PARTS for part in range(_PARTS + 1)]

        def of_part(low: int, high: int) -> NDArray[np.float64]:
            part: NDArray[np.float64] = _joint_histogram(
                self.points[low:high], self.fixed_bin[low:high], self.moving_bin, mapping
            )
            return part

        total = np.zeros((N_BINS, N_BINS))
        for part in (map if pool is None else pool.map)(of_part, bounds[:-1], bounds[1:]):
            total += part
        return total

    def information(self, fixed_to_moving: Matrix, pool: Executor | None = None) -> tuple[float, float]:
        """Mutual information in nats, and the part of the points that land in the moving image."""
        joint = self.histogram(fixed_to_moving, pool)
        total = float(joint.sum())
        if total <= 0:
            return 0.0, 0.0
        joint /= total
        independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
        used = joint > 0
        nats = float((joint[used] * np.log(joint[used] / independent[used])).sum())
        return nats, total / len(self.points)


def similarity(
    fixed: NDArray[Any],
    fixed_grid: Grid,
    moving: NDArray[Any],
    moving_grid: Grid,
    *,
    n_samples: int,
    seed: int,
) -> Similarity:
    """The measure at ``n_samples`` points spread evenly over the fixed image; neither may be constant."""
    offset = np.random.default_rng(seed).random(3)
    unit = (offset + np.arange(1, n_samples + 1)[:, None] * _EVEN_STEPS) % 1.0
    index = unit * (np.array(fixed_grid.shape) - 1)
    # Points in memory order keep the histogram loop in the cache: five times faster on a whole body.
    index = index[np.lexsort(np.floor(index).T[::-1])]
    fixed_bin = ndimage.map_coordinates(_in_bins(fixed), index.T, order=1, mode="nearest")
    points: NDArray[np.float64] = index @ fixed_grid.affine[:3, :3].T + fixed_grid.affine[:3, 3]
    return Similarity(
        points=points,
        fixed_bin=np.clip(fixed_bin.astype(np.int64), 0, N_BINS - 1),
        moving_bin=_in_bins(moving),
        to_index=np.linalg.inv(moving_grid.affine).astype(np.float64, copy=False),
        centre=(fixed_grid.affine @ [*((np.array(fixed_grid.shape) - 1) / 2), 1.0])[:3],
    )


def turned(
    matrix: Matrix, pose_mm: NDArray[np.float64], centre: NDArray[np.float64], radius_mm: float
) -> Matrix:
    """``matrix`` after a rotation and a shift: rotation vector times ``radius_mm``, then translation, all mm.

    The rotation is about ``centre``. Counted in mm of arc, all six numbers move the image about
    equally far, which is what an optimiser wants.
    """
    step = np.eye(4)
    step[:3, :3] = Rotation.from_rotvec(pose_mm[:3] / radius_mm).as_matrix()
    step[:3, 3] = centre - step[:3, :3] @ centre
    moved: Matrix = matrix @ step
    moved[:3, 3] += pose_mm[3:]
    return moved
