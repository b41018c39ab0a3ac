"""Curves of a participant's page: tables in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from hedypet_bids.figures.aorta import SEGMENT_COLOURS, SEGMENT_TITLES
from hedypet_bids.figures.palette import COLOURS
from hedypet_bids.io.tables import FRAME_END, FRAME_START
from hedypet_bids.labels import HEART_VOI_TASK, VOI_TASKS, label_table
from hedypet_bids.names import MEASURED, recording

_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")
EARLY_S = 180.0
SETTLED_MIN = 5.0
_KIND_STYLES: Mapping[str, tuple[str, str]] = {
    "aortavoifull3px": ("-", "full length, 3 voxels wide"),
    "aortavoi1ml3px": ("--", "1 mL, 3 voxels wide"),
    "aortavoi2ml5px": (":", "2 mL, 5 voxels wide"),
}
_MEASURED_STYLE = "--"
_HEART_COLOUR = "#56B4E9"
_SIZE_INCHES = (4.6, 3.7)
_OF_HEART = frozenset(recording(HEART_VOI_TASK.name, part) for part in HEART_VOI_TASK.table.names)


def draw_curves(
    curves: pd.DataFrame, regions: Mapping[str, str], *, scale: float, units: str, early: bool = False
) -> Figure:
    """Time-activity curves of regions (column by the name to show): the whole scan, or its first minutes."""
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axis = figure.subplots()
    middle_s = (curves[FRAME_START] + curves[FRAME_END]) / 2
    time = middle_s if early else middle_s / 60
    top = 0.0
    for number, (title, column) in enumerate(regions.items()):
        values = curves[column] / scale
        axis.plot(
            time,
            values,
            color=COLOURS[number % len(COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=3,
            lw=1.2,
            label=title,
        )
        shown = middle_s <= EARLY_S if early else middle_s > 60 * SETTLED_MIN
        top = max(top, float(np.nan_to_num(values[shown]).max(initial=0.0)))
    if early:
        axis.set_xlim(0, EARLY_S)
    # The first pass has its own plot; in the other it would flatten everything else.
    axis.set_ylim(0, (1.05 if early else 1.2) * top if top > 0 else None)
    axis.set_xlabel(_time_label(early))
    axis.set_ylabel(units)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def draw_input_functions(curves: Mapping[str, pd.DataFrame], *, early: bool) -> Figure:
    """Every input function by its recording label: colours are segments, line styles kinds of volume.

    The first three minutes, or the whole scan on a logarithmic axis.
    """
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axis = figure.subplots()
    known = _segments_and_kinds()
    for name, table in curves.items():
        kind, segment = known.get(name, ("", 0))
        combined = kind not in _KIND_STYLES
        colour = "black" if combined else SEGMENT_COLOURS[segment]
        if name in _OF_HEART:
            colour = _HEART_COLOUR
        kilo = table["whole_blood_radioactivity"] / 1000
        axis.plot(
            table["time"] if early else table["time"] / 60,
            kilo if early else kilo.where(kilo > 1e-3 * kilo.max()),
            color=colour,
            linestyle=_MEASURED_STYLE if name == MEASURED else "-" if combined else _KIND_STYLES[kind][0],
            lw=2.2 if combined else 1.2,
        )
    if early:
        axis.set_xlim(0, EARLY_S)
        axis.set_ylim(0, None)
    else:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(_plain))
        axis.yaxis.set_minor_formatter(NullFormatter())
        lowest = _lowest_settled_kilo(curves.values())
        if lowest > 0:
            # Noise before the bolus would stretch the axis over decades.
            axis.set_ylim(bottom=0.7 * lowest)
    axis.set_xlabel(_time_label(early))
    axis.set_ylabel("whole blood [kBq/mL]")
    _key_of_input_functions(figure, axis, measured=MEASURED in curves, heart=bool(_OF_HEART & curves.keys()))
    return figure


def _key_of_input_functions(figure: Figure, axis: Axes, *, measured: bool, heart: bool) -> None:
    lines = [axis.plot([], [], color=SEGMENT_COLOURS[s], label=SEGMENT_TITLES[s])[0] for s in SEGMENT_COLOURS]
    lines += [axis.plot([], [], color="0.4", linestyle=s, label=text)[0] for s, text in _KIND_STYLES.values()]
    lines += axis.plot([], [], color="black", lw=2.2, label="combined descending")
    if heart:
        lines += axis.plot([], [], color=_HEART_COLOUR, lw=2.2, label="right heart")
    if measured:
        lines += axis.plot([], [], color="black", lw=2.2, linestyle=_MEASURED_STYLE, label="blood samples")
    figure.legend(handles=lines, loc="outside lower center", ncols=2, fontsize=8, frameon=False)


def _segments_and_kinds() -> dict[str, tuple[str, int]]:
    """Kind of volume and label of the segment by recording label."""
    return {
        recording(voi.name, segment): (voi.name, index)
        for voi in VOI_TASKS
        for segment, index in zip(voi.table.names, label_table(voi.table_name).indices, strict=True)
    }


def _lowest_settled_kilo(tables: Iterable[pd.DataFrame]) -> float:
    """The lowest blood activity after the first pass, kBq/mL; 0 where there is none."""
    late = [t.loc[t["time"] > 60 * SETTLED_MIN, "whole_blood_radioactivity"] for t in tables]
    known = pd.concat(late).dropna()
    return float(known.min()) / 1000 if len(known) else 0.0


def _plain(value: float, _position: int) -> str:
    return f"{value:g}"


def _time_label(early: bool) -> str:
    return f"time after injection [{'s' if early else 'min'}]"
