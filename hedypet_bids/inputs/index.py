"""The images of a participant, found by pybids, which knows no CT and gets an edited configuration."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.atomic import temporary_folder, write_text
from hedypet_bids.io.work_dir import LEFT_OVER
from hedypet_bids.names import Source
from hedypet_bids.version import __version__

IMAGE_EXTENSIONS = (".nii.gz", ".nii")

# What the names of PET, CT and MR images have; each further one costs pybids a millisecond a participant.
_ENTITIES = (
    *("subject", "session", "task", "tracer", "acquisition", "ceagent", "reconstruction", "direction", "run"),
    *("suffix", "datatype", "extension"),
)


def images_of(root: Path, label: str, *, database_dir: Path | None = None) -> list[Source]:
    """Every PET, CT and MR image of a participant, in the order of their names.

    Parameters
    ----------
    database_dir
        Keeps the index of each participant, which is then not made again; None: nothing is kept.

    Raises
    ------
    BadDataError
        The folder cannot be read, its kept index is of other files, or an image is named after another
        participant or session than its folder.
    OutputError
        The index cannot be written.
    """
    with temporary_folder(prefix=LEFT_OVER) as folder:
        layout = _layout(root, label, folder, database_dir / f"sub-{label}" if database_dir else None)
        files = layout.get(datatype=list(names.INPUT_DATATYPES), extension=list(IMAGE_EXTENSIONS))
        found = [(Path(file.path).relative_to(layout.root), file.get_entities()) for file in files]
    for path, _ in found:
        check_named_after_folder(root / f"sub-{label}" / path, label)
    return [
        Source(
            path=root / f"sub-{label}" / path,
            root=root,
            entities={key: str(value) for key, value in entities.items()},
            suffix=entities["suffix"],
            datatype=entities["datatype"],
        )
        for path, entities in sorted(found, key=lambda item: str(item[0]))
    ]


def check_named_after_folder(path: Path, label: str) -> None:
    """Raise BadDataError for a file whose name gives another participant or session than its folders.

    Parameters
    ----------
    label
        Of the participant in whose folder, or under whose name, it lies.
    """
    entities = names.entities_of(path.name)
    session = next((f.name for f in path.parents if f.name.startswith("ses-")), "")
    of_folder = {"sub": label, "ses": session.removeprefix("ses-")}
    for key, expected in of_folder.items():
        if expected and entities.get(key, expected) != expected:
            raise BadDataError(
                f"{path} is named after {key}-{entities[key]}; expected {key}-{expected}, as its folder is. "
                "Move it to the folder that it belongs to, or mend its name."
            )


def _layout(root: Path, label: str, folder: Path, database: Path | None) -> Any:
    # Imported here: pybids takes half a second, which --help and --version do not have.
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    given = _in_utf8(root, database or folder)
    participant = given / f"sub-{label}"
    config = (database or folder) / "bids_with_ct.json"
    try:
        # A kept index is of one state of the folder; pybids itself does not look whether it still is.
        state = _state(participant)
        fresh = database is None or _read(database / "state.txt") != state
        if fresh:
            write_text(config, json.dumps(_pybids_config(given)))
        layout = BIDSLayout(
            participant,
            validate=False,
            config=str(config),
            database_path=database,
            reset_database=fresh,
            indexer=BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=[_Circles(participant)]),
        )
        if database is not None and fresh:
            write_text(database / "state.txt", state)
        return layout
    except (OSError, ValueError) as fault:
        raise BadDataError(f"{participant} cannot be indexed: {fault}") from fault


def _in_utf8(root: Path, folder: Path) -> Path:
    """The dataset under a name that pybids can keep in its database: its own, or a link in a folder."""
    if _is_utf8(str(root)):
        return root
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "dataset"
    if not link.is_symlink():
        link.symlink_to(root)
    return link


def _is_utf8(text: str) -> bool:
    """Whether a name of a file is text at all, and not just bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _state(folder: Path) -> str:
    """What changes when a file is added to a folder or its subfolders, renamed or removed."""
    folders = sorted(Path(parent) for parent, _, _ in os.walk(folder))
    return "\n".join([__version__, *(f"{path} {path.stat().st_mtime_ns}" for path in folders)])


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _pybids_config(root: Path) -> dict[str, Any]:
    """pybids' configuration with the datatype ct, and without the entities of other modalities."""
    import bids

    path = Path(bids.__file__).parent / "layout" / "config" / "bids.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config["entities"] = [entity for entity in config["entities"] if entity["name"] in _ENTITIES]
    for entity in config["entities"]:
        # pybids searches the whole path, in which folders above the dataset may be called pet or sub-1.
        pattern = entity["pattern"].replace("(anat|", "(anat|ct|", 1)
        entity["pattern"] = f"^{re.escape(str(root))}.*?{pattern}"
    return config


class _Circles:
    """What pybids passes by: links in a circle, what is not for programs, and names that BIDS cannot have."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def search(self, path: str) -> bool:
        """Whether to pass by a path (from the folder indexed), as a compiled expression would say it."""
        return path.startswith("/.") or not _is_utf8(path) or _leads_back(self._root / path.lstrip("/"))


def _leads_back(path: Path) -> bool:
    """Whether a path is a link to one of the folders that lead to it."""
    if not path.is_symlink():
        return False
    target = os.path.realpath(path)
    return any(os.path.realpath(folder) == target for folder in path.parents)
