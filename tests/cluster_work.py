"""Work for the workers of tests, in a module that every process of a cluster can import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from distributed import get_worker


def die_once(marker: str, _notify: object) -> str:
    path = Path(marker)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "second time"


def die_always(name: str, _notify: object) -> str:
    if name == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return f"good {name}"


@dataclass(frozen=True)
class Done:
    """A part of an item, the GPUs of the worker that did it, and from when to when."""

    part: str
    gpus: float
    began: float
    ended: float


def do_part(part: str, _notify: object) -> list[Done]:
    began = time.time()
    time.sleep(0.3)
    gpus = get_worker().state.total_resources.get("GPU", 0)
    return [Done(part, gpus, began, time.time())]


def split_by_name(item: str) -> tuple[str | None, str | None]:
    """Items named after the parts that they have."""
    return ("gpu" if "gpu" in item else None), ("rest" if "rest" in item else None)


def die_when_bad(part: str, _notify: object) -> str:
    if part == "gpu bad":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return part


def wait_long(marker: str, _notify: object) -> str:
    Path(marker).touch()
    time.sleep(60)
    return "too late"


def fail_or_take_time(name: str, _notify: object) -> str:
    """Fails once another has begun, which then takes its time; named by paths in a folder that all share."""
    path = Path(name)
    path.touch()
    while path.name == "bad" and not path.with_name("slow").exists():
        time.sleep(0.01)
    time.sleep(0.0 if path.name == "bad" else 2.0)
    return path.name
