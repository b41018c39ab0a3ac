"""Readout tables on disk: the parts of each participant, then Parquet and TSV made from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from isal import isal_zlib

from hedypet_bids import names
from hedypet_bids.group.dictionary import COLUMNS, TABLES, column_of
from hedypet_bids.io.atomic import atomic, write_text
from hedypet_bids.io.tables import FORMULA, MISSING, NUMBER

PARTITION_ROWS = 1_000_000
"""A table with more rows is a folder of one Parquet file a participant."""

RUN_KEY = "hedypet_run"
"""In the metadata of a Parquet file: what the tables of one run of the group level have in common."""

_ROWS_PER_GROUP = 131_072
_GZIP_LEVEL, _GZIP_HEADER = 2, 31  # levels of isal are 0 to 3; 31 asks zlib for a gzip header without a time
_PART = "part-0.parquet"


def schema(table: str) -> pa.Schema:
    """Columns and types of a readout table."""
    return pa.schema([(name, COLUMNS[name].arrow) for name in TABLES[table]])


def write_part(folder: Path, table: str, subject: str, rows: pa.Table, run: str) -> int:
    """Write the rows (without Subject) of one participant as both formats; returns how many there are."""
    rows = _with_nulls(rows).replace_schema_metadata({RUN_KEY: run})
    if rows.num_rows:
        part = _part_folder(folder / table, subject)
        part.mkdir(parents=True)
        with (part / _PART).open("wb") as file:
            pq.write_table(rows, file, compression="zstd")
        _text_part(folder, table, subject).write_bytes(gzipped_rows(_with_subject(rows, subject)))
    return int(rows.num_rows)


def join_parts(
    folder: Path, table: str, subjects: Sequence[str], output: Path, run: str, *, partition: bool
) -> None:
    """Make the files of a table from the parts of its participants, in the order given."""
    there = [s for s in subjects if _part_folder(folder / table, s).is_dir()]
    with atomic(output / names.readout(table, ".tsv.gz")) as text, text.open("wb") as joined:
        joined.write(_header(table))
        for subject in there:
            with _text_part(folder, table, subject).open("rb") as part:
                shutil.copyfileobj(part, joined)
    final = output / names.readout(table, ".parquet")
    if partition:
        (folder / table).replace(final)
    else:
        _write_parquet(final, table, run, (_read_part(folder / table, subject) for subject in there))
    _write_dictionary(output, table)


def write_whole(output: Path, table: str, rows: pa.Table, run: str) -> None:
    """Write the three files of a small table."""
    rows = _with_nulls(rows)
    with atomic(output / names.readout(table, ".tsv.gz")) as text:
        text.write_bytes(_header(table) + (gzipped_rows(rows) if rows.num_rows else b""))
    _write_parquet(output / names.readout(table, ".parquet"), table, run, [rows])
    _write_dictionary(output, table)


def gzipped_rows(rows: pa.Table) -> bytes:
    """Rows as tab-separated text in one gzip member, without a header; ``n/a`` for what is missing."""
    text = pa.table([_as_text(column) for column in rows.columns], names=rows.column_names)
    sink = pa.BufferOutputStream()
    options = pa_csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    pa_csv.write_csv(text, sink, options)
    compressed: bytes = isal_zlib.compress(sink.getvalue(), _GZIP_LEVEL, _GZIP_HEADER)
    return compressed


def _with_nulls(rows: pa.Table) -> pa.Table:
    """The rows with NaN as what it stands for: a value that is missing."""
    for at, column in enumerate(rows.columns):
        if pa.types.is_floating(column.type):
            none = pa.scalar(None, column.type)
            rows = rows.set_column(at, rows.field(at), pc.if_else(pc.is_nan(column), none, column))
    return rows


def _as_text(column: Any) -> Any:
    if column.type != pa.string():
        return pc.fill_null(pc.cast(column, pa.string()), MISSING)
    # Few texts stand in many rows, so each is looked at once.
    parts = [chunk.dictionary_encode(null_encoding="encode") for chunk in column.chunks]
    return pa.chunked_array([_clean(part.dictionary).take(part.indices) for part in parts], pa.string())


def _clean(texts: Any) -> Any:
    # A line break or tab in free text (the reason of a failure) would make two cells of one.
    texts = pc.replace_substring_regex(texts, r'[\t\r\n"]+', " ")
    formula = pc.and_not(pc.match_substring_regex(texts, FORMULA), pc.match_substring_regex(texts, NUMBER))
    return pc.fill_null(pc.if_else(formula, pc.binary_join_element_wise("'", texts, ""), texts), MISSING)


def _header(table: str) -> bytes:
    line = "\t".join(TABLES[table]) + "\n"
    compressed: bytes = isal_zlib.compress(line.encode(), _GZIP_LEVEL, _GZIP_HEADER)
    return compressed


def _write_dictionary(output: Path, table: str) -> None:
    dictionary = {column: column_of(table, column).describe() for column in TABLES[table]}
    write_text(output / names.readout(table, ".json"), json.dumps(dictionary, indent=2) + "\n")


def _part_folder(table: Path, subject: str) -> Path:
    return table / f"Subject={subject}"


def _text_part(folder: Path, table: str, subject: str) -> Path:
    return folder / f"{table}_{subject}.tsv.gz"


def _read_part(table: Path, subject: str) -> pa.Table:
    with (_part_folder(table, subject) / _PART).open("rb") as file:
        return _with_subject(pq.read_table(file, partitioning=None), subject)


def _with_subject(rows: pa.Table, subject: str) -> pa.Table:
    return rows.add_column(0, "Subject", pa.repeat(subject, rows.num_rows))


def _write_parquet(path: Path, table: str, run: str, parts: Iterable[pa.Table]) -> None:
    columns = schema(table).with_metadata({RUN_KEY: run})
    # Opened by Python: Arrow takes no path that is not UTF-8.
    with (
        atomic(path) as temporary,
        temporary.open("wb") as file,
        pq.ParquetWriter(file, columns, compression="zstd") as writer,
    ):
        for rows in _gathered(parts):
            writer.write_table(rows)


def _gathered(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Parts joined until there are enough rows for a row group."""
    waiting: list[pa.Table] = []
    for part in parts:
        waiting.append(part)
        if sum(rows.num_rows for rows in waiting) >= _ROWS_PER_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
