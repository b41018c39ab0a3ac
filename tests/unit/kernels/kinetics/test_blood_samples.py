"""Curves through blood samples against the function that was sampled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hedypet_bids.kernels.kinetics.blood_samples import continuous_blood
from hedypet_bids.model import BloodRecording, FrameTimes
from hedypet_bids.phantom.kinetics import feng_input, hedypet_frames, input_function, scaled_feng_input

FRAMES, INPUT = hedypet_frames(), scaled_feng_input(8000.0)
TRUE = input_function(FRAMES, INPUT)
DENSE = np.concatenate([np.arange(0, 120, 1.0), np.arange(120, 600, 20.0), np.arange(600, 4201, 300.0)])


def recording(label, time_s, blood=None, plasma=None, parent=None) -> BloodRecording:
    nothing = np.full(len(time_s), np.nan)
    given = [
        nothing if value is None else np.asarray(value, dtype=float) for value in (blood, plasma, parent)
    ]
    return BloodRecording(label, Path(f"{label}.tsv"), np.asarray(time_s, dtype=float), *given)


def feng(time_s) -> np.ndarray:
    return feng_input(np.asarray(time_s, dtype=float), INPUT)


def test_frame_means_are_those_of_the_function() -> None:
    found = continuous_blood([recording("manual", DENSE, plasma=feng(DENSE))], FRAMES)
    np.testing.assert_allclose(found.means(found.plasma, FRAMES), TRUE, rtol=0.01, atol=2e-3 * TRUE.max())
    assert found.assumed == ("PlasmaToBlood", "ParentFraction") and found.flags == ()


def test_an_exponential_between_few_samples_is_exact() -> None:
    """After the peak samples are joined by rates: with a straight line the area would be 25 % too large."""
    time = np.array([0.0, 600.0, 3000.0])
    values = 1000.0 * np.exp2(-time / 600)
    found = continuous_blood([recording("manual", time, blood=values)], FRAMES)
    frames = FrameTimes([600.0], [2400.0])
    area = 1000.0 * 600 / np.log(2) * (np.exp2(-1.0) - np.exp2(-5.0))
    assert found.means(found.whole_blood, frames)[0] == pytest.approx(area / 2400, rel=2e-4)


def test_an_autosampler_and_plasma_by_hand_are_one_curve() -> None:
    early, late = np.arange(0.0, 300.0, 1.0), np.arange(300.0, 4201.0, 150.0)
    ratio = np.interp(late, [300, 4200], [1.2, 1.0])
    recordings = [
        recording("manual", late, feng(late) / ratio, feng(late), np.interp(late, [0, 4200], [1, 0.5])),
        recording("autosampler", early, feng(early) / 1.2),
    ]
    found = continuous_blood(recordings, FRAMES)
    plasma = found.means(found.plasma, FRAMES)
    np.testing.assert_allclose(plasma, TRUE, rtol=0.01, atol=2e-3 * TRUE.max())
    parent = found.means(found.parent, FRAMES) / np.where(plasma > 0, plasma, 1)
    late_frames = FRAMES.start_s > 600
    expected = np.interp(FRAMES.mid_s, [0, 4200], [1, 0.5])
    np.testing.assert_allclose(parent[late_frames], expected[late_frames], rtol=0.01)
    assert found.assumed == () and found.flags == ()


def test_recordings_that_disagree_are_flagged() -> None:
    late = np.arange(30.0, 4201.0, 150.0)
    apart = [recording("a", DENSE, feng(DENSE)), recording("b", late, 1.3 * feng(late))]
    [flag] = continuous_blood(apart, FRAMES).flags
    assert "+30%" in flag and "recording-b" in flag
    agreeing = [apart[0], recording("b", late, 1.05 * feng(late))]
    assert continuous_blood(agreeing, FRAMES).flags == ()


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (DENSE >= 40, "first 40 s"),
        ((DENSE < 600) | (DENSE >= 3000), "log-linear"),
        (DENSE <= 3300, "55 min"),
    ],
)
def test_what_was_not_sampled_is_flagged(kept: np.ndarray, words: str) -> None:
    time = DENSE[kept]
    found = continuous_blood([recording("manual", time, feng(time))], FRAMES)
    [flag] = found.flags
    assert words in flag
    means = found.means(found.whole_blood, FRAMES)
    assert np.array_equal(np.isnan(means), FRAMES.end_s > time[-1] + FRAMES.duration_s)


def test_settings_stand_in_for_what_was_not_measured() -> None:
    given = [recording("manual", DENSE, blood=feng(DENSE))]
    found = continuous_blood(given, FRAMES, plasma_to_blood=1.2, parent_fraction=[(0, 1.0), (10, 0.5)])
    np.testing.assert_allclose(found.plasma, 1.2 * found.whole_blood)
    np.testing.assert_allclose(found.parent_fraction, np.interp(found.time_s, [0, 600], [1, 0.5]))
    assert found.assumed == ()
    found = continuous_blood([recording("manual", DENSE, plasma=feng(DENSE))], FRAMES, plasma_to_blood=1.2)
    np.testing.assert_allclose(found.plasma, 1.2 * found.whole_blood)
    assert found.assumed == ("ParentFraction",)
