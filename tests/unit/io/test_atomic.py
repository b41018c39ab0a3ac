"""Temporary files and folders go where their run was killed and stay where it lives; folders change whole."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from running import ENVIRONMENT

from hedypet_bids.io.atomic import atomic, publish_folder, remove_leftovers, temporary_folder

# Writes a file and holds a folder, and is killed in the middle of it.
KILLED = """
import os, signal, sys
from pathlib import Path
from hedypet_bids.io.atomic import atomic, temporary_folder
root = Path(sys.argv[1])
with temporary_folder(root) as folder, atomic(root / "sub" / "table.tsv") as temporary:
    (folder / "part").write_text("half")
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """What a killed run left in a folder."""
    subprocess.run([sys.executable, "-c", KILLED, tmp_path], env=ENVIRONMENT, check=False)
    assert len(list(tmp_path.rglob(".tmp-*"))) == 2
    return tmp_path


def test_what_killed_runs_left_is_removed(killed: Path) -> None:
    remove_leftovers(killed, deep=False)
    assert [path.parent.name for path in killed.rglob(".tmp-*")] == ["sub"]
    remove_leftovers(killed)
    assert [path.name for path in killed.rglob("*")] == ["sub"]


def test_what_a_living_run_writes_stays(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder, atomic(tmp_path / "table.tsv") as temporary:
        (folder / "part").write_text("half")
        temporary.write_text("whole")
        remove_leftovers(tmp_path)
        assert (folder / "part").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["table.tsv"]
    assert (tmp_path / "table.tsv").read_text() == "whole"


def test_a_new_folder_is_never_taken_for_left_over(tmp_path: Path) -> None:
    done = threading.Event()

    def tidy() -> None:
        while not done.is_set():
            remove_leftovers(tmp_path, "run-*", deep=False)

    others = [threading.Thread(target=tidy) for _ in range(3)]
    for other in others:
        other.start()
    try:
        for _ in range(500):
            with temporary_folder(tmp_path, prefix="run-") as folder:
                assert folder.is_dir()
                (folder / "file").write_text("kept")
    finally:
        done.set()
        for other in others:
            other.join()


def test_links_and_files_of_other_names_stay(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".tmp-link").symlink_to("elsewhere")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", ".tmp-link"}


@pytest.mark.parametrize("before", [True, False])
def test_a_folder_takes_the_place_of_another_whole(tmp_path: Path, before: bool) -> None:
    made, final = tmp_path / "made", tmp_path / "final"
    made.mkdir()
    (made / "new").touch()
    if before:
        final.mkdir()
        (final / "old").touch()
    publish_folder(made, final)
    assert [path.name for path in final.iterdir()] == ["new"]
    assert not before or [path.name for path in made.iterdir()] == ["old"]
