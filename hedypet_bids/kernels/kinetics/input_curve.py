"""The input function between and within frames: a continuous curve and what tissue makes of it.

A frame says the mean of blood over its length, not the value at its middle. The curve is piecewise linear
through nodes at the middles, chosen so that its means over the frames are those that were measured. Its
shift, integral and convolution with an exponential then have closed forms, whose means over the frames are
those that tissue is compared with: nothing is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError
from hedypet_bids.model import FloatArray, FrameTimes

# Sidecars round to milliseconds, so frames that meet may seem this far apart.
_ROUNDING_S = 2e-3
# Straight pieces of a gap: with 64 the area under an exponential that falls tenfold is 1e-4 too large.
_GAP_PIECES = 64
# Every round divides the error of the nodes by two at least.
_MOST_ROUNDS = 200
_PRECISION = 1e-10
# Ends and starts this close differ by the rounding of doubles only.
_SAME_MIN = 1e-12
MOST_LONGEST_FRAMES = 2.0
"""A gap of more than this many of the longest frame is more than a pause."""

BLOOD, CONVOLVED, INTEGRAL, BY_DELAY, BY_RATE = 0, 1, 2, 3, 6
"""Rows of what :func:`responses` gives."""
N_RESPONSES = 7


@dataclass(frozen=True, eq=False)
class InputCurve:
    """A continuous input function whose means over the frames are the measured ones.

    Zero at injection, or at the start of a scan that begins before it. Frames that meet are joined by
    straight lines; a gap after the peak is filled log-linearly, as blood falls by rates. After the middle of
    the last frame the curve stays level.

    Parameters
    ----------
    means
        Measured mean of each frame, Bq/mL, shape (n_frames,).
    frames
        When they are, s from injection.

    Attributes
    ----------
    pieces
        Shape (5, n_knots): time (min), activity (Bq/mL), its slope from there on (Bq/mL/min), and its single
        and double integral up to there (Bq/mL*min and Bq/mL*min^2).

    Raises
    ------
    BadDataError
        There is not one finite value a frame.

    Examples
    --------
    >>> frames = FrameTimes(np.arange(0.0, 600.0, 60.0), np.full(10, 60.0))
    >>> blood = np.array([50.0, 400.0, 200.0, 120.0, 90.0, 80.0, 70.0, 65.0, 60.0, 58.0])
    >>> curve = InputCurve(blood, frames)
    >>> bool(np.allclose(curve.shifted(0.0), blood))
    True
    >>> curve.convolved([0.1, 0.2], [0.0, 5.0, 10.0]).shape
    (2, 3, 10)
    """

    means: NDArray[np.float64]
    frames: FrameTimes
    pieces: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        means = np.array(self.means, dtype=np.float64)
        if means.shape != (len(self.frames),):
            raise BadDataError(
                f"An input function needs one value per frame; found {means.size} values and "
                f"{len(self.frames)} frames. Check that curve and FrameTimesStart come from the same image."
            )
        if not np.isfinite(means).all():
            frame = int(np.argmin(np.isfinite(means)))
            raise BadDataError(f"The input function has no value in frame {frame}.")
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "pieces", _pieces(*_knots(means, self.frames)))

    @property
    def missed_s(self) -> float:
        """Time after injection before the first frame, of which the blood was not seen, s."""
        return self.frames.missed_s

    @property
    def after_gap(self) -> NDArray[np.bool_]:
        """Frames that come after a gap longer than twice the longest frame, shape (n_frames,)."""
        long = self.frames.gap_s > MOST_LONGEST_FRAMES * self.frames.duration_s.max()
        return np.concatenate([[False], long])

    def shifted(self, delay_s: FloatArray | float) -> NDArray[np.float64]:
        """The curve that comes later, as means over the frames.

        Parameters
        ----------
        delay_s
            By how much, s, any shape.

        Returns
        -------
        ndarray
            Bq/mL, shape (..., n_frames).
        """
        return self._responses(1.0, delay_s, BLOOD)

    def integral(self, delay_s: FloatArray | float) -> NDArray[np.float64]:
        """The running integral of the curve that comes later, as means over the frames.

        Parameters
        ----------
        delay_s
            By how much, s, any shape.

        Returns
        -------
        ndarray
            Bq/mL*min, shape (..., n_frames).
        """
        return self._responses(1.0, delay_s, INTEGRAL)

    def convolved(self, rate_per_min: FloatArray | float, delay_s: FloatArray | float) -> NDArray[np.float64]:
        """The curve that comes later, convolved with exp(-rate t), as means over the frames.

        Parameters
        ----------
        rate_per_min
            Positive, any shape.
        delay_s
            s, any shape.

        Returns
        -------
        ndarray
            Bq/mL*min, shape of the rates, then of the delays, then (n_frames,).
        """
        return self._responses(rate_per_min, delay_s, CONVOLVED)

    def _responses(
        self, rates: FloatArray | float, delays: FloatArray | float, row: int
    ) -> NDArray[np.float64]:
        per_min, late_min = np.asarray(rates, dtype=np.float64), np.asarray(delays, dtype=np.float64) / 60.0
        found = response_grid(self.pieces, *edges_min(self.frames), per_min.ravel(), late_min.ravel())
        shape = (*per_min.shape, *late_min.shape, len(self.frames))
        return np.asarray(found[:, :, row].reshape(shape), dtype=np.float64)


def edges_min(frames: FrameTimes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Starts and ends of frames, min from injection."""
    return frames.start_s / 60.0, frames.end_s / 60.0


def _knots(means: NDArray[np.float64], frames: FrameTimes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times (min) and values of the curve's corners."""
    start, end = edges_min(frames)
    mid, origin = (start + end) / 2, min(0.0, float(start[0]))
    after_peak = np.arange(len(means) - 1) >= means.argmax()
    gaps = np.flatnonzero(after_peak & (frames.gap_s > _ROUNDING_S))
    nodes, scale = means.copy(), np.abs(means).max(initial=0.0)
    for _ in range(_MOST_ROUNDS):
        at_start, at_end = _at_edges(nodes, gaps, start, end, mid, origin)
        missing = means - (at_start + 2 * nodes + at_end) / 4
        if np.abs(missing).max(initial=0.0) <= _PRECISION * scale:
            break
        nodes += missing
    times, values = [np.array([origin]), mid, end[-1:]], [np.zeros(1), nodes, nodes[-1:]]
    for gap in gaps:
        within = np.linspace(end[gap], start[gap + 1], _GAP_PIECES + 1)
        times.append(within)
        values.append(_joined(within, at_end[gap], at_start[gap + 1]))
    time, value = np.concatenate(times), np.concatenate(values)
    order = np.argsort(time, kind="stable")
    return time[order], value[order]


def _at_edges(
    nodes: NDArray[np.float64],
    gaps: NDArray[np.intp],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    mid: NDArray[np.float64],
    origin: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curve at the start and at the end of each frame."""
    before = np.concatenate([[origin], mid[:-1]])
    node_before = np.concatenate([[0.0], nodes[:-1]])
    slope = (nodes - node_before) / (mid - before)
    at_start, at_end = node_before + slope * (start - before), nodes.copy()
    at_end[:-1] += slope[1:] * (end[:-1] - mid[:-1])
    for gap in gaps:
        if nodes[gap] > 0 and nodes[gap + 1] > 0:
            rate = np.log(nodes[gap + 1] / nodes[gap]) / (mid[gap + 1] - mid[gap])
            at_end[gap] = nodes[gap] * np.exp(rate * (end[gap] - mid[gap]))
            at_start[gap + 1] = nodes[gap] * np.exp(rate * (start[gap + 1] - mid[gap]))
    return at_start, at_end


def _joined(times: NDArray[np.float64], first: float, last: float) -> NDArray[np.float64]:
    """Values from the first to the last, log-linear where both are positive."""
    part = (times - times[0]) / (times[-1] - times[0])
    if first > 0 and last > 0:
        return np.asarray(first * (last / first) ** part)
    return np.asarray(first + (last - first) * part)


def _pieces(time: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    step, rise = np.diff(time), np.diff(value)
    slope = np.concatenate([rise / step, [0.0]])
    area = np.concatenate([[0.0], np.cumsum(step * (value[:-1] + rise / 2))])
    double = np.cumsum(step * (area[:-1] + step * (value[:-1] / 2 + rise / 6)))
    return np.stack([time, value, slope, area, np.concatenate([[0.0], double])])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _decayed(
    curve: float, by_rate: float, value: float, slope: float, rate: float, step: float
) -> tuple[float, float]:
    """The convolution with exp(-rate t), and its derivative by the rate, a step further."""
    lost = -np.expm1(-rate * step)
    left, level = 1.0 - lost, lost / rate
    ramp = (step - level) / rate
    level_by_rate = (step * left - level) / rate
    ramp_by_rate = -(level_by_rate + ramp) / rate
    return (
        curve * left + value * level + slope * ramp,
        (by_rate - step * curve) * left + value * level_by_rate + slope * ramp_by_rate,
    )


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _until(
    pieces: NDArray[np.float64], at_knots: NDArray[np.float64], rate: float, time: float
) -> tuple[float, float, float, float, float]:
    """Activity, its integrals, the convolution and its derivative at a time."""
    k = np.searchsorted(pieces[0], time, side="right") - 1
    if k < 0:
        return 0.0, 0.0, 0.0, 0.0, 0.0
    step, value, slope = time - pieces[0, k], pieces[1, k], pieces[2, k]
    curve, by_rate = _decayed(at_knots[0, k], at_knots[1, k], value, slope, rate, step)
    area = pieces[3, k] + step * (value + slope * step / 2)
    double = pieces[4, k] + step * (pieces[3, k] + step * (value / 2 + slope * step / 6))
    return value + slope * step, area, double, curve, by_rate


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def responses(
    pieces: NDArray[np.float64],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    rate: float,
    delay: float,
    at_knots: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Means over the frames of what a model may be made of, for one rate and one delay.

    Parameters
    ----------
    pieces
        Of an :class:`InputCurve`.
    start, end
        Of the frames, min.
    rate
        1/min.
    delay
        min.
    at_knots
        Work space, shape (2, n_knots).
    out
        Shape (7, n_frames): the delayed curve, its convolution with exp(-rate t), its integral; the
        derivatives of these three by the delay; the derivative of the convolution by the rate.
    """
    at_knots[:, 0] = 0.0
    for k in range(pieces.shape[1] - 1):
        step = pieces[0, k + 1] - pieces[0, k]
        at_knots[0, k + 1], at_knots[1, k + 1] = _decayed(
            at_knots[0, k], at_knots[1, k], pieces[1, k], pieces[2, k], rate, step
        )
    value_1, area_1, double_1, curve_1, by_rate_1 = _until(pieces, at_knots, rate, start[0] - delay)
    for f in range(len(start)):
        length = end[f] - start[f]
        value_0, area_0, double_0, curve_0, by_rate_0 = value_1, area_1, double_1, curve_1, by_rate_1
        if f > 0 and abs(start[f] - end[f - 1]) > _SAME_MIN:
            value_0, area_0, double_0, curve_0, by_rate_0 = _until(pieces, at_knots, rate, start[f] - delay)
        value_1, area_1, double_1, curve_1, by_rate_1 = _until(pieces, at_knots, rate, end[f] - delay)
        blood, grown = (area_1 - area_0) / length, (curve_1 - curve_0) / length
        # The convolution c obeys dc/dt = blood - rate c, so its integral follows from its ends.
        convolved = (blood - grown) / rate
        out[BLOOD, f], out[CONVOLVED, f] = blood, convolved
        out[INTEGRAL, f] = (double_1 - double_0) / length
        out[BY_DELAY, f], out[BY_DELAY + 1, f] = -(value_1 - value_0) / length, -grown
        out[BY_DELAY + 2, f] = -blood
        out[BY_RATE, f] = -(convolved + (by_rate_1 - by_rate_0) / length) / rate


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _blood_until(pieces: NDArray[np.float64], time: float) -> tuple[float, float]:
    """Activity and its integral at a time."""
    k = np.searchsorted(pieces[0], time, side="right") - 1
    if k < 0:
        return 0.0, 0.0
    step, value, slope = time - pieces[0, k], pieces[1, k], pieces[2, k]
    return value + slope * step, pieces[3, k] + step * (value + slope * step / 2)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def put_whole_blood(
    pieces: NDArray[np.float64],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    delay: float,
    out: NDArray[np.float64],
) -> None:
    """Put whole blood, and its derivative by the delay, in the place of the input function itself.

    Parameters
    ----------
    pieces
        Of the :class:`InputCurve` of whole blood; without a knot nothing is done.
    start, end
        Of the frames, min.
    delay
        min.
    out
        What :func:`responses` gave.
    """
    if pieces.shape[1] == 0:
        return
    for f in range(len(start)):
        value_0, area_0 = _blood_until(pieces, start[f] - delay)
        value_1, area_1 = _blood_until(pieces, end[f] - delay)
        length = end[f] - start[f]
        out[BLOOD, f] = (area_1 - area_0) / length
        if out.shape[0] > BY_DELAY:
            out[BY_DELAY, f] = -(value_1 - value_0) / length


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def response_grid(
    pieces: NDArray[np.float64],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    rates: NDArray[np.float64],
    delays: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The first three of :func:`responses` for every rate and delay.

    Returns
    -------
    ndarray
        Shape (n_rates, n_delays, 3, n_frames).
    """
    found = np.empty((len(rates), len(delays), BY_DELAY, len(start)))
    at_knots, out = np.empty((2, pieces.shape[1])), np.empty((N_RESPONSES, len(start)))
    for r in range(len(rates)):
        for d in range(len(delays)):
            responses(pieces, start, end, rates[r], delays[d], at_knots, out)
            found[r, d] = out[:BY_DELAY]
    return found
