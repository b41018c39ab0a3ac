"""The frame reader: every type, scaling and byte order as nibabel reads it, and broken files by name."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hedypet_bids.errors import BadDataError, MissingInputError
from hedypet_bids.io.nifti_read import FrameReader, read_labels, read_volume

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2, 0, -40], [0, 0, 3, 5], [0, 0, 0, 1]])
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


def values(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(1000, 300, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(max(info.min, -10_000), min(info.max, 10_000), shape).astype(dtype)


def write(
    path: Path, data: np.ndarray, *, slope: float = 1, inter: float = 0, order: str = "<", version: int = 1
) -> Path:
    """A NIfTI file with the stored values and the scaling given."""
    header_class = nib.Nifti1Header if version == 1 else nib.Nifti2Header
    header = header_class(endianness=order)
    header.set_data_dtype(data.dtype.newbyteorder(order))
    header.set_data_shape(data.shape)
    header.set_sform(AFFINE, code=1)
    header["magic"] = b"n+1" if version == 1 else header["magic"]
    header["vox_offset"] = 352 if version == 1 else 544
    header["scl_slope"], header["scl_inter"] = slope, inter
    content = header.binaryblock + b"\0" * 4
    content += data.astype(data.dtype.newbyteorder(order)).tobytes(order="F")
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith(".gz") else content)
    return path


def frames(path: Path, *bounds: int) -> np.ndarray:
    return np.stack([frame.copy() for _, frame in FrameReader(path).frames(*bounds)], axis=-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("slope", "inter"), [(1, 0), (0.25, 0), (2.5, -7)])
def test_values_are_those_of_nibabel(
    tmp_path: Path, dtype: str, order: str, slope: float, inter: float
) -> None:
    path = write(tmp_path / "x.nii.gz", values(dtype, (5, 4, 3, 6)), slope=slope, inter=inter, order=order)
    found = frames(path)
    # Narrow types are float32 after scaling in float64; nibabel scales in the widest type needed.
    np.testing.assert_allclose(found, nib.load(path).get_fdata(), rtol=2e-7 if found.dtype == "f4" else 0)
    np.testing.assert_array_equal(FrameReader(path).grid.affine, nib.load(path).affine)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("start", "stop"), [(0, 6), (0, 1), (2, 5), (5, 6)])
def test_any_range_of_frames(tmp_path: Path, name: str, version: int, start: int, stop: int) -> None:
    data = values("f4", (5, 4, 3, 6))
    path = write(tmp_path / name, data, version=version)
    np.testing.assert_array_equal(frames(path, start, stop), data[..., start:stop])
    assert [i for i, _ in FrameReader(path).frames(start, stop)] == list(range(start, stop))


def test_an_unset_slope_means_no_scaling(tmp_path: Path) -> None:
    data = values("i2", (3, 3, 3, 2))
    for number, slope in enumerate((0.0, float("nan"))):
        path = write(tmp_path / f"{number}.nii", data, slope=slope)
        np.testing.assert_array_equal(frames(path), data)


def test_gzip_of_several_members(tmp_path: Path) -> None:
    data = values("f4", (6, 5, 4, 7))
    plain = write(tmp_path / "x.nii", data).read_bytes()
    path = tmp_path / "y.nii.gz"
    path.write_bytes(b"".join(gzip.compress(plain[i : i + 999]) for i in range(0, len(plain), 999)))
    np.testing.assert_array_equal(frames(path), data)


def test_more_frames_than_read_ahead_buffers(tmp_path: Path) -> None:
    data = values("f4", (4, 4, 4, 40))
    path = write(tmp_path / "x.nii.gz", data)
    for read_ahead in (1, 2, 50):
        found = [frame.copy() for _, frame in FrameReader(path, read_ahead=read_ahead).frames()]
        np.testing.assert_array_equal(np.stack(found, axis=-1), data)


@pytest.mark.parametrize("n_voxels", [1, 7, 60, 1000])
def test_frames_in_pieces(tmp_path: Path, n_voxels: int) -> None:
    data = values("i2", (5, 4, 3, 6))
    path = write(tmp_path / "x.nii.gz", data, slope=0.5)
    found = np.zeros((60, 6))
    for index, position, piece in FrameReader(path).chunks(2, 5, n_voxels=n_voxels):
        found[position : position + piece.size, index] = piece
    expected = data.reshape(60, 6, order="F") * 0.5
    np.testing.assert_array_equal(found[:, 2:5], expected[:, 2:5])
    assert not found[:, [0, 1, 5]].any()


def test_a_volume_and_a_series_of_one_frame(tmp_path: Path) -> None:
    data = values("f4", (5, 4, 3))
    for name, stored in (("a", data), ("b", data[..., np.newaxis])):
        volume, grid = read_volume(write(tmp_path / f"{name}.nii.gz", stored))
        np.testing.assert_array_equal(volume, data)
        assert volume.flags.writeable and volume.flags.f_contiguous
        assert grid.shape == (5, 4, 3)
    with pytest.raises(BadDataError, match="has 2 frames"):
        read_volume(write(tmp_path / "c.nii", values("f4", (5, 4, 3, 2))))


def test_nothing_is_left_when_the_consumer_stops_early(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nii.gz", values("f4", (30, 30, 30, 20)))
    before = threading.active_count()
    for _ in range(20):
        stream = FrameReader(path).frames()
        next(stream)
        stream.close()
    for _, _frame in FrameReader(path).frames():
        break
    assert threading.active_count() == before


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.6, 0.99])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_cut_files_are_named(tmp_path: Path, name: str, keep: float) -> None:
    path = write(tmp_path / name, values("f4", (12, 12, 12, 10)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(BadDataError, match=name):
        list(FrameReader(path).frames())


def test_a_cut_stream_names_the_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nii.gz", values("f4", (12, 12, 12, 10)))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    seen = []
    with pytest.raises(BadDataError, match=r"frame [3-6]\b"):
        for index, _ in FrameReader(path).frames():
            seen.append(index)
    assert seen == list(range(len(seen)))


def test_a_wrong_checksum_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nii.gz", values("f4", (12, 12, 12, 10)))
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(BadDataError, match=r"x\.nii\.gz"):
        list(FrameReader(path).frames())


def test_flipped_bytes_never_pass_for_data(tmp_path: Path) -> None:
    data = values("f4", (12, 12, 12, 4))
    path = write(tmp_path / "x.nii.gz", data)
    content = path.read_bytes()
    rng = np.random.default_rng(5)
    for position in rng.integers(20, len(content) - 9, 40):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        path.write_bytes(bytes(damaged))
        with pytest.raises(BadDataError):
            list(FrameReader(path).frames())


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("dim", (4, 30000, 30000, 30000, 99, 1, 1, 1), "declares"),
        ("dim", (4, -5, 4, 3, 6, 1, 1, 1), "x.nii"),
        ("dim", (4, 0, 4, 3, 6, 1, 1, 1), "x.nii"),
        ("dim", (2, 5, 4, 1, 1, 1, 1, 1), "expected a 3D or 4D"),
        ("dim", (5, 5, 4, 3, 3, 2, 1, 1), "expected a 3D or 4D"),
        ("vox_offset", 0, "vox_offset"),
        ("vox_offset", 340, "x.nii"),
        ("datatype", 128, "expected integers or floats"),
        ("datatype", 32, "expected integers or floats"),
    ],
)
def test_impossible_headers_are_refused(tmp_path: Path, field: str, value: object, words: str) -> None:
    path = write(tmp_path / "x.nii", values("f4", (5, 4, 3, 6)))
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    header[field] = value
    if field == "datatype":
        header["bitpix"] = {128: 24, 32: 64}[int(str(value))]
    content[:348] = header.binaryblock
    path.write_bytes(bytes(content))
    with pytest.raises(BadDataError, match=words):
        FrameReader(path)


@pytest.mark.filterwarnings("error")
def test_voxels_without_end_are_refused_without_a_word_of_numpys(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    nib.Nifti2Image(np.zeros((2, 2, 2), np.uint8), np.diag([1e150, 1e150, 1e150, 1])).to_filename(path)
    with pytest.raises(BadDataError, match=r"x\.nii.*endless voxels"):
        FrameReader(path)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="does not exist"):
        FrameReader(tmp_path / "no.nii")
    (tmp_path / "junk.nii").write_bytes(b"junk" * 200)
    with pytest.raises(BadDataError, match=r"junk\.nii"):
        FrameReader(tmp_path / "junk.nii")


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "i8"])
def test_labels_are_integers_of_up_to_16_bits(tmp_path: Path, dtype: str) -> None:
    labels = np.random.default_rng(1).integers(0, 100, (4, 5, 6)).astype(dtype)
    found, _ = read_labels(write(tmp_path / "x.nii.gz", labels, order=">"))
    np.testing.assert_array_equal(found, labels)
    assert found.dtype.kind in "iu" and found.dtype.itemsize <= 2


@pytest.mark.parametrize(
    ("label", "dtype"),
    [(65536, "i4"), (2**31 - 1, "i4"), (2**32 - 1, "u4"), (2**40, "i8"), (2**63, "u8"), (2.0**31, "f4")],
)
def test_labels_that_no_scheme_has(tmp_path: Path, label: float, dtype: str) -> None:
    """Tables with a place for each label up to such a one would take gigabytes."""
    with pytest.raises(BadDataError, match=r"x\.nii holds the label .*; expected labels up to 65535"):
        read_labels(write(tmp_path / "x.nii", np.full((2, 2, 2), label, dtype)))


def test_labels_stored_as_floats_must_be_whole_numbers(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 2035, (4, 5, 6)).astype("f4")
    found, _ = read_labels(write(tmp_path / "x.nii", labels))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, labels)
    for bad in (0.5, np.nan, np.inf, -1.0):
        spoiled = labels.copy()
        spoiled[0, 0, 0] = bad
        with pytest.raises(BadDataError, match=r"whole numbers|negative label"):
            read_labels(write(tmp_path / "y.nii", spoiled))
    with pytest.raises(BadDataError, match="negative label -3"):
        read_labels(write(tmp_path / "z.nii", np.full((2, 2, 2), -3, "i2")))


def test_a_frame_that_no_scanner_makes_is_refused_by_its_header(tmp_path: Path) -> None:
    # 6.9 GB that unpack from 7 MB: they are not even begun.
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((1200, 1200, 1200))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4)) + bytes(7 << 20))
    with pytest.raises(BadDataError, match="6591 MB"):
        FrameReader(path)
    header.set_data_shape((512, 512, 1000))
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4)) + bytes(7 << 20))
    assert FrameReader(path).grid.shape == (512, 512, 1000)
