"""What a command line asks for, between the parser and the run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEGMENTATION = "segment"

STEP_NAMES = (
    SEGMENTATION,
    "register",
    "resample",
    "normalise",
    "means",
    "aorta",
    "tacs",
    "patlak",
    "quality",
    "report",
)
"""What --steps can choose; a step's ``group`` is one of these."""

N_STEPS = 18
"""Steps that a participant has by these names unless more is asked for; a test holds it to the truth."""

GPU_STEPS = (SEGMENTATION,)
"""Those that use a GPU where there is one."""

LEVELS_OF_PROCESSING = {
    "minimal": (SEGMENTATION, "register"),
    "resampling": (SEGMENTATION, "register", "resample", "normalise"),
    "full": (),
}
"""What --level stands for, in the words of --steps."""

THREADS_VARIABLE = "HEDYPET_THREADS"
"""Set by hedypet-worker: the threads of each of its participants."""

WORK_DIR_VARIABLE = "HEDYPET_WORK_DIR"
"""Set by hedypet-worker: its own work folder, which takes the place of that of whoever sent the work."""


def chosen(steps: Collection[str], step: str) -> bool:
    """Whether a step is among those asked for; naming none asks for all."""
    return not steps or step in steps


@dataclass(frozen=True)
class Options:
    """What the command line asks for, apart from the study's settings."""

    bids_dir: Path
    output_dir: Path
    level: str
    participant_labels: tuple[str, ...]
    session_labels: tuple[str, ...]
    derivatives: dict[str, Path]
    bids_filter_file: Path | None
    skip_bids_validation: bool
    settings_file: Path | None
    values: dict[str, dict[str, Any]]
    work_dir: Path | None
    nprocs: int | None
    mem_mb: int | None
    dry_run: bool
    verbosity: int
    steps: tuple[str, ...] = ()
    stop_on_first_crash: bool = False
    clean_workdir: bool = False
    dask_scheduler: str | None = None
    tls_ca_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    low_mem: bool = False
    device: str = "auto"
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
