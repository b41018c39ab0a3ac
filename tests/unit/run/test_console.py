"""Progress on a terminal and in a log."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

from running import ROOT, Run

from hedypet_bids.run.options import N_STEPS


def test_the_number_of_steps_is_that_of_the_pipeline(phantom_run: Run) -> None:
    plan = subprocess.run(
        [
            sys.executable,
            str(ROOT / "run.py"),
            phantom_run.bids,
            phantom_run.output,
            "participant",
            "--dry-run",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    first = plan.split("sub-002")[0]
    states = re.findall(r"^    \S.*?  +(?:to run|done|skipped|failed) ", first, flags=re.MULTILINE)
    assert len(states) == N_STEPS


def test_a_terminal_gets_a_bar_per_participant(phantom_run: Run) -> None:
    master, slave = pty.openpty()
    subprocess.run(["stty", "cols", "120", "rows", "30"], stdin=slave, check=True)
    command = [sys.executable, str(ROOT / "run.py"), phantom_run.bids, phantom_run.output, "participant"]
    done = subprocess.Popen([*command, "--nprocs", "1"], stderr=slave, stdin=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(master)
    assert done.wait() == 0
    text = shown.decode()
    assert re.search(rf"sub-001 .*{N_STEPS}/{N_STEPS}", text), text[-2000:]
    assert re.search(rf"sub-002 .*{N_STEPS}/{N_STEPS}", text)
    assert "(exit code 0)" in text.splitlines()[-1]
