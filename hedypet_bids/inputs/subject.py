"""A participant read once: its scans, who was scanned, and everything that was looked for."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from hedypet_bids.errors import BadDataError, HedypetError, Problems
from hedypet_bids.inputs.blood import blood_of
from hedypet_bids.inputs.checks import input_checks
from hedypet_bids.inputs.dataset import Dataset
from hedypet_bids.inputs.derivatives import with_derivatives, with_label_tables
from hedypet_bids.inputs.participant_metadata import read_participant
from hedypet_bids.inputs.pet_metadata import SAME_INJECTION_S, apart_s, at_clock, read_pet_metadata
from hedypet_bids.inputs.plausibility import (
    check_overlap,
    check_position,
    check_voxel_sizes,
    not_hounsfield,
)
from hedypet_bids.inputs.roles import Images, Roles
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.model import BrokenScan, InputCheck, Person, PetMetadata, Scan, Subject
from hedypet_bids.names import ScanName, Source


def read_subject(dataset: Dataset, label: str) -> Subject:
    """A participant with the scans that are asked for.

    A scan whose images or sidecars cannot be used is named in ``broken`` and costs no other.

    Raises
    ------
    BadDataError
        The participant's folder or tables cannot be read, or its label is none that BIDS allows.
    """
    images = Images.of(dataset.images(label), dataset.sessions(label))
    wanted = [name for name in images.scans if dataset.request.wants(name)]
    roles, broken = _roles(dataset, wanted, images)
    told_apart = _told_apart({name: name.entities for name in images.scans})
    fixed_told_apart = _told_apart(_entities_of_fixed(dataset, images, roles))

    scans: dict[ScanName, Scan] = {}
    checks: list[InputCheck] = []
    for name, of_scan in roles.items():
        found, problems = _scan(
            dataset,
            Scan(
                label,
                name,
                alone=len(images.scans) == 1,
                told_apart_by=told_apart[name],
                fixed_told_apart_by=fixed_told_apart.get(name, {}),
                **{f.name: getattr(of_scan, f.name) for f in dataclasses.fields(Roles)},
            ),
            images.scans,
        )
        checks += input_checks(found)
        try:
            problems.raise_any()
            scans[name] = found
        except HedypetError as error:
            broken.append(BrokenScan(name, str(error), error.exit_code))

    unread = [name for name in images.scans if name not in scans]
    unused = dataset.unused_corrections(label, list(scans.values()), unread)
    checks += [
        *_checks_of_broken(broken, alone=len(images.scans) == 1),
        *(InputCheck("corrected", "problem", text) for text in unused),
    ]
    noted = {name: dataclasses.replace(s, notes=(*s.notes, *unused)) for name, s in scans.items()}
    return Subject(label, tuple(noted.values()), images.scans, tuple(broken), tuple(checks))


def _roles(
    dataset: Dataset, wanted: Sequence[ScanName], images: Images
) -> tuple[dict[ScanName, Roles], list[BrokenScan]]:
    """The images of each scan by role, and the scans whose images cannot be told or read."""
    found, broken = {}, []
    for name in wanted:
        problems = Problems()
        for pet in images.pets:
            if ScanName.of(pet) == name:
                with problems.noted():
                    dataset.metadata(pet)
                    check_voxel_sizes(pet.path)
                    check_position(pet.path, dataset.header_form)
        try:
            problems.raise_any()
            found[name] = dataset.chooser.roles(name, images)
        except HedypetError as error:
            broken.append(BrokenScan(name, str(error), error.exit_code))
    return found, broken


def _scan(dataset: Dataset, scan: Scan, scans: Sequence[ScanName]) -> tuple[Scan, Problems]:
    """A scan (one of these) with everything that the dataset says about it, and what is wrong with that."""
    problems = Problems()
    pets = [*scan.statics, *([scan.dynamic] if scan.dynamic else [])]
    if scan.ct is not None:
        for pet in filter(None, (scan.static, scan.dynamic)):
            with problems.noted():
                check_overlap(pet.path, scan.ct.path)
    with problems.noted():
        scan = with_derivatives(scan, dataset.derivatives)
    with problems.noted():
        scan = dataset.corrections.applied_to(scan)
    scan = with_label_tables(scan)
    images = [image.path for image in (*scan.cts, *scan.head_mrs, *scan.body_mrs)]
    corrections = [scan.aorta_correction] if scan.aorta_correction else []
    for path in (*images, *scan.ready_segmentations.values(), *corrections):
        with problems.noted():
            check_position(path, dataset.header_form)
    metadata: dict[Source, PetMetadata] = {}
    for pet in pets:
        with problems.noted():
            metadata[pet] = pet_metadata(dataset, pet)
    with problems.noted():
        _check_one_injection(metadata)
    if scan.dynamic in metadata:
        with problems.noted():
            blood = blood_of(dataset.root, scan.label, scan.dynamic, scans, metadata[scan.dynamic])
            scan = dataclasses.replace(scan, blood=blood)
    with problems.noted():
        scan = dataclasses.replace(scan, person=_person(dataset, scan))
    return dataclasses.replace(scan, pet={pet.path: found for pet, found in metadata.items()}), problems


def _check_one_injection(metadata: Mapping[Source, PetMetadata]) -> None:
    """Raise BadDataError where images of one scan put its injection at different times of day."""
    for (pet, found), (other, others) in itertools.combinations(metadata.items(), 2):
        at_s, other_s = found.injection_clock_s, others.injection_clock_s
        if abs(apart_s(at_s, other_s)) > SAME_INJECTION_S:
            raise BadDataError(
                f"TimeZero and InjectionStart put the injection at {at_clock(at_s)} for {pet.path}, and at "
                f"{at_clock(other_s)} for {other.path}. One scan has one injection: correct the sidecar "
                "whose times are counted from another moment, or name the images as two runs."
            )


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
    n_frames = FrameReader(pet.path).n_frames
    metadata = read_pet_metadata(sidecar, n_frames=n_frames, where=str(pet.sidecar))
    return dataclasses.replace(metadata, notes=(*dataset.corrected(pet), *metadata.notes))


def _person(dataset: Dataset, scan: Scan) -> Person:
    """Who was scanned: participants.tsv, the session's row or the PET's sidecar; with what is odd."""
    pet = scan.reference
    person = read_participant(
        scan.label,
        dataset.participant_row(scan.label),
        columns=dataset.participants_columns,
        session=dataset.session_rows(scan.label).get(scan.name.session) if pet else None,
        session_columns=dataset.session_columns(scan.label) or None,
        sidecar=dataset.metadata(pet) if pet else None,
    )
    odd = not_hounsfield(scan.ct.path) if scan.ct else ""
    return dataclasses.replace(person, notes=(*person.notes, *filter(None, [odd])))


def _told_apart(entities: Mapping[ScanName, Mapping[str, str]]) -> dict[ScanName, dict[str, str]]:
    """Of each scan the entities in which not all are the same."""
    keys = [key for found in entities.values() for key in found]
    differ = [key for key in dict.fromkeys(keys) if len({e.get(key) for e in entities.values()}) > 1]
    return {name: {key: found[key] for key in differ if key in found} for name, found in entities.items()}


def _entities_of_fixed(
    dataset: Dataset, images: Images, roles: Mapping[ScanName, Roles]
) -> dict[ScanName, Mapping[str, str]]:
    """Session, tracer and run of what the MR images of each scan are moved to, whatever was asked for."""
    found: dict[ScanName, Mapping[str, str]] = {}
    for name in images.scans:
        try:
            these = roles.get(name) or dataset.chooser.roles(name, images)
        except HedypetError:
            continue  # a broken scan that was not asked for has no transform
        fixed = these.ct or (these.statics[0] if these.statics else these.dynamic)
        if fixed is not None:
            found[name] = ScanName.of(fixed).entities
    return found


def _checks_of_broken(broken: Sequence[BrokenScan], *, alone: bool) -> Iterator[InputCheck]:
    for scan in broken:
        for paragraph in scan.reason.split("\n\n"):
            yield InputCheck("images", "problem", paragraph, "" if alone else str(scan.name))
