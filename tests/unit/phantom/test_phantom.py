"""The phantom against formulas, numerical integration and the BIDS validator."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from coarse_phantom import COARSE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from hedypet_bids.cli.phantom import main
from hedypet_bids.errors import UsageError
from hedypet_bids.labels import label_table
from hedypet_bids.model import FrameTimes, Grid
from hedypet_bids.phantom import (
    SIZES,
    Kinetics,
    Voxels,
    aorta_centreline_mm,
    closed_form_volumes_ml,
    feng_input,
    hedypet_frames,
    input_function,
    irreversible_two_tissue,
    label_lut,
    make_participant,
    material_curves,
    merged_frames,
    sample_labels,
    scaled_feng_input,
    tissue_curve,
    truth_folder,
    write_phantom,
)
from hedypet_bids.phantom.grids import body_grid, in_ct_world, mr_body_grid, mr_head_grid, projected
from hedypet_bids.phantom.images import pet_slabs
from hedypet_bids.phantom.regions import MR_TASKS, TASKS, code_of, regions
from hedypet_bids.phantom.shapes import Cone, Ellipsoid, Stroke, paint

BLOOD = scaled_feng_input(6000.0, delay_s=15.0)
VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")

BLURRED = replace(COARSE, psf_fwhm_mm=4.0)


def load(root: Path, pattern: str) -> tuple[np.ndarray, Grid, Path]:
    (path,) = root.glob(f"**/{pattern}.nii.gz")
    image = nib.load(path)
    return np.asarray(image.dataobj), Grid(image.shape[:3], image.affine), path


@pytest.fixture(scope="module")
def noiseless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny participants without noise; the second lacks some pieces."""
    out = tmp_path_factory.mktemp("phantom") / "bids"
    without = {"002": ("dynamic", "mr", "topogram")}
    return write_phantom(out, participants=2, seed=3, size="tiny", without=without, noise=0.0)


@pytest.fixture(scope="module")
def known(noiseless: Path) -> dict:
    return json.loads((truth_folder(noiseless) / "sub-001.json").read_text())


# --- kinetics ---------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    K1=st.floats(0.01, 0.9),
    k2=st.floats(0.0, 1.2),
    k3=st.floats(0.001, 0.2),
    vb=st.floats(0.0, 0.5),
    k4=st.one_of(st.just(0.0), st.floats(0.001, 0.2)),
)
def test_frame_averages_are_those_of_a_differential_equation_solver(
    K1: float, k2: float, k3: float, vb: float, k4: float
) -> None:
    frames = FrameTimes(
        start_s=np.array([0.0, 20.0, 60.0, 900.0]), duration_s=np.array([20.0, 20.0, 300, 600])
    )

    def slope(t_min: float, y: np.ndarray) -> list[float]:
        cp = float(feng_input(np.array([t_min * 60.0]), BLOOD)[0])
        back = k4 * y[1]
        return [K1 * cp - (k2 + k3) * y[0] + back, k3 * y[0] - back, (1 - vb) * (y[0] + y[1]) + vb * cp]

    arrival = BLOOD.delay_s / 60.0
    edges = np.unique(np.concatenate([frames.start_s, frames.end_s]) / 60.0)
    solved = integrate.solve_ivp(
        slope,
        (arrival, edges[-1]),
        [0, 0, 0],
        t_eval=edges[edges > arrival],
        rtol=1e-9,
        atol=1e-6,
        max_step=0.1,
    )
    area = np.concatenate([np.zeros((edges <= arrival).sum()), solved.y[2]])
    expected = [
        (area[np.searchsorted(edges, end / 60)] - area[np.searchsorted(edges, start / 60)])
        / ((end - start) / 60)
        for start, end in zip(frames.start_s, frames.end_s, strict=True)
    ]
    found = tissue_curve(frames, BLOOD, Kinetics(K1, k2, k3, vb, k4))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-3)
    if k4 == 0:
        same = irreversible_two_tissue(frames, K1=K1, k2=k2, k3=k3, vb=vb, input_parameters=BLOOD)
        np.testing.assert_array_equal(same, found)


@pytest.mark.parametrize("k3, k4", [(0.0, 0.0), (0.05, 0.02), (0.15, 0.03)])
def test_the_area_under_a_reversible_curve_is_that_of_blood_times_the_distribution_volume(
    k3: float, k4: float
) -> None:
    k = Kinetics(0.3, 0.1, k3, 0.0, k4)
    # So long that nothing is left.
    frames = FrameTimes(start_s=np.array([0.0]), duration_s=np.array([4e5]))
    areas = [float(curve[0]) for curve in (tissue_curve(frames, BLOOD, k), input_function(frames, BLOOD))]
    assert areas[0] / areas[1] == pytest.approx(k.vt, rel=1e-4)
    assert k.ki == 0.0


def test_without_release_the_distribution_volume_is_infinite() -> None:
    assert Kinetics(0.1, 0.1, 0.05, 0.05).vt == np.inf
    assert Kinetics(0.0, 0.0, 0.0, 1.0).vt == 0.0


@pytest.mark.parametrize("k4", [0.0, 0.02])
def test_a_scaled_tissue_has_the_wanted_ratios(k4: float) -> None:
    k = Kinetics(0.1, 0.13, 0.06, 0.05, k4)
    other = k.scaled(K1=1.1, net=0.93, vb=1.2)
    assert pytest.approx(1.1) == other.K1 / k.K1
    assert other.vb / k.vb == pytest.approx(1.2)
    assert (other.vt / k.vt if k4 else other.ki / k.ki) == pytest.approx(0.93)


def test_input_function_averages_are_those_of_quadrature() -> None:
    frames = hedypet_frames()
    found = input_function(frames, BLOOD)
    for start, end, value in zip(frames.start_s, frames.end_s, found, strict=True):
        area, _ = integrate.quad(
            lambda t: feng_input(np.array([t]), BLOOD)[0],
            start,
            end,
            points=[15.0],
            epsabs=1e-6,
            epsrel=1e-10,
        )
        assert value == pytest.approx(area / (end - start), rel=1e-8, abs=1e-9)


def test_bolus_comes_late_peaks_early_and_ends_at_the_wanted_level() -> None:
    t = np.arange(0.0, 4200.0, 0.5)
    curve = feng_input(t, BLOOD)
    assert (curve[t <= 15.0] == 0).all()
    assert (curve[t > 15.0] > 0).all()
    assert 25.0 < t[curve.argmax()] < 35.0
    assert curve[t == 3600.0] == pytest.approx(6000.0)


def test_curves_with_equal_rates_are_the_limit_of_unequal_ones() -> None:
    frames = hedypet_frames()
    equal, near = (
        irreversible_two_tissue(frames, K1=0.1, k2=k2, k3=0.05, vb=0.05, input_parameters=BLOOD)
        for k2 in (BLOOD.l2 - 0.05, BLOOD.l2 - 0.05 + 1e-9)
    )
    np.testing.assert_allclose(equal, near, rtol=1e-7)


@pytest.mark.parametrize("material", ["gray_matter", "white_matter", "muscle", "liver", "urine"])
def test_late_patlak_slope_tends_to_the_net_influx_rate(material: str) -> None:
    person = make_participant(1, seed=1)
    k = person.kinetics[material]
    # Frames so short and late that averages are values and only bound tracer still grows.
    start = np.arange(0.0, 5 * 3600.0, 60.0)
    frames = FrameTimes(start_s=start, duration_s=np.full(start.size, 60.0))
    cp = input_function(frames, person.blood)
    tissue = irreversible_two_tissue(
        frames, K1=k.K1, k2=k.k2, k3=k.k3, vb=k.vb, input_parameters=person.blood
    )
    area_min = np.cumsum(cp) - cp / 2
    late = start > 4 * 3600.0
    slope = np.polyfit(area_min[late] / cp[late], tissue[late] / cp[late], 1)[0]
    assert slope == pytest.approx((1 - k.vb) * k.K1 * k.k3 / (k.k2 + k.k3), rel=0.01)


@pytest.mark.parametrize("n_frames", [1, 2, 12, 69])
def test_merged_frames_cover_the_same_time_and_activity(n_frames: int) -> None:
    whole = hedypet_frames()
    merged = merged_frames(whole, n_frames)
    assert len(merged) == n_frames
    assert (merged.start_s[0], merged.end_s[-1]) == (0.0, 4200.0)
    areas = [(input_function(f, BLOOD) * f.duration_s).sum() for f in (whole, merged)]
    assert areas[0] == pytest.approx(areas[1], rel=1e-10)


# --- shapes and anatomy -----------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    centre=st.tuples(*[st.floats(-20, 20)] * 3),
    semi=st.tuples(*[st.floats(6, 18)] * 3),
    angle=st.floats(0, 1.5),
    shift=st.integers(0, 2),
)
def test_painting_equals_asking_at_every_voxel(
    centre: tuple[float, float, float], semi: tuple[float, float, float], angle: float, shift: int
) -> None:
    affine = np.eye(4)
    c, s = np.cos(angle), np.sin(angle)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]) @ np.diag([2.0, 3.0, 2.5])
    affine[:3, :3] = np.roll(affine[:3, :3], shift, axis=1)
    grid = Grid((23, 17, 21), affine)
    # Not a round number: no voxel centre shall lie exactly on a surface.
    affine[:3, 3] = -affine[:3, :3] @ (np.array(grid.shape) - 1) / 2 + np.pi / 7
    grid = Grid(grid.shape, affine)
    ball, cone = Ellipsoid(centre, semi), Cone(centre, (0.0, 5.0, -9.0), 7.0, 3.0)
    painted = paint([Stroke(ball, 1), Stroke(cone, 2, over=frozenset({1}))], grid, np.eye(4))
    index = np.indices(grid.shape).reshape(3, -1)
    x, y, z = affine[:3, :3] @ index + affine[:3, 3:]
    in_ball = ball.inside(x, y, z).reshape(grid.shape)
    in_cone = cone.inside(x, y, z).reshape(grid.shape)
    assert np.count_nonzero(painted != in_ball * (1 + in_cone)) == 0


@pytest.mark.parametrize("number", [1, 2])
def test_volumes_of_ellipsoids_follow_the_formula(number: int) -> None:
    person = make_participant(number, seed=5)
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = -120.0, -100.0, -360.0 * person.scale
    trunk = Grid((160, 120, 250), affine)
    affine = np.diag([0.9, 0.9, 0.9, 1.0])
    affine[:3, 3] = -50.0, -60.0, 405.0 * person.scale
    head = Grid((110, 120, 90), affine)
    volumes = np.zeros(len(regions()))
    for grid in (trunk, head):
        codes = sample_labels(grid, person).ravel()
        volumes += np.bincount(codes, minlength=len(regions())) * grid.voxel_volume_ml
    for name, volume in closed_form_volumes_ml(person).items():
        assert volumes[code_of(name)] == pytest.approx(volume, rel=0.02), name


def test_the_body_is_the_same_in_every_orientation_and_grid() -> None:
    person = make_participant(1, seed=2)
    seen = []
    for axes in ("LAS", "RAS", "LPS", "RPI", "RSA", "PIL"):
        turned = replace(person, orientation=axes)
        grid = body_grid(COARSE.ct, turned)
        assert "".join(nib.aff2axcodes(grid.affine)) == axes
        image = nib.Nifti1Image(sample_labels(grid, turned), grid.affine)
        seen.append(nib.as_closest_canonical(image))
    for image in seen[1:]:
        np.testing.assert_allclose(image.affine, seen[0].affine)
        np.testing.assert_array_equal(image.dataobj, seen[0].dataobj)


@pytest.mark.parametrize("number", range(1, 7))
def test_the_anatomy_lies_where_it_should(number: int) -> None:
    person = make_participant(number, seed=11)
    grid = body_grid(SIZES["tiny"].ct, person)
    labels = label_lut("total")[sample_labels(grid, person)]
    table = label_table("total")

    def centre(name: str) -> np.ndarray:
        voxels = np.argwhere(labels == table.index_of(name))
        assert len(voxels), name
        return (grid.affine @ [*voxels.mean(axis=0), 1.0])[:3]

    for right in (name for name in table.names if name.endswith("_right") and "cyst" not in name):
        left = right.removesuffix("_right") + "_left"
        if left in table.names:
            assert centre(left)[0] < centre(right)[0]
            # The left brachiocephalic vein crosses over to the superior vena cava on the right.
            assert centre(left)[0] < 0 or left == "brachiocephalic_vein_left"
    assert centre("liver")[0] > 0 > centre("spleen")[0]
    assert centre("urinary_bladder")[2] < centre("heart")[2] < centre("brain")[2]
    assert centre("vertebrae_L3")[1] < centre("urinary_bladder")[1]
    spine = [f"vertebrae_{level}" for level in ("C1", "C7", "T1", "T12", "L1", "L5", "S1")]
    assert (np.diff([centre(name)[2] for name in spine]) < 0).all()
    assert ((labels == table.index_of("prostate")).any()) == (person.sex == "M")
    # Nothing of the body but the legs leaves the field of view.
    whole = np.moveaxis(labels > 0, int(np.argmax(np.abs(grid.affine[2, :3]))), -1)
    assert not whole[0].any() and not whole[-1].any() and not whole[:, 0].any() and not whole[:, -1].any()
    for name in ("skull", "hip_left", "hip_right"):
        z = (np.argwhere(labels == table.index_of(name)) @ grid.affine[:3, :3].T)[:, 2] + grid.affine[2, 3]
        all_z = (np.array([[0, 0, 0], np.array(grid.shape) - 1]) @ grid.affine[:3, :3].T)[:, 2] + grid.affine[
            2, 3
        ]
        assert all_z.min() < z.min() and z.max() < all_z.max()


@pytest.mark.parametrize("number", range(1, 7))
def test_the_aorta_is_wide_enough_and_follows_its_line(number: int) -> None:
    person = make_participant(number, seed=number)
    points, radii = aorta_centreline_mm(person)
    assert radii.min() >= 12.0
    assert points[:, 2].argmax() not in (0, len(points) - 1)
    grid = body_grid(SIZES["tiny"].dynamic, person)
    codes = sample_labels(grid, person)
    voxels = np.rint(np.linalg.solve(grid.affine, np.c_[points, np.ones(len(points))].T)[:3]).astype(int)
    assert (codes[tuple(voxels)] == code_of("aorta")).all()


def test_every_region_has_a_voxel_and_every_label_of_the_brain_occurs_in_tiny_images() -> None:
    person = make_participant(2, seed=1)
    grid = in_ct_world(mr_head_grid(SIZES["tiny"].mprage, person), person.mr2ct_head)
    codes = sample_labels(grid, person)
    for task in MR_TASKS:
        assert set(np.unique(label_lut(task)[codes])) == {0, *label_table(task).indices}


def test_activity_in_the_field_of_view_is_plausible() -> None:
    for number in range(1, 7):
        person = make_participant(number, seed=number)
        grid = body_grid(SIZES["tiny"].dynamic, person)
        frame = FrameTimes(start_s=np.array([3000.0]), duration_s=np.array([1200.0]))
        curves = material_curves(person, frame)
        lut = np.array([curves[region.material][0] for region in regions()])
        inside = lut[sample_labels(grid, person)].sum() * grid.voxel_volume_ml
        # Quality range of the published hedyPET data.
        assert 0.6 < inside / (person.dose_mbq * 1e6) < 0.98


# --- datasets ---------------------------------------------------------------------------------


def test_the_validator_accepts_the_dataset(noiseless: Path) -> None:
    done = subprocess.run([VALIDATOR, noiseless, "--ignoreWarnings"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_dataset_has_the_names_of_the_acceptance_data(noiseless: Path) -> None:
    shared = Path(__file__).resolve().parents[4] / "shared" / "data" / "realistic"
    if not shared.is_dir():
        pytest.skip(f"needs the acceptance data in {shared}")
    wanted = {p.relative_to(shared).as_posix() for p in shared.rglob("*sub-001*") if p.is_file()}
    found = {p.relative_to(noiseless).as_posix() for p in noiseless.rglob("*sub-001*") if p.is_file()}
    assert wanted <= found
    assert {n for n in found - wanted if "_dseg.tsv" not in n} == set()


def test_pieces_can_be_left_out(noiseless: Path) -> None:
    names = {path.name for path in noiseless.rglob("*sub-002*.nii.gz")}
    assert not [n for n in names if "acdynPSF" in n or "ses-vida" in n or "Xray" in n]
    assert len([n for n in names if "_ct.nii.gz" in n]) == 2
    assert len([n for n in names if "_dseg.nii.gz" in n]) == 3


def test_participants_table_has_units(noiseless: Path, known: dict) -> None:
    header, first, *_ = (
        line.split("\t") for line in (noiseless / "participants.tsv").read_text().splitlines()
    )
    row = dict(zip(header, first, strict=True))
    columns = json.loads((noiseless / "participants.json").read_text())
    assert (columns["weight"]["Units"], columns["height"]["Units"]) == ("kg", "m")
    assert row["participant_id"] == "sub-001"
    assert float(row["weight"]) == known["participant"]["weight_kg"]
    assert known["suv"] == pytest.approx(known["participant"]["dose_bq"] / float(row["weight"]) / 1000)
    assert row["demographic-group"][0] == row["sex"]


@pytest.mark.parametrize("reconstruction", ["acdynPSF", "acstatPSF"])
def test_region_means_are_the_truth(noiseless: Path, known: dict, reconstruction: str) -> None:
    data, grid, path = load(noiseless / "sub-001", f"*rec-{reconstruction}_pet")
    sidecar = json.loads(Path(str(path).replace(".nii.gz", ".json")).read_text())
    assert sidecar["InjectedRadioactivity"] * 1e6 == known["participant"]["dose_bq"]
    if reconstruction == "acdynPSF":
        assert (sidecar["FrameTimesStart"], sidecar["FrameDuration"]) == (
            known["frame_start_s"],
            known["frame_duration_s"],
        )
        truth = known["curves"]
    else:
        assert (sidecar["FrameTimesStart"], sidecar["FrameDuration"]) == ([3000.0], [1200.0])
        truth = known["static"]
        data = data[..., np.newaxis]
    codes = sample_labels(grid, make_participant(1, seed=3))
    checked = 0
    for task in TASKS:
        table = label_table(task)
        labels = label_lut(task)[codes]
        for index, name in zip(table.indices, table.names, strict=True):
            if name in truth and (labels == index).any():
                # Stored values are whole Bq/mL.
                np.testing.assert_allclose(
                    data[labels == index].mean(axis=0, dtype=np.float64), truth[name], atol=0.51
                )
                checked += 1
    assert checked > 150
    np.testing.assert_array_equal(known["curves"]["aorta"], known["input_function"])


def test_static_truth_is_the_window_average_of_the_dynamic_truth(known: dict) -> None:
    start, duration = np.array(known["frame_start_s"]), np.array(known["frame_duration_s"])
    late = start >= 3000.0
    for name, curve in known["curves"].items():
        mean = (np.array(curve) * duration)[late].sum() / duration[late].sum()
        assert known["static"][name] == pytest.approx(mean, rel=1e-9)


def test_label_volumes_are_those_of_the_images(noiseless: Path, known: dict) -> None:
    for task in TASKS:
        data, grid, path = load(noiseless / "derivatives", f"*sub-001*seg-{task}_dseg")
        table = label_table(task)
        written = Path(str(path).replace(".nii.gz", ".tsv")).read_text().splitlines()[1:]
        assert written == [f"{i}\t{n}" for i, n in zip(table.indices, table.names, strict=True)]
        for index, name in zip(table.indices, table.names, strict=True):
            volume = np.count_nonzero(data == index) * grid.voxel_volume_ml
            assert known["volumes_ml"][task][name] == pytest.approx(volume, abs=1e-9)


def test_transforms_take_the_mr_to_the_ct(noiseless: Path, known: dict) -> None:
    ct, ct_grid, _ = load(noiseless / "derivatives", "*sub-001*seg-total_dseg")
    ct_table = label_table("total")
    parcels, mr_grid, _ = load(noiseless / "derivatives", "*sub-001*seg-synthseg_dseg")
    head = np.array(known["mr2ct_head"])
    moved = (head @ mr_grid.affine @ [*np.argwhere(parcels > 0).mean(axis=0), 1.0])[:3]
    fixed = (ct_grid.affine @ [*np.argwhere(ct == ct_table.index_of("brain")).mean(axis=0), 1.0])[:3]
    np.testing.assert_allclose(moved, fixed, atol=1.5)

    body, grid, _ = load(noiseless / "sub-001", "*acq-DIXONbodyIN_T1w")
    labels, total = load(noiseless / "derivatives", "*sub-001*seg-body_dseg")[:2]
    to_ct = np.linalg.inv(total.affine) @ np.array(known["mr2ct_body"]) @ grid.affine
    inside = np.rint(to_ct[:3, :3] @ np.argwhere(body > 0).T + to_ct[:3, 3:]).astype(int)
    kept = ((inside >= 0) & (inside < np.array(labels.shape)[:, None])).all(axis=0)
    assert (labels[tuple(inside[:, kept])] > 0).mean() > 0.93


@pytest.mark.parametrize("seed", range(5))
def test_transforms_are_rigid_and_small(seed: int) -> None:
    person = make_participant(seed + 1, seed=seed)
    for matrix, limit in ((person.mr2ct_head, 5.0), (person.mr2ct_body, 3.0)):
        rotation = matrix[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
        angle = np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))
        assert angle <= np.sqrt(3) * limit * 1.05
    grid = mr_body_grid(COARSE.dixon_body, person)
    middle = person.mr2ct_body @ grid.affine @ [*((np.array(grid.shape) - 1) / 2), 1.0]
    np.testing.assert_allclose(middle[:2], 0.0, atol=1e-9)


def test_topogram_is_the_mean_along_y(noiseless: Path) -> None:
    ct, grid, _ = load(noiseless / "sub-001", "*rec-br38f_ct")
    picture, flat, _ = load(noiseless / "sub-001", "*_Xray")
    expected, axis = projected(grid)
    assert picture.shape[axis] == 1
    assert flat.matches(expected)
    np.testing.assert_allclose(picture, ct.mean(axis=axis, keepdims=True), atol=0.51)


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    frames = merged_frames(hedypet_frames(), 3)
    folders = [
        write_phantom(tmp_path / name / "x", participants=1, seed=seed, size=BLURRED, frames=frames)
        for name, seed in (("a", 7), ("b", 7), ("c", 8))
    ]
    files = [
        {p.relative_to(root.parent): p.read_bytes() for p in sorted(root.parent.rglob("*")) if p.is_file()}
        for root in folders
    ]
    assert files[0] == files[1]
    assert files[0].keys() == files[2].keys()
    same = [p for p, content in files[0].items() if files[2][p] == content and p.name.endswith(".nii.gz")]
    assert same == []
    gzip_header = next(content for p, content in files[0].items() if p.name.endswith(".nii.gz"))[:10]
    assert gzip_header[3] == 0 and gzip_header[4:8] == bytes(4), "no name and no time in the gzip header"


def test_streamed_frames_equal_blurring_the_whole_frame() -> None:
    from scipy import ndimage

    person = make_participant(1, seed=1)
    grid = body_grid(Voxels((60, 42, 150), (7.0, 7.0, 7.0)), person)
    codes = sample_labels(grid, person)
    curve = np.linspace(0.0, 9000.0, len(regions()))
    rng = np.random.default_rng(0)
    slabs = list(pet_slabs(codes, grid, curve, 60.0, rng, fwhm_mm=16.0, noise=0.0))
    assert len(slabs) > 3
    sigma = 16.0 / np.sqrt(8 * np.log(2)) / 7.0
    whole = ndimage.gaussian_filter(curve.astype(np.float32)[codes], sigma, truncate=3.0, mode="nearest")
    np.testing.assert_allclose(np.concatenate(slabs, axis=2), whole, atol=0.51)


def test_noise_has_variance_proportional_to_activity_over_duration() -> None:
    grid = Grid((40, 40, 40), np.diag([2.0, 2.0, 2.0, 1.0]))
    codes = np.ones(grid.shape, dtype=np.int16)
    spread = {}
    for activity, seconds in ((4000.0, 60.0), (16000.0, 60.0), (4000.0, 240.0)):
        curve = np.array([0.0, activity])
        slabs = pet_slabs(codes, grid, curve, seconds, np.random.default_rng(1), fwhm_mm=0.0, noise=1.0)
        values = np.concatenate(list(slabs), axis=2)
        assert values.mean() == pytest.approx(activity, rel=0.01)
        spread[activity, seconds] = values.std()
    assert spread[16000.0, 60.0] == pytest.approx(2 * spread[4000.0, 60.0], rel=0.01)
    assert spread[4000.0, 240.0] == pytest.approx(spread[4000.0, 60.0] / 2, rel=0.01)


# --- command line -----------------------------------------------------------------------------


def test_the_command_refuses_a_folder_with_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main([str(tmp_path), "--participants", "1"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--participants", "0"], "1 to 999"),
        (["--seed", "-1"], "negative"),
        (["--frames", "70"], "1 to 69"),
        (["--frames", "0"], "1 to 69"),
    ],
)
def test_impossible_arguments_end_with_2_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(tmp_path / "new"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("without", [{"009": ("mr",)}, {"001": ("soul",)}])
def test_unknown_pieces_and_participants_are_refused(tmp_path: Path, without: dict) -> None:
    with pytest.raises(UsageError, match="'without' names"):
        write_phantom(tmp_path / "new", participants=1, seed=1, size="tiny", without=without)


def test_a_folder_that_cannot_be_made_is_an_output_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file" / "new")]) == 73
    assert "cannot be made" in capsys.readouterr().err
