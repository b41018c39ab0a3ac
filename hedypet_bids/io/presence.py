"""Whether there is a file to read: opening a pipe would wait for ever, reading a device never end."""

from __future__ import annotations

from pathlib import Path

from hedypet_bids.errors import BadDataError, link_to_nothing


def is_there(path: Path) -> bool:
    """Whether there is a file to read.

    Raises
    ------
    BadDataError
        Something is there that cannot be read: a link to nothing, a folder, a pipe.
    """
    if path.is_symlink() and not path.exists():
        raise BadDataError(link_to_nothing(path))
    refuse_other_kinds(path)
    return path.is_file()


def refuse_other_kinds(path: Path) -> None:
    """Raise BadDataError for what is there and no file: a folder, a pipe, a device."""
    try:
        other = path.exists() and not path.is_file()
    except PermissionError:
        return  # reading it will say so
    if other:
        raise BadDataError(f"{path} must be a file; found a folder, pipe or device. Remove or rename it.")
