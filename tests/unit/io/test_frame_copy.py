"""Frames that pass by and are kept: the same voxels, in the work folder while needed, or a reason."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hedypet_bids.io.frame_copy import FrameCopy, FramesAgain
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.nifti_write import write_nifti
from hedypet_bids.model import FloatArray, Grid

SHAPE = (5, 4, 3)


def series(n_frames: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n_frames, *SHAPE)).astype(dtype)


def passing_in_one_buffer(frames: np.ndarray) -> Iterator[tuple[int, FloatArray]]:
    """As a reader gives them: each in the memory of the one before, in Fortran order."""
    buffer = np.empty(SHAPE, frames.dtype, order="F")
    for index, frame in enumerate(frames):
        buffer[...] = frame
        yield index, buffer


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_frames_that_are_wanted_are_kept_as_they_were(dtype: type, tmp_path: Path) -> None:
    frames, copy = series(6, dtype), FrameCopy()
    passed = [
        (index, frame.copy())
        for index, frame in copy.passing(passing_in_one_buffer(frames), {1, 4, 5}, tmp_path)
    ]
    assert [index for index, _ in passed] == list(range(6))
    np.testing.assert_array_equal([frame for _, frame in passed], frames)
    assert copy.has([1, 5, 4]) and not copy.has([0, 1])
    assert not copy.why_none
    for index in (1, 4, 5):
        found = copy.piece(index, 7, 31)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, frames[index].ravel(order="F")[7:31])
    (folder,) = tmp_path.iterdir()
    assert sum(path.stat().st_size for path in folder.iterdir()) == 3 * frames[0].nbytes
    copy.close()
    assert not copy.has([1]) and not list(tmp_path.iterdir())


def test_without_room_the_frames_pass_and_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1, 1, 1000))
    frames, copy = series(3), FrameCopy()
    passed = [frame.copy() for _, frame in copy.passing(passing_in_one_buffer(frames), {0, 1, 2}, tmp_path)]
    np.testing.assert_array_equal(passed, frames)
    assert "free" in copy.why_none and str(tmp_path) in copy.why_none
    assert not copy.has([0]) and not list(tmp_path.iterdir())


def test_a_work_folder_that_cannot_be_written_stops_no_frame(tmp_path: Path) -> None:
    frames, copy = series(3), FrameCopy()
    passed = [f.copy() for _, f in copy.passing(passing_in_one_buffer(frames), {1}, tmp_path / "none")]
    np.testing.assert_array_equal(passed, frames)
    assert str(tmp_path / "none") in copy.why_none and not copy.has([1])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_disc_that_fills_up_on_the_way_stops_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, copy = series(4), FrameCopy()
    opened = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, *a, **k: opened(Path("/dev/full") if self.name == "frames" else self, *a, **k),
    )
    passed = [f.copy() for _, f in copy.passing(passing_in_one_buffer(frames), {0, 1, 2, 3}, tmp_path)]
    np.testing.assert_array_equal(passed, frames)
    assert "No space left" in copy.why_none
    assert not copy.has([0]) and not list(tmp_path.iterdir())


VOXELS = np.array([2, 3, 11, 17, 30, 58, 59])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_some_voxels_only_these_are_kept(dtype: type, tmp_path: Path) -> None:
    frames, copy = series(4, dtype), FrameCopy()
    passed = copy.passing(passing_in_one_buffer(frames), range(4), tmp_path, voxels=VOXELS)
    np.testing.assert_array_equal([frame.copy() for _, frame in passed], frames)
    for index in range(4):
        np.testing.assert_array_equal(copy.piece(index, 1, 6), frames[index].ravel(order="F")[VOXELS[1:6]])
    (folder,) = tmp_path.iterdir()
    assert sum(path.stat().st_size for path in folder.iterdir()) == 4 * VOXELS.size * frames.itemsize
    copy.close()
    assert not list(tmp_path.iterdir())


def test_two_copies_of_one_series_are_kept_side_by_side(tmp_path: Path) -> None:
    frames, whole, some = series(5), FrameCopy(), FrameCopy()
    passing = some.passing(passing_in_one_buffer(frames), range(5), tmp_path, voxels=VOXELS)
    for _ in whole.passing(passing, {3, 4}, tmp_path):
        pass
    np.testing.assert_array_equal(whole.piece(4, 0, 60), frames[4].ravel(order="F"))
    np.testing.assert_array_equal(some.piece(4, 0, 7), frames[4].ravel(order="F")[VOXELS])


@pytest.mark.parametrize("most_bytes", [1, 4 * 5 * 3, 10**9])
def test_a_series_is_decompressed_again_for_as_many_voxels_as_memory_holds(
    most_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, path, passes = series(5), tmp_path / "series.nii.gz", []
    write_nifti(path, np.moveaxis(frames, 0, -1), Grid(SHAPE, np.eye(4)))
    chunks = FrameReader.chunks
    monkeypatch.setattr(FrameReader, "chunks", lambda self: passes.append(1) or chunks(self, n_voxels=13))
    again = FramesAgain(FrameReader(path), VOXELS, most_bytes=most_bytes)
    for start, stop in ((0, 2), (1, 4), (4, 7)):
        read = again.of(start, stop)
        for frame in range(5):
            found = read(frame, start + 1, stop)
            np.testing.assert_array_equal(found, frames[frame].ravel(order="F")[VOXELS[start + 1 : stop]])
    assert len(passes) == (1 if most_bytes == 10**9 else 3)
