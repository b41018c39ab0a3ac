"""Rigid registration of MR to CT by mutual information.

The measure is that of Mattes (mutual_information.py), maximised by Powell's method at three
resolutions. SimpleITK's gradient descent on the same measure was tried first: on a head that is
nearly round it stops 0.5 to 1.5 mm short, and whole bodies take it several times as long
(docs/registration.md).
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.registration.mutual_information import Similarity, similarity, turned
from hedypet_bids.model import BoolArray, Grid, Matrix

# Air around the patient says nothing about the pose; this much of it is kept for the skin's edge.
_AIR_MARGIN_MM = 20.0

# The finest voxels that are worth their time: no smaller than this, and no more than this many.
_FINEST_MM = 1.5
_MOST_VOXELS = 4e6

_FEWEST_ALONG_AXIS = 8

# Poses that the coarsest level looks at around each rough alignment, and how many it follows up.
_START_ROTATIONS_DEG = (-18.0, 18.0)
_START_SHIFTS_MM = (-30.0, 0.0, 30.0)
_VIEW_STEP_MM = 50.0
_FOLLOWED = 4
_SAME_POSE_MM = 5.0

# A right registration of the measured sets stays far from these (docs/registration.md).
_LEAST_OVERLAP = 0.3
_LEAST_INFORMATION = 0.15
_MOST_ROTATION_DEG = 45.0
_MOST_INCONSISTENCY_MM = 3.0


@dataclass(frozen=True)
class _Level:
    """One resolution: voxels ``coarsening`` times the finest; first step and tolerance of Powell's method."""

    coarsening: int
    n_samples: int
    first_step_mm: float
    tolerance: float


# Tuned on known transforms, see docs/registration.md.
_LEVELS = (_Level(4, 12_000, 4.0, 1e-4), _Level(2, 40_000, 1.0, 1e-5), _Level(1, 100_000, 0.5, 1e-6))

# The way back only has to tell a right result from a wrong one.
_BACK = (*_LEVELS[:2], _Level(1, 50_000, 0.5, 1e-5))


@dataclass(frozen=True, eq=False)
class RigidRegistration:
    """A rigid transform and how far it can be trusted.

    Parameters
    ----------
    matrix
        4x4, moving to fixed, world RAS mm: ``x_fixed = matrix @ x_moving``.
    metric_before, metric_after
        Mutual information in nats (higher is better) with the images where they were and at
        the end; 0 where they do not overlap.
    inverse_consistency_mm
        Mean distance over the fixed image between a point and where it lands after the transform
        found by registering the other way round, from its own starts, and then this one; NaN when
        not asked for.
    overlap
        Part of the smaller image's box that lies in the other image.
    flags
        Why the result looks failed; empty when it looks right.
    iterations
        Evaluations of the measure at each level, coarse to fine.
    """

    matrix: Matrix
    metric_before: float
    metric_after: float
    inverse_consistency_mm: float
    overlap: float
    flags: tuple[str, ...]
    iterations: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class _Image:
    data: NDArray[np.float32]
    grid: Grid

    @property
    def centre(self) -> NDArray[np.float64]:
        """World position of the middle of the grid."""
        middle: NDArray[np.float64] = (self.grid.affine @ [*((np.array(self.grid.shape) - 1) / 2), 1.0])[:3]
        return middle

    @property
    def centroid(self) -> NDArray[np.float64]:
        """World position of the mean of the values above the smallest."""
        weights = self.data - self.data.min()
        sums = [weights.sum(axis=tuple(b for b in range(3) if b != a), dtype=np.float64) for a in range(3)]
        index = [float(w @ np.arange(w.size) / w.sum()) for w in sums]
        position: NDArray[np.float64] = (self.grid.affine @ [*index, 1.0])[:3]
        return position

    @property
    def extent_mm(self) -> NDArray[np.float64]:
        """Size of the box around the grid along the world axes."""
        size: NDArray[np.float64] = np.abs(self.grid.affine[:3, :3]) @ np.array(self.grid.shape)
        return size


@dataclass(frozen=True, eq=False)
class _Problem:
    """The measure at one level, with the penalty for images that slide apart."""

    measure: Similarity
    radius_mm: float
    overlap_per_part: float

    def score(self, fixed_to_moving: Matrix, pool: Executor | None = None) -> float:
        """Mutual information; negative the less the images overlap, since little overlap tells nothing."""
        nats, part = self.measure.information(fixed_to_moving, pool)
        overlap = part * self.overlap_per_part
        return nats if overlap >= _LEAST_OVERLAP else overlap - _LEAST_OVERLAP

    def climb(self, found: _Found, level: _Level, pool: Executor | None = None) -> _Found:
        """The best pose reached from ``found``."""
        centre = self.measure.centre

        def loss(pose: NDArray[np.float64]) -> float:
            return -self.score(turned(found.matrix, pose, centre, self.radius_mm), pool)

        reached = minimize(
            loss,
            np.zeros(6),
            method="Powell",
            options={
                "direc": level.first_step_mm * np.eye(6),
                "xtol": 100 * level.tolerance**0.75,
                "ftol": level.tolerance,
            },
        )
        matrix = turned(found.matrix, reached.x, centre, self.radius_mm)
        return _Found(matrix, -float(reached.fun), (*found.evaluations, int(reached.nfev)))


@dataclass(frozen=True, eq=False)
class _Found:
    """A fixed-to-moving world matrix, its score, and the evaluations that it took at each level."""

    matrix: Matrix
    score: float
    evaluations: tuple[int, ...]


def register_rigid(
    fixed: NDArray[Any],
    fixed_grid: Grid,
    moving: NDArray[Any],
    moving_grid: Grid,
    *,
    window: tuple[float, float] | None = (-500.0, 400.0),
    seed: int = 42,
    threads: int = 1,
    check_inverse: bool = True,
) -> RigidRegistration:
    """The rigid transform that takes ``moving`` to ``fixed``, with its scores and flags.

    Three resolutions. The coarsest looks at several hundred poses around the rough alignments
    (centres, centroids, world coordinates as they are) and follows up the best four; the best two
    of these go on to the middle one. The sums over the sample points are added in a fixed order, so
    the result is the same in every run and for every number of threads.

    Parameters
    ----------
    window
        Range of fixed values that is looked at, others are clipped: by default the soft tissues
        of a CT in HU, with edges to air and bone. None takes all.
    seed
        Where the even spread of the sample points begins.

    Raises
    ------
    BadDataError
        An image is constant, has another shape than its grid, or is too thin; or no start makes the
        images overlap.
    """
    began = time.perf_counter()
    images = _prepared("fixed", fixed, fixed_grid, window), _prepared("moving", moving, moving_grid, None)
    volume_mm3 = images[0].grid.n_voxels * images[0].grid.voxel_volume_ml * 1e3
    finest_mm = max(_FINEST_MM, float((volume_mm3 / _MOST_VOXELS) ** (1 / 3)))
    fixed_levels, moving_levels = (_pyramid(image, finest_mm) for image in images)
    inconsistency_mm = float("nan")
    workers = min(threads, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        found = _search(fixed_levels, moving_levels, _LEVELS, seed, pool)
        if check_inverse:
            back = _search(moving_levels, fixed_levels, _BACK, seed, pool)
            # Both are from their fixed to their moving image, so together they should do nothing.
            inconsistency_mm = _mean_motion_mm(back.matrix @ found.matrix, images[0].grid)
    problem = _problem(fixed_levels[1], moving_levels[1], _LEVELS[1], seed)
    before, _ = problem.measure.information(np.eye(4))
    after, part = problem.measure.information(found.matrix)
    overlap = min(1.0, part * problem.overlap_per_part)
    matrix = np.linalg.inv(found.matrix).astype(np.float64, copy=False)
    return RigidRegistration(
        matrix=matrix,
        metric_before=before,
        metric_after=after,
        inverse_consistency_mm=inconsistency_mm,
        overlap=overlap,
        flags=_flags(matrix, before, after, inconsistency_mm, overlap),
        iterations=found.evaluations,
        seconds=time.perf_counter() - began,
    )


def crop_to_head(
    data: NDArray[Any], grid: Grid, brain: BoolArray, *, margin_mm: float = 30.0
) -> tuple[NDArray[Any], Grid]:
    """The part of an image within ``margin_mm`` of the brain's bounding box, and its grid.

    Raises
    ------
    BadDataError
        The brain is empty or its shape is not the grid's.
    """
    if brain.shape != grid.shape or data.shape != grid.shape:
        raise BadDataError(
            f"Image {data.shape}, brain mask {brain.shape} and grid {grid.shape} must have the same shape."
        )
    if not brain.any():
        raise BadDataError("The brain mask is empty; check that the segmentation holds the brain label.")
    return _cropped(data, grid, brain, margin_mm)


def remove_table(ct: NDArray[Any], body: BoolArray, *, air_hu: float = -1024.0) -> NDArray[Any]:
    """A copy of the CT with everything outside the body mask (table, cushions, cables) set to air.

    Raises
    ------
    BadDataError
        The mask has another shape than the CT, or is empty.
    """
    if body.shape != ct.shape or not body.any():
        raise BadDataError(
            f"The body mask must have the CT's shape {ct.shape} and some voxels; "
            f"found shape {body.shape} with {np.count_nonzero(body)} voxels."
        )
    return np.where(body, ct, ct.dtype.type(air_hu))


def _prepared(name: str, data: NDArray[Any], grid: Grid, window: tuple[float, float] | None) -> _Image:
    """The image clipped to its window and cropped to what is not background, checked."""
    if data.shape != grid.shape:
        raise BadDataError(
            f"The {name} image has shape {data.shape}, its grid {grid.shape}; they must agree."
        )
    if min(data.shape) < _FEWEST_ALONG_AXIS:
        raise BadDataError(
            f"The {name} image has shape {data.shape}; registration needs at least {_FEWEST_ALONG_AXIS} "
            "voxels along each axis."
        )
    values = np.asarray(data, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise BadDataError(f"The {name} image has no finite voxel.")
    if window is None:
        # Half a per mille at either end keeps single bright voxels from emptying the histogram.
        low, high = (float(q) for q in np.quantile(values[finite][::7], (0.0005, 0.9995)))
    else:
        low, high = window
    values = np.clip(np.where(finite, values, np.float32(low)), low, high)
    if values.min() == values.max():
        raise BadDataError(
            f"The {name} image is constant (between {low:g} and {high:g}), so there is nothing to align; "
            "check that the right file was given and, for CT, that it is in HU."
        )
    return _Image(*_cropped(values, grid, values > values.min(), _AIR_MARGIN_MM))


def _cropped(data: NDArray[Any], grid: Grid, mask: BoolArray, margin_mm: float) -> tuple[NDArray[Any], Grid]:
    bounds = []
    for axis in range(3):
        reached = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = int(np.ceil(margin_mm / grid.voxel_sizes_mm[axis] - 1e-6))
        low = max(int(reached[0]) - margin, 0)
        high = min(int(reached[-1]) + 1 + margin, grid.shape[axis])
        low = max(0, min(low, grid.shape[axis] - _FEWEST_ALONG_AXIS))
        bounds.append((low, min(grid.shape[axis], max(high, low + _FEWEST_ALONG_AXIS))))
    affine = grid.affine.copy()
    affine[:3, 3] = (grid.affine @ [*(low for low, _ in bounds), 1.0])[:3]
    part = data[tuple(slice(low, high) for low, high in bounds)]
    return part, Grid((part.shape[0], part.shape[1], part.shape[2]), affine)


def _pyramid(image: _Image, finest_mm: float) -> list[_Image]:
    """The image at every level, blurred to the width of the larger voxels before it is thinned out."""
    levels = []
    for level in _LEVELS:
        wanted = np.floor(level.coarsening * finest_mm / image.grid.voxel_sizes_mm + 0.51)
        factors = np.maximum(1, np.minimum(wanted, np.array(image.data.shape) // _FEWEST_ALONG_AXIS)).astype(
            int
        )
        data = image.data
        for axis in np.flatnonzero(factors > 1):
            sigma = np.sqrt((factors[axis] ** 2 - 1) / (8 * np.log(2)))
            data = gaussian_filter1d(data, sigma, axis=int(axis), mode="nearest")
        thinned = data[tuple(slice(None, None, int(factor)) for factor in factors)]
        affine = image.grid.affine.copy()
        affine[:3, :3] *= factors
        levels.append(_Image(thinned, Grid((thinned.shape[0], thinned.shape[1], thinned.shape[2]), affine)))
    return levels


def _problem(fixed: _Image, moving: _Image, level: _Level, seed: int) -> _Problem:
    # More points than voxels tell nothing more.
    n_samples = min(level.n_samples, fixed.data.size)
    measure = similarity(fixed.data, fixed.grid, moving.data, moving.grid, n_samples=n_samples, seed=seed)
    volumes = [image.grid.n_voxels * image.grid.voxel_volume_ml for image in (fixed, moving)]
    radius_mm = float(np.linalg.norm(fixed.extent_mm)) / 4
    return _Problem(measure, radius_mm, volumes[0] / min(volumes))


def _search(
    fixed: Sequence[_Image],
    moving: Sequence[_Image],
    levels: Sequence[_Level],
    seed: int,
    pool: Executor | None,
) -> _Found:
    """The best transform from all starts.

    At the coarser levels the threads of the pool each climb from a start of their own, as handing out parts
    of so few points takes longer than counting them.
    """
    each = map if pool is None else pool.map
    coarse, middle, fine = (
        _problem(f, m, level, seed) for f, m, level in zip(fixed, moving, levels, strict=True)
    )
    starts = [_Found(start, coarse.score(start), ()) for start in _starts(fixed[0], moving[0])]
    starts.sort(key=lambda found: -found.score)
    if starts[0].score <= 0:
        raise BadDataError(
            "The two images cannot be made to overlap from any start; check that they show the same part "
            "of the same patient."
        )
    followed = sorted(
        each(partial(coarse.climb, level=levels[0]), starts[:_FOLLOWED]), key=lambda found: -found.score
    )
    # A rival that came to the same pose needs no second look.
    rivals = [followed[0]] + [
        found
        for found in followed[1:]
        if _mean_motion_mm(np.linalg.inv(found.matrix) @ followed[0].matrix, fixed[0].grid) > _SAME_POSE_MM
    ]
    best = max(each(partial(middle.climb, level=levels[1]), rivals[:2]), key=lambda found: found.score)
    return fine.climb(best, levels[2], pool)


def _starts(fixed: _Image, moving: _Image) -> list[Matrix]:
    """Fixed-to-moving matrices: rough alignments, and each of them shifted and turned."""
    rough = [np.zeros(3), moving.centre - fixed.centre, moving.centroid - fixed.centroid]
    spare_mm = np.abs(fixed.extent_mm - moving.extent_mm) / 2
    for axis in range(3):
        n_steps = int(spare_mm[axis] // _VIEW_STEP_MM)
        for step in (*range(-n_steps, 0), *range(1, n_steps + 1)):
            rough.append(rough[1] + step * _VIEW_STEP_MM * np.eye(3)[axis])
    turns = [np.zeros(3)] + [np.radians(deg) * unit for unit in np.eye(3) for deg in _START_ROTATIONS_DEG]
    shifts = [np.array(shift) for shift in itertools.product(_START_SHIFTS_MM, repeat=3)]
    poses = [np.concatenate([turn, base + shift]) for base in rough for shift in shifts for turn in turns]
    return [turned(np.eye(4), pose, fixed.centre, 1.0) for pose in poses]


def _mean_motion_mm(matrix: Matrix, grid: Grid) -> float:
    """Mean distance by which ``matrix`` moves the points of a grid."""
    steps = [np.linspace(0, n - 1, 9) for n in grid.shape]
    index = np.array(np.meshgrid(*steps, indexing="ij")).reshape(3, -1)
    points = grid.affine @ np.vstack([index, np.ones(index.shape[1])])
    return float(np.linalg.norm((matrix @ points - points)[:3], axis=0).mean())


def _flags(
    matrix: Matrix, before: float, after: float, inconsistency_mm: float, overlap: float
) -> tuple[str, ...]:
    rotation_deg = float(np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1))))
    checks = (
        (after < before, f"the images share less information than before ({after:.3f} < {before:.3f} nats)"),
        (after < _LEAST_INFORMATION, f"the images share little information ({after:.3f} nats)"),
        (overlap < _LEAST_OVERLAP, f"the images overlap by only {overlap:.0%}"),
        (rotation_deg > _MOST_ROTATION_DEG, f"rotated by {rotation_deg:.0f} degrees"),
        (
            inconsistency_mm > _MOST_INCONSISTENCY_MM,
            f"registering the other way round disagrees by {inconsistency_mm:.1f} mm",
        ),
    )
    return tuple(text for failed, text in checks if failed)
