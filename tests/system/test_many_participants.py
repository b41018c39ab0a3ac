"""Many participants in one run: nothing piles up, and one that asks for too much costs only itself."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from coarse_phantom import COARSE
from running import ROOT, only

from hedypet_bids.phantom import write_phantom
from hedypet_bids.phantom.grids import SIZES, PhantomSize, Voxels

STATIC_ONLY = ("mr", "topogram", "dynamic")


@dataclass(frozen=True)
class Sample:
    """What a process holds."""

    memory_mb: float
    n_files: int
    n_threads: int


def sample(process: psutil.Process) -> Sample:
    with process.oneshot():
        return Sample(process.memory_info().rss / 1e6, process.num_fds(), process.num_threads())


def workers_of(run: psutil.Process) -> list[psutil.Process]:
    """The worker processes; Python's own resource tracker is none."""
    return [child for child in run.children() if "resource_tracker" not in " ".join(child.cmdline())]


def hedypet_words(bids: Path, output: Path, folder: Path, *more: str | Path) -> list[str]:
    """A command line that makes little: the head at 4 mm."""
    settings = folder / "settings.toml"
    settings.write_text("[resample]\nhead_voxel_mm = 4.0\n")
    words = (sys.executable, ROOT / "run.py", bids, output, "participant", "--skip-bids-validation")
    return [str(word) for word in (*words, "--settings", settings, *more)]


def watch(words: list[str], environment: dict[str, str]) -> tuple[dict[int, list[Sample]], list[str]]:
    """Samples of the run (under 0) and its workers (under their process ids) after every participant."""
    samples: dict[int, list[Sample]] = defaultdict(list)
    lines = []
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stderr is not None
        seen = psutil.Process(run.pid)
        for line in run.stderr:
            lines.append(line)
            if "quality: ran" in line:
                samples[0].append(sample(seen))
                for worker in workers_of(seen):
                    samples[worker.pid].append(sample(worker))
    assert run.returncode == 0, "".join(lines)
    return samples, lines


def grown(samples: list[Sample], quantity: str) -> float:
    """How much more there is of a quantity in the end than after the first participants.

    The first quarter compile, fill caches and give the heap its size. What is kept for ever raises
    the least of several participants too; what comes and goes with each does not.
    """
    values = [float(getattr(item, quantity)) for item in samples[len(samples) // 4 :]]
    n_compared = len(values) // 3
    return min(values[-n_compared:]) - min(values[:n_compared])


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("n_participants", "size", "most_mb"),
    [
        pytest.param(16, COARSE, 45, id="coarse"),
        pytest.param(50, SIZES["tiny"], 60, id="tiny"),
    ],
)
def test_nothing_piles_up_over_many_participants(
    tmp_path: Path, n_participants: int, size: PhantomSize, most_mb: float
) -> None:
    labels = [f"{number:03d}" for number in range(1, n_participants + 1)]
    without = dict.fromkeys(labels, STATIC_ONLY)
    bids = write_phantom(tmp_path / "bids", participants=n_participants, seed=1, size=size, without=without)
    temporary, work, output = (tmp_path / name for name in ("temporary", "work", "out"))
    temporary.mkdir()
    words = hedypet_words(bids, output, tmp_path, "--nprocs", "2", "--work-dir", work)
    samples, lines = watch(words, {**os.environ, "TMPDIR": str(temporary)})
    assert f"{n_participants} of {n_participants} participants finished" in lines[-1]
    # The same two workers from the first participant to the last, and the run itself.
    assert [len(of_one) for of_one in samples.values()] == [n_participants] * 3
    for of_one in samples.values():
        assert grown(of_one, "n_files") <= 2, of_one
        assert grown(of_one, "n_threads") <= 2, of_one
        assert grown(of_one, "memory_mb") <= most_mb, of_one
    assert list(temporary.iterdir()) == []
    assert not list(output.rglob(".tmp-*")) and not list(work.glob("hedypet-*"))


# One that needs too much


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Participants 001 and 003 tiny, 002 with a CT of 1.8 instead of 6 mm, forty times the voxels."""
    folder = tmp_path_factory.mktemp("unequal")
    tiny = SIZES["tiny"]
    fine = Voxels((245, 170, 605), (1.765, 1.765, 1.765))
    without = dict.fromkeys(("001", "002", "003"), STATIC_ONLY)
    bids = write_phantom(folder / "bids", participants=3, seed=1, size="tiny", without=without)
    big = write_phantom(
        folder / "big",
        participants=2,
        seed=1,
        size=dataclasses.replace(tiny, ct=fine),
        without={"001": ("ct", *STATIC_ONLY), "002": STATIC_ONLY},
    )
    for path in sorted(bids.rglob("sub-002")):
        shutil.rmtree(path)
        shutil.copytree(big / path.relative_to(bids), path)
    return bids


@pytest.mark.slow
@pytest.mark.parametrize("nprocs", [pytest.param("1", marks=pytest.mark.exhaustive), "2"])
def test_a_participant_that_needs_too_much_memory_is_stopped_and_the_others_go_on(
    unequal: Path, tmp_path: Path, nprocs: str
) -> None:
    output = tmp_path / "out"
    words = hedypet_words(unequal, output, tmp_path, "--nprocs", nprocs)
    done = subprocess.run([*words, "--mem-mb", "460"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "sub-002 FAILED" in done.stderr and "2 of 3 participants finished" in done.stderr
    failure = next(line for line in done.stderr.splitlines() if line.startswith("sub-002 FAILED"))
    assert "more than its share of 460 MB" in failure and "while it did: " in failure
    assert "--mem-mb" in failure and "estimated to need" in failure
    assert "Traceback" not in done.stderr
    for label in ("001", "003"):
        assert (
            only(output / f"sub-{label}", "*_seg-total_morph.tsv")
            and (output / f"sub-{label}.html").is_file()
        )
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "sub-001 segment total: done" in again.stderr
