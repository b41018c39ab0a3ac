"""From a participant's label to its finished study: index, log, steps, result."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from hedypet_bids import bids_names as names
from hedypet_bids.errors import HedypetError, OutputError
from hedypet_bids.io.atomic import remove_leftovers, write_error, write_text
from hedypet_bids.io.dataset import Dataset, Request
from hedypet_bids.io.input_checks import check_inputs, participant_metadata, pet_metadata
from hedypet_bids.io.lock import exclusive
from hedypet_bids.io.participant_inputs import ParticipantInputs
from hedypet_bids.io.participant_metadata import ParticipantMetadata
from hedypet_bids.io.plausibility import not_hounsfield
from hedypet_bids.io.store import Store
from hedypet_bids.io.tables import write_table
from hedypet_bids.options import GPU_STEPS, STEP_NAMES, THREADS_VARIABLE, WORK_DIR_VARIABLE
from hedypet_bids.pipeline import run_participant
from hedypet_bids.runner import ParticipantResult, StepRunner
from hedypet_bids.settings import Settings
from hedypet_bids.steps.step import StepRecord, Subject, Tools

_log = logging.getLogger("hedypet")


@dataclass(frozen=True)
class Job:
    """All that a worker needs to process one participant; picklable.

    ``threads`` None leaves their number to the machine that processes it. ``side_by_side``: where there
    are several, branches of the study run at the same time. ``part``: another job has the steps that
    this one leaves out, and tells of them.
    """

    label: str
    bids_dir: Path
    store: Store
    settings: Settings
    run_id: str
    request: Request = field(default_factory=Request)
    tools: Tools = field(default_factory=Tools)
    threads: int | None = 1
    inputs: ParticipantInputs | None = None
    dry: bool = False
    steps: tuple[str, ...] = ()
    side_by_side: bool = False
    part: bool = False

    @property
    def threads_here(self) -> int:
        """The threads of the job on this machine."""
        return self.threads or int(os.environ.get(THREADS_VARIABLE, 1))


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
    checks = tuple(check_inputs(_dataset(job), job.label, job.inputs))
    try:
        run_participant(open_subject(job), study)
    except HedypetError as error:
        return ParticipantResult(job.label, tuple(study.records), error.exit_code, str(error), checks)
    return ParticipantResult(job.label, tuple(study.records), study.exit_code, "", checks)


def gpu_part(job: Job) -> tuple[Job | None, Job | None]:
    """The job in two: the steps that use a GPU, and those after them; None where that leaves no step."""
    chosen = job.steps or STEP_NAMES
    on_gpu = tuple(name for name in chosen if name in GPU_STEPS)
    rest = tuple(name for name in chosen if name not in GPU_STEPS)
    return (
        # Its own log folder: each part writes down its plan and its steps.
        replace(job, steps=on_gpu, part=True, run_id=f"{job.run_id}_gpu") if on_gpu else None,
        replace(job, steps=rest, part=True) if rest else None,
    )


def joined(on_gpu: ParticipantResult, rest: ParticipantResult) -> ParticipantResult:
    """The result of both parts of a job: of each step the record of the part that was to run it."""
    ours = {record.step: record for record in on_gpu.records if record.step.split()[0] in GPU_STEPS}
    return replace(
        rest,
        records=tuple(ours.get(record.step, record) for record in rest.records) or on_gpu.records,
        exit_code=on_gpu.exit_code or rest.exit_code,
        # What stops both parts, such as a second run on the same participant, is told once.
        error="\n".join(dict.fromkeys(filter(None, [on_gpu.error, rest.error]))),
    )


def lost(job: Job, reason: str) -> ParticipantResult:
    """The result of a participant whose worker process died."""
    return ParticipantResult(job.label, (), HedypetError.exit_code, reason)


def open_subject(job: Job) -> Subject:
    """The participant with its images, weight, height, doses and frame timing.

    Raises
    ------
    BadDataError
        An image, a sidecar or a table cannot be right; the message names the file.
    """
    dataset = _dataset(job)
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


def inputs_of(job: Job) -> ParticipantInputs:
    """The images of a participant; raises as :func:`open_subject`."""
    return _dataset(job).inputs(job.label)


def _dataset(job: Job) -> Dataset:
    request = replace(job.request, participant_labels=(job.label,), excluded_labels=())
    return Dataset(job.bids_dir, request, selection=job.settings.selection)


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
