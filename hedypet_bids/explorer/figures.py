"""Plotly figures of the explorer: table rows in, figures out, and the rows that they show for download."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from hedypet_bids.explorer.bands import Band, mean_and_half_width
from hedypet_bids.explorer.tables import ACTIVITY, CURVE_REGION, SCAN_AXES, wide
from hedypet_bids.figures.palette import COLOURS

EARLY_MIN = 3.0
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "x")
_LARGEST_LOG_RANGE = 1e-4


@dataclass(frozen=True)
class Axis:
    """What a value is, with its unit."""

    title: str
    units: str

    def __str__(self) -> str:
        return f"{self.title} [{self.units}]" if self.units else self.title


def value_axis(uptake: str) -> Axis:
    """The axis of uptakes."""
    if uptake == ACTIVITY:
        return Axis("activity concentration", "kBq/mL")
    return Axis(uptake, "g/mL")


def counted(rows: pd.DataFrame, colour_by: str) -> str:
    """What the n of a mean counts: ``participants``, or ``scans`` where one curve has several of one."""
    curve = list(CURVE_REGION) if colour_by == "region" else [*CURVE_REGION, colour_by]
    several = rows.groupby([*curve, "Subject"])["scan"].nunique().gt(1).any()
    return "scans" if several else "participants"


def curves_figure(
    rows: pd.DataFrame,
    *,
    colour_by: str,
    band: Band,
    axis: Axis,
    by_frame: bool = False,
    log: bool = False,
    early: bool = False,
) -> tuple[go.Figure, pd.DataFrame, list[str]]:
    """Curves of every group of scans, or of each scan, and what they show.

    Parameters
    ----------
    rows
        Subject, scan, Label Name, Erosion Iterations, Frame Index, minutes, value, and the column
        ``colour_by``.
    colour_by
        ``scan`` draws every scan; any other column draws means over the scans of a group.

    Returns
    -------
    tuple
        The figure, the rows that it draws, and sentences on what could not be drawn.
    """
    figure = go.Figure()
    at, of = "Frame Index" if by_frame else "minutes", counted(rows, colour_by)
    shown, notes = [], []
    for look, name, part in _groups(rows, colour_by):
        values, times = wide(part, at)
        if times.isna().any():
            notes.append(f"{name}: frame times differ between {of}; use the frame index.")
        mean, half, n = mean_and_half_width(values, band if colour_by != "scan" else "none")
        table = pd.DataFrame({"curve": name, at: times.to_numpy(), "mean": mean, "half width": half, of: n})
        shown.append(table)
        _draw(figure, table.dropna(subset=[at]), name, look, axis)
    every = pd.concat(shown, ignore_index=True) if shown else pd.DataFrame()
    _style(figure, x="frame index" if by_frame else "time after injection [min]", y=str(axis))
    if log:
        positive = every.loc[every["mean"] > 0, "mean"] if len(every) else pd.Series(dtype=float)
        low = max(positive.min(), positive.max() * _LARGEST_LOG_RANGE) if len(positive) else 1.0
        top = positive.max() if len(positive) else 1.0
        figure.update_yaxes(type="log", range=[np.log10(low), np.log10(top) + 0.1])
    else:
        figure.update_yaxes(rangemode="tozero")
    if early and not by_frame:
        figure.update_xaxes(range=[0, EARLY_MIN])
    return figure, every, notes


def _draw(figure: go.Figure, table: pd.DataFrame, name: str, look: dict[str, Any], axis: Axis) -> None:
    _, at, _, _, of = table.columns
    x, mean, half = table[at], table["mean"], table["half width"]
    if half.notna().any():
        outline = pd.concat([mean + half, (mean - half)[::-1]])
        figure.add_trace(
            go.Scatter(
                x=pd.concat([x, x[::-1]]),
                y=outline,
                fill="toself",
                fillcolor=look["colour"],
                opacity=0.2,
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=name,
            )
        )
    unit = "frame %{x}" if at == "Frame Index" else "%{x:.2f} min"
    figure.add_trace(
        go.Scatter(
            x=x,
            y=mean,
            name=name,
            legendgroup=name,
            mode="lines+markers" if len(table) < 2 else "lines",
            line={"color": look["colour"], "dash": look["dash"], "width": 2},
            customdata=np.column_stack([table[of], half]),
            hovertemplate=f"{name}<br>{unit}: %{{y:.4g}} {axis.units} (n %{{customdata[0]}})<extra></extra>",
        )
    )


def points_figure(rows: pd.DataFrame, *, colour_by: str, axis: Axis) -> go.Figure:
    """Every scan as a point, a column a region, with the box of each group beside its points.

    ``rows`` has scan, Label Name, Erosion Iterations, value, and the column ``colour_by``.
    """
    figure = go.Figure()
    for position, (group, part) in enumerate(_sorted_groups(rows, colour_by)):
        figure.add_trace(
            go.Box(
                x=_region_names(part),
                y=part["value"],
                name=str(group),
                boxpoints="all",
                jitter=0.4,
                pointpos=0,
                marker={"color": _cycle(COLOURS, position), "symbol": _cycle(_SYMBOLS, position), "size": 6},
                line={"width": 1},
                fillcolor="rgba(0,0,0,0)",
                customdata=part[["scan"]],
                hovertemplate=f"%{{customdata[0]}}<br>%{{x}}: %{{y:.4g}} {axis.units}<extra>{group}</extra>",
                # The box's own summary would hide the points' text.
                hoveron="points",
            )
        )
    _style(figure, x="region", y=str(axis))
    figure.update_layout(boxmode="group")
    figure.update_yaxes(rangemode="tozero")
    return figure


def sessions_figure(rows: pd.DataFrame, *, axis: Axis) -> go.Figure:
    """A line a participant over its sessions, a colour a region.

    ``rows`` has Subject, Session, Tracer, Run, Reconstruction, scan, Label Name, Erosion Iterations, value.
    """
    figure = go.Figure()
    for position, (region, part) in enumerate(rows.groupby(list(CURVE_REGION), sort=True)):
        lines = [line.sort_values("Session") for _, line in part.groupby(["Subject", *SCAN_AXES[1:]])]
        # One trace a region, in which an empty point ends each line.
        x, y, scan = (
            [value for line in lines for value in (*line[column], None)]
            for column in ("Session", "value", "scan")
        )
        name = _region_name(*region)
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                name=name,
                mode="lines+markers",
                line={"color": _cycle(COLOURS, position), "width": 1},
                marker={"symbol": _cycle(_SYMBOLS, position), "size": 7},
                customdata=[[each] for each in scan],
                hovertemplate=f"%{{customdata[0]}}<br>{name}: %{{y:.4g}} {axis.units}<extra></extra>",
            )
        )
    _style(figure, x="session", y=str(axis))
    figure.update_xaxes(categoryorder="array", categoryarray=sorted(rows["Session"].unique()))
    figure.update_yaxes(rangemode="tozero")
    return figure


def windows_figure(
    rows: pd.DataFrame, *, colour_by: str, band: Band, axis: Axis
) -> tuple[go.Figure, pd.DataFrame]:
    """Mean Ki against the number of frames in the fit, a curve a region and group, and what it shows."""
    figure, shown, of = go.Figure(), [], counted(rows, colour_by)
    for look, name, part in _groups(rows, colour_by):
        matrix = part.pivot_table(index="scan", columns="Regression Frames", values="value", dropna=False)
        mean, half, n = mean_and_half_width(matrix.to_numpy(dtype=np.float64), band)
        table = pd.DataFrame(
            {
                "curve": name,
                "last frames": matrix.columns,
                "mean": mean,
                "half width": half,
                of: n,
            }
        )
        shown.append(table)
        figure.add_trace(
            go.Scatter(
                x=table["last frames"],
                y=mean,
                error_y={"array": half, "visible": bool(np.isfinite(half).any())},
                name=name,
                mode="lines+markers",
                line={"color": look["colour"], "dash": look["dash"]},
                customdata=table[[of]],
                hovertemplate=f"{name}<br>last %{{x}} frames: %{{y:.4g}} {axis.units} "
                "(n %{customdata[0]})<extra></extra>",
            )
        )
    _style(figure, x="last frames in the fit", y=str(axis))
    return figure, pd.concat(shown, ignore_index=True) if shown else pd.DataFrame()


def _groups(rows: pd.DataFrame, colour_by: str) -> Iterator[tuple[dict[str, Any], str, pd.DataFrame]]:
    """Colour, line style, name and rows of every curve: where groups have colours, regions have dashes."""
    regions = list(rows.groupby(list(CURVE_REGION), sort=True))
    for at, (region, part) in enumerate(regions):
        name = _region_name(*region)
        if colour_by == "region":
            yield {"colour": _cycle(COLOURS, at), "dash": _cycle(_DASHES, at // len(COLOURS))}, name, part
            continue
        for position, (group, some) in enumerate(_sorted_groups(part, colour_by)):
            look = {"colour": _cycle(COLOURS, position), "dash": _cycle(_DASHES, at)}
            yield look, f"{name}, {group}", some


def _sorted_groups(rows: pd.DataFrame, colour_by: str) -> list[tuple[Any, pd.DataFrame]]:
    if colour_by == "region":
        return [(_region_name(*region), part) for region, part in rows.groupby(list(CURVE_REGION), sort=True)]
    return list(rows.groupby(colour_by, sort=True))


def _region_names(rows: pd.DataFrame) -> list[str]:
    return [_region_name(*pair) for pair in zip(rows["Label Name"], rows["Erosion Iterations"], strict=True)]


def _region_name(label: str, erosion: int) -> str:
    return f"{label} (eroded {erosion})" if erosion else str(label)


def _cycle(items: Sequence[str], position: int) -> str:
    return items[position % len(items)]


def _style(figure: go.Figure, *, x: str, y: str) -> None:
    figure.update_layout(
        template="plotly_white",
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        height=520,
        font={"size": 14},
        legend={"orientation": "h", "yanchor": "top", "y": -0.18},
        hovermode="closest",
    )
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
