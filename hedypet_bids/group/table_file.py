"""A table of a participant's output, read column by column."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.presence import refuse_other_kinds
from hedypet_bids.io.tables import FORMULA, MISSING, unshielded


class TableFile:
    """A table of a participant by column.

    Raises
    ------
    BadDataError
        The file is no table, has a column twice, lacks one, or holds text instead of numbers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_other_kinds(path)
        try:
            self._table = pa_csv.read_csv(
                io.BytesIO(path.read_bytes()),
                read_options=pa_csv.ReadOptions(use_threads=False),
                parse_options=pa_csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=pa_csv.ConvertOptions(null_values=[MISSING, ""], strings_can_be_null=True),
            )
            self._table = self._table.rename_columns([unshielded(n) for n in self._table.column_names])
            self._position = {name: at for at, name in enumerate(self._table.column_names)}
        except (OSError, ValueError) as fault:
            raise BadDataError(f"{path} cannot be read as a table: {fault}.") from fault
        if len(self._position) < self._table.num_columns:
            raise BadDataError(f"{path} has a column twice. Run the participant level again.")

    def __contains__(self, name: str) -> bool:
        return name in self._position

    def real(self, name: str) -> NDArray[np.float64]:
        """A column of numbers; NaN where it says ``n/a``."""
        values: NDArray[np.float64] = self.array(name, pa.float64()).to_numpy(zero_copy_only=False)
        return values

    def whole(self, name: str) -> NDArray[np.int64]:
        """A column of whole numbers, none missing."""
        column = self.array(name, pa.int64())
        if column.null_count:
            raise BadDataError(f"{self.path}: the column {name} has empty cells; expected whole numbers.")
        values: NDArray[np.int64] = column.to_numpy(zero_copy_only=False)
        return values

    def text(self, name: str) -> list[str]:
        """A column of text; empty where it says ``n/a``."""
        return [value or "" for value in self.array(name, pa.string()).to_pylist()]

    def array(self, name: str, kind: Any) -> Any:
        """A column as an Arrow array of a type."""
        if name not in self._position:
            raise BadDataError(
                f"{self.path} has no column {name}; found {names.listed(self._position)}. "
                "Run the participant level again."
            )
        column = self._unshielded(self._table.column(self._position[name]).combine_chunks())
        if column.type == kind:
            return column
        try:
            return column.cast(kind)
        except ValueError as fault:
            raise BadDataError(f"{self.path}: the column {name} holds no numbers: {fault}.") from fault

    def frame(self) -> pd.DataFrame:
        """The whole table, as :func:`hedypet_bids.io.tables.read_table` gives it."""
        columns = [self._unshielded(column.combine_chunks()) for column in self._table.columns]
        return pa.table(columns, self._table.column_names).to_pandas(use_threads=False)

    def _unshielded(self, column: Any) -> Any:
        """A column with its texts as they were before they were shielded from spreadsheets."""
        if column.type != pa.string() or not pc.any(pc.match_substring_regex(column, FORMULA)).as_py():
            return column
        texts = [None if text is None else unshielded(text) for text in column.to_pylist()]
        return pa.array(texts, pa.string())
