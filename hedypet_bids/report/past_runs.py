"""What earlier runs of a participant left in its log folder: times, memory, failures and crash files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hedypet_bids.errors import BadDataError
from hedypet_bids.io.tables import read_table

_MOST_CRASH_CHARACTERS = 20_000


@dataclass(frozen=True)
class PastStep:
    """A step in an earlier run: it ran or failed, how long it took and what memory it needed."""

    run: str
    state: str
    seconds: float
    peak_mb: float
    reason: str


def past_steps(logs: Path, *, but: Path) -> dict[str, PastStep]:
    """The last time that each step ran or failed, from the folders of all runs ``but`` one, by step."""
    found: dict[str, PastStep] = {}
    for folder in sorted(path for path in logs.glob("*") if path.is_dir() and path != but):
        for step, past in _steps_of(folder):
            found[step] = past
    return found


def crash_text(folder: Path, step: str) -> str:
    """What the crash file of a step in the folder of a run says; empty when there is none."""
    path = folder / f"crash-{step.replace(' ', '-')}.txt"
    try:
        return path.read_text("utf-8", errors="replace")[-_MOST_CRASH_CHARACTERS:]
    except OSError:
        return ""


def _steps_of(folder: Path) -> Iterator[tuple[str, PastStep]]:
    if not (folder / "steps.tsv").is_file():
        return
    try:
        table = read_table(folder / "steps.tsv")
    except BadDataError:
        # A run that was killed may leave half a table; its steps are then not known.
        return
    if not {"step", "state", "seconds", "peak_mb", "reason"} <= set(table.columns):
        return
    for row in table[table["state"].isin(["ran", "failed"])].fillna("").to_dict("records"):
        past = PastStep(
            folder.name, row["state"], float(row["seconds"]), float(row["peak_mb"]), str(row["reason"])
        )
        yield str(row["step"]), past
