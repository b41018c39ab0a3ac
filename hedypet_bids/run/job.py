"""A participant's share of a run: what is sent to whoever processes it, and what comes back.

Nothing here imports the study, which takes a second that a process that only waits for workers does not need.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hedypet_bids.errors import HedypetError
from hedypet_bids.inputs.dataset import Dataset, Request
from hedypet_bids.inputs.subject import read_subject
from hedypet_bids.io.manifest import StepRecord
from hedypet_bids.io.store import Store
from hedypet_bids.model import InputCheck, Subject
from hedypet_bids.run.options import GPU_STEPS, STEP_NAMES, THREADS_VARIABLE
from hedypet_bids.settings import Settings
from hedypet_bids.steps.step import Tools

Notify = Callable[[str, str, str], None]
"""Told of a participant, a step and its new state."""


@dataclass(frozen=True)
class ParticipantResult:
    """What became of one participant; picklable, so that a worker can send it.

    Parameters
    ----------
    nothing_selected
        Whether none of its scans was asked for.
    """

    label: str
    records: tuple[StepRecord, ...] = ()
    exit_code: int = 0
    error: str = ""
    checks: tuple[InputCheck, ...] = ()
    nothing_selected: bool = False

    @property
    def failed(self) -> bool:
        """Whether a step, or the participant as a whole, failed."""
        return self.exit_code != 0


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
    subject: Subject | None = None
    dry: bool = False
    steps: tuple[str, ...] = ()
    side_by_side: bool = False
    part: bool = False

    @property
    def threads_here(self) -> int:
        """The threads of the job on this machine."""
        return self.threads or int(os.environ.get(THREADS_VARIABLE, 1))


def subject_of(job: Job) -> Subject:
    """The participant with its scans, as it was sent, else as it is read here.

    Raises
    ------
    BadDataError
        What is there cannot be right, whatever the scan.
    """
    if job.subject is not None:
        return job.subject
    request = replace(job.request, participant_labels=(job.label,), excluded_labels=())
    return read_subject(Dataset(job.bids_dir, request, selection=job.settings.selection), job.label)


def gpu_part(job: Job) -> tuple[Job | None, Job | None]:
    """The job in two: the steps that use a GPU, and those after them; None where that leaves no step."""
    chosen = job.steps or STEP_NAMES
    on_gpu = tuple(name for name in chosen if name in GPU_STEPS)
    rest = tuple(name for name in chosen if name not in GPU_STEPS)
    return (
        # Its own log folder: each part writes down its plan and its steps.
        replace(job, steps=on_gpu, part=True, run_id=_gpu_run(job)) if on_gpu else None,
        replace(job, steps=rest, part=True) if rest else None,
    )


def is_other_part(job: Job, run_id: str) -> bool:
    """Whether a run was the part of a job that uses a GPU, and ``job`` the one after it."""
    return job.part and run_id == _gpu_run(job)


def _gpu_run(job: Job) -> str:
    return f"{job.run_id}_gpu"


def of_both(on_gpu: Sequence[StepRecord], rest: Sequence[StepRecord]) -> tuple[StepRecord, ...]:
    """The records of both parts of a job: of each step that of the part that was to run it."""
    ours = {r.title: r for r in on_gpu if r.step.split()[0] in GPU_STEPS}
    return tuple(ours.get(record.title, record) for record in rest)


def joined(on_gpu: ParticipantResult, rest: ParticipantResult) -> ParticipantResult:
    """The result of both parts of a job."""
    return replace(
        rest,
        records=of_both(on_gpu.records, rest.records) or on_gpu.records,
        exit_code=on_gpu.exit_code or rest.exit_code,
        # What stops both parts, such as a second run on the same participant, is told once.
        error="\n".join(dict.fromkeys(filter(None, [on_gpu.error, rest.error]))),
    )


def lost(job: Job, reason: str) -> ParticipantResult:
    """The result of a participant whose worker process died."""
    return ParticipantResult(job.label, (), HedypetError.exit_code, reason)
