"""The readout tables of the group, from the participants' outputs alone."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hedypet_bids import bids_names as names
from hedypet_bids.errors import NothingSelectedError
from hedypet_bids.io.atomic import atomic, write_text
from hedypet_bids.io.store import read_sidecar
from hedypet_bids.io.tables import FRAME_END, FRAME_START, MISSING, read_table
from hedypet_bids.labels import VOI_TASKS, task
from hedypet_bids.settings import Settings
from hedypet_bids.steps.data_dictionary import COLUMNS, TABLES
from hedypet_bids.steps.tacs import read_curves


@dataclass(frozen=True)
class GroupTables:
    """How many participants the tables hold, and how many rows each table has."""

    n_participants: int
    rows: Mapping[str, int]


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
    """Write every readout table as Parquet and TSV with a data dictionary.

    Raises
    ------
    NothingSelectedError
        The output holds no participant.
    """
    labels = sorted(p.name.removeprefix("sub-") for p in output.glob("sub-*") if p.is_dir())
    if not labels:
        raise NothingSelectedError(f"{output} holds no sub-* folder. Run the participant level first.")
    makers = {
        "metadata": metadata_rows,
        "means": mean_rows,
        "tacs": curve_rows,
        "input_function_tacs": input_function_rows,
        "patlak_ki": patlak_rows,
    }
    rows = {}
    for table, make in makers.items():
        parts = (make(output / f"sub-{label}", label) for label in labels)
        rows[table] = _write(output, table, parts)
    return GroupTables(len(labels), rows)


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


def _write(output: Path, table: str, parts: Iterable[pd.DataFrame]) -> int:
    """Write a table participant by participant, so that it never is in memory whole; returns its rows."""
    columns = TABLES[table]
    schema = pa.schema([(name, COLUMNS[name].arrow) for name in columns])
    parquet, tsv = (output / names.readout(table, e) for e in (".parquet", ".tsv.gz"))
    rows = 0
    with (
        atomic(parquet) as parquet_file,
        atomic(tsv) as tsv_file,
        pq.ParquetWriter(parquet_file, schema, compression="zstd") as writer,
        tsv_file.open("wb") as raw,
        # No name and no time in the header: the same table gives the same bytes.
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as zipped,
    ):
        zipped.write(("\t".join(columns) + "\n").encode())
        for part in parts:
            if part.empty:
                continue
            part = part.reindex(columns=list(columns))
            rows += len(part)
            writer.write_table(pa.Table.from_pandas(part, schema=schema, preserve_index=False))
            text = part.to_csv(sep="\t", index=False, header=False, na_rep=MISSING, lineterminator="\n")
            zipped.write(text.encode())
    dictionary = {name: COLUMNS[name].describe() for name in columns}
    write_text(output / names.readout(table, ".json"), json.dumps(dictionary, indent=2) + "\n")
    return rows
