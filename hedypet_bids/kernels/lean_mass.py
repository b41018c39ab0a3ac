"""Lean body mass by formula and by CT, and the constants that turn Bq/mL into SUV and SUL."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError
from hedypet_bids.model import BoolArray, Grid, IntArray, Sex

WEIGHT_RANGE_KG = (2.0, 400.0)
HEIGHT_RANGE_M = (0.5, 2.5)

# James WPT, Research on obesity, HMSO 1976: LBM = a*W - b*(W/H)^2, H in cm.
_JAMES = {"M": (1.10, 128.0), "F": (1.07, 148.0)}
# Janmahasatian et al., Clin Pharmacokinet 2005;44:1051: LBM = 9270*W / (a + b*BMI).
_JANMAHASATIAN = {"M": (6680.0, 216.0), "F": (8780.0, 244.0)}
# Decazes et al., J Nucl Med 2016;57:753: density of fat in g/mL, and the part of the
# body's fat that lies in the range of the CT, in hedyPET's variant.
_FAT_DENSITY_G_ML = 0.923
_FAT_PART_IN_RANGE = 0.716

# Voxels of one slice may differ by this much in world z through rounding of the affine.
_SAME_PLANE_MM = 1e-3


@dataclass(frozen=True)
class FatRange:
    """Fat between hip and skull on a CT, or the reason why it is not known.

    Parameters
    ----------
    volume_ml
        Subcutaneous and torso fat in the range; NaN when ``reason`` is not empty.
    lower_z_mm, upper_z_mm
        World z of the lowest hip voxel and the highest skull voxel; NaN where unknown.
    reason
        Empty when the volume is good.
    """

    volume_ml: float
    lower_z_mm: float
    upper_z_mm: float
    reason: str = ""

    @classmethod
    def unknown(cls, reason: str) -> FatRange:
        """A range without a volume, and why."""
        return cls(math.nan, math.nan, math.nan, reason)


@dataclass(frozen=True)
class NormalisationConstant:
    """What an image in Bq/mL is divided by to get SUV or SUL.

    Parameters
    ----------
    name
        ``suv``, ``sul_james``, ``sul_janma`` or ``sul_decazes``.
    value
        Bq/g; NaN when ``reason`` is not empty.
    method
        Formula in words, with its inputs.
    reason
        Why there is no value; empty when there is one.
    flag
        What to beware of in a value that is given; empty when nothing.
    """

    name: str
    value: float
    units: str
    method: str
    reason: str = ""
    flag: str = ""


def james_lbm_kg(weight_kg: float, height_m: float, sex: Sex) -> float:
    """Lean body mass in kg by James; falls again with weight beyond :func:`james_turning_bmi`."""
    a, b = _JAMES[sex]
    return a * weight_kg - b * (weight_kg / (height_m * 100.0)) ** 2


def james_turning_bmi(sex: Sex) -> float:
    """BMI in kg/m2 at which James' formula has its maximum: 36.1 for F, 43.0 for M."""
    a, b = _JAMES[sex]
    return 1e4 * a / (2.0 * b)


def janmahasatian_lbm_kg(weight_kg: float, height_m: float, sex: Sex) -> float:
    """Lean body mass in kg by Janmahasatian."""
    a, b = _JANMAHASATIAN[sex]
    return 9270.0 * weight_kg / (a + b * weight_kg / height_m**2)


def decazes_lbm_kg(weight_kg: float, fat_volume_ml: float) -> float:
    """Lean body mass in kg by Decazes, from the fat between hip and skull on CT."""
    return weight_kg - (fat_volume_ml * _FAT_DENSITY_G_ML / 1000.0) / _FAT_PART_IN_RANGE


def fat_between_hip_and_skull(
    tissue: IntArray,
    total: IntArray,
    grid: Grid,
    *,
    subcutaneous: int,
    torso: int,
    hips: Sequence[int],
    skull: int,
) -> FatRange:
    """Volume of fat from the lowest hip voxel to the highest skull voxel in world z, both included.

    Parameters
    ----------
    tissue, total
        Label images on ``grid``, any orientation, also oblique.
    subcutaneous, torso
        Fat labels of ``tissue``.
    hips, skull
        Labels of ``total``.

    Returns
    -------
    FatRange
        Without a volume when hip or skull are missing or reach the end of the image
        (the body goes on outside it), or when there is no fat between them.

    Raises
    ------
    BadDataError
        The images do not have the shape of the grid.
    """
    for name, labels in (("tissue", tissue), ("total", total)):
        if labels.shape != grid.shape:
            raise BadDataError(
                f"The {name} segmentation has shape {labels.shape}; expected {grid.shape}, the CT's. "
                "Segmentations must be on the grid of the CT that they were made from."
            )
    hip_z = _z_extent(total, grid, hips)
    skull_z = _z_extent(total, grid, [skull])
    reason = _range_fault(total, grid, hips=hips, skull=skull, hip_z=hip_z, skull_z=skull_z)
    if reason:
        return FatRange.unknown(reason)
    assert hip_z is not None
    assert skull_z is not None
    n_fat = _count_between(tissue, grid, [subcutaneous, torso], low_mm=hip_z[0], high_mm=skull_z[1])
    if n_fat == 0:
        return FatRange(
            math.nan, hip_z[0], skull_z[1], "the tissue segmentation has no fat between hip and skull"
        )
    return FatRange(n_fat * grid.voxel_volume_ml, hip_z[0], skull_z[1])


def normalisation_constants(
    *,
    dose_bq: float | None,
    weight_kg: float | None,
    height_m: float | None,
    sex: Sex | None,
    fat: FatRange | None = None,
    dose_reason: str = "",
) -> tuple[NormalisationConstant, ...]:
    """The constants ``suv``, ``sul_james``, ``sul_janma`` and ``sul_decazes`` in this order.

    Parameters
    ----------
    dose_bq
        Activity injected, at the time that the image is decay-corrected to; None or NaN
        when unknown, then ``dose_reason`` says why.
    weight_kg, height_m, sex
        None when unknown.
    fat
        From :func:`fat_between_hip_and_skull`; None without a tissue segmentation.
    """
    dose_fault = _dose_fault(dose_bq, dose_reason)
    weight_fault = _range_reason("weight", weight_kg, WEIGHT_RANGE_KG, "kg")
    body_fault = weight_fault or _range_reason("height", height_m, HEIGHT_RANGE_M, "m")
    body_fault = body_fault or ("" if sex in ("F", "M") else "the sex (F or M) is unknown")
    fat_fault = weight_fault or ("no tissue segmentation of a CT" if fat is None else fat.reason)

    james = janma = decazes = math.nan
    james_flag = ""
    if not body_fault:
        assert weight_kg is not None and height_m is not None and sex is not None
        james = james_lbm_kg(weight_kg, height_m, sex)
        janma = janmahasatian_lbm_kg(weight_kg, height_m, sex)
        james_flag = _james_flag(weight_kg / height_m**2, sex)
    if not fat_fault:
        assert weight_kg is not None and fat is not None
        decazes = decazes_lbm_kg(weight_kg, fat.volume_ml)

    weight = math.nan if weight_kg is None or weight_fault else weight_kg
    dose = math.nan if dose_bq is None or dose_fault else dose_bq
    return (
        _constant("suv", "injected activity / body weight", dose, weight, dose_fault or weight_fault),
        _lean_constant("sul_james", "James 1976", dose, james, weight, dose_fault or body_fault, james_flag),
        _lean_constant("sul_janma", "Janmahasatian 2005", dose, janma, weight, dose_fault or body_fault),
        _lean_constant(
            "sul_decazes", "Decazes 2016, fat on CT", dose, decazes, weight, dose_fault or fat_fault
        ),
    )


def _constant(
    name: str, method: str, dose_bq: float, mass_kg: float, reason: str, flag: str = ""
) -> NormalisationConstant:
    value = math.nan if reason else dose_bq / (mass_kg * 1000.0)
    return NormalisationConstant(name, value, "Bq/g", method, reason, "" if reason else flag)


def _lean_constant(
    name: str, formula: str, dose_bq: float, lbm_kg: float, weight_kg: float, reason: str, flag: str = ""
) -> NormalisationConstant:
    if not reason and not 0.0 < lbm_kg < weight_kg:
        reason = f"the lean body mass by {formula} is {lbm_kg:.4g} kg, not between 0 and {weight_kg:g} kg"
    return _constant(name, f"injected activity / lean body mass by {formula}", dose_bq, lbm_kg, reason, flag)


def _dose_fault(dose_bq: float | None, dose_reason: str) -> str:
    if dose_bq is None or not math.isfinite(dose_bq):
        return dose_reason or "the injected activity is unknown"
    return "" if dose_bq > 0 else f"the injected activity is {dose_bq:g} Bq; expected a positive number"


def _range_reason(what: str, value: float | None, limits: tuple[float, float], units: str) -> str:
    if value is None or not math.isfinite(value):
        return f"the {what} is unknown"
    low, high = limits
    if low < value < high:
        return ""
    return f"the {what} is {value:g} {units}; expected between {low:g} and {high:g} {units}"


def _james_flag(bmi: float, sex: Sex) -> str:
    turning = james_turning_bmi(sex)
    if bmi <= turning:
        return ""
    return f"BMI {bmi:.1f} is past {turning:.1f}, where James' formula falls with weight: too low"


def _range_fault(
    total: IntArray,
    grid: Grid,
    *,
    hips: Sequence[int],
    skull: int,
    hip_z: tuple[float, float] | None,
    skull_z: tuple[float, float] | None,
) -> str:
    """Why the range from hip to skull is not on the image; empty when it is."""
    if hip_z is None:
        return "there is no hip in the CT segmentation"
    if skull_z is None:
        return "there is no skull in the CT segmentation"
    if skull_z[1] <= hip_z[0]:
        return "the skull lies below the hip: the orientation of the CT is wrong"
    bottom, top = _end_slices(total, grid)
    if _mask(bottom, hips).any():
        return "the hip is cut by the lower end of the CT"
    if _mask(top, [skull]).any():
        return "the skull is cut by the upper end of the CT"
    return ""


def _end_slices(labels: IntArray, grid: Grid) -> tuple[IntArray, IntArray]:
    """The lowest and the highest slice along the array axis that runs closest to world z."""
    axis = int(np.argmax(np.abs(grid.affine[2, :3] / grid.voxel_sizes_mm)))
    slices: IntArray = np.moveaxis(labels, axis, 0)
    first: IntArray = slices[0]
    last: IntArray = slices[-1]
    return (first, last) if grid.affine[2, axis] > 0 else (last, first)


def _mask(labels: IntArray, wanted: Sequence[int]) -> BoolArray:
    mask = labels == wanted[0]
    for label in wanted[1:]:
        mask |= labels == label
    return np.asarray(mask, dtype=np.bool_)


def _slabs(labels: IntArray, grid: Grid) -> Iterator[tuple[IntArray, NDArray[np.float64]]]:
    """Slices of the label image, along its slowest axis in memory, with the world z of their voxels."""
    axis = int(np.argmax(np.abs(labels.strides)))
    across = [a for a in range(3) if a != axis]
    z = grid.affine[2]
    plane_z = z[3] + np.add.outer(
        z[across[0]] * np.arange(grid.shape[across[0]]), z[across[1]] * np.arange(grid.shape[across[1]])
    )
    for index, labels_2d in enumerate(np.moveaxis(labels, axis, 0)):
        yield labels_2d, plane_z + z[axis] * index


def _z_extent(labels: IntArray, grid: Grid, wanted: Sequence[int]) -> tuple[float, float] | None:
    """Lowest and highest world z of the voxels with the wanted labels; None without any."""
    low, high = math.inf, -math.inf
    for labels_2d, z_mm in _slabs(labels, grid):
        mask = _mask(labels_2d, wanted)
        if mask.any():
            found = z_mm[mask]
            low, high = min(low, float(found.min())), max(high, float(found.max()))
    return (low, high) if low <= high else None


def _count_between(
    labels: IntArray, grid: Grid, wanted: Sequence[int], *, low_mm: float, high_mm: float
) -> int:
    n = 0
    for labels_2d, z_mm in _slabs(labels, grid):
        inside = (z_mm >= low_mm - _SAME_PLANE_MM) & (z_mm <= high_mm + _SAME_PLANE_MM)
        if inside.any():
            n += int(np.count_nonzero(_mask(labels_2d, wanted) & inside))
    return n
