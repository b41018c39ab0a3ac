"""Whose label numbers a ready segmentation uses: told by its table of names, never by the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, shown
from hedypet_bids.inputs.text_files import read_tsv
from hedypet_bids.io.nifti_read import header_extensions
from hedypet_bids.io.presence import is_there
from hedypet_bids.labels import CT_TASKS, OTHER_NAMES, Task, former_regions
from hedypet_bids.model import IntArray

_OF_BODY = {task.name for task in CT_TASKS}
_NAMES_SHOWN = 10
_LARGEST_TABLE_BYTES = 1_000_000
_MOST_DIGITS = 9


def table_beside(segmentation: Path) -> Path | None:
    """The label table (``*_dseg.tsv``) of a ready segmentation: the nearest by the inheritance principle.

    Raises
    ------
    BadDataError
        It is there and cannot be read, or several of one folder apply.
    """
    entities = names.entities_of(segmentation.name)
    for folder in _folders_above(segmentation):
        found = {}
        for path in (*folder.glob("*_dseg.tsv"), folder / "dseg.tsv"):
            asked = names.entities_of(path.name)
            if (path.exists() or path.is_symlink()) and asked.items() <= entities.items():
                found[path] = len(asked)
        best = [path for path, n in found.items() if n == max(found.values()) and is_there(path)]
        if len(best) > 1:
            raise BadDataError(
                f"Several label tables could be those of {segmentation}: "
                f"{names.listed(map(str, sorted(best)))}. Remove or rename all but one."
            )
        if best:
            return best[0]
    return None


def _folders_above(segmentation: Path) -> Iterator[Path]:
    """The folder of a segmentation and those above it, up to the one that holds the participant's."""
    folders = list(segmentation.parents)
    of_participant = next((at for at, folder in enumerate(folders) if folder.name.startswith("sub-")), -1)
    yield from folders[: max(of_participant + 2, 1)]


def names_of_labels(segmentation: Path) -> dict[int, str]:
    """Names by label index, from the table beside the image or TotalSegmentator's header extension.

    Empty where there is neither.

    Raises
    ------
    BadDataError
        The table cannot be read, or lacks the columns ``index`` and ``name``.
    """
    table = table_beside(segmentation)
    return _from_table(table) if table else _from_extension(segmentation)


def in_task_numbers(labels: IntArray, named: Mapping[int, str], task: Task, where: Path) -> IntArray:
    """The labels under the task's own numbers.

    Names of TotalSegmentator 2, of hedyPET and of TotalSegmentator 1 (whose parts of the heart become one
    region) are known; those of its networks for MR, where the task has their label table. Without names the
    numbers are the task's own.

    Raises
    ------
    BadDataError
        A label that is there has a name of no known scheme.
    """
    if task.name not in _OF_BODY or not named:
        return labels
    own = dict(zip(task.table.names, task.table.indices, strict=True))
    former = former_regions(task.table_name)
    target, unknown = {}, {}
    for index, name in named.items():
        region = OTHER_NAMES.get(name, name)
        if former and set(named.values()) <= set(former):
            region = former[name]
        if region in own or region == "n/a":
            target[index] = own.get(region, 0)
        elif name.lower() not in ("background", "n/a"):
            unknown[index] = name
    present = np.flatnonzero(np.bincount(labels.ravel(order="K"))).tolist()
    strange = [f"{index} {shown(unknown[index])}" for index in present if index in unknown]
    if strange:
        more = f" and {len(strange) - _NAMES_SHOWN} more" if len(strange) > _NAMES_SHOWN else ""
        raise BadDataError(
            f"{where} has labels of an unknown scheme: {names.listed(strange[:_NAMES_SHOWN])}{more}. "
            "Expected the names of TotalSegmentator 2, TotalSegmentator 1 or hedyPET for the task "
            f"{task.name}."
        )
    if all(index == target.get(index, index) for index in present):
        return labels
    translation = np.arange(max(present) + 1)
    for index in present:
        translation[index] = target.get(index, index)
    translated: IntArray = translation.astype(np.uint16)[labels]
    return translated


def _from_table(path: Path) -> dict[int, str]:
    named: dict[int, str] = {}
    for line in read_tsv(path):
        row = line.checked()
        number, name = (row.get(column, "").strip() for column in ("index", "name"))
        if not (number.isdecimal() and len(number) <= _MOST_DIGITS and name):
            raise BadDataError(
                f"{path}: expected a label table with the columns index (whole numbers) and name; found "
                f"{shown(dict(row))}."
            )
        index = int(number)
        if named.setdefault(index, name) != name:
            raise BadDataError(
                f"{path} calls label {shown(index)} both {shown(named[index])} and {shown(name)}. Keep one."
            )
    return named


def _from_extension(segmentation: Path) -> dict[int, str]:
    """The label table that TotalSegmentator writes into the header as XML."""
    for content in header_extensions(segmentation, most_bytes=_LARGEST_TABLE_BYTES):
        try:
            root = ElementTree.fromstring(content.rstrip(b"\0 \n").decode("utf-8"))
            return {int(label.attrib["Key"]): (label.text or "").strip() for label in root.iter("Label")}
        except (ElementTree.ParseError, UnicodeDecodeError, KeyError, ValueError):
            continue  # an extension of another program
    return {}
