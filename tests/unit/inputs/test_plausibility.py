"""Where headers put an image, and whether they say it at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hedypet_bids.errors import BadDataError
from hedypet_bids.inputs.plausibility import check_position

SHAPE = (20, 22, 24)
AFFINE = np.array([[-2.0, 0, 0, 19], [0, 2, 0, -21], [0, 0, 3, -35], [0, 0, 0, 1]])


def moved(z_mm: float = 0.0, turned_degrees: float = 0.0, scaled: float = 1.0) -> Any:
    """The affine about the centre of the image: shifted along z, turned about z, with other voxel sizes."""
    angle = np.radians(turned_degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, :3] *= scaled
    centre = AFFINE @ [*((n - 1) / 2 for n in SHAPE), 1.0]
    to, back = np.eye(4), np.eye(4)
    to[:3, 3], back[:3, 3] = centre[:3] + np.array([0, 0, z_mm]), -centre[:3]
    return to @ turn @ back @ AFFINE


def written(path: Path, sform: Any, sform_code: int, qform: Any, qform_code: int) -> Path:
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE)
    image.set_sform(sform, sform_code)
    image.set_qform(qform, qform_code)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 0), (0, 1), (4, 0)])
def test_one_form_or_two_that_agree_are_enough(tmp_path: Path, codes: tuple[int, int]) -> None:
    check_position(written(tmp_path / "a.nii.gz", AFFINE, codes[0], AFFINE, codes[1]), "agree")


@pytest.mark.parametrize("form", ["agree", "sform"])
def test_an_image_that_does_not_say_where_it_is_is_refused(tmp_path: Path, form: Any) -> None:
    with pytest.raises(BadDataError, match="sform_code and qform_code"):
        check_position(written(tmp_path / "a.nii.gz", AFFINE, 0, AFFINE, 0), form)


@pytest.mark.parametrize(
    ("other", "fits"),
    [
        (moved(z_mm=0.9), True),
        (moved(z_mm=1.1), False),
        (moved(z_mm=-30), False),
        (moved(turned_degrees=0.4), True),
        (moved(turned_degrees=0.6), False),
        (moved(turned_degrees=180), False),
        (moved(scaled=1.01), True),
        (moved(scaled=1.1), False),
        (AFFINE @ np.diag([-1.0, 1, 1, 1]), False),
    ],
)
def test_forms_that_differ_are_refused_or_chosen(tmp_path: Path, other: Any, *, fits: bool) -> None:
    path = written(tmp_path / "a.nii.gz", other, 2, AFFINE, 1)
    if not fits:
        with pytest.raises(BadDataError, match="header_form"):
            check_position(path, "agree")
    else:
        check_position(path, "agree")
    check_position(path, "sform")
