"""The input dataset: which participants there are and which of their images play which part.

pybids does the indexing of the file names. It knows no CT, so it gets an edited copy
of its own configuration; only the folders of the participants asked for are read.
Sidecars are read here, and only those of the images that are used: one that is broken
or of an absurd size then concerns no other image.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hedypet_bids import bids_names as names
from hedypet_bids.bids_names import Source
from hedypet_bids.errors import BadDataError, MissingInputError, NothingSelectedError, UsageError
from hedypet_bids.io.dataset_files import participant_rows, read_json, read_tsv, sidecars_of
from hedypet_bids.io.frames import FrameReader
from hedypet_bids.io.plausibility import check_overlap, check_voxel_sizes
from hedypet_bids.labels import CT_TASKS, MR_TASKS, SEGMENTATION_TASKS, Task
from hedypet_bids.settings import Selection

IMAGE_EXTENSIONS = (".nii.gz", ".nii")
_LABEL = re.compile("[a-zA-Z0-9+]+")

READY_SEGMENTATIONS = ("totalsegmentator", "synthseg")

# What the names of PET, CT and MR images have; each further one costs pybids a millisecond a participant.
_ENTITIES = (
    *("subject", "session", "task", "tracer", "acquisition", "ceagent", "reconstruction", "direction", "run"),
    *("suffix", "datatype", "extension"),
)

# Short entity keys of file names, as people write them in filters, to pybids' long ones.
_LONG_ENTITY = {
    "sub": "subject",
    "ses": "session",
    "rec": "reconstruction",
    "acq": "acquisition",
    "trc": "tracer",
    "ce": "ceagent",
}


@dataclass(frozen=True)
class ParticipantInputs:
    """The images of one participant by the part they play; None or empty where there is none."""

    label: str
    dynamic: Source | None = None
    static: Source | None = None
    other_statics: tuple[Source, ...] = ()
    ct: Source | None = None
    other_cts: tuple[Source, ...] = ()
    topogram: Source | None = None
    head_mr: Source | None = None
    head_mr_group: tuple[Source, ...] = ()
    body_mr: Source | None = None
    body_mr_group: tuple[Source, ...] = ()
    ready_segmentations: Mapping[str, Path] = field(default_factory=dict, hash=False)
    aorta_correction: Path | None = None
    given_transforms: Mapping[str, Path] = field(default_factory=dict, hash=False)

    @property
    def statics(self) -> tuple[Source, ...]:
        """Every static PET reconstruction, the one that is measured first."""
        return ((self.static,) if self.static else ()) + self.other_statics

    @property
    def cts(self) -> tuple[Source, ...]:
        """Every CT reconstruction, the segmented one first."""
        return ((self.ct,) if self.ct else ()) + self.other_cts

    @property
    def head_mrs(self) -> tuple[Source, ...]:
        """Every MR image that moves with the head registration."""
        return ((self.head_mr,) if self.head_mr else ()) + self.head_mr_group

    @property
    def body_mrs(self) -> tuple[Source, ...]:
        """Every MR image that moves with the body registration."""
        return ((self.body_mr,) if self.body_mr else ()) + self.body_mr_group

    @property
    def pet(self) -> Source | None:
        """The image that stands for the scan: the static one, else the dynamic one."""
        return self.static or self.dynamic


class Dataset:
    """A raw BIDS dataset, of which some participants are indexed when they are first asked for.

    Raises
    ------
    MissingInputError
        ``root`` is no folder, or holds no dataset_description.json.
    NothingSelectedError
        No participant is left.
    """

    def __init__(
        self,
        root: Path,
        *,
        participant_labels: Collection[str] = (),
        session_labels: Collection[str] = (),
        derivatives: Mapping[str, Path] | None = None,
        filters: Mapping[str, Mapping[str, Any]] | None = None,
        selection: Selection | None = None,
    ) -> None:
        self.root = _existing_dataset(root)
        self.labels = _selected_labels(self.root, participant_labels)
        self.derivatives = _ready_derivatives(self.root, derivatives or {})
        _check_sessions(self.root, session_labels)
        self._sessions = tuple(session_labels)
        self._filters = dict(filters or {})
        self._selection = selection or Selection()
        self.participants_columns = read_json(self.root / "participants.json")
        self._participants = participant_rows(self.root / "participants.tsv", self.labels)
        self._sidecars: dict[Path, dict[str, Any]] = {}

    def participant_row(self, label: str) -> Mapping[str, str]:
        """The participants.tsv row of a participant; empty when there is none.

        Raises
        ------
        BadDataError
            There are several rows, and they differ.
        """
        rows = self._participants.get(label, [])
        if len(rows) > 1:
            raise BadDataError(
                f"{self.root / 'participants.tsv'} has rows of sub-{label} that differ; expected one. Remove "
                "the others, or move what changes between sessions to a sessions table."
            )
        return rows[0] if rows else {}

    def session_rows(self, label: str) -> Mapping[str, Mapping[str, str]]:
        """The rows of ``sub-<L>_sessions.tsv`` by session label; empty without the file."""
        path = self.root / f"sub-{label}" / f"sub-{label}_sessions.tsv"
        rows = read_tsv(path) if path.is_file() else iter(())
        return {row.get("session_id", "").removeprefix("ses-"): row for row in rows}

    def session_columns(self, label: str) -> Mapping[str, Any]:
        """What ``sub-<L>_sessions.json`` says on the columns of the session table."""
        return read_json(self.root / f"sub-{label}" / f"sub-{label}_sessions.json")

    def metadata(self, source: Source) -> dict[str, Any]:
        """The sidecar of an image, with what it inherits from sidecars above it.

        Raises
        ------
        BadDataError
            A sidecar that applies to the image is no JSON object, or of an absurd size.
        """
        if source.path not in self._sidecars:
            content: dict[str, Any] = {}
            for path in sidecars_of(source):
                content |= read_json(path)
            self._sidecars[source.path] = content
        return dict(self._sidecars[source.path])

    def inputs(self, label: str) -> ParticipantInputs:
        """The images of one participant by the part they play.

        Raises
        ------
        BadDataError
            Several images could play the same part (the message lists them and
            says which option chooses), a PET image or its sidecar cannot be read,
            PET and CT lie apart, or the label is none that BIDS allows.
        """
        if not _LABEL.fullmatch(label):
            raise BadDataError(
                f"The folder {self.root / f'sub-{label}'} has a label that BIDS does not allow: expected "
                f"letters and digits only, found {label!r}. Rename the folder and its files."
            )
        sources = self._sources(label)
        pets = self._in_sessions([s for s in sources if s.suffix == names.PET_SUFFIX], required=True)
        cts = self._in_sessions([s for s in sources if s.suffix == names.CT_SUFFIX], required=True)
        topograms = self._in_sessions(
            [s for s in sources if s.suffix == names.TOPOGRAM_SUFFIX], required=True
        )
        mrs = self._in_sessions([s for s in sources if s.suffix == names.MR_SUFFIX], required=False)

        for pet in pets:
            self.metadata(pet)
            check_voxel_sizes(pet.path)
        dynamics = [s for s in pets if n_frames(s.path) > 1]
        statics = [s for s in pets if s not in dynamics]
        self._check_kind(dynamics, "static", self._selection.static_rec, "a 3D image")
        self._check_kind(statics, "dynamic", self._selection.dynamic_rec, "a 4D image")
        static = self._choose(statics, "static", "reconstruction", self._selection.static_rec)
        ct = self._choose(cts, "ct", "reconstruction", self._selection.ct_rec)
        head_group = [m for m in mrs if _acquisition(m).startswith(names.HEAD_MR_GROUP)]
        body_group = [m for m in mrs if _acquisition(m).startswith(names.BODY_MR_GROUPS)]
        plain = [m for m in mrs if m not in head_group and m not in body_group]
        head = self._choose(plain, "head_mr", "acquisition", self._selection.head_mr_acq)
        body = self._choose(
            [m for m in body_group if _acquisition(m) == self._selection.body_mr_acq],
            "body_mr",
            "acquisition",
            self._selection.body_mr_acq,
        )
        inputs = ParticipantInputs(
            label=label,
            dynamic=self._choose(dynamics, "dynamic", "reconstruction", self._selection.dynamic_rec),
            static=static,
            other_statics=tuple(s for s in statics if s != static),
            ct=ct,
            other_cts=tuple(c for c in cts if c != ct),
            topogram=self._choose(topograms, "topogram", "reconstruction", ""),
            head_mr=head,
            head_mr_group=tuple(head_group),
            body_mr=body,
            body_mr_group=tuple(m for m in body_group if m != body),
        )
        if inputs.ct is not None:
            for pet in filter(None, (inputs.static, inputs.dynamic)):
                check_overlap(pet.path, inputs.ct.path)
        return _with_derivatives(inputs, self.derivatives)

    def _sources(self, label: str) -> list[Source]:
        if label not in self.labels:
            return []
        files = _index(self.root, label).get(
            datatype=list(names.INPUT_DATATYPES), extension=list(IMAGE_EXTENSIONS)
        )
        sources = []
        for file in sorted(files, key=lambda f: str(f.path)):
            entities = {key: str(value) for key, value in file.get_entities().items()}
            sources.append(
                Source(
                    path=Path(file.path),
                    root=self.root,
                    entities=entities,
                    suffix=entities["suffix"],
                    datatype=entities["datatype"],
                )
            )
        return sources

    def _in_sessions(self, sources: list[Source], *, required: bool) -> list[Source]:
        """Sources of the sessions asked for; MR of another session stays when those have none."""
        if not self._sessions:
            return sources
        chosen = [s for s in sources if s.entities.get("session") in self._sessions]
        return chosen if chosen or required else sources

    def _check_kind(self, pets: Sequence[Source], role: str, wanted_rec: str, expected: str) -> None:
        """Raise BadDataError when the reconstruction that plays a part cannot play it."""
        both = self._selection.static_rec == self._selection.dynamic_rec
        for pet in pets:
            if pet.entities.get("reconstruction") == wanted_rec and not (both or self._filters.get(role)):
                raise BadDataError(
                    f"{pet.path} has {_counted(n_frames(pet.path))}; its reconstruction {wanted_rec} is the "
                    f"{role} one (selection.{role}_rec of --settings), so {expected} was expected. Restore "
                    f"the image, or choose another with --bids-filter-file."
                )

    def _choose(self, candidates: Sequence[Source], role: str, entity: str, preferred: str) -> Source | None:
        """The one image that plays a part: by filter, by the preferred label, or the only one."""
        wanted = self._filters.get(role)
        if wanted:
            candidates = [c for c in candidates if _passes(c, wanted)]
        elif preferred:
            exact = [c for c in candidates if c.entities.get(entity) == preferred]
            candidates = exact or candidates
        if len(candidates) > 1:
            listed = "\n  ".join(str(c.path.relative_to(self.root)) for c in candidates)
            raise BadDataError(
                f"Expected one image for the part {role!r}; found {len(candidates)}:\n  {listed}\n"
                f"Choose one with --bids-filter-file, for example "
                f'{{"{role}": {{"{entity}": "LABEL"}}}}, or restrict the sessions with --session-label.'
            )
        return candidates[0] if candidates else None


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """The filters of a ``--bids-filter-file``: part -> entity -> value or list of values."""
    parts = ("dynamic", "static", "ct", "topogram", "head_mr", "body_mr")
    if not path.is_file():
        raise MissingInputError(f"The BIDS filter file {path} does not exist.")
    filters = read_json(path)
    for part, wanted in filters.items():
        if part not in parts or not isinstance(wanted, dict):
            raise UsageError(
                f"{path}: expected an object whose keys are among {', '.join(parts)} and whose values are "
                f'objects such as {{"reconstruction": "acdynPSF"}}; found {part!r}: {wanted!r}.'
            )
    return filters


def n_frames(path: Path) -> int:
    """Number of frames of a NIfTI image, from its header.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadDataError
        The header cannot be read or cannot be right.
    """
    return FrameReader(path).n_frames


def _counted(n: int) -> str:
    return f"{n} frame" if n == 1 else f"{n} frames"


def _acquisition(source: Source) -> str:
    return source.entities.get("acquisition", "")


def _passes(source: Source, wanted: Mapping[str, Any]) -> bool:
    for key, value in wanted.items():
        allowed = [str(v) for v in value] if isinstance(value, list) else [str(value)]
        if source.entities.get(_LONG_ENTITY.get(key, key)) not in allowed:
            return False
    return True


def _existing_dataset(root: Path) -> Path:
    if not root.is_dir():
        raise MissingInputError(f"The BIDS dataset {root} does not exist or is no folder.")
    description = root / "dataset_description.json"
    if not description.is_file():
        raise MissingInputError(
            f"{root} holds no dataset_description.json, so it is no BIDS dataset. "
            "Give the top folder of the dataset (the one that holds the sub-* folders)."
        )
    read_json(description)
    return root.resolve()


def _check_sessions(root: Path, wanted: Collection[str]) -> None:
    """Raise NothingSelectedError for a session that no participant has."""
    unknown = [label for label in wanted if next(root.glob(f"sub-*/ses-{label}"), None) is None]
    if unknown:
        raise NothingSelectedError(
            f"No participant of {root} has a folder ses-{names.listed(unknown)}. Check --session-label."
        )


def _selected_labels(root: Path, wanted: Collection[str]) -> tuple[str, ...]:
    present = sorted(p.name.removeprefix("sub-") for p in root.glob("sub-*") if p.is_dir())
    if not present:
        raise NothingSelectedError(f"{root} has no sub-* folder: there is no participant to process.")
    if not wanted:
        return tuple(present)
    unknown = sorted(set(wanted) - set(present))
    if unknown:
        raise NothingSelectedError(
            f"No folder for participant {names.listed(unknown)} in {root}. "
            f"It has: {names.listed(present[:20])}{' ...' if len(present) > 20 else ''}. "
            "Check --participant-label."
        )
    return tuple(label for label in present if label in wanted)


def _ready_derivatives(root: Path, given: Mapping[str, Path]) -> dict[str, Path]:
    """Datasets of ready segmentations: those given, else those inside the raw dataset."""
    found = {
        name: root / "derivatives" / name
        for name in READY_SEGMENTATIONS
        if (root / "derivatives" / name).is_dir()
    }
    for name, path in given.items():
        if not path.is_dir():
            raise MissingInputError(f"--derivatives {name}={path}: the folder does not exist.")
        found[name] = path.resolve()
    return found


def _index(root: Path, label: str) -> Any:
    """A pybids layout of one participant's folder."""
    # Imported here: pybids takes half a second, which --help and --version do not have.
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    with tempfile.TemporaryDirectory(prefix="hedypet-") as folder:
        config = Path(folder) / "bids_with_ct.json"
        config.write_text(json.dumps(_pybids_config(root)))
        try:
            return BIDSLayout(
                root / f"sub-{label}",
                validate=False,
                config=str(config),
                indexer=BIDSLayoutIndexer(
                    validate=False, index_metadata=False, ignore=[_Circles(root / f"sub-{label}")]
                ),
            )
        except (OSError, ValueError) as fault:
            raise BadDataError(f"{root / f'sub-{label}'} cannot be indexed: {fault}") from fault


def _pybids_config(root: Path) -> dict[str, Any]:
    """pybids' configuration with the datatype ct, and without the entities of other modalities."""
    import bids

    path = Path(bids.__file__).parent / "layout" / "config" / "bids.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config["entities"] = [entity for entity in config["entities"] if entity["name"] in _ENTITIES]
    for entity in config["entities"]:
        # pybids searches the whole path, in which folders above the dataset may be called pet or sub-1.
        pattern = entity["pattern"].replace("(anat|", "(anat|ct|", 1)
        entity["pattern"] = f"^{re.escape(str(root))}.*?{pattern}"
    return config


class _Circles:
    """What pybids passes by: links that lead in a circle, and what is not for programs."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def search(self, path: str) -> bool:
        """Whether to pass by a path (from the folder indexed), as a compiled expression would say it."""
        return path.startswith("/.") or _leads_back(self._root / path.lstrip("/"))


def _leads_back(path: Path) -> bool:
    """Whether a path is a link to one of the folders that lead to it."""
    if not path.is_symlink():
        return False
    target = os.path.realpath(path)
    return any(os.path.realpath(folder) == target for folder in path.parents)


def _with_derivatives(inputs: ParticipantInputs, derivatives: Mapping[str, Path]) -> ParticipantInputs:
    """The inputs with ready segmentations, a correction of the aorta and given transforms."""
    transforms = {
        part: _only(derivatives.get("xfm"), inputs.label, f"*from-{moving}_to-CT*xfm.txt")
        for part, moving in (("head", "T1w"), ("body", "DIXON"))
    }
    return dataclasses.replace(
        inputs,
        ready_segmentations=_ready_segmentations(inputs, derivatives),
        aorta_correction=_only(derivatives.get("aorta"), inputs.label, "*aorta*.nii*"),
        given_transforms={part: path for part, path in transforms.items() if path},
    )


def _only(folder: Path | None, label: str, pattern: str) -> Path | None:
    """The one file of a participant that matches, in ``sub-<L>/`` or named after it; None without one."""
    if folder is None:
        return None
    beside = [p for p in folder.glob(f"sub-{label}{pattern}") if p.name[len(label) + 4] in "_-"]
    found = sorted({*(folder / f"sub-{label}").rglob(pattern), *beside})
    if len(found) > 1:
        listed = "\n  ".join(map(str, found))
        raise BadDataError(
            f"Expected one file {pattern} of sub-{label} in {folder}; found {len(found)}:\n  {listed}\n"
            "Remove or rename all but one."
        )
    return found[0] if found else None


def _ready_segmentations(inputs: ParticipantInputs, derivatives: Mapping[str, Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for task in SEGMENTATION_TASKS:
        image = inputs.ct if task in CT_TASKS else inputs.head_mr
        folder = derivatives.get("totalsegmentator" if task in CT_TASKS else "synthseg")
        if image is None or folder is None:
            continue
        candidates = _segmentation_files(folder / f"sub-{inputs.label}", image, task)
        if len(candidates) > 1:
            listed = "\n  ".join(map(str, candidates))
            raise BadDataError(
                f"Expected one {task.name} segmentation of {image.path.name}; found {len(candidates)}:\n"
                f"  {listed}\nRemove or rename all but one."
            )
        if candidates:
            found[task.name] = candidates[0]
    return found


def _segmentation_files(folder: Path, image: Source, task: Task) -> list[Path]:
    """Ready label images of one task that are named after an image (its session, rec and acq)."""
    of_image = names.entities_of(image.path.name)
    matches = []
    for path in sorted(folder.rglob(f"*_seg-{task.name}*_dseg.nii*")):
        entities = names.entities_of(path.name)
        same = all(entities.get(key, value) == value for key, value in of_image.items())
        if same and "space" not in entities and _task_of(entities["seg"]) is task:
            matches.append(path)
    return matches


def _task_of(label: str) -> Task | None:
    """The task whose name is the longest beginning of a ``seg-`` label (``synthsegparcV2``)."""
    known = [t for t in CT_TASKS + MR_TASKS if label.startswith(t.name)]
    return max(known, key=lambda t: len(t.name), default=None)
