"""What tests run and find: the command line, its outputs, the truth of a phantom."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
