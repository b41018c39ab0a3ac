"""The aorta segments and volumes of interest of nifti_dynamic 0.3.1, exactly as that library makes them.

For equality with the published hedyPET tables. The library takes the third array axis for inferior to
superior and does not read the affine, so images are turned to LAS, the order of the published data,
before and back after.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError
from hedypet_bids.model import BoolArray, FloatArray, Grid, Matrix

_STORAGE = ("L", "A", "S")
_INSTEAD = "Use --aorta-method centreline, which does not have this limit."


def library_segments(mask: BoolArray, affine: Matrix, early_mean: FloatArray) -> NDArray[np.uint8]:
    """Segment labels (1 ascending, 2 top, 3 upper and 4 lower descending) of nifti_dynamic.

    Parameters
    ----------
    mask
        Aorta, shape (i, j, k), in any storage order.
    affine
        4x4, voxels to world RAS+ mm.
    early_mean
        Mean of the early frames on the same grid; voxels under 2/3 of the aorta's median are dropped.

    Raises
    ------
    BadDataError
        The library cannot tell the segments apart, or the shapes differ.
    """
    _check(mask, affine, early_mean)
    from nifti_dynamic.aorta_rois import extract_aorta_segments

    pet = _turned(early_mean.astype(np.float64), affine)
    image = _turned(mask.astype(np.int16), affine)
    labels = _silently(
        "cut the aorta into segments", lambda: extract_aorta_segments(image, np.asarray(pet.dataobj))
    )
    return _restored(labels, affine)


def library_vois(
    segments: NDArray[np.uint8],
    affine: Matrix,
    early_mean: FloatArray,
    *,
    volume_ml: float | None,
    width_voxels: int,
) -> NDArray[np.uint8]:
    """Volumes of interest of nifti_dynamic in the four segments, labelled as these.

    Parameters
    ----------
    segments
        From :func:`library_segments`.
    volume_ml
        Wanted volume; None for the full length.
    width_voxels
        Side of the square cross-section.

    Raises
    ------
    BadDataError
        A segment is missing or shorter than the wanted volume, or the shapes differ.
    """
    _check(segments, affine, early_mean)
    from nifti_dynamic.aorta_rois import extract_aorta_vois

    pet = _turned(early_mean.astype(np.float64), affine)
    image = _turned(segments.astype(np.int16), affine)
    vois = _silently(
        "place the volumes of interest in the aorta",
        lambda: extract_aorta_vois(
            image,
            np.asarray(pet.dataobj),
            volume_ml=1.0 if volume_ml is None else volume_ml,
            use_full_length=volume_ml is None,
            cylinder_width=width_voxels,
        ),
    )
    return _restored(vois, affine)


def _check(labels: NDArray[Any], affine: Matrix, early_mean: FloatArray) -> None:
    """Refuse images that the library would fail on without saying why."""
    if labels.ndim != 3 or labels.shape != early_mean.shape:
        raise BadDataError(
            f"The aorta has shape {labels.shape} and the early PET {early_mean.shape}; expected one 3D grid."
        )
    Grid((labels.shape[0], labels.shape[1], labels.shape[2]), affine)
    if not labels.any():
        raise BadDataError("The aorta is empty; expected at least one voxel. Check the segmentation.")


def _silently(what: str, call: Callable[[], Any]) -> Any:
    """The result of a library call without its prints, its failures as BadDataError."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return call()
    except Exception as error:  # the library raises bare Exception
        raise BadDataError(f"nifti_dynamic could not {what}: {error} {_INSTEAD}") from error


def _turned(data: NDArray[Any], affine: Matrix) -> nib.Nifti1Image:
    """An image in the storage order of the published data."""
    image = nib.Nifti1Image(data, affine)
    there = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(_STORAGE)
    )
    return image.as_reoriented(there)


def _restored(image: nib.Nifti1Image, affine: Matrix) -> NDArray[np.uint8]:
    """Labels of a turned image in the storage order of ``affine``."""
    back = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(_STORAGE), nib.orientations.io_orientation(affine)
    )
    labels: NDArray[np.uint8] = np.asarray(image.as_reoriented(back).dataobj).astype(np.uint8)
    return labels
