"""The weights of TotalSegmentator's models: fetched, verified, put in place, and recorded in a lock file.

Their publisher names no hashes. Where none is known from elsewhere either (``Model.sha256``), the first
download is recorded, and later ones, and the files themselves, are compared with it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hedypet_bids.errors import BadDataError, MissingInputError, UsageError
from hedypet_bids.io.atomic import write_error, write_text
from hedypet_bids.io.lock import exclusive
from hedypet_bids.tools.archives import download_archive, unpack_archive
from hedypet_bids.tools.totalsegmentator import TASK_NAMES, Model, faults_of_weights, models_of_task

LOCK_FILE = "weights.lock.json"
RELEASES_URL = "https://github.com/wasserth/TotalSegmentator/releases/download"
LICENSED_URL = "https://backend.totalsegmentator.com/download_weights"
_UNPACKING = ".unpacking-"


def fetch_model(folder: Path, model: Model, *, licence: str = "", mirror: str = "") -> str:
    """Download a model, verify it, and put it in the place of what is there; gives the archive's SHA-256.

    Parameters
    ----------
    licence
        Number that a licensed model needs; sent to nobody but its publisher.
    mirror
        Address of a folder that holds the archives, instead of where TotalSegmentator publishes them.

    Raises
    ------
    BadDataError
        The archive is not the one expected, or must not be unpacked.
    MissingInputError
        The server does not have it.
    UsageError
        The licence number is refused.
    TryAgainError
        The network failed, or another process is fetching into this folder.
    OutputError, ReadWriteError
        The folder cannot be written.
    """
    with exclusive(folder / ".fetching.lock", wait=False, holder=f"the weights in {folder}"):
        for left in folder.glob(f"{_UNPACKING}*"):
            shutil.rmtree(left, ignore_errors=True)
        archive = folder / f".{model.folder}.zip"
        sha256 = _fetch_archive(folder, model, archive, licence, mirror)
        files = _install(folder, model, archive)
        recorded = read_lock(folder)
        recorded[model.folder] = {"sha256": sha256, "size": archive.stat().st_size, "files": files}
        write_text(folder / LOCK_FILE, json.dumps(recorded, indent=2, sort_keys=True) + "\n")
        archive.unlink()
    return sha256


def known_hash(folder: Path, model: Model) -> str:
    """The SHA-256 that the archive of a model must have; empty before its first download."""
    return model.sha256 or str(read_lock(folder).get(model.folder, {}).get("sha256", ""))


def read_lock(folder: Path) -> dict[str, dict[str, Any]]:
    """What was recorded of each model's archive and files, by the name of its folder.

    Raises
    ------
    BadDataError
        The lock file has no such content.
    """
    path = folder / LOCK_FILE
    try:
        content = json.loads(path.read_text("utf-8"))
        if all(
            isinstance(each["sha256"], str) and isinstance(each["files"], dict) for each in content.values()
        ):
            return dict(content)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        pass
    raise BadDataError(
        f"{path} cannot be read; expected the hashes that it records of each model. Restore it, or "
        "remove it to trust the next download of models without a known hash."
    )


def changes_of_weights(folder: Path, models: Iterable[Model]) -> dict[Model, str]:
    """Which models are not as they were fetched, and how; those of which nothing is recorded are left out."""
    recorded = read_lock(folder)
    changes = {}
    for model in models:
        expected: Mapping[str, str] = recorded.get(model.folder, {}).get("files", {})
        place = folder / model.folder
        if expected and place.is_dir() and (found := _hashes(place)) != expected:
            names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            changes[model] = f"{', '.join(names)}: not as recorded in {LOCK_FILE} when it was fetched"
    return changes


def _fetch_archive(folder: Path, model: Model, archive: Path, licence: str, mirror: str) -> str:
    """Download the archive of a model until its hash is right; gives the hash."""
    expected = known_hash(folder, model)
    while True:
        resumed = archive.exists()
        _download(model, archive, licence, mirror)
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not expected or found == expected:
            return found
        archive.unlink()
        # What an earlier command left may be of another file: only a download in one go tells.
        if not resumed:
            raise BadDataError(
                f"The archive of {model.folder} has SHA-256 {found}; expected {expected}. It is removed. "
                "Try again from another network; if it stays so, the published file has changed: ask its "
                "publisher why before using it."
            )


def _download(model: Model, archive: Path, licence: str, mirror: str) -> None:
    if mirror or not model.licensed:
        place = mirror.rstrip("/") or f"{RELEASES_URL}/{model.release}"
        return download_archive(f"{place}/{model.folder}.zip", archive, size=model.archive_size)
    task = next(TASK_NAMES[task] for task in TASK_NAMES if model in models_of_task(task))
    body = {"license_number": licence, "task": task, "version": version("TotalSegmentator")}
    try:
        return download_archive(LICENSED_URL, archive, body=body)
    except MissingInputError as error:
        raise UsageError(f"{error} Is the licence number right, and valid for {task}?") from error


def _install(folder: Path, model: Model, archive: Path) -> dict[str, str]:
    """Unpack an archive beside the place of its model, and put it there when whole; gives its hashes."""
    try:
        with tempfile.TemporaryDirectory(prefix=_UNPACKING, dir=folder) as name:
            new, place = Path(name) / model.folder, folder / model.folder
            try:
                unpack_archive(archive, new)
                if faults := faults_of_weights(Path(name), [model], read=True):
                    raise BadDataError(f"{archive.name} is not the archive of a model: {faults[model]}.")
            except BadDataError:
                archive.unlink()
                raise
            hashes = _hashes(new)
            if place.exists() or place.is_symlink():
                place.rename(Path(name) / "replaced")
            new.rename(place)
    except OSError as fault:
        raise write_error(folder / model.folder, fault) from fault
    return hashes


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path in the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
