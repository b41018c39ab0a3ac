"""Large archives from the network: downloads that are resumed, and unpacking that stays in its folder."""

from __future__ import annotations

import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from hedypet_bids.errors import BadDataError, MissingInputError, TryAgainError
from hedypet_bids.io.atomic import write_error

LARGEST_ARCHIVE = 2_000_000_000
"""Bytes; those of TotalSegmentator's models have up to 240 MB."""
LARGEST_CONTENT = 4_000_000_000
"""Bytes that an archive may have when it is unpacked; a model has some 250 MB."""
_MOST_MEMBERS = 10_000
_TRIES_WITHOUT_PROGRESS = 3
_CONNECT_S, _SILENT_S = 20, 60
_CHUNK = 1 << 16
_RANGE_NOT_SATISFIABLE, _TOO_MANY_REQUESTS = 416, 429


def download_archive(url: str, path: Path, *, size: int = 0, body: Mapping[str, str] | None = None) -> None:
    """Fetch an address into a file; what the file already has is not fetched again, if the server can resume.

    Parameters
    ----------
    size
        Bytes that there must be; 0 if it is not known.
    body
        Sent along (POST, as JSON), and makes the server begin from the start each time.

    Raises
    ------
    BadDataError
        The server has another number of bytes, or more than any archive of a model.
    MissingInputError
        The server refuses the request.
    TryAgainError
        The connection broke again and again without a byte more; what there is stays.
    OutputError, ReadWriteError
        The file cannot be written.
    """
    import requests

    fruitless = 0
    while not (size and _size(path) == size):
        before = _size(path)
        try:
            _receive(url, path, size, body)
            return
        except requests.RequestException as fault:
            fruitless = 0 if _size(path) > before else fruitless + 1
            if fruitless == _TRIES_WITHOUT_PROGRESS:
                raise TryAgainError(
                    f"{url} cannot be fetched: {fault}. The same command goes on after {_size(path)} bytes."
                ) from fault
            time.sleep(fruitless)
        except OSError as fault:
            raise write_error(path, fault) from fault


def _receive(url: str, path: Path, size: int, body: Mapping[str, str] | None) -> None:
    """One connection: append to the file, or write it anew where the server does not resume."""
    import requests

    have = _size(path) if body is None else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with requests.request(
        "GET" if body is None else "POST",
        url,
        json=body,
        headers=headers,
        stream=True,
        timeout=(_CONNECT_S, _SILENT_S),
    ) as answer:
        _check_answer(answer, url, path)
        resumed = answer.status_code == requests.codes.partial_content
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            path.unlink(missing_ok=True)
            raise requests.ConnectionError("the server sent another part than was asked for")
        begin = have if resumed else 0
        total = begin + int(answer.headers.get("Content-Length", 0))
        if total > begin:
            _check_size(url, total, size)
        with (
            path.open("ab" if resumed else "wb") as file,
            tqdm(total=total, initial=begin, unit="B", unit_scale=True, leave=False, disable=None) as bar,
        ):
            for chunk in answer.iter_content(_CHUNK):
                if file.tell() + len(chunk) > (size or LARGEST_ARCHIVE):
                    _check_size(url, file.tell() + len(chunk), size)
                file.write(chunk)
                bar.update(len(chunk))
    if _size(path) < max(size, total):
        raise requests.ConnectionError(f"it ended after {_size(path)} of {max(size, total)} bytes")


def _check_answer(answer: Any, url: str, path: Path) -> None:
    """Return when the server sends what was asked for; other answers than refusals may pass."""
    import requests

    if url.startswith("https:") and not answer.url.startswith("https:"):
        raise MissingInputError(f"{url} cannot be fetched: it leads to {answer.url}, which is not encrypted.")
    if answer.status_code == _RANGE_NOT_SATISFIABLE:
        path.unlink(missing_ok=True)
    elif 400 <= answer.status_code < 500 and answer.status_code != _TOO_MANY_REQUESTS:
        raise MissingInputError(
            f"{url} cannot be fetched: the server answers {answer.status_code} {answer.reason}."
        )
    if answer.status_code not in (requests.codes.ok, requests.codes.partial_content):
        raise requests.HTTPError(f"the server answers {answer.status_code} {answer.reason}")


def _check_size(url: str, found: int, size: int) -> None:
    if size and found != size:
        raise BadDataError(
            f"{url} has {found} bytes or more; expected {size}. It is not the archive that hedypet knows; "
            "nothing was unpacked."
        )
    if found > LARGEST_ARCHIVE:
        raise BadDataError(f"{url} has {found} bytes or more; expected at most {LARGEST_ARCHIVE}.")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def unpack_archive(archive: Path, target: Path) -> None:
    """Unpack the folder of an archive that has the name of ``target`` as ``target``, which must not exist.

    Other members, as those that file managers add, are left out.

    Raises
    ------
    BadDataError
        It is no archive, is broken, or has members that lead out of it, are links or devices, are there
        twice, or are too large.
    OutputError, ReadWriteError
        The folder cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _check_members(archive, members)
            for member in members:
                parts = PurePosixPath(member.filename).parts
                if parts[0] == target.name and not member.is_dir():
                    path = target.joinpath(*parts[1:])
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(member) as content, path.open("xb") as file:
                        shutil.copyfileobj(content, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as fault:
        raise BadDataError(f"{archive.name} cannot be unpacked: {fault}.") from fault
    except OSError as fault:
        raise write_error(target, fault) from fault


def _check_members(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    size = sum(member.file_size for member in members)
    if size > LARGEST_CONTENT or len(members) > _MOST_MEMBERS:
        raise BadDataError(
            f"{archive.name} is not unpacked: it has {len(members)} members of {size} bytes in all; "
            f"expected at most {_MOST_MEMBERS} and {LARGEST_CONTENT}."
        )
    files = [PurePosixPath(member.filename) for member in members if not member.is_dir()]
    known = set(files)
    for member in members:
        if reason := _fault_of_member(member):
            raise BadDataError(f"{archive.name} is not unpacked: its member {member.filename!r} {reason}.")
    if len(known) < len(files) or any(parent in known for file in files for parent in file.parents):
        raise BadDataError(f"{archive.name} is not unpacked: it has members with the same name.")


def _fault_of_member(member: zipfile.ZipInfo) -> str:
    """Why a member is not to be unpacked; empty if it may be."""
    path = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in member.filename:
        return "leads out of its folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 1:
        return "is encrypted"
    # Python unpacks other methods in one piece, whatever its size.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed by an unusual method"
    return ""
