"""Patlak kinetics: least-squares fits for many regions at once, and weights for voxel maps.

Irreversible uptake follows C(t)/Cp(t) = Ki * I(t)/Cp(t) + V0 once the reversible
compartments are in balance with blood (Patlak, Blasberg, Fenstermacher, J Cereb
Blood Flow Metab 1983;3:1-7), with I the integral of the input function Cp.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.integrate import cumulative_simpson

from hedypet_bids.errors import BadDataError, UsageError
from hedypet_bids.kernels.kinetics.linearity import has_change, remarks, slope_change
from hedypet_bids.kernels.kinetics.model import Fits, KineticModel, Parameter
from hedypet_bids.kernels.reference import Reference
from hedypet_bids.model import FloatArray, FrameTimes
from hedypet_bids.names import enumerated
from hedypet_bids.settings import Rule, Settings, plain

# Frames of the hedyPET protocol, whose published tables were made by Simpson's rule.
_HEDYPET_DURATION_S = np.repeat([2.0, 5.0, 10.0, 60.0, 120.0, 300.0], [20, 10, 15, 6, 10, 8])
# Scanners round the times of frames, or pause between them, by less than this.
_SAME_S = 0.5
# With frames of 60 s at the start Ki is 1.7 % too high, with 300 s 5.9 %.
_LONGEST_FIRST_S = 60.0
# From here on most tissues that trap FDG are in balance with blood.
_BALANCE_MIN = 30.0
# Longer gaps than this many of the longest frame are more than a pause.
_MOST_LONGEST_FRAMES = 2.0
# A spread of values below this part of their size is rounding, not information.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class Window:
    """The frames of a fit: the last n of the series, or all whose mid is at or after a time.

    Parameters
    ----------
    last_frames
        Number of frames counted from the end of the series.
    start_min
        Time t* after injection, min.

    Raises
    ------
    UsageError
        Both or neither are given, or the value selects nothing by definition.

    Examples
    --------
    >>> frames = FrameTimes([0.0, 600.0, 1800.0], [600.0, 1200.0, 1200.0])
    >>> Window(last_frames=2).indices(frames).tolist(), Window(start_min=40).indices(frames).tolist()
    ([1, 2], [2])
    """

    last_frames: int | None = None
    start_min: float | None = None

    def __post_init__(self) -> None:
        if (self.last_frames is None) == (self.start_min is None):
            raise UsageError(
                "A Patlak window needs either a number of last frames or a start in minutes; "
                f"found last_frames={self.last_frames}, start_min={self.start_min}."
            )
        if self.last_frames is not None and self.last_frames < 1:
            raise UsageError(f"A Patlak window needs at least one frame; found {self.last_frames}.")
        if self.start_min is not None and not np.isfinite(self.start_min):
            raise UsageError(f"A Patlak window needs a finite start in minutes; found {self.start_min}.")

    def label(self) -> str:
        """Short text for tables.

        Returns
        -------
        str
            ``"4"`` for the last four frames, ``"t30"`` for t* = 30 min.
        """
        return f"t{self.start_min:g}" if self.start_min is not None else str(self.last_frames)

    def indices(self, frames: FrameTimes) -> NDArray[np.intp]:
        """Indices of the frames in the window.

        Parameters
        ----------
        frames
            Those of the series.

        Returns
        -------
        NDArray
            Counted from 0; fewer than asked for when the series is shorter.
        """
        if self.start_min is not None:
            return np.flatnonzero(frames.mid_s >= self.start_min * 60.0)
        assert self.last_frames is not None
        return np.arange(len(frames))[-self.last_frames :]


@dataclass(frozen=True, eq=False)
class PatlakFit:
    """Fits of every region against every input function in every window.

    Parameters
    ----------
    ki, ki_se
        Slope and its standard error, mL/min/mL, shape (n_regions, n_inputs, n_windows).
    v0, v0_se
        Intercept and its standard error, mL/mL, same shape.
    r2
        Coefficient of determination, same shape; NaN where Y does not vary.
    n_used, n_excluded
        Frames in the fit, and frames of the window left out because Cp is not
        positive, shape (n_inputs, n_windows).
    t_start_s, t_end_s
        Start of the first and end of the last frame in the fit, s from injection,
        shape (n_inputs, n_windows); NaN where no frame is usable.
    """

    ki: NDArray[np.float64]
    ki_se: NDArray[np.float64]
    v0: NDArray[np.float64]
    v0_se: NDArray[np.float64]
    r2: NDArray[np.float64]
    n_used: NDArray[np.int64]
    n_excluded: NDArray[np.int64]
    t_start_s: NDArray[np.float64]
    t_end_s: NDArray[np.float64]


class MapWeights(NamedTuple):
    """Weight of each frame in a voxel's Ki (mL/min/mL per Bq/mL) and V0 (mL/mL per Bq/mL)."""

    ki: NDArray[np.float64]
    v0: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Regressor:
    """The part of the fits that depends on the input functions only; frames come first.

    ``used``, ``x_centred`` and ``cp`` have shape (n_window_frames, n_inputs), the
    others (n_inputs,). Frames that are not used have cp = 1 and x_centred = 0.
    """

    used: NDArray[np.bool_]
    cp: NDArray[np.float64]
    x_centred: NDArray[np.float64]
    x_mean: NDArray[np.float64]
    sxx: NDArray[np.float64]
    n: NDArray[np.int64]


def integrate(cp: FloatArray, frames: FrameTimes, *, rule: Rule) -> NDArray[np.float64]:
    """Integral of input functions up to the mid of every frame, Bq/mL*min.

    Parameters
    ----------
    cp
        Mean activity concentration per frame, Bq/mL, shape (..., n_frames).
    rule
        ``"simpson"``: cumulative Simpson over points at the frame mids, 0 at the first
        mid; with two frames the trapezoid. ``"frames"``: finished frames count with
        their whole area, the running frame follows the line between mids, gaps do
        the same with the logarithm of blood where it falls, starting at 0 at injection
        (at the scan start if that is earlier).

    Returns
    -------
    NDArray
        Same shape as ``cp``. A NaN makes itself and all that follow it NaN.
    """
    curve: NDArray[np.float64] = np.asarray(cp, dtype=np.float64)
    if curve.shape[-1] != len(frames):
        raise BadDataError(
            f"An input function needs one value per frame; found {curve.shape[-1]} values "
            f"and {len(frames)} frames. Check that curve and FrameTimesStart come from the same image."
        )
    with np.errstate(invalid="ignore", over="ignore"):
        return _INTEGRALS[rule](curve, frames)


def patlak_abscissa(cp: FloatArray, frames: FrameTimes, *, rule: Rule) -> NDArray[np.float64]:
    """X of the Patlak plot, I(t)/Cp(t) at the frame mids, min; NaN where Cp is not positive.

    Parameters
    ----------
    cp
        Input functions, Bq/mL, shape (..., n_frames).
    rule
        As in :func:`integrate`.
    """
    cp = np.asarray(cp, dtype=np.float64)
    integral = integrate(cp, frames, rule=rule)
    x = np.full(cp.shape, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        np.divide(integral, cp, out=x, where=cp > 0)
    return x


def fit_patlak(
    curves: FloatArray,
    input_functions: FloatArray,
    frames: FrameTimes,
    *,
    windows: Sequence[Window],
    rule: Rule = "simpson",
) -> PatlakFit:
    """Patlak fits of every region with every input function in every window.

    Ordinary least squares of Y = C/Cp on X = I/Cp, I the integral of the input function Cp [1]_.

    Parameters
    ----------
    curves
        Regional activity, Bq/mL, shape (n_regions, n_frames).
    input_functions
        Blood activity, Bq/mL, shape (n_inputs, n_frames).
    frames
        When the frames are, s from injection.
    windows
        The frames of each fit, length n_windows.
    rule
        How the input function is integrated, see :func:`integrate`: ``simpson`` (default) or ``frames``.

    Returns
    -------
    PatlakFit
        NaN wherever there is no honest number: a window longer than the series, fewer
        than two usable frames, X without spread, or a value in a used frame that is not
        finite (of the region: that region only). Standard errors are NaN with two frames.

    Raises
    ------
    BadDataError
        The arrays do not have one column per frame.

    References
    ----------
    .. [1] Patlak, Blasberg, Fenstermacher, J Cereb Blood Flow Metab 1983;3:1-7.

    Examples
    --------
    A region that takes up 0.02 mL/min/mL of constant blood, with 0.3 mL/mL of it at once:

    >>> frames = FrameTimes(np.arange(0.0, 3600.0, 600.0), np.full(6, 600.0))
    >>> blood = np.full(6, 1000.0)
    >>> minutes = frames.mid_s / 60
    >>> region = 0.02 * 1000.0 * minutes + 0.3 * 1000.0
    >>> fit = fit_patlak(region[None], blood[None], frames, windows=[Window(last_frames=4)], rule="frames")
    >>> round(float(fit.ki[0, 0, 0]), 6)
    0.02
    """
    regions: NDArray[np.float64] = np.atleast_2d(np.asarray(curves, dtype=np.float64))
    inputs: NDArray[np.float64] = np.atleast_2d(np.asarray(input_functions, dtype=np.float64))
    if regions.shape[-1] != len(frames):
        raise BadDataError(
            f"A curve needs one value per frame; found {regions.shape[-1]} values and {len(frames)} frames. "
            "Check that curve and FrameTimesStart come from the same image."
        )
    abscissa = patlak_abscissa(inputs, frames, rule=rule)
    shape = (len(regions), len(inputs), len(windows))
    estimates = np.full((5, *shape), np.nan)
    counts = np.zeros((2, *shape[1:]), dtype=np.int64)
    times = np.full((2, *shape[1:]), np.nan)
    for w, window in enumerate(windows):
        index = window.indices(frames)
        regressor = _regressor(inputs[:, index].T, abscissa[:, index].T)
        counts[0, :, w] = regressor.n
        counts[1, :, w] = np.count_nonzero(inputs[:, index] <= 0, axis=1)
        times[:, :, w] = _time_span(regressor.used, frames.start_s[index], frames.end_s[index])
        if window.last_frames is None or window.last_frames == index.size:
            estimates[..., w] = _least_squares(regions[:, index].T, regressor)
    return PatlakFit(*estimates, *counts, *times)


def map_weights(cp: FloatArray, frames: FrameTimes, *, window: Window, rule: Rule) -> MapWeights:
    """Weights that turn a voxel's frames into its Patlak fit: Ki = sum(ki * C), V0 = sum(v0 * C).

    Parameters
    ----------
    cp
        Input function, Bq/mL, shape (n_frames,).

    Returns
    -------
    MapWeights
        Two arrays of shape (n_frames,): 0 for frames that take no part; NaN throughout
        when the window allows no fit, as in :func:`fit_patlak`.
    """
    curve: NDArray[np.float64] = np.asarray(cp, dtype=np.float64)
    index = window.indices(frames)
    x = patlak_abscissa(curve, frames, rule=rule)
    regressor = _regressor(curve[index, None], x[index, None])
    short = window.last_frames is not None and window.last_frames != index.size
    if short or not np.isfinite(regressor.sxx[0]):
        return MapWeights(np.full(len(frames), np.nan), np.full(len(frames), np.nan))
    slope = regressor.x_centred[:, 0] / regressor.sxx[0]
    intercept = 1.0 / regressor.n[0] - slope * regressor.x_mean[0]
    ki, v0 = np.zeros(len(frames)), np.zeros(len(frames))
    ki[index] = np.where(regressor.used[:, 0], slope / regressor.cp[:, 0], 0.0)
    v0[index] = np.where(regressor.used[:, 0], intercept / regressor.cp[:, 0], 0.0)
    return MapWeights(ki, v0)


def _integrate_simpson(cp: NDArray[np.float64], frames: FrameTimes) -> NDArray[np.float64]:
    return np.asarray(cumulative_simpson(cp, x=frames.mid_s / 60.0, initial=0.0), dtype=np.float64)


def _integrate_frames(cp: NDArray[np.float64], frames: FrameTimes) -> NDArray[np.float64]:
    start, end, mid = frames.start_s / 60.0, frames.end_s / 60.0, frames.mid_s / 60.0
    # A scan that starts before the injection has its zero at the scan start.
    origin = min(0.0, float(start[0]))
    mid_before = np.concatenate([[origin], mid[:-1]])
    end_before = np.concatenate([[origin], end[:-1]])
    cp_before = np.concatenate([np.zeros((*cp.shape[:-1], 1)), cp[..., :-1]], axis=-1)
    slope = (cp - cp_before) / (mid - mid_before)

    def in_gaps() -> NDArray[np.float64]:
        """Along the line between mids, on a logarithmic scale where blood falls, as it falls by rates."""
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.log(cp / cp_before) / (mid - mid_before)
            at_end = cp_before * np.exp(rate * (end_before - mid_before))
            curved = at_end * np.expm1(rate * (start - end_before)) / rate
        falls = (start > end_before) & (cp < cp_before) & (cp > 0)
        return np.where(falls, curved, on_the_line(end_before, start))

    def on_the_line(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
        middle: NDArray[np.float64] = (high - low) * (cp_before + slope * ((low + high) / 2 - mid_before))
        return middle

    gaps = np.cumsum(in_gaps(), axis=-1)
    areas = np.cumsum(cp_before * np.concatenate([[0.0], (end - start)[:-1]]), axis=-1)
    return np.asarray(areas + gaps + on_the_line(start, mid), dtype=np.float64)


_INTEGRALS: Mapping[Rule, Callable[[NDArray[np.float64], FrameTimes], NDArray[np.float64]]] = {
    "simpson": _integrate_simpson,
    "frames": _integrate_frames,
}


def _regressor(cp: NDArray[np.float64], x: NDArray[np.float64]) -> _Regressor:
    """The regressors of one window; ``sxx`` is NaN where no fit is possible."""
    # A frame whose Cp is NaN stays in, so that the fit becomes NaN.
    used = ~(cp <= 0)
    n = used.sum(axis=0)
    x = np.where(used, x, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        x_mean = x.sum(axis=0) / np.maximum(n, 1)
        x_centred = np.where(used, x - x_mean, 0.0)
        sxx = (x_centred**2).sum(axis=0)
        largest = np.abs(x).max(axis=0, initial=0.0)
        spread = np.abs(x_centred).max(axis=0, initial=0.0)
        possible = (n >= 2) & np.isfinite(sxx) & (spread > _ROUNDING * largest)
    return _Regressor(
        used=used,
        cp=np.where(used, cp, 1.0),
        x_centred=x_centred,
        x_mean=x_mean,
        sxx=np.where(possible, sxx, np.nan),
        n=np.count_nonzero(used & np.isfinite(cp), axis=0).astype(np.int64),
    )


def _least_squares(curves: NDArray[np.float64], regressor: _Regressor) -> NDArray[np.float64]:
    """Ki, Ki_se, V0, V0_se and r2, shape (5, n_regions, n_inputs), of curves (n_frames, n_regions)."""
    used = regressor.used[:, None, :]
    x = regressor.x_centred[:, None, :]
    n, sxx, x_mean = regressor.n, regressor.sxx, regressor.x_mean
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        y = np.where(used, curves[:, :, None] / regressor.cp[:, None, :], 0.0)
        y_mean = y.sum(axis=0) / n
        y_centred = np.where(used, y - y_mean, 0.0)
        ki = (x * y_centred).sum(axis=0) / sxx
        v0 = y_mean - ki * x_mean
        residual = y_centred - ki * x
        sse = (residual**2).sum(axis=0)
        variance = sse / np.where(n > 2, n - 2, np.nan)
        ki_se = np.sqrt(variance / sxx)
        v0_se = np.sqrt(variance * (1.0 / n + x_mean**2 / sxx))
        varies = np.abs(y_centred).max(axis=0, initial=0.0) > _ROUNDING * np.abs(y).max(axis=0, initial=0.0)
        r2 = np.where(varies, 1.0 - sse / (y_centred**2).sum(axis=0), np.nan)
        estimates = np.stack([ki, ki_se, v0, v0_se, np.clip(r2, 0.0, 1.0)])
        return np.where(np.isfinite(ki) & np.isfinite(v0), estimates, np.nan)


def _time_span(
    used: NDArray[np.bool_], start_s: NDArray[np.float64], end_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Start of the first and end of the last used frame, shape (2, n_inputs)."""
    first = np.where(used, start_s[:, None], np.inf).min(axis=0, initial=np.inf)
    last = np.where(used, end_s[:, None], -np.inf).max(axis=0, initial=-np.inf)
    span = np.stack([first, last])
    return np.where(np.isfinite(span), span, np.nan)


KI = Parameter("Ki", "mL/min/mL", "Net influx constant, slope of the fit")
V0 = Parameter("V0", "mL/mL", "Intercept of the fit")


_SIMPSON = "by Simpson's rule over the middles of the frames"
_FRAMES = "with the whole area of each finished frame and linearly within the running one"
_RULES: Mapping[str, str] = {
    "simpson": _SIMPSON,
    "frames": _FRAMES,
    "auto": f"{_SIMPSON} where the frames are those of the hedyPET protocol, else {_FRAMES}",
}


class Patlak(KineticModel):
    """Patlak's graphical analysis: influx of a trapped tracer from the late frames."""

    name = "Patlak"
    title = "Patlak's model"
    parameters = (KI, V0)
    columns: ClassVar[Mapping[str, Any]] = {
        "last_frames": {"Description": "Window: number of last frames; n/a where it starts at a time"},
        "start_min": {"Description": "Window: start after injection", "Units": "min"},
        "r2": {"Description": "Coefficient of determination"},
        "n_used": {"Description": "Frames in the fit"},
        "n_excluded": {"Description": "Frames of the window left out for lack of blood activity"},
        "t_start": {"Description": "Start of the first frame in the fit", "Units": "s"},
        "t_end": {"Description": "End of the last frame in the fit", "Units": "s"},
        "rule": {"Description": "Integration rule of the input function"},
        "slope_change": {
            "Description": "Change of the slope from the first to the last frame of the fit, over Ki: that "
            "of a parabola through the same points"
        },
        "slope_change_se": {"Description": "Standard error of slope_change"},
    }
    references: ClassVar[Mapping[str, Reference]] = {
        "patlak": Reference(
            "Patlak, Clifford S and Blasberg, Ronald G and Fenstermacher, Joseph D",
            "Graphical evaluation of blood-to-brain transfer constants from multiple-time uptake data",
            1983,
            "Journal of Cerebral Blood Flow and Metabolism",
            "3",
            "1-7",
            "10.1038/jcbfm.1983.1",
        )
    }

    def options(self, settings: Settings) -> Mapping[str, Any]:
        """Rule and windows."""
        windows = [plain(window) for window in windows_of(settings)]
        return {"rule": settings.kinetics.patlak.rule, "windows": windows}

    def sidecar(self, frames: FrameTimes, settings: Settings) -> Mapping[str, Any]:
        """The rule."""
        return {"IntegrationRule": rule_for(frames, settings)}

    def why_not_with(self, frames: FrameTimes, settings: Settings) -> str:
        """Simpson's rule takes the curve between the middles of frames for smooth."""
        if rule_for(frames, settings) != "simpson":
            return ""
        first_s, gap_s = float(frames.duration_s[0]), float(frames.gap_s.max(initial=0.0))
        use = 'set [kinetics.patlak] rule = "frames"'
        if first_s > _LONGEST_FIRST_S and len(frames) > 1:
            return (
                f"the first frame lasts {first_s:g} s, and with more than {_LONGEST_FIRST_S:g} s Simpson's "
                f"rule misses the bolus; {use}"
            )
        if gap_s > _MOST_LONGEST_FRAMES * frames.duration_s.max():
            return (
                f"there is a gap of {gap_s / 60:.1f} min between frames, over which Simpson's rule cannot "
                f"integrate the input function; {use}"
            )
        return ""

    def fit(
        self,
        curves: NDArray[np.float64],
        inputs: NDArray[np.float64],
        frames: FrameTimes,
        settings: Settings,
    ) -> Fits:
        """Ki and V0 by ordinary least squares in every window, and whether the points lie on a line."""
        return fits_in(windows_of(settings), curves, inputs, frames, rule_for(frames, settings))

    @property
    def maps(self) -> tuple[Parameter, ...]:
        """Ki and V0."""
        return self.parameters

    def why_no_maps(self, frames: FrameTimes, settings: Settings) -> str:
        """A short series has fewer frames than the window."""
        wanted = settings.kinetics.patlak.map_last_frames
        if wanted <= len(frames):
            return ""
        return f"there are {len(frames)} frames, and [kinetics.patlak] map_last_frames is {wanted}"

    def map_options(self, settings: Settings) -> Mapping[str, Any]:
        """Rule and window."""
        patlak = settings.kinetics.patlak
        return {"rule": patlak.rule, "last_frames": patlak.map_last_frames}

    def map_sidecar(self, frames: FrameTimes, settings: Settings) -> Mapping[str, Any]:
        """Rule and window, and what is doubtful about it."""
        last_frames, doubt = settings.kinetics.patlak.map_last_frames, early_window(frames, settings)
        return {
            "IntegrationRule": rule_for(frames, settings),
            "LastFrames": last_frames,
            **({"Doubt": doubt} if doubt else {}),
        }

    def map_weights(
        self, blood: FloatArray, frames: FrameTimes, settings: Settings
    ) -> Mapping[str, NDArray[np.float64]]:
        """Weights of the frames of the window."""
        patlak = settings.kinetics.patlak
        window = Window(last_frames=patlak.map_last_frames)
        weights = map_weights(blood, frames, window=window, rule=rule_for(frames, settings))
        if not np.isfinite(weights).all():
            raise BadDataError(
                f"the last {patlak.map_last_frames} frames do not allow a Patlak fit (fewer than two frames "
                "with positive blood activity); no map can be made. Choose another [kinetics] "
                "map_input_function or [kinetics.patlak] map_last_frames in --settings."
            )
        return {"Ki": weights.ki, "V0": weights.v0}

    def map_frames(self, frames: FrameTimes, settings: Settings) -> Collection[int]:
        """Those of the window."""
        window = Window(last_frames=settings.kinetics.patlak.map_last_frames)
        return [int(index) for index in window.indices(frames)]

    def shown(self, table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
        """The rows of the maps' input function and window."""
        rows = super().shown(table, settings)
        return rows[rows["last_frames"] == settings.kinetics.patlak.map_last_frames]

    def methods(self, settings: Settings) -> str:
        """Windows and integration rule."""
        patlak, windows = settings.kinetics.patlak, []
        if patlak.last_frames:
            windows.append(f"the last {enumerated(patlak.last_frames)} frames")
        if patlak.start_min:
            windows.append(f"frames from {enumerated(f'{t:g}' for t in patlak.start_min)} min on")
        return (
            "Net influx Ki and intercept V0 are slope and intercept of Patlak plots [@patlak], fitted by "
            f"ordinary least squares over {' and over '.join(windows)}; the input function was integrated "
            f"{_RULES[patlak.rule]}. The slope of a region with the blood fraction vB is (1 - vB) times the "
            "Ki of its tissue without blood. It takes the tracer for trapped: where tissue lets it go again, "
            "the slope is too low, in simulated tissues with k4 = 0.01/min by 28 to 45 % over the last 8 "
            "frames. Whether a plot is a line was tested by the quadratic term of a parabola through its "
            "points."
        )

    def map_methods(self, settings: Settings) -> str:
        """Window, input function and smoothing."""
        kinetics = settings.kinetics
        width_mm = kinetics.map_fwhm_mm
        smoothed = f", smoothed with a Gaussian of {width_mm:g} mm FWHM" if width_mm else ""
        return (
            f"Voxel maps use the last {kinetics.patlak.map_last_frames} frames and the input function "
            f"{kinetics.map_input_function}{smoothed}."
        )


def fits_in(
    windows: Sequence[Window],
    curves: NDArray[np.float64],
    inputs: NDArray[np.float64],
    frames: FrameTimes,
    rule: Rule,
) -> Fits:
    """Patlak fits as columns of a table, with what is doubtful about them.

    Parameters
    ----------
    windows
        The frames of each fit.
    curves, inputs
        Bq/mL, shapes (n_regions, n_frames) and (n_inputs, n_frames).
    frames
        When the frames are, s from injection.
    rule
        As in :func:`integrate`.

    Returns
    -------
    Fits
        The columns of :class:`Patlak`.
    """
    found = fit_patlak(curves, inputs, frames, windows=windows, rule=rule)
    asked = [window.last_frames for window in windows]
    change, change_se = _relative_slope_change(curves, inputs, frames, found, windows, rule)
    return Fits(
        window_columns(windows),
        {
            "Ki": found.ki,
            "Ki_se": found.ki_se,
            "V0": found.v0,
            "V0_se": found.v0_se,
            "r2": found.r2,
            "n_used": found.n_used,
            "n_excluded": found.n_excluded,
            "t_start": found.t_start_s,
            "t_end": found.t_end_s,
            "rule": rule,
            "slope_change": change,
            "slope_change_se": change_se,
            "reason": remarks(found.ki, found.ki_se, change, change_se, found.n_used, asked),
        },
    )


def _relative_slope_change(
    curves: NDArray[np.float64],
    inputs: NDArray[np.float64],
    frames: FrameTimes,
    found: PatlakFit,
    windows: Sequence[Window],
    rule: Rule,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Change of the slope within each window over Ki, and its standard error, both in the shape of Ki."""
    abscissa = patlak_abscissa(inputs, frames, rule=rule)
    changes = np.full((2, *found.ki.shape), np.nan)
    for number, window in enumerate(windows):
        index = window.indices(frames)
        changes[..., number] = slope_change(curves[:, index], inputs[:, index], abscissa[:, index])
    told = has_change(found.ki, found.ki_se)
    change, change_se = np.where(told, changes / np.where(told, found.ki, 1.0), np.nan)
    return change, change_se


def rule_for(frames: FrameTimes, settings: Settings) -> Rule:
    """The integration rule for a series with these frames, which decide where the settings leave it open."""
    rule = settings.kinetics.patlak.rule
    if rule != "auto":
        return rule
    same = (
        len(frames) == len(_HEDYPET_DURATION_S)
        and np.abs(frames.duration_s - _HEDYPET_DURATION_S).max() <= _SAME_S
        and np.abs(frames.gap_s).max() <= _SAME_S
    )
    return "simpson" if same else "frames"


def early_window(frames: FrameTimes, settings: Settings) -> str:
    """What is doubtful about the window of the maps and pages; empty where nothing is.

    Parameters
    ----------
    frames
        When the frames are, s from injection.
    settings
        Those of the run.

    Returns
    -------
    str
        A clause.

    Examples
    --------
    >>> early_window(FrameTimes(np.arange(12) * 300.0, np.full(12, 300.0)), Settings())
    'the last 8 frames begin 20 min after injection, when tissue may not be in balance with blood (30 min)'
    """
    last_frames = settings.kinetics.patlak.map_last_frames
    first = Window(last_frames=last_frames).indices(frames)[0]
    if frames.mid_s[first] >= 60 * _BALANCE_MIN:
        return ""
    return (
        f"the last {last_frames} frames begin {frames.start_s[first] / 60:.3g} min after injection, when "
        f"tissue may not be in balance with blood ({_BALANCE_MIN:g} min)"
    )


def windows_of(settings: Settings) -> tuple[Window, ...]:
    """The windows asked for: last frames first, then start times."""
    patlak = settings.kinetics.patlak
    by_frames = tuple(Window(last_frames=n) for n in patlak.last_frames)
    return by_frames + tuple(Window(start_min=t) for t in patlak.start_min)


def window_columns(windows: Sequence[Window]) -> dict[str, Any]:
    """The columns that tell windows apart in tables.

    Parameters
    ----------
    windows
        Those of the fits.

    Returns
    -------
    dict
        A value a window; missing where the other column says it.

    Examples
    --------
    >>> window_columns([Window(last_frames=4), Window(start_min=30.0)])["last_frames"].tolist()
    [4, <NA>]
    """
    return {
        "last_frames": pd.array([window.last_frames for window in windows], dtype="Int64"),
        "start_min": [np.nan if window.start_min is None else window.start_min for window in windows],
    }
