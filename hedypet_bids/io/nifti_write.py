"""NIfTI files written fast, whole or not at all, and byte for byte the same every time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from isal import igzip_threaded
from nibabel.spatialimages import HeaderDataError
from numpy.typing import DTypeLike, NDArray

from hedypet_bids.errors import BadDataError
from hedypet_bids.io import stop
from hedypet_bids.io.atomic import atomic
from hedypet_bids.model import Grid

# Levels of isal: 0 fastest to 3 smallest. 1 costs a third of the time of 3 for files a few per cent larger.
_COMPRESSLEVEL = 1

_CHUNK_BYTES = 16 << 20

# Axis lengths are stored as int16.
_LONGEST_AXIS = 32767

# A qform that puts a corner further off than this would only contradict the sform.
_QFORM_TOLERANCE_MM = 0.05

_SCANNER, _ALIGNED = 1, 2


def write_nifti(
    path: Path,
    data: NDArray[Any] | Iterable[NDArray[Any]],
    grid: Grid,
    *,
    dtype: DTypeLike | None = None,
    aligned: bool = False,
    frame_spacing_s: float = 1.0,
    compresslevel: int = _COMPRESSLEVEL,
    threads: int = 1,
    chunk_bytes: int = _CHUNK_BYTES,
) -> None:
    """Write an image of three or four dimensions to ``.nii.gz`` or ``.nii``, atomically.

    The bytes depend on data and grid alone: the gzip header has neither time nor name. The image
    is converted and compressed a few planes at a time, the compressor in its own thread.

    Parameters
    ----------
    data
        Shape ``grid.shape``, with frames last if there are any; or a 3D image in pieces, each some
        planes of the last axis. Fortran order is fastest.
    dtype
        Type on disk; by default that of the data or its first piece, with bool as uint8 and float16 as
        float32.
    aligned
        The voxels are in the space of another scan (NIfTI code 2, aligned) rather than of their
        own scanner (code 1). The qform gets code 0 when it cannot hold the affine (shears).
    frame_spacing_s
        Fourth voxel dimension of an image with frames.
    compresslevel
        0 (fastest) to 3 (smallest) of isal.
    threads
        Threads that compress; the bytes do not depend on it.
    chunk_bytes
        So much is converted and handed to the compressor at a time, at least a plane.

    Raises
    ------
    BadDataError
        Data and grid disagree in shape, or NIfTI cannot hold the type or the size.
    OutputError
        The folder cannot be made or written.
    ReadWriteError
        Writing failed half-way, for example because the disk is full. Nothing is left behind.
    """
    if isinstance(data, np.ndarray):
        shape, pieces = data.shape, iter([data])
        if shape[:3] != grid.shape or data.ndim > 4 or data.size == 0:
            raise _other_shape(path, grid, shape)
    else:
        shape, pieces = grid.shape, _counted(data, path, grid)
    first = next(pieces)
    kind = _disk_type(first.dtype if dtype is None else np.dtype(dtype))
    header = _header(path, shape, kind, grid, aligned, frame_spacing_s)
    with atomic(path) as temporary, _opened(temporary, compresslevel, threads) as file:
        file.write(header)
        for piece in chain([first], pieces):
            for chunk in _chunks(piece, kind, chunk_bytes):
                stop.raise_if_asked()
                file.write(chunk.data)


def _counted(pieces: Iterable[NDArray[Any]], path: Path, grid: Grid) -> Iterator[NDArray[Any]]:
    """The pieces; raises unless they are the planes of the grid."""
    n_planes = 0
    for piece in pieces:
        n_planes += piece.shape[2]
        if piece.shape[:2] != grid.shape[:2] or n_planes > grid.shape[2]:
            raise _other_shape(path, grid, (*piece.shape[:2], n_planes))
        yield piece
    if n_planes < grid.shape[2]:
        raise _other_shape(path, grid, (*grid.shape[:2], n_planes))


def _other_shape(path: Path, grid: Grid, found: tuple[int, ...]) -> BadDataError:
    return BadDataError(
        f"{path}: expected data of the grid's shape {grid.shape}, with or without frames; found {found}."
    )


def _disk_type(kind: np.dtype[Any]) -> np.dtype[Any]:
    replaced = {"bool": "uint8", "float16": "float32"}.get(kind.name, kind.name)
    return np.dtype(replaced).newbyteorder("<")


def _header(
    path: Path,
    shape: tuple[int, ...],
    kind: np.dtype[Any],
    grid: Grid,
    aligned: bool,
    frame_spacing_s: float,
) -> bytes:
    """Header of 348 bytes and the four bytes that say that no extension follows."""
    header = nib.Nifti1Header(endianness="<")
    if max(shape) > _LONGEST_AXIS:
        raise BadDataError(
            f"{path}: NIfTI cannot hold this image: axes are at most {_LONGEST_AXIS} long; found {shape}."
        )
    try:
        header.set_data_dtype(kind)
        header.set_data_shape(shape)
    except HeaderDataError as fault:
        raise BadDataError(f"{path}: NIfTI cannot hold this image: {fault}.") from fault
    header.set_zooms((*grid.voxel_sizes_mm, frame_spacing_s)[: len(shape)])
    code = _ALIGNED if aligned else _SCANNER
    header.set_sform(grid.affine, code)
    header.set_qform(grid.affine, code, strip_shears=True)
    # Its rotation is three float32 numbers, too few for shears and for some tilts of a long grid.
    if not Grid(grid.shape, header.get_qform()).matches(grid, _QFORM_TOLERANCE_MM):
        header["qform_code"] = 0
    header.set_xyzt_units("mm", "sec" if len(shape) == 4 else None)
    header.set_slope_inter(1.0, 0.0)
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    return bytes(header.binaryblock) + b"\0\0\0\0"


def _chunks(data: NDArray[Any], kind: np.dtype[Any], chunk_bytes: int) -> Iterator[NDArray[np.uint8]]:
    """The voxels as bytes in NIfTI order, some planes of the last axis at a time."""
    planes = data.shape[-1]
    step = max(1, chunk_bytes // max(1, data.size // planes * kind.itemsize))
    for start in range(0, planes, step):
        chunk = np.asarray(data[..., start : start + step].T, dtype=kind, order="C")
        yield chunk.reshape(-1).view(np.uint8)


@contextmanager
def _opened(path: Path, compresslevel: int, threads: int) -> Iterator[BinaryIO]:
    if path.suffix != ".gz":
        with path.open("wb") as plain:
            yield plain
        return
    with igzip_threaded.open(path, "wb", compresslevel=compresslevel, threads=threads) as compressed:
        yield cast(BinaryIO, compressed)
