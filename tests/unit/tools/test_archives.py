"""Downloads that are cut, and archives that want more than their folder."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_server import archive_server, zipped

from hedypet_bids.errors import BadDataError, MissingInputError, TryAgainError
from hedypet_bids.tools import archives
from hedypet_bids.tools.archives import download_archive, unpack_archive

CONTENT = os.urandom(1_000_000)


def test_a_download_that_is_cut_goes_on_where_it_ended(tmp_path: Path) -> None:
    with archive_server() as server:
        server.files["/a.zip"], server.cut_after = CONTENT, 300_000
        download_archive(f"{server.address}/a.zip", tmp_path / "a", size=len(CONTENT))
    assert (tmp_path / "a").read_bytes() == CONTENT
    begins = [int(wanted[6:-1] or 0) for _, wanted, _ in server.asked[1:]]
    assert len(begins) >= 3 and begins == sorted(begins)
    # A chunk that was not whole is asked for again, no more.
    assert server.sent < len(CONTENT) + len(begins) * 65536


@pytest.mark.parametrize("size", [len(CONTENT), 0], ids=["known", "unknown"])
@pytest.mark.parametrize("resumes", [True, False])
@pytest.mark.parametrize("begun", [0, 500_000, len(CONTENT), len(CONTENT) + 5])
def test_what_an_earlier_command_left_is_used_or_replaced(
    size: int, resumes: bool, begun: int, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes((CONTENT + b"other")[:begun])
    with archive_server() as server:
        server.files["/a.zip"], server.resumes = CONTENT, resumes
        download_archive(f"{server.address}/a.zip", tmp_path / "a", size=size)
    assert (tmp_path / "a").read_bytes() == CONTENT
    if begun == size > 0:
        assert server.asked == []
    elif begun == 500_000 and resumes:
        assert server.sent == len(CONTENT) - begun


def test_a_connection_that_brings_nothing_ends_the_download_and_keeps_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT[:1000])
    with archive_server() as server:
        server.files["/a.zip"], server.cut_after = CONTENT, 0
        with pytest.raises(TryAgainError, match="1000"):
            download_archive(f"{server.address}/a.zip", tmp_path / "a", size=len(CONTENT))
    assert (tmp_path / "a").read_bytes() == CONTENT[:1000]


def test_what_is_not_there_or_has_another_size_is_not_fetched(tmp_path: Path) -> None:
    with archive_server() as server:
        server.files["/a.zip"] = CONTENT
        with pytest.raises(MissingInputError, match="404"):
            download_archive(f"{server.address}/b.zip", tmp_path / "b")
        for size in (len(CONTENT) - 1, len(CONTENT) + 1):
            with pytest.raises(BadDataError, match=str(size)):
                download_archive(f"{server.address}/a.zip", tmp_path / "a", size=size)
    assert list(tmp_path.iterdir()) == []


def test_an_endless_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST_ARCHIVE", len(CONTENT) - 1)
    with archive_server() as server:
        server.files["/a.zip"] = CONTENT
        with pytest.raises(BadDataError, match=str(len(CONTENT) - 1)):
            download_archive(f"{server.address}/a.zip", tmp_path / "a")


# ---- unpacking


def with_mode(name: str, mode: int) -> Callable[[zipfile.ZipFile], None]:
    """A member of some kind: a link to /etc, or a device."""

    def write(archive: zipfile.ZipFile) -> None:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        archive.writestr(member, b"/etc")

    return write


def named(name: str, method: int = zipfile.ZIP_STORED) -> Callable[[zipfile.ZipFile], None]:
    return lambda archive: archive.writestr(name, b"0" * 1000, method)


@pytest.mark.parametrize(
    "evil",
    [
        named("../outside"),
        named("model/../../outside"),
        named("other/../../outside"),
        named("/tmp/outside"),
        named("//outside"),
        named("model\\..\\..\\outside"),
        with_mode("model/link", stat.S_IFLNK | 0o777),
        with_mode("model/pipe", stat.S_IFIFO | 0o666),
        with_mode("model/device", stat.S_IFBLK | 0o666),
        named("model/good"),
        named("model/good/below"),
        named("model/odd", zipfile.ZIP_LZMA),
        named("model/odd", zipfile.ZIP_BZIP2),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_an_evil_member_is_not_unpacked_at_all(
    evil: Callable[[zipfile.ZipFile], None], tmp_path: Path
) -> None:
    place = tmp_path / "in" / "here"
    place.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("model/good", b"good")
        evil(archive)
    with pytest.raises(BadDataError, match=r"a\.zip"):
        unpack_archive(tmp_path / "a.zip", place / "model")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "here", "in"]


def test_only_the_folder_of_the_model_is_unpacked(tmp_path: Path) -> None:
    members = {"model/a/b.json": b"{}", "model/c": b"", "__MACOSX/model/._c": b"x", ".DS_Store": b"x"}
    (tmp_path / "a.zip").write_bytes(zipped(members))
    unpack_archive(tmp_path / "a.zip", tmp_path / "model")
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"a.zip", "model/a/b.json", "model/c"}


@pytest.mark.parametrize("limit", ["LARGEST_CONTENT", "members"])
def test_a_bomb_is_refused_before_anything_is_written(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        if limit == "members":
            for number in range(10_001):
                archive.writestr(f"model/{number}", b"")
        else:
            monkeypatch.setattr(archives, limit, 5_000_000)
            archive.writestr("model/zeros", b"\0" * 5_000_001)
    assert (tmp_path / "a.zip").stat().st_size < 2_000_000
    with pytest.raises(BadDataError, match="expected at most"):
        unpack_archive(tmp_path / "a.zip", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_member_that_has_more_than_it_declares_gives_no_more_than_that(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/zeros", b"\0" * 5_000_000)
    size = (5_000_000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content.getvalue().replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(BadDataError, match="unpacked"):
        unpack_archive(tmp_path / "a.zip", tmp_path / "model")
    assert (tmp_path / "model" / "zeros").stat().st_size <= 1000


@pytest.mark.parametrize("content", [b"", b"{}", zipped({"model/a": CONTENT})[:-100]])
def test_what_is_no_archive_is_told_so(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BadDataError, match="unpacked"):
        unpack_archive(tmp_path / "a.zip", tmp_path / "model")


def test_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    content = bytearray(zipped({"model/a": CONTENT}))
    content[5000] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BadDataError, match="CRC"):
        unpack_archive(tmp_path / "a.zip", tmp_path / "model")
