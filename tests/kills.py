"""Kill participant runs at random moments, let them go on, compare: kills.py [--kills 40] [--nprocs 1 2].

One undisturbed run of a dataset is compared with runs whose whole process group got SIGKILL and that
were then started again, until the kills are spent and a last run ends by itself. Exit status 0 when every
output that came of it equals the undisturbed one; logs, pages and what sidecars say of times do not count,
nor how an image was compressed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from running import BIN, ENVIRONMENT, ROOT, outputs

# Kills of one output, after which it may end: so that early and late steps are hit alike.
KILLS_OF_AN_OUTPUT = 4
LONGEST_S = 900.0


@dataclass(frozen=True)
class Killed:
    """What became of an output: kills that hit, and files that are not as expected or left over."""

    hits: int
    exit_code: int
    differing: tuple[str, ...]


def run(bids: Path, output: Path, *, nprocs: int, kill_after_s: float | None = None) -> int:
    """Exit code of a participant run, negative where the kill came before its end."""
    words = ("participant", "--skip-bids-validation", "--nprocs", str(nprocs))
    process = subprocess.Popen(
        [sys.executable, ROOT / "run.py", bids, output, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    try:
        return process.wait(LONGEST_S if kill_after_s is None else kill_after_s)
    except subprocess.TimeoutExpired:
        # Workers are in the same group, so that nobody is left who could tidy up.
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def killed(
    bids: Path, output: Path, expected: dict[str, bytes], *, nprocs: int, after_s: list[float]
) -> Killed:
    """Run and kill after each of some times, then run to the end."""
    hits = sum(run(bids, output, nprocs=nprocs, kill_after_s=seconds) < 0 for seconds in after_s)
    code = run(bids, output, nprocs=nprocs)
    found = outputs(output)
    left = {str(path) for path in output.rglob(".*") if path.is_dir() or path.name.startswith(".tmp")}
    differing = {name for name in found.keys() | expected if found.get(name) != expected.get(name)}
    return Killed(hits, code, tuple(sorted(differing | left)))


def main() -> int:
    """Read the command line; 1 where an output differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40, help="of every number of workers")
    parser.add_argument("--nprocs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--dataset", type=Path, help="default: a tiny phantom of two participants")
    asked = parser.parse_args()
    random, wrong = Random(asked.seed), 0
    with TemporaryDirectory() as folder:
        bids, undisturbed = asked.dataset or Path(folder) / "bids", Path(folder) / "undisturbed"
        if not asked.dataset:
            subprocess.run([BIN / "hedypet-phantom", bids], check=True, env=ENVIRONMENT)
        began = time.monotonic()
        assert run(bids, undisturbed, nprocs=1) == 0
        whole_s, expected = time.monotonic() - began, outputs(undisturbed)
        print(f"{len(expected)} files, undisturbed in {whole_s:.0f} s", flush=True)
        for nprocs in asked.nprocs:
            left, output = asked.kills, Path(folder) / "killed"
            while left > 0:
                after_s = [random.uniform(0, whole_s) for _ in range(min(left, KILLS_OF_AN_OUTPUT))]
                found = killed(bids, output, expected, nprocs=nprocs, after_s=after_s)
                print(f"{nprocs} at {', '.join(f'{s:.1f}' for s in after_s)} s: {found}", flush=True)
                wrong += bool(found.exit_code or found.differing)
                # A run that ended before its kill is not counted.
                left -= found.hits
                shutil.rmtree(output)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
