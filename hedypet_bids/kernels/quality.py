"""Numbers that show whether a scan can be trusted, each with its normal range."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.kinetics.input_curve import MOST_LONGEST_FRAMES
from hedypet_bids.model import BoolArray, FloatArray, FrameTimes, Grid

# Uptake changes quickly at first, which moves centroids and lowers correlations without any motion.
SETTLED_S = 1800.0

# Of the mean uptake of the body: below fat, above the noise of air in frames of minutes.
_OUTLINE_FRACTION = 0.1
# Below this correlation the frames show different things (first pass against uptake), not motion.
_COMPARABLE_NCC = 0.5
_WHOLE_WINDOW = 0.99


@dataclass(frozen=True)
class NormalRange:
    """The range in which a number is nothing to worry about, and what to look at when it is outside."""

    low: float
    high: float
    units: str
    meaning: str
    outside: str


NORMAL_RANGES: Mapping[str, NormalRange] = {
    # 41 published hedyPET participants: 0.658 to 0.977, median 0.85 (urine is voided, limbs are cut off).
    "activity_fraction": NormalRange(
        0.65,
        1.0,
        "1",
        "activity in the field of view over injected activity",
        "check dose and its units, the activity left in the syringe, decay correction, and the field of view",
    ),
    # The same participants: 0.98 to 1.03 in spleen, liver, pancreas, brain and heart.
    "static_over_dynamic": NormalRange(
        0.97,
        1.03,
        "1",
        "static mean over the mean of the dynamic frames in the same window",
        "check units, frame times and decay correction of both images",
    ),
    # A 4 mm shift of the body is seen as 4 mm, one of the head alone as 1.3 mm; without motion the
    # uptake of the late frames makes less than 0.2 mm.
    "body_shift_mm": NormalRange(
        0.0,
        1.0,
        "mm",
        "largest displacement of the body from the reference frame",
        "check for motion between the frames",
    ),
    "body_centroid_shift_mm": NormalRange(
        0.0,
        3.0,
        "mm",
        "largest displacement of the body's centroid from the reference frame",
        "check for motion between the frames",
    ),
    "body_ncc": NormalRange(
        0.9,
        1.0,
        "1",
        "lowest correlation of a frame with the reference frame inside the body",
        "check for motion between the frames",
    ),
    # By then the bolus is in the blood: what was missed of it lacks in every integral of the input function.
    "blood_missed_s": NormalRange(
        0.0,
        5.0,
        "s",
        "time after injection of which the input functions saw no blood",
        "Ki is too high by the blood that was missed: start the scan with the injection",
    ),
    # In lengths of a frame, so that one range fits every framing.
    "blood_gap_in_frames": NormalRange(
        0.0,
        MOST_LONGEST_FRAMES,
        "1",
        "longest gap between frames, over which input functions are interpolated, over the longest frame",
        "the blood in the gap is a guess, log-linear after the peak, and so is its part of Ki",
    ),
    "negative_fraction": NormalRange(
        0.0,
        0.05,
        "1",
        "part of the voxels that are negative",
        "check the reconstruction and the scaling of the image",
    ),
    "static_negative_fraction": NormalRange(
        0.0,
        0.05,
        "1",
        "part of the static PET's voxels that are negative",
        "check the reconstruction and the scaling of the image",
    ),
    "static_not_finite_voxels": NormalRange(
        0.0,
        0.0,
        "voxels",
        "voxels of the static PET that are NaN or infinite",
        "check the reconstruction; these voxels are left out of all means",
    ),
    # The same participants: brain 1132 to 1617, liver 1044 to 2120, aorta 115 to 435 mL.
    "brain_volume_ml": NormalRange(
        900.0,
        1900.0,
        "mL",
        "volume of the brain",
        "check that the CT covers the brain and that it is segmented as one piece",
    ),
    "liver_volume_ml": NormalRange(
        700.0,
        3000.0,
        "mL",
        "volume of the liver",
        "check that the CT covers the liver and that it is segmented as one piece",
    ),
    "aorta_volume_ml": NormalRange(
        80.0,
        700.0,
        "mL",
        "volume of the aorta",
        "check that the aorta is complete: the input functions need it",
    ),
    "spleen_left_of_liver_mm": NormalRange(
        50.0,
        400.0,
        "mm",
        "distance of the spleen to the left of the liver",
        "check the affine of the CT and the side of the labels (or situs inversus)",
    ),
    "sides_swapped": NormalRange(
        0.0,
        0.0,
        "pairs",
        "pairs of left and right regions of which the left one lies to the right",
        "check the affine of the CT, and whether the labels were mirrored or renumbered",
    ),
    "heart_left_of_midline_mm": NormalRange(
        0.0,
        100.0,
        "mm",
        "distance of the heart to the left of the middle between left and right regions",
        "check the affine of the CT and the side of the labels (or situs inversus)",
    ),
    "prostate_of_a_woman_ml": NormalRange(
        0.0,
        1.0,
        "mL",
        "volume labelled as prostate in a woman",
        "check the sex in participants.tsv, that the segmentation is this person's, and its label table",
    ),
    "organs_cut": NormalRange(
        0.0,
        20.0,
        "regions",
        "regions that reach the first or last slice",
        "the field of view cuts organs, whose volume and means are those of a part",
    ),
    "labels_outside_body": NormalRange(
        0.0, 0.02, "1", "part of the labelled voxels that lie outside the body", "look at the segmentation"
    ),
    # SynthSeg's authors reject below 0.65 (Billot et al., PNAS 2023;120(9):e2216399120).
    "synthseg_lowest_score": NormalRange(
        0.65, 1.0, "1", "lowest of SynthSeg's own quality scores", "check the segmentation of the brain"
    ),
    "not_finite_voxels": NormalRange(
        0.0,
        0.0,
        "voxels",
        "voxels that are NaN or infinite",
        "check the reconstruction; these voxels are left out of all means",
    ),
}

CheckState = Literal["normal", "outside", "unknown"]


@dataclass(frozen=True)
class QualityCheck:
    """A number beside its normal range; ``text`` is a sentence for the report, empty when normal."""

    name: str
    value: float
    low: float
    high: float
    units: str
    meaning: str
    state: CheckState
    text: str


@dataclass(frozen=True, eq=False)
class BodyReference:
    """The frame that the others are compared with.

    Parameters
    ----------
    level
        The frame with its uptake x levelled to x/(|x| + m), m the mean of the body, so that
        bladder and brain do not decide alone; float32, shape (i, j, k).
    body
        Mask of the body, same shape.
    grid
        Their voxel grid.
    centroid_mm
        Middle of the body in world mm, found as for every other frame.
    """

    level: NDArray[np.float32]
    body: BoolArray
    grid: Grid
    centroid_mm: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FrameQuality:
    """What one frame shows.

    Parameters
    ----------
    total
        Sum of the finite voxels; times the voxel volume it is the activity in the field of view.
    n_negative, n_not_finite
        Numbers of voxels.
    ncc
        Correlation of the levelled frames inside the body, -1 to 1; NaN where one is constant.
    shift_mm
        Displacement from the reference frame in world mm, shape (3,), from the reference's
        gradients: good up to about the resolution of the image, too small beyond; NaN where the
        frames are too different to compare.
    centroid_mm
        Middle of the body's outline in world mm, shape (3,); NaN where nothing stands out.
    centroid_shift_mm
        Its distance from that of the reference frame.
    """

    total: float
    n_negative: int
    n_not_finite: int
    ncc: float
    shift_mm: NDArray[np.float64]
    centroid_mm: NDArray[np.float64]
    centroid_shift_mm: float


def quality_check(name: str, value: float) -> QualityCheck:
    """A number judged by the normal range of that name in ``NORMAL_RANGES``."""
    normal = NORMAL_RANGES[name]
    state: CheckState = "unknown"
    text = f"{normal.meaning}: unknown"
    if math.isfinite(value):
        state = "normal" if normal.low <= value <= normal.high else "outside"
        text = "" if state == "normal" else _outside_text(normal, value)
    return QualityCheck(name, value, normal.low, normal.high, normal.units, normal.meaning, state, text)


def blood_checks(frames: FrameTimes) -> Iterator[QualityCheck]:
    """What a series did not see of the blood: its start, and the longest gap between frames.

    Parameters
    ----------
    frames
        When the frames are, s from injection.
    """
    yield quality_check("blood_missed_s", frames.missed_s)
    gap_s = frames.gap_s.max(initial=0.0)
    yield quality_check("blood_gap_in_frames", float(gap_s / frames.duration_s.max()))


def activity_fraction(total_bq_ml: float, *, voxel_volume_ml: float, dose_bq: float) -> float:
    """Activity in the field of view over the injected activity; NaN for an unknown dose.

    Parameters
    ----------
    total_bq_ml
        Sum of all voxels of an image in Bq/mL, decay-corrected to injection.
    """
    if not dose_bq > 0:
        return math.nan
    return total_bq_ml * voxel_volume_ml / dose_bq


def static_over_dynamic(
    static: FloatArray, curves: FloatArray, frames: FrameTimes, *, start_s: float, end_s: float
) -> NDArray[np.float64]:
    """Static means over the duration-weighted means of the dynamic frames in the same window.

    Parameters
    ----------
    static
        Means of the static image, Bq/mL, shape (n_regions,).
    curves
        Means per frame of the same regions, shape (n_regions, n_frames).
    start_s, end_s
        Window of the static image, s from injection. A frame counts with the part of
        its duration that lies in it.

    Returns
    -------
    NDArray
        Shape (n_regions,); NaN where the dynamic mean is not positive, and everywhere
        when the frames cover less than 99 % of the window.
    """
    overlap_s = np.minimum(frames.end_s, end_s) - np.maximum(frames.start_s, start_s)
    weight_s = np.maximum(overlap_s, 0.0)
    if weight_s.sum() < _WHOLE_WINDOW * (end_s - start_s):
        return np.full(len(static), np.nan)
    inside = weight_s > 0
    values: NDArray[np.float64] = np.asarray(curves, dtype=np.float64)[:, inside]
    dynamic = values @ (weight_s[inside] / weight_s.sum())
    ratio = np.full(len(static), np.nan)
    np.divide(static, dynamic, out=ratio, where=dynamic > 0)
    return ratio


def body_reference(image: FloatArray, grid: Grid, *, body: BoolArray | None = None) -> BodyReference:
    """A reference frame: a late, long one, so that the body stands out from the noise.

    Parameters
    ----------
    image
        The frame, shape (i, j, k).
    body
        Mask of the body; without one, the voxels above a tenth of the mean of those
        voxels that exceed the image's mean.

    Raises
    ------
    BadDataError
        The shapes differ, or no voxel of the frame stands out.
    """
    for array in (image, body):
        if array is not None:
            _check_shape(array, grid)
    mask: BoolArray = _above_noise(image) if body is None else body
    n_body, body_sum = _counts(image, mask)[3:]
    if not body_sum > 0:
        raise BadDataError(
            "The reference frame shows no body: it is empty or constant. Choose another frame."
        )
    mean = np.float32(body_sum / n_body)
    with np.errstate(invalid="ignore"):
        level = np.asarray(image / (np.abs(image) + mean), dtype=np.float32)
    centroid = _outline_centroid(image, _OUTLINE_FRACTION * float(mean))
    return BodyReference(level, mask, grid, _world_mm(grid, centroid))


def frame_quality(image: FloatArray, reference: BodyReference) -> FrameQuality:
    """Voxel counts of a frame, and how far its body lies from that of the reference frame.

    Raises
    ------
    BadDataError
        The frame does not have the shape of the reference frame.
    """
    _check_shape(image, reference.grid)
    order = _memory_order(image)
    frame, level = image.transpose(order), reference.level.transpose(order)
    body = reference.body.transpose(order)
    total, n_negative, n_not_finite, n_body, body_sum = _counts(frame, body)
    centroid, shift, ncc = np.full(3, np.nan), np.full(3, np.nan), math.nan
    if body_sum > 0:
        mean = body_sum / n_body
        centroid[list(order)] = _outline_centroid(frame, _OUTLINE_FRACTION * mean)
        products = _products(frame, level, body, mean)
        ncc = _correlation(products)
        if ncc >= _COMPARABLE_NCC:
            shift[list(order)] = _displacement(products)
    centroid_mm = _world_mm(reference.grid, centroid)
    return FrameQuality(
        total=float(total),
        n_negative=int(n_negative),
        n_not_finite=int(n_not_finite),
        ncc=ncc,
        shift_mm=reference.grid.affine[:3, :3] @ shift,
        centroid_mm=centroid_mm,
        centroid_shift_mm=float(np.linalg.norm(centroid_mm - reference.centroid_mm)),
    )


def drift_checks(
    qualities: Sequence[FrameQuality], frames: FrameTimes, *, from_s: float = SETTLED_S
) -> tuple[QualityCheck, ...]:
    """The motion flags: the worst displacement, centroid shift and correlation from a time on.

    Parameters
    ----------
    qualities
        One per frame, in order.
    from_s
        Frames that start earlier are left out, s from injection.
    """
    late = [q for q, start_s in zip(qualities, frames.start_s, strict=True) if start_s >= from_s]
    shifts = [float(np.linalg.norm(q.shift_mm)) for q in late]
    centroid_shifts = [q.centroid_shift_mm for q in late]
    correlations = [q.ncc for q in late]
    return (
        quality_check("body_shift_mm", max(filter(math.isfinite, shifts), default=math.nan)),
        quality_check(
            "body_centroid_shift_mm", max(filter(math.isfinite, centroid_shifts), default=math.nan)
        ),
        quality_check("body_ncc", min(filter(math.isfinite, correlations), default=math.nan)),
    )


def _check_shape(image: FloatArray | BoolArray, grid: Grid) -> None:
    if image.shape != grid.shape:
        raise BadDataError(f"A frame of shape {image.shape} is not on the grid of shape {grid.shape}.")


def _memory_order(image: FloatArray) -> tuple[int, ...]:
    """The axes from slowest to fastest in memory; large frames scanned otherwise take ten times as long."""
    return tuple(int(axis) for axis in np.argsort(image.strides, kind="stable")[::-1])


def _world_mm(grid: Grid, index: NDArray[np.float64]) -> NDArray[np.float64]:
    world: NDArray[np.float64] = grid.affine[:3, :3] @ index + grid.affine[:3, 3]
    return world


def _outside_text(normal: NormalRange, value: float) -> str:
    units = "" if normal.units == "1" else f" {normal.units}"
    return (
        f"{normal.meaning} is {value:.4g}{units}; normal is {normal.low:g} to {normal.high:g}{units}: "
        f"{normal.outside}"
    )


def _above_noise(image: FloatArray) -> BoolArray:
    finite = np.isfinite(image)
    if not finite.any():
        return np.asarray(finite, dtype=np.bool_)
    bright = finite & (image > np.mean(image, where=finite, dtype=np.float64))
    if not bright.any():
        return bright
    threshold = _OUTLINE_FRACTION * float(np.mean(image, where=bright, dtype=np.float64))
    return np.asarray(image > threshold, dtype=np.bool_)


def _correlation(products: NDArray[np.float64]) -> float:
    """Pearson's correlation of frame and reference from the sums of products."""
    n, x, r = products[1, 1], products[5, 1], products[0, 1]
    xx = products[5, 5] - x * x / max(n, 1.0)
    rr = products[0, 0] - r * r / max(n, 1.0)
    # What is left of a constant image after subtraction is rounding.
    if xx <= 1e-12 * products[5, 5] or rr <= 1e-12 * products[0, 0]:
        return math.nan
    return float((products[5, 0] - x * r / n) / math.sqrt(xx * rr))


def _displacement(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift in voxels of the frame x from the reference r, by least squares of x = a (r - d.grad r) + b."""
    normal = products[:5, :5]
    if np.linalg.matrix_rank(normal, hermitian=True) < 5:
        return np.full(3, np.nan)
    solution = np.linalg.solve(normal, products[5, :5])
    displacement: NDArray[np.float64] = -solution[2:] / solution[0]
    return displacement


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _counts(image: FloatArray, body: BoolArray) -> NDArray[np.float64]:
    """Total of the finite voxels, numbers of negative and of other voxels, number and total in the body."""
    sums = np.zeros(5)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            for k in range(image.shape[2]):
                x = np.float64(image[i, j, k])
                if not np.isfinite(x):
                    sums[2] += 1
                    continue
                sums[0] += x
                if x < 0:
                    sums[1] += 1
                if body[i, j, k]:
                    sums[3] += 1
                    sums[4] += x
    return sums


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _products(image: FloatArray, level: FloatArray, body: BoolArray, mean: float) -> NDArray[np.float64]:
    """Sums over the body of the products of r, 1, the three differences of r, and x; shape (6, 6).

    r is the levelled reference, x the frame, levelled in the same way. The lower triangle and the
    diagonal are summed, then mirrored.
    """
    sums = np.zeros((6, 6))
    row = np.ones(6)
    for i in range(1, image.shape[0] - 1):
        for j in range(1, image.shape[1] - 1):
            for k in range(1, image.shape[2] - 1):
                if not body[i, j, k]:
                    continue
                x = np.float64(image[i, j, k])
                row[0] = level[i, j, k]
                row[2] = (level[i + 1, j, k] - level[i - 1, j, k]) / 2
                row[3] = (level[i, j + 1, k] - level[i, j - 1, k]) / 2
                row[4] = (level[i, j, k + 1] - level[i, j, k - 1]) / 2
                row[5] = x / (abs(x) + mean)
                if not np.isfinite(row.sum()):
                    continue
                for a in range(6):
                    for b in range(a + 1):
                        sums[a, b] += row[a] * row[b]
    for a in range(6):
        for b in range(a):
            sums[b, a] = sums[a, b]
    return sums


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _outline_centroid(image: FloatArray, edge: float) -> NDArray[np.float64]:
    """Mean index of the body's voxels; NaN without any.

    The weight of a voxel rises from 0 to 1 while its uptake rises from half the edge value to one
    and a half: no jumps as with a threshold, no noise of the air, no weight of bright organs.
    """
    sums = np.zeros(3)
    total = 0.0
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            row = 0.0
            row_k = 0.0
            for k in range(image.shape[2]):
                x = np.float64(image[i, j, k])
                if x > 0.5 * edge:
                    weight = min(x / edge - 0.5, 1.0)
                    row += weight
                    row_k += weight * k
            total += row
            sums[0] += i * row
            sums[1] += j * row
            sums[2] += row_k
    return sums / total if total > 0 else np.full(3, np.nan)
