"""Runs from Python: what the command line does, with results as values and failures as errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hedypet_bids import names
from hedypet_bids.errors import HedypetError, UsageError, did_you_mean, error_of
from hedypet_bids.io import work_dir
from hedypet_bids.io.manifest import Manifest
from hedypet_bids.run.options import DERIVATIVES, STEP_NAMES, Options, check_output
from hedypet_bids.settings import Settings
from hedypet_bids.study import Study


def run_participant(
    bids_dir: str | Path,
    output_dir: str | Path,
    label: str,
    settings: Settings | None = None,
    *,
    sessions: Sequence[str] = (),
    steps: Sequence[str] = (),
    derivatives: Mapping[str, str | Path] | None = None,
    nprocs: int | None = None,
    validate: bool = True,
) -> Manifest:
    """Process one participant: all of its scans, from images to kinetics and pages.

    What an earlier run has finished, and what did not change, is not done again. Progress is shown on
    standard error. Several participants are best processed by one command line, which shares the
    processors and the memory among them.

    Parameters
    ----------
    bids_dir
        The raw BIDS dataset; it is not changed.
    output_dir
        The output folder; it is made when it is missing.
    label
        ``sub-001`` or ``001``.
    settings
        Parameters of the study; None for the defaults.
    sessions
        Sessions whose PET is processed, with or without ``ses-``; all when empty.
    steps
        As ``--steps``; all when empty.
    derivatives
        As ``--derivatives``: folders of ready segmentations and transforms by name.
    nprocs
        Processors to use; None for all that this process may use.
    validate
        Run the BIDS validator first.

    Returns
    -------
    Manifest
        The outputs that are current, and what became of every step.

    Raises
    ------
    HedypetError
        A step failed, or the participant cannot be processed; the message has the reasons, and the class
        is that of the command line's exit status. What was finished is kept.
    UsageError
        The output folder lies inside the dataset, or there is no such step or kind of derivative.
    NothingSelectedError
        There is no such participant, or it has none of the sessions.

    Examples
    --------
    >>> manifest = run_participant("BIDS_DIR", "OUTPUT_DIR", "001", validate=False)
    >>> [str(scan.name) for scan in manifest.scans]
    ['ses-quadra_trc-18FFDG']
    >>> manifest.failed
    ()
    """
    bids, output = Path(bids_dir), Path(output_dir)
    label = names.participant_label(label)
    check_output(bids, output)
    for words, known in ((steps, STEP_NAMES), (derivatives or {}, DERIVATIVES)):
        for word in words:
            if word not in known:
                raise UsageError(
                    f"There is no {word!r}{did_you_mean(word, known)}; there are {names.listed(known)}."
                )
    options = Options(
        bids_dir=bids,
        output_dir=output,
        level="participant",
        participant_labels=(label,),
        session_labels=tuple(session.removeprefix("ses-") for session in sessions),
        steps=tuple(steps),
        derivatives={name: Path(folder) for name, folder in (derivatives or {}).items()},
        nprocs=nprocs,
        skip_bids_validation=not validate,
    )
    work_dir.prepare(None)
    # Imported now: numba and matplotlib look for their folders when they are imported.
    from hedypet_bids.run.app import exit_code_of, process_participants

    results = process_participants(options, settings or Settings())
    code = exit_code_of(results)
    if code:
        reasons = [result.error or f"sub-{result.label} has nothing that was asked for" for result in results]
        raise error_of(code)("\n".join(reasons))
    return Manifest.read(output, label)


def run_group(
    output_dir: str | Path,
    settings: Settings | None = None,
    *,
    split: str | None = None,
    splits_file: str | Path | None = None,
    nprocs: int | None = None,
) -> Study:
    """Write the readout tables and the page of the group, from the outputs of the participants.

    Parameters
    ----------
    output_dir
        The output folder of the participant level.
    settings
        Parameters of the study; None for the defaults.
    split, splits_file
        As ``--split`` and ``--splits``: the participants of one split only.
    nprocs
        Processes that read participants; None for one a processor.

    Returns
    -------
    Study
        The output folder, whose :meth:`Study.readout` reads the tables.

    Raises
    ------
    HedypetError
        The outputs of a participant cannot be read; the tables hold the others.
    MissingInputError
        The folder holds no output of the participant level.
    NothingSelectedError
        It has no participants, or none of the split.

    Examples
    --------
    >>> study = run_group("OUTPUT_DIR")
    >>> "means" in study.tables
    True
    """
    output = Path(output_dir)
    options = Options(
        bids_dir=output,
        output_dir=output,
        level="group",
        split=split,
        splits_file=None if splits_file is None else Path(splits_file),
        nprocs=nprocs,
    )
    work_dir.prepare(None)
    from hedypet_bids.run.app import process_group_level

    tables = process_group_level(options, settings or Settings())
    if tables.problems:
        raise HedypetError("\n".join(f"sub-{label}: {reason}" for label, reason in tables.problems.items()))
    return Study(output)
