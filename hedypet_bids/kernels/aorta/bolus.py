"""When the tracer bolus passes the aorta, and the frames that show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError
from hedypet_bids.model import FloatArray, FrameTimes

FALLBACK_WINDOW_S = 40.0
"""hedyPET's rule: the frames that start within 40 s of the first frame."""

# In the 41 published hedyPET participants the peak comes 13 to 31 s after the start of the scan.
_LATEST_PEAK_S = 180.0
# A first pass stands out: the same curves peak at 10 to 34 times the level after three minutes.
_MIN_CONTRAST = 2.0


@dataclass(frozen=True)
class BolusTiming:
    """The first pass of the tracer through the aorta.

    Parameters
    ----------
    start_s
        When the curve crosses a tenth of its peak on the way up; NaN for the fallback.
    peak_s
        Middle of the highest frame; NaN for the fallback.
    first, stop
        The frames of the early mean are ``first <= frame < stop``.
    method
        ``curve``, or ``fallback`` where the curve shows no first pass.
    reason
        Why the fallback was taken; empty otherwise.
    """

    start_s: float
    peak_s: float
    first: int
    stop: int
    method: Literal["curve", "fallback"]
    reason: str = ""


def find_bolus(curve_bq_ml: FloatArray, frames: FrameTimes) -> BolusTiming:
    """When the bolus passes, from the median curve of the aorta.

    The early frames are those around the peak in which the curve is at least half as high.

    Parameters
    ----------
    curve_bq_ml
        Median over the voxels of the aorta in each frame, shape (n_frames,).

    Raises
    ------
    BadDataError
        The curve and the frames differ in length, or there is only one frame.
    """
    curve = np.asarray(curve_bq_ml, dtype=np.float64)
    if curve.shape != (len(frames),):
        raise BadDataError(
            f"The curve of the aorta has shape {curve.shape}; expected one value for each of the "
            f"{len(frames)} frames."
        )
    if len(frames) < 2:
        raise BadDataError("The dynamic series has a single frame; a bolus cannot be found in a 3D image.")
    reason = _why_no_bolus(curve, frames)
    if reason:
        return _fallback(frames, reason)
    peak = _peak_frame(curve, frames)
    first, stop = peak, peak + 1
    while first > 0 and curve[first - 1] >= curve[peak] / 2:
        first -= 1
    while stop < len(curve) and curve[stop] >= curve[peak] / 2:
        stop += 1
    start_s = leading_edge_s(curve, frames, fraction=0.1)
    return BolusTiming(start_s, float(frames.mid_s[peak]), first, stop, "curve")


def _peak_frame(curve: NDArray[np.float64], frames: FrameTimes) -> int:
    """The highest frame of the first three minutes."""
    early = frames.start_s - frames.start_s[0] < _LATEST_PEAK_S
    return int(np.argmax(np.where(early, curve, -np.inf)))


def _why_no_bolus(curve: NDArray[np.float64], frames: FrameTimes) -> str:
    """Why the curve shows no first pass, or an empty string."""
    if not np.isfinite(curve).all():
        return "the curve of the aorta has frames without a value"
    peak = _peak_frame(curve, frames)
    if curve[peak] <= 0:
        return "the curve of the aorta is never positive"
    if peak == 0:
        return "the curve of the aorta is highest in the first frame: the bolus passed before the scan"
    later = curve[frames.start_s - frames.start_s[0] >= _LATEST_PEAK_S]
    if later.size and curve[peak] < _MIN_CONTRAST * float(np.median(later)):
        return "the curve of the aorta has no peak in the first three minutes"
    return ""


def _fallback(frames: FrameTimes, reason: str) -> BolusTiming:
    """The frames that start within 40 s of the first."""
    stop = int(np.count_nonzero(frames.start_s < frames.start_s[0] + FALLBACK_WINDOW_S))
    return BolusTiming(float("nan"), float("nan"), 0, stop, "fallback", reason)


def leading_edge_s(curve_bq_ml: FloatArray, frames: FrameTimes, *, fraction: float = 0.5) -> float:
    """When a curve first crosses a fraction of its peak on the way up, s; NaN where it does not.

    Between frame middles the curve is taken as straight; before the first middle there is nothing to
    cross, so a curve that starts above the level has no leading edge.
    """
    curve = np.asarray(curve_bq_ml, dtype=np.float64)
    if not np.isfinite(curve).all() or curve.max() <= 0:
        return float("nan")
    peak = _peak_frame(curve, frames)
    level = fraction * curve[peak]
    below = np.flatnonzero(curve[:peak] < level)
    if below.size == 0:
        return float("nan")
    a = int(below[-1])
    part = (level - curve[a]) / (curve[a + 1] - curve[a])
    return float(frames.mid_s[a] + part * (frames.mid_s[a + 1] - frames.mid_s[a]))


def early_weights(frames: FrameTimes, bolus: BolusTiming) -> NDArray[np.float64]:
    """Weight of each frame in the early mean: its share of the time, 0 outside the bolus; sums to 1.

    Raises
    ------
    BadDataError
        The bolus covers no frame of this series.
    """
    if not 0 <= bolus.first < bolus.stop <= len(frames):
        raise BadDataError(
            f"The bolus covers frames {bolus.first} to {bolus.stop - 1}; the series has frames 0 to "
            f"{len(frames) - 1}."
        )
    weights = np.zeros(len(frames), dtype=np.float64)
    weights[bolus.first : bolus.stop] = frames.duration_s[bolus.first : bolus.stop]
    return np.asarray(weights / weights.sum(), dtype=np.float64)
