"""Curves, input functions and Patlak plots of a participant's page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.figures.curves import draw_curves, draw_input_functions
from hedypet_bids.figures.patlak import PatlakPlot, draw_patlak, patlak_plot
from hedypet_bids.figures.pictures import Picture
from hedypet_bids.io.tables import read_table
from hedypet_bids.kernels.kinetics.patlak import Window
from hedypet_bids.kernels.region_statistics import RegionKey
from hedypet_bids.model import InputFunction
from hedypet_bids.report.organs import (
    CURVE_ORGANS,
    PATLAK_ORGANS,
    REPORTED_ORGANS,
    Organ,
    curve_table,
    organ_curve,
    suv_constant,
)
from hedypet_bids.steps.input_functions import InputFunctions, read_blood
from hedypet_bids.steps.step import Subject
from hedypet_bids.steps.tacs import Curves


@dataclass(frozen=True)
class Kinetics:
    """What the page shows of the dynamic PET; Ki is that of the voxel maps' input function and window."""

    subject: Subject
    constants: Path | None
    curves: Curves
    blood: InputFunctions
    tables: Mapping[RegionKey, Path]

    def note(self) -> str:
        """What the table of organs holds."""
        note = "SUV and SUL are means of the static PET over the normalisation constants."
        if self.tables:
            settings = self.subject.settings.kinetics
            note += (
                f" Ki ± standard error: Patlak, last {settings.patlak.map_last_frames} frames, "
                f"input function {settings.map_input_function}, integration rule {settings.patlak.rule}. "
                "Organs of several regions are fitted on their mean curve."
            )
        return note

    def ki(self, title: str) -> tuple[float, float]:
        """Ki and its standard error of an organ: from the table, or refitted where it has several regions."""
        organ = next(organ for organ in REPORTED_ORGANS if organ.title == title)
        row = self._row(organ)
        if row is not None:
            return float(row["Ki"]), float(row["Ki_se"])
        plot = self.plot(organ)
        return (plot.ki, plot.ki_se) if plot else (float("nan"), float("nan"))

    def plot(self, organ: Organ) -> PatlakPlot | None:
        """The Patlak plot of an organ; None without its curve or without an input function."""
        if not self.tables or self._input_function is None:
            return None
        found = organ_curve(organ, self.curves.paths, self._volumes)
        if found is None:
            return None
        frames, curve = found
        settings = self.subject.settings.kinetics.patlak
        window = Window(last_frames=settings.map_last_frames)
        return patlak_plot(curve, self._input_function.mean, frames, window=window, rule=settings.rule)

    def patlak_pictures(self) -> list[Picture]:
        """Patlak plots of grey matter, liver and muscle."""
        pictures = []
        for organ in PATLAK_ORGANS:
            plot = self.plot(organ)
            if plot is None:
                continue
            words = _in_words(plot)
            picture = Picture.of(
                draw_patlak(plot, title=organ.title),
                "patlak" + "".join(c for c in organ.title.title() if c.isalpha()),
                f"{organ.title.capitalize()}: {words}",
                f"Patlak plot of {organ.title}: uptake over blood against the integral of blood over "
                f"blood. {words}",
            )
            pictures.append(picture)
        return pictures

    def input_function_pictures(self) -> list[Picture]:
        """Every input function: the first minutes and the whole scan."""
        tables = {name: read_table(path) for name, path in self.blood.paths.items()}
        if not tables:
            return []
        return [
            Picture.of(
                draw_input_functions(tables, early=early),
                "inputfunctions" + ("early" if early else ""),
                "The first three minutes." if early else "The whole scan, logarithmic.",
                f"Whole-blood activity over time in {len(tables)} volumes of interest in the aorta, "
                + ("the first three minutes" if early else "the whole scan"),
            )
            for early in (True, False)
        ]

    def curve_pictures(self) -> list[Picture]:
        """Curves of the main organs: the first minutes and the whole scan."""
        table = curve_table(self.curves.paths, self._volumes, CURVE_ORGANS)
        if table.empty:
            return []
        suv = suv_constant(self.constants)
        known = bool(np.isfinite(suv))
        regions = {title: title for title in CURVE_ORGANS if title in table}
        pictures = []
        for early in (True, False):
            figure = draw_curves(
                table,
                regions,
                scale=suv if known else 1000.0,
                units="SUV [g/mL]" if known else "activity concentration [kBq/mL]",
                early=early,
            )
            when = "The first three minutes." if early else "The whole scan; the first pass is cut off."
            alt = f"Time-activity curves of {names.listed(regions)}. {when}"
            pictures.append(Picture.of(figure, "tacs" + ("early" if early else ""), when, alt))
        return pictures

    @cached_property
    def _input_function(self) -> InputFunction | None:
        path = self.blood.paths.get(self.subject.settings.kinetics.map_input_function)
        blood = read_blood(path) if path else None
        return blood if blood is not None and blood.n_voxels else None

    @property
    def _volumes(self) -> dict[RegionKey, Path]:
        return {
            key: self.subject.store.path(names.volumes(self.subject.dynamic, *key))
            for key in self.curves.paths
        }

    def _row(self, organ: Organ) -> pd.Series | None:
        """The organ's row in the table of fits, if it is a single region and the window is in the table."""
        key = organ.key(self.tables)
        if key is None or len(organ.regions) > 1:
            return None
        rows = self._fits[key]
        return rows.loc[organ.regions[0]] if organ.regions[0] in rows.index else None

    @cached_property
    def _fits(self) -> dict[RegionKey, pd.DataFrame]:
        """The rows of the maps' input function and window, by region."""
        settings = self.subject.settings.kinetics
        tables = {key: read_table(path) for key, path in self.tables.items()}
        return {
            key: table[
                (table["input_function"] == settings.map_input_function)
                & (table["last_frames"] == settings.patlak.map_last_frames)
            ].set_index("name")
            for key, table in tables.items()
        }


def _in_words(plot: PatlakPlot) -> str:
    if not np.isfinite(plot.ki):
        return "no fit is possible in this window."
    return (
        f"Ki {plot.ki:.4g} ± {plot.ki_se:.2g} mL/min/mL, V0 {plot.v0:.4g} mL/mL, R² {plot.r2:.4f}, "
        f"{int(plot.used.sum())} frames."
    )
