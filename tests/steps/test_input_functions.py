"""Input functions as tables for other programs."""

from __future__ import annotations

import numpy as np

from hedypet_bids.model import FrameTimes, InputFunction
from hedypet_bids.settings import KineticsSettings
from hedypet_bids.steps.input_functions import continuous_table

FRAMES = FrameTimes([0.0, 60.0, 120.0, 240.0], [60.0, 60.0, 120.0, 120.0])
BLOOD = np.array([100.0, 400.0, 200.0, 150.0])


def test_plasma_and_tracer_follow_from_what_the_settings_say() -> None:
    kinetics = KineticsSettings(plasma_to_blood=1.2, parent_fraction=((1.0, 1.0), (5.0, 0.5)))
    found = continuous_table(InputFunction("aorta", FRAMES, BLOOD, BLOOD, 7), 137.0, kinetics)
    assert found["time"].iloc[0] == 137.0 and found["time"].iloc[-1] == 137.0 + 360.0
    np.testing.assert_allclose(found["plasma_radioactivity"], 1.2 * found["whole_blood_radioactivity"])
    minutes = (found["time"] - 137.0) / 60
    expected = np.where(minutes < 1, 1.0, np.where(minutes > 5, 0.5, 1 - (minutes - 1) / 8))
    np.testing.assert_allclose(found["metabolite_parent_fraction"], expected)
    np.testing.assert_allclose(found["AIF"], found["plasma_radioactivity"] * expected)


def test_where_a_frame_has_no_value_there_are_times_and_no_values() -> None:
    lacking = np.where(np.arange(4) == 2, np.nan, BLOOD)
    found = continuous_table(InputFunction("aorta", FRAMES, lacking, BLOOD, 7), 0.0, KineticsSettings())
    assert found["time"].tolist() == FRAMES.mid_s.tolist()
    assert found[["whole_blood_radioactivity", "plasma_radioactivity", "AIF"]].isna().all(axis=None)
