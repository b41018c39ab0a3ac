"""What surrounds a run, made faulty on purpose: small and read-only discs, other users, no network."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import ROOT

SOMEBODY = 12345
"""A user who is not in /etc/passwd, as ``docker run --user`` and SLURM in containers give."""

# Runs a shell command once, when a step has written its first file but not yet that file's sidecar.
DISTURBED = """
import subprocess, sys
from pathlib import Path
from hedypet_bids.cli.main import main
step, command, disturbed = f'"Step": "{sys.argv[1]}"', sys.argv[2], []
def watch(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith(".json") and not disturbed:
        if step in Path(arguments[0]).read_text():
            disturbed.append(step)
            subprocess.run(command, shell=True, check=True)
sys.addaudithook(watch)
sys.exit(main(sys.argv[3:]))
"""

# As ``ip link set lo up``, of a tool that need not be installed: SIOCSIFFLAGS with IFF_UP | IFF_RUNNING.
_LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 0x41))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def command(*arguments: str | Path) -> list[str]:
    """The command line of hedypet."""
    return [sys.executable, str(ROOT / "run.py"), *map(str, arguments)]


def disturbed(step: str, disturbance: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run hedypet; within ``step`` a shell command disturbs it."""
    return run([sys.executable, "-c", DISTURBED, step, disturbance, *map(str, arguments)])


def run(
    words: Sequence[str], *, without: Sequence[str] = (), umask: int = -1, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in this environment with more variables, or without some."""
    variables = {key: value for key, value in os.environ.items() if key not in without}
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
        cwd=ROOT,
        env={**variables, **environment},
    )


@contextmanager
def disc(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory, mounted on a new folder; ``options`` such as ``size=1m`` make it small."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", options, "hedypet-test", str(folder)]
    mounted = _attempt(words)
    if mounted:
        pytest.skip(f"no file system can be mounted here ({mounted})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change the size of a mounted disc, or whether it may be written."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def without_network(words: Sequence[str], *, loopback: bool) -> list[str]:
    """A command in a network of its own, in which there is nothing but the loopback device, up or down."""
    fault = _attempt(["unshare", "--net", sys.executable, "-c", _LOOPBACK_UP, "true"])
    if fault:
        pytest.skip(f"no network namespace can be made here ({fault})")
    return ["unshare", "--net", *([sys.executable, "-c", _LOOPBACK_UP] if loopback else []), *words]


@contextmanager
def open_folder() -> Iterator[Path]:
    """A new folder that every user can enter and write; those of pytest are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="hedypet-test-"))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def as_somebody(words: Sequence[str]) -> list[str]:
    """A command run by another user, without capabilities; skips where that cannot be arranged."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can run something as another user (and needs setpriv)")
    become = [
        "setpriv",
        f"--reuid={SOMEBODY}",
        f"--regid={SOMEBODY}",
        "--clear-groups",
        "--bounding-set=-all",
        "--",
    ]
    # Where its library cannot be entered, a venv's Python quietly takes that of the system.
    same = f"import sys, numpy, hedypet_bids; sys.exit(sys.base_prefix != {sys.base_prefix!r})"
    check = [sys.executable, "-c", same]
    for way in (become, ["unshare", "--mount", "sh", "-euc", _opening(), "sh", *become]):
        fault = _attempt([*way, *check])
        if not fault:
            return [*way, *words]
    pytest.skip(f"another user cannot run this Python ({fault})")


def _opening() -> str:
    """Shell commands that make the interpreter reachable for everybody, in this mount namespace only.

    Python often lives in a home folder that nobody else may enter: an empty folder is laid over that, and
    in it the interpreter appears in its old place.
    """
    lines = []
    for number, place in enumerate({Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT}):
        closed = next((p for p in reversed(place.parents) if not p.stat().st_mode & 0o001), None)
        if closed is None:
            continue
        keep = f'"$keep"/{number}'
        quoted = shlex.quote(str(place))
        lines += [
            f"mkdir {keep}; mount --bind {quoted} {keep}",
            f"mount -t tmpfs -o mode=755 hedypet-test {shlex.quote(str(closed))}",
            f"mkdir -p {quoted}; mount --bind {keep} {quoted}",
        ]
    return "\n".join(["keep=$(mktemp -d); mount -t tmpfs hedypet-test $keep", *lines, 'exec "$@"'])


def _attempt(words: Sequence[str]) -> str:
    """Why a command fails; empty when it does not."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
    except OSError as fault:
        return str(fault)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it failed"])[-1]


def clock(offset: str, timestamp_file: Path | None = None) -> Mapping[str, str]:
    """Variables that give a program another time of day; skips where libfaketime is not installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime (Debian: libfaketime) is not installed")
    told = {"FAKETIME_TIMESTAMP_FILE": str(timestamp_file)} if timestamp_file else {"FAKETIME": offset}
    if timestamp_file:
        timestamp_file.write_text(f"{offset}\n")
    return {
        **told,
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_NO_CACHE": "1",
        # Setting a machine's clock does not touch its monotonic clock.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
        "NO_FAKE_STAT": "1",
    }
