"""The text files of a dataset (sidecars and tables), refused before they could fill the memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.presence import is_there
from hedypet_bids.names import Source

# Far above what occurs: sidecars have kilobytes, a table of 100,000 participants a few megabytes.
_LARGEST_BYTES = {".json": 8 << 20, ".tsv": 32 << 20}


def sidecars_of(source: Source) -> Iterator[Path]:
    """The JSON files that apply to an image, the one that counts most last (inheritance principle)."""
    entities = names.entities_of(source.path.name)
    folders = [f for f in source.path.parents if f.is_relative_to(source.root)]
    for folder in reversed(folders):
        found = []
        for path in folder.glob(f"*{source.suffix}.json"):
            stem = path.name.removesuffix(".json")
            asked = names.entities_of(stem)
            if stem.rpartition("_")[2] == source.suffix and asked.items() <= entities.items():
                found.append((len(asked), path))
        yield from (path for _, path in sorted(found))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is no such file.

    Raises
    ------
    BadDataError
        It is no JSON object, nested absurdly deep, or far larger than such files are.
    """
    if not is_there(path):
        return {}
    _check_bytes(path)
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as fault:
        raise BadDataError(f"{path} cannot be indexed, as it cannot be read as JSON: {fault}.") from fault
    except RecursionError:
        raise BadDataError(
            f"{path} cannot be read as JSON: it is nested too deeply. Restore the file."
        ) from None
    if not isinstance(content, dict):
        raise BadDataError(f"{path} must hold a JSON object; found a {type(content).__name__}.")
    return content


def participant_rows(path: Path, labels: Collection[str]) -> dict[str, list[dict[str, str]]]:
    """The rows of some participants in ``participants.tsv``, by label; empty when there is no such file.

    Of rows that differ there are two at most, which is enough to see that they do.

    Raises
    ------
    BadDataError
        As :func:`read_tsv`, or there is no column ``participant_id``.
    """
    found: dict[str, list[dict[str, str]]] = {}
    if not is_there(path):
        return found
    for row in read_tsv(path):
        if "participant_id" not in row:
            raise BadDataError(
                f"{path} has no column participant_id; found {names.listed(row)[:200]}. Columns must be "
                "separated by tabs."
            )
        label = names.participant_label(row["participant_id"])
        if label in labels:
            rows = found.setdefault(label, [])
            if len(rows) < 2 and row not in rows:
                rows.append(row)
    return found


def read_tsv(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table, one by one, by column name.

    Raises
    ------
    BadDataError
        It is no table of tab-separated text, or far larger than such files are.
    """
    _check_bytes(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, delimiter="\t")
            header = next(lines, [])
            for line in lines:
                if line:
                    line += [""] * (len(header) - len(line))
                    yield dict(zip(header, line, strict=False))
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise BadDataError(f"{path} cannot be read as a table: {fault}.") from fault


def _check_bytes(path: Path) -> None:
    size, most = path.stat().st_size, _LARGEST_BYTES.get(path.suffix, min(_LARGEST_BYTES.values()))
    if size > most:
        raise BadDataError(
            f"{path} has {size >> 20} MB; a file of its kind has at most {most >> 20} MB. Restore the file."
        )
