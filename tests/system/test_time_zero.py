"""A TimeZero that is not the injection: tables of curves count from it; what is computed stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from running import Run, only, run_both_levels

from hedypet_bids import Study

pytestmark = pytest.mark.slow

INJECTION_S = 137.0
TIMES = ("ScanStart", "InjectionStart", "ImageDecayCorrectionTime")
# As bloodstream writes them (its template.qmd) and petfit (blooddata2inputfunction_tsv).
COLUMNS = [
    "time",
    "whole_blood_radioactivity",
    "plasma_radioactivity",
    "metabolite_parent_fraction",
    "AIF",
]
TIMED = ("time", "frame_start", "frame_end")


@pytest.fixture(scope="module")
def later(coarse: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The coarse phantom with another TimeZero: that of the injection less 137 s."""
    folder = tmp_path_factory.mktemp("later")
    bids = folder / "bids"
    shutil.copytree(coarse, bids)
    for path in bids.glob("sub-*/**/*_pet.json"):
        sidecar = json.loads(path.read_text())
        sidecar |= {key: sidecar[key] + INJECTION_S for key in TIMES}
        sidecar["FrameTimesStart"] = [start + INJECTION_S for start in sidecar["FrameTimesStart"]]
        before = pd.Timestamp(sidecar["TimeZero"]) - pd.Timedelta(seconds=INJECTION_S)
        sidecar["TimeZero"] = f"{before:%H:%M:%S}"
        path.write_text(json.dumps(sidecar))
    return run_both_levels(bids, folder / "out", "--nprocs", "1")


def test_tables_of_curves_and_blood_count_from_time_zero(later: Run, coarse_run: Run) -> None:
    assert later.participant.returncode == 0, later.participant.stderr
    raw = json.loads(only(later.bids / "sub-001", "*_rec-acdynPSF_pet.json").read_text())
    paths = sorted([*later.output.rglob("*_tacs.tsv"), *later.output.rglob("*_blood.tsv")])
    assert len(paths) > 20
    for path in paths:
        found = pd.read_csv(path, sep="\t", na_values="n/a")
        usual = pd.read_csv(coarse_run.output / path.relative_to(later.output), sep="\t", na_values="n/a")
        times = [column for column in TIMED if column in found]
        np.testing.assert_array_equal(found["frame_start"], raw["FrameTimesStart"])
        np.testing.assert_allclose(found[times], usual[times] + INJECTION_S, rtol=1e-12)
        pd.testing.assert_frame_equal(found.drop(columns=times), usual.drop(columns=times))
        told = json.loads(path.with_suffix(".json").read_text())
        assert (told["TimeZero"], told["InjectionStart"]) == (raw["TimeZero"], INJECTION_S)
        assert told["ImageDecayCorrectionTime"] == INJECTION_S


def test_continuous_input_functions_have_the_means_of_the_blood_tables(later: Run, coarse_run: Run) -> None:
    """Joined by straight lines, as kinfitr does it, and in the unit that it takes."""
    paths = sorted(later.output.rglob("*_inputfunction.tsv"))
    assert len(paths) == len(list(later.output.rglob("*_blood.tsv"))) == 13
    for path in paths:
        found = pd.read_csv(path, sep="\t")
        assert list(found.columns) == COLUMNS
        blood = pd.read_csv(path.with_name(path.name.replace("inputfunction", "blood")), sep="\t")
        time, activity = found["time"].to_numpy(), found["AIF"].to_numpy()
        for frame in blood.itertuples():
            # Every corner of the curve and both ends: a trapezium a piece is exact.
            ends = [frame.frame_start, frame.frame_end]
            at = np.unique([*ends, *time[(time > ends[0]) & (time < ends[1])]])
            mean = np.trapezoid(np.interp(at, time, activity), at) / (ends[1] - ends[0])
            assert mean == pytest.approx(frame.whole_blood_radioactivity, rel=1e-6, abs=1e-6 * activity.max())
        told = json.loads(path.with_suffix(".json").read_text())
        assert told["InjectionStart"] == INJECTION_S and told["AIF"]["Units"] == "Bq"
        assert told["Assumed"] == ["PlasmaToBlood", "ParentFraction"]
        usual = pd.read_csv(coarse_run.output / path.relative_to(later.output), sep="\t")
        np.testing.assert_allclose(found["time"], usual["time"] + INJECTION_S, rtol=1e-12)


def test_what_is_computed_counts_from_the_injection(later: Run, coarse_run: Run) -> None:
    fits = sorted(later.output.rglob("*_kinpar.tsv"))
    assert fits
    for path in fits:
        usual = coarse_run.output / path.relative_to(later.output)
        pd.testing.assert_frame_equal(pd.read_csv(path, sep="\t"), pd.read_csv(usual, sep="\t"), rtol=1e-9)
    study, usual_study = Study(later.output), Study(coarse_run.output)
    for table in ("means", "tacs", "input_function_tacs", "patlak_ki", "kinetics", "statistics"):
        pd.testing.assert_frame_equal(study.readout(table), usual_study.readout(table), rtol=1e-9)
    for read in (
        lambda study: study.tacs("sub-001", "total"),
        lambda study: study.input_functions("sub-001"),
    ):
        pd.testing.assert_frame_equal(read(study), read(usual_study), rtol=1e-12)
    maps = [only(run.output, "*_meas-Ki_mimap.nii.gz") for run in (later, coarse_run)]
    np.testing.assert_allclose(*(nib.load(path).get_fdata() for path in maps), rtol=1e-6)
