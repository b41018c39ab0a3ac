"""Patlak's model with the early blood of other people, from a readouts folder to tables and page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from coarse_phantom import write_coarse
from running import hedypet, only, truth

from hedypet_bids import Study
from hedypet_bids.phantom import hedypet_frames
from hedypet_bids.phantom.kinetics import FengInput, input_function

FRAMES = hedypet_frames()
PIECES = ("segment", "static", "resample", "aorta", "tacs", "input_functions", "kinetics", "report")
AORTA = "aortavoicombineddescending"


def write_readouts(folder: Path, aorta: FengInput, boluses: tuple[float, ...]) -> None:
    """People with the input function of the phantom but for dose and bolus."""
    folder.mkdir(exist_ok=True)
    parts = [
        pd.DataFrame(
            {
                "Subject": f"sub-{number:03}",
                "Task": "aortavois_ml-full_width-3",
                "Label Name": "aorta_descending_upper",
                "Frame Time Middle [s]": FRAMES.mid_s,
                "PET Mean [Bq/mL]": (1 + number)
                * input_function(FRAMES, replace(aorta, a1=bolus * aorta.a1)),
            }
        )
        for number, bolus in enumerate(boluses)
    ]
    pd.concat(parts).to_parquet(folder / "input_function_tacs.parquet")


def test_from_a_readouts_folder_to_tables_and_page(tmp_path: Path) -> None:
    bids, out, readouts = write_coarse(tmp_path / "bids", ()), tmp_path / "out", tmp_path / "readouts"
    settings = tmp_path / "study.toml"
    settings.write_text(
        f"[curves]\nerosions = [0]\n[kinetics]\npopulation_readouts = {json.dumps(str(readouts))}\n"
        't_star_min = 20\n[kinetics.patlak]\nrule = "frames"\nlast_frames = [4]\nmap_last_frames = 4\n'
    )
    asked = (bids, out, "participant", "--settings", settings, "--model", "Patlak", "PatlakPBIF")
    done = hedypet(*asked, "--steps", *PIECES)
    assert done.returncode == 66 and str(readouts) in done.stderr
    assert not out.exists()
    aorta = FengInput(**truth(bids, "001")["input_parameters"])
    write_readouts(readouts, aorta, (0.8, 0.9, 1.0, 1.1, 1.2))
    done = hedypet(*asked, "--steps", *PIECES)
    assert done.returncode == 0, done.stderr

    fits = {
        name: Study(out)
        .kinetics("sub-001", name, "total")
        .query("input_function == @AORTA")
        .set_index("name")
        for name in ("Patlak", "PatlakPBIF")
    }
    ki, lent = fits["Patlak"]["Ki"], fits["PatlakPBIF"]
    trapped = ki[ki > 0.005].index
    assert len(trapped)
    # The mean over people has the bolus of the phantom.
    np.testing.assert_allclose(lent.loc[trapped, "Ki"], ki[trapped], rtol=0.01)
    assert lent.loc[trapped, "Ki_error"].between(0.05, 5).all()
    sidecar = json.loads(only(out, "*_seg-total_model-PatlakPBIF_kinpar.json").read_text())
    assert sidecar["PopulationSize"] == 5 and sidecar["PopulationSource"].startswith("sha256:")
    assert sidecar["Ki_error"]["Units"] == "%" and str(tmp_path) not in json.dumps(sidecar)
    assert not list(out.rglob("*model-PatlakPBIF*.nii.gz"))
    assert 'id="kinetics-PatlakPBIF"' in (out / "sub-001.html").read_text("utf-8")

    # Other people: their model is fitted again, Patlak's is not.
    tables = {name: only(out, f"*_seg-total_model-{name}_kinpar.tsv") for name in fits}
    written = {name: path.stat().st_mtime_ns for name, path in tables.items()}
    write_readouts(readouts, aorta, (0.8, 0.9, 1.0, 1.1, 1.4))
    done = hedypet(*asked, "--steps", "kinetics")
    assert done.returncode == 0, done.stderr
    again = {name: path.stat().st_mtime_ns != written[name] for name, path in tables.items()}
    assert again == {"Patlak": False, "PatlakPBIF": True}


def test_without_the_setting_the_model_is_left_out(one_coarse: Path, tmp_path: Path) -> None:
    done = hedypet(one_coarse, tmp_path / "out", "participant", "--dry-run", "--model", "PatlakPBIF")
    assert done.returncode == 0, done.stderr
    assert "population_readouts" in done.stdout
