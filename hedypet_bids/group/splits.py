"""Splits of a study (train, validation, test): which participants each of them names."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, MissingInputError, NothingSelectedError, UsageError
from hedypet_bids.io.presence import is_there

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
        It cannot be read, or is not an object of name -> list of participants.
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
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as fault:
        raise BadDataError(f"{path} cannot be read as JSON: {fault}.") from fault
    well_formed = isinstance(content, dict) and all(
        isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        for labels in content.values()
    )
    if not well_formed:
        raise BadDataError(
            f'{path}: expected an object of split names and lists of participants, {{"train": ["sub-001"]}}.'
        )
    return {name: frozenset(map(names.participant_label, labels)) for name, labels in content.items()}


def _from_table(path: Path) -> dict[str, frozenset[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise BadDataError(f"{path} cannot be read as a table: {fault}.") from fault
    members: dict[str, set[str]] = {}
    for row in rows:
        split = row.get(_COLUMN)
        if split and split != "n/a":
            members.setdefault(split, set()).add(names.participant_label(row.get("participant_id") or ""))
    return {name: frozenset(labels) for name, labels in members.items()}
