"""TotalSegmentator's real code on toy weights."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
from running import hedypet, only
from scipy import ndimage

from hedypet_bids import names
from hedypet_bids.cli import weights as weights_command
from hedypet_bids.cli.main import main
from hedypet_bids.errors import (
    BadDataError,
    MissingInputError,
    UsageError,
)
from hedypet_bids.inputs.dataset import Dataset
from hedypet_bids.inputs.subject import read_subject
from hedypet_bids.io.store import Store
from hedypet_bids.labels import CT_TASKS, label_table
from hedypet_bids.model import Grid
from hedypet_bids.run.memory import BASE_MB, participant_mb, segmentation_mb
from hedypet_bids.settings import SegmentSettings
from hedypet_bids.steps.segment import check_ct, check_extent
from hedypet_bids.steps.step import Tools
from hedypet_bids.tools import network_memory, totalsegmentator
from hedypet_bids.tools.body_segmentation import BodySegmentation
from hedypet_bids.tools.synthseg import SynthSeg
from hedypet_bids.tools.totalsegmentator import (
    CT_NETWORKS,
    MODELS,
    MR_NETWORKS,
    TASK_NAMES,
    TotalSegmentator,
    models_of_task,
)
from hedypet_bids.tools.totalsegmentator_process import ONE_PROCESS, OWN_PATH

LICENCE = "aca_ABCDEFGHIJKLMN"
TRUNK = slice(106, 132)
TOTALSEG = pytest.importorskip("totalsegmentator.map_tasks_config")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy weights of every model."""
    from toy_weights import BANDS, MR_BANDS, write_weights

    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder, *BANDS, *MR_BANDS)
    return folder


@pytest.fixture
def raw(phantom: Path, tmp_path: Path) -> Path:
    """Participant 001 without dynamic PET and ready segmentations, with a CT of the trunk only."""
    path = tmp_path / "raw"
    left_out = shutil.ignore_patterns("derivatives", "sub-002", "*acdynPSF*")
    shutil.copytree(phantom, path, ignore=left_out)
    replace_image(only(path, "*rec-br38f_ct.nii.gz"), trunk_of)
    return path


@pytest.fixture
def small(phantom: Path) -> tuple[np.ndarray, np.ndarray]:
    """Part of a CT and its affine: what takes networks of 3 mm a second."""
    part = nib.load(only(phantom / "sub-001", "*rec-br38f_ct.nii.gz")).slicer[16:56, 5:45, 105:125]
    return np.asanyarray(part.dataobj), part.affine


def trunk_of(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """The planes of the trunk."""
    return image.slicer[:, :, TRUNK]


def replace_image(path: Path, change: Callable[[nib.Nifti1Image], nib.Nifti1Image]) -> None:
    """Change an image, which may be a link to one that others use."""
    image = change(nib.load(path))
    image = nib.Nifti1Image(np.ascontiguousarray(image.dataobj), image.affine)
    path.unlink()
    nib.save(image, path)


def add_participant(
    raw: Path, label: str, source: Path, change: Callable[[nib.Nifti1Image], nib.Nifti1Image]
) -> Path:
    """A participant who has nothing but an image, which is that of another one, changed."""
    relative = str(source.relative_to(raw))
    path = raw / relative.replace("sub-001", f"sub-{label}")
    path.parent.mkdir(parents=True)
    for end in (".nii.gz", ".json"):
        shutil.copy(source.with_name(source.name.replace(".nii.gz", end)), str(path).replace(".nii.gz", end))
    replace_image(path, change)
    return path


def oblique(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """The same voxels, tilted in the world."""
    angle = np.deg2rad(18.0)
    about_x = np.eye(4)
    about_x[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return nib.Nifti1Image(np.asanyarray(image.dataobj), about_x @ image.affine)


def permuted(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """The same voxels at the same places, stored as superior, left, posterior."""
    hu = np.asanyarray(image.dataobj).transpose(2, 0, 1)[:, ::-1, ::-1]
    flip = np.zeros((4, 4))
    flip[0, 1], flip[1, 2], flip[2, 0], flip[3, 3] = -1, -1, 1, 1
    flip[0, 3], flip[1, 3] = hu.shape[1] - 1, hu.shape[2] - 1
    return nib.Nifti1Image(hu, image.affine @ flip)


def begun(
    weights: Path, folder: Path, hu: np.ndarray, affine: np.ndarray, *tasks: str, **options: Any
) -> BodySegmentation:
    """Tasks of a CT that are being done, with the fast networks."""
    return BodySegmentation(
        TotalSegmentator(weights, LICENCE, device=options.pop("device", "cpu")),
        tasks,
        hu,
        Grid(hu.shape, affine),
        timeout_s=600,
        work_dir=folder,
        log=folder / "log.txt",
        **{"fast": True, "threads": 2, **options},
    )


def expected_from_hu(hu: np.ndarray, bands: dict[str, float], table: dict[str, int]) -> np.ndarray:
    """The label whose centre is nearest, 0 for the background."""
    numbers = np.array([table.get(name, 0) for name in bands])
    distances = np.abs(hu[..., None] - np.array(list(bands.values())))
    return numbers[np.argmin(distances, axis=-1)]


def homogeneous(expected: np.ndarray, voxels: int) -> np.ndarray:
    """Where all voxels around have the same label: networks that work on coarser voxels agree there."""
    size = 2 * voxels + 1
    return ndimage.maximum_filter(expected, size) == ndimage.minimum_filter(expected, size)


def flip_a_byte(checkpoint: Path) -> None:
    """Change one byte of the pickled part of a checkpoint."""
    with zipfile.ZipFile(checkpoint) as archive:
        entry = next(item for item in archive.infolist() if item.filename.endswith("data.pkl"))
    content = bytearray(checkpoint.read_bytes())
    name_length, extra_length = struct.unpack_from("<HH", content, entry.header_offset + 26)
    content[entry.header_offset + 30 + name_length + extra_length + 40] ^= 0xFF
    checkpoint.write_bytes(content)


def test_models_are_those_of_totalsegmentator() -> None:
    for model in MODELS:
        assert TOTALSEG.TASK_ID_WEIGHTS_CONFIGS[model.number]["foldername"] == model.folder
    for ours, theirs in TASK_NAMES.items():
        config = TOTALSEG.TASK_CONFIGS[theirs]
        for fast in (False, True):
            mode = config.get("sub_modes", {}).get("fast" if fast else "default", config)
            numbers = mode["task_id"] if isinstance(mode["task_id"], list) else [mode["task_id"]]
            assert [model.number for model in models_of_task(ours, fast=fast)] == numbers


NO_NETWORK = """
import socket
from pathlib import Path
def refuse(self, address, *rest):
    if self.family != socket.AF_UNIX and str(address[0]) not in ("127.0.0.1", "localhost"):
        with Path({record!r}).open("a") as file:
            file.write(f"{{address}}\\n")
        raise OSError("no network here")
    return connect(self, address, *rest)
connect, socket.socket.connect = socket.socket.connect, refuse
resolve = socket.getaddrinfo
def noted(host, *rest, **more):
    if host not in (None, "localhost", "127.0.0.1"):
        with Path({record!r}).open("a") as file:
            file.write(f"{{host}}\\n")
        raise OSError("no network here")
    return resolve(host, *rest, **more)
socket.getaddrinfo = noted
"""


@pytest.mark.slow
def test_every_task_runs_offline_from_the_command_line(
    raw: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CTs of any storage order, and an MR: the labels that their voxels ask for, in their own grids."""
    from toy_weights import BANDS, MR_BANDS, SCALE_HU

    record, site = tmp_path / "network.txt", tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(NO_NETWORK.format(record=str(record)))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("TOTALSEG_LICENSE", LICENCE)
    ct, dixon = only(raw, "*rec-br38f_ct.nii.gz"), only(raw, "*acq-DIXONbodyIN_T1w.nii.gz")
    cts = [ct, add_participant(raw, "003", ct, lambda image: oblique(permuted(image)))]
    mr = add_participant(raw, "004", dixon, lambda image: image.slicer[:, :, 80:110])
    output = tmp_path / "out"
    arguments = (raw, output, "participant", "--totalseg-weights", toy, "--totalseg-fast", "--device", "cpu")
    arguments = (*arguments, "--steps", "segment", "--skip-bids-validation")
    done = hedypet(*arguments, "--work-dir", tmp_path / "work")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not record.exists(), record.read_text()

    seen = [(path, np.asanyarray(nib.load(path).dataobj), name) for path in cts for name in CT_NETWORKS]
    z_scores = nib.load(mr).get_fdata()
    z_scores = (z_scores - z_scores.mean()) / z_scores.std()
    seen += [(mr, z_scores * SCALE_HU, name) for name in MR_NETWORKS.values()]
    for source, values, network in seen:
        (model,) = models_of_task(network, fast=True)
        name = network.removesuffix("_mr")
        path = only(output / source.relative_to(raw).parts[0], f"*_seg-{name}_dseg.nii.gz")
        found, image = nib.load(path), nib.load(source)
        labels = np.asanyarray(found.dataobj)
        own = label_table("totalmr" if network == "total_mr" else name)
        table = dict(zip(own.names, own.indices, strict=True))
        if name == "body":
            table = {"body_trunc": table["trunk"]}
        expected = expected_from_hu(values, {**BANDS, **MR_BANDS}[model.number], table)
        inside = homogeneous(expected, 1)
        assert labels.dtype == np.uint8 and found.shape == image.shape
        np.testing.assert_allclose(found.affine, image.affine, atol=1e-4)
        if name != "body":  # TotalSegmentator keeps the body's largest piece only
            assert (labels[inside] == expected[inside]).mean() > 0.995, path
        present = np.unique(expected[inside & (expected > 0)])
        assert present.size
        for label in present:
            assert (labels[inside & (expected == label)] == label).mean() > 0.95, (path, label)
        written = path.with_name(path.name.replace(".nii.gz", ".tsv")).read_text().splitlines()
        assert [line.split("\t")[1] for line in written[1:]] == list(own.names)
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        tool = sidecar["Tool"]
        assert tool["Device"] == "cpu" and tool["Task"] == TASK_NAMES[network] and tool["Seconds"] > 0
        assert tool["Engine"] == ONE_PROCESS and tool["PhaseSeconds"]["net"] > 0
        assert [len(checksum) for checksum in tool["Weights"].values()] == [16]
        assert ("labels_outside_body" in {item["name"] for item in sidecar["Checks"]}) == (source != mr)
    logs = {path.name for path in output.rglob("totalsegmentator-*.log")}
    assert logs == {"totalsegmentator-total-tissue-body.log", "totalsegmentator-total_mr-body_mr.log"}
    written = [p for p in [*output.rglob("*"), *(tmp_path / "work").rglob("*")] if p.is_file()]
    assert not [p for p in written if LICENCE.encode() in p.read_bytes()]
    assert LICENCE not in done.stdout + done.stderr
    again = hedypet(*arguments, "--dry-run", "--participant-label", "001")
    segmented = [line for line in again.stdout.splitlines() if line.split()[:1] == ["segment"]]
    assert [line.split()[2] for line in segmented] == ["done"] * 3 + ["skipped"] * 2, again.stdout


@pytest.mark.slow
def test_total_at_full_resolution_runs_its_five_models(small, toy: Path, tmp_path: Path) -> None:
    hu, affine = small
    hu = hu[8:30, 8:30, :14]
    made = begun(toy, tmp_path, hu, affine, "total", fast=False).take("total")
    assert len(made.weights) == 5 and made.versions["TotalSegmentator"] == "2.18.0"
    assert made.engine == ONE_PROCESS and not made.remarks
    labels = made.labels
    table = label_table("total")
    for name, low, high in (("liver", 20, 80), ("vertebrae_L1", 1000, 1500)):
        band = ndimage.binary_erosion((hu > low) & (hu < high))
        if band.any():
            assert (labels[band] == table.index_of(name)).mean() > 0.9, name
    assert (labels == table.index_of("liver")).any()


@pytest.mark.slow
def test_a_subset_of_regions_leaves_the_others_out(small, toy: Path, tmp_path: Path) -> None:
    hu, affine = small
    # A region of MR alone is none that this task could look for.
    labels = begun(toy, tmp_path, hu, affine, "total", roi_subset=("liver", "vertebrae")).take("total").labels
    assert set(np.unique(labels).tolist()) == {0, label_table("total").index_of("liver")}
    # The toy network of 6 mm knows no spleen.
    none = begun(toy, tmp_path, hu, affine, "total", roi_subset=("spleen",)).take("total")
    assert not none.labels.any() and none.labels.shape == hu.shape


def test_without_weights_nothing_starts_and_all_are_listed(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOTALSEG_LICENSE", raising=False)
    arguments = [str(raw), str(tmp_path / "out"), "participant", "--skip-bids-validation", "--dry-run"]
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path))
    assert main([*arguments, "--totalseg-weights", str(tmp_path)]) == 66
    said = capsys.readouterr().err
    for number in (291, 292, 293, 294, 295, 299):
        assert f"Dataset{number}_" in said and f"{number}" in said.split("fetch")[1]
    assert "Dataset481" not in said  # without a licence the task is skipped
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--no-totalsegmentator"]) == 0
    assert "--no-totalsegmentator was given" in capsys.readouterr().out
    # An MR of the body alone stops nothing: its segmentation is left out, and it is said why.
    shutil.rmtree(raw / "sub-001" / "ses-quadra" / "ct")
    assert main([*arguments, "--totalseg-weights", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Dataset850_" in said and "Dataset597_" in said and "hedypet-weights fetch 850 851" in said


def test_licence_is_found_in_order_and_never_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOTALSEG_LICENSE", raising=False)
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path))
    assert totalsegmentator.find_licence() == ""
    (tmp_path / "config.json").write_text(json.dumps({"license_number": LICENCE}))
    assert totalsegmentator.find_licence() == LICENCE
    monkeypatch.setenv("TOTALSEG_LICENSE", LICENCE[::-1])
    assert totalsegmentator.find_licence() == LICENCE[::-1]
    assert totalsegmentator.find_licence("x" * 18) == "x" * 18
    with pytest.raises(UsageError, match="17 characters; expected 18") as error:
        totalsegmentator.find_licence("secretsecretsecre")
    assert "secret" not in str(error.value)
    (tmp_path / "config.json").write_text("{")
    monkeypatch.delenv("TOTALSEG_LICENSE")
    assert totalsegmentator.find_licence() == ""
    assert LICENCE not in repr(TotalSegmentator(tmp_path, LICENCE))


def test_broken_weights_are_told_apart(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(toy, folder)
    models = {model.number: model for model in MODELS}
    cut = totalsegmentator.checkpoints(folder, models[299])[0]
    cut.write_bytes(cut.read_bytes()[:-100])
    flipped = totalsegmentator.checkpoints(folder, models[300])[0]
    flip_a_byte(flipped)
    totalsegmentator.checkpoints(folder, models[291])[0].unlink()
    next((folder / models[292].folder).rglob("plans.json")).unlink()
    quick = totalsegmentator.faults_of_weights(folder, MODELS)
    assert {model.number for model in quick} == {299, 291, 292}
    assert "cut short" in quick[models[299]] and quick[models[291]] == "missing"
    assert "plans.json is missing" in quick[models[292]]
    whole = totalsegmentator.faults_of_weights(folder, MODELS, read=True)
    assert 300 in {model.number for model in whole}
    with pytest.raises(MissingInputError, match="hedypet-weights fetch 299"):
        totalsegmentator.check_weights(folder, {"body": models_of_task("body")})
    assert weights_command.main(["check", "--weights", str(folder)]) == 65
    assert weights_command.main(["check", "--weights", str(toy)]) == 0
    assert weights_command.main(["check", "--weights", str(tmp_path / "none")]) == 66
    assert weights_command.main(["check", "--weights", str(toy), "7"]) == 2
    assert weights_command.main(["fetch", "--weights", str(tmp_path / "none"), "481"]) == 2
    capsys.readouterr()
    assert weights_command.main(["list", "--weights", str(toy)]) == 0
    listed = capsys.readouterr().out
    assert "tissue" in listed and "licence number needed" in listed and "MB" in listed


def test_weights_in_the_folder_of_another_model_are_named(toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    models = {model.number: model for model in MODELS}
    # Same number of classes, same classes at another resolution, other classes.
    for wrong, right in ((292, 295), (297, 298), (299, 300), (481, 291)):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(toy / models[wrong].folder, folder / models[right].folder)
        (reason,) = totalsegmentator.faults_of_weights(folder, [models[right]]).values()
        assert models[wrong].folder in reason
    assert not totalsegmentator.faults_of_weights(toy, MODELS)


@pytest.mark.slow
def test_weights_that_cannot_be_used_fail_their_step_only(small, toy: Path, tmp_path: Path) -> None:
    """Weights of another architecture, and broken ones, are named before any network runs."""
    from toy_weights import write_random_weights

    folder = tmp_path / "weights"
    shutil.copytree(toy, folder)
    tissue, body = (models_of_task(task, fast=True)[0] for task in ("tissue", "body"))
    write_random_weights(tmp_path / "other", tissue.number, features=[4, 8])
    other = totalsegmentator.checkpoints(tmp_path / "other", tissue)[0]
    shutil.copy(other, totalsegmentator.checkpoints(folder, tissue)[0])
    flip_a_byte(totalsegmentator.checkpoints(folder, body)[0])
    next((folder / body.folder).rglob("plans.json")).write_text("{")
    run = begun(folder, tmp_path, *small, "total", "tissue", "body")
    with pytest.raises(BadDataError, match="architecture"):
        run.take("tissue")
    assert run.does("total") and (run.take("total").labels > 0).any()
    with pytest.raises(BadDataError, match="body_6mm"):
        run.take("body")
    assert not list(tmp_path.glob("hedypet-run-*"))


@pytest.mark.exhaustive
def test_other_versions_go_the_way_of_totalsegmentator(
    small, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed nnU-Net of another version, as its metadata have it."""
    information = tmp_path / "site" / "nnunetv2-2.5.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: nnunetv2\nVersion: 2.5\n")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    )
    made = begun(toy, tmp_path, *small, "body").take("body")
    assert made.engine == OWN_PATH and "nnunetv2 2.5" in made.remarks[0]
    monkeypatch.undo()
    ours = begun(toy, tmp_path, *small, "body").take("body")
    assert ours.engine == ONE_PROCESS
    np.testing.assert_array_equal(made.labels, ours.labels)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    totalsegmentator.check_device("auto")
    totalsegmentator.check_device("cpu")
    with pytest.raises(MissingInputError, match="CUDA shows 0 GPUs"):
        totalsegmentator.check_device("gpu:1")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["total", "body"])
def test_a_gpu_gives_the_labels_of_the_cpu(task: str, small, toy: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    labels = []
    for device in ("gpu", "cpu"):
        made = begun(toy, tmp_path, *small, task, device=device).take(task)
        assert (made.device == "cpu") == (device == "cpu")
        labels.append(made.labels)
    assert (labels[0] == labels[1]).mean() > 0.999


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda hu: np.where(hu == hu.max(), np.nan, hu.astype(np.float32)), "NaN or infinite"),
        (lambda hu: np.abs(hu.astype(np.float32)) * 20 + 1, "Is it a CT"),
        (lambda hu: (hu.astype(np.int32) + 1024).clip(0, 4095).astype(np.int16), "rescale intercept"),
        (lambda hu: np.zeros_like(hu), "Is it a CT"),
        (lambda hu: hu.clip(-100, None), "Is it a CT"),
        (lambda hu: np.full_like(hu, -1000), "Is it a CT"),
    ],
    ids=["nan", "pet", "offset", "empty", "no air", "all air"],
)
def test_what_is_no_ct_is_refused(make, message: str, raw: Path) -> None:
    hu = np.asanyarray(nib.load(only(raw, "*rec-br38f_ct.nii.gz")).dataobj)
    check_ct(hu, Path("ct.nii.gz"))
    with pytest.raises(BadDataError, match=message):
        check_ct(make(hu), Path("ct.nii.gz"))


def test_a_ct_that_is_thinner_than_half_a_voxel_of_the_network_is_refused() -> None:
    thin = Grid((40, 40, 1), np.diag([2.0, 2.0, 1.5, 1.0]))
    check_extent(thin, 1.5, Path("ct.nii.gz"))
    check_extent(thin, 2.99, Path("ct.nii.gz"))
    with pytest.raises(BadDataError, match=r"80 x 80 x 1\.5 mm"):
        check_extent(thin, 3.0, Path("ct.nii.gz"))


def padded(image: nib.Nifti1Image, value: float) -> nib.Nifti1Image:
    """The image with one voxel of a value, as float."""
    hu = np.asanyarray(image.dataobj).astype(np.float32)
    hu[0, 0, 0] = value
    return nib.Nifti1Image(hu, image.affine)


BAD_CTS: dict[str, tuple[Callable[[nib.Nifti1Image], nib.Nifti1Image], str]] = {
    "100": (lambda ct: nib.Nifti1Image(np.asanyarray(ct.dataobj) + 1024, ct.affine), "rescale intercept"),
    "101": (lambda ct: nib.Nifti1Image(np.asanyarray(ct.dataobj)[:, :, 0], ct.affine), "3D or 4D image"),
    "102": (
        lambda ct: nib.Nifti1Image(np.stack([np.asanyarray(ct.dataobj)] * 2, axis=3), ct.affine),
        "has 2 frames; expected a 3D image",
    ),
    "103": (lambda ct: nib.Nifti1Image(np.full(ct.shape, -1000, np.int16), ct.affine), "Is it a CT"),
    "104": (lambda ct: padded(ct, np.nan), "NaN or infinite"),
    # 2 mm thick, for a network of 6 mm.
    "105": (
        lambda ct: nib.Nifti1Image(
            np.asanyarray(ct.dataobj)[:, :, 20:21], ct.affine @ np.diag([1, 1, 1 / 3, 1])
        ),
        "thicker than half of a network's voxel",
    ),
}


def test_a_bad_ct_fails_its_participant_and_not_another(phantom: Path, toy: Path, tmp_path: Path) -> None:
    raw, output = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(phantom, raw, ignore=shutil.ignore_patterns("sub-002", "ses-vida"), copy_function=os.link)
    ct = only(raw, "*rec-br38f_ct.nii.gz")
    for label, (change, _) in BAD_CTS.items():
        add_participant(raw, label, ct, lambda image, change=change: change(trunk_of(image)))
    done = hedypet(
        *(raw, output, "participant", "--steps", "segment", "--skip-bids-validation", "--nprocs", "1"),
        *("--totalseg-weights", toy, "--totalseg-fast", "--device", "cpu"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    for label, (_, words) in BAD_CTS.items():
        told = [line for line in done.stderr.splitlines() if line.startswith(f"sub-{label} FAILED")]
        assert told and words in told[0] and "br38f_ct.nii.gz" in told[0], (label, done.stderr)
        assert not list(output.glob(f"sub-{label}/**/*_dseg.nii.gz"))
    assert "Traceback" not in done.stdout + done.stderr
    assert only(output / "sub-001", "*br38f_seg-total_dseg.nii.gz")


def test_a_run_without_segmentation_needs_no_weights_and_no_gpu(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(raw), str(tmp_path / "out"), "participant", "--totalseg-weights", str(tmp_path)]
    arguments += ["--device", "gpu:7", "--skip-bids-validation"]
    assert main(arguments) == 66
    assert main([*arguments, "--steps", "normalise"]) == 0
    assert "left out by --steps: segment total" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "fast", "shape"), [("total", True, (110, 110, 120)), ("tissue", False, (60, 60, 70))]
)
def test_the_memory_of_totalsegmentator_is_told_before_it_runs(
    task: str, fast: bool, shape: tuple[int, int, int], toy: Path, tmp_path: Path
) -> None:
    hu = np.full(shape, -1000, np.int16)
    hu[20:-20, 20:-20] = 50
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    others = psutil.Process().children(recursive=True)  # such as that of the tests' commands
    with ThreadPoolExecutor(1) as thread:
        run = thread.submit(begun(toy, tmp_path, hu, affine, task, fast=fast).take, task)
        peak_mb = 0.0
        while not run.done():
            peak_mb = max(peak_mb, children_mb(others))
            time.sleep(0.05)
        run.result()
    models = models_of_task(task, fast=fast)
    estimate_mb = network_memory.networks_mb(toy, models, Grid(shape, affine))
    assert peak_mb <= estimate_mb <= 2 * peak_mb
    assert network_memory.networks_mb(tmp_path, models, Grid(shape, affine)) == 0


def children_mb(others: Sequence[psutil.Process]) -> float:
    """Memory of all processes below this one but for some, what they share counted once."""
    total = 0.0
    for process in set(psutil.Process().children(recursive=True)).difference(others):
        with suppress(psutil.Error):
            total += process.memory_full_info().pss / 1e6
    return total


def test_only_segmentations_that_have_to_be_made_need_memory(raw: Path, toy: Path, tmp_path: Path) -> None:
    inputs = read_subject(Dataset(raw), "001")
    ct = inputs.scans[0].ct
    assert ct is not None
    tools = Tools(TotalSegmentator(toy, "aca_00000000000000"))
    store, settings = Store(tmp_path, {}), SegmentSettings()
    needed = segmentation_mb(inputs, tools, settings, store)
    assert participant_mb(inputs, segmentation_mb=needed) == BASE_MB + needed
    fast = segmentation_mb(inputs, tools, replace(settings, totalseg_fast=True), store)
    assert fast != needed
    for task in CT_TASKS:
        path = store.path(names.segmentation(ct, task.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert segmentation_mb(inputs, tools, settings, store) == 0
    assert segmentation_mb(inputs, Tools(), settings, store) == 0
    parcels = Tools(synthseg=SynthSeg(tmp_path / "mri_synthseg", "cpu"))
    t1w = inputs.scans[0].head_mr
    assert t1w is not None
    # 48 maps that come up, as TensorFlow names them where it runs out of memory, are a third of it.
    filled = np.ceil(np.array(nib.load(t1w.path).shape) * nib.load(t1w.path).header.get_zooms() / 32) * 32
    assert segmentation_mb(inputs, parcels, settings, store) > 3 * 48 * 4 * filled.prod() / 1e6
    path = store.path(names.segmentation(t1w, "synthsegparc"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert segmentation_mb(inputs, parcels, settings, store) == 0
