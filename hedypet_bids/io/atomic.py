"""Files that are either complete under their final name or not there at all."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
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
_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD and the flag, of Linux' fcntl.h
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
        suffix = "".join(path.suffixes[-2:])
        handle, name = _held(lambda: tempfile.mkstemp(prefix=_PREFIX, suffix=suffix, dir=path.parent))
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
        os.close(handle)
        # A disc that can no longer be written must not hide why.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(parent: Path | None = None, *, prefix: str = _PREFIX) -> Iterator[Path]:
    """A new folder in ``parent`` (default: that for temporary files), gone when the block ends.

    As long as its process lives, :func:`remove_leftovers` of other runs passes it by.

    Raises
    ------
    OSError
        It cannot be made.
    """

    def make() -> tuple[int, str]:
        while True:
            name = tempfile.mkdtemp(prefix=prefix, dir=parent)
            # Another run may take it for left over before it is even opened.
            with suppress(FileNotFoundError):
                return os.open(name, os.O_RDONLY), name

    handle, name = _held(make)
    try:
        yield Path(name)
    finally:
        os.close(handle)
        shutil.rmtree(name, ignore_errors=True)


def publish_folder(made: Path, final: Path) -> None:
    """Put a folder in the place of another; what was there, if anything, is then where it was made.

    Where the system can exchange two folders, there is no moment without one.

    Raises
    ------
    OSError
        The file system refuses.
    """
    if not final.exists():
        made.replace(final)
    elif not _exchanged(made, final):
        before = made.with_name(f"{made.name}-before")
        final.replace(before)
        made.replace(final)
        before.replace(made)


def remove_leftovers(folder: Path, pattern: str = f"{_PREFIX}*", *, deep: bool = True) -> None:
    """Remove what killed runs left below a folder (``deep``), or in it; what a living run holds stays.

    What cannot be removed stays as well: it has no final name, so nothing takes it for a result.
    """
    for path in list(folder.rglob(pattern) if deep else folder.glob(pattern)):
        with suppress(OSError):
            if path.lstat().st_uid == os.getuid() and not path.is_symlink():
                _remove_unheld(path)


def _remove_unheld(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with suppress(OSError):  # what cannot be removed, and file systems without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    finally:
        os.close(handle)


def _held(make: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """What ``make`` opens and names, locked: its lock ends with this process, however that ends."""
    while True:
        handle, name = make()
        with suppress(OSError):  # a file system without locks, where nothing is taken for left over
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Another run may have taken it for left over before it was locked.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), Path(name).stat()):
                return handle, name
        os.close(handle)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two folders could be given each other's name in one go, as Linux can on most file systems."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(rename(_HERE, names[0], _HERE, names[1], _RENAME_EXCHANGE) == 0)


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) atomically; what is no text in the name of a file is escaped."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_error(path: Path, fault: OSError) -> HedypetError:
    """The error that tells a user why ``path`` could not be written."""
    if fault.errno in _CANNOT_WRITE:
        return OutputError(
            f"{path} cannot be written: {fault.strerror}. Check its folder and its permissions."
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
