"""Tables of a participant: TSV with ``n/a`` for what is missing and full precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.atomic import atomic
from hedypet_bids.io.presence import refuse_other_kinds
from hedypet_bids.model import FrameTimes, InputFunction

MISSING = "n/a"
FRAME_START, FRAME_END = "frame_start", "frame_end"


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as TSV, atomically; NaN and None become ``n/a``."""
    with atomic(path) as temporary:
        table.to_csv(
            temporary, sep="\t", index=False, na_rep=MISSING, lineterminator="\n", errors="backslashreplace"
        )


def read_table(path: Path) -> pd.DataFrame:
    """A table from TSV; only ``n/a`` and empty cells count as missing.

    Raises
    ------
    BadDataError
        The file is missing, empty, or no table.
    """
    refuse_other_kinds(path)
    try:
        return pd.read_csv(path, sep="\t", na_values=[MISSING], keep_default_na=False)
    except (OSError, UnicodeDecodeError, ValueError) as fault:
        raise BadDataError(f"{path} cannot be read as a table: {fault}.") from fault


def frame_times(table: pd.DataFrame) -> FrameTimes:
    """Frame times of a table with the columns ``frame_start`` and ``frame_end``, s."""
    start = table[FRAME_START].to_numpy(dtype=np.float64)
    return FrameTimes(start, table[FRAME_END].to_numpy(dtype=np.float64) - start)


def read_blood(path: Path) -> InputFunction:
    """The input function of a blood table that hedypet wrote."""
    table = read_table(path)
    missing = sorted({"whole_blood_radioactivity", FRAME_START, FRAME_END} - set(table.columns))
    if missing:
        raise BadDataError(f"{path} lacks the column {names.listed(missing)}; run the participant again.")
    return InputFunction(
        name=names.entities_of(path.name)["recording"],
        frames=frame_times(table),
        mean=table["whole_blood_radioactivity"].to_numpy(dtype=np.float64),
        std=table["std"].to_numpy(dtype=np.float64),
        n_voxels=int(table["n_voxels"].iloc[0]),
    )
