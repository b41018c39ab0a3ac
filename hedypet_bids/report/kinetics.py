"""Curves, input functions and fits of kinetic models on the page of a scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.figures.curves import draw_curves, draw_input_functions
from hedypet_bids.figures.patlak import PatlakPlot, draw_ki_by_start, draw_patlak, patlak_plot
from hedypet_bids.figures.pictures import Picture
from hedypet_bids.inputs.population import of_scan
from hedypet_bids.io.manifest import ScanOutputs
from hedypet_bids.io.tables import read_blood, read_curves, read_table, read_timed
from hedypet_bids.kernels.kinetics import KineticModel, Parameter, Patlak, fits_with, known_models
from hedypet_bids.kernels.kinetics.patlak import Window, early_window, rule_for
from hedypet_bids.kernels.region_statistics import RegionKey
from hedypet_bids.model import FrameTimes, InputFunction, Person, PetMetadata
from hedypet_bids.report.organs import (
    CURVE_ORGANS,
    PATLAK_ORGANS,
    REPORTED_ORGANS,
    Organ,
    organ_curve,
    organ_curves,
    organ_named,
    reference_curve,
    suv_constant,
)
from hedypet_bids.settings import Rule, Settings

_UNKNOWN = float("nan")
# Ki by two integration rules that differ by less agree.
_RULES_AGREE = 0.005


@dataclass(frozen=True)
class OrganFit:
    """What a model says of an organ: an estimate and its standard error for each parameter.

    A standard error is None where the model gives none; the reason is that of an estimate that is not there.
    """

    title: str
    erosion: int
    estimates: Sequence[tuple[float, float | None]]
    reason: str = ""


@dataclass(frozen=True)
class ModelFits:
    """What a model says of the main organs; empty, with the reason, where it was not fitted."""

    name: str
    title: str
    parameters: Sequence[Parameter]
    organs: Sequence[OrganFit]
    input_functions: Sequence[str] = ()
    input_kind: str = "input function"


@dataclass(frozen=True, eq=False)
class OrganWindows:
    """Patlak's Ki of an organ in every window, and whether its plot is a line in the window shown.

    Parameters
    ----------
    ki, ki_se
        mL/min/mL, shape (n_windows,); NaN where not known.
    change, change_se
        Of the slope within the window shown, over Ki; NaN where not known.
    reason
        Why that is not known, or that the plot is no line.
    """

    title: str
    ki: NDArray[np.float64]
    ki_se: NDArray[np.float64]
    change: float
    change_se: float
    reason: str


@dataclass(frozen=True, eq=False)
class PatlakWindows:
    """Ki against the start of the window.

    Parameters
    ----------
    start_min, n_frames
        Start of the first frame of each window after injection, min, and the frames in its fit, shape
        (n_windows,), the earliest start first.
    shown
        Index of the window of maps and pages; None where it was not fitted.
    """

    start_min: NDArray[np.float64]
    n_frames: NDArray[np.int64]
    shown: int | None
    organs: Sequence[OrganWindows]

    def picture(self) -> Picture:
        """A panel an organ."""
        panels = {organ.title: (organ.ki, organ.ki_se) for organ in self.organs}
        return Picture.of(
            draw_ki_by_start(self.start_min, self.n_frames, panels, shown=self.shown),
            "patlakwindows",
            "Ki ± standard error against the start t* of the window; filled: the window shown elsewhere.",
            f"Patlak's Ki of {names.listed(panels)} against the start of the window, "
            f"{self.start_min[0]:.3g} to {self.start_min[-1]:.3g} min; the numbers are in the table below",
        )


@dataclass(frozen=True)
class DynamicSections:
    """What the page shows of the dynamic PET."""

    outputs: ScanOutputs
    settings: Settings
    person: Person = field(default_factory=lambda: Person(""))
    metadata: PetMetadata | None = None

    def note(self) -> str:
        """What the table of organs holds."""
        note = "SUV and SUL are means of the static PET over the normalisation constants."
        kinetics = self.settings.kinetics
        blood = self._blood(kinetics.map_input_function)
        if self._patlak_was_fitted and blood is not None:
            rule, doubt = rule_for(blood.frames, self.settings), early_window(blood.frames, self.settings)
            note += (
                f" Ki ± standard error: Patlak, last {kinetics.patlak.map_last_frames} frames, input "
                f"function {kinetics.map_input_function}, integration rule {rule}. Organs of "
                f"several regions are fitted on their mean curve.{self._difference_of_rules(rule)}"
            )
            if doubt:
                note += f" Doubtful: {doubt}."
        return note

    def _difference_of_rules(self, rule: Rule) -> str:
        """What the other integration rule would change, where that is more than rounding and noise."""
        other: Rule = "frames" if rule == "simpson" else "simpson"
        changes = {}
        for organ in REPORTED_ORGANS:
            plot, by_other = self.plot(organ), self.plot(organ, other)
            if plot and by_other and plot.ki > 0 and np.isfinite(by_other.ki):
                changes[organ.title] = by_other.ki / plot.ki - 1
        title = max(changes, key=lambda title: abs(changes[title]), default="")
        if not title or abs(changes[title]) <= _RULES_AGREE:
            return ""
        return f" The rules disagree: by rule {other} Ki changes by up to {changes[title]:+.1%} ({title})."

    def ki(self, title: str) -> tuple[float, float]:
        """Patlak's Ki of an organ and its standard error; NaN where it is not known."""
        plot = self.plot(organ_named(title))
        return (plot.ki, plot.ki_se) if plot else (_UNKNOWN, _UNKNOWN)

    def plot(self, organ: Organ, rule: Rule | None = None) -> PatlakPlot | None:
        """The Patlak plot of an organ; None without its curve or without an input function.

        By another integration rule than that of the tables where one is given.
        """
        blood = self._blood(self.settings.kinetics.map_input_function)
        found = self._curve(organ)
        if not self._patlak_was_fitted or found is None or blood is None or not blood.is_known:
            return None
        frames, curve = found
        patlak = self.settings.kinetics.patlak
        window = Window(last_frames=patlak.map_last_frames)
        rule = rule or rule_for(frames, self.settings)
        return patlak_plot(curve, blood.mean, frames, window=window, rule=rule)

    def models(self) -> list[ModelFits]:
        """Every model that was fitted, or was to be."""
        return [
            self._fits_of(model)
            for name, model in known_models().items()
            if self.outputs.of("kinetics", name) or name in self.settings.kinetics.models
        ]

    def patlak_pictures(self) -> list[Picture]:
        """Patlak plots of grey matter, liver and muscle."""
        pictures = []
        for organ in PATLAK_ORGANS:
            plot = self.plot(organ)
            if plot is None:
                continue
            numbers = _numbers_of(plot)
            picture = Picture.of(
                draw_patlak(plot, title=organ.title),
                "patlak" + "".join(c for c in organ.title.title() if c.isalpha()),
                f"{organ.title.capitalize()}: {numbers}",
                f"Patlak plot of {organ.title}: uptake over blood against the integral of blood over "
                f"blood. {numbers}",
            )
            pictures.append(picture)
        return pictures

    def patlak_windows(self) -> PatlakWindows | None:
        """Ki of the main organs in every window, with the input function of the maps; None without fits."""
        kinetics = self.settings.kinetics

        def of_maps(table: pd.DataFrame) -> pd.DataFrame:
            return table[table["input_function"] == kinetics.map_input_function]

        tables = {
            key: of_maps(read_table(path)) for key, path in self.outputs.of("kinetics", Patlak.name).items()
        }
        rows = {
            organ.title: rows[rows["t_start"].notna()].sort_values(
                ["t_start", "last_frames"], ascending=[True, False]
            )
            for organ, _, rows in self._organ_rows(known_models()[Patlak.name], tables, of_maps)
        }
        rows = {title: table for title, table in rows.items() if len(table)}
        if not rows:
            return None
        windows = next(iter(rows.values()))
        at = np.flatnonzero(windows["last_frames"] == kinetics.patlak.map_last_frames)
        shown = int(at[0]) if len(at) else None
        return PatlakWindows(
            windows["t_start"].to_numpy(dtype=np.float64) / 60,
            windows["n_used"].to_numpy(dtype=np.int64),
            shown,
            [_organ_windows(title, table, shown) for title, table in rows.items()],
        )

    def input_function_pictures(self) -> list[Picture]:
        """Every input function: the first minutes and the whole scan."""
        tables = {name: read_timed(path) for name, path in self.outputs.of("blood").items()}
        if not tables:
            return []
        return [
            Picture.of(
                draw_input_functions(tables, early=early),
                "inputfunctions" + ("early" if early else ""),
                "The first three minutes." if early else "The whole scan, logarithmic.",
                f"Whole-blood activity over time in {len(tables.keys() - {names.MEASURED})} volumes of "
                f"interest{' and in blood samples' if names.MEASURED in tables else ''}, "
                + ("the first three minutes" if early else "the whole scan"),
            )
            for early in (True, False)
        ]

    def curve_pictures(self) -> list[Picture]:
        """Curves of the main organs: the first minutes and the whole scan."""
        table = organ_curves(self.outputs.of("mean"), self.outputs.of("volumes"), CURVE_ORGANS)
        if table.empty:
            return []
        suv = suv_constant(self.outputs.get("constants"))
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

    def _fits_of(self, model: KineticModel) -> ModelFits:
        paths: Mapping[RegionKey, Path] = self.outputs.of("kinetics", model.name)
        shown = {key: model.shown(read_table(path), self.settings) for key, path in paths.items()}
        bloods = list(dict.fromkeys(name for rows in shown.values() for name in rows["input_function"]))
        organs = list(self._organ_fits(model, shown))
        kind = "reference region" if model.reference else "input function"
        return ModelFits(model.name, model.title, model.parameters, organs, bloods, kind)

    def _organ_fits(self, model: KineticModel, shown: Mapping[RegionKey, pd.DataFrame]) -> Iterator[OrganFit]:
        """The main organs, a row each."""
        for organ, erosion, rows in self._organ_rows(model, shown, self._shown_of(model)):
            estimates = [_estimate(rows.iloc[0], parameter) for parameter in model.parameters]
            yield OrganFit(organ.title, erosion, estimates, _reason(rows.iloc[0]))

    def _shown_of(self, model: KineticModel) -> Callable[[pd.DataFrame], pd.DataFrame]:
        return lambda table: model.shown(table, self.settings)

    def _organ_rows(
        self,
        model: KineticModel,
        tables: Mapping[RegionKey, pd.DataFrame],
        chosen: Callable[[pd.DataFrame], pd.DataFrame],
    ) -> Iterator[tuple[Organ, int, pd.DataFrame]]:
        """Rows of the main organs, from the table or, for organs of several regions, fitted on their mean.

        ``tables`` hold the chosen rows already.
        """
        for organ in REPORTED_ORGANS:
            key = organ.key(tables)
            found = self._curve(organ)
            elsewhere = model.regions and not set(organ.regions) <= set(model.regions)
            if key is None or found is None or elsewhere:
                continue
            if len(organ.regions) == 1:
                rows = tables[key][tables[key]["name"] == organ.regions[0]]
            else:
                sources = list(dict.fromkeys(tables[key]["input_function"]))
                rows = self._refitted(model, *found, key, sources)
                rows = chosen(rows) if len(rows) else rows
            if len(rows):
                yield organ, key[1], rows

    def _refitted(
        self,
        model: KineticModel,
        frames: FrameTimes,
        curve: NDArray[np.float64],
        key: RegionKey,
        sources: Sequence[str],
    ) -> pd.DataFrame:
        """All rows of the fit of a single curve."""
        told = of_scan(model, self.person, self.metadata, self.settings)
        if not model.reference:
            bloods = [blood for name in sources if (blood := self._blood(name)) is not None]
            parts = fits_with(told, curve[np.newaxis], bloods, frames, self.settings)
            rows = [fits.table(["organ"], [blood.name for blood in of]) for of, fits in parts]
            return pd.concat(rows) if rows else pd.DataFrame()
        regions = self.settings.kinetics.reference_region
        found = reference_curve(regions, self.outputs.of("mean"), self.outputs.of("volumes"), key[1])
        if not (found and sources):
            return pd.DataFrame()
        # The regions of the table come along: a model may take from all of them what they have in common.
        _, regions_of_table = read_curves(self.outputs.of("mean")[key])
        curves = np.vstack([curve, regions_of_table])
        fits = told.fit(curves, found[1][np.newaxis], frames, self.settings)
        table = fits.table(["organ", *map(str, range(1, len(curves)))], sources[:1])
        return table[table["name"] == "organ"]

    def _curve(self, organ: Organ) -> tuple[FrameTimes, NDArray[np.float64]] | None:
        return self._curves.get(organ.title)

    def _blood(self, recording: str) -> InputFunction | None:
        return self._bloods.get(recording)

    # Each table is read once: several sections of the page ask for the same curves.

    @cached_property
    def _curves(self) -> Mapping[str, tuple[FrameTimes, NDArray[np.float64]]]:
        means, volumes = self.outputs.of("mean"), self.outputs.of("volumes")
        found = {organ.title: organ_curve(organ, means, volumes) for organ in REPORTED_ORGANS}
        return {title: curve for title, curve in found.items() if curve is not None}

    @cached_property
    def _bloods(self) -> Mapping[str, InputFunction]:
        return {name: read_blood(path) for name, path in self.outputs.of("blood").items()}

    @cached_property
    def _patlak_was_fitted(self) -> bool:
        return bool(self.outputs.of("kinetics", Patlak.name))


def _organ_windows(title: str, rows: pd.DataFrame, shown: int | None) -> OrganWindows:
    row = None if shown is None else rows.iloc[shown]
    change, change_se = (
        (_UNKNOWN, _UNKNOWN) if row is None else (float(row["slope_change"]), float(row["slope_change_se"]))
    )
    return OrganWindows(
        title,
        rows["Ki"].to_numpy(dtype=np.float64),
        rows["Ki_se"].to_numpy(dtype=np.float64),
        change,
        change_se,
        "the window shown was not fitted" if row is None else _reason(row),
    )


def _reason(row: pd.Series[Any]) -> str:
    reason = row.get("reason")
    return reason if isinstance(reason, str) else ""


def _estimate(row: pd.Series[Any], parameter: Parameter) -> tuple[float, float | None]:
    se = row.get(f"{parameter.name}_se")
    return float(row[parameter.name]), None if se is None else float(se)


def _numbers_of(plot: PatlakPlot) -> str:
    if not np.isfinite(plot.ki):
        return "no fit is possible in this window."
    return (
        f"Ki {plot.ki:.4g} ± {plot.ki_se:.2g} mL/min/mL, V0 {plot.v0:.4g} mL/mL, R² {plot.r2:.4f}, "
        f"{int(plot.used.sum())} frames."
    )
