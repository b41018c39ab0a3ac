"""TotalSegmentator's own path and hedypet's on the same CT: time of each phase, memory, use of the GPU.

    python -m benchmarks.segmentation [--ct CT] [--weights DIR] [--tasks total tissue body] [--device cpu]
                                      [--threads 2] [--gpu-mem-mb MB] [--repeats 1] [--skip-peer] [--fast]

Without a CT that of a tiny phantom is segmented, without weights with the toy networks of the tests. The two
take turns, so that other programs on the machine slow both down. TotalSegmentator runs each task by itself,
as its command line does; the goal on two processors is at most 0.45 of its time for ``total``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import nibabel as nib
import numpy as np
import psutil

from benchmarks.measure import print_machine
from hedypet_bids.io.nifti_read import read_labels, read_volume
from hedypet_bids.phantom import write_phantom
from hedypet_bids.tools.body_segmentation import BodySegmentation, TaskRun
from hedypet_bids.tools.totalsegmentator import TASK_NAMES, TotalSegmentator, find_licence

GOAL = 0.45
_TOY_LICENCE = "aca_ABCDEFGHIJKLMN"
_SAMPLED_EVERY_S = 1.0
_QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits")


def main() -> int:
    """Print the figures; the exit status tells whether the labels were equal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ct", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=list(TASK_NAMES), default=["total"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--gpu-mem-mb", type=float)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--skip-peer", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ct = given.ct or _ct_of_phantom(folder)
        weights = given.weights or _toy_weights(folder / "weights")
        ours, theirs, equal = [], [], True
        for _ in range(given.repeats):
            ours.append(_measured(lambda: _hedypet(given, ct, weights, folder)))
            if not given.skip_peer:
                theirs.append(_measured(lambda: _totalsegmentator(given, ct, weights, folder)))
                equal &= _equal(ours[-1].result, theirs[-1].result)
        _print(given, ct, ours, theirs)
    if theirs:
        print(f"\nlabels equal in every voxel: {'yes' if equal else 'NO'}")
    return 0 if equal else 1


@dataclass
class Measured:
    """A run: its time, and what all of its processes used."""

    seconds: float = 0.0
    host_mb: float = 0.0
    gpu_mb: float = 0.0
    gpu_busy: list[float] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)


def _measured(run: Callable[[], dict[str, Any]]) -> Measured:
    found, ended = Measured(), threading.Event()
    watching = threading.Thread(target=_watch, args=(found, ended))
    watching.start()
    began = time.perf_counter()
    try:
        found.result = run()
    finally:
        found.seconds = time.perf_counter() - began
        ended.set()
        watching.join()
    return found


def _watch(found: Measured, ended: threading.Event) -> None:
    """Keep the highest memory of the child processes, and how busy the GPU is."""
    has_gpu = shutil.which(_QUERY[0]) is not None
    while not ended.wait(_SAMPLED_EVERY_S):
        total = 0.0
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                total += process.memory_full_info().pss / 1e6  # what they share counts once
        found.host_mb = max(found.host_mb, total)
        if has_gpu:
            line = subprocess.run(_QUERY, capture_output=True, text=True, check=False).stdout.split("\n")[0]
            busy, used_mb = map(float, line.split(","))
            found.gpu_busy.append(busy)
            found.gpu_mb = max(found.gpu_mb, used_mb * 1.048576)


def _hedypet(given: argparse.Namespace, ct: Path, weights: Path, folder: Path) -> dict[str, TaskRun]:
    hu, grid = read_volume(ct, int16=True)
    tool = TotalSegmentator(weights, find_licence() or _TOY_LICENCE, given.device, given.gpu_mem_mb)
    run = BodySegmentation(
        *(tool, given.tasks, hu, grid),
        fast=given.fast,
        threads=given.threads,
        timeout_s=36_000,
        work_dir=folder,
        log=folder / "hedypet.log",
    )
    return {task: run.take(task) for task in given.tasks}


def _totalsegmentator(given: argparse.Namespace, ct: Path, weights: Path, folder: Path) -> dict[str, Any]:
    """Each task by TotalSegmentator in a process of its own."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    configuration = {
        "totalseg_id": "totalseg_hedypet0",
        "send_usage_stats": False,
        "prediction_counter": 0,
        "statistics_disclaimer_shown": True,
        "license_number": find_licence() or _TOY_LICENCE,
    }
    (home / "config.json").write_text(json.dumps(configuration))
    threads = str(given.threads)
    environment = {
        **os.environ,
        "TOTALSEG_HOME_DIR": str(home),
        "TOTALSEG_WEIGHTS_PATH": str(weights.resolve()),
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "nnUNet_def_n_proc"), threads),
    }
    found = {}
    for task in given.tasks:
        out = folder / f"{task}.nii.gz"
        fast = given.fast and task != "tissue"
        call = (
            f"totalsegmentator({str(ct)!r}, {str(out)!r}, task={TASK_NAMES[task]!r}, ml=True, fast={fast}, "
        )
        call += f"device={_device(given.device)!r}, nr_thr_resamp={threads}, nr_thr_saving=1)"
        script = folder / "stock.py"
        script.write_text(
            "from totalsegmentator.python_api import totalsegmentator\n"
            f"if __name__ == '__main__':\n    {call}\n"
        )
        with (folder / "stock.log").open("w") as log:
            subprocess.run([sys.executable, script], env=environment, stdout=log, stderr=log, check=True)
        found[task] = read_labels(out)[0]
    return found


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "gpu" if shutil.which(_QUERY[0]) else "cpu"


def _equal(ours: dict[str, TaskRun], theirs: dict[str, Any]) -> bool:
    same = True
    for task, labels in theirs.items():
        n = int(np.count_nonzero(ours[task].labels != labels))
        print(f"{task}: {n} of {labels.size} voxels differ; {len(np.unique(labels))} labels", file=sys.stderr)
        same &= n == 0
    return same


def _ct_of_phantom(folder: Path) -> Path:
    bids = write_phantom(folder / "bids", participants=1, seed=1, size="tiny")
    return next(bids.rglob("*rec-br38f_ct.nii.gz"))


def _toy_weights(folder: Path) -> Path:
    with _tests_importable():
        from toy_weights import write_weights

        write_weights(folder)
    return folder


@contextmanager
def _tests_importable() -> Iterator[None]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    try:
        yield
    finally:
        sys.path.pop(0)


def _print(given: argparse.Namespace, ct: Path, ours: list[Measured], theirs: list[Measured]) -> None:
    runs: dict[str, TaskRun] = ours[-1].result
    first = next(iter(runs.values()))
    print_machine()
    processor = platform.processor() or platform.machine()
    shape = " x ".join(map(str, nib.load(ct).shape))
    print(f"{first.device} ({processor}), {given.threads} threads; {', '.join(runs)}; CT of {shape} voxels")
    print("| | median s | host peak MB | GPU peak MB | GPU busy % |\n|---|---|---|---|---|")
    for name, measured in {"TotalSegmentator": theirs, "hedypet": ours}.items():
        if measured:
            busy = [share for each in measured for share in each.gpu_busy]
            gpu = f"{max(m.gpu_mb for m in measured):.0f} | {mean(busy):.0f}" if busy else "- | -"
            seconds = median(m.seconds for m in measured)
            host_mb = max(m.host_mb for m in measured)
            print(f"| {name} | {seconds:.1f} | {host_mb:.0f} | {gpu} |")
    if theirs:
        ratios = [a.seconds / b.seconds for a, b in zip(ours, theirs, strict=True)]
        print(
            f"\nhedypet in {median(ratios):.2f} of TotalSegmentator's time (total on two processors: {GOAL})"
        )
    phases = list(dict.fromkeys(phase for run in runs.values() for phase in run.phase_seconds or {}))
    print(f"\n| seconds of | {' | '.join(phases)} |\n|---|{'---|' * len(phases)}")
    for task, run in runs.items():
        seconds = (run.phase_seconds or {}).get
        print(f"| {task} | {' | '.join(f'{seconds(phase, 0.0):.2f}' for phase in phases)} |")
    for run in runs.values():
        print(f"ran on {', '.join(run.ways)}; {'; '.join(run.remarks) or 'no remarks'}")


if __name__ == "__main__":
    sys.exit(main())
