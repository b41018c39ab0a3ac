"""Every kinetic model from the command line to tables, dictionary, methods and pages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from coarse_phantom import write_coarse
from running import hedypet, only

from hedypet_bids import Study
from hedypet_bids.kernels.kinetics import known_models

MODELS = ["Patlak", "MA1", "Logan", "SRTM", "MRTM", "MRTM2", "SUVR", "FUR", "RelativePatlak", "CMRglc"]
REMARKS = {"Patlak", "CMRglc"}
REFERENCE = ["gluteus_maximus_left", "gluteus_maximus_right"]
BLOOD = "aortavoicombineddescending"
SETTINGS = """
[kinetics]
t_star_min = 10
late_window_min = [30, 70]
k2_prime_per_min = 0.1
plasma_to_blood = 1.0
parent_fraction = [[0, 1.0]]
lumped_constant = 0.65
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    bids, out, settings = write_coarse(folder / "bids", ()), folder / "out", folder / "study.toml"
    participants = pd.read_csv(bids / "participants.tsv", sep="\t")
    participants.assign(blood_glucose=90).to_csv(bids / "participants.tsv", sep="\t", index=False)
    columns = json.loads((bids / "participants.json").read_text())
    columns["blood_glucose"] = {"Description": "Glucose in plasma", "Units": "mg/dL"}
    (bids / "participants.json").write_text(json.dumps(columns))
    settings.write_text(SETTINGS)
    for level in ("participant", "group"):
        asked = ["--settings", settings, "--model", *MODELS, "LiverDualInput"]
        asked += ["--reference-region", *REFERENCE] if level == "participant" else []
        done = hedypet(bids, out, level, *asked)
        assert done.returncode == 0, done.stderr
    return out


def test_every_model_has_tables_with_a_dictionary(output: Path) -> None:
    for name in MODELS:
        model = known_models()[name]
        fits = Study(output).kinetics("sub-001", name, "total", erosion=0)
        sidecar = json.loads(only(output, f"*_seg-total_model-{name}_kinpar.json").read_text())
        for column in fits.columns.difference(["index", "name"]):
            assert sidecar[column]["Description"], (name, column)
        source = " + ".join(REFERENCE) if model.reference else BLOOD
        rows = fits[fits["input_function"] == source]
        assert len(rows)
        main = model.parameters[0]
        assert sidecar[main.name].get("Units", "") == main.units
        values = rows[main.name]
        assert values.notna().any(), name
        # A plot that is no line has a value and a remark.
        assert rows.loc[values.isna(), "reason"].notna().all(), name
        if name not in REMARKS:
            assert (values.isna() == rows["reason"].notna()).all(), name


def test_the_liver_with_two_inputs_has_tables_of_its_own(output: Path) -> None:
    fits = Study(output).kinetics("sub-001", "LiverDualInput", "total", erosion=0)
    assert set(fits["name"]) == {"liver"} and len(fits) == 13
    assert fits["Ki"].notna().any() and fits["Ki_arterial"].notna().any()
    # No other segmentation has a liver.
    tables = {path.name.split("_seg-")[1].split("_")[0] for path in output.rglob("*LiverDualInput*.tsv")}
    assert tables == {"total"}
    rows = Study(output).readout("kinetics")
    assert set(rows[rows["Model"] == "LiverDualInput"]["Label Name"]) == {"liver"}
    page = (output / "sub-001.html").read_text("utf-8")
    section = page.split('id="kinetics-LiverDualInput"')[1].split("</table>")[0]
    assert re.findall(r'<th scope="row">(.*?)</th>', section) == ["liver"]


def test_values_are_those_of_the_curves_as_they_are_written(output: Path) -> None:
    study = Study(output)
    tacs = study.tacs("sub-001", "total", erosion=0)
    volumes = pd.read_csv(only(output, "*rec-acdynPSF_seg-total_morph.tsv"), sep="\t").set_index("name")
    mid = (tacs["frame_start"] + tacs["frame_end"]) / 2
    late, lengths = mid.between(1800, 4200), tacs["frame_end"] - tacs["frame_start"]
    reference = np.average(tacs[REFERENCE], axis=1, weights=volumes.loc[REFERENCE, "n_voxels"])
    expected = np.average(tacs["liver"][late], weights=lengths[late]) / np.average(
        reference[late], weights=lengths[late]
    )
    fits = study.kinetics("sub-001", "SUVR", "total", erosion=0).set_index("name")
    assert fits.loc["liver", "SUVR"] == pytest.approx(expected, rel=1e-9)

    def shown(name: str) -> pd.Series:
        table = study.kinetics("sub-001", name, "total", erosion=0)
        rows = table[(table["name"] == "liver") & (table["input_function"] == BLOOD)]
        return rows[rows["last_frames"] == 8].iloc[0]

    factor = 100 * 90 * 0.0555 / (0.65 * 1.04)
    assert shown("CMRglc")["CMRglc"] == pytest.approx(factor * shown("Patlak")["Ki"], rel=1e-9)


def test_the_group_level_has_every_parameter(output: Path) -> None:
    study = Study(output)
    rows = study.readout("kinetics", tasks=["ts_total"], erosions=[0])
    for name in MODELS:
        model = known_models()[name]
        found = rows[rows["Model"] == name]
        assert set(found["Parameter"]) == {parameter.name for parameter in model.parameters}
        assert found.groupby(["Label Name", "Parameter"]).size().max() == 1
        assert found.loc[found["Value"].isna(), "Reason"].notna().all(), name
        if name not in REMARKS:
            assert (found["Value"].isna() == found["Reason"].notna()).all(), name
    assert set(MODELS) <= set(study.dictionary("kinetics")["Model"]["Levels"])


def test_pages_and_methods_tell_of_every_model(output: Path) -> None:
    page = (output / "sub-001.html").read_text("utf-8")
    citation = (output / "logs" / "CITATION.md").read_text("utf-8")
    for name in MODELS:
        assert f'id="kinetics-{name}"' in page, name
        for reference in known_models()[name].references.values():
            assert reference.doi in citation
            assert reference.doi in page
    assert " + ".join(REFERENCE) in page


@pytest.mark.parametrize(
    ("region", "words"),
    [("cerebelum", "cerebelum"), ("gluteus_max", "gluteus_maximus_left"), ("livr", "'liver'")],
)
def test_a_reference_region_that_is_not_there_is_named(
    one_coarse: Path, tmp_path: Path, region: str, words: str
) -> None:
    done = hedypet(
        one_coarse,
        tmp_path / "out",
        "participant",
        "--dry-run",
        "--model",
        "SUVR",
        "--reference-region",
        region,
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout + done.stderr


def test_without_a_reference_region_its_models_are_left_out(one_coarse: Path, tmp_path: Path) -> None:
    done = hedypet(one_coarse, tmp_path / "out", "participant", "--dry-run", "--model", "SRTM", "CMRglc")
    assert done.returncode == 0, done.stderr
    assert "--reference-region" in done.stdout + done.stderr
    assert "lumped_constant" in done.stdout + done.stderr
