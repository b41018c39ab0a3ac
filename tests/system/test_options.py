"""Corrections and options: given transforms, a corrected aorta, methods, t* windows, SUV images."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from running import Run, hedypet, only, truth

from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.io.tables import read_table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corrections(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the true transforms and an aorta that was cut off above the diaphragm."""
    folder = tmp_path_factory.mktemp("corrections")
    for part, name in (("mr2ct_head", "T1w"), ("mr2ct_body", "DIXON")):
        path = folder / "xfm" / "sub-001" / f"sub-001_from-{name}_to-CT_mode-image_xfm.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(path, truth(phantom, "001")[part])
    total = nib.load(only(phantom / "derivatives" / "totalsegmentator" / "sub-001", "*total_dseg.nii.gz"))
    mask = (np.asanyarray(total.dataobj) == 52).astype(np.uint8)
    # Stored in another order than the PET and the CT.
    turned = nib.Nifti1Image(mask, total.affine).as_reoriented([[2, 1], [0, -1], [1, 1]])
    (folder / "aorta").mkdir()
    nib.save(turned, folder / "aorta" / "sub-001-aorta.nii.gz")
    return folder


@pytest.fixture(scope="module")
def corrected(phantom: Path, corrections: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = tmp_path_factory.mktemp("corrected") / "out"
    done = hedypet(
        phantom,
        output,
        "participant",
        "--participant-label",
        "001",
        "-d",
        f"xfm={corrections / 'xfm'}",
        f"aorta={corrections / 'aorta'}",
        "--write-suv",
        "--window-start",
        "30",
        "45",
        "--integration-rule",
        "frames",
        "--map-fwhm",
        "12",
    )
    return Run(phantom, output, done, subprocess.CompletedProcess([], 0))


def test_the_corrected_run_ends_well(corrected: Run) -> None:
    assert corrected.participant.returncode == 0, corrected.participant.stderr


def test_given_transforms_are_used_as_they_are(corrected: Run) -> None:
    for name, part in (("T1w", "mr2ct_head"), ("DIXON", "mr2ct_body")):
        path = only(corrected.output, f"*_from-{name}_to-CT_mode-image_xfm.txt")
        np.testing.assert_array_equal(np.loadtxt(path), truth(corrected.bids, "001")[part])
        sidecar = read_sidecar(path)
        assert sidecar["Method"] == "given"
        assert any(uri.startswith("bids:xfm:") for uri in sidecar["Sources"])


def test_a_corrected_aorta_in_another_storage_order_gives_the_same_segments(
    corrected: Run, phantom_run: Run
) -> None:
    pattern = "*_space-bodydyn_seg-aorta_dseg.nii.gz"
    found, usual = only(corrected.output, pattern), only(phantom_run.output, pattern)
    assert any(uri.startswith("bids:aorta:") for uri in read_sidecar(found)["Sources"])
    # Resampled from the same mask, once on its own and once within the total segmentation.
    np.testing.assert_array_equal(
        np.asanyarray(nib.load(found).dataobj), np.asanyarray(nib.load(usual).dataobj)
    )


def test_volumes_of_interest_lie_in_their_segments(corrected: Run) -> None:
    segments = np.asanyarray(nib.load(only(corrected.output, "*_seg-aorta_dseg.nii.gz")).dataobj)
    combined = np.zeros(segments.shape, bool)
    for kind in ("aortavoifull3px", "aortavoi1ml3px", "aortavoi2ml5px"):
        vois = np.asanyarray(nib.load(only(corrected.output, f"*_seg-{kind}_dseg.nii.gz")).dataobj)
        assert set(np.unique(vois)) == {0, 1, 2, 3, 4}
        np.testing.assert_array_equal(vois[vois > 0], segments[vois > 0])
        combined |= vois > 2
    found = np.asanyarray(nib.load(only(corrected.output, "*_seg-aortavoicombined_dseg.nii.gz")).dataobj)
    np.testing.assert_array_equal(found > 0, combined)


def test_start_times_add_windows_and_the_rule_is_recorded(corrected: Run) -> None:
    path = only(corrected.output, "*_seg-total_model-Patlak_kinpar.tsv")
    table = read_table(path)
    assert set(table["start_min"].dropna()) == {30.0, 45.0}
    late = table[table["start_min"] == 45.0]
    # Frames of 5 min from 45 min on, by their middle: 45-50 to 65-70.
    assert set(late["n_used"]) == {5}
    assert set(late["t_start"]) == {2700.0}
    assert read_sidecar(path)["IntegrationRule"] == "frames"


def test_the_frames_rule_finds_the_true_ki_of_the_liver(corrected: Run) -> None:
    expected = truth(corrected.bids, "001")
    table = read_table(only(corrected.output, "*_seg-total_desc-eroded1_model-Patlak_kinpar.tsv"))
    chosen = table[
        (table["input_function"] == "aortavoicombineddescending")
        & (table["start_min"] == 30.0)
        & (table["name"] == "spleen")
    ].iloc[0]
    ki = expected["ki"]["spleen"] * (1 - expected["vb"]["spleen"])
    assert chosen["Ki"] == pytest.approx(ki, abs=4 * chosen["Ki_se"] + 0.05 * ki)


def test_the_suv_image_is_the_static_image_over_the_constant(corrected: Run) -> None:
    suv = nib.load(only(corrected.output, "*_desc-suv_pet.nii.gz"))
    static = nib.load(only(corrected.bids / "sub-001", "*acstatPSF_pet.nii.gz"))
    constant = truth(corrected.bids, "001")["suv"]
    np.testing.assert_allclose(suv.get_fdata() * constant, static.get_fdata(), rtol=1e-6, atol=1e-3)


def test_maps_are_smoothed(corrected: Run, phantom_run: Run) -> None:
    smooth, plain = (
        nib.load(only(run.output, "*_meas-Ki_mimap.nii.gz")).get_fdata() for run in (corrected, phantom_run)
    )
    # Differences between neighbours are mostly noise, which a filter of 12 mm takes out.
    assert np.diff(smooth, axis=0).std() < 0.5 * np.diff(plain, axis=0).std()
    assert read_sidecar(only(corrected.output, "*_meas-Ki_mimap.nii.gz"))["SmoothingFwhmMm"] == 12.0


def test_the_settings_of_a_run_are_written_down(corrected: Run) -> None:
    text = only(corrected.output / "sub-001" / "log", "settings.toml").read_text()
    assert 'rule = "frames"' in text and "30.0" in text


def test_identity_and_the_published_aorta_method(phantom: Path, tmp_path: Path) -> None:
    done = hedypet(
        phantom,
        tmp_path / "out",
        "participant",
        "--participant-label",
        "001",
        "--register",
        "identity",
        "--aorta-method",
        "nifti_dynamic",
    )
    for name in ("T1w", "DIXON"):
        path = only(tmp_path / "out", f"*_from-{name}_to-CT_mode-image_xfm.txt")
        np.testing.assert_array_equal(np.loadtxt(path), np.eye(4))
    if done.returncode == 0:
        sidecar = read_sidecar(only(tmp_path / "out", "*_seg-aorta_dseg.nii.gz"))
        assert sidecar["Method"].startswith("nifti_dynamic")
    else:
        # At 8 mm the library cannot tell the limbs apart; the rest of the participant goes on.
        assert "aorta-method centreline" in done.stderr
        assert (tmp_path / "out" / "sub-001.html").is_file()
        assert only(tmp_path / "out", "*_seg-total_tacs.tsv")


def test_two_corrections_for_one_participant_are_refused(phantom: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("sub-001_a_aorta.nii.gz", "sub-001_b_aorta.nii.gz"):
        (masks / name).write_bytes(b"")
    done = hedypet(
        phantom, tmp_path / "out", "participant", "--participant-label", "001", "-d", f"aorta={masks}"
    )
    assert done.returncode == 65
    assert "Expected one file" in done.stderr and "sub-001_b_aorta" in done.stderr


@pytest.mark.exhaustive
def test_a_matrix_that_is_none_fails_only_what_needs_it(phantom: Path, tmp_path: Path) -> None:
    folder = tmp_path / "xfm" / "sub-001"
    folder.mkdir(parents=True)
    (folder / "sub-001_from-DIXON_to-CT_xfm.txt").write_text("1 0 0\n0 1 0\n")
    head = np.array(truth(phantom, "001")["mr2ct_head"])
    np.savetxt(folder / "sub-001_from-T1w_to-CT_xfm.txt", head)
    output = tmp_path / "out"
    label = ["--participant-label", "001"]
    done = hedypet(phantom, output, "participant", *label, "-d", f"xfm={tmp_path / 'xfm'}")
    assert done.returncode == 65
    assert "must hold four lines of four finite numbers" in done.stderr
    plan = json.loads(only(output, "*_seg-total_tacs.json").read_text())
    assert plan["hedypet"]["Step"] == "tacs"
    assert not list(output.rglob("*DIXONbody*space-bodystat*"))
    assert list(output.rglob("*MPRAGE*space-bodystat*T1w.nii.gz"))


def test_other_units_of_activity_dose_and_height_give_the_same_numbers(
    phantom: Path, phantom_run: Run, tmp_path: Path
) -> None:
    bids = tmp_path / "bids"
    shutil.copytree(phantom, bids, ignore=shutil.ignore_patterns("sub-001", "sub-001_*"))
    path = only(bids / "sub-002", "*_rec-acstatPSF_pet.nii.gz")
    image = nib.load(path)
    nib.save(nib.Nifti1Image((image.get_fdata() / 1000).astype(np.float32), image.affine), path)
    sidecar_path = path.with_name(path.name.replace(".nii.gz", ".json"))
    sidecar = json.loads(sidecar_path.read_text())
    sidecar["Units"] = "kBq/mL"
    sidecar["InjectedRadioactivity"] /= 37.0
    sidecar["InjectedRadioactivityUnits"] = "mCi"
    sidecar_path.write_text(json.dumps(sidecar))
    facts = truth(phantom, "002")["participant"]
    (bids / "participants.json").write_text(json.dumps({"body_height": {"Units": "cm"}}))
    row = ["sub-002", {"F": "female", "M": "male"}[facts["sex"]], facts["weight_kg"], 100 * facts["height_m"]]
    (bids / "participants.tsv").write_text(
        "participant_id\tsex\tbody_weight\tbody_height\n" + "\t".join(map(str, row)) + "\n"
    )
    done = hedypet(bids, tmp_path / "out", "participant", "--skip-bids-validation")
    assert done.returncode == 0, done.stderr
    for pattern, columns, rtol in (
        ("*_norm.tsv", ["value"], 1e-12),
        ("*_rec-acstatPSF_seg-total_morph.tsv", ["mean", "std"], 1e-6),
    ):
        found, usual = (
            read_table(only(out / "sub-002", pattern)) for out in (tmp_path / "out", phantom_run.output)
        )
        np.testing.assert_allclose(found[columns], usual[columns], rtol=rtol)
    resampled, usual_image = (
        nib.load(only(out / "sub-002", "*_rec-acstatPSF_space-head_res-1mm_pet.nii.gz")).get_fdata()
        for out in (tmp_path / "out", phantom_run.output)
    )
    np.testing.assert_allclose(resampled, usual_image, rtol=1e-5, atol=1e-6 * usual_image.max())
    assert "sub-002" in only(tmp_path / "out", "hedypet.log").read_text()
