"""Frames of a series that passed by once, uncompressed in a file of the work folder."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import RawIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.errors import OutputError
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
        self, frames: Iterable[tuple[int, FloatArray]], wanted: Collection[int], work: Path | None
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
        """
        with ThreadPoolExecutor(1, "hedypet-copy") as pool, ExitStack() as files:
            file: RawIOBase | None = None
            for index, frame in frames:
                if index not in wanted or self.why_none:
                    yield index, frame
                    continue
                if file is None and (file := self._begun(frame, len(wanted), work, files)) is None:
                    yield index, frame
                    continue
                written = pool.submit(_write, file, frame)
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
        """Voxels of a kept frame, counted in Fortran order."""
        first = self._position[index] * self._n_voxels + start
        return np.fromfile(self._path, self._dtype, stop - start, offset=first * self._dtype.itemsize)

    def close(self) -> None:
        """Remove the file."""
        self._position.clear()
        self._held.close()

    def _begun(
        self, frame: FloatArray, n_frames: int, work: Path | None, files: ExitStack
    ) -> RawIOBase | None:
        """The file, where the frames have room; None: ``why_none`` says why not."""
        needed = frame.nbytes * n_frames
        try:
            folder = self._held.enter_context(folder_of_run(work, "frames"))
            free = shutil.disk_usage(folder).free
            self._path, self._dtype, self._n_voxels = folder / "frames", frame.dtype, frame.size
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


def _write(file: RawIOBase, frame: FloatArray) -> None:
    """Write the voxels of a frame in Fortran order."""
    left = frame.reshape(-1, order="F").view(np.uint8).data
    while left:
        left = left[file.write(left) or 0 :]
