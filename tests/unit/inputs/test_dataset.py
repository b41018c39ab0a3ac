"""Which image plays which part, and what is said when that is unclear."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hedypet_bids.errors import BadDataError, MissingInputError, NothingSelectedError, UsageError
from hedypet_bids.inputs.dataset import Dataset, Request, read_filters


def image(path: Path, *, frames: int = 1) -> None:
    shape = (2, 2, 2) if frames == 1 else (2, 2, 2, frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), path)


def dataset(root: Path, *names: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for name in names:
        image(root / name, frames=4 if "dyn" in name else 1)
    return root


FULL = (
    "sub-01/ses-a/pet/sub-01_ses-a_rec-acdynPSF_pet.nii.gz",
    "sub-01/ses-a/pet/sub-01_ses-a_rec-acstatPSF_pet.nii.gz",
    "sub-01/ses-a/pet/sub-01_ses-a_rec-acstatOSEM_pet.nii.gz",
    "sub-01/ses-a/ct/sub-01_ses-a_rec-br38f_ct.nii.gz",
    "sub-01/ses-a/ct/sub-01_ses-a_rec-ac_ct.nii.gz",
    "sub-01/ses-a/ct/sub-01_ses-a_Xray.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-MPRAGE_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-DIXONbodyIN_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-DIXONbodyW_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-DIXONheadIN_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-FASTVIEW_T1w.nii.gz",
)


def test_every_image_of_a_full_participant_plays_its_part(tmp_path: Path) -> None:
    inputs = Dataset(dataset(tmp_path, *FULL)).inputs("01")
    assert inputs.dynamic is not None and "acdynPSF" in inputs.dynamic.path.name
    assert inputs.static is not None and "acstatPSF" in inputs.static.path.name
    assert [s.entities["reconstruction"] for s in inputs.other_statics] == ["acstatOSEM"]
    assert [s.entities["reconstruction"] for s in inputs.cts] == ["br38f", "ac"]
    assert inputs.topogram is not None
    assert inputs.head_mr is not None and "MPRAGE" in inputs.head_mr.path.name
    assert [m.entities["acquisition"] for m in inputs.head_mr_group] == ["DIXONheadIN"]
    assert inputs.body_mr is not None and "DIXONbodyIN" in inputs.body_mr.path.name
    assert {m.entities["acquisition"] for m in inputs.body_mr_group} == {"DIXONbodyW", "FASTVIEW"}


def test_a_session_filter_for_pet_keeps_the_mr_of_another_session(tmp_path: Path) -> None:
    inputs = Dataset(dataset(tmp_path, *FULL), Request(session_labels=("a",))).inputs("01")
    assert inputs.static is not None
    assert inputs.head_mr is not None


def test_no_sessions_odd_labels_and_one_image_are_enough(tmp_path: Path) -> None:
    root = dataset(tmp_path, "sub-XyZ12345/pet/sub-XyZ12345_pet.nii")
    inputs = Dataset(root).inputs("XyZ12345")
    assert inputs.static is not None
    assert inputs.static.stem == "sub-XyZ12345"
    assert str(inputs.static.folder) == "sub-XyZ12345"
    assert inputs.dynamic is None and inputs.ct is None and inputs.head_mr is None


def test_ambiguity_lists_the_candidates_and_the_way_out(tmp_path: Path) -> None:
    root = dataset(tmp_path, "sub-1/pet/sub-1_rec-x_pet.nii.gz", "sub-1/pet/sub-1_rec-y_pet.nii.gz")
    with pytest.raises(BadDataError, match=r"(?s)rec-x.*rec-y.*--bids-filter-file"):
        Dataset(root).inputs("1")
    chosen = Dataset(root, Request(filters={"static": {"rec": "y"}})).inputs("1")
    assert chosen.static is not None and chosen.static.entities["reconstruction"] == "y"
    both = {"static": {"reconstruction": ["y", "z"]}}
    assert Dataset(root, Request(filters=both)).inputs("1").static == chosen.static


def test_only_the_participants_asked_for_are_indexed(tmp_path: Path) -> None:
    root = dataset(tmp_path, *(f"sub-{n}/pet/sub-{n}_pet.nii.gz" for n in ("1", "10", "2")))
    some = Dataset(root, Request(participant_labels=("1",)))
    assert some.labels == ("1",)
    assert some.inputs("1").static is not None
    assert some.inputs("10").static is None
    assert Dataset(root).labels == ("1", "10", "2")


def test_ready_segmentations_are_found_by_task_and_image(tmp_path: Path) -> None:
    root = dataset(tmp_path / "raw", *FULL)
    ready = tmp_path / "ts"
    for name in ("total", "tissue", "bodyV2"):
        image(ready / f"sub-01/ses-a/ct/sub-01_ses-a_rec-br38f_seg-{name}_dseg.nii.gz")
    image(ready / "sub-01/ses-a/ct/sub-01_ses-a_rec-ac_seg-total_dseg.nii.gz")
    brain = tmp_path / "ss"
    for name in ("synthseg", "synthsegparc"):
        image(brain / f"sub-01/ses-b/anat/sub-01_ses-b_acq-MPRAGE_seg-{name}_dseg.nii.gz")
    inputs = Dataset(root, Request(derivatives={"totalsegmentator": ready, "synthseg": brain})).inputs("01")
    found = {task: path.name for task, path in inputs.ready_segmentations.items()}
    assert found == {
        "total": "sub-01_ses-a_rec-br38f_seg-total_dseg.nii.gz",
        "tissue": "sub-01_ses-a_rec-br38f_seg-tissue_dseg.nii.gz",
        "body": "sub-01_ses-a_rec-br38f_seg-bodyV2_dseg.nii.gz",
        "synthseg": "sub-01_ses-b_acq-MPRAGE_seg-synthseg_dseg.nii.gz",
        "synthsegparc": "sub-01_ses-b_acq-MPRAGE_seg-synthsegparc_dseg.nii.gz",
    }


def test_sidecars_inherit_from_above(tmp_path: Path) -> None:
    root = dataset(tmp_path, "sub-1/pet/sub-1_pet.nii.gz")
    (root / "pet.json").write_text('{"Units": "Bq/mL", "TracerName": "above"}')
    (root / "sub-1/pet/sub-1_pet.json").write_text('{"TracerName": "FDG"}')
    data = Dataset(root)
    static = data.inputs("1").static
    assert static is not None
    metadata = data.metadata(static)
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
        (lambda root: (root / "dataset_description.json").unlink(), MissingInputError, "no BIDS dataset"),
        (lambda root: (root / "participants.tsv").write_text("id\n1\n"), BadDataError, "participant_id"),
        (lambda root: (root / "participants.tsv").write_bytes(b"\xff\xfe\x00"), BadDataError, "as a table"),
        (lambda root: (root / "participants.json").write_text("[1]"), BadDataError, "JSON object"),
        (lambda root: (root / "sub-1/pet/sub-1_pet.json").write_text("{"), BadDataError, "cannot be indexed"),
    ],
)
def test_broken_dataset_files_are_named(tmp_path: Path, edit, error: type, words: str) -> None:  # type: ignore[no-untyped-def]
    root = dataset(tmp_path, "sub-1/pet/sub-1_pet.nii.gz")
    edit(root)
    with pytest.raises(error, match=words):
        Dataset(root).inputs("1")


def test_missing_and_empty_datasets(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="does not exist"):
        Dataset(tmp_path / "no")
    with pytest.raises(NothingSelectedError, match="no sub-"):
        Dataset(dataset(tmp_path / "empty"))
    with pytest.raises(NothingSelectedError, match=r"participant 9 .* It has: 1"):
        Dataset(dataset(tmp_path / "one", "sub-1/pet/sub-1_pet.nii.gz"), Request(participant_labels=("9",)))
    with pytest.raises(MissingInputError, match="totalsegmentator="):
        Dataset(tmp_path / "one", Request(derivatives={"totalsegmentator": tmp_path / "no"}))


def test_an_image_that_is_no_image_is_bad_data(tmp_path: Path) -> None:
    root = dataset(tmp_path, "sub-1/pet/sub-1_pet.nii.gz")
    (root / "sub-1/pet/sub-1_pet.nii.gz").write_bytes(b"junk")
    with pytest.raises(BadDataError, match="cannot be read as NIfTI"):
        Dataset(root).inputs("1")


@pytest.mark.parametrize("content", ['{"other": {}}', '{"static": "x"}', "[]", "{"])
def test_filter_files_are_checked(tmp_path: Path, content: str) -> None:
    path = tmp_path / "filters.json"
    path.write_text(content)
    with pytest.raises((UsageError, BadDataError)):
        read_filters(path)
    path.write_text(json.dumps({"static": {"reconstruction": "x"}}))
    assert read_filters(path) == {"static": {"reconstruction": "x"}}
