"""Many participants in two processes and in one: the goal is at most 1.15 x half of one process's time.

The participants are tiny phantoms with CT, static and dynamic PET. Each run is the command line, in a
new output; runs take turns, since other programs may run beside them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
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
        _run(bids, settings, 1, "--participant-label", labels[0])
        turns = [(_run(bids, settings, 1), _run(bids, settings, 2)) for _ in range(given.repeats)]
    one_s, two_s = (median(times) for times in zip(*turns, strict=True))
    ratio = two_s / (one_s / 2)
    print(f"{given.participants} participants, median of {given.repeats}:")
    print(f"  one process    {one_s:7.1f} s")
    print(f"  two processes  {two_s:7.1f} s = {ratio:.2f} x half (goal: {GOAL})")
    return 0 if ratio <= GOAL else 1


def _run(bids: Path, settings: Path, nprocs: int, *more: str) -> float:
    """Seconds that a run takes, from its start to its end."""
    with TemporaryDirectory(dir=bids.parent) as output:
        words = [sys.executable, str(Path(__file__).parents[1] / "run.py"), str(bids), output, "participant"]
        words += ["--skip-bids-validation", "--settings", str(settings), "--nprocs", str(nprocs), *more]
        began = time.perf_counter()
        subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
        return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
