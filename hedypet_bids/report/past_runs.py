"""What earlier runs of a participant left in its log folder: times, memory, failures and crash files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.manifest import StepRecord
from hedypet_bids.io.tables import read_table

_MOST_CRASH_CHARACTERS = 20_000
_COLUMNS = {"step", "state", "seconds", "peak_mb", "reason"}


@dataclass(frozen=True)
class PastStep:
    """A step in an earlier run: it ran or failed, how long it took and what memory it needed."""

    run: str
    state: str
    seconds: float
    peak_mb: float
    reason: str


@dataclass(frozen=True)
class PastRuns:
    """The last time that each step ran or failed, by its name and what it worked on."""

    steps: dict[tuple[str, str], PastStep]

    @classmethod
    def before(cls, run: Path) -> PastRuns:
        """Those of all runs but one, from the log folders beside its own."""
        found: dict[tuple[str, str], PastStep] = {}
        for folder in sorted(path for path in run.parent.glob("*") if path.is_dir() and path != run):
            found.update(_steps_of(folder))
        return cls(found)

    def of(self, record: StepRecord) -> PastStep | None:
        """The last time that a step ran or failed; None if it never did."""
        return self.steps.get((record.step, record.about))


def crash_text(folder: Path, record: StepRecord) -> str:
    """What the crash file of a step in the log folder of a run says; empty when there is none."""
    path = folder / names.crash_file(record.title)
    try:
        return path.read_text("utf-8", errors="replace")[-_MOST_CRASH_CHARACTERS:]
    except OSError:
        return ""


def _steps_of(folder: Path) -> Iterator[tuple[tuple[str, str], PastStep]]:
    if not (folder / "steps.tsv").is_file():
        return
    try:
        table = read_table(folder / "steps.tsv")
    except BadDataError:
        # A run that was killed may leave half a table; its steps are then not known.
        return
    if not set(table.columns) >= _COLUMNS:
        return
    for row in table[table["state"].isin(["ran", "failed"])].fillna("").to_dict("records"):
        past = PastStep(
            folder.name, row["state"], float(row["seconds"]), float(row["peak_mb"]), str(row["reason"])
        )
        # Logs from before there were several scans do not say what a step worked on.
        yield (str(row["step"]), str(row.get("about", ""))), past
