"""What a command line leads to: checks, the study, a summary, an exit code."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hedypet_bids.console import Console
from hedypet_bids.engine import available_cpus, run_all
from hedypet_bids.errors import HedypetError, MissingInputError, MissingProgramError, OutputError
from hedypet_bids.io.dataset import Dataset, read_filters
from hedypet_bids.io.store import Store
from hedypet_bids.options import Options
from hedypet_bids.participant import Job, lost, process
from hedypet_bids.pipeline import run_group
from hedypet_bids.runner import ParticipantResult
from hedypet_bids.settings import Settings
from hedypet_bids.steps.splits import read_splits
from hedypet_bids.tools.validator import validate_dataset
from hedypet_bids.version import __version__

_log = logging.getLogger("hedypet")


def run(options: Options) -> int:
    """Do what the command line asks for; returns the exit status.

    Raises
    ------
    HedypetError
        The run as a whole cannot be done.
    """
    _set_up_logging(options.verbosity)
    _prepare_caches(options.work_dir)
    settings = Settings.from_toml(options.settings_file) if options.settings_file else Settings()
    settings = settings.with_values(options.values)
    if options.level == "group":
        return _group(options, settings)
    return _participants(options, settings)


def _participants(options: Options, settings: Settings) -> int:
    filters = read_filters(options.bids_filter_file) if options.bids_filter_file else {}
    dataset = Dataset(
        options.bids_dir, participant_labels=options.participant_labels, derivatives=options.derivatives
    )
    if not options.skip_bids_validation:
        _validate(dataset.root)
    store = Store(options.output_dir.resolve(), {"raw": dataset.root, **dataset.derivatives})
    nprocs = options.nprocs or available_cpus()
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}"
    jobs = [
        Job(
            label=label,
            bids_dir=dataset.root,
            store=store,
            settings=settings,
            run_id=run_id,
            session_labels=options.session_labels,
            filters=filters,
            derivatives=options.derivatives,
            threads=max(1, nprocs // len(dataset.labels)),
            dry=options.dry_run,
        )
        for label in dataset.labels
    ]
    console = Console(verbose=options.verbosity > 0)
    if options.dry_run:
        results = [process(job, _silent) for job in jobs]
        console.show_plan(results)
        return exit_code_of(results)
    _make_output(store)
    with console:
        results = list(
            run_all(
                process,
                jobs,
                nprocs=nprocs,
                mem_mb=options.mem_mb,
                notify=console.step,
                lost=lost,
            )
        )
    code = exit_code_of(results)
    console.summarise(sorted(results, key=lambda r: r.label), store.root, code)
    return code


def _group(options: Options, settings: Settings) -> int:
    output = options.output_dir.resolve()
    if not (output / "dataset_description.json").is_file():
        raise MissingInputError(
            f"{output} holds no output of the participant level. Run hedypet with 'participant' first."
        )
    splits = read_splits(options.splits_file, [output, options.bids_dir], options.split)
    tables = run_group(output, settings, splits=splits, nprocs=options.nprocs)
    code = HedypetError.exit_code if tables.problems else 0
    Console(verbose=options.verbosity > 0).summarise_group(tables, output, code)
    return code


def exit_code_of(results: Sequence[ParticipantResult]) -> int:
    """0 when all went well; the common code when everyone failed for the same reason; else 1."""
    codes = Counter(result.exit_code for result in results)
    if set(codes) == {0}:
        return 0
    return next(iter(codes)) if len(codes) == 1 else HedypetError.exit_code


def _validate(root: Path) -> None:
    try:
        validate_dataset(root)
    except MissingProgramError as error:
        _log.warning("The dataset is not validated: %s", error)


def _make_output(store: Store) -> None:
    try:
        store.root.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise OutputError(f"The output folder {store.root} cannot be made: {fault.strerror}.") from fault
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


def _prepare_caches(work_dir: Path | None) -> None:
    """Point the caches of numba and matplotlib to the work folder: HOME may not exist or be read-only."""
    work = work_dir or Path(tempfile.gettempdir()) / f"hedypet-{os.getuid()}"
    for variable, folder in (("NUMBA_CACHE_DIR", "numba"), ("MPLCONFIGDIR", "matplotlib")):
        if variable not in os.environ:
            path = work / folder
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as fault:
                raise OutputError(
                    f"The work folder {work} cannot be written: {fault.strerror}. Choose one with --work-dir."
                ) from fault
            os.environ[variable] = str(path)


def _silent(_label: str, _step: str, _state: str) -> None:
    """No progress is shown while planning."""
