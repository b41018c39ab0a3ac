"""What a command line leads to: checks, the study, a summary, an exit code."""

from __future__ import annotations

import logging
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hedypet_bids import names
from hedypet_bids.errors import (
    BadDataError,
    HedypetError,
    MissingInputError,
    MissingProgramError,
    NothingSelectedError,
    OutputError,
    StoppedBySignal,
)
from hedypet_bids.group.splits import Splits, read_splits
from hedypet_bids.inputs.asked import check_asked
from hedypet_bids.inputs.dataset import Dataset, Request, read_filters, selected_labels
from hedypet_bids.io import work_dir
from hedypet_bids.io.address_space import threads_within_limit
from hedypet_bids.io.atomic import remove_leftovers, write_text
from hedypet_bids.io.lock import exclusive
from hedypet_bids.io.manifest import Manifest, new_run
from hedypet_bids.io.store import Store
from hedypet_bids.kernels.kinetics import kinetic_models
from hedypet_bids.model import Subject
from hedypet_bids.run.cluster import Certificates, GpuParts, Workers, available_cpus, run_all
from hedypet_bids.run.console import Console
from hedypet_bids.run.job import Job, ParticipantResult, gpu_part, joined, lost, subject_of
from hedypet_bids.run.memory import memory_limit_mb, participant_mb, segmentation_mb
from hedypet_bids.run.options import SEGMENT, Options, chosen
from hedypet_bids.run.preflight import segmentation_tools
from hedypet_bids.settings import Settings
from hedypet_bids.steps.step import MAPS
from hedypet_bids.tools.validator import validate_dataset
from hedypet_bids.version import __version__

if TYPE_CHECKING:
    from hedypet_bids.group.readouts import GroupTables

# Without --mem-mb the memory of so many participants is estimated: a look at hundreds would take a minute.
_ESTIMATED = 4

_log = logging.getLogger("hedypet")


def run(options: Options, settings: Settings) -> int:
    """Do what the command line asks for with these settings of the study; returns the exit status.

    Raises
    ------
    HedypetError
        The run as a whole cannot be done.
    """
    _set_up_logging(options.verbosity)
    _stop_on_sigterm()
    folder = work_dir.prepare(options.work_dir)
    try:
        if options.level == "group":
            if options.dry_run:
                return plan_group_level(options)
            return process_group_level(options, settings).exit_code
        return exit_code_of(process_participants(options, settings))
    finally:
        if options.clean_workdir:
            work_dir.empty(folder)


def process_participants(options: Options, settings: Settings) -> Sequence[ParticipantResult]:
    """Process or plan the participants that the options select, with progress and a summary for a person.

    Raises
    ------
    HedypetError
        The run as a whole cannot be done.
    """
    request = _request(options)
    dataset = Dataset(options.bids_dir, request)
    check_asked(dataset, settings.selection, options.derivatives)
    _check_population(settings)
    corrections = {"corrections": dataset.corrections.root} if dataset.corrections.root else {}
    links = {"raw": dataset.root, **dataset.derivatives, **corrections}
    store = Store(options.output_dir.resolve(), links, checksums=options.checksums)
    store.check_ours()
    answer = "" if options.skip_bids_validation else _validate(dataset, store, keep=not options.dry_run)
    nprocs = options.nprocs or available_cpus()
    run_id = new_run()
    threads = max(1, nprocs // len(dataset.labels))
    if threads_within_limit(threads) < threads:
        _log.info("A participant gets fewer threads than processors for lack of memory (ulimit -v).")
    jobs = [
        Job(
            label=label,
            bids_dir=dataset.root,
            store=store,
            settings=settings,
            run_id=run_id,
            request=request,
            threads=None if options.dask_scheduler else threads_within_limit(threads),
            dry=options.dry_run,
            steps=options.steps,
        )
        for label in dataset.labels
    ]
    found: dict[str, Subject] = {}
    tools = segmentation_tools(options, settings.segment, [partial(_read, job, found) for job in jobs])
    jobs = [replace(job, tools=tools, subject=found.get(job.label)) for job in jobs]
    console = Console(verbose=options.verbosity > 0)
    if options.dry_run:
        results = [process_job(job, _silent) for job in jobs]
        console.show_plan(results)
        return results
    _make_output(store)
    if answer:
        write_text(store.path(names.VALIDATOR_LOG), answer)
    workers = workers_for(options, jobs, nprocs)
    if not options.low_mem and _fit_side_by_side(jobs, workers):
        jobs = [replace(job, side_by_side=True) for job in jobs]
    progress = _Progress(console)
    with console:
        results = list(
            run_all(
                process_job,
                jobs,
                workers=workers,
                notify=progress.step,
                lost=progress.lost,
                enough=_has_failed if options.stop_on_first_crash else _is_not_enough,
                gpu_parts=GpuParts(gpu_part, joined) if options.device.startswith("gpu") else None,
            )
        )
    results += _not_begun(jobs, results)
    results.sort(key=lambda result: result.label)
    console.summarise(results, store.root, exit_code_of(results))
    return results


def _check_population(settings: Settings) -> None:
    """Raise what is wrong with the people whose blood a model takes, before any participant."""
    if not settings.kinetics.population_readouts:
        return
    # Few runs need it, and it takes a second to import.
    from hedypet_bids.inputs.population import read_population

    if any(model.population for model in kinetic_models(settings)):
        read_population(settings)


def process_job(job: Job, notify: Callable[[str, str, str], None]) -> ParticipantResult:
    """Process one participant, or plan it; whatever goes wrong is in the result."""
    # Imported where the work is done: who only waits for workers is spared the second that the study takes.
    from hedypet_bids.run import participant

    return participant.process(job, notify)


def workers_for(
    options: Options, jobs: Sequence[Job], nprocs: int, *, has_mb: Callable[[], float] = memory_limit_mb
) -> Workers:
    """As many worker processes as processors, participants and memory allow.

    Parameters
    ----------
    has_mb
        Asked for the memory there is, MB, where ``--mem-mb`` does not say what may be used.
    """
    workers = Workers(
        nprocs,
        scheduler=options.dask_scheduler,
        certificates=Certificates(options.tls_ca_file, options.tls_cert, options.tls_key),
        folder=options.work_dir,
    )
    if options.dask_scheduler is not None:
        return workers
    if options.mem_mb:
        needed_mb, limit_mb = _needed_mb(jobs), float(options.mem_mb)
    elif min(nprocs, len(jobs)) > 1:
        needed_mb, limit_mb = _needed_mb(jobs[:_ESTIMATED]), has_mb()
    else:
        return workers
    if needed_mb > limit_mb:
        of = f"--mem-mb {options.mem_mb}" if options.mem_mb else f"the {limit_mb:.0f} MB that there are"
        _log.warning("A participant is estimated to need %.0f MB, more than %s.", needed_mb, of)
    return replace(workers, memory_mb=limit_mb, item_mb=needed_mb, always_watched=options.mem_mb is not None)


def _request(options: Options) -> Request:
    return Request(
        participant_labels=options.participant_labels,
        excluded_labels=options.excluded_labels,
        session_labels=options.session_labels,
        pet_labels=options.pet_labels,
        filters=read_filters(options.bids_filter_file) if options.bids_filter_file else {},
        derivatives=options.derivatives,
        corrections=options.corrections,
        database_dir=options.database_dir,
    )


def _read(job: Job, found: dict[str, Subject]) -> Subject:
    """A participant, which is kept for its run."""
    found[job.label] = subject_of(job)
    return found[job.label]


def _needed_mb(jobs: Sequence[Job], *, side_by_side: bool = False) -> float:
    """The most that any participant is estimated to need."""
    estimates = [0.0]
    for job in jobs:
        try:
            subject = subject_of(job)
            network_mb = 0.0
            if chosen(job.steps, SEGMENT):
                network_mb = segmentation_mb(subject, job.tools, job.settings.segment, job.store)
            body_maps = chosen(job.steps, MAPS) and any(m.of_body for m in kinetic_models(job.settings))
            needed_mb = participant_mb(
                subject, side_by_side=side_by_side, segmentation_mb=network_mb, body_maps=body_maps
            )
            estimates.append(needed_mb)
        except HedypetError:
            continue  # its own run will say so, and must not stop the others
    return max(estimates)


def _fit_side_by_side(jobs: Sequence[Job], workers: Workers) -> bool:
    """Whether the memory is enough for branches of the study that run at the same time."""
    if workers.scheduler is not None:
        return True  # whoever starts the workers gives them their threads and their memory
    if not jobs or jobs[0].threads == 1:
        return False
    limit_mb = workers.memory_mb or memory_limit_mb()
    return workers.number_for(len(jobs)) * _needed_mb(jobs, side_by_side=True) <= limit_mb


class _Progress:
    """Shows the steps, and keeps which of them are running, for participants that are lost."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._running: dict[str, list[str]] = defaultdict(list)

    def step(self, label: str, step: str, state: str) -> None:
        """A step of a participant has started or ended."""
        # A participant that begins again, after its worker was lost, tells of the same steps once more.
        others = [name for name in self._running[label] if name != step]
        self._running[label] = [*others, step] if state == "started" else others
        self._console.step(label, step, state)

    def lost(self, job: Job, reason: str) -> ParticipantResult:
        """The result of a participant whose worker was lost: while which step, and what it was to need."""
        needed = _needed_mb([job], side_by_side=job.side_by_side)
        during = names.listed(self._running[job.label])
        return lost(
            job,
            f"{reason}, while it did: {during}. The participant was estimated to need {needed:.0f} MB. Give "
            "more memory (--mem-mb), fewer processes (--nprocs) or --low-mem, then run the same command "
            "again; finished steps are kept.",
        )


def _has_failed(result: ParticipantResult) -> bool:
    return result.failed


def _is_not_enough(_result: ParticipantResult) -> bool:
    return False


def _not_begun(jobs: Sequence[Job], results: Sequence[ParticipantResult]) -> list[ParticipantResult]:
    """Results of the participants that were left out after the first failure."""
    done = {result.label for result in results}
    reason = "not begun, because another failed and --stop-on-first-crash was given"
    return [lost(job, reason) for job in jobs if job.label not in done]


def process_group_level(options: Options, settings: Settings) -> GroupTables:
    """Write the tables and the page of the group, with a summary for a person.

    Raises
    ------
    HedypetError
        They cannot be written at all.
    """
    output, splits, labels = _group_selection(options)
    with exclusive(output / names.READOUTS_LOCK, wait=True, holder="the group tables"):
        # Imported here: it takes a second, which the participant level does not need in this process.
        from hedypet_bids.pipeline import process_group

        remove_leftovers(output, deep=False)
        tables = process_group(output, settings, labels=labels, splits=splits, nprocs=options.nprocs)
    Console(verbose=options.verbosity > 0).summarise_group(tables, output)
    return tables


def plan_group_level(options: Options) -> int:
    """Say what the tables of the group would be made from, and return the exit status that they would give.

    Raises
    ------
    HedypetError
        They could not be written at all.
    """
    output, splits, labels = _group_selection(options)
    manifests: dict[str, Manifest | BadDataError] = {}
    for label in splits.select(labels):
        try:
            manifests[label] = Manifest.read(output, label)
        except BadDataError as fault:
            manifests[label] = fault
    Console(verbose=options.verbosity > 0).show_group_plan(manifests, output)
    if any(isinstance(found, Manifest) and found.failed for found in manifests.values()):
        return HedypetError.exit_code
    unread = any(isinstance(found, BadDataError) for found in manifests.values())
    return BadDataError.exit_code if unread else 0


def _group_selection(options: Options) -> tuple[Path, Splits, tuple[str, ...]]:
    """The output, the splits of its participants, and the participants that the options name."""
    output = options.output_dir.resolve()
    if not (output / names.DESCRIPTION).is_file():
        raise MissingInputError(
            f"{output} holds no output of the participant level. Run hedypet with 'participant' first."
        )
    Store(output, {}).check_ours()
    splits = read_splits(options.splits_file, [output, options.bids_dir], options.split)
    return output, splits, selected_labels(output, options.participant_labels, options.excluded_labels)


def exit_code_of(results: Sequence[ParticipantResult]) -> int:
    """0 when all went well; the common code when everyone asked for failed for the same reason; else 1."""
    codes = Counter(result.exit_code for result in results if not result.nothing_selected)
    if not codes:
        return NothingSelectedError.exit_code
    if set(codes) == {0}:
        return 0
    return next(iter(codes)) if len(codes) == 1 else HedypetError.exit_code


def _validate(dataset: Dataset, store: Store, *, keep: bool) -> str:
    """The validator's answer on a valid dataset; empty where there is no validator."""
    log = store.path(names.VALIDATOR_LOG) if keep else None
    try:
        return validate_dataset(dataset.root, dataset.labels, log)
    except MissingProgramError as error:
        _log.warning("The dataset is not validated: %s", error)
        return ""


def _make_output(store: Store) -> None:
    try:
        store.root.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise OutputError(f"The output folder {store.root} cannot be made: {fault.strerror}.") from fault
    for folder in (store.root, store.path("logs")):
        remove_leftovers(folder, deep=False)
    store.write_dataset_files()


def _set_up_logging(verbosity: int) -> None:
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    console = logging.StreamHandler()
    console.setLevel(level)
    console.setFormatter(logging.Formatter("%(message)s"))
    _log.handlers[:] = [console]
    _log.setLevel(min(level, logging.INFO))
    _log.propagate = False
    _log.debug("hedypet %s", __version__)


def _stop_on_sigterm() -> None:
    """Let SIGTERM unwind the stack, so that temporary files and child processes are not left behind."""

    def stop(_number: int, _frame: object) -> None:
        # The system may ask again while the first wish is being followed.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise StoppedBySignal

    # Only the main thread may set handlers; elsewhere (tests, notebooks) the caller decides.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def _silent(_label: str, _step: str, _state: str) -> None:
    """No progress is shown while planning."""
