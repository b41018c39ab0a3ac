"""A volume of interest in the right heart, whose blood goes to the lungs before it comes to the aorta."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.aorta.bolus import BolusTiming, find_bolus, leading_edge_s
from hedypet_bids.model import BoolArray, FloatArray, FrameTimes, Matrix

RIGHT_HEART_ML = 1.0
"""Volume of interest in the right heart, mL."""

# The wall, which holds little blood, and what breathing and heartbeat mix into it.
_MARGIN_MM = 5.0
# From the right heart to the aorta blood takes 5 s and more; from the left heart 1 or 2 s.
_LEAST_LEAD_S = 3.0


@dataclass(frozen=True, eq=False)
class RightHeartVoi:
    """The volume of interest in the right heart, or why there is none.

    Parameters
    ----------
    labels
        uint8, shape of the mask: 1 in the volume, else 0.
    volume_ml
        What it holds, mL; 0 without one.
    peak_s, peak_bq_ml
        Middle (s from injection) and activity of its highest early frame; NaN where no place was looked at.
    lead_s
        How much earlier than the aorta it reaches half its peak, s.
    aorta_peak_s, aorta_peak_bq_ml
        The same of the aorta as of the volume.
    reason
        Why there is no volume; empty where there is one.
    """

    labels: NDArray[np.uint8]
    volume_ml: float
    peak_s: float
    peak_bq_ml: float
    lead_s: float
    aorta_peak_s: float
    aorta_peak_bq_ml: float
    reason: str


def place_right_heart(
    early: FloatArray, heart: BoolArray, affine: Matrix, frames: FrameTimes, aorta: FloatArray
) -> RightHeartVoi:
    """The 1 mL of the right part of the heart that is brightest before the bolus comes to the aorta.

    The right part is what lies right of the median voxel of the heart. The volume is compact, and 5 mm from
    the surface of the heart where it has the room. It is taken for the right heart only if blood comes there
    at least 3 s before it comes to the aorta, and at least as active: on its way it is spread out, never
    gathered.

    Parameters
    ----------
    early
        Activity of the heart's voxels in the early frames, Bq/mL, shape (n_frames, n_voxels), in C order.
    heart
        Mask of the heart.
    affine
        From voxels of the mask to world mm, RAS+.
    frames
        The early frames, s from injection.
    aorta
        Median over the aorta in each of them, Bq/mL, shape (n_frames,).

    Returns
    -------
    RightHeartVoi
        Without voxels, and with the reason, where the right heart is not seen.

    Raises
    ------
    BadDataError
        The values are not those of the mask and the frames.

    Examples
    --------
    >>> frames = FrameTimes(np.arange(0.0, 60.0, 2.0), np.full(30, 2.0))
    >>> right, aorta = (1e5 * np.exp(-(((frames.mid_s - peak_s) / 4) ** 2)) for peak_s in (11.0, 21.0))
    >>> heart = np.ones((20, 20, 20), dtype=bool)
    >>> of_right = np.indices(heart.shape)[0][heart] >= 10
    >>> early = np.where(of_right, right[:, None], aorta[:, None])
    >>> found = place_right_heart(early, heart, np.diag([4.0, 4.0, 4.0, 1.0]), frames, 0.5 * aorta)
    >>> found.peak_s, round(found.lead_s), int(found.labels.sum())
    (11.0, 10, 16)
    """
    if early.shape != (len(frames), np.count_nonzero(heart)):
        raise BadDataError(
            f"The early activity of the heart has shape {early.shape}; expected {len(frames)} frames of "
            f"{np.count_nonzero(heart)} voxels."
        )
    bolus = find_bolus(aorta, frames)
    if bolus.method == "fallback":
        return _none(heart, f"there is no first pass to compare with: {bolus.reason}")
    known = np.asarray(np.isfinite(early).all(axis=0))
    voxels = _compact_volumes(heart, known, affine)
    if not voxels.size:
        return _none(heart, f"the right part of the heart has no room for {RIGHT_HEART_ML:g} mL")
    before = early[frames.mid_s < bolus.peak_s]
    activity = np.zeros((len(before), voxels.shape[1]))
    for each in voxels:
        activity += before[:, each]
    _, best = np.unravel_index(activity.argmax(), activity.shape)
    chosen = voxels[:, best]
    curve = early[:, chosen].mean(axis=1, dtype=np.float64)
    found = find_bolus(curve, frames)
    lead_s = leading_edge_s(aorta, frames) - leading_edge_s(curve, frames)
    peaks = _at_peak(curve, frames, found), _at_peak(aorta, frames, bolus)
    reason = _why_none(found, bolus, peaks, lead_s)
    labels = np.zeros(np.count_nonzero(heart), dtype=np.uint8)
    labels[[] if reason else chosen] = 1
    on_grid = np.zeros(heart.shape, dtype=np.uint8)
    on_grid[heart] = labels
    return RightHeartVoi(
        labels=on_grid,
        volume_ml=float(labels.sum() * _voxel_ml(affine)),
        peak_s=found.peak_s,
        peak_bq_ml=peaks[0],
        lead_s=lead_s,
        aorta_peak_s=bolus.peak_s,
        aorta_peak_bq_ml=peaks[1],
        reason=reason,
    )


def _why_none(found: BolusTiming, aorta: BolusTiming, peaks: tuple[float, float], lead_s: float) -> str:
    """Why a volume does not show undiluted blood of the right heart; empty when it does."""
    if found.method == "fallback":
        return "the right part of the heart shows no first pass"
    if not found.peak_s < aorta.peak_s:
        return (
            f"the right part of the heart peaks at {found.peak_s:g} s, no earlier than the aorta "
            f"({aorta.peak_s:g} s)"
        )
    if not np.isfinite(lead_s):
        return "the bolus was in the right part of the heart, or in the aorta, before the first frame ended"
    if lead_s < _LEAST_LEAD_S:
        when = f"{abs(lead_s):.1f} s {'before' if lead_s > 0 else 'after'} the aorta"
        return (
            f"blood comes to the right part of the heart {when}; expected {_LEAST_LEAD_S:g} s or more before "
            "it, as the lungs are in between"
        )
    if peaks[0] < peaks[1]:
        return (
            f"the right part of the heart reaches {peaks[0] / 1000:.1f} kBq/mL ({found.peak_s:g} s) and the "
            f"aorta {peaks[1] / 1000:.1f} kBq/mL ({aorta.peak_s:g} s): the right heart is not seen undiluted"
        )
    return ""


def _none(heart: BoolArray, reason: str) -> RightHeartVoi:
    unknown = float("nan")
    labels = np.zeros(heart.shape, dtype=np.uint8)
    return RightHeartVoi(labels, 0.0, unknown, unknown, unknown, unknown, unknown, reason)


def _at_peak(curve: FloatArray, frames: FrameTimes, bolus: BolusTiming) -> float:
    at = frames.mid_s == bolus.peak_s
    return float(curve[at][0]) if at.any() else float("nan")


def _voxel_ml(affine: Matrix) -> float:
    return float(abs(np.linalg.det(affine[:3, :3])) / 1000)


def _compact_volumes(heart: BoolArray, known: BoolArray, affine: Matrix) -> NDArray[np.int32]:
    """Every volume that lies wholly in the right part, as voxels of the mask, shape (n_voxels, n_volumes).

    Those with a margin to the surface of the heart, or all where none has.
    """
    if not heart.any():
        return np.empty((0, 0), dtype=np.int32)
    steps = _nearest_steps(affine)
    reach = int(np.abs(steps).max())
    padded = np.pad(heart, reach)
    sizes_mm = np.linalg.norm(affine[:3, :3], axis=0)
    depth_mm = ndimage.distance_transform_edt(padded, sampling=sizes_mm)[padded] - sizes_mm.min() / 2
    to_right_mm = np.argwhere(heart) @ affine[0, :3]
    right = known & (to_right_mm >= np.median(to_right_mm))
    places = np.flatnonzero(padded)
    flat = steps @ np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    for allowed in (right & (depth_mm >= _MARGIN_MM), right):
        number = np.full(padded.size, -1, dtype=np.int32)
        number[places[allowed]] = np.flatnonzero(allowed)
        # The voxels of middles without room are not held: at full size they are most.
        middles = places[allowed]
        for step in flat:
            middles = middles[number[middles + step] >= 0]
        if middles.size:
            break
    return np.stack([number[middles + step] for step in flat])


def _nearest_steps(affine: Matrix) -> NDArray[np.int64]:
    """The steps from a voxel to those nearest to it, itself first, that together have the volume."""
    n = max(1, round(RIGHT_HEART_ML / _voxel_ml(affine)))
    # Twice the radius of the ball: enough for any grid whose voxels are not much longer than it.
    reach_mm = 2 * (3000 * RIGHT_HEART_ML / (4 * np.pi)) ** (1 / 3)
    reach = np.ceil(reach_mm / np.linalg.norm(affine[:3, :3], axis=0)).astype(int)
    steps = np.indices(2 * reach + 1).reshape(3, -1).T - reach
    # Rounded, as the last digits of equal distances depend on the affine.
    distance_mm = np.linalg.norm(steps @ affine[:3, :3].T, axis=1).round(6)
    nearest: NDArray[np.int64] = steps[np.lexsort((*steps.T, distance_mm))][:n]
    return nearest
