"""What the group's page shows of each participant: values by region, quality checks, reasons for gaps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.group.rows import INPUT_FUNCTION_IDENTIFIERS
from hedypet_bids.group.tables import schema
from hedypet_bids.io.store import STAMP_KEY, read_sidecar
from hedypet_bids.labels import SEGMENTATION_TASKS
from hedypet_bids.settings import KineticsSettings

UPTAKE, VOLUME, KI = "PET Mean [Bq/mL]", "Volume [mL]", "Patlak Ki"
_REGION = ("Task", "Label Name", "Erosion Iterations")
Values = NDArray[np.float32]


@dataclass(frozen=True, order=True)
class Region:
    """A region as the readout tables name it."""

    task: str
    name: str
    erosion: int


@dataclass
class RegionValues:
    """A value a participant of each region and column, NaN where there is none."""

    subjects: Sequence[str]
    _values: dict[tuple[Region, str], Values] = field(default_factory=dict)

    @property
    def regions(self) -> list[Region]:
        """Regions that someone has: with an uptake or a Ki, or a volume that is not 0."""
        found = {r for (r, column), v in self._values.items() if np.isfinite(v).any() and _shows(column, v)}
        return sorted(found)

    def of(self, region: Region, column: str) -> Values:
        """The values of all participants."""
        return self._values.get((region, column), self._nothing())

    def add(self, rows: pa.RecordBatch, columns: Sequence[str]) -> None:
        """Take in rows of a readout table; a participant's first value of a region stays."""
        members = pc.index_in(rows.column("Subject"), pa.array(self.subjects, pa.string()))
        rows = rows.append_column("Member", members).filter(pc.is_valid(members))
        if not rows.num_rows:
            return
        member = rows.column("Member").to_numpy()
        regions, which = _regions_of(rows)
        order = np.argsort(which, kind="stable")
        starts = np.searchsorted(which[order], np.arange(len(regions) + 1))
        for column in columns:
            values = rows.column(column).to_numpy(zero_copy_only=False).astype(np.float32)
            for region, start, end in zip(regions, starts, starts[1:], strict=False):
                at = order[start:end]
                kept = self._values.setdefault((region, column), self._nothing())
                kept[member[at]] = np.where(np.isfinite(kept[member[at]]), kept[member[at]], values[at])

    def _nothing(self) -> Values:
        return np.full(len(self.subjects), np.nan, dtype=np.float32)


def read_region_values(
    output: Path, subjects: Sequence[str], kinetics: KineticsSettings
) -> tuple[RegionValues, list[str]]:
    """Mean uptakes, volumes and the Ki of the voxel maps' input function, and which tables cannot be read.

    Tables are read piece by piece: what stays in memory is 4 bytes a participant, region and column. Volumes
    are those of the static PET's grid, and of the dynamic one's for who has no static PET.
    """
    values, problems = RegionValues(subjects), []
    fit = (pc.field("Input Function Identifier") == shown_input_function(kinetics)) & (
        pc.field("Regression Frames") == kinetics.patlak.map_last_frames
    )
    for table, columns, chosen in (("means", (UPTAKE, VOLUME), None), ("patlak_ki", (KI, VOLUME), fit)):
        try:
            for rows in _pieces(output, table, ["Subject", *_REGION, *columns], chosen):
                values.add(rows, columns)
        except (OSError, pa.ArrowException) as fault:
            problems.append(unreadable(table, fault))
    return values, problems


def shown_input_function(kinetics: KineticsSettings) -> str:
    """The readout tables' name of the input function of the voxel maps."""
    return INPUT_FUNCTION_IDENTIFIERS.get(kinetics.map_input_function, kinetics.map_input_function)


def read_small_table(output: Path, table: str) -> tuple[pd.DataFrame, list[str]]:
    """A whole readout table; without rows, and why, where it cannot be read."""
    try:
        rows = pd.concat([part.to_pandas() for part in _pieces(output, table, schema(table).names, None)])
    except (OSError, pa.ArrowException) as fault:
        return schema(table).empty_table().to_pandas(), [unreadable(table, fault)]
    return rows, []


def unreadable(table: str, fault: Exception) -> str:
    """What is said of a table that cannot be read."""
    path = names.readout(table, ".parquet")
    if isinstance(fault, FileNotFoundError):
        return f"The table {path} is missing: what this page takes from it is left out."
    return f"The table {path} cannot be read, so what this page takes from it is left out: {fault}"


@dataclass
class QualityMeasure:
    """A quality check of all participants: values (NaN where there is none) and the normal range."""

    name: str
    meaning: str
    units: str
    low: float
    high: float
    values: NDArray[np.float64]


@dataclass
class Quality:
    """The quality checks of the group: by measure, what is outside by participant, and unreadable files."""

    measures: dict[str, QualityMeasure] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_quality(output: Path, subjects: Sequence[str]) -> Quality:
    """The quality checks that the participants' outputs hold."""
    quality = Quality()
    for position, subject in enumerate(subjects):
        folder = output / subject
        for path in sorted([*folder.glob("pet/*_qc.json"), *folder.glob("ses-*/pet/*_qc.json")]):
            content = read_sidecar(path)
            if "desc" in names.entities_of(path.name):
                continue
            try:
                if STAMP_KEY not in content:
                    raise KeyError(STAMP_KEY)
                for check in content["Checks"]:
                    _add_check(quality, check, position, len(subjects))
                quality.flags.setdefault(subject, []).extend(str(flag) for flag in content["Flags"])
            except (KeyError, TypeError, ValueError):
                quality.problems.append(f"{path.relative_to(output)} holds no finished quality checks.")
    return quality


def _add_check(quality: Quality, check: Mapping[str, Any], position: int, n_participants: int) -> None:
    name = str(check["name"])
    if name not in quality.measures:
        quality.measures[name] = QualityMeasure(
            name,
            str(check["meaning"]),
            "" if check["units"] == "1" else str(check["units"]),
            float(check["low"]),
            float(check["high"]),
            np.full(n_participants, np.nan),
        )
    value = check["value"]
    quality.measures[name].values[position] = np.nan if isinstance(value, str) or value is None else value


# The step whose absence explains that of a part; parts as in the column Missing of the table metadata.
_STEP_OF = {
    "constants": "normalise",
    "static means": "static means",
    "curves": "tacs",
    "input functions": "input functions",
    "Patlak Ki": "patlak",
    **{f"{task.name} segmentation": f"segment {task.name}" for task in SEGMENTATION_TASKS},
}
_NOT_RECORDED = "no reason in the participant's logs"
_SPENT = re.compile(r" \([0-9.]+ s[^)]*\)$")


def missing_reasons(output: Path, subject: str, missing: str) -> list[tuple[str, str]]:
    """The parts that a participant lacks, those of one reason together, with the reason."""
    if missing.startswith("unreadable: "):
        return [("all tables", missing)]
    said = _last_said(output / subject)
    by_reason: dict[str, list[str]] = {}
    for part in missing.split(", ") if missing else []:
        if part.startswith("unfinished "):
            reason = "the run was cut off while it was written; run the participant level again"
        else:
            reason = said.get(_STEP_OF.get(part, part), _NOT_RECORDED)
        by_reason.setdefault(reason, []).append(part)
    return [(", ".join(parts), reason) for reason, parts in by_reason.items()]


def _last_said(folder: Path) -> dict[str, str]:
    """Why each step was skipped or failed, as the participant's newest log that mentions it says."""
    said: dict[str, str] = {}
    line = re.compile(rf" {re.escape(folder.name)} (?P<step>[a-z ]+): (?P<state>skipped|failed): (?P<why>.*)")
    for log in sorted(folder.glob("log/*/hedypet.log"), reverse=True):
        found: dict[str, str] = {}
        for text in _lines(log):
            match = line.search(text)
            if match:
                why = _SPENT.sub("", match["why"])
                found[match["step"]] = why if match["state"] == "skipped" else f"failed: {why}"
        said = found | said
    return said


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line.rstrip("\n") for line in file)
    except OSError:
        # A log that cannot be read says nothing; the page then has no reason to tell.
        return


def _pieces(output: Path, table: str, columns: Sequence[str], chosen: Any) -> Iterator[pa.RecordBatch]:
    path = output / names.readout(table, ".parquet")
    subject = ds.partitioning(pa.schema([("Subject", pa.string())]), flavor="hive")
    rows = ds.dataset(path, schema=schema(table), partitioning=subject if path.is_dir() else None)
    # Without a buffer for what comes next: memory then does not grow with the participants.
    scan = ds.ParquetFragmentScanOptions(pre_buffer=False)
    yield from rows.to_batches(
        columns=list(columns),
        filter=chosen,
        batch_readahead=1,
        fragment_readahead=1,
        fragment_scan_options=scan,
    )


def _regions_of(rows: pa.RecordBatch) -> tuple[list[Region], NDArray[np.intp]]:
    """The regions of some rows, and the position among them of each row's."""
    task, name = (rows.column(key).dictionary_encode() for key in _REGION[:2])
    erosion = rows.column(_REGION[2]).to_numpy(zero_copy_only=False).astype(np.int64)
    n_names, n_erosions = len(name.dictionary), int(erosion.max()) + 1
    code = (
        task.indices.to_numpy().astype(np.int64) * n_names + name.indices.to_numpy()
    ) * n_erosions + erosion
    codes, which = np.unique(code, return_inverse=True)
    tasks, labels = task.dictionary.to_pylist(), name.dictionary.to_pylist()
    regions = [
        Region(tasks[c // n_erosions // n_names], labels[c // n_erosions % n_names], int(c % n_erosions))
        for c in codes.tolist()
    ]
    return regions, which


def _shows(column: str, values: Values) -> bool:
    return column != VOLUME or bool((values > 0).any())
