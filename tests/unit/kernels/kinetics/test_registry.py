"""A model of one file, that of docs/add-a-model.md, from fits to tables, dictionaries, methods and pages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import ENVIRONMENT, ROOT, only, python_blocks

from hedypet_bids import Study
from hedypet_bids.errors import UsageError
from hedypet_bids.kernels.kinetics import kinetic_models, known_models
from hedypet_bids.settings import Settings

PAGE = ROOT / "docs" / "add-a-model.md"
BLOOD = "aortavoicombineddescending"


@pytest.fixture(scope="module")
def output(one_coarse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page's code makes of a phantom; in a process of its own, as it makes a model known."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "BIDS_DIR").symlink_to(one_coarse)
    done = subprocess.run(
        [sys.executable, "-c", "".join(python_blocks(PAGE))],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "OUTPUT_DIR"


def expected(output: Path, region: str, erosion: int) -> float:
    """The ratio from the curves as they are written."""
    study = Study(output)
    late = study.tacs("sub-001", "total", erosion=erosion).tail(4)
    blood = study.tacs("sub-001", "aortavoicombined").tail(4)
    lengths = (late["frame_end"] - late["frame_start"]).to_numpy()
    return float((lengths @ late[region]) / (lengths @ blood["aorta_descending"]))


@pytest.mark.slow
def test_its_fits_stand_in_tables_with_a_dictionary(output: Path) -> None:
    fits = Study(output).kinetics("sub-001", "Ratio", "total", erosion=1)
    liver = fits[(fits["name"] == "liver") & (fits["input_function"] == BLOOD)]
    assert liver["TBR"].tolist() == pytest.approx([expected(output, "liver", 1)], rel=1e-9)
    table = only(output, "*_seg-total_desc-eroded1_model-Ratio_kinpar.tsv")
    sidecar = json.loads(table.with_suffix(".json").read_text())
    assert sidecar["TBR"] == {"Description": "Late activity of the region over that of the blood"}
    assert sidecar["t_start"]["Units"] == "s"
    assert len(list(output.rglob("*_model-Ratio_kinpar.tsv"))) == len(
        list(output.rglob("*_model-Patlak_kinpar.tsv"))
    )
    assert not list(output.rglob("*_model-Ratio_*_mimap.nii.gz"))


@pytest.mark.slow
def test_the_group_level_has_it(output: Path) -> None:
    study = Study(output)
    rows = study.readout("kinetics", tasks=["ts_total"], erosions=[0])
    ratios = rows[rows["Model"] == "Ratio"].set_index("Label Name")
    assert set(ratios["Parameter"]) == {"TBR"}
    for region in ("liver", "brain"):
        assert ratios.loc[region, "Value"] == pytest.approx(expected(output, region, 0), rel=1e-9)
    assert ratios["SE"].isna().all()
    assert set(rows["Model"]) == {"Patlak", "Ratio"}
    assert study.dictionary("kinetics")["Model"]["Levels"]["Ratio"] == "Tissue-to-blood ratio"
    statistics = study.readout("statistics", tasks=["ts_total"], labels=["liver"])
    assert "Ratio TBR" in set(statistics["Quantity"])


@pytest.mark.slow
def test_pages_and_methods_tell_of_it(output: Path) -> None:
    page = (output / "sub-001.html").read_text("utf-8")
    citation = (output / "logs" / "CITATION.md").read_text("utf-8")
    for text in (page, citation):
        assert "Tissue-to-blood ratios are those of the last 4 frames" in text
        assert "10.1186/2191-219X-3-77" in text
    assert "TBR" in page and f"{expected(output, 'liver', 1):.4g}" in page


def test_only_known_models_can_be_asked_for() -> None:
    assert [model.name for model in kinetic_models(Settings())] == ["Patlak"]
    assert kinetic_models(Settings().with_values({"kinetics": {"models": []}})) == ()
    with pytest.raises(UsageError, match=r"'Patlac'.*Patlak"):
        kinetic_models(Settings().with_values({"kinetics": {"models": ["Patlac"]}}))
    assert "Patlak" in known_models()
