"""One GPU has one program at a time, whoever starts and ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hedypet_bids.tools.gpu import gpus_of, reserved

HOLD = """
import sys, time
from pathlib import Path
from hedypet_bids.tools.gpu import reserved
with reserved(sys.argv[1], Path(sys.argv[2])) as held:
    start = time.monotonic()
    time.sleep(1.5)
    end = time.monotonic()
print(start, end, held.environment.get("CUDA_VISIBLE_DEVICES", "own"))
"""


@pytest.mark.parametrize(
    ("visible", "devices", "at_once"),
    [
        ("GPU-7a", ("gpu", "gpu:0"), False),
        ("GPU-7a", ("auto", "gpu"), False),
        ("GPU-7a,GPU-7b", ("gpu:0", "gpu:0"), False),
        ("GPU-7a,GPU-7b", ("gpu:0", "gpu:1"), True),
        ("GPU-7a,GPU-7b", ("auto", "gpu"), True),
        ("GPU-7a,GPU-7b", ("gpu:0", "gpu"), True),
        ("GPU-7a", ("cpu", "cpu"), True),
    ],
)
def test_one_gpu_has_one_program_at_a_time(
    visible: str, devices: tuple[str, str], at_once: bool, tmp_path: Path
) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
    programs = []
    for device in devices:
        words = [sys.executable, "-c", HOLD, device, tmp_path]
        programs.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment))
        # The first takes the GPU that it asks for before the second chooses.
        time.sleep(0.7)
    (start, end, gpu), (other_start, other_end, other_gpu) = (
        program.communicate()[0].split() for program in programs
    )
    assert (max(float(start), float(other_start)) < min(float(end), float(other_end))) is at_once
    if {*devices} <= {"auto", "gpu"} and "," in visible:
        assert {gpu, other_gpu} == set(visible.split(","))


def test_the_third_program_waits_for_the_first_gpu_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with reserved("gpu:0", tmp_path):
        held = subprocess.Popen([sys.executable, "-c", HOLD, "gpu:1", tmp_path], stdout=subprocess.PIPE)
        time.sleep(0.7)
        with reserved("auto", tmp_path) as third:
            assert third.environment["CUDA_VISIBLE_DEVICES"] == "1"
            assert held.wait(10) == 0


@pytest.mark.parametrize(
    ("device", "visible", "gpus"),
    [
        ("cpu", "0", []),
        ("auto", "", []),
        ("auto", "-1", []),
        ("auto", "3", ["3"]),
        ("gpu", "3,1", ["3", "1"]),
        ("gpu", "", ["0"]),
        ("gpu:1", "3,1", ["1"]),
        ("gpu:0", "3,1", ["3"]),
    ],
)
def test_a_gpu_is_known_by_the_number_of_the_driver(
    device: str, visible: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_of(device) == gpus


SEGMENT = """
import sys
from pathlib import Path
from hedypet_bids.tools.external import run_program
from hedypet_bids.tools.gpu import reserved
folder = Path(sys.argv[1])
with reserved("gpu:0", folder) as held:
    run_program(
        ["sh", "-c", "sleep 60 & echo $! > child; echo $$ > program.new; mv program.new program; wait"],
        title="it", log=folder / "log", timeout_s=60, handles=held.handles,
    )
"""


def test_a_program_does_not_outlive_who_started_it_and_holds_its_gpu_till_then(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SEGMENT, tmp_path], cwd=tmp_path)
    until = time.monotonic() + 30
    while not (tmp_path / "program").exists():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    running = [int((tmp_path / name).read_text()) for name in ("program", "child")]
    assert all(psutil.pid_exists(number) for number in running)
    # As a worker is ended that takes too much memory.
    process.kill()
    process.wait()
    began = time.monotonic()
    with reserved("gpu:0", tmp_path):
        waited = time.monotonic() - began
    assert waited < 5
    until = time.monotonic() + 5
    while any(is_running(number) for number in running):
        assert time.monotonic() < until
        time.sleep(0.05)


def is_running(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
