"""Runs a program and ends it, with its children, when the process that wanted it is gone.

A worker that is killed cannot end what it started, which would hold a GPU and memory for hours. This file is
run by itself, as the leader of a process group: ``python guard.py PARENT_PID COMMAND...``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

CANNOT_START = 126
"""Exit status when there is no such program, as that of a shell."""

_LOOK_UP_S = 0.5


def main(parent: int, command: Sequence[str]) -> int:
    """The exit status of the command; a signal that ended it ends this process as well."""
    try:
        program = subprocess.Popen(command)
    except OSError as fault:
        sys.stderr.write(f"{fault}\n")
        return CANNOT_START
    while True:
        try:
            code = program.wait(_LOOK_UP_S)
            break
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                os.killpg(0, signal.SIGKILL)
    if code < 0:
        # Python handles SIGINT and ignores SIGPIPE; SIGKILL cannot be set, and need not.
        with suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
