"""From a participant's job to its finished study: index, log, steps, result."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, HedypetError, OutputError
from hedypet_bids.io.address_space import out_of_memory
from hedypet_bids.io.atomic import remove_leftovers, write_error, write_text
from hedypet_bids.io.lock import exclusive
from hedypet_bids.io.manifest import Manifest, ScanEntry, StepRecord, merged
from hedypet_bids.io.tables import write_table
from hedypet_bids.kernels.kinetics import KineticModel, kinetic_models
from hedypet_bids.model import InputCheck, Subject
from hedypet_bids.names import ScanName
from hedypet_bids.pipeline import process_participant
from hedypet_bids.run.job import Job, Notify, ParticipantResult, is_other_part, of_both, subject_of
from hedypet_bids.run.options import WORK_DIR_VARIABLE
from hedypet_bids.run.schedule import Schedule
from hedypet_bids.steps.step import Context

# More would seldom find a step that is ready, and memory is estimated for so many.
_SIDE_BY_SIDE = 3

_log = logging.getLogger("hedypet")


def process(job: Job, notify: Notify) -> ParticipantResult:
    """Process one participant, or plan it; whatever goes wrong is in the result."""
    log_folder = job.store.path(names.log_folder(job.label, job.run_id))
    schedule = Schedule(
        job.label,
        _context(job, log_folder),
        dry=job.dry,
        steps=job.steps,
        notify=notify,
        side_by_side=_SIDE_BY_SIDE if job.side_by_side and job.threads_here > 1 else 1,
        tells_of_all=not job.part,
    )
    try:
        return _plan(job, schedule) if job.dry else _run(job, schedule, log_folder)
    except Exception as fault:  # noqa: BLE001 - a crash outside the steps must not stop other participants
        error = fault if isinstance(fault, HedypetError) else out_of_memory(fault)
        if error:
            _log.info("sub-%s FAILED: %s", job.label, error)
            code = schedule.exit_code or error.exit_code
            return ParticipantResult(job.label, tuple(schedule.records), code, _errors(schedule, str(error)))
        reason = f"{type(fault).__name__}: {fault} (see {schedule.write_crash('outside the steps')})"
        return ParticipantResult(job.label, tuple(schedule.records), HedypetError.exit_code, reason)


def _run(job: Job, schedule: Schedule, log_folder: Path) -> ParticipantResult:
    """Process the participant alone, with a log, and list what is current in the end."""
    lock = job.store.path(names.lock(job.label))
    with exclusive(lock, wait=False, holder=f"sub-{job.label}"), _log_file(log_folder):
        remove_leftovers(job.store.path(f"sub-{job.label}"))
        write_text(log_folder / "settings.toml", job.settings.to_toml())
        subject = None
        try:
            subject = subject_of(job)
            if not subject.scans and not subject.broken:
                return ParticipantResult(job.label, nothing_selected=True)
            _check_manifest(job, subject)
            _log_notes(subject)
            models = kinetic_models(job.settings)
            _write_plan(log_folder, subject, models, job)
            process_participant(subject, models, schedule.add)
            schedule.run()
            _check_still_there(log_folder)
        except HedypetError as error:
            _write_manifest(job, schedule, subject, failure=error)
            raise
        finally:
            _write_records(log_folder / "steps.tsv", schedule.records)
        _write_manifest(job, schedule, subject)
    broken = "\n".join(f"{scan.name or 'images'}: {scan.reason}" for scan in subject.broken)
    code = _code(schedule, subject)
    return ParticipantResult(
        job.label, tuple(schedule.records), code, _errors(schedule, *filter(None, [broken])), subject.checks
    )


def _code(schedule: Schedule, subject: Subject) -> int:
    """That of what failed; 1 where other scans were processed all the same."""
    failed = [record for record in schedule.records if record.state == "failed"]
    codes = [*(record.exit_code for record in failed), *(scan.exit_code for scan in subject.broken)]
    touched = {name for record in failed for name in record.scans}
    whole = any(str(scan.name) not in touched for scan in subject.scans)
    several = len(subject.scans) + len(subject.broken) > 1
    return HedypetError.exit_code if codes and several and whole else next(iter(codes), 0)


def _write_manifest(
    job: Job, schedule: Schedule, subject: Subject | None, *, failure: HedypetError | None = None
) -> None:
    """Write the list of what is current; what an earlier run left of other scans stays in it."""
    scans = subject.scans if subject else ()
    broken = subject.broken if subject else ()
    outputs = schedule.outputs()
    pages = {name: o.path for o in outputs if o.kind == ("page",) for name in o.scans}
    failed = [
        *(
            StepRecord(
                "inputs", "failed", s.reason, about=str(s.name), exit_code=s.exit_code, scans=(str(s.name),)
            )
            for s in broken
        ),
        *([StepRecord("inputs", "failed", str(failure), exit_code=failure.exit_code)] if failure else []),
    ]
    manifest = Manifest(
        label=job.label,
        run=job.run_id,
        scans=tuple(ScanEntry.of(scan, pages.get(str(scan.name), "")) for scan in scans),
        steps=(*failed, *schedule.records),
        outputs=outputs,
    )
    old = _former(job)
    if old is not None and is_other_part(job, old.run):
        manifest = replace(manifest, steps=of_both(old.steps, manifest.steps))
    in_dataset = subject.all_scans if subject else ()
    merged(manifest, old, in_dataset=in_dataset, root=job.store.root).write(job.store.root)
    _remove_pages(job, old, in_dataset)


def _former(job: Job) -> Manifest | None:
    """What earlier runs left; None where nothing is, or where it cannot be told."""
    with suppress(BadDataError):
        return Manifest.read_if_there(job.store.root, job.label)
    return None


def _check_manifest(job: Job, subject: Subject) -> None:
    """Raise BadDataError where what earlier runs left of other scans cannot be told, and would be lost."""
    try:
        Manifest.read_if_there(job.store.root, job.label)
    except BadDataError as fault:
        asked = {*(scan.name for scan in subject.scans), *(scan.name for scan in subject.broken)}
        if others := [name.title for name in subject.all_scans if name not in asked]:
            raise BadDataError(f"{fault} This run leaves out {names.listed(others)}.") from fault
        _log.warning("sub-%s: %s It is written anew.", job.label, fault)


def _remove_pages(job: Job, old: Manifest | None, in_dataset: Sequence[ScanName]) -> None:
    """Remove the pages of scans that the dataset no longer has: they would look as if they were current."""
    for scan in old.scans if old and in_dataset else ():
        if scan.page and scan.name not in in_dataset:
            job.store.path(scan.page).unlink(missing_ok=True)


def _check_still_there(log_folder: Path) -> None:
    """Raise OutputError when what the run wrote first is gone in the end, and with it most results."""
    if not (log_folder / "settings.toml").is_file():
        raise OutputError(
            f"{log_folder} disappeared during the run. Was the output folder moved or removed? Run the same "
            "command again; only what is missing is made again."
        )


def _errors(schedule: Schedule, *more: str) -> str:
    """What went wrong in the steps, and around them."""
    return "\n".join([*(f"{r.title}: {r.reason}" for r in schedule.records if r.state == "failed"), *more])


def _plan(job: Job, schedule: Schedule) -> ParticipantResult:
    """What was found and which steps would run, without running any."""
    try:
        subject = subject_of(job)
    except HedypetError as error:
        checks = tuple(InputCheck("images", "problem", text) for text in str(error).split("\n\n"))
        return ParticipantResult(job.label, (), error.exit_code, str(error), checks)
    process_participant(subject, kinetic_models(job.settings), schedule.add)
    records = schedule.run() if subject.scans else ()
    code = _code(schedule, subject)
    reasons = "\n\n".join(scan.reason for scan in subject.broken)
    nothing = not subject.scans and not subject.broken
    return ParticipantResult(job.label, tuple(records), code, reasons, subject.checks, nothing)


def _context(job: Job, log_folder: Path) -> Context:
    """What the steps share, on the machine that processes the participant."""
    work_dir = os.environ.get(WORK_DIR_VARIABLE)
    tools = replace(
        job.tools,
        log_folder=log_folder,
        work_dir=Path(work_dir) if work_dir else job.tools.work_dir,
    )
    return Context(job.settings, job.store, job.threads_here, tools)


def _write_plan(folder: Path, subject: Subject, models: tuple[KineticModel, ...], job: Job) -> None:
    """What the run is going to do, for those who find it unfinished."""
    plan = Schedule(job.label, _context(job, folder), dry=True, steps=job.steps)
    process_participant(subject, models, plan.add)
    _write_records(folder / "plan.tsv", plan.run(), ("step", "about", "state", "reason"))


def _write_records(
    path: Path,
    records: Sequence[StepRecord],
    columns: Sequence[str] = ("step", "about", "state", "seconds", "peak_mb", "reason"),
) -> None:
    """What became of each step, with its time and peak memory."""
    rows = [[getattr(record, column) for column in columns] for record in records]
    write_table(path, pd.DataFrame(rows, columns=list(columns)))


def _log_notes(subject: Subject) -> None:
    """Write down what was assumed or converted while reading images, tables and sidecars, and what is odd."""
    for check in subject.checks:
        if check.state in ("converted", "problem"):
            _log.info("sub-%s %s: %s", subject.label, f"{check.scan} {check.kind}".strip(), check.text)


class _ParticipantLog(logging.FileHandler):
    """A log file that may be lost: what a full disc did is told by the steps, not by logging."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        """Let faults of the disc pass."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close, also where the last lines cannot be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    """Log lines of this participant also go to ``hedypet.log`` in its log folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = _ParticipantLog(folder / "hedypet.log", encoding="utf-8", errors="backslashreplace")
    except OSError as fault:
        raise write_error(folder / "hedypet.log", fault) from fault
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.setLevel(logging.INFO)
    _log.setLevel(min(_log.level or logging.INFO, logging.INFO))
    _log.addHandler(handler)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        handler.close()
