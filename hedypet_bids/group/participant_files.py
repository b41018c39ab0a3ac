"""What the folder of a participant holds: finished tables, unfinished ones, and files of others."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.store import STAMP_KEY, read_sidecar
from hedypet_bids.io.tables import MISSING
from hedypet_bids.labels import ALL_TASKS, SEGMENTATION_TASKS, VOI_TASKS, WHOLE_IMAGE_TASK, Task

_TASKS = {task.name: task for task in ALL_TASKS}
_TABLE_SUFFIXES = frozenset({"norm", "morph", "tacs", "kinpar", "blood"})
_NOT_RESULTS = frozenset({"log", "figures"})
_ONE_EACH = "Give each session or reconstruction an output folder of its own, or remove one."


@dataclass(frozen=True)
class FinishedTable:
    """A table of regions whose sidecar is there."""

    path: Path
    task: Task
    erosion: int

    @property
    def spread(self) -> Path:
        """The standard deviations of a table of curves."""
        return self._beside("std", "tacs")

    @property
    def volumes(self) -> Path:
        """The volumes of the same regions."""
        return self._beside("", "morph")

    @cached_property
    def has_means(self) -> bool:
        """Whether a table of volumes also has the means of the static PET."""
        try:
            with self.path.open("rb") as file:
                return b"mean" in file.readline().split(b"\t")
        except OSError as fault:
            raise BadDataError(f"{self.path} cannot be read as a table: {fault}.") from fault

    def _beside(self, statistic: str, suffix: str) -> Path:
        stem = self.path.name.split(f"_seg-{self.task.name}_")[0]
        description = statistic + (f"eroded{self.erosion}" if self.erosion else "")
        parts = [stem, f"seg-{self.task.name}", f"desc-{description}" if description else "", suffix]
        return self.path.with_name("_".join(filter(None, parts)) + ".tsv")


@dataclass
class ParticipantFiles:
    """The files of a participant by what they are."""

    folder: Path
    finished: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    segmented: set[str] = field(default_factory=set)
    unfinished: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path, label: str) -> ParticipantFiles:
        """Look through the folder; only sidecars are read."""
        files = cls(folder)
        for path in _walk(folder):
            suffix = path.name.split(".")[0].rpartition("_")[2]
            entities = names.entities_of(path.name)
            if suffix == "dseg" and path.name.endswith(".nii.gz"):
                if names.sidecar_of(path).is_file():
                    files.segmented.add(entities.get("seg", ""))
            elif suffix in _TABLE_SUFFIXES and path.suffix == ".tsv":
                if entities.get("sub") == label and entities.get("seg", "total") in _TASKS:
                    files._add_table(path, suffix)
                else:
                    files.notes.append(f"{path} is no result of hedypet for sub-{label}; it is left out.")
        return files

    def _add_table(self, path: Path, suffix: str) -> None:
        stamp = read_sidecar(path).get(STAMP_KEY)
        if not isinstance(stamp, dict):
            self.unfinished.append(path.name)
            return
        self.finished[suffix].append(path)
        self.versions.add(str(stamp.get("Version")))

    def constants(self) -> Path | None:
        """The table of SUV and SUL constants."""
        found = self.finished["norm"]
        if len(found) > 1:
            raise BadDataError(
                f"Expected one table of constants in {self.folder}; found {names.listed(found)}. {_ONE_EACH}"
            )
        return found[0] if found else None

    def means(self) -> list[FinishedTable]:
        """Tables of the static PET."""
        return self._single(table for table in self._tables("morph") if table.has_means)

    def curves(self) -> list[FinishedTable]:
        """Curve tables with their standard deviations and volumes finished, too."""
        finished = {*self.finished["tacs"], *self.finished["morph"]}
        tables = self._single(self._tables("tacs"))
        return [t for t in tables if finished.issuperset((t.spread, t.volumes))]

    def kinetics(self) -> list[FinishedTable]:
        """Tables of kinetic parameters with their volumes finished, too."""
        return [t for t in self._single(self._tables("kinpar")) if t.volumes in self.finished["morph"]]

    def missing(self) -> list[str]:
        """The parts of the study that have no finished output, and tables that were cut off."""
        curves = {table.task for table in self.curves()}
        there = {
            "constants": bool(self.finished["norm"]),
            "static means": bool(self.means()),
            "curves": WHOLE_IMAGE_TASK in curves,
            "input functions": bool(self.finished["blood"]) and not curves.isdisjoint(VOI_TASKS),
            "Patlak Ki": bool(self.kinetics()),
            **{f"{task.name} segmentation": task.name in self.segmented for task in SEGMENTATION_TASKS},
        }
        parts = [part for part, is_there in there.items() if not is_there]
        return parts + [f"unfinished {name}" for name in sorted(self.unfinished)]

    def _tables(self, suffix: str) -> Iterator[FinishedTable]:
        for path in self.finished[suffix]:
            entities = names.entities_of(path.name)
            description = entities.get("desc", "")
            if "seg" in entities and not description.startswith("std"):
                erosion = "".join(c for c in description if c.isdigit())
                yield FinishedTable(path, _TASKS[entities["seg"]], int(erosion or 0))

    def _single(self, tables: Iterator[FinishedTable]) -> list[FinishedTable]:
        """The tables, of which no two may be of the same task and erosion."""
        by_content: dict[tuple[str, int], FinishedTable] = {}
        for table in tables:
            other = by_content.setdefault((table.task.name, table.erosion), table)
            if other is not table:
                raise BadDataError(
                    f"Expected one table of {table.task.name} with {table.erosion} erosions in "
                    f"{self.folder}; found {other.path} and {table.path}. {_ONE_EACH}"
                )
        return list(by_content.values())


class Columns:
    """A table file by column.

    Raises
    ------
    BadDataError
        The file is no table, has a column twice, lacks one, or holds text instead of numbers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._table = pa_csv.read_csv(
                path,
                read_options=pa_csv.ReadOptions(use_threads=False),
                parse_options=pa_csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=pa_csv.ConvertOptions(null_values=[MISSING, ""], strings_can_be_null=True),
            )
            self._position = {name: at for at, name in enumerate(self._table.column_names)}
        except (OSError, ValueError) as fault:
            raise BadDataError(f"{path} cannot be read as a table: {fault}.") from fault
        if len(self._position) < self._table.num_columns:
            raise BadDataError(f"{path} has a column twice. Run the participant level again.")

    def __contains__(self, name: str) -> bool:
        return name in self._position

    def real(self, name: str) -> NDArray[np.float64]:
        """A column of numbers; NaN where it says ``n/a``."""
        values: NDArray[np.float64] = self.array(name, pa.float64()).to_numpy(zero_copy_only=False)
        return values

    def whole(self, name: str) -> NDArray[np.int64]:
        """A column of whole numbers, none missing."""
        column = self.array(name, pa.int64())
        if column.null_count:
            raise BadDataError(f"{self.path}: the column {name} has empty cells; expected whole numbers.")
        values: NDArray[np.int64] = column.to_numpy(zero_copy_only=False)
        return values

    def text(self, name: str) -> list[str]:
        """A column of text; empty where it says ``n/a``."""
        return [value or "" for value in self.array(name, pa.string()).to_pylist()]

    def array(self, name: str, kind: Any) -> Any:
        """A column as an Arrow array of a type."""
        if name not in self._position:
            raise BadDataError(
                f"{self.path} has no column {name}; found {names.listed(self._position)}. "
                "Run the participant level again."
            )
        try:
            return self._table.column(self._position[name]).combine_chunks().cast(kind)
        except ValueError as fault:
            raise BadDataError(f"{self.path}: the column {name} holds no numbers: {fault}.") from fault


def _walk(folder: Path) -> Iterator[Path]:
    """Every file of a participant but logs and pictures, in order."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _NOT_RESULTS)
        yield from (Path(parent, name) for name in sorted(files))
