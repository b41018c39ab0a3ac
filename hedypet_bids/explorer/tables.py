"""The readout tables of a study, of which DuckDB reads only the rows and columns that are shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.group.dictionary import TABLES
from hedypet_bids.group.statistics import DENOMINATORS

ACTIVITY = "activity"
NORMALISATIONS = ("SUV", "SUL Decazes", "SUL Janma", "SUL James", ACTIVITY)
WHOLE_IMAGE = "totalimage"

# Frames of two participants are the same frame when their times differ by no more than rounding.
_SAME_FRAME_S = 1.0


class Tables:
    """The tables of an output folder.

    Parameters
    ----------
    root
        The output folder of hedypet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[str] = []
        self._there = {table: self._path(table) for table in TABLES}

    def has(self, table: str) -> bool:
        """Whether a table is there and can be read."""
        return self._there[table] is not None

    def participants(self) -> list[str]:
        """Participants with an output folder: ``["sub-001", ...]``."""
        return sorted(path.name for path in self.root.glob("sub-*") if path.is_dir())

    def metadata(self) -> pd.DataFrame:
        """One row a participant, with ``sex``, ``age group`` and ``split`` as people read them."""
        if not self.has("metadata"):
            rows = pd.DataFrame(columns=list(TABLES["metadata"])).reindex(range(len(self.participants())))
            rows["Subject"] = self.participants()
        else:
            rows = self._read("metadata", list(TABLES["metadata"]), {})
        group = rows["Demographic Group [Sex,Age]"].astype("string").str.lstrip("FM")
        return rows.assign(
            **{
                "sex": rows["Sex"].map({"F": "female", "M": "male"}).fillna("not known"),
                "age group": group.fillna("not known").astype(str),
                "split": rows["Split"].astype("string").fillna("none").astype(str),
            }
        ).sort_values("Subject", ignore_index=True)

    def regions(self, table: str) -> pd.DataFrame:
        """Task, Label Name and Erosion Iterations of every region of a table."""
        columns = ["Task", "Label Name", "Erosion Iterations"]
        if not self.has(table):
            return pd.DataFrame(columns=columns)
        listed = ", ".join(map(_quoted, columns))
        query = f"SELECT DISTINCT {listed} FROM {self._source(table, one=True)} ORDER BY ALL"
        return _ask(query, [])

    def input_functions(self) -> list[str]:
        """Identifiers of the input functions that Patlak was fitted with."""
        if not self.has("patlak_ki"):
            return []
        column = _quoted("Input Function Identifier")
        rows = _ask(f"SELECT DISTINCT {column} FROM {self._source('patlak_ki', one=True)} ORDER BY 1", [])
        return [str(name) for name in rows.iloc[:, 0]]

    def windows(self) -> list[int]:
        """Numbers of last frames that Patlak was fitted to."""
        if not self.has("patlak_ki"):
            return []
        column = _quoted("Regression Frames")
        source = self._source("patlak_ki", one=True)
        rows = _ask(f"SELECT DISTINCT {column} FROM {source} WHERE {column} IS NOT NULL ORDER BY 1", [])
        return [int(number) for number in rows.iloc[:, 0]]

    def means(
        self, task: str, labels: Sequence[str], erosions: Sequence[int], normalisation: str
    ) -> pd.DataFrame:
        """A row per participant and region of the static PET: ``value`` and ``Volume [mL]``."""
        columns = ["Subject", "Label Name", "Erosion Iterations", "PET Mean [Bq/mL]", "Volume [mL]"]
        chosen = {"Task": [task], "Label Name": labels, "Erosion Iterations": erosions}
        return self._normalised(self._read("means", columns, chosen), normalisation)

    def curves(
        self, table: str, task: str, labels: Sequence[str], erosions: Sequence[int], normalisation: str
    ) -> pd.DataFrame:
        """A row per participant, region and frame: ``value`` and ``minutes`` (middle of the frame)."""
        columns = ["Subject", "Label Name", "Erosion Iterations", "Frame Index"]
        columns += ["Frame Time Middle [s]", "PET Mean [Bq/mL]"]
        chosen = {"Task": [task], "Label Name": labels, "Erosion Iterations": erosions}
        rows = self._normalised(self._read(table, columns, chosen), normalisation)
        return rows.assign(minutes=rows["Frame Time Middle [s]"] / 60.0)

    def patlak(
        self,
        task: str,
        labels: Sequence[str],
        erosions: Sequence[int],
        input_function: str,
        windows: Sequence[int],
    ) -> pd.DataFrame:
        """A row per participant, region and window, with Ki as ``value``."""
        columns = ["Subject", "Label Name", "Erosion Iterations", "Regression Frames"]
        columns += ["Patlak Ki", "Patlak Ki SE", "Patlak V0", "R2"]
        chosen = {
            "Task": [task],
            "Label Name": labels,
            "Erosion Iterations": erosions,
            "Input Function Identifier": [input_function],
            "Regression Frames": windows,
        }
        rows = self._read("patlak_ki", columns, chosen)
        return rows.assign(value=rows["Patlak Ki"])

    def _read(self, table: str, columns: Sequence[str], chosen: dict[str, Sequence[Any]]) -> pd.DataFrame:
        if not self.has(table) or not all(len(values) for values in chosen.values()):
            return pd.DataFrame(columns=list(columns))
        conditions = [f"{_quoted(c)} IN ({', '.join('?' * len(v))})" for c, v in chosen.items()]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        listed = ", ".join(map(_quoted, columns))
        parameters = [value for values in chosen.values() for value in values]
        return _ask(f"SELECT {listed} FROM {self._source(table)}{where}", parameters)

    def _normalised(self, rows: pd.DataFrame, normalisation: str) -> pd.DataFrame:
        if normalisation == ACTIVITY:
            return rows.assign(value=rows["PET Mean [Bq/mL]"] / 1000.0)
        constants = self.metadata().set_index("Subject")[DENOMINATORS[normalisation]]
        constant = rows["Subject"].map(constants).astype(float)
        return rows.assign(value=rows["PET Mean [Bq/mL]"].astype(float) / constant)

    def _path(self, table: str) -> Path | None:
        path = self.root / names.readout(table, ".parquet")
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        try:
            if not files or not files[0].is_file():
                self.problems.append(
                    f"The table {path.name} is missing: run hedypet with 'group'. What it holds is not shown."
                )
                return None
            wanted = {column for column in TABLES[table] if not (path.is_dir() and column == "Subject")}
            found = set(_ask(f"SELECT * FROM {_scan(files[0])} LIMIT 0", []).columns)
        except (duckdb.Error, OSError) as fault:
            self.problems.append(f"The table {path.name} cannot be read, so it is not shown: {fault}")
            return None
        if wanted - found:
            lost = names.listed(sorted(wanted - found))
            self.problems.append(
                f"The table {path.name} has no {lost}: another version of hedypet made it. Run 'group' again."
            )
            return None
        return path

    def _source(self, table: str, *, one: bool = False) -> str:
        """What to select from; with ``one`` the first participant of a partitioned table stands for all."""
        path = self._there[table]
        assert path is not None
        if not path.is_dir():
            return _scan(path)
        return _scan(next(iter(sorted(path.rglob("*.parquet"))))) if one else _scan(path / "*" / "*.parquet")


def wide(rows: pd.DataFrame, at: str) -> tuple[np.ndarray[Any, np.dtype[np.float64]], pd.Series[Any]]:
    """Curves of one region as a matrix (n_participants, n_frames), and the time of each frame.

    ``at`` is the column of times; a frame at which the participants' times differ by more than a second has
    the time NaN, since no mean of it makes sense.
    """
    matrix = rows.pivot_table(index="Subject", columns="Frame Index", values="value", dropna=False)
    times = rows.groupby("Frame Index")[at]
    time = times.mean()
    if at != "Frame Index":
        time = time.where((times.max() - times.min()) * 60.0 <= _SAME_FRAME_S)
    return matrix.to_numpy(dtype=np.float64), time.reindex(matrix.columns)


def _scan(path: Path) -> str:
    text = str(path).replace("'", "''")
    return f"read_parquet('{text}', hive_partitioning = true)"


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _ask(query: str, parameters: Sequence[Any]) -> pd.DataFrame:
    with duckdb.connect() as connection:
        rows: pd.DataFrame = connection.execute(query, list(parameters)).df()
    return rows
