"""Work side by side: results in order, faults and signals that end all of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hedypet_bids.run.branches import side_by_side

from hedypet_bids.errors import StoppedBySignal

LIMIT_S = 20.0


def meets(barrier: threading.Barrier, result: str) -> Callable[[], str]:
    """Work that ends only when others of its kind are at it at the same time."""

    def work() -> str:
        barrier.wait(LIMIT_S)
        return result

    return work


def endless(cleaned: list[str], name: str, started: threading.Event) -> Callable[[], str]:
    def work() -> str:
        try:
            started.set()
            while True:
                time.sleep(0.01)
        finally:
            cleaned.append(name)

    return work


def test_works_run_at_the_same_time_and_results_keep_their_order() -> None:
    barrier = threading.Barrier(3)
    assert side_by_side([meets(barrier, name) for name in "cab"]) == ["c", "a", "b"]
    assert side_by_side([]) == []


def test_a_fault_of_one_ends_the_others_through_their_finally_blocks() -> None:
    cleaned: list[str] = []
    started = threading.Event()

    def fails() -> str:
        assert started.wait(LIMIT_S)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        side_by_side([fails, endless(cleaned, "other", started)])
    assert cleaned == ["other"]


def test_a_fault_of_the_last_one_does_not_wait_for_the_first() -> None:
    cleaned: list[str] = []
    started = threading.Event()

    def fails() -> str:
        assert started.wait(LIMIT_S)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        side_by_side([endless(cleaned, "first", started), fails])
    assert cleaned == ["first"]


def test_a_signal_ends_branches_of_branches(tmp_path: Path) -> None:
    """What is half-written is removed before the signal goes on to the caller."""
    cleaned: list[str] = []
    started = [threading.Event() for _ in range(3)]
    half_written = tmp_path / "half"

    def writes() -> str:
        half_written.touch()
        try:
            return endless(cleaned, "writes", started[0])()
        finally:
            half_written.unlink()

    def nested() -> str:
        inner = [endless(cleaned, f"inner {number}", started[number]) for number in (1, 2)]
        return "".join(side_by_side(inner))

    def stop(_number: int, _frame: object) -> None:
        raise StoppedBySignal

    def send() -> None:
        for event in started:
            event.wait(LIMIT_S)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, stop)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(StoppedBySignal):
            side_by_side([writes, nested])
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    assert sorted(cleaned) == ["inner 1", "inner 2", "writes"] and not half_written.exists()
