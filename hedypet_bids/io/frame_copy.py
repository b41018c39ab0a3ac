"""Frames of a series that passed by once, whole or some of their voxels, in a file of the work folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import RawIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.errors import OutputError
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.work_dir import folder_of_run
from hedypet_bids.model import FloatArray

# Others write into the work folder as well.
_LEFT_FREE_BYTES = 500_000_000


class FrameCopy:
    """Some frames of a series, kept for those who need them after the others have passed by.

    Attributes
    ----------
    why_none
        Why no frames were kept; empty before any passed, and where they were.
    """

    def __init__(self) -> None:
        self.why_none = ""
        self._held = ExitStack()
        self._path = Path()
        self._dtype: np.dtype[np.floating] = np.dtype(np.float32)
        self._n_voxels = 0
        self._position: dict[int, int] = {}

    def passing(
        self,
        frames: Iterable[tuple[int, FloatArray]],
        wanted: Collection[int],
        work: Path | None,
        *,
        voxels: NDArray[np.intp] | None = None,
    ) -> Iterator[tuple[int, FloatArray]]:
        """The frames as they come; those that are wanted are copied while the consumer looks at them.

        Where there is no room for all of them none is kept, and no fault of the work folder stops the frames.

        Parameters
        ----------
        frames
            Index and voxels of each frame, in any memory order.
        wanted
            Indices of frames.
        work
            The work folder; None: that of temporary files.
        voxels
            Those that are kept, counted in Fortran order and increasing; None: all.
        """
        with ThreadPoolExecutor(1, "hedypet-copy") as pool, ExitStack() as files:
            file: RawIOBase | None = None
            for index, frame in frames:
                if index not in wanted or self.why_none:
                    yield index, frame
                    continue
                if file is None:
                    n_voxels = frame.size if voxels is None else voxels.size
                    file = self._begun(frame.dtype, n_voxels, len(wanted), work, files)
                if file is None:
                    yield index, frame
                    continue
                written = pool.submit(_write, file, frame, voxels)
                yield index, frame
                # The memory of a frame is used again for the next one.
                try:
                    written.result()
                except OSError as fault:
                    self._drop(f"copying to {self._path.parent} failed: {fault.strerror}")
                else:
                    self._position[index] = len(self._position)

    def has(self, wanted: Iterable[int]) -> bool:
        """Whether all of these frames were kept."""
        return all(index in self._position for index in wanted)

    def piece(self, index: int, start: int, stop: int) -> NDArray[np.floating]:
        """Voxels of a kept frame, counted in Fortran order, or among those that are kept."""
        first = self._position[index] * self._n_voxels + start
        return np.fromfile(self._path, self._dtype, stop - start, offset=first * self._dtype.itemsize)

    def close(self) -> None:
        """Remove the file."""
        self._position.clear()
        self._held.close()

    def _begun(
        self, dtype: np.dtype[np.floating], n_voxels: int, n_frames: int, work: Path | None, files: ExitStack
    ) -> RawIOBase | None:
        """The file, where the frames have room; None: ``why_none`` says why not."""
        needed = n_voxels * dtype.itemsize * n_frames
        try:
            folder = self._held.enter_context(folder_of_run(work, "frames"))
            free = shutil.disk_usage(folder).free
            self._path, self._dtype, self._n_voxels = folder / "frames", dtype, n_voxels
            if free < needed + _LEFT_FREE_BYTES:
                where = folder.parent
                self._drop(f"{where} has {free / 1e6:.0f} MB free, and {needed / 1e6:.0f} MB are needed")
                return None
            return files.enter_context(self._path.open("wb", buffering=0))
        except OutputError as fault:
            self._drop(str(fault))
        except OSError as fault:
            self._drop(f"{self._path.parent} cannot be written: {fault.strerror}")
        return None

    def _drop(self, reason: str) -> None:
        self.close()
        self.why_none = reason


class FramesAgain:
    """Some voxels of all frames, from a series decompressed again for as many of them as memory holds.

    Parameters
    ----------
    reader
        Of the series.
    voxels
        Counted in Fortran order, increasing.
    most_bytes
        What the voxels of one pass may take, if that is enough for what is asked for at a time.
    """

    def __init__(
        self, reader: FrameReader, voxels: NDArray[np.intp], *, most_bytes: int = 800_000_000
    ) -> None:
        self._reader, self._voxels, self._most_bytes = reader, voxels, most_bytes
        self._start = 0
        self._held = np.empty((reader.n_frames, 0), dtype=np.float32)

    def of(self, start: int, stop: int) -> Callable[[int, int, int], NDArray[np.floating]]:
        """Reads the voxels from one place among them to another: frame, first and last place."""
        if not self._start <= start <= stop <= self._start + self._held.shape[1]:
            self._read(start, stop)
        held, first = self._held, self._start
        return lambda frame, one, other: held[frame, one - first : other - first]

    def _read(self, start: int, stop: int) -> None:
        a_voxel = self._held.itemsize * self._reader.n_frames
        last = min(max(stop, start + self._most_bytes // a_voxel), self._voxels.size)
        self._start, self._held = start, np.empty((0, 0), dtype=np.float32)
        held, voxels = np.empty((self._reader.n_frames, last - start), np.float32), self._voxels[start:last]
        for frame, position, values in self._reader.chunks():
            one, other = np.searchsorted(voxels, [position, position + values.size])
            held[frame, one:other] = values[voxels[one:other] - position]
        self._held = held


def _write(file: RawIOBase, frame: FloatArray, voxels: NDArray[np.intp] | None) -> None:
    """Write the voxels of a frame in Fortran order, or some of them."""
    flat = frame.reshape(-1, order="F")
    left = (flat if voxels is None else flat[voxels]).view(np.uint8).data
    while left:
        left = left[file.write(left) or 0 :]
