"""Writing a phantom dataset: raw BIDS images, ready segmentations, and the truth beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    body_grid,
    in_ct_world,
    mr_body_grid,
    mr_head_grid,
    projected,
    t1w_grid,
)
from hedypet_bids.phantom.kinetics import hedypet_frames
from hedypet_bids.phantom.nifti import write_slabs
from hedypet_bids.phantom.regions import CT_TASKS, MR_TASKS, label_lut, regions
from hedypet_bids.phantom.scans import (
    MOST_SCANS,
    MOST_SESSIONS,
    MR_SESSION,
    STATIC_FRAME,
    PhantomSession,
    make_sessions,
)
from hedypet_bids.phantom.subject import PhantomParticipant, make_participant, sample_labels
from hedypet_bids.phantom.tracers import FDG, TRACERS, Tracer
from hedypet_bids.phantom.truth import label_volumes_ml, scan_truth, truth

PIECES = ("ct", "topogram", "static", "dynamic", "mr")
"""What a participant can be written without."""

_DIXON_BODY, _DIXON_HEAD = ("IN", "OPP", "W", "F"), ("IN", "OPP")
_BLUR_WITHOUT_PSF = 1.5

_Visits = tuple[PhantomParticipant, list[PhantomSession]]
_Volumes = dict[str, dict[str, float]]


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
    sessions: int = 1,
    tracers: Sequence[str] = (FDG.label,),
    runs: int = 1,
    extra_statics: bool = False,
    delays: bool = False,
    blood: bool = False,
) -> Path:
    """The folder of a new raw BIDS dataset of whole-body PET/CT/MR with known truth.

    The same arguments give the same bytes. Images are made and written a few planes at a time.

    Parameters
    ----------
    out
        A folder that does not exist yet or is empty. The truth goes beside it, ``truth_folder(out)``:
        ``sub-<L>.json`` for the first scan of a participant and ``sub-<L>[_ses-<S>]_trc-<T>[_run-<R>].json``
        for each further one.
    participants
        How many, 1 to 999.
    seed
        0 or more; all that is random follows from it.
    size
        One of :data:`hedypet_bids.phantom.SIZES`, or grids of one's own.
    frames
        Of the dynamic PET with the first tracer; by default the 69 frames of hedyPET. Further tracers get
        half as many.
    without
        Participant label, or label and session as ``001/quadra2``, to the :data:`PIECES` that are lacking
        there.
    noise
        Factor on the noise of all images; 0: none.
    sessions
        PET/CT sessions of each participant, 0 to 9: ``ses-quadra``, ``ses-quadra2`` and so on, each with its
        own CT, pose, weight and dose. MR is in ``ses-vida``. 0: one of each, in names without sessions.
    tracers
        Keys of :data:`hedypet_bids.phantom.TRACERS`, injected one after the other in each session.
    runs
        Injections of each tracer in each session. Tracers times runs may be 8.
    extra_statics
        Whether each scan also has ``rec-acstatOSEM`` on the grid of ``rec-acstatPSF``, and
        ``rec-acstatOSEMhead``, which holds the head in voxels of half that size.
    delays
        Whether blood arrives in each tissue at a time of its own, -3 to 20 s after the aorta; else at once.
    blood
        Whether scans with reversible tracers have blood samples, ``recording-manual_blood.tsv``: whole blood,
        plasma with metabolites, and parent fraction. The cerebellar cortex then binds none of the tracer.

    Returns
    -------
    Path
        ``out``, absolute.

    Raises
    ------
    UsageError
        The arguments make no sense, or the folder has files in it.
    OutputError
        The folder cannot be made.
    """
    out = Path(out).resolve()
    lacking = {place: frozenset(pieces) for place, pieces in (without or {}).items()}
    chosen = _tracers(tracers)
    if not 0 <= sessions <= MOST_SESSIONS:
        raise UsageError(f"The number of sessions must be 0 to {MOST_SESSIONS}; found {sessions}.")
    most_runs = MOST_SCANS // len(chosen)
    if not 1 <= runs <= most_runs:
        raise UsageError(
            f"The number of runs must be 1 to {most_runs} with {len(chosen)} tracers; found {runs}."
        )
    series = frames or hedypet_frames()
    people = [
        (
            person,
            make_sessions(
                person,
                sessions=sessions,
                tracers=chosen,
                runs=runs,
                frames=series,
                delays=delays,
                blood=blood,
            ),
        )
        for person in _people(participants, seed)
    ]
    _check_lacking(lacking, people)
    grids = _grids(size)
    _make_empty(out)
    _make_empty(truth_folder(out))
    sidecars.write_dataset_files(out, people, size=size if isinstance(size, str) else "own grids")
    for person, visits in people:
        _Writer(out, person, visits, grids, noise, extra_statics, lacking).write()
    return out


def _people(count: int, seed: int) -> list[PhantomParticipant]:
    if not 1 <= count <= 999:
        raise UsageError(f"The number of participants must be 1 to 999; found {count}.")
    if seed < 0:
        raise UsageError(f"The seed must not be negative; found {seed}.")
    return [make_participant(number, seed=seed) for number in range(1, count + 1)]


def _tracers(labels: Sequence[str]) -> list[Tracer]:
    unknown = [label for label in labels if label not in TRACERS]
    if unknown or not labels or len(set(labels)) < len(labels):
        raise UsageError(
            f"The tracers must be of {', '.join(TRACERS)}, each once; found {', '.join(labels) or 'none'}."
        )
    return [TRACERS[label] for label in labels]


def _check_lacking(lacking: Mapping[str, frozenset[str]], people: Sequence[_Visits]) -> None:
    known = set()
    for person, visits in people:
        labels = [visit.label for visit in visits if visit.label]
        sessions = [*labels, MR_SESSION] if labels else []
        known |= {person.label, *(f"{person.label}/{session}" for session in sessions)}
    unknown = set(lacking) - known
    if unknown:
        raise UsageError(
            f"'without' names participants or sessions that are not written: {', '.join(sorted(unknown))}."
        )
    pieces = set().union(*lacking.values()) - set(PIECES)
    if pieces:
        raise UsageError(
            f"'without' names {', '.join(sorted(pieces))}; a participant can lack {', '.join(PIECES)}."
        )


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
class _Writer:
    """One participant's images on their way to disk."""

    out: Path
    person: PhantomParticipant
    visits: Sequence[PhantomSession]
    size: PhantomSize
    noise: float
    extra_statics: bool
    lacking: Mapping[str, frozenset[str]]

    def write(self) -> None:
        """All images, labels and the truth."""
        volumes_ml = [self._write_visit(visit) for visit in self.visits]
        mr_volumes_ml = {}
        if "mr" not in self._lacking_in(self._mr_session):
            mr_volumes_ml = self._write_head_mr()
            self._write_body_mr()
        scans = [
            (scan, {**ct_volumes_ml, **mr_volumes_ml})
            for visit, ct_volumes_ml in zip(self.visits, volumes_ml, strict=True)
            for scan in visit.scans
        ]
        for scan, volumes in scans:
            known = truth(scan, volumes_ml=volumes)
            if len(scans) > 1 or scan.tracer is not FDG:
                known |= scan_truth(scan)
            name = "" if scan is scans[0][0] else f"_{scan.entities}"
            sidecars.write_json(truth_folder(self.out) / f"sub-{self.person.label}{name}.json", known)

    @property
    def _mr_session(self) -> str:
        return MR_SESSION if self.visits[0].label else ""

    def _lacking_in(self, session: str) -> frozenset[str]:
        label, nothing = self.person.label, frozenset[str]()
        return self.lacking.get(label, nothing) | self.lacking.get(f"{label}/{session}", nothing)

    def _write_visit(self, visit: PhantomSession) -> _Volumes:
        """Write a PET/CT session; returns the volumes of its CT's labels."""
        lacking, volumes_ml = self._lacking_in(visit.label), {}
        if not {"ct", "topogram"} <= lacking:
            grid = body_grid(self.size.ct, self.person)
            codes = sample_labels(grid, visit.participant, table=True)
            if "ct" not in lacking:
                volumes_ml = self._write_ct(visit, codes, grid)
            if "topogram" not in lacking:
                self._write_topogram(visit, codes, grid)
        if "static" not in lacking:
            static = ("acstatPSF", "acstatOSEM") if self.extra_statics else ("acstatPSF",)
            self._write_pet(visit, static, body_grid(self.size.static, self.person))
            if self.extra_statics:
                head = t1w_grid(self.size.static, visit.participant)
                self._write_pet(visit, ("acstatOSEMhead",), head)
        if "dynamic" not in lacking:
            self._write_pet(visit, ("acdynPSF",), body_grid(self.size.dynamic, self.person), dynamic=True)
            for scan in visit.scans:
                if scan.participant.split:
                    run = f"_run-{scan.run}" if scan.run else ""
                    ending = f"trc-{scan.tracer.label}{run}_recording-manual_blood"
                    sidecars.write_blood(self.out / f"{self._name(visit.label, 'pet', ending)}.tsv", scan)
        return volumes_ml

    def _write_ct(self, visit: PhantomSession, codes: NDArray[np.int16], grid: Grid) -> _Volumes:
        name = self._write_ct_image(visit, "br38f", codes, grid)
        coarse = body_grid(self.size.attenuation_ct, self.person)
        self._write_ct_image(visit, "ac", sample_labels(coarse, visit.participant, table=True), coarse)
        return self._write_labels("totalsegmentator", name, CT_TASKS, codes, grid, np.uint8)

    def _write_ct_image(
        self, visit: PhantomSession, reconstruction: str, codes: NDArray[np.int16], grid: Grid
    ) -> str:
        name = self._name(visit.label, "ct", f"rec-{reconstruction}_ct")
        slabs = images.ct_slabs(codes, self.person.rng(name), noise=self.noise)
        self._write_image(name, slabs, grid, np.int16, sidecars.ct_sidecar())
        return name

    def _write_topogram(self, visit: PhantomSession, codes: NDArray[np.int16], grid: Grid) -> None:
        flat, axis = projected(grid)
        picture = images.topogram(codes, axis)
        name = self._name(visit.label, "ct", "Xray")
        self._write_image(name, iter([picture]), flat, np.int16, sidecars.ct_sidecar())

    def _write_pet(
        self, visit: PhantomSession, reconstructions: Sequence[str], grid: Grid, *, dynamic: bool = False
    ) -> None:
        """Write the images of a session's scans that lie on one grid."""
        codes = sample_labels(grid, visit.participant)
        for scan in visit.scans:
            frames, curves = (scan.frames, scan.curves) if dynamic else (STATIC_FRAME, scan.static_curves)
            activity = np.array([curves[region.material] for region in regions()])
            run = f"_run-{scan.run}" if scan.run else ""
            for reconstruction in reconstructions:
                has_psf = reconstruction.endswith("PSF")
                ending = f"trc-{scan.tracer.label}_rec-{reconstruction}{run}_pet"
                name = self._name(visit.label, "pet", ending)
                slabs = images.pet_frames(
                    codes,
                    grid,
                    activity,
                    frames,
                    [self.person.rng(name, frame) for frame in range(len(frames))],
                    fwhm_mm=self.size.psf_fwhm_mm * (1.0 if has_psf else _BLUR_WITHOUT_PSF),
                    noise=self.noise,
                )
                sidecar = sidecars.pet_sidecar(scan, frames, method="PSF+TOF" if has_psf else "OSEM+TOF")
                self._write_image(name, slabs, grid, np.float32, sidecar, len(frames) if dynamic else None)

    def _write_head_mr(self) -> _Volumes:
        """Write the images of the head; returns the volumes of their labels."""
        mr2ct = self.person.mr2ct_head
        dixon = mr_head_grid(self.size.dixon_head, self.person)
        self._write_mr({f"DIXONhead{c}": c for c in _DIXON_HEAD}, dixon, mr2ct)
        mprage = mr_head_grid(self.size.mprage, self.person)
        codes = self._write_mr({"MPRAGE": "T1w"}, mprage, mr2ct)
        source = self._name(self._mr_session, "anat", "acq-MPRAGE_T1w")
        return self._write_labels("synthseg", source, MR_TASKS, codes, mprage, np.int16)

    def _write_body_mr(self) -> None:
        mr2ct = self.person.mr2ct_body
        dixon = mr_body_grid(self.size.dixon_body, self.person)
        self._write_mr({f"DIXONbody{c}": c for c in _DIXON_BODY}, dixon, mr2ct)
        self._write_mr({"FASTVIEW": "IN"}, mr_body_grid(self.size.fastview, self.person), mr2ct)

    def _write_mr(self, contrasts: Mapping[str, str], grid: Grid, mr2ct: Matrix) -> NDArray[np.int16]:
        """Write one image per acquisition; returns their common region codes."""
        codes = sample_labels(in_ct_world(grid, mr2ct), self.person)
        for acquisition, contrast in contrasts.items():
            name = self._name(self._mr_session, "anat", f"acq-{acquisition}_T1w")
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
    ) -> _Volumes:
        """Write the label images of some tasks into ``derivatives/<pipeline>``; returns their volumes."""
        folder = self.out / "derivatives" / pipeline
        sidecars.write_derivative_description(folder, _PIPELINE_NAMES[pipeline])
        counts = np.bincount(codes.ravel(order="K"), minlength=len(regions()))
        stem, volumes_ml = source.rpartition("_")[0], {}
        for task in tasks:
            lut = label_lut(task)
            path = folder / f"{stem}_seg-{task}_dseg.nii.gz"
            write_slabs(path, images.label_slabs(codes, lut), grid, dtype=dtype)
            sidecars.write_label_files(path, task, source=f"{source}.nii.gz")
            per_label = np.bincount(lut, weights=counts).astype(np.int64)
            volumes_ml[task] = label_volumes_ml(per_label, task, grid.voxel_volume_ml)
        return volumes_ml

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
        places = [f"sub-{self.person.label}", *([f"ses-{session}"] if session else [])]
        return f"{'/'.join(places)}/{datatype}/{'_'.join(places)}_{ending}"


_PIPELINE_NAMES = {"totalsegmentator": "TotalSegmentator", "synthseg": "SynthSeg"}
