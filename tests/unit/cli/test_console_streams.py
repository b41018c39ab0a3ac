"""Consoles that are closed, full, left early, slow, or without letters: the program goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from running import ENVIRONMENT

# As hedypet does it: a program that answers on standard output and talks on standard error.
PROGRAM = """
import os, sys
from contextlib import suppress
from pathlib import Path
from hedypet_bids.cli.console_streams import on_console
@on_console
def main():
    for line in range(5000):
        print("answer", line)
        print("progress", line, "caf\\udce9 \\u00fc", file=sys.stderr)
    # Where a descriptor is closed, the first file that is opened would get what is printed.
    with open(sys.argv[1], "w") as file:
        with suppress(OSError):
            os.write(2, b"from a library")
        file.write("result")
    return 3 if Path(sys.argv[1]).read_text() != "result" else 0
sys.exit(main())
"""


def run_in_shell(redirected: str, target: str, **variables: str) -> tuple[int, str]:
    """Exit status and standard error of the program with its console redirected by bash."""
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$0" {target} {redirected}; exit ${{PIPESTATUS[0]}}', PROGRAM],
        capture_output=True,
        env={**ENVIRONMENT, **variables},
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr.decode("utf-8", "backslashreplace")


@pytest.mark.parametrize(
    "redirected",
    [
        "",
        ">&-",
        "2>&-",
        ">&- 2>&- <&-",
        "2>/dev/full",
        "| head -1",
        "2>&1 | true",
        "2>&1 >&- | head -c 1",
    ],
)
def test_the_work_is_done_whatever_becomes_of_the_console(redirected: str, tmp_path: Path) -> None:
    code, said = run_in_shell(redirected, f"{tmp_path}/result")
    assert code == 0, said
    assert "Error" not in said and "Traceback" not in said, said[-500:]


def test_an_answer_that_is_lost_is_told(tmp_path: Path) -> None:
    code, said = run_in_shell(">/dev/full", f"{tmp_path}/result")
    assert code == 74 and "No space left on device" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert run_in_shell(">/dev/full 2>/dev/full", f"{tmp_path}/result")[0] == 74


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"},
    ],
)
def test_names_that_the_locale_cannot_write(variables: dict[str, str], tmp_path: Path) -> None:
    code, said = run_in_shell(">/dev/null", f"{tmp_path}/result", **variables)
    assert code == 0 and "caf" in said and "Error" not in said


def test_a_slow_reader_gets_everything(tmp_path: Path) -> None:
    # Whoever shares the pipe made it non-blocking: a full pipe is then an error to those who do not wait.
    nonblocking = "python3 -c 'import os; os.set_blocking(1, False)'"
    script = f'({nonblocking}; {sys.executable} -c "$0" {tmp_path}/result 2>/dev/null) | (sleep 1; wc -l)'
    done = subprocess.run(
        ["bash", "-c", script, PROGRAM], capture_output=True, env=ENVIRONMENT, check=False, timeout=60
    )
    assert done.stdout.strip() == b"5000"
