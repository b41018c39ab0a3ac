"""Datasets and outputs under names that are no text, and consoles that know few letters."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from environment import command, run

from hedypet_bids.phantom import write_phantom

LOCALES = {
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "console": {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"},
    "UTF-8": {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"},
}


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A participant without dynamic PET, with letters beyond ASCII, in a folder whose name is Latin-1."""
    without = {"001": ("mr", "topogram", "dynamic")}
    plain = write_phantom(
        tmp_path_factory.mktemp("plain") / "bids", participants=1, seed=1, size="tiny", without=without
    )
    odd = Path(os.fsdecode(bytes(plain.parent) + b"/caf\xe9 \xc3\xbc"))
    shutil.move(plain, odd)
    table = odd / "participants.tsv"
    header, *rows = table.read_text("utf-8").splitlines()
    named = [f"{header}\tname", *(f"{row}\tJürgen" for row in rows)]
    table.write_text("\n".join(named) + "\n", "utf-8")
    (odd / "sub-001" / os.fsdecode(b"notes \xff.txt")).touch()
    return odd


@pytest.mark.slow
@pytest.mark.parametrize(
    "locale", ["ASCII", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("console", "UTF-8"))]
)
def test_both_levels_wherever_they_are(bids: Path, locale: str, tmp_path: Path) -> None:
    output = tmp_path / os.fsdecode(b"out \xff\xc3\xa9")
    settings = tmp_path / "settings.toml"
    settings.write_text("[resample]\nhead_voxel_mm = 4.0\n")
    given = ("--skip-bids-validation", "--settings", settings, "--nprocs", "1")
    for words in (("participant", *given), ("group",)):
        done = run(command(bids, output, *words), **LOCALES[locale])
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and "Logging error" not in done.stderr
    description = json.loads((output / "dataset_description.json").read_text())
    assert "caf%E9%20%C3%BC" in description["DatasetLinks"]["raw"]
    for path in output.rglob("*"):
        if path.suffix in (".json", ".tsv", ".html", ".log", ".md"):
            path.read_text("utf-8").encode()
            assert "\\udc" not in path.read_text("utf-8") or path.suffix != ".json", path
    assert (output / "readouts" / "means.parquet").is_file()
