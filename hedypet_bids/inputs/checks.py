"""What can be said of a participant's inputs before any work: for ``--dry-run``, as one table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from hedypet_bids.errors import BadDataError, HedypetError
from hedypet_bids.inputs.dataset import Dataset, n_frames
from hedypet_bids.inputs.participant_metadata import ParticipantMetadata, read_participant
from hedypet_bids.inputs.pet_metadata import PetMetadata, read_pet_metadata
from hedypet_bids.inputs.plausibility import not_hounsfield
from hedypet_bids.inputs.roles import ParticipantInputs
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.names import Source

InputState = Literal["ok", "converted", "problem", "none"]


@dataclass(frozen=True)
class InputCheck:
    """One thing that was looked for; ``converted``: not used as written, ``problem``: needs a person."""

    part: str
    state: InputState
    text: str


def pet_metadata(dataset: Dataset, pet: Source) -> PetMetadata:
    """Timing, units, dose and decay state of a PET image, with what ``--corrections`` changed.

    Raises
    ------
    BadDataError
        There is no sidecar, or it cannot be right.
    """
    sidecar = dataset.metadata(pet)
    if not sidecar:
        raise BadDataError(
            f"{pet.path} has no sidecar; expected {pet.sidecar.name} with FrameTimesStart, FrameDuration, "
            "Units and InjectedRadioactivity."
        )
    metadata = read_pet_metadata(sidecar, n_frames=n_frames(pet.path), where=str(pet.sidecar))
    return replace(metadata, notes=(*dataset.corrected(pet), *metadata.notes))


def participant_metadata(dataset: Dataset, inputs: ParticipantInputs) -> ParticipantMetadata:
    """Weight, height, sex and age from participants.tsv, the session's row or the PET's sidecar."""
    pet = inputs.pet
    sessions = dataset.session_rows(inputs.label)
    return read_participant(
        inputs.label,
        dataset.participant_row(inputs.label),
        columns=dataset.participants_columns,
        session=sessions.get(pet.entities.get("session", "")) if pet else None,
        session_columns=dataset.session_columns(inputs.label) or None,
        sidecar=dataset.metadata(pet) if pet else None,
    )


def check_inputs(dataset: Dataset, label: str, inputs: ParticipantInputs | None = None) -> list[InputCheck]:
    """Every input of a participant, and everything that is wrong with it.

    Parameters
    ----------
    inputs
        What the dataset was found to hold, when that is known already.
    """
    try:
        inputs = inputs or dataset.inputs(label)
    except HedypetError as error:
        return [InputCheck("images", "problem", line) for line in str(error).split("\n\n")]
    return [
        *_pet_checks(dataset, "dynamic PET", inputs.dynamic),
        *_pet_checks(dataset, "static PET", inputs.static),
        *_ct_checks(inputs),
        *(
            _image_check(part, source)
            for part, source in (
                ("topogram", inputs.topogram),
                ("head MR", inputs.head_mr),
                ("body MR", inputs.body_mr),
            )
        ),
        *_ready_checks(inputs),
        *_correction_checks(dataset, inputs),
        *_person_checks(dataset, inputs),
    ]


def _pet_checks(dataset: Dataset, part: str, pet: Source | None) -> Iterator[InputCheck]:
    if pet is None:
        yield InputCheck(part, "none", "")
        return
    try:
        metadata = pet_metadata(dataset, pet)
    except HedypetError as error:
        yield InputCheck(part, "problem", str(error))
        return
    frames = metadata.frames
    yield InputCheck(
        part,
        "ok",
        f"{pet.path.name} ({_geometry(pet)}, {len(frames)} frame{'s' if len(frames) > 1 else ''}, "
        f"{frames.start_s[0] / 60:g} to {frames.end_s[-1] / 60:g} min, {metadata.units}, "
        f"{metadata.dose_bq / 1e6:.1f} MBq)",
    )
    for note in metadata.notes:
        yield InputCheck(part, "problem" if note in metadata.problems else "converted", note)


def _ct_checks(inputs: ParticipantInputs) -> Iterator[InputCheck]:
    check = _image_check("CT", inputs.ct)
    if inputs.ct is None and inputs.anatomy is not None:
        check = InputCheck("CT", "none", f"the ready segmentations are labels of {inputs.anatomy.path.name}")
    yield check
    if inputs.ct is not None and check.state == "ok":
        wrong = not_hounsfield(inputs.ct.path)
        if wrong:
            yield InputCheck("CT", "problem", wrong)


def _image_check(part: str, source: Source | None) -> InputCheck:
    if source is None:
        return InputCheck(part, "none", "")
    try:
        return InputCheck(part, "ok", f"{source.path.name} ({_geometry(source)})")
    except HedypetError as error:
        return InputCheck(part, "problem", str(error))


def _geometry(source: Source) -> str:
    grid = FrameReader(source.path).grid
    sizes = " x ".join(f"{size:.3g}" for size in grid.voxel_sizes_mm)
    return f"{'x'.join(map(str, grid.shape))} of {sizes} mm"


def _ready_checks(inputs: ParticipantInputs) -> Iterator[InputCheck]:
    for task, path in inputs.ready_segmentations.items():
        yield InputCheck(f"seg {task}", "ok", path.name)


def _correction_checks(dataset: Dataset, inputs: ParticipantInputs) -> Iterator[InputCheck]:
    corrected = [*inputs.given_transforms.values()]
    corrected += [inputs.aorta_correction] if inputs.aorta_correction else []
    yield from (InputCheck("corrected", "ok", path.name) for path in corrected)
    for path in dataset.unused_corrections(inputs):
        yield InputCheck(
            "corrected", "problem", f"{path} corrects nothing: no input has that name. Rename or remove it."
        )


def _person_checks(dataset: Dataset, inputs: ParticipantInputs) -> Iterator[InputCheck]:
    try:
        facts = participant_metadata(dataset, inputs)
    except HedypetError as error:
        yield InputCheck("person", "problem", str(error))
        return
    known = {"weight": (facts.weight_kg, " kg"), "height": (facts.height_m, " m"), "sex": (facts.sex, "")}
    yield InputCheck(
        "person", "ok", ", ".join(f"{name} {value}{units}" for name, (value, units) in known.items() if value)
    )
    lost = {
        "weight": "no SUV",
        "height": "no SUL James and Janmahasatian",
        "sex": "no SUL James and Janmahasatian",
    }
    for name, (value, _) in known.items():
        if not value:
            text = f"{name} is unknown ({lost[name]}): add a column {name} to participants.tsv"
            yield InputCheck("person", "problem", text)
    yield from (InputCheck("person", "converted", note) for note in facts.notes)
