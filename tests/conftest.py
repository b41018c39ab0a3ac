"""Data that several tests share: a tiny phantom, both levels run on it, and the realistic dataset."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from isal import igzip

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Run:
    """A dataset and what the command line made of it."""

    bids: Path
    output: Path
    participant: subprocess.CompletedProcess[str]
    group: subprocess.CompletedProcess[str]


def hedypet(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def run_both_levels(bids: Path, output: Path, *options: str) -> Run:
    """Participant, then group."""
    participant = hedypet(bids, output, "participant", *options)
    return Run(bids, output, participant, hedypet(bids, output, "group"))


def truth(bids: Path, label: str) -> dict[str, Any]:
    """What a phantom was made from."""
    path = bids.parent / f"{bids.name}_truth" / f"sub-{label}.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def content_of(path: Path) -> bytes:
    """What a file holds; of a compressed image a digest of what is compressed.

    The compressor (isal) was once seen to take one byte more for the same voxels.
    """
    if not path.name.endswith(".nii.gz"):
        return path.read_bytes()
    with igzip.open(path) as file:
        return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]


def only(folder: Path, pattern: str) -> Path:
    """The one file of a folder that matches."""
    found = sorted(folder.rglob(pattern))
    assert len(found) == 1, (pattern, found)
    return found[0]


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """Leave the variables of the process as they were: the command line sets some for its libraries."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny phantom dataset: participant 001 complete, 002 without dynamic PET, MR and topogram."""
    from hedypet_bids.phantom import write_phantom

    return write_phantom(
        tmp_path_factory.mktemp("phantom") / "bids",
        participants=2,
        seed=1,
        size="tiny",
        without={"002": ("dynamic", "mr", "topogram")},
    )


@pytest.fixture(scope="session")
def phantom_run(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both levels run on the tiny phantom."""
    return run_both_levels(phantom, tmp_path_factory.mktemp("phantom-run") / "out")


@pytest.fixture(scope="session")
def realistic() -> Path:
    """The realistic dataset that stands beside the project on the development machines."""
    path = SHARED / "realistic"
    if not path.is_dir():
        pytest.skip("the realistic dataset (shared/data/realistic) is not on this machine")
    return path


@pytest.fixture(scope="session")
def realistic_run(realistic: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both levels run on the realistic dataset."""
    return run_both_levels(realistic, tmp_path_factory.mktemp("realistic-run") / "out")
