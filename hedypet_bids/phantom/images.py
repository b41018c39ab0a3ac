"""CT, MR and PET voxel values made from region codes, some planes at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.model import FrameTimes, Grid
from hedypet_bids.phantom.materials import MATERIALS
from hedypet_bids.phantom.regions import regions

Codes = NDArray[np.int16]
Intensities = NDArray[np.float32]

_PLANES = 32
_CT_NOISE_HU = 12.0
_CT_LOWEST_HU = -1024
_MR_NOISE = 12.0
# Standard deviation of PET noise in Bq/mL: this times sqrt(activity / frame duration); 8 % of
# 5 kBq/mL in 300 s, about what a voxel of a total-body scanner has.
_PET_NOISE = 98.0
_FWHM_PER_SIGMA = float(np.sqrt(8.0 * np.log(2.0)))
_PSF_REACH_SIGMA = 3.0


def ct_slabs(codes: Codes, rng: np.random.Generator, *, noise: float) -> Iterator[NDArray[np.int16]]:
    """Hounsfield units with Gaussian noise, in planes of the last axis."""
    lut = np.array([MATERIALS[region.material].hu for region in regions()], dtype=np.float32)
    for planes in _slabs(codes.shape[2]):
        values = _noisy(lut[codes[:, :, planes]], rng, _CT_NOISE_HU * noise)
        yield np.maximum(np.rint(values), _CT_LOWEST_HU).astype(np.int16)


def topogram(codes: Codes, axis: int) -> NDArray[np.int16]:
    """Mean Hounsfield units along an array axis, which stays with length 1."""
    lut = np.array([MATERIALS[region.material].hu for region in regions()], dtype=np.float32)
    total = np.zeros([1 if a == axis else n for a, n in enumerate(codes.shape)])
    for planes in _slabs(codes.shape[2]):
        summed = lut[codes[:, :, planes]].sum(axis=axis, keepdims=True, dtype=np.float64)
        if axis == 2:
            total += summed
        else:
            total[:, :, planes] += summed
    mean: NDArray[np.int16] = np.rint(total / codes.shape[axis]).astype(np.int16)
    return mean


def mr_slabs(
    codes: Codes, contrast: str, rng: np.random.Generator, *, noise: float
) -> Iterator[NDArray[np.int16]]:
    """MR signal with Rician noise in planes of the last axis.

    Parameters
    ----------
    contrast
        ``T1w`` (MPRAGE), or Dixon's ``IN``, ``OPP``, ``W`` or ``F``.
    """
    lut = np.array([_signal(region.material, contrast) for region in regions()], dtype=np.float32)
    for planes in _slabs(codes.shape[2]):
        signal = lut[codes[:, :, planes]]
        real = _noisy(signal, rng, _MR_NOISE * noise)
        imaginary = _noisy(np.zeros_like(signal), rng, _MR_NOISE * noise)
        yield np.rint(np.hypot(real, imaginary)).astype(np.int16)


def pet_slabs(
    codes: Codes,
    grid: Grid,
    curve: NDArray[np.float64],
    duration_s: float,
    rng: np.random.Generator,
    *,
    fwhm_mm: float,
    noise: float,
) -> Iterator[Intensities]:
    """One PET frame in Bq/mL, in planes of the last axis.

    Activity of the region at each voxel centre, blurred, with Gaussian noise whose variance is
    proportional to activity over duration, rounded to whole Bq/mL as scanners store integers. There
    is no noise where there is no activity.

    Parameters
    ----------
    curve
        Activity of each code, Bq/mL, shape (n_regions,).
    """
    lut = curve.astype(np.float32)
    sigma = fwhm_mm / _FWHM_PER_SIGMA / grid.voxel_sizes_mm
    halo = np.ceil(_PSF_REACH_SIGMA * sigma).astype(int)
    factor = np.float32(_PET_NOISE * noise / np.sqrt(duration_s))
    low, high = _bounding_box(codes, halo)
    for planes in _slabs(codes.shape[2]):
        values = np.zeros((*codes.shape[:2], planes.stop - planes.start), dtype=np.float32, order="F")
        first, last = max(planes.start - halo[2], 0), min(planes.stop + halo[2], codes.shape[2])
        block = lut[codes[low[0] : high[0], low[1] : high[1], first:last]]
        if fwhm_mm > 0 and block.any():
            block = ndimage.gaussian_filter(block, sigma, truncate=_PSF_REACH_SIGMA, mode="nearest")
        block = block[:, :, planes.start - first : planes.stop - first]
        active = block > 0
        found = block[active]
        found += factor * np.sqrt(found) * rng.standard_normal(found.size, dtype=np.float32)
        block[active] = np.rint(found)
        values[low[0] : high[0], low[1] : high[1]] = block
        yield values


def pet_frames(
    codes: Codes,
    grid: Grid,
    curves: NDArray[np.float64],
    frames: FrameTimes,
    rngs: list[np.random.Generator],
    *,
    fwhm_mm: float,
    noise: float,
) -> Iterator[Intensities]:
    """All frames of a series, one after the other; ``curves`` has the shape (n_regions, n_frames)."""
    for curve, duration, rng in zip(curves.T, frames.duration_s, rngs, strict=True):
        yield from pet_slabs(codes, grid, curve, float(duration), rng, fwhm_mm=fwhm_mm, noise=noise)


def label_slabs(codes: Codes, lut: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Label indices of a task, in planes of the last axis."""
    for planes in _slabs(codes.shape[2]):
        yield lut[codes[:, :, planes]]


def _slabs(n_planes: int) -> Iterator[slice]:
    for start in range(0, n_planes, _PLANES):
        yield slice(start, min(start + _PLANES, n_planes))


def _bounding_box(codes: Codes, halo: NDArray[np.int64]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and one-past-last voxel of the body along the first two axes, with room for the blur."""
    seen = np.zeros(codes.shape[:2], dtype=np.bool_)
    for planes in _slabs(codes.shape[2]):
        seen |= codes[:, :, planes].any(axis=2)
    along = [np.flatnonzero(seen.any(axis=1 - axis)) for axis in (0, 1)]
    low = [max(int(a[0]) - int(h), 0) if a.size else 0 for a, h in zip(along, halo[:2], strict=True)]
    high = [
        min(int(a[-1]) + 1 + int(h), n) if a.size else 0
        for a, h, n in zip(along, halo[:2], codes.shape[:2], strict=True)
    ]
    return (low[0], low[1]), (high[0], high[1])


def _noisy(values: Intensities, rng: np.random.Generator, sigma: float) -> Intensities:
    if sigma:
        values = values + np.float32(sigma) * rng.standard_normal(values.shape, dtype=np.float32)
    return values


def _signal(material: str, contrast: str) -> float:
    m = MATERIALS[material]
    signals = {
        "T1w": m.t1w,
        "IN": m.water + m.fat,
        "OPP": abs(m.water - m.fat),
        "W": m.water,
        "F": m.fat,
    }
    return signals[contrast]
