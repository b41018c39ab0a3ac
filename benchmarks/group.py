"""Group level over many participants: time and peak memory against their number.

Participant outputs are made up: tables and sidecars under hedypet's names, with every region of
every label table, random numbers in full precision, no images. ``--frames`` and ``--tasks`` make
small participants, for many of them on a small disk; by default they have hedyPET's size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hedypet_bids.io.manifest import Kind, Manifest, Output, ScanEntry, StepRecord
from hedypet_bids.io.store import STAMP_KEY, Store
from hedypet_bids.labels import ALL_TASKS, INPUT_TASKS, VOI_TASKS, Task
from hedypet_bids.names import ScanName, entities_of, recording, sidecar_of
from hedypet_bids.settings import digest
from hedypet_bids.version import __version__

TEMPLATES = 8
WINDOWS = (2, 3, 4, 5, 6, 7, 8)
_GROUP = "import sys; from hedypet_bids.cli.main import main; sys.exit(main())"


def main() -> None:
    """Make outputs of each number of participants, run the group level, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--participants", type=int, nargs="+", default=[10, 80])
    parser.add_argument("--frames", type=int, default=69)
    parser.add_argument("--tasks", nargs="+", default=[task.name for task in ALL_TASKS])
    parser.add_argument("--dir", type=Path, default=None, help="where to put the outputs")
    given = parser.parse_args()
    tasks = [task for task in ALL_TASKS if task.name in given.tasks]
    print("| participants | curve rows | Ki rows | time [s] | peak RSS, all processes [MB] |")
    print("|---|---|---|---|---|")
    for n in given.participants:
        with tempfile.TemporaryDirectory(dir=given.dir) as folder:
            write_outputs(Path(folder), n, given.frames, tasks)
            seconds, peak_mb, rows = run_group(Path(folder))
            print(
                f"| {n} | {rows['tacs']} | {rows['patlak_ki']} | {seconds:.1f} | {peak_mb:.0f} |", flush=True
            )


def run_group(output: Path) -> tuple[float, float, dict[str, int]]:
    """Seconds and peak memory (sum over the processes, MB) of the group level, and rows of each table."""
    began = time.perf_counter()
    command = [sys.executable, "-c", _GROUP, "raw", str(output), "group"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    peak = [0.0]
    watch = threading.Thread(target=_watch, args=(process, peak))
    watch.start()
    _, text = process.communicate()
    watch.join()
    if process.returncode:
        raise RuntimeError(text)
    seconds = time.perf_counter() - began
    own_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    line = text.strip().splitlines()[-1]
    parts = line.split("readouts: ")[1].split("; page")[0].split(", ")
    rows = {part.split(" (")[0]: int(part.split("(")[1].split()[0]) for part in parts}
    return seconds, max(peak[0], own_mb), rows


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            pids = [process.pid, *map(int, children.read_text().split())]
        except OSError:
            return
        peak[0] = max(peak[0], sum(map(_rss_mb, pids)))
        time.sleep(0.1)


def _rss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def write_outputs(
    output: Path, n: int, n_frames: int, tasks: Iterable[Task], sessions: Sequence[str] = ("a",)
) -> None:
    """Outputs of ``n`` participants; the numbers repeat after a few of them."""
    output.mkdir(exist_ok=True)
    Store(output).write_dataset_files()
    tasks, n_templates = list(tasks), min(n * len(sessions), TEMPLATES)
    templates = [_tables(np.random.default_rng(seed), n_frames, tasks) for seed in range(n_templates)]
    for i in range(n):
        label = f"{i:05d}"
        for at, session in enumerate(sessions):
            folder = output / f"sub-{label}" / f"ses-{session}" / "pet"
            folder.mkdir(parents=True)
            for name, text in templates[(i + at) % n_templates].items():
                path = folder / f"sub-{label}_ses-{session}_{name}.tsv"
                path.write_text(text)
                sidecar_of(path).write_text(json.dumps(_sidecar(i)))
        finish(output, label)


def finish(output: Path, label: str, steps: Sequence[StepRecord] = ()) -> None:
    """Record in the sidecars what was written, and list it in a manifest, as a run does in its end.

    A table without a sidecar is left out.
    """
    folder = output / f"sub-{label}"
    sessions = sorted(path.name.removeprefix("ses-") for path in folder.glob("ses-*"))
    scans, outputs = [], []
    for session in sessions:
        found = _recorded(folder / f"ses-{session}")
        stem = f"sub-{label}_ses-{session}"
        page = f"sub-{label}.html" if len(sessions) == 1 else f"{stem}.html"
        has_dynamic = any(kind[0] == "mean" for kind in found)
        scans.append(
            ScanEntry(
                ScanName(session),
                page if (output / page).is_file() else "",
                f"{stem}_rec-dyn_pet.nii.gz" if has_dynamic else "",
                (f"{stem}_rec-stat_pet.nii.gz",),
            )
        )
        outputs += [
            Output(kind, path.relative_to(output).as_posix(), (f"ses-{session}",), "benchmark")
            for kind, path in found.items()
        ]
    Manifest(label, "benchmark", tuple(scans), tuple(steps), tuple(outputs)).write(output)


def _recorded(folder: Path) -> dict[Kind, Path]:
    """The tables and checks of a session by what they are, each recorded in its sidecar."""
    found: dict[Kind, Path] = {}
    for path in sorted([*folder.rglob("*.tsv"), *folder.rglob("*_qc.json")]):
        if not sidecar_of(path).is_file():
            continue
        sidecar = json.loads(sidecar_of(path).read_text())
        own = {key: value for key, value in sidecar.items() if key != STAMP_KEY}
        state = path.stat()
        written = {
            "Size": state.st_size,
            "ModifiedNs": state.st_mtime_ns,
            "SHA256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        stamp = {
            **sidecar.get(STAMP_KEY, {}),
            "Written": {"Content": digest(own)} if path == sidecar_of(path) else {path.name: written},
        }
        sidecar_of(path).write_text(json.dumps({**own, STAMP_KEY: stamp}))
        found[_kind(path)] = path
    return found


def _kind(path: Path) -> Kind:
    """What one of the made-up files is."""
    entities, suffix = entities_of(path.name), path.name.split(".")[0].rpartition("_")[2]
    description = entities.get("desc", "")
    key = (entities.get("seg", ""), int("".join(c for c in description if c.isdigit()) or 0))
    if suffix == "tacs":
        return ("std" if description.startswith("std") else "mean", *key)
    if suffix == "kinpar":
        return ("kinetics", entities["model"], *key)
    if suffix == "morph" and entities["rec"] == "stat":
        image = f"sub-{entities['sub']}_ses-{entities['ses']}_rec-stat_pet.nii.gz"
        return ("means", image, *key)
    return {"morph": ("volumes", *key), "norm": ("constants",), "qc": ("quality",)}[suffix]


def _sidecar(i: int) -> dict[str, object]:
    return {
        "Participant": {
            "sex": "FM"[i % 2],
            "weight_kg": 60.0 + i % 40,
            "height_m": 1.7,
            "age": 20.0 + i % 60,
            "demographic_group": "FM"[i % 2] + ("18-34", "35-49", "50-69", "70-99")[i % 4],
        },
        "InjectedActivityBq": 2e8,
        "InjectionStart": 0,
        "hedypet": {"Step": "benchmark", "Version": __version__, "Digest": "0"},
    }


def _tables(random: np.random.Generator, n_frames: int, tasks: Iterable[Task]) -> dict[str, str]:
    """Text of every table of a participant by the end of its name."""
    constants = {
        "name": ["suv", "sul_decazes", "sul_janma", "sul_james"],
        "value": [2000.0, 2500.0, 2600.0, 2700.0],
    }
    tables: dict[str, Mapping[str, object]] = {"rec-stat_norm": constants}
    start = np.arange(n_frames) * 60.0
    for task in tasks:
        n = len(task.table.indices)
        for erosion in (0, 1) if task.eroded else (0,):
            desc = f"_desc-eroded{erosion}" if erosion else ""
            head = {"index": task.table.indices, "name": task.table.names}
            counts = {"n_voxels": random.integers(0, 9999, n), "n_valid": 1, "volume": random.random(n)}
            uptake = {"mean": random.random(n) * 1e4, "std": random.random(n)}
            dynamic = f"rec-dyn_seg-{task.name}"
            if task.modality != "pet":
                tables[f"rec-stat_seg-{task.name}{desc}_morph"] = {**head, **uptake, **counts}
            tables[f"{dynamic}{desc}_morph"] = {**head, **counts}
            for statistic in ("", "std"):
                curves = dict(zip(task.table.names, random.random((n, n_frames)) * 1e4, strict=True))
                described = desc.replace("desc-", f"desc-{statistic}") or (
                    f"_desc-{statistic}" if statistic else ""
                )
                tables[f"{dynamic}{described}_tacs"] = {
                    "frame_start": start,
                    "frame_end": start + 60,
                    **curves,
                }
            if task not in INPUT_TASKS:
                tables[f"{dynamic}{desc}_model-Patlak_kinpar"] = _kinetics(random, task)
    return {
        name: pd.DataFrame(content).to_csv(sep="\t", index=False, na_rep="n/a")
        for name, content in tables.items()
    }


def _kinetics(random: np.random.Generator, task: Task) -> dict[str, object]:
    bloods = [recording(voi.name, segment) for voi in VOI_TASKS for segment in voi.table.names]
    rows = [
        (i, r, b, w)
        for i, r in zip(task.table.indices, task.table.names, strict=True)
        for b in bloods
        for w in WINDOWS
    ]
    columns: dict[str, object] = dict(
        zip(("index", "name", "input_function", "last_frames"), zip(*rows, strict=True), strict=True)
    )
    columns |= {name: random.random(len(rows)) for name in ("Ki", "Ki_se", "V0", "V0_se", "r2")}
    return columns | {
        "n_used": 4,
        "n_excluded": 0,
        "t_start": 1e3,
        "t_end": 4e3,
        "rule": "simpson",
        "voi_checksum": "0",
    }


if __name__ == "__main__":
    main()
