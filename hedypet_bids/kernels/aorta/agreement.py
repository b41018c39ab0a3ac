"""Is this aorta, with its curves, like the ones that were seen before?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.aorta.bolus import leading_edge_s
from hedypet_bids.kernels.aorta.centreline import cloud_of, crop_to
from hedypet_bids.kernels.aorta.segments import HEDYPET_RANGES, SEGMENT_NAMES
from hedypet_bids.model import BoolArray, FloatArray, FrameTimes, Matrix

LATE_START_S = 2400.0
"""From here on the blood curve is flat: the last 30 minutes of a 70 minute scan."""

# The leading edge lies between 2 s frames; in published curves it steps back by up to 0.3 s between segments.
_BACKWARD_TOLERANCE_S = 0.5


@dataclass(frozen=True)
class WallDistance:
    """How far the voxels of a volume of interest are from the wall of the aorta, mm."""

    least_mm: float
    median_mm: float


def wall_distance_mm(vois: NDArray[np.uint8], aorta: BoolArray, affine: Matrix) -> dict[int, WallDistance]:
    """Distance from the VOI voxels to the nearest voxel middle outside the aorta, per segment in ``vois``.

    A voxel at the wall has about the size of a voxel; a voxel outside the aorta has 0.

    Raises
    ------
    BadDataError
        The shapes differ or the aorta is empty.
    """
    if vois.shape != aorta.shape:
        raise BadDataError(f"VOIs of shape {vois.shape} do not fit an aorta mask of shape {aorta.shape}.")
    crop = crop_to(aorta, affine)
    box = crop.take(aorta)
    cloud = cloud_of(box, crop)
    depth = np.zeros(box.shape)
    depth[tuple(cloud.voxels.T)] = cloud.depth_mm
    inside = crop.take(vois)
    found = {}
    for label in SEGMENT_NAMES:
        distances = depth[inside == label]
        outside = np.count_nonzero(vois == label) - distances.size
        distances = np.concatenate([distances, np.zeros(outside)])
        if distances.size:
            found[label] = WallDistance(float(distances.min()), float(np.median(distances)))
    return found


def leading_edge_delays_s(curves: Mapping[int, FloatArray], frames: FrameTimes) -> dict[int, float]:
    """When the bolus reaches each segment, s after the first segment in ``curves``; NaN where unknown.

    Parameters
    ----------
    curves
        Mean curve by segment label, Bq/mL, each of shape (n_frames,).
    """
    edges = {label: leading_edge_s(curves[label], frames) for label in sorted(curves)}
    first = next(iter(edges.values()), float("nan"))
    return {label: edge - first for label, edge in edges.items()}


def late_max_over_min(curves: Mapping[int, FloatArray], frames: FrameTimes) -> float:
    """Highest over lowest late mean of the segments; NaN for fewer than two curves or no late frame.

    The blood is mixed by then, so the segments differ only by noise, partial volume and spill-in.
    """
    late = frames.start_s >= LATE_START_S
    if len(curves) < 2 or not late.any():
        return float("nan")
    weights = frames.duration_s[late]
    means = [
        float(np.average(np.asarray(c, dtype=np.float64)[late], weights=weights)) for c in curves.values()
    ]
    return max(means) / min(means) if min(means) > 0 else float("nan")


def unusual(measures: Mapping[str, float]) -> tuple[str, ...]:
    """A sentence for each measure of ``HEDYPET_RANGES`` that lies outside its range or is unknown."""
    flags = []
    for name, (low, high) in HEDYPET_RANGES.items():
        value = measures.get(name)
        if value is None:
            continue
        if not np.isfinite(value):
            flags.append(f"{name} could not be measured.")
        elif not low <= value <= high:
            flags.append(f"{name} is {value:.2f}; normal is {low:g} to {high:g}.")
    return tuple(flags)


def unordered(delays_s: Mapping[int, float]) -> tuple[str, ...]:
    """A sentence for each segment that the bolus reaches clearly before the segment upstream of it."""
    known = [(label, delay) for label, delay in sorted(delays_s.items()) if np.isfinite(delay)]
    return tuple(
        f"The bolus reaches the {SEGMENT_NAMES[b]} aorta {before - after:.1f} s "
        f"before the {SEGMENT_NAMES[a]}."
        for (a, before), (b, after) in pairwise(known)
        if after < before - _BACKWARD_TOLERANCE_S
    )
