"""What reads text and headers that others wrote, each as one call on bytes, for tests and fuzzing.py.

A call ends well or with a HedypetError that names the file in a message of readable length.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from hedypet_bids.errors import HedypetError
from hedypet_bids.group.splits import read_splits
from hedypet_bids.inputs.blood import blood_of
from hedypet_bids.inputs.label_schemes import in_task_numbers, names_of_labels
from hedypet_bids.inputs.participant_metadata import read_participant
from hedypet_bids.inputs.pet_metadata import read_pet_metadata
from hedypet_bids.inputs.text_files import participant_rows, read_json
from hedypet_bids.io.nifti_read import FrameReader, read_labels, read_position, read_volume
from hedypet_bids.io.tables import read_blood
from hedypet_bids.kernels.kinetics.blood_samples import continuous_blood
from hedypet_bids.labels import SEGMENTATION_TASKS
from hedypet_bids.model import Person, PetMetadata
from hedypet_bids.names import ScanName, Source

LONGEST_MESSAGE = 1000
TOTAL = next(task for task in SEGMENTATION_TASKS if task.name == "total")

SIDECAR = {
    "Units": "Bq/mL",
    "TracerName": "FDG",
    "TracerRadionuclide": "F18",
    "RadionuclideHalfLife": 6586.2,
    "InjectedRadioactivity": 200,
    "InjectedRadioactivityUnits": "MBq",
    "RadionuclideTotalDose": 200000000,
    "ModeOfAdministration": "bolus",
    "TimeZero": "10:00:00",
    "AcquisitionTime": "10:00:00",
    "RadiopharmaceuticalStartTime": "100000.00",
    "ScanStart": 0,
    "InjectionStart": 0,
    "FrameTimesStart": [0, 60, 360],
    "FrameDuration": [60, 300, 600],
    "ImageDecayCorrected": True,
    "ImageDecayCorrectionTime": 0,
    "DecayCorrectionFactor": [1.00316, 1.02232, 1.07192],
    "ScaleFactor": [1.0, 1.0, 1.0],
    "PatientWeight": 70,
    "PatientSex": "F",
    "PatientSize": 1.7,
    "PatientAge": "071Y",
}
PARTICIPANTS = b"participant_id\tsex\tage\tweight\theight\nsub-1\tF\t71\t70\t1.7\nsub-2\tM\t60\t80\t1.8\n"
COLUMNS = {"weight": {"Units": "kg"}, "height": {"Units": "cm"}, "sex": {"Levels": {"F": "female"}}}
LABELS = b"index\tname\tcolor\n1\tspleen\t#9d6ca2\n5\tliver\t#dd8265\n90\tbrain\t#eee2c8\n"
BLOOD = b"time\twhole_blood_radioactivity\tframe_start\tframe_end\tstd\tn_voxels\n5\t7.5\t0\t10\t1\t9\n"
SAMPLES = b"time\twhole_blood_radioactivity\tplasma_radioactivity\tmetabolite_parent_fraction\n" + b"".join(
    b"%d\t%.1f\t%.1f\t%.2f\n" % (t, 9 - t / 100, 9.9 - t / 100, 1 - t / 1000) for t in range(0, 600, 60)
)
SAMPLES_SIDECAR = {
    f"{name}_radioactivity": {"Units": units}
    for name, units in (("plasma", "kBq/mL"), ("whole_blood", "nCi/mL"))
}
XML = (
    b'<?xml version="1.0" encoding="UTF-8"?><LabelTable><Label Key="5"><![CDATA[liver]]></Label></LabelTable>'
)


def nifti(kind: type[nib.Nifti1Image], dtype: str, *, extension: bytes = b"made for a test") -> bytes:
    """A small series, every voxel of which has another value."""
    voxels = np.arange(6 * 5 * 4 * 3).reshape(6, 5, 4, 3).astype(dtype)
    image = kind(voxels, np.array([[-2.0, 0, 0, 5], [0, 2, 0, -4], [0, 0, 3, 1], [0, 0, 0, 1]]), dtype=dtype)
    image.header.set_slope_inter(2.0, 1.0)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", extension))
    return bytes(image.to_bytes())


@dataclass(frozen=True)
class Reader:
    """Bytes as a file, and what is done with it; the first of the seeds is a file as it should be."""

    name: str
    read: Callable[[Path], object]
    seeds: Sequence[bytes]

    def try_on(self, content: bytes, folder: Path) -> None:
        """Read the bytes under the file's name in a folder; AssertionError where the answer is none."""
        path = folder / self.name
        path.write_bytes(content)
        answered(self.read, path)


def answered(read: Callable[[Path], object], path: Path) -> None:
    """Read a file; AssertionError where an error says nothing that helps."""
    try:
        read(path)
    except HedypetError as error:
        assert path.name in str(error), error
        assert len(str(error)) < LONGEST_MESSAGE, error


def check_usable(found: PetMetadata) -> None:
    """Numbers from a sidecar that was accepted can be worked with."""
    assert np.isfinite(found.scale).all() and (found.scale > 0).all()
    assert np.isfinite(found.frames.end_s).all() and (np.diff(found.frames.start_s) > 0).all()
    assert math.isnan(found.dose_bq) == bool(found.dose_reason)
    assert math.isnan(found.dose_bq) or 1e5 <= found.dose_bq <= 1e10
    assert all(len(note) < LONGEST_MESSAGE for note in found.notes), found.notes


def check_person(person: Person) -> None:
    """What is known of a person can be calculated with, and what is wrong can be read."""
    assert person.sex in (None, "F", "M")
    for value in (person.weight_kg, person.height_m, person.age):
        assert value is None or math.isfinite(value)
    assert all(len(note) < LONGEST_MESSAGE for note in person.notes), person.notes


def _sidecar(path: Path) -> None:
    content = read_json(path)
    check_person(read_participant("1", {}, sidecar=content))
    check_usable(read_pet_metadata(content, n_frames=3, where=path.name))


def _participants(path: Path) -> None:
    for label, found in participant_rows(path, {"1", "2"}).items():
        check_person(read_participant(label, found[0].cells, columns=COLUMNS))


def _columns(path: Path) -> None:
    row = {"weight": "154", "height": "170", "sex": "1", "age": "071Y"}
    check_person(read_participant("1", row, columns=read_json(path)))


def _label_table(path: Path) -> None:
    labels = np.array([0, 1, 5, 90], np.uint8)
    named = names_of_labels(path.with_name(path.name.replace(".tsv", ".nii.gz")))
    found = in_task_numbers(labels, named, TOTAL, path)
    assert found.shape == labels.shape


def _blood(path: Path) -> None:
    path.with_suffix(".json").write_text('{"InjectionStart": 0}')
    read_blood(path)


def _samples(path: Path) -> None:
    folder = path.parent / "sub-1"
    folder.mkdir(exist_ok=True)
    (folder / path.name).write_bytes(path.read_bytes())
    (folder / path.name).with_suffix(".json").write_text(json.dumps(SAMPLES_SIDECAR))
    pet = Source(folder / "sub-1_pet.nii.gz", path.parent, {"subject": "1"}, "pet", "pet")
    metadata = read_pet_metadata(SIDECAR, n_frames=3, where="sub-1_pet.json")
    found = continuous_blood(blood_of(path.parent, "1", pet, [ScanName()], metadata), metadata.frames)
    assert found.means(found.parent, metadata.frames).shape == (3,)


def frames(path: Path) -> np.ndarray:
    """All frames of an image."""
    return np.stack([frame.copy() for _, frame in FrameReader(path).frames()], axis=-1)


def read_image(path: Path) -> None:
    """An image in every way that there is."""
    for read in (frames, read_volume, _labels, read_position, names_of_labels):
        answered(read, path)


def _labels(path: Path) -> None:
    labels, _ = read_labels(path)
    answered(lambda where: in_task_numbers(labels, {5: "liver"}, TOTAL, where), path)


_VOLUME = nib.Nifti1Image(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), np.diag([-2.0, 2, 2, 1]))
IMAGES = (
    nifti(nib.Nifti1Image, "int16"),
    nifti(nib.Nifti1Image, "float32"),
    nifti(nib.Nifti2Image, "uint8", extension=XML),
)
READERS = {
    "header": Reader("x.nii", read_image, (*IMAGES, _VOLUME.to_bytes())),
    "sidecar": Reader("sub-1_pet.json", _sidecar, (json.dumps(SIDECAR).encode(),)),
    "participants": Reader("participants.tsv", _participants, (PARTICIPANTS,)),
    "columns": Reader("participants.json", _columns, (json.dumps(COLUMNS).encode(),)),
    "labels": Reader("sub-1_seg-total_dseg.tsv", _label_table, (LABELS, LABELS.replace(b"liver", b"Leber"))),
    "splits": Reader(
        "splits.json",
        lambda path: read_splits(path, [], None),
        (b'{"train": ["sub-1", "sub-2"], "test": ["sub-3"]}',),
    ),
    "samples": Reader("sub-1_recording-manual_blood.tsv", _samples, (SAMPLES,)),
    "blood": Reader("sub-1_recording-aorta_blood.tsv", _blood, (BLOOD,)),
}
