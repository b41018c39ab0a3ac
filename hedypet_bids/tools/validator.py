"""The BIDS validator, run as an external program (bids-validator-deno, works offline)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hedypet_bids.errors import InvalidDatasetError, MissingProgramError, link_to_nothing
from hedypet_bids.io.atomic import temporary_folder, write_text
from hedypet_bids.io.work_dir import LEFT_OVER

VALIDATOR = "bids-validator-deno"
TIMEOUT_S = 3600
MESSAGES_SHOWN = 10


def validate_dataset(
    root: Path,
    labels: Collection[str] | None = None,
    log: Path | None = None,
    *,
    program: str | None = None,
) -> str:
    """What the validator answers (JSON) on a dataset that is valid BIDS.

    Parameters
    ----------
    labels
        The participants whose files are looked at, besides those of the dataset as a whole; None: all.
    log
        Where the answer is kept when the dataset is not valid.
    program
        The validator; None: the one beside this Python, else on PATH.

    Raises
    ------
    InvalidDatasetError
        The validator finds errors; the message lists them, shortest first.
    MissingProgramError
        The validator is not installed, cannot be started, or ends without an answer: it says nothing of the
        dataset then.
    """
    program = program or find_validator()
    try:
        with _view(root, labels) as folder:
            command = [program, str(folder), "--format", "json", "--ignoreWarnings"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except OSError as fault:
        raise MissingProgramError(f"{VALIDATOR} cannot be started: {fault}.") from fault
    except subprocess.TimeoutExpired as fault:
        raise InvalidDatasetError(
            f"{VALIDATOR} did not finish within {TIMEOUT_S} s on {root}; use --skip-bids-validation."
        ) from fault
    if done.returncode == 0:
        return done.stdout
    errors = _errors(done.stdout, root)
    if not errors:
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise MissingProgramError(f"{VALIDATOR} ended with status {done.returncode} and no answer: {last}")
    if log is not None:
        write_text(log, done.stdout)
    shown = "\n  ".join(errors[:MESSAGES_SHOWN])
    more = f"\n  ... and {len(errors) - MESSAGES_SHOWN} more" if len(errors) > MESSAGES_SHOWN else ""
    raise InvalidDatasetError(
        f"{root} is not valid BIDS:\n  {shown}{more}\n"
        "Correct the dataset, or go on at your own risk with --skip-bids-validation."
    )


@contextmanager
def _view(root: Path, labels: Collection[str] | None) -> Iterator[Path]:
    """The dataset, or a folder of links to it without the participants that are not asked for.

    The validator has no option for this, and takes minutes for thousands of participants.
    """
    wanted = None if labels is None else {f"sub-{label}" for label in labels}
    entries = sorted(root.iterdir())
    others = [path for path in entries if path.name.startswith("sub-") and path.name not in (wanted or ())]
    if wanted is None or not others:
        yield root
        return
    with temporary_folder(prefix=LEFT_OVER) as folder:
        for path in entries:
            if path not in others:
                (folder / path.name).symlink_to(path)
        yield folder


def find_validator() -> str:
    """The path of the validator: beside this Python, else on PATH."""
    beside = Path(sys.executable).with_name(VALIDATOR)
    found = str(beside) if beside.is_file() else shutil.which(VALIDATOR)
    if not found:
        raise MissingProgramError(f"{VALIDATOR} is not installed; install it with pip install {VALIDATOR}.")
    return found


def _errors(output: str, root: Path) -> list[str]:
    """What the validator finds, shortest first; of content that was not fetched what that is."""
    try:
        issues: list[dict[str, Any]] = json.loads(output)["issues"]["issues"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return []
    found = set()
    for issue in issues:
        if issue.get("severity") != "error":
            continue
        path = root / str(issue.get("location", "")).lstrip("/")
        said = (
            str(issue[key]).strip()
            for key in ("location", "code", "subCode", "issueMessage")
            if issue.get(key)
        )
        found.add(link_to_nothing(path) if path.is_symlink() and not path.exists() else ": ".join(said))
    return sorted(found, key=lambda text: (len(text), text))
