"""The process in which TotalSegmentator's networks run: ``python -m ...totalsegmentator_process REQUEST``.

It does the tasks asked for one after the other. For each it leaves ``<task>.nii`` in the folder of the
request, and then ``<task>.json``: what it was made with, or why it could not be made.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from hedypet_bids.errors import ReadWriteError
from hedypet_bids.io.nifti_write import write_nifti
from hedypet_bids.model import Grid
from hedypet_bids.tools.totalsegmentator import TASK_NAMES

FITTED_VERSIONS = {"TotalSegmentator": "2.18.0", "nnunetv2": "2.6.0"}
"""What this process was written for and compared with; others run by TotalSegmentator's own path."""

OWN_PATH = "TotalSegmentator's own path"
ONE_PROCESS = "nnU-Net's predictor, labels only"


@dataclass(frozen=True)
class BodyRequest:
    """What is asked for, see :class:`hedypet_bids.tools.body_segmentation.BodySegmentation`."""

    folder: Path
    image: Path
    weights: Path
    tasks: tuple[str, ...]
    fast: bool
    roi_subset: tuple[str, ...]
    device: str
    threads: int
    gpu_mem_mb: float | None

    @classmethod
    def read(cls, path: Path) -> BodyRequest:
        """From its file."""
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        kinds: dict[str, Any] = {"image": Path, "weights": Path, "tasks": tuple, "roi_subset": tuple}
        return cls(path.parent, **{name: kinds.get(name, lambda v: v)(v) for name, v in content.items()})

    def of_task(self, task: str) -> dict[str, Any]:
        """What TotalSegmentator is to be asked for."""
        known = regions_of(task).values()
        wanted = [name for name in self.roi_subset if name in known] if task.startswith("total") else []
        # tissue_types has one resolution only.
        return {"fast": self.fast and task != "tissue", "roi_subset": wanted or None}


def regions_of(task: str) -> Mapping[int, str]:
    """The regions of a task by TotalSegmentator's numbers."""
    from totalsegmentator.map_to_binary import class_map

    found: Mapping[int, str] = class_map[TASK_NAMES[task]]
    return found


def main() -> None:
    """Do what the request asks for."""
    request = BodyRequest.read(Path(sys.argv[1]))
    # TotalSegmentator reads its folders from the environment, which the parent process has set, and nnU-Net
    # from what it makes of them, when it is imported.
    from totalsegmentator.config import setup_nnunet

    setup_nnunet()
    import torch

    torch.set_num_threads(request.threads)
    device = _device(request.device)
    others = {
        f"{name} {found} (expected {fitted})"
        for name, fitted in FITTED_VERSIONS.items()
        if (found := version(name)) != fitted
    }
    if others:
        reason = f"{', '.join(sorted(others))} is installed"
        _answer_each(request, request.tasks, lambda task: _by_totalsegmentator(request, task, device, reason))
    else:
        _in_one_process(request, device)


def _device(wanted: str) -> Any:
    import torch

    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SystemExit(f"A GPU was asked for ({wanted}), but CUDA shows none.")
    return torch.device("cuda", int(wanted.partition(":")[2] or 0))


def _in_one_process(request: BodyRequest, device: Any) -> None:
    import torch

    from hedypet_bids.tools.body_tasks import BodyTask, BodyTasks
    from hedypet_bids.tools.nnunet import Clock, OtherKind

    clock = Clock(device.type)
    tasks: dict[str, BodyTask] = {}

    def prepare(task: str) -> Mapping[str, Any]:
        known = BodyTask.of(request.weights, TASK_NAMES[task], **request.of_task(task))
        if faults := known.faults:
            return {"weights": faults}
        tasks[task] = known
        return {}

    # All weights are looked at before the first network runs.
    _answer_each(request, request.tasks, prepare)
    if device.type == "cuda" and request.gpu_mem_mb is not None:
        total_mb = torch.cuda.get_device_properties(device).total_memory / 1e6
        torch.cuda.set_per_process_memory_fraction(min(1.0, request.gpu_mem_mb / total_mb), device)
    done = BodyTasks(
        request.image,
        list(tasks.values()),
        clock,
        device=device,
        threads=request.threads,
        gpu_mem_mb=request.gpu_mem_mb,
    )

    def segment(task: str) -> Mapping[str, Any]:
        clock.seconds.clear()
        try:
            labels = done.labels(tasks[task])
        except OtherKind as reason:
            return _by_totalsegmentator(request, task, device, str(reason))
        clock.begin("write")
        write_nifti(request.folder / f"{task}.nii", labels, _grid(request.image))
        clock.begin("between tasks")
        ways = list(dict.fromkeys(done.ways))
        return {
            **_made_by(ways[-1].device if ways else device),
            "engine": ONE_PROCESS,
            "ways": [str(way) for way in ways],
            "remarks": list(done.remarks),
            "phase_seconds": {name: round(seconds, 3) for name, seconds in clock.seconds.items()},
            "gpu_peak_mb": torch.cuda.max_memory_reserved(device) / 1e6 if device.type == "cuda" else None,
        }

    _answer_each(request, tasks, segment)


def _grid(ct: Path) -> Grid:
    image = nib.load(ct)
    return Grid(image.shape, image.affine)


def _answer_each(request: BodyRequest, tasks: Iterable[str], do: Callable[[str], Mapping[str, Any]]) -> None:
    """Write what comes of each task, when there is something to say; a fault in one costs no other."""
    for task in tasks:
        try:
            answer = do(task)
        except (OSError, MemoryError, ReadWriteError):
            raise  # of the machine, not of the task
        except (Exception, SystemExit) as fault:  # noqa: BLE001 - TotalSegmentator ends the interpreter
            traceback.print_exc()
            answer = {"fault": f"{type(fault).__name__}: {fault}"}
        if answer:
            answer = {"regions": regions_of(task), **answer}
            temporary = request.folder / f"{task}.json.part"
            temporary.write_text(json.dumps(answer), "utf-8")
            temporary.rename(request.folder / f"{task}.json")


def _by_totalsegmentator(request: BodyRequest, task: str, device: Any, reason: str) -> Mapping[str, Any]:
    from totalsegmentator.python_api import totalsegmentator

    compressed = request.folder / f"{task}.nii.gz"
    totalsegmentator(
        request.image,
        compressed,
        task=TASK_NAMES[task],
        ml=True,
        **request.of_task(task),
        device="cpu" if device.type == "cpu" else f"gpu:{device.index}",
        nr_thr_resamp=request.threads,
        nr_thr_saving=1,
    )
    labels = np.asanyarray(nib.load(compressed).dataobj)
    write_nifti(request.folder / f"{task}.nii", labels, _grid(request.image))
    return {**_made_by(device), "engine": OWN_PATH, "remarks": [f"{OWN_PATH} was taken: {reason}"]}


def _made_by(device: Any) -> dict[str, Any]:
    import torch

    used = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
    return {"versions": {name: version(name) for name in FITTED_VERSIONS}, "device": used}


if __name__ == "__main__":
    main()
