"""The BIDS validator, run as an external program (bids-validator-deno, works offline)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hedypet_bids.errors import InvalidDatasetError, MissingProgramError

PROGRAM = "bids-validator-deno"
TIMEOUT_S = 3600
MESSAGES_SHOWN = 10


def validate_dataset(root: Path) -> None:
    """Return when the dataset is valid BIDS.

    Raises
    ------
    InvalidDatasetError
        The validator finds errors; the message lists them, shortest first.
    MissingProgramError
        The validator is not installed or cannot be started.
    """
    command = [find_program(), str(root), "--format", "json", "--ignoreWarnings"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except OSError as fault:
        raise MissingProgramError(f"{PROGRAM} cannot be started: {fault}.") from fault
    except subprocess.TimeoutExpired as fault:
        raise InvalidDatasetError(
            f"{PROGRAM} did not finish within {TIMEOUT_S} s on {root}; use --skip-bids-validation."
        ) from fault
    if done.returncode == 0:
        return
    errors = _errors(done.stdout)
    shown = "\n  ".join(errors[:MESSAGES_SHOWN]) or done.stderr.strip() or "no message"
    more = f"\n  ... and {len(errors) - MESSAGES_SHOWN} more" if len(errors) > MESSAGES_SHOWN else ""
    raise InvalidDatasetError(
        f"{root} is not valid BIDS:\n  {shown}{more}\n"
        "Correct the dataset, or go on at your own risk with --skip-bids-validation."
    )


def find_program() -> str:
    """The path of the validator: beside this Python, else on PATH."""
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if not found:
        raise MissingProgramError(f"{PROGRAM} is not installed; install it with pip install {PROGRAM}.")
    return found


def _errors(output: str) -> list[str]:
    try:
        issues: list[dict[str, Any]] = json.loads(output)["issues"]["issues"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return []
    found = [
        ": ".join(
            str(issue[key]).strip()
            for key in ("location", "code", "subCode", "issueMessage")
            if issue.get(key)
        )
        for issue in issues
        if issue.get("severity") == "error"
    ]
    return sorted(found, key=len)
