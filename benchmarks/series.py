"""The series that benchmarks measure: a body in noise, its segmentations, any number of frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from hedypet_bids.io.nifti_write import write_nifti
from hedypet_bids.labels import SEGMENTATION_TASKS, VOI_TASKS
from hedypet_bids.model import Grid

HALF_SIZE = (176, 176, 212)
FULL_SIZE = (440, 440, 645)
N_FRAMES = 69
TASKS = tuple(task.name for task in SEGMENTATION_TASKS)
VOIS = tuple(task.name for task in VOI_TASKS[:3])


def grid_of(shape: tuple[int, int, int]) -> Grid:
    """A grid of 726 x 726 x 1064 mm, as the scanner's field of view."""
    sizes = np.array([726.0, 726.0, 1064.0]) / shape
    return Grid(shape, np.diag([*sizes, 1.0]))


def make(folder: Path, shape: tuple[int, int, int], n_frames: int) -> None:
    """Write ``series.nii.gz`` and a label image per task and volume of interest, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    grid = grid_of(shape)
    for number, name in enumerate((*TASKS, *VOIS)):
        path = folder / f"{name}.nii.gz"
        if not path.exists():
            write_nifti(path, _labels(name, number, shape), grid)
    path = folder / "series.nii.gz"
    if not path.exists():
        _write_series(path, grid, n_frames)


def _body(shape: tuple[int, int, int]) -> tuple[NDArray[np.bool_], list[NDArray[np.float32]]]:
    """An elliptic body of a third of the field of view, and relative coordinates."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return (x / 0.55) ** 2 + (y / 0.35) ** 2 + (z / 0.95) ** 4 < 1, [x, y, z]


def _labels(name: str, number: int, shape: tuple[int, int, int]) -> NDArray[np.int16]:
    """As many regions as the task has, as the cells of a wavy pattern inside its part of the body."""
    body, (x, y, z) = _body(shape)
    n_labels = {"total": 117, "tissue": 3, "body": 2, "synthseg": 32, "synthsegparc": 98}.get(name, 4)
    if name.startswith("synth"):
        inside = (x / 0.25) ** 2 + (y / 0.25) ** 2 + ((z - 0.8) / 0.15) ** 2 < 1
    elif name in VOIS:
        inside = (x**2 + (y / 0.8) ** 2 < (0.01 * (number - 3)) ** 2) & (abs(z) < 0.2)
    else:
        inside = body
    wave = 6 * x + 5 * y + 9 * z + np.sin(7 * x + number) * np.cos(6 * y - z) + 20
    cells = (wave * (1 + n_labels / 12)).astype(np.int16) % n_labels + 1
    return np.asfortranarray(np.where(inside, cells, 0).astype(np.int16))


def frames(shape: tuple[int, int, int], n_frames: int) -> Iterator[NDArray[np.float32]]:
    """Frames of noise in the body, whole numbers outside of which the image is 0, as reconstructions are."""
    body, _ = _body(shape)
    rng = np.random.default_rng(0)
    for frame in range(n_frames):
        image = np.zeros(shape, dtype=np.float32, order="F")
        noise = rng.standard_normal(int(body.sum()), dtype=np.float32)
        image[body] = np.rint(np.abs(1000 + 20 * frame + 300 * noise))
        yield image


def _write_series(path: Path, grid: Grid, n_frames: int) -> None:
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((*grid.shape, n_frames))
    header.set_sform(grid.affine, code=1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    with igzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + b"\0\0\0\0")
        for image in frames(grid.shape, n_frames):
            file.write(image.tobytes(order="F"))
