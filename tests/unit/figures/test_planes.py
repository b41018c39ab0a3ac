"""Planes, projections and surveys of images against numpy on whole arrays."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hedypet_bids.figures.planes import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    ShownBox,
    read_planes,
    read_projections,
    survey_labels,
)
from hedypet_bids.io.nifti_write import write_nifti
from hedypet_bids.model import Grid


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "SRA", "AIL"])
def test_views_are_the_same_in_every_orientation(tmp_path: Path, axes: str) -> None:
    rng = np.random.default_rng(0)
    image = nib.Nifti1Image(rng.random((9, 11, 13), dtype=np.float32), np.diag([2.0, 3.0, 4.0, 1.0]))
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt(("R", "A", "S")), nib.orientations.axcodes2ornt(tuple(axes))
        )
    )
    assert "".join(nib.aff2axcodes(turned.affine)) == axes
    path = tmp_path / "image.nii.gz"
    nib.save(turned, path)
    data, at = image.get_fdata(), (3, 4, 5)
    planes = read_planes(path, at)
    projections = read_projections(path, along=(SAGITTAL, CORONAL, AXIAL))
    sizes = {SAGITTAL: (3.0, 4.0), CORONAL: (2.0, 4.0), AXIAL: (2.0, 3.0)}
    for along in (SAGITTAL, CORONAL, AXIAL):
        np.testing.assert_allclose(planes[along].values, data.take(at[along], axis=along), rtol=1e-6)
        np.testing.assert_allclose(projections[along].values, data.max(axis=along), rtol=1e-6)
        assert planes[along].pixel_mm == pytest.approx(sizes[along])


def test_values_that_are_not_finite_do_not_spoil_a_projection(tmp_path: Path) -> None:
    data = np.ones((4, 4, 4), dtype=np.float32)
    data[1, 1, 1], data[2, 2, 2] = np.nan, np.inf
    data[:, 3, 3] = np.nan
    write_nifti(tmp_path / "image.nii.gz", data, Grid(data.shape, np.eye(4)))
    views = read_projections(tmp_path / "image.nii.gz", along=(CORONAL, SAGITTAL))
    assert set(np.unique(views[CORONAL].values)) == {1.0}
    assert views[SAGITTAL].values[3, 3] == 0


def test_a_survey_counts_labels_and_finds_their_middle(tmp_path: Path) -> None:
    labels = np.zeros((12, 10, 8), dtype=np.uint8)
    labels[2:5, 4:9, 1:4] = 7
    labels[2, 4, 6] = 3
    grid = Grid(labels.shape, np.diag([-1.0, 1.0, 1.0, 1.0]))
    write_nifti(tmp_path / "labels.nii.gz", labels, grid)
    survey = survey_labels(tmp_path / "labels.nii.gz")
    assert survey.counts == {7: 45, 3: 1}
    # The first voxel axis runs to the left here, the views' to the right.
    assert survey.centre() == (8, 6, 2)
    box = ShownBox.around(survey.marginals, [1, 1, 1])
    assert (box.low, box.high) == ((6, 3, 0), (11, 10, 8))


def test_large_images_are_never_in_memory_whole(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    shape = (256, 256, 300)
    write_nifti(
        path, (np.full((*shape[:2], 1), k, np.float32) for k in range(shape[2])), Grid(shape, np.eye(4))
    )
    whole_mb = np.prod(shape) * 4 / 2**20
    tracemalloc.start()
    views = read_projections(path)
    planes = read_planes(path, (1, 2, 3))
    peak_mb = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert peak_mb < 0.6 * whole_mb
    assert views[CORONAL].values[0, -1] == 299 and planes[AXIAL].values[0, 0] == 3
