"""What others made ready for a participant: segmentations, corrected aorta masks, transforms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, HedypetError, MissingInputError
from hedypet_bids.inputs.index import check_named_after_folder
from hedypet_bids.inputs.label_schemes import names_of_labels
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.presence import refuse_other_kinds
from hedypet_bids.labels import CT_TASKS, MR_TABLES, MR_TASKS, SEGMENTATION_TASKS, Task, label_table
from hedypet_bids.labels import task as task_named
from hedypet_bids.model import Scan
from hedypet_bids.names import Source

TRANSFORMS, AORTA_MASKS = "xfm.txt", "*aorta*.nii*"
"""How names of given transforms end, and the pattern of masks that replace the segmented aorta."""

READY_SEGMENTATIONS = ("totalsegmentator", "synthseg")


def ready_derivatives(root: Path, given: Mapping[str, Path]) -> dict[str, Path]:
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


def with_derivatives(scan: Scan, derivatives: Mapping[str, Path]) -> Scan:
    """The scan with ready segmentations and their image, a correction of the aorta, given transforms.

    Raises
    ------
    BadDataError
        Several files could be meant, or segmentations lie on no image of the scan.
    """
    scan = dataclasses.replace(scan, anatomy=scan.ct or _labelled(scan, derivatives))
    transforms = {
        body_part: _transform(scan, derivatives.get("xfm"), moving, kind)
        for body_part, moving, kind in (("head", scan.head_mr, "T1w"), ("body", scan.body_mr, "DIXON"))
    }
    return dataclasses.replace(
        scan,
        ready_segmentations=_ready_segmentations(scan, derivatives),
        aorta_correction=_only(derivatives.get("aorta"), scan, AORTA_MASKS),
        given_transforms={body_part: path for body_part, path in transforms.items() if path},
    )


def with_label_tables(scan: Scan) -> Scan:
    """A scan with the label tables that its segmentations of the body have.

    The names of a ready one tell whether it is that of a network for MR; what is made without a CT is made by
    such a network.
    """
    tables = {}
    for name, table in MR_TABLES.items():
        ready = scan.ready_segmentations.get(name)
        named: set[str] = set()
        # What cannot be read is told by the step that takes the segmentation over.
        with suppress(HedypetError):
            named = set(names_of_labels(ready).values()) if ready else set()
        of_mr_only = set(label_table(table).names) - set(task_named(name).table.names)
        if named & of_mr_only or (ready is None and scan.ct is None):
            tables[name] = table
    return dataclasses.replace(scan, label_tables=tables)


def _transform(scan: Scan, folder: Path | None, moving: Source | None, kind: str) -> Path | None:
    """A given transform of an MR image: the one to the scan's own CT where there are several."""
    plain = "CT" if scan.ct else "PET"
    fixed = scan.fixed
    own = names.fixed_label(fixed, moving, scan.fixed_told_apart_by) if fixed and moving else plain
    found = None
    for to in dict.fromkeys((own, plain)):
        found = found or _only(folder, scan, f"*from-{kind}_to-{to}_*{TRANSFORMS}")
    return found


def _only(folder: Path | None, scan: Scan, pattern: str) -> Path | None:
    """The one file of a scan that matches, in ``sub-<L>/`` or named after it; None without one.

    A file is the scan's unless an entity of its name says otherwise.
    """
    if folder is None:
        return None
    label = scan.label
    beside = [p for p in folder.glob(f"sub-{label}{pattern}") if p.name[len(label) + 4] in "_-"]
    found = sorted({*(folder / f"sub-{label}").rglob(pattern), *beside})
    if len(found) > 1:
        found = [path for path in found if scan.name.could_name(path.name)]
    for path in found:
        check_named_after_folder(path, label)
    if len(found) > 1:
        listed = "\n  ".join(map(str, found))
        raise BadDataError(
            f"Expected one file {pattern} of sub-{label} in {folder}; found {len(found)}:\n  {listed}\n"
            "Remove or rename all but one."
        )
    return found[0] if found else None


def _labelled(scan: Scan, derivatives: Mapping[str, Path]) -> Source | None:
    """The image, other than a CT, that ready segmentations of the body label: by name, then by grid."""
    folder = derivatives.get("totalsegmentator")
    if folder is None:
        return None
    files = {
        image: [
            path
            for task in CT_TASKS
            for path in _segmentation_files(folder / f"sub-{scan.label}", image, task)
        ]
        for image in (scan.body_mr, scan.static, scan.dynamic, scan.head_mr)
        if image is not None
    }
    named = [image for image in files if files[image]]
    if len(named) <= 1:
        return named[0] if named else None
    for image in named:
        grid = FrameReader(image.path).grid
        if all(FrameReader(path).grid.matches(grid, tolerance_mm=0.01) for path in files[image]):
            return image
    listed = "\n  ".join(f"{path} ({FrameReader(path).grid.shape})" for path in files[named[0]])
    candidates = "\n  ".join(f"{i.path} ({FrameReader(i.path).grid.shape})" for i in named)
    raise BadDataError(
        f"There is no CT of sub-{scan.label}, and its ready segmentations\n  {listed}\nlie on the grid of "
        f"none of the images that have their name:\n  {candidates}\nGive them in the grid of one of these."
    )


def _ready_segmentations(scan: Scan, derivatives: Mapping[str, Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for task in SEGMENTATION_TASKS:
        image = scan.anatomy if task in CT_TASKS else scan.head_mr
        folder = derivatives.get("totalsegmentator" if task in CT_TASKS else "synthseg")
        if image is None or folder is None:
            continue
        candidates = _segmentation_files(folder / f"sub-{scan.label}", image, task)
        if len(candidates) > 1:
            listed = "\n  ".join(map(str, candidates))
            raise BadDataError(
                f"Expected one {task.name} segmentation of {image.path.name}; found {len(candidates)}:\n"
                f"  {listed}\nRemove or rename all but one."
            )
        if candidates:
            refuse_other_kinds(candidates[0])
            found[task.name] = candidates[0]
    return found


def _segmentation_files(folder: Path, image: Source, task: Task) -> list[Path]:
    """Ready label images of one task that are named after an image (its session, rec and acq).

    Those with exactly its entities go before others, which may be of another image.
    """
    of_image = names.entities_of(image.path.name)
    matches: dict[bool, list[Path]] = {}
    for path in sorted(folder.rglob(f"*_seg-{task.name}*_dseg.nii*")):
        entities = names.entities_of(path.name)
        same = all(entities.get(key, value) == value for key, value in of_image.items())
        if same and "space" not in entities and _task_of(entities["seg"]) is task:
            exact = of_image.keys() == entities.keys() - {"seg", "desc"}
            matches.setdefault(exact, []).append(path)
    return matches.get(True) or matches.get(False, [])


def _task_of(label: str) -> Task | None:
    """The task whose name is the longest beginning of a ``seg-`` label (``synthsegparcV2``)."""
    known = [t for t in CT_TASKS + MR_TASKS if label.startswith(t.name)]
    return max(known, key=lambda t: len(t.name), default=None)
