"""The nouns of the study: frozen, checked when made, trusted afterwards.

Internal convention: world coordinates in mm, RAS+; time in s from injection;
activity concentration in Bq/mL. Files in other conventions are converted where
they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
Matrix = NDArray[np.float64]
"""A 4x4 homogeneous matrix in world mm."""

Sex = Literal["F", "M"]


@dataclass(frozen=True, eq=False)
class FrameTimes:
    """When each frame of a dynamic series starts and how long it lasts.

    Parameters
    ----------
    start_s, duration_s
        Shape (n_frames,), seconds from injection.

    Raises
    ------
    BadDataError
        Lengths differ, a duration is not positive, or frames are unsorted or
        overlap. The message names the first frame at fault (counted from 0).
    """

    start_s: NDArray[np.float64]
    duration_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        start = np.atleast_1d(np.array(self.start_s, dtype=np.float64))
        duration = np.atleast_1d(np.array(self.duration_s, dtype=np.float64))
        if start.ndim != 1 or start.shape != duration.shape:
            raise BadDataError(
                "FrameTimesStart and FrameDuration must be lists of the same length; "
                f"found {start.size} start times and {duration.size} durations."
            )
        if start.size == 0:
            raise BadDataError("FrameTimesStart is empty; expected one entry per frame.")
        if not (np.isfinite(start).all() and np.isfinite(duration).all()):
            raise BadDataError("FrameTimesStart and FrameDuration must be finite numbers of seconds.")
        if (duration <= 0).any():
            frame = int(np.argmax(duration <= 0))
            raise BadDataError(
                f"Frame {frame} has FrameDuration {duration[frame]:g} s; expected a positive number."
            )
        # Sidecars round to milliseconds, so ends and starts may disagree by that much.
        gap = start[1:] - (start[:-1] + duration[:-1])
        if (np.diff(start) <= 0).any():
            frame = int(np.argmax(np.diff(start) <= 0)) + 1
            raise BadDataError(
                f"Frame {frame} starts at {start[frame]:g} s, not after frame {frame - 1} "
                f"({start[frame - 1]:g} s); FrameTimesStart must increase."
            )
        if (gap < -2e-3).any():
            frame = int(np.argmax(gap < -2e-3)) + 1
            raise BadDataError(
                f"Frame {frame} starts at {start[frame]:g} s, before frame {frame - 1} ends "
                f"({start[frame - 1] + duration[frame - 1]:g} s); frames must not overlap."
            )
        for name, values in (("start_s", start), ("duration_s", duration)):
            values.flags.writeable = False
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return int(self.start_s.size)

    @property
    def end_s(self) -> NDArray[np.float64]:
        """End of each frame, s, shape (n_frames,)."""
        return self.start_s + self.duration_s

    @property
    def mid_s(self) -> NDArray[np.float64]:
        """Middle of each frame, s, shape (n_frames,)."""
        return self.start_s + self.duration_s / 2


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid in the world: shape (i, j, k) and 4x4 affine to RAS+ mm.

    Raises
    ------
    BadDataError
        The shape is not three positive numbers, or the affine is not a finite,
        invertible 4x4 matrix.
    """

    shape: tuple[int, int, int]
    affine: Matrix

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape, default=0) < 1:
            raise BadDataError(f"A voxel grid needs three positive dimensions; found shape {shape}.")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise BadDataError("The affine must be a 4x4 matrix of finite numbers; check qform and sform.")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise BadDataError("The affine is singular (voxels without volume); check qform and sform.")
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def voxel_sizes_mm(self) -> NDArray[np.float64]:
        """Length of the voxel edges along i, j and k, mm."""
        sizes: NDArray[np.float64] = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return sizes

    @property
    def voxel_volume_ml(self) -> float:
        """|det(affine)| / 1000."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    @property
    def n_voxels(self) -> int:
        """Number of voxels of the grid."""
        return int(np.prod(self.shape, dtype=np.int64))

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids put every voxel at the same place, within tolerance_mm."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, -1)
        moved = (self.affine - other.affine)[:3] @ np.vstack([corners, np.ones(corners.shape[1])])
        return bool(np.abs(moved).max() <= tolerance_mm)


@dataclass(frozen=True, eq=False)
class InputFunction:
    """Whole-blood activity over time from one volume of interest.

    Parameters
    ----------
    name
        Identifier as in the tables, ``<voi task>_<segment>``.
    mean, std
        Bq/mL per frame, shape (n_frames,); NaN where there is no voxel.
    n_voxels
        Voxels in the volume of interest.
    """

    name: str
    frames: FrameTimes
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    n_voxels: int
