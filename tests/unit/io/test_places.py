"""Where hedypet writes: a work folder that is nobody else's, an output folder that is its own."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hedypet_bids.errors import OutputError
from hedypet_bids.io import work_dir
from hedypet_bids.io.store import Store

CACHES = ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "DENO_DIR")


def planted(folder: Path) -> None:
    """Anybody may write into it."""
    folder.mkdir()
    folder.chmod(0o777)


def linked(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)


def of_another(folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder to another user")
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, shared by all users, and no caches yet."""
    for name in CACHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def check_private(temporary: Path, work: Path) -> None:
    for name in CACHES:
        cache = Path(os.environ[name])
        assert cache.is_relative_to(temporary) and cache.is_relative_to(work)
        for folder in (cache, work):
            found = folder.lstat()
            assert folder.is_dir() and not folder.is_symlink()
            assert found.st_uid == os.getuid() and not found.st_mode & 0o022


def test_the_work_folder_is_private_and_used_again(temporary: Path) -> None:
    first = work_dir.prepare(None)
    check_private(temporary, first)
    assert first.stat().st_mode & 0o777 == 0o700
    assert work_dir.prepare(None) == first


@pytest.mark.parametrize("make", [planted, linked, of_another])
def test_a_folder_that_others_can_write_is_not_taken(temporary: Path, make: Callable[[Path], None]) -> None:
    guessed = temporary / f"hedypet-{os.getuid()}"
    make(guessed)
    work = work_dir.prepare(None)
    assert work != guessed
    check_private(temporary, work)


@pytest.mark.parametrize("make", [planted, linked, of_another])
def test_nor_is_a_cache_in_a_work_folder_that_was_given(
    temporary: Path, make: Callable[[Path], None]
) -> None:
    given = temporary / "scratch"
    given.mkdir()
    make(given / "numba")
    assert work_dir.prepare(given) == given
    check_private(temporary, given)
    assert Path(os.environ["NUMBA_CACHE_DIR"]) != given / "numba"


def description(folder: Path, **content: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "x", **content}))
    return folder


def test_an_output_of_hedypet_and_an_empty_folder_are_taken(tmp_path: Path) -> None:
    raw = description(tmp_path / "raw")
    for place in ("out", "raw/derivatives/hedypet"):
        store = Store(tmp_path / place, {"raw": raw})
        store.check_ours()
        store.root.mkdir(parents=True)
        (store.root / ".git").mkdir()
        store.check_ours()
        store.write_dataset_files()
        store.check_ours()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("raw", "lies in the input"),
        ("raw/sub-1", "lies in the input"),
        ("raw/derivatives/totalsegmentator", "lies in the input"),
        ("raw/derivatives/fmriprep", "did not write"),
        ("old", "did not write"),
        ("photos", "holds a.jpg"),
        ("photos/a.jpg", "cannot be used"),
    ],
)
def test_what_is_not_hedypets_is_not_touched(tmp_path: Path, place: str, told: str) -> None:
    raw = description(tmp_path / "raw")
    ready = description(raw / "derivatives" / "totalsegmentator", GeneratedBy=[{"Name": "TotalSegmentator"}])
    description(raw / "derivatives" / "fmriprep", GeneratedBy=[{"Name": "fMRIPrep"}])
    description(tmp_path / "old", DatasetType="raw")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(OutputError, match=told):
        Store(tmp_path / place, {"raw": raw, "totalsegmentator": ready}).check_ours()


def test_readme_and_bidsignore_of_others_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "README").write_text("Ours.")
    (tmp_path / ".bidsignore").write_text("secret\n")
    store.write_dataset_files()
    assert (tmp_path / "README").read_text() == "Ours."
    assert (tmp_path / ".bidsignore").read_text() == "secret\n"
    (tmp_path / "README").unlink()
    (tmp_path / ".bidsignore").write_text("*.html\n")  # as a former version had it
    store.write_dataset_files()
    assert "hedypet" in (tmp_path / "README").read_text()
    assert len((tmp_path / ".bidsignore").read_text().splitlines()) > 1
