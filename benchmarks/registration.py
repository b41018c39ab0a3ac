"""Target registration error, time and failures of the MR-to-CT registration over known transforms.

    python -m benchmarks.registration [DATASET TRUTH] [--runs 50] [--compare]

DATASET is a raw BIDS dataset with derivatives, TRUTH the JSON of one participant with ``mr2ct_head`` and
``mr2ct_body``. Every run moves the MR by a random rigid transform of up to 20 degrees and 40 mm about the
middle of the anatomy, registers it, and compares with the known answer over all voxels of the anatomy.
``--compare`` also runs SimpleITK's gradient descent on the same measure (its setting is below) and, if it
is installed, antspyx Rigid, in the same run on the same images.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from benchmarks.dataset import add_arguments, dataset_and_truth
from hedypet_bids.kernels.registration.rigid import crop_to_head, register_rigid
from hedypet_bids.kernels.resampling.resample import moved
from hedypet_bids.model import Grid, Matrix

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
BRAIN = 90

# A result that is further off than this, mean over the anatomy, is a failure.
FAILED_MM = 2.0

Answer = tuple[Matrix, tuple[str, ...]]
Method = Callable[[NDArray[Any], Grid, NDArray[Any], Grid], Answer]


@dataclass(frozen=True, eq=False)
class Pair:
    """A CT, an MR, the matrix from MR to CT and the MR's anatomy in MR world mm."""

    fixed: NDArray[Any]
    fixed_grid: Grid
    moving: NDArray[Any]
    moving_grid: Grid
    truth: Matrix
    points: NDArray[np.float64]


def main() -> None:
    """Print one table row for every pair and method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_arguments(parser)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", nargs="+", help="only these pairs")
    parser.add_argument("--inverse", action="store_true", help="with the inverse-consistency check")
    parser.add_argument("--compare", action="store_true")
    args = parser.parse_args()
    methods: dict[str, Method] = {"hedypet": _hedypet(args.threads, args.inverse)}
    if args.compare:
        methods["SimpleITK"] = _simpleitk
        if importlib.util.find_spec("ants"):
            methods["antspyx Rigid"] = _antspyx
    print("| pair | method | runs | mean TRE mm | worst mean | worst point | failed | flagged | s a run |")
    print("|---|---|---|---|---|---|---|---|---|")
    with dataset_and_truth(args) as (dataset, truth):
        known = pairs(dataset, json.loads(truth.read_text("utf-8")))
    for name, pair in known.items():
        if not args.pairs or name in args.pairs:
            for label, method in methods.items():
                print(f"| {name} | {label} | {_row(pair, method, args.runs)} |", flush=True)


def pairs(dataset: Path, truth: dict[str, Any]) -> dict[str, Pair]:
    """The pairs of the dataset's participant 001: whole body, head, and views cut on either side."""
    ct, grid = _load(dataset, "sub-001/*/ct/*br38f_ct.nii.gz")
    total, _ = _load(dataset, "derivatives/totalsegmentator/sub-001/*/ct/*seg-total_dseg.nii.gz")
    body, _ = _load(dataset, "derivatives/totalsegmentator/sub-001/*/ct/*seg-body_dseg.nii.gz")
    dixon, dixon_grid = _load(dataset, "sub-001/*/anat/*DIXONbodyIN_T1w.nii.gz")
    mprage, mprage_grid = _load(dataset, "sub-001/*/anat/*MPRAGE_T1w.nii.gz")
    labels, labels_grid = _load(dataset, "derivatives/synthseg/sub-001/*/anat/*seg-synthseg_dseg.nii.gz")
    to_ct = {name: np.array(truth[name]) for name in ("mr2ct_body", "mr2ct_head")}
    body_points = _apply(np.linalg.inv(to_ct["mr2ct_body"]), _points(body > 0, grid))
    head_points = _points(labels > 0, labels_grid)
    head, head_grid = crop_to_head(ct, grid, total == BRAIN)
    n, m = dixon.shape[2], mprage.shape[2]
    body_case = (to_ct["mr2ct_body"], body_points)
    head_case = (to_ct["mr2ct_head"], head_points)
    return {
        "body": Pair(ct, grid, dixon, dixon_grid, *body_case),
        "body, MR upper 60 %": Pair(ct, grid, *_cut(dixon, dixon_grid, 2 * n // 5, n), *body_case),
        "body, CT lower 70 %": Pair(*_cut(ct, grid, 0, 7 * n // 10), dixon, dixon_grid, *body_case),
        "head": Pair(head, head_grid, mprage, mprage_grid, *head_case),
        "head, MR upper 75 %": Pair(head, head_grid, *_cut(mprage, mprage_grid, m // 4, m), *head_case),
    }


def _row(pair: Pair, method: Method, runs: int) -> str:
    random = np.random.default_rng(2026)
    means, worst, flagged, seconds = [], 0.0, 0, 0.0
    for _ in range(runs):
        error = _random_rigid(random, pair.points.mean(axis=0))
        began = time.perf_counter()
        matrix, flags = method(pair.fixed, pair.fixed_grid, pair.moving, moved(pair.moving_grid, error))
        seconds += time.perf_counter() - began
        distance = np.linalg.norm(
            _apply(matrix @ error, pair.points) - _apply(pair.truth, pair.points), axis=1
        )
        means.append(float(distance.mean()))
        worst = max(worst, float(distance.max()))
        flagged += bool(flags)
    failed = sum(mean > FAILED_MM for mean in means)
    return (
        f"{runs} | {np.mean(means):.3f} | {max(means):.3f} | {worst:.3f} | {failed} | {flagged} | "
        f"{seconds / runs:.1f}"
    )


def _random_rigid(random: np.random.Generator, centre: NDArray[np.float64]) -> Matrix:
    """Up to 20 degrees about any axis through the centre, and up to 40 mm in any direction."""
    axis, direction = (v / np.linalg.norm(v) for v in random.normal(size=(2, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(random.uniform(0, 20)) * axis).as_matrix()
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + random.uniform(0, 40) * direction
    return matrix


def _load(dataset: Path, pattern: str) -> tuple[NDArray[Any], Grid]:
    image = nib.load(next(dataset.glob(pattern)))
    return np.asanyarray(image.dataobj), Grid(image.shape[:3], image.affine)


def _cut(data: NDArray[Any], grid: Grid, low: int, high: int) -> tuple[NDArray[Any], Grid]:
    affine = grid.affine.copy()
    affine[:3, 3] += low * affine[:3, 2]
    part = data[:, :, low:high]
    return part, Grid((part.shape[0], part.shape[1], part.shape[2]), affine)


def _points(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    return _apply(grid.affine, np.argwhere(mask)[::97])


def _apply(matrix: Matrix, points: NDArray[Any]) -> NDArray[np.float64]:
    applied: NDArray[np.float64] = points @ matrix[:3, :3].T + matrix[:3, 3]
    return applied


def _hedypet(threads: int, inverse: bool) -> Method:
    def run(fixed: NDArray[Any], fixed_grid: Grid, moving: NDArray[Any], moving_grid: Grid) -> Answer:
        found = register_rigid(fixed, fixed_grid, moving, moving_grid, threads=threads, check_inverse=inverse)
        return found.matrix, found.flags

    return run


def _simpleitk(fixed: NDArray[Any], fixed_grid: Grid, moving: NDArray[Any], moving_grid: Grid) -> Answer:
    """Regular step gradient descent, one quarter of the voxels, three levels."""
    import SimpleITK as sitk  # noqa: N813 - the name its users know

    def image(data: NDArray[Any], grid: Grid) -> Any:
        made = sitk.GetImageFromArray(np.ascontiguousarray(data.T, dtype=np.float32))
        lps = LPS @ grid.affine
        made.SetSpacing(grid.voxel_sizes_mm.tolist())
        made.SetDirection((lps[:3, :3] / grid.voxel_sizes_mm).ravel().tolist())
        made.SetOrigin(lps[:3, 3].tolist())
        return made

    ct, mr = image(fixed, fixed_grid), image(moving, moving_grid)
    kind = sitk.CenteredTransformInitializerFilter.GEOMETRY
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.25, 42)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(4.0, 1e-3, 300, 0.6, 1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([6.0, 3.0, 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(
        sitk.CenteredTransformInitializer(ct, mr, sitk.Euler3DTransform(), kind), False
    )
    found = method.Execute(ct, mr)
    corners = np.array([found.TransformPoint(tuple(p)) for p in np.vstack([np.zeros(3), np.eye(3)]).tolist()])
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = (corners[1:] - corners[0]).T, corners[0]
    return LPS @ np.linalg.inv(lps) @ LPS, ()


def _antspyx(fixed: NDArray[Any], fixed_grid: Grid, moving: NDArray[Any], moving_grid: Grid) -> Answer:
    import ants

    with tempfile.TemporaryDirectory() as folder:
        images = []
        for name, data, grid in (("ct", fixed, fixed_grid), ("mr", moving, moving_grid)):
            path = str(Path(folder) / f"{name}.nii")
            nib.save(nib.Nifti1Image(np.asarray(data, np.float32), grid.affine), path)
            images.append(ants.image_read(path))
        found = ants.registration(*images, type_of_transform="Rigid", random_seed=42)
        transform = ants.read_transform(found["fwdtransforms"][0])
    rows = np.array(transform.parameters)
    centre = np.array(transform.fixed_parameters)
    lps = np.eye(4)
    lps[:3, :3] = rows[:9].reshape(3, 3)
    lps[:3, 3] = rows[9:] + centre - lps[:3, :3] @ centre
    return LPS @ np.linalg.inv(lps) @ LPS, ()


if __name__ == "__main__":
    main()
