"""The Python API: the same numbers as the files, and messages that say what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from running import Run, only

from hedypet_bids import Study
from hedypet_bids.errors import MissingInputError, UsageError


@pytest.fixture
def study(phantom_run: Run) -> Study:
    return Study(phantom_run.output)


def test_importing_the_package_stays_light() -> None:
    code = "import sys, hedypet_bids; assert 'numpy' not in sys.modules; hedypet_bids.Study"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_participants(study: Study) -> None:
    assert study.participants == ("sub-001", "sub-002")


def test_images_and_segmentations_share_the_grid_of_their_space(study: Study) -> None:
    ct = study.image("sub-001", "ct", space="bodystat", rec="br38f")
    labels = study.segmentation("001", "total", space="bodystat")
    assert ct.shape == labels.shape
    np.testing.assert_allclose(ct.affine, labels.affine)
    assert (
        study.image("001", "mimap", meas="Ki").shape
        == study.segmentation("001", "aorta", space="bodydyn").shape
    )
    native = study.segmentation("001", "total")
    assert native.shape != labels.shape


def test_curves_are_those_of_the_file(study: Study, phantom_run: Run) -> None:
    path = only(phantom_run.output / "sub-001", "*_seg-total_desc-eroded1_tacs.tsv")
    expected = pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)
    pd.testing.assert_frame_equal(study.tacs("sub-001", "total", erosion=1), expected)


def test_readouts_are_filtered_and_normalised(study: Study) -> None:
    rows = study.readout("means", subjects=["001"], tasks=["ts_total"], labels=["liver"], normalise="SUV")
    assert set(rows["Subject"]) == {"sub-001"}
    assert set(rows["Label Name"]) == {"liver"}
    assert len(rows) == 2
    static = study.image("sub-001", "pet", space="bodystat").get_fdata()
    labels = np.asanyarray(study.segmentation("sub-001", "total", space="bodystat").dataobj)
    suv = study.readout("metadata").set_index("Subject").loc["sub-001", "SUV Denominator [Bq/mL]"]
    plain = rows[rows["Erosion Iterations"] == 0].iloc[0]
    assert plain["SUV Mean [g/mL]"] == pytest.approx(static[labels == 5].mean() / suv, rel=1e-5)
    assert len(study.readout("metadata")) == 2


def test_messages_say_what_there_is(study: Study, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no output of hedypet"):
        Study(tmp_path)
    with pytest.raises(MissingInputError, match="there are sub-001, sub-002"):
        study.image("sub-9", "ct")
    with pytest.raises(UsageError, match=r"(?s)several.*rec=.*rec-ac.*rec-br38f"):
        study.image("sub-001", "ct", space="bodystat")
    with pytest.raises(MissingInputError, match="seg-total_"):
        study.segmentation("sub-001", "liver", space="bodystat")
    with pytest.raises(UsageError, match=r"there are .*means, metadata"):
        study.readout("averages")
    with pytest.raises(UsageError, match="there are SUV"):
        study.readout("means", normalise="SUX")
    with pytest.raises(UsageError, match="can be normalised"):
        study.readout("patlak_ki", normalise="SUV")
    (tmp_path / "dataset_description.json").write_text("{}")
    with pytest.raises(MissingInputError, match="Run hedypet with 'group' first"):
        Study(tmp_path).readout("means")


def test_statistics_and_outliers_are_readouts_too(study: Study) -> None:
    liver = study.readout("statistics", tasks=["ts_total"], labels=["liver"])
    plain = liver[
        (liver["Erosion Iterations"] == 0) & (liver["Sex Group"] == "all") & (liver["Quantity"] == "SUV")
    ]
    means = study.readout("means", tasks=["ts_total"], labels=["liver"], normalise="SUV")
    values = means[means["Erosion Iterations"] == 0]["SUV Mean [g/mL]"]
    everyone = plain[plain["Age Group"] == "all"].iloc[0]
    assert everyone["Mean"] == pytest.approx(values.mean()) and everyone["Participants"] == 2
    assert study.readout("outliers").empty
    with pytest.raises(UsageError, match="statistics has no column Subject"):
        study.readout("statistics", subjects=["001"])


def test_the_tutorial_runs_as_it_is_printed(phantom_run: Run, tmp_path: Path) -> None:
    tutorial = Path(__file__).resolve().parents[2] / "docs" / "tutorial.py"
    done = subprocess.run(
        [sys.executable, str(tutorial), str(phantom_run.output), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MPLBACKEND": "Agg"},
    )
    assert done.returncode == 0, done.stderr
    first = done.stdout.split("Volume [mL]")[1].split()
    # Uptake of the phantom's bladder and brain is known to be the highest.
    assert first[0] == "urinary_bladder" and first[3] == "brain"
    found = re.search(r"Ki: ([0-9.]+) here, ([0-9.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) == pytest.approx(float(found[2]), rel=0.05)
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "patlak.png"}
