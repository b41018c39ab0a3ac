"""PET/MR without a CT, and scans of the brain alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from nibabel.processing import resample_from_to
from running import Run, hedypet, only

from hedypet_bids.labels import label_table
from hedypet_bids.tools.validator import validate_dataset

STATIC = "sub-001_ses-quadra_trc-18FFDG_rec-acstatPSF"
CT = "sub-001_ses-quadra_rec-br38f"
PET_LABELS = "sub-001_ses-quadra_rec-acstatPSF"
DIXON = "sub-001_ses-vida_acq-DIXONbodyIN"
MPRAGE = "sub-001_ses-vida_acq-MPRAGE"
TASKS = ("total", "tissue", "body")
LIVER, AORTA, BRAIN = 5, 52, 90


@pytest.fixture
def petct(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom with participant 001 only."""
    root = tmp_path / "bids"
    shutil.copytree(phantom, root, ignore=shutil.ignore_patterns("sub-002"))
    return root


def resampled(image: nibabel.Nifti1Image, to: Path, matrix: np.ndarray | None = None) -> nibabel.Nifti1Image:
    """Labels on the grid of another image, by nibabel; ``matrix`` is that image's way to the labels."""
    target = nibabel.load(to)
    affine = target.affine if matrix is None else matrix @ target.affine
    moved = resample_from_to(image, (target.shape[:3], affine), order=0)
    return nibabel.Nifti1Image(np.asarray(moved.dataobj).astype(np.uint8), target.affine)


def without_ct(root: Path, image: Path, stem: str, matrix: np.ndarray | None = None) -> None:
    """Take the CT away; its labels become those of another image, named after it."""
    ready = root / "derivatives" / "totalsegmentator" / "sub-001" / "ses-quadra" / "ct"
    session = "ses-vida" if "ses-vida" in stem else "ses-quadra"
    folder = ready.parents[1] / session / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        labels = resampled(nibabel.load(ready / f"{CT}_seg-{task}_dseg.nii.gz"), image, matrix)
        nibabel.save(labels, folder / f"{stem}_seg-{task}_dseg.nii.gz")
        shutil.copy(ready / f"{CT}_seg-{task}_dseg.tsv", folder / f"{stem}_seg-{task}_dseg.tsv")
    shutil.rmtree(ready)
    shutil.rmtree(root / "sub-001" / "ses-quadra" / "ct")


def as_by_total_mr(path: Path) -> dict[str, set[int]]:
    """Turn labels of `total` into those of TotalSegmentator's network for MR; what became of which."""
    scheme = pytest.importorskip("totalsegmentator.map_to_binary").class_map["total_mr"]
    number_of = {name: index for index, name in scheme.items()}
    table = pd.read_csv(path.with_name(path.name.replace(".nii.gz", ".tsv")), sep="\t")
    image = nibabel.load(path)
    before, merged = np.asarray(image.dataobj), {}
    labels = np.zeros_like(before)
    for index, name in zip(table["index"], table["name"], strict=True):
        if name.startswith("lung_"):
            name = f"lung_{name.rpartition('_')[2]}"
        elif name.startswith("vertebrae_"):
            name = "vertebrae"
        labels[before == index] = number_of.get(name, 0)
        merged.setdefault(name, set()).add(index)
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), path)
    named = pd.DataFrame({"index": scheme.keys(), "name": scheme.values()})
    named.to_csv(path.with_name(path.name.replace(".nii.gz", ".tsv")), sep="\t", index=False)
    return {name: indices for name, indices in merged.items() if name in number_of}


def matrix_of(run: Run, kind: str) -> np.ndarray:
    return np.loadtxt(only(run.output / "sub-001", f"*from-{kind}_to-CT*xfm.txt"))


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def means(output: Path, task: str) -> pd.Series:
    return pd.read_csv(only(output, f"{STATIC}_seg-{task}_morph.tsv"), sep="\t").set_index("name")["mean"]


def run(root: Path, *more: str) -> tuple[Path, str]:
    """The output folder and what was said; the run must end well."""
    output = root.with_name("out")
    done = hedypet(root, output, "participant", "--skip-bids-validation", *more)
    assert done.returncode == 0, done.stderr
    assert (output / "sub-001.html").is_file()
    return output, done.stderr


@pytest.mark.slow
def test_labels_of_the_pet_itself(petct: Path, phantom_run: Run) -> None:
    """Every readout that needs no CT, from labels on the grid of the static PET."""
    pet = petct / "sub-001" / "ses-quadra" / "pet" / f"{STATIC}_pet.nii.gz"
    without_ct(petct, pet, STATIC)
    shutil.rmtree(petct / "sub-001" / "ses-vida")
    ready = only(petct / "derivatives", f"{STATIC}_seg-total_dseg.nii.gz")
    output, said = run(petct)
    labels = voxels(ready)
    assert (voxels(only(output, f"{PET_LABELS}_space-bodystat_seg-total_dseg.nii.gz")) == labels).all()
    activity = nibabel.load(pet).get_fdata()
    table = pd.read_csv(ready.with_name(ready.name.replace(".nii.gz", ".tsv")), sep="\t")
    found = means(output, "total")
    for index, name in zip(table["index"], table["name"], strict=True):
        if (labels == index).any():
            assert found[name] == pytest.approx(activity[labels == index].mean(), rel=1e-6), name
    assert "resample head: ran" in said and "aorta: ran" in said
    assert validate_dataset(output)
    assert "Organs, tissues and body on the PET were taken over" in (output / "sub-001.html").read_text()
    # Labels went through one more grid of 6 mm on their way to the dynamic PET.
    pattern = "*rec-acdynPSF_seg-total_model-Patlak_kinpar.tsv"
    ki, expected = (
        pd.read_csv(only(folder / "sub-001", pattern), sep="\t") for folder in (output, phantom_run.output)
    )
    keys = ["name", "input_function", "last_frames"]
    liver = expected.merge(ki, on=keys, suffixes=("", "_petmr")).query("name == 'liver' and n_used > 2")
    both = liver[["Ki", "Ki_petmr"]].dropna()
    # The aorta is two or three voxels wide.
    assert len(both) > 10 and np.median(np.abs(both["Ki_petmr"] / both["Ki"] - 1)) < 0.15


@pytest.mark.slow
def test_labels_of_the_mr_and_given_transforms(petct: Path, phantom_run: Run, tmp_path: Path) -> None:
    """Labels drawn on the body MR, as by `total_mr`; the matrices are those that the run with CT found."""
    mr = petct / "sub-001" / "ses-vida" / "anat" / f"{DIXON}_T1w.nii.gz"
    without_ct(petct, mr, DIXON, matrix_of(phantom_run, "DIXON"))
    merged = as_by_total_mr(only(petct / "derivatives", f"{DIXON}_seg-total_dseg.nii.gz"))
    output, said = run(petct)
    assert "--register identity" in said and "--derivatives xfm=PATH" in said
    assert not list(output.rglob("*_space-*_dseg.nii.gz")) and not list(output.rglob("*_xfm.txt"))
    given = tmp_path / "xfm" / "sub-001"
    given.mkdir(parents=True)
    for stem, kind in ((DIXON, "DIXON"), (MPRAGE, "T1w")):
        np.savetxt(given / f"{stem}_from-{kind}_to-PET_mode-image_xfm.txt", matrix_of(phantom_run, kind))
    output, _ = run(petct, "--derivatives", f"xfm={given.parent}")
    assert sorted(path.name for path in output.rglob("*_xfm.txt")) == [
        f"{DIXON}_from-DIXON_to-PET_mode-image_xfm.txt",
        f"{MPRAGE}_from-T1w_to-PET_mode-image_xfm.txt",
    ]
    assert validate_dataset(output)
    # The brain's labels went the very same way.
    name = f"{MPRAGE}_space-bodystat_seg-synthseg_dseg.nii.gz"
    with_ct = phantom_run.output / "sub-001"
    assert (voxels(only(output, name)) == voxels(only(with_ct, name))).all()
    assert np.allclose(means(output, "synthseg"), means(with_ct, "synthseg"), equal_nan=True)
    # The body's took one more turn through voxels of the MR.
    found = voxels(only(output, f"{DIXON}_space-bodystat_seg-total_dseg.nii.gz"))
    expected = voxels(only(with_ct, f"{CT}_space-bodystat_seg-total_dseg.nii.gz"))
    own = label_table("totalmr")
    for name in ("liver", "brain", "lung_left"):
        here, there = found == own.index_of(name), np.isin(expected, list(merged[name]))
        assert 2 * np.count_nonzero(here & there) / (here.sum() + there.sum()) > 0.85, name
    assert own.index_of("liver") == LIVER and own.index_of("brain") == BRAIN
    assert set(means(output, "total").index) == set(own.names)
    # Its aorta gives input functions.
    pattern = "*rec-acdynPSF_seg-total_model-Patlak_kinpar.tsv"
    ki, with_ct_ki = (
        pd.read_csv(only(folder, pattern), sep="\t").query("name == 'liver' and n_used > 2")["Ki"].median()
        for folder in (output, with_ct)
    )
    assert ki == pytest.approx(with_ct_ki, rel=0.2)


def aligned(root: Path, phantom_run: Run) -> None:
    """Move MR images and their labels to where a PET/MR scanner would have put them; no voxel changes."""
    for kind, pattern in (("T1w", "MPRAGE_*"), ("T1w", "DIXONhead*"), ("DIXON", "DIXONbody*")):
        for path in root.rglob(f"*acq-{pattern}.nii.gz"):
            image = nibabel.load(path)
            affine = matrix_of(phantom_run, kind) @ image.affine
            nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), path)


@pytest.mark.slow
def test_the_brain_on_a_pet_mr_scanner(petct: Path, phantom_run: Run) -> None:
    """PET, T1w and its labels, aligned by the scanner: the brain's regions; no Patlak without an aorta."""
    aligned(petct, phantom_run)
    shutil.rmtree(petct / "sub-001" / "ses-quadra" / "ct")
    shutil.rmtree(petct / "derivatives" / "totalsegmentator")
    output, said = run(petct, "--register", "identity")
    with_ct = phantom_run.output / "sub-001"
    assert np.allclose(means(output, "synthseg"), means(with_ct, "synthseg"), rtol=1e-3, equal_nan=True)
    assert only(output, "*rec-acdynPSF_seg-synthseg_tacs.tsv")
    head = nibabel.load(only(output, f"{MPRAGE}_space-head_seg-synthseg_res-1mm_dseg.nii.gz"))
    assert np.allclose(head.header.get_zooms(), 1.0) and np.asarray(head.dataobj).any()
    assert "kinetics Patlak (there is no input function)" in said and not list(output.rglob("*_kinpar.tsv"))


@pytest.mark.slow
def test_a_pet_ct_of_the_head(petct: Path) -> None:
    """A field of view that begins above the aorta."""
    total = nibabel.load(only(petct / "derivatives", f"{CT}_seg-total_dseg.nii.gz"))
    highest = np.argwhere(np.asarray(total.dataobj) == AORTA)[:, 2].max()
    height_mm = total.affine[2, 3] + (highest + 3) * total.affine[2, 2]
    for path in [
        *petct.rglob("*_ct.nii.gz"),
        *petct.rglob("*_pet.nii.gz"),
        *petct.rglob("*br38f*_dseg.nii.gz"),
    ]:
        nibabel.save(above(height_mm, nibabel.load(path)), path)
    shutil.rmtree(petct / "sub-001" / "ses-vida")
    output, said = run(petct)
    brain = means(output, "total")["brain"]
    assert np.isfinite(brain) and brain > 0
    assert only(output, f"{CT}_space-head_res-1mm_ct.nii.gz")
    assert "no voxel labelled aorta" in said and "kinetics Patlak (there is no input function)" in said


def above(height_mm: float, image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The slices above a height; the phantom's third axis goes up."""
    first = int(np.ceil((height_mm - image.affine[2, 3]) / image.affine[2, 2]))
    return image.slicer[:, :, max(first, 0) :]


def rename(pattern: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        for path in sorted(folder.rglob(pattern)):
            path.rename(path.with_name(path.name.replace(STATIC, new)))

    return edit


def test_labels_that_could_be_of_several_images_are_those_of_their_grid(petct: Path) -> None:
    """A name without reconstruction fits both PET images: the grid tells; another grid fits none."""
    pet = petct / "sub-001" / "ses-quadra" / "pet" / f"{STATIC}_pet.nii.gz"
    without_ct(petct, pet, STATIC)
    shutil.rmtree(petct / "sub-001" / "ses-vida")
    ready = petct / "derivatives" / "totalsegmentator"
    rename(f"{STATIC}_*", "sub-001_ses-quadra")(ready)
    plan = hedypet(petct, petct.with_name("out"), "participant", "--skip-bids-validation", "--dry-run")
    assert plan.returncode == 0 and "labels of" in plan.stdout and f"{STATIC}_pet" in plan.stdout, plan.stdout
    for path in ready.rglob("*_dseg.nii.gz"):
        nibabel.save(nibabel.load(path).slicer[1:], path)
    plan = hedypet(petct, petct.with_name("out"), "participant", "--skip-bids-validation", "--dry-run")
    assert plan.returncode == 65, plan.stdout
    assert "lie on the grid of none" in plan.stdout and f"{STATIC}_pet.nii.gz" in plan.stdout
