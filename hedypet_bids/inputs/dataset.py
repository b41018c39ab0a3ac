"""The input dataset: which participants there are, and what its files say about their images.

Only the folders of the participants asked for are read, and only the sidecars of the
images that are used: one that is broken or of an absurd size then concerns no other image.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, MissingInputError, NothingSelectedError, UsageError
from hedypet_bids.inputs.corrections import Corrections
from hedypet_bids.inputs.derivatives import ready_derivatives
from hedypet_bids.inputs.index import images_of
from hedypet_bids.inputs.roles import ROLES, Chooser
from hedypet_bids.inputs.text_files import participant_rows, read_json, read_tsv, sidecars_of
from hedypet_bids.io.presence import is_there
from hedypet_bids.model import Scan
from hedypet_bids.names import ScanName, Source
from hedypet_bids.settings import HeaderForm, Selection

_LABEL = re.compile("[a-zA-Z0-9+]+")


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
        Role -> entity -> value or values, see :func:`read_filters`.
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

    def wants(self, scan: ScanName) -> bool:
        """Whether a scan is asked for."""
        wanted = (
            (self.session_labels, scan.session),
            (self.pet_labels.get("tracer"), scan.tracer),
            (self.pet_labels.get("run"), scan.run),
        )
        return all(not labels or label in labels for labels, label in wanted)


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
        self.labels = selected_labels(self.root, request.participant_labels, request.excluded_labels)
        self.derivatives = ready_derivatives(self.root, request.derivatives)
        self.corrections = Corrections(request.corrections)
        _check_sessions(self.root, request.session_labels)
        self.request = request
        self._selection = selection or Selection()
        self.participants_columns = read_json(self.root / "participants.json")
        self._participants = participant_rows(self.root / "participants.tsv", self.labels)
        self._sidecars: dict[Path, dict[str, Any]] = {}

    def participant_row(self, label: str) -> Mapping[str, str]:
        """The participants.tsv row of a participant; empty when there is none.

        Raises
        ------
        BadDataError
            There are several rows, and they differ; or its line is damaged.
        """
        rows = self._participants.get(label, [])
        if len(rows) > 1:
            raise BadDataError(
                f"{self.root / 'participants.tsv'} has rows of sub-{label} that differ; expected one. Remove "
                "the others, or move what changes between sessions to a sessions table."
            )
        return rows[0].checked() if rows else {}

    def session_rows(self, label: str) -> Mapping[str, Mapping[str, str]]:
        """The rows of ``sub-<L>_sessions.tsv`` by session label; empty without the file."""
        path = self.root / f"sub-{label}" / f"sub-{label}_sessions.tsv"
        rows = read_tsv(path) if is_there(path) else iter(())
        return {row.cells.get("session_id", "").removeprefix("ses-"): row.checked() for row in rows}

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

    def unused_corrections(
        self, label: str, scans: Sequence[Scan], unread: Sequence[ScanName] = ()
    ) -> list[str]:
        """Files of ``--corrections`` for a participant that correct nothing, a sentence each.

        Those that may be for the scans ``unread`` are left out.
        """
        unused = [
            path
            for path in self.corrections.unused(label, scans)
            if not any(scan.could_name(path.name) for scan in unread)
        ]
        return [f"{path} corrects nothing: no input has that name. Rename or remove it." for path in unused]

    def _raw_metadata(self, source: Source) -> dict[str, Any]:
        if source.path not in self._sidecars:
            content: dict[str, Any] = {}
            for path in sidecars_of(source):
                content |= read_json(path)
            self._sidecars[source.path] = content
        return self._sidecars[source.path]

    def images(self, label: str) -> list[Source]:
        """Every PET, CT and MR image of a participant.

        Raises
        ------
        BadDataError
            The folder cannot be read, or its label is none that BIDS allows.
        """
        if not _LABEL.fullmatch(label):
            raise BadDataError(
                f"The folder {self.root / f'sub-{label}'} has a label that BIDS does not allow: expected "
                f"letters and digits only, found {label!r}. Rename the folder and its files."
            )
        if label not in self.labels:
            return []
        return images_of(self.root, label, database_dir=self.request.database_dir)

    def sessions(self, label: str) -> list[str]:
        """Session labels in the order of the sessions table: in time, where it says when they were."""
        rows = self.session_rows(label)
        times = {session: row.get("acq_time", "") for session, row in rows.items()}
        known = all(time and time != "n/a" for time in times.values())
        return sorted(rows, key=times.__getitem__) if known else list(rows)

    @property
    def header_form(self) -> HeaderForm:
        """Which form of an image's header says where it is."""
        return self._selection.header_form

    @property
    def chooser(self) -> Chooser:
        """How the images of a scan are chosen where there are several."""
        reconstructions = self.request.pet_labels.get("reconstruction", ())
        return Chooser(self._selection, self.request.filters, reconstructions)


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """The filters of a ``--bids-filter-file``: role -> entity -> value or list of values."""
    if not path.is_file():
        raise MissingInputError(f"The BIDS filter file {path} does not exist.")
    filters = read_json(path)
    for role, wanted in filters.items():
        if role not in ROLES or not isinstance(wanted, dict):
            raise UsageError(
                f"{path}: expected an object whose keys are among {', '.join(ROLES)} and whose values are "
                f'objects such as {{"reconstruction": "acdynPSF"}}; found {role!r}: {wanted!r}.'
            )
    return filters


def _existing_dataset(root: Path) -> Path:
    if not root.is_dir():
        raise MissingInputError(f"The BIDS dataset {root} does not exist or is not a folder.")
    description = root / names.DESCRIPTION
    try:
        is_dataset = is_there(description)
    except PermissionError as fault:
        raise MissingInputError(
            f"The BIDS dataset {root} cannot be entered: {fault.strerror}. Ask its owner to let you read it."
        ) from fault
    if not is_dataset:
        raise MissingInputError(
            f"{root} holds no dataset_description.json, so it is not a BIDS dataset. "
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


def selected_labels(root: Path, wanted: Collection[str], excluded: Collection[str]) -> tuple[str, ...]:
    """Labels of the participants that have a folder in a dataset and are asked for.

    Parameters
    ----------
    root
        A raw dataset, or an output.
    wanted, excluded
        Labels without ``sub-``; naming none asks for all.

    Raises
    ------
    NothingSelectedError
        There is no participant, none of a label that is named, or none is left.
    """
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
            f"--exclude-participant-label leaves no participant in {root} to process. Exclude fewer."
        )
    return left
