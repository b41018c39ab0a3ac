"""The rows of one scan in every readout table, from the tables that its manifest lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.group.dictionary import COLUMNS, TABLES
from hedypet_bids.group.scan_files import ScanFiles, reconstruction_of
from hedypet_bids.group.table_file import TableFile
from hedypet_bids.io.tables import FRAME_END, FRAME_START, MISSING, injection_start_s
from hedypet_bids.kernels.kinetics import KineticModel, known_models
from hedypet_bids.kernels.region_statistics import RegionKey
from hedypet_bids.labels import INPUT_TASKS, Task, task
from hedypet_bids.names import ScanName
from hedypet_bids.settings import Settings

INPUT_FUNCTION_IDENTIFIERS: Mapping[str, str] = {
    names.recording(voi.name, segment): names.input_function_identifier(voi.readout_name, segment)
    for voi in INPUT_TASKS
    for segment in voi.table.names
}

# hedyPET's table of one model, with all its windows; every model is in the table kinetics.
_PATLAK = "Patlak"
_PATLAK_COLUMNS = {
    "Patlak Ki": "Ki",
    "Patlak Ki SE": "Ki_se",
    "Patlak V0": "V0",
    "Patlak V0 SE": "V0_se",
    "R2": "r2",
    "Window Start [s]": "t_start",
    "Window End [s]": "t_end",
}
_VOIS = frozenset(voi.name for voi in INPUT_TASKS)


def scan_tables(files: ScanFiles, settings: Settings) -> dict[str, pa.Table]:
    """All rows of a scan but those of metadata, without the column Subject.

    They are sorted by task, region and erosion; further static reconstructions come after that which stands
    for the scan.

    Raises
    ------
    BadDataError
        A table cannot be read, lacks a column, or says something twice.
    """
    regions = _RegionsByKey(files)
    curves = [key for key in files.outputs.of("mean") if key[0] not in _VOIS]
    vois = [key for key in files.outputs.of("mean") if key[0] in _VOIS]
    patlak = files.outputs.of("kinetics", _PATLAK)
    return {
        "means": _sorted("means", list(_means(files))),
        "tacs": _sorted("tacs", [_curves(files, key, regions[key]) for key in curves]),
        "input_function_tacs": _sorted("tacs", [_curves(files, key, regions[key]) for key in vois]),
        "patlak_ki": _sorted("patlak_ki", [_patlak(files, key, regions[key]) for key in patlak]),
        "kinetics": _sorted("kinetics", list(_kinetics(files, regions, settings))),
    }


def scan_metadata(files: ScanFiles) -> dict[str, Any]:
    """Weight, dose, constants, which scan it is, and what made its results."""
    return {
        "Subject": f"sub-{files.label}",
        **(_constants(files) if files.outputs.get("constants") else {}),
        "hedypet Version": ", ".join(sorted(files.versions)) or None,
        **scan_columns(files.entry.name, files.reconstruction),
    }


def scan_columns(name: ScanName, reconstruction: str = "") -> dict[str, str | None]:
    """The columns that tell scans apart; None for what file names do not say."""
    return {
        "Session": name.session or None,
        "Tracer": name.tracer or None,
        "Run": name.run or None,
        "Reconstruction": reconstruction or None,
    }


def participant_schema(table: str) -> pa.Schema:
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

    @classmethod
    def of(cls, table: TableFile, task: Task) -> _Regions:
        """The regions; one that is in the label table only has the row -1 and no voxels."""
        found = table.whole("index")
        row_of = {index: row for row, index in enumerate(found.tolist())}
        if len(row_of) < len(found):
            raise BadDataError(f"{table.path} lists a region twice. Run the participant level again.")
        name_of = dict(zip(task.table.indices, task.table.names, strict=True))
        name_of |= dict(zip(found.tolist(), table.text("name"), strict=True))
        index = sorted(name_of)
        row = np.array([row_of.get(i, -1) for i in index], dtype=np.int64)
        return cls(
            np.array(index, dtype=np.int64),
            [name_of[i] for i in index],
            row,
            _at(table.whole("n_voxels"), row, 0),
            _at(table.real("volume"), row, 0.0),
        )

    def positions(self, index: NDArray[np.int64], table: TableFile) -> NDArray[np.intp]:
        """Where the regions of another table stand among these."""
        unknown = index[~np.isin(index, self.index)]
        if unknown.size:
            raise BadDataError(
                f"{table.path} has the region {unknown[0]}, which the table of volumes does not have. "
                "Run the participant level again."
            )
        return np.searchsorted(self.index, index)


class _RegionsByKey(dict[RegionKey, _Regions]):
    """The regions of the dynamic series, read when first asked for."""

    def __init__(self, files: ScanFiles) -> None:
        super().__init__()
        self._files = files

    def __missing__(self, key: RegionKey) -> _Regions:
        self[key] = _Regions.of(self._files.table("volumes", *key), task(key[0]))
        return self[key]


def _at(values: NDArray[Any], rows: NDArray[np.int64], absent: float) -> NDArray[Any]:
    """Values of rows; ``absent`` for the row -1."""
    return np.append(values, absent)[rows].astype(values.dtype)


def _means(files: ScanFiles) -> Iterator[pa.Table]:
    order = [files.static, *files.entry.statics]
    keys = sorted(files.outputs.of("means"), key=lambda key: [*order, key[0]].index(key[0]))
    for file_name, *key in keys:
        table = files.table("means", file_name, *key)
        regions = _Regions.of(table, task(key[0]))
        content = {
            "PET Mean [Bq/mL]": _at(table.real("mean"), regions.row, np.nan),
            "PET STD [Bq/mL]": _at(table.real("std"), regions.row, np.nan),
            "Valid Voxel Count": _at(table.whole("n_valid"), regions.row, 0),
        }
        scan = scan_columns(files.entry.name, reconstruction_of(file_name))
        yield _rows("means", (key[0], key[1]), regions, np.arange(len(regions.row)), {**content, **scan})


def _curves(files: ScanFiles, key: RegionKey, regions: _Regions) -> pa.Table:
    mean, std = files.table("mean", *key), files.table("std", *key)
    injection_s = injection_start_s(mean.path, files.sidecar("mean", *key))
    start, end = mean.real(FRAME_START), mean.real(FRAME_END)
    if not np.array_equal(start, std.real(FRAME_START)):
        raise BadDataError(
            f"{mean.path} and {std.path} have other frame times. Run the participant level again."
        )
    start, end = start - injection_s, end - injection_s
    n, n_regions = len(start), len(regions.name)
    content = {
        "Frame Index": np.tile(np.arange(n), n_regions),
        "Frame Time Middle [s]": np.tile((start + end) / 2, n_regions),
        "PET Mean [Bq/mL]": _by_region(mean, regions.name, n),
        "PET STD [Bq/mL]": _by_region(std, regions.name, n),
        "Frame Start [s]": np.tile(start, n_regions),
        "Frame End [s]": np.tile(end, n_regions),
        **scan_columns(files.entry.name, files.dynamic_reconstruction),
    }
    return _rows("tacs", key, regions, np.repeat(np.arange(n_regions), n), content)


def _by_region(table: TableFile, regions: Sequence[str], n_frames: int) -> NDArray[np.float64]:
    absent = np.full(n_frames, np.nan)
    return np.concatenate([table.real(name) if name in table else absent for name in regions])


def _patlak(files: ScanFiles, key: RegionKey, regions: _Regions) -> pa.Table:
    table = files.table("kinetics", _PATLAK, *key)
    content = {
        "Input Function Identifier": _identifiers(table.array("input_function", pa.string())),
        "Regression Frames": table.array("last_frames", pa.int64()),
        "Frames Used": table.array("n_used", pa.int64()),
        **{column: table.real(source) for column, source in _PATLAK_COLUMNS.items()},
        **scan_columns(files.entry.name, files.dynamic_reconstruction),
    }
    return _rows("patlak_ki", key, regions, regions.positions(table.whole("index"), table), content)


def _identifiers(recordings: Any) -> pa.Array:
    """hedyPET's names of input functions."""
    found = recordings.dictionary_encode()
    renamed = [INPUT_FUNCTION_IDENTIFIERS.get(name, name) for name in found.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(found.indices, pa.array(renamed, pa.string())).cast(pa.string())


def _kinetics(
    files: ScanFiles, regions: Mapping[RegionKey, _Regions], settings: Settings
) -> Iterator[pa.Table]:
    """The fits that each model shows, a row a region and parameter."""
    for model in known_models().values():
        for key in files.outputs.of("kinetics", model.name):
            table = files.table("kinetics", model.name, *key)
            try:
                shown = model.shown(table.frame(), settings)
                index = shown["index"].to_numpy(dtype=np.int64)
                content = {
                    **_fits(model, shown),
                    **scan_columns(files.entry.name, files.dynamic_reconstruction),
                }
            except (KeyError, TypeError, ValueError) as fault:
                raise BadDataError(
                    f"{table.path} does not hold what {model.title} makes ({fault}). Run the participant "
                    "level again."
                ) from fault
            positions = np.repeat(regions[key].positions(index, table), len(model.parameters))
            yield _rows("kinetics", key, regions[key], positions, content)


def _fits(model: KineticModel, shown: pd.DataFrame) -> dict[str, Any]:
    """Columns of the table kinetics: of each region every parameter."""
    n_regions = len(shown)
    values = [shown[parameter.name].to_numpy(dtype=np.float64) for parameter in model.parameters]
    errors = [
        shown[f"{parameter.name}_se"].to_numpy(dtype=np.float64)
        if f"{parameter.name}_se" in shown
        else np.full(n_regions, np.nan)
        for parameter in model.parameters
    ]
    blood = shown["input_function"].tolist() if "input_function" in shown else [""] * n_regions
    reasons = shown["reason"].tolist() if "reason" in shown else [None] * n_regions
    identifiers = [INPUT_FUNCTION_IDENTIFIERS.get(name, name) or None for name in blood]
    return {
        "Model": model.name,
        "Input Function Identifier": [name for name in identifiers for _ in model.parameters],
        "Parameter": [parameter.name for parameter in model.parameters] * n_regions,
        "Value": np.ravel(values, order="F"),
        "SE": np.ravel(errors, order="F"),
        "Units": [parameter.units for parameter in model.parameters] * n_regions,
        "Reason": [why if isinstance(why, str) else None for why in reasons for _ in model.parameters],
    }


def _rows(
    name: str, key: RegionKey, regions: _Regions, positions: NDArray[Any], content: Mapping[str, Any]
) -> pa.Table:
    """Rows from one file, each about the region at one of the positions; text and None are of all rows."""
    n = len(positions)
    everything = {
        "Task": task(key[0]).readout_name,
        "Label Index": regions.index[positions],
        "Label Name": pa.array(regions.name, pa.string()).take(pa.array(positions)),
        "Erosion Iterations": np.full(n, key[1]),
        "Voxel Count": regions.n_voxels[positions],
        "Volume [mL]": regions.volume[positions],
        **content,
    }
    schema = participant_schema(name)
    arrays = [_array(everything[column.name], column.type, n) for column in schema]
    return pa.table(arrays, schema=schema)


def _array(values: Any, kind: Any, n_rows: int) -> pa.Array:
    if values is None or isinstance(values, str):
        return pa.repeat(pa.scalar(values, kind), n_rows)
    # from_pandas: a NaN is a missing value in Parquet too.
    return pa.array(values, kind, from_pandas=True)


def _sorted(name: str, parts: Sequence[pa.Table]) -> pa.Table:
    """The rows of all files by task, region and erosion; rows of a region stay in their order."""
    parts = [part for part in parts if part.num_rows]
    if not parts:
        return participant_schema(name).empty_table()
    # Each is of one task, so their order is that of the tasks.
    parts = sorted(parts, key=lambda part: part.column("Task")[0].as_py())
    rows = pa.concat_tables(parts).combine_chunks()
    in_order = rows.column("Task").combine_chunks().dictionary_encode().indices.to_numpy()
    keys = [rows.column(key).to_numpy() for key in ("Erosion Iterations", "Label Index")]
    return rows.take(pa.array(np.lexsort([*keys, in_order])))


def _constants(files: ScanFiles) -> dict[str, Any]:
    table = files.table("constants")
    value = dict(zip(table.text("name"), table.real("value").tolist(), strict=True))
    sidecar = files.sidecar("constants")
    person = sidecar.get("Participant", {})
    try:
        return {
            "Weight [kg]": _number(person.get("weight_kg")),
            "Demographic Group [Sex,Age]": _text(person.get("demographic_group")),
            "Injected Activity [MBq]": _number(sidecar.get("InjectedActivityBq")) / 1e6,
            "SUV Denominator [Bq/mL]": _number(value.get("suv")),
            "SUL Decazes Denominator [Bq/mL]": _number(value.get("sul_decazes")),
            "SUL Janma Denominator [Bq/mL]": _number(value.get("sul_janma")),
            "SUL James Denominator [Bq/mL]": _number(value.get("sul_james")),
            "Height [m]": _number(person.get("height_m")),
            "Sex": _text(person.get("sex")),
            "Age [years]": _number(person.get("age")),
        }
    except (AttributeError, TypeError, ValueError) as fault:
        raise BadDataError(f"The sidecar of {table.path} does not hold what it should: {fault}.") from fault


def _text(value: object) -> str | None:
    return None if value is None or value == MISSING else str(value)


def _number(value: object) -> float:
    if value is None or value == MISSING:
        return float("nan")
    return float(value)  # type: ignore[arg-type]
