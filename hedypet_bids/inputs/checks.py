"""What can be said of a scan's inputs before any work: for ``--dry-run``, as one table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from hedypet_bids.errors import HedypetError
from hedypet_bids.inputs.pet_metadata import odd_dose
from hedypet_bids.inputs.plausibility import not_hounsfield, padding_of
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.model import InputCheck, InputState, Scan
from hedypet_bids.names import Source


def input_checks(scan: Scan) -> Iterator[InputCheck]:
    """Every input of a scan, and everything that is wrong with it; of a broken scan what could be read."""
    about = scan.about
    for kind, state, text in _findings(scan):
        yield InputCheck(kind, state, text, about)


Finding = tuple[str, InputState, str]


def _findings(scan: Scan) -> Iterator[Finding]:
    yield from _of_pet(scan, "dynamic PET", scan.dynamic)
    yield from _of_pet(scan, "static PET", scan.static)
    for other in scan.statics[1:]:
        yield from _of_pet(scan, "static PET", other)
    yield from _of_ct(scan)
    yield _of_image("topogram", scan.topogram)
    yield _of_image("head MR", scan.head_mr)
    yield _of_image("body MR", scan.body_mr)
    for note in scan.notes:
        yield "images", "converted", note
    for recording in scan.blood:
        yield "blood", "ok", f"{recording.path.name} ({len(recording.time_s)} samples)"
        for note in recording.notes:
            yield "blood", "converted", note
    for task, path in scan.ready_segmentations.items():
        yield f"seg {task}", "ok", path.name
    corrections = [scan.aorta_correction] if scan.aorta_correction else []
    for path in [*scan.given_transforms.values(), *corrections]:
        yield "corrected", "ok", path.name
    if scan.person.label:
        yield from _of_person(scan)


def _of_pet(scan: Scan, kind: str, pet: Source | None) -> Iterator[Finding]:
    if pet is None:
        yield kind, "none", ""
        return
    if pet.path not in scan.pet:
        yield kind, "problem", f"{pet.path.name} cannot be used; why stands under images"
        return
    metadata = scan.metadata(pet)
    frames = metadata.frames
    yield (
        kind,
        "ok",
        f"{pet.path.name} ({_geometry(pet)}, {len(frames)} frame{'s' if len(frames) > 1 else ''}, "
        f"{frames.start_s[0] / 60:g} to {frames.end_s[-1] / 60:g} min, {metadata.units}, "
        f"{metadata.dose_bq / 1e6:.1f} MBq)",
    )
    for note in metadata.notes:
        yield kind, "problem" if note in metadata.problems else "converted", note
    if odd := odd_dose(metadata, scan.person.weight_kg):
        yield kind, "problem", odd


def _of_ct(scan: Scan) -> Iterator[Finding]:
    if scan.ct is None and scan.anatomy is not None:
        yield "CT", "none", f"the ready segmentations are labels of {scan.anatomy.path.name}"
        return
    found = _of_image("CT", scan.ct)
    yield found
    if scan.ct is not None and found[1] == "ok":
        # What cannot be read is told as what breaks the scan.
        with suppress(HedypetError):
            if wrong := not_hounsfield(scan.ct.path):
                yield "CT", "problem", wrong
            if padded := padding_of(scan.ct.path):
                yield "CT", "converted", padded


def _of_image(kind: str, source: Source | None) -> Finding:
    if source is None:
        return kind, "none", ""
    try:
        return kind, "ok", f"{source.path.name} ({_geometry(source)})"
    except HedypetError as error:
        return kind, "problem", str(error)


def _geometry(source: Source) -> str:
    grid = FrameReader(source.path).grid
    sizes = " x ".join(f"{size:.3g}" for size in grid.voxel_sizes_mm)
    return f"{'x'.join(map(str, grid.shape))} of {sizes} mm"


def _of_person(scan: Scan) -> Iterator[Finding]:
    person = scan.person
    known = {"weight": (person.weight_kg, " kg"), "height": (person.height_m, " m"), "sex": (person.sex, "")}
    yield (
        "person",
        "ok",
        ", ".join(f"{name} {value}{units}" for name, (value, units) in known.items() if value),
    )
    lost = {
        "weight": "no SUV",
        "height": "no SUL James and Janmahasatian",
        "sex": "no SUL James and Janmahasatian",
    }
    for name, (value, _) in known.items():
        if not value:
            yield (
                "person",
                "problem",
                f"{name} is unknown ({lost[name]}): add a column {name} to participants.tsv",
            )
    for note in person.notes:
        yield "person", "converted", note
