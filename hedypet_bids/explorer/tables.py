"""The readout tables of a study as the explorer shows them: a row a scan, with what tells scans apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.errors import HedypetError, MissingInputError, UsageError
from hedypet_bids.names import NORMALISATIONS, SCAN_COLUMNS
from hedypet_bids.study import Study

ACTIVITY = "activity"
UPTAKES = (*NORMALISATIONS, ACTIVITY)
"""What uptake can be shown in."""

SCAN_AXES = ("Session", "Tracer", "Run", "Reconstruction")
"""Columns that tell the rows of one participant's region apart; each is shown where it varies."""

CURVE_REGION = ("Label Name", "Erosion Iterations")
_PET_MEAN, _MIDDLE = "PET Mean [Bq/mL]", "Frame Time Middle [s]"
_ROWS = ("Subject", *SCAN_AXES, "Task", *CURVE_REGION)
_METADATA = (
    *SCAN_COLUMNS,
    "Demographic Group [Sex,Age]",
    "Injected Activity [MBq]",
    "Weight [kg]",
    "Height [m]",
    "Sex",
    "Age [years]",
    "Missing",
    "Split",
    "SUV Denominator [Bq/mL]",
)
_READ = {
    "metadata": _METADATA,
    "means": (*_ROWS, _PET_MEAN, "Volume [mL]"),
    "tacs": (*_ROWS, "Frame Index", _MIDDLE, _PET_MEAN),
    "input_function_tacs": (*_ROWS, "Frame Index", _MIDDLE, _PET_MEAN),
    "patlak_ki": (
        *(*_ROWS, "Input Function Identifier", "Regression Frames"),
        *("Patlak Ki", "Patlak Ki SE", "Patlak V0", "R2"),
    ),
    "kinetics": (*_ROWS, "Model", "Input Function Identifier", "Parameter", "Value", "SE", "Units"),
}
"""What is read of each table."""

# Frames of two scans are the same frame when their times differ by no more than rounding.
_SAME_FRAME_S = 1.0


class Tables:
    """The tables of an output folder.

    Parameters
    ----------
    root
        The output folder of hedypet.
    """

    def __init__(self, root: Path) -> None:
        self.study = Study(root)
        self.problems: list[str] = []
        self._there = [table for table, columns in _READ.items() if self._is_there(table, columns)]

    def has(self, table: str) -> bool:
        """Whether a table is there and can be read."""
        return table in self._there

    def metadata(self) -> pd.DataFrame:
        """One row a scan, with ``sex``, ``age group`` and ``split`` as people read them, and ``scan``."""
        if self.has("metadata"):
            rows = self.study.readout("metadata", columns=_METADATA)
        else:
            rows = self.study.scans[list(SCAN_COLUMNS)].reindex(columns=list(_METADATA))
        group = rows["Demographic Group [Sex,Age]"].astype("string").str.lstrip("FM")
        return with_scans(rows, SCAN_AXES[:3]).assign(
            **{
                "sex": rows["Sex"].map({"F": "female", "M": "male"}).fillna("not known"),
                "age group": group.fillna("not known").astype(str),
                "split": rows["Split"].astype("string").fillna("none").astype(str),
            }
        )

    def tasks(self, table: str) -> dict[str, str]:
        """What the tasks of a table are, by their name."""
        levels: dict[str, str] = self.study.dictionary(table).get("Task", {}).get("Levels", {})
        return levels

    def regions(self, table: str) -> pd.DataFrame:
        """Task, Label Name, Erosion Iterations and scan of every region of a table; no participants."""
        columns = ["Task", *CURVE_REGION, *SCAN_AXES]
        if not self.has(table):
            return pd.DataFrame(columns=columns)
        return _filled(self.study.distinct(table, columns), SCAN_AXES)

    def fits(self) -> pd.DataFrame:
        """Input Function Identifier and Regression Frames of every kind of Patlak fit."""
        columns = ["Input Function Identifier", "Regression Frames"]
        if not self.has("patlak_ki"):
            return pd.DataFrame(columns=columns)
        return self.study.distinct("patlak_ki", columns).dropna()

    def usual_reconstructions(self, table: str) -> list[str]:
        """Reconstructions of the images that stand for the scans, the most common first."""
        scans = self.study.scans
        static = scans["Statics"].str[0].fillna("")
        images = static if table == "means" else scans["Dynamic"]
        found = images[images != ""].map(lambda name: names.entities_of(name).get("rec", ""))
        return list(found.value_counts().index)

    def means(self, chosen: Mapping[str, Sequence[Any]], uptake: str) -> pd.DataFrame:
        """A row per scan and region of the static PET: ``value`` and ``Volume [mL]``.

        Parameters
        ----------
        chosen
            Values to keep, by argument of :meth:`hedypet_bids.Study.readout`.
        uptake
            One of ``UPTAKES``.
        """
        return self._uptake("means", chosen, uptake)

    def curves(self, table: str, chosen: Mapping[str, Sequence[Any]], uptake: str) -> pd.DataFrame:
        """A row per scan, region and frame: ``value`` and ``minutes`` (middle of the frame)."""
        rows = self._uptake(table, chosen, uptake)
        return rows.assign(minutes=rows[_MIDDLE] / 60.0)

    def patlak(self, chosen: Mapping[str, Sequence[Any]], input_function: str) -> pd.DataFrame:
        """A row per scan, region and window, with Ki as ``value``."""
        rows = self._rows("patlak_ki", chosen)
        rows = rows[rows["Input Function Identifier"] == input_function].dropna(subset="Regression Frames")
        return rows.assign(value=rows["Patlak Ki"])

    def parameters(self) -> pd.DataFrame:
        """Model, Parameter and Units of everything that kinetic models have estimated."""
        columns = ["Model", "Parameter", "Units"]
        if not self.has("kinetics"):
            return pd.DataFrame(columns=columns)
        return _filled(self.study.distinct("kinetics", columns), columns)

    def estimates(self, chosen: Mapping[str, Sequence[Any]], model: str, parameter: str) -> pd.DataFrame:
        """A row per scan and region, with a model's estimate of a parameter as ``value``."""
        rows = self._rows("kinetics", chosen)
        rows = rows[(rows["Model"] == model) & (rows["Parameter"] == parameter)]
        return rows.assign(value=rows["Value"])

    def _uptake(self, table: str, chosen: Mapping[str, Sequence[Any]], uptake: str) -> pd.DataFrame:
        if uptake == ACTIVITY:
            rows = self._rows(table, chosen)
            return rows.assign(value=rows[_PET_MEAN] / 1000.0)
        rows = self._rows(table, chosen, normalise=uptake)
        return rows.rename(columns={f"{uptake} Mean [g/mL]": "value"}).drop(columns=f"{uptake} STD [g/mL]")

    def _rows(
        self, table: str, chosen: Mapping[str, Sequence[Any]], *, normalise: str | None = None
    ) -> pd.DataFrame:
        columns = _READ[table]
        if not self.has(table) or (normalise and not self.has("metadata")):
            added = [f"{normalise} Mean [g/mL]", f"{normalise} STD [g/mL]"] if normalise else []
            rows = pd.DataFrame(columns=[*columns, *added])
        else:
            rows = self.study.readout(table, columns=columns, normalise=normalise, **chosen)
        return with_scans(rows, SCAN_AXES)

    def _is_there(self, table: str, columns: Sequence[str]) -> bool:
        try:
            lost = [column for column in columns if column not in self.study.columns(table)]
        except (MissingInputError, UsageError):
            self.problems.append(
                f"The table {table} is missing: run hedypet with 'group'. What it holds is not shown."
            )
            return False
        except HedypetError as error:
            self.problems.append(f"{error} What it holds is not shown.")
            return False
        if lost:
            self.problems.append(
                f"The table {table} has no {names.listed(lost)}: another version of hedypet made it. Run "
                "'group' again."
            )
        return not lost


def with_scans(rows: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Rows with ``scan``, what a scan is called: the participant, and what varies among the rows."""
    rows = _filled(rows, axes).sort_values(["Subject", *axes], kind="stable", ignore_index=True)
    scan = rows["Subject"].astype(str)
    for axis in axes:
        if rows[axis].nunique() > 1:
            scan = scan + " " + rows[axis]
    return rows.assign(scan=scan.str.strip())


def wide(rows: pd.DataFrame, at: str) -> tuple[np.ndarray[Any, np.dtype[np.float64]], pd.Series[Any]]:
    """Curves of one region as a matrix (n_scans, n_frames), and the time of each frame.

    ``at`` is the column of times; a frame at which the scans' times differ by more than a second has the
    time NaN, since no mean of it makes sense.
    """
    matrix = rows.pivot_table(index="scan", columns="Frame Index", values="value", dropna=False)
    times = rows.groupby("Frame Index")[at]
    time = times.mean()
    if at != "Frame Index":
        time = time.where((times.max() - times.min()) * 60.0 <= _SAME_FRAME_S)
    return matrix.to_numpy(dtype=np.float64), time.reindex(matrix.columns)


def _filled(rows: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Rows whose scan says nothing with empty text instead of a missing value."""
    return rows.assign(**{axis: rows[axis].astype("string").fillna("").astype(str) for axis in axes})
