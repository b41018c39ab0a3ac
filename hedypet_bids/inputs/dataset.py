"""The input dataset: which participants there are and which of their images play which part.

Only the folders of the participants asked for are read, and only the sidecars of the
images that are used: one that is broken or of an absurd size then concerns no other image.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, MissingInputError, NothingSelectedError, Problems, UsageError
from hedypet_bids.inputs.corrections import Corrections
from hedypet_bids.inputs.derivatives import ready_derivatives, with_derivatives
from hedypet_bids.inputs.index import images_of
from hedypet_bids.inputs.plausibility import check_overlap, check_voxel_sizes
from hedypet_bids.inputs.roles import ParticipantInputs
from hedypet_bids.inputs.text_files import participant_rows, read_json, read_tsv, sidecars_of
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.names import Source
from hedypet_bids.settings import Selection

_LABEL = re.compile("[a-zA-Z0-9+]+")

# Short entity keys of file names, as people write them in filters, to pybids' long ones.
_LONG_ENTITY = {
    "sub": "subject",
    "ses": "session",
    "rec": "reconstruction",
    "acq": "acquisition",
    "trc": "tracer",
    "ce": "ceagent",
}
_CHOICE_FLAGS = {"static": "--static-rec", "dynamic": "--dynamic-rec", "ct": "--ct-rec"}


@dataclass(frozen=True)
class Request:
    """Which participants, sessions and images of a dataset are asked for; empty asks for all.

    Parameters
    ----------
    participant_labels, excluded_labels, session_labels
        Labels without ``sub-`` and ``ses-``.
    pet_labels
        Labels that a PET image may have, by entity (``tracer``, ``reconstruction``, ``run``).
    filters
        Part -> entity -> value or values, see :func:`read_filters`.
    derivatives
        Folders of what was made ready, by name.
    corrections
        A folder of corrected masks, matrices and sidecar entries.
    database_dir
        Where the index of each participant is kept for the next run.
    """

    participant_labels: tuple[str, ...] = ()
    excluded_labels: tuple[str, ...] = ()
    session_labels: tuple[str, ...] = ()
    pet_labels: Mapping[str, Collection[str]] = field(default_factory=dict, hash=False)
    filters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    derivatives: Mapping[str, Path] = field(default_factory=dict, hash=False)
    corrections: Path | None = None
    database_dir: Path | None = None


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
        self, root: Path, request: Request | None = None, *, selection: Selection | None = None
    ) -> None:
        request = request or Request()
        self.root = _existing_dataset(root)
        self.labels = _selected_labels(self.root, request.participant_labels, request.excluded_labels)
        self.derivatives = ready_derivatives(self.root, request.derivatives)
        self.corrections = Corrections(request.corrections)
        _check_sessions(self.root, request.session_labels)
        self._request = request
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
        """The sidecar of an image, with what it inherits from sidecars above it, and corrected.

        Raises
        ------
        BadDataError
            A sidecar that applies to the image is no JSON object, or of an absurd size.
        """
        return self._raw_metadata(source) | self.corrections.sidecar(source)

    def corrected(self, source: Source) -> tuple[str, ...]:
        """What ``--corrections`` changes in the sidecar of an image, a sentence each."""
        return tuple(self.corrections.notes(source, self._raw_metadata(source)))

    def unused_corrections(self, inputs: ParticipantInputs) -> list[Path]:
        """Files of ``--corrections`` for a participant that correct nothing."""
        return self.corrections.unused(inputs, [*inputs.statics, *filter(None, [inputs.dynamic])])

    def _raw_metadata(self, source: Source) -> dict[str, Any]:
        if source.path not in self._sidecars:
            content: dict[str, Any] = {}
            for path in sidecars_of(source):
                content |= read_json(path)
            self._sidecars[source.path] = content
        return self._sidecars[source.path]

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
        pets = self._in_sessions([s for s in sources if self._is_wanted_pet(s)], required=True)
        cts = self._in_sessions([s for s in sources if s.suffix == names.CT_SUFFIX], required=True)
        topograms = self._in_sessions(
            [s for s in sources if s.suffix == names.TOPOGRAM_SUFFIX], required=True
        )
        mrs = self._in_sessions([s for s in sources if s.suffix == names.MR_SUFFIX], required=False)

        problems = Problems()
        choose = partial(self._choose, problems)
        frames: dict[Source, int] = {}
        for pet in pets:
            with problems.noted():
                self.metadata(pet)
                check_voxel_sizes(pet.path)
                frames[pet] = n_frames(pet.path)
        dynamics = [pet for pet, n in frames.items() if n > 1]
        statics = [pet for pet, n in frames.items() if n == 1]
        with problems.noted():
            self._check_kind(dynamics, "static", self._selection.static_rec, "a 3D image")
        with problems.noted():
            self._check_kind(statics, "dynamic", self._selection.dynamic_rec, "a 4D image")
        static = choose(statics, "static", "reconstruction", self._selection.static_rec)
        ct = choose(cts, "ct", "reconstruction", self._selection.ct_rec)
        head_group = [m for m in mrs if _acquisition(m).startswith(names.HEAD_MR_GROUP)]
        body_group = [m for m in mrs if _acquisition(m).startswith(names.BODY_MR_GROUPS)]
        plain = [m for m in mrs if m not in head_group and m not in body_group]
        in_phase = [m for m in body_group if _acquisition(m) == self._selection.body_mr_acq]
        body = choose(in_phase, "body_mr", "acquisition", self._selection.body_mr_acq)
        inputs = ParticipantInputs(
            label=label,
            dynamic=choose(dynamics, "dynamic", "reconstruction", self._selection.dynamic_rec),
            static=static,
            other_statics=tuple(s for s in statics if s != static),
            ct=ct,
            other_cts=tuple(c for c in cts if c != ct),
            topogram=choose(topograms, "topogram", "reconstruction", ""),
            head_mr=choose(plain, "head_mr", "acquisition", self._selection.head_mr_acq),
            head_mr_group=tuple(head_group),
            body_mr=body,
            body_mr_group=tuple(m for m in body_group if m != body),
        )
        for pet in filter(None, (inputs.static, inputs.dynamic)):
            if inputs.ct is not None:
                with problems.noted():
                    check_overlap(pet.path, inputs.ct.path)
        with problems.noted():
            inputs = with_derivatives(inputs, self.derivatives)
        with problems.noted():
            inputs = self.corrections.applied_to(inputs)
        problems.raise_any()
        return inputs

    def _sources(self, label: str) -> list[Source]:
        if label not in self.labels:
            return []
        return images_of(self.root, label, database_dir=self._request.database_dir)

    def _is_wanted_pet(self, source: Source) -> bool:
        wanted = self._request.pet_labels.items()
        return source.suffix == names.PET_SUFFIX and all(
            source.entities.get(entity) in labels for entity, labels in wanted if labels
        )

    def _in_sessions(self, sources: list[Source], *, required: bool) -> list[Source]:
        """Sources of the sessions asked for; MR of another session stays when those have none."""
        if not self._request.session_labels:
            return sources
        chosen = [s for s in sources if s.entities.get("session") in self._request.session_labels]
        return chosen if chosen or required else sources

    def _check_kind(self, pets: Sequence[Source], role: str, wanted_rec: str, expected: str) -> None:
        """Raise BadDataError when the reconstruction that plays a part cannot play it."""
        both = self._selection.static_rec == self._selection.dynamic_rec
        for pet in pets:
            if pet.entities.get("reconstruction") == wanted_rec and not (
                both or self._request.filters.get(role)
            ):
                raise BadDataError(
                    f"{pet.path} has {_counted(n_frames(pet.path))}; its reconstruction {wanted_rec} is the "
                    f"{role} one, so {expected} was expected. Restore the image, or choose another with "
                    f"{_CHOICE_FLAGS[role]}."
                )

    def _choose(
        self, problems: Problems, candidates: Sequence[Source], role: str, entity: str, preferred: str
    ) -> Source | None:
        """The one image that plays a part: by filter, by the preferred label, or the only one."""
        wanted = self._request.filters.get(role)
        if wanted:
            candidates = [c for c in candidates if _passes(c, wanted)]
        elif preferred:
            exact = [c for c in candidates if c.entities.get(entity) == preferred]
            candidates = exact or candidates
        if len(candidates) > 1:
            listed = "\n  ".join(str(c.path.relative_to(self.root)) for c in candidates)
            flag = f"{_CHOICE_FLAGS[role]} LABEL, or with " if role in _CHOICE_FLAGS else ""
            with problems.noted():
                raise BadDataError(
                    f"Expected one image for the part {role!r}; found {len(candidates)}:\n  {listed}\n"
                    f"Choose one with {flag}--bids-filter-file, for example "
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
    try:
        is_dataset = description.is_file()
    except PermissionError as fault:
        raise MissingInputError(
            f"The BIDS dataset {root} cannot be entered: {fault.strerror}. Ask its owner to let you read it."
        ) from fault
    if not is_dataset:
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


def _selected_labels(root: Path, wanted: Collection[str], excluded: Collection[str]) -> tuple[str, ...]:
    present = sorted(p.name.removeprefix("sub-") for p in root.glob("sub-*") if p.is_dir())
    if not present:
        raise NothingSelectedError(f"{root} has no sub-* folder: there is no participant to process.")
    unknown = sorted(({*wanted} | {*excluded}) - {*present})
    if unknown:
        raise NothingSelectedError(
            f"No folder for participant {names.listed(unknown)} in {root}. "
            f"It has: {names.listed(present[:20])}{' ...' if len(present) > 20 else ''}. "
            "Check --participant-label and --exclude-participant-label."
        )
    left = tuple(label for label in present if (not wanted or label in wanted) and label not in excluded)
    if not left:
        raise NothingSelectedError(
            f"--exclude-participant-label leaves no participant of {root} to process. Name fewer."
        )
    return left
