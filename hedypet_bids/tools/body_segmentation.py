"""TotalSegmentator's tasks of an image, offline, in a process that lives as long as there is one to do.

The process (:mod:`hedypet_bids.tools.totalsegmentator_process`) is one of its own because TotalSegmentator
ends the interpreter on some errors, and its libraries keep their memory. It makes no network call: the
weights are checked before, and its configuration, written for every run, sends no statistics.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError, HedypetError
from hedypet_bids.io import stop
from hedypet_bids.io.atomic import temporary_folder, write_error
from hedypet_bids.io.nifti_read import read_labels
from hedypet_bids.io.nifti_write import write_nifti
from hedypet_bids.io.work_dir import LEFT_OVER, folder_of_run
from hedypet_bids.model import Grid, IntArray
from hedypet_bids.tools import gpu
from hedypet_bids.tools.external import end_of, run_program
from hedypet_bids.tools.totalsegmentator import (
    FETCH_COMMAND,
    TASK_NAMES,
    TotalSegmentator,
    faults_of_weights,
    models_of_task,
    weights_checksum,
)

# The sockets of nnU-Net's workers are named below it, in 108 characters.
_LONGEST_TEMPORARY_PATH = 70
_LOOK_UP_S = 0.1
_GRACE_S = 15.0


@dataclass(frozen=True)
class TaskRun:
    """The labels of a task in TotalSegmentator's numbers, their names, and what they were made with."""

    labels: IntArray
    grid: Grid
    regions: Mapping[int, str]
    versions: Mapping[str, str]
    device: str
    seconds: float
    weights: Mapping[str, str]
    engine: str
    ways: Sequence[str] = ()
    remarks: Sequence[str] = ()
    phase_seconds: Mapping[str, float] | None = None
    gpu_peak_mb: float | None = None


class BodySegmentation:
    """Some tasks of one CT or MR, being done in a process; their results are taken as they come.

    Parameters
    ----------
    tasks
        Keys of :data:`hedypet_bids.tools.totalsegmentator.TASK_NAMES`, in the order in which they are done.
    voxels
        Hounsfield units, or intensities of an MR.
    work_dir
        For temporary files, and where the processes that share a GPU meet.
    timeout_s
        For each task.
    log
        The program's own text.
    """

    def __init__(
        self,
        tool: TotalSegmentator,
        tasks: Sequence[str],
        voxels: NDArray[Any],
        grid: Grid,
        *,
        fast: bool = False,
        roi_subset: Sequence[str] = (),
        threads: int = 1,
        timeout_s: float,
        work_dir: Path | None = None,
        log: Path,
    ) -> None:
        self._tool, self._log = tool, log
        self._waiting = list(tasks)
        self._title = f"TotalSegmentator ({', '.join(TASK_NAMES[task] for task in tasks)})"
        self._models = {task: models_of_task(task, fast=fast, roi_subset=roi_subset) for task in tasks}
        self._held = ExitStack()
        self._folder = self._held.enter_context(folder_of_run(work_dir, "totalseg"))
        write_nifti(self._folder / "image.nii", voxels, grid)
        request = {
            "image": str(self._folder / "image.nii"),
            "weights": str(tool.weights.resolve()),
            "tasks": list(tasks),
            "fast": fast,
            "roi_subset": list(roi_subset),
            "device": tool.device,
            "threads": threads,
            "gpu_mem_mb": tool.gpu_mem_mb,
        }
        (self._folder / "request.json").write_text(json.dumps(request), "utf-8")
        self._write_configuration()
        self._fault: BaseException | None = None
        self._cancelled = threading.Event()
        # A daemon: an interpreter that ends does not wait for it.
        self._thread = threading.Thread(
            target=self._run, args=(timeout_s * len(tasks), threads), name="hedypet-segment", daemon=True
        )
        self._since = time.monotonic()
        self._thread.start()

    def does(self, task: str) -> bool:
        """Whether the result of a task is there or still to come."""
        alive = self._thread.is_alive() or self._answer(task).is_file()
        return task in self._waiting and alive

    def take(self, task: str) -> TaskRun:
        """The result of a task, when it is there.

        Raises
        ------
        BadDataError
            Weights cannot be used.
        ReadWriteError, TryAgainError, HedypetError
            As :func:`hedypet_bids.tools.external.run_program`, or the task failed.
        """
        self._waiting.remove(task)
        try:
            weights = {
                model.folder: weights_checksum(self._tool.weights, model) for model in self._models[task]
            }
            answer = self._wait_for(task)
            path = self._folder / f"{task}.nii"
            labels, grid = read_labels(path)
            path.unlink()
        finally:
            if not self._waiting:
                self.close()
        seconds, self._since = time.monotonic() - self._since, time.monotonic()
        regions = {int(index): name for index, name in answer.pop("regions").items()}
        return TaskRun(labels, grid, regions, seconds=seconds, weights=weights, **answer)

    def close(self) -> None:
        """End the process, also before it is done, and remove its files."""
        self._cancelled.set()
        # Not for ever: it may be waiting for a GPU that others hold, and then never starts the program.
        self._thread.join(_GRACE_S)
        self._held.close()

    def _answer(self, task: str) -> Path:
        return self._folder / f"{task}.json"

    def _wait_for(self, task: str) -> dict[str, Any]:
        while not self._answer(task).is_file() and self._thread.is_alive():
            stop.raise_if_asked()
            self._thread.join(_LOOK_UP_S)
        title = f"TotalSegmentator ({TASK_NAMES[task]})"
        if not self._answer(task).is_file():
            self._check_weights(task, self._fault)
            if self._fault is not None:
                raise self._fault
            raise HedypetError(
                f"{title} gave no result. The end of its log, {self._log}:\n{end_of(self._log)}"
            )
        answer: dict[str, Any] = json.loads(self._answer(task).read_text("utf-8"))
        if weights := answer.get("weights"):
            raise self._bad_weights(weights)
        if "fault" in answer:
            self._check_weights(task, None)
            raise HedypetError(f"{title} failed: {answer['fault']}. Its log is {self._log}.")
        return answer

    def _check_weights(self, task: str, cause: BaseException | None) -> None:
        faults = faults_of_weights(self._tool.weights, self._models[task], read=True)
        if faults:
            raise self._bad_weights({m.folder: reason for m, reason in faults.items()}) from cause

    def _bad_weights(self, faults: Mapping[str, str]) -> BadDataError:
        listed = "; ".join(f"{folder}: {reason}" for folder, reason in faults.items())
        return BadDataError(
            f"TotalSegmentator cannot load its weights in {self._tool.weights}: {listed}. Remove these "
            f"folders and fetch them again with '{FETCH_COMMAND}'."
        )

    def _run(self, timeout_s: float, threads: int) -> None:
        """The life of the thread that waits for the process."""
        try:
            with (
                gpu.reserved(self._tool.device, self._folder.parent) as held,
                _short_path(self._folder) as temporary,
            ):
                run_program(
                    [
                        *(sys.executable, "-m", "hedypet_bids.tools.totalsegmentator_process"),
                        str(self._folder / "request.json"),
                    ],
                    title=self._title,
                    log=self._log,
                    timeout_s=timeout_s,
                    environment={**self._environment(temporary, threads), **held.environment},
                    handles=held.handles,
                    cancelled=self._cancelled,
                )
        except BaseException as fault:  # noqa: BLE001 - raised again where the result is wanted
            self._fault = fault

    def _environment(self, temporary: Path, threads: int) -> dict[str, str]:
        return {
            "TOTALSEG_HOME_DIR": str(self._folder),
            "TOTALSEG_WEIGHTS_PATH": str(self._tool.weights.resolve()),
            "TMPDIR": str(temporary),
            # nnU-Net's own workers and PyTorch's threads stay within the share of this participant.
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "nnUNet_def_n_proc"), str(threads)),
        }

    def _write_configuration(self) -> None:
        configuration = {
            "totalseg_id": "totalseg_hedypet0",
            "send_usage_stats": False,
            "prediction_counter": 0,
            "statistics_disclaimer_shown": True,
            **({"license_number": self._tool.licence} if self._tool.licence else {}),
        }
        path = self._folder / "config.json"
        try:
            path.touch(mode=0o600)
            path.write_text(json.dumps(configuration))
        except OSError as fault:
            raise write_error(path, fault) from fault


@contextmanager
def _short_path(folder: Path) -> Iterator[Path]:
    """The folder under a name short enough for the sockets of nnU-Net's workers."""
    if len(str(folder)) <= _LONGEST_TEMPORARY_PATH:
        yield folder
        return
    with ExitStack() as stack:
        try:
            holder = stack.enter_context(temporary_folder(prefix=LEFT_OVER))
        except OSError:
            yield folder  # nowhere else to write; its log will say that the path is too long
            return
        link = holder / "t"
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link
