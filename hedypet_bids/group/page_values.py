"""What the group's page shows of each scan: values by region, quality checks, reasons for gaps."""

from __future__ import annotations

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
from hedypet_bids.errors import BadDataError
from hedypet_bids.group.gaps import UNREADABLE, Gap, broken_scans, gaps_of
from hedypet_bids.group.rows import scan_columns
from hedypet_bids.group.scan_files import reconstruction_of
from hedypet_bids.group.tables import schema
from hedypet_bids.group.values import UPTAKE, VOLUME, main_parameters
from hedypet_bids.io.manifest import Manifest, ScanEntry, labels_with_outputs
from hedypet_bids.io.parquet import parquet_dataset
from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.names import SCAN_COLUMNS, ScanName
from hedypet_bids.settings import Settings

_INPUT_FUNCTION = "Input Function Identifier"
_REGION = ("Task", "Label Name", "Erosion Iterations")
Float32Array = NDArray[np.float32]


@dataclass(frozen=True, order=True)
class PageRegion:
    """A region as the readout tables name it."""

    task: str
    name: str
    erosion: int


@dataclass(frozen=True)
class PageScan:
    """A scan on the page.

    Parameters
    ----------
    columns
        Its row of the table metadata.
    title
        The participant, with what tells the scan from others where a participant has several.
    manifest, entry
        None where the participant has no manifest, or the scan is not in it.
    gaps
        What it lacks, and why.
    """

    columns: Mapping[str, Any]
    title: str
    manifest: Manifest | None
    entry: ScanEntry | None
    gaps: tuple[Gap, ...]

    def key(self, columns: Sequence[str]) -> str:
        """What its rows in a readout table have in some columns."""
        return "\t".join(str(self.columns[c]) if isinstance(self.columns[c], str) else "" for c in columns)

    @property
    def page(self) -> str:
        """The file name of its page; empty where there is none."""
        return self.entry.page if self.entry else ""

    @property
    def failed(self) -> list[str]:
        """The steps that failed in the last run."""
        return [gap.name for gap in self.gaps if gap.kind == "failed"]

    @property
    def missing(self) -> list[tuple[str, str]]:
        """What it lacks, that of one reason together, with the reason."""
        by_reason: dict[str, list[str]] = {}
        for gap in self.gaps:
            by_reason.setdefault(gap.reason, []).append(gap.name)
        return [(", ".join(lacking), reason) for reason, lacking in by_reason.items()]


def page_scans(output: Path, metadata: pd.DataFrame, settings: Settings) -> list[PageScan]:
    """The scans of the table metadata, in its order."""
    rows = metadata.to_dict("records")
    manifests = {subject: _manifest(output, subject) for subject in dict.fromkeys(metadata["Subject"])}
    scan_names = [_scan_name(row) for row in rows]
    told_apart_by = _told_apart_by(metadata["Subject"], scan_names)
    scans = []
    for row, name in zip(rows, scan_names, strict=True):
        manifest = manifests[row["Subject"]]
        entry = next((e for e in manifest.scans if e.name == name), None) if manifest else None
        parts = [f"{key}-{value}" for key, value in name.entities.items() if key in told_apart_by]
        gaps = _gaps(row, manifest, entry, settings)
        scans.append(PageScan(row, " ".join([row["Subject"], *parts]), manifest, entry, gaps))
    return scans


def _scan_name(row: Mapping[Any, Any]) -> ScanName:
    return ScanName(*(row[c] if isinstance(row[c], str) else "" for c in ("Session", "Tracer", "Run")))


def _told_apart_by(subjects: Sequence[str], scan_names: Sequence[ScanName]) -> set[str]:
    """The entities in which scans of one participant differ."""
    first: dict[str, ScanName] = {}
    differ: set[str] = set()
    for subject, name in zip(subjects, scan_names, strict=True):
        differ |= {key for key, _ in first.setdefault(subject, name).entities.items() ^ name.entities.items()}
    return differ


def _gaps(
    row: Mapping[Any, Any], manifest: Manifest | None, entry: ScanEntry | None, settings: Settings
) -> tuple[Gap, ...]:
    missing = row["Missing"]
    if isinstance(missing, str) and missing.startswith(UNREADABLE):
        return (Gap("all tables", missing),)
    if manifest is None:
        return ()
    if entry is None:
        return broken_scans(manifest).get(_scan_name(row), ())
    return gaps_of(manifest, entry, settings)


def metadata_of_manifests(output: Path, empty: pd.DataFrame) -> pd.DataFrame:
    """What stands for the table metadata where it cannot be read: which scans there are, and no more."""
    rows: list[dict[str, Any]] = []
    for label in labels_with_outputs(output):
        manifest = _manifest(output, f"sub-{label}")
        scans = manifest.scans if manifest else ()
        rows += [
            {
                "Subject": f"sub-{label}",
                **scan_columns(scan.name, reconstruction_of(next(iter(scan.statics), scan.dynamic))),
            }
            for scan in scans
        ] or [{"Subject": f"sub-{label}"}]
    return pd.concat([empty, pd.DataFrame(rows, columns=["Subject", *scan_columns(ScanName())])])


def _manifest(output: Path, subject: str) -> Manifest | None:
    try:
        return Manifest.read(output, names.participant_label(subject))
    except BadDataError:
        return None


@dataclass
class RegionTable:
    """A value a scan of each region and column, NaN where there is none."""

    scans: Sequence[PageScan]
    _values: dict[tuple[PageRegion, str], Float32Array] = field(default_factory=dict)

    @property
    def regions(self) -> list[PageRegion]:
        """Regions that someone has: with an uptake or a kinetic parameter, or a volume that is not 0."""
        found = {r for (r, column), v in self._values.items() if np.isfinite(v).any() and _shows(column, v)}
        return sorted(found)

    def has(self, column: str) -> bool:
        """Whether any scan has a value of any region."""
        return any(np.isfinite(v).any() for (_, of), v in self._values.items() if of == column)

    def of(self, region: PageRegion, column: str) -> Float32Array:
        """The values of all scans."""
        return self._values.get((region, column), self._nothing())

    def add(self, rows: pa.RecordBatch, columns: Mapping[str, str], keys: Sequence[str]) -> None:
        """Take in rows of a readout table, whose scan the columns ``keys`` tell; first values stay.

        Parameters
        ----------
        columns
            What the values are called here, by column of the table.
        """
        told = [pc.fill_null(rows.column(key).cast(pa.string()), "") for key in keys]
        of_scans = pa.array([scan.key(keys) for scan in self.scans], pa.string())
        members = pc.index_in(pc.binary_join_element_wise(*told, "\t"), of_scans)
        rows = rows.append_column("Member", members).filter(pc.is_valid(members))
        if not rows.num_rows:
            return
        member = rows.column("Member").to_numpy()
        regions, which = _regions_of(rows)
        order = np.argsort(which, kind="stable")
        starts = np.searchsorted(which[order], np.arange(len(regions) + 1))
        for source, column in columns.items():
            values = rows.column(source).to_numpy(zero_copy_only=False).astype(np.float32)
            for region, start, end in zip(regions, starts, starts[1:], strict=False):
                at = order[start:end]
                kept = self._values.setdefault((region, column), self._nothing())
                kept[member[at]] = np.where(np.isfinite(kept[member[at]]), kept[member[at]], values[at])

    def _nothing(self) -> Float32Array:
        return np.full(len(self.scans), np.nan, dtype=np.float32)


def read_region_values(output: Path, scans: Sequence[PageScan]) -> tuple[RegionTable, list[str]]:
    """Mean uptakes, volumes and the main parameter of each kinetic model, and which tables cannot be read.

    Tables are read piece by piece: what stays in memory is 4 bytes a scan, region and column. Uptakes are
    those of the static image that stands for the scan, volumes those of its grid, and of the dynamic PET's
    for scans without static PET.
    """
    values, problems = RegionTable(scans), []
    wanted: list[tuple[str, dict[str, str], Any, tuple[str, ...]]] = [
        ("means", {UPTAKE: UPTAKE, VOLUME: VOLUME}, None, (*SCAN_COLUMNS, "Reconstruction"))
    ]
    for quantity, (model, parameter) in main_parameters().items():
        chosen = (pc.field("Model") == model.name) & (pc.field("Parameter") == parameter.name)
        wanted.append(("kinetics", {"Value": quantity, VOLUME: VOLUME}, chosen, SCAN_COLUMNS))
    for table, columns, chosen, keys in wanted:
        try:
            for rows in _pieces(output, table, [*keys, *_REGION, *columns], chosen):
                values.add(rows, columns, keys)
        except (OSError, pa.ArrowException) as fault:
            problems.append(unreadable(table, fault))
    return values, list(dict.fromkeys(problems))


def read_input_functions(output: Path) -> list[str]:
    """The input functions of the fits that the page shows; none where their table cannot be read."""
    try:
        found = [rows.column(0).unique() for rows in _pieces(output, "kinetics", [_INPUT_FUNCTION], None)]
    except (OSError, pa.ArrowException):
        return []
    return sorted({name for unique in found for name in unique.to_pylist() if name})


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
    """A quality check of all scans: values (NaN where there is none) and the normal range."""

    name: str
    meaning: str
    units: str
    low: float
    high: float
    values: NDArray[np.float64]


@dataclass
class Quality:
    """The quality checks of the group: by measure, what is outside by scan, and unreadable files."""

    measures: dict[str, QualityMeasure] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_quality(output: Path, scans: Sequence[PageScan]) -> Quality:
    """The quality checks that the outputs hold, by the title of each scan."""
    quality = Quality()
    for position, scan in enumerate(scans):
        outputs = scan.manifest.of_scan(scan.entry) if scan.manifest and scan.entry else None
        path = outputs.get("quality") if outputs else None
        if path is None:
            continue
        content = read_sidecar(output / path)
        try:
            for check in content["Checks"]:
                _add_check(quality, check, position, len(scans))
            quality.flags.setdefault(scan.title, []).extend(str(flag) for flag in content["Flags"])
        except (KeyError, TypeError, ValueError):
            quality.problems.append(f"{path} holds no finished quality checks.")
    return quality


def _add_check(quality: Quality, check: Mapping[str, Any], position: int, n_scans: int) -> None:
    name = str(check["name"])
    if name not in quality.measures:
        quality.measures[name] = QualityMeasure(
            name,
            str(check["meaning"]),
            "" if check["units"] == "1" else str(check["units"]),
            float(check["low"]),
            float(check["high"]),
            np.full(n_scans, np.nan),
        )
    value = check["value"]
    quality.measures[name].values[position] = np.nan if isinstance(value, str) or value is None else value


def _pieces(output: Path, table: str, columns: Sequence[str], chosen: Any) -> Iterator[pa.RecordBatch]:
    path = output / names.readout(table, ".parquet")
    subject = ds.partitioning(pa.schema([("Subject", pa.string())]), flavor="hive")
    rows = parquet_dataset(
        path, format="parquet", schema=schema(table), partitioning=subject if path.is_dir() else None
    )
    # Without a buffer for what comes next: memory then does not grow with the participants.
    scan = ds.ParquetFragmentScanOptions(pre_buffer=False)
    yield from rows.to_batches(
        columns=list(columns),
        filter=chosen,
        batch_readahead=1,
        fragment_readahead=1,
        fragment_scan_options=scan,
    )


def _regions_of(rows: pa.RecordBatch) -> tuple[list[PageRegion], NDArray[np.intp]]:
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
        PageRegion(tasks[c // n_erosions // n_names], labels[c // n_erosions % n_names], int(c % n_erosions))
        for c in codes.tolist()
    ]
    return regions, which


def _shows(column: str, values: Float32Array) -> bool:
    return column != VOLUME or bool((values > 0).any())
