"""Acceptance on real anatomy and measured curves: does the study recover what was put in?"""

from __future__ import annotations

import json
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from running import SHARED, Run, hedypet, only
from scipy import ndimage

from hedypet_bids.io.tables import read_table

pytestmark = pytest.mark.slow

ORGANS = (
    "liver",
    "spleen",
    "kidney_left",
    "kidney_right",
    "urinary_bladder",
    "gluteus_maximus_left",
    "gluteus_maximus_right",
    "colon",
    "heart",
    "aorta",
)


def truth(label: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SHARED / "realistic_truth" / f"sub-{label}.json").read_text())
    return content


def test_both_levels_end_well_and_name_what_is_missing(realistic_run: Run) -> None:
    assert realistic_run.participant.returncode == 0, realistic_run.participant.stderr
    assert realistic_run.group.returncode == 0, realistic_run.group.stderr
    left_out = [line for line in realistic_run.participant.stderr.splitlines() if "left out" in line]
    assert [line.split(":")[0] for line in left_out] == ["sub-002"]
    for reason in ("no dynamic PET was found", "no T1w image (MPRAGE) was found"):
        assert reason in left_out[0]


@pytest.mark.parametrize("label", ["001", "002"])
def test_constants(realistic_run: Run, label: str) -> None:
    found = read_table(only(realistic_run.output / f"sub-{label}", "*_norm.tsv")).set_index("name")["value"]
    for name in ("suv", "sul_james", "sul_janma"):
        assert found[name] == pytest.approx(truth(label)[name], rel=1e-9)
    # The CT starts inside the pelvis, so fat between hip and skull cannot be measured.
    assert np.isnan(found["sul_decazes"])


@pytest.mark.parametrize("organ", ORGANS)
def test_curves_of_organs(realistic_run: Run, organ: str) -> None:
    table = read_table(only(realistic_run.output / "sub-001", "*_seg-total_desc-eroded1_tacs.tsv"))
    late = (table["frame_start"] >= 300).to_numpy()
    expected = np.array(truth("001")["curves"][organ])
    np.testing.assert_allclose(table[organ].to_numpy()[late], expected[late], rtol=0.015)


@pytest.mark.parametrize(
    ("pattern", "name", "label_pattern", "limit_mm"),
    [
        ("*_from-T1w_to-CT_*xfm.txt", "mr2ct_head", "*_seg-synthseg_dseg.nii.gz", 0.6),
        ("*_from-DIXON_to-CT_*xfm.txt", "mr2ct_body", "*_seg-body_dseg.nii.gz", 0.4),
    ],
)
def test_registration_error(
    realistic_run: Run, pattern: str, name: str, label_pattern: str, limit_mm: float
) -> None:
    folder = realistic_run.output / "sub-001"
    found, expected = np.loadtxt(only(folder, pattern)), np.array(truth("001")[name])
    native = [p for p in folder.rglob(label_pattern) if "_space-" not in p.name]
    image = nib.load(native[0])
    inside = np.argwhere(np.asanyarray(image.dataobj) > 0)[::97]
    points = nib.affines.apply_affine(image.affine, inside)
    if name == "mr2ct_body":
        # The body label lies on the CT; the error is asked where the MR's voxels are.
        points = nib.affines.apply_affine(np.linalg.inv(expected), points)
    error = nib.affines.apply_affine(found, points) - nib.affines.apply_affine(expected, points)
    assert np.linalg.norm(error, axis=1).mean() <= limit_mm


def test_group_tables_hold_both_participants(realistic_run: Run) -> None:
    metadata = pd.read_parquet(realistic_run.output / "readouts" / "metadata.parquet").set_index("Subject")
    assert list(metadata.index) == ["sub-001", "sub-002"]
    assert metadata["Missing"].isna()["sub-001"]
    assert "curves" in metadata.loc["sub-002", "Missing"]
    means = pd.read_parquet(realistic_run.output / "readouts" / "means.parquet")
    assert set(means["Subject"]) == {"sub-001", "sub-002"}
    tacs = pd.read_parquet(realistic_run.output / "readouts" / "tacs.parquet")
    assert set(tacs["Subject"]) == {"sub-001"}
    assert set(tacs["Frame Index"]) == set(range(69))


@pytest.mark.exhaustive
def test_maps_of_the_two_tissue_model_are_those_of_regions(realistic_run: Run) -> None:
    """Organs of one curve and little noise, away from their borders."""
    done = hedypet(
        realistic_run.bids,
        realistic_run.output,
        "participant",
        *("--participant-label", "001", "--model", "Patlak", "TwoTissueIrr", "--steps", "kinetics", "maps"),
    )
    assert done.returncode == 0, done.stderr
    folder = realistic_run.output / "sub-001"
    labels = np.asanyarray(nib.load(only(folder, "*_space-bodydyn_seg-total_dseg.nii.gz")).dataobj)
    table = read_table(only(folder, "*_seg-total_desc-eroded1_model-TwoTissueIrr_kinpar.tsv"))
    rows = table[table["input_function"] == "aortavoi1ml3pxdescendingupper"].set_index("name")
    maps = {
        name: np.asanyarray(nib.load(only(folder, f"*_model-TwoTissueIrr_meas-{name}_mimap.nii.gz")).dataobj)
        for name in ("Ki", "K1", "vB", "delay")
    }
    for organ in ("brain", "liver", "spleen", "kidney_left", "stomach"):
        inside = ndimage.binary_erosion(labels == rows.loc[organ, "index"])
        found = {name: np.nanmedian(values[inside]) for name, values in maps.items()}
        assert found["Ki"] == pytest.approx(rows.loc[organ, "Ki"], rel=0.04), organ
        assert found["K1"] == pytest.approx(rows.loc[organ, "K1"], rel=0.05), organ
        assert found["vB"] == pytest.approx(rows.loc[organ, "vB"], abs=0.01), organ
        assert found["delay"] == pytest.approx(rows.loc[organ, "delay"], abs=0.5), organ
        assert np.isfinite(maps["K1"][inside]).mean() > 0.95, organ
    # Near the arm of the injection the delay of muscle is out of range; its influx is told.
    muscle = labels == rows.loc["gluteus_maximus_left", "index"]
    assert np.nanmedian(maps["Ki"][muscle]) == pytest.approx(rows.loc["gluteus_maximus_left", "Ki"], rel=0.05)
    lung = labels == rows.loc["lung_upper_lobe_left", "index"]
    assert np.isnan(maps["Ki"][lung]).all()
