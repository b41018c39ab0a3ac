"""Contenders side by side: each run in a process of its own, in turn, with its time and peak memory.

These machines are noisy, so what counts is the ratio of two medians measured in one go.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Result:
    """Seconds of every run of a contender, and its highest memory."""

    name: str
    seconds: tuple[float, ...]
    peak_mb: float

    @property
    def median_s(self) -> float:
        """Median over the runs."""
        return median(self.seconds)


def side_by_side(module: str, names: Sequence[str], folder: Path, *, repeats: int) -> dict[str, Result]:
    """Run ``python -m module --child NAME --dir FOLDER`` for every name in turn, several times."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            command = [sys.executable, "-m", module, "--child", name, "--dir", str(folder)]
            answer = json.loads(subprocess.check_output(command).splitlines()[-1])
            found[name].append((answer["seconds"], answer["peak_mb"]))
    return {
        name: Result(name, tuple(s for s, _ in runs), max(mb for _, mb in runs))
        for name, runs in found.items()
    }


def child(work: Callable[[], object]) -> None:
    """Do the work and print its time and this process's peak memory as JSON."""
    began = time.perf_counter()
    work()
    print(json.dumps({"seconds": time.perf_counter() - began, "peak_mb": peak_mb()}))


def peak_mb() -> float:
    """Peak resident memory of this process, MB."""
    # Not getrusage: its maximum is inherited from the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def print_table(results: dict[str, Result], *, against: str) -> None:
    """Print medians, ranges, memory, and the ratio to one contender."""
    print("| contender | median s | range s | peak MB | times the time of " + against + " |")
    print("|---|---|---|---|---|")
    for result in results.values():
        ratio = result.median_s / results[against].median_s
        low, high = min(result.seconds), max(result.seconds)
        print(
            f"| {result.name} | {result.median_s:.2f} | {low:.2f} to {high:.2f} | {result.peak_mb:.0f} "
            f"| {ratio:.2f} |"
        )


def print_machine() -> None:
    """Print date, processor count and Python, to stand above a table."""
    import os

    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} processors, Python {platform.python_version()}")
