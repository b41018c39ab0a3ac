"""The first pass of the bolus: found whenever it comes, and what is taken without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from aorta_masks import (
    HEDYPET_DURATIONS,
    frames_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.aorta import (
    BolusTiming,
    early_weights,
    find_bolus,
    late_max_over_min,
    leading_edge_delays_s,
    leading_edge_s,
    unordered,
    unusual,
)

SHARED = Path(__file__).resolve().parents[4] / "shared"
PUBLISHED = SHARED / "data" / "readouts" / "input_function_tacs.tsv.gz"


def gamma_bolus(t: np.ndarray, arrival: float) -> np.ndarray:
    """A first pass that peaks 8 s after it arrives, on a slow rise to a plateau."""
    x = np.clip((t - arrival) / 8.0, 0, None)
    return 1e5 * x**3 * np.exp(3 * (1 - x)) + 4e3 * (1 - np.exp(-np.clip(t - arrival, 0, None) / 20))


@given(arrival=st.floats(4.0, 40.0), first_s=st.sampled_from([0.0, -5.0, 12.0]))
@settings(max_examples=40, deadline=None)
def test_the_bolus_is_found_whenever_it_comes(arrival: float, first_s: float) -> None:
    frames = frames_of(HEDYPET_DURATIONS, first_s)
    curve = gamma_bolus(frames.mid_s, first_s + arrival)
    bolus = find_bolus(curve, frames)
    assert bolus.method == "curve"
    assert bolus.peak_s == pytest.approx(first_s + arrival + 8.0, abs=3.5)
    assert first_s + arrival - 2.0 <= bolus.start_s <= bolus.peak_s
    used = slice(bolus.first, bolus.stop)
    assert (curve[used] >= curve.max() / 2).all()
    weights = early_weights(frames, bolus)
    assert weights.sum() == pytest.approx(1.0)
    want = (curve * frames.duration_s)[used].sum() / frames.duration_s[used].sum()
    assert weights @ curve == pytest.approx(want)


NO_BOLUS = {
    "over before the first frame": (np.exp(-np.arange(69) / 10.0), "before the scan"),
    "never positive": (np.full(69, -1.0), "never positive"),
    "slow rise": (np.arange(69.0), "no peak"),
    "a frame without a value": (np.where(np.arange(69) == 7, np.nan, 1.0), "without a value"),
}


@pytest.mark.parametrize("name", NO_BOLUS)
def test_without_a_bolus_the_first_40_s_are_taken(name: str) -> None:
    curve, words = NO_BOLUS[name]
    frames = frames_of(HEDYPET_DURATIONS, 30.0)
    bolus = find_bolus(curve, frames)
    assert (bolus.method, bolus.first, bolus.stop) == ("fallback", 0, 20)
    assert words in bolus.reason


def test_bolus_of_another_series_is_refused() -> None:
    frames = frames_of([2.0] * 5)
    with pytest.raises(BadDataError, match="one value for each of the 5 frames"):
        find_bolus(np.ones(4), frames)
    with pytest.raises(BadDataError, match="3D image"):
        find_bolus(np.ones(1), frames_of([1200.0]))
    with pytest.raises(BadDataError, match="frames 3 to 9"):
        early_weights(frames, BolusTiming(0.0, 1.0, 3, 10, "curve"))


def test_the_leading_edge_is_where_the_straight_line_crosses() -> None:
    frames = frames_of([10.0] * 5)
    curve = np.array([0.0, 0.0, 40.0, 100.0, 60.0])
    assert leading_edge_s(curve, frames) == pytest.approx(25.0 + 10.0 * (50 - 40) / 60)
    assert np.isnan(leading_edge_s(np.array([90.0, 100.0, 1.0, 1.0, 1.0]), frames))
    delays = leading_edge_delays_s({1: curve, 4: np.roll(curve, 1)}, frames)
    assert delays == {1: 0.0, 4: pytest.approx(10.0)}


def test_published_curves_are_normal() -> None:
    if not PUBLISHED.exists():
        pytest.skip(f"needs {PUBLISHED.name} of the shared data")
    table = pd.read_csv(PUBLISHED, sep="\t")
    frames = frames_of(HEDYPET_DURATIONS)
    for _, rows in table[table.Task == "aortavois_ml-full_width-3"].groupby("Subject"):
        wide = rows.pivot(index="Frame Index", columns="Label Index", values="PET Mean [Bq/mL]")
        curves = {k: wide[k].to_numpy() for k in (1, 2, 3, 4)}
        bolus = find_bolus(np.median(wide.to_numpy(), axis=1), frames)
        assert bolus.method == "curve"
        assert 10.0 < bolus.peak_s < 35.0
        delays = leading_edge_delays_s(curves, frames)
        assert unusual({"delay_s": delays[4]}) == ()
        assert unordered(delays) == ()
        assert 1.0 < late_max_over_min(curves, frames) < 1.34
