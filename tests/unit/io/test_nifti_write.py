"""Written images: what nibabel reads back, which bytes, and what a failure leaves behind."""

from __future__ import annotations

import gzip
import hashlib

import nibabel as nib
import numpy as np
import pytest
from environment import disc

from hedypet_bids.errors import BadDataError, OutputError, ReadWriteError
from hedypet_bids.io.nifti_write import write_nifti
from hedypet_bids.model import Grid

OBLIQUE = np.array(
    [[-1.9, 0.3, 0.1, 44.25], [0.3, 2.4, -0.5, -17.5], [-0.1, 0.6, 2.9, 1203.125], [0, 0, 0, 1]]
)
turn, _, back = np.linalg.svd(OBLIQUE[:3, :3])
RIGID = OBLIQUE.copy()
RIGID[:3, :3] = turn @ back @ np.diag([1.5, 2.0, 3.0])
SHAPE = (11, 13, 17)
RNG = np.random.default_rng(0)

TYPES = ["uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64", ">i2", ">f4"]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
@pytest.mark.parametrize("layout", ["C", "F", "reversed"])
def test_nibabel_reads_back_what_was_written(tmp_path, kind, name, layout):
    data = RNG.integers(0, 250, SHAPE).astype(kind)
    data = data[::-1, :, ::-1] if layout == "reversed" else np.asarray(data, order=layout)
    write_nifti(tmp_path / name, data, Grid(SHAPE, RIGID))
    image = nib.load(tmp_path / name)
    read = np.asanyarray(image.dataobj)
    assert image.get_data_dtype() == np.dtype(kind).newbyteorder("<")
    np.testing.assert_array_equal(read, data)
    assert read.dtype.kind == np.dtype(kind).kind
    np.testing.assert_allclose(image.affine, RIGID, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("frames_at_once", [0, 2, 10])
def test_frames_in_chunks(tmp_path, frames_at_once):
    data = RNG.normal(size=(*SHAPE, 5)).astype(np.float32)
    chunk_bytes = frames_at_once * 11 * 13 * 17 * 4
    path = tmp_path / "a.nii.gz"
    write_nifti(path, data, Grid(SHAPE, RIGID), frame_spacing_s=2.5, chunk_bytes=chunk_bytes)
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), data)
    np.testing.assert_allclose(image.header.get_zooms(), (1.5, 2.0, 3.0, 2.5), rtol=1e-6)
    assert image.header.get_xyzt_units() == ("mm", "sec")


@pytest.mark.parametrize(("given", "asked", "stored"), [
    ("bool", None, "uint8"), ("float16", None, "float32"), ("float64", "float32", "float32"),
    ("int64", "uint8", "uint8"), ("float32", np.float32, "float32"),
])  # fmt: skip
def test_type_on_disk(tmp_path, given, asked, stored):
    data = RNG.integers(0, 2, SHAPE).astype(given)
    write_nifti(tmp_path / "a.nii.gz", data, Grid(SHAPE, RIGID), dtype=asked)
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == stored
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), data)


@pytest.mark.parametrize(("aligned", "code"), [(False, 1), (True, 2)])
def test_both_affines_are_set(tmp_path, aligned, code):
    write_nifti(tmp_path / "a.nii.gz", np.zeros(SHAPE, np.uint8), Grid(SHAPE, RIGID), aligned=aligned)
    header = nib.load(tmp_path / "a.nii.gz").header
    for (affine, found), tolerance in (
        (header.get_sform(coded=True), 1e-4),
        (header.get_qform(coded=True), 1e-3),
    ):
        assert found == code
        np.testing.assert_allclose(affine, RIGID, atol=tolerance)
    assert header.get_xyzt_units() == ("mm", "unknown")
    assert header.get_slope_inter() in ((1.0, 0.0), (None, None))


def test_a_sheared_affine_is_kept_in_the_sform_only(tmp_path):
    sheared = OBLIQUE.copy()
    sheared[0, 1] += 1.0
    write_nifti(tmp_path / "a.nii.gz", np.zeros(SHAPE, np.uint8), Grid(SHAPE, sheared))
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(image.affine, sheared, atol=1e-4)
    assert image.header.get_qform(coded=True)[1] == 0


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bytes_depend_on_the_content_alone(tmp_path, threads):
    data = RNG.normal(size=(90, 90, 120)).astype(np.float32)
    grid = Grid(data.shape, RIGID)
    first, second = tmp_path / "one.nii.gz", tmp_path / "sub" / "other.nii.gz"
    write_nifti(first, data, grid)
    write_nifti(second, np.asfortranarray(data), grid, threads=threads)
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    start = first.read_bytes()[:10]
    assert start[3] == 0, "no file name"
    assert start[4:8] == b"\0\0\0\0", "no time"
    with gzip.open(first) as file:  # the standard library agrees on length and checksum
        assert len(file.read()) == 352 + data.nbytes


def test_an_empty_frame_axis_or_a_wrong_shape_is_refused(tmp_path):
    grid = Grid(SHAPE, RIGID)
    for shape in ((11, 13, 16), (11, 13), (*SHAPE, 2, 2), (*SHAPE, 0)):
        with pytest.raises(BadDataError):
            write_nifti(tmp_path / "a.nii.gz", np.zeros(shape, np.float32), grid)
    with pytest.raises(BadDataError, match="cannot hold"):
        write_nifti(tmp_path / "a.nii.gz", np.zeros(SHAPE, "datetime64[s]"), grid)
    with pytest.raises(BadDataError, match="cannot hold"):
        write_nifti(tmp_path / "a.nii.gz", np.zeros((40_000, 1, 1), np.uint8), Grid((40_000, 1, 1), RIGID))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
@pytest.mark.parametrize("size", ["8k", "2m"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_full_disc_names_the_file_and_leaves_the_old_one(tmp_path, name, size, threads):
    data = RNG.normal(size=(100, 100, 100)).astype(np.float32)
    with disc(tmp_path / "disc", f"size={size}") as folder:
        path = folder / name
        path.write_bytes(b"old")
        with pytest.raises(ReadWriteError, match=name):
            write_nifti(path, data, Grid(data.shape, RIGID), threads=threads)
        assert path.read_bytes() == b"old"
        assert [p.name for p in folder.iterdir()] == [name]


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"a\.nii\.gz"):
        write_nifti(tmp_path / "file" / "a.nii.gz", np.zeros(SHAPE, np.uint8), Grid(SHAPE, RIGID))
