"""What a command line asks for, between the parser and the run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hedypet_bids.errors import UsageError

LEVELS = ("participant", "group")
"""The analysis levels of a BIDS App."""

# What the group level takes; all else is about participants. It reads the models from the settings.
_AT_GROUP_LEVEL = {"split", "splits"}
_AT_BOTH_LEVELS = {
    *("participant_label", "exclude_participant_label", "settings", "model", "skip_bids_validation"),
    *("dry_run", "nprocs", "mem_mb", "low_mem", "work_dir", "clean_workdir", "verbose"),
}

SEGMENT = "segment"

STEP_NAMES = (
    SEGMENT,
    "register",
    "static",
    "resample",
    "normalise",
    "aorta",
    "tacs",
    "input_functions",
    "kinetics",
    "maps",
    "means",
    "quality",
    "report",
)
"""What --steps can choose: the modules of :mod:`hedypet_bids.steps`, in the order of the pipeline."""

GPU_STEPS = (SEGMENT,)
"""Those that use a GPU where there is one."""

LEVELS_OF_PROCESSING = {
    "minimal": (SEGMENT, "register"),
    "resampling": (SEGMENT, "register", "static", "resample", "normalise"),
    "full": (),
}
"""What --level stands for, in the words of --steps."""

DERIVATIVES = ("totalsegmentator", "synthseg", "aorta", "xfm")
"""Names of the folders of ready results that --derivatives takes."""

THREADS_VARIABLE = "HEDYPET_THREADS"
"""Set by hedypet-worker: the threads of each of its participants."""

WORK_DIR_VARIABLE = "HEDYPET_WORK_DIR"
"""Set by hedypet-worker: its own work folder, which takes the place of that of whoever sent the work."""


def has_meaning(option: str, level: str) -> bool:
    """Whether an option, by the name of its value, changes anything at an analysis level.

    Examples
    --------
    >>> has_meaning("split", "group"), has_meaning("split", "participant"), has_meaning("nprocs", "group")
    (True, False, True)
    """
    return option in _AT_BOTH_LEVELS or (option in _AT_GROUP_LEVEL) == (level == "group")


def chosen(steps: Collection[str], step: str) -> bool:
    """Whether a step is among those asked for; naming none asks for all."""
    return not steps or step in steps


def check_output(bids_dir: Path, output_dir: Path) -> None:
    """Raise UsageError where an output folder lies inside the raw dataset, apart from its derivatives."""
    raw, output = bids_dir.resolve(), output_dir.resolve()
    inside = output == raw or (raw in output.parents and output.relative_to(raw).parts[0] != "derivatives")
    if inside:
        raise UsageError(
            f"The output folder {output_dir} lies inside the raw dataset {bids_dir}. "
            f"Choose a folder outside it, or {bids_dir / 'derivatives' / 'hedypet'}."
        )


@dataclass(frozen=True)
class Options:
    """What the command line asks for, apart from the study's settings."""

    bids_dir: Path
    output_dir: Path
    level: str
    participant_labels: tuple[str, ...] = ()
    session_labels: tuple[str, ...] = ()
    derivatives: Mapping[str, Path] = field(default_factory=dict, hash=False)
    bids_filter_file: Path | None = None
    skip_bids_validation: bool = False
    settings_file: Path | None = None
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    work_dir: Path | None = None
    nprocs: int | None = None
    mem_mb: int | None = None
    dry_run: bool = False
    verbosity: int = 0
    steps: tuple[str, ...] = ()
    stop_on_first_crash: bool = False
    clean_workdir: bool = False
    dask_scheduler: str | None = None
    tls_ca_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    low_mem: bool = False
    device: str = "auto"
    gpu_mem_mb: int | None = None
    use_totalsegmentator: bool = True
    totalseg_weights: Path | None = None
    totalseg_license: str | None = field(default=None, repr=False)
    mri_synthseg: Path | None = None
    split: str | None = None
    splits_file: Path | None = None
    excluded_labels: tuple[str, ...] = ()
    pet_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    corrections: Path | None = None
    database_dir: Path | None = None
    checksums: bool = False
