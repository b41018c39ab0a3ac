"""The text files of a dataset (sidecars and tables), refused before they could fill the memory."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.presence import is_there
from hedypet_bids.names import Source

# Far above what occurs: sidecars have kilobytes, a table of 100,000 participants a few megabytes.
_LARGEST_BYTES = {".json": 8 << 20, ".tsv": 32 << 20}
_MOST_COLUMNS = 10_000


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
        kind = next(word for types, word in _JSON_KINDS if isinstance(content, types))
        raise BadDataError(f"{path} must hold a JSON object; found {kind}. Restore the file.")
    return content


_JSON_KINDS = (
    (list, "an array"),
    (str, "a text"),
    (bool, "true or false"),
    (int | float, "a number"),
    (type(None), "null"),
)


class TsvRow(NamedTuple):
    """A row of a table by column, and what is wrong with the line; empty where nothing is."""

    cells: Mapping[str, str]
    fault: str = ""

    def checked(self) -> Mapping[str, str]:
        """The cells; BadDataError where something is wrong."""
        if self.fault:
            raise BadDataError(self.fault)
        return self.cells


def participant_rows(path: Path, labels: Collection[str]) -> dict[str, list[TsvRow]]:
    """The rows of some participants in ``participants.tsv``, by label; empty when there is no such file.

    Of rows that differ there are two at most, which is enough to see that they do.

    Raises
    ------
    BadDataError
        As :func:`read_tsv`, or there is no column ``participant_id``.
    """
    found: dict[str, list[TsvRow]] = {}
    if not is_there(path):
        return found
    for row in read_tsv(path):
        if "participant_id" not in row.cells:
            raise BadDataError(
                f"{path} has no column participant_id; found {names.listed(row.cells)[:200]}. Columns must "
                "be separated by tabs."
            )
        label = names.participant_label(row.cells["participant_id"])
        if label in labels:
            rows = found.setdefault(label, [])
            if len(rows) < 2 and row not in rows:
                rows.append(row)
                if len(rows) == 2 and all(len(found.get(wanted, ())) == 2 for wanted in labels):
                    break
    return found


def read_tsv(path: Path) -> Iterator[TsvRow]:
    """The rows of a table, one by one.

    Each line is a row: a quote that is not closed spoils its own line, not those behind it.

    Raises
    ------
    BadDataError
        It is no table of tab-separated text, has a column twice, or is far larger than such files are.
    """
    _check_bytes(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            names_as_written = next(lines, [])
            if len(names_as_written) > _MOST_COLUMNS:
                raise BadDataError(
                    f"{path} has {len(names_as_written)} columns; expected at most {_MOST_COLUMNS}. Mend it."
                )
            if any(map(_is_open, names_as_written)):
                raise BadDataError(f"{path}, line 1: {_OPEN_QUOTE}. Mend the line.")
            header = [_unquoted(cell) for cell in names_as_written]
            if twice := [name for name, times in Counter(header).items() if name and times > 1]:
                raise BadDataError(f"{path} has the column {names.listed(twice)} twice. Remove one.")
            for line in lines:
                if line:
                    yield _row(path, lines.line_num, header, line)
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise BadDataError(f"{path} cannot be read as a table: {fault}.") from fault


def _row(path: Path, number: int, header: Sequence[str], line: Sequence[str]) -> TsvRow:
    """A row; wrong where its cells cannot be told apart for certain."""
    has_quotes = '"' in "".join(line)
    if len(line) == len(header) and not has_quotes:
        return TsvRow(dict(zip(header, line, strict=True)))
    # An editor that strips the ends of lines takes empty cells away.
    cells = dict(zip_longest(header, line[: len(header)], fillvalue=""))
    fault = ""
    if has_quotes:
        cells = {name: _unquoted(cell) for name, cell in cells.items()}
    if any(line[len(header) :]):
        fault = f"it has {len(line)} cells; expected {len(header)}, as many as the header has"
    elif any(map(_is_open, line)):
        fault = _OPEN_QUOTE
    return TsvRow(cells, f"{path}, line {number}: {fault}. Mend the line." if fault else "")


_OPEN_QUOTE = "a cell begins with a quote that is not closed; expected none, or a pair"


def _is_open(cell: str) -> bool:
    return cell.startswith('"') and _unquoted(cell) == cell


def _unquoted(cell: str) -> str:
    """A cell without the quotes that a spreadsheet put around it."""
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if quoted else cell


def _check_bytes(path: Path) -> None:
    size, most = path.stat().st_size, _LARGEST_BYTES.get(path.suffix, min(_LARGEST_BYTES.values()))
    if size > most:
        raise BadDataError(
            f"{path} has {size >> 20} MB; a file of its kind has at most {most >> 20} MB. Restore the file."
        )
