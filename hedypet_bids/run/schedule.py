"""Runs the steps of one participant: each when those that it builds on are settled.

The same walk gives the plan, the resume and the run: what is done is not done again, and what fails stops
only what needs it.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, HedypetError
from hedypet_bids.io import stop, work_dir
from hedypet_bids.io.address_space import out_of_memory
from hedypet_bids.io.atomic import write_text
from hedypet_bids.io.manifest import Output, ScanOutputs, StepRecord, StepState
from hedypet_bids.io.store import Stamp, Writer
from hedypet_bids.run.job import Notify
from hedypet_bids.run.options import chosen
from hedypet_bids.run.peak_memory import PeakMemory
from hedypet_bids.steps.step import CannotRun, Context, Plan, Skip, Step, StepT
from hedypet_bids.version import __version__

NOT_CHOSEN = "--steps leaves it out"

COUNTED, UNNEEDED = "counted", "unneeded"
"""What ``notify`` hears besides states: how many steps there are, and that one has nothing to do."""

_MADE: tuple[StepState, ...] = ("ran", "done", "to run")

_log = logging.getLogger("hedypet")


class Schedule:
    """The steps of a participant, as a graph of what builds on what.

    Parameters
    ----------
    label
        Participant label without ``sub-``.
    context
        What the steps share.
    dry
        Only find out what would run.
    steps
        Names of the steps that may run, see ``Step.group``; all when empty. Others count when they are done.
    notify
        Called with the label, the step's title and its state, before and after each step.
    side_by_side
        Steps that run at the same time, in threads; 1: one after the other, in this thread.
    tells_of_all
        Whether ``notify`` also hears of steps that may not run here.
    """

    def __init__(
        self,
        label: str,
        context: Context,
        *,
        dry: bool = False,
        steps: Collection[str] = (),
        notify: Notify = lambda _label, _step, _state: None,
        side_by_side: int = 1,
        tells_of_all: bool = True,
    ) -> None:
        self.label = label
        self.context = replace(context, records=lambda: self.records, wants=self.wants)
        self._dry = dry
        self._chosen = steps
        self._notify = notify
        self._side_by_side = 1 if dry else side_by_side
        self._tells_of_all = tells_of_all
        self._steps: list[Step] = []
        self._known: dict[object, Step] = {}
        self._scans: dict[Step, list[str]] = {}
        self._records: dict[Step, StepRecord] = {}
        self._owners: dict[Path, Step] = {}
        self._lock = threading.Lock()

    def add(self, step: StepT) -> StepT:
        """Have a step done; where an equal one is known, that one stands for both."""
        known = self._known.setdefault(step.identity, step)
        if known is step:
            step.context = self.context
            self._steps.append(step)
        self._scans.setdefault(known, []).extend(step.scans)
        return known  # type: ignore[return-value]

    def run(self) -> Sequence[StepRecord]:
        """Plan or run every step; returns what became of them."""
        self._notify(self.label, str(len(self._steps)), COUNTED)
        try:
            if self._side_by_side == 1:
                # As they were added: a step is added after those that it builds on.
                for step in self._steps:
                    self._settle(step, alone=True)
            else:
                self._run_side_by_side()
        finally:
            for step in self._steps:
                step.close()
        return self.records

    @property
    def records(self) -> Sequence[StepRecord]:
        """What has become of the steps so far, in the order of the pipeline."""
        return [self._records[step] for step in self._steps if step in self._records]

    @property
    def exit_code(self) -> int:
        """That of the first step that failed; 0 when none did."""
        return next((record.exit_code for record in self.records if record.exit_code), 0)

    def outputs(self) -> tuple[Output, ...]:
        """Every output that is current, and whose it is."""
        return tuple(
            Output(kind, names.below(self.context.store.root, path), tuple(self._scans[step]), step.name)
            for step in self._steps
            for kind, path in step.outputs.files.items()
        )

    def wants(self, group: str) -> bool:
        """Whether the steps of a name may run."""
        return chosen(self._chosen, group)

    def write_crash(self, title: str, sources: Iterable[Path] = ()) -> Path:
        """Write the traceback of the exception being handled to the log folder; returns the file."""
        path = self.context.tools.log_folder / names.crash_file(title)
        inputs = "".join(f"  {source}\n" for source in sources)
        text = f"hedypet {__version__} crashed in step {title!r} of {self.label}"
        text += f", whose inputs were\n{inputs}" if inputs else "\n"
        text += f"\n{traceback.format_exc()}"
        try:
            write_text(path, text)
        except HedypetError:
            _log.error("the crash file %s cannot be written; the traceback:\n%s", path, text)
        return path

    def _run_side_by_side(self) -> None:
        graph = TopologicalSorter({step: set(step.builds_on()) for step in self._steps})
        graph.prepare()
        order = {step: position for position, step in enumerate(self._steps)}
        ready: list[Step] = []
        running: dict[Future[None], Step] = {}
        with ThreadPoolExecutor(self._side_by_side, "hedypet-step") as pool:
            try:
                while graph.is_active():
                    ready = sorted([*ready, *graph.get_ready()], key=order.__getitem__)
                    for step in list(ready):
                        in_use = {other.uses for other in running.values()} - {""}
                        if len(running) < self._side_by_side and step.uses not in in_use:
                            ready.remove(step)
                            running[pool.submit(self._settle, step, alone=not running)] = step
                    ended, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        graph.done(running.pop(future))
                        future.result()
            except BaseException:
                # A signal: the threads leave through their loops, which remove half-written files and end
                # external programs.
                stop.ask()
                pool.shutdown(wait=True, cancel_futures=True)
                stop.withdraw()
                raise

    def _settle(self, step: Step, *, alone: bool) -> None:
        """Plan a step, run it where that is needed, and keep what became of it."""
        started = time.monotonic()
        memory = PeakMemory(begin=alone)
        told = self._tells_of_all or self.wants(step.group)
        title = f"{step.name} [{step.about}]" if step.about else step.name
        if told:
            self._notify(self.label, title, "started")
        state, reason, exit_code, plan = self._state_after(step, title)
        if plan is not None and state in _MADE:
            step.outputs = ScanOutputs(dict(plan.makes))
        missing = tuple(plan.missing.items()) if plan is not None and state in _MADE else ()
        record = StepRecord(
            step.name,
            state,
            reason,
            time.monotonic() - started,
            memory.mb(),
            missing,
            step.about,
            exit_code,
            tuple(self._scans[step]),
        )
        needed = state != "skipped" or bool(reason)
        if needed:
            self._records[step] = record
        if told:
            self._notify(self.label, title, state if needed else UNNEEDED)
        if needed and not self._dry:
            _report(self.label, record)

    def _state_after(self, step: Step, title: str) -> tuple[StepState, str, int, Plan | None]:
        sources: list[Path] = []
        try:
            plan = step.plan()
            if isinstance(plan, Skip):
                return "skipped", plan.reason, 0, None
            self._claim(step, plan)
            sources += plan.reads
            wanted = self.wants(step.group)
            if not all(path.exists() for path in sources) and (self._dry or not wanted):
                if wanted:
                    return "to run", "its inputs are still to be made", 0, plan
                return "skipped", f"{NOT_CHOSEN}, and its inputs are still to be made", 0, None
            stamp = Stamp.of(step.name, sources, plan.settings, self.context.store)
            why = plan.always or stamp.reason_to_run(plan.makes.values())
            if not why:
                return "done", "the results are there and up to date", 0, plan
            if not wanted:
                return "skipped", f"{NOT_CHOSEN}, and {why}", 0, None
            if self._dry:
                return "to run", why, 0, plan
            _log.info("sub-%s %s: runs because %s", self.label, title, why)
            with Writer(self.context.store, stamp) as writer:
                step.run(plan, writer)
            return "ran", why, 0, plan
        except CannotRun as inapplicable:
            return "skipped", str(inapplicable), 0, None
        except HedypetError as error:
            return "failed", str(error), error.exit_code, None
        except Exception as fault:  # noqa: BLE001 - the one boundary: a crash must not stop other participants
            lack = work_dir.out_of_space(fault) if isinstance(fault, OSError) else out_of_memory(fault)
            if lack:
                return "failed", str(lack), lack.exit_code, None
            where = self.write_crash(title, sources)
            return "failed", f"{type(fault).__name__}: {fault} (see {where})", HedypetError.exit_code, None

    def _claim(self, step: Step, plan: Plan) -> None:
        """Raise BadDataError when another step makes one of the files as well."""
        with self._lock:
            for path in plan.makes.values():
                owner = self._owners.setdefault(path, step)
                if owner is not step:
                    raise BadDataError(
                        f"{path} would be written for {owner.about or 'one scan'} and for "
                        f"{step.about or 'another'}. Tell their images apart by ses-, rec- or run- in their "
                        "names (BIDS has no trc- in those of anatomy), or choose one with --bids-filter-file."
                    )


def _report(label: str, record: StepRecord) -> None:
    reason = f": {record.reason}" if record.reason and record.state != "ran" else ""
    spent = f"{record.seconds:.1f} s, peak {record.peak_mb:.0f} MB"
    _log.info("sub-%s %s: %s%s (%s)", label, record.title, record.state, reason, spent)
    for kind, why in record.missing:
        _log.info("sub-%s %s: without %s: %s", label, record.title, kind, why)
