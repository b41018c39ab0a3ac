"""Tables of a participant: TSV with ``n/a`` for what is missing and full precision."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.atomic import atomic
from hedypet_bids.io.presence import refuse_other_kinds
from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.model import FrameTimes, InputFunction

MISSING = "n/a"
FRAME_START, FRAME_END = "frame_start", "frame_end"
INJECTION_START = "InjectionStart"
_TIMES = ("time", FRAME_START, FRAME_END)

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


def read_timed(path: Path) -> pd.DataFrame:
    """A table of curves or blood with its times in s from injection; the file has them from TimeZero.

    Raises
    ------
    BadDataError
        The file is no table with times, or its sidecar does not say when the injection was.
    """
    table, injection_s = read_table(path), injection_start_s(path, read_sidecar(path))
    times = {}
    for name in (name for name in _TIMES if name in table):
        try:
            times[name] = table[name].astype(np.float64) - injection_s
        except (TypeError, ValueError) as fault:
            raise BadDataError(
                f"{path}: the column {name} must hold seconds: {str(fault)[:200]}. Run the participant again."
            ) from fault
    return table.assign(**times)


def injection_start_s(path: Path, sidecar: Mapping[str, Any]) -> float:
    """The injection in the times of a table, s from TimeZero, as the table's sidecar says it.

    Raises
    ------
    BadDataError
        The sidecar does not say it.
    """
    found = sidecar.get(INJECTION_START)
    if isinstance(found, bool) or not isinstance(found, int | float) or not np.isfinite(found):
        raise BadDataError(
            f"{path} has times from TimeZero, but {names.sidecar_of(path).name} does not say "
            f"{INJECTION_START}, the seconds from there to the injection. Run the participant again."
        )
    return float(found)


def frame_times(table: pd.DataFrame) -> FrameTimes:
    """Frame times of a table with the columns ``frame_start`` and ``frame_end``, s."""
    start = table[FRAME_START].to_numpy(dtype=np.float64)
    return FrameTimes(start, table[FRAME_END].to_numpy(dtype=np.float64) - start)


def read_curves(path: Path) -> tuple[FrameTimes, NDArray[np.float64]]:
    """Frame times, s from injection, and curves (n_regions, n_frames) of a table of curves.

    Raises
    ------
    BadDataError
        As :func:`read_timed`.
    """
    table = read_timed(path)
    regions = table.drop(columns=[FRAME_START, FRAME_END])
    return frame_times(table), regions.to_numpy(dtype=np.float64).T


def read_blood(path: Path) -> InputFunction:
    """The input function of a blood table that hedypet wrote, with times from injection.

    Raises
    ------
    BadDataError
        It is no such table any more.
    """
    table = read_timed(path)
    sampled = "AIF" in table
    wanted = (
        "whole_blood_radioactivity",
        *([] if sampled else ["std", "n_voxels"]),
        FRAME_START,
        FRAME_END,
    )
    missing = [column for column in wanted if column not in table]
    if missing:
        raise BadDataError(f"{path} lacks the column {names.listed(missing)}; run the participant again.")
    try:
        blood = table["whole_blood_radioactivity"].to_numpy(dtype=np.float64)
        if sampled:
            mean = table["AIF"].to_numpy(dtype=np.float64)
            return InputFunction(
                name=names.entities_of(path.name)["recording"],
                frames=frame_times(table),
                mean=mean,
                std=np.full(len(mean), np.nan),
                n_voxels=0,
                whole_blood=blood,
                parent_known="ParentFraction" not in read_sidecar(path).get("Assumed", []),
            )
        return InputFunction(
            name=names.entities_of(path.name)["recording"],
            frames=frame_times(table),
            mean=blood,
            std=table["std"].to_numpy(dtype=np.float64),
            n_voxels=int(table["n_voxels"].to_numpy(dtype=np.float64)[0]),
        )
    except (BadDataError, ValueError, TypeError, IndexError, OverflowError) as fault:
        raise BadDataError(
            f"{path} is no blood table: {str(fault)[:200]}. Remove it and run the participant again."
        ) from fault
