"""NIfTI images read frame by frame, decompressed by igzip in a thread that reads ahead.

A dynamic series is never in memory whole: what is needed is the frame in use and a few that are
being read. Works on single-file NIfTI-1 and -2 (``.nii``, ``.nii.gz``), any integer or float type
and byte order.
"""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import IO, Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from hedypet_bids.errors import (
    BadDataError,
    HedypetError,
    MissingInputError,
    ReadWriteError,
    link_to_nothing,
)
from hedypet_bids.io import stop as stop_wish
from hedypet_bids.io.presence import refuse_other_kinds
from hedypet_bids.model import FloatArray, Grid, IntArray

READ_BUFFER_BYTES = 1 << 20
# What of a frame is in memory at a time where no whole frame is needed: a few megabytes.
CHUNK_VOXELS = 1 << 20
# That of NIfTI-2.
_LONGEST_HEADER_BYTES = 540
# No scheme has more, and tables with a place for every label up to the highest one stay small.
_LARGEST_LABEL = 65535
# What nibabel says on a header that it refuses is in the error.
_UNHEARD = logging.Logger("nifti headers", logging.CRITICAL + 1)
# A stream may go on after the last frame, but not for ever.
_MOST_PADDING_BYTES = 1 << 20
# A CT of 2000 slices of 1024 x 1024 voxels is smaller; a few megabytes of zeros unpack to more.
_MOST_FRAME_BYTES = 1 << 32
# What a damaged gzip stream raises.
_DAMAGED: Any = (EOFError, zlib.error, isal_zlib.error, igzip.BadGzipFile)

# Integers of up to 16 bits are exact in float32, wider ones are not.
_EXACT_IN_FLOAT32 = frozenset({"b1", "i1", "i2", "u1", "u2", "f4"})


@dataclass(frozen=True)
class _Header:
    """What is needed of a NIfTI header to read the voxels."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float


class FrameReader:
    """Frames of a 3D or 4D NIfTI image, one after the other.

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz``; only the header is read at construction.
    read_ahead
        Frames that the reading thread may be ahead.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadDataError
        It is no NIfTI image, has another number of dimensions, or no real numbers.
    """

    def __init__(self, path: Path, *, read_ahead: int = 1) -> None:
        self.path = path
        self._header = _read_header(path)
        shape = self._header.shape
        try:
            self.grid = Grid((shape[0], shape[1], shape[2]), self._header.affine)
        except BadDataError as fault:
            raise BadDataError(f"{path}: {fault}") from fault
        self.n_frames = shape[3] if len(shape) == 4 else 1
        self.dtype = self._header.dtype
        self._read_ahead = read_ahead

    @property
    def frame_bytes(self) -> int:
        """Size of a frame on disk, uncompressed."""
        return self.grid.n_voxels * self.dtype.itemsize

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, FloatArray]]:
        """Index and voxels of each frame from ``start`` up to ``stop``.

        A frame has the shape of the grid in Fortran order, scaled by the header's slope and
        intercept; float32 where that holds every stored value, float64 otherwise. Its memory is
        used again: copy it to keep it beyond the next step of the iteration.

        Raises
        ------
        BadDataError
            The file is cut short or corrupt; the message names the frame.
        ReadWriteError
            The disk failed.
        """
        for index, _, values in self.chunks(start, stop, n_voxels=self.grid.n_voxels):
            yield index, values.reshape(self.grid.shape, order="F")

    def chunks(
        self, start: int = 0, stop: int | None = None, *, n_voxels: int = CHUNK_VOXELS, int16: bool = False
    ) -> Generator[tuple[int, int, NDArray[Any]]]:
        """Index of the frame, position in it and values of every piece of the frames, in file order.

        Like :meth:`frames` for what needs no whole frame in memory: values are flat, position
        counts voxels in Fortran order, a piece has ``n_voxels`` voxels or what is left of the frame.
        With ``int16`` unscaled 16-bit integers stay as they are, in half the memory.
        """
        stop = self.n_frames if stop is None else stop
        if not 0 <= start <= stop <= self.n_frames:
            raise ValueError(f"frames {start} to {stop} of an image with {self.n_frames} frames")
        if start == stop:
            return
        with _ReadingThread(self, start, stop, self._read_ahead, n_voxels) as thread:
            for index in range(start, stop):
                for position in range(0, self.grid.n_voxels, n_voxels):
                    stop_wish.raise_if_asked()
                    buffer = thread.next()
                    size = min(n_voxels, self.grid.n_voxels - position) * self.dtype.itemsize
                    yield index, position, self._decode(buffer[:size], int16=int16)
                    thread.give_back(buffer)

    def _decode(self, buffer: NDArray[np.uint8], *, int16: bool = False) -> NDArray[Any]:
        header = self._header
        stored = buffer.view(header.dtype)
        kind = f"{header.dtype.kind}{header.dtype.itemsize}"
        if int16 and kind == "i2" and header.slope == 1 and header.inter == 0:
            return stored.astype(np.int16, copy=False)
        wanted = np.float32 if kind in _EXACT_IN_FLOAT32 else np.float64
        # What is too large becomes infinite, and is then counted as such where voxels are measured; a
        # signalling NaN becomes a quiet one.
        with np.errstate(over="ignore", invalid="ignore"):
            if header.slope == 1 and header.inter == 0:
                return stored.astype(wanted, copy=False)
            # Scaled in float64 and rounded once.
            scaled = stored.astype(np.float64)
            scaled *= header.slope
            scaled += header.inter
            return scaled.astype(wanted, copy=False)

    def _decode_labels(self, buffer: NDArray[np.uint8]) -> NDArray[Any]:
        header = self._header
        if header.slope != 1 or header.inter != 0:
            values: NDArray[Any] = self._decode(buffer)
        else:
            values = buffer.view(header.dtype).astype(header.dtype.newbyteorder("="), copy=False)
        return values.reshape(self.grid.shape, order="F")


def read_volume(path: Path, *, int16: bool = False) -> tuple[NDArray[Any], Grid]:
    """The voxels (Fortran order) and grid of a 3D image, or of a 4D image with one frame.

    Float32 where that holds every stored value, float64 otherwise. With ``int16`` unscaled 16-bit
    integers, as most CT images are, stay as they are, in half the memory.

    Raises
    ------
    BadDataError
        As :class:`FrameReader`, or the image has several frames.
    """
    reader = _single_frame(path)
    volume: NDArray[Any] = np.empty(0)
    for _, position, values in reader.chunks(int16=int16):
        if position == 0:
            volume = np.empty(reader.grid.n_voxels, values.dtype)
        volume[position : position + values.size] = values
    return volume.reshape(reader.grid.shape, order="F"), reader.grid


def read_labels(path: Path) -> tuple[IntArray, Grid]:
    """The labels (Fortran order, integers of up to 16 bits) and grid of a label image.

    Labels stored as floats are accepted when they are whole numbers.

    Raises
    ------
    BadDataError
        As :func:`read_volume`, or a voxel holds no whole number, or none from 0 to 65535.
    """
    reader = _single_frame(path)
    with _ReadingThread(reader, 0, 1, 1, reader.grid.n_voxels) as thread:
        labels = reader._decode_labels(thread.next())
    if labels.dtype.kind == "f" and (not np.isfinite(labels).all() or (labels != np.rint(labels)).any()):
        raise BadDataError(f"{path} must hold labels (whole numbers); found other values. Is it an image?")
    low, high = labels.min(), labels.max()
    if low < 0:
        raise BadDataError(f"{path} holds the negative label {low:g}; expected labels from 0.")
    if high > _LARGEST_LABEL:
        raise BadDataError(f"{path} holds the label {high:g}; expected labels up to {_LARGEST_LABEL}.")
    return (labels if labels.dtype.itemsize <= 2 else labels.astype(np.uint16)), reader.grid


@dataclass(frozen=True)
class Position:
    """Where the two forms of a header put its voxels: affines, None where the header does not say.

    Parameters
    ----------
    sform, qform
        Voxel indices to world coordinates, mm, shape (4, 4).
    shape
        Voxels along the three axes.
    """

    sform: NDArray[np.float64] | None
    qform: NDArray[np.float64] | None
    shape: tuple[int, int, int]


def read_position(path: Path) -> Position:
    """Both forms of an image's header.

    Raises
    ------
    BadDataError
        As :class:`FrameReader`.
    """
    shape = FrameReader(path).grid.shape
    header = _nifti_header(path)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except (HeaderDataError, ValueError) as fault:
        raise BadDataError(f"{path} cannot be read as NIfTI: {fault}. Restore the file.") from fault
    return Position(sform, qform, shape)


def header_extensions(path: Path, *, most_bytes: int) -> list[bytes]:
    """The contents of the extensions in an image's header, of which the first ``most_bytes`` are read.

    Raises
    ------
    BadDataError
        As :class:`FrameReader`.
    """
    end = min(_read_header(path).offset, most_bytes)
    header = _nifti_header(path)
    start = header.sizeof_hdr + 4
    with _opened(path) as file:
        block = file.read(end)[start:]
    found, order = [], ">" if header.endianness == ">" else "<"
    while len(block) >= 8:
        (size,) = struct.unpack(f"{order}i", block[:4])
        if not 8 < size <= len(block):
            break
        found.append(block[8:size])
        block = block[size:]
    return found


def _single_frame(path: Path) -> FrameReader:
    reader = FrameReader(path)
    if reader.n_frames != 1:
        raise BadDataError(f"{path} has {reader.n_frames} frames; expected a 3D image.")
    return reader


class _ReadingThread:
    """Fills buffers with pieces of frames ahead of the consumer; leaves no thread behind."""

    def __init__(self, reader: FrameReader, start: int, stop: int, read_ahead: int, n_voxels: int) -> None:
        self._reader = reader
        self._range = range(start, stop)
        self._size = min(n_voxels, reader.grid.n_voxels) * reader.dtype.itemsize
        # Memory is touched only when a buffer is used: a short range costs what it needs.
        self._free: Queue[NDArray[np.uint8] | None] = Queue()
        for _ in range(read_ahead + 1):
            self._free.put(np.empty(self._size, dtype=np.uint8))
        self._filled: Queue[NDArray[np.uint8] | HedypetError] = Queue()
        self._thread = threading.Thread(target=self._read, name=f"read {reader.path.name}", daemon=True)

    def __enter__(self) -> _ReadingThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._free.put(None)
        self._thread.join()

    def next(self) -> NDArray[np.uint8]:
        """The next frame's bytes; raises what the thread met."""
        item = self._filled.get()
        if isinstance(item, HedypetError):
            raise item
        return item

    def give_back(self, buffer: NDArray[np.uint8]) -> None:
        """Let the thread fill a buffer again."""
        self._free.put(buffer)

    def _read(self) -> None:
        try:
            with _opened(self._reader.path) as file:
                header, size = self._reader._header, self._reader.frame_bytes
                _skip_to(file, header.offset + self._range.start * size)
                for index in self._range:
                    if not self._read_frame(file, index):
                        return
        except HedypetError as error:
            self._filled.put(error)
        except _DAMAGED as fault:
            self._filled.put(_corrupt(self._reader.path, str(fault)))
        except OSError as fault:
            self._filled.put(ReadWriteError(f"Reading {self._reader.path} failed: {fault}."))
        except MemoryError:
            self._filled.put(_corrupt(self._reader.path, "it declares more voxels than memory can hold"))

    def _read_frame(self, file: IO[bytes], index: int) -> bool:
        """Hand over a frame piece by piece; False when the consumer has gone."""
        for position in range(0, self._reader.frame_bytes, self._size):
            buffer = self._free.get()
            if buffer is None:
                return False
            size = min(self._size, self._reader.frame_bytes - position)
            _fill(file, buffer[:size], self._reader.path, index)
            # Before the last piece goes out, so that no consumer ends well on a damaged file.
            if index == self._reader.n_frames - 1 and position + size == self._reader.frame_bytes:
                _check_end(file, self._reader.path)
            self._filled.put(buffer)
        return True


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb", buffering=0) as raw:
        if path.name.endswith(".gz"):
            with igzip.IGzipFile(fileobj=raw, mode="rb") as file:
                yield file
        else:
            yield raw


def _skip_to(file: IO[bytes], position: int) -> None:
    """Move forward; in a gzip stream that means decompressing and dropping."""
    if not isinstance(file, igzip.IGzipFile):
        file.seek(position)
        return
    scratch = memoryview(bytearray(min(READ_BUFFER_BYTES, position) or 1))
    left = position
    while left:
        got = file.readinto(scratch[: min(left, len(scratch))])
        if not got:
            return
        left -= got


def _fill(file: IO[bytes], buffer: NDArray[np.uint8], path: Path, index: int) -> None:
    view, done = memoryview(buffer.data), 0
    while done < len(view):
        try:
            got = file.readinto(view[done:])  # type: ignore[attr-defined]
        except _DAMAGED as fault:
            raise _corrupt(path, f"frame {index} cannot be decompressed ({fault})") from fault
        if not got:
            raise _corrupt(path, f"it ends within frame {index}, {len(view) - done} bytes too early")
        done += got


def _check_end(file: IO[bytes], path: Path) -> None:
    """Read what follows the last frame, so that gzip checks its sum; raises when that is no mere padding."""
    surplus = 0
    while got := len(file.read(READ_BUFFER_BYTES)):
        surplus += got
        if surplus > _MOST_PADDING_BYTES:
            raise _corrupt(path, "it continues after the last voxel that its header declares")


def _corrupt(path: Path, what: str) -> BadDataError:
    return BadDataError(f"{path} is cut short or corrupt: {what}. Restore the file.")


def _read_header(path: Path) -> _Header:
    header = _nifti_header(path)
    try:
        shape = tuple(int(n) for n in header.get_data_shape())
        # What overflows is not finite, and is refused with the grid.
        with np.errstate(over="ignore", invalid="ignore"):
            affine = np.array(header.get_best_affine(), dtype=np.float64)
        dtype = header.get_data_dtype()
        offset = int(header.get_data_offset())
        slope, inter = header.get_slope_inter()
    except (HeaderDataError, ValueError, OverflowError) as fault:
        raise BadDataError(f"{path} cannot be read as NIfTI: {fault}. Restore the file.") from fault
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise BadDataError(f"{path} has the dimensions {shape}; expected a 3D or 4D image with voxels.")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise BadDataError(f"{path} holds {dtype}; expected integers or floats of up to 64 bits.")
    if np.isinf(header["scl_slope"]):
        raise BadDataError(f"{path} has an infinite slope (scl_slope); expected a number. Restore the file.")
    # nibabel lets 0 pass, and would take the header's own bytes as voxels.
    if offset < header.single_vox_offset:
        raise BadDataError(
            f"{path} has the vox_offset {offset}, within its header; expected at least "
            f"{header.single_vox_offset}. Restore the file."
        )
    _check_size(path, shape, dtype, offset)
    # A slope of 0 or NaN means that the values are not scaled.
    return _Header(shape, affine, dtype, offset, 1.0 if slope is None else slope, inter or 0.0)


def _nifti_header(path: Path) -> Any:
    """The header alone: an extension behind it may declare any size, so none is read."""
    refuse_other_kinds(path)
    try:
        with _opened(path) as file:
            content = file.read(_LONGEST_HEADER_BYTES)
        kinds = [k for k in (nib.Nifti1Header, nib.Nifti2Header) if k.may_contain_header(content)]
        if not kinds:
            raise HeaderDataError(f"it starts with none of the headers ({len(content)} bytes read)")
        header = kinds[0](content[: kinds[0].sizeof_hdr], check=False)
        header.check_fix(_UNHEARD)
    except FileNotFoundError:
        raise MissingInputError(_not_there(path)) from None
    except (*_DAMAGED, OSError, HeaderDataError, ValueError, OverflowError) as fault:
        raise BadDataError(f"{path} cannot be read as NIfTI: {fault}. Restore the file.") from fault
    if not bytes(header["magic"]).startswith(b"n+"):
        raise BadDataError(f"{path} is the header of a pair of files; expected a single-file NIfTI image.")
    return header


def _not_there(path: Path) -> str:
    if path.is_symlink():
        return f"The image {link_to_nothing(path)}"
    return f"The image {path} does not exist."


def _check_size(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> None:
    """Refuse headers that declare far more data than the file, or any memory, can hold."""
    frame_bytes = int(np.prod(shape[:3], dtype=object)) * dtype.itemsize
    if frame_bytes > _MOST_FRAME_BYTES:
        raise BadDataError(
            f"{path} declares {frame_bytes >> 20} MB for one frame {shape[:3]}; expected at most "
            f"{_MOST_FRAME_BYTES >> 20} MB. Is its header damaged? Restore the file."
        )
    declared = offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    size = path.stat().st_size
    # Deflate cannot compress by more than 1032 to 1.
    most = size * 1032 if path.name.endswith(".gz") else size
    if declared > most:
        raise BadDataError(
            f"{path} declares {declared} bytes of voxels {shape}, but its {size} bytes can hold at most "
            f"{most}: it is cut short or its header is wrong. Restore the file."
        )
