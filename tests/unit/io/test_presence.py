"""Pipes and devices in the place of files: refused before they are opened, which would take for ever."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hedypet_bids.errors import BadDataError
from hedypet_bids.group.splits import read_splits
from hedypet_bids.group.table_file import TableFile
from hedypet_bids.inputs.text_files import participant_rows, read_json
from hedypet_bids.io.manifest import Manifest
from hedypet_bids.io.nifti_read import FrameReader, read_labels, read_volume
from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.io.store import Store
from hedypet_bids.io.tables import read_table
from hedypet_bids.steps.register import read_matrix

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "header": ("x.nii.gz", FrameReader),
    "image": ("x.nii", read_volume),
    "labels": ("x.nii.gz", read_labels),
    "sidecar": ("x.json", read_json),
    "participants": ("participants.tsv", lambda path: participant_rows(path, ["1"])),
    "table": ("x.tsv", read_table),
    "table of a scan": ("x.tsv", TableFile),
    "matrix": ("x.txt", read_matrix),
    "splits": ("splits.json", lambda path: read_splits(None, [path.parent], None)),
    "manifest": ("sub-1/sub-1_manifest.json", lambda path: Manifest.read(path.parents[1], "1")),
    "output": ("dataset_description.json", lambda path: Store(path.parent, {}).check_ours()),
}


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """An alarm ends what waits for the other end of a pipe."""

    def ring(_number: int, _frame: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused_at_once(reader: str, kind: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(BadDataError, match=name):
        read(path)


def test_a_pipe_in_the_place_of_a_sidecar_is_no_sidecar(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    assert read_sidecar(tmp_path / "x.nii.gz") == {}
