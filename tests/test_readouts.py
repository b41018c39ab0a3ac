"""The group level when participants are half written, unreadable, foreign, or come later."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import Run, hedypet, only

from hedypet_bids.bids_names import sidecar_of
from hedypet_bids.steps.data_dictionary import COLUMNS, TABLES


@pytest.fixture
def output(phantom_run: Run, tmp_path: Path) -> Path:
    """A copy of the outputs of two participants, without the group's files."""
    path = tmp_path / "out"
    shutil.copytree(
        phantom_run.output, path, ignore=shutil.ignore_patterns("readouts", "group.html", "*.nii.gz")
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


def test_an_unreadable_table_costs_its_participant_only(output: Path) -> None:
    only(output / "sub-001", "*_seg-total_tacs.tsv").write_bytes(b"\xff\xfe\x00broken")
    code, text = group(output)
    assert code == 1
    assert "sub-001 FAILED" in text and "seg-total_tacs.tsv" in text and "Traceback" not in text
    metadata = table(output, "metadata").set_index("Subject")
    assert metadata.loc["sub-001", "Missing"].startswith("unreadable")
    assert set(table(output, "means")["Subject"]) == {"sub-002"}


def test_a_table_with_a_missing_column_is_named(output: Path) -> None:
    path = only(output / "sub-002", "*_seg-total_morph.tsv")
    broken = pd.read_csv(path, sep="\t").drop(columns="n_voxels")
    broken.to_csv(path, sep="\t", index=False)
    code, text = group(output)
    assert code == 1
    assert "sub-002 FAILED" in text and "n_voxels" in text


def test_a_table_without_its_sidecar_does_not_count(output: Path) -> None:
    for path in (output / "sub-001").rglob("*_seg-totalimage_*tacs.tsv"):
        sidecar_of(path).unlink()
    code, _ = group(output)
    assert code == 0
    assert "curves" in table(output, "metadata").set_index("Subject").loc["sub-001", "Missing"]
    assert "totalimage" not in set(table(output, "tacs")["Task"])


def test_foreign_files_and_empty_participants_do_no_harm(output: Path) -> None:
    (output / "sub-001" / "notes_tacs.tsv").write_text("hello")
    (output / "sub-999").mkdir()
    code, _ = group(output)
    assert code == 0
    metadata = table(output, "metadata").set_index("Subject")
    assert "constants" in metadata.loc["sub-999", "Missing"]


def test_later_participants_give_the_same_bytes_as_all_at_once(output: Path) -> None:
    assert group(output)[0] == 0
    whole = {p.name: p.read_bytes() for p in (output / "readouts").iterdir()}
    shutil.move(output / "sub-002", output.parent / "later")
    assert group(output)[0] == 0
    assert set(table(output, "metadata")["Subject"]) == {"sub-001"}
    shutil.move(output.parent / "later", output / "sub-002")
    assert group(output)[0] == 0
    assert {p.name: p.read_bytes() for p in (output / "readouts").iterdir()} == whole


def test_absent_labels_are_rows_without_voxels(output: Path) -> None:
    assert group(output)[0] == 0
    means = table(output, "means")
    absent = means[(means["Label Name"] == "kidney_cyst_left") & (means["Erosion Iterations"] == 0)]
    assert set(absent["Subject"]) == {"sub-001", "sub-002"}
    assert (absent["Voxel Count"] == 0).all() and absent["PET Mean [Bq/mL]"].isna().all()
