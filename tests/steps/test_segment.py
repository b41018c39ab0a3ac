"""Ready segmentations: label schemes told by names, grids in any storage order, and what looks wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_to_output
from running import hedypet, only

from hedypet_bids.errors import BadDataError
from hedypet_bids.inputs.label_schemes import in_task_numbers, names_of_labels
from hedypet_bids.kernels.segmentation_checks import body_mask, cut_regions, segmentation_checks
from hedypet_bids.labels import color, label_table, task
from hedypet_bids.model import Grid
from hedypet_bids.steps.segment import on_image_grid

TOTAL, TISSUE, BODY = task("total"), task("tissue"), task("body")
HERE = Path("seg.nii.gz")


def test_labels_of_totalsegmentator_1_are_renumbered_by_name() -> None:
    maps = pytest.importorskip("totalsegmentator.map_to_binary")
    former = {int(index): str(name) for index, name in maps.class_map["total_v1"].items()}
    labels = np.arange(max(former) + 1, dtype=np.uint8).reshape(1, 1, -1)
    found = in_task_numbers(labels, former, TOTAL, HERE).ravel()
    for index, name in former.items():
        if name in TOTAL.table.names:
            assert found[index] == TOTAL.table.index_of(name), name
        elif name.startswith("heart_"):
            assert found[index] == TOTAL.table.index_of("heart")
        else:
            assert name in ("pulmonary_artery", "face") and found[index] == 0
    assert found[0] == 0


def test_labels_of_total_mr_keep_the_numbers_of_regions_that_total_has() -> None:
    maps = pytest.importorskip("totalsegmentator.map_to_binary")
    named = {int(index): str(name) for index, name in maps.class_map["total_mr"].items()}
    labels = np.arange(max(named) + 1, dtype=np.uint8).reshape(1, 1, -1)
    with pytest.raises(BadDataError, match="lung_left"):
        in_task_numbers(labels, named, TOTAL, HERE)
    of_mr = replace(TOTAL, table_name="totalmr")
    found = dict(zip(["", *named.values()], in_task_numbers(labels, named, of_mr, HERE).ravel(), strict=True))
    assert found.pop("") == 0 and set(found) == set(of_mr.table.names)
    for name, index in found.items():
        assert of_mr.table.index_of(name) == index
        if name in TOTAL.table.names:
            assert index == TOTAL.table.index_of(name)
    own = set(of_mr.table.names) - set(TOTAL.table.names)
    assert own == {"lung_left", "lung_right", "vertebrae", "intervertebral_discs"}
    assert {found[name] for name in own}.isdisjoint(TOTAL.table.indices)


@pytest.mark.parametrize(
    ("what", "named", "expected"),
    [
        (TISSUE, {1: "subcutaneous_fat", 2: "torso_fat", 3: "skeletal_muscle"}, [0, 1, 2, 3]),
        (TISSUE, {1: "skeletal_muscle", 2: "visceral_fat", 3: "subcutaneous_fat"}, [0, 3, 2, 1]),
        (BODY, {1: "body_trunc", 2: "body_extremities"}, [0, 1, 2]),
        (BODY, {}, [0, 1, 2]),
    ],
    ids=["totalsegmentator", "other numbers", "body", "no table"],
)
def test_names_decide_the_number(what, named: dict[int, str], expected: list[int]) -> None:
    labels = np.arange(len(expected), dtype=np.uint8).reshape(-1, 1, 1)
    assert in_task_numbers(labels, named, what, HERE).ravel().tolist() == expected


def test_an_unknown_scheme_is_refused_with_its_names() -> None:
    labels = np.array([[[0, 1, 2]]], np.uint8)
    with pytest.raises(BadDataError, match=r"1 .hepar., 2 .lien."):
        in_task_numbers(labels, {1: "hepar", 2: "lien"}, TOTAL, HERE)
    # Names of labels that do not occur are no concern.
    assert in_task_numbers(np.zeros((1, 1, 3), np.uint8), {1: "hepar"}, TOTAL, HERE).max() == 0


def test_names_come_from_the_table_or_the_header(tmp_path: Path) -> None:
    header_maps = pytest.importorskip("totalsegmentator.nifti_ext_header")
    path = tmp_path / "a_dseg.nii.gz"
    image = nib.Nifti1Image(np.array([[[0, 1, 2]]], np.uint8), np.eye(4))
    nib.save(image, path)
    assert names_of_labels(path) == {}
    nib.save(header_maps.add_label_map_to_nifti(image, {1: "spleen", 2: "liver"}), path)
    assert names_of_labels(path) == {1: "spleen", 2: "liver"}
    table = tmp_path / "a_dseg.tsv"
    table.write_text("index\tname\n1\tliver\n2\tspleen\n")
    assert names_of_labels(path) == {1: "liver", 2: "spleen"}
    for bad in ("index\tlabel\n1\tliver\n", "index\tname\none\tliver\n", "index\tname\n1\n"):
        table.write_text(bad)
        with pytest.raises(BadDataError, match=r"a_dseg\.tsv"):
            names_of_labels(path)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"<not xml"))
    table.unlink()
    nib.save(image, path)
    assert isinstance(names_of_labels(path), dict)


@pytest.mark.parametrize("orientation", ["LPS", "SRA", "PIR"])
def test_any_storage_order_of_the_image_grid_is_taken(orientation: str) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 9, (5, 6, 7)).astype(np.uint8)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (-5, 8, 1)
    stored = nib.as_closest_canonical(nib.Nifti1Image(labels, affine)).as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(orientation)
        )
    )
    found = on_image_grid(
        np.asanyarray(stored.dataobj),
        Grid(stored.shape, stored.affine),
        Grid(labels.shape, affine),
        segmentation=HERE,
        image=HERE,
    )
    np.testing.assert_array_equal(found, labels)
    shifted = affine.copy()
    shifted[0, 3] += 1.0
    with pytest.raises(BadDataError, match="does not lie on the grid"):
        on_image_grid(
            labels, Grid(labels.shape, shifted), Grid(labels.shape, affine), segmentation=HERE, image=HERE
        )


def standing_body() -> tuple[np.ndarray, np.ndarray, Grid]:
    """CT and labels: liver on the right, spleen on the left, brain on top, aorta in the middle (x to R)."""
    grid = Grid((60, 40, 90), np.diag([8.0, 8.0, 8.0, 1.0]))
    hu = np.full(grid.shape, -1000.0, np.float32)
    hu[10:50, 8:32, :] = 0
    hu[25:35, 15:25, 20:40] = -800  # a lung, inside
    labels = np.zeros(grid.shape, np.uint8)
    for name, box in {
        "liver": (slice(32, 46), slice(12, 26), slice(40, 54)),
        "spleen": (slice(14, 21), slice(12, 18), slice(42, 48)),
        "brain": (slice(22, 36), slice(12, 26), slice(70, 84)),
        "aorta": (slice(28, 31), slice(26, 29), slice(30, 70)),
        "lung_upper_lobe_left": (slice(25, 35), slice(15, 25), slice(20, 40)),
    }.items():
        labels[box] = TOTAL.table.index_of(name)
    return hu, labels, grid


def states(hu: np.ndarray, labels: np.ndarray, grid: Grid) -> dict[str, tuple[float, str]]:
    return {
        check.name: (check.value, check.state) for check in segmentation_checks(labels, grid, TOTAL.table, hu)
    }


def test_a_good_segmentation_raises_no_flag() -> None:
    found = states(*standing_body())
    assert {state for _, state in found.values()} == {"normal"}, found
    assert found["liver_volume_ml"][0] == pytest.approx(14**3 * 0.512)
    assert found["spleen_left_of_liver_mm"][0] == pytest.approx((38.5 - 17) * 8)
    assert found["labels_outside_body"][0] == 0


def test_labels_on_the_wrong_side_or_of_the_other_sex_are_flagged() -> None:
    hu, labels, grid = standing_body()
    number = TOTAL.table.index_of
    for name, x in {
        "kidney_left": 18,
        "kidney_right": 40,
        "hip_left": 16,
        "hip_right": 42,
        "heart": 26,
    }.items():
        labels[x : x + 2, 28:30, 60:62] = number(name)
    right = states(hu, labels, grid)
    assert right["sides_swapped"] == (0.0, "normal")
    # The middle of the pairs is at voxel 29.5, that of the heart at 26.5.
    assert right["heart_left_of_midline_mm"] == (pytest.approx(3 * 8), "normal")
    swapped = labels.copy()
    swapped[labels == number("kidney_left")] = number("kidney_right")
    swapped[labels == number("kidney_right")] = number("kidney_left")
    assert states(hu, swapped, grid)["sides_swapped"] == (1.0, "outside")
    mirrored = states(hu, labels[::-1], grid)
    assert mirrored["sides_swapped"] == (2.0, "outside")
    assert mirrored["heart_left_of_midline_mm"][1] == "outside"
    labels[28:32, 20:24, 5:9] = number("prostate")
    for sex, flagged in {"F": True, "M": False, None: False}.items():
        found = segmentation_checks(labels, grid, TOTAL.table, hu, sex=sex)
        assert ("prostate_of_a_woman_ml" in [check.name for check in found if check.text]) == flagged


def test_what_is_wrong_is_flagged_whatever_the_storage() -> None:
    hu, labels, grid = standing_body()
    table = TOTAL.table
    mirrored = states(hu, labels[::-1], grid)
    assert mirrored["spleen_left_of_liver_mm"][1] == "outside"
    tiny = labels.copy()
    tiny[tiny == table.index_of("brain")] = 0
    tiny[30, 20, 75] = table.index_of("brain")
    assert states(hu, tiny, grid)["brain_volume_ml"] == (pytest.approx(0.512), "outside")
    none = labels.copy()
    none[none == table.index_of("spleen")] = 0
    assert states(hu, none, grid)["spleen_left_of_liver_mm"][1] == "unknown"
    shifted = np.roll(labels, 25, axis=1)
    assert states(hu, shifted, grid)["labels_outside_body"][1] == "outside"
    assert states(hu, np.zeros_like(labels), grid)["labels_outside_body"][1] == "unknown"
    cut = np.roll(labels, 6, axis=2)
    assert cut_regions(cut, grid, table) == ["brain"]
    turned = Grid((90, 60, 40), grid.affine[:, [2, 0, 1, 3]])
    assert cut_regions(cut.transpose(2, 0, 1), turned, table) == ["brain"]
    assert states(hu, labels, grid) == states(hu.transpose(2, 0, 1), labels.transpose(2, 0, 1), turned)


def test_the_body_is_filled_slice_by_slice() -> None:
    hu, labels, _ = standing_body()
    assert (body_mask(hu, 2) == (body_mask(hu.transpose(2, 0, 1), 0).transpose(1, 2, 0))).all()
    assert body_mask(hu, 2)[labels > 0].all()


def test_colours_of_neighbours_differ() -> None:
    rgb = np.array([[int(color(i)[at : at + 2], 16) for at in (1, 3, 5)] for i in range(118)])
    assert (np.abs(np.diff(rgb, axis=0)).sum(axis=1) > 60).all()
    assert len({color(i) for i in label_table("total").indices}) == 117


@pytest.mark.slow
def test_a_ready_segmentation_of_version_1_gives_the_same_organs(phantom: Path, tmp_path: Path) -> None:
    maps = pytest.importorskip("totalsegmentator.map_to_binary")
    raw = tmp_path / "raw"
    shutil.copytree(phantom, raw, ignore=shutil.ignore_patterns("sub-001", "sub-001*"))
    path = only(raw / "derivatives", "*seg-total_dseg.nii.gz")
    image = nib.load(path)
    current = np.asanyarray(image.dataobj)
    former = {str(name): int(index) for index, name in maps.class_map["total_v1"].items()}
    stored = np.zeros_like(current)
    for name, index in zip(TOTAL.table.names, TOTAL.table.indices, strict=True):
        stored[current == index] = former.get("heart_myocardium" if name == "heart" else name, 0)
    nib.save(nib.Nifti1Image(stored, image.affine), path)
    rows = "".join(f"{index}\t{name}\n" for name, index in former.items())
    path.with_name(path.name.replace(".nii.gz", ".tsv")).write_text("index\tname\n" + rows)
    output = tmp_path / "out"
    done = hedypet(raw, output, "participant", "--skip-bids-validation")
    assert done.returncode == 0, done.stderr
    found = np.asanyarray(nib.load(only(output, "*br38f_seg-total_dseg.nii.gz")).dataobj)
    for name, index in zip(TOTAL.table.names, TOTAL.table.indices, strict=True):
        if name == "heart" or name in former:
            assert ((found == index) == (current == index)).all(), name
    table = only(output, "*br38f_seg-total_dseg.tsv").read_text().splitlines()
    assert table[0] == "index\tname\tcolor" and table[1].startswith("1\tspleen\t#")
    checks = json.loads(only(output, "*br38f_seg-total_dseg.json").read_text())["Checks"]
    assert {item["name"] for item in checks} >= {"brain_volume_ml", "organs_cut", "labels_outside_body"}


@pytest.mark.slow
def test_labels_of_the_brain_may_have_a_grid_of_their_own(phantom: Path, tmp_path: Path) -> None:
    """SynthSeg's voxels of 1 mm on a T1w image of other voxels: their own affine says where they lie."""
    raw = tmp_path / "bids"
    shutil.copytree(phantom, raw, ignore=shutil.ignore_patterns("sub-002"))
    volumes = {}
    for path in (raw / "derivatives" / "synthseg").rglob("*_dseg.nii.gz"):
        image = nib.load(path)
        fine = resample_to_output(image, voxel_sizes=(1.0, 1.0, 1.0), order=0)
        labels = np.asanyarray(fine.dataobj).astype(np.uint16)
        nib.save(nib.Nifti1Image(labels, fine.affine), path)
        volumes[path.name] = np.bincount(labels.ravel()) * 1e-3
    done = hedypet(raw, tmp_path / "out", "participant", "--skip-bids-validation", "--level", "resampling")
    assert done.returncode == 0, done.stderr
    for name, expected in volumes.items():
        taken = nib.load(only(tmp_path / "out" / "sub-001", name))
        np.testing.assert_allclose(taken.header.get_zooms(), 1.0)
        assert taken.shape == nib.load(only(raw / "derivatives" / "synthseg", name)).shape
        found = np.bincount(np.asanyarray(taken.dataobj).astype(int).ravel(), minlength=len(expected)) * 1e-3
        np.testing.assert_allclose(found, expected)


def test_labels_of_the_brain_far_from_the_image_are_refused(phantom: Path, tmp_path: Path) -> None:
    raw = tmp_path / "bids"
    shutil.copytree(phantom, raw, ignore=shutil.ignore_patterns("sub-002"))
    for path in (raw / "derivatives" / "synthseg").rglob("*_dseg.nii.gz"):
        image = nib.load(path)
        affine = image.affine.copy()
        affine[2, 3] += 2000.0
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), affine), path)
    done = hedypet(raw, tmp_path / "out", "participant", "--skip-bids-validation", "--steps", "segment")
    assert done.returncode in (1, 65) and "do not overlap" in done.stderr, done.stderr
