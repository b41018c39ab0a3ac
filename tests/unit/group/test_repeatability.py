"""Test-retest figures against published values, the definitions written out, and simulated participants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hedypet_bids.group.repeatability import agreement, icc_2_1, percent_change, within_subject_sd

# Shrout and Fleiss, Psychological Bulletin 1979;86:420, table 2: six targets, four judges.
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float
)


def test_the_published_example() -> None:
    found = icc_2_1(SHROUT_FLEISS[:, :, None])
    assert found.value[0] == pytest.approx(0.29, abs=0.005)
    # The interval that R's psych::ICC gives for these data.
    assert found.low[0] == pytest.approx(0.019, abs=0.001)
    assert found.high[0] == pytest.approx(0.761, abs=0.001)


def icc_by_definition(table: np.ndarray) -> float:
    """Sums of squares one by one, as a textbook writes the analysis of variance."""
    n, k = table.shape
    grand = sum(table[i, j] for i in range(n) for j in range(k)) / (n * k)
    rows = [sum(table[i]) / k for i in range(n)]
    columns = [sum(table[:, j]) / n for j in range(k)]
    ss_rows = k * sum((row - grand) ** 2 for row in rows)
    ss_columns = n * sum((column - grand) ** 2 for column in columns)
    ss_total = sum((table[i, j] - grand) ** 2 for i in range(n) for j in range(k))
    ms_rows, ms_columns = ss_rows / (n - 1), ss_columns / (k - 1)
    ms_error = (ss_total - ss_rows - ss_columns) / ((n - 1) * (k - 1))
    below = ms_rows + (k - 1) * ms_error + k * (ms_columns - ms_error) / n
    return (ms_rows - ms_error) / below if below else np.nan


@example(np.array([[0.0, 8.0], [-5.0, 18.0]]))  # next to no degrees of freedom
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 7), st.integers(2, 4)),
        elements=st.integers(-50, 50).map(float),
    ).filter(lambda table: np.ptp(table) > 0)
)
def test_icc_is_that_of_the_analysis_of_variance(table: np.ndarray) -> None:
    found = icc_2_1(table[:, :, None])
    expected = icc_by_definition(table)
    if np.isfinite(found.value[0]):
        assert found.value[0] == pytest.approx(expected, abs=1e-8)
    # For an estimate below 0 the interval is an approximation that may miss it.
    if found.value[0] > 0 and np.isfinite([found.low[0], found.high[0]]).all():
        assert found.low[0] - 1e-9 <= found.value[0] <= found.high[0] + 1e-9


def test_regions_do_not_depend_on_each_other() -> None:
    other = SHROUT_FLEISS[::-1] ** 2
    both = icc_2_1(np.stack([SHROUT_FLEISS, other], axis=2))
    for i, table in enumerate((SHROUT_FLEISS, other)):
        alone = icc_2_1(table[:, :, None])
        np.testing.assert_allclose([both.value[i], both.low[i], both.high[i]], np.ravel(alone), rtol=1e-12)


def test_the_interval_covers_the_truth() -> None:
    random = np.random.default_rng(3)
    n, k, draws = 20, 2, 3000
    people = random.normal(0, 2.0, (n, 1, draws))
    sessions = random.normal(0, 0.5, (1, k, draws))
    found = icc_2_1(people + sessions + random.normal(0, 1.0, (n, k, draws)))
    truth = 4.0 / (4.0 + 0.25 + 1.0)
    covered = ((found.low <= truth) & (truth <= found.high)).mean()
    assert 0.93 <= covered <= 0.98


def test_perfect_agreement_and_no_variance() -> None:
    same = icc_2_1(np.array([[1.0, 1.0], [2.0, 2.0], [5.0, 5.0]])[:, :, None])
    assert (same.value[0], same.low[0], same.high[0]) == (1.0, 1.0, 1.0)
    assert np.isnan(icc_2_1(np.ones((3, 2, 1))).value[0])
    assert np.isnan(icc_2_1(np.array([[[1.0], [2.0]]])).value[0])


def test_two_sessions_give_what_their_differences_give() -> None:
    random = np.random.default_rng(1)
    values = random.normal(10, 2, (12, 2, 3))
    found = agreement(values)
    difference = values[:, 1] - values[:, 0]
    np.testing.assert_allclose(found["Bias"], difference.mean(axis=0))
    np.testing.assert_allclose(found["Bias SE"], difference.std(axis=0, ddof=1) / np.sqrt(12))
    # Of pairs the mean square within participants is half the mean squared difference.
    sd = np.sqrt((difference**2).mean(axis=0) / 2)
    np.testing.assert_allclose(found["Within-Subject SD"], sd)
    np.testing.assert_allclose(found["Repeatability Coefficient"], 1.96 * np.sqrt(2) * sd)
    np.testing.assert_allclose(found["Mean Change [%]"], (100 * difference / values[:, 0]).mean(axis=0))
    np.testing.assert_allclose(found["Mean"], values.mean(axis=(0, 1)))
    assert found["Participants"].tolist() == [12] * 3 and found["Sessions"].tolist() == [24] * 3


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 8), k=st.integers(2, 4))
def test_within_subject_sd_is_that_of_the_scans_that_there_are(seed: int, n: int, k: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(10, 3, (n, k, 2))
    values[random.random(values.shape) < 0.2] = np.nan
    found = within_subject_sd(values)
    for region in range(2):
        people = [row[np.isfinite(row)] for row in values[:, :, region] if np.isfinite(row).any()]
        freedom = sum(len(person) - 1 for person in people)
        if freedom:
            squares = sum(person.var() * len(person) for person in people)
            assert found[region] == pytest.approx(np.sqrt(squares / freedom), rel=1e-9)
        else:
            assert np.isnan(found[region])


def test_the_coefficient_holds_95_percent_of_the_differences() -> None:
    random = np.random.default_rng(3)
    values = random.normal(10, 3, (20_000, 1, 1)) + random.normal(0, 0.7, (20_000, 2, 1))
    found = agreement(values)
    assert found["Within-Subject SD"][0] == pytest.approx(0.7, rel=0.02)
    apart = np.abs(values[:, 1, 0] - values[:, 0, 0])
    assert np.mean(apart < found["Repeatability Coefficient"][0]) == pytest.approx(0.95, abs=0.01)


def test_gaps_and_single_scans_are_left_out() -> None:
    nan = np.nan
    table = np.array([[1.0, 2.0, 4.0], [5.0, nan, 6.0], [nan, nan, 9.0], [3.0, 5.0, nan]])
    found = agreement(table[:, :, None])
    assert (found["Participants"][0], found["Sessions"][0]) == (3, 7)
    assert found["Bias"][0] == pytest.approx(np.mean([3.0, 1.0, 2.0]))
    within = [np.var([1.0, 2.0, 4.0]) * 3, np.var([5.0, 6.0]) * 2, np.var([3.0, 5.0]) * 2]
    assert found["Within-Subject SD"][0] == pytest.approx(np.sqrt(sum(within) / (2 + 1 + 1)))
    # Every participant has two sessions: the first two that each has.
    complete = np.array([[1.0, 2.0], [5.0, 6.0], [3.0, 5.0]])
    assert found["ICC(2,1)"][0] == pytest.approx(icc_by_definition(complete))


def test_what_cannot_be_said_has_a_reason() -> None:
    one = agreement(np.array([[[2.0, np.nan], [3.0, 1.0]]]))
    assert one["Within-Subject SD"][0] == pytest.approx(np.sqrt(0.5))
    assert np.isnan(one["ICC(2,1)"][0]) and np.isnan(one["Bias SE"][0])
    assert "one participant" in one["Reason"][0]
    assert one["Participants"][1] == 0 and np.isnan(one["Mean"][1])
    constant = agreement(np.ones((3, 2, 1)))
    assert constant["Reason"][0] and np.isnan(constant["ICC(2,1)"][0])
    assert agreement(SHROUT_FLEISS[:, :2, None])["Reason"][0] is None


def test_a_change_from_nothing_has_no_percentage() -> None:
    change = percent_change(np.array([2.0, 0.0, -4.0]), np.array([3.0, 1.0, -6.0]))
    assert change[[0, 2]].tolist() == [50.0, 50.0] and np.isnan(change[1])
    assert np.isnan(within_subject_sd(np.array([[[1.0], [np.nan]]]))[0])
