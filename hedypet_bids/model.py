"""The nouns of the study: frozen, checked when made, trusted afterwards.

Internal convention: world coordinates in mm, RAS+; time in s from injection;
activity concentration in Bq/mL. Files in other conventions are converted where
they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.labels import Task, task
from hedypet_bids.names import ScanName, ScanSpace, Source, Space

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
Matrix = NDArray[np.float64]
"""A 4x4 homogeneous matrix in world mm."""

Sex = Literal["F", "M"]


@dataclass(frozen=True, eq=False)
class FrameTimes:
    """When each frame of a dynamic series starts and how long it lasts.

    Parameters
    ----------
    start_s, duration_s
        Shape (n_frames,), seconds from injection.

    Raises
    ------
    BadDataError
        Lengths differ, a duration is not positive, or frames are unsorted or
        overlap. The message names the first frame at fault (counted from 0).

    Examples
    --------
    >>> FrameTimes([0.0, 60.0], [60.0, 120.0]).mid_s.tolist()
    [30.0, 120.0]
    """

    start_s: NDArray[np.float64]
    duration_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        start = np.atleast_1d(np.array(self.start_s, dtype=np.float64))
        duration = np.atleast_1d(np.array(self.duration_s, dtype=np.float64))
        if start.ndim != 1 or start.shape != duration.shape:
            raise BadDataError(
                "FrameTimesStart and FrameDuration must be lists of the same length; "
                f"found {start.size} start times and {duration.size} durations."
            )
        if start.size == 0:
            raise BadDataError("FrameTimesStart is empty; expected one entry per frame.")
        if not (np.isfinite(start).all() and np.isfinite(duration).all()):
            raise BadDataError("FrameTimesStart and FrameDuration must be finite numbers of seconds.")
        if (duration <= 0).any():
            frame = int(np.argmax(duration <= 0))
            raise BadDataError(
                f"Frame {frame} has FrameDuration {duration[frame]:g} s; expected a positive number."
            )
        # Sidecars round to milliseconds, so ends and starts may disagree by that much.
        gap = start[1:] - (start[:-1] + duration[:-1])
        if (np.diff(start) <= 0).any():
            frame = int(np.argmax(np.diff(start) <= 0)) + 1
            raise BadDataError(
                f"Frame {frame} starts at {start[frame]:g} s, not after frame {frame - 1} "
                f"({start[frame - 1]:g} s); FrameTimesStart must increase."
            )
        if (gap < -2e-3).any():
            frame = int(np.argmax(gap < -2e-3)) + 1
            raise BadDataError(
                f"Frame {frame} starts at {start[frame]:g} s, before frame {frame - 1} ends "
                f"({start[frame - 1] + duration[frame - 1]:g} s); frames must not overlap."
            )
        for name, values in (("start_s", start), ("duration_s", duration)):
            values.flags.writeable = False
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return int(self.start_s.size)

    @property
    def end_s(self) -> NDArray[np.float64]:
        """End of each frame, s, shape (n_frames,)."""
        return self.start_s + self.duration_s

    @property
    def missed_s(self) -> float:
        """Time after injection before the first frame, of which nothing was seen, s."""
        return max(0.0, float(self.start_s[0]))

    @property
    def gap_s(self) -> NDArray[np.float64]:
        """Time between each frame and the next, s, shape (n_frames - 1,); rounding may make it negative."""
        gap: NDArray[np.float64] = self.start_s[1:] - self.end_s[:-1]
        return gap

    def later(self, by_s: float) -> FrameTimes:
        """The same frames in times that are larger.

        Parameters
        ----------
        by_s
            By how much, s: that of the injection from TimeZero gives the times of BIDS.

        Returns
        -------
        FrameTimes
            With the same durations.

        Examples
        --------
        >>> FrameTimes([0.0, 60.0], [60.0, 120.0]).later(137.0).start_s.tolist()
        [137.0, 197.0]
        """
        return FrameTimes(self.start_s + by_s, self.duration_s)

    @property
    def mid_s(self) -> NDArray[np.float64]:
        """Middle of each frame, s, shape (n_frames,)."""
        return self.start_s + self.duration_s / 2


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid in the world.

    Parameters
    ----------
    shape
        Number of voxels along i, j and k.
    affine
        4x4, from voxel indices to RAS+ mm.

    Raises
    ------
    BadDataError
        The shape is not three positive numbers, or the affine is not a finite,
        invertible 4x4 matrix.

    Examples
    --------
    >>> grid = Grid((2, 3, 4), np.diag([1.65, 1.65, 3.0, 1.0]))
    >>> grid.n_voxels, grid.voxel_sizes_mm.tolist()
    (24, [1.65, 1.65, 3.0])
    """

    shape: tuple[int, int, int]
    affine: Matrix

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape, default=0) < 1:
            raise BadDataError(f"A voxel grid needs three positive dimensions; found shape {shape}.")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise BadDataError("The affine must be a 4x4 matrix of finite numbers; check qform and sform.")
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            volume_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
        if not 1e-9 <= volume_mm3 < np.inf:
            raise BadDataError(
                f"The affine is singular or has endless voxels ({volume_mm3:g} mm3); check qform and sform."
            )
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def voxel_sizes_mm(self) -> NDArray[np.float64]:
        """Length of the voxel edges along i, j and k, mm."""
        sizes: NDArray[np.float64] = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return sizes

    @property
    def voxel_volume_ml(self) -> float:
        """|det(affine)| / 1000."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    @property
    def n_voxels(self) -> int:
        """Number of voxels of the grid."""
        return int(np.prod(self.shape, dtype=np.int64))

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids put every voxel at the same place.

        Parameters
        ----------
        other
            The grid to compare with.
        tolerance_mm
            Largest distance of the corners, mm; 0.001 by default.

        Returns
        -------
        bool
            False also where the shapes differ.
        """
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, -1)
        moved = (self.affine - other.affine)[:3] @ np.vstack([corners, np.ones(corners.shape[1])])
        return bool(np.abs(moved).max() <= tolerance_mm)


@dataclass(frozen=True, eq=False)
class InputFunction:
    """What feeds the tissue over time: whole blood of one volume of interest, or plasma from samples.

    Parameters
    ----------
    name
        Identifier as in the tables, ``<voi task>_<segment>``; ``measured`` for samples.
    frames
        When the frames are, s from injection.
    mean, std
        Bq/mL per frame, shape (n_frames,); NaN where there is no voxel. From samples the mean is that of the
        tracer itself in plasma.
    n_voxels
        Voxels in the volume of interest; 0 for samples.
    whole_blood
        From samples, what the blood in the tissue holds, Bq/mL, same shape; None: the mean itself.
    parent_known
        Whether the part of plasma's activity that is the tracer itself was measured or set.

    Examples
    --------
    >>> frames = FrameTimes([0.0, 60.0], [60.0, 60.0])
    >>> blood = InputFunction("aorta", frames, np.array([9e4, 5e4]), np.array([800.0, 300.0]), 27)
    >>> len(blood.mean) == len(blood.frames)
    True
    """

    name: str
    frames: FrameTimes
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    n_voxels: int
    whole_blood: NDArray[np.float64] | None = None
    parent_known: bool = False

    @property
    def is_known(self) -> bool:
        """Whether it has a value in any frame."""
        return bool(np.isfinite(self.mean).any())


@dataclass(frozen=True, eq=False)
class BloodRecording:
    """Blood samples of one recording, decay-corrected to injection; NaN for what a sample does not tell.

    Parameters
    ----------
    label
        As in the file name: ``manual`` or ``autosampler``.
    path
        The file.
    time_s
        s from injection, increasing, shape (n_samples,).
    whole_blood, plasma
        Bq/mL, same shape.
    parent_fraction
        Part of the activity in plasma that is the tracer itself, same shape.
    notes
        Assumptions and oddities, for the log and the report.
    measured_how
        What its sidecar says of that, under BIDS' names.
    """

    label: str
    path: Path
    time_s: NDArray[np.float64]
    whole_blood: NDArray[np.float64]
    plasma: NDArray[np.float64]
    parent_fraction: NDArray[np.float64]
    notes: tuple[str, ...] = ()
    measured_how: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Person:
    """Who was scanned; None for what no source says.

    Parameters
    ----------
    label
        Participant label without ``sub-``.
    sex
        ``F`` or ``M``.
    weight_kg, height_m
        Body weight, kg, and height, m.
    age
        Years.
    demographic_group
        As the dataset writes it, for example ``F18-34``.
    glucose_mmol_l
        Glucose in blood plasma, mmol/L.
    notes
        Assumptions and contradictions, for the log and the report.
    """

    label: str
    sex: Sex | None = None
    weight_kg: float | None = None
    height_m: float | None = None
    age: float | None = None
    demographic_group: str | None = None
    glucose_mmol_l: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PetMetadata:
    """Timing, units, dose and decay state of a PET image.

    Parameters
    ----------
    frames
        Frame times in s from the start of the injection.
    units, units_factor
        The sidecar's ``Units``, and what the stored values are multiplied by to be Bq/mL.
    dose_bq, dose_reason
        Activity at injection, Bq; NaN with a reason when it is unknown.
    radionuclide, half_life_s
        As ``F18``; empty and NaN when the sidecar does not say or the nuclide is not listed.
    decay_corrected
        Whether the stored image is decay-corrected.
    decay_reference_s
        The time that it is corrected to, s from injection; NaN when it is not corrected.
    decay_factor
        Per frame, what the stored values are multiplied by to be decay-corrected to the
        injection, shape (n_frames,).
    scan_start_s
        Start of the scan, s from injection.
    notes
        Assumptions and oddities, for the log and the report.
    problems
        Those of the notes that a person should look at.
    tracer
        As the sidecar writes it; empty when it does not say.
    injection_clock_s
        Time of day of the injection, s after midnight; NaN without a TimeZero.
    injection_start_s
        The injection in the sidecar's own times, s from TimeZero.
    time_zero
        As the sidecar writes it; empty when it does not say.
    """

    frames: FrameTimes
    units: str
    units_factor: float
    dose_bq: float
    dose_reason: str
    radionuclide: str
    half_life_s: float
    decay_corrected: bool
    decay_reference_s: float
    decay_factor: NDArray[np.float64]
    scan_start_s: float
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    tracer: str = ""
    injection_clock_s: float = float("nan")
    injection_start_s: float = 0.0
    time_zero: str = ""

    @property
    def scale(self) -> NDArray[np.float64]:
        """Per frame, stored value to Bq/mL decay-corrected to injection, shape (n_frames,)."""
        return self.units_factor * self.decay_factor

    @property
    def time_origin(self) -> dict[str, Any]:
        """What sidecars of tables say of their times, from TimeZero, and of the decay correction."""
        return {
            "TimeZero": self.time_zero or "n/a",
            "InjectionStart": self.injection_start_s,
            "ImageDecayCorrected": True,
            "ImageDecayCorrectionTime": self.injection_start_s,
        }

    @property
    def timing_and_scale(self) -> dict[str, Any]:
        """What of it the measured activity depends on, for the record of what a result was made from."""
        return {
            "FrameStart": self.frames.start_s.tolist(),
            "FrameDuration": self.frames.duration_s.tolist(),
            "ScaleToBqMl": self.scale.tolist(),
        }


InputState = Literal["ok", "converted", "problem", "none"]


@dataclass(frozen=True)
class InputCheck:
    """One thing that was looked for; ``converted``: not used as written, ``problem``: needs a person."""

    kind: str
    state: InputState
    text: str
    scan: str = ""


@dataclass(frozen=True, eq=False)
class Scan:
    """A PET acquisition with the images that belong to it; None or empty where there is none.

    A participant without PET has one scan, which holds the CT and MR.

    Parameters
    ----------
    label
        Participant label without ``sub-``.
    name
        What tells it from the other scans of the participant.
    alone
        Whether the dataset has no other scan of the participant.
    told_apart_by
        Entities (short keys) in which the scans of the participant differ, as this one has them.
    fixed_told_apart_by
        The same for the images (CT or PET) that the scans' MR images are moved to.
    dynamic
        The dynamic series.
    statics
        Every static reconstruction, the one that stands for the scan first.
    ct, other_cts
        The CT that is segmented, and its other reconstructions.
    anatomy
        The image whose voxels the segmentations of the body label: the CT or, of a PET/MR scanner, the
        image that ready segmentations are named after.
    topogram
        The topogram.
    head_mr, body_mr
        The MR images of the head and of the body that are registered.
    head_mr_group, body_mr_group
        Those that move with them.
    ready_segmentations
        Files by task name.
    label_tables
        Names of the label tables of tasks that have another than usual here: that of the network for MR.
    aorta_correction
        A mask in the place of the segmented aorta.
    given_transforms
        Files by body part, ``head`` and ``body``.
    person
        Who was scanned, with the weight of that day where the dataset says it.
    pet
        Timing, units, dose and decay state by the path of the image.
    blood
        Samples of blood that were drawn during the dynamic series.
    notes
        What was assumed about which images belong together.

    Examples
    --------
    >>> Scan("001", ScanName("quadra", "18FFDG"), alone=False).stem
    'sub-001_ses-quadra_trc-18FFDG'
    """

    label: str
    name: ScanName
    alone: bool = True
    told_apart_by: Mapping[str, str] = field(default_factory=dict)
    fixed_told_apart_by: Mapping[str, str] = field(default_factory=dict)
    dynamic: Source | None = None
    statics: tuple[Source, ...] = ()
    ct: Source | None = None
    other_cts: tuple[Source, ...] = ()
    anatomy: Source | None = None
    topogram: Source | None = None
    head_mr: Source | None = None
    head_mr_group: tuple[Source, ...] = ()
    body_mr: Source | None = None
    body_mr_group: tuple[Source, ...] = ()
    ready_segmentations: Mapping[str, Path] = field(default_factory=dict)
    label_tables: Mapping[str, str] = field(default_factory=dict)
    aorta_correction: Path | None = None
    given_transforms: Mapping[str, Path] = field(default_factory=dict)
    person: Person = field(default_factory=lambda: Person(""))
    pet: Mapping[Path, PetMetadata] = field(default_factory=dict)
    blood: tuple[BloodRecording, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def about(self) -> str:
        """The scan in messages and records; empty where the participant has no other."""
        return "" if self.alone else self.name.title

    @property
    def stem(self) -> str:
        """What its page and pictures are called."""
        return names.page_stem(self.label, None if self.alone else self.name)

    def task(self, name: str) -> Task:
        """A segmentation task with the regions that it has in this scan.

        Parameters
        ----------
        name
            As in file names: ``total``.

        Returns
        -------
        Task
            With the label table of the network for MR where that is what :attr:`label_tables` says.

        Examples
        --------
        >>> of_mr = Scan("001", ScanName(), label_tables={"total": "totalmr"})
        >>> of_mr.task("total").table.index_of("vertebrae")
        120
        """
        found = task(name)
        return replace(found, table_name=self.label_tables.get(name, found.table_name))

    @property
    def body_image(self) -> Source | None:
        """The image of the body that is segmented: :attr:`anatomy` or, without one, the MR of the body."""
        return self.anatomy or self.body_mr

    @property
    def static(self) -> Source | None:
        """The static reconstruction that stands for the scan."""
        return self.statics[0] if self.statics else None

    @property
    def cts(self) -> tuple[Source, ...]:
        """Every CT reconstruction, the segmented one first."""
        return ((self.ct,) if self.ct else ()) + self.other_cts

    @property
    def head_mrs(self) -> tuple[Source, ...]:
        """Every MR image that moves with the head registration."""
        return ((self.head_mr,) if self.head_mr else ()) + self.head_mr_group

    @property
    def body_mrs(self) -> tuple[Source, ...]:
        """Every MR image that moves with the body registration."""
        return ((self.body_mr,) if self.body_mr else ()) + self.body_mr_group

    @property
    def reference(self) -> Source | None:
        """The PET image that stands for the scan: the static one, else the dynamic one."""
        return self.static or self.dynamic

    @property
    def fixed(self) -> Source | None:
        """What MR images are moved to: the CT or, without one, the PET."""
        return self.ct or self.reference

    def space(self, kind: Space) -> ScanSpace:
        """One of the spaces of this scan, for names.

        Parameters
        ----------
        kind
            ``bodystat``, ``bodydyn`` or ``head``.

        Returns
        -------
        ScanSpace
            The space, with what tells the scan from others of the participant.
        """
        return ScanSpace(kind, self.told_apart_by)

    def metadata(self, image: Source) -> PetMetadata:
        """Timing, units, dose and decay state of a PET image.

        Parameters
        ----------
        image
            The dynamic or a static image of this scan.

        Returns
        -------
        PetMetadata
            As the sidecar says it, after corrections.
        """
        return self.pet[image.path]


@dataclass(frozen=True)
class BrokenScan:
    """A scan whose images or sidecars cannot be used, with the reason and its exit code."""

    name: ScanName
    reason: str
    exit_code: int


@dataclass(frozen=True, eq=False)
class Subject:
    """A participant: everything that a run needs to know of it, read once and sent as it is.

    Parameters
    ----------
    label
        Participant label without ``sub-``.
    scans
        Those asked for that can be used.
    all_scans
        Every scan that the dataset has of the participant, whatever was asked for.
    broken
        Those asked for that cannot be used.
    checks
        What was looked for and found, for the plan.

    Examples
    --------
    >>> first, second = ScanName("test"), ScanName("retest")
    >>> subject = Subject("001", scans=(Scan("001", first, alone=False),), all_scans=(first, second))
    >>> [scan.about for scan in subject.scans]
    ['ses-test']
    """

    label: str
    scans: tuple[Scan, ...]
    all_scans: tuple[ScanName, ...] = ()
    broken: tuple[BrokenScan, ...] = ()
    checks: tuple[InputCheck, ...] = ()
