"""Outputs: complete or absent, done only with a matching sidecar, and named by BIDS URIs."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hedypet_bids.errors import OutputError
from hedypet_bids.io.atomic import atomic, write_text
from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.io.store import Stamp, Store, Writer
from hedypet_bids.io.tables import read_table, write_table


@pytest.fixture
def store(tmp_path: Path) -> Store:
    raw = tmp_path / "raw"
    (raw / "derivatives" / "totalsegmentator").mkdir(parents=True)
    (raw / "a.txt").write_text("a")
    (tmp_path / "out").mkdir()
    return Store(tmp_path / "out", {"raw": raw, "totalsegmentator": raw / "derivatives" / "totalsegmentator"})


def stamp(store: Store, **settings: int) -> Stamp:
    return Stamp.of("step", [store.links["raw"] / "a.txt"], settings, store)


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    write_text(path, "whole")
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_failed_rewrite_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old"


def test_files_follow_the_umask(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; os.umask(0o027)\n"
        "from hedypet_bids.io.atomic import write_text\n"
        "write_text(pathlib.Path(sys.argv[1]), 'x')"
    )
    path = tmp_path / "file.txt"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.stat().st_mode & 0o777 == 0o640


def test_the_umask_survives_threads_that_write_at_once(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda n: write_text(tmp_path / f"{n}.txt", "x"), range(400)))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "file" / "below.txt", "x")


def test_tables_round_trip_with_missing_values_and_full_precision(tmp_path: Path) -> None:
    table = pd.DataFrame({"name": ["NA", "nan", "liver"], "value": [0.1 + 0.2, np.nan, 1e-300]})
    write_table(tmp_path / "t.tsv", table)
    assert "n/a" in (tmp_path / "t.tsv").read_text()
    back = read_table(tmp_path / "t.tsv")
    assert back["name"].tolist() == ["NA", "nan", "liver"]
    np.testing.assert_array_equal(back["value"], table["value"])


def test_uris_name_the_innermost_dataset(store: Store) -> None:
    raw = store.links["raw"]
    assert store.uri(store.root / "sub-1" / "x.tsv") == "bids::sub-1/x.tsv"
    assert store.uri(raw / "sub-1" / "x.nii") == "bids:raw:sub-1/x.nii"
    ready = raw / "derivatives" / "totalsegmentator" / "sub-1" / "y.nii"
    assert store.uri(ready) == "bids:totalsegmentator:sub-1/y.nii"


def test_a_result_is_done_only_with_the_same_inputs_settings_and_version(store: Store) -> None:
    now = stamp(store, n=1)
    path = store.path("table.tsv")
    assert now.reason_to_run([path]) == "table.tsv is not there"
    with Writer(store, now) as writer:
        writer.table("table.tsv", pd.DataFrame({"a": [1]}), sources=[])
    assert now.reason_to_run([path]) == ""
    assert stamp(store, n=1).reason_to_run([path]) == ""
    assert "other settings" in stamp(store, n=2).reason_to_run([path])
    os.utime(store.links["raw"] / "a.txt", ns=(0, 0))
    assert "other inputs" in stamp(store, n=1).reason_to_run([path])
    with Writer(store, stamp(store, n=1)) as writer:
        writer.table("table.tsv", pd.DataFrame({"a": [1]}), sources=[])
    sidecar = json.loads(store.path("table.json").read_text())
    # As an older hedypet would have written it.
    sidecar["hedypet"] |= {"Version": "0.0.99", "Digest": "0" * 16}
    store.path("table.json").write_text(json.dumps(sidecar))
    assert "0.0.99" in stamp(store, n=1).reason_to_run([path])


def test_a_result_without_its_sidecar_is_unfinished(store: Store) -> None:
    now = stamp(store)
    write_text(store.path("table.tsv"), "a\n1\n")
    assert "left unfinished" in now.reason_to_run([store.path("table.tsv")])


def test_a_failing_step_leaves_no_file_without_a_sidecar(store: Store) -> None:
    table = pd.DataFrame({"a": [1]})

    def sources() -> Iterator[Path]:
        """Those of a sidecar, asked for when the table is there."""
        yield store.links["raw"] / "a.txt"
        assert store.path("second.tsv").is_file()
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"), Writer(store, stamp(store)) as writer:
        writer.table("first.tsv", table, sources=[])
        writer.table("second.tsv", table, sources=sources())
    assert sorted(p.name for p in store.root.iterdir()) == ["first.json", "first.tsv"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), "table.tsv"),
        (lambda path: path.write_text("a\n2\n"), "table.tsv"),
        (lambda path: path.write_text("a\n1\n1\n"), "table.tsv"),
        (lambda path: path.with_suffix(".json").unlink(), "table.tsv"),
        (lambda path: path.with_suffix(".json").write_text("[]"), "table.tsv"),
        (lambda path: path.write_text(path.read_text()), ""),
        (lambda path: os.utime(path, ns=(0, 0)), ""),
    ],
    ids=["gone", "other bytes", "other size", "no sidecar", "no object", "written anew", "another time"],
)
def test_a_result_is_done_only_while_it_is_what_was_written(
    store: Store, change: Callable[[Path], object], words: str
) -> None:
    path = store.path("table.tsv")
    with Writer(store, stamp(store)) as writer:
        writer.table("table.tsv", pd.DataFrame({"a": [1]}), sources=[])
    change(path)
    reason = stamp(store).reason_to_run([path])
    assert words in reason and bool(reason) == bool(words)


def test_sidecars_are_strict_json_and_hold_the_sources(store: Store) -> None:
    with Writer(store, stamp(store, n=3)) as writer:
        writer.table(
            "t.tsv",
            pd.DataFrame({"a": [1]}),
            sources=[store.links["raw"] / "a.txt"],
            Measured=float("nan"),
            Counts=np.array([1, 2]),
        )
    sidecar = json.loads(store.path("t.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert sidecar["Sources"] == ["bids:raw:a.txt"]
    assert sidecar["Measured"] == "n/a"
    assert sidecar["Counts"] == [1, 2]
    assert sidecar["hedypet"]["Settings"] == {"n": 3}


def test_a_sidecar_cut_short_counts_as_none(store: Store) -> None:
    store.path("t.json").write_text('{"hedypet": {')
    assert read_sidecar(store.path("t.tsv")) == {}


def test_dataset_files_are_written_once(store: Store) -> None:
    store.write_dataset_files()
    before = store.path("dataset_description.json").stat().st_mtime_ns
    store.write_dataset_files()
    assert store.path("dataset_description.json").stat().st_mtime_ns == before
    description = json.loads(store.path("dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["DatasetLinks"].keys() == {"raw", "totalsegmentator"}


def test_the_container_is_named_from_the_environment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDYPET_CONTAINER_TAG", "hedypet:9.9")
    store.write_dataset_files()
    made_by = json.loads(store.path("dataset_description.json").read_text())["GeneratedBy"][0]
    assert made_by["Container"] == {"Type": "docker", "Tag": "hedypet:9.9"}
