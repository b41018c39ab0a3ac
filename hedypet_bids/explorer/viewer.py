"""Slices of PET over CT with labels, as one HTML fragment that needs nothing from anywhere."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from hedypet_bids.errors import HedypetError
from hedypet_bids.figures.palette import HU_WINDOW, SUV_WINDOW
from hedypet_bids.io.manifest import ScanOutputs
from hedypet_bids.io.nifti_read import read_labels, read_volume
from hedypet_bids.labels import color, regions_of_body
from hedypet_bids.model import Grid

# What a browser holds and sends quickly: about 2 MB gzipped.
MOST_SHOWN_VOXELS = 3_000_000
HEIGHT_PX = 760
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Slices:
    """Images of one scan on one grid, axes to right, anterior and superior, 0 to 255."""

    pet: Bytes | None
    ct: Bytes | None
    labels: Bytes | None
    sizes_mm: tuple[float, float, float]
    pet_units: str
    pet_top: float


def find_images(outputs: ScanOutputs) -> dict[str, Path]:
    """The PET, CT and total segmentation of a scan in the static PET's space, as far as there."""
    images = outputs.of("image", "bodystat")
    labels = outputs.get("labels", "bodystat", "total")
    pets = [path for name, path in images.items() if name.endswith("_pet.nii.gz")]
    cts = [path for name, path in images.items() if name.endswith("_ct.nii.gz")]
    # Of several CT reconstructions the segmented one, whose name the labels carry.
    stem = labels.name.split("_space-")[0] if labels else ""
    cts.sort(key=lambda path: path.name.split("_space-")[0] != stem)
    found = {"pet": next(iter(pets), None), "ct": next(iter(cts), None), "labels": labels}
    return {part: path for part, path in found.items() if path is not None}


def read_slices(images: dict[str, Path], suv_constant: float) -> Slices:
    """The images, thinned out to what a browser can hold.

    Parameters
    ----------
    suv_constant
        Bq/mL that are SUV 1; NaN shows the PET in kBq/mL up to its 99.9th percentile.

    Raises
    ------
    HedypetError
        An image cannot be read, or they are on different grids.
    """
    known = np.isfinite(suv_constant)
    read: dict[str, tuple[NDArray[Any], Grid]] = {}
    for part, path in images.items():
        read[part] = read_labels(path) if part == "labels" else read_volume(path)
    grids = [grid for _, grid in read.values()]
    if not grids:
        raise HedypetError("This scan has no image in the static PET's space.")
    if any(not grids[0].matches(grid) for grid in grids):
        raise HedypetError("The images of this scan are on different grids; run the participant again.")
    step = int(np.ceil((grids[0].n_voxels / MOST_SHOWN_VOXELS) ** (1 / 3)))
    thin: dict[str, NDArray[Any]] = {}
    for part, (data, grid) in read.items():
        turned, sizes = _to_ras(data, grid)
        thin[part] = np.asarray(turned[::step, ::step, ::step])
    top = SUV_WINDOW[1] * suv_constant if known else _top(thin.get("pet"))
    labels = thin.get("labels")
    return Slices(
        pet=None if "pet" not in thin else _scaled(thin["pet"], 0.0, top),
        ct=None if "ct" not in thin else _scaled(thin["ct"], *HU_WINDOW),
        labels=None if labels is None else labels.astype(np.uint8),
        sizes_mm=(float(sizes[0]) * step, float(sizes[1]) * step, float(sizes[2]) * step),
        pet_units="SUV [g/mL]" if known else "kBq/mL",
        pet_top=SUV_WINDOW[1] if known else top / 1000.0,
    )


def projections(images: dict[str, Path], suv_constant: float) -> list[tuple[str, Bytes]]:
    """Coronal and sagittal maximum intensity projection of the PET as grey pictures, head up."""
    if "pet" not in images:
        return []
    data, grid = read_volume(images["pet"])
    turned, sizes = _to_ras(data, grid)
    top = SUV_WINDOW[1] * suv_constant if np.isfinite(suv_constant) else _top(turned)
    pictures = []
    for name, along, across in (("coronal", 1, 0), ("sagittal", 0, 1)):
        grey = 255 - _scaled(np.nanmax(turned, axis=along), 0.0, top)
        rows = max(1, round(grey.shape[1] * sizes[2] / sizes[across]))
        at = np.minimum((np.arange(rows) + 0.5) * grey.shape[1] / rows, grey.shape[1] - 1).astype(int)
        pictures.append((name, np.ascontiguousarray(grey[:, at].T[::-1])))
    return pictures


def viewer_html(slices: Slices, title: str) -> str:
    """The slice viewer as one HTML page."""
    there = {part: getattr(slices, part) for part in ("pet", "ct", "labels")}
    volumes = {part: _packed(volume) for part, volume in there.items() if volume is not None}
    shape = next(volume.shape for volume in there.values() if volume is not None)
    named = regions_of_body()
    content = {
        "title": title,
        "shape": shape,
        "sizes": slices.sizes_mm,
        "volumes": volumes,
        "petUnits": slices.pet_units,
        "petTop": slices.pet_top,
        "names": {str(index): name for index, name in named.items()},
        "colours": {str(index): color(index) for index in named},
    }
    # No "</script>" can come out of the data: names come from our own table, volumes are base64.
    page = files("hedypet_bids.explorer").joinpath("viewer.html").read_text("utf-8")
    return page.replace("/*DATA*/null", json.dumps(content).replace("</", "<\\/"))


def _to_ras(data: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The image with axes nearest to right, anterior, superior, and its voxel sizes in that order, mm."""
    orientation = nib.orientations.io_orientation(grid.affine)
    sizes = np.empty(3)
    sizes[orientation[:, 0].astype(int)] = grid.voxel_sizes_mm
    return nib.orientations.apply_orientation(data, orientation), sizes


def _scaled(values: NDArray[Any], low: float, high: float) -> Bytes:
    with np.errstate(invalid="ignore"):
        share = (np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-9)
    scaled: Bytes = (np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)
    return scaled


def _top(values: NDArray[Any] | None) -> float:
    return 1.0 if values is None else max(float(np.nanpercentile(values, 99.9)), 1e-9)


def _packed(volume: Bytes) -> str:
    return base64.b64encode(gzip.compress(np.asfortranarray(volume).tobytes(order="F"), 6)).decode()
