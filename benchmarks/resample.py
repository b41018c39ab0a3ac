"""Time and peak memory of resampling all images and labels of one participant into the three spaces.

    python -m benchmarks.resample [DATASET TRUTH] [--factor 2] [--threads 2]

DATASET is a raw BIDS dataset with derivatives, TRUTH the JSON with ``mr2ct_head`` and ``mr2ct_body``.
The same list of files goes through this package (resample_slabs, resample_labels, write_nifti) and through
nibabel (resample_from_to, save), each in a process of its own, one after the other. ``--factor`` repeats
every voxel that often along each axis first, to get near the size of a clinical scan; ``--only`` takes the
files whose name contains one of the words.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to

from benchmarks.dataset import add_arguments, dataset_and_truth
from benchmarks.measure import peak_mb
from hedypet_bids.io.nifti_write import write_nifti
from hedypet_bids.kernels.resampling.resample import (
    clip_negative,
    head_grid,
    moved,
    resample_labels,
    resample_slabs,
    topogram_grid,
)
from hedypet_bids.model import Grid

BRAIN = 90
MR, LABELS = "mr", "labels"

# Pattern, value outside, matrix, kind.
IMAGES: tuple[tuple[str, float, str, str], ...] = (
    ("sub-001/*/ct/*rec-br38f_ct", -1024.0, "", ""),
    ("sub-001/*/ct/*rec-ac_ct", -1024.0, "", ""),
    ("sub-001/*/ct/*Xray", 0.0, "", "film"),
    ("sub-001/*/pet/*acstatPSF_pet", 0.0, "", "pet"),
    ("sub-001/*/anat/*MPRAGE_T1w", 0.0, "mr2ct_head", MR),
    ("sub-001/*/anat/*DIXONhead*_T1w", 0.0, "mr2ct_head", MR),
    ("sub-001/*/anat/*DIXONbody*_T1w", 0.0, "mr2ct_body", MR),
    ("sub-001/*/anat/*FASTVIEW*_T1w", 0.0, "mr2ct_body", MR),
    ("derivatives/totalsegmentator/sub-001/*/ct/*_dseg", 0.0, "", LABELS),
    ("derivatives/synthseg/sub-001/*/anat/*_dseg", 0.0, "mr2ct_head", LABELS),
)


def main() -> None:
    """Print a table of seconds per image for both ways, and the totals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_arguments(parser)
    parser.add_argument("--factor", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[""], help="words in the file names")
    parser.add_argument("--way", choices=("hedypet", "nibabel"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        _child(args.dataset, args.way, args.threads)
        return
    with dataset_and_truth(args) as (dataset, truth), tempfile.TemporaryDirectory() as folder:
        _prepare(dataset, json.loads(truth.read_text("utf-8")), args.factor, Path(folder), args.only)
        command = [
            sys.executable,
            "-m",
            "benchmarks.resample",
            folder,
            folder,
            "--threads",
            str(args.threads),
        ]
        results = {
            way: json.loads(subprocess.check_output([*command, "--way", way]))
            for way in ("hedypet", "nibabel")
        }
    _print(results["hedypet"], results["nibabel"])


def _prepare(dataset: Path, truth: dict[str, Any], factor: int, folder: Path, words: list[str]) -> None:
    """Write every file, enlarged, and the plan that both ways follow."""
    plan: list[dict[str, Any]] = []
    for pattern, outside, matrix, kind in IMAGES:
        paths = sorted(dataset.glob(f"{pattern}.nii.gz"))
        for path in (path for path in paths if any(word in path.name for word in words)):
            image = nib.load(path)
            thin = 1 if kind == "film" else factor
            scales = (factor, thin, factor) if kind == "film" else (factor,) * 3
            data = np.asanyarray(image.dataobj)
            for axis, scale in enumerate(scales):
                data = np.repeat(data, scale, axis)
            affine = _finer(image.affine, scales)
            write_nifti(folder / path.name, data, Grid(data.shape, affine))
            rows = truth[matrix] if matrix else np.eye(4).tolist()
            plan.append({"name": path.name, "outside": outside, "matrix": rows, "kind": kind})
    (folder / "plan.json").write_text(json.dumps({"plan": plan, "spaces": _spaces(dataset, factor)}))


def _spaces(dataset: Path, factor: int) -> dict[str, Any]:
    spaces = {}
    for name, pattern in (("bodystat", "*acstatPSF_pet"), ("bodydyn", "*acdynPSF_pet")):
        image = nib.load(next(dataset.glob(f"sub-001/*/pet/{pattern}.nii.gz")))
        shape = [n * factor for n in image.shape[:3]]
        spaces[name] = {"shape": shape, "affine": _finer(image.affine, (factor,) * 3).tolist()}
    total = nib.load(next(dataset.glob("derivatives/totalsegmentator/sub-001/*/ct/*seg-total_dseg.nii.gz")))
    head = head_grid(np.asanyarray(total.dataobj) == BRAIN, Grid(total.shape, total.affine))
    return {**spaces, "head": {"shape": head.shape, "affine": head.affine.tolist()}}


def _finer(affine: Any, scales: tuple[int, ...]) -> Any:
    """The affine of an image whose voxels are repeated."""
    finer = affine.copy()
    finer[:3, :3] /= scales
    finer[:3, 3] += affine[:3, :3] @ ((1 / np.array(scales) - 1) / 2)
    return finer


def _child(folder: Path, way: str, threads: int) -> None:
    """Print seconds per image, their total and the peak memory as JSON."""
    described = json.loads((folder / "plan.json").read_text())
    spaces = {
        name: Grid(tuple(grid["shape"]), np.array(grid["affine"]))
        for name, grid in described["spaces"].items()
    }
    convert: Callable[..., None] = _with_hedypet if way == "hedypet" else _with_nibabel
    start_mb = peak_mb()
    seconds = {}
    for entry in described["plan"]:
        began = time.perf_counter()
        convert(folder, entry, spaces, threads)
        seconds[entry["name"]] = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb() - start_mb}))


def _with_hedypet(folder: Path, entry: dict[str, Any], spaces: dict[str, Grid], threads: int) -> None:
    image = nib.load(folder / entry["name"])
    data, grid = (
        np.asanyarray(image.dataobj),
        moved(Grid(image.shape, image.affine), np.array(entry["matrix"])),
    )
    for space, whole in spaces.items():
        target = topogram_grid(grid, whole) if entry["kind"] == "film" else whole
        if entry["kind"] == LABELS:
            result: Any = resample_labels(data, grid, target, threads=threads)
        else:
            result = resample_slabs(data, grid, target, outside=entry["outside"], threads=threads)
        if entry["kind"] == "pet":
            result = _clipped(result)
        write_nifti(folder / f"hedypet_{space}.nii.gz", result, target, aligned=True, threads=threads)


def _clipped(slabs: Iterable[Any]) -> Iterator[Any]:
    for slab in slabs:
        clip_negative(slab)
        yield slab


def _with_nibabel(folder: Path, entry: dict[str, Any], spaces: dict[str, Grid], _threads: int) -> None:
    image = nib.load(folder / entry["name"])
    image = nib.Nifti1Image(image.dataobj, np.array(entry["matrix"]) @ image.affine, image.header)
    order = 0 if entry["kind"] == LABELS else 3
    for space, target in spaces.items():
        result = resample_from_to(image, (target.shape, target.affine), order=order, cval=entry["outside"])
        nib.save(result, folder / f"nibabel_{space}.nii.gz")


def _print(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    print("| image | hedypet s | nibabel s | times faster |")
    print("|---|---|---|---|")
    rows = [(name, ours["seconds"][name], theirs["seconds"][name]) for name in ours["seconds"]]
    rows.append(("**all**", sum(r[1] for r in rows), sum(r[2] for r in rows)))
    for name, mine, nibabels in rows:
        print(f"| {name} | {mine:.2f} | {nibabels:.2f} | {nibabels / mine:.1f} |")
    mine_mb, nibabel_mb = ours["peak_mb"], theirs["peak_mb"]
    print(
        f"\nPeak memory above the start: hedypet {mine_mb:.0f} MB, nibabel {nibabel_mb:.0f} MB "
        f"({mine_mb / nibabel_mb:.2f} of it)."
    )


if __name__ == "__main__":
    main()
