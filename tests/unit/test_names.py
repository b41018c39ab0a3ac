"""Names of outputs: the table of the design, for labels of any length and with or without sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedypet_bids import names
from hedypet_bids.labels import SEGMENTATION_TASKS, label_table, task
from hedypet_bids.names import ScanName, ScanSpace, Source

ROOT = Path("/data")


def source(name: str, *, datatype: str, session: str | None = "quadra", subject: str = "001") -> Source:
    folder = ROOT / f"sub-{subject}" / (f"ses-{session}" if session else "") / datatype
    entities = {"subject": subject, **({"session": session} if session else {})}
    suffix = name.split(".")[0].rpartition("_")[2]
    return Source(folder / name, ROOT, entities, suffix, datatype)


CT = source("sub-001_ses-quadra_rec-br38f_ct.nii.gz", datatype="ct")
DYN = source("sub-001_ses-quadra_trc-18FFDG_rec-acdynPSF_pet.nii.gz", datatype="pet")
T1 = source("sub-001_ses-vida_acq-MPRAGE_T1w.nii.gz", datatype="anat", session="vida")
BARE = source("sub-LongLabel7_ct.nii", datatype="ct", session=None, subject="LongLabel7")
DYNAMIC_SPACE, HEAD = ScanSpace("bodydyn"), ScanSpace("head")
RETEST = {"ses": "retest", "trc": "18FFDG"}
P = "sub-001/ses-quadra/pet/sub-001_ses-quadra_trc-18FFDG_rec-acdynPSF"
C = "sub-001/ses-quadra/anat/sub-001_ses-quadra_rec-br38f"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (names.segmentation(CT, "total"), f"{C}_seg-total_dseg.nii.gz"),
        (names.segmentation(CT, "total", DYNAMIC_SPACE), f"{C}_space-bodydyn_seg-total_dseg.nii.gz"),
        (names.segmentation(CT, "body", HEAD), f"{C}_space-head_seg-body_res-1mm_dseg.nii.gz"),
        (names.label_table_file(CT, "total"), f"{C}_seg-total_dseg.tsv"),
        (
            names.image_in_space(CT, HEAD),
            "sub-001/ses-quadra/ct/sub-001_ses-quadra_rec-br38f_space-head_res-1mm_ct.nii.gz",
        ),
        (
            names.transform(T1, "T1w", "CT"),
            "sub-001/ses-vida/anat/sub-001_ses-vida_acq-MPRAGE_from-T1w_to-CT_mode-image_xfm.txt",
        ),
        (names.blood(DYN, "aortavoi1ml3pxtop"), f"{P}_recording-aortavoi1ml3pxtop_desc-idif_blood.tsv"),
        (names.continuous_input(DYN, "aortatop"), f"{P}_recording-aortatop_desc-idif_inputfunction.tsv"),
        (names.curves(DYN, "total", 0), f"{P}_seg-total_tacs.tsv"),
        (names.curves(DYN, "total", 1), f"{P}_seg-total_desc-eroded1_tacs.tsv"),
        (names.curves(DYN, "total", 0, "std"), f"{P}_seg-total_desc-std_tacs.tsv"),
        (names.curves(DYN, "total", 1, "std"), f"{P}_seg-total_desc-stderoded1_tacs.tsv"),
        (names.volumes(DYN, "body", 1), f"{P}_seg-body_desc-eroded1_morph.tsv"),
        (names.kinetics(DYN, "body", 1, "Patlak"), f"{P}_seg-body_desc-eroded1_model-Patlak_kinpar.tsv"),
        (names.parametric_map(DYN, "Patlak", "Ki"), f"{P}_model-Patlak_meas-Ki_mimap.nii.gz"),
        (names.constants(DYN), f"{P}_norm.tsv"),
        (names.segmentation(BARE, "total"), "sub-LongLabel7/anat/sub-LongLabel7_seg-total_dseg.nii.gz"),
    ],
)
def test_output_names(made: str, expected: str) -> None:
    assert made == expected


@pytest.mark.parametrize(
    ("source", "told_apart_by", "expected"),
    [
        (CT, {}, f"{C}_space-bodystat_seg-total_dseg.nii.gz"),
        # The session stands in the name of the CT, the tracer in none of an anatomical file.
        (CT, {"ses": "quadra", "trc": "18FFDG"}, f"{C}_space-bodystattrc18FFDG_seg-total_dseg.nii.gz"),
        (CT, RETEST, f"{C}_space-bodystatsesretesttrc18FFDG_seg-total_dseg.nii.gz"),
        (CT, {"run": "2"}, f"{C}_space-bodystatrun2_seg-total_dseg.nii.gz"),
        (
            DYN,
            {"ses": "quadra", "trc": "18FFDG"},
            "sub-001/ses-quadra/anat/sub-001_ses-quadra_rec-acdynPSF_space-bodystattrc18FFDG"
            "_seg-total_dseg.nii.gz",
        ),
    ],
)
def test_labels_of_spaces_tell_scans_apart(
    source: Source, told_apart_by: dict[str, str], expected: str
) -> None:
    assert names.segmentation(source, "total", ScanSpace("bodystat", told_apart_by)) == expected


def test_a_pet_image_that_names_its_tracer_needs_no_longer_label() -> None:
    space = ScanSpace("bodydyn", {"ses": "quadra", "trc": "18FFDG"})
    assert names.image_in_space(DYN, space) == f"{P}_space-bodydyn_pet.nii.gz"


@pytest.mark.parametrize(
    ("told_apart_by", "expected"),
    [({}, "CT"), ({"ses": "retest"}, "CTretest"), ({"ses": "vida"}, "CT")],
)
def test_transforms_say_to_which_of_several_images(told_apart_by: dict[str, str], expected: str) -> None:
    assert names.fixed_label(CT, T1, told_apart_by) == expected
    assert names.fixed_label(DYN, T1, told_apart_by) == expected.replace("CT", "PET")


@pytest.mark.parametrize(
    ("name", "text", "stem"),
    [
        (ScanName(), "", "sub-1_scan"),
        (ScanName("a"), "ses-a", "sub-1_ses-a"),
        (ScanName("a", "18FFDG", "2"), "ses-a_trc-18FFDG_run-2", "sub-1_ses-a_trc-18FFDG_run-2"),
        (ScanName(run="01"), "run-01", "sub-1_run-01"),
    ],
)
def test_scans_are_called_by_their_entities(name: ScanName, text: str, stem: str) -> None:
    assert str(name) == text and names.page_stem("1") == "sub-1"
    assert names.page_stem("1", name) == stem
    assert names.report(stem) == f"{stem}.html"
    assert names.figure("1", stem, "aorta") == f"sub-1/figures/{stem}_desc-aorta.svg"


def test_a_file_is_of_a_scan_unless_its_name_says_otherwise() -> None:
    scan = ScanName("a", "18FFDG")
    assert scan.could_name("sub-1_aorta.nii.gz") and scan.could_name("sub-1_ses-a_aorta.nii.gz")
    assert not scan.could_name("sub-1_ses-b_aorta.nii.gz")
    assert not scan.could_name("sub-1_ses-a_trc-other_aorta.nii.gz")


def test_a_mean_of_frames_says_so_in_the_order_of_bids() -> None:
    plain = source("sub-001_ses-quadra_run-2_pet.nii.gz", datatype="pet")
    assert names.static_mean(plain).endswith("/sub-001_ses-quadra_rec-mean_run-2_pet.nii.gz")
    labelled = source("sub-001_ses-quadra_rec-x_run-2_pet.nii.gz", datatype="pet")
    labelled.entities["reconstruction"] = "x"  # type: ignore[index]
    assert names.static_mean(labelled).endswith("/sub-001_ses-quadra_rec-xmean_run-2_pet.nii.gz")


def test_crash_files_have_names_that_every_file_system_takes() -> None:
    assert names.crash_file("segment total [sub-1_ses-a/b]") == "crash-segment-total-sub-1_ses-a-b.txt"


def test_recordings_of_input_functions() -> None:
    assert names.recording("aortavoi1ml3px", "aorta_descending_upper") == "aortavoi1ml3pxdescendingupper"


def test_label_tables_have_unique_names_and_indices() -> None:
    for each in SEGMENTATION_TASKS:
        table = each.table
        assert len(set(table.names)) == len(table.names) == len(set(table.indices))


@pytest.mark.parametrize(
    ("table", "name", "index"),
    [
        ("total", "aorta", 52),
        ("total", "brain", 90),
        ("synthseg", "Left-Cerebral-Cortex", 3),
        ("synthsegparc", "ctx-rh-insula", 2035),
        ("tissue", "visceral_fat", 2),
    ],
)
def test_labels_are_looked_up_by_name(table: str, name: str, index: int) -> None:
    assert label_table(table).index_of(name) == index


def test_unknown_names_are_key_errors() -> None:
    with pytest.raises(KeyError, match=r"tail.*total"):
        label_table("total").index_of("tail")
    with pytest.raises(KeyError, match="atlas"):
        task("atlas")
