"""Many participants in two processes and in one: the goal is at most 1.15 x half of one process's time.

Two runs at once, each on half of the participants, share nothing but the machine: what they take more than
half of one run is the processors' (threads of one core, shared caches), not the engine's. The participants
are tiny phantoms with CT, static and dynamic PET. Each run is the command line, in a new output; runs take
turns, since other programs may run beside them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from hedypet_bids.phantom import write_phantom

GOAL = 1.15
WITHOUT = ("mr", "topogram")


def main() -> int:
    """Print the times and their ratio; the exit status tells whether the goal was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--participants", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    labels = [f"{number:03d}" for number in range(1, given.participants + 1)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        bids = write_phantom(
            folder / "bids",
            participants=given.participants,
            seed=1,
            size="tiny",
            without=dict.fromkeys(labels, WITHOUT),
        )
        settings = folder / "settings.toml"
        # The head at 4 mm: the disc should not be what is measured.
        settings.write_text("[resample]\nhead_voxel_mm = 4.0\n")
        # Compiled kernels are in the cache before the first timed run.
        _run(bids, settings, 1, labels[:1])
        halves = [labels[::2], labels[1::2]]
        turns = [
            (
                _run(bids, settings, 1, labels),
                _run(bids, settings, 1, *halves),
                _run(bids, settings, 2, labels),
            )
            for _ in range(given.repeats)
        ]
    one_s, apart_s, two_s = (median(times) for times in zip(*turns, strict=True))
    ratio = two_s / (one_s / 2)
    print(f"{given.participants} participants, median of {given.repeats}:")
    print(f"  one process          {one_s:7.1f} s")
    print(f"  two runs at once     {apart_s:7.1f} s = {apart_s / (one_s / 2):.2f} x half")
    print(f"  two worker processes {two_s:7.1f} s = {ratio:.2f} x half (goal: {GOAL})")
    return 0 if ratio <= GOAL else 1


def _run(bids: Path, settings: Path, nprocs: int, *groups: Sequence[str]) -> float:
    """Seconds from the start to the end of runs at once, one for each group of participants."""
    with TemporaryDirectory(dir=bids.parent) as output:
        words = [sys.executable, str(Path(__file__).parents[1] / "run.py"), str(bids), output, "participant"]
        words += ["--skip-bids-validation", "--settings", str(settings), "--nprocs", str(nprocs)]
        began = time.perf_counter()
        runs = [
            subprocess.Popen([*words, "--participant-label", *labels], stderr=subprocess.DEVNULL)
            for labels in groups
        ]
        codes = [run.wait() for run in runs]
        if any(codes):
            raise SystemExit("A run failed.")
        return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
