"""Voxel maps from the frames that were kept while the curves were measured, or from the series again."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from running import Run, hedypet, only

from hedypet_bids import Study
from hedypet_bids.cli.main import main
from hedypet_bids.labels import label_table

AGAIN = "decompressed again"


def logs(output: Path) -> str:
    return "".join(path.read_text() for path in sorted(output.rglob("sub-001/log/*/hedypet.log")))


@pytest.mark.slow
def test_without_room_for_frames_the_series_is_decompressed_again(
    coarse_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    shutil.copytree(coarse_run.output, output)
    assert AGAIN not in logs(output)
    for path in [*output.rglob("*_mimap.*"), *output.rglob("*_tacs.*")]:
        path.unlink()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1, 1, 1000))
    arguments = [str(coarse_run.bids), str(output), "participant", "--participant-label", "001"]
    assert main([*arguments, "--nprocs", "1", "--skip-bids-validation"]) == 0
    assert AGAIN in logs(output)
    for measure in ("Ki", "V0"):
        before, after = (
            np.asanyarray(nib.load(only(folder, f"*_meas-{measure}_mimap.nii.gz")).dataobj)
            for folder in (coarse_run.output, output)
        )
        assert np.isfinite(before).any()
        np.testing.assert_array_equal(before, after)


MEASURES = ("Ki", "K1", "vB", "delay")


def map_of(output: Path, measure: str, model: str = "TwoTissueIrr") -> np.ndarray:
    """The voxels of a map, and with them that its sidecar is there."""
    path = only(output, f"*_model-{model}_meas-{measure}_mimap.nii.gz")
    assert path.with_name(path.name.replace(".nii.gz", ".json")).is_file()
    return np.asanyarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def two_tissue(coarse_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("two-tissue") / "out"
    shutil.copytree(coarse_run.output, output)
    for path in output.rglob("*_tacs.*"):
        path.unlink()
    done = hedypet(coarse_run.bids, output, "participant", *only_001(), "--model", "Patlak", "TwoTissueIrr")
    assert done.returncode == 0, done.stderr
    return output


def only_001() -> list[str]:
    return ["--participant-label", "001", "--nprocs", "1", "--skip-bids-validation"]


@pytest.mark.slow
def test_maps_of_the_two_tissue_model_cover_the_body_without_lungs(two_tissue: Path) -> None:
    labels = {
        task: np.asanyarray(nib.load(only(two_tissue, f"*_space-bodydyn_seg-{task}_dseg.nii.gz")).dataobj)
        for task in ("body", "total", "tissue")
    }
    lung = np.isin(labels["total"], [i for i in label_table("total").indices if "lung" in name_of(i)])
    inside = np.any([values > 0 for values in labels.values()], axis=0) & ~lung
    assert lung.any()
    for measure in MEASURES:
        values = map_of(two_tissue, measure)
        assert values.shape == inside.shape and values.dtype == np.float32
        assert np.isnan(values[~inside]).all()
        assert np.isfinite(values[inside]).mean() > 0.7
    sidecar = json.loads(only(two_tissue, "*_model-TwoTissueIrr_meas-K1_mimap.json").read_text())
    assert sidecar["Units"] == "mL/min/mL" and sidecar["SmoothingFwhmMm"] == 6.0
    assert "lungs" in sidecar["Mask"] and len(sidecar["DelayStages"]) == 2
    assert sidecar["NotAvailable"] and sidecar["InputFunction"]
    units = json.loads(only(two_tissue, "*_model-TwoTissueIrr_meas-delay_mimap.json").read_text())["Units"]
    assert units == "s"


def name_of(index: int) -> str:
    table = label_table("total")
    return dict(zip(table.indices, table.names, strict=True))[index]


@pytest.mark.slow
def test_maps_of_the_two_tissue_model_are_those_of_regions(two_tissue: Path) -> None:
    """Homogeneous organs of the phantom, against the fit of their mean curve."""
    labels = np.asanyarray(nib.load(only(two_tissue, "*_space-bodydyn_seg-total_dseg.nii.gz")).dataobj)
    fits = Study(two_tissue).kinetics("sub-001", "TwoTissueIrr", "total", erosion=0)
    blood = fits[fits["input_function"] == "aortavoi1ml3pxdescendingupper"].set_index("name")
    table = label_table("total")
    for organ in ("liver", "brain", "gluteus_maximus_left"):
        inside = labels == table.index_of(organ)
        Ki = np.nanmedian(map_of(two_tissue, "Ki")[inside])
        assert Ki == pytest.approx(blood.loc[organ, "Ki"], rel=0.15, abs=1e-3), organ


@pytest.mark.slow
def test_maps_of_patlak_are_the_same_beside_those_of_the_two_tissue_model(
    coarse_run: Run, two_tissue: Path
) -> None:
    for measure in ("Ki", "V0"):
        alone, beside = (map_of(output, measure, "Patlak") for output in (coarse_run.output, two_tissue))
        np.testing.assert_array_equal(alone, beside)


@pytest.mark.slow
@pytest.mark.parametrize("room", [True, False])
def test_maps_of_the_body_are_the_same_from_the_series_again(
    coarse_run: Run, two_tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    output = tmp_path / "out"
    shutil.copytree(two_tissue, output)
    for path in output.rglob("*_model-TwoTissueIrr_*_mimap.*"):
        path.unlink()
    usage = namedtuple("usage", "total used free")
    if not room:
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1, 1, 1000))
    before = logs(output).count(AGAIN)
    arguments = [
        str(coarse_run.bids),
        str(output),
        "participant",
        *only_001(),
        "--model",
        "Patlak",
        "TwoTissueIrr",
    ]
    assert main(arguments) == 0
    assert (logs(output).count(AGAIN) > before) == (not room)
    for measure in MEASURES:
        np.testing.assert_array_equal(map_of(output, measure), map_of(two_tissue, measure))


@pytest.mark.slow
def test_the_settings_leave_the_maps_of_the_two_tissue_model_out(
    coarse_run: Run, two_tissue: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "study.toml"
    settings.write_text("[kinetics.compartments]\nmaps = false\n")
    done = hedypet(
        coarse_run.bids,
        two_tissue,
        "participant",
        *only_001(),
        "--dry-run",
        "--model",
        "TwoTissueIrr",
        "--settings",
        settings,
    )
    assert done.returncode == 0, done.stderr
    assert "maps is false" in done.stdout + done.stderr
