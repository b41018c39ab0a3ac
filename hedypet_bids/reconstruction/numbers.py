"""Text files and the numbers written in them, with errors that name the place."""

from __future__ import annotations

import math
import re
from pathlib import Path

from hedypet_bids.errors import BadDataError, MissingInputError, ReadWriteError, shown

_WHOLE = re.compile(r"\+?[0-9]{1,9}")
_VERSION = re.compile(r"[A-Za-z][A-Za-z0-9]{1,15}")


def read_text(path: Path) -> str:
    """Content of a UTF-8 text file, with or without a byte order mark.

    Raises
    ------
    MissingInputError
        The file is not there, or is a folder.
    ReadWriteError
        It cannot be read.
    BadDataError
        It is no text.
    """
    try:
        return path.read_text("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise MissingInputError(f"{path} is not a file. Check the path.") from None
    except OSError as fault:
        raise ReadWriteError(f"{path} cannot be read: {fault.strerror or fault}.") from fault
    except UnicodeDecodeError as fault:
        raise BadDataError(f"{path} is not a UTF-8 text file: {fault}.") from fault


def whole(text: object, where: str, *, least: int, most: int) -> int:
    """The whole number that a text holds, within its limits."""
    value = int(text) if isinstance(text, str) and _WHOLE.fullmatch(text) else None
    if value is None or not least <= value <= most:
        raise BadDataError(f"{where} must be a whole number from {least} to {most}; found {shown(text)}.")
    return value


def millimetres(text: object, where: str) -> float:
    """The width of a filter that a text holds, mm."""
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        value = math.nan
    # A filter wider than 10 cm would leave no image; a number like that is a slip or another unit.
    if not 0 <= value <= 100:
        raise BadDataError(f"{where} must be 0 to 100 mm; found {shown(text)}.")
    return value + 0.0


def version(text: object, where: str) -> str:
    """The scanner's software version that a text holds, such as VR20."""
    if not isinstance(text, str) or not _VERSION.fullmatch(text):
        raise BadDataError(f"{where} must be a software version such as VR20; found {shown(text)}.")
    return text
