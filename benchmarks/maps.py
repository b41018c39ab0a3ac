"""Voxel maps of Ki and V0 from the last frames, against decompression alone and against nifti_dynamic.

    python -m benchmarks.maps [--dir FOLDER] [--repeats 3]
    python -m benchmarks.maps --memory [--dir FOLDER]

The series is that of ``benchmarks.tacs``. ``--memory`` shows the peak memory at full spatial size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks import series
from benchmarks.measure import child, print_machine, print_table, side_by_side
from benchmarks.tacs import decompress
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.kernels.kinetics.patlak import Window, map_weights
from hedypet_bids.kernels.kinetics.weighted_sums import weighted_sums
from hedypet_bids.model import FrameTimes

N_LAST = 8


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", type=Path, help="folder for the data, kept when given")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(_contenders(args.dir)[args.child])
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.dir or Path(temporary)
        shape = series.FULL_SIZE if args.memory else series.HALF_SIZE
        series.make(folder, shape, N_LAST + 1 if args.memory else series.N_FRAMES)
        command = [sys.executable, "-m", "benchmarks.maps", "--child", "hedypet", "--dir", str(folder)]
        # Also lets numba compile before anything is timed.
        answer = json.loads(subprocess.check_output(command).splitlines()[-1])
        if args.memory:
            print(f"peak memory at full spatial size: {answer['peak_mb']:.0f} MB")
            return
        names = ["igzip alone", "hedypet", "nifti_dynamic"]
        results = side_by_side("benchmarks.maps", names, folder, repeats=args.repeats)
    print_machine()
    print_table(results, against="igzip alone")


def _contenders(folder: Path) -> dict[str, Callable[[], object]]:
    return {
        "igzip alone": lambda: decompress(folder),
        "hedypet": lambda: _maps(folder),
        "nifti_dynamic": lambda: _nifti_dynamic(folder),
    }


def _frames_and_blood(n_frames: int) -> tuple[FrameTimes, np.ndarray]:
    duration = np.full(n_frames, 60.0)
    frames = FrameTimes(np.cumsum(duration) - duration, duration)
    return frames, 20000 * np.exp(-frames.mid_s / 900) + 3000


def _maps(folder: Path) -> None:
    reader = FrameReader(folder / "series.nii.gz")
    frames, blood = _frames_and_blood(reader.n_frames)
    weights = np.array(map_weights(blood, frames, window=Window(last_frames=N_LAST), rule="simpson"))
    used = np.flatnonzero(weights.any(axis=0))
    chunks = reader.chunks(int(used[0]), int(used[-1]) + 1)
    for _ in weighted_sums(chunks, weights, n_voxels=reader.grid.n_voxels):
        pass


def _nifti_dynamic(folder: Path) -> None:
    from nifti_dynamic.patlak import voxel_patlak

    image = nib.load(folder / "series.nii.gz")
    frames, blood = _frames_and_blood(image.shape[3])
    voxel_patlak(image, blood, frames.mid_s, n_frames_linear_regression=N_LAST)


if __name__ == "__main__":
    main()
