"""Rigid registration of MR to CT by mutual information (SimpleITK)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its users know
from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError
from hedypet_bids.model import BoolArray, Grid, Matrix

# SimpleITK's world has x to the left and y to the back; ours is RAS.
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

_BINS = 50

# Air around the patient says nothing about the pose; this much of it is kept for the skin's edge.
_AIR_MARGIN_MM = 20.0

# The finest voxels that are worth their time: no smaller than this, and no more than this many.
_FINEST_MM = 1.5
_MOST_VOXELS = 4e6

# Recursive filters and gradients need some voxels along each axis.
_FEWEST_ALONG_AXIS = 8

# The coarsest level finds its way over about half of these steps.
_START_ROTATION_DEG = 18.0
_START_SHIFT_MM = 50.0

# A right registration of the measured sets stays far from these (docs/registration.md).
_LEAST_OVERLAP = 0.3
_LEAST_INFORMATION = 0.15
_MOST_ROTATION_DEG = 45.0
_MOST_INCONSISTENCY_MM = 3.0


@dataclass(frozen=True)
class _Level:
    """One resolution: voxels ``coarsening`` times the finest, and the optimiser's steps in mm."""

    coarsening: int
    n_samples: int
    first_step_mm: float
    last_step_mm: float
    relaxation: float
    most_steps: int


# Tuned on known transforms, see docs/registration.md. The last level must shrink its steps slowly,
# else it stops short on the noise of the sampled metric.
_LEVELS = (
    _Level(4, 20_000, 8.0, 0.5, 0.6, 100),
    _Level(2, 50_000, 4.0, 0.05, 0.6, 100),
    _Level(1, 100_000, 0.5, 0.001, 0.8, 100),
)

# The way back only has to tell a right result from a wrong one.
_BACK = (*_LEVELS[:2], _Level(1, 50_000, 0.5, 0.01, 0.6, 30))


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
        Steps at each level, coarse to fine.
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
class _Found:
    transform: sitk.Euler3DTransform
    metric: float
    iterations: tuple[int, ...]


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

    Mattes mutual information over three resolutions. The coarsest level is run from several
    starts (centres and moments aligned, world coordinates as they are, turned, shifted); the best
    two go on. Each optimisation has one thread, because sums in several change with their number:
    the result is the same in every run and for every ``threads``, which run side by side only what
    is independent.

    Parameters
    ----------
    window
        Range of fixed values that is looked at, others are clipped: by default the soft tissues
        of a CT in HU, with edges to air and bone. None takes all.

    Raises
    ------
    BadDataError
        An image is constant, has another shape than its grid, or is too thin; or no start makes the
        images overlap.
    """
    began = time.perf_counter()
    fixed, fixed_grid = _prepared("fixed", fixed, fixed_grid, window)
    moving, moving_grid = _prepared("moving", moving, moving_grid, None)
    finest_mm = max(
        _FINEST_MM, float((fixed_grid.n_voxels * fixed_grid.voxel_volume_ml * 1e3 / _MOST_VOXELS) ** (1 / 3))
    )
    images = [
        _pyramid(_image(data, grid), finest_mm, threads)
        for data, grid in ((fixed, fixed_grid), (moving, moving_grid))
    ]
    directions = [(*images, _LEVELS), (*images[::-1], _BACK)][: 2 if check_inverse else 1]
    with ThreadPoolExecutor(max_workers=max(1, min(threads, len(directions)))) as pool:
        found = list(pool.map(lambda way: _search(*way, seed=seed), directions))
    matrix = _matrix(found[0].transform)
    inconsistency_mm = float("nan")
    if check_inverse:
        inconsistency_mm = _mean_motion_mm(matrix @ _matrix(found[1].transform), fixed_grid)
    before = _information(images[0][1], images[1][1], sitk.Euler3DTransform(), seed)
    after = _information(images[0][1], images[1][1], found[0].transform, seed)
    overlap = _overlap(images[0][0], images[1][0], found[0].transform)
    return RigidRegistration(
        matrix=matrix,
        metric_before=before,
        metric_after=after,
        inverse_consistency_mm=inconsistency_mm,
        overlap=overlap,
        flags=_flags(matrix, before, after, inconsistency_mm, overlap),
        iterations=found[0].iterations,
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


def _prepared(
    name: str, data: NDArray[Any], grid: Grid, window: tuple[float, float] | None
) -> tuple[NDArray[np.float32], Grid]:
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
    return _cropped(values, grid, values > values.min(), _AIR_MARGIN_MM)


def _cropped(data: NDArray[Any], grid: Grid, mask: BoolArray, margin_mm: float) -> tuple[NDArray[Any], Grid]:
    bounds = []
    for axis in range(3):
        reached = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = int(np.ceil(margin_mm / grid.voxel_sizes_mm[axis]))
        low = max(int(reached[0]) - margin, 0)
        high = min(int(reached[-1]) + 1 + margin, grid.shape[axis])
        low = max(0, min(low, grid.shape[axis] - _FEWEST_ALONG_AXIS))
        bounds.append((low, min(grid.shape[axis], max(high, low + _FEWEST_ALONG_AXIS))))
    affine = grid.affine.copy()
    affine[:3, 3] = (grid.affine @ [*(low for low, _ in bounds), 1.0])[:3]
    part = data[tuple(slice(low, high) for low, high in bounds)]
    return part, Grid((part.shape[0], part.shape[1], part.shape[2]), affine)


def _image(data: NDArray[Any], grid: Grid) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T, dtype=np.float32))
    lps = _LPS @ grid.affine
    image.SetSpacing(grid.voxel_sizes_mm.tolist())
    image.SetDirection((lps[:3, :3] / grid.voxel_sizes_mm).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _pyramid(image: sitk.Image, finest_mm: float, threads: int) -> list[sitk.Image]:
    """The image at every level, blurred to the width of the larger voxels before it is thinned out."""
    levels = []
    for level in _LEVELS:
        wanted = level.coarsening * finest_mm / np.array(image.GetSpacing())
        most = np.array(image.GetSize()) // _FEWEST_ALONG_AXIS
        factors = np.maximum(1, np.minimum(np.floor(wanted + 0.51), most)).astype(int)
        smoothed = image
        for axis in np.flatnonzero(factors > 1):
            blur = sitk.RecursiveGaussianImageFilter()
            blur.SetNumberOfThreads(threads)
            blur.SetDirection(int(axis))
            fwhm_voxels = np.sqrt(factors[axis] ** 2 - 1.0)
            blur.SetSigma(float(fwhm_voxels / np.sqrt(8 * np.log(2)) * image.GetSpacing()[int(axis)]))
            smoothed = blur.Execute(smoothed)
        levels.append(sitk.Shrink(smoothed, factors.tolist()))
    return levels


def _search(
    fixed: Sequence[sitk.Image], moving: Sequence[sitk.Image], levels: Sequence[_Level], *, seed: int
) -> _Found:
    """The best transform from all starts."""
    coarse = [
        found
        for start in _starts(fixed[0], moving[0])
        if (found := _optimise(fixed[0], moving[0], _Found(start, 0.0, ()), levels[0], seed))
        and _overlap(fixed[0], moving[0], found.transform) >= _LEAST_OVERLAP
    ]
    if not coarse:
        raise BadDataError(
            "The two images cannot be made to overlap from any start; check that they show the same part "
            "of the same patient."
        )
    coarse.sort(key=lambda found: -found.metric)
    middle = [_optimise(fixed[1], moving[1], found, levels[1], seed) for found in coarse[:2]]
    best = max((found for found in middle if found), key=lambda found: found.metric, default=coarse[0])
    return _optimise(fixed[2], moving[2], best, levels[2], seed) or best


def _starts(fixed: sitk.Image, moving: sitk.Image) -> list[sitk.Euler3DTransform]:
    """Centres aligned, also turned and shifted; moments aligned; world coordinates as they are."""
    kinds = sitk.CenteredTransformInitializerFilter
    centred = _centred(fixed, moving, kinds.GEOMETRY)
    as_stored = sitk.Euler3DTransform(centred)
    as_stored.SetTranslation((0.0, 0.0, 0.0))
    starts = [centred, as_stored, _centred(fixed, moving, kinds.MOMENTS)]
    for axis in range(3):
        for sign in (-1, 1):
            angles = [0.0, 0.0, 0.0]
            angles[axis] = sign * np.radians(_START_ROTATION_DEG)
            turned = sitk.Euler3DTransform(centred)
            turned.SetRotation(*angles)
            starts.append(turned)
    return starts + _shifted(fixed, moving, centred)


def _centred(fixed: sitk.Image, moving: sitk.Image, kind: int) -> sitk.Euler3DTransform:
    start = sitk.CenteredTransformInitializer(fixed, moving, sitk.Euler3DTransform(), kind)
    return sitk.Euler3DTransform(start)


def _shifted(
    fixed: sitk.Image, moving: sitk.Image, centred: sitk.Euler3DTransform
) -> list[sitk.Euler3DTransform]:
    """Starts along the world axes in which one image sees more than the other."""
    starts = []
    spare_mm = np.abs(np.ptp(_corners(fixed), axis=0) - np.ptp(_corners(moving), axis=0)) / 2
    for axis in range(3):
        n_steps = int(spare_mm[axis] // _START_SHIFT_MM + 0.5)
        for step in [*range(-n_steps, 0), *range(1, n_steps + 1)]:
            translation = np.array(centred.GetTranslation())
            translation[axis] += step * _START_SHIFT_MM
            shifted = sitk.Euler3DTransform(centred)
            shifted.SetTranslation(translation.tolist())
            starts.append(shifted)
    return starts


def _method(n_voxels: int, n_samples: int, seed: int) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetNumberOfWorkUnits(1)
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, n_samples / n_voxels), seed)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _optimise(
    fixed: sitk.Image, moving: sitk.Image, start: _Found, level: _Level, seed: int
) -> _Found | None:
    """The optimum that is reached from ``start``; None when the images slide apart on the way."""
    method = _method(fixed.GetNumberOfPixels(), level.n_samples, seed)
    method.SetOptimizerAsRegularStepGradientDescent(
        level.first_step_mm, level.last_step_mm, level.most_steps, level.relaxation, 1e-8
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start.transform, inPlace=False)
    try:
        reached = method.Execute(fixed, moving)
    except RuntimeError:  # SimpleITK's only error; here it means that too few samples overlap
        return None
    while isinstance(reached, sitk.CompositeTransform):
        reached = reached.GetBackTransform()
    iterations = (*start.iterations, method.GetOptimizerIteration())
    return _Found(sitk.Euler3DTransform(reached), -method.GetMetricValue(), iterations)


def _information(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform, seed: int) -> float:
    """Mutual information in nats, 0 without overlap."""
    method = _method(fixed.GetNumberOfPixels(), _LEVELS[1].n_samples, seed)
    method.SetInitialTransform(transform)
    try:
        return -float(method.MetricEvaluate(fixed, moving))
    except RuntimeError:  # too few samples overlap
        return 0.0


def _corners(image: sitk.Image) -> NDArray[np.float64]:
    """World positions (LPS) of the corner voxels, shape (8, 3)."""
    ends = [(0, n - 1) for n in image.GetSize()]
    return np.array(
        [image.TransformIndexToPhysicalPoint((i, j, k)) for i in ends[0] for j in ends[1] for k in ends[2]]
    )


def _index_matrix(image: sitk.Image) -> Matrix:
    """Voxel index to LPS world."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return matrix


def _overlap(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    """Part of the smaller image's box that lies in the other image."""
    to_moving = np.linalg.inv(_index_matrix(moving)) @ _affine(transform) @ _index_matrix(fixed)
    index = np.indices(fixed.GetSize()).reshape(3, -1)
    half = (np.array(moving.GetSize())[:, None] - 1) / 2
    landed = to_moving[:3, :3] @ index + to_moving[:3, 3:]
    inside = (np.abs(landed - half) <= half + 0.5).all(axis=0)
    volumes = [np.prod(image.GetSpacing()) * image.GetNumberOfPixels() for image in (fixed, moving)]
    return float(min(1.0, inside.mean() * volumes[0] / min(volumes)))


def _affine(transform: sitk.Transform) -> Matrix:
    """4x4 LPS matrix of a rigid or identity transform."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(unit)) - origin for unit in np.eye(3).tolist()]
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack(columns, axis=1)
    matrix[:3, 3] = origin
    return matrix


def _matrix(fixed_to_moving: sitk.Transform) -> Matrix:
    """Moving-to-fixed RAS matrix of SimpleITK's fixed-to-moving LPS transform."""
    matrix: Matrix = _LPS @ np.linalg.inv(_affine(fixed_to_moving)) @ _LPS
    return matrix


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
