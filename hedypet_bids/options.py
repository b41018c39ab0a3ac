"""What a command line asks for, between the parser and the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
    split: str | None = None
    splits_file: Path | None = None
