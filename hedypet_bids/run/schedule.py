"""Runs the steps of one participant: what is done is skipped, what fails does not stop the rest."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from hedypet_bids.errors import HedypetError
from hedypet_bids.inputs.checks import InputCheck
from hedypet_bids.io import work_dir
from hedypet_bids.io.atomic import write_text
from hedypet_bids.io.store import Stamp, Store, Writer
from hedypet_bids.run import branches
from hedypet_bids.run.options import chosen
from hedypet_bids.run.peak_memory import PeakMemory
from hedypet_bids.steps.step import CannotRun, State, Step, StepRecord
from hedypet_bids.version import __version__

ResultT = TypeVar("ResultT")
OneT = TypeVar("OneT")
TwoT = TypeVar("TwoT")
ThreeT = TypeVar("ThreeT")

NOT_CHOSEN = "--steps leaves it out"

_log = logging.getLogger("hedypet")


@dataclass(frozen=True)
class ParticipantResult:
    """What became of one participant; picklable, so that a worker can send it."""

    label: str
    records: tuple[StepRecord, ...] = ()
    exit_code: int = 0
    error: str = ""
    checks: tuple[InputCheck, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a step, or the participant as a whole, failed."""
        return self.exit_code != 0


@dataclass
class StepRunner:
    """Runs steps in the order given and keeps a record of each.

    Parameters
    ----------
    label
        Participant label, or ``group``.
    log_folder
        Where crash files go.
    dry
        Only find out what would run.
    steps
        Groups of steps that may run, see ``Step.group``; all when empty. Others count when they are done.
    notify
        Called with the label, the step's name and its state, before and after each step.
    parallel
        Whether branches of the study run side by side, in threads.
    alone
        Whether no other branch runs now; those that run together share their peak memory.
    tells_of_all
        Whether ``notify`` also hears of steps that may not run here.
    """

    label: str
    store: Store
    log_folder: Path
    dry: bool = False
    steps: Collection[str] = ()
    notify: Callable[[str, str, str], None] = lambda _label, _step, _state: None
    parallel: bool = False
    alone: bool = True
    tells_of_all: bool = True
    records: list[StepRecord] = field(default_factory=list)
    exit_code: int = 0

    def do(self, step: Step[ResultT]) -> ResultT:
        """Run a step unless it is done, impossible or only planned; its results or nothing."""
        started = time.monotonic()
        memory = PeakMemory(begin=self.alone)
        self._tell(step, "started")
        state, reason = self._state_after(step)
        missing = () if state in ("skipped", "failed") else tuple(step.missing().items())
        seconds = time.monotonic() - started
        record = StepRecord(step.name, state, reason, seconds, memory.mb(), missing)
        self.records.append(record)
        self._tell(step, state)
        if not self.dry:
            _report(self.label, record)
        return step.results() if state in ("ran", "done", "to run") else step.nothing()

    def _tell(self, step: Step[ResultT], state: str) -> None:
        if self.tells_of_all or self.wants(step.group):
            self.notify(self.label, step.name, state)

    @overload
    def side_by_side(
        self, one: Callable[[StepRunner], OneT], two: Callable[[StepRunner], TwoT], /
    ) -> tuple[OneT, TwoT]: ...

    @overload
    def side_by_side(
        self,
        one: Callable[[StepRunner], OneT],
        two: Callable[[StepRunner], TwoT],
        three: Callable[[StepRunner], ThreeT],
        /,
    ) -> tuple[OneT, TwoT, ThreeT]: ...

    def side_by_side(self, *works: Callable[[StepRunner], Any]) -> tuple[Any, ...]:
        """Results of branches of the study that do not depend on each other.

        Each is called with a runner of its own; records and exit code are those of one after the other.
        """
        if not self.parallel or self.dry:
            return tuple(work(self) for work in works)
        runners = [replace(self, alone=False, records=[], exit_code=0) for _ in works]
        if self.alone:
            PeakMemory(begin=True)
        try:
            calls = [partial(work, runner) for work, runner in zip(works, runners, strict=True)]
            return tuple(branches.side_by_side(calls))
        finally:
            for runner in runners:
                self.records += runner.records
                self.exit_code = self.exit_code or runner.exit_code

    def _state_after(self, step: Step[ResultT]) -> tuple[State, str]:
        reason = step.skip_reason()
        if reason:
            return "skipped", reason
        sources: list[Path] = []
        try:
            sources += step.sources()
            if not all(path.exists() for path in sources) and (self.dry or not self.wants(step.group)):
                if self.wants(step.group):
                    return "to run", "its inputs are still to be made"
                return "skipped", f"{NOT_CHOSEN}, and its inputs are still to be made"
            stamp = Stamp.of(step.name, sources, step.settings(), self.store)
            why = stamp.reason_to_run(step.outputs())
            if not why:
                return "done", "the results are there and up to date"
            if not self.wants(step.group):
                return "skipped", f"{NOT_CHOSEN}, and {why}"
            if not self.dry:
                _log.info("sub-%s %s: runs because %s", self.label, step.name, why)
                with Writer(self.store, stamp) as writer:
                    step.run(writer)
            return ("to run" if self.dry else "ran"), why
        except CannotRun as inapplicable:
            return "skipped", str(inapplicable)
        except HedypetError as error:
            self.exit_code = self.exit_code or error.exit_code
            return "failed", str(error)
        except Exception as fault:  # noqa: BLE001 - the one boundary: a crash must not stop other participants
            full = work_dir.out_of_space(fault) if isinstance(fault, OSError) else None
            self.exit_code = self.exit_code or (full or HedypetError).exit_code
            if full:
                return "failed", str(full)
            return "failed", f"{type(fault).__name__}: {fault} (see {self.write_crash(step.name, sources)})"

    def wants(self, group: str) -> bool:
        """Whether the steps of a group may run."""
        return chosen(self.steps, group)

    def write_crash(self, step: str, sources: Iterable[Path] = ()) -> Path:
        """Write the traceback of the exception being handled to the log folder; returns the file."""
        path = self.log_folder / f"crash-{step.replace(' ', '-')}.txt"
        inputs = "".join(f"  {source}\n" for source in sources)
        text = f"hedypet {__version__} crashed in step {step!r} of {self.label}"
        text += f", whose inputs were\n{inputs}" if inputs else "\n"
        text += f"\n{traceback.format_exc()}"
        try:
            write_text(path, text)
        except HedypetError:
            _log.error("the crash file %s cannot be written; the traceback:\n%s", path, text)
        return path


def _report(label: str, record: StepRecord) -> None:
    reason = f": {record.reason}" if record.reason and record.state != "ran" else ""
    spent = f"{record.seconds:.1f} s, peak {record.peak_mb:.0f} MB"
    _log.info("sub-%s %s: %s%s (%s)", label, record.step, record.state, reason, spent)
    for part, why in record.missing:
        _log.info("sub-%s %s: without %s: %s", label, record.step, part, why)
