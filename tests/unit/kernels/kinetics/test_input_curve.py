"""The continuous input function against quadrature and against what it must keep."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.kinetics.input_curve import InputCurve
from hedypet_bids.model import FrameTimes

DURATIONS_S = np.repeat([2.0, 5, 10, 60, 300], [10, 6, 5, 5, 10])


def frames_of(durations_s, *, start_s=0.0, gap_after=None, gap_s=0.0):
    start = start_s + np.cumsum(durations_s) - durations_s
    if gap_after is not None:
        start[gap_after + 1 :] += gap_s
    return FrameTimes(start, durations_s)


FRAMES = frames_of(DURATIONS_S)
RNG = np.random.default_rng(5)
BLOOD = np.abs(RNG.normal(1, 0.1, len(FRAMES))) * 9000 * np.exp(-FRAMES.mid_s / 900) * (FRAMES.mid_s > 8)


def line(curve, t_min):
    """The curve by its corners."""
    return np.interp(t_min, curve.pieces[0], curve.pieces[1], left=0.0)


def means(function, frames, corners_min):
    """Means over the frames by quadrature between the corners."""
    found = []
    for start, end in zip(frames.start_s / 60, frames.end_s / 60, strict=True):
        cuts = np.unique(np.clip([start, end, *corners_min], start, end))
        area = sum(quad(function, low, high, epsabs=1e-9)[0] for low, high in pairwise(cuts))
        found.append(area / (end - start))
    return np.array(found)


@pytest.mark.parametrize(
    "frames",
    [FRAMES, frames_of(DURATIONS_S, start_s=-7.0), frames_of(DURATIONS_S, start_s=20.0)],
    ids=["from injection", "from before it", "from after it"],
)
def test_the_means_over_the_frames_are_the_measured_ones(frames) -> None:
    curve = InputCurve(BLOOD, frames)
    assert np.abs(curve.shifted(0.0) - BLOOD).max() < 1e-6 * BLOOD.max()
    assert np.abs(means(lambda t: line(curve, t), frames, curve.pieces[0]) - BLOOD).max() < 1e-6 * BLOOD.max()
    assert line(curve, min(0.0, frames.start_s[0] / 60)) == 0.0
    assert curve.missed_s == max(0.0, frames.start_s[0])


@pytest.mark.parametrize("delay_s", [-3.7, 0.0, 11.3])
def test_shift_integral_and_convolution_are_those_of_quadrature(delay_s) -> None:
    few = frames_of(np.repeat([5.0, 20, 120], [4, 3, 4]))
    curve = InputCurve(BLOOD[5:16], few)
    corners = curve.pieces[0] + delay_s / 60

    def convolved(rate):
        def at(t):
            cuts = [*corners[corners < t], t]
            return sum(
                quad(lambda s: line(curve, s - delay_s / 60) * np.exp(-rate * (t - s)), low, high)[0]
                for low, high in pairwise(cuts)
            )

        return at

    shifted = means(lambda t: line(curve, t - delay_s / 60), few, corners)
    np.testing.assert_allclose(curve.shifted(delay_s), shifted, rtol=1e-9, atol=1e-6)
    # A rate of next to nothing makes the convolution the integral.
    np.testing.assert_allclose(
        curve.integral(delay_s), means(convolved(0.0), few, corners), rtol=1e-8, atol=1e-6
    )
    for rate in (0.02, 0.9, 8.0):
        np.testing.assert_allclose(
            curve.convolved(rate, delay_s), means(convolved(rate), few, corners), rtol=1e-7, atol=1e-6
        )


def test_arrays_of_rates_and_delays_are_what_single_ones_are() -> None:
    curve = InputCurve(BLOOD, FRAMES)
    rates, delays = np.array([0.1, 2.0]), np.array([[0.0, 4.0], [8.0, -2.0]])
    together = curve.convolved(rates, delays)
    assert together.shape == (2, 2, 2, len(FRAMES))
    np.testing.assert_array_equal(together[1, 1, 0], curve.convolved(2.0, 8.0))
    np.testing.assert_array_equal(curve.integral(delays)[0, 1], curve.integral(4.0))


def test_gaps_after_the_peak_are_filled_log_linearly_and_told() -> None:
    """An exponential with 20 min missing keeps its area; a straight line across would add much to it."""
    frames = frames_of(DURATIONS_S, gap_after=len(DURATIONS_S) - 7, gap_s=2400.0)
    rate, t_min = 0.04, frames.mid_s / 60
    ends = np.exp(-rate * frames.start_s / 60) - np.exp(-rate * frames.end_s / 60)
    blood = 5000 * ends / rate / (frames.duration_s / 60)
    blood[0] = 2.0
    curve = InputCurve(blood, frames)
    gap = len(DURATIONS_S) - 7
    inside = np.linspace(frames.end_s[gap], frames.start_s[gap + 1], 50) / 60
    np.testing.assert_allclose(line(curve, inside), 5000 * np.exp(-rate * inside), rtol=0.01)
    assert np.interp(inside[25], t_min, blood) > 1.15 * line(curve, inside[25])
    assert np.flatnonzero(curve.after_gap).tolist() == [gap + 1]
    assert not InputCurve(BLOOD, FRAMES).after_gap.any()


def test_curves_without_a_value_a_frame_are_refused() -> None:
    for wrong in (BLOOD[:-1], np.where(np.arange(len(BLOOD)) == 3, np.nan, BLOOD)):
        with pytest.raises(BadDataError, match="value"):
            InputCurve(wrong, FRAMES)
