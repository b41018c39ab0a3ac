"""The four segments of the aorta from a mask, by its centreline in world mm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.aorta.centreline import (
    Cloud,
    Indices,
    Points,
    cloud_of,
    crop_to,
    inside_at,
    nearest_points,
)
from hedypet_bids.kernels.aorta.fragments import Tube, join_pieces
from hedypet_bids.model import BoolArray, Grid, Matrix

ASCENDING, TOP, UPPER_DESCENDING, LOWER_DESCENDING = 1, 2, 3, 4
SEGMENT_NAMES: Mapping[int, str] = MappingProxyType(
    {
        ASCENDING: "ascending",
        TOP: "top",
        UPPER_DESCENDING: "upper descending",
        LOWER_DESCENDING: "lower descending",
    }
)

# A limb shorter than this beside the highest point is a bend, not one side of an arch.
_MIN_LIMB_MM = 15.0
# An ascending aorta is 5 to 11 cm from valve to arch; nothing longer than this can be one.
_MAX_ASCENDING_MM = 150.0
# Below this distance front to back the two limbs are not told apart by which of them is in front.
_MIN_FRONT_MM = 10.0
_MIN_AORTA_ML = 5.0
_MIN_LINE_MM = 25.0
_ANEURYSM_RADIUS_MM = 20.0
# The descending aorta of a patient lying straight leans up to about 10 degrees against the table, forward
# and to the middle. Beyond this the patient (or the affine) is turned, and levels follow the aorta instead.
_MAX_LEAN_DEGREES = 15.0
# A shorter stretch of descending aorta follows the bend of the spine more than the patient's axis.
_MIN_AXIS_MM = 180.0
_UP = np.array([0.0, 0.0, 1.0])

HEDYPET_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "median_radius_mm": (8.7, 13.0),
        "delay_s": (0.0, 11.0),
        "late_max_over_min": (1.0, 1.34),
    }
)
"""Range over the hedyPET participants: radius of the aorta, delay of the leading edge from the ascending
to the lower descending aorta, highest over lowest late mean of the four segments (from 1.05 there; equal
means are what is to be expected, and nothing to look at)."""


@dataclass(frozen=True, eq=False)
class AortaSegments:
    """The aorta in four segments, its centreline, and what was odd about it.

    Parameters
    ----------
    labels
        uint8, shape of the mask: 0 outside, 1 ascending, 2 top, 3 upper descending, 4 lower descending.
    points_mm
        Centreline in world mm at 1 mm steps in the direction of blood flow, shape (n, 3). Where the
        arch is missing the ascending limb comes first and the line jumps to the descending limb.
    radius_mm
        Radius of the disc with the area of the lumen at each point, shape (n,).
    segment
        Label of each point, shape (n,).
    flags
        What is missing or unusual, one sentence each; empty for an ordinary aorta.
    qc
        ``centreline_length_mm``, ``median_radius_mm``, ``max_radius_mm``, ``dropped_ml``,
        ``joined_gaps``, ``volume_ml_<label>`` for each of the four labels.
    """

    labels: NDArray[np.uint8]
    points_mm: NDArray[np.float64]
    radius_mm: NDArray[np.float64]
    segment: NDArray[np.uint8]
    flags: tuple[str, ...]
    qc: dict[str, float]


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Labels of the voxels and of the line, in the frame of the crop."""

    cloud: Cloud
    voxel_labels: NDArray[np.uint8]
    line: Points
    radius_mm: NDArray[np.float64]
    line_labels: NDArray[np.uint8]
    flags: list[str]


def segment_aorta(mask: BoolArray, affine: Matrix) -> AortaSegments:
    """The segments of the aorta in a mask.

    Above the inner curve of the arch everything is the top, as on axial slices where both limbs have
    merged. Below it the ascending limb is told from the descending one by the centreline, and the
    lowest level of the ascending limb parts the upper from the lower descending aorta.

    Parameters
    ----------
    mask
        Shape (i, j, k), in any storage order.
    affine
        4x4, voxels to world RAS+ mm.

    Raises
    ------
    BadDataError
        The mask is not 3D, is empty, or holds nothing shaped like an aorta.
    """
    if mask.ndim != 3:
        raise BadDataError(f"The aorta mask must have three dimensions; found shape {mask.shape}.")
    grid = Grid((mask.shape[0], mask.shape[1], mask.shape[2]), affine)
    mask = np.asarray(mask, dtype=bool)
    if not mask.any():
        raise BadDataError(
            "The aorta mask is empty; expected the label of the aorta in the segmentation. "
            "Check the segmentation, or give a mask made by hand with --derivatives aorta=PATH."
        )
    crop = crop_to(mask, grid.affine)
    whole = cloud_of(crop.take(mask), crop)
    _check_volume(whole)
    tubes = join_pieces(whole)
    labelled = _label_tubes(tubes, whole)
    return _result(labelled, whole, tubes[0], mask.shape)


def _check_volume(cloud: Cloud) -> None:
    """Refuse masks that cannot hold an aorta."""
    volume_ml = len(cloud.voxels) * cloud.crop.voxel_volume_ml
    if volume_ml < _MIN_AORTA_ML:
        raise BadDataError(
            f"The aorta mask holds {volume_ml:.2f} mL; expected at least {_MIN_AORTA_ML:g} mL "
            "(a whole aorta has 100 to 400 mL). Check that the right label was selected."
        )


def _label_tubes(tubes: list[Tube], whole: Cloud) -> _Labelled:
    """Labels for the largest tube, and for the other limb where the arch between them is missing."""
    main, line = whole.only(tubes[0].members), tubes[0].line
    if len(line) < _MIN_LINE_MM:
        raise BadDataError(
            f"The largest piece of the aorta mask is {len(line)} mm long; expected a tube of at least "
            f"{_MIN_LINE_MM:g} mm. Check that the right label was selected."
        )
    if _has_arch(line):
        return _label_arch(main, line)
    for tube in tubes[1:]:
        other, other_line = whole.only(tube.members), tube.line
        if _is_other_limb(main, line, other, other_line):
            return _label_two_limbs(main, line, other, other_line)
    return _label_one_limb(main, line)


def _has_arch(line: Points) -> bool:
    """Whether the line rises to a summit and falls again on both sides."""
    z = line[:, 2]
    return bool(z.max() - max(z[0], z[-1]) >= _MIN_LIMB_MM)


def _label_arch(cloud: Cloud, line: Points) -> _Labelled:
    """Labels of an aorta whose arch is in the mask."""
    line, flags = _in_flow_direction(line)
    up, leaning = _up_along(line[int(np.argmax(line[:, 2])) :])
    height, line_height = cloud.points @ up, line @ up
    apex = int(np.argmax(line_height))
    nearest = _nearest(cloud, line)
    radius_mm = _radius(cloud, line, nearest)
    inner = _inner_curve(cloud, line, apex, radius_mm, up)
    rising, line_rising = nearest < apex, np.arange(len(line)) < apex
    ascending = rising & (height < inner)
    root = float(np.percentile(height[ascending], 1)) if ascending.any() else inner
    voxel_labels = _by_height(height, rising, inner, root)
    line_labels = _by_height(line_height, line_rising, inner, root)
    flags += leaning + _field_of_view_flags(cloud, ascending, has_arch=True)
    flags += _side_flags(line, line_labels)
    return _Labelled(cloud, voxel_labels, line, radius_mm, line_labels, flags)


def _up_along(descending: Points) -> tuple[Points, list[str]]:
    """The direction that levels are measured along: world z, or the descending aorta of a turned patient."""
    # The first stretch still belongs to the arch.
    chord = descending[min(40, len(descending) - 1)] - descending[-1]
    length_mm = float(np.linalg.norm(chord))
    if length_mm < _MIN_AXIS_MM:
        return _UP, []
    axis: Points = chord / length_mm
    lean = float(np.degrees(np.arccos(np.clip(axis @ _UP, -1.0, 1.0))))
    if lean <= _MAX_LEAN_DEGREES:
        return _UP, []
    return axis, [
        f"The descending aorta leans {lean:.0f} degrees against the z axis of the scanner: the levels of the "
        "arch and the root were taken along the aorta. Check the orientation of the image."
    ]


def _by_height(
    height: NDArray[np.float64], rising: BoolArray, inner: float, root: float
) -> NDArray[np.uint8]:
    """Segment labels from the height and the limb of each voxel or point."""
    descending = np.where(height < root, LOWER_DESCENDING, UPPER_DESCENDING)
    limb = np.where(rising, ASCENDING, descending)
    return np.where(height >= inner, TOP, limb).astype(np.uint8)


def _in_flow_direction(line: Points) -> tuple[Points, list[str]]:
    """The line from the root to the lower end, and a flag where the limbs are hard to tell apart.

    The ascending limb lies in front. Which limb is longer only decides where neither lies in front,
    or where the front one is too long to be an ascending aorta.
    """
    z = line[:, 2]
    apex = int(np.argmax(z))
    first, second = line[: apex + 1], line[apex:]
    level = max(z[0], z[-1])
    forward_mm = float(_mean_y(first, level) - _mean_y(second, level))
    longer_mm = float(z[0] - z[-1])
    by_length = line if longer_mm > 0 else line[::-1]
    by_front = line if forward_mm > 0 else line[::-1]
    front_limb_mm = float(z[apex] - by_front[0, 2])
    if abs(forward_mm) < _MIN_FRONT_MM:
        return by_length, [
            "Neither limb of the arch lies in front of the other: the shorter one was taken as ascending."
        ]
    if front_limb_mm > _MAX_ASCENDING_MM:
        return by_length, [
            f"The limb in front is {front_limb_mm:.0f} mm long, too long for an ascending aorta: the other "
            "one was taken as ascending. Check the orientation of the image."
        ]
    if (by_front[0, 2] - by_front[-1, 2]) < -_MIN_LIMB_MM:
        return by_front, [
            "The descending aorta ends above the root of the ascending one: it is cut or incomplete."
        ]
    return by_front, []


def _mean_y(limb: Points, level: float) -> float:
    """How far in front a limb lies at the heights that both limbs reach."""
    shared = limb[limb[:, 2] >= level]
    lower = shared[shared[:, 2] <= (level + float(limb[:, 2].max())) / 2]
    return float((lower if len(lower) else shared)[:, 1].mean())


def _nearest(cloud: Cloud, line: Points) -> Indices:
    """Number of the nearest point of the line for each voxel."""
    return nearest_points(line, cloud.points)[1]


def _radius(cloud: Cloud, line: Points, nearest: NDArray[np.int64]) -> NDArray[np.float64]:
    """Radius of the disc with the area of the lumen at each point of the line, mm."""
    steps = np.linalg.norm(np.gradient(line, axis=0), axis=1)
    sigma = max(4.0, 1.5 * float(cloud.crop.voxel_sizes_mm.max()))
    volume_mm3 = np.bincount(nearest, minlength=len(line)) * cloud.crop.voxel_volume_ml * 1000.0
    area = ndimage.gaussian_filter1d(volume_mm3 / steps, sigma, mode="reflect")
    radius: NDArray[np.float64] = np.sqrt(area / np.pi)
    return radius


def _inner_curve(cloud: Cloud, line: Points, apex: int, radius_mm: NDArray[np.float64], up: Points) -> float:
    """Height of the inner curve of the arch, mm: where the limbs merge on axial slices.

    Found by going straight down from the summit of the line to where the lumen ends. Where that is
    not about one radius below the line (touching limbs) one radius is taken.
    """
    arch = np.arange(max(0, apex - 20), min(len(line), apex + 21))
    radius = float(np.median(radius_mm[arch]))
    summit = float(line[apex] @ up)
    box = _without_noise(cloud)
    # Where the line crosses a gap in the mask there is no lumen to leave.
    in_lumen = arch[inside_at(line[arch], cloud.crop, box)]
    central = in_lumen[np.argsort(np.abs(in_lumen - apex), kind="stable")][:9]
    below = np.arange(0.0, 2.0 * radius, 0.5)
    levels = []
    for point in line[central]:
        inside = inside_at(point - below[:, None] * up, cloud.crop, box)
        levels.append(-np.inf if inside.all() else float(point @ up - below[int(np.argmin(inside))]))
    level = float(np.median(levels)) if levels else -np.inf
    # An arch that the field of view cuts has less lumen below its line, so the lower bound is loose.
    return level if 0.2 * radius <= summit - level <= 1.4 * radius else summit - radius


def _without_noise(cloud: Cloud) -> BoolArray:
    """The mask with each voxel set to the majority of the 27 around it."""
    box = np.zeros(cloud.voxels.max(axis=0) + 2)
    box[tuple(cloud.voxels.T)] = 1.0
    return np.asarray(ndimage.uniform_filter(box, 3, mode="constant") > 0.5)


def _is_other_limb(main: Cloud, line: Points, other: Cloud, other_line: Points) -> bool:
    """Whether a second tube can be the other side of an arch that is missing from the mask."""
    tall = bool(np.ptp(other_line[:, 2]) >= _MIN_LIMB_MM)
    level_tops = abs(main.points[:, 2].max() - other.points[:, 2].max()) <= 40.0
    upright = bool(np.ptp(other_line[:, 2]) >= 0.5 * len(other_line)) and tall
    apart = abs(line[:, 1].mean() - other_line[:, 1].mean()) + abs(
        line[:, 0].mean() - other_line[:, 0].mean()
    )
    return upright and level_tops and bool(apart >= _MIN_FRONT_MM)


def _label_two_limbs(main: Cloud, line: Points, other: Cloud, other_line: Points) -> _Labelled:
    """Labels of an ascending and a descending limb without the arch between them."""
    flags = ["The arch is missing from the mask: the ascending and descending limbs are separate, no top."]
    (ascending, up), (descending, down), doubt = _which_ascends(main, line, other, other_line)
    flags += doubt
    up = up if up[0, 2] < up[-1, 2] else up[::-1]
    down = down if down[0, 2] > down[-1, 2] else down[::-1]
    axis, leaning = _up_along(down)
    root = float(np.percentile(ascending.points @ axis, 1))
    never = np.inf
    labels = np.concatenate(
        [
            np.full(len(ascending.voxels), ASCENDING, dtype=np.uint8),
            _by_height(descending.points @ axis, np.zeros(len(descending.voxels), dtype=bool), never, root),
        ]
    )
    line_labels = np.concatenate(
        [
            np.full(len(up), ASCENDING, dtype=np.uint8),
            _by_height(down @ axis, np.zeros(len(down), dtype=bool), never, root),
        ]
    )
    radius_mm = np.concatenate(
        [_radius(c, p, _nearest(c, p)) for c, p in ((ascending, up), (descending, down))]
    )
    cloud = Cloud(
        ascending.crop,
        np.concatenate([ascending.voxels, descending.voxels]),
        np.concatenate([ascending.points, descending.points]),
        np.concatenate([ascending.depth_mm, descending.depth_mm]),
    )
    both = np.concatenate([up, down])
    flags += leaning + _field_of_view_flags(cloud, labels == ASCENDING, has_arch=False)
    flags += _side_flags(both, line_labels)
    return _Labelled(cloud, labels, both, radius_mm, line_labels, flags)


def _which_ascends(
    main: Cloud, line: Points, other: Cloud, other_line: Points
) -> tuple[tuple[Cloud, Points], tuple[Cloud, Points], list[str]]:
    """The ascending limb, the descending limb, and a flag where it is a guess."""
    level = max(float(line[:, 2].min()), float(other_line[:, 2].min()))
    forward_mm = _mean_y(other_line, level) - _mean_y(line, level)
    if abs(forward_mm) < _MIN_FRONT_MM:
        doubt = ["Neither limb lies in front of the other: the smaller one was taken as ascending."]
        return (other, other_line), (main, line), doubt
    if forward_mm > 0:
        return (other, other_line), (main, line), []
    if np.ptp(line[:, 2]) > _MAX_ASCENDING_MM:
        doubt = [
            "The limb in front is too long for an ascending aorta: the other one was taken as ascending. "
            "Check the orientation of the image."
        ]
        return (other, other_line), (main, line), doubt
    return (main, line), (other, other_line), []


def _label_one_limb(cloud: Cloud, line: Points) -> _Labelled:
    """Labels where no arch and no second limb are seen: all of it lower descending."""
    line = line if line[0, 2] > line[-1, 2] else line[::-1]
    flags = [
        "No arch in the mask (abdomen only, or cut below the root): all of it was taken as lower descending."
    ]
    radius_mm = _radius(cloud, line, _nearest(cloud, line))
    labels = np.full(len(cloud.voxels), LOWER_DESCENDING, dtype=np.uint8)
    line_labels = np.full(len(line), LOWER_DESCENDING, dtype=np.uint8)
    flags += _field_of_view_flags(cloud, np.zeros(len(labels), dtype=bool), has_arch=False)
    return _Labelled(cloud, labels, line, radius_mm, line_labels, flags)


def _field_of_view_flags(cloud: Cloud, ascending: BoolArray, *, has_arch: bool) -> list[str]:
    """What the edge of the image cuts off."""
    flags = []
    height = cloud.voxels[:, 2]
    extent = cloud.crop.box_shape[2]
    if cloud.crop.at_high[2] and (height == extent - 1).any():
        part = "the arch" if has_arch else "the upper end"
        flags.append(f"The field of view cuts {part} of the aorta.")
    if cloud.crop.at_low[2] and (height[ascending] == 0).any():
        flags.append("The field of view cuts the ascending aorta: the level of the root is that of the cut.")
    elif cloud.crop.at_low[2] and (height == 0).any():
        flags.append("The field of view cuts the lower end of the aorta.")
    return flags


def _side_flags(line: Points, labels: NDArray[np.uint8]) -> list[str]:
    """A flag for a right-sided arch, whose descending aorta lies right of the ascending one."""
    up, down = line[labels == ASCENDING], line[labels == UPPER_DESCENDING]
    if len(up) and len(down) and down[:, 0].mean() - up[:, 0].mean() > _MIN_FRONT_MM:
        return ["Right-sided arch: the descending aorta lies right of the ascending one."]
    return []


def _result(found: _Labelled, whole: Cloud, main: Tube, shape: tuple[int, ...]) -> AortaSegments:
    """The labels on the input grid, with the measures that belong to them."""
    crop, per_ml = whole.crop, whole.crop.voxel_volume_ml
    box = np.zeros(crop.box_shape, dtype=np.uint8)
    box[tuple(found.cloud.voxels.T)] = found.voxel_labels
    dropped_ml = (len(whole.voxels) - len(found.cloud.voxels)) * per_ml
    qc = {
        "centreline_length_mm": float(len(found.line) - 1),
        "median_radius_mm": float(np.median(found.radius_mm)),
        "max_radius_mm": float(found.radius_mm.max()),
        "dropped_ml": dropped_ml,
        "joined_gaps": float(len(main.gaps_mm)),
    }
    counts = np.bincount(found.voxel_labels, minlength=5)
    qc |= {f"volume_ml_{label}": float(counts[label] * per_ml) for label in SEGMENT_NAMES}
    flags = [*found.flags, *_piece_flags(main, dropped_ml, len(whole.voxels) * per_ml), *_shape_flags(qc)]
    if TOP in found.line_labels:
        flags += [f"No {SEGMENT_NAMES[k]} aorta in the mask." for k in SEGMENT_NAMES if counts[k] == 0]
    return AortaSegments(
        labels=crop.put(box, shape),
        points_mm=found.line + crop.origin_mm,
        radius_mm=found.radius_mm,
        segment=found.line_labels,
        flags=tuple(flags),
        qc=qc,
    )


def _piece_flags(main: Tube, dropped_ml: float, volume_ml: float) -> list[str]:
    """Flags for gaps that were bridged and pieces that were left out."""
    flags = []
    if main.gaps_mm:
        widths = ", ".join(f"{gap:.0f}" for gap in main.gaps_mm)
        flags.append(f"The mask has gaps of {widths} mm, which were bridged.")
    if dropped_ml > max(1.0, 0.01 * volume_ml):
        flags.append(
            f"{dropped_ml:.1f} mL of {volume_ml:.1f} mL of the mask are not part of the aorta's tube."
        )
    return flags


def _shape_flags(qc: Mapping[str, float]) -> list[str]:
    """Flags for an aneurysm and for a mask that is wider or narrower than an aorta."""
    flags = []
    low, high = HEDYPET_RANGES["median_radius_mm"]
    if not low <= qc["median_radius_mm"] <= high:
        flags.append(
            f"The median radius of the aorta is {qc['median_radius_mm']:.2f} mm; "
            f"normal is {low:g} to {high:g} mm."
        )
    if qc["max_radius_mm"] > _ANEURYSM_RADIUS_MM:
        widest = 2 * qc["max_radius_mm"]
        flags.append(f"The aorta is up to {widest:.0f} mm wide (aneurysm, or a leak of the mask).")
    return flags
