"""The rows of one participant in every readout table, from its finished output tables alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.group.dictionary import COLUMNS, TABLES
from hedypet_bids.group.participant_files import Columns, FinishedTable, ParticipantFiles
from hedypet_bids.io.store import read_sidecar
from hedypet_bids.io.tables import FRAME_END, FRAME_START, MISSING
from hedypet_bids.labels import VOI_TASKS, Task

INPUT_FUNCTION_IDENTIFIERS: Mapping[str, str] = {
    names.recording(voi.name, segment): names.input_function_identifier(voi.readout_name, segment)
    for voi in VOI_TASKS
    for segment in voi.table.names
}

_KINETICS = {
    "Patlak Ki": "Ki",
    "Patlak Ki SE": "Ki_se",
    "Patlak V0": "V0",
    "Patlak V0 SE": "V0_se",
    "R2": "r2",
    "Window Start [s]": "t_start",
    "Window End [s]": "t_end",
}


@dataclass(frozen=True)
class ParticipantRows:
    """A participant's rows of each table but metadata, its metadata, and what was noticed."""

    metadata: Mapping[str, Any]
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    versions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def participant_rows(folder: Path, label: str) -> ParticipantRows:
    """All rows of one participant, sorted by task, region and erosion, without the column Subject.

    Tables without a whole sidecar were cut off and do not count; files of other programs are left
    alone. Both are named, in the metadata's ``Missing`` and in the notes.

    Raises
    ------
    BadDataError
        A finished table cannot be read, lacks a column, or says something twice.
    """
    files = ParticipantFiles.of(folder, label)
    curves = files.curves()
    tables = {
        "means": _means(files.means()),
        "tacs": _curves([table for table in curves if table.task not in VOI_TASKS]),
        "input_function_tacs": _curves([table for table in curves if table.task in VOI_TASKS]),
        "patlak_ki": _kinetics(files.kinetics()),
    }
    return ParticipantRows(_metadata(files, label), tables, tuple(sorted(files.versions)), tuple(files.notes))


def part_schema(table: str) -> pa.Schema:
    """The schema of one participant's rows: all columns but Subject."""
    return pa.schema([(name, COLUMNS[name].arrow) for name in TABLES[table][1:]])


@dataclass(frozen=True)
class _Regions:
    """The regions of a table of volumes and of the task's label table, by index."""

    index: NDArray[np.int64]
    name: list[str]
    row: NDArray[np.int64]
    n_voxels: NDArray[np.int64]
    volume: NDArray[np.float64]
    columns: Columns

    @classmethod
    def of(cls, path: Path, task: Task) -> _Regions:
        """The regions; one that is in the label table only has the row -1 and no voxels."""
        columns = Columns(path)
        found = columns.whole("index")
        row_of = {index: row for row, index in enumerate(found.tolist())}
        if len(row_of) < len(found):
            raise BadDataError(f"{path} lists a region twice. Run the participant level again.")
        name_of = dict(zip(task.table.indices, task.table.names, strict=True))
        name_of |= dict(zip(found.tolist(), columns.text("name"), strict=True))
        index = sorted(name_of)
        row = np.array([row_of.get(i, -1) for i in index], dtype=np.int64)
        return cls(
            np.array(index, dtype=np.int64),
            [name_of[i] for i in index],
            row,
            _at(columns.whole("n_voxels"), row, 0),
            _at(columns.real("volume"), row, 0.0),
            columns,
        )


def _at(values: NDArray[Any], rows: NDArray[np.int64], absent: float) -> NDArray[Any]:
    """Values of rows; ``absent`` for the row -1."""
    return np.append(values, absent)[rows].astype(values.dtype)


def _means(tables: Sequence[FinishedTable]) -> pa.Table:
    parts = []
    for table in tables:
        regions = _Regions.of(table.path, table.task)
        content = {
            "PET Mean [Bq/mL]": _at(regions.columns.real("mean"), regions.row, np.nan),
            "PET STD [Bq/mL]": _at(regions.columns.real("std"), regions.row, np.nan),
            "Valid Voxel Count": _at(regions.columns.whole("n_valid"), regions.row, 0),
        }
        parts.append(_part("means", table, regions, np.arange(len(regions.row)), content))
    return _sorted("means", parts)


def _curves(tables: Sequence[FinishedTable]) -> pa.Table:
    parts = []
    for table in tables:
        regions = _Regions.of(table.volumes, table.task)
        mean, std = Columns(table.path), Columns(table.spread)
        start, end = mean.real(FRAME_START), mean.real(FRAME_END)
        if not np.array_equal(start, std.real(FRAME_START)):
            raise BadDataError(
                f"{mean.path} and {std.path} have other frame times. Run the participant level again."
            )
        n, n_regions = len(start), len(regions.name)
        content = {
            "Frame Index": np.tile(np.arange(n), n_regions),
            "Frame Time Middle [s]": np.tile((start + end) / 2, n_regions),
            "PET Mean [Bq/mL]": _by_region(mean, regions.name, n),
            "PET STD [Bq/mL]": _by_region(std, regions.name, n),
            "Frame Start [s]": np.tile(start, n_regions),
            "Frame End [s]": np.tile(end, n_regions),
        }
        parts.append(_part("tacs", table, regions, np.repeat(np.arange(n_regions), n), content))
    return _sorted("tacs", parts)


def _by_region(columns: Columns, regions: Sequence[str], n_frames: int) -> NDArray[np.float64]:
    absent = np.full(n_frames, np.nan)
    return np.concatenate([columns.real(name) if name in columns else absent for name in regions])


def _kinetics(tables: Sequence[FinishedTable]) -> pa.Table:
    parts = []
    for table in tables:
        columns = Columns(table.path)
        regions = _Regions.of(table.volumes, table.task)
        index = columns.whole("index")
        unknown = index[~np.isin(index, regions.index)]
        if unknown.size:
            raise BadDataError(
                f"{table.path} has the region {unknown[0]}, which {table.volumes} does not have. "
                "Run the participant level again."
            )
        content = {
            "Input Function Identifier": [
                INPUT_FUNCTION_IDENTIFIERS.get(name, name) for name in columns.text("input_function")
            ],
            "Regression Frames": columns.array("last_frames", pa.int64()),
            "Frames Used": columns.array("n_used", pa.int64()),
            **{column: columns.real(source) for column, source in _KINETICS.items()},
        }
        parts.append(_part("patlak_ki", table, regions, np.searchsorted(regions.index, index), content))
    return _sorted("patlak_ki", parts)


def _part(
    name: str, table: FinishedTable, regions: _Regions, region: NDArray[Any], content: Mapping[str, Any]
) -> pa.Table:
    """Rows from one file, each about the region at position ``region``."""
    everything = {
        "Task": pa.repeat(table.task.readout_name, len(region)),
        "Label Index": regions.index[region],
        "Label Name": pa.array(regions.name, pa.string()).take(pa.array(region)),
        "Erosion Iterations": np.full(len(region), table.erosion),
        "Voxel Count": regions.n_voxels[region],
        "Volume [mL]": regions.volume[region],
        **content,
    }
    schema = part_schema(name)
    # from_pandas: a NaN is a missing value in Parquet too.
    arrays = [pa.array(everything[column.name], column.type, from_pandas=True) for column in schema]
    return pa.table(arrays, schema=schema)


def _sorted(name: str, parts: Sequence[pa.Table]) -> pa.Table:
    """The parts as one table, by task, region and erosion; rows of a region stay in their order."""
    parts = [part for part in parts if part.num_rows]
    if not parts:
        return part_schema(name).empty_table()
    # A part is of one task, so the order of the parts is that of the tasks.
    parts = sorted(parts, key=lambda part: part.column("Task")[0].as_py())
    rows = pa.concat_tables(parts).combine_chunks()
    task = rows.column("Task").combine_chunks().dictionary_encode().indices.to_numpy()
    keys = [rows.column(key).to_numpy() for key in ("Erosion Iterations", "Label Index")]
    return rows.take(pa.array(np.lexsort([*keys, task])))


def _metadata(files: ParticipantFiles, label: str) -> dict[str, Any]:
    """Weight, dose, constants, what is missing and what made the results."""
    constants = files.constants()
    return {
        "Subject": f"sub-{label}",
        **(_facts(constants) if constants else {}),
        "Missing": ", ".join(files.missing()) or None,
        "hedypet Version": ", ".join(sorted(files.versions)) or None,
    }


def _facts(path: Path) -> dict[str, Any]:
    columns = Columns(path)
    table = dict(zip(columns.text("name"), columns.real("value").tolist(), strict=True))
    sidecar = read_sidecar(path)
    facts = sidecar.get("Participant", {})
    try:
        return {
            "Weight [kg]": _number(facts.get("weight_kg")),
            "Demographic Group [Sex,Age]": _text(facts.get("demographic_group")),
            "Injected Activity [MBq]": _number(sidecar.get("InjectedActivityBq")) / 1e6,
            "SUV Denominator [Bq/mL]": _number(table.get("suv")),
            "SUL Decazes Denominator [Bq/mL]": _number(table.get("sul_decazes")),
            "SUL Janma Denominator [Bq/mL]": _number(table.get("sul_janma")),
            "SUL James Denominator [Bq/mL]": _number(table.get("sul_james")),
            "Height [m]": _number(facts.get("height_m")),
            "Sex": _text(facts.get("sex")),
            "Age [years]": _number(facts.get("age")),
        }
    except (AttributeError, TypeError, ValueError) as fault:
        raise BadDataError(f"{names.sidecar_of(path)} does not hold what it should: {fault}.") from fault


def _text(value: object) -> str | None:
    return None if value is None or value == MISSING else str(value)


def _number(value: object) -> float:
    if value is None or value == MISSING:
        return float("nan")
    return float(value)  # type: ignore[arg-type]
