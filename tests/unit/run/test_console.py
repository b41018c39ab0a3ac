"""Progress on a terminal and in a log."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

from running import ROOT, Run


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
    # To the end of the bar, which counts every step, also those that a participant does not need.
    for label in ("001", "002"):
        counts = [(int(n), int(of)) for n, of in re.findall(rf"sub-{label} [^\r\n]*?(\d+)/(\d+)", text)]
        assert counts[-1][0] == counts[-1][1] > 15, text[-2000:]
    assert "(exit code 0)" in text.splitlines()[-1]
