"""External programs that hang, fail, die or are not there."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from hedypet_bids.errors import (
    HedypetError,
    MissingProgramError,
    ReadWriteError,
    StoppedBySignal,
    TryAgainError,
)
from hedypet_bids.tools.external import run_program


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    marker = tmp_path / "child.txt"
    script = f"(sleep 3; touch {marker}) & sleep 60"
    began = time.monotonic()
    with pytest.raises(HedypetError, match="did not finish within 1 s") as error:
        run_program(["sh", "-c", script], title="it", log=tmp_path / "log", timeout_s=0.6)
    assert error.value.exit_code == 1 and time.monotonic() - began < 20
    time.sleep(3.5)
    assert not marker.exists()


def test_a_program_that_nobody_wants_any_more_is_ended(tmp_path: Path) -> None:
    cancelled = threading.Event()
    threading.Timer(0.5, cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(StoppedBySignal):
        run_program(["sleep", "60"], title="it", log=tmp_path / "log", timeout_s=60, cancelled=cancelled)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("echo lost; kill -9 $$", TryAgainError, "killed by SIGKILL.*memory"),
        ("echo 'OSError: No space left on device' >&2; exit 1", ReadWriteError, "no space left"),
        ("echo one; echo two >&2; exit 3", HedypetError, "exit code 3.*\n.*one\n.*two"),
    ],
)
def test_failures_of_programs_are_told_apart(
    script: str, error: type[HedypetError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as found:
        run_program(["sh", "-c", script], title="it", log=tmp_path / "a" / "log", timeout_s=20)
    assert type(found.value) is error
    assert re.search(message, str(found.value), re.DOTALL)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingProgramError, match="cannot be started"):
        run_program([str(tmp_path / "no")], title="it", log=tmp_path / "log", timeout_s=20)
