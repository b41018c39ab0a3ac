"""The people whose input functions a study lends to others: a group table of hedypet or of hedyPET."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, MissingInputError
from hedypet_bids.io.parquet import parquet_dataset
from hedypet_bids.io.presence import refuse_other_kinds
from hedypet_bids.kernels.kinetics.model import KineticModel, is_trapped
from hedypet_bids.kernels.kinetics.population_input import PopulationInput, population_input
from hedypet_bids.model import FloatArray, FrameTimes, Person, PetMetadata
from hedypet_bids.settings import Settings

_TABLE = "input_function_tacs"
_ENDINGS = (".parquet", ".tsv.gz", ".tsv")
_MIDDLE, _START, _END = "Frame Time Middle [s]", "Frame Start [s]", "Frame End [s]"
_MEAN = "PET Mean [Bq/mL]"
_NEEDED = ("Subject", "Task", "Label Name", _MIDDLE, _MEAN)
_OPTIONAL = (_START, _END, "Session", "Tracer", "Run", "Reconstruction")
_SCAN = ("Session", "Tracer", "Run", "Reconstruction")
# The largest volume in the descending aorta has the least noise; hedyPET's own tables have the second only.
_TASKS = ("aortavois_combined", "aortavois_ml-full_width-3")
_PLACE = "descending"


def read_population(settings: Settings) -> PopulationInput | None:
    """The people of ``[kinetics] population_readouts``.

    Parameters
    ----------
    settings
        Those of the run.

    Returns
    -------
    PopulationInput or None
        None where the settings name no folder. Of each person the first scan with a tracer that is trapped
        counts, with the largest volume in the descending aorta that all tables have.

    Raises
    ------
    MissingInputError
        There is no such folder, or no such table in it.
    BadDataError
        The table cannot be read, lacks a column, or has fewer than 5 people that can be used.
    """
    if not settings.kinetics.population_readouts:
        return None
    path = _table_in(Path(settings.kinetics.population_readouts))
    return _read(path, path.stat().st_mtime_ns, settings.kinetics.tracers)


def of_scan(
    model: KineticModel, person: Person, metadata: PetMetadata | None, settings: Settings
) -> KineticModel:
    """A model with what it needs to know of a scan, and of the people that the settings name.

    Parameters
    ----------
    model
        Any.
    person
        Who was scanned.
    metadata
        Of the dynamic PET; None where there is none.
    settings
        Those of the run.

    Returns
    -------
    KineticModel
        The same where nothing is to be added.

    Raises
    ------
    MissingInputError, BadDataError
        As :func:`read_population`.
    """
    model = model.of(person)
    people = read_population(settings) if model.population else None
    if people is not None:
        model = model.of_population(people)
    return model if metadata is None else model.of_nuclide(metadata.radionuclide, metadata.half_life_s)


def _table_in(folder: Path) -> Path:
    expected = f"{_TABLE} with the ending {' or '.join(_ENDINGS)}"
    asked = "[kinetics] population_readouts"
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise MissingInputError(
            f"{asked}: {folder} {what}; expected a readouts folder with the table {expected}."
        )
    for ending in _ENDINGS:
        if (path := folder / f"{_TABLE}{ending}").exists():
            return path
    hint = ""
    if any(folder.glob(f"{_TABLE}.pkl*")):
        hint = " A pickle can run code when it is read, so it is not: convert it with pandas' to_parquet."
    raise MissingInputError(f"{asked}: {folder} has no table {expected}.{hint}")


@lru_cache(maxsize=4)
def _read(path: Path, _modified_ns: int, tracers: tuple[str, ...]) -> PopulationInput:
    """What a table holds; read again when it was written again."""
    table = _rows(path)
    if "Tracer" in table:
        known = Settings().with_values({"kinetics": {"tracers": tracers}})
        trapped = {name: is_trapped(name, known) for name in table["Tracer"].dropna().unique()}
        table = table[table["Tracer"].isna() | table["Tracer"].map(trapped).eq(True)]
    descending = table[table["Label Name"].astype(str).str.contains(_PLACE)]
    task = next((task for task in _TASKS if (descending["Task"] == task).any()), None)
    if task is None:
        raise BadDataError(
            f"{path} has no blood of the descending aorta with a trapped tracer ({', '.join(tracers)}); "
            f"expected rows with the Task {' or '.join(_TASKS)}."
        )
    people, checksum = [], hashlib.sha256()
    for subject, rows in descending[descending["Task"] == task].groupby("Subject", sort=True):
        frames, blood = _first_scan(path, str(subject), rows)
        people.append((frames, blood))
        for values in (frames.start_s, frames.duration_s, blood):
            checksum.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
    try:
        return population_input(people, source=f"sha256:{checksum.hexdigest()}")
    except BadDataError as fault:
        raise BadDataError(f"{path}: {fault}") from fault


def _rows(path: Path) -> pd.DataFrame:
    """The rows of the wanted volumes."""
    try:
        if path.suffix == ".parquet":
            subjects = ds.partitioning(pa.schema([("Subject", pa.string())]), flavor="hive")
            partitioning = subjects if path.is_dir() else None
            found = parquet_dataset(path, format="parquet", partitioning=partitioning)
            _check_columns(path, found.schema.names)
            columns = [name for name in (*_NEEDED, *_OPTIONAL) if name in found.schema.names]
            table = found.to_table(columns=columns, filter=ds.field("Task").isin(_TASKS)).to_pandas()
        else:
            refuse_other_kinds(path)
            text = dict.fromkeys(("Subject", "Task", "Label Name", *_SCAN), str)
            table = pd.read_csv(path, sep="\t", dtype=text, keep_default_na=False, na_values=["n/a", ""])
            _check_columns(path, table.columns)
            table = table[table["Task"].isin(_TASKS)]
        numbers = [name for name in (_MIDDLE, _START, _END, _MEAN) if name in table]
        return table.astype(dict.fromkeys(numbers, np.float64))
    except (OSError, EOFError, UnicodeDecodeError, ValueError, TypeError, pa.ArrowException) as fault:
        raise BadDataError(f"{path} cannot be read as the table {_TABLE}: {str(fault)[:200]}.") from fault


def _check_columns(path: Path, found: Sequence[str]) -> None:
    lacking = [name for name in _NEEDED if name not in found]
    if lacking:
        raise BadDataError(
            f"{path} lacks the column {names.listed(lacking)}; expected the table {_TABLE} of a group level. "
            f"Found {names.listed(list(found))}."
        )


def _first_scan(path: Path, subject: str, rows: pd.DataFrame) -> tuple[FrameTimes, FloatArray]:
    """Frames and blood of a person's first scan, the mean over the volumes in the descending aorta."""
    keys = [name for name in _SCAN if name in rows]
    if keys:
        scans = rows[keys].fillna("").astype(str).agg("\t".join, axis=1)
        rows = rows[scans == scans.min()]
    curves = rows.pivot_table(index=_MIDDLE, columns="Label Name", values=_MEAN, dropna=False, aggfunc="mean")
    middle = curves.index.to_numpy(dtype=np.float64)
    try:
        if _START in rows and _END in rows and rows[[_START, _END]].notna().all(axis=None):
            times = rows.groupby(_MIDDLE)[[_START, _END]].first()
            frames = FrameTimes(times[_START], times[_END] - times[_START])
        else:
            frames = _frames_that_meet(middle)
    except BadDataError as fault:
        raise BadDataError(f"{path}: the frames of {subject} cannot be: {fault}") from fault
    return frames, curves.to_numpy(dtype=np.float64).mean(axis=1)


def _frames_that_meet(middle: FloatArray) -> FrameTimes:
    """Frames from their middles, where the first starts with the injection and no time is between them."""
    edges = [0.0]
    for time in np.asarray(middle):
        edges.append(2.0 * float(time) - edges[-1])
    return FrameTimes(np.array(edges[:-1]), np.diff(edges))
