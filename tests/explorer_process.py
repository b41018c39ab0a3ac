"""A running explorer, as a user starts it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running import BIN, ROOT


@contextmanager
def explorer(output: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Its address, with the token, as it prints it, and the number of its process."""
    with subprocess.Popen(
        [sys.executable, BIN / "hedypet-explorer", output, "--no-browser", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1], process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        assert process.returncode == 0
