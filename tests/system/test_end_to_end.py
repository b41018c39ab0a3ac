"""Both levels on the tiny phantom, as a user runs them: exit codes, names, validity, truth, resume."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from running import Run, hedypet, only, steps_that_ran, truth

from hedypet_bids.io.tables import read_table
from hedypet_bids.labels import VOI_TASKS
from hedypet_bids.tools.validator import find_validator


def test_both_levels_succeed(phantom_run: Run) -> None:
    assert phantom_run.participant.returncode == 0, phantom_run.participant.stderr
    assert phantom_run.group.returncode == 0, phantom_run.group.stderr


def test_the_last_line_says_what_was_done_where_and_the_exit_code(phantom_run: Run) -> None:
    last = phantom_run.participant.stderr.strip().splitlines()[-1]
    assert "2 of 2 participants finished" in last
    assert str(phantom_run.output) in last
    assert "(exit code 0)" in last
    assert "(exit code 0)" in phantom_run.group.stderr.strip().splitlines()[-1]


def test_progress_is_one_plain_line_a_step_in_a_log(phantom_run: Run) -> None:
    assert "sub-001 tacs: ran" in phantom_run.participant.stderr
    assert "\r" not in phantom_run.participant.stderr


def test_what_is_missing_is_named(phantom_run: Run) -> None:
    [line] = [row for row in phantom_run.participant.stderr.splitlines() if "left out" in row]
    assert line.startswith("sub-002")
    for reason in ("no dynamic PET was found", "no T1w image (MPRAGE) was found"):
        assert reason in line
    page = (phantom_run.output / "sub-002.html").read_text()
    assert "no dynamic PET was found" in page and "no topogram was found" in page


def test_input_and_output_are_valid_bids(phantom_run: Run) -> None:
    for dataset in (phantom_run.bids, phantom_run.output):
        command = [find_validator(), str(dataset), "--ignoreWarnings"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_every_result_has_a_sidecar_with_sources(phantom_run: Run) -> None:
    results = [p for p in phantom_run.output.rglob("sub-*/**/*") if p.suffix in (".gz", ".tsv", ".txt")]
    results = [p for p in results if "log" not in p.parts]
    assert len(results) > 150
    for path in results:
        sidecar = json.loads((path.parent / (path.name.split(".")[0] + ".json")).read_text())
        assert sidecar["Sources"], path
        assert all(uri.startswith("bids:") for uri in sidecar["Sources"]), path
        assert sidecar["hedypet"]["Digest"], path
        if "_space-" in path.name and path.suffix == ".gz":
            assert sidecar["SpatialReference"].startswith("bids:raw:"), path


def test_no_temporary_files_stay(phantom_run: Run) -> None:
    assert not list(phantom_run.output.rglob(".tmp-*"))


def test_constants_equal_the_truth(phantom_run: Run) -> None:
    for label in ("001", "002"):
        folder = phantom_run.output / f"sub-{label}"
        found = read_table(only(folder, "*_norm.tsv")).set_index("name")["value"]
        for name in ("suv", "sul_james", "sul_janma"):
            assert found[name] == pytest.approx(truth(phantom_run.bids, label)[name], rel=1e-12)
        assert found["sul_decazes"] > found["suv"]


@pytest.mark.parametrize("organ", ["liver", "spleen", "urinary_bladder", "heart"])
def test_curves_equal_the_truth(phantom_run: Run, organ: str) -> None:
    table = read_table(only(phantom_run.output / "sub-001", "*_seg-total_desc-eroded1_tacs.tsv"))
    expected = np.array(truth(phantom_run.bids, "001")["curves"][organ])
    late = (table["frame_start"] >= 300).to_numpy()
    np.testing.assert_allclose(table[organ].to_numpy()[late], expected[late], rtol=0.03)


def test_input_functions_follow_the_blood(phantom_run: Run) -> None:
    expected = np.array(truth(phantom_run.bids, "001")["curves"]["aorta"])
    tables = sorted(phantom_run.output.rglob("*_desc-idif_blood.tsv"))
    assert len(tables) == 13
    for path in tables:
        table = read_table(path)
        assert (table["n_voxels"] > 0).all(), path.name
        late = (table["frame_start"] >= 300).to_numpy()
        found = table["whole_blood_radioactivity"].to_numpy()
        # At 8 mm a volume of interest of 1 mL is two noisy voxels; the mean over the frames is not.
        assert (found[late] / expected[late]).mean() == pytest.approx(1, abs=0.05), path.name


def test_segmentations_keep_grid_and_volume(phantom_run: Run) -> None:
    folder = phantom_run.output / "sub-001"
    source = nib.load(only(phantom_run.bids / "sub-001", "*_rec-br38f_ct.nii.gz"))
    native = [p for p in folder.rglob("*_seg-total_dseg.nii.gz") if "_space-" not in p.name]
    image = nib.load(native[0])
    assert image.shape == source.shape
    np.testing.assert_allclose(image.affine, source.affine)
    assert image.get_data_dtype() == np.uint8
    volume = {
        space: (
            np.asanyarray(nib.load(only(folder, f"*_space-{space}_seg-body_dseg.nii.gz")).dataobj) == 1
        ).sum()
        * abs(np.linalg.det(nib.load(only(folder, f"*_space-{space}_seg-body_dseg.nii.gz")).affine))
        for space in ("bodystat", "bodydyn")
    }
    assert volume["bodystat"] == pytest.approx(volume["bodydyn"], rel=0.03)


def test_patlak_rows_are_complete(phantom_run: Run) -> None:
    table = read_table(only(phantom_run.output / "sub-001", "*_seg-total_model-Patlak_kinpar.tsv"))
    assert len(table) == 117 * 13 * 7
    assert set(table["last_frames"]) == set(range(2, 9))
    liver = table[(table["name"] == "liver") & (table["last_frames"] == 8)]
    assert liver["Ki"].notna().all() and (liver["n_used"] == 8).all()


def test_volumes_are_those_of_the_voxels_in_both_units(phantom_run: Run) -> None:
    folder = phantom_run.output / "sub-001"
    for pattern, image in (
        ("*acdynPSF_seg-total_morph.tsv", "*acdynPSF_pet.nii.gz"),
        ("*acstatPSF_seg-total_morph.tsv", "*acstatPSF_pet.nii.gz"),
    ):
        table = read_table(only(folder, pattern))
        voxel_mm3 = np.prod(nib.load(only(phantom_run.bids / "sub-001", image)).header.get_zooms()[:3])
        np.testing.assert_allclose(table["volume-mm3"], table["n_voxels"] * voxel_mm3, rtol=1e-6)
        np.testing.assert_allclose(table["volume"], table["volume-mm3"] / 1000, rtol=1e-12)


def test_maps_average_to_the_regional_ki(phantom_run: Run) -> None:
    folder = phantom_run.output / "sub-001"
    labels = np.asanyarray(nib.load(only(folder, "*_space-bodydyn_seg-total_dseg.nii.gz")).dataobj)
    ki_map = nib.load(only(folder, "*_meas-Ki_mimap.nii.gz")).get_fdata()
    table = read_table(only(folder, "*_seg-total_model-Patlak_kinpar.tsv"))
    chosen = table[
        (table["input_function"] == "aortavoicombineddescending") & (table["last_frames"] == 8)
    ].set_index("index")
    for index in (5, 51, 90):
        assert ki_map[labels == index].mean() == pytest.approx(chosen.loc[index, "Ki"], rel=1e-4, abs=1e-8)


def test_quality_checks_are_what_the_images_say(phantom_run: Run) -> None:
    content = json.loads(only(phantom_run.output / "sub-001", "*_rec-acdynPSF_qc.json").read_text())
    checks = {check["name"]: check for check in content["Checks"]}
    static = nib.load(only(phantom_run.bids / "sub-001", "*_rec-acstatPSF_pet.nii.gz"))
    activity_bq = static.get_fdata().sum() * abs(np.linalg.det(static.affine[:3, :3])) / 1000
    dose_bq = truth(phantom_run.bids, "001")["participant"]["dose_bq"]
    assert checks["activity_fraction"]["value"] == pytest.approx(activity_bq / dose_bq, rel=1e-9)
    assert checks["static_over_dynamic"]["value"] == pytest.approx(1, abs=0.03)
    assert checks["body_shift_mm"]["state"] == "normal"
    assert checks["not_finite_voxels"]["value"] == 0
    assert checks["blood_missed_s"]["value"] == checks["blood_gap_in_frames"]["value"] == 0
    # Without a dynamic image there is less to check, and nothing is made up.
    content = json.loads(only(phantom_run.output / "sub-002", "*_rec-acstatPSF_qc.json").read_text())
    seen = [check["name"] for check in content["Checks"]]
    assert seen[0] == "activity_fraction" and len(seen) == len(set(seen))
    sex = truth(phantom_run.bids, "002")["participant"]["sex"]
    assert set(seen[1:]) == {
        *(["total_prostate_of_a_woman_ml"] if sex == "F" else []),
        "total_sides_swapped",
        "total_heart_left_of_midline_mm",
        "static_negative_fraction",
        "static_not_finite_voxels",
        "total_brain_volume_ml",
        "total_liver_volume_ml",
        "total_aorta_volume_ml",
        "total_spleen_left_of_liver_mm",
        "total_organs_cut",
        "total_labels_outside_body",
        "tissue_labels_outside_body",
        "body_labels_outside_body",
    }


def test_group_tables_have_the_published_columns_and_every_participant(phantom_run: Run) -> None:
    readouts = phantom_run.output / "readouts"
    metadata = pd.read_parquet(readouts / "metadata.parquet")
    assert list(metadata["Subject"]) == ["sub-001", "sub-002"]
    assert list(metadata.columns)[:8] == [
        "Subject",
        "Weight [kg]",
        "Demographic Group [Sex,Age]",
        "Injected Activity [MBq]",
        "SUV Denominator [Bq/mL]",
        "SUL Decazes Denominator [Bq/mL]",
        "SUL Janma Denominator [Bq/mL]",
        "SUL James Denominator [Bq/mL]",
    ]
    assert "curves" in metadata.set_index("Subject").loc["sub-002", "Missing"]
    blood = pd.read_parquet(readouts / "input_function_tacs.parquet")
    assert set(blood["Task"]) == {task.readout_name for task in VOI_TASKS}
    kinetics = pd.read_parquet(readouts / "patlak_ki.parquet")
    assert kinetics["Input Function Identifier"].nunique() == 13
    for table in ("metadata", "means", "tacs", "input_function_tacs", "patlak_ki"):
        from_parquet = pd.read_parquet(readouts / f"{table}.parquet")
        from_text = pd.read_csv(
            readouts / f"{table}.tsv.gz", sep="\t", na_values="n/a", keep_default_na=False
        )
        assert list(from_text.columns) == list(from_parquet.columns)
        assert len(from_text) == len(from_parquet)
        dictionary = json.loads((readouts / f"{table}.json").read_text())
        assert list(dictionary) == list(from_parquet.columns)


def test_the_group_page_links_every_participant(phantom_run: Run) -> None:
    page = (phantom_run.output / "group.html").read_text()
    for label in ("sub-001", "sub-002"):
        assert f'<a href="{label}.html">{label}</a>' in page
    assert "curves, input functions" in page
    assert ">nan<" not in page


@pytest.mark.slow
def test_a_second_run_does_nothing_and_group_files_are_the_same_bytes(
    phantom_run: Run, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(phantom_run.output, output)
    before = {p: p.read_bytes() for p in sorted((output / "readouts").iterdir())}
    again = hedypet(phantom_run.bids, output, "participant", "--participant-label", "sub-002")
    assert again.returncode == 0, again.stderr
    assert steps_that_ran(again.stderr) == []
    assert hedypet(phantom_run.bids, output, "group").returncode == 0
    assert {p: p.read_bytes() for p in sorted((output / "readouts").iterdir())} == before


def test_a_lost_result_is_made_again_with_the_same_bytes(phantom_run: Run, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(phantom_run.output, output)
    lost = only(output / "sub-002", "*_space-bodystat_seg-total_dseg.nii.gz")
    content = lost.read_bytes()
    lost.unlink()
    again = hedypet(phantom_run.bids, output, "participant", "--participant-label", "002")
    assert "sub-002 resample bodystat: ran" in again.stderr
    assert "sub-002 segment total: done" in again.stderr
    assert lost.read_bytes() == content


def test_dry_run_shows_the_plan_and_writes_nothing(phantom: Path, tmp_path: Path) -> None:
    done = hedypet(phantom, tmp_path / "out", "participant", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "tacs                  to run" in done.stdout
    assert "skipped  no dynamic PET was found" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "arguments", "code", "words"),
    [
        (None, [], 66, "does not exist"),
        ("empty", [], 66, "no dataset_description.json"),
        ("no participants", [], 18, "no participant to process"),
        ("phantom", ["--participant-label", "nobody"], 18, "No folder for participant nobody"),
        ("phantom", ["group"], 2, "unrecognized arguments: group"),
        ("phantom", ["--settings", "nowhere.toml"], 66, "does not exist"),
        ("phantom", ["-d", "synthseg=nowhere"], 66, "does not exist"),
        ("not BIDS", [], 16, "is not valid BIDS"),
    ],
)
def test_bad_input_gets_one_paragraph_and_its_exit_code(
    phantom: Path, tmp_path: Path, make: str | None, arguments: list[str], code: int, words: str
) -> None:
    bids, output = tmp_path / "bids", tmp_path / "out"
    if make == "phantom":
        bids = phantom
    elif make is not None:
        bids.mkdir()
        if make != "empty":
            shutil.copy(phantom / "dataset_description.json", bids)
        if make == "not BIDS":
            (bids / "sub-1").mkdir()
            (bids / "sub-1" / "sub-1_scan.txt").write_text("x")
    done = hedypet(bids, output, "participant", *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    left = [path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()]
    assert left == (["logs/bids-validator.json"] if code == 16 else [])


def test_output_inside_the_raw_data_is_refused(phantom: Path) -> None:
    done = hedypet(phantom, phantom / "sub-001" / "out", "participant")
    assert done.returncode == 2
    assert "lies inside the raw dataset" in done.stderr
    assert not (phantom / "sub-001" / "out").exists()


def test_group_before_participant_says_so(phantom: Path, tmp_path: Path) -> None:
    done = hedypet(phantom, tmp_path / "out", "group")
    assert done.returncode == 66
    assert "Run hedypet with 'participant' first" in done.stderr


def test_a_bad_participant_does_not_stop_the_others(phantom: Path, tmp_path: Path) -> None:
    bids = tmp_path / "bids"
    shutil.copytree(phantom, bids)
    only(bids / "sub-001", "*_rec-acdynPSF_pet.json").write_text("{ no JSON")
    (bids / "sub-001").rename(bids / "sub-000")
    for path in sorted((bids / "sub-000").rglob("sub-001*")):
        path.rename(path.with_name(path.name.replace("sub-001", "sub-000")))
    done = hedypet(bids, tmp_path / "out", "participant", "--skip-bids-validation", "--nprocs", "2")
    assert done.returncode == 1
    assert "sub-000 FAILED" in done.stderr and "cannot be indexed" in done.stderr
    assert "1 of 2 participants finished, 1 failed (sub-000)" in done.stderr
    assert (tmp_path / "out" / "sub-002.html").is_file()
