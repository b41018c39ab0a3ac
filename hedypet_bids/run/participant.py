"""From a participant's job to its finished study: index, log, steps, result."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hedypet_bids import names
from hedypet_bids.errors import HedypetError, OutputError
from hedypet_bids.inputs.checks import check_inputs, participant_metadata, pet_metadata
from hedypet_bids.inputs.dataset import Dataset
from hedypet_bids.inputs.participant_metadata import ParticipantMetadata
from hedypet_bids.inputs.plausibility import not_hounsfield
from hedypet_bids.inputs.roles import ParticipantInputs
from hedypet_bids.io.atomic import remove_leftovers, write_error, write_text
from hedypet_bids.io.lock import exclusive
from hedypet_bids.io.tables import write_table
from hedypet_bids.pipeline import run_participant
from hedypet_bids.run.job import Job, dataset_of
from hedypet_bids.run.options import WORK_DIR_VARIABLE
from hedypet_bids.run.schedule import ParticipantResult, StepRunner
from hedypet_bids.steps.step import StepRecord, Subject

_log = logging.getLogger("hedypet")


def process(job: Job, notify: Callable[[str, str, str], None]) -> ParticipantResult:
    """Process one participant, or plan it; whatever goes wrong is in the result."""
    log_folder = job.store.path(names.log_folder(job.label, job.run_id))
    study = StepRunner(
        job.label,
        job.store,
        log_folder,
        dry=job.dry,
        steps=job.steps,
        notify=notify,
        parallel=job.side_by_side and job.threads_here > 1,
        tells_of_all=not job.part,
    )
    try:
        if job.dry:
            return _plan(job, study)
        lock = job.store.path(names.lock(job.label))
        with exclusive(lock, wait=False, what=f"sub-{job.label}"), _log_file(log_folder):
            remove_leftovers(job.store.path(f"sub-{job.label}"))
            write_text(log_folder / "settings.toml", job.settings.to_toml())
            try:
                subject = open_subject(job)
                _log_notes(subject)
                _write_plan(log_folder, subject, job)
                run_participant(subject, study)
                _check_still_there(log_folder)
            finally:
                _write_records(log_folder / "steps.tsv", study.records)
    except HedypetError as error:
        _log.info("sub-%s FAILED: %s", job.label, error)
        code = study.exit_code or error.exit_code
        return ParticipantResult(job.label, tuple(study.records), code, _errors(study, str(error)))
    except Exception as fault:  # noqa: BLE001 - a crash outside the steps must not stop other participants
        reason = f"{type(fault).__name__}: {fault} (see {study.write_crash('outside the steps')})"
        return ParticipantResult(job.label, tuple(study.records), HedypetError.exit_code, reason)
    return ParticipantResult(job.label, tuple(study.records), study.exit_code, _errors(study))


def _check_still_there(log_folder: Path) -> None:
    """Raise OutputError when what the run wrote first is gone in the end, and with it most results."""
    if not (log_folder / "settings.toml").is_file():
        raise OutputError(
            f"{log_folder} disappeared during the run. Was the output folder moved or removed? Run the same "
            "command again; what is missing is made anew."
        )


def _errors(study: StepRunner, *more: str) -> str:
    """What went wrong in the steps, and after them."""
    return "\n".join([*(f"{r.step}: {r.reason}" for r in study.records if r.state == "failed"), *more])


def _plan(job: Job, study: StepRunner) -> ParticipantResult:
    """What was found and which steps would run, without running any."""
    checks = tuple(check_inputs(dataset_of(job), job.label, job.inputs))
    try:
        run_participant(open_subject(job), study)
    except HedypetError as error:
        return ParticipantResult(job.label, tuple(study.records), error.exit_code, str(error), checks)
    return ParticipantResult(job.label, tuple(study.records), study.exit_code, "", checks)


def open_subject(job: Job) -> Subject:
    """The participant with its images, weight, height, doses and frame timing.

    Raises
    ------
    BadDataError
        An image, a sidecar or a table cannot be right; the message names the file.
    """
    dataset = dataset_of(job)
    inputs = job.inputs or dataset.inputs(job.label)
    pets = [*inputs.statics, *([inputs.dynamic] if inputs.dynamic else [])]
    return Subject(
        inputs=inputs,
        facts=_facts(dataset, inputs),
        pet={pet.path: pet_metadata(dataset, pet) for pet in pets},
        settings=job.settings,
        store=job.store,
        threads=job.threads_here,
        tools=replace(
            job.tools,
            log_folder=job.store.path(names.log_folder(job.label, job.run_id)),
            work_dir=Path(os.environ[WORK_DIR_VARIABLE])
            if WORK_DIR_VARIABLE in os.environ
            else job.tools.work_dir,
        ),
    )


def _facts(dataset: Dataset, inputs: ParticipantInputs) -> ParticipantMetadata:
    """Who was scanned, with notes on inputs that a person should look at."""
    facts = participant_metadata(dataset, inputs)
    wrong = not_hounsfield(inputs.ct.path) if inputs.ct else ""
    unused = [
        f"{path} corrects nothing: no input has that name" for path in dataset.unused_corrections(inputs)
    ]
    return replace(facts, notes=(*facts.notes, *filter(None, [wrong]), *unused))


def _write_plan(folder: Path, subject: Subject, job: Job) -> None:
    """What the run is going to do, for those who find it unfinished."""
    plan = StepRunner(job.label, job.store, folder, dry=True, steps=job.steps)
    run_participant(subject, plan)
    _write_records(folder / "plan.tsv", plan.records, ("step", "state", "reason"))


def _write_records(
    path: Path,
    records: Sequence[StepRecord],
    columns: Sequence[str] = ("step", "state", "seconds", "peak_mb", "reason"),
) -> None:
    """What became of each step, with its time and peak memory."""
    rows = [[getattr(record, column) for column in columns] for record in records]
    write_table(path, pd.DataFrame(rows, columns=list(columns)))


def _log_notes(subject: Subject) -> None:
    """Write down what was assumed or converted while reading tables and sidecars."""
    for note in subject.facts.notes:
        _log.info("sub-%s: %s", subject.label, note)
    for path, metadata in subject.pet.items():
        for note in metadata.notes:
            _log.info("sub-%s %s: %s", subject.label, path.name, note)


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
        handler = _ParticipantLog(folder / "hedypet.log", encoding="utf-8")
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
