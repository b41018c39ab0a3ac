"""Blood samples between samples: a continuous input function and what PET frames would see of it.

A sample is the activity at a time, not the mean of a frame. Between samples the curve is straight up to the
peak and log-linear after it, as blood falls by rates; before the first sample it rises from zero at
injection, and after the last it stays level.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.kernels.kinetics.input_curve import MOST_LONGEST_FRAMES
from hedypet_bids.model import BloodRecording, FloatArray, FrameTimes

# A straight piece over which blood falls by 2 % has an area 3e-5 too large at most.
_LOG_STEP, _MOST_PIECES = 0.02, 64
# Below this part of the peak a sample shows no blood yet: neither a ratio nor a missed start.
_NOTHING_YET = 0.01
_MISSED_S, _MISSED_PART = 5.0, 0.05
# Two recordings of the same blood that differ by more are not of the same blood, or not in the same units.
_MOST_APART = 0.1

PLASMA_TO_BLOOD, PARENT_FRACTION = "PlasmaToBlood", "ParentFraction"
"""What may be assumed of a measured input function."""


@dataclass(frozen=True, eq=False)
class Samples:
    """A quantity at some times.

    Parameters
    ----------
    time_s
        s from injection, increasing, shape (n_samples,).
    value
        Same shape; finite.
    """

    time_s: NDArray[np.float64]
    value: NDArray[np.float64]

    @classmethod
    def of(cls, time_s: FloatArray, value: FloatArray) -> Samples:
        """The samples that have a value."""
        known = np.isfinite(value)
        return cls(np.asarray(time_s[known], dtype=np.float64), np.asarray(value[known], dtype=np.float64))

    def __len__(self) -> int:
        return len(self.time_s)

    def corners(self) -> Samples:
        """The corners of the continuous curve, from injection (or the first sample, if that is earlier)."""
        time, value = self.time_s, self.value
        if time[0] > 0:
            time, value = np.insert(time, 0, 0.0), np.insert(value, 0, 0.0)
        peak = int(value.argmax())
        times, values = [time[: peak + 1]], [value[: peak + 1]]
        for k in range(peak, len(time) - 1):
            first, last = value[k], value[k + 1]
            pieces, falls = 1, min(first, last) > 0
            if falls:
                pieces = int(np.clip(np.ceil(abs(np.log(last / first)) / _LOG_STEP), 1, _MOST_PIECES))
            part = np.linspace(0, 1, pieces + 1)[1:]
            times.append(time[k] + part * (time[k + 1] - time[k]))
            values.append(first * (last / first) ** part if falls else first + part * (last - first))
        return Samples(np.concatenate(times), np.concatenate(values))


@dataclass(frozen=True, eq=False)
class ContinuousBlood:
    """Whole blood, plasma and the tracer itself in plasma as one curve, straight between its corners.

    Parameters
    ----------
    time_s
        Of the corners, s from injection, shape (n_corners,).
    whole_blood, plasma
        Bq/mL, same shape.
    parent_fraction
        Part of the activity in plasma that is the tracer itself, same shape.
    assumed
        Which of ``PlasmaToBlood`` and ``ParentFraction`` nobody measured or set: 1 then.
    flags
        What is odd about the samples, a sentence each.
    """

    time_s: NDArray[np.float64]
    whole_blood: NDArray[np.float64]
    plasma: NDArray[np.float64]
    parent_fraction: NDArray[np.float64]
    assumed: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def parent(self) -> NDArray[np.float64]:
        """The tracer itself in plasma, Bq/mL, shape (n_corners,)."""
        return self.plasma * self.parent_fraction

    def means(self, values: FloatArray, frames: FrameTimes) -> NDArray[np.float64]:
        """Means over frames; NaN in a frame that ends more than its length after the last corner.

        Parameters
        ----------
        values
            At the corners, shape (n_corners,).
        frames
            When the frames are, s from injection.

        Returns
        -------
        ndarray
            Shape (n_frames,).

        Examples
        --------
        >>> line = np.array([0.0, 60.0])
        >>> blood = ContinuousBlood(line, line, line, np.ones(2), (), ())
        >>> blood.means(line, FrameTimes([0.0, 30.0], [30.0, 30.0])).tolist()
        [15.0, 45.0]
        """
        found = (self._area(values, frames.end_s) - self._area(values, frames.start_s)) / frames.duration_s
        return np.where(frames.end_s > self.time_s[-1] + frames.duration_s, np.nan, found)

    def _area(self, values: FloatArray, at_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """The integral of the curve up to some times: zero before its first corner, level after its last."""
        time, step = self.time_s, np.diff(self.time_s)
        whole = np.concatenate([[0.0], np.cumsum(step * (values[1:] + values[:-1]) / 2)])
        within = np.clip(at_s, time[0], time[-1])
        k = np.clip(np.searchsorted(time, within, side="right") - 1, 0, len(step) - 1)
        part = within - time[k]
        area = whole[k] + part * (values[k] + (values[k + 1] - values[k]) / step[k] * part / 2)
        return np.asarray(area + np.maximum(at_s - time[-1], 0.0) * values[-1])


def continuous_blood(
    recordings: Sequence[BloodRecording],
    frames: FrameTimes,
    *,
    plasma_to_blood: float = 0.0,
    parent_fraction: Sequence[tuple[float, float]] = (),
) -> ContinuousBlood:
    """One input function from all recordings of a scan.

    Where recordings overlap the one with the most samples a second counts, others add what is before and
    after. Where whole blood has more samples than plasma, plasma is whole blood times the ratio of both at
    the samples of plasma, linear between them and constant outside. The parent fraction is linear between
    its samples, 1 at injection unless it was measured there, and constant after the last.

    Parameters
    ----------
    recordings
        Of which one at least has whole blood or plasma.
    frames
        When the frames of the PET are, s from injection: for what is flagged.
    plasma_to_blood
        Ratio where only one of plasma and whole blood was measured; 0: not known, 1 is assumed.
    parent_fraction
        Pairs of minutes and fraction where none was measured; empty: not known, 1 is assumed.

    Returns
    -------
    ContinuousBlood
        From the injection to the last sample.
    """
    blood, blood_flags = _joined(recordings, "whole_blood")
    plasma, plasma_flags = _joined(recordings, "plasma")
    parent, parent_flags = _joined(recordings, "parent_fraction")
    assumed = []
    if not (len(blood) and len(plasma)):
        measured = (blood if len(blood) else plasma).corners()
        ratio = plasma_to_blood or 1.0
        assumed += [] if plasma_to_blood else [PLASMA_TO_BLOOD]
        time, by_ratio = measured.time_s, ratio if len(blood) else 1 / ratio
        of_blood, of_plasma = measured.value, by_ratio * measured.value
        if not len(blood):
            of_blood, of_plasma = of_plasma, of_blood
    else:
        of_blood_curve, of_plasma_curve = blood.corners(), plasma.corners()
        if len(blood) > len(plasma):
            time, of_blood = of_blood_curve.time_s, of_blood_curve.value
            of_plasma = of_blood * _ratio(of_blood_curve, plasma, time)
        else:
            last_s = min(of_blood_curve.time_s[-1], of_plasma_curve.time_s[-1])
            time = np.union1d(of_blood_curve.time_s, of_plasma_curve.time_s)
            time = time[time <= last_s]
            of_blood = np.interp(time, of_blood_curve.time_s, of_blood_curve.value)
            of_plasma = np.interp(time, of_plasma_curve.time_s, of_plasma_curve.value)
    if not len(parent) and parent_fraction:
        minutes, fractions = np.transpose(parent_fraction)
        parent = Samples(60.0 * minutes, fractions)
    elif not len(parent):
        assumed.append(PARENT_FRACTION)
        parent = Samples(np.zeros(1), np.ones(1))
    elif parent.time_s[0] > 0:
        parent = Samples(np.insert(parent.time_s, 0, 0.0), np.insert(parent.value, 0, 1.0))
    sampled = blood if len(blood) >= len(plasma) else plasma
    flags = [*blood_flags, *plasma_flags, *parent_flags, *_lacking(sampled, frames)]
    if not np.isfinite(of_plasma).any():
        flags.append("plasma has no sample at a time with whole blood, so there is no input function")
    return ContinuousBlood(
        time,
        of_blood,
        of_plasma,
        np.interp(time, parent.time_s, parent.value),
        tuple(assumed),
        tuple(flags),
    )


def _joined(recordings: Iterable[BloodRecording], quantity: str) -> tuple[Samples, list[str]]:
    """The samples of a quantity in all recordings, and where recordings disagree."""
    found = [(r.label, Samples.of(r.time_s, getattr(r, quantity))) for r in recordings]
    found = sorted((f for f in found if len(f[1])), key=lambda f: _a_second(f[1]), reverse=True)
    flags: list[str] = []
    if not found:
        return Samples(np.empty(0), np.empty(0)), flags
    first, joined = found[0]
    for label, other in found[1:]:
        outside = (other.time_s < joined.time_s[0]) | (other.time_s > joined.time_s[-1])
        apart = _apart(joined, Samples(other.time_s[~outside], other.value[~outside]))
        if abs(apart) > _MOST_APART:
            flags.append(
                f"{quantity} of recording-{label} is {apart:+.0%} from that of recording-{first} where both "
                "have samples: check units and times"
            )
        time = np.concatenate([joined.time_s, other.time_s[outside]])
        order = np.argsort(time, kind="stable")
        joined = Samples(time[order], np.concatenate([joined.value, other.value[outside]])[order])
    return joined, flags


def _a_second(samples: Samples) -> float:
    """How many samples there are a second; 0 for a single one."""
    span_s = float(samples.time_s[-1] - samples.time_s[0])
    return (len(samples) - 1) / span_s if span_s > 0 else 0.0


def _apart(one: Samples, other: Samples) -> float:
    """How much larger the other is, as a median over its samples; 0 without any that tells."""
    expected = np.interp(other.time_s, one.time_s, one.value)
    tells = expected > _NOTHING_YET * one.value.max()
    return float(np.median(other.value[tells] / expected[tells])) - 1 if tells.any() else 0.0


def _ratio(blood: Samples, plasma: Samples, at_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Plasma over whole blood at some times, from the samples of plasma at which there is blood."""
    there = np.interp(plasma.time_s, blood.time_s, blood.value)
    tells = (there > _NOTHING_YET * blood.value.max()) & (plasma.time_s <= blood.time_s[-1])
    if not tells.any():
        return np.full(at_s.shape, np.nan)
    found: NDArray[np.float64] = np.interp(at_s, plasma.time_s[tells], plasma.value[tells] / there[tells])
    return found


def _lacking(samples: Samples, frames: FrameTimes) -> Iterable[str]:
    """What samples did not see: the start, a long gap, the end of the scan."""
    first_s, most_s = float(samples.time_s[0]), MOST_LONGEST_FRAMES * float(frames.duration_s.max())
    if first_s > _MISSED_S and samples.value[0] > _MISSED_PART * samples.value.max():
        yield f"the first {first_s:g} s of blood were not sampled; a straight line takes their place"
    gap_s = np.diff(samples.time_s)
    if gap_s.size and gap_s.max() > most_s:
        at = int(gap_s.argmax())
        yield (
            f"no blood was sampled for {gap_s[at]:g} s after {samples.time_s[at]:g} s, longer than twice the "
            "longest frame; the curve there is log-linear"
        )
    if samples.time_s[-1] < frames.end_s[-1] - frames.duration_s[-1]:
        yield f"the last sample of blood, at {samples.time_s[-1] / 60:g} min, is before the end of the scan"
