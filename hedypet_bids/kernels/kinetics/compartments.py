"""Compartment models with delay: regions as blood, one tissue, or two tissues that trap the tracer.

For a given delay d and rate a the model is a sum of three non-negative shares: of the delayed input function
(B), of its convolution with exp(-a t) (E), and of its integral (I). Every node of a grid of a and d gives
three orthonormal curves, whose squared products with a region's curve bound how well any shares can do there;
only nodes that can beat the best are solved exactly. From the best node a and d are refined with Gauss-Newton
steps of the projected problem (Golub and Pereyra, SIAM J Numer Anal 1973;10:413-432).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.kinetics.body_voxels import NEIGHBOURHOOD_MM, BodyVoxels, body_maps
from hedypet_bids.kernels.kinetics.input_curve import (
    BLOOD,
    BY_DELAY,
    BY_RATE,
    CONVOLVED,
    N_RESPONSES,
    InputCurve,
    edges_min,
    put_whole_blood,
    response_grid,
    responses,
)
from hedypet_bids.kernels.kinetics.model import Fits, KineticModel, Parameter
from hedypet_bids.kernels.kinetics.shares import (
    F18_HALF_LIFE_S,
    RATES_PER_MIN,
    non_negative,
    root_weights,
)
from hedypet_bids.kernels.kinetics.voxel_compartments import REACH_S, curve_space
from hedypet_bids.kernels.reference import Reference
from hedypet_bids.model import FloatArray, FrameTimes
from hedypet_bids.settings import Settings, plain

MODELS = ("0TCM", "1TCM", "2TCM")
"""Blood alone, one tissue, two tissues; a model has the first one, two or three of B, E and I."""
# Places in the covariance: the shares of B, E and I, log a, and the delay.
_B, _E, _I, _RATE, _D = range(5)
_N_PARAMETERS = np.array([2, 4, 5])
_DELAY_STEP_S = 0.5
_CURVES_AT_ONCE = 256
_FEWEST_FRAMES = 8
# A frame of at most this length must begin this soon for a delay of seconds to show.
_SHORT_S, _EARLY_S = 30.0, 180.0
# The course of blood within a longer frame is not known.
_LONGEST_S = 1200.0
_LATEST_PEAK_S = 300.0
# A bolus is this much higher than the mean over the scan; blood may be this far below 0 by noise.
_LEAST_PEAK, _MOST_NEGATIVE = 1.5, 0.1
_MOST_MISSED_S = 5.0
_EARLIEST_S = -1.0
_WIDEST_CV = 0.5
# The columns that each model may use, as bits: B, then E, then I.
_ALLOWED = (1, 3, 7)
# Where vB goes to 0, it and the delay change the curve alike (dE/dd = a E - B), and the standard errors of
# both go to infinity. A small vB is therefore 0 where that adds less than this part of the noise's variance
# to the square sum: less than a tenth of a standard error.
_LITTLE_BLOOD, _UNSEEN = 0.03, 0.01
_MOST_STEPS = 40
_CLOSE, _EXACT = 1e-7, 1e-24
_LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e6
# Beyond rounding.
_SINGULAR = 1e-12


@dataclass(frozen=True, eq=False)
class CompartmentFits:
    """The three models fitted to every region with every input function.

    Parameters
    ----------
    shares
        Of B, E (per min) and I (per min) in the curve, shape (n_regions, n_inputs, 3 models, 3).
    rate_per_min, delay_s
        a and d, shape (n_regions, n_inputs, 3).
    covariance
        Of the three shares, log a and d (s), shape (n_regions, n_inputs, 3, 5, 5); 0 where one is at a bound.
    free
        Which of these are not at a bound, shape (n_regions, n_inputs, 3, 5).
    r2
        Coefficient of determination of the weighted frames, shape (n_regions, n_inputs, 3).
    aicc
        Akaike's criterion for small samples, same shape.
    why_not
        Why there are no fits with an input function, length n_inputs; empty where there are.
    doubt
        What is doubtful about input functions in these frames; empty where nothing is.

    Examples
    --------
    >>> from hedypet_bids.phantom.kinetics import Kinetics, hedypet_frames, scaled_feng_input, tissue_curve
    >>> frames, blood = hedypet_frames(), scaled_feng_input(8000.0)
    >>> water, aorta = (
    ...     tissue_curve(frames, blood, Kinetics(*rates))
    ...     for rates in ((0.3, 0.4, 0.0, 0.06), (0.0, 0.0, 0.0, 1.0))
    ... )
    >>> fits = fit_compartments(water[None], aorta[None], frames)
    >>> round(fits.parameters("1TCM")["VT"].item(), 2), fits.aicc.shape
    (0.75, (1, 1, 3))
    """

    shares: NDArray[np.float64]
    rate_per_min: NDArray[np.float64]
    delay_s: NDArray[np.float64]
    covariance: NDArray[np.float64]
    free: NDArray[np.bool_]
    r2: NDArray[np.float64]
    aicc: NDArray[np.float64]
    why_not: tuple[str, ...]
    doubt: str

    @property
    def chosen(self) -> NDArray[np.object_]:
        """The model with the lowest criterion, shape (n_regions, n_inputs); None without fits."""
        known = np.asarray(np.isfinite(self.aicc).all(axis=-1))
        best: NDArray[np.object_] = np.array(MODELS, dtype=object)[
            np.where(known[..., None], self.aicc, 0.0).argmin(axis=-1)
        ]
        best[~known] = None
        return best

    def parameters(self, model: str) -> dict[str, NDArray[Any]]:
        """Rate constants, blood fraction and delay of one model with their standard errors.

        Parameters
        ----------
        model
            ``1TCM`` (K1, k2, VT, vB, delay) or ``2TCM`` (Ki, K1, k2, k3, vB, delay).

        Returns
        -------
        dict
            Values, shape (n_regions, n_inputs), ``<name>_se``, and in ``reason`` why a value is missing or
            to be doubted. There are no standard errors where a share, the rate or the delay is at a bound:
            the other values then lean on it.
        """
        m = MODELS.index(model)
        values_of = _two_tissues if model == "2TCM" else _one_tissue
        found = values_of(self.shares[:, :, m], self.rate_per_min[..., m])
        found["delay"] = self.delay_s[..., m], _gradient(self.delay_s[..., m], delay=1.0)
        estimated = [_B, _E, _I, _RATE, _D] if model == "2TCM" else [_B, _E, _RATE, _D]
        free = self.free[:, :, m][..., estimated].all(axis=-1)
        blood, uptake = self.shares[:, :, m, _B], self.shares[:, :, m].any(axis=-1)
        meant = np.isfinite(self.rate_per_min[..., m]) & (blood < 1) & uptake
        columns: dict[str, NDArray[Any]] = {}
        with np.errstate(invalid="ignore"):
            for name, (values, gradient) in found.items():
                variance = np.einsum("...i,...ij,...j", gradient, self.covariance[:, :, m], gradient)
                columns[name] = np.where(meant, values, np.nan)
                columns[f"{name}_se"] = np.where(meant & free, np.sqrt(variance), np.nan)
            wide = columns["K1_se"] > _WIDEST_CV * columns["K1"]
        columns["reason"] = self._reasons(m, meant, wide)
        return columns

    def _reasons(self, m: int, meant: NDArray[np.bool_], wide: NDArray[np.bool_]) -> NDArray[np.object_]:
        shares, free = self.shares[:, :, m], self.free[:, :, m]
        fitted = np.isfinite(self.rate_per_min[..., m])
        cases = {
            "a frame of the curve has no value": ~fitted,
            "there is no activity above 0": fitted & ~shares.any(axis=-1),
            "blood alone explains the curve": fitted & (shares[..., _B] >= 1),
            "vB is 0": meant & ~free[..., _B],
            "k2 is 0": meant & ~free[..., _E],
            "k3 is 0": meant & ~free[..., _I] & (m == MODELS.index("2TCM")),
            "exchange with blood is at a bound": meant & free[..., _E] & ~free[..., _RATE],
            "the delay is at a bound": meant & ~free[..., _D],
            f"the delay is below {_EARLIEST_S:g} s": meant & (self.delay_s[..., m] < _EARLIEST_S),
            f"the standard error of K1 is above {_WIDEST_CV:.0%} of it": meant & wide,
            self.doubt: fitted & bool(self.doubt),
        }
        reasons = np.full(fitted.shape, "", dtype=object)
        for text, where in cases.items():
            reasons[where] = [f"{told}; {text}" if told else text for told in reasons[where]]
        for i, why_not in enumerate(self.why_not):
            if why_not:
                reasons[:, i] = why_not
        return reasons


_Found = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


def _gradient(
    like: NDArray[np.float64],
    *,
    b: FloatArray | float = 0.0,
    e: FloatArray | float = 0.0,
    i: FloatArray | float = 0.0,
    rate: FloatArray | float = 0.0,
    delay: FloatArray | float = 0.0,
) -> NDArray[np.float64]:
    return np.stack([np.broadcast_to(part, like.shape) for part in (b, e, i, rate, delay)], axis=-1)


def _one_tissue(shares: NDArray[np.float64], a: NDArray[np.float64]) -> _Found:
    """Values, and derivatives by shares, log a and delay, of K1, k2, VT and vB."""
    b, e = shares[..., 0], shares[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        K1 = e / (1 - b)
        VT = K1 / a
        k2 = np.where(e > 0, a, np.nan)
        return {
            "K1": (K1, _gradient(b, b=K1 / (1 - b), e=1 / (1 - b))),
            "k2": (k2, _gradient(b, rate=a)),
            "VT": (VT, _gradient(b, b=VT / (1 - b), e=1 / (1 - b) / a, rate=-VT)),
            "vB": (b, _gradient(b, b=1.0)),
        }


def _two_tissues(shares: NDArray[np.float64], a: NDArray[np.float64]) -> _Found:
    """Values, and derivatives by shares, log a and delay, of Ki, K1, k2, k3 and vB."""
    b, e, i = shares[..., 0], shares[..., 1], shares[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        both, tissue = e + i, 1 - b
        Ki, K1 = i / tissue, both / tissue
        k2, k3 = a * e / both, a * i / both
        slope_e, slope_i = a * e / both**2, a * i / both**2
        # Where nothing returns to blood, a is not seen, and k3 with it.
        k3 = np.where(e > 0, k3, np.nan)
        return {
            "Ki": (Ki, _gradient(b, b=Ki / tissue, i=1 / tissue)),
            "K1": (K1, _gradient(b, b=K1 / tissue, e=1 / tissue, i=1 / tissue)),
            "k2": (k2, _gradient(b, e=slope_i, i=-slope_e, rate=k2)),
            "k3": (k3, _gradient(b, e=-slope_i, i=slope_e, rate=k3)),
            "vB": (b, _gradient(b, b=1.0)),
        }


def fit_compartments(
    curves: FloatArray,
    input_functions: FloatArray,
    frames: FrameTimes,
    *,
    whole_blood: FloatArray | None = None,
    delay_s: tuple[float, float] = (-10.0, 40.0),
    half_life_s: float = 6586.2,
) -> CompartmentFits:
    """Blood, one tissue and two tissues, each with a delay, fitted to every region with every input function.

    Frames count by their length and by how much of the tracer had not decayed.

    Parameters
    ----------
    curves
        Regional activity, decay-corrected, Bq/mL, shape (n_regions, n_frames).
    input_functions
        Activity of the tracer in plasma, or of blood in its place, Bq/mL, shape (n_inputs, n_frames).
    frames
        When the frames are, s from injection.
    whole_blood
        What the blood in the tissue holds, Bq/mL, same shape; None: the same as the input function.
    delay_s
        How much later than in the input function blood may come, s.
    half_life_s
        Of the radionuclide, s; F-18 by default.

    Returns
    -------
    CompartmentFits
        NaN where a curve or input function allows no fit.

    Raises
    ------
    BadDataError
        The arrays do not have one column per frame.

    Examples
    --------
    >>> from hedypet_bids.phantom.kinetics import Kinetics, hedypet_frames, scaled_feng_input, tissue_curve
    >>> frames, blood = hedypet_frames(), scaled_feng_input(8000.0, delay_s=10.0)
    >>> late = scaled_feng_input(8000.0, delay_s=13.0)
    >>> brain = tissue_curve(frames, late, Kinetics(0.10, 0.13, 0.06, 0.05))
    >>> aorta = tissue_curve(frames, blood, Kinetics(0.0, 0.0, 0.0, 1.0))
    >>> found = fit_compartments(brain[None], aorta[None], frames).parameters("2TCM")
    >>> {name: round(found[name].item(), 2) for name in ("K1", "k2", "k3", "vB", "delay")}
    {'K1': 0.1, 'k2': 0.13, 'k3': 0.06, 'vB': 0.05, 'delay': 3.0}
    """
    regions, inputs, bloods, why_not = checked(curves, input_functions, whole_blood, frames)
    shape = (len(regions), len(inputs), len(MODELS))
    shares, places = np.full((*shape, 3), np.nan), np.full((*shape, 2), np.nan)
    rss, normal = np.full(shape, np.nan), np.zeros((*shape, 5, 5))
    root = root_weights(frames, half_life_s)
    known = np.flatnonzero(np.isfinite(regions).all(axis=1))
    for i in (i for i, reason in enumerate(why_not) if not reason):
        blood = None if whole_blood is None else InputCurve(bloods[i], frames)
        solver = _Solver(InputCurve(inputs[i], frames), blood, root, (delay_s[0] / 60, delay_s[1] / 60))
        for first in range(0, len(known), _CURVES_AT_ONCE):
            some = known[first : first + _CURVES_AT_ONCE]
            fits = solver.fit(regions[some] * root)
            for into, part in zip((shares, places, rss, normal), fits, strict=True):
                into[some, i] = part
    rates, delays = places[..., 0], places[..., 1] * 60.0
    normal[..., _D, :] /= 60.0
    normal[..., :, _D] /= 60.0
    free = _free(shares, rates, delays, delay_s)
    return CompartmentFits(
        shares=shares,
        rate_per_min=rates,
        delay_s=delays,
        covariance=_covariance(normal, free, rss, len(frames)),
        free=free,
        r2=weighted_r2(regions * root, root, rss),
        aicc=_aicc(rss, len(frames)),
        why_not=why_not,
        doubt=doubt_of(frames),
    )


def checked(
    curves: FloatArray, input_functions: FloatArray, whole_blood: FloatArray | None, frames: FrameTimes
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], tuple[str, ...]]:
    """Curves, input functions and whole blood as rows, and why there is no fit with each input function.

    Parameters
    ----------
    curves, input_functions, whole_blood, frames
        As of :func:`fit_compartments`.

    Returns
    -------
    tuple
        Arrays of shapes (n_regions, n_frames) and, twice, (n_inputs, n_frames); texts, length n_inputs.

    Raises
    ------
    BadDataError
        The arrays do not have one column per frame, or not one curve of whole blood per input function.
    """
    regions: NDArray[np.float64] = np.atleast_2d(np.asarray(curves, dtype=np.float64))
    inputs: NDArray[np.float64] = np.atleast_2d(np.asarray(input_functions, dtype=np.float64))
    for what, found in (("A curve", regions), ("An input function", inputs)):
        if found.shape[-1] != len(frames):
            raise BadDataError(
                f"{what} needs one value per frame; found {found.shape[-1]} values and {len(frames)} frames. "
                "Check that it and FrameTimesStart come from the same image."
            )
    bloods = inputs if whole_blood is None else np.atleast_2d(np.asarray(whole_blood, dtype=np.float64))
    if bloods.shape != inputs.shape:
        raise BadDataError(
            f"Whole blood needs one curve per input function; found the shapes {bloods.shape} and "
            f"{inputs.shape}."
        )
    why_not = tuple(
        why_not_input(plasma, frames) or why_not_input(blood, frames)
        for plasma, blood in zip(inputs, bloods, strict=True)
    )
    return regions, inputs, bloods, why_not


def weighted_r2(
    weighted: NDArray[np.float64], root: NDArray[np.float64], rss: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Coefficient of determination of weighted frames; NaN for a curve that does not vary.

    Parameters
    ----------
    weighted
        Curves times the roots of the weights, shape (n_regions, n_frames).
    root
        Those roots, shape (n_frames,).
    rss
        Weighted residual sums of squares, shape (n_regions, ...).
    """
    total = ((weighted - root * (weighted @ root / (root @ root))[:, None]) ** 2).sum(axis=1)
    varies = total > _SINGULAR * (weighted**2).sum(axis=1)
    return np.asarray(1 - rss / np.where(varies, total, np.nan).reshape(-1, *[1] * (rss.ndim - 1)))


def why_not_input(blood: FloatArray, frames: FrameTimes) -> str:
    """Why no compartment model can be fitted with an input function; empty when it can.

    Parameters
    ----------
    blood
        Bq/mL, shape (n_frames,).

    Examples
    --------
    >>> frames = FrameTimes([0.0, 60.0, 120.0, 600.0], [60.0, 60.0, 480.0, 600.0])
    >>> why_not_input(np.array([5.0, 90.0, 40.0, np.nan]), frames)
    'the input function ends at 10 min, before the curve'
    """
    blood = np.asarray(blood, dtype=np.float64)
    finite = np.isfinite(blood)
    if not finite.any():
        return "the input function has no values"
    last = int(np.flatnonzero(finite)[-1])
    if not finite[: last + 1].all():
        return f"the input function has no value in frame {int(np.argmin(finite))}"
    if last + 1 < len(blood):
        return f"the input function ends at {frames.end_s[last] / 60:g} min, before the curve"
    peak, mean = float(blood.max()), float(np.average(blood, weights=frames.duration_s))
    if mean <= 0 or blood.min() < -_MOST_NEGATIVE * peak:
        return "the input function is negative"
    if peak < _LEAST_PEAK * mean:
        return "the input function is flat: it has no bolus"
    peak_s = float(frames.mid_s[blood.argmax()])
    if peak_s > _LATEST_PEAK_S:
        return f"the input function peaks {peak_s / 60:.1f} min after injection, later than any bolus"
    return ""


def doubt_of(frames: FrameTimes) -> str:
    """What is doubtful about input functions in these frames; empty where nothing is."""
    curve = InputCurve(np.zeros(len(frames)), frames)
    doubts = []
    if curve.missed_s > _MOST_MISSED_S:
        doubts.append(f"the first {curve.missed_s:g} s of blood were missed")
    if curve.after_gap.any():
        longest_s = float(frames.gap_s.max())
        doubts.append(f"the input function was filled over a gap of {longest_s / 60:.3g} min")
    return "; ".join(doubts)


def _free(
    shares: NDArray[np.float64],
    rates: NDArray[np.float64],
    delays: NDArray[np.float64],
    delay_s: tuple[float, float],
) -> NDArray[np.bool_]:
    """Which of the shares, the rate and the delay are not at a bound."""
    near = 1e-6
    with np.errstate(invalid="ignore"):
        slow, fast = rates <= RATES_PER_MIN[0] * (1 + near), rates >= RATES_PER_MIN[-1] * (1 - near)
        inside = (delays > delay_s[0] + near) & (delays < delay_s[1] - near)
    rate_free = (shares[..., 1] > 0) & ~slow & ~fast
    return np.concatenate([shares > 0, np.stack([rate_free, inside & shares.any(axis=-1)], axis=-1)], axis=-1)


def _covariance(
    normal: NDArray[np.float64], free: NDArray[np.bool_], rss: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """That of the free parameters, from the normal matrix at the optimum; NaN where it is singular."""
    both = free[..., :, None] & free[..., None, :]
    size = np.sqrt(np.where(free, np.diagonal(normal, axis1=-2, axis2=-1), 1.0))
    size = np.where(size > 0, size, 1.0)
    scale = size[..., :, None] * size[..., None, :]
    values, vectors = np.linalg.eigh(np.where(both, normal / scale, np.eye(5)))
    inverse = np.where(values > _SINGULAR, 1.0, np.nan) / np.where(values > _SINGULAR, values, 1.0)
    with np.errstate(invalid="ignore"):
        unscaled = (vectors * inverse[..., None, :]) @ np.swapaxes(vectors, -1, -2)
        left = n - free.sum(axis=-1)
        variance = np.where(left > 0, rss / np.maximum(left, 1), np.nan)
        return np.where(both, variance[..., None, None] * unscaled / scale, 0.0)


def _aicc(rss: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    k = _N_PARAMETERS + 1  # the variance of the noise counts
    with np.errstate(divide="ignore", invalid="ignore"):
        penalty = np.where(n > k + 1, 2 * k + 2 * k * (k + 1) / (n - k - 1), np.nan)
        return np.asarray(n * np.log(np.maximum(rss, np.finfo(float).tiny) / n) + penalty)


class _Solver:
    """The grid of one input function, and the fits that begin at its best nodes."""

    def __init__(
        self,
        curve: InputCurve,
        blood: InputCurve | None,
        root: NDArray[np.float64],
        delay_min: tuple[float, float],
    ) -> None:
        self._pieces, self._root, self._delay_min = curve.pieces, root, delay_min
        self._blood_pieces = blood.pieces if blood else np.empty((len(curve.pieces), 0))
        self._edges = edges_min(curve.frames)
        n_delays = max(2, round((delay_min[1] - delay_min[0]) * 60 / _DELAY_STEP_S) + 1)
        delays = np.linspace(*delay_min, n_delays)
        bases = response_grid(self._pieces, *self._edges, RATES_PER_MIN, delays)
        for d, delay in enumerate(delays):
            for of_rate in bases[:, d]:
                put_whole_blood(self._blood_pieces, *self._edges, delay, of_rate)
        bases = (bases * root).reshape(-1, 3, bases.shape[-1])
        self._nodes = np.stack(np.meshgrid(RATES_PER_MIN, delays, indexing="ij"), axis=-1).reshape(-1, 2)
        orthonormal, self._triangles = np.linalg.qr(np.swapaxes(bases, 1, 2))
        self._orthonormal = np.swapaxes(orthonormal, 1, 2).reshape(-1, orthonormal.shape[1])

    def fit(self, weighted: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Shares, rate and delay (min), residual sum of squares and normal matrix of each curve and model."""
        products = (weighted @ self._orthonormal.T).reshape(len(weighted), -1, 3)
        best = _best_nodes(products, self._triangles)
        bounds = np.array([RATES_PER_MIN[[0, -1]], self._delay_min])
        found = _refined(
            weighted, self._nodes[best], self._pieces, self._blood_pieces, *self._edges, self._root, bounds
        )
        return tuple(found)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _best_nodes(products: NDArray[np.float64], triangles: NDArray[np.float64]) -> NDArray[np.int64]:
    """The node at which each model explains most of each curve, shape (n_curves, 3)."""
    n_curves, n_nodes = products.shape[:2]
    nodes = np.zeros((n_curves, 3), dtype=np.int64)
    gram, dots, shares, best = np.empty((3, 3)), np.empty(3), np.empty(3), np.empty(3)
    for c in range(n_curves):
        best[:] = 0.0
        for node in range(n_nodes):
            bound, solved = 0.0, False
            for m in range(3):
                bound += products[c, node, m] ** 2
                if bound <= best[m]:
                    continue
                if not solved:
                    solved = True
                    for i in range(3):
                        dots[i] = 0.0
                        for k in range(i + 1):
                            dots[i] += triangles[node, k, i] * products[c, node, k]
                        for j in range(3):
                            gram[i, j] = 0.0
                            for k in range(min(i, j) + 1):
                                gram[i, j] += triangles[node, k, i] * triangles[node, k, j]
                explained = non_negative(gram, dots, _ALLOWED[m], shares)
                if explained > best[m]:
                    best[m], nodes[c, m] = explained, node
    return nodes


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _residual(
    curve: NDArray[np.float64],
    columns: NDArray[np.float64],
    allowed: int,
    shares: NDArray[np.float64],
    residual: NDArray[np.float64],
) -> float:
    """Sum of squares that the best shares of the allowed columns leave, and what is left in each frame."""
    gram, dots = np.zeros((3, 3)), np.zeros(3)
    for f in range(len(curve)):
        for i in range(3):
            dots[i] += columns[i, f] * curve[f]
            for j in range(i + 1):
                gram[i, j] += columns[i, f] * columns[j, f]
    for i in range(3):
        for j in range(i):
            gram[j, i] = gram[i, j]
    non_negative(gram, dots, allowed, shares)
    left = 0.0
    for f in range(len(curve)):
        rest = curve[f]
        for i in range(3):
            rest -= shares[i] * columns[i, f]
        residual[f] = rest
        left += rest**2
    return left


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _tangents(
    columns: NDArray[np.float64], rate: float, shares: NDArray[np.float64], tangents: NDArray[np.float64]
) -> None:
    """How the model changes with log a and with the delay."""
    for f in range(columns.shape[1]):
        tangents[0, f] = shares[CONVOLVED] * rate * columns[BY_RATE, f]
        tangents[1, f] = 0.0
        for i in range(3):
            tangents[1, f] += shares[i] * columns[BY_DELAY + i, f]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _step(
    columns: NDArray[np.float64],
    tangents: NDArray[np.float64],
    residual: NDArray[np.float64],
    shares: NDArray[np.float64],
    fixed: NDArray[np.bool_],
    damping: float,
) -> tuple[float, float]:
    """Change of log a and delay by a damped Gauss-Newton step, the shares following."""
    basis, across = np.empty((3, columns.shape[1])), tangents.copy()
    size = 0
    for i in range(3):
        if shares[i] > 0:
            basis[size] = columns[i]
            for k in range(size):
                basis[size] -= (basis[k] @ basis[size]) * basis[k]
            basis[size] /= np.sqrt(basis[size] @ basis[size])
            size += 1
    for i in range(2):
        for k in range(size):
            across[i] -= (basis[k] @ across[i]) * basis[k]
        if fixed[i]:
            across[i] = 0.0
    h00, h11 = (across[0] @ across[0]) * (1 + damping), (across[1] @ across[1]) * (1 + damping)
    h01, g0, g1 = across[0] @ across[1], across[0] @ residual, across[1] @ residual
    determinant = h00 * h11 - h01 * h01
    if determinant > _SINGULAR * h00 * h11:
        return (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant
    if h00 > 0:
        return g0 / h00, 0.0
    return 0.0, (g1 / h11 if h11 > 0 else 0.0)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _descend(
    curve: NDArray[np.float64],
    pieces: NDArray[np.float64],
    blood_pieces: NDArray[np.float64],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    root: NDArray[np.float64],
    bounds: NDArray[np.float64],
    allowed: int,
    at: NDArray[np.float64],
    columns: NDArray[np.float64],
    shares: NDArray[np.float64],
) -> float:
    """The residual sum of squares of the best fit near rate and delay ``at``, which move there."""
    n_frames = len(curve)
    at_knots, residual = np.empty((2, pieces.shape[1])), np.empty(n_frames)
    tried, tried_shares = np.empty((N_RESPONSES, n_frames)), np.empty(3)
    tangents, fixed, tried_at = np.empty((2, n_frames)), np.empty(2, dtype=np.bool_), np.empty(2)
    responses(pieces, start, end, at[0], at[1], at_knots, columns)
    put_whole_blood(blood_pieces, start, end, at[1], columns)
    columns *= root
    left: float = _residual(curve, columns, allowed, shares, residual)
    enough, damping = _EXACT * (curve @ curve), _LEAST_DAMPING
    for _ in range(_MOST_STEPS):
        if left <= enough or damping > _MOST_DAMPING:
            break
        _tangents(columns, at[0], shares, tangents)
        for i in range(2):
            downhill = tangents[i] @ residual
            fixed[i] = (at[i] <= bounds[i, 0] and downhill < 0) or (at[i] >= bounds[i, 1] and downhill > 0)
        by_rate, by_delay = _step(columns, tangents, residual, shares, fixed, damping)
        tried_at[0] = at[0] * np.exp(min(max(by_rate, -1.0), 1.0))
        tried_at[1] = at[1] + by_delay
        for i in range(2):
            tried_at[i] = min(max(tried_at[i], bounds[i, 0]), bounds[i, 1])
        if abs(tried_at[0] / at[0] - 1) + abs(tried_at[1] - at[1]) < _CLOSE:
            break
        responses(pieces, start, end, tried_at[0], tried_at[1], at_knots, tried)
        put_whole_blood(blood_pieces, start, end, tried_at[1], tried)
        tried *= root
        now = _residual(curve, tried, allowed, tried_shares, residual)
        if now < left:
            gained, left = left - now, now
            at[:], columns[:], shares[:] = tried_at, tried, tried_shares
            damping /= 10
            if gained < _CLOSE * left:
                break
        else:
            damping = 10 * max(damping, _LEAST_DAMPING)
            _residual(curve, columns, allowed, shares, residual)
    return left


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _refined(
    curves: NDArray[np.float64],
    nodes: NDArray[np.float64],
    pieces: NDArray[np.float64],
    blood_pieces: NDArray[np.float64],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    root: NDArray[np.float64],
    bounds: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The fits that begin at these nodes: what :meth:`_Solver.fit` gives."""
    n_curves, n_frames = curves.shape
    all_shares, all_normal = np.zeros((n_curves, 3, 3)), np.zeros((n_curves, 3, 5, 5))
    places, rss = nodes.copy(), np.empty((n_curves, 3))
    columns, bloodless = np.empty((N_RESPONSES, n_frames)), np.empty((N_RESPONSES, n_frames))
    shares, others, place = np.empty(3), np.empty(3), np.empty(2)
    jacobian = np.empty((5, n_frames))
    for c in range(n_curves):
        for m in range(3):
            at = places[c, m]
            left = _descend(
                curves[c], pieces, blood_pieces, start, end, root, bounds, _ALLOWED[m], at, columns, shares
            )
            if m > 0 and shares[BLOOD] < _LITTLE_BLOOD:
                place[:] = at
                without = _descend(
                    curves[c],
                    pieces,
                    blood_pieces,
                    start,
                    end,
                    root,
                    bounds,
                    _ALLOWED[m] - 1,
                    place,
                    bloodless,
                    others,
                )
                if without - left <= _UNSEEN * left / max(n_frames - 5, 1):
                    at[:], columns[:], shares[:], left = place, bloodless, others, without
            _tangents(columns, at[0], shares, jacobian[3:])
            jacobian[:3] = columns[:3]
            all_shares[c, m], all_normal[c, m], rss[c, m] = shares, jacobian @ jacobian.T, left
    return all_shares, places, rss, all_normal


_DELAY = Parameter(
    "delay", "s", "How much later blood comes to the region than to the input function's place"
)
_VB = Parameter("vB", "mL/mL", "Blood in the region, as a fraction of its volume")
_SOKOLOFF = Reference(
    "Sokoloff, L and Reivich, M and Kennedy, C and Des Rosiers, M H and Patlak, C S and Pettigrew, K D and "
    "Sakurada, O and Shinohara, M",
    "The [14C]deoxyglucose method for the measurement of local cerebral glucose utilization: theory, "
    "procedure, and normal values in the conscious and anesthetized albino rat",
    1977,
    "Journal of Neurochemistry",
    "28",
    "897-916",
    "10.1111/j.1471-4159.1977.tb10649.x",
)
_PHELPS = Reference(
    "Phelps, M E and Huang, S C and Hoffman, E J and Selin, C and Sokoloff, L and Kuhl, D E",
    "Tomographic measurement of local cerebral glucose metabolic rate in humans with "
    "(F-18)2-fluoro-2-deoxy-D-glucose: validation of method",
    1979,
    "Annals of Neurology",
    "6",
    "371-388",
    "10.1002/ana.410060502",
)
_HUANG = Reference(
    "Huang, S C and Phelps, M E and Hoffman, E J and Sideris, K and Selin, C J and Kuhl, D E",
    "Noninvasive determination of local cerebral metabolic rate of glucose in man",
    1980,
    "American Journal of Physiology",
    "238",
    "E69-E82",
    "10.1152/ajpendo.1980.238.1.E69",
)
_INNIS = Reference(
    "Innis, Robert B and Cunningham, Vincent J and Delforge, Jacques and others",
    "Consensus nomenclature for in vivo imaging of reversibly binding radioligands",
    2007,
    "Journal of Cerebral Blood Flow and Metabolism",
    "27",
    "1533-1539",
    "10.1038/sj.jcbfm.9600493",
)
_IIDA = Reference(
    "Iida, H and Higano, S and Tomura, N and Shishido, F and Kanno, I and Miura, S and Murakami, M and "
    "Takahashi, K and Sasaki, H and Uemura, K",
    "Evaluation of regional differences of tracer appearance time in cerebral tissues using [15O]water and "
    "dynamic positron emission tomography",
    1988,
    "Journal of Cerebral Blood Flow and Metabolism",
    "8",
    "285-288",
    "10.1038/jcbfm.1988.60",
)
_HURVICH = Reference(
    "Hurvich, Clifford M and Tsai, Chih-Ling",
    "Regression and time series model selection in small samples",
    1989,
    "Biometrika",
    "76",
    "297-307",
    "10.1093/biomet/76.2.297",
)
# Vessels and the heart are blood; the others are filled with what blood did not bring there.
_VESSELS = ("aorta", "vein", "vena", "artery", "brachiocephalic", "atrial_appendage")
_FILLED = {
    "gallbladder": "bile",
    "urinary_bladder": "urine",
    "small_bowel": "bowel content",
    "duodenum": "bowel content",
    "colon": "bowel content",
}


class _Compartments(KineticModel):
    """What the two models share: one engine, its settings, and where they mean nothing."""

    n_tissues: ClassVar[int]
    columns: ClassVar[Mapping[str, Any]] = {
        "aicc_0tcm": {"Description": "Akaike's criterion for small samples: blood alone (vB, delay)"},
        "aicc_1tcm": {"Description": "The same of the one-tissue model (K1, k2, vB, delay)"},
        "aicc_2tcm": {"Description": "The same of the two-tissue model (K1, k2, k3, vB, delay)"},
        "chosen": {"Description": "Model with the lowest criterion, for information; nothing depends on it"},
        "r2": {"Description": "Coefficient of determination of the weighted frames"},
        "missed_start": {"Description": "Time after injection of which no blood was seen", "Units": "s"},
    }

    # Those of the scan; not known without one.
    _radionuclide = ""
    _half_life_of_scan_s = math.nan

    def of_nuclide(self, radionuclide: str, half_life_s: float) -> KineticModel:
        """The model with the half-life that the weights of frames depend on."""
        changed = copy(self)
        changed._radionuclide, changed._half_life_of_scan_s = radionuclide, half_life_s
        return changed

    def half_life_s(self, settings: Settings) -> float:
        """Half-life in the weights of frames, s: that of the settings, else of the scan, else of F-18."""
        return self._half_life_and_source(settings)[0]

    def _half_life_and_source(self, settings: Settings) -> tuple[float, str]:
        asked_s = settings.kinetics.compartments.half_life_s
        if asked_s:
            return asked_s, "[kinetics.compartments] half_life_s"
        if math.isfinite(self._half_life_of_scan_s):
            return self._half_life_of_scan_s, f"Radionuclide of the scan ({self._radionuclide})"
        return F18_HALF_LIFE_S, "F18, as the radionuclide of the scan is not known"

    def options(self, settings: Settings) -> Mapping[str, Any]:
        """Range of delays and half-life."""
        delay_s = plain(settings.kinetics.compartments)["delay_s"]
        return {"delay_s": delay_s, "half_life_s": self.half_life_s(settings)}

    def sidecar(self, frames: FrameTimes, settings: Settings) -> Mapping[str, Any]:  # noqa: ARG002
        """The half-life in the weights of frames, and where it comes from."""
        half_life_s, source = self._half_life_and_source(settings)
        return {"WeightsHalfLife": half_life_s, "WeightsHalfLifeSource": source}

    def why_not_with(self, frames: FrameTimes, settings: Settings) -> str:  # noqa: ARG002
        """Few, late or long frames show neither exchange nor delay."""
        if len(frames) < _FEWEST_FRAMES:
            return f"it takes {_FEWEST_FRAMES} frames, and there are {len(frames)}"
        early = (frames.start_s < _EARLY_S) & (frames.duration_s <= _SHORT_S)
        if not early.any():
            return (
                f"no frame of the first {_EARLY_S / 60:g} min is as short as {_SHORT_S:g} s (the shortest of "
                f"all lasts {frames.duration_s.min():g} s), so the delay of the blood cannot be seen"
            )
        longest_s = float(frames.duration_s.max())
        if longest_s > _LONGEST_S:
            return (
                f"a frame lasts {longest_s / 60:g} min, and how blood falls within more than "
                f"{_LONGEST_S / 60:g} min is not known"
            )
        return ""

    def why_not_in(self, region: str) -> str:
        """Blood, and what is filled with something else than tissue."""
        if region == "heart":
            return "the heart as a whole is mostly blood, of which the right half comes before the aorta's"
        if any(word in region for word in _VESSELS):
            return "a vessel has no tissue"
        return f"it holds {_FILLED[region]}" if region in _FILLED else ""

    def fit(
        self,
        curves: NDArray[np.float64],
        inputs: NDArray[np.float64],
        frames: FrameTimes,
        settings: Settings,
    ) -> Fits:
        """Weighted least squares with non-negative shares of blood, exchange and trapping."""
        return self._fit(curves, inputs, None, frames, settings)

    def fit_plasma(
        self,
        curves: NDArray[np.float64],
        plasma: NDArray[np.float64],
        whole_blood: NDArray[np.float64],
        frames: FrameTimes,
        settings: Settings,
        *,
        parent_known: bool,  # noqa: ARG002
    ) -> Fits:
        """The same, with whole blood in the blood of the tissue."""
        return self._fit(curves, plasma, whole_blood, frames, settings)

    def _fit(
        self,
        curves: NDArray[np.float64],
        inputs: NDArray[np.float64],
        whole_blood: NDArray[np.float64] | None,
        frames: FrameTimes,
        settings: Settings,
    ) -> Fits:
        found = self._of_compartments(curves, inputs, whole_blood, frames, settings)
        parameters = found.parameters(MODELS[self.n_tissues])
        reason = parameters.pop("reason")
        values = {
            **parameters,
            **{f"aicc_{name.lower()}": found.aicc[..., m] for m, name in enumerate(MODELS)},
            "chosen": found.chosen,
            "r2": found.r2[..., self.n_tissues],
            "missed_start": np.full(reason.shape, frames.missed_s),
            "reason": reason,
        }
        return Fits({}, {name: value[..., None] for name, value in values.items()})

    def _of_compartments(
        self,
        curves: NDArray[np.float64],
        inputs: NDArray[np.float64],
        whole_blood: NDArray[np.float64] | None,
        frames: FrameTimes,
        settings: Settings,
    ) -> CompartmentFits:
        return fit_compartments(
            curves,
            inputs,
            frames,
            whole_blood=whole_blood,
            delay_s=settings.kinetics.compartments.delay_s,
            half_life_s=self.half_life_s(settings),
        )

    def _shared_methods(self, settings: Settings) -> str:
        low_s, high_s = settings.kinetics.compartments.delay_s
        return (
            "The input function was made continuous by straight lines whose means over the frames are the "
            "measured ones (log-linear in gaps), and the model was averaged over each frame exactly. The "
            f"delay of blood, from {low_s:g} to {high_s:g} s, is a parameter of each region [@iida], as is "
            "the blood fraction. Non-negative least squares, with weights of frame duration times remaining "
            "activity of the radionuclide, searched a grid of delay and exchange and were refined by "
            "Gauss-Newton steps; standard errors come from the Jacobian. Akaike's criterion for small "
            "samples [@hurvich] is given for blood alone, one and two tissues."
        )


class TwoTissue(_Compartments):
    """Irreversible two-tissue model with delay and blood: exchange with blood, and trapping."""

    name = "TwoTissueIrr"
    n_tissues = 2
    of_body = True
    title = "Irreversible two-tissue model"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("Ki", "mL/min/mL", "Net influx constant of the tissue without its blood, K1 k3/(k2 + k3)"),
        Parameter("K1", "mL/min/mL", "Transfer from blood to tissue"),
        Parameter("k2", "1/min", "Return from tissue to blood"),
        Parameter("k3", "1/min", "Trapping"),
        _VB,
        _DELAY,
    )
    references: ClassVar[Mapping[str, Reference]] = {
        "sokoloff": _SOKOLOFF,
        "phelps": _PHELPS,
        "huang": _HUANG,
        "iida": _IIDA,
        "hurvich": _HURVICH,
    }

    def methods(self, settings: Settings) -> str:
        """Model, input, weights, delay."""
        return (
            "Ki, K1, k2 and k3 are those of the irreversible two-tissue model with a fraction of blood "
            f"[@sokoloff; @phelps; @huang] (k4 = 0). {self._shared_methods(settings)}"
        )

    @property
    def maps(self) -> tuple[Parameter, ...]:
        """Ki, K1, vB and delay; k2 and k3 of a voxel are noise."""
        return tuple(parameter for parameter in self.parameters if parameter.name not in ("k2", "k3"))

    def why_no_maps(self, frames: FrameTimes, settings: Settings) -> str:  # noqa: ARG002
        """They take time, so that the settings may leave them out."""
        return "" if settings.kinetics.compartments.maps else "[kinetics.compartments] maps is false"

    def map_fwhm_mm(self, settings: Settings) -> float:
        """Its own: a native voxel has too few counts for K1."""
        return settings.kinetics.compartments.map_fwhm_mm

    def map_options(self, settings: Settings) -> Mapping[str, Any]:
        """As for regions."""
        return self.options(settings)

    def body_maps(
        self,
        blood: FloatArray,
        frames: FrameTimes,
        settings: Settings,
        body: BodyVoxels,
        threads: int = 1,
    ) -> Mapping[str, NDArray[np.float32]]:
        """From some 35 weighted sums of the frames of each voxel."""
        if why_not := why_not_input(blood, frames):
            raise BadDataError(
                f"{settings.kinetics.map_input_function}: {why_not}; no map of {self.name} can be made. "
                "Choose another [kinetics] map_input_function in --settings."
            )
        chosen = settings.kinetics.compartments
        space = curve_space(
            InputCurve(np.asarray(blood, dtype=np.float64), frames),
            delay_s=chosen.delay_s,
            half_life_s=self.half_life_s(settings),
        )
        return body_maps(body, space, fwhm_mm=chosen.map_fwhm_mm, threads=threads)

    def map_sidecar(self, frames: FrameTimes, settings: Settings) -> Mapping[str, Any]:
        """How the delay was found, and where there is no value."""
        doubt = doubt_of(frames)
        return {
            "Smoothing": "Of the frames, over the voxels of the map alone, before the fit",
            **self.sidecar(frames, settings),
            "DelayRange": list(settings.kinetics.compartments.delay_s),
            "DelayStages": [
                f"in blocks of about {NEIGHBOURHOOD_MM:g} mm, interpolated linearly between them",
                f"in each voxel at most {REACH_S:g} s away from that",
            ],
            "NotAvailable": {
                "Ki, K1, vB, delay": "no activity above 0, blood alone, or no delay around the voxel",
                "K1, vB, delay": "the delay there or around is at an end of its range",
                "K1, vB": "exchange with blood is as fast as may be",
                "Ki, K1": "exchange with blood is as slow as may be",
            },
            **({"Doubt": doubt} if doubt else {}),
        }

    def map_methods(self, settings: Settings) -> str:
        """Sums, delay in two stages, smoothing, and where not to look."""
        width_mm = settings.kinetics.compartments.map_fwhm_mm
        smoothed = f", smoothed with a Gaussian of {width_mm:g} mm FWHM," if width_mm else ""
        return (
            f"For voxel maps of Ki, K1, vB and delay all frames{smoothed} were projected on the space of the "
            f"model's curves with the input function {settings.kinetics.map_input_function}. The delay was "
            f"found in blocks of about {NEIGHBOURHOOD_MM:g} mm, then in each voxel at most {REACH_S:g} s "
            "away from that of its surroundings. Lungs are left out, as their blood comes from the right "
            "heart; values in the heart, in vessels, bladder, gallbladder and bowel content mean nothing."
        )


class OneTissue(_Compartments):
    """One-tissue model with delay and blood: reversible exchange alone."""

    name = "OneTissue"
    n_tissues = 1
    title = "One-tissue model"
    parameters = (
        Parameter("K1", "mL/min/mL", "Transfer from blood to tissue"),
        Parameter("k2", "1/min", "Return from tissue to blood"),
        Parameter("VT", "mL/mL", "Distribution volume of the tissue over whole blood, K1/k2"),
        _VB,
        _DELAY,
    )
    trapped = False
    references: ClassVar[Mapping[str, Reference]] = {"innis": _INNIS, "iida": _IIDA, "hurvich": _HURVICH}

    def methods(self, settings: Settings) -> str:
        """Model, input, weights, delay."""
        return (
            "K1, k2 and the distribution volume VT = K1/k2 [@innis] are those of the one-tissue model with a "
            "fraction of blood, relative to the activity of whole blood without correction for plasma or "
            f"metabolites. {self._shared_methods(settings)}"
        )
