"""Patlak plots: the points, which of them are in the window, and the line that was fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hedypet_bids.kernels.kinetics.patlak import Window, fit_patlak, patlak_abscissa
from hedypet_bids.model import FloatArray, FrameTimes
from hedypet_bids.settings import Rule

_LINE_COLOUR, _POINT_COLOUR = "#D55E00", "#0072B2"
# The first minutes, with almost no uptake or almost no blood, would flatten the rest.
_SETTLED_S = 300.0


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
