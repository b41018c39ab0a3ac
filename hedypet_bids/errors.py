"""Every way hedypet can fail, with the exit code each one ends the program with.

HedypetError                   1   at least one participant failed
├── UsageError                 2   the command line cannot be understood
├── InvalidDatasetError       16   the input is not valid BIDS
├── UnknownLevelError         17   the analysis level is not participant or group
├── NothingSelectedError      18   the filters leave nothing to process
├── BadDataError              65   a file was read but its content cannot be right
├── MissingInputError         66   a file or folder that is needed is not there
├── OutputError               73   the output cannot be written
├── ReadWriteError            74   the disk failed while reading or writing
├── TryAgainError             75   a passing fault; the same command may succeed
└── MissingProgramError      127   an external program is not installed

StoppedBySignal               75   SIGTERM: the system wants the program to end (no HedypetError, so that no
                                   step takes it for its own failure)

Only ``cli.main`` turns an error into an exit status. A message says what was
expected, what was found, where, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class HedypetError(Exception):
    """Base of all errors that hedypet raises on purpose."""

    exit_code = 1


class UsageError(HedypetError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class InvalidDatasetError(HedypetError):
    """The BIDS validator rejects the input dataset."""

    exit_code = 16


class UnknownLevelError(UsageError):
    """The analysis level is neither ``participant`` nor ``group``."""

    exit_code = 17


class NothingSelectedError(HedypetError):
    """The participant and file filters match nothing in the dataset."""

    exit_code = 18


class BadDataError(HedypetError):
    """An input file is readable, but its content is impossible or inconsistent."""

    exit_code = 65


class MissingInputError(HedypetError):
    """An input file or folder that cannot be done without is missing."""

    exit_code = 66


class OutputError(HedypetError):
    """The output folder cannot be created or written."""

    exit_code = 73


class ReadWriteError(HedypetError):
    """Reading or writing failed half-way (disk full, network file system gone)."""

    exit_code = 74


class TryAgainError(HedypetError):
    """A passing fault such as a lock held by another run."""

    exit_code = 75


class MissingProgramError(HedypetError):
    """An external program that was asked for cannot be found or started."""

    exit_code = 127


class StoppedBySignal(BaseException):
    """The system asked the program to end, as SLURM does before it kills."""

    exit_code = 75


def error_of(exit_code: int) -> type[HedypetError]:
    """The kind of error that ends the program with an exit code."""
    kinds: list[type[HedypetError]] = [HedypetError, *HedypetError.__subclasses__()]
    return next((kind for kind in kinds if kind.exit_code == exit_code), HedypetError)


class Problems:
    """Gathers errors that do not depend on each other, so that all are reported together."""

    def __init__(self) -> None:
        self._found: list[HedypetError] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note an error raised inside, and go on."""
        try:
            yield
        except HedypetError as error:
            self._found.append(error)

    def raise_any(self) -> None:
        """Raise the error that was noted; several as one of the first one's kind, a paragraph each."""
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            raise type(self._found[0])("\n\n".join(str(error) for error in self._found))


def link_to_nothing(path: Path) -> str:
    """A link whose target is not there, as in a DataLad dataset, and what to do about it."""
    return (
        f"{path} is a link to {path.readlink()}, which is not there. Fetch its content (datalad get, git "
        "annex get) or restore it."
    )


_SHOWN_CHARACTERS = 80


def shown(value: object) -> str:
    """What was found, as Python writes it: cut where it is long, since a cell may hold a book."""
    text = repr(value[: _SHOWN_CHARACTERS + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


_NAME = 80  # more letters are no name, and comparing millions takes seconds


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'frames'?)`` for the known word nearest to one that is not; empty if none is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word[:_NAME].lower(), by_lower, n=1)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""
