"""The work folder: temporary files, and the caches of libraries that would write into HOME."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hedypet_bids.errors import OutputError, ReadWriteError
from hedypet_bids.io.atomic import remove_leftovers, temporary_folder

# The validator's runtime, Deno, does not start where it has neither this folder nor a home.
_CACHES = (("NUMBA_CACHE_DIR", "numba"), ("MPLCONFIGDIR", "matplotlib"), ("DENO_DIR", "deno"))


LEFT_OVER = "hedypet-run-"
"""How the names of the temporary folders of a run begin; those of killed runs are removed by the next."""


def prepare(given: Path | None) -> Path:
    """The work folder, made and named to numba and matplotlib, as HOME and the package may be read-only.

    To be called before anything imports them: they look for their folders when they are imported.

    Raises
    ------
    OutputError
        It cannot be written, or none was given and there is no folder for temporary files.
    """
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as fault:
        if given is None:
            raise OutputError(
                "There is no folder for temporary files (TMPDIR, /tmp). Choose one with --work-dir."
            ) from fault
        temporary = given
    wanted = given or temporary / f"hedypet-{os.getuid()}"
    try:
        work = given or _private(wanted)
        work.mkdir(parents=True, exist_ok=True)
        for place in {work, temporary}:
            remove_leftovers(place, f"{LEFT_OVER}*", deep=False)
        for variable, folder in _CACHES:
            if variable not in os.environ:
                path = _private(work / folder)
                # What numba itself would try, to end with a RuntimeError that tells nobody what to do.
                with tempfile.TemporaryFile(dir=path):
                    pass
                os.environ[variable] = str(path)
    except OSError as fault:
        raise OutputError(
            f"The work folder {wanted} cannot be written: {fault.strerror}. Choose one with --work-dir."
        ) from fault
    try:
        Path.home()
    except RuntimeError:
        # A user whom nobody knows, without HOME: pybids asks for the folder when it is imported.
        os.environ["HOME"] = str(work)
    if temporary is given:
        # A read-only container without /tmp: what Python and its children put there goes here.
        tempfile.tempdir = os.environ["TMPDIR"] = str(work)
    return work


def _private(path: Path) -> Path:
    """A folder that only this user can write: this one, or a new one beside it where others could.

    Numba runs what it finds in its cache, so that a folder which another user of the machine made, or
    replaced by a link, would run that user's code.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        return path
    return Path(tempfile.mkdtemp(prefix=f"{path.name}-", dir=path.parent))


@contextmanager
def folder_of_run(work: Path | None, label: str = "") -> Iterator[Path]:
    """A new folder in the work folder, gone when the block ends, or when the next run begins.

    Parameters
    ----------
    work
        The work folder; None for that of temporary files.
    label
        Part of its name.

    Raises
    ------
    OutputError
        It cannot be made.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(work, prefix=f"{LEFT_OVER}{label}-"))
        except OSError as fault:
            raise OutputError(
                f"No temporary folder can be made in {work or tempfile.gettempdir()}: "
                f"{fault.strerror}. Choose another with --work-dir."
            ) from fault
        yield folder


def out_of_space(fault: OSError) -> ReadWriteError | None:
    """The error of a disc that is full elsewhere than in the output; None for other faults."""
    if fault.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    places = {tempfile.gettempdir(), *(os.environ[name] for name, _ in _CACHES if name in os.environ)}
    return ReadWriteError(
        f"{fault}, in the work folder or among the temporary files ({', '.join(sorted(places))}). Free space "
        "or choose another --work-dir, then run the same command again; finished steps are kept."
    )


def empty(folder: Path) -> None:
    """Remove what hedypet keeps in the work folder: caches, and temporary files of runs that were killed.

    Locks stay: whoever holds one that was removed would no longer keep others out.
    """
    for path in [*(folder / name for _, name in _CACHES), *folder.glob("hedypet-*")]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix != ".lock":
            path.unlink(missing_ok=True)
