"""Names of outputs: the table of the design, for labels of any length and with or without sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedypet_bids import names
from hedypet_bids.labels import SEGMENTATION_TASKS, label_table, task
from hedypet_bids.names import Source

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
P = "sub-001/ses-quadra/pet/sub-001_ses-quadra_trc-18FFDG_rec-acdynPSF"
C = "sub-001/ses-quadra/anat/sub-001_ses-quadra_rec-br38f"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (names.segmentation(CT, "total"), f"{C}_seg-total_dseg.nii.gz"),
        (names.segmentation(CT, "total", "bodydyn"), f"{C}_space-bodydyn_seg-total_dseg.nii.gz"),
        (names.segmentation(CT, "body", "head"), f"{C}_space-head_seg-body_res-1mm_dseg.nii.gz"),
        (names.label_table_file(CT, "total"), f"{C}_seg-total_dseg.tsv"),
        (
            names.image_in_space(CT, "head"),
            "sub-001/ses-quadra/ct/sub-001_ses-quadra_rec-br38f_space-head_res-1mm_ct.nii.gz",
        ),
        (
            names.transform(T1, "T1w", CT),
            "sub-001/ses-vida/anat/sub-001_ses-vida_acq-MPRAGE_from-T1w_to-CT_mode-image_xfm.txt",
        ),
        (names.blood(DYN, "aortavoi1ml3pxtop"), f"{P}_recording-aortavoi1ml3pxtop_desc-idif_blood.tsv"),
        (names.curves(DYN, "total", 0), f"{P}_seg-total_tacs.tsv"),
        (names.curves(DYN, "total", 1), f"{P}_seg-total_desc-eroded1_tacs.tsv"),
        (names.curves(DYN, "total", 0, "std"), f"{P}_seg-total_desc-std_tacs.tsv"),
        (names.curves(DYN, "total", 1, "std"), f"{P}_seg-total_desc-stderoded1_tacs.tsv"),
        (names.volumes(DYN, "body", 1), f"{P}_seg-body_desc-eroded1_morph.tsv"),
        (names.kinetics(DYN, "body", 1), f"{P}_seg-body_desc-eroded1_model-Patlak_kinpar.tsv"),
        (names.parametric_map(DYN, "Ki"), f"{P}_model-Patlak_meas-Ki_mimap.nii.gz"),
        (names.constants(DYN), f"{P}_norm.tsv"),
        (names.segmentation(BARE, "total"), "sub-LongLabel7/anat/sub-LongLabel7_seg-total_dseg.nii.gz"),
    ],
)
def test_output_names(made: str, expected: str) -> None:
    assert made == expected


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
    with pytest.raises(KeyError, match="no region of the total label table"):
        label_table("total").index_of("tail")
    with pytest.raises(KeyError, match="no segmentation task"):
        task("atlas")
