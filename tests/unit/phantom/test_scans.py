"""Phantoms of several sessions, tracers and runs against formulas, convolution and the BIDS validator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from coarse_phantom import COARSE, FRAMES
from scipy import signal

from hedypet_bids.cli.phantom import main
from hedypet_bids.errors import UsageError
from hedypet_bids.inputs.pet_metadata import read_pet_metadata
from hedypet_bids.labels import label_table
from hedypet_bids.model import Grid
from hedypet_bids.phantom import (
    SIZES,
    TRACERS,
    FengInput,
    feng_input,
    hedypet_frames,
    label_lut,
    make_participant,
    make_sessions,
    merged_frames,
    sample_labels,
    truth_folder,
    write_phantom,
)
from hedypet_bids.phantom.grids import body_grid, in_ct_world, mr_head_grid, t1w_grid
from hedypet_bids.phantom.regions import CT_TASKS, TABLE, code_of, regions

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")
FEW = merged_frames(hedypet_frames(), 2)
TWO = ("18FFDG", "18FPSMA1007")
ONLY_DYNAMIC = {"001": ("ct", "topogram", "static", "mr")}


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One participant without noise: two sessions with two tracers each, and all static reconstructions."""
    return write_phantom(
        tmp_path_factory.mktemp("repeated") / "bids",
        participants=1,
        seed=3,
        size=COARSE,
        frames=FRAMES,
        noise=0.0,
        sessions=2,
        tracers=TWO,
        extra_statics=True,
    )


@pytest.fixture(scope="module")
def known(repeated: Path) -> dict[tuple[str, str], dict]:
    """The truth of each scan by session and tracer."""
    found = [json.loads(path.read_text()) for path in truth_folder(repeated).glob("sub-001*.json")]
    return {(truth["scan"]["session"], truth["scan"]["tracer"]): truth for truth in found}


SCANS = [(session, tracer) for session in ("quadra", "quadra2") for tracer in TWO]


def pet(root: Path, scan: tuple[str, str], reconstruction: str) -> tuple[np.ndarray, Grid, dict]:
    session, tracer = scan
    stem = f"sub-001_ses-{session}_trc-{tracer}_rec-{reconstruction}_pet"
    path = root / "sub-001" / f"ses-{session}" / "pet" / f"{stem}.nii.gz"
    image = nib.load(path)
    sidecar = json.loads((path.parent / f"{stem}.json").read_text())
    return np.asarray(image.dataobj), Grid(image.shape[:3], image.affine), sidecar


def convolved(truth: dict, name: str, start_s: np.ndarray, end_s: np.ndarray) -> np.ndarray:
    """The frame averages of a region by discrete convolution with the textbook impulse response."""
    step_s = 0.05
    t = np.arange(0.0, 4200.0, step_s) + step_s / 2
    blood = feng_input(t, FengInput(**truth["input_parameters"]))
    k = {"k4": 0.0, **truth["kinetics"][name]}
    total = k["k2"] + k["k3"] + k["k4"]
    root = np.sqrt(total**2 - 4 * k["k2"] * k["k4"])
    slow, fast = (total - root) / 2, (total + root) / 2
    response = np.zeros_like(t)
    if k["K1"] > 0:
        weights = k["k3"] + k["k4"] - slow, fast - k["k3"] - k["k4"]
        decays = (np.exp(-rate * (t - step_s / 2) / 60.0) for rate in (slow, fast))
        response = k["K1"] / (fast - slow) * sum(w * d for w, d in zip(weights, decays, strict=True))
    # The trapezoidal rule: blood of this very moment counts half.
    tissue = (signal.fftconvolve(blood, response)[: t.size] - blood * response[0] / 2) * step_s / 60.0
    curve = (1 - k["vb"]) * tissue + k["vb"] * blood
    return np.array([curve[(t > a) & (t < b)].mean() for a, b in zip(start_s, end_s, strict=True)])


# --- what each scan holds -----------------------------------------------------------------------


@pytest.mark.parametrize("scan", SCANS)
def test_curves_are_those_of_a_convolution(known: dict, scan: tuple[str, str]) -> None:
    truth = known[scan]
    start = np.array(truth["frame_start_s"])
    end = start + truth["frame_duration_s"]
    for name in ("liver", "gray_matter", "muscle", "kidney", "csf", "blood", "urine"):
        expected = convolved(truth, name, start, end)
        np.testing.assert_allclose(truth["curves"][name], expected, rtol=0.001, atol=2.0, err_msg=name)
        static = convolved(truth, name, np.array([3000.0]), np.array([4200.0]))[0]
        assert truth["static"][name] == pytest.approx(static, rel=0.001)


@pytest.mark.parametrize("reconstruction", ["acdynPSF", "acstatPSF", "acstatOSEM", "acstatOSEMhead"])
@pytest.mark.parametrize("scan", SCANS)
def test_region_means_are_the_truth(
    repeated: Path, known: dict, scan: tuple[str, str], reconstruction: str
) -> None:
    data, grid, sidecar = pet(repeated, scan, reconstruction)
    truth = known[scan]
    values = truth["static"]
    if reconstruction == "acdynPSF":
        assert sidecar["FrameTimesStart"] == truth["frame_start_s"]
        assert sidecar["FrameDuration"] == truth["frame_duration_s"]
        values = truth["curves"]
    # Where the labels are is asked of the first session's body, moved by the pose that the truth gives.
    moved = Grid(grid.shape, np.linalg.inv(truth["pose"]) @ grid.affine)
    codes = sample_labels(moved, make_participant(1, seed=3))
    checked = 0
    for task in ("total", "synthseg"):
        table, labels = label_table(task), label_lut(task)[codes]
        for index, name in zip(table.indices, table.names, strict=True):
            if name in values and (labels == index).any():
                # Stored values are whole Bq/mL.
                mean = data[labels == index].mean(axis=0, dtype=np.float64)
                np.testing.assert_allclose(mean, values[name], atol=0.51, err_msg=name)
                checked += 1
    assert checked > (25 if reconstruction.endswith("head") else 80)


def test_further_tracers_are_reversible_with_their_distribution_volumes(known: dict) -> None:
    truth = known["quadra2", "18FPSMA1007"]
    k = truth["kinetics"]["liver"]
    assert truth["vt"]["liver"] == pytest.approx(k["K1"] / k["k2"] * (1 + k["k3"] / k["k4"]))
    assert "ki" not in truth
    assert "vt" not in known["quadra2", "18FFDG"]


@pytest.mark.parametrize("tracer", list(TRACERS))
def test_hedypet_reads_dose_nuclide_and_frames_of_every_tracer(tmp_path: Path, tracer: str) -> None:
    root = write_phantom(
        tmp_path / "bids",
        participants=1,
        seed=2,
        size=COARSE,
        frames=FRAMES,
        sessions=0,
        tracers=[tracer],
        without=ONLY_DYNAMIC,
    )
    truth = json.loads((truth_folder(root) / "sub-001.json").read_text())
    (path,) = root.glob("sub-001/pet/*_rec-acdynPSF_pet.json")
    sidecar = json.loads(path.read_text())
    found = read_pet_metadata(sidecar, n_frames=len(FRAMES), where=path.name)
    assert found.dose_bq == pytest.approx(truth["participant"]["dose_bq"])
    assert found.half_life_s == pytest.approx(TRACERS[tracer].half_life_s)
    assert sidecar.get("RadionuclideHalfLife", found.half_life_s) == pytest.approx(found.half_life_s)
    np.testing.assert_array_equal(found.decay_factor, 1.0)
    np.testing.assert_array_equal(found.frames.start_s, truth["frame_start_s"])


def test_each_tracer_has_its_own_injection_and_frames(repeated: Path) -> None:
    first, second = (pet(repeated, ("quadra", tracer), "acdynPSF")[2] for tracer in TWO)
    assert first["TimeZero"] < second["TimeZero"]
    assert (len(first["FrameDuration"]), len(second["FrameDuration"])) == (20, 10)
    assert sum(first["FrameDuration"]) == sum(second["FrameDuration"]) == 4200.0
    assert first["InjectedRadioactivity"] != second["InjectedRadioactivity"]


def test_no_more_activity_is_in_the_body_than_was_injected() -> None:
    for number in (1, 2, 5):
        person = make_participant(number, seed=number)
        grid = body_grid(COARSE.static, person)
        counts = np.bincount(sample_labels(grid, person).ravel(), minlength=len(regions()))
        (session,) = make_sessions(
            person, sessions=1, tracers=tuple(TRACERS.values()), runs=1, frames=hedypet_frames()
        )
        for scan in session.scans:
            activity = np.array([scan.static_curves[region.material][0] for region in regions()])
            inside = (activity * counts).sum() * grid.voxel_volume_ml
            assert 0.3 < inside / (scan.participant.dose_mbq * 1e6) < 0.98


def test_delays_and_sampled_blood_have_their_truth(tmp_path: Path) -> None:
    root = write_phantom(
        tmp_path / "bids",
        participants=1,
        seed=3,
        size=COARSE,
        frames=FRAMES,
        sessions=2,
        tracers=TWO,
        delays=True,
        blood=True,
        without={"001": ("ct", "topogram", "static", "mr")},
    )
    # FDG is not let go again, so that it has no distribution volume that blood samples could show.
    paths = sorted(root.rglob("*_blood.tsv"))
    assert [path.name for path in paths] == [
        f"sub-001_ses-{session}_trc-18FPSMA1007_recording-manual_blood.tsv"
        for session in ("quadra", "quadra2")
    ]
    name = "sub-001_ses-quadra_trc-18FPSMA1007.json"
    truth = json.loads((truth_folder(root) / name).read_text())
    samples = pd.read_csv(paths[0], sep="\t").set_index("time")
    known, blood = FengInput(**truth["input_parameters"]), truth["blood"]
    since_s = np.maximum(samples.index - known.delay_s, 0)
    parent = blood["parent_last"] + (1 - blood["parent_last"]) * np.exp(-since_s / blood["parent_s"])
    np.testing.assert_allclose(samples["metabolite_parent_fraction"], parent, rtol=1e-6)
    tracer = samples["plasma_radioactivity"] * parent
    np.testing.assert_allclose(tracer, feng_input(samples.index.to_numpy(), known), rtol=1e-6)
    ratio = samples["plasma_radioactivity"] / samples["whole_blood_radioactivity"].replace(0, np.nan)
    np.testing.assert_allclose(ratio.dropna(), blood["plasma_to_blood"], rtol=1e-6)
    assert samples.index[-1] == 4200 and ratio.notna().sum() > 50

    start = np.array(truth["frame_start_s"])
    end = start + truth["frame_duration_s"]
    t = np.arange(0.005, 4300.0, 0.01)
    whole = feng_input(t, known) / (
        blood["parent_last"]
        + (1 - blood["parent_last"]) * np.exp(-np.maximum(t - known.delay_s, 0) / blood["parent_s"])
    )
    whole /= blood["plasma_to_blood"]
    means = np.array([whole[(t > a) & (t < b)].mean() for a, b in zip(start, end, strict=True)])
    np.testing.assert_allclose(blood["whole_blood"], means, rtol=1e-4, atol=0.1)
    np.testing.assert_allclose(truth["curves"]["blood"], means, rtol=1e-4, atol=0.1)
    # Tissue is that of the tracer in plasma with vessels that hold whole blood, both later than in the aorta.
    for region in ("liver", "muscle"):
        k = truth["kinetics"][region]
        assert k["delay_s"] > 5
        later = {**truth, "input_parameters": {**vars(known), "delay_s": known.delay_s + k["delay_s"]}}
        without = {**later["kinetics"], region: {**k, "vb": 0.0}}
        tissue = convolved({**later, "kinetics": without}, region, start, end)
        moved = np.interp(t - k["delay_s"], t, whole, left=0)
        vessels = np.array([moved[(t > a) & (t < b)].mean() for a, b in zip(start, end, strict=True)])
        expected = (1 - k["vb"]) * tissue + k["vb"] * vessels
        np.testing.assert_allclose(truth["curves"][region], expected, rtol=0.001, atol=2.0)
    free = truth["kinetics"]["cerebellar_cortex"]
    assert free["k3"] == 0 and free["vt"] == pytest.approx(free["K1"] / free["k2"])
    assert truth["bp_nd"]["gray_matter"] == pytest.approx(truth["vt"]["gray_matter"] / free["vt"] - 1)


# --- what differs between sessions --------------------------------------------------------------


def test_the_truth_says_how_each_region_differs_from_the_first_scan(known: dict) -> None:
    for tracer, net in zip(TWO, ("ki", "vt"), strict=True):
        first, second = known["quadra", tracer], known["quadra2", tracer]
        differing = 0
        for name, factors in second["within_subject_factors"].items():
            for key, ratio in factors.items():
                before, after = (truth["kinetics"][name][key] for truth in (first, second))
                assert after == pytest.approx(before * ratio, rel=1e-9)
                assert set(first["within_subject_factors"][name].values()) == {1.0}
                differing += before > 0 and ratio != 1.0
            assert set(factors) == {"K1", net, "vb"}
        assert differing > 100


def test_within_subject_differences_have_the_spread_that_the_truth_states() -> None:
    changes = []
    for number in range(1, 41):
        sessions = make_sessions(
            make_participant(number, seed=6),
            sessions=3,
            tracers=[TRACERS["18FFDG"]],
            runs=1,
            frames=FRAMES,
        )
        k = [
            [s.scans[0].participant.kinetics[m].ki for m in ("liver", "gray_matter", "muscle")]
            for s in sessions
        ]
        changes.append(np.log(k))
    # The same between any two of the sessions: the first is not a special one.
    log_ki = np.array(changes)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        within = np.sqrt(((log_ki[:, a] - log_ki[:, b]) ** 2).mean() / 2)
        assert within == pytest.approx(0.05, rel=0.2)


def test_the_body_is_carried_to_the_pose_of_its_session() -> None:
    person = make_participant(1, seed=3)
    first, second = make_sessions(person, sessions=2, tracers=[TRACERS["18FFDG"]], runs=1, frames=FRAMES)
    grid = body_grid(SIZES["tiny"].ct, person)
    codes = [sample_labels(grid, s.participant, table=True) for s in (first, second)]
    table = label_table("total")

    def centre(codes: np.ndarray, grid: Grid, name: str) -> np.ndarray:
        voxels = np.argwhere(label_lut("total")[codes] == table.index_of(name))
        return grid.affine @ [*voxels.mean(axis=0), 1.0]

    pose = second.participant.pose
    for name in ("brain", "liver", "urinary_bladder", "lung_upper_lobe_left", "kidney_right"):
        before, after = (centre(c, grid, name) for c in codes)
        np.testing.assert_allclose(after, pose @ before, atol=1.0, err_msg=name)
    assert np.linalg.norm(pose[:3, 3]) > 1.0
    angle = np.degrees(np.arccos((np.trace(pose[:3, :3]) - 1) / 2))
    assert 0.1 < angle < 3.0

    # The MR, of one session, goes to the CT of either.
    mr = mr_head_grid(SIZES["tiny"].mprage, person)
    parcels = sample_labels(in_ct_world(mr, person.mr2ct_head), person)
    for session, c in zip((first, second), codes, strict=True):
        moved = session.participant.mr2ct_head @ centre(parcels, mr, "brain")
        np.testing.assert_allclose(moved, centre(c, grid, "brain"), atol=1.0)

    # The table stays where it is.
    bare = [c == code_of(TABLE) for c in codes]
    assert bare[0].sum() > 1000
    assert np.mean(bare[0] != bare[1]) < 0.1 * np.mean(bare[0])


def test_volumes_are_those_of_the_labels_of_each_session(repeated: Path, known: dict) -> None:
    derivatives = repeated / "derivatives"
    for session in ("quadra", "quadra2"):
        for task in CT_TASKS:
            (path,) = derivatives.glob(f"*/sub-001/ses-{session}/ct/*_seg-{task}_dseg.nii.gz")
            image = nib.load(path)
            data, voxel_ml = np.asarray(image.dataobj), abs(np.linalg.det(image.affine)) / 1000.0
            table = label_table(task)
            for tracer in TWO:
                volumes = known[session, tracer]["volumes_ml"]
                assert "synthseg" in volumes
                for index, name in zip(table.indices, table.names, strict=True):
                    volume = np.count_nonzero(data == index) * voxel_ml
                    assert volumes[task][name] == pytest.approx(volume)
    liver = [known[session, TWO[0]]["volumes_ml"]["total"]["liver"] for session in ("quadra", "quadra2")]
    assert liver[0] == pytest.approx(liver[1], rel=0.1)


def test_the_sessions_table_has_weights_and_an_order(repeated: Path, known: dict) -> None:
    folder = repeated / "sub-001"
    table = pd.read_csv(folder / "sub-001_sessions.tsv", sep="\t", index_col="session_id")
    assert list(table.index) == ["ses-quadra", "ses-vida", "ses-quadra2"]
    assert pd.to_datetime(table["acq_time"]).is_monotonic_increasing
    assert json.loads((folder / "sub-001_sessions.json").read_text())["weight"]["Units"] == "kg"
    for (session, _), truth in known.items():
        weight = truth["participant"]["weight_kg"]
        assert table.loc[f"ses-{session}", "weight"] == weight
        assert truth["suv"] == pytest.approx(truth["participant"]["dose_bq"] / weight / 1000.0)
    assert np.isnan(table.loc["ses-vida", "weight"])
    assert 0.4 < abs(table.loc["ses-quadra", "weight"] - table.loc["ses-quadra2", "weight"]) < 2.1
    weight = pd.read_csv(repeated / "participants.tsv", sep="\t")["weight"][0]
    assert weight == table.loc["ses-quadra", "weight"]


def test_the_head_reconstruction_holds_the_whole_brain_in_small_voxels() -> None:
    for number in (1, 2, 5):
        for session in make_sessions(
            make_participant(number, seed=number),
            sessions=2,
            tracers=[TRACERS["18FFDG"]],
            runs=1,
            frames=FRAMES,
        ):
            person, voxels = session.participant, SIZES["tiny"].static
            whole, head = body_grid(voxels, person), t1w_grid(voxels, person)
            np.testing.assert_allclose(head.voxel_sizes_mm, whole.voxel_sizes_mm / 2)
            brains = [label_lut("total")[sample_labels(g, person)] == 90 for g in (whole, head)]
            assert label_table("total").index_of("brain") == 90
            volumes = [b.sum() * g.voxel_volume_ml for b, g in zip(brains, (whole, head), strict=True)]
            assert volumes[0] == pytest.approx(volumes[1], rel=0.02)
            inner = brains[1][1:-1, 1:-1, 1:-1]
            assert inner.sum() == brains[1].sum()


# --- datasets -----------------------------------------------------------------------------------

VARIANTS = {
    "two sessions, two tracers": {"sessions": 2, "tracers": TWO, "extra_statics": True},
    "no sessions, two tracers, two runs": {"sessions": 0, "tracers": ("18FFDG", "11CUCBJ"), "runs": 2},
    "three sessions, two runs": {"sessions": 3, "runs": 2},
}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_the_validator_accepts_every_layout(tmp_path: Path, name: str) -> None:
    root = write_phantom(tmp_path / "bids", participants=1, seed=1, size=COARSE, frames=FEW, **VARIANTS[name])
    done = subprocess.run([VALIDATOR, root, "--ignoreWarnings"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def files(root: Path, pattern: str = "*") -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob(pattern) if p.is_file()}


def test_the_first_scan_is_that_of_a_dataset_with_one_scan(tmp_path: Path) -> None:
    one, many = (
        write_phantom(tmp_path / name, participants=1, seed=5, size=COARSE, frames=FEW, **options)
        for name, options in (("one", {}), ("many", {"sessions": 2, "tracers": TWO}))
    )
    before, after = files(one), files(many)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"README"}
    images = {n.removeprefix("sub-001/").split("_", 1)[1] for n in before if n.startswith("sub-001/")}
    assert {name.split(".")[0] for name in images} == {
        "ses-quadra_Xray",
        "ses-quadra_rec-ac_ct",
        "ses-quadra_rec-br38f_ct",
        "ses-quadra_trc-18FFDG_rec-acdynPSF_pet",
        "ses-quadra_trc-18FFDG_rec-acstatPSF_pet",
        "ses-vida_acq-DIXONbodyF_T1w",
        "ses-vida_acq-DIXONbodyIN_T1w",
        "ses-vida_acq-DIXONbodyOPP_T1w",
        "ses-vida_acq-DIXONbodyW_T1w",
        "ses-vida_acq-DIXONheadIN_T1w",
        "ses-vida_acq-DIXONheadOPP_T1w",
        "ses-vida_acq-FASTVIEW_T1w",
        "ses-vida_acq-MPRAGE_T1w",
    }
    assert sorted(files(truth_folder(one))) == ["sub-001.json"]
    single = json.loads((truth_folder(one) / "sub-001.json").read_text())
    first = json.loads((truth_folder(many) / "sub-001.json").read_text())
    assert single.items() <= first.items()
    assert "scan" not in single


def test_sessions_have_noise_and_ct_of_their_own(tmp_path: Path) -> None:
    root = write_phantom(tmp_path / "bids", participants=1, seed=1, size=COARSE, frames=FEW, sessions=2)
    for kind in ("pet", "ct"):
        pairs = [
            sorted((root / "sub-001" / f"ses-{s}" / kind).glob("*.nii.gz")) for s in ("quadra", "quadra2")
        ]
        for first, second in zip(*pairs, strict=True):
            assert first.name.replace("ses-quadra_", "ses-quadra2_") == second.name
            images = [np.asarray(nib.load(path).dataobj) for path in (first, second)]
            assert images[0].shape == images[1].shape
            assert not np.array_equal(*images)


def test_a_dataset_without_sessions_names_none(tmp_path: Path) -> None:
    root = write_phantom(
        tmp_path / "bids", participants=1, seed=1, size=COARSE, frames=FEW, sessions=0, tracers=TWO
    )
    names = sorted(files(root))
    assert not [name for name in names if "ses" in Path(name).name.split("-")[0] or "ses-" in name]
    assert {Path(name).parent.as_posix() for name in names if name.startswith("sub-")} == {
        "sub-001/anat",
        "sub-001/ct",
        "sub-001/pet",
    }
    assert sorted(files(truth_folder(root))) == ["sub-001.json", "sub-001_trc-18FPSMA1007.json"]


def test_runs_are_injections_of_the_same_day(tmp_path: Path) -> None:
    root = write_phantom(
        tmp_path / "bids",
        participants=1,
        seed=1,
        size=COARSE,
        frames=FRAMES,
        runs=2,
        tracers=["18FPSMA1007"],
        without=ONLY_DYNAMIC,
    )
    sidecars = [
        json.loads((root / f"sub-001/ses-quadra/pet/{stem}.json").read_text())
        for stem in (f"sub-001_ses-quadra_trc-18FPSMA1007_rec-acdynPSF_run-{run}_pet" for run in (1, 2))
    ]
    assert sidecars[0]["TimeZero"] < sidecars[1]["TimeZero"]
    assert sidecars[0]["InjectedRadioactivity"] != sidecars[1]["InjectedRadioactivity"]
    assert sorted(files(truth_folder(root))) == [
        "sub-001.json",
        "sub-001_ses-quadra_trc-18FPSMA1007_run-2.json",
    ]


def test_pieces_of_one_session_can_be_left_out(tmp_path: Path) -> None:
    without = {"001/quadra2": ("ct", "dynamic"), "001/vida": ("mr",), "002": ("static",)}
    root = write_phantom(
        tmp_path / "bids", participants=2, seed=1, size=COARSE, frames=FEW, sessions=2, without=without
    )
    names = set(files(root, "*.nii.gz"))
    assert not [n for n in names if "sub-001" in n and "ses-vida" in n]
    assert not [n for n in names if "acstatPSF" in n and "sub-002" in n]
    assert {Path(n).name.split("_", 2)[2] for n in names if n.startswith("sub-001/ses-quadra2")} == {
        "Xray.nii.gz",
        "trc-18FFDG_rec-acstatPSF_pet.nii.gz",
    }
    assert any("sub-001_ses-quadra_trc-18FFDG_rec-acdynPSF" in n for n in names)
    truth = json.loads((truth_folder(root) / "sub-001_ses-quadra2_trc-18FFDG.json").read_text())
    assert truth["volumes_ml"] == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sessions": 10}, "0 to 9"),
        ({"sessions": -1}, "0 to 9"),
        ({"tracers": ()}, "tracers must be of"),
        ({"tracers": ("18FFDG", "18FFDG")}, "each once"),
        ({"tracers": ("15OH2O",)}, "15OH2O"),
        ({"runs": 0}, "1 to 8"),
        ({"runs": 5, "tracers": TWO}, "1 to 4"),
        ({"without": {"001/quadra2": ("ct",)}}, "001/quadra2"),
        ({"sessions": 0, "without": {"001/quadra": ("ct",)}}, "001/quadra"),
    ],
)
def test_impossible_scans_are_refused_and_leave_nothing(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_phantom(tmp_path / "new", participants=1, seed=1, size="tiny", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_gives_all_scans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--participants 1 --frames 2 --sessions 2 --tracers 11CUCBJ 18FFDG --extra-statics"
    assert main([str(tmp_path / "bids"), *words.split()]) == 0
    assert str(tmp_path / "bids") in capsys.readouterr().out
    scans = {p.name.split("_rec-")[0] for p in (tmp_path / "bids").glob("sub-001/*/pet/*.nii.gz")}
    assert scans == {
        f"sub-001_ses-{session}_trc-{tracer}"
        for session in ("quadra", "quadra2")
        for tracer in ("11CUCBJ", "18FFDG")
    }
    assert main([str(tmp_path / "other"), "--runs", "9"]) == 2
    assert "1 to 8" in capsys.readouterr().err
