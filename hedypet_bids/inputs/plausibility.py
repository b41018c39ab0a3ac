"""Whether images can show one person: voxel sizes, and where two images lie in the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, HedypetError
from hedypet_bids.io.nifti_read import FrameReader, read_position
from hedypet_bids.kernels.hounsfield import padding
from hedypet_bids.model import Grid
from hedypet_bids.settings import HeaderForm

# From small-animal scanners to coarse brain images; metres and micrometres are far outside.
VOXEL_RANGE_MM = (0.05, 50.0)
# Air is -1000 HU; tables and blankets around a patient leave most of it in place.
_AIR_HU = -500.0
_HIGHEST_HU = 32767.0
_LOOKED_AT_VOXELS = 1 << 20
# What rounding to float32 and quaternions explains is a thousandth of this.
_SAME_PLACE_MM = 1.0
_SAME_DIRECTION_DEGREES = 0.5


def check_voxel_sizes(path: Path) -> None:
    """Raise BadDataError when the voxels of an image are of no size that a scanner makes."""
    sizes = FrameReader(path).grid.voxel_sizes_mm
    low, high = VOXEL_RANGE_MM
    if (sizes < low).any() or (sizes > high).any():
        found = " x ".join(f"{size:g}" for size in sizes)
        raise BadDataError(
            f"{path} has voxels of {found} mm; expected {low:g} to {high:g} mm. Is its affine in metres or "
            "micrometres? Correct the sform and qform of its header."
        )


def check_position(path: Path, form: HeaderForm) -> None:
    """Raise BadDataError when the header of an image does not say where its voxels are, or says it twice.

    Parameters
    ----------
    path
        The image.
    form
        ``agree``: both forms must give one place; ``sform``: that one counts where they differ.
    """
    try:
        position = read_position(path)
    except HedypetError:
        return  # left to the step that reads the image
    if position.sform is None and position.qform is None:
        raise BadDataError(
            f"{path} does not say where it lies: both sform_code and qform_code of its header are 0, so its "
            "position and its left and right would be guessed. Convert it again from DICOM, or set its sform."
        )
    if position.sform is None or position.qform is None or form == "sform":
        return
    apart = _apart(position.sform, position.qform, position.shape)
    if apart:
        raise BadDataError(
            f"{path}: the sform and the qform of its header put it at different places ({apart}); expected "
            f"less than {_SAME_PLACE_MM:g} mm and {_SAME_DIRECTION_DEGREES:g} degrees. Correct the wrong "
            'one, or set [selection] header_form = "sform" in --settings if the sforms are right.'
        )


def _apart(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, int, int]) -> str:
    """How far two affines of an image are apart; empty where they are as good as the same."""
    middle = np.array([*((n - 1) / 2 for n in shape), 1.0])
    sizes, other_sizes = (np.linalg.norm(a[:3, :3], axis=0) for a in (one, other))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = ((one[:3, :3] / sizes) * (other[:3, :3] / other_sizes)).sum(axis=0)
    found = {
        "mm at its centre": (float(np.linalg.norm(((one - other) @ middle)[:3])), _SAME_PLACE_MM),
        "degrees": (float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).max()), _SAME_DIRECTION_DEGREES),
        "mm of length": (float((np.abs(sizes - other_sizes) * shape).max()), _SAME_PLACE_MM),
    }
    return ", ".join(f"{value:.3g} {what}" for what, (value, most) in found.items() if not value <= most)


def check_overlap(image: Path, other: Path) -> None:
    """Raise BadDataError when two images of one session share no part of the world.

    An image whose header cannot be read is left to the step that reads it.
    """
    try:
        boxes = [_box_mm(FrameReader(path).grid) for path in (image, other)]
    except HedypetError:
        return
    (low, high), (other_low, other_high) = boxes
    if (np.minimum(high, other_high) <= np.maximum(low, other_low)).any():
        raise BadDataError(
            f"{image} and {other} do not overlap: they lie at {_shown(low, high)} and at "
            f"{_shown(other_low, other_high)} (x, y, z in mm). Both must be in the coordinates of one scan; "
            "check the sform and qform of their headers."
        )


def padding_of(path: Path) -> str:
    """What the first slices of a CT hold as padding, in words; empty where they hold none."""
    values = _first_slices(path)
    found = np.unique(values[padding(values)])
    if not found.size:
        return ""
    shown = names.listed(f"{value:g}" for value in found[:3])
    return f"{path.name} holds {shown} where nothing was measured (padding); it counts as air"


def not_hounsfield(path: Path) -> str:
    """Why the first slices of a CT cannot be in Hounsfield units; empty when they can, or cannot be read.

    Air is around every patient, so some voxels are near -1000 HU, and no metal is beyond 12 bits by much.
    """
    values = _first_slices(path)
    padded = padding(values)
    measured = values[~padded & ~np.isnan(values)]
    if not measured.size:
        return ""
    low, high = float(measured.min()), float(measured.max())
    if (low <= _AIR_HU or padded.any()) and high <= _HIGHEST_HU:
        return ""
    return (
        f"{path} starts with values from {low:g} to {high:g}; in Hounsfield units there would be air (below "
        f"{_AIR_HU:g}) and nothing above {_HIGHEST_HU:g}. Rescale the CT with its DICOM's RescaleSlope and "
        "RescaleIntercept."
    )


def _first_slices(path: Path) -> NDArray[Any]:
    """The voxels that come first in an image; none where they cannot be read."""
    reader = FrameReader(path)
    pieces = reader.chunks(n_voxels=min(_LOOKED_AT_VOXELS, reader.grid.n_voxels))
    try:
        values: NDArray[Any] = next(pieces)[2].copy()
    except HedypetError:
        return np.empty(0)
    finally:
        pieces.close()
    return values


def _box_mm(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest world coordinates of a grid's outer edges."""
    index = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in grid.shape], indexing="ij")).reshape(3, -1)
    world = grid.affine[:3, :3] @ index + grid.affine[:3, 3:]
    return world.min(axis=1), world.max(axis=1)


def _shown(low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    return ", ".join(f"{a:.0f} to {b:.0f}" for a, b in zip(low, high, strict=True))
