"""Writing a phantom dataset: raw BIDS images, ready segmentations, and the truth beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hedypet_bids.errors import OutputError, UsageError
from hedypet_bids.model import FrameTimes, Grid, Matrix
from hedypet_bids.phantom import images, sidecars
from hedypet_bids.phantom.grids import (
    SIZES,
    PhantomSize,
    Voxels,
    body_grid,
    in_ct_world,
    mr_body_grid,
    mr_head_grid,
    projected,
)
from hedypet_bids.phantom.kinetics import hedypet_frames
from hedypet_bids.phantom.nifti import write_slabs
from hedypet_bids.phantom.regions import CT_TASKS, MR_TASKS, label_lut, regions
from hedypet_bids.phantom.subject import (
    Curves,
    PhantomParticipant,
    make_participant,
    material_curves,
    sample_labels,
)
from hedypet_bids.phantom.truth import STATIC_FRAME, label_volumes_ml, truth

PIECES = ("ct", "topogram", "static", "dynamic", "mr")
"""What a participant can be written without."""

_PET_CT_SESSION, _MR_SESSION = "quadra", "vida"
_DIXON_BODY, _DIXON_HEAD = ("IN", "OPP", "W", "F"), ("IN", "OPP")


def truth_folder(out: Path) -> Path:
    """Where the truth of the dataset at ``out`` is: beside it, with ``_truth`` after its name."""
    return out.with_name(out.name + "_truth")


def write_phantom(
    out: Path,
    *,
    participants: int,
    seed: int,
    size: str | PhantomSize,
    frames: FrameTimes | None = None,
    without: Mapping[str, Collection[str]] | None = None,
    noise: float = 1.0,
) -> Path:
    """The folder of a new raw BIDS dataset of whole-body FDG PET/CT/MR with known truth.

    The same arguments give the same bytes. Images are made and written a few planes at a time.

    Parameters
    ----------
    out
        A folder that does not exist yet or is empty. The truth goes beside it, ``truth_folder(out)``.
    size
        One of :data:`hedypet_bids.phantom.SIZES`, or grids of one's own.
    frames
        Of the dynamic PET; by default the 69 frames of hedyPET.
    without
        Participant label to the :data:`PIECES` that it lacks.
    noise
        Factor on the noise of all images; 0: none.

    Raises
    ------
    UsageError
        The arguments make no sense, or the folder has files in it.
    OutputError
        The folder cannot be made.
    """
    out = Path(out).resolve()
    lacking = {label: frozenset(pieces) for label, pieces in (without or {}).items()}
    people = _people(participants, seed, lacking)
    grids = _grids(size)
    _make_empty(out)
    _make_empty(truth_folder(out))
    sidecars.write_dataset_files(out, people, size=size if isinstance(size, str) else "own grids")
    for person in people:
        scan = _Scan(out, person, grids, frames or hedypet_frames(), noise)
        scan.write(lacking.get(person.label, frozenset()))
    return out


def _people(count: int, seed: int, lacking: Mapping[str, frozenset[str]]) -> list[PhantomParticipant]:
    if not 1 <= count <= 999:
        raise UsageError(f"The number of participants must be 1 to 999; found {count}.")
    if seed < 0:
        raise UsageError(f"The seed must not be negative; found {seed}.")
    people = [make_participant(number, seed=seed) for number in range(1, count + 1)]
    unknown = set(lacking) - {person.label for person in people}
    if unknown:
        raise UsageError(f"'without' names participants that are not written: {', '.join(sorted(unknown))}.")
    pieces = set().union(*lacking.values()) - set(PIECES)
    if pieces:
        raise UsageError(
            f"'without' names {', '.join(sorted(pieces))}; a participant can lack {', '.join(PIECES)}."
        )
    return people


def _grids(size: str | PhantomSize) -> PhantomSize:
    if isinstance(size, PhantomSize):
        return size
    if size not in SIZES:
        raise UsageError(f"The size must be one of {', '.join(SIZES)}; found {size!r}.")
    return SIZES[size]


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as fault:
        raise OutputError(f"The folder {folder} cannot be made: {fault.strerror}.") from fault
    if occupied:
        raise UsageError(f"The folder {folder} is not empty. Give a new folder, or empty this one first.")


@dataclass(frozen=True)
class _Scan:
    """One participant's images on their way to disk."""

    out: Path
    person: PhantomParticipant
    size: PhantomSize
    frames: FrameTimes
    noise: float
    volumes_ml: dict[str, dict[str, float]] = field(default_factory=dict)

    @cached_property
    def curves(self) -> Curves:
        """Curves of the materials over the dynamic frames."""
        return material_curves(self.person, self.frames)

    @cached_property
    def static_curves(self) -> Curves:
        """Means of the materials over the static frame."""
        return material_curves(self.person, STATIC_FRAME)

    def write(self, lacking: Collection[str]) -> None:
        """All images, labels and the truth."""
        if not {"ct", "topogram"} <= set(lacking):
            grid = body_grid(self.size.ct, self.person)
            codes = sample_labels(grid, self.person, table=True)
            if "ct" not in lacking:
                self._write_ct(codes, grid)
            if "topogram" not in lacking:
                self._write_topogram(codes, grid)
        if "static" not in lacking:
            self._write_pet("acstatPSF", self.size.static, STATIC_FRAME, self.static_curves)
        if "dynamic" not in lacking:
            self._write_pet("acdynPSF", self.size.dynamic, self.frames, self.curves)
        if "mr" not in lacking:
            self._write_head_mr()
            self._write_body_mr()
        known = truth(
            self.person,
            self.frames,
            curves=self.curves,
            static=self.static_curves,
            volumes_ml=self.volumes_ml,
        )
        sidecars.write_json(truth_folder(self.out) / f"sub-{self.person.label}.json", known)

    def _write_ct(self, codes: NDArray[np.int16], grid: Grid) -> None:
        name = self._write_ct_image("br38f", codes, grid)
        self._write_labels("totalsegmentator", name, CT_TASKS, codes, grid, np.uint8)
        coarse = body_grid(self.size.attenuation_ct, self.person)
        self._write_ct_image("ac", sample_labels(coarse, self.person, table=True), coarse)

    def _write_ct_image(self, reconstruction: str, codes: NDArray[np.int16], grid: Grid) -> str:
        name = self._name(_PET_CT_SESSION, "ct", f"rec-{reconstruction}_ct")
        slabs = images.ct_slabs(codes, self.person.rng(name), noise=self.noise)
        self._write_image(name, slabs, grid, np.int16, sidecars.ct_sidecar())
        return name

    def _write_topogram(self, codes: NDArray[np.int16], grid: Grid) -> None:
        flat, axis = projected(grid)
        picture = images.topogram(codes, axis)
        name = self._name(_PET_CT_SESSION, "ct", "Xray")
        self._write_image(name, iter([picture]), flat, np.int16, sidecars.ct_sidecar())

    def _write_pet(self, reconstruction: str, voxels: Voxels, frames: FrameTimes, curves: Curves) -> None:
        grid = body_grid(voxels, self.person)
        codes = sample_labels(grid, self.person)
        name = self._name(_PET_CT_SESSION, "pet", f"trc-18FFDG_rec-{reconstruction}_pet")
        slabs = images.pet_frames(
            codes,
            grid,
            np.array([curves[region.material] for region in regions()]),
            frames,
            [self.person.rng(name, frame) for frame in range(len(frames))],
            fwhm_mm=self.size.psf_fwhm_mm,
            noise=self.noise,
        )
        sidecar = sidecars.pet_sidecar(self.person, frames)
        self._write_image(
            name, slabs, grid, np.float32, sidecar, None if frames is STATIC_FRAME else len(frames)
        )

    def _write_head_mr(self) -> None:
        mr2ct = self.person.mr2ct_head
        mprage = mr_head_grid(self.size.mprage, self.person)
        codes = self._write_mr({"MPRAGE": "T1w"}, mprage, mr2ct)
        source = self._name(_MR_SESSION, "anat", "acq-MPRAGE_T1w")
        self._write_labels("synthseg", source, MR_TASKS, codes, mprage, np.int16)
        dixon = mr_head_grid(self.size.dixon_head, self.person)
        self._write_mr({f"DIXONhead{c}": c for c in _DIXON_HEAD}, dixon, mr2ct)

    def _write_body_mr(self) -> None:
        mr2ct = self.person.mr2ct_body
        dixon = mr_body_grid(self.size.dixon_body, self.person)
        self._write_mr({f"DIXONbody{c}": c for c in _DIXON_BODY}, dixon, mr2ct)
        self._write_mr({"FASTVIEW": "IN"}, mr_body_grid(self.size.fastview, self.person), mr2ct)

    def _write_mr(self, contrasts: Mapping[str, str], grid: Grid, mr2ct: Matrix) -> NDArray[np.int16]:
        """Write one image per acquisition; returns their common region codes."""
        codes = sample_labels(in_ct_world(grid, mr2ct), self.person)
        for acquisition, contrast in contrasts.items():
            name = self._name(_MR_SESSION, "anat", f"acq-{acquisition}_T1w")
            slabs = images.mr_slabs(codes, contrast, self.person.rng(name), noise=self.noise)
            self._write_image(name, slabs, grid, np.int16, sidecars.mr_sidecar(acquisition))
        return codes

    def _write_labels(
        self,
        pipeline: str,
        source: str,
        tasks: Collection[str],
        codes: NDArray[np.int16],
        grid: Grid,
        dtype: DTypeLike,
    ) -> None:
        """Write the label images of some tasks into ``derivatives/<pipeline>`` and note their volumes."""
        folder = self.out / "derivatives" / pipeline
        sidecars.write_derivative_description(folder, _PIPELINE_NAMES[pipeline])
        counts = np.bincount(codes.ravel(order="K"), minlength=len(regions()))
        stem = source.rpartition("_")[0]
        for task in tasks:
            lut = label_lut(task)
            path = folder / f"{stem}_seg-{task}_dseg.nii.gz"
            write_slabs(path, images.label_slabs(codes, lut), grid, dtype=dtype)
            sidecars.write_label_files(path, task, source=f"{source}.nii.gz")
            per_label = np.bincount(lut, weights=counts).astype(np.int64)
            self.volumes_ml[task] = label_volumes_ml(per_label, task, grid.voxel_volume_ml)

    def _write_image(
        self,
        name: str,
        slabs: Iterator[NDArray[Any]],
        grid: Grid,
        dtype: DTypeLike,
        sidecar: Mapping[str, Any],
        n_frames: int | None = None,
    ) -> None:
        write_slabs(self.out / f"{name}.nii.gz", slabs, grid, dtype=dtype, n_frames=n_frames)
        sidecars.write_json(self.out / f"{name}.json", sidecar)

    def _name(self, session: str, datatype: str, ending: str) -> str:
        """Path of an image in the dataset, without extension."""
        subject, visit = f"sub-{self.person.label}", f"ses-{session}"
        return f"{subject}/{visit}/{datatype}/{subject}_{visit}_{ending}"


_PIPELINE_NAMES = {"totalsegmentator": "TotalSegmentator", "synthseg": "SynthSeg"}
