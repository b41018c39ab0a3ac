"""The irreversible two-tissue model with delay in millions of voxels, each from some 35 weighted sums.

All curves that the model can take with one input function lie in a space of few dimensions, so a voxel needs
no more than its coordinates there: weighted sums of its frames. Every node of a grid of delay and rate gives
three orthonormal directions (of blood, of its integral, of its convolution with an exponential), whose
squared products with a voxel's sums bound how well any shares can do there. Only nodes whose bound beats the
best so far are solved, in closed form. Around the best node delay and rate follow from parabolas.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hedypet_bids.kernels.kinetics.input_curve import (
    BLOOD,
    CONVOLVED,
    INTEGRAL,
    InputCurve,
    edges_min,
    response_grid,
)
from hedypet_bids.kernels.kinetics.shares import RATES_PER_MIN, root_weights
from hedypet_bids.model import FloatArray

REACH_S = 2.0
"""How far from the delay of its neighbourhood that of a voxel may be, s."""
_DELAY_STEP_S = 2.0
# Between the delays of the grid lie these of the refinement.
_STEPS = 4
# What a curve of the model may lose of itself in the space.
_LOST = 1e-3
_VOXELS_AT_ONCE = 4096
# Columns of a fit, after the three shares.
_RATE, _DELAY = 3, 4


@dataclass(frozen=True, eq=False)
class CurveSpace:
    """The space of all curves that the model can take with one input function, and its grid.

    Parameters
    ----------
    weights
        Of each frame in each sum, shape (n_frames, n_sums).
    delay_s
        Those of the refinement, shape (n_delays,).
    directions
        For each delay the orthonormal directions of blood, of its integral, and of its convolution at each
        rate, shape (n_delays, n_sums, 2 + n_rates).
    triangles
        What the shares of these three are multiplied by to give the products with the directions, shape
        (n_delays, n_rates, 3, 3), upper triangular.
    """

    weights: NDArray[np.float64]
    delay_s: NDArray[np.float64]
    directions: NDArray[np.float64]
    triangles: NDArray[np.float64]

    @property
    def n_sums(self) -> int:
        """How many weighted sums of its frames a voxel needs."""
        return int(self.weights.shape[1])


def curve_space(
    curve: InputCurve, *, delay_s: tuple[float, float] = (-10.0, 40.0), half_life_s: float = 6586.2
) -> CurveSpace:
    """The space of the model's curves for one input function.

    Parameters
    ----------
    curve
        The input function.
    delay_s
        How much later than in the input function blood may come, s.
    half_life_s
        Of the radionuclide, s; F-18 by default. Frames count by their length and by what had not decayed.

    Returns
    -------
    CurveSpace
        Of as few dimensions as leave every curve whole but for a thousandth.

    Examples
    --------
    >>> from hedypet_bids.phantom.kinetics import hedypet_frames, input_function, scaled_feng_input
    >>> frames = hedypet_frames()
    >>> curve = InputCurve(input_function(frames, scaled_feng_input(8000.0)), frames)
    >>> curve_space(curve, delay_s=(0.0, 20.0)).n_sums in range(20, 40)
    True
    """
    root = root_weights(curve.frames, half_life_s)
    n_delays = _STEPS * max(1, round((delay_s[1] - delay_s[0]) / _DELAY_STEP_S)) + 1
    delays = np.linspace(*delay_s, n_delays)
    grid = response_grid(curve.pieces, *edges_min(curve.frames), RATES_PER_MIN, delays / 60.0) * root
    # (n_delays, n_rates, n_frames, 3)
    columns = np.moveaxis(grid[:, :, [BLOOD, INTEGRAL, CONVOLVED]], 2, -1).swapaxes(0, 1)
    axes = _axes(columns)
    within = np.einsum("kf,drfc->drkc", axes, columns)
    directions, triangles = np.linalg.qr(within)
    signs = np.where(np.diagonal(triangles, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    directions, triangles = directions * signs[..., None, :], triangles * signs[..., None]
    return CurveSpace(
        weights=np.ascontiguousarray((axes * root).T),
        delay_s=delays,
        directions=np.concatenate([directions[:, 0, :, :2], directions[..., 2].swapaxes(1, 2)], axis=-1),
        triangles=np.ascontiguousarray(triangles),
    )


def _axes(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """The fewest orthonormal vectors that hold every column but for what may be lost: (n, n_frames)."""
    blood_and_integral, convolved = columns[:, 0, :, :2], columns[..., 2]
    n_frames = columns.shape[2]
    curves = np.concatenate(
        [blood_and_integral.swapaxes(1, 2).reshape(-1, n_frames), convolved.reshape(-1, n_frames)]
    )
    size = np.linalg.norm(curves, axis=1, keepdims=True)
    curves = curves[size[:, 0] > 0] / size[size[:, 0] > 0]
    axes = np.linalg.svd(curves, full_matrices=False)[2]
    held = np.cumsum((curves @ axes.T) ** 2, axis=1).min(axis=0)
    return np.asarray(axes[: int(np.argmax(held >= 1 - _LOST**2)) + 1])


def weighted_sums_of_frames(values: FloatArray, weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """The sums that a fit needs of voxels.

    Parameters
    ----------
    values
        Bq/mL, shape (n_frames, n_voxels).
    weights
        Shape (n_frames, n_sums).

    Returns
    -------
    ndarray
        Shape (n_voxels, n_sums), summed in float64, frame after frame; NaN where a frame is not finite.
    """
    sums = np.empty((values.shape[1], weights.shape[1]), dtype=np.float32)
    _sum_frames(values, weights, sums)
    return sums


def fit_voxels(
    sums: NDArray[np.float32],
    space: CurveSpace,
    *,
    near_s: FloatArray | None = None,
    threads: int = 1,
) -> dict[str, NDArray[np.float32]]:
    """Ki, K1, blood fraction and delay of every voxel.

    Parameters
    ----------
    sums
        Weighted sums of the frames of each voxel, shape (n_voxels, n_sums).
    space
        That of the input function.
    near_s
        The delay of each voxel's neighbourhood, s, shape (n_voxels,), from which its own is at most
        :data:`REACH_S` away; NaN: none is known, and nothing is fitted. By default the whole range is
        searched.
    threads
        Voxels are independent of each other, so that their number changes nothing.

    Returns
    -------
    dict
        ``Ki`` and ``K1`` (mL/min/mL), ``vB`` (mL/mL) and ``delay`` (s), shape (n_voxels,). NaN: all of them
        where a frame is not finite, where there is no activity above 0 and where blood alone explains the
        voxel; K1, vB and delay where the delay is at an end of its range, or that of the neighbourhood is;
        K1 and vB where exchange is as fast as may be, K1 and Ki where it is as slow as may be.

    Examples
    --------
    >>> from hedypet_bids.phantom.kinetics import Kinetics, hedypet_frames, scaled_feng_input, tissue_curve
    >>> frames, blood = hedypet_frames(), scaled_feng_input(8000.0, delay_s=10.0)
    >>> aorta = tissue_curve(frames, blood, Kinetics(0.0, 0.0, 0.0, 1.0))
    >>> late = scaled_feng_input(8000.0, delay_s=13.0)
    >>> brain = tissue_curve(frames, late, Kinetics(0.10, 0.13, 0.06, 0.05))
    >>> space = curve_space(InputCurve(aorta, frames))
    >>> found = fit_voxels(weighted_sums_of_frames(brain[:, None], space.weights), space)
    >>> {name: round(float(found[name][0]), 2) for name in ("K1", "vB", "delay")}
    {'K1': 0.1, 'vB': 0.05, 'delay': 3.0}
    """
    found = _fits(sums, space, near_s, threads)
    at_end = np.zeros(len(sums), dtype=np.bool_)
    if near_s is not None:
        at_end = (near_s <= space.delay_s[0]) | (near_s >= space.delay_s[-1])
    return _parameters(found, space.delay_s, at_end)


def find_delays(sums: NDArray[np.float32], space: CurveSpace, *, threads: int = 1) -> NDArray[np.float64]:
    """The delay of each voxel, at an end of its range as well.

    Parameters
    ----------
    sums
        Weighted sums of the frames of each voxel, shape (n_voxels, n_sums).
    space
        That of the input function.
    threads
        Their number changes nothing.

    Returns
    -------
    ndarray
        s, shape (n_voxels,); NaN where a frame is not finite or there is no activity above 0.
    """
    found = _fits(sums, space, None, threads)
    active = found[:, :3].sum(axis=1) > 0
    return np.where(active, _seconds(found[:, _DELAY], space.delay_s), np.nan)


def _fits(
    sums: NDArray[np.float32], space: CurveSpace, near_s: FloatArray | None, threads: int
) -> NDArray[np.float64]:
    """Shares of blood, its integral and its convolution, and rate and delay in nodes: (n_voxels, 5)."""
    n_voxels, last = len(sums), len(space.delay_s) - 1
    from_delay, to_delay = np.zeros(n_voxels, dtype=np.int64), np.full(n_voxels, last)
    if near_s is not None:
        step_s = (space.delay_s[-1] - space.delay_s[0]) / last
        known = np.isfinite(near_s)
        near = np.rint((np.where(known, near_s, 0.0) - space.delay_s[0]) / step_s).astype(np.int64)
        reach = round(REACH_S / step_s)
        from_delay, to_delay = np.clip(near - reach, 0, last), np.clip(near + reach, 0, last)
        to_delay = np.where(known, to_delay, -1)
    found = np.empty((n_voxels, 5))

    def fit(first: int) -> None:
        some = slice(first, first + _VOXELS_AT_ONCE)
        _fit(sums[some], from_delay[some], to_delay[some], space.directions, space.triangles, found[some])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fit, range(0, n_voxels, _VOXELS_AT_ONCE)))
    return found


def _seconds(nodes: NDArray[np.float64], delay_s: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.interp(nodes, np.arange(len(delay_s)), delay_s)


def _parameters(
    found: NDArray[np.float64], delay_s: NDArray[np.float64], at_end: NDArray[np.bool_]
) -> dict[str, NDArray[np.float32]]:
    """The parameters of fits; ``at_end``: the delay of the neighbourhood is at an end of its range."""
    blood, trapped, exchanged, rate, delay = found.T
    with np.errstate(divide="ignore", invalid="ignore"):
        meant = np.isfinite(blood) & (blood < 1) & (found[:, :3].sum(axis=1) > 0)
        Ki, K1 = trapped / (1 - blood), (trapped + exchanged) / (1 - blood)
        fast, slow = (exchanged > 0) & (rate >= len(RATES_PER_MIN) - 1), (exchanged > 0) & (rate <= 0)
        at_end = at_end | (delay <= 0) | (delay >= len(delay_s) - 1)
    missing = {"Ki": slow, "K1": slow | fast | at_end, "vB": fast | at_end, "delay": at_end}
    values = {"Ki": Ki, "K1": K1, "vB": blood, "delay": _seconds(delay, delay_s)}
    return {
        name: np.where(meant & ~missing[name], values[name], np.nan).astype(np.float32) for name in values
    }


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sum_frames(values: FloatArray, weights: NDArray[np.float64], sums: NDArray[np.float32]) -> None:
    n_frames, n_voxels = values.shape
    total = np.empty(weights.shape[1])
    for v in range(n_voxels):
        total[:] = 0.0
        for f in range(n_frames):
            value = np.float64(values[f, v])
            if not np.isfinite(value):
                value = np.float64(np.nan)
            for k in range(total.size):
                total[k] += value * weights[f, k]
        for k in range(total.size):
            sums[v, k] = total[k]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _project(
    sums: NDArray[np.float32], directions: NDArray[np.float64], products: NDArray[np.float64]
) -> None:
    """Products of a voxel with the directions of a delay."""
    products[:] = 0.0
    for k in range(sums.size):
        value = np.float64(sums[k])
        for n in range(products.size):
            products[n] += value * directions[k, n]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _explained(
    b: float, i: float, e: float, triangle: NDArray[np.float64], shares: NDArray[np.float64]
) -> float:
    """The sum of squares that non-negative shares explain, from the products with the three directions."""
    r00, r01, r02 = triangle[0, 0], triangle[0, 1], triangle[0, 2]
    r11, r12, r22 = triangle[1, 1], triangle[1, 2], triangle[2, 2]
    shares[:] = 0.0
    if r22 > 0:
        shares[2] = e / r22
        shares[1] = (i - r12 * shares[2]) / r11
        shares[0] = (b - r01 * shares[1] - r02 * shares[2]) / r00
        if shares[0] >= 0 and shares[1] >= 0 and shares[2] >= 0:
            return b * b + i * i + e * e
        shares[:] = 0.0
    # One share at least is 0: the best of the pairs, else of the single ones.
    best = 0.0
    d0, d1, d2 = r00 * b, r01 * b + r11 * i, r02 * b + r12 * i + r22 * e
    g00, g01, g02 = r00 * r00, r00 * r01, r00 * r02
    g11, g12, g22 = r01 * r01 + r11 * r11, r01 * r02 + r11 * r12, r02 * r02 + r12 * r12 + r22 * r22
    for first, second, df, ds, gff, gfs, gss in (
        (0, 1, d0, d1, g00, g01, g11),
        (0, 2, d0, d2, g00, g02, g22),
        (1, 2, d1, d2, g11, g12, g22),
    ):
        determinant = gff * gss - gfs * gfs
        if determinant > 0:
            f, s = (df * gss - ds * gfs) / determinant, (ds * gff - df * gfs) / determinant
            if f >= 0 and s >= 0 and f * df + s * ds > best:
                best = f * df + s * ds
                shares[:] = 0.0
                shares[first], shares[second] = f, s
    for n, d, g in ((0, d0, g00), (1, d1, g11), (2, d2, g22)):
        if d > 0 and g > 0 and d * d / g > best:
            best = d * d / g
            shares[:] = 0.0
            shares[n] = d / g
    return best


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _at(
    delay: int,
    rate: int,
    products: NDArray[np.float64],
    triangles: NDArray[np.float64],
    shares: NDArray[np.float64],
) -> float:
    b, i, e = products[delay, 0], products[delay, 1], products[delay, 2 + rate]
    return float(_explained(b, i, e, triangles[delay, rate], shares))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _best_node(
    low: int,
    high: int,
    products: NDArray[np.float64],
    triangles: NDArray[np.float64],
    shares: NDArray[np.float64],
) -> tuple[int, int]:
    """Delay and rate of the grid that explain most."""
    n_rates = triangles.shape[1]
    at_delay, at_rate, largest = low, 0, -1.0
    for delay in range(low, high + 1, _STEPS):
        both = products[delay, 0] ** 2 + products[delay, 1] ** 2
        for rate in range(n_rates):
            bound = both + products[delay, 2 + rate] ** 2
            if bound > largest:
                at_delay, at_rate, largest = delay, rate, bound
    best = _at(at_delay, at_rate, products, triangles, shares)
    first_delay, first_rate = at_delay, at_rate
    for delay in range(low, high + 1, _STEPS):
        both = products[delay, 0] ** 2 + products[delay, 1] ** 2
        for rate in range(n_rates):
            if both + products[delay, 2 + rate] ** 2 <= best or (delay == first_delay and rate == first_rate):
                continue
            now = _at(delay, rate, products, triangles, shares)
            if now > best:
                at_delay, at_rate, best = delay, rate, now
    return at_delay, at_rate


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _top(before: float, here: float, after: float) -> float:
    """Where the parabola through three values, of which the middle one is the highest, has its top."""
    bend = before - 2 * here + after
    return min(max((before - after) / (2 * bend), -0.5), 0.5) if bend < 0 else 0.0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _along_rates(
    delay: int,
    rate: int,
    products: NDArray[np.float64],
    triangles: NDArray[np.float64],
    shares: NDArray[np.float64],
) -> tuple[float, float]:
    """The most that any rate explains at a delay, uphill from one of them, and the place of that rate."""
    last = triangles.shape[1] - 1
    here = _at(delay, rate, products, triangles, shares)
    before = _at(delay, rate - 1, products, triangles, shares) if rate > 0 else -1.0
    after = _at(delay, rate + 1, products, triangles, shares) if rate < last else -1.0
    while max(before, after) > here:
        if after >= before:
            rate += 1
            before, here = here, after
            after = _at(delay, rate + 1, products, triangles, shares) if rate < last else -1.0
        else:
            rate -= 1
            after, here = here, before
            before = _at(delay, rate - 1, products, triangles, shares) if rate > 0 else -1.0
    if rate in (0, last):
        return here, float(rate)
    top = _top(before, here, after)
    return here - (before - after) * top / 4, rate + top


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _lagrange(offset: float, weights: NDArray[np.float64]) -> None:
    """Weights of three neighbours in the value at an offset from the middle one."""
    weights[0] = offset * (offset - 1) / 2
    weights[1] = 1 - offset * offset
    weights[2] = offset * (offset + 1) / 2


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _between_nodes(
    delay: int,
    low: int,
    high: int,
    most: NDArray[np.float64],
    place: NDArray[np.float64],
    products: NDArray[np.float64],
    triangles: NDArray[np.float64],
    shares: NDArray[np.float64],
    work: NDArray[np.float64],
) -> tuple[float, float]:
    """Rate and delay, in nodes, at the top of the parabolas around the best node; the shares are theirs.

    ``work`` has the shape (6, 3): to make it anew for every voxel takes longer than to fill it.
    """
    n_rates = triangles.shape[1]
    triangle, along, of_delay, of_rate = work[:3], work[3], work[4], work[5]
    work[:4] = 0.0
    # The neighbours on both sides are known by now.
    by_delay, at_rate = 0.0, place[delay]
    if low < delay < high:
        by_delay = _top(most[delay - 1], most[delay], most[delay + 1])
    _lagrange(by_delay, of_delay)
    if by_delay != 0.0:
        at_rate = 0.0
        for d in range(3):
            at_rate += of_delay[d] * place[delay + d - 1]
    at_rate = min(max(at_rate, 0.0), n_rates - 1.0)
    rate = int(min(max(np.rint(at_rate), 1), n_rates - 2))
    _lagrange(at_rate - rate, of_rate)
    for d in range(3):
        for r in range(3):
            part = of_delay[d] * of_rate[r]
            if part != 0.0:
                near = rate + r - 1
                triangle += part * triangles[delay + d - 1, near]
                along[0] += part * products[delay + d - 1, 0]
                along[1] += part * products[delay + d - 1, 1]
                along[2] += part * products[delay + d - 1, 2 + near]
    _explained(along[0], along[1], along[2], triangle, shares)
    return at_rate, delay + by_delay


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fit(
    sums: NDArray[np.float32],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    directions: NDArray[np.float64],
    triangles: NDArray[np.float64],
    found: NDArray[np.float64],
) -> None:
    """Shares, and rate and delay in nodes, of the fits of voxels."""
    n_delays, n_rates = triangles.shape[:2]
    products, known = np.empty((n_delays, 2 + n_rates)), np.empty(n_delays, dtype=np.bool_)
    most, place = np.empty(n_delays), np.empty(n_delays)
    shares, work = np.empty(3), np.empty((6, 3))
    for v in range(len(sums)):
        found[v] = np.nan
        if high[v] < low[v] or not np.isfinite(sums[v, 0]):
            continue
        known[:] = False
        for d in range(low[v], high[v] + 1, _STEPS):
            _project(sums[v], directions[d], products[d])
            known[d] = True
        delay, rate = _best_node(low[v], high[v], products, triangles, shares)
        most[delay], place[delay] = _along_rates(delay, rate, products, triangles, shares)

        # Uphill in ever smaller steps of the delay; what is known twice is not harmed by it.
        step = _STEPS // 2
        while step > 0:
            best = delay
            for d in (delay - step, delay + step):
                if low[v] <= d <= high[v]:
                    if not known[d]:
                        _project(sums[v], directions[d], products[d])
                        known[d] = True
                    most[d], place[d] = _along_rates(
                        d, int(np.rint(place[delay])), products, triangles, shares
                    )
                    if most[d] > most[best]:
                        best = d
            if step > 1 or best == delay:
                step //= 2
            delay = best

        found[v, _RATE], found[v, _DELAY] = _between_nodes(
            delay, low[v], high[v], most, place, products, triangles, shares, work
        )
        found[v, :3] = shares
