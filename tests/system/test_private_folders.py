"""Another user of the machine, who can guess the names of work folders, plants and reads nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from environment import open_folder
from running import ENVIRONMENT

NOBODY = 65534
CACHES = ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "DENO_DIR")

# Makes the folder that the user will want first, with a cache of its own in it.
PLANT = """
import os, sys
folder = sys.argv[1]
os.umask(0)
os.makedirs(folder + "/numba", mode=0o777)
open(folder + "/numba/kernel.nbi", "w").write("code")
"""
# What can be listed, read and written of the user's folder; prints what succeeded.
PRY = """
import os, sys
for root in sys.argv[1:]:
    plant = lambda path: open(path + "/numba/kernel.nbi", "w")
    for attempt in (os.listdir, plant, lambda path: os.rename(path, path + "x")):
        try:
            print(root, attempt(root))
        except OSError:
            pass
"""
PREPARE = f"""
import os
from hedypet_bids.io.work_dir import prepare
print(prepare(None), *(os.environ[name] for name in {CACHES!r}), sep="\\n")
"""


@pytest.fixture(autouse=True)
def _another_user() -> None:
    if os.getuid() != 0 or not shutil.which("setpriv") or not Path("/usr/bin/python3").is_file():
        pytest.skip("taking another user's part needs root, setpriv and the system's Python")


def as_nobody(code: str, *arguments: Path) -> str:
    """What a program of the other user prints."""
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "/usr/bin/python3")
    words = [*user, "-I", "-c", code, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd="/").stdout


def prepared(temporary: Path) -> list[Path]:
    """The work folder and the caches that a run of this user takes."""
    variables = {key: value for key, value in ENVIRONMENT.items() if key not in CACHES}
    done = subprocess.run(
        [sys.executable, "-c", PREPARE],
        capture_output=True,
        text=True,
        check=True,
        env={**variables, "TMPDIR": str(temporary)},
    )
    return [Path(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("planted", [True, False])
def test_another_user_neither_plants_nor_reads(planted: bool) -> None:
    with open_folder() as temporary:
        temporary.chmod(0o1777)
        guessed = temporary / f"hedypet-{os.getuid()}"
        if planted:
            as_nobody(PLANT, guessed)
        work, *caches = prepared(temporary)
        assert (work == guessed) is not planted
        assert not list(work.rglob("*.nbi"))
        assert as_nobody(PRY, work, *caches) == ""
        assert all(folder.lstat().st_uid == os.getuid() for folder in (work, *caches))
