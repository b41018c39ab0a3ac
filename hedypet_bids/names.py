"""Every file name that hedypet looks for and every name that it writes.

Input files are found by suffix and entities (``INPUT_DATATYPES``,
``Source``); output names are built from the entities of the file they come
from, in the order that the BIDS validator enforces. Labels have any length, and
there may be no sessions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

Space = Literal["bodystat", "bodydyn", "head"]
SPACES: tuple[Space, ...] = ("bodystat", "bodydyn", "head")
HEAD_RESOLUTION = "1mm"

INPUT_DATATYPES = ("pet", "ct", "anat")
CT_SUFFIX, TOPOGRAM_SUFFIX, PET_SUFFIX, MR_SUFFIX = "ct", "Xray", "pet", "T1w"
HEAD_MR_GROUP = "DIXONhead"
BODY_MR_GROUPS = ("DIXONbody", "FASTVIEW")

# The order that bids-validator 3 and BEP023 ask for after a raw file's own entities.
_ENTITY_ORDER = (
    "from",
    "to",
    "mode",
    "recording",
    "space",
    "seg",
    "res",
    "label",
    "desc",
    "model",
    "meas",
)

_TRACER = re.compile(r"_trc-[^_]+")

BIDSIGNORE = (
    "*.html",
    "logs",
    "**/logs",
    "**/log",
    "**/figures",
    "**/ct",
    "readouts",
    "*_xfm.*",
    "*_tacs.*",
    "*_kinpar.*",
    "*_mimap.*",
    "*_morph.*",
    "*_norm.*",
    "*_qc.*",
)
"""What the draft parts of BIDS (BEP023, CT) put into an output that the validator does not know."""


@dataclass(frozen=True)
class Source:
    """An input image: where it is and what its name says."""

    path: Path
    root: Path
    entities: Mapping[str, str] = field(hash=False)
    suffix: str
    datatype: str

    @property
    def stem(self) -> str:
        """The file name without suffix and extension: ``sub-01_ses-a_rec-x`` of ``..._pet.nii.gz``."""
        return self.path.name.split(".")[0].rpartition("_")[0]

    @property
    def folder(self) -> PurePosixPath:
        """``sub-<L>[/ses-<S>]``, where the outputs of this image go."""
        subject = PurePosixPath(f"sub-{self.entities['subject']}")
        session = self.entities.get("session")
        return subject / f"ses-{session}" if session else subject

    @property
    def sidecar(self) -> Path:
        """The JSON file of the same name."""
        return self.path.with_name(self.path.name.split(".")[0] + ".json")


def _name(source: Source, datatype: str, suffix: str, extension: str, entities: Mapping[str, str]) -> str:
    parts = [f"{key}-{entities[key]}" for key in _ENTITY_ORDER if entities.get(key)]
    # Labels of a PET image: BIDS knows no tracer of an anatomical file.
    stem = _TRACER.sub("", source.stem) if datatype == "anat" else source.stem
    file_name = "_".join([stem, *parts, suffix]) + extension
    return str(source.folder / datatype / file_name)


def sidecar_of(name: str | Path) -> Path:
    """The JSON sidecar of an output file."""
    path = Path(name)
    return path.with_name(path.name.split(".")[0] + ".json")


def segmentation(source: Source, task: str, space: Space | None = None) -> str:
    """A label image, in the source's own grid or in one of the spaces."""
    return _name(source, "anat", "dseg", ".nii.gz", {"seg": task, **_space(space)})


def label_table_file(source: Source, task: str, space: Space | None = None) -> str:
    """The label table (index, name) beside a label image."""
    return _name(source, "anat", "dseg", ".tsv", {"seg": task, **_space(space)})


def synthseg_volumes(t1w: Source) -> str:
    """The volumes that SynthSeg itself measures."""
    return _name(t1w, "anat", "morph", ".tsv", {"desc": "synthsegvolumes"})


def image_in_space(source: Source, space: Space) -> str:
    """An image resampled into one of the spaces, in the datatype folder of its source."""
    return _name(source, source.datatype, source.suffix, ".nii.gz", _space(space))


def transform(moving: Source, kind: Literal["T1w", "DIXON"], fixed: Source) -> str:
    """The rigid transform of an MR image to the CT (or PET), 4x4 text, world mm, moving to fixed."""
    to = "CT" if fixed.suffix == CT_SUFFIX else "PET"
    return _name(moving, "anat", "xfm", ".txt", {"from": kind, "to": to, "mode": "image"})


def constants(pet: Source) -> str:
    """SUV and SUL constants of a participant, named after its static (or only) PET image."""
    return _name(pet, "pet", "norm", ".tsv", {})


def static_mean(dynamic: Source) -> str:
    """The mean of a dynamic PET over a window, for scans without a static image: ``rec-<X>mean``."""
    stem = dynamic.stem
    rec = dynamic.entities.get("reconstruction")
    if rec:
        stem = stem.replace(f"_rec-{rec}", f"_rec-{rec}mean")
    else:
        # The order of BIDS: a run comes after the reconstruction.
        before, run, after = stem.partition("_run-")
        stem = f"{before}_rec-mean{run}{after}"
    return str(dynamic.folder / "pet" / f"{stem}_{PET_SUFFIX}.nii.gz")


def suv_image(static: Source) -> str:
    """The static PET in SUV."""
    return _name(static, "pet", "pet", ".nii.gz", {"desc": "suv"})


def blood(dynamic: Source, recording: str) -> str:
    """The image-derived input function of one volume of interest."""
    return _name(dynamic, "pet", "blood", ".tsv", {"recording": recording, "desc": "idif"})


def curves(dynamic: Source, task: str, erosion: int, statistic: Literal["mean", "std"] = "mean") -> str:
    """Time-activity curves of every region of a task."""
    eroded = f"eroded{erosion}" if erosion else ""
    description = eroded if statistic == "mean" else "std" + eroded
    return _name(dynamic, "pet", "tacs", ".tsv", {"seg": task, "desc": description})


def volumes(pet: Source, task: str, erosion: int) -> str:
    """Voxel counts and volumes (and for a static image the means) of every region of a task."""
    return _name(pet, "pet", "morph", ".tsv", {"seg": task, "desc": f"eroded{erosion}" if erosion else ""})


def kinetics(dynamic: Source, task: str, erosion: int) -> str:
    """Patlak fits of every region x input function x window of a task."""
    desc = f"eroded{erosion}" if erosion else ""
    return _name(dynamic, "pet", "kinpar", ".tsv", {"seg": task, "desc": desc, "model": "Patlak"})


def parametric_map(dynamic: Source, measure: Literal["Ki", "V0"]) -> str:
    """A voxel map of the Patlak slope or intercept."""
    return _name(dynamic, "pet", "mimap", ".nii.gz", {"model": "Patlak", "meas": measure})


def frame_quality(dynamic: Source) -> str:
    """Motion and odd voxels of the late frames of a dynamic image."""
    return _name(dynamic, "pet", "qc", ".tsv", {"desc": "frames"})


def quality(pet: Source) -> str:
    """The quality checks of a participant, named after its dynamic (or only) PET image."""
    return _name(pet, "pet", "qc", ".json", {})


def report(label: str) -> str:
    """The page of one participant."""
    return f"sub-{label}.html"


def figure(label: str, name: str) -> str:
    """A picture of a participant's page."""
    return f"sub-{label}/figures/sub-{label}_desc-{name}.svg"


def log_folder(label: str, run: str) -> str:
    """Where one run keeps its log, settings and crash files of a participant."""
    return f"sub-{label}/log/{run}"


def lock(label: str) -> str:
    """What a run holds while it works on a participant."""
    return f"sub-{label}/log/.lock"


def readout(table: str, extension: str) -> str:
    """A group table or its data dictionary."""
    return f"readouts/{table}{extension}"


GROUP_REPORT = "group.html"
VALIDATOR_LOG = "logs/bids-validator.json"


def _space(space: Space | None) -> dict[str, str]:
    if space is None:
        return {}
    return {"space": space, "res": HEAD_RESOLUTION} if space == "head" else {"space": space}


def recording(voi_task: str, segment: str) -> str:
    """The recording label of a volume of interest: ``aortavoi1ml3px`` + ``aorta_top`` -> ``...top``."""
    return voi_task + segment.removeprefix("aorta").replace("_", "")


def input_function_identifier(voi_readout_name: str, segment: str) -> str:
    """hedyPET's name of an input function in the readout tables."""
    return f"{voi_readout_name}_{segment}"


_ENTITY = re.compile(r"(?:^|_)([a-zA-Z0-9]+)-([a-zA-Z0-9+]+)")


def entities_of(name: str) -> dict[str, str]:
    """Entities of a file name, short keys: ``{"sub": "01", "seg": "total", ...}``."""
    return dict(_ENTITY.findall(name.split(".")[0]))


def participant_label(text: str) -> str:
    """A label as the user may write it (``sub-01`` or ``01``) without its prefix."""
    return text.removeprefix("sub-")


def listed(items: Iterable[object]) -> str:
    """Items as an enumeration for messages, or ``nothing``."""
    return ", ".join(str(item) for item in items) or "nothing"
