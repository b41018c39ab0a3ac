"""Files that are either complete under their final name or not there at all."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hedypet_bids.errors import HedypetError, OutputError, ReadWriteError

_CANNOT_WRITE = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)


_PREFIX = ".tmp-"
_UMASK = threading.Lock()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path`` that becomes ``path`` when the block ends well.

    Raises
    ------
    OutputError
        The folder cannot be made or written.
    ReadWriteError
        Writing failed half-way (disk full, quota, network file system gone).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The extension stays last, since writers of images and tables choose the format by it.
        handle, name = tempfile.mkstemp(prefix=_PREFIX, suffix="".join(path.suffixes[-2:]), dir=path.parent)
        os.close(handle)
        os.chmod(name, 0o666 & ~_umask())  # noqa: PTH101 - mkstemp files are private; outputs follow the umask
    except OSError as fault:
        raise write_error(path, fault) from fault
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as fault:
        raise write_error(path, fault) from fault
    finally:
        # A disc that can no longer be written must not hide why.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs left half-written below a folder; for who holds its lock.

    What cannot be removed stays: it has no final name, so nothing takes it for a result.
    """
    for path in folder.rglob(f"{_PREFIX}*"):
        with suppress(OSError):
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_error(path: Path, fault: OSError) -> HedypetError:
    """The error that tells a user why ``path`` could not be written."""
    if fault.errno in _CANNOT_WRITE:
        return OutputError(
            f"{path} cannot be written: {fault.strerror}. Check the output folder and its permissions."
        )
    return ReadWriteError(
        f"Writing {path} failed: {fault.strerror or fault}. Free space or restore the file system, "
        "then run the same command again; finished steps are kept."
    )


def _umask() -> int:
    # The umask can only be read by setting it, which one thread at a time may do.
    with _UMASK:
        current = os.umask(0)
        os.umask(current)
    return current
