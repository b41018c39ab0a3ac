"""A made-up participant: body, dose, blood curve and MR position, all drawn from a seed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from hedypet_bids.model import FrameTimes, Grid, Matrix, Sex
from hedypet_bids.phantom.brain import CENTRE_MM, TOP_MM, head_strokes, whole_brain_ellipsoids
from hedypet_bids.phantom.kinetics import (
    BloodSplit,
    FengInput,
    Kinetics,
    scaled_feng_input,
    tissue_curve,
)
from hedypet_bids.phantom.materials import MATERIALS
from hedypet_bids.phantom.shapes import paint
from hedypet_bids.phantom.tracers import FDG
from hedypet_bids.phantom.trunk import (
    aorta_line,
    content_strokes,
    outline_strokes,
    table_stroke,
    whole_trunk_ellipsoids,
)

Curves = dict[str, NDArray[np.float64]]
"""Bq/mL per frame of every material, by name."""

BODY_CENTRE_MM = (0.0, 0.0, -10.0)
"""What the body turns about from one image to the next."""

_REFERENCE_HEIGHT_M = 1.72
_HEIGHT_M: Mapping[Sex, tuple[float, float]] = {"F": (1.58, 1.78), "M": (1.68, 1.88)}
_BMI = (19.5, 28.0)
_AGE = (18, 80)
_AGE_GROUPS = ((18, 34), (35, 49), (50, 64), (65, 120))
_ARRIVAL_S = (13.0, 17.0)
_KINETIC_SPREAD = 0.08
_HEAD_ROTATION_DEG, _BODY_ROTATION_DEG = 5.0, 3.0
_SHIFT_MM = 15.0
# Stored axes of the images. The first two are those of the acceptance data.
_ORIENTATIONS = ("LAS", "RAS", "LPS", "RPI", "RSA", "PIL")


@dataclass(frozen=True, eq=False)
class PhantomParticipant:
    """One participant of the phantom dataset.

    Parameters
    ----------
    label
        Without ``sub-``.
    scale
        Size of the body relative to the reference body of 1.72 m.
    fat_mm
        Thickness of the subcutaneous fat in the reference body.
    kinetics
        Rate constants of every material that takes part, by material name.
    mr2ct_head, mr2ct_body
        World of the head and body MR images to the world of CT and PET: ``x_ct = M @ x_mr``.
    orientation
        Stored axes of CT and PET, as ``LAS``.
    split
        What blood holds beside the tracer itself, ``blood`` then being that of the tracer in plasma; None:
        nothing, and plasma is as whole blood.
    pose
        World of CT and PET of the first session to that of this one; by default it is the first.
    """

    label: str
    seed: int
    sex: Sex
    age: int
    height_m: float
    weight_kg: float
    dose_mbq: float
    scale: float
    fat_mm: float
    blood: FengInput
    kinetics: Mapping[str, Kinetics]
    mr2ct_head: Matrix
    mr2ct_body: Matrix
    orientation: str
    pose: Matrix = field(default_factory=lambda: np.eye(4))
    split: BloodSplit | None = None

    @property
    def demographic_group(self) -> str:
        """Sex and age group as hedyPET writes them, for example ``F18-34``."""
        low, high = next(group for group in _AGE_GROUPS if group[0] <= self.age <= group[1])
        return f"{self.sex}{low}-{high}" if high < _AGE_GROUPS[-1][1] else f"{self.sex}{low}+"

    @property
    def top_mm(self) -> float:
        """World z of the top of the head."""
        return TOP_MM * self.scale

    @property
    def head_centre_mm(self) -> tuple[float, float, float]:
        """The middle of the cerebrum in the world of CT and PET of this session."""
        x, y, z, _ = (self.pose @ [*(value * self.scale for value in CENTRE_MM), 1.0]).tolist()
        return x, y, z

    def rng(self, *names: str | int) -> np.random.Generator:
        """A generator for one image or frame; the same names give the same numbers."""
        words = [zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names]
        return np.random.default_rng([self.seed, zlib.crc32(self.label.encode()), *words])


def make_participant(number: int, *, seed: int) -> PhantomParticipant:
    """Participant ``number`` (from 1) of the dataset with this seed. Women and men alternate."""
    rng = np.random.default_rng([seed, number])
    sex: Sex = "F" if number % 2 else "M"
    height = round(float(rng.uniform(*_HEIGHT_M[sex])), 2)
    bmi = float(rng.uniform(*_BMI))
    weight = round(bmi * height**2, 1)
    dose = float(rng.uniform(*FDG.mbq_per_kg)) * weight
    scale = height / _REFERENCE_HEIGHT_M
    late_suv = float(rng.uniform(*FDG.late_blood_suv))
    return PhantomParticipant(
        label=f"{number:03d}",
        seed=seed,
        sex=sex,
        age=int(rng.integers(*_AGE)),
        height_m=height,
        weight_kg=weight,
        dose_mbq=dose,
        scale=scale,
        fat_mm=10.0 + 1.8 * (bmi - _BMI[0]),
        blood=blood_curve(late_suv, rng, dose_mbq=dose, weight_kg=weight),
        kinetics=vary_kinetics(FDG.kinetics, rng),
        mr2ct_head=rigid(rng, _HEAD_ROTATION_DEG, _SHIFT_MM, np.multiply(CENTRE_MM, scale)),
        mr2ct_body=rigid(rng, _BODY_ROTATION_DEG, _SHIFT_MM, np.array(BODY_CENTRE_MM)),
        orientation=_ORIENTATIONS[(number - 1) % len(_ORIENTATIONS)],
    )


def sample_labels(grid: Grid, participant: PhantomParticipant, *, table: bool = False) -> NDArray[np.int16]:
    """Region codes at the voxel centres of a grid in the world of CT and PET, shape ``grid.shape``.

    ``regions.label_lut(task)[codes]`` makes the label image of a task. With ``table`` the table of
    the scanner is there too (it has no label in any task).
    """
    to_reference = np.diag([*(1.0 / participant.scale,) * 3, 1.0])
    # The body moves on the table from session to session; the table stays.
    beneath = paint([table_stroke(participant.fat_mm)], grid, to_reference) if table else None
    strokes = [
        *outline_strokes(fat_mm=participant.fat_mm),
        *head_strokes(),
        *content_strokes(sex=participant.sex, aorta_width=1.0 / participant.scale),
    ]
    return paint(strokes, grid, to_reference @ np.linalg.inv(participant.pose), onto=beneath)


def aorta_centreline_mm(participant: PhantomParticipant) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points from root to bifurcation, shape (n, 3), and the radius at each, shape (n,), world mm."""
    # Its radius is that of the reference body in everyone: it depends on age more than on height.
    points, radii = aorta_line(1.0 / participant.scale)
    placed = np.array(points) * participant.scale @ participant.pose[:3, :3].T + participant.pose[:3, 3]
    return placed, np.array(radii) * participant.scale


def closed_form_volumes_ml(participant: PhantomParticipant) -> dict[str, float]:
    """Volumes of the regions that are whole ellipsoids, by region name."""
    solids = {**whole_trunk_ellipsoids(), **whole_brain_ellipsoids()}
    return {name: solid.volume_mm3 * participant.scale**3 / 1000.0 for name, solid in solids.items()}


def material_curves(participant: PhantomParticipant, frames: FrameTimes) -> Curves:
    """Exact frame averages of every material, Bq/mL, decay-corrected to injection, shape (n_frames,)."""
    return {
        name: tissue_curve(frames, participant.blood, participant.kinetics[name], participant.split)
        if name in participant.kinetics
        else np.zeros(len(frames))
        for name in MATERIALS
    }


def blood_curve(late_suv: float, rng: np.random.Generator, *, dose_mbq: float, weight_kg: float) -> FengInput:
    """The input function that is ``late_suv`` an hour after injection, with an arrival drawn from ``rng``."""
    late_bq_ml = late_suv * dose_mbq * 1e6 / (weight_kg * 1000.0)
    return scaled_feng_input(late_bq_ml, delay_s=float(rng.uniform(*_ARRIVAL_S)))


def vary_kinetics(reference: Mapping[str, Kinetics], rng: np.random.Generator) -> dict[str, Kinetics]:
    """The reference rate constants with K1 and k3 a little different in each participant."""
    varied = {}
    for name in MATERIALS:
        k1_factor, k3_factor = np.exp(_KINETIC_SPREAD * np.clip(rng.standard_normal(2), -2.0, 2.0)).tolist()
        k = reference.get(name)
        if k is not None:
            varied[name] = replace(k, K1=k.K1 * k1_factor, k3=k.k3 * k3_factor)
    return varied


def rigid(
    rng: np.random.Generator, rotation_deg: float, shift_mm: float, centre_mm: NDArray[np.float64]
) -> Matrix:
    """A rotation about a centre with each angle and shift uniform within its limits."""
    angles = rng.uniform(-rotation_deg, rotation_deg, size=3)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    shift = rng.uniform(-shift_mm, shift_mm, size=3)
    matrix[:3, 3] = centre_mm - matrix[:3, :3] @ centre_mm + shift
    return matrix
