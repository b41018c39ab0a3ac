"""Tables of a participant: TSV with ``n/a`` for what is missing and full precision."""

from __future__ import annotations

import re
from collections.abc import Callable
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


FORMULA = r"^[\s']*[=+@-]"
"""How text begins that a spreadsheet would run; or that was shielded from it, with an apostrophe before."""

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
"""Text that is a number, which is no formula although it may begin with a sign."""


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as TSV, atomically; NaN and None become ``n/a``."""
    with atomic(path) as temporary:
        temporary.write_text(as_tsv(table), "utf-8", "backslashreplace")


def as_tsv(table: pd.DataFrame) -> str:
    """A table as tab-separated text that a spreadsheet opens without running what labels say."""
    text = _mapped(table, shielded).to_csv(sep="\t", index=False, na_rep=MISSING, lineterminator="\n")
    return str(text)


def shielded(text: str) -> str:
    """Text with an apostrophe before it where a spreadsheet would take it for a formula.

    Examples
    --------
    >>> shielded("=1+1"), shielded("-0.5"), shielded("liver")
    ("'=1+1", '-0.5', 'liver')
    """
    return f"'{text}" if re.match(FORMULA, text) and not re.match(NUMBER, text) else text


def unshielded(text: str) -> str:
    """The text that :func:`shielded` was given.

    Examples
    --------
    >>> unshielded("'=1+1"), unshielded("'liver'")
    ('=1+1', "'liver'")
    """
    return text[1:] if text.startswith("'") and re.match(FORMULA, text) else text


def read_table(path: Path) -> pd.DataFrame:
    """A table from TSV; only ``n/a`` and empty cells count as missing.

    Raises
    ------
    BadDataError
        The file is missing, empty, or no table.
    """
    refuse_other_kinds(path)
    try:
        table = pd.read_csv(path, sep="\t", na_values=[MISSING], keep_default_na=False)
    except (OSError, UnicodeDecodeError, ValueError) as fault:
        raise BadDataError(f"{path} cannot be read as a table: {fault}.") from fault
    return _mapped(table, unshielded)


def _mapped(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """A table with its texts and the names of its columns changed."""
    changed = {}
    for name, column in table.select_dtypes(exclude="number").items():
        distinct = {text: change(text) for text in column.unique() if isinstance(text, str)}
        others = {text: other for text, other in distinct.items() if other != text}
        if others:
            changed[name] = column.replace(others)
    return table.assign(**changed).rename(columns=change)


def frame_times(table: pd.DataFrame) -> FrameTimes:
    """Frame times of a table with the columns ``frame_start`` and ``frame_end``, s."""
    start = table[FRAME_START].to_numpy(dtype=np.float64)
    return FrameTimes(start, table[FRAME_END].to_numpy(dtype=np.float64) - start)


def read_blood(path: Path) -> InputFunction:
    """The input function of a blood table that hedypet wrote.

    Raises
    ------
    BadDataError
        It is no such table any more.
    """
    table = read_table(path)
    wanted = ("whole_blood_radioactivity", "std", "n_voxels", FRAME_START, FRAME_END)
    missing = [column for column in wanted if column not in table]
    if missing:
        raise BadDataError(f"{path} lacks the column {names.listed(missing)}; run the participant again.")
    try:
        return InputFunction(
            name=names.entities_of(path.name)["recording"],
            frames=frame_times(table),
            mean=table["whole_blood_radioactivity"].to_numpy(dtype=np.float64),
            std=table["std"].to_numpy(dtype=np.float64),
            n_voxels=int(table["n_voxels"].to_numpy(dtype=np.float64)[0]),
        )
    except (BadDataError, ValueError, TypeError, IndexError, OverflowError) as fault:
        raise BadDataError(
            f"{path} is no blood table: {str(fault)[:200]}. Remove it and run the participant again."
        ) from fault
