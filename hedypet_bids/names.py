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

DESCRIPTION = "dataset_description.json"

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
    "*_manifest.json",
    "*_inputfunction.*",
    "*_timeseries.*",
)
"""What the draft parts of BIDS (BEP023, CT) put into an output that the validator does not know."""


@dataclass(frozen=True)
class Source:
    """An input image: where it is and what its name says.

    Parameters
    ----------
    path
        The image.
    root
        The dataset that it lies in.
    entities
        What its name says, by pybids' long keys: ``{"subject": "001", "session": "quadra"}``.
    suffix
        ``pet``, ``ct``, ``T1w`` or ``Xray``.
    datatype
        The folder that it lies in: ``pet``, ``ct`` or ``anat``.
    """

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


@dataclass(frozen=True, order=True)
class ScanName:
    """Which PET acquisition of a participant.

    Parameters
    ----------
    session, tracer, run
        As the file names have them, without ``ses-``, ``trc-`` and ``run-``; empty where they do not say.

    Examples
    --------
    >>> str(ScanName("quadra", "18FFDG"))
    'ses-quadra_trc-18FFDG'
    """

    session: str = ""
    tracer: str = ""
    run: str = ""

    @classmethod
    def of(cls, pet: Source) -> ScanName:
        """The acquisition that a PET image belongs to.

        Parameters
        ----------
        pet
            A dynamic or static image.

        Returns
        -------
        ScanName
            What the image's name says.
        """
        return cls(*(pet.entities.get(key, "") for key in ("session", "tracer", "run")))

    @property
    def entities(self) -> dict[str, str]:
        """What the file names say, by short key, in their order: ``{"ses": "quadra", "trc": "18FFDG"}``."""
        found = {"ses": self.session, "trc": self.tracer, "run": self.run}
        return {key: value for key, value in found.items() if value}

    @property
    def title(self) -> str:
        """What it is called among others, of which one may have no entities."""
        return str(self) or "scan"

    def could_name(self, file_name: str) -> bool:
        """Whether no entity of a file's name says that it is of another scan.

        Parameters
        ----------
        file_name
            A BIDS name.

        Returns
        -------
        bool
            True also where the name says nothing about the scan.
        """
        told = entities_of(file_name)
        return all(told.get(key, value) == value for key, value in self.entities.items())

    def __str__(self) -> str:
        return "_".join(f"{key}-{value}" for key, value in self.entities.items())


@dataclass(frozen=True)
class ScanSpace:
    """One of the spaces of a scan.

    Parameters
    ----------
    kind
        Which of them.
    told_apart_by
        Entities (short keys) in which the scan differs from others of its participant. Where the name of an
        image does not hold them, the label of the space does, so that no two scans share a file.
    """

    kind: Space
    told_apart_by: Mapping[str, str] = field(default_factory=dict, hash=False)

    def entities(self, source: Source, datatype: str) -> dict[str, str]:
        """The ``space-`` and ``res-`` of an image that comes from ``source``."""
        held = {key: value for key, value in entities_of(source.path.name).items() if _holds(datatype, key)}
        more = [f"{key}{value}" for key, value in self.told_apart_by.items() if held.get(key) != value]
        label = {"space": "".join([self.kind, *more])}
        return {**label, "res": HEAD_RESOLUTION} if self.kind == "head" else label


def _holds(datatype: str, key: str) -> bool:
    """Whether names in a folder have an entity: BIDS knows no tracer of an anatomical file."""
    return datatype != "anat" or key != "trc"


def _name(source: Source, datatype: str, suffix: str, extension: str, entities: Mapping[str, str]) -> str:
    parts = [f"{key}-{entities[key]}" for key in _ENTITY_ORDER if entities.get(key)]
    stem = source.stem if _holds(datatype, "trc") else _TRACER.sub("", source.stem)
    file_name = "_".join([stem, *parts, suffix]) + extension
    return str(source.folder / datatype / file_name)


def sidecar_of(name: str | Path) -> Path:
    """The JSON sidecar of an output file."""
    path = Path(name)
    return path.with_name(path.name.split(".")[0] + ".json")


def segmentation(source: Source, task: str, space: ScanSpace | None = None) -> str:
    """A label image, in the source's own grid or in one of the spaces."""
    return _name(source, "anat", "dseg", ".nii.gz", {"seg": task, **_space(source, "anat", space)})


def label_table_file(source: Source, task: str, space: ScanSpace | None = None) -> str:
    """The label table (index, name) beside a label image."""
    return _name(source, "anat", "dseg", ".tsv", {"seg": task, **_space(source, "anat", space)})


def synthseg_volumes(t1w: Source) -> str:
    """The volumes that SynthSeg itself measures."""
    return _name(t1w, "anat", "morph", ".tsv", {"desc": "synthsegvolumes"})


def image_in_space(source: Source, space: ScanSpace) -> str:
    """An image resampled into one of the spaces, in the datatype folder of its source."""
    entities = _space(source, source.datatype, space)
    return _name(source, source.datatype, source.suffix, ".nii.gz", entities)


def fixed_label(fixed: Source, moving: Source, told_apart_by: Mapping[str, str]) -> str:
    """What ``to-`` says of the image that an MR image is moved to: ``CT``, or ``CTretest`` of several.

    Where they differ in more than the session, each label follows its key, as in ``CTses1run1``, which is not
    ``CT11``.

    Parameters
    ----------
    told_apart_by
        Entities (short keys) in which the fixed image differs from others that the MR image is moved to.
    """
    held = entities_of(moving.path.name)
    more = {key: value for key, value in told_apart_by.items() if held.get(key) != value}
    parts = more.values() if more.keys() == {"ses"} else (f"{key}{value}" for key, value in more.items())
    return "".join(["CT" if fixed.suffix == CT_SUFFIX else "PET", *parts])


def transform(moving: Source, kind: Literal["T1w", "DIXON"], to: str) -> str:
    """The rigid transform of an MR image to the CT (or PET), 4x4 text, world mm, moving to fixed."""
    return _name(moving, "anat", "xfm", ".txt", {"from": kind, "to": to, "mode": "image"})


def constants(pet: Source) -> str:
    """SUV and SUL constants of a scan, named after its static (or only) PET image."""
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


MEASURED = "measured"
"""The recording label of the input function from blood samples."""


def measured_blood(dynamic: Source) -> str:
    """What the frames of a dynamic PET would see of the blood that was sampled."""
    return _name(dynamic, "pet", "blood", ".tsv", {"recording": MEASURED, "desc": "sampled"})


def continuous_input(dynamic: Source, recording: str) -> str:
    """The continuous curve of an input function, with plasma and the tracer itself."""
    made_from = "sampled" if recording == MEASURED else "idif"
    return _name(dynamic, "pet", "inputfunction", ".tsv", {"recording": recording, "desc": made_from})


def curves(dynamic: Source, task: str, erosion: int, statistic: Literal["mean", "std"] = "mean") -> str:
    """Time-activity curves of every region of a task."""
    eroded = f"eroded{erosion}" if erosion else ""
    description = eroded if statistic == "mean" else "std" + eroded
    return _name(dynamic, "pet", "tacs", ".tsv", {"seg": task, "desc": description})


def volumes(pet: Source, task: str, erosion: int, space: ScanSpace | None = None) -> str:
    """Voxel counts and volumes (and for a static image the means) of every region of a task."""
    desc = f"eroded{erosion}" if erosion else ""
    return _name(pet, "pet", "morph", ".tsv", {"seg": task, "desc": desc, **_space(pet, "pet", space)})


def kinetics(dynamic: Source, task: str, erosion: int, model: str) -> str:
    """Fits of a kinetic model to every region of a task."""
    desc = f"eroded{erosion}" if erosion else ""
    return _name(dynamic, "pet", "kinpar", ".tsv", {"seg": task, "desc": desc, "model": model})


def parametric_map(dynamic: Source, model: str, measure: str) -> str:
    """A voxel map of a parameter of a kinetic model."""
    return _name(dynamic, "pet", "mimap", ".nii.gz", {"model": model, "meas": measure})


def frame_quality_table(dynamic: Source) -> str:
    """Motion and odd voxels of the late frames of a dynamic image."""
    return _name(dynamic, "pet", "qc", ".tsv", {"desc": "frames"})


def quality(pet: Source) -> str:
    """The quality checks of a scan, named after its dynamic (or only) PET image."""
    return _name(pet, "pet", "qc", ".json", {})


def page_stem(label: str, scan: ScanName | None = None) -> str:
    """What the page and pictures of a scan are called; without a scan those of the participant."""
    return f"sub-{label}" if scan is None else f"sub-{label}_{scan.title}"


def report(stem: str) -> str:
    """The page of a scan or of a participant, see :func:`page_stem`."""
    return f"{stem}.html"


def figure(label: str, stem: str, name: str) -> str:
    """A picture of a page."""
    return f"sub-{label}/figures/{stem}_desc-{name}.svg"


def manifest(label: str) -> str:
    """The list of a participant's current outputs."""
    return f"sub-{label}/sub-{label}_manifest.json"


def log_folder(label: str, run: str) -> str:
    """Where one run keeps its log, settings and crash files of a participant."""
    return f"sub-{label}/log/{run}"


def crash_file(step: str) -> str:
    """What a step that crashed leaves in the log folder."""
    return f"crash-{re.sub('[^A-Za-z0-9+_-]+', '-', step).strip('-')}.txt"


def below(root: Path, path: Path) -> str:
    """A path as it is written in lists of an output folder: below it where it is in it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def lock(label: str) -> str:
    """What a run holds while it works on a participant."""
    return f"sub-{label}/log/.lock"


READOUTS_LOCK = "logs/.readouts.lock"
"""What a run holds while it writes the group tables; not in their folder, which is replaced as one."""


def readout(table: str, extension: str) -> str:
    """A group table or its data dictionary."""
    return f"readouts/{table}{extension}"


SCAN_COLUMNS = ("Subject", "Session", "Tracer", "Run")
"""The columns of group tables that say which scan a row is of."""

NORMALISATIONS: Mapping[str, str] = {
    "SUV": "SUV Denominator [Bq/mL]",
    "SUL Decazes": "SUL Decazes Denominator [Bq/mL]",
    "SUL Janma": "SUL Janma Denominator [Bq/mL]",
    "SUL James": "SUL James Denominator [Bq/mL]",
}
"""For each normalisation of activity the column of ``metadata`` with what it is divided by, Bq/g."""

GROUP_REPORT = "group.html"
VALIDATOR_LOG = "logs/bids-validator.json"


def _space(source: Source, datatype: str, space: ScanSpace | None) -> dict[str, str]:
    return space.entities(source, datatype) if space else {}


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


def enumerated(items: Iterable[object]) -> str:
    """Items as an enumeration for sentences: ``a, b and c``."""
    *before, last = map(str, items)
    return f"{', '.join(before)} and {last}" if before else last


def listed(items: Iterable[object]) -> str:
    """Items as an enumeration for messages, or ``nothing``."""
    return ", ".join(str(item) for item in items) or "nothing"
