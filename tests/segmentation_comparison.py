"""TotalSegmentator's own run and ours on the same CT, in a process of its own: ``python ... WEIGHTS FOLDER``.

Reads a case a line (JSON), and answers each with a line. nnU-Net's worker processes, each of which takes
seconds to start, are left out where a case does not ask for them; what they do is done in this process by
nnU-Net's own ``predict_from_files_sequential``.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

LICENCE = "aca_ABCDEFGHIJKLMN"


class Comparison:
    """The process, as tests see it."""

    def __init__(self, weights: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(
            json.dumps(
                {
                    "totalseg_id": "totalseg_hedypet0",
                    "send_usage_stats": False,
                    "prediction_counter": 0,
                    "statistics_disclaimer_shown": True,
                    "license_number": LICENCE,
                }
            )
        )
        self._log = (folder / "log.txt").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(weights), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={
                **os.environ,
                "TOTALSEG_HOME_DIR": str(folder),
                "TOTALSEG_WEIGHTS_PATH": str(weights),
                **dict.fromkeys(("nnUNet_def_n_proc", "OMP_NUM_THREADS"), "1"),
            },
        )

    def __call__(self, **case: Any) -> dict[str, Any]:
        """How the labels of a case differ: see :func:`_compare`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, Path(self._log.name).read_text()[-3000:]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()


@contextlib.contextmanager
def comparison(weights: Path, folder: Path) -> Iterator[Comparison]:
    """The process while the block runs."""
    process = Comparison(weights, folder)
    try:
        yield process
    finally:
        process.close()


def made_up_ct(
    shape: tuple[int, int, int],
    voxels_mm: tuple[float, float, float],
    axes: str,
    degrees: float,
    seed: int,
    *,
    whole: bool = True,
    around: int = -1000,
) -> nib.Nifti1Image:
    """A CT, or MR, of blobs of every HU; its axes stored in some order, and turned about the first one.

    Parameters
    ----------
    around
        What stands on one side of them: of air, or of nothing.
    """
    rng = np.random.default_rng(seed)
    hu = ndimage.gaussian_filter(rng.normal(0, 1, shape), [min(2, n / 4) for n in shape])
    hu = (hu / hu.std() * 500 - 100).clip(-1024, 2000)
    hu[: shape[0] // 8] = around
    affine = np.diag([*voxels_mm, 1.0])
    affine[:3, 3] = (-20, 10, 5)
    ras, wanted = nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes)
    image = nib.Nifti1Image(hu.astype(np.int16 if whole else np.float32), affine)
    image = image.as_reoriented(nib.orientations.ornt_transform(ras, wanted))
    turn, angle = np.eye(4), np.deg2rad(degrees)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return nib.Nifti1Image(np.ascontiguousarray(image.dataobj), turn @ image.affine)


def _compare(weights: Path, folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    import torch
    from totalsegmentator.python_api import totalsegmentator

    from hedypet_bids.tools.body_tasks import BodyTask, BodyTasks
    from hedypet_bids.tools.nnunet import Clock

    ct = folder / "ct.nii"
    if "ct" in case:
        ct = Path(case["ct"])
    else:
        nib.save(made_up_ct(**case["made_up"]), ct)
    asked = {"fast": case.get("fast", False), "roi_subset": case.get("roi_subset")}
    with _in_this_process() if not case.get("workers") else contextlib.nullcontext():
        theirs = totalsegmentator(
            *(ct, folder / "out.nii.gz"), task=case["task"], ml=True, device="cpu", nr_thr_saving=1,
            force_split=case.get("split", False), quiet=True, **asked,
        )  # fmt: skip
    torch.set_num_threads(1)
    task = BodyTask.of(weights, case["task"], **asked)
    given = {"thirds_above_voxels": 0} if case.get("split") else {}
    ours = BodyTasks(ct, [task], Clock(), device=torch.device("cpu"), threads=1, **given)
    found = ours.labels(task)
    expected = np.asanyarray(nib.load(folder / "out.nii.gz").dataobj)
    assert theirs.shape == found.shape, (theirs.shape, found.shape)
    return {
        "different": int((expected != found).sum()),
        "labels": len(np.unique(expected)),
        "ways": [str(way) for way in ours.ways],
    }


@contextlib.contextmanager
def _in_this_process() -> Iterator[None]:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    theirs = nnUNetPredictor.predict_from_files
    nnUNetPredictor.predict_from_files = lambda self, files, output, **_: self.predict_from_files_sequential(
        files, output, save_probabilities=False, overwrite=True
    )
    try:
        yield
    finally:
        nnUNetPredictor.predict_from_files = theirs


def _main() -> None:
    from totalsegmentator.config import setup_nnunet

    setup_nnunet()
    import totalsegmentator.nnunet  # noqa: F401 - it changes the predictor

    weights, folder = map(Path, sys.argv[1:])
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            answer = _compare(weights, folder, json.loads(line))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main()
