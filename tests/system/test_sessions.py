"""Sessions and tracers of a participant, as a user runs them: every scan measured, anatomy done once."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from coarse_phantom import COARSE, FRAMES
from running import hedypet, only, outputs

from hedypet_bids.io.manifest import Manifest, ScanOutputs
from hedypet_bids.io.tables import read_table
from hedypet_bids.names import ScanName
from hedypet_bids.phantom import write_phantom

pytestmark = pytest.mark.slow

VOXEL_MM = 8.0
FDG, PSMA = "18FFDG", "18FPSMA1007"
SCANS = [ScanName(session, tracer) for session in ("quadra", "quadra2") for tracer in (FDG, PSMA)]
OPTIONS = ("--skip-bids-validation", "--nprocs", "1")
TO_MEANS = ("segment", "register", "static", "resample", "normalise", "means", "quality")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A participant with two sessions and two tracers in each, and MR in a session between them."""
    root = tmp_path_factory.mktemp("four") / "bids"
    # Half the noise, for organs of few voxels.
    return write_phantom(
        root, participants=1, seed=7, size="tiny", noise=0.5, sessions=2, tracers=(FDG, PSMA)
    )


@pytest.fixture(scope="module")
def everything(four: Path, coarse_head: Path) -> Path:
    """What one run over all of it makes."""
    output = four.with_name("out")
    done = hedypet(four, output, "participant", *OPTIONS, "--settings", str(coarse_head))
    assert done.returncode == 0, done.stderr
    (output / "said.txt").write_text(done.stderr)
    return output


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A participant with two sessions of one tracer."""
    root = tmp_path_factory.mktemp("two") / "bids"
    return write_phantom(root, participants=1, seed=5, size=COARSE, frames=FRAMES, sessions=2)


@pytest.fixture(scope="module")
def quick(coarse_head: Path) -> tuple[str, ...]:
    """Options of runs that are not about registration and curves."""
    return (*OPTIONS, "--settings", str(coarse_head), "--register", "identity", "--steps", *TO_MEANS)


def truth_of(bids: Path, scan: ScanName) -> dict[str, Any]:
    """What a scan of the phantom was made from."""
    folder = bids.with_name(f"{bids.name}_truth")
    own = folder / f"sub-001_{scan}.json"
    content: dict[str, Any] = json.loads((own if own.is_file() else folder / "sub-001.json").read_text())
    told = content["scan"]
    assert (told["session"], told["tracer"]) == (scan.session, scan.tracer)
    return content


def outputs_of(output: Path, scan: ScanName) -> ScanOutputs:
    manifest = Manifest.read(output, "001")
    return manifest.of_scan(next(entry for entry in manifest.scans if entry.name == scan))


def read(output: Path, scan: ScanName, *kind: str | int) -> Any:
    path = outputs_of(output, scan).get(*kind)
    assert path is not None, (scan, kind)
    return read_table(output / path)


# ---- all at once


def test_every_scan_is_listed_in_order_with_a_page(everything: Path) -> None:
    manifest = Manifest.read(everything, "001")
    assert [entry.name for entry in manifest.scans] == SCANS and not manifest.failed
    for entry in manifest.scans:
        assert entry.page == f"sub-001_{entry.name}.html" and (everything / entry.page).is_file()
        assert str(entry.name) in entry.dynamic and str(entry.name) in entry.statics[0]
    assert (everything / "sub-001.html").is_file()
    for output in manifest.outputs:
        assert (everything / output.path).is_file(), output


def test_anatomy_is_done_once(everything: Path) -> None:
    ran = Counter(
        line.split("sub-001 ")[1].removesuffix(": ran").partition(" [")[0]
        for line in (everything / "said.txt").read_text().splitlines()
        if line.endswith(": ran")
    )
    # Two CTs, one T1w image, each MR image to each CT; the rest once a scan.
    assert [ran[f"segment {task}"] for task in ("total", "tissue", "body")] == [2, 2, 2]
    assert [ran[f"segment {task}"] for task in ("synthseg", "synthsegparc")] == [1, 1]
    assert [ran["register head"], ran["register body"]] == [2, 2]
    assert {ran[step] for step in ("tacs", "aorta", "normalise", "means", "report")} == {4}
    for scan in SCANS:
        shared = outputs_of(everything, scan)
        other = outputs_of(everything, ScanName(scan.session, PSMA if scan.tracer == FDG else FDG))
        for kind in (("labels", "total"), ("transform", "head"), ("labels", "synthseg")):
            assert shared.get(*kind) == other.get(*kind) is not None


def test_every_result_is_made_from_images_of_its_scan(everything: Path) -> None:
    """By the sidecars: nothing of one scan was made from PET of another."""
    own: dict[str, set[str]] = {}
    for output in Manifest.read(everything, "001").outputs:
        path = everything / output.path
        if path.suffix == ".html" or len(output.scans) > 1:
            continue
        sidecar = json.loads((path.parent / (path.name.split(".")[0] + ".json")).read_text())
        pets = [uri for uri in sidecar["Sources"] if uri.endswith("_pet.nii.gz") and "raw" in uri]
        own.setdefault(output.scans[0], set()).update(pets)
    assert own.keys() == {str(scan) for scan in SCANS}
    for scan, uris in own.items():
        assert uris and all(scan in uri for uri in uris)


@pytest.mark.parametrize("scan", SCANS, ids=str)
def test_constants_equal_the_truth_of_the_day(four: Path, everything: Path, scan: ScanName) -> None:
    found = read(everything, scan, "constants").set_index("name")["value"]
    for name in ("suv", "sul_james", "sul_janma"):
        assert found[name] == pytest.approx(truth_of(four, scan)[name], rel=1e-9)


@pytest.mark.parametrize("scan", SCANS, ids=str)
def test_curves_and_input_functions_equal_the_truth(four: Path, everything: Path, scan: ScanName) -> None:
    truth = truth_of(four, scan)
    table = read(everything, scan, "mean", "total", 1)
    late = (table["frame_start"] >= 300).to_numpy()
    np.testing.assert_allclose(table["frame_start"], truth["frame_start_s"])
    for organ in ("liver", "spleen", "urinary_bladder", "heart"):
        np.testing.assert_allclose(table[organ][late], np.array(truth["curves"][organ])[late], rtol=0.03)
    expected = np.array(truth["curves"]["aorta"])
    tables = outputs_of(everything, scan).of("blood")
    assert len(tables) == 13
    for path in tables.values():
        found = read_table(everything / path)["whole_blood_radioactivity"].to_numpy()
        assert (found[late] / expected[late]).mean() == pytest.approx(1, abs=0.05), path.name


@pytest.mark.parametrize("scan", SCANS, ids=str)
def test_static_means_equal_the_truth(four: Path, everything: Path, scan: ScanName) -> None:
    static = next(entry for entry in Manifest.read(everything, "001").scans if entry.name == scan).statics[0]
    table = read(everything, scan, "means", static, "total", 1).set_index("name")
    for organ in ("liver", "spleen", "heart"):
        assert table.loc[organ, "mean"] == pytest.approx(truth_of(four, scan)["static"][organ], rel=0.03)


@pytest.mark.parametrize("session", ["quadra", "quadra2"])
@pytest.mark.parametrize(("part", "kind"), [("head", "T1w"), ("body", "DIXON")])
def test_mr_images_are_registered_to_the_ct_of_each_session(
    four: Path, everything: Path, session: str, part: str, kind: str
) -> None:
    path = outputs_of(everything, ScanName(session, FDG)).get("transform", part)
    assert path is not None and f"_from-{kind}_to-CT{session}_" in path.name
    found = np.loadtxt(everything / path)
    expected = np.array(truth_of(four, ScanName(session, FDG))[f"mr2ct_{part}"])
    image = nib.load(only(four, f"*_acq-{'MPRAGE' if part == 'head' else 'DIXONbodyIN'}_T1w.nii.gz"))
    points = nib.affines.apply_affine(image.affine, np.argwhere(image.get_fdata() > 50)[::97])
    error = nib.affines.apply_affine(found, points) - nib.affines.apply_affine(expected, points)
    assert np.linalg.norm(error, axis=1).mean() < VOXEL_MM / 2


def test_kinetics_are_fitted_where_the_model_applies(everything: Path) -> None:
    for scan in SCANS:
        table = outputs_of(everything, scan).get("kinetics", "Patlak", "total", 0)
        assert (table is not None) == (scan.tracer == FDG)


# ---- in parts


def test_changes_between_sessions_equal_the_truth(four: Path, everything: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(everything, output, ignore=shutil.ignore_patterns("*.nii.gz", "*.svg"))
    assert hedypet(four, output, "group").returncode == 0
    keys = ["Tracer", "Label Name"]
    found = {
        name: pd.read_parquet(output / "readouts" / f"{name}.parquet")
        .query("Task == 'ts_total' and `Erosion Iterations` == 1 and Quantity == 'SUV'")
        .query("Reconstruction == 'acstatPSF'")
        .set_index(keys)
        for name in ("repeatability", "repeatability_changes")
    }
    for tracer in (FDG, PSMA):
        before, after = (truth_of(four, ScanName(session, tracer)) for session in ("quadra", "quadra2"))
        for region in ("liver", "spleen"):
            first, last = (truth["static"][region] / truth["suv"] for truth in (before, after))
            change = found["repeatability_changes"].loc[(tracer, region)]
            assert (change["First Session"], change["Last Session"]) == ("quadra", "quadra2")
            assert change["First Value"] == pytest.approx(first, rel=0.03)
            assert change["Change [%]"] == pytest.approx(100 * (last / first - 1), abs=2.5)
            row = found["repeatability"].loc[(tracer, region)]
            apart = change["Last Value"] - change["First Value"]
            assert row["Within-Subject SD"] == pytest.approx(abs(apart) / np.sqrt(2))
            assert row["Participants"] == 1 and "one participant" in row["Reason"]


def test_session_by_session_equals_one_run(two: Path, quick: tuple[str, ...], tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert hedypet(two, whole, "participant", *quick).returncode == 0
    for session in ("quadra2", "quadra"):
        done = hedypet(two, parts, "participant", "--session-label", session, *quick)
        assert done.returncode == 0, done.stderr
    found, expected = outputs(parts), outputs(whole)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    # What was taken away from the dataset is no longer current.
    raw = tmp_path / "raw"
    shutil.copytree(two, raw)
    shutil.rmtree(raw / "sub-001" / "ses-quadra" / "pet")
    hedypet(raw, parts, "participant", "--session-label", "quadra2", *quick)
    assert [entry.name.session for entry in Manifest.read(parts, "001").scans] == ["quadra2"]


def test_a_broken_session_keeps_the_others(two: Path, quick: tuple[str, ...], tmp_path: Path) -> None:
    raw, output = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(two, raw)
    sidecar = only(raw / "sub-001" / "ses-quadra2", "*acstatPSF_pet.json")
    whole = sidecar.read_text()
    sidecar.write_text(json.dumps({**json.loads(whole), "Units": "g/mL"}))
    given = (raw, output, "participant", *quick)
    plan = hedypet(*given, "--dry-run")
    assert plan.returncode == 1 and "ses-quadra2" in plan.stdout and "Units" in plan.stdout
    done = hedypet(*given)
    assert done.returncode == 1, done.stderr
    assert "ses-quadra2" in done.stderr and "Units" in done.stderr and "Traceback" not in done.stderr
    manifest = Manifest.read(output, "001")
    assert [entry.name.session for entry in manifest.scans] == ["quadra"]
    assert [(step.step, step.about) for step in manifest.failed] == [("inputs", f"ses-quadra2_trc-{FDG}")]
    assert outputs_of(output, ScanName("quadra", FDG)).get("constants")
    # Names are those of a participant with two scans, so that the mended one goes beside.
    sidecar.write_text(whole)
    done = hedypet(*given)
    assert done.returncode == 0, done.stderr
    assert "normalise [ses-quadra_" in done.stderr and "normalise [ses-quadra2_" in done.stderr
    again = [line for line in done.stderr.splitlines() if "[ses-quadra_" in line and line.endswith(": ran")]
    assert again == []
    manifest = Manifest.read(output, "001")
    assert [entry.name.session for entry in manifest.scans] == ["quadra", "quadra2"] and not manifest.failed


def test_a_session_without_a_ct_of_its_own(quick: tuple[str, ...], tmp_path: Path) -> None:
    """As in test-retest datasets whose second session has PET alone, and MR a session of its own."""
    pieces = {"001/quadra2": ("ct", "topogram")}
    raw = write_phantom(
        tmp_path / "raw", participants=1, seed=5, size=COARSE, frames=FRAMES, sessions=2, without=pieces
    )
    output = tmp_path / "out"
    done = hedypet(raw, output, "participant", *quick)
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(output, "001")
    assert [entry.name.session for entry in manifest.scans] == ["quadra", "quadra2"]
    total = {outputs_of(output, entry.name).get("labels", "total") for entry in manifest.scans}
    assert len(total) == 1
    for entry in manifest.scans:
        found = outputs_of(output, entry.name)
        assert found.get("labels", "bodystat", "total") and found.get("means", entry.statics[0], "total", 1)
    spaces = {outputs_of(output, e.name).get("labels", "bodystat", "total") for e in manifest.scans}
    assert len(spaces) == 2
    (transform,) = {outputs_of(output, entry.name).get("transform", "head") for entry in manifest.scans}
    assert transform is not None and "_to-CT_" in transform.name
    # The CT of another day may lie elsewhere: that is said.
    log = only(output, "hedypet.log").read_text()
    assert any("quadra2" in line and "CT images are those of ses-quadra" in line for line in log.splitlines())
