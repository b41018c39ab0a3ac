"""Curves of every region in one pass, against decompression alone and against nifti_dynamic.

    python -m benchmarks.tacs [--dir FOLDER] [--repeats 3] [--skip-peer]
    python -m benchmarks.tacs --memory [--dir FOLDER]

Makes a 176x176x212x69 float32 series (1.8 GB uncompressed) with five segmentations, two erosions each,
and three volumes of interest. ``--memory`` shows the peak memory at full spatial size (440x440x645) for
2, 4 and 8 frames.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks import series
from benchmarks.measure import child, print_machine, print_table, side_by_side
from hedypet_bids.io.nifti_read import FrameReader, read_labels
from hedypet_bids.kernels.erosion import erode_labels
from hedypet_bids.kernels.region_statistics import JointLabels, RegionSet, region_statistics
from hedypet_bids.labels import task

BLOCK = 1 << 22


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", type=Path, help="folder for the data, kept when given")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--skip-peer", action="store_true", help="leave out nifti_dynamic (two minutes a run)"
    )
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(_contenders(args.dir)[args.child])
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.dir or Path(temporary)
        if args.memory:
            _memory(folder)
            return
        series.make(folder, series.HALF_SIZE, series.N_FRAMES)
        _warm_up(folder)
        names = ["igzip alone", "gzip alone", "prepare labels", "prepare and pass", "one segmentation"]
        results = side_by_side("benchmarks.tacs", names, folder, repeats=args.repeats)
        if not args.skip_peer:
            results |= side_by_side("benchmarks.tacs", ["nifti_dynamic"], folder, repeats=1)
    print_machine()
    print_table(results, against="igzip alone")
    alone = results["igzip alone"].median_s
    prepare = results["prepare labels"].median_s
    both = results["prepare and pass"].median_s
    print(f"\npass {(both - prepare) / alone:.2f} x igzip, preparation {prepare / alone:.2f} x igzip")
    if not args.skip_peer:
        peer = results["nifti_dynamic"].median_s
        print(
            f"one segmentation: {peer / results['one segmentation'].median_s:.0f} x faster than nifti_dynamic"
        )
        print(f"all sets: {13 * peer / both:.0f} x faster than nifti_dynamic for 13 sets of that time each")


def _contenders(folder: Path) -> dict[str, Callable[[], object]]:
    return {
        "igzip alone": lambda: decompress(folder),
        "gzip alone": lambda: _gunzip(folder),
        "prepare labels": lambda: JointLabels.combine(_sets(folder)),
        "prepare and pass": lambda: _measure(folder, JointLabels.combine(_sets(folder))),
        "one segmentation": lambda: _measure(folder, JointLabels.combine(_one_set(folder))),
        "nifti_dynamic": lambda: _nifti_dynamic(folder),
    }


def _warm_up(folder: Path) -> None:
    """Let numba compile before anything is timed."""
    command = [sys.executable, "-m", "benchmarks.tacs", "--child", "prepare and pass", "--dir", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def decompress(folder: Path) -> None:
    """Read the series to its end and drop it: what any reader has to pay."""
    from isal import igzip

    with igzip.open(folder / "series.nii.gz", "rb") as file:
        buffer = bytearray(BLOCK)
        while file.readinto(buffer):  # type: ignore[union-attr]
            pass


def _gunzip(folder: Path) -> None:
    with gzip.open(folder / "series.nii.gz", "rb") as file:
        while file.read(BLOCK):
            pass


def _sets(folder: Path) -> Iterator[RegionSet]:
    for name in series.TASKS:
        labels, _ = read_labels(folder / f"{name}.nii.gz")
        indices = np.unique(labels)[1:]
        for erosion in (0, 1):
            yield RegionSet((name, erosion), erode_labels(labels, iterations=erosion), indices)
    for name in series.VOIS:
        labels, _ = read_labels(folder / f"{name}.nii.gz")
        yield RegionSet((name, 0), labels, np.array(task(name).table.indices))


def _one_set(folder: Path) -> Iterator[RegionSet]:
    labels, _ = read_labels(folder / "total.nii.gz")
    yield RegionSet(("total", 0), labels, np.unique(labels)[1:])


def _measure(folder: Path, joint: JointLabels) -> object:
    return region_statistics((frame for _, frame in FrameReader(folder / "series.nii.gz").frames()), joint)


def _nifti_dynamic(folder: Path) -> None:
    """The library's way for one segmentation: every label of the total segmentation in turn."""
    from nifti_dynamic.tacs import extract_multiple_tacs

    extract_multiple_tacs(
        nib.load(folder / "series.nii.gz"), np.asanyarray(nib.load(folder / "total.nii.gz").dataobj)
    )


def _memory(folder: Path) -> None:
    print("| frames | peak MB |\n|---|---|")
    for n_frames in (2, 4, 8):
        (folder / "series.nii.gz").unlink(missing_ok=True)
        series.make(folder, series.FULL_SIZE, n_frames)
        command = [
            sys.executable,
            "-m",
            "benchmarks.tacs",
            "--child",
            "prepare and pass",
            "--dir",
            str(folder),
        ]
        answer = json.loads(subprocess.check_output(command).splitlines()[-1])
        print(f"| {n_frames} | {answer['peak_mb']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
