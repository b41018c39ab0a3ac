"""The group level when outputs are gone, edited, foreign, or come later, and when steps failed."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from running import ENVIRONMENT, ROOT, Run, hedypet, only, outputs

from hedypet_bids import Study
from hedypet_bids.errors import BadDataError, MissingInputError, NothingSelectedError, UsageError
from hedypet_bids.group.dictionary import COLUMNS, PARTICIPANT_TABLES, TABLES
from hedypet_bids.group.readouts import write_readouts
from hedypet_bids.group.splits import read_splits
from hedypet_bids.group.statistics import column_statistics, robust_z
from hedypet_bids.io.manifest import StepRecord
from hedypet_bids.labels import task
from hedypet_bids.names import sidecar_of
from hedypet_bids.report.group import write_group_page
from hedypet_bids.settings import Settings

sys.path.append(str(ROOT))
from benchmarks.group import finish, write_outputs


@pytest.fixture
def output(coarse_run: Run, tmp_path: Path) -> Path:
    """A copy of the outputs of two participants, without the group's files."""
    path = tmp_path / "out"
    shutil.copytree(
        coarse_run.output, path, ignore=shutil.ignore_patterns("readouts", "group.html", "*.nii.gz")
    )
    return path


def group(output: Path) -> tuple[int, str]:
    done = hedypet("raw", output, "group")
    return done.returncode, done.stderr


def table(output: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(output / "readouts" / f"{name}.parquet")


def test_every_column_of_every_table_is_described() -> None:
    for columns in TABLES.values():
        assert all(COLUMNS[column].description for column in columns)
        assert len(set(columns)) == len(columns)


def edited(path: Path) -> None:
    path.write_text(path.read_text().replace("liver", "lever"))


def cut_short(path: Path) -> None:
    sidecar_of(path).write_text('{"hedypet": {"Ver')


def without_sidecar(path: Path) -> None:
    sidecar_of(path).unlink()


@pytest.mark.parametrize("harm", [edited, Path.unlink, without_sidecar, cut_short])
def test_what_is_not_as_the_run_left_it_costs_its_participant_only(
    output: Path, harm: Callable[[Path], None]
) -> None:
    path = only(output / "sub-001", "*_seg-total_tacs.tsv")
    harm(path)
    code, text = group(output)
    assert code == 1
    assert "sub-001 FAILED" in text and "Traceback" not in text
    assert path.name in text or sidecar_of(path).name in text
    metadata = table(output, "metadata").set_index("Subject")
    assert metadata.loc["sub-001", "Missing"].startswith("unreadable")
    assert pd.isna(metadata.loc["sub-001", "Weight [kg]"])
    assert set(table(output, "means")["Subject"]) == {"sub-002"}


def test_a_participant_without_a_manifest_is_named(output: Path) -> None:
    (output / "sub-999").mkdir()
    code, text = group(output)
    assert code == 65
    assert "sub-999_manifest.json" in text and "sub-001 FAILED" not in text
    metadata = table(output, "metadata").set_index("Subject")
    assert "sub-999_manifest.json" in metadata.loc["sub-999", "Missing"]
    assert set(table(output, "means")["Subject"]) == {"sub-001", "sub-002"}
    assert "sub-999_manifest.json" in (output / "group.html").read_text()


def test_a_failed_step_is_in_missing_and_on_the_page(twelve: Path) -> None:
    record = StepRecord("tacs", "failed", "no room on the disc", about="ses-a", exit_code=74)
    finish(twelve, "00004", [record])
    code, text = group(twelve)
    assert code == 1 and "sub-00004" in text and "no room on the disc" in text
    missing = table(twelve, "metadata").set_index("Subject")["Missing"]
    assert "tacs (failed)" in missing["sub-00004"] and "failed" not in missing["sub-00003"]
    assert "sub-00004" in set(table(twelve, "means")["Subject"])
    page = (twelve / "group.html").read_text()
    assert "no room on the disc" in page
    assert "No check is outside its normal range" not in page


def test_what_a_participants_page_flags_is_on_the_groups(output: Path) -> None:
    assert group(output)[0] == 0
    table_of_flags = (output / "group.html").read_text().split('id="flag-table"')[1].split("</table>")[0]
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td></tr>", table_of_flags)
    for label in ("sub-001", "sub-002"):
        own = set(re.findall(r"FLAG</span> (.*?) <small>", (output / f"{label}.html").read_text()))
        assert (len(own) > 3) == (label == "sub-001")
        assert {flag for subject, flag in rows if label in subject} == own


def test_later_participants_give_the_same_bytes_as_all_at_once(twelve: Path) -> None:
    write_readouts(twelve, Settings(), nprocs=1)
    whole = contents(twelve / "readouts")
    shutil.move(twelve / "sub-00005", twelve.parent / "later")
    write_readouts(twelve, Settings(), nprocs=1)
    assert "sub-00005" not in set(table(twelve, "metadata")["Subject"])
    shutil.move(twelve.parent / "later", twelve / "sub-00005")
    write_readouts(twelve, Settings(), nprocs=1)
    assert contents(twelve / "readouts") == whole


def test_absent_labels_are_rows_without_voxels(output: Path) -> None:
    assert group(output)[0] == 0
    means = table(output, "means")
    absent = means[(means["Label Name"] == "kidney_cyst_left") & (means["Erosion Iterations"] == 0)]
    assert set(absent["Subject"]) == {"sub-001", "sub-002"}
    assert (absent["Voxel Count"] == 0).all() and absent["PET Mean [Bq/mL]"].isna().all()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up tables of twelve participants with few regions."""
    folder = tmp_path_factory.mktemp("many")
    write_outputs(folder, 12, 5, [task("tissue"), task("totalimage"), task("aortavoi1ml3px")])
    return folder


@pytest.fixture
def twelve(many: Path, tmp_path: Path) -> Path:
    path = tmp_path / "twelve"
    shutil.copytree(many, path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return outputs(folder)


def test_processes_and_partitions_change_no_row(twelve: Path) -> None:
    write_readouts(twelve, Settings(), nprocs=1)
    single = contents(twelve / "readouts")
    write_readouts(twelve, Settings(), nprocs=2)
    assert contents(twelve / "readouts") == single
    whole = {name: Study(twelve).readout(name) for name in TABLES}
    write_readouts(twelve, Settings(), nprocs=1, partition_rows=50)
    assert (twelve / "readouts" / "tacs.parquet" / "Subject=sub-00003" / "part-0.parquet").is_file()
    for name in TABLES:
        pd.testing.assert_frame_equal(Study(twelve).readout(name), whole[name])
    partitioned = contents(twelve / "readouts")
    assert {n: b for n, b in partitioned.items() if ".tsv.gz" in n} == {
        n: b for n, b in single.items() if ".tsv.gz" in n
    }
    write_readouts(twelve, Settings(), nprocs=1, partition_rows=50)
    assert contents(twelve / "readouts") == partitioned
    write_readouts(twelve, Settings(), nprocs=1)
    assert contents(twelve / "readouts") == single


# A group level that is killed when it gives the file of a certain number its final name.
KILLED = """
import os, signal, sys
from pathlib import Path
renamed = []
def watch(event, arguments):
    if event == "os.rename":
        renamed.append(arguments)
        if len(renamed) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
from hedypet_bids.group.readouts import write_readouts
from hedypet_bids.settings import Settings
write_readouts(Path(sys.argv[1]), Settings(), nprocs=1)
"""


def runs_of(folder: Path) -> set[str]:
    """Which runs wrote the tables, as the Parquet files say."""
    files = [path for path in folder.rglob("*.parquet") if path.is_file()]
    assert len(TABLES) <= len(files)
    return {pq.read_schema(path).metadata[b"hedypet_run"].decode() for path in files}


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.exhaustive), 25])
def test_a_killed_group_level_leaves_the_tables_as_they_were(twelve: Path, at: int) -> None:
    write_readouts(twelve, Settings(), nprocs=1)
    before, (run,) = contents(twelve / "readouts"), runs_of(twelve / "readouts")
    shutil.rmtree(twelve / "sub-00005")
    done = subprocess.run([sys.executable, "-c", KILLED, twelve, str(at)], env=ENVIRONMENT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert contents(twelve / "readouts") == before and runs_of(twelve / "readouts") == {run}
    assert list(twelve.glob(".tmp-*"))
    hedypet("raw", twelve, "group")
    assert not list(twelve.rglob(".tmp-*"))
    assert "sub-00005" not in set(table(twelve, "metadata")["Subject"])
    assert len(runs_of(twelve / "readouts") | {run}) == 2


def test_tables_on_another_disc_stay_there(twelve: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "tables").mkdir(parents=True)
    (twelve / "readouts").symlink_to(tmp_path / "elsewhere" / "tables")
    write_readouts(twelve, Settings(), nprocs=1, partition_rows=50)
    assert (twelve / "readouts").is_symlink() and len(runs_of(tmp_path / "elsewhere" / "tables")) == 1
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["tables"]


def test_partitions_are_pruned_by_participant(twelve: Path) -> None:
    write_readouts(twelve, Settings(), nprocs=1, partition_rows=50)
    for path in (twelve / "readouts" / "tacs.parquet").glob("Subject=*/*"):
        # The columns of the table are those of the first file.
        if path.parent.name not in ("Subject=sub-00000", "Subject=sub-00003"):
            path.write_bytes(b"not read")
    rows = Study(twelve).readout("tacs", subjects=["00003"], tasks=["totalimage"])
    assert set(rows["Subject"]) == {"sub-00003"} and len(rows) == 5


def test_the_text_tables_hold_the_numbers_of_parquet(twelve: Path) -> None:
    write_readouts(twelve, Settings(), nprocs=1)
    for name in TABLES:
        text = pd.read_csv(
            twelve / "readouts" / f"{name}.tsv.gz", sep="\t", na_values="n/a", keep_default_na=False
        )
        expected = table(twelve, name)
        pd.testing.assert_frame_equal(text, expected, check_dtype=False, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("seg-tissue_morph.tsv", "subcutaneous_fat", None, "lists a region twice"),
        ("seg-tissue_tacs.tsv", "visceral_fat", "subcutaneous_fat", "has a column twice"),
        ("seg-tissue_morph.tsv", "volume", "size", "has no column volume"),
        ("seg-tissue_morph.tsv", "\n1\t", "\none\t", "holds no numbers"),
        ("seg-tissue_tacs.tsv", "", "\0\0", "cannot be read as a table"),
    ],
)
def test_what_cannot_be_right_costs_its_participant_only(
    twelve: Path, name: str, old: str, new: str | None, message: str
) -> None:
    path = only(twelve / "sub-00004", f"*rec-dyn_{name}")
    text = path.read_text()
    if new is None:
        path.write_text(text + text.splitlines()[-1] + "\n")
    elif not old:
        path.write_bytes(b"a\tb\n1\n1\t2\t3\n")
    else:
        path.write_text(text.replace(old, new, 1))
    finish(twelve, "00004")
    found = write_readouts(twelve, Settings(), nprocs=1)
    assert list(found.problems) == ["00004"]
    assert message in found.problems["00004"] and path.name in found.problems["00004"]
    assert "sub-00004" not in set(table(twelve, "means")["Subject"])
    assert found.rows["metadata"] == 12
    assert len(set(table(twelve, "tacs")["Subject"])) == 11


def test_files_that_no_manifest_lists_do_not_exist(twelve: Path) -> None:
    write_readouts(twelve, Settings(), nprocs=1)
    before = contents(twelve / "readouts")
    folder = twelve / "sub-00001"
    for path in list(folder.rglob("*rec-dyn_seg-tissue_*")):
        shutil.copy(path, path.with_name(path.name.replace("rec-dyn", "rec-other")))
    (folder / "notes_tacs.tsv").write_text("hello")
    (folder / "sub-00002_seg-tissue_tacs.tsv").write_text("a\tb\n")
    (folder / "sub-00001_seg-tissue_tacs.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    found = write_readouts(twelve, Settings(), nprocs=1)
    assert not found.problems and not found.warnings
    assert contents(twelve / "readouts") == before


def test_regions_that_a_table_lacks_are_rows_without_voxels(twelve: Path) -> None:
    path = only(twelve / "sub-00001", "*rec-stat_seg-tissue_morph.tsv")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    finish(twelve, "00001")
    write_readouts(twelve, Settings(), nprocs=1)
    means = table(twelve, "means").query("Task == 'ts_tissue' and `Erosion Iterations` == 0")
    rows = means[means["Subject"] == "sub-00001"]
    assert list(rows["Label Name"]) == list(task("tissue").table.names)
    assert rows["Voxel Count"].iloc[-1] == 0 and np.isnan(rows["PET Mean [Bq/mL]"].iloc[-1])


def test_frame_times_are_each_participants_own(twelve: Path, tmp_path: Path) -> None:
    write_outputs(tmp_path / "short", 1, 3, [task("tissue")])
    shutil.rmtree(twelve / "sub-00000")
    shutil.move(tmp_path / "short" / "sub-00000", twelve / "sub-00000")
    write_readouts(twelve, Settings(), nprocs=1)
    n_frames = table(twelve, "tacs").groupby("Subject")["Frame Index"].nunique()
    assert n_frames["sub-00000"] == 3 and n_frames["sub-00001"] == 5


def test_several_versions_are_named(twelve: Path) -> None:
    sidecar = sidecar_of(only(twelve / "sub-00003", "*rec-stat_norm.tsv"))
    sidecar.write_text(sidecar.read_text().replace('"Version": "', '"Version": "0.0.'))
    found = write_readouts(twelve, Settings(), nprocs=1)
    assert not found.problems
    assert any("0.0." in w and "sub-00003" in w for w in found.warnings)
    assert "0.0." in table(twelve, "metadata").set_index("Subject").loc["sub-00003", "hedypet Version"]


def test_nothing_of_the_group_can_read_a_pickle() -> None:
    package = ROOT / "hedypet_bids"
    rooms = (package / room for room in ("group", "steps", "io"))
    sources = [package / "study.py", *(source for room in rooms for source in room.glob("*.py"))]
    assert len(sources) > 20
    for source in sources:
        assert not re.search(r"import pickle|read_pickle|allow_pickle=True", source.read_text()), source


SPLITS = '{"train": ["sub-00001", "00002"], "test": ["sub-00003"], "all": ["00001", "00077"]}'


@pytest.mark.parametrize("source", ["file", "output", "participants"])
def test_splits_select_and_label(twelve: Path, tmp_path: Path, source: str) -> None:
    path = None
    if source == "file":
        path = tmp_path / "mine.json"
        path.write_text(SPLITS)
    elif source == "output":
        (twelve / "splits.json").write_text(SPLITS)
    else:
        rows = ["sub-00001\ttrain", "sub-00002\ttrain", "sub-00003\ttest", "sub-00005\tn/a"]
        (tmp_path / "participants.tsv").write_text("\n".join(["participant_id\tsplit", *rows]) + "\n")
    write_readouts(twelve, Settings(), nprocs=1, splits=read_splits(path, [twelve, tmp_path], None))
    split = table(twelve, "metadata").set_index("Subject")["Split"]
    assert split["sub-00003"] == "test" and "train" in split["sub-00001"] and pd.isna(split["sub-00005"])
    chosen = read_splits(path, [twelve, tmp_path], "train")
    write_readouts(twelve, Settings(), nprocs=1, splits=chosen)
    for name in ("metadata", *PARTICIPANT_TABLES):
        assert set(table(twelve, name)["Subject"]) == {"sub-00001", "sub-00002"}


def test_splits_that_are_not_there_are_refused(twelve: Path, tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    with pytest.raises(MissingInputError, match=r"splits\.json"):
        read_splits(path, [], None)
    path.write_text('{"train": "sub-00001"}')
    with pytest.raises(BadDataError, match="lists of participants"):
        read_splits(path, [], None)
    path.write_text('{"train": ["sub-99"]}')
    with pytest.raises(UsageError, match="there is train"):
        read_splits(path, [], "validation")
    with pytest.raises(NothingSelectedError, match="12 participants"):
        write_readouts(twelve, Settings(), nprocs=1, splits=read_splits(path, [], "train"))
    (tmp_path / "participants.tsv").write_text('participant_id\tsplit\nsub-01\t"train\nsub-02\ttest\n')
    path.unlink()
    with pytest.raises(BadDataError, match=r"participants\.tsv.*quote"):
        read_splits(None, [tmp_path], None)
    path.symlink_to("not-fetched")
    with pytest.raises(BadDataError, match="datalad get"):
        read_splits(None, [tmp_path], None)


def test_the_command_line_takes_participants(twelve: Path) -> None:
    done = hedypet("raw", twelve, "group", "--participant-label", "sub-00003", "00004")
    assert done.returncode == 0, done.stderr
    for name in ("metadata", *PARTICIPANT_TABLES):
        assert set(table(twelve, name)["Subject"]) == {"sub-00003", "sub-00004"}
    assert hedypet("raw", twelve, "group", "--participant-label", "99").returncode == 18


def test_a_plan_of_the_group_writes_nothing(twelve: Path) -> None:
    before = sorted(twelve.rglob("*"))
    done = hedypet("raw", twelve, "group", "--dry-run", "--exclude-participant-label", "00003")
    assert done.returncode == 0, done.stderr
    assert "sub-00004" in done.stdout and "sub-00003" not in done.stdout
    assert sorted(twelve.rglob("*")) == before
    finish(twelve, "00004", [StepRecord("tacs", "failed", "no room on the disc", exit_code=74)])
    done = hedypet("raw", twelve, "group", "--dry-run")
    assert done.returncode == 1 and "no room on the disc" in done.stdout


def test_the_command_line_takes_a_split(twelve: Path, tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text(SPLITS)
    done = hedypet("raw", twelve, "group", "--splits", path, "--split", "test")
    assert done.returncode == 0, done.stderr
    assert set(table(twelve, "metadata")["Subject"]) == {"sub-00003"}
    assert hedypet("raw", twelve, "group", "--splits", path, "--split", "validation").returncode == 2


def test_statistics_are_those_of_pandas_over_the_tables(twelve: Path) -> None:
    write_readouts(twelve, Settings(), nprocs=1)
    statistics = table(twelve, "statistics")
    metadata = table(twelve, "metadata")
    means = table(twelve, "means").merge(metadata, on="Subject")
    means["Value"] = means["PET Mean [Bq/mL]"] / means["SUL Janma Denominator [Bq/mL]"]
    kinetics = table(twelve, "patlak_ki").merge(metadata, on="Subject")
    kinetics = kinetics[
        (kinetics["Input Function Identifier"] == "aortavois_combined_aorta_descending")
        & (kinetics["Regression Frames"] == 8)
    ].assign(Value=lambda rows: rows["Patlak Ki"])
    keys = ["Task", "Label Name", "Erosion Iterations"]
    for quantity, values in (("SUL Janma", means), ("Patlak Ki", kinetics)):
        for sex in ("F", "M", "all"):
            part = values if sex == "all" else values[values["Sex"] == sex]
            expected = part.groupby(keys)["Value"].describe(percentiles=[0.05, 0.25, 0.5, 0.75, 0.95])
            found = statistics[
                (statistics["Quantity"] == quantity)
                & (statistics["Sex Group"] == sex)
                & (statistics["Age Group"] == "all")
            ].set_index(keys)
            assert len(found) == len(expected) > 0
            for ours, theirs in (
                ("Mean", "mean"),
                ("SD", "std"),
                ("5 %", "5%"),
                ("Median", "50%"),
                ("95 %", "95%"),
            ):
                np.testing.assert_allclose(found[ours], expected.loc[found.index, theirs], rtol=1e-12)
            assert (found["Participants"] == expected.loc[found.index, "count"]).all()


def test_an_outlier_is_listed_for_its_participant(twelve: Path) -> None:
    path = only(twelve / "sub-00006", "*rec-stat_seg-tissue_morph.tsv")
    wrong = pd.read_csv(path, sep="\t")
    wrong.loc[wrong["name"] == "visceral_fat", "mean"] *= 1000
    wrong.to_csv(path, sep="\t", index=False)
    finish(twelve, "00006")
    tables = write_readouts(twelve, Settings(), nprocs=1)
    outliers = table(twelve, "outliers")
    row = outliers[outliers["Label Name"] == "visceral_fat"].iloc[0]
    assert row["Subject"] == "sub-00006" and row["Quantity"] == "SUV" and row["Robust z"] > 5
    write_group_page(twelve, tables)
    page = (twelve / "group.html").read_text()
    assert "SUV of visceral_fat" in page and "visceral_fat" in page


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 12), st.integers(1, 3)),
        elements=st.floats(-1e3, 1e3) | st.just(np.nan),
    )
)
def test_column_statistics_are_those_of_numpy(values: np.ndarray) -> None:
    found = column_statistics(values)
    z, centre, spread = robust_z(values)
    for i, column in enumerate(values.T):
        finite = column[np.isfinite(column)]
        assert found["Participants"][i] == len(finite)
        if not len(finite):
            assert np.isnan(found["Median"][i]) and np.isnan(found["Mean"][i])
            continue
        np.testing.assert_allclose(found["25 %"][i], np.quantile(finite, 0.25), atol=1e-9)
        np.testing.assert_allclose(found["Mean"][i], finite.mean(), atol=1e-9)
        np.testing.assert_allclose(centre[i], np.median(finite), atol=1e-9)
        if len(finite) > 1:
            np.testing.assert_allclose(found["SD"][i], finite.std(ddof=1), atol=1e-9)
        mad = 1.4826 * np.median(np.abs(finite - np.median(finite)))
        np.testing.assert_allclose(spread[i], mad, atol=1e-9)
        assert len(finite) >= 8 or not z[:, i].any()
