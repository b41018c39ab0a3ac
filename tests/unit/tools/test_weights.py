"""Fetching models: verified, put in place as a whole, recorded; from a server on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from archive_server import PLANS, ArchiveServer, archive_server, model_members, model_of, zipped

from hedypet_bids.cli import weights as weights_command
from hedypet_bids.errors import BadDataError, HedypetError, MissingInputError, TryAgainError, UsageError
from hedypet_bids.io.lock import exclusive
from hedypet_bids.tools import weights
from hedypet_bids.tools.totalsegmentator import MODELS, Model, faults_of_weights
from hedypet_bids.tools.weights import LOCK_FILE, changes_of_weights, fetch_model, known_hash, read_lock

CHECKPOINT = f"{PLANS}/fold_0/checkpoint_final.pth"
TASKS = pytest.importorskip("totalsegmentator.map_tasks_config")


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with archive_server() as running:
        yield running


def published(server: ArchiveServer, number: int, *, licensed: bool = False, seed: int = 1) -> Model:
    """A toy model that the server has."""
    content = zipped(model_members(f"Dataset{number}_toy", seed))
    model = model_of(number, content, licensed=licensed)
    server.files[f"/{model.folder}.zip"] = content
    return model


def files(folder: Path) -> set[str]:
    """What is in a folder, but for its lock."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return found - {".fetching.lock"}


def test_a_model_is_fetched_over_cut_connections_and_recorded(server: ArchiveServer, tmp_path: Path) -> None:
    model = published(server, 7)
    server.cut_after = 150_000
    assert fetch_model(tmp_path, model, mirror=f"{server.address}/") == model.sha256
    expected = model_members(model.folder)
    assert files(tmp_path) == {*expected, LOCK_FILE}
    assert all((tmp_path / name).read_bytes() == content for name, content in expected.items())
    assert faults_of_weights(tmp_path, [model], read=True) == changes_of_weights(tmp_path, [model]) == {}
    recorded = json.loads((tmp_path / LOCK_FILE).read_text())[model.folder]
    assert recorded["sha256"] == hashlib.sha256(server.files[f"/{model.folder}.zip"]).hexdigest()
    assert (
        recorded["files"][CHECKPOINT] == hashlib.sha256(expected[f"{model.folder}/{CHECKPOINT}"]).hexdigest()
    )


def test_an_archive_with_another_hash_is_refused_and_leaves_what_there_is(
    server: ArchiveServer, tmp_path: Path
) -> None:
    model = published(server, 7)
    fetch_model(tmp_path, model, mirror=server.address)
    before = files(tmp_path)
    content = bytearray(server.files[f"/{model.folder}.zip"])
    content[200_000] ^= 1
    server.files[f"/{model.folder}.zip"] = bytes(content)
    with pytest.raises(BadDataError, match=model.sha256):
        fetch_model(tmp_path, model, mirror=server.address)
    assert files(tmp_path) == before and changes_of_weights(tmp_path, [model]) == {}


def test_what_is_left_of_another_file_is_fetched_anew(server: ArchiveServer, tmp_path: Path) -> None:
    model = published(server, 7)
    (tmp_path / f".{model.folder}.zip").write_bytes(b"x" * 1000)
    fetch_model(tmp_path, model, mirror=server.address)
    assert [wanted for _, wanted, _ in server.asked] == ["bytes=1000-", ""]
    assert faults_of_weights(tmp_path, [model], read=True) == {}


def test_the_first_download_of_a_model_without_a_hash_is_what_later_ones_must_be(
    server: ArchiveServer, tmp_path: Path
) -> None:
    model = replace(published(server, 7), sha256="", archive_size=0)
    first = tmp_path / "first"
    assert known_hash(first, model) == ""
    sha256 = fetch_model(first, model, mirror=server.address)
    assert known_hash(first, model) == sha256
    # Another machine that is given the lock file accepts nothing else.
    second = tmp_path / "second"
    second.mkdir()
    (second / LOCK_FILE).write_bytes((first / LOCK_FILE).read_bytes())
    fetch_model(second, model, mirror=server.address)
    published(server, 7, seed=2)
    for folder in (first, second):
        with pytest.raises(BadDataError, match=sha256):
            fetch_model(folder, model, mirror=server.address)
    assert fetch_model(tmp_path / "third", model, mirror=server.address) != sha256


@pytest.mark.parametrize(
    "members",
    [
        {**model_members("Dataset7_toy"), "../outside": b"x"},
        {**model_members("Dataset7_toy"), "/outside": b"x"},
        model_members("Dataset8_toy"),
        {"Dataset7_toy/readme": b""},
        {**model_members("Dataset7_toy"), f"Dataset7_toy/{PLANS}/plans.json": b"{"},
    ],
    ids=["climbs", "absolute", "another model", "no model", "broken model"],
)
def test_archives_that_are_no_model_leave_nothing(
    members: dict[str, bytes], server: ArchiveServer, tmp_path: Path
) -> None:
    content = zipped(members)
    server.files["/Dataset7_toy.zip"] = content
    folder = tmp_path / "a" / "b"
    with pytest.raises(BadDataError):
        fetch_model(folder, model_of(7, content), mirror=server.address)
    assert files(tmp_path) == {"a/b/.fetching.lock"}


def test_a_broken_model_is_replaced_as_a_whole(server: ArchiveServer, tmp_path: Path) -> None:
    model = published(server, 7)
    stage = tmp_path / model.folder / PLANS
    stage.mkdir(parents=True)
    (stage / "old").touch()
    (tmp_path / ".unpacking-killed").mkdir()
    weights_command.fetch(tmp_path, [model], mirror=server.address)
    assert files(tmp_path) == {*model_members(model.folder), LOCK_FILE}
    assert not (tmp_path / ".unpacking-killed").exists()
    asked = len(server.asked)
    weights_command.fetch(tmp_path, [model], mirror=server.address)
    assert len(server.asked) == asked


@pytest.mark.parametrize("change", ["byte", "extra", "gone"])
def test_files_that_changed_since_are_seen_and_fetched_again(
    change: str, server: ArchiveServer, tmp_path: Path
) -> None:
    model = published(server, 7)
    fetch_model(tmp_path, model, mirror=server.address)
    stage = tmp_path / model.folder / PLANS
    if change == "byte":
        (stage / "plans.json").write_text("[]")  # whole, for all that the file itself tells
    elif change == "extra":
        (stage / "fold_0" / "more.py").touch()
    else:
        (stage / "dataset.json").unlink()
    with pytest.raises(BadDataError):
        weights_command.check_models(tmp_path, [model])
    weights_command.fetch(tmp_path, [model], mirror=server.address)
    assert changes_of_weights(tmp_path, [model]) == {}


def test_a_model_that_cannot_be_fetched_keeps_no_other_from_it(server: ArchiveServer, tmp_path: Path) -> None:
    models = [published(server, number) for number in (7, 8, 9)]
    del server.files[f"/{models[0].folder}.zip"]
    with pytest.raises(MissingInputError, match="Dataset7_toy"):
        weights_command.fetch(tmp_path, models, mirror=server.address)
    assert set(faults_of_weights(tmp_path, models, read=True)) == {models[0]}
    assert set(read_lock(tmp_path)) == {models[1].folder, models[2].folder}


def test_two_commands_do_not_fetch_into_one_folder(server: ArchiveServer, tmp_path: Path) -> None:
    with (
        exclusive(tmp_path / ".fetching.lock", wait=False, holder="a test"),
        pytest.raises(TryAgainError),
    ):
        fetch_model(tmp_path, published(server, 7), mirror=server.address)
    assert server.asked == []


@pytest.mark.parametrize(
    "content", ["", "[]", '{"Dataset7_toy": {}}', '{"Dataset7_toy": {"sha256": 1, "files": {}}}']
)
def test_a_lock_file_that_cannot_be_read_is_no_reason_to_trust(
    content: str, server: ArchiveServer, tmp_path: Path
) -> None:
    (tmp_path / LOCK_FILE).write_text(content)
    with pytest.raises(BadDataError, match=LOCK_FILE):
        weights_command.fetch(tmp_path, [published(server, 7)], mirror=server.address)
    assert server.asked == []


# ---- the licensed model


def test_the_licence_number_goes_to_the_publisher_alone(
    server: ArchiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tissue = next(model for model in MODELS if model.licensed)
    content = zipped(model_members(tissue.folder))
    server.files[f"/{tissue.folder}.zip"] = server.files["/download_weights"] = content
    fetch_model(tmp_path / "mirrored", tissue, licence="secret", mirror=server.address)
    assert server.asked == [(f"/{tissue.folder}.zip", "", {})]
    monkeypatch.setattr(weights, "LICENSED_URL", f"{server.address}/download_weights")
    fetch_model(tmp_path / "own", tissue, licence="secret")
    _, _, body = server.asked[-1]
    assert body["license_number"] == "secret" and body["task"] == "tissue_types"
    del server.files["/download_weights"]
    with pytest.raises(UsageError, match="licence number") as refused:
        fetch_model(tmp_path / "refused", tissue, licence="secret")
    assert "secret" not in str(refused.value)


def test_without_a_licence_number_the_rest_is_fetched(
    server: ArchiveServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOTALSEG_LICENSE", raising=False)
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path))
    whole = [model for model in MODELS if not model.licensed]
    for model in whole:
        for name, content in model_members(model.folder).items():
            (tmp_path / "w" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "w" / name).write_bytes(content)
    command = ["fetch", "--weights", str(tmp_path / "w"), "--mirror", server.address]
    assert weights_command.main(command) == 0
    said = capsys.readouterr()
    assert len([line for line in said.out.splitlines() if line.startswith("481 ")]) == 1 and not said.err
    assert server.asked == []
    # What is asked for is not left out in silence; what is broken is fetched, here in vain.
    assert weights_command.main([*command, "481"]) == 2
    (tmp_path / "w" / whole[0].folder / CHECKPOINT).unlink()
    assert weights_command.main(command) == 66
    assert [path for path, _, _ in server.asked] == [f"/{whole[0].folder}.zip"]


def test_addresses_and_licences_are_those_of_totalsegmentator() -> None:
    from totalsegmentator.map_to_binary import commercial_models

    for model in MODELS:
        known = TASKS.TASK_ID_WEIGHTS_CONFIGS[model.number]
        assert known["foldername"] == model.folder
        assert model.licensed == (model.number in commercial_models.values())
        assert model.licensed or known["version"] == model.release
        assert not model.sha256 or len(bytes.fromhex(model.sha256)) == 32


def test_a_folder_that_cannot_be_written_is_told(server: ArchiveServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HedypetError, match="file"):
        fetch_model(tmp_path / "file" / "weights", published(server, 7), mirror=server.address)
