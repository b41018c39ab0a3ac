"""What a dataset has, and what is said where it is none or where a file of it is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_dataset import dataset, session_table

from hedypet_bids.errors import BadDataError, MissingInputError, NothingSelectedError, UsageError
from hedypet_bids.inputs.dataset import Dataset, Request, read_filters
from hedypet_bids.names import ScanName


def test_only_the_participants_asked_for_are_indexed(tmp_path: Path) -> None:
    root = dataset(tmp_path, *(f"sub-{n}/pet/sub-{n}_pet.nii.gz" for n in ("1", "10", "2")))
    some = Dataset(root, Request(participant_labels=("1",)))
    assert some.labels == ("1",)
    assert [image.path.name for image in some.images("1")] == ["sub-1_pet.nii.gz"]
    assert some.images("10") == []
    assert Dataset(root).labels == ("1", "10", "2")


def test_sidecars_inherit_from_above(tmp_path: Path) -> None:
    root = dataset(tmp_path, "sub-1/pet/sub-1_pet.nii.gz")
    (root / "pet.json").write_text('{"Units": "Bq/mL", "TracerName": "above"}')
    (root / "sub-1/pet/sub-1_pet.json").write_text('{"TracerName": "FDG"}')
    data = Dataset(root)
    (image,) = data.images("1")
    metadata = data.metadata(image)
    assert metadata["Units"] == "Bq/mL"
    assert metadata["TracerName"] == "FDG"


def test_participants_table_rows_are_found_with_and_without_prefix(tmp_path: Path) -> None:
    root = dataset(tmp_path, "sub-1/pet/sub-1_pet.nii.gz", "sub-2/pet/sub-2_pet.nii.gz")
    (root / "participants.tsv").write_text("participant_id\tweight\nsub-1\t70\n2\t80\n")
    data = Dataset(root)
    assert data.participant_row("1")["weight"] == "70"
    assert data.participant_row("2")["weight"] == "80"
    assert data.participant_row("3") == {}


@pytest.mark.parametrize(
    ("edit", "error", "words"),
    [
        (lambda root: (root / "dataset_description.json").unlink(), MissingInputError, "not a BIDS dataset"),
        (lambda root: (root / "participants.tsv").write_text("id\n1\n"), BadDataError, "participant_id"),
        (lambda root: (root / "participants.tsv").write_bytes(b"\xff\xfe\x00"), BadDataError, "as a table"),
        (lambda root: (root / "participants.json").write_text("[1]"), BadDataError, "JSON object"),
        (lambda root: (root / "sub-1/pet/sub-1_pet.json").write_text("{"), BadDataError, r"sub-1_pet\.json"),
    ],
)
def test_broken_dataset_files_are_named(tmp_path: Path, edit, error: type, words: str) -> None:  # type: ignore[no-untyped-def]
    root = dataset(tmp_path, "sub-1/pet/sub-1_pet.nii.gz")
    edit(root)
    with pytest.raises(error, match=words):
        data = Dataset(root)
        data.metadata(data.images("1")[0])


def test_missing_and_empty_datasets(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="does not exist"):
        Dataset(tmp_path / "no")
    with pytest.raises(NothingSelectedError, match="no sub-"):
        Dataset(dataset(tmp_path / "empty"))
    with pytest.raises(NothingSelectedError, match=r"participant 9 .* It has: 1"):
        Dataset(dataset(tmp_path / "one", "sub-1/pet/sub-1_pet.nii.gz"), Request(participant_labels=("9",)))
    with pytest.raises(MissingInputError, match="totalsegmentator="):
        Dataset(tmp_path / "one", Request(derivatives={"totalsegmentator": tmp_path / "no"}))


def test_sessions_are_in_the_order_of_their_times_where_all_are_known(tmp_path: Path) -> None:
    root = dataset(tmp_path, "sub-1/ses-b/pet/sub-1_ses-b_pet.nii.gz")
    assert Dataset(root).sessions("1") == []
    session_table(root, "1", b="2025-02-01T10:00:00", a="2025-01-01T10:00:00")
    assert Dataset(root).sessions("1") == ["a", "b"]
    session_table(root, "1", b="n/a", a="2025-01-01T10:00:00")
    assert Dataset(root).sessions("1") == ["b", "a"]


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (Request(), {"a_F", "a_D", "b_F"}),
        (Request(session_labels=("a",)), {"a_F", "a_D"}),
        (Request(pet_labels={"tracer": ("F",)}), {"a_F", "b_F"}),
        (Request(session_labels=("b",), pet_labels={"tracer": ("D",)}), set()),
        (Request(pet_labels={"run": ("1",)}), set()),
    ],
)
def test_which_scans_are_asked_for(request_: Request, wanted: set[str]) -> None:
    scans = [ScanName("a", "F"), ScanName("a", "D"), ScanName("b", "F")]
    assert {f"{s.session}_{s.tracer}" for s in scans if request_.wants(s)} == wanted


@pytest.mark.parametrize("content", ['{"other": {}}', '{"static": "x"}', "[]", "{"])
def test_filter_files_are_checked(tmp_path: Path, content: str) -> None:
    path = tmp_path / "filters.json"
    path.write_text(content)
    with pytest.raises((UsageError, BadDataError)):
        read_filters(path)
    path.write_text(json.dumps({"static": {"reconstruction": "x"}}))
    assert read_filters(path) == {"static": {"reconstruction": "x"}}
