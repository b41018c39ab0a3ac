"""Readout tables on disk: what is missing is missing in every format."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hedypet_bids import names
from hedypet_bids.group.dictionary import TABLES
from hedypet_bids.group.tables import join_parts, schema, write_part, write_whole


def rows(table: str, subject: bool) -> pa.Table:
    """Three rows of a table whose numbers are 1.5, NaN and null."""
    values = {pa.float64(): [1.5, float("nan"), None], pa.int64(): [1, 2, None], pa.string(): ["a", "", None]}
    fields = [field for field in schema(table) if subject or field.name != "Subject"]
    return pa.table(
        [pa.array(values.get(field.type, [None] * 3), field.type) for field in fields],
        schema=pa.schema(fields),
    )


def check(output: Path, table: str) -> None:
    kept = pq.read_table(output / names.readout(table, ".parquet"))
    numbers = [name for name in kept.column_names if pa.types.is_float64(kept.schema.field(name).type)]
    text = pd.read_csv(
        output / names.readout(table, ".tsv.gz"), sep="\t", na_values="n/a", keep_default_na=False, dtype=None
    )
    assert numbers
    for name in numbers:
        assert kept[name].null_count == 2
        assert text[name].tolist()[0] == 1.5
        assert text[name].isna().tolist() == [False, True, True]


def test_nan_is_missing_in_whole_tables(tmp_path: Path) -> None:
    (tmp_path / "readouts").mkdir()
    write_whole(tmp_path, "statistics", rows("statistics", subject=True), "a run")
    check(tmp_path, "statistics")


def test_nan_is_missing_in_joined_tables(tmp_path: Path) -> None:
    (tmp_path / "readouts").mkdir()
    table = next(name for name in TABLES if "Subject" in TABLES[name] and name == "means")
    assert write_part(tmp_path / "parts", table, "sub-1", rows(table, subject=False), "a run") == 3
    join_parts(tmp_path / "parts", table, ["sub-1"], tmp_path, "a run", partition=False)
    check(tmp_path, table)
