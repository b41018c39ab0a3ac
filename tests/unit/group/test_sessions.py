"""Readout tables of participants with several sessions, from made-up outputs."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from running import ROOT, only

from hedypet_bids.group.readouts import GroupTables, write_readouts
from hedypet_bids.group.values import framing_of
from hedypet_bids.io.manifest import Manifest, StepRecord
from hedypet_bids.io.store import STAMP_KEY
from hedypet_bids.labels import task
from hedypet_bids.names import NORMALISATIONS, sidecar_of
from hedypet_bids.report.group import write_group_page
from hedypet_bids.settings import Settings

sys.path.append(str(ROOT))
from benchmarks.group import finish, write_outputs

SESSIONS = ("test", "later")
REGION = ["Task", "Label Name", "Erosion Iterations"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten participants with two sessions each, named against the alphabet of their making."""
    folder = tmp_path_factory.mktemp("sessions") / "out"
    write_outputs(folder, 10, 4, [task("tissue"), task("totalimage"), task("aortavoi1ml3px")], SESSIONS)
    return folder


@pytest.fixture(scope="module")
def written(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GroupTables]:
    """The same with its tables, for tests that only read them."""
    path = tmp_path_factory.mktemp("written") / "out"
    shutil.copytree(made, path)
    return path, write_readouts(path, Settings(), nprocs=1)


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    path = tmp_path / "out"
    shutil.copytree(made, path)
    return path


def table(output: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(output / "readouts" / f"{name}.parquet")


def suv_by_session(output: Path, region: str) -> pd.DataFrame:
    """SUV of a region, a row a participant and a column a session, from the tables by pandas alone."""
    means = table(output, "means")
    means = means[(means["Label Name"] == region) & (means["Erosion Iterations"] == 0)]
    keys = ["Subject", "Session"]
    rows = means.merge(table(output, "metadata")[[*keys, NORMALISATIONS["SUV"]]], on=keys)
    rows["SUV"] = rows["PET Mean [Bq/mL]"] / rows[NORMALISATIONS["SUV"]]
    return rows.pivot_table(index="Subject", columns="Session", values="SUV")


def test_every_scan_has_its_rows(written: tuple[Path, GroupTables]) -> None:
    output, found = written
    assert found.n_participants == 10 and found.rows["metadata"] == 20 and found.exit_code == 0
    metadata = table(output, "metadata")
    assert list(metadata["Session"][:2]) == ["later", "test"] and metadata["Tracer"].isna().all()
    assert set(metadata["Reconstruction"]) == {"stat"}
    for name, reconstruction in (
        ("means", "stat"),
        ("tacs", "dyn"),
        ("kinetics", "dyn"),
        ("patlak_ki", "dyn"),
    ):
        rows = table(output, name)
        assert set(rows["Reconstruction"]) == {reconstruction}
        per_scan = rows.groupby(["Subject", "Session"]).size()
        assert len(per_scan) == 20 and per_scan.nunique() == 1


def test_kinetics_are_the_shown_fits_in_long_form(written: tuple[Path, GroupTables]) -> None:
    output, _ = written
    keys = ["Subject", "Session", *REGION]
    wide = table(output, "patlak_ki").query("`Regression Frames` == 8")
    wide = wide[wide["Input Function Identifier"] == "aortavois_combined_aorta_descending"]
    kinetics = table(output, "kinetics")
    assert set(kinetics["Model"]) == {"Patlak"} and len(kinetics) == 2 * len(wide)
    for parameter, value, units in (("Ki", "Patlak Ki", "mL/min/mL"), ("V0", "Patlak V0", "mL/mL")):
        long = kinetics[kinetics["Parameter"] == parameter]
        assert set(long["Units"]) == {units}
        both = long.merge(wide, on=keys, validate="one_to_one")
        np.testing.assert_array_equal(both["Value"], both[value])
        np.testing.assert_array_equal(both["SE"], both[f"{value} SE"])


def test_repeatability_is_that_of_the_tables(written: tuple[Path, GroupTables]) -> None:
    output, _ = written
    suv = suv_by_session(output, "visceral_fat")
    rows = table(output, "repeatability").query(
        "`Label Name` == 'visceral_fat' and `Erosion Iterations` == 0"
    )
    row = rows[rows["Quantity"] == "SUV"].iloc[0]
    difference = suv["test"] - suv["later"]  # sessions in the order of their names
    assert (row["Participants"], row["Sessions"]) == (10, 20)
    assert row["Bias"] == pytest.approx(difference.mean())
    assert row["Within-Subject SD"] == pytest.approx(np.sqrt((difference**2).mean() / 2))
    assert set(rows["Quantity"]) == {*NORMALISATIONS, "Patlak Ki", "Patlak V0", "Volume"}
    changes = table(output, "repeatability_changes").query(
        "`Label Name` == 'visceral_fat' and `Erosion Iterations` == 0 and Quantity == 'SUV'"
    )
    expected = 100 * difference / suv["later"]
    np.testing.assert_allclose(changes.set_index("Subject")["Change [%]"], expected.loc[changes["Subject"]])
    assert set(changes["First Session"]) == {"later"} and set(changes["Last Session"]) == {"test"}
    assert row["Mean Change [%]"] == pytest.approx(expected.mean())


def test_page_and_tables_carry_the_mark_of_their_run(written: tuple[Path, GroupTables]) -> None:
    output, found = written
    write_group_page(output, found)
    mark = pq.read_schema(output / "readouts" / "means.parquet").metadata[b"hedypet_run"].decode()
    assert f'<code id="run">{mark}</code>' in (output / "group.html").read_text("utf-8")


def test_other_frames_are_not_compared(output: Path) -> None:
    for i in range(9):
        for path in (output / f"sub-{i:05d}" / "ses-test").rglob("*_tacs.tsv"):
            rows = pd.read_csv(path, sep="\t")
            rows[["frame_start", "frame_end"]] *= 2
            rows.to_csv(path, sep="\t", index=False)
        finish(output, f"{i:05d}")
    write_readouts(output, Settings(), nprocs=1)
    rows = table(output, "repeatability").query("`Label Name` == 'visceral_fat'")
    participants = rows.groupby("Quantity")["Participants"].max()
    assert participants["SUV"] == 10 and participants["Patlak Ki"] == 1
    alone = rows[rows["Quantity"] == "Patlak Ki"]
    assert alone["ICC(2,1)"].isna().all() and alone["Reason"].notna().all()


def test_static_images_of_other_lengths_are_not_compared(output: Path) -> None:
    for i in range(10):
        for session in SESSIONS:
            minutes = 5 if i < 4 and session == "test" else 10
            for path in (output / f"sub-{i:05d}" / f"ses-{session}").rglob("*rec-stat*_morph.tsv"):
                content = json.loads(sidecar_of(path).read_text())
                frames = {"FrameStart": [3600.0], "FrameDuration": [60.0 * minutes]}
                image = f"sub-{i:05d}_ses-{session}_rec-stat_pet.nii.gz"
                content[STAMP_KEY]["Settings"] = {"pet": {image: frames}}
                sidecar_of(path).write_text(json.dumps(content))
    write_readouts(output, Settings(), nprocs=1)
    rows = table(output, "repeatability").query("Quantity == 'SUV'")
    assert set(rows["Framing"]) == {"600 s"} and set(rows["Participants"]) == {6}
    changes = table(output, "repeatability_changes").query("Quantity == 'SUV'")
    assert set(changes["Subject"]) == {f"sub-{i:05d}" for i in range(4, 10)}


def test_a_withdrawn_scan_has_no_rows_although_its_files_are_there(output: Path) -> None:
    write_readouts(output, Settings(), nprocs=1)
    before = table(output, "metadata")
    whole = Manifest.read(output, "00002")
    kept = [scan for scan in whole.scans if scan.name.session == "later"]
    outputs = tuple(o for o in whole.outputs if o.scans == ("ses-later",))
    replace(whole, scans=tuple(kept), outputs=outputs).write(output)
    found = write_readouts(output, Settings(), nprocs=1)
    assert found.exit_code == 0 and found.rows["metadata"] == len(before) - 1
    for name in ("metadata", "means", "tacs", "kinetics"):
        assert set(table(output, name).query("Subject == 'sub-00002'")["Session"]) == {"later"}
    assert "sub-00002" not in set(table(output, "repeatability_changes")["Subject"])


def test_statistics_count_a_participant_once(written: tuple[Path, GroupTables]) -> None:
    output, _ = written
    statistics = table(output, "statistics").query(
        "`Label Name` == 'visceral_fat' and `Erosion Iterations` == 0 and Quantity == 'SUV'"
        " and `Sex Group` == 'all' and `Age Group` == 'all'"
    )
    first = suv_by_session(output, "visceral_fat")["later"]
    assert statistics["Participants"].tolist() == [10]
    assert statistics["Mean"].iloc[0] == pytest.approx(first.mean())
    assert statistics["SD"].iloc[0] == pytest.approx(first.std())


def test_the_exit_code_is_65_for_missing_manifests_alone(output: Path) -> None:
    only(output / "sub-00003", "*_manifest.json").unlink()
    assert write_readouts(output, Settings(), nprocs=1).exit_code == 65
    finish(output, "00002", [StepRecord("maps Patlak", "failed", "the disk is full", exit_code=74)])
    assert write_readouts(output, Settings(), nprocs=1).exit_code == 1


def test_an_outlier_in_a_later_session_is_found_and_moves_no_median(output: Path) -> None:
    write_readouts(output, Settings(), nprocs=1)
    first = suv_by_session(output, "visceral_fat")["later"]
    path = only(output / "sub-00003" / "ses-test", "*rec-stat_seg-tissue_morph.tsv")
    rows = pd.read_csv(path, sep="\t")
    rows.loc[rows["name"] == "visceral_fat", "mean"] = 1e9
    rows.to_csv(path, sep="\t", index=False)
    finish(output, "00003")
    write_readouts(output, Settings(), nprocs=1)
    outliers = table(output, "outliers").query("`Label Name` == 'visceral_fat' and Quantity == 'SUV'")
    assert outliers[["Subject", "Session"]].to_numpy().tolist() == [["sub-00003", "test"]]
    assert outliers["Median"].iloc[0] == pytest.approx(first.median())


def test_a_scan_that_cannot_be_read_costs_no_other(output: Path) -> None:
    path = only(output / "sub-00001" / "ses-test", "*rec-stat_norm.tsv")
    sidecar_of(path).unlink()
    found = write_readouts(output, Settings(), nprocs=1)
    assert found.exit_code == 1 and path.stem in found.problems["00001"]
    metadata = table(output, "metadata").set_index(["Subject", "Session"])
    assert metadata.loc[("sub-00001", "test"), "Missing"].startswith("unreadable")
    assert np.isfinite(metadata.loc[("sub-00001", "later"), "Weight [kg]"])
    rows = table(output, "means").query("Subject == 'sub-00001'")
    assert set(rows["Session"]) == {"later"}


def test_a_broken_session_has_a_row_of_its_own(output: Path) -> None:
    whole = Manifest.read(output, "00002")
    broken = StepRecord(
        "inputs", "failed", "the PET has no units", about="ses-test", exit_code=65, scans=("ses-test",)
    )
    outputs = tuple(o for o in whole.outputs if o.scans == ("ses-later",))
    replace(whole, scans=whole.scans[:1], outputs=outputs, steps=(broken,)).write(output)
    found = write_readouts(output, Settings(), nprocs=1)
    assert found.exit_code == 1 and "no units" in found.failures["00002"]
    metadata = table(output, "metadata").set_index(["Subject", "Session"])
    assert "failed" in metadata.loc[("sub-00002", "test"), "Missing"]
    assert "inputs" not in str(metadata.loc[("sub-00002", "later"), "Missing"])
    write_group_page(output, found)
    assert "the PET has no units" in (output / "group.html").read_text()


def test_the_page_tells_sessions_apart_and_links_each(output: Path) -> None:
    for session in SESSIONS:
        (output / f"sub-00000_ses-{session}.html").write_text("page")
    failed = StepRecord("maps Patlak", "failed", "no space left", about="ses-test", scans=("ses-test",))
    finish(output, "00000", [failed])
    write_group_page(output, write_readouts(output, Settings(), nprocs=1))
    page = (output / "group.html").read_text()
    assert 'href="sub-00000_ses-later.html">sub-00000 ses-later<' in page
    assert ">session</th>" in page and ">tracer</th>" not in page
    listed = page.split('id="failed-steps"')[1].split("</ul>")[0]
    assert "sub-00000 ses-test" in listed and "sub-00000 ses-later" not in listed
    assert "No check is outside its normal range" not in page


@pytest.mark.parametrize(
    ("start", "duration", "expected"),
    [
        ([0, 10, 20, 80], [10, 10, 60, 60], "2x10,2x60 s"),
        ([7, 17, 27, 87], [10, 10, 60, 60], "2x10,2x60 s"),
        ([0, 10, 50], [10, 10, 60], "2x10,gap30,60 s"),
        ([0.0, 4.9996], [5.0, 5.0], "2x5 s"),
        ([], [], ""),
    ],
)
def test_framings_are_equal_whenever_the_scan_began(start: list, duration: list, expected: str) -> None:
    assert framing_of(start, duration) == expected
