"""The readout tables of the group, from the participants' outputs alone."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hedypet_bids import bids_names as names
from hedypet_bids.errors import HedypetError, NothingSelectedError
from hedypet_bids.io.atomic import atomic, write_text
from hedypet_bids.io.store import read_sidecar
from hedypet_bids.io.tables import FRAME_END, FRAME_START, MISSING, read_table
from hedypet_bids.labels import VOI_TASKS, task
from hedypet_bids.settings import Settings
from hedypet_bids.steps.data_dictionary import COLUMNS, TABLES
from hedypet_bids.steps.tacs import read_curves


@dataclass(frozen=True)
class GroupTables:
    """How many participants and rows the tables hold, and which participants could not be read."""

    n_participants: int
    rows: Mapping[str, int]
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Output:
    """One table of a participant, found by its name."""

    path: Path
    entities: Mapping[str, str]

    @property
    def task(self) -> str:
        return self.entities["seg"]

    @property
    def erosion(self) -> int:
        digits = "".join(c for c in self.entities.get("desc", "") if c.isdigit())
        return int(digits or 0)


def write_readouts(output: Path, _settings: Settings) -> GroupTables:
    """Write every readout table as Parquet and TSV with a data dictionary, participant by participant.

    A participant whose results cannot be read is left out of all tables but ``metadata``, where
    the reason stands, and is named in the result.

    Raises
    ------
    NothingSelectedError
        The output holds no participant.
    """
    labels = sorted(p.name.removeprefix("sub-") for p in output.glob("sub-*") if p.is_dir())
    if not labels:
        raise NothingSelectedError(f"{output} holds no sub-* folder. Run the participant level first.")
    problems: dict[str, str] = {}
    with ExitStack() as stack:
        files = {name: stack.enter_context(_TableFiles(output, name)) for name in TABLES}
        for label in labels:
            folder = output / f"sub-{label}"
            try:
                parts = {name: make(folder, label) for name, make in _MAKERS.items()}
            except (HedypetError, KeyError, ValueError) as fault:
                problems[label] = str(fault) if isinstance(fault, HedypetError) else f"{fault!r} in {folder}"
                unreadable = {"Subject": f"sub-{label}", "Missing": f"unreadable: {problems[label]}"}
                parts = {"metadata": pd.DataFrame([unreadable])}
            for name, part in parts.items():
                files[name].add(part)
    rows = {name: table.n_rows for name, table in files.items()}
    for name, columns in TABLES.items():
        dictionary = {column: COLUMNS[column].describe() for column in columns}
        write_text(output / names.readout(name, ".json"), json.dumps(dictionary, indent=2) + "\n")
    return GroupTables(len(labels), rows, problems)


class _TableFiles:
    """The Parquet and the TSV file of one table, written part by part; whole or not at all."""

    def __init__(self, output: Path, table: str) -> None:
        self.n_rows = 0
        self._columns = list(TABLES[table])
        self._schema = pa.schema([(name, COLUMNS[name].arrow) for name in self._columns])
        self._paths = [output / names.readout(table, extension) for extension in (".parquet", ".tsv.gz")]
        self._stack = ExitStack()

    def __enter__(self) -> _TableFiles:
        parquet, text = (self._stack.enter_context(atomic(path)) for path in self._paths)
        writer = pq.ParquetWriter(parquet, self._schema, compression="zstd")
        self._parquet = self._stack.enter_context(writer)
        raw = self._stack.enter_context(text.open("wb"))
        # No name and no time in the header: the same table gives the same bytes.
        self._text = self._stack.enter_context(gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0))
        self._text.write(("\t".join(self._columns) + "\n").encode())
        return self

    def __exit__(self, *fault: Any) -> None:
        self._stack.__exit__(*fault)

    def add(self, part: pd.DataFrame) -> None:
        """Write the rows of one participant."""
        if part.empty:
            return
        part = part.reindex(columns=self._columns)
        self.n_rows += len(part)
        self._parquet.write_table(pa.Table.from_pandas(part, schema=self._schema, preserve_index=False))
        text = part.to_csv(sep="\t", index=False, header=False, na_rep=MISSING, lineterminator="\n")
        self._text.write(text.encode())


def metadata_rows(folder: Path, label: str) -> pd.DataFrame:
    """One row: weight, dose, constants, and what is missing."""
    found = sorted(folder.rglob("*_norm.tsv"))
    row: dict[str, Any] = {"Subject": f"sub-{label}"}
    if found:
        table = read_table(found[0]).set_index("name")["value"]
        sidecar = read_sidecar(found[0])
        facts = sidecar.get("Participant", {})
        dose = _number(sidecar.get("InjectedActivityBq"))
        row |= {
            "Weight [kg]": _number(facts.get("weight_kg")),
            "Demographic Group [Sex,Age]": facts.get("demographic_group"),
            "Injected Activity [MBq]": dose / 1e6,
            "SUV Denominator [Bq/mL]": _number(table.get("suv")),
            "SUL Decazes Denominator [Bq/mL]": _number(table.get("sul_decazes")),
            "SUL Janma Denominator [Bq/mL]": _number(table.get("sul_janma")),
            "SUL James Denominator [Bq/mL]": _number(table.get("sul_james")),
            "Height [m]": _number(facts.get("height_m")),
            "Sex": facts.get("sex"),
            "Age [years]": _number(facts.get("age")),
        }
    row["Missing"] = names.listed(_missing(folder)) if _missing(folder) else None
    return pd.DataFrame([row])


def mean_rows(folder: Path, label: str) -> pd.DataFrame:
    """One row per region and erosion of the static PET."""
    tables = []
    for output in _outputs(folder, "*_seg-*_morph.tsv"):
        table = read_table(output.path)
        if "mean" not in table:
            continue
        tables.append(
            _head(label, output, table["index"], table["name"]).assign(
                **{
                    "PET Mean [Bq/mL]": table["mean"],
                    "PET STD [Bq/mL]": table["std"],
                    "Voxel Count": table["n_voxels"],
                    "Volume [mL]": table["volume"],
                    "Valid Voxel Count": table["n_valid"],
                }
            )
        )
    return _joined(tables)


def curve_rows(folder: Path, label: str) -> pd.DataFrame:
    """One row per region, erosion and frame of the dynamic PET."""
    vois = {voi.name for voi in VOI_TASKS}
    return _curve_rows(folder, label, lambda output: output.task not in vois)


def input_function_rows(folder: Path, label: str) -> pd.DataFrame:
    """One row per input function and frame."""
    vois = {voi.name for voi in VOI_TASKS}
    return _curve_rows(folder, label, lambda output: output.task in vois)


def _curve_rows(folder: Path, label: str, wanted: Any) -> pd.DataFrame:
    tables = []
    for output in _outputs(folder, "*_seg-*_tacs.tsv"):
        if output.entities.get("desc", "").startswith("std") or not wanted(output):
            continue
        table = read_table(output.path)
        regions = [c for c in table.columns if c not in (FRAME_START, FRAME_END)]
        frames, mean = read_curves(table)
        _, std = read_curves(read_table(_spread_file(output)))
        volumes = read_table(_volume_file(output))
        n = len(frames)
        tables.append(
            _head(label, output, volumes["index"].repeat(n), pd.Series(np.repeat(regions, n))).assign(
                **{
                    "Frame Index": np.tile(np.arange(n), len(regions)),
                    "Frame Time Middle [s]": np.tile(frames.mid_s, len(regions)),
                    "PET Mean [Bq/mL]": mean.ravel(),
                    "PET STD [Bq/mL]": std.ravel(),
                    "Voxel Count": volumes["n_voxels"].to_numpy().repeat(n),
                    "Volume [mL]": volumes["volume"].to_numpy().repeat(n),
                    "Frame Start [s]": np.tile(frames.start_s, len(regions)),
                    "Frame End [s]": np.tile(frames.end_s, len(regions)),
                }
            )
        )
    return _joined(tables)


def patlak_rows(folder: Path, label: str) -> pd.DataFrame:
    """One row per region, erosion, input function and window."""
    tables = []
    identifiers = {
        names.recording(voi.name, segment): names.input_function_identifier(voi.readout_name, segment)
        for voi in VOI_TASKS
        for segment in voi.table.names
    }
    for output in _outputs(folder, "*_model-Patlak_kinpar.tsv"):
        table = read_table(output.path)
        volumes = read_table(_volume_file(output)).set_index("index")
        tables.append(
            _head(label, output, table["index"], table["name"]).assign(
                **{
                    "Input Function Identifier": table["input_function"].map(identifiers),
                    "Regression Frames": pd.array(table["last_frames"], dtype="Int64"),
                    "Patlak Ki": table["Ki"],
                    "Voxel Count": table["index"].map(volumes["n_voxels"]),
                    "Volume [mL]": table["index"].map(volumes["volume"]),
                    "Patlak Ki SE": table["Ki_se"],
                    "Patlak V0": table["V0"],
                    "Patlak V0 SE": table["V0_se"],
                    "R2": table["r2"],
                    "Frames Used": table["n_used"],
                    "Window Start [s]": table["t_start"],
                    "Window End [s]": table["t_end"],
                }
            )
        )
    return _joined(tables)


def _head(label: str, output: _Output, index: Any, region: Any) -> pd.DataFrame:
    """The columns that say what a row is about."""
    return pd.DataFrame(
        {
            "Subject": f"sub-{label}",
            "Task": task(output.task).readout_name,
            "Label Index": np.asarray(index, dtype=np.int64),
            "Label Name": np.asarray(region, dtype=object),
            "Erosion Iterations": output.erosion,
        }
    )


def _outputs(folder: Path, pattern: str) -> Iterator[_Output]:
    """Finished tables of a participant; one without a sidecar was cut off and does not count."""
    for path in sorted(folder.rglob(pattern)):
        if names.sidecar_of(path).is_file():
            yield _Output(path, names.entities_of(path.name))


def _spread_file(output: _Output) -> Path:
    eroded = f"eroded{output.erosion}" if output.erosion else ""
    return output.path.with_name(_described(output, f"std{eroded}", "tacs"))


def _volume_file(output: _Output) -> Path:
    return output.path.with_name(
        _described(output, f"eroded{output.erosion}" if output.erosion else "", "morph")
    )


def _described(output: _Output, description: str, suffix: str) -> str:
    stem = output.path.name.split(f"_seg-{output.task}")[0]
    parts = [stem, f"seg-{output.task}", f"desc-{description}" if description else "", suffix]
    return "_".join(filter(None, parts)) + ".tsv"


def _missing(folder: Path) -> list[str]:
    """The parts of the study that a participant has no finished output of."""
    parts = {
        "constants": "*_norm.tsv",
        "static means": "*_seg-totalimage_morph.tsv",
        "curves": "*_seg-totalimage_tacs.tsv",
        "input functions": "*_blood.tsv",
        "Patlak Ki": "*_kinpar.tsv",
        **{
            f"{name} segmentation": f"*_seg-{name}_dseg.nii.gz"
            for name in ("total", "tissue", "body", "synthseg", "synthsegparc")
        },
    }
    return [part for part, pattern in parts.items() if not any(True for _ in _outputs(folder, pattern))]


def _number(value: object) -> float:
    if value is None or value == MISSING:
        return float("nan")
    return float(value)  # type: ignore[arg-type]


def _joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    tables = list(tables)
    if not tables:
        return pd.DataFrame()
    joined = pd.concat(tables, ignore_index=True)
    keys = [c for c in ("Task", "Label Index", "Erosion Iterations") if c in joined]
    return joined.sort_values(keys, kind="stable", ignore_index=True)


_MAKERS = {
    "metadata": metadata_rows,
    "means": mean_rows,
    "tacs": curve_rows,
    "input_function_tacs": input_function_rows,
    "patlak_ki": patlak_rows,
}
