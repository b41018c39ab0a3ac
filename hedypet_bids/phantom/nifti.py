"""NIfTI files written piece by piece, with the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip_threaded
from numpy.typing import DTypeLike, NDArray

from hedypet_bids.model import Grid

_COMPRESSLEVEL = 1
_SCANNER = 1


def write_slabs(
    path: Path,
    slabs: Iterable[NDArray[Any]],
    grid: Grid,
    *,
    dtype: DTypeLike,
    n_frames: int | None = None,
) -> None:
    """Write an image from its parts in the order of the file, each some planes of the last grid axis.

    Parameters
    ----------
    n_frames
        Of a dynamic series; None for an image of three dimensions.

    Raises
    ------
    ValueError
        The parts do not add up to the image.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    shape = grid.shape if n_frames is None else (*grid.shape, n_frames)
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(kind)
    header.set_data_shape(shape)
    header.set_zooms((*grid.voxel_sizes_mm, 1.0)[: len(shape)])
    header.set_sform(grid.affine, _SCANNER)
    header.set_qform(grid.affine, _SCANNER)
    header.set_xyzt_units("mm", "sec")
    header.set_slope_inter(1.0, 0.0)
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    path.parent.mkdir(parents=True, exist_ok=True)
    missing = int(np.prod(shape, dtype=np.int64))
    with igzip_threaded.open(path, "wb", compresslevel=_COMPRESSLEVEL, threads=1) as file:
        file.write(bytes(header.binaryblock) + b"\0\0\0\0")
        for slab in slabs:
            file.write(np.asarray(slab.T, dtype=kind, order="C").reshape(-1).view(np.uint8))
            missing -= slab.size
    if missing:
        raise ValueError(f"{path}: {missing} voxels of {shape} were not written")
