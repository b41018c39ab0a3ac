"""Images and labels on another voxel grid.

Images are interpolated with cubic B-splines (default) or linearly. Where the target is coarser
than the source, the image is first blurred by the Gaussian whose FWHM is
``sqrt(target**2 - source**2)`` along each source axis: that turns a point-spread function as wide
as a source voxel into one as wide as a target voxel (Cardoso et al., MICCAI 2015, LNCS 9350:81).
Labels take the value of the nearest source voxel.

Edges: the field of view of an image ends half a voxel beyond its outer voxel centres. Target
voxels whose centre lies outside get the outside value; between the outer centre and the edge the
image keeps the value it has at the outer centre.

Non-finite voxels: gaps are bridged from their finite neighbours before interpolation, so that the
spline does not spread them; then every target voxel whose nearest source voxel is not finite is NaN.

The way is chosen by the affines: if every target axis runs along a source axis, lines are
resampled axis by axis; otherwise each target voxel is evaluated in three dimensions.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.resampling import spline
from hedypet_bids.kernels.resampling.grids import head_grid, moved, topogram_grid
from hedypet_bids.kernels.resampling.line_weights import folded, gaussian, interpolation
from hedypet_bids.model import Grid, IntArray

__all__ = [
    "clip_negative",
    "head_grid",
    "moved",
    "resample_image",
    "resample_labels",
    "resample_slabs",
    "topogram_grid",
]

# Affines are often stored as float32: a voxel centre this close to an edge counts as inside (voxels).
_EDGE_TOLERANCE = 1e-3

# Grids whose axes drift apart by less than this over the whole target count as aligned (voxels).
_DRIFT_TOLERANCE = 1e-4

# Nearest neighbours at equal distance are decided by this shift towards lower world coordinates (left,
# back, bottom; mm), so that the choice does not depend on how the volume is stored.
_TIE_SHIFT_MM = -1e-3

# Target planes resampled together: sets the memory of a slab, and must not depend on the threads.
_SLAB = 24

_LABEL_TYPES = (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64)


@dataclass(frozen=True, eq=False)
class _Axis:
    """How one source axis is turned into one target axis.

    ``target_axis`` gets, at its voxels ``start`` to ``start + len(first)``, the weighted sums of
    source samples ``first[k]`` to ``first[k] + weights.shape[1]``.
    """

    target_axis: int
    start: int
    first: NDArray[np.int64]
    weights: NDArray[np.float32]
    prefilter: bool


def resample_image(
    data: NDArray[Any],
    source: Grid,
    target: Grid,
    *,
    order: int = 3,
    outside: float = 0.0,
    low_pass: bool = True,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """An image on another voxel grid.

    Parameters
    ----------
    data
        Shape ``source.shape``, any real type. It is not changed.
    source, target
        The grid of the data, and that of the result.
    order
        3 cubic B-spline (default), 1 linear.
    outside
        Value of target voxels whose centre lies outside the source's field of view, 0 by default.
    low_pass
        Blur first along the axes where the target is coarser [1]_; the default.
    threads
        Threads to use, by default all CPUs of this process. The result does not depend on it.

    Returns
    -------
    NDArray
        float32, shape ``target.shape``, in Fortran (NIfTI) order. NaN where the nearest voxel of the source
        is not finite.

    Raises
    ------
    BadDataError
        The shape of the data is not the grid's.
    ValueError
        The order is neither 1 nor 3.

    References
    ----------
    .. [1] Cardoso et al., Scale factor point spread function matching, MICCAI 2015, LNCS 9350:81.

    Examples
    --------
    Halfway between voxels of a ramp lies the mean of the neighbours:

    >>> import numpy as np
    >>> ramp = np.arange(8.0).reshape(8, 1, 1)
    >>> source = Grid((8, 1, 1), np.eye(4))
    >>> shifted = np.eye(4)
    >>> shifted[0, 3] = 0.5
    >>> resample_image(ramp, source, Grid((3, 1, 1), shifted), order=1).ravel().tolist()
    [0.5, 1.5, 2.5]
    """
    out: NDArray[np.float32] = np.empty(target.shape, dtype=np.float32, order="F")
    fill = _slab_filler(data, source, target, order, outside, low_pass, threads)
    _run(lambda low, high: fill(low, out[:, :, low:high]), target.shape[2], threads, step=_SLAB)
    return out


def resample_slabs(
    data: NDArray[Any],
    source: Grid,
    target: Grid,
    *,
    order: int = 3,
    outside: float = 0.0,
    low_pass: bool = True,
    threads: int | None = None,
) -> Iterator[NDArray[np.float32]]:
    """The image of :func:`resample_image` piece by piece: consecutive planes of the target's last axis.

    At most one slab more than there are threads is in memory, so that an image can be written that
    is never held whole. Raises as :func:`resample_image`, at the call.
    """
    fill = _slab_filler(data, source, target, order, outside, low_pass, threads)

    def slab(low: int) -> NDArray[np.float32]:
        n = min(_SLAB, target.shape[2] - low)
        out: NDArray[np.float32] = np.empty((*target.shape[:2], n), dtype=np.float32, order="F")
        fill(low, out)
        return out

    return _in_order(slab, range(0, target.shape[2], _SLAB), _workers(threads))


def resample_labels(labels: IntArray, source: Grid, target: Grid, *, threads: int | None = None) -> IntArray:
    """The label of the nearest source voxel on the target grid, 0 outside, in Fortran (NIfTI) order.

    The type is the smallest of uint8, int16, uint16, int32, uint32 and int64 that holds every
    label of the source. Of two source voxels at the same distance the one at the lower world
    coordinates (left, back, bottom) is taken, whatever the storage order.

    Raises
    ------
    BadDataError
        The shape of the labels is not the grid's, or they are not integers.
    """
    _check_shape(labels, source)
    if labels.dtype == np.bool_:
        labels = labels.view(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise BadDataError(f"Labels must be integers; found {labels.dtype}.")
    labels = labels.astype(_smallest_type(labels), copy=False)
    shifted = target.affine.copy()
    shifted[:3, 3] += _TIE_SHIFT_MM
    mapping = _mapping(source, Grid(target.shape, shifted))
    view, memory = _memory_order(labels)
    flat = view.reshape(-1)
    steps = tuple(step // view.itemsize for step in view.strides)
    out = np.zeros(target.shape, dtype=labels.dtype, order="F")
    flat_out = out.reshape(-1, order="F")
    if _aligned(mapping, target.shape):
        axes = [_nearest(mapping, axis, labels.shape[axis], target.shape) for axis in memory]
        by_target = sorted(zip(axes, steps, strict=True), key=lambda pair: pair[0][0])
        at = tuple(index * step for (_, _, index), step in by_target)
        starts = tuple(start for (_, start, _), _ in by_target)
        _run(
            lambda lo, hi: spline.look_up_aligned(flat, at, flat_out, starts, target.shape, (lo, hi)),
            at[2].size,
            threads,
        )
    else:
        ordered = np.ascontiguousarray(mapping[list(memory)])
        _run(
            lambda lo, hi: spline.look_up_points(
                flat, view.shape, steps, ordered, flat_out, target.shape, (lo, hi)
            ),
            target.shape[2],
            threads,
        )
    return out


def clip_negative(data: NDArray[np.float32]) -> int:
    """Set negative values to 0, in place, and return how many there were.

    Cubic interpolation overshoots at edges; activity cannot be negative. NaN stays NaN.
    """
    n_negative = sum(int(np.count_nonzero(plane < 0)) for plane in data.T)
    if n_negative:
        np.maximum(data, np.float32(0), out=data)
    return n_negative


def _slab_filler(
    data: NDArray[Any],
    source: Grid,
    target: Grid,
    order: int,
    outside: float,
    low_pass: bool,
    threads: int | None,
) -> Callable[[int, NDArray[np.float32]], None]:
    """``fill(low, out)``: writes the target planes from ``low`` on into ``out``, as many as it has."""
    _check_shape(data, source)
    if order not in (1, 3):
        raise ValueError(f"order must be 1 (linear) or 3 (cubic B-spline); found {order}.")
    if not (data.dtype.isnative and data.dtype in (np.int16, np.float32)):
        data = data.astype(np.float32)
    data, finite = _bridge_gaps(data)
    mapping = _mapping(source, target)
    blur = _blur_variances(source, target) if low_pass else np.zeros(3)
    resample: Callable[[NDArray[np.float64], NDArray[np.float32]], None]
    if _aligned(mapping, target.shape):
        resample = partial(_resample_aligned, data, variances=blur, order=order)
    else:
        view, memory = _memory_order(data)
        padded = _padded_coefficients(view, blur[list(memory)], order, threads)
        resample = partial(_resample_oblique, padded, memory, linear=order == 1)

    def fill(low: int, out: NDArray[np.float32]) -> None:
        out[...] = outside
        part = mapping.copy()
        part[:, 3] += low * mapping[:, 2]
        resample(part, out)
        if finite is not None:
            corner = target.affine.copy()
            corner[:3, 3] += low * target.affine[:3, 2]
            gaps = resample_labels((~finite).view(np.uint8), source, Grid(out.shape, corner), threads=1)
            out[gaps > 0] = np.nan

    return fill


def _in_order(
    work: Callable[[int], NDArray[np.float32]], starts: Sequence[int], workers: int
) -> Iterator[NDArray[np.float32]]:
    """Results in the order of ``starts``, made in threads that are at most ``workers`` ahead."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        running = deque(pool.submit(work, start) for start in starts[:workers])
        waiting = iter(starts[workers:])
        while running:
            result = running.popleft().result()
            running.extend(pool.submit(work, start) for start in islice(waiting, 1))
            yield result


def _check_shape(data: NDArray[Any], source: Grid) -> None:
    if data.shape != source.shape:
        raise BadDataError(f"The data has shape {data.shape}, its grid {source.shape}; they must agree.")


def _mapping(source: Grid, target: Grid) -> NDArray[np.float64]:
    """Shape (3, 4): target voxel index to source voxel index."""
    mapping: NDArray[np.float64] = (np.linalg.inv(source.affine) @ target.affine)[:3]
    return mapping


def _aligned(mapping: NDArray[np.float64], shape: tuple[int, int, int]) -> bool:
    """Whether every target axis runs along one source axis of its own."""
    drift = np.abs(mapping[:, :3]) * (np.array(shape) - 1)
    rows = np.argmax(np.abs(mapping[:, :3]), axis=0)
    drift[rows, range(3)] = 0.0
    return len(set(rows.tolist())) == 3 and bool((drift.sum(axis=1) < _DRIFT_TOLERANCE).all())


def _target_axis(mapping: NDArray[np.float64], source_axis: int) -> int:
    rows = np.argmax(np.abs(mapping[:, :3]), axis=0)
    return int(np.flatnonzero(rows == source_axis)[0])


def _positions(
    mapping: NDArray[np.float64], axis: int, n_source: int, shape: Sequence[int], tolerance: float
) -> tuple[int, int, NDArray[np.float64]]:
    """Target axis, its first voxel inside the field of view, and the source positions from there on."""
    target_axis = _target_axis(mapping, axis)
    x = mapping[axis, target_axis] * np.arange(shape[target_axis]) + mapping[axis, 3]
    inside = np.flatnonzero((x >= -0.5 - tolerance) & (x <= n_source - 0.5 + tolerance))
    start = int(inside[0]) if inside.size else 0
    return target_axis, start, np.clip(x[inside], 0.0, n_source - 1.0)


def _nearest(
    mapping: NDArray[np.float64], axis: int, n_source: int, shape: Sequence[int]
) -> tuple[int, int, NDArray[np.int64]]:
    target_axis = _target_axis(mapping, axis)
    x = np.floor(mapping[axis, target_axis] * np.arange(shape[target_axis]) + mapping[axis, 3] + 0.5)
    inside = np.flatnonzero((x >= 0) & (x < n_source))
    return target_axis, int(inside[0]) if inside.size else 0, x[inside].astype(np.int64)


def _smallest_type(labels: IntArray) -> type[np.integer[Any]]:
    low, high = int(labels.min()), int(labels.max())
    for kind in _LABEL_TYPES:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return kind
    raise BadDataError(f"Labels must fit a 64-bit signed integer; found {high}.")


def _memory_order(data: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, int, int]]:
    """The data as a C-contiguous view (a copy only if it has gaps), and which axis is which in it."""
    slow, mid, fast = (int(axis) for axis in np.argsort([-abs(step) for step in data.strides], kind="stable"))
    return np.ascontiguousarray(data.transpose(slow, mid, fast)), (slow, mid, fast)


def _blur_variances(source: Grid, target: Grid) -> NDArray[np.float64]:
    """Variance of the low-pass Gaussian along each source axis, in source voxels squared."""
    sizes = source.voxel_sizes_mm
    # Width of a target voxel along a source axis; for parallel axes simply its size.
    widths = np.linalg.norm(target.affine[:3, :3].T @ (source.affine[:3, :3] / sizes), axis=0)
    fwhm = np.sqrt(np.maximum(widths**2 - sizes**2, 0.0))
    # A target coarser by less than 1 % is the same size with rounding.
    fwhm[(widths < 1.01 * sizes) | (np.array(source.shape) == 1)] = 0.0
    variances: NDArray[np.float64] = (fwhm / sizes) ** 2 / (8.0 * np.log(2.0))
    return variances


def _axis(
    mapping: NDArray[np.float64], axis: int, n: int, shape: Sequence[int], variance: float, order: int
) -> _Axis:
    target_axis, start, x = _positions(mapping, axis, n, shape, _EDGE_TOLERANCE)
    if x.size == 0:
        return _Axis(target_axis, 0, np.empty(0, np.int64), np.empty((0, 1), np.float32), False)
    if variance == 0 and np.abs(x - np.rint(x)).max(initial=0.0) < 1e-6:
        whole = np.rint(x).astype(np.int64)
        return _Axis(target_axis, start, whole, np.ones((x.size, 1), np.float32), False)
    first, weights = interpolation(x, order)
    blur = gaussian(variance)
    blurred = np.stack([np.convolve(row, blur) for row in weights]) if blur.size > 1 else weights
    return _Axis(target_axis, start, *folded(first - blur.size // 2, blurred, n), order == 3)


def _resample_aligned(
    data: NDArray[Any],
    mapping: NDArray[np.float64],
    out: NDArray[np.float32],
    *,
    variances: NDArray[np.float64],
    order: int,
) -> None:
    """Fill ``out`` axis by axis, the axis of the source that makes ``out``'s last one first."""
    memory = np.argsort([-abs(step) for step in data.strides], kind="stable").tolist()
    # Only the part of the source that reaches the slab is copied, and the first axis makes it small.
    memory.sort(key=lambda axis: _target_axis(mapping, axis) != 2)
    axes = [_axis(mapping, a, data.shape[a], out.shape, float(variances[a]), order) for a in memory]
    if min(axis.first.size for axis in axes) == 0:
        return
    needed = [_needed(axis, data.shape[a]) for axis, a in zip(axes, memory, strict=True)]
    planes = [(0, data.shape[a]) for a in memory[1:]]
    if math.prod(high - low for low, high in needed[1:]) > 0.5 * math.prod(high for _, high in planes):
        needed[1:] = planes  # whole planes lie together in memory and need no copy
    block = np.ascontiguousarray(data.transpose(memory)[tuple(slice(*bounds) for bounds in needed)])
    slow, mid, fast = axes
    slow_first, mid_first, fast_first = (
        axis.first - low for axis, (low, _) in zip(axes, needed, strict=True)
    )
    block = _along_lines(block, 0, slow_first, slow.weights, slow.prefilter)
    block = _along_lines(block, 1, mid_first, mid.weights, mid.prefilter)
    steps = [out.strides[axis.target_axis] // out.itemsize for axis in axes]
    spline.filter_lines(
        block.reshape(-1),
        0,
        (block.shape[1] * block.shape[2], 1, block.shape[2]),
        out.reshape(-1, order="F"),
        sum(axis.start * step for axis, step in zip(axes, steps, strict=True)),
        (steps[0], steps[2], steps[1]),
        (block.shape[0], block.shape[2], block.shape[1]),
        fast_first,
        fast.weights,
        fast.prefilter,
    )


def _needed(axis: _Axis, n: int) -> tuple[int, int]:
    """Range of source samples that reach the axis' target voxels."""
    reach = spline.REACH if axis.prefilter else 0
    low = int(axis.first.min()) - reach
    return max(low, 0), min(int(axis.first.max()) + axis.weights.shape[1] + reach, n)


def _along_lines(
    block: NDArray[Any], axis: int, first: NDArray[np.int64], weights: NDArray[np.float32], prefilter: bool
) -> NDArray[np.float32]:
    """A C-contiguous block filtered along its axis 0 or 1 into a new one."""
    n0, n1, n2 = block.shape
    plane = n1 * n2
    if axis == 0:
        result = np.empty((first.size, n1, n2), np.float32)
        counts, steps, out_steps = (1, n0, plane), (0, plane, 1), (0, plane, 1)
    else:
        result = np.empty((n0, first.size, n2), np.float32)
        counts, steps, out_steps = (n0, n1, n2), (plane, n2, 1), (first.size * n2, n2, 1)
    flat, flat_out = block.reshape(-1), result.reshape(-1)
    spline.filter_lines(flat, 0, steps, flat_out, 0, out_steps, counts, first, weights, prefilter)
    return result


def _resample_oblique(
    padded: NDArray[np.float32],
    memory: tuple[int, int, int],
    mapping: NDArray[np.float64],
    out: NDArray[np.float32],
    *,
    linear: bool,
) -> None:
    """Fill ``out`` by evaluating the spline at every target voxel."""
    counts = tuple(n - 3 for n in padded.shape)
    ordered = np.ascontiguousarray(mapping[list(memory)])
    flat, flat_out = padded.reshape(-1), out.reshape(-1, order="F")
    spline.sample_points(
        flat, counts, ordered, flat_out, out.shape, (0, out.shape[2]), linear, _EDGE_TOLERANCE
    )


def _padded_coefficients(
    view: NDArray[Any], variances: NDArray[np.float64], order: int, threads: int | None
) -> NDArray[np.float32]:
    """Blurred spline coefficients, mirrored by one sample before and two behind each axis."""
    padded = np.empty([n + 3 for n in view.shape], np.float32)
    inner = padded[1:-2, 1:-2, 1:-2]
    inner[...] = view
    for axis, n in enumerate(view.shape):
        blur = gaussian(float(variances[axis]))
        if n > 1 and (order == 3 or blur.size > 1):
            first = np.arange(n) - blur.size // 2
            weights = np.broadcast_to(blur, (n, blur.size))
            _filter_in_place(padded, axis, *folded(first, weights, n), order == 3, threads)
    _mirror_edges(padded)
    return padded


def _filter_in_place(
    padded: NDArray[np.float32],
    axis: int,
    first: NDArray[np.int64],
    weights: NDArray[np.float32],
    prefilter: bool,
    threads: int | None,
) -> None:
    """Filter the lines along ``axis`` of the part of ``padded`` that is not padding."""
    flat = padded.reshape(-1)
    steps = [step // padded.itemsize for step in padded.strides]
    counts = [n - 3 for n in padded.shape]
    outer, line = (other for other in range(3) if other != axis)
    by_line = (steps[outer], steps[axis], steps[line])

    def some(low: int, high: int) -> None:
        at = sum(steps) + low * steps[outer]
        sizes = (high - low, counts[axis], counts[line])
        spline.filter_lines(flat, at, by_line, flat, at, by_line, sizes, first, weights, prefilter)

    _run(some, counts[outer], threads)


def _mirror_edges(padded: NDArray[np.float32]) -> None:
    for axis in range(3):
        lines = np.moveaxis(padded, axis, 0)
        n = lines.shape[0] - 3
        period = max(2 * n - 2, 1)
        for at in (-1, n, n + 1):
            mirrored = at % period
            lines[at + 1] = lines[1 + (mirrored if mirrored < n else period - mirrored)]


def _bridge_gaps(data: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The data with non-finite voxels bridged, and where it is finite (None: everywhere)."""
    if not np.issubdtype(data.dtype, np.floating):
        return data, None
    if all(np.isfinite(plane).all() for plane in _memory_order(data)[0]):
        return data, None
    finite = np.isfinite(data)
    filled = np.array(data, order="C")
    n0, n1, n2 = filled.shape
    flat = filled.reshape(-1)
    for steps, counts in (
        ((n1 * n2, 1, n2), (n0, n2, n1)),
        ((n1 * n2, n2, 1), (n0, n1, n2)),
        ((0, n1 * n2, 1), (1, n0, n1 * n2)),
    ):
        if spline.fill_gaps(flat, steps, counts) == 0:
            return filled, finite
    return np.where(np.isfinite(filled), filled, np.float32(0)), finite


def _run(work: Callable[[int, int], None], n: int, threads: int | None, step: int = 16) -> None:
    """Call ``work(start, stop)`` for fixed pieces of ``range(n)`` in threads."""
    pieces: Iterable[tuple[int, int]] = [(at, min(at + step, n)) for at in range(0, n, step)]
    with ThreadPoolExecutor(max_workers=_workers(threads)) as pool:
        for future in [pool.submit(work, start, stop) for start, stop in pieces]:
            future.result()


def _workers(threads: int | None) -> int:
    return max(1, threads or len(os.sched_getaffinity(0)))
