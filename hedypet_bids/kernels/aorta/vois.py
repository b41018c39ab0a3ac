"""Volumes of interest along the centreline of the aorta, and its refinement by early uptake."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.aorta.centreline import Crop, Points, crop_to, nearest_points
from hedypet_bids.kernels.aorta.segments import SEGMENT_NAMES, AortaSegments
from hedypet_bids.model import FloatArray, Matrix

# Two standard deviations of a 6 to 8 mm wide point spread: what the neighbour segment blurs into the end.
_END_MARGIN_MM = 8.0


@dataclass(frozen=True, eq=False)
class VoiResult:
    """One volume of interest per segment.

    Parameters
    ----------
    labels
        uint8, shape of the grid: 0 outside, else the label of the segment.
    volume_ml
        Volume per segment that exists in the mask, mL.
    flags
        Where a volume is not what was asked for, one sentence each.
    """

    labels: NDArray[np.uint8]
    volume_ml: dict[int, float]
    flags: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Tube:
    """The voxels of one segment within the wanted width, with the point of the line each belongs to."""

    voxels: NDArray[np.int64]
    station: NDArray[np.int64]
    uptake: NDArray[np.float64]
    first: int
    stop: int


def refine_with_pet(
    labels: NDArray[np.uint8], early_mean: FloatArray, *, fraction: float = 2 / 3
) -> tuple[NDArray[np.uint8], dict[int, float]]:
    """Labels without the voxels that the early image shows to hold little blood, and the kept fractions.

    A voxel is dropped where its early uptake is under ``fraction`` of the median of its segment.
    Cavities that this leaves inside the aorta are noise, not wall, and are filled again.

    Parameters
    ----------
    labels
        Segment labels on the PET grid.
    early_mean
        Mean of the early frames on the same grid.

    Returns
    -------
    labels, kept_fraction
        The kept fraction is given for every segment in ``labels``; it is NaN, and the segment left as
        it is, where the median is not positive (no tracer in it yet).

    Raises
    ------
    BadDataError
        The shapes differ, or a segment has no finite voxel in the early image.
    """
    _check_same_shape(labels, early_mean)
    if not labels.any():
        raise BadDataError("The aorta segments are empty; there is nothing to refine with the PET.")
    crop = crop_to(labels > 0, np.eye(4))
    box, uptake = crop.take(labels), crop.take(early_mean).astype(np.float64)
    keep = np.zeros(box.shape, dtype=bool)
    medians = {int(s): _median_uptake(uptake[box == s], int(s)) for s in np.unique(box[box > 0])}
    for segment, median in medians.items():
        here = box == segment
        keep |= here & (uptake >= fraction * median) if median > 0 else here
    keep = ndimage.binary_fill_holes(keep) & (box > 0)
    kept = {
        s: float(np.count_nonzero(keep & (box == s)) / np.count_nonzero(box == s)) if m > 0 else float("nan")
        for s, m in medians.items()
    }
    return crop.put(np.where(keep, box, 0).astype(np.uint8), labels.shape), kept


def _median_uptake(uptake: NDArray[np.float64], segment: int) -> float:
    """Median over the finite voxels of a segment."""
    finite = uptake[np.isfinite(uptake)]
    if finite.size == 0:
        raise BadDataError(
            f"The early PET has no finite value in the {SEGMENT_NAMES.get(segment, segment)} aorta; "
            "check the PET image and its alignment with the CT."
        )
    return float(np.median(finite))


def _check_same_shape(labels: NDArray[np.uint8], image: FloatArray) -> None:
    """Refuse an image on another grid."""
    if labels.shape != image.shape:
        raise BadDataError(
            f"The aorta labels have shape {labels.shape} and the early PET {image.shape}; expected one grid. "
            "Resample the segmentation to the dynamic PET first."
        )


def place_vois(
    segments: AortaSegments,
    affine: Matrix,
    *,
    width_mm: float,
    volume_ml: float | None,
    early_mean: FloatArray | None,
) -> VoiResult:
    """A volume of interest around the centreline in each segment.

    A voxel belongs to it if its middle lies within half the width of the centreline, in the labels
    of the segment: 3 voxels wide holds about 7 voxels a slice (the square of hedyPET holds 9).
    Of all stretches with the wanted volume, that with the highest mean early uptake is taken,
    8 mm or more from the ends of the segment where it is long enough.

    Parameters
    ----------
    segments
        With labels on the grid of ``affine``, refined or not.
    width_mm
        Diameter.
    volume_ml
        Wanted volume; None for the full length of the segment.
    early_mean
        Mean of the early frames on the same grid; None takes the middle of the segment.

    Raises
    ------
    BadDataError
        The width or the volume is not positive, or the image is on another grid.
    """
    if width_mm <= 0 or (volume_ml is not None and volume_ml <= 0):
        raise BadDataError(
            f"A volume of interest needs a positive width and volume; found {width_mm:g} mm, {volume_ml} mL."
        )
    if early_mean is not None:
        _check_same_shape(segments.labels, early_mean)
    if not segments.labels.any():
        raise BadDataError("The aorta segments are empty; no volume of interest can be placed.")
    crop = crop_to(segments.labels > 0, affine)
    box = crop.take(segments.labels)
    uptake = np.zeros(box.shape) if early_mean is None else crop.take(early_mean).astype(np.float64)
    out = np.zeros(box.shape, dtype=np.uint8)
    # Storage orders differ in the last digits of the origin; a nanometre grid makes them agree again.
    line = np.round(segments.points_mm - crop.origin_mm, 6)
    volumes: dict[int, float] = {}
    flags: list[str] = []
    for label in (s for s in SEGMENT_NAMES if (box == s).any()):
        tube = _tube(box == label, line, segments.segment == label, uptake, crop, width_mm)
        chosen, note = _choose(tube, crop, volume_ml, by_uptake=early_mean is not None)
        out[tuple(tube.voxels[chosen].T)] = label
        volumes[label] = float(np.count_nonzero(chosen) * crop.voxel_volume_ml)
        flags += [f"VOI in the {SEGMENT_NAMES[label]} aorta: {text}" for text in note]
    return VoiResult(crop.put(out, segments.labels.shape), volumes, tuple(flags))


def _tube(
    mask: NDArray[np.bool_],
    line: Points,
    on_segment: NDArray[np.bool_],
    uptake: NDArray[np.float64],
    crop: Crop,
    width_mm: float,
) -> _Tube:
    """The voxels of a segment within half the width of the line."""
    voxels = np.argwhere(mask)
    distance, station = nearest_points(line, crop.to_mm(voxels))
    # A voxel whose middle lies on the rim belongs to it, whatever the last digit of its distance.
    near = distance <= width_mm / 2 + 1e-6
    voxels, station = voxels[near], station[near]
    own = np.flatnonzero(on_segment)
    reached = np.concatenate([own, station])
    first, stop = (int(reached.min()), int(reached.max()) + 1) if reached.size else (0, 0)
    return _Tube(voxels, station, uptake[tuple(voxels.T)], first, stop)


def _choose(
    tube: _Tube, crop: Crop, volume_ml: float | None, *, by_uptake: bool
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which voxels of a tube make up the volume, and what is wrong with it."""
    everything = np.ones(len(tube.station), dtype=bool)
    if not everything.any():
        return everything, ["empty, no voxel of the segment lies within its width of the centreline."]
    if volume_ml is None:
        return everything, []
    wanted = volume_ml / crop.voxel_volume_ml
    for margin in (round(_END_MARGIN_MM), 0):
        window = _best_window(tube, wanted, margin, by_uptake=by_uptake)
        if window is not None:
            chosen = (tube.station >= window[0]) & (tube.station < window[1])
            return chosen, _volume_note(tube, chosen, wanted, crop.voxel_volume_ml)
    have_ml = len(tube.station) * crop.voxel_volume_ml
    return everything, [f"{have_ml:.2f} mL, all that there is at this width, instead of {volume_ml:g} mL."]


def _best_window(tube: _Tube, wanted: float, margin: int, *, by_uptake: bool) -> tuple[int, int] | None:
    """The stretch of the line with the wanted number of voxels and the highest mean uptake.

    Without uptake the most central stretch. None where no stretch between the margins is long enough.
    """
    low, high = tube.first + margin, tube.stop - margin
    if high <= low:
        return None
    count = np.bincount(tube.station, minlength=tube.stop)[: tube.stop]
    total = np.concatenate([[0], np.cumsum(count)])
    uptake = np.where(np.isfinite(tube.uptake), tube.uptake, 0.0)
    activity = np.concatenate([[0.0], np.cumsum(np.bincount(tube.station, uptake, tube.stop))])
    # A start without voxels gives the same stretch as the next one with them, only less compact.
    starts = np.array([k for k in range(low, high) if count[k] > 0], dtype=np.int64)
    reach = total[starts] + wanted
    stops = np.searchsorted(total, reach - 1e-9)
    inside = stops <= high
    if not inside.any():
        return None
    starts, stops = starts[inside], stops[inside]
    stops = _nearer_stop(total, starts, stops, wanted)
    if by_uptake:
        score = (activity[stops] - activity[starts]) / np.maximum(total[stops] - total[starts], 1)
    else:
        score = -np.abs((starts + stops) / 2 - (tube.first + tube.stop) / 2)
    best = int(np.argmax(score))
    return int(starts[best]), int(stops[best])


def _nearer_stop(
    total: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64], wanted: float
) -> NDArray[np.int64]:
    """Each stop, or the one a slab earlier where that comes closer to the wanted number of voxels."""
    earlier = np.searchsorted(total, total[stops - 1], side="left")
    over = total[stops] - total[starts] - wanted
    under = wanted - (total[earlier] - total[starts])
    use = (under < over) & (total[earlier] > total[starts])
    return np.where(use, earlier, stops).astype(np.int64)


def _volume_note(tube: _Tube, chosen: NDArray[np.bool_], wanted: float, voxel_volume_ml: float) -> list[str]:
    """A flag where the volume misses the wanted one by more than the fullest station it holds."""
    slab = int(np.bincount(tube.station[chosen]).max())
    found = int(np.count_nonzero(chosen))
    if abs(found - wanted) <= slab:
        return []
    return [f"{found * voxel_volume_ml:.2f} mL instead of {wanted * voxel_volume_ml:g} mL."]
