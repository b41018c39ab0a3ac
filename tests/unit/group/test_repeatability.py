"""Test-retest against an analysis of variance written out, a published example and SciPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hedypet_bids.group.readouts import write_readouts
from hedypet_bids.group.repeatability import agreement, icc_2_1, percent_change, within_subject_sd
from hedypet_bids.group.values import framing_of
from hedypet_bids.io.manifest import Manifest, Output, ScanEntry, StepRecord
from hedypet_bids.io.store import Stamp, Store, Writer
from hedypet_bids.names import ScanName
from hedypet_bids.settings import Settings

# Shrout and Fleiss 1979, table 2: 6 targets and 4 judges.
RATINGS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float
)


def variance_components(values: np.ndarray) -> tuple[float, float, float]:
    """Mean squares between rows, between columns, and of what is left, number by number."""
    n, k = values.shape
    grand = sum(values[i, j] for i in range(n) for j in range(k)) / (n * k)
    row = [sum(values[i]) / k for i in range(n)]
    column = [sum(values[:, j]) / n for j in range(k)]
    rows = sum(k * (row[i] - grand) ** 2 for i in range(n)) / (n - 1)
    columns = sum(n * (column[j] - grand) ** 2 for j in range(k)) / (k - 1)
    rest = sum((values[i, j] - row[i] - column[j] + grand) ** 2 for i in range(n) for j in range(k))
    return rows, columns, rest / ((n - 1) * (k - 1))


def test_icc_is_that_of_the_published_example() -> None:
    found = icc_2_1(RATINGS[:, :, None])
    # The paper's table 4 says 0.29; the interval is that of McGraw and Wong for these data as R's package
    # psych and SPSS print it.
    assert found.value[0] == pytest.approx(0.29, abs=0.005)
    assert found.low[0] == pytest.approx(0.019, abs=0.001)
    assert found.high[0] == pytest.approx(0.761, abs=0.001)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 9), k=st.integers(2, 4))
def test_icc_is_that_of_an_analysis_of_variance(seed: int, n: int, k: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(10, 3, (n, 1, 3)) + random.normal(0, 1, (n, k, 3)) + random.normal(0, 1, (k, 3))
    found = icc_2_1(values)
    for region in range(3):
        between, across, error = variance_components(values[:, :, region])
        expected = (between - error) / (between + (k - 1) * error + k * (across - error) / n)
        assert found.value[region] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    n_studies, n, k = 4000, 12, 3
    people = random.normal(0, 2.0, (n, 1, n_studies))
    sessions = random.normal(0, 0.5, (1, k, n_studies))
    found = icc_2_1(people + sessions + random.normal(0, 1.0, (n, k, n_studies)))
    true = 4 / (4 + 0.25 + 1)
    share = np.mean((found.low <= true) & (true <= found.high))
    assert share == pytest.approx(0.95, abs=0.02)


def test_there_is_no_icc_of_one_participant_and_a_whole_one_of_equal_scans() -> None:
    assert np.isnan(icc_2_1(np.array([[[1.0], [2.0]]])).value[0])
    same = np.array([[[1.0], [1.0]], [[2.0], [2.0]], [[5.0], [5.0]]])
    assert [found[0] for found in icc_2_1(same)] == [1.0, 1.0, 1.0]
    assert np.isnan(icc_2_1(np.ones((3, 2, 1))).value[0])


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 8), k=st.integers(2, 4))
def test_within_subject_sd_is_the_mean_square_within_of_a_one_way_analysis(seed: int, n: int, k: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(10, 3, (n, k, 2))
    values[random.random(values.shape) < 0.2] = np.nan
    found = within_subject_sd(values)
    for region in range(2):
        people = [row[np.isfinite(row)] for row in values[:, :, region]]
        freedom = sum(len(person) - 1 for person in people if len(person))
        if not freedom:
            assert np.isnan(found[region])
            continue
        squares = sum(person.var() * len(person) for person in people if len(person))
        assert found[region] == pytest.approx(np.sqrt(squares / freedom), rel=1e-9)


def test_of_two_scans_the_sd_is_that_of_the_differences() -> None:
    first, last = np.array([5.0, 7.0, 6.5, 9.0]), np.array([5.4, 6.5, 6.9, 8.8])
    found = agreement(np.stack([first, last], axis=1)[:, :, None])
    difference = last - first
    assert found["Participants"][0] == 4 and found["Sessions"][0] == 8
    assert found["Within-Subject SD"][0] == pytest.approx(np.sqrt(np.mean(difference**2) / 2))
    assert found["Repeatability Coefficient"][0] == pytest.approx(1.96 * np.sqrt(np.mean(difference**2)))
    assert found["Bias"][0] == pytest.approx(difference.mean())
    assert found["Bias SE"][0] == pytest.approx(stats.sem(difference))
    assert found["Mean Change [%]"][0] == pytest.approx(np.mean(100 * difference / first))
    assert found["Mean"][0] == pytest.approx(np.mean([first, last]))
    assert found["Reason"][0] is None


def test_the_repeatability_coefficient_covers_95_percent_of_differences() -> None:
    random = np.random.default_rng(3)
    people = random.normal(10, 3, (20_000, 1, 1)) + random.normal(0, 0.7, (20_000, 2, 1))
    found = agreement(people)
    assert found["Within-Subject SD"][0] == pytest.approx(0.7, rel=0.02)
    apart = np.abs(people[:, 1, 0] - people[:, 0, 0])
    assert np.mean(apart < found["Repeatability Coefficient"][0]) == pytest.approx(0.95, abs=0.01)


def test_participants_with_one_value_do_not_count_and_gaps_are_closed() -> None:
    nan = np.nan
    values = np.array([[1.0, nan, 3.0], [2.0, 4.0, nan], [9.0, nan, nan], [nan, 6.0, 5.0]])[:, :, None]
    found = agreement(values)
    complete = agreement(np.array([[1.0, 3.0], [2.0, 4.0], [6.0, 5.0]])[:, :, None])
    for name, column in complete.items():
        assert found[name][0] == pytest.approx(column[0]) if name != "Reason" else found[name][0] is None
    alone = agreement(values[:1])
    assert alone["Participants"][0] == 1 and alone["Reason"][0]
    assert np.isnan(alone["ICC(2,1)"][0]) and np.isnan(alone["Bias SE"][0])
    assert alone["Within-Subject SD"][0] == pytest.approx(np.sqrt(2.0))


def test_change_is_over_the_first_value() -> None:
    found = percent_change(np.array([2.0, 0.0, np.nan]), np.array([3.0, 1.0, 1.0]))
    np.testing.assert_array_equal(found, [50.0, np.nan, np.nan])


@pytest.mark.parametrize(
    ("start", "duration", "expected"),
    [
        ([0, 10, 20], [10, 10, 60], "2x10,60 s"),
        ([5, 15, 25], [10, 10, 60], "2x10,60 s"),
        ([0, 10, 80], [10, 10, 60], "2x10,gap60,60 s"),
        ([0, 9.9996], [10.0004, 10], "2x10 s"),
        ([3600], [600], "600 s"),
        ([], [], ""),
    ],
)
def test_framing_does_not_depend_on_when_the_scan_began(
    start: list[float], duration: list[float], expected: str
) -> None:
    assert framing_of(start, duration) == expected


CONSTANT = 1000.0


def write_scans(root: Path, label: str, uptakes: dict[str, float], *, minutes: float = 10.0) -> None:
    """A participant with one static PET a session, of which one region has a given mean uptake."""
    store = Store(root)
    scans, outputs = [], []
    for session, uptake in uptakes.items():
        scan, stem = ScanName(session, "18FFDG"), f"sub-{label}_ses-{session}_trc-18FFDG_rec-stat"
        image, folder = f"{stem}_pet.nii.gz", f"sub-{label}/ses-{session}/pet"
        frames = {"pet": {image: {"FrameStart": [3600.0], "FrameDuration": [60 * minutes]}}}
        region = {"index": [1], "name": ["subcutaneous_fat"], "mean": [uptake], "std": [1.0]}
        means = pd.DataFrame({**region, "n_voxels": [8], "n_valid": [8], "volume": [1.5]})
        names = ["suv", "sul_decazes", "sul_janma", "sul_james"]
        constants = pd.DataFrame({"name": names, "value": [CONSTANT, np.nan, np.nan, np.nan]})
        with Writer(store, Stamp.of("means", [], frames, store)) as writer:
            writer.table(f"{folder}/{stem}_seg-tissue_morph.tsv", means, sources=[])
            writer.table(f"{folder}/{stem}_norm.tsv", constants, sources=[], Participant={})
        scans.append(ScanEntry(scan, statics=(image,)))
        for kind, path in (
            (("means", image, "tissue", 0), f"{folder}/{stem}_seg-tissue_morph.tsv"),
            (("constants",), f"{folder}/{stem}_norm.tsv"),
        ):
            outputs.append(Output(kind, path, (str(scan),), "means"))
    Manifest(label, "a run", tuple(scans), outputs=tuple(outputs)).write(root)


def read(output: Path, table: str) -> pd.DataFrame:
    return pd.read_parquet(output / "readouts" / f"{table}.parquet")


def test_only_scans_of_one_framing_are_compared(tmp_path: Path) -> None:
    write_scans(tmp_path, "01", {"a": 1000.0, "b": 1100.0})
    write_scans(tmp_path, "02", {"a": 3000.0, "b": 2700.0})
    write_scans(tmp_path, "03", {"a": 5000.0})
    write_scans(tmp_path, "04", {"a": 2000.0, "b": 2400.0}, minutes=5)
    found = write_readouts(tmp_path, Settings(), nprocs=1)
    assert not found.problems and found.rows["metadata"] == 7
    changes = read(tmp_path, "repeatability_changes").query("Quantity == 'SUV'").set_index("Subject")
    assert changes["Framing"].to_dict() == {"sub-01": "600 s", "sub-02": "600 s", "sub-04": "300 s"}
    np.testing.assert_allclose(changes["Change [%]"], [10.0, -10.0, 20.0])
    np.testing.assert_allclose(changes["First Value"], [1.0, 3.0, 2.0])
    assert (changes["First Session"] == "a").all() and (changes["Last Session"] == "b").all()
    rows = read(tmp_path, "repeatability").query("Quantity == 'SUV'").set_index("Framing")
    assert rows["Participants"].to_dict() == {"600 s": 2, "300 s": 1}
    assert rows.loc["600 s", "Within-Subject SD"] == pytest.approx(np.sqrt((0.1**2 + 0.3**2) / 2 / 2))
    assert rows.loc["300 s", "Reason"] and pd.isna(rows.loc["600 s", "Reason"])
    assert (rows["Tracer"] == "18FFDG").all() and (rows["Reconstruction"] == "stat").all()


def test_a_scan_that_the_manifest_no_longer_lists_has_no_rows(tmp_path: Path) -> None:
    write_scans(tmp_path, "01", {"a": 1000.0, "b": 1100.0})
    write_readouts(tmp_path, Settings(), nprocs=1)
    assert set(read(tmp_path, "means")["Session"]) == {"a", "b"}
    # Its PET was withdrawn: the next run lists the other, and the files stay.
    write_scans(tmp_path, "01", {"a": 1000.0})
    found = write_readouts(tmp_path, Settings(), nprocs=1)
    assert found.exit_code == 0
    for name in ("metadata", "means"):
        assert set(read(tmp_path, name)["Session"]) == {"a"}
    assert found.rows["repeatability"] == found.rows["repeatability_changes"] == 0


def test_a_broken_session_has_a_row_that_says_so_and_the_other_is_in_the_tables(tmp_path: Path) -> None:
    write_scans(tmp_path, "01", {"a": 1000.0})
    record = StepRecord("read", "failed", "the image cannot be read", about="ses-b_trc-18FFDG", exit_code=65)
    replace(Manifest.read(tmp_path, "01"), steps=(record,)).write(tmp_path)
    found = write_readouts(tmp_path, Settings(), nprocs=1)
    assert found.exit_code == 1 and "the image cannot be read" in found.failures["01"]
    metadata = read(tmp_path, "metadata").set_index("Session")
    assert list(metadata.index) == ["a", "b"]
    assert "read (failed)" in metadata.loc["b", "Missing"]
    assert "failed" not in metadata.loc["a", "Missing"]
    assert metadata.loc["b", "Tracer"] == "18FFDG" and np.isnan(metadata.loc["b", "SUV Denominator [Bq/mL]"])
    assert set(read(tmp_path, "means")["Session"]) == {"a"}
