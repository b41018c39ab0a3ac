"""The readout tables of the group, from the participants' outputs alone."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, HedypetError, NothingSelectedError, TryAgainError
from hedypet_bids.group.dictionary import PARTICIPANT_TABLES
from hedypet_bids.group.gaps import UNREADABLE, broken_scans, gaps_of, missing_text
from hedypet_bids.group.repeatability import repeatability_tables
from hedypet_bids.group.rows import participant_schema, scan_columns, scan_metadata, scan_tables
from hedypet_bids.group.scan_files import ScanFiles
from hedypet_bids.group.splits import Splits
from hedypet_bids.group.statistics import outliers_table, statistics_table
from hedypet_bids.group.tables import PARTITION_ROWS, join_parts, schema, write_part, write_whole
from hedypet_bids.group.values import RegionValues, StudyValues, region_values
from hedypet_bids.io.atomic import publish_folder, temporary_folder, write_error
from hedypet_bids.io.between_processes import check_locks_between
from hedypet_bids.io.manifest import Manifest, ScanEntry, labels_with_outputs
from hedypet_bids.settings import Settings, digest, plain
from hedypet_bids.version import __version__

_log = logging.getLogger("hedypet")

# Starting a process takes as long as reading a few participants.
_PARTICIPANTS_PER_PROCESS = 4
_WARNINGS_SHOWN = 20


@dataclass(frozen=True)
class GroupTables:
    """How many participants and rows the tables hold, which could not be read, and what was noticed.

    Parameters
    ----------
    problems
        Why results of a participant cannot be read, by label; its other scans are in the tables.
    failures
        Steps that failed in the last run of a participant whose other results are in the tables, by label.
    exit_code
        Of the group level: 65 where nothing is wrong but missing manifests, else 1 where anything is.
    run
        What all tables carry as ``hedypet_run`` in the metadata of their Parquet files.
    """

    n_participants: int
    rows: Mapping[str, int]
    problems: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    exit_code: int = 0
    run: str = ""


@dataclass(frozen=True)
class _ReadScan:
    """What was read of a scan; without its tables once they are on disk."""

    metadata: Mapping[str, Any]
    values: tuple[RegionValues, ...] = ()
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    versions: frozenset[str] = frozenset()
    problem: str = ""


@dataclass(frozen=True)
class _Read:
    """What is left in memory of a participant once its rows are on disk."""

    label: str
    scans: Sequence[_ReadScan]
    rows: Mapping[str, int] = field(default_factory=dict)
    versions: frozenset[str] = frozenset()
    problem: str = ""
    failed: str = ""
    has_manifest: bool = True


def write_readouts(
    output: Path,
    settings: Settings,
    *,
    labels: Sequence[str] | None = None,
    splits: Splits | None = None,
    nprocs: int | None = None,
    partition_rows: int = PARTITION_ROWS,
) -> GroupTables:
    """Write every readout table as Parquet and TSV with a data dictionary; all take their place at once.

    A scan whose results cannot be read is left out of all tables but ``metadata``, where the reason
    stands, and its participant is named in the result. Participants are read side by side and their rows
    go to disk at once, so memory does not grow with them but for their metadata and statistics.

    Parameters
    ----------
    labels
        The participants to read, without ``sub-``; None for all of the output.

    Raises
    ------
    NothingSelectedError
        The output holds no participant, or none of the split.
    TryAgainError
        A process reading participants was killed.
    """
    splits = splits or Splits()
    present = list(labels_with_outputs(output))
    if not present:
        raise NothingSelectedError(f"{output} holds no sub-* folder. Run the participant level first.")
    labels = splits.select(present if labels is None else labels)
    run = _run_of(output, labels, settings, splits)
    with _replaced(output) as made, temporary_folder(made) as parts:
        work = partial(_read_participant, output=output, parts=parts, settings=settings, run=run)
        reads, values = [], StudyValues()
        for read in _side_by_side(work, labels, nprocs or _available_cpus()):
            split = splits.of(read.label)
            scans = [replace(scan, metadata={**scan.metadata, "Split": split}) for scan in read.scans]
            for scan in scans:
                values.add(scan.metadata, scan.values)
            reads.append(replace(read, scans=[replace(scan, values=()) for scan in scans]))
        rows = _write_tables(made, parts, reads, values, run, partition_rows)
    problems = {read.label: read.problem for read in reads if read.problem}
    failures = {read.label: read.failed for read in reads if read.failed}
    wrong = failures or any(read.problem and read.has_manifest for read in reads)
    code = HedypetError.exit_code if wrong else BadDataError.exit_code if problems else 0
    warnings = _warnings(reads, splits, present)
    return GroupTables(len(labels), rows, problems, warnings, failures, code, run)


def _run_of(output: Path, labels: Sequence[str], settings: Settings, splits: Splits) -> str:
    """What tells the tables of a run from others: that of the same results is the same, as are its bytes."""
    results: list[object] = []
    for label in labels:
        # A manifest that cannot be read is told when the rows of its participant are read.
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads((output / names.manifest(label)).read_bytes())
            failed = [step for step in content["steps"] if step["state"] == "failed"]
            results.append((label, content["scans"], content["outputs"], failed))
    members = {name: sorted(labels) for name, labels in splits.members.items()}
    return digest(__version__, plain(settings), labels, members, results)


@contextmanager
def _replaced(output: Path) -> Iterator[Path]:
    """A folder whose ``readouts`` takes the place of that of the output when the block ends well."""
    # Beside the old tables, also where these are a link to another disc: only there they can be renamed.
    final = (output / "readouts").resolve()
    try:
        with temporary_folder(final.parent) as folder:
            made = folder / "readouts"
            made.mkdir()
            yield folder
            publish_folder(made, final)
    except OSError as fault:
        raise write_error(final, fault) from fault


def _read_participant(label: str, *, output: Path, parts: Path, settings: Settings, run: str) -> _Read:
    """Write a participant's rows into ``parts``; returns what the tables of all participants need."""
    subject = f"sub-{label}"
    try:
        manifest = Manifest.read(output, label)
    except BadDataError as fault:
        metadata = {"Subject": subject, "Missing": f"{UNREADABLE}{fault}"}
        return _Read(label, (_ReadScan(metadata),), problem=str(fault), has_manifest=False)
    scans = [_read_scan(output, manifest, entry, settings) for entry in manifest.scans]
    for name, gaps in broken_scans(manifest).items():
        scans.append(_ReadScan({"Subject": subject, "Missing": missing_text(gaps), **scan_columns(name)}))
    tables = {
        name: pa.concat_tables([scan.tables[name] for scan in scans if scan.tables] or [_no_rows(name)])
        for name in PARTICIPANT_TABLES
    }
    try:
        written = {name: write_part(parts, name, subject, table, run) for name, table in tables.items()}
    except OSError as fault:
        raise write_error(parts, fault) from fault
    versions = frozenset[str]().union(*(scan.versions for scan in scans))
    failed = "; ".join(f"{record.title}: {record.reason}" for record in manifest.failed)
    problem = "; ".join(scan.problem for scan in scans if scan.problem)
    return _Read(label, [replace(scan, tables={}) for scan in scans], written, versions, problem, failed)


def _read_scan(output: Path, manifest: Manifest, entry: ScanEntry, settings: Settings) -> _ReadScan:
    """The rows and values of a scan; one that cannot be read costs no other."""
    try:
        files = ScanFiles.of(output, manifest, entry)
        tables = scan_tables(files, settings)
        values = region_values(files, tables, everything=len(manifest.scans) > 1)
        missing = missing_text(gaps_of(manifest, entry, settings))
        metadata = {**scan_metadata(files), "Missing": missing}
    except BadDataError as fault:
        told = {"Subject": f"sub-{manifest.label}", "Missing": f"{UNREADABLE}{fault}"}
        return _ReadScan({**told, **scan_columns(entry.name)}, problem=str(fault))
    return _ReadScan(metadata, values, tables, frozenset(files.versions))


def _no_rows(table: str) -> pa.Table:
    return participant_schema(table).empty_table()


def _side_by_side(work: Callable[[str], _Read], labels: Sequence[str], nprocs: int) -> Iterator[_Read]:
    """Results in the order of the labels, from as many processes as are worth starting."""
    n_workers = min(nprocs, len(labels) // _PARTICIPANTS_PER_PROCESS)
    if n_workers <= 1:
        yield from map(work, labels)
        return
    check_locks_between()
    # Spawned: a fork would copy the threads' locks of pyarrow and numba.
    with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(work, labels, chunksize=_PARTICIPANTS_PER_PROCESS)
        except BrokenProcessPool as fault:
            raise TryAgainError(
                "A process reading participants was killed, most often for lack of memory. "
                "Run the same command again with fewer processes (--nprocs)."
            ) from fault
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _write_tables(
    output: Path, parts: Path, reads: Sequence[_Read], values: StudyValues, run: str, partition_rows: int
) -> dict[str, int]:
    metadata = [dict(scan.metadata) for read in reads for scan in read.scans]
    write_whole(output, "metadata", pa.Table.from_pylist(metadata, schema=schema("metadata")), run)
    rows = {"metadata": len(metadata)}
    subjects = [f"sub-{read.label}" for read in reads]
    for name in PARTICIPANT_TABLES:
        rows[name] = sum(read.rows.get(name, 0) for read in reads)
        join_parts(parts, name, subjects, output, run, partition=rows[name] > partition_rows)
    of_study = {"statistics": statistics_table(values), "outliers": outliers_table(values)}
    for name, table in {**of_study, **repeatability_tables(values)}.items():
        write_whole(output, name, table, run)
        rows[name] = table.num_rows
    return rows


def _warnings(reads: Sequence[_Read], splits: Splits, present: Sequence[str]) -> tuple[str, ...]:
    """Say what is odd about the outputs, in the log too."""
    warnings: list[str] = []
    by_version: dict[str, list[str]] = {}
    for read in reads:
        for version in sorted(read.versions):
            by_version.setdefault(version, []).append(f"sub-{read.label}")
    if len(by_version) > 1:
        listed = "; ".join(f"{v} ({_some(subjects)})" for v, subjects in sorted(by_version.items()))
        warnings.append(
            f"The outputs were made by several versions of hedypet: {listed}. Run the participant level "
            "again to make all with one."
        )
    unknown = sorted(frozenset().union(*splits.members.values()) - {*present})
    if unknown and splits.chosen is None:
        warnings.append(f"The splits name participants without outputs: {_some(unknown)}.")
    for warning in warnings[:_WARNINGS_SHOWN]:
        _log.warning("%s", warning)
    if len(warnings) > _WARNINGS_SHOWN:
        _log.warning("... and %d more warnings; all are in group.html", len(warnings) - _WARNINGS_SHOWN)
    return tuple(warnings)


def _some(items: Sequence[str], most: int = 5) -> str:
    """The first items and how many there are more."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
