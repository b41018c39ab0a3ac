"""The page of a full-size participant: its time, memory and size.

    python -m benchmarks.report [--dir FOLDER]

Takes a tiny phantom's finished output and puts images of 440x440x645 voxels with noise in the place of its
static PET, Ki map and everything in the static PET's space (those in the head space have 1 mm already); then
builds the page in a process of its own. Limits: 60 s, 2000 MB, 15 MB.
"""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import child, print_machine
from benchmarks.series import FULL_SIZE
from hedypet_bids.inputs.dataset import Dataset, Request
from hedypet_bids.io.nifti_write import write_nifti
from hedypet_bids.io.store import Store
from hedypet_bids.model import Grid
from hedypet_bids.phantom import truth_folder, write_phantom
from hedypet_bids.report.participant import write_scan_page
from hedypet_bids.report.summary import ScanPage
from hedypet_bids.run.job import Job
from hedypet_bids.run.participant import process
from hedypet_bids.settings import Settings
from hedypet_bids.steps import report as report_step

LABEL, GIVEN = "001", "given.pickle"
MOST_S, MOST_MB, LARGEST_MB = 60.0, 2000.0, 15.0


def main() -> None:
    """Measure, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", type=Path, help="folder for the data, kept when given")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(lambda: _build(args.dir))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.dir or Path(temporary)
        if not (folder / GIVEN).exists():
            _prepare(folder)
        command = [sys.executable, "-m", "benchmarks.report", "--child", "--dir", str(folder)]
        answer = json.loads(subprocess.check_output(command).splitlines()[-1])
        page = folder / "out" / f"sub-{LABEL}.html"
        print_machine()
        print("| quantity | found | limit |\n|---|---|---|")
        print(f"| time of the page | {answer['seconds']:.1f} s | {MOST_S:.0f} s |")
        print(f"| peak memory | {answer['peak_mb']:.0f} MB | {MOST_MB:.0f} MB |")
        print(f"| size | {page.stat().st_size / 1e6:.2f} MB | {LARGEST_MB:.0f} MB |")


def _prepare(folder: Path) -> None:
    """A finished phantom whose images are made as large as a scanner's, and what its page is made from."""
    bids, output = folder / "bids", folder / "out"
    for path in (bids, output, truth_folder(bids)):
        shutil.rmtree(path, ignore_errors=True)
    write_phantom(bids, participants=1, seed=1, size="tiny")
    dataset = Dataset(bids, Request())
    store = Store(output, {"raw": bids, **dataset.derivatives})
    given: list[ScanPage] = []

    def keep(page: ScanPage) -> None:
        given.append(page)
        write_scan_page(page)

    # What the participant level hands over to the page.
    report_step.write_scan_page = keep
    result = process(Job(LABEL, bids, store, Settings(), "benchmark"), lambda *_: None)
    if result.failed:
        raise SystemExit(f"The phantom was not processed: {result.error}")
    (folder / GIVEN).write_bytes(pickle.dumps(given[0]))
    rng = np.random.default_rng(0)
    for path in [
        *bids.rglob("*acstatPSF_pet.nii.gz"),
        *output.rglob("*_space-bodystat_*.nii.gz"),
        *output.rglob("*_meas-Ki_mimap.nii.gz"),
    ]:
        _enlarge(path, rng)


def _enlarge(path: Path, rng: np.random.Generator) -> None:
    """The image on a grid of full size: labels by the nearest voxel, others with noise in every voxel."""
    image = nib.load(path)
    data = np.asanyarray(image.dataobj)
    zoom = np.array(data.shape) / FULL_SIZE
    affine = image.affine @ np.diag([*zoom, 1.0])
    grid = Grid(FULL_SIZE, affine)
    labels = path.name.endswith("_dseg.nii.gz")
    planes = _label_planes(data, zoom) if labels else _noisy_planes(data.astype(np.float32), zoom, rng)
    write_nifti(path, planes, grid, dtype=data.dtype if labels else np.float32)


def _label_planes(data: NDArray[np.generic], zoom: NDArray[np.float64]) -> Iterator[NDArray[np.generic]]:
    i, j, k = (np.minimum((np.arange(n) * z).astype(int), s - 1) for n, z, s in _axes(data, zoom))
    for index in k:
        yield data[np.ix_(i, j, [index])]


def _noisy_planes(
    data: NDArray[np.float32], zoom: NDArray[np.float64], rng: np.random.Generator
) -> Iterator[NDArray[np.float32]]:
    scale = 0.05 * float(np.nanmax(np.abs(data)))
    for plane in _label_planes(data, zoom):
        noise = rng.standard_normal(plane.shape, dtype=np.float32)
        yield (plane + scale * noise).astype(np.float32)


def _axes(data: NDArray[np.generic], zoom: NDArray[np.float64]) -> Iterator[tuple[int, float, int]]:
    return zip(FULL_SIZE, zoom, data.shape, strict=True)


def _build(folder: Path) -> None:
    write_scan_page(pickle.loads((folder / GIVEN).read_bytes()))


if __name__ == "__main__":
    main()
