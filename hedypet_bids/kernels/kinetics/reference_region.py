"""Binding from a reference region instead of blood: SRTM, MRTM, MRTM2 and SUVR.

The curve of a region without specific binding takes the place of the input function. With C the activity of
a region and Cr that of the reference region, the simplified reference tissue model (Lammertsma and Hume
1996) is C = R1 Cr + (k2 - R1 k2a) Cr (x) exp(-k2a t), with k2a = k2 / (1 + BPND).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.kernels.kinetics.model import Fits, KineticModel, Parameter
from hedypet_bids.kernels.kinetics.patlak import Window, integrate
from hedypet_bids.kernels.kinetics.regression import (
    FIT_COLUMNS,
    Mask,
    fit_linear,
    fits_of_one_window,
    mean_ratio,
    noise_of,
    reasons,
)
from hedypet_bids.kernels.reference import Reference
from hedypet_bids.model import FloatArray, FrameTimes
from hedypet_bids.settings import Settings

# Apparent effluxes that SRTM looks at, 1/min: wider than any tissue's, so that a hit says that there is none.
_RATES = np.geomspace(1e-3, 10.0, 400)
# Fewer frames do not tell three parameters apart.
_FEWEST_FRAMES = 8
# What tells a region's k2' well enough to count in that of MRTM2.
_LEAST_BINDING, _LARGEST_CV = 0.5, 0.5

_BPND = Parameter(
    "BPND", "", "Binding potential: specifically bound over non-displaceable tracer, at balance"
)
_R1 = Parameter("R1", "", "Delivery of the tracer over that to the reference region")

_ICHISE = Reference(
    "Ichise, Masanori and Liow, Jeih-San and Lu, Jian-Qiang and others",
    "Linearized reference tissue parametric imaging methods: application to [11C]DASB positron emission "
    "tomography studies of the serotonin transporter in human brain",
    2003,
    "Journal of Cerebral Blood Flow and Metabolism",
    "23",
    "1096-1112",
    "10.1097/01.WCB.0000085441.37552.CA",
)


class _Estimates(NamedTuple):
    """Columns of all regions, shape (n_regions,), and the cases in which there is no value."""

    values: dict[str, NDArray[np.float64]]
    cases: list[tuple[Mask, str]]


class ReferenceModel(KineticModel):
    """What the models of a reference region share."""

    trapped = False
    reference = True
    columns: ClassVar[Mapping[str, Any]] = FIT_COLUMNS

    def options(self, settings: Settings) -> Mapping[str, Any]:
        """The reference region."""
        return {"reference_region": settings.kinetics.reference_region}

    def sidecar(self, frames: FrameTimes, settings: Settings) -> Mapping[str, Any]:  # noqa: ARG002
        """The reference region."""
        return {"ReferenceRegion": settings.kinetics.reference_region}

    def fit(
        self,
        curves: NDArray[np.float64],
        inputs: NDArray[np.float64],
        frames: FrameTimes,
        settings: Settings,
    ) -> Fits:
        """Every region with every reference curve."""
        index = self._frames(frames, settings)
        found = [self._against(curves, reference, frames, index, settings) for reference in inputs]
        values = {
            name: np.stack([estimates.values[name] for estimates in found], axis=1)
            for name in found[0].values
        }
        why = np.stack([self._reasons(curves, r, e) for r, e in zip(inputs, found, strict=True)], axis=1)
        return Fits({}, fits_of_one_window(values, why, frames, index))

    def _reasons(
        self, curves: NDArray[np.float64], reference: NDArray[np.float64], estimates: _Estimates
    ) -> NDArray[Any]:
        empty = not (np.isfinite(reference).all() and reference.max() > 0)
        return reasons(
            (empty, "the reference region has no activity or no voxel"),
            (~np.isfinite(curves).all(axis=1), "the region has no voxel"),
            ((curves == reference).all(axis=1), "this is the reference region itself"),
            *estimates.cases,
        )

    @abstractmethod
    def _frames(self, frames: FrameTimes, settings: Settings) -> NDArray[np.intp]:
        """The frames in the fit."""

    @abstractmethod
    def _against(
        self,
        curves: NDArray[np.float64],
        reference: NDArray[np.float64],
        frames: FrameTimes,
        index: NDArray[np.intp],
        settings: Settings,
    ) -> _Estimates:
        """The fits with one reference curve."""


class SRTM(ReferenceModel):
    """The simplified reference tissue model by basis functions, over all frames.

    Examples
    --------
    >>> [parameter.name for parameter in SRTM().parameters]
    ['BPND', 'R1', 'k2']
    """

    name = "SRTM"
    title = "Simplified reference tissue model"
    parameters = (_BPND, _R1, Parameter("k2", "1/min", "Efflux of the region without specific binding"))
    references: ClassVar[Mapping[str, Reference]] = {
        "srtm": Reference(
            "Lammertsma, Adriaan A and Hume, Susan P",
            "Simplified reference tissue model for PET receptor studies",
            1996,
            "NeuroImage",
            "4",
            "153-158",
            "10.1006/nimg.1996.0066",
        ),
        "gunn": Reference(
            "Gunn, Roger N and Lammertsma, Adriaan A and Hume, Susan P and Cunningham, Vincent J",
            "Parametric imaging of ligand-receptor binding in PET using a simplified reference region model",
            1997,
            "NeuroImage",
            "6",
            "279-287",
            "10.1006/nimg.1997.0303",
        ),
    }

    def _frames(self, frames: FrameTimes, settings: Settings) -> NDArray[np.intp]:  # noqa: ARG002
        return np.arange(len(frames))

    def _against(
        self,
        curves: NDArray[np.float64],
        reference: NDArray[np.float64],
        frames: FrameTimes,
        index: NDArray[np.intp],
        settings: Settings,  # noqa: ARG002
    ) -> _Estimates:
        weights = frames.duration_s
        rates, at_bound = _best_rates(curves, reference, frames)
        bases = convolved(reference, frames, rates)
        step = 1e-4
        by_rate = (convolved(reference, frames, rates * (1 + step)) - bases) / (step * rates[:, None])
        factor = fit_linear(curves, [reference, bases], weights).beta[:, 1]
        # At the best rate the residual is orthogonal to the third column, which adds its share of the error.
        found = fit_linear(curves, [reference, bases, factor[:, None] * by_rate], weights)
        r1, factor = found.beta[:, 0], found.beta[:, 1]
        zero, one = np.zeros_like(rates), np.ones_like(rates)
        k2 = factor + r1 * rates
        values = {
            "BPND": r1 + factor / rates - 1,
            "BPND_se": found.se_of(one, 1 / rates, -factor / rates**2),
            "R1": r1,
            "R1_se": found.se_of(one, zero, zero),
            "k2": k2,
            "k2_se": found.se_of(rates, one, r1),
            "r2": found.r2,
        }
        return _Estimates(
            values,
            [
                (len(index) < _FEWEST_FRAMES, f"{len(index)} frames; expected {_FEWEST_FRAMES} or more"),
                (at_bound, "the curve does not show how fast the tracer leaves (k2a is at a bound)"),
                (~np.isfinite(found.beta).all(axis=1), "the frames do not tell the parameters apart"),
                (~((r1 > 0) & (k2 > 0)), "the best fit has no positive R1 and k2"),
            ],
        )

    def methods(self, settings: Settings) -> str:
        """Reference region, basis functions and weights."""
        return (
            "BPND, R1 and k2 are those of the simplified reference tissue model [@srtm] by basis functions "
            f"[@gunn] with {_named(settings)} as reference region, k2/(1 + BPND) from {_RATES[0]:g} "
            f"to {_RATES[-1]:g} per min, least squares weighted by the length of the frames, and standard "
            "errors from the derivatives by all three parameters."
        )


class _Multilinear(ReferenceModel):
    """What MRTM and MRTM2 share: the frames from t* on."""

    def options(self, settings: Settings) -> Mapping[str, Any]:
        """The reference region and t*."""
        return {**super().options(settings), "t_star_min": settings.kinetics.t_star_min}

    def sidecar(self, frames: FrameTimes, settings: Settings) -> Mapping[str, Any]:
        """The same."""
        return {**super().sidecar(frames, settings), "TStar": settings.kinetics.t_star_min * 60.0}

    def _frames(self, frames: FrameTimes, settings: Settings) -> NDArray[np.intp]:
        return Window(start_min=settings.kinetics.t_star_min).indices(frames)


class MRTM(_Multilinear):
    """Ichise's multilinear reference tissue model: C = R1 k2' int Cr - k2a int C + R1 Cr.

    Examples
    --------
    >>> [parameter.name for parameter in MRTM().parameters]
    ['BPND', 'R1', 'k2prime']
    """

    name = "MRTM"
    title = "Multilinear reference tissue model MRTM"
    parameters = (_BPND, _R1, Parameter("k2prime", "1/min", "Efflux of the reference region"))
    references: ClassVar[Mapping[str, Reference]] = {"ichise2003": _ICHISE}

    def _against(
        self,
        curves: NDArray[np.float64],
        reference: NDArray[np.float64],
        frames: FrameTimes,
        index: NDArray[np.intp],
        settings: Settings,
    ) -> _Estimates:
        areas = [integrate(c, frames, rule="frames")[..., index] for c in (reference, curves)]
        found = fit_linear(curves[:, index], [areas[0], areas[1], reference[index]], frames.duration_s[index])
        first, second, r1 = np.moveaxis(found.beta, -1, 0)
        zero, one = np.zeros_like(r1), np.ones_like(r1)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = {
                "BPND": -first / second - 1,
                "BPND_se": found.se_of(-1 / second, first / second**2, zero),
                "R1": r1,
                "R1_se": found.se_of(zero, zero, one),
                "k2prime": first / r1,
                "k2prime_se": found.se_of(1 / r1, zero, -first / r1**2),
                "r2": found.r2,
            }
        return _Estimates(values, _cases_from_t_star(4, found.beta, second, r1, values, index, settings))

    def methods(self, settings: Settings) -> str:
        """Reference region and window."""
        return (
            f"BPND, R1 and the efflux k2' of the reference region are those of the multilinear reference "
            "tissue "
            f"model MRTM [@ichise2003] over the frames from {settings.kinetics.t_star_min:g} min on, "
            "weighted by "
            f"their length, with {_named(settings)} as reference region."
        )


class MRTM2(_Multilinear):
    """MRTM with one k2' for all regions: C = R1 k2' (int Cr + Cr/k2') - k2a int C.

    Examples
    --------
    >>> [parameter.name for parameter in MRTM2().parameters]
    ['BPND', 'R1']
    """

    name = "MRTM2"
    title = "Multilinear reference tissue model MRTM2"
    parameters = (_BPND, _R1)
    columns: ClassVar[Mapping[str, Any]] = {
        "k2prime": {"Description": "Efflux of the reference region that was taken", "Units": "1/min"},
        **FIT_COLUMNS,
    }
    references: ClassVar[Mapping[str, Reference]] = {"ichise2003": _ICHISE}

    def options(self, settings: Settings) -> Mapping[str, Any]:
        """The reference region, t* and k2'."""
        return {**super().options(settings), "k2_prime_per_min": settings.kinetics.k2_prime_per_min}

    def _against(
        self,
        curves: NDArray[np.float64],
        reference: NDArray[np.float64],
        frames: FrameTimes,
        index: NDArray[np.intp],
        settings: Settings,
    ) -> _Estimates:
        k2_prime = settings.kinetics.k2_prime_per_min or _common_k2_prime(curves, reference, frames, settings)
        areas = [integrate(c, frames, rule="frames")[..., index] for c in (reference, curves)]
        found = fit_linear(
            curves[:, index],
            [areas[0] + reference[index] / k2_prime, areas[1]],
            frames.duration_s[index],
            _noise(frames, index),
        )
        first, second = np.moveaxis(found.beta, -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = {
                "BPND": -first / second - 1,
                "BPND_se": found.se_of(-1 / second, first / second**2),
                "R1": first / k2_prime,
                "R1_se": found.se_of(np.full_like(first, 1 / k2_prime), np.zeros_like(first)),
                "k2prime": np.full_like(first, k2_prime),
                "r2": found.r2,
            }
        unknown = (
            not np.isfinite(k2_prime),
            f"no region with a BPND above {_LEAST_BINDING:g} has a k2' of MRTM with a standard error below "
            f"{_LARGEST_CV:.0%}; set [kinetics] k2_prime_per_min",
        )
        cases = _cases_from_t_star(3, found.beta, second, first, values, index, settings)
        return _Estimates(values, [*cases[:1], unknown, *cases[1:]])

    def methods(self, settings: Settings) -> str:
        """Reference region, window and k2'."""
        kinetics = settings.kinetics
        k2_prime = (
            f"{kinetics.k2_prime_per_min:g} per min"
            if kinetics.k2_prime_per_min
            else f"the median that MRTM gives in the regions of the same segmentation with a BPND above "
            f"{_LEAST_BINDING:g}"
        )
        return (
            f"BPND and R1 are those of the multilinear reference tissue model MRTM2 [@ichise2003] over the "
            "frames "
            f"from {kinetics.t_star_min:g} min on, weighted by their length, with {_named(settings)} as "
            "reference "
            f"region and its efflux k2' fixed at {k2_prime}; standard errors do not hold the error of k2'."
        )


class SUVR(ReferenceModel):
    """Activity over that of the reference region in a late window.

    Examples
    --------
    >>> frames = FrameTimes([3000.0, 3600.0], [600.0, 600.0])
    >>> fits = SUVR().fit(np.array([[30.0, 30.0]]), np.array([[20.0, 20.0]]), frames, Settings())
    >>> fits.values["SUVR"].ravel().tolist()
    [1.5]
    """

    name = "SUVR"
    title = "Uptake ratio SUVR"
    from_injection = False
    parameters = (Parameter("SUVR", "", "Late activity over that of the reference region"),)
    columns: ClassVar[Mapping[str, Any]] = {
        name: meaning for name, meaning in FIT_COLUMNS.items() if name != "r2"
    }

    def options(self, settings: Settings) -> Mapping[str, Any]:
        """The reference region and the window."""
        return {**super().options(settings), "late_window_min": settings.kinetics.late_window_min}

    def _frames(self, frames: FrameTimes, settings: Settings) -> NDArray[np.intp]:
        return in_window(frames, settings)

    def _against(
        self,
        curves: NDArray[np.float64],
        reference: NDArray[np.float64],
        frames: FrameTimes,
        index: NDArray[np.intp],
        settings: Settings,
    ) -> _Estimates:
        ratio, se = mean_ratio(curves[:, index], reference[index], frames.duration_s[index])
        low, high = settings.kinetics.late_window_min
        return _Estimates(
            {"SUVR": ratio, "SUVR_se": se},
            [
                (not len(index), f"no frame has its middle between {low:g} and {high:g} min"),
                (not (reference[index] > 0).all(), "the reference region has a frame without activity"),
            ],
        )

    def methods(self, settings: Settings) -> str:
        """Reference region and window."""
        low, high = settings.kinetics.late_window_min
        return (
            f"SUVR is the mean activity from {low:g} to {high:g} min over that of the reference region, "
            f"{_named(settings)}; its standard error is from the scatter of the frames."
        )


def in_window(frames: FrameTimes, settings: Settings) -> NDArray[np.intp]:
    """The frames whose middle is in ``[kinetics] late_window_min``.

    Examples
    --------
    >>> in_window(FrameTimes([0.0, 3000.0, 3600.0], [600.0, 600.0, 600.0]), Settings()).tolist()
    [1, 2]
    """
    low, high = settings.kinetics.late_window_min
    return np.flatnonzero((frames.mid_s >= 60.0 * low) & (frames.mid_s <= 60.0 * high))


def convolved(curve: FloatArray, frames: FrameTimes, rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over each frame of the convolution of a curve with exponentials, Bq/mL min.

    Within a frame the curve is a line with the frame's mean and the slope between its neighbours, so that all
    areas are those measured; a gap follows the line between its neighbours, and so does the time from the
    injection, with no activity at it.

    Parameters
    ----------
    curve
        Mean activity per frame, Bq/mL, shape (n_frames,).
    frames
        When the frames are, s from injection.
    rates
        Of the exponentials, 1/min, shape (n_rates,).

    Returns
    -------
    NDArray
        Shape (n_rates, n_frames).

    Examples
    --------
    Constant activity, convolved, approaches activity over rate:

    >>> frames = FrameTimes(np.arange(0.0, 6000.0, 60.0), np.full(100, 60.0))
    >>> convolved(np.full(100, 50.0), frames, np.array([0.5]))[0, -1].round(2)
    np.float64(100.0)
    """
    start, end, mid = frames.start_s / 60.0, frames.end_s / 60.0, frames.mid_s / 60.0
    values = np.asarray(curve, dtype=np.float64)
    origin = min(0.0, float(start[0]))
    known_at, known = np.concatenate([[origin], mid]), np.concatenate([[0.0], values])
    slopes = np.gradient(known, known_at)[1:] if len(values) > 1 else np.zeros(1)
    state = np.zeros_like(rates)
    means = np.empty((len(rates), len(values)))
    before = origin
    for i, value in enumerate(values):
        if start[i] > before + 1e-9:
            line = (value - known[i]) / (mid[i] - known_at[i])
            at_gap = known[i] + line * (before - known_at[i])
            state, _ = _through(state, at_gap, line, start[i] - before, rates)
        at_start = value - slopes[i] * (end[i] - start[i]) / 2
        state, area = _through(state, at_start, slopes[i], end[i] - start[i], rates)
        means[:, i] = area / (end[i] - start[i])
        before = end[i]
    return means


def _through(
    state: NDArray[np.float64], value: float, slope: float, minutes: float, rates: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The convolution after a stretch in which the curve is a line, and its area over the stretch."""
    once = -np.expm1(-rates * minutes) / rates
    twice = (minutes - once) / rates
    thrice = (minutes**2 / 2 - twice) / rates
    return (
        state * (1 - rates * once) + value * once + slope * twice,
        state * once + value * twice + slope * thrice,
    )


def _best_rates(
    curves: NDArray[np.float64], reference: NDArray[np.float64], frames: FrameTimes
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The rate that fits each curve best, by a grid and a parabola in its logarithm; and whether it is an "
    "end."""
    root = np.sqrt(frames.duration_s)
    length = np.linalg.norm(np.nan_to_num(reference) * root)
    unit = reference * root / (length if length > 0 else 1.0)
    bases = convolved(reference, frames, _RATES) * root
    size = np.linalg.norm(bases, axis=1)
    bases = bases - (bases @ unit)[:, None] * unit
    left = np.linalg.norm(bases, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        bases = np.where((left > 1e-6 * size)[:, None], bases / left[:, None], 0.0)
        target = np.nan_to_num(curves) * root
        explained = ((target - (target @ unit)[:, None] * unit) @ bases.T) ** 2
    best = explained.argmax(axis=1)
    at_bound = (best == 0) | (best == len(_RATES) - 1)
    inner, rows = np.clip(best, 1, len(_RATES) - 2), np.arange(len(curves))
    low, middle, high = (explained[rows, inner + shift] for shift in (-1, 0, 1))
    bend = low - 2 * middle + high
    shift = np.where(bend < 0, 0.5 * (low - high) / np.where(bend < 0, bend, 1.0), 0.0)
    return _RATES[inner] * (_RATES[1] / _RATES[0]) ** np.clip(shift, -1, 1), at_bound


def _noise(
    frames: FrameTimes, index: NDArray[np.intp]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """How the noise of a region enters a fit whose second coefficient is that of its integral."""
    own, summed = noise_of(frames, index)
    return lambda beta: own - beta[..., 1, None, None] * summed


def _common_k2_prime(
    curves: NDArray[np.float64], reference: NDArray[np.float64], frames: FrameTimes, settings: Settings
) -> float:
    """Median of MRTM's k2' over the regions that bind enough to tell it; NaN without one."""
    fits = MRTM().fit(curves, reference[None], frames, settings).values
    k2_prime, se, bound = (fits[name][:, 0, 0] for name in ("k2prime", "k2prime_se", "BPND"))
    told = (bound > _LEAST_BINDING) & (se < _LARGEST_CV * k2_prime)
    return float(np.median(k2_prime[told])) if told.any() else float("nan")


def _cases_from_t_star(
    fewest: int,
    beta: NDArray[np.float64],
    efflux: NDArray[np.float64],
    delivery: NDArray[np.float64],
    values: Mapping[str, NDArray[np.float64]],
    index: NDArray[np.intp],
    settings: Settings,
) -> list[tuple[Mask, str]]:
    t_star = settings.kinetics.t_star_min
    few = f"there are {len(index)} frames from t* = {t_star:g} min on; expected {fewest} or more"
    return [
        (len(index) < fewest, few),
        (~np.isfinite(beta).all(axis=1), "the frames do not tell the parameters apart"),
        (~((efflux < 0) & (delivery > 0)), "the curve does not show that the tracer leaves"),
        (~(values["BPND"] > -1), "the best fit has no distribution volume"),
    ]


def _named(settings: Settings) -> str:
    return " and ".join(settings.kinetics.reference_region) or "no region"
