"""Tables of a participant: TSV with ``n/a`` for what is missing and full precision."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hedypet_bids.errors import BadDataError
from hedypet_bids.io.atomic import atomic

MISSING = "n/a"


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as TSV, atomically; NaN and None become ``n/a``."""
    with atomic(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep=MISSING, lineterminator="\n")


def read_table(path: Path) -> pd.DataFrame:
    """A table from TSV; only ``n/a`` and empty cells count as missing.

    Raises
    ------
    BadDataError
        The file is missing, empty, or no table.
    """
    try:
        return pd.read_csv(path, sep="\t", na_values=[MISSING], keep_default_na=False)
    except (OSError, UnicodeDecodeError, ValueError) as fault:
        raise BadDataError(f"{path} cannot be read as a table: {fault}.") from fault
