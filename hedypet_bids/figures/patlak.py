"""Patlak plots: the points, which of them are in the window, and the line that was fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hedypet_bids.kernels.kinetics.patlak import Window, fit_patlak, patlak_abscissa
from hedypet_bids.model import FloatArray, FrameTimes
from hedypet_bids.settings import Rule

_LINE_COLOUR, _POINT_COLOUR = "#D55E00", "#0072B2"
# The first minutes, with almost no uptake or almost no blood, would flatten the rest.
_SETTLED_S = 300.0
# Windows of fewer frames may lie outside the axes: their errors would flatten the rest.
_SCALED_FRAMES = 4
_PANELS_A_ROW, _PANEL_INCHES = 5, (2.1, 1.7)


@dataclass(frozen=True, eq=False)
class PatlakPlot:
    """A region's Patlak plot and fit.

    Parameters
    ----------
    x, y
        Integral of the input function over the input function (min) and uptake over it (mL/mL), shape
        (n_frames,); NaN where the input function is not positive.
    used
        Whether a frame is in the fit, shape (n_frames,).
    late
        Whether a frame is late enough to decide about the range that is shown, shape (n_frames,).
    ki, ki_se, v0, r2
        The fit, mL/min/mL and mL/mL; NaN where none is possible.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    used: NDArray[np.bool_]
    late: NDArray[np.bool_]
    ki: float
    ki_se: float
    v0: float
    r2: float


def patlak_plot(
    curve: FloatArray, cp: FloatArray, frames: FrameTimes, *, window: Window, rule: Rule
) -> PatlakPlot:
    """The plot of one curve (Bq/mL) against one input function (Bq/mL), fitted as the tables are."""
    fit = fit_patlak(curve, cp, frames, windows=[window], rule=rule)
    x = patlak_abscissa(cp, frames, rule=rule)
    y = np.full(x.shape, np.nan)
    np.divide(curve, cp, out=y, where=np.asarray(cp) > 0)
    used = np.zeros(x.shape, dtype=bool)
    used[window.indices(frames)] = True
    used &= np.isfinite(x) & np.isfinite(y)
    ki, ki_se, v0, r2 = (float(v[0, 0, 0]) for v in (fit.ki, fit.ki_se, fit.v0, fit.r2))
    return PatlakPlot(x, y, used, frames.mid_s >= _SETTLED_S, ki, ki_se, v0, r2)


def draw_patlak(plot: PatlakPlot, *, title: str) -> Figure:
    """The points (full in the window, open outside it) and the line over the window, drawn on as dashes."""
    figure = Figure(figsize=(3.9, 3.3), layout="constrained")
    axis = figure.subplots()
    for chosen, face, label in (
        (~plot.used, "white", "outside the window"),
        (plot.used, _POINT_COLOUR, "in the fit"),
    ):
        axis.plot(
            plot.x[chosen],
            plot.y[chosen],
            linestyle="none",
            marker="o",
            markersize=5,
            markerfacecolor=face,
            markeredgecolor=_POINT_COLOUR,
            label=label,
        )
    shown = plot.used | (plot.late & np.isfinite(plot.x) & np.isfinite(plot.y))
    right = 1.05 * float(plot.x[shown].max(initial=1.0))
    top = 1.15 * float(plot.y[shown].max(initial=0.1))
    if np.isfinite(plot.ki):
        inside = plot.x[plot.used]
        for ends, style in (((0.0, right), "--"), ((inside.min(), inside.max()), "-")):
            line = np.array(ends)
            label = f"Ki {plot.ki:.4g} mL/min/mL, R² {plot.r2:.3f}" if style == "-" else "_"
            axis.plot(
                line, plot.v0 + plot.ki * line, color=_LINE_COLOUR, linestyle=style, lw=1.6, label=label
            )
    axis.set_xlim(0, right)
    axis.set_ylim(min(0.0, 1.15 * float(plot.y[shown].min(initial=0.0))), top)
    axis.set_xlabel("∫Cp dt / Cp [min]")
    axis.set_ylabel("C / Cp [mL/mL]")
    axis.set_title(title, fontsize=10)
    axis.legend(fontsize=8.5, loc="best", frameon=False)
    return figure


def draw_ki_by_start(
    start_min: NDArray[np.float64],
    n_frames: NDArray[np.int64],
    organs: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    *,
    shown: int | None,
) -> Figure:
    """Ki and its standard error against the start of the window, a panel an organ with an axis of its own.

    Parameters
    ----------
    start_min, n_frames
        Of each window, shape (n_windows,).
    organs
        Ki and standard error, mL/min/mL, shape (n_windows,), by title.
    shown
        Index of the window that is drawn full; None: none.
    """
    n_columns = min(_PANELS_A_ROW, len(organs))
    n_rows = -(-len(organs) // n_columns)
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * n_columns, height * n_rows + 0.3), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True).ravel()
    for axis, (title, (ki, ki_se)) in zip(panels, organs.items(), strict=False):
        _draw_windows(axis, start_min, ki, ki_se, shown)
        axis.set_ylim(_limits(ki, ki_se, n_frames))
        axis.set_title(title, fontsize=8.5)
    for axis in panels[len(organs) :]:
        axis.set_axis_off()
    for axis in panels[max(len(organs) - n_columns, 0) :]:
        axis.tick_params(labelbottom=True)
    figure.supxlabel("start of the window t* [min]", fontsize=9)
    figure.supylabel("Ki [mL/min/mL]", fontsize=9)
    return figure


def _draw_windows(
    axis: Axes,
    start_min: NDArray[np.float64],
    ki: NDArray[np.float64],
    ki_se: NDArray[np.float64],
    shown: int | None,
) -> None:
    axis.axhline(0, color="0.7", lw=0.8)
    bars = np.nan_to_num(ki_se)
    axis.errorbar(
        start_min,
        ki,
        yerr=bars,
        color=_POINT_COLOUR,
        marker="o",
        markersize=4,
        markerfacecolor="white",
        lw=0.8,
        elinewidth=1.2,
        capsize=2,
    )
    if shown is not None:
        axis.plot(
            start_min[shown],
            ki[shown],
            marker="o",
            markersize=5,
            color=_LINE_COLOUR,
            linestyle="none",
            zorder=5,
        )
    axis.tick_params(labelsize=7.5)


def _limits(
    ki: NDArray[np.float64], ki_se: NDArray[np.float64], n_frames: NDArray[np.int64]
) -> tuple[float, float]:
    """The axis from 0 over what the windows with enough frames have; from 0 to 1 where there is nothing."""
    chosen = np.isfinite(ki) & ((n_frames >= _SCALED_FRAMES) | (n_frames == n_frames.max()))
    if not chosen.any():
        return 0.0, 1.0
    bars = np.nan_to_num(ki_se[chosen])
    low, high = min(0.0, float((ki[chosen] - bars).min())), max(0.0, float((ki[chosen] + bars).max()))
    room = 0.1 * (high - low) or 1.0
    return (low - room if low < 0 else low), high + room
