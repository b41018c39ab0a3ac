"""Compiled inner loops of resampling: spline filter along lines, sampling at oblique points, label lookup.

All arrays are flat (one dimension, memory order) with element steps beside them, so that
one compiled version serves every storage order. Nothing here checks its input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Flat = NDArray[Any]
Triple = tuple[int, int, int]

# Lines filtered side by side: two AVX-512 or four AVX2 registers of float32.
TILE = 32

# Pole of the cubic B-spline filter (Unser, IEEE Sig Proc Mag 1999;16(6):22, table 1).
POLE = float(np.sqrt(3.0) - 2.0)

# POLE ** 16 < 1e-9: a line cut this far away no longer feels where it was cut.
REACH = 16


@njit(cache=True, nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def _spline_coefficients(tile: NDArray[np.float32]) -> None:
    """Turn the samples in each column of ``tile`` into cubic B-spline coefficients, in place.

    The line is mirrored about its first and last sample (whole-sample symmetry).
    """
    n = tile.shape[0]
    pole = np.float32(POLE)
    gain = np.float32(6.0)
    start = np.zeros(TILE, np.float32)
    period = 2 * n - 2
    reach = min(REACH, period)
    for i in range(reach):
        mirrored = i if i < n else period - i
        power = np.float32(POLE**i / (1.0 - POLE**period)) if period <= REACH else np.float32(POLE**i)
        for j in range(TILE):
            start[j] += power * tile[mirrored, j]
    for j in range(TILE):
        tile[0, j] = gain * start[j]
    for i in range(1, n):
        for j in range(TILE):
            tile[i, j] = gain * tile[i, j] + pole * tile[i - 1, j]
    end = np.float32(POLE / (POLE * POLE - 1.0))
    for j in range(TILE):
        tile[n - 1, j] = end * (pole * tile[n - 2, j] + tile[n - 1, j])
    for i in range(n - 2, -1, -1):
        for j in range(TILE):
            tile[i, j] = pole * (tile[i + 1, j] - tile[i, j])


@njit(cache=True, nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def filter_lines(
    source: Flat,
    source_at: int,
    source_steps: Triple,
    out: NDArray[np.float32],
    out_at: int,
    out_steps: Triple,
    counts: Triple,
    first: NDArray[np.int64],
    weights: NDArray[np.float32],
    prefilter: bool,
) -> None:
    """Write ``out[o, k, l] = sum_t weights[k, t] * c[o, first[k] + t, l]`` for every line.

    ``c`` is the source, or its cubic B-spline coefficients along the middle axis with
    ``prefilter``. Steps and counts are (outer, sample, line); ``counts[1]`` is the number of
    source samples a line. A line is read whole before it is written, so out may be source.
    """
    n_outer, n_samples, n_lines = counts
    n_out, n_taps = weights.shape
    tile = np.zeros((n_samples, TILE), np.float32)
    result = np.empty((n_out, TILE), np.float32)
    for outer in range(n_outer):
        for line in range(0, n_lines, TILE):
            width = min(TILE, n_lines - line)
            at = source_at + outer * source_steps[0] + line * source_steps[2]
            if source_steps[2] == 1:
                for i in range(n_samples):
                    row = at + i * source_steps[1]
                    for j in range(width):
                        tile[i, j] = source[row + j]
            else:
                for j in range(width):
                    row = at + j * source_steps[2]
                    for i in range(n_samples):
                        tile[i, j] = source[row + i * source_steps[1]]
            if prefilter:
                _spline_coefficients(tile)
            for k in range(n_out):
                for j in range(TILE):
                    result[k, j] = 0.0
                for t in range(n_taps):
                    weight = weights[k, t]
                    i = first[k] + t
                    for j in range(TILE):
                        result[k, j] += weight * tile[i, j]
            at = out_at + outer * out_steps[0] + line * out_steps[2]
            if out_steps[2] == 1:
                for k in range(n_out):
                    row = at + k * out_steps[1]
                    for j in range(width):
                        out[row + j] = result[k, j]
            else:
                for j in range(width):
                    row = at + j * out_steps[2]
                    for k in range(n_out):
                        out[row + k * out_steps[1]] = result[k, j]


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _weights(t: np.float32, linear: bool) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Weights of the samples at -1, 0, 1 and 2 for a point ``t`` in [0, 1) past sample 0."""
    one = np.float32(1.0)
    if linear:
        return np.float32(0.0), one - t, t, np.float32(0.0)
    sixth = np.float32(1.0 / 6.0)
    u = one - t
    w0 = u * u * u * sixth
    w3 = t * t * t * sixth
    w1 = np.float32(2.0 / 3.0) - np.float32(0.5) * t * t * (np.float32(2.0) - t)
    return w0, w1, one - w0 - w1 - w3, w3


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})  # type: ignore[untyped-decorator]
def sample_points(
    padded: NDArray[np.float32],
    counts: Triple,
    mapping: NDArray[np.float64],
    out: NDArray[np.float32],
    shape: Triple,
    planes: tuple[int, int],
    linear: bool,
    tolerance: float,
) -> None:
    """Write the spline at every target voxel of ``planes`` into ``out`` (Fortran order); leave others alone.

    ``padded`` holds coefficients with one sample before and two behind each axis; ``counts``
    are without the padding; ``mapping`` (3, 4) takes target to source indices, rows in the
    memory order of the coefficients. Points beyond half a voxel from the outer centres are
    left alone, those between centre and edge take the value at the centre.
    """
    n0, n1, n2 = counts
    step1 = n2 + 3
    step0 = (n1 + 3) * step1
    low = -0.5 - tolerance
    for k in range(planes[0], planes[1]):
        for j in range(shape[1]):
            row = (k * shape[1] + j) * shape[0]
            x0 = mapping[0, 1] * j + mapping[0, 2] * k + mapping[0, 3]
            y0 = mapping[1, 1] * j + mapping[1, 2] * k + mapping[1, 3]
            z0 = mapping[2, 1] * j + mapping[2, 2] * k + mapping[2, 3]
            for i in range(shape[0]):
                x = x0 + mapping[0, 0] * i
                y = y0 + mapping[1, 0] * i
                z = z0 + mapping[2, 0] * i
                if x < low or y < low or z < low:
                    continue
                if x > n0 - 1 - low or y > n1 - 1 - low or z > n2 - 1 - low:
                    continue
                x = min(max(x, 0.0), n0 - 1.0)
                y = min(max(y, 0.0), n1 - 1.0)
                z = min(max(z, 0.0), n2 - 1.0)
                ix, iy, iz = int(x), int(y), int(z)
                a0, a1, a2, a3 = _weights(np.float32(x - ix), linear)
                b0, b1, b2, b3 = _weights(np.float32(y - iy), linear)
                c0, c1, c2, c3 = _weights(np.float32(z - iz), linear)
                total = np.float32(0.0)
                at = ix * step0 + iy * step1 + iz
                for a in (a0, a1, a2, a3):
                    p, q, r, s = at, at + step1, at + 2 * step1, at + 3 * step1
                    # Summed over the second axis first, so that the four loads of a row stay together.
                    s0 = b0 * padded[p] + b1 * padded[q] + b2 * padded[r] + b3 * padded[s]
                    s1 = b0 * padded[p + 1] + b1 * padded[q + 1] + b2 * padded[r + 1] + b3 * padded[s + 1]
                    s2 = b0 * padded[p + 2] + b1 * padded[q + 2] + b2 * padded[r + 2] + b3 * padded[s + 2]
                    s3 = b0 * padded[p + 3] + b1 * padded[q + 3] + b2 * padded[r + 3] + b3 * padded[s + 3]
                    total += a * (c0 * s0 + c1 * s1 + c2 * s2 + c3 * s3)
                    at += step0
                out[row + i] = total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def look_up_aligned(
    source: Flat,
    at: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    out: Flat,
    starts: Triple,
    shape: Triple,
    planes: tuple[int, int],
) -> None:
    """Copy ``source[at0[i] + at1[j] + at2[k]]`` to ``out`` (Fortran order, shape ``shape``) at ``starts``."""
    at0, at1, at2 = at
    for k in range(planes[0], planes[1]):
        for j in range(at1.size):
            row = ((k + starts[2]) * shape[1] + j + starts[1]) * shape[0] + starts[0]
            plane = at1[j] + at2[k]
            for i in range(at0.size):
                out[row + i] = source[plane + at0[i]]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def look_up_points(
    source: Flat,
    counts: Triple,
    steps: Triple,
    mapping: NDArray[np.float64],
    out: Flat,
    shape: Triple,
    planes: tuple[int, int],
) -> None:
    """Copy the nearest source voxel of every target voxel of ``planes`` to ``out`` (Fortran order)."""
    n0, n1, n2 = counts
    for k in range(planes[0], planes[1]):
        for j in range(shape[1]):
            row = (k * shape[1] + j) * shape[0]
            x0 = mapping[0, 1] * j + mapping[0, 2] * k + mapping[0, 3] + 0.5
            y0 = mapping[1, 1] * j + mapping[1, 2] * k + mapping[1, 3] + 0.5
            z0 = mapping[2, 1] * j + mapping[2, 2] * k + mapping[2, 3] + 0.5
            for i in range(shape[0]):
                x = x0 + mapping[0, 0] * i
                y = y0 + mapping[1, 0] * i
                z = z0 + mapping[2, 0] * i
                if x < 0 or y < 0 or z < 0 or x >= n0 or y >= n1 or z >= n2:
                    continue
                out[row + i] = source[int(x) * steps[0] + int(y) * steps[1] + int(z) * steps[2]]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fill_gaps(values: NDArray[np.float32], steps: Triple, counts: Triple) -> int:
    """How many non-finite values are left after filling those between or beside finite ones of their line.

    Lines run along the middle of (outer, sample, line). A gap is bridged by the straight line
    between its neighbours; a gap at an end takes the value of its one neighbour.
    """
    left = 0
    for outer in range(counts[0]):
        for line in range(counts[2]):
            at = outer * steps[0] + line * steps[2]
            before = -1
            for i in range(counts[1] + 1):
                if i < counts[1] and not np.isfinite(values[at + i * steps[1]]):
                    continue
                if i - before > 1:
                    if before < 0 and i == counts[1]:
                        left += counts[1]
                    else:
                        low = values[at + (before if before >= 0 else i) * steps[1]]
                        high = values[at + (i if i < counts[1] else before) * steps[1]]
                        for gap in range(before + 1, i):
                            part = np.float32((gap - before) / (i - before))
                            values[at + gap * steps[1]] = low + part * (high - low)
                before = i
    return left
