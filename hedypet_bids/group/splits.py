"""Splits of a study (train, validation, test): which participants each of them names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, MissingInputError, NothingSelectedError, UsageError
from hedypet_bids.inputs.text_files import read_json, read_tsv
from hedypet_bids.io.presence import is_there
from hedypet_bids.io.tables import MISSING

_COLUMN = "split"
SPLITS_FILE = "splits.json"


@dataclass(frozen=True)
class Splits:
    """Participant labels (without ``sub-``) of each split, and the split that is asked for."""

    members: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    chosen: str | None = None

    def of(self, label: str) -> str | None:
        """The splits of a participant as text; None when it is in none."""
        return ", ".join(sorted(n for n, labels in self.members.items() if label in labels)) or None

    def select(self, labels: Iterable[str]) -> list[str]:
        """Those of the labels that are in the chosen split; all without one.

        Raises
        ------
        NothingSelectedError
            None of them is.
        """
        labels = list(labels)
        if self.chosen is None:
            return labels
        selected = [label for label in labels if label in self.members[self.chosen]]
        if not selected:
            raise NothingSelectedError(
                f"None of the {len(labels)} participants of the output is in the split {self.chosen}."
            )
        return selected


def read_splits(file: Path | None, folders: Iterable[Path], chosen: str | None) -> Splits:
    """The splits of a file, else of splits.json or participants.tsv (column ``split``) in the folders.

    Raises
    ------
    MissingInputError
        The file is not there.
    BadDataError
        It, or what stands in its place, cannot be read, or is not an object of name -> list of participants.
    UsageError
        A split is asked for that there is not.
    """
    members = _members(file, list(folders))
    if chosen is not None and chosen not in members:
        raise UsageError(
            f"--split {chosen}: there is no such split; there is {names.listed(sorted(members))}. Splits are "
            f"read from --splits FILE, {SPLITS_FILE} or the column {_COLUMN} of participants.tsv."
        )
    return Splits(members, chosen)


def _members(file: Path | None, folders: list[Path]) -> dict[str, frozenset[str]]:
    if file is not None and not file.is_file():
        raise MissingInputError(f"--splits {file}: the file does not exist.")
    candidates = [folder / SPLITS_FILE for folder in folders]
    path = file or next((path for path in candidates if is_there(path)), None)
    if path is not None:
        return _from_json(path)
    tables = (folder / "participants.tsv" for folder in folders)
    return next((found for table in tables if is_there(table) and (found := _from_table(table))), {})


def _from_json(path: Path) -> dict[str, frozenset[str]]:
    content = read_json(path)
    well_formed = all(
        isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        for labels in content.values()
    )
    if not well_formed:
        raise BadDataError(
            f'{path}: expected an object of split names and lists of participants, {{"train": ["sub-001"]}}.'
        )
    return {name: frozenset(map(names.participant_label, labels)) for name, labels in content.items()}


def _from_table(path: Path) -> dict[str, frozenset[str]]:
    members: dict[str, set[str]] = {}
    for line in read_tsv(path):
        row = line.checked()
        split = row.get(_COLUMN)
        if split and split != MISSING:
            label = names.participant_label(row.get("participant_id", ""))
            members.setdefault(split, set()).add(label)
    return {name: frozenset(labels) for name, labels in members.items()}
