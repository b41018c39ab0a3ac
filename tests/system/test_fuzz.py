"""Random damage to sidecars, tables, NIfTI headers and gzip streams: success or a HedypetError, nothing else.

Where damage can be told from data (gzip has a checksum), success must also mean the undamaged values.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from isal import igzip
from readers import (
    IMAGES,
    PARTICIPANTS,
    READERS,
    SIDECAR,
    Reader,
    check_person,
    check_usable,
    frames,
    read_image,
)

from hedypet_bids.errors import BadDataError, HedypetError
from hedypet_bids.inputs.participant_metadata import read_participant
from hedypet_bids.inputs.pet_metadata import PetMetadata, read_pet_metadata
from hedypet_bids.io.store import Store
from hedypet_bids.run.job import Job, subject_of
from hedypet_bids.settings import Settings

MOST_SECONDS, MOST_BYTES = 20.0, 1 << 30
RUN = Path(__file__).resolve().parents[2] / "run.py"

fuzz = partial(
    settings,
    deadline=MOST_SECONDS * 1000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

WORDS = [
    "Bq/mL",
    "kBq/mL",
    "MBq",
    "GBq",
    "n/a",
    "F18",
    "^18^Fluorine",
    "Xx99",
    "1e400",
    "NaN",
    "-0",
    "0x10",
    "",
]

numbers = (
    st.integers(-(10**6), 10**6)
    | st.floats()
    | st.integers(10**300, 10**420)
    | st.sampled_from([0, -1, 1e-320, 1e308, 2**63, -(10**400)])
)
texts = st.sampled_from(WORDS) | st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
three_numbers = st.lists(numbers, min_size=3, max_size=3)
edits = st.dictionaries(st.sampled_from(sorted(SIDECAR)), values | three_numbers, min_size=1, max_size=5)


@contextmanager
def quick() -> Iterator[None]:
    """Fail where the reading inside takes long."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < MOST_SECONDS


# ---- sidecars and tables


@fuzz(max_examples=400)
@given(edits, st.sets(st.sampled_from(sorted(SIDECAR)), max_size=3))
@example({"FrameDuration": [1, 1, 1e-320]}, set())
def test_edited_sidecars_give_usable_numbers_or_a_reason(
    changes: dict[str, Any], taken_away: set[str]
) -> None:
    content = {key: value for key, value in (SIDECAR | changes).items() if key not in taken_away}
    check_person(read_participant("1", {}, sidecar=content))
    try:
        found = read_pet_metadata(content, n_frames=3, where="sub-1_pet.json")
    except HedypetError as error:
        assert "sub-1_pet.json" in str(error)
        assert len(str(error)) < 1000
    else:
        check_usable(found)


PIECES = [
    b"\t",
    b"\n",
    b"\r",
    b'"',
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"sub-1",
    b"n/a",
    b"{",
    b"[",
    b"9" * 5000,
]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, *, longest: int = 6) -> bytes:
    """Bytes with some replaced, put in or cut off."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, longest))):
        position = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "put in", "cut out", "end"]))
        if kind == "flip" and content:
            content[position] ^= draw(st.integers(1, 255))
        elif kind == "put in":
            content[position:position] = draw(st.sampled_from(PIECES))
        elif kind == "cut out":
            del content[position : position + draw(st.integers(1, 40))]
        else:
            del content[position:]
    return bytes(content)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@fuzz(max_examples=200)
@given(data=st.data())
def test_damaged_files_are_read_or_named(tmp_path: Path, reader: Reader, data: st.DataObject) -> None:
    with quick():
        reader.try_on(data.draw(st.sampled_from(reader.seeds).flatmap(damaged)), tmp_path)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_what_is_damaged_was_whole(tmp_path: Path, reader: Reader) -> None:
    """Else the readers would be tried on their refusals alone."""
    path = tmp_path / reader.name
    path.write_bytes(reader.seeds[0])
    reader.read(path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A participant with one dynamic image of three frames."""
    root = tmp_path_factory.mktemp("fuzz") / "bids"
    folder = root / "sub-1" / "pet"
    folder.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (root / "participants.tsv").write_bytes(PARTICIPANTS)
    (folder / "sub-1_pet.nii.gz").write_bytes(gzip.compress(IMAGE))
    (folder / "sub-1_pet.json").write_text(json.dumps(SIDECAR))
    return root


def _open(root: Path) -> PetMetadata:
    job = Job("1", root, Store(root.parent / "out"), Settings(), "run")
    subject = subject_of(job)
    if subject.broken:
        raise BadDataError(subject.broken[0].reason)
    (found,) = subject.scans[0].pet.values()
    return found


@fuzz(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from([*sorted(SIDECAR), "subject", "session", "suffix"]) | texts, values, max_size=5
    )
)
def test_edited_sidecars_of_a_dataset(dataset: Path, changes: dict[str, Any]) -> None:
    path = dataset / "sub-1/pet/sub-1_pet.json"
    path.write_text(json.dumps(SIDECAR | changes))
    try:
        check_usable(_open(dataset))
    except HedypetError as error:
        assert "sub-1" in str(error)
    finally:
        path.write_text(json.dumps(SIDECAR))


@fuzz(max_examples=40)
@given(st.data())
def test_damaged_images_of_a_dataset(dataset: Path, data: st.DataObject) -> None:
    path = dataset / "sub-1/pet/sub-1_pet.nii.gz"
    path.write_bytes(gzip.compress(data.draw(damaged(IMAGE))))
    try:
        _open(dataset)
    except HedypetError as error:
        assert "sub-1_pet" in str(error)
    finally:
        path.write_bytes(gzip.compress(IMAGE))


# ---- images


IMAGE = IMAGES[0]
header_flips = st.lists(st.tuples(st.integers(0, 600), st.integers(1, 255)), min_size=1, max_size=4)
HEADER_FIELDS = st.sampled_from(
    ["dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter"]
)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@fuzz(max_examples=150)
@given(whole=st.sampled_from(IMAGES), flips=header_flips)
def test_flipped_bytes_in_headers(
    tmp_path: Path, name: str, whole: bytes, flips: list[tuple[int, int]]
) -> None:
    content = bytearray(whole)
    for position, mask in flips:
        content[position] ^= mask
    path = tmp_path / name
    path.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    with quick():
        read_image(path)


@fuzz(max_examples=200)
@given(field=HEADER_FIELDS, data=st.data())
def test_extreme_values_in_headers(tmp_path: Path, field: str, data: st.DataObject) -> None:
    header = nib.Nifti1Header(IMAGE[:348], check=False)
    kind = header[field].dtype
    if kind.kind == "f":
        value = st.floats(width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 1e-45, 3e38, 0.0])
    else:
        value = st.integers(int(np.iinfo(kind).min), int(np.iinfo(kind).max))
    drawn = data.draw(st.lists(value, min_size=header[field].size, max_size=header[field].size))
    header[field] = drawn if header[field].ndim else drawn[0]
    path = tmp_path / "x.nii"
    path.write_bytes(header.binaryblock + IMAGE[348:])
    with quick():
        read_image(path)


@fuzz(max_examples=300)
@given(st.data())
def test_damaged_gzip_streams_never_pass_for_data(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(IMAGE))
    expected = frames(path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    with quick():
        try:
            found = frames(path)
        except HedypetError as error:
            assert "x.nii.gz" in str(error)
        else:
            np.testing.assert_array_equal(found, expected)


# ---- time and memory, of the program as a whole


def _bomb(path: Path) -> None:
    """A small image, then three gigabytes of zeros that deflate to a few megabytes."""
    zeros = bytes(64 << 20)
    with igzip.open(path, "wb", compresslevel=1) as file:
        file.write(IMAGE)
        for _ in range(48):
            file.write(zeros)


def _declares_much(path: Path) -> None:
    """The most that the size of the file allows to be declared, and a hole in the place of voxels."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((2000, 2000, 2000))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + bytes(4 << 20), 1) + bytes(8 << 20))


def _extension(path: Path) -> None:
    """An extension that declares two gigabytes in a file that has them."""
    with igzip.open(path, "wb", compresslevel=1) as file:
        file.write(IMAGE[:348] + b"\1\0\0\0" + (2**31 - 16).to_bytes(4, "little") + bytes(4))
        for _ in range(33):
            file.write(bytes(64 << 20))


def _deep(path: Path) -> None:
    path.with_name("sub-1_pet.json").write_text('{"Units":' + "[" * 3_000_000 + "]" * 3_000_000 + "}")


def _many(path: Path) -> None:
    path.with_name("sub-1_pet.json").write_text('{"Units":[' + ",".join(["[]"] * 2_600_000) + "]}")


def _long_lists(path: Path) -> None:
    starts = list(range(600_000))
    path.with_name("sub-1_pet.json").write_text(json.dumps(SIDECAR | {"FrameTimesStart": starts}))


def _wide_table(path: Path) -> None:
    (path.parents[2] / "participants.tsv").write_text("participant_id" + "\t" * (30 << 20) + "\n")


def _long_table(path: Path) -> None:
    rows = "".join(f"sub-1\tF\t{n}\n" for n in range(2_000_000))
    (path.parents[2] / "participants.tsv").write_text("participant_id\tsex\tage\n" + rows)


# From a small process: Linux counts what the parent of a process had for the peak of that process.
MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[2:], check=False)
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(done.returncode)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [_bomb, _declares_much, _extension, _deep, _many, _long_lists, _wide_table, _long_table]
)
def test_nothing_takes_long_or_fills_the_memory(dataset: Path, tmp_path: Path, make: Any) -> None:
    root = tmp_path / "bids"
    shutil.copytree(dataset, root)
    make(root / "sub-1/pet/sub-1_pet.nii.gz")
    command = [sys.executable, str(RUN), str(root), str(tmp_path / "out"), "participant", "--nprocs", "1"]
    command += ["--skip-bids-validation", "--steps", "tacs", "normalise"]
    started = time.monotonic()
    with (tmp_path / "said.txt").open("w+") as said:
        process = subprocess.run(
            [sys.executable, "-c", MEASURE, str(tmp_path / "peak.txt"), *command],
            stdout=said,
            stderr=subprocess.STDOUT,
            check=False,
        )
        said.seek(0)
        text = said.read()
    assert "Traceback" not in text and "crash-" not in text, text
    assert process.returncode in (0, 65), text
    assert time.monotonic() - started < MOST_SECONDS
    assert int((tmp_path / "peak.txt").read_text()) * 1024 < MOST_BYTES
