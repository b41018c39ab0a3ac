"""TotalSegmentator on this machine: its networks, their weights, the licence, the device.

Its networks run in a process of their own (:mod:`hedypet_bids.tools.body_segmentation`).
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hedypet_bids.errors import MissingInputError, UsageError

TASK_NAMES: Mapping[str, str] = {
    "total": "total",
    "tissue": "tissue_types",
    "body": "body",
    "total_mr": "total_mr",
    "body_mr": "body_mr",
}
"""TotalSegmentator's name of what its networks can do: our tasks, and those that have a network for MR."""

CT_NETWORKS = ("total", "tissue", "body")
MR_NETWORKS: Mapping[str, str] = {"total": "total_mr", "body": "body_mr"}
"""What segments an MR of the body, by our task."""

LICENSED_TASKS = frozenset({"tissue"})
LICENCE_LENGTH = 18
LICENCE_VARIABLE = "TOTALSEG_LICENSE"
FETCH_COMMAND = "hedypet-weights fetch"
_CHECKPOINT = "checkpoint_final.pth"
_STAGE_FILES = ("dataset.json", "plans.json")


@dataclass(frozen=True)
class Model:
    """A trained network: TotalSegmentator's number and folder of its weights, and the archive they come in.

    ``archive_size`` is in bytes, and 0 where it is not known; ``sha256`` is empty where it is not.
    ``spacing_mm`` is that of the voxels that it sees, ``of_task`` whose regions it tells apart, or some of,
    ``release`` TotalSegmentator's of the archive.
    """

    number: int
    folder: str
    archive_size: int = 0
    sha256: str = ""
    licensed: bool = False
    spacing_mm: float = 1.5
    of_task: str = "total"
    release: str = "v2.0.0-weights"

    @property
    def regions(self) -> Mapping[int, str]:
        """The regions that it tells apart, by its own labels."""
        # Imported here: TotalSegmentator's tables need none of its libraries, but time.
        from totalsegmentator import map_to_binary as tables

        for parts, of_number in (
            (tables.class_map_5_parts, tables.map_taskid_to_partname_ct),
            (tables.class_map_parts_mr, tables.map_taskid_to_partname_mr),
        ):
            if self.number in of_number:
                return dict(parts[of_number[self.number]])
        return dict(tables.class_map[self.of_task])


# Of TotalSegmentator 2.18; a test compares them with its own tables. It publishes neither sizes nor hashes:
# sizes and hashes are those that other programs on GitHub state (sizes: two or three of them, for 298 and 300
# maybe of one author; hashes: 297 two, 291 and 299 one each).
_ORGAN_PARTS = (
    Model(
        291,
        "Dataset291_TotalSegmentator_part1_organs_1559subj",
        233_742_255,
        "2cde8e6bcfb5b6a02183648a7036c3d6b28bc854576f8e1c34fbd6b4dd5c6c5b",
    ),
    Model(292, "Dataset292_TotalSegmentator_part2_vertebrae_1532subj", 234_050_721),
    Model(293, "Dataset293_TotalSegmentator_part3_cardiac_1559subj", 234_190_318),
    Model(294, "Dataset294_TotalSegmentator_part4_muscles_1559subj", 233_625_081),
    Model(295, "Dataset295_TotalSegmentator_part5_ribs_1559subj", 234_016_576),
)
_ORGANS_3MM = Model(
    297,
    "Dataset297_TotalSegmentator_total_3mm_1559subj",
    135_386_075,
    "0baa2c8de2975600eb31801dd5c1825cd2b356f794498659cf3348714c073394",
    spacing_mm=3.0,
)
ROUGH_MODEL = Model(298, "Dataset298_TotalSegmentator_total_6mm_1559subj", 134_827_240, spacing_mm=6.0)
"""Finds where a subset of the organs is."""
_BODY = Model(
    299,
    "Dataset299_body_1559subj",
    233_211_222,
    "d51d68e7f183fed966c122b0cb3dece7bebcdb685d28aeecc62202168e431674",
    of_task="body",
)
_BODY_6MM = Model(300, "Dataset300_body_6mm_1559subj", 124_286_256, spacing_mm=6.0, of_task="body")
_TISSUE = Model(481, "Dataset481_tissue_1559subj", licensed=True, of_task="tissue_types")
_of_mr = partial(Model, release="v2.5.0-weights")
_MR_ORGAN_PARTS = (
    _of_mr(850, "Dataset850_TotalSegMRI_part1_organs_1088subj", of_task="total_mr"),
    _of_mr(851, "Dataset851_TotalSegMRI_part2_muscles_1088subj", of_task="total_mr"),
)
MR_ROUGH_MODEL = _of_mr(852, "Dataset852_TotalSegMRI_total_3mm_1088subj", spacing_mm=3.0, of_task="total_mr")
"""Finds where a subset of the organs is in an MR, and is the fast network as well."""
_MR_BODY = _of_mr(597, "Dataset597_mri_body_139subj", of_task="body_mr")
_MR_BODY_6MM = _of_mr(598, "Dataset598_mri_body_6mm_139subj", spacing_mm=6.0, of_task="body_mr")
MODELS = (
    *(*_ORGAN_PARTS, _ORGANS_3MM, ROUGH_MODEL, _BODY, _BODY_6MM, _TISSUE),
    *(*_MR_ORGAN_PARTS, MR_ROUGH_MODEL, _MR_BODY, _MR_BODY_6MM),
)


# At full resolution, and fast.
_MODELS_OF_TASK: Mapping[str, tuple[tuple[Model, ...], tuple[Model, ...]]] = {
    "total": (_ORGAN_PARTS, (_ORGANS_3MM,)),
    "tissue": ((_TISSUE,), (_TISSUE,)),
    "body": ((_BODY,), (_BODY_6MM,)),
    "total_mr": (_MR_ORGAN_PARTS, (MR_ROUGH_MODEL,)),
    "body_mr": ((_MR_BODY,), (_MR_BODY_6MM,)),
}
_ROUGH_MODELS = {"total": ROUGH_MODEL, "total_mr": MR_ROUGH_MODEL}


@dataclass(frozen=True)
class TotalSegmentator:
    """TotalSegmentator on this machine: where the weights are, the licence, the device."""

    weights: Path
    licence: str = field(default="", repr=False)
    device: str = "auto"
    gpu_mem_mb: float | None = None


def models_of_task(task: str, *, fast: bool = False, roi_subset: Sequence[str] = ()) -> tuple[Model, ...]:
    """The networks that a task needs."""
    models, fast_ones = _MODELS_OF_TASK[task]
    organs = fast_ones if fast else models
    if not roi_subset or task not in _ROUGH_MODELS:
        return organs
    return tuple(dict.fromkeys((*organs, _ROUGH_MODELS[task])))


def weights_folder(given: Path | None = None) -> Path:
    """Where the weights are: as given, else where TotalSegmentator itself looks for them."""
    if given is not None:
        return given
    if path := os.environ.get("TOTALSEG_WEIGHTS_PATH"):
        return Path(path)
    return _home() / "nnunet" / "results"


def find_licence(given: str | None = None) -> str:
    """The licence number as given, of the environment or of TotalSegmentator's configuration; else empty.

    Raises
    ------
    UsageError
        It has not 18 characters. The message does not repeat it.
    """
    found = {
        "--totalseg-license": given,
        LICENCE_VARIABLE: os.environ.get(LICENCE_VARIABLE),
        str(_home() / "config.json"): _configured_licence(),
    }
    where, licence = next(((w, text) for w, text in found.items() if text), ("", ""))
    if licence and len(licence) != LICENCE_LENGTH:
        raise UsageError(
            f"The TotalSegmentator licence number of {where} has {len(licence)} characters; expected "
            f"{LICENCE_LENGTH}."
        )
    return licence or ""


def checkpoints(folder: Path, model: Model) -> list[Path]:
    """The checkpoint files of a model that are there, one a fold."""
    return sorted((folder / model.folder).glob(f"nnUNetTrainer*/fold_*/{_CHECKPOINT}"))


def faults_of_weights(folder: Path, models: Iterable[Model], *, read: bool = False) -> dict[Model, str]:
    """What is wrong with the weights of each model; with ``read`` their contents are checked, too."""
    faults = {}
    for model in dict.fromkeys(models):
        found = checkpoints(folder, model)
        if not found:
            faults[model] = "missing"
            continue
        reasons = (
            *(_fault_of_checkpoint(path, read) for path in found),
            *(_fault_of_kind(path.parents[1], model) for path in found),
        )
        if any(reasons):
            faults[model] = next(filter(None, reasons))
    return faults


def check_weights(folder: Path, tasks: Mapping[str, Sequence[Model]]) -> None:
    """Return when every model of the tasks is there.

    Raises
    ------
    MissingInputError
        Weights are missing or cut short; the message lists all of them with the command to fetch them.
    """
    faults = faults_of_weights(folder, [model for models in tasks.values() for model in models])
    if not faults:
        return
    listed = "\n  ".join(f"{model.folder}: {reason}" for model, reason in faults.items())
    numbers = " ".join(str(model.number) for model in faults)
    raise MissingInputError(
        f"TotalSegmentator is needed for {', '.join(tasks)}, but in {folder} these weights are not right:\n"
        f"  {listed}\nFetch them with '{FETCH_COMMAND} {numbers}', point to them with --totalseg-weights "
        "DIR, give ready segmentations with --derivatives totalsegmentator=PATH, or leave these tasks out "
        "with --no-totalsegmentator."
    )


def check_device(device: str) -> None:
    """Return when the device can be had.

    Raises
    ------
    MissingInputError
        A GPU was asked for and CUDA shows none, or not that one.
    """
    if not device.startswith("gpu"):
        return
    # Imported here: it takes seconds, and only who asks for a GPU has to know before work begins.
    import torch

    number = int(device.partition(":")[2] or 0)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= count:
        raise MissingInputError(
            f"--device {device}: CUDA shows {count} GPUs on this machine. Start the container with --gpus "
            "all (docker) or --nv (singularity), or use --device cpu."
        )


def weights_checksum(folder: Path, model: Model) -> str:
    """SHA-256 (first 16 characters) over the checkpoints of a model."""
    total = hashlib.sha256()
    for path in checkpoints(folder, model):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


def _home() -> Path:
    """TotalSegmentator's folder for its configuration and weights."""
    if path := os.environ.get("TOTALSEG_HOME_DIR"):
        return Path(path)
    try:
        return Path.home() / ".totalsegmentator"
    except RuntimeError:
        return Path("/nonexistent")  # a user without a home has no configuration either


def _configured_licence() -> str:
    try:
        content = json.loads((_home() / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    return str(content.get("license_number") or "") if isinstance(content, dict) else ""


def _fault_of_kind(folder: Path, model: Model) -> str:
    """Whether a folder holds another model of TotalSegmentator; what cannot be told is no fault here."""
    try:
        labels = json.loads((folder / "dataset.json").read_text("utf-8"))["labels"]
        plans = json.loads((folder / "plans.json").read_text("utf-8"))
        spacing = plans["configurations"][folder.name.rpartition("__")[2]]["spacing"]
        regions, spacing_mm = set(labels) - {"background"}, float(max(spacing))
    except (OSError, ValueError, KeyError, TypeError):
        return ""

    def distance(other: Model) -> tuple[float, float]:
        others = set(other.regions.values())
        different = len(regions ^ others) / max(1, len(regions | others))
        return different, abs(other.spacing_mm - spacing_mm)

    nearest = min(MODELS, key=distance)
    # Names that no model has may be those of a newer version.
    if distance(nearest)[0] == 1 or distance(nearest) == distance(model):
        return ""
    return f"it holds the {len(regions)} regions at {spacing_mm:g} mm of {nearest.folder}"


def _fault_of_checkpoint(path: Path, read: bool) -> str:
    where = "/".join(path.parts[-2:])
    model = path.parents[1]
    if absent := [name for name in _STAGE_FILES if not (model / name).is_file()]:
        return f"{absent[0]} is missing"
    # PyTorch's checkpoints are ZIP archives, whose directory stands at the end: it shows cuts at once.
    if not zipfile.is_zipfile(path):
        return f"{where} is cut short or broken ({path.stat().st_size} bytes)"
    if read:
        try:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
        except (OSError, zipfile.BadZipFile) as fault:
            return f"{where} cannot be read: {fault}"
        if broken:
            return f"{where} is broken in {broken}"
        for name in _STAGE_FILES:
            try:
                json.loads((model / name).read_text("utf-8"))
            except ValueError:
                return f"{name} is no JSON"
    return ""
