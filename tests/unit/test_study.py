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
from scans_output import CONSTANT, KI, LIVER, RETEST, TEST, write_scans_output

from hedypet_bids import Study
from hedypet_bids.errors import BadDataError, MissingInputError, UsageError


@pytest.fixture
def study(phantom_run: Run) -> Study:
    return Study(phantom_run.output)


@pytest.fixture
def scans(tmp_path: Path) -> Study:
    """Participant 01 with the sessions test and retest, 02 with test."""
    return Study(write_scans_output(tmp_path / "out"))


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
    with pytest.raises(MissingInputError, match="not an output of hedypet"):
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


# ---- several scans


def test_scans_are_those_of_the_manifests(scans: Study) -> None:
    found = scans.scans
    assert found[["Subject", "Session", "Tracer", "Run"]].to_numpy().tolist() == [
        ["sub-01", "test", "18FFDG", ""],
        ["sub-01", "retest", "18FFDG", ""],
        ["sub-02", "test", "18FFDG", ""],
    ]
    assert found["Page"][1] == f"sub-01_{RETEST}.html"
    assert found["Statics"][2][0].endswith("_rec-acPSF_pet.nii.gz")


@pytest.mark.parametrize("session", ["test", "ses-test"])
def test_a_scan_is_chosen_by_its_session(scans: Study, session: str) -> None:
    pet = scans.image("01", "pet", space="bodystat", session=session, rec="acPSF")
    assert pet.get_fdata().max() == LIVER["01", TEST]
    retest = scans.image("01", "pet", space="bodystat", session="retest", rec="acPSF")
    assert retest.get_fdata().max() == LIVER["01", RETEST]
    assert scans.tacs("01", "total", session="retest")["liver"].tolist() == [1, 1]
    assert scans.kinetics("01", "Patlak", "total", session="retest")["Ki"].tolist() == [KI["01", RETEST]]
    assert scans.outputs("01", session="retest").get("page") == scans.root / f"sub-01_{RETEST}.html"


def test_what_scans_share_needs_no_choice(scans: Study) -> None:
    assert scans.segmentation("01", "total").shape == (4, 4, 4)
    assert scans.tacs("02", "total")["liver"].tolist() == [0, 0]


def test_files_that_differ_by_space_alone_are_chosen_by_session(scans: Study) -> None:
    """Both are named after the one CT; the label of the space tells them apart."""
    with pytest.raises(UsageError, match=r"choose with session='retest' or 'test'"):
        scans.image("01", "ct", space="bodystat")
    path = Path(scans.image("01", "ct", space="bodystat", session="retest").get_filename())
    assert "space-bodystatsesretest" in path.name


def test_several_and_none_are_told_with_what_chooses(scans: Study) -> None:
    with pytest.raises(
        UsageError, match=r"(?s)session='retest' or 'test'; rec='acPSF' or 'osem'.*sub-01_ses-"
    ):
        scans.image("01", "pet", space="bodystat")
    with pytest.raises(UsageError, match=r"rec='acPSF' or 'osem'"):
        scans.image("02", "pet", space="bodystat")
    with pytest.raises(UsageError, match=r"session='retest' or 'test'"):
        scans.outputs("01")
    with pytest.raises(MissingInputError, match=f"{TEST}, {RETEST}"):
        scans.tacs("01", "total", session="second")
    with pytest.raises(MissingInputError, match=r"_model-Patlak_kinpar\.tsv"):
        scans.kinetics("01", "Logan", "total", session="test")


def test_only_what_the_manifest_lists_exists(scans: Study) -> None:
    old = scans.root / "sub-02/ses-test/pet/sub-02_ses-test_rec-old_space-bodystat_ct.nii.gz"
    old.write_bytes(b"left by an earlier run")
    assert "rec-old" not in Path(scans.image("02", "ct", space="bodystat").get_filename()).name
    (scans.root / "sub-02/sub-02_manifest.json").unlink()
    assert scans.participants == ("sub-01",) and set(scans.scans["Subject"]) == {"sub-01"}
    with pytest.raises(BadDataError, match="manifest"):
        scans.tacs("02", "total")


def test_activity_is_normalised_by_the_constant_of_its_scan(scans: Study) -> None:
    rows = scans.readout("means", labels=["liver"], reconstructions=["acPSF"], normalise="SUV")
    suv = rows.set_index(["Subject", "Session"])["SUV Mean [g/mL]"].to_dict()
    assert suv == {
        (f"sub-{label}", scan.session): LIVER[label, scan] / CONSTANT[label, scan] for label, scan in LIVER
    }
    chosen = scans.readout(
        "means", columns=["Session"], subjects=["01"], labels=["liver"], normalise="SUL James"
    )
    assert list(chosen) == ["Session", "SUL James Mean [g/mL]", "SUL James STD [g/mL]"]
    assert sorted(chosen["SUL James Mean [g/mL]"]) == [0.5, 0.6, 1.0, 1.2]


def test_rows_are_chosen_by_scan(scans: Study) -> None:
    assert set(scans.readout("tacs", sessions=["retest"])["Subject"]) == {"sub-01"}
    assert scans.readout("tacs", tracers=["18FFDG"], runs=[""]).equals(scans.readout("tacs"))
    assert scans.readout("tacs", runs=["1"]).empty and scans.readout("tacs", sessions=[]).empty
    assert scans.distinct("means", ["Reconstruction"])["Reconstruction"].tolist() == ["acPSF", "osem"]
    with pytest.raises(UsageError, match="int64"):
        scans.readout("tacs", erosions=["none"])
    with pytest.raises(UsageError, match="no column Nothing"):
        scans.readout("tacs", columns=["Nothing"])


def test_tables_of_an_older_output_ask_for_the_group_level(scans: Study) -> None:
    """Those that know no scans: what needs to know of them says so, the rest is read."""
    for path in (scans.root / "readouts").glob("*.parquet"):
        rows = pd.read_parquet(path)
        rows.drop(columns=["Session", "Tracer", "Run", "Reconstruction"]).to_parquet(path)
    assert len(scans.readout("means")) == 12
    for asked in ({"sessions": ["test"]}, {"reconstructions": ["osem"]}, {"normalise": "SUV"}):
        with pytest.raises(BadDataError, match="Run the group level again"):
            scans.readout("means", **asked)


def test_a_table_that_cannot_be_read_is_named(scans: Study) -> None:
    (scans.root / "readouts/means.parquet").write_bytes(b"no table")
    with pytest.raises(BadDataError, match="table means cannot be read"):
        scans.readout("means")
    (scans.root / "readouts/tacs.parquet").unlink()
    with pytest.raises(MissingInputError, match=r"tacs.parquet does not exist"):
        scans.readout("tacs")


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
