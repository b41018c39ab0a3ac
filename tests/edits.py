"""Edits of a copy of the tiny phantom, for tests of bad and odd inputs.

Files of the copy are links to the phantom's, so they are replaced, never written into.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

Edit = Callable[[Path], object]

PET = "sub-001/ses-quadra/pet/sub-001_ses-quadra_trc-18FFDG_rec-"
DYNAMIC, STATIC = f"{PET}acdynPSF_pet", f"{PET}acstatPSF_pet"
CT = "sub-001/ses-quadra/ct/sub-001_ses-quadra_rec-br38f_ct"
HEAD_MR = "sub-001/ses-vida/anat/sub-001_ses-vida_acq-MPRAGE_T1w"
READY = "derivatives/totalsegmentator/sub-001/ses-quadra/ct/sub-001_ses-quadra_rec-br38f_seg-"
N_FRAMES = 69
MISSING = object()


def replace(path: Path, content: bytes) -> None:
    """Another content under the same name."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def file(name: str, content: bytes | str) -> Edit:
    data = content.encode() if isinstance(content, str) else content
    return lambda root: replace(root / name, data)


def both(*edits: Edit) -> Edit:
    return lambda root: [edit(root) for edit in edits]


def sidecar(stem: str, **changes: Any) -> Edit:
    """Entries of a sidecar changed; MISSING takes one away; a function gets the old value."""

    def edit(root: Path) -> None:
        path = root / f"{stem}.json"
        content = json.loads(path.read_text())
        for key, value in changes.items():
            content[key] = value(content[key]) if callable(value) else value
        replace(path, json.dumps({k: v for k, v in content.items() if v is not MISSING}).encode())

    return edit


def without(*patterns: str) -> Edit:
    """The files or folders that match taken away."""

    def edit(root: Path) -> None:
        for pattern in patterns:
            for path in sorted(root.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return edit


def bytes_of(stem: str, change: Callable[[bytearray], bytes | bytearray]) -> Edit:
    """The decompressed bytes of an image changed."""

    def edit(root: Path) -> None:
        path = root / f"{stem}.nii.gz"
        content = change(bytearray(gzip.decompress(path.read_bytes())))
        replace(path, gzip.compress(bytes(content), 1))

    return edit


def gzip_of(stem: str, change: Callable[[bytearray], bytes | bytearray]) -> Edit:
    """The compressed bytes of an image changed."""

    def edit(root: Path) -> None:
        path = root / f"{stem}.nii.gz"
        replace(path, bytes(change(bytearray(path.read_bytes()))))

    return edit


def header(stem: str, **fields: Any) -> Edit:
    """Fields of a NIfTI header set, right or wrong."""

    def change(content: bytearray) -> bytearray:
        head = nib.Nifti1Header(bytes(content[:348]), check=False)
        for key, value in fields.items():
            head[key] = value
        return bytearray(head.binaryblock) + content[348:]

    return bytes_of(stem, change)


def extension(size: int) -> Callable[[bytearray], bytearray]:
    """A header extension that declares a size."""

    def change(content: bytearray) -> bytearray:
        content[108:112] = struct.pack("<f", 352.0 + 160)
        return content[:348] + b"\1\0\0\0" + struct.pack("<ii", size, 6) + bytes(152) + content[352:]

    return change


def voxels(stem: str, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """The voxels of an image replaced."""

    def edit(root: Path) -> None:
        path = root / f"{stem}.nii.gz"
        image = nib.load(path)
        data = change(np.asarray(image.dataobj))
        path.unlink()
        nib.save(nib.Nifti1Image(data, image.affine, dtype=data.dtype), path)

    return edit


def small_dynamic(shape: tuple[int, ...]) -> Edit:
    """The dynamic image replaced by a small one."""
    return lambda root: small_image(root / f"{DYNAMIC}.nii.gz", shape)


def small_image(path: Path, shape: tuple[int, ...]) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones(shape, np.float32), np.diag([8.0, 8, 8, 1])), path)


def copy(stem: str, target: str) -> Edit:
    """An image and its sidecar under a second name."""

    def edit(root: Path) -> None:
        for end in (".nii.gz", ".json"):
            (root / f"{target}{end}").parent.mkdir(parents=True, exist_ok=True)
            os.link(root / f"{stem}{end}", root / f"{target}{end}")

    return edit


def renamed(*replacements: tuple[str, str]) -> Edit:
    """Everything of participant 001 under another name, ready segmentations included."""

    def new(name: str) -> str:
        for old, other in replacements:
            name = name.replace(old, other)
        return name

    def edit(root: Path) -> None:
        for folder in (root, *(root / "derivatives").iterdir()):
            if not (folder / "sub-001").is_dir():
                continue
            before = (folder / "sub-001").rename(folder / "before")
            for path in sorted(before.rglob("*")):
                if path.is_file():
                    target = folder / new(str("sub-001" / path.relative_to(before)))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.rename(target)
            shutil.rmtree(before)
        table = root / "participants.tsv"
        replace(table, new(table.read_text()).encode())

    return edit


def participants(change: Callable[[str], str | bytes]) -> Edit:
    """The table of participants changed."""

    def edit(root: Path) -> None:
        content = change((root / "participants.tsv").read_text())
        replace(root / "participants.tsv", content.encode() if isinstance(content, str) else content)

    return edit


def misnamed(stem: str, old: str, new: str) -> Edit:
    """An image and its sidecar that stay in their folder under another name."""

    def edit(root: Path) -> None:
        for path in sorted((root / stem).parent.glob(Path(stem).name + ".*")):
            path.rename(path.with_name(path.name.replace(old, new)))

    return edit


def cell(column: int, value: str) -> Edit:
    """A cell of participant 001 in the table of participants (columns count from 0)."""

    def change(text: str) -> str:
        rows = [line.split("\t") for line in text.splitlines()]
        next(row for row in rows if row[0] == "sub-001")[column] = value
        return "\n".join("\t".join(row) for row in rows) + "\n"

    return participants(change)


def link(name: str, target: str) -> Edit:
    """A symbolic link, in the place of what is there."""

    def edit(root: Path) -> None:
        path = root / name
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return edit


def moved_out(name: str) -> Edit:
    """A file kept outside the dataset, with a link where it was."""

    def edit(root: Path) -> None:
        outside = root.parent / "store" / Path(name).name
        outside.parent.mkdir()
        (root / name).rename(outside)
        (root / name).symlink_to(outside)

    return edit


def large(name: str, megabytes: int) -> Edit:
    """A file of zeros that takes no space."""

    def edit(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        with (root / name).open("wb") as handle:
            handle.truncate(megabytes << 20)

    return edit


def swapped(values: list[float]) -> list[float]:
    return [values[1], values[0], *values[2:]]


def scaled(factor: float) -> Callable[[list[float]], list[float]]:
    return lambda values: [factor * value for value in values]


def first(value: object) -> Callable[[list[object]], list[object]]:
    return lambda values: [value, *values[1:]]


def flipped(position: float) -> Callable[[bytearray], bytearray]:
    """A byte changed at a part of the length."""

    def change(content: bytearray) -> bytearray:
        content[int(len(content) * position)] ^= 0x5A
        return content

    return change


NESTED = '{"a":' * 100_000 + "1" + "}" * 100_000
