"""Rigid transforms that bring the MR images to the CT or, without one, to the PET."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.nifti_read import read_labels, read_volume
from hedypet_bids.io.presence import refuse_other_kinds
from hedypet_bids.io.store import Writer
from hedypet_bids.kernels.hounsfield import without_padding
from hedypet_bids.kernels.registration.rigid import RigidRegistration, crop_to_head, register_rigid
from hedypet_bids.labels import label_table
from hedypet_bids.model import FloatArray, Grid, Matrix, Scan
from hedypet_bids.names import Source
from hedypet_bids.settings import RegisterMethod, plain
from hedypet_bids.steps.segment import SegmentBody
from hedypet_bids.steps.step import CannotRun, Plan, Skip, Step

BRAIN = "brain"
NO_CT = (
    "no CT was found to register it to (where the scanner aligns MR and PET use --register identity, else "
    "give the transforms to the PET with --derivatives xfm=PATH)"
)
BodyPart = Literal["head", "body"]


@dataclass(eq=False)
class Register(Step):
    """MPRAGE to the head of the CT (``head``) or DIXON body to the CT (``body``).

    Without CT nothing is registered: the MR images are aligned with the PET where the user says so, or
    moved by a given transform.
    """

    scan: Scan
    body_part: BodyPart
    total: SegmentBody

    @property
    def name(self) -> str:
        """``register head`` or ``register body``."""
        return f"register {self.body_part}"

    @property
    def about(self) -> str:
        """The image that is moved to, which scans may share."""
        return "" if self.scan.alone or self.scan.fixed is None else self.scan.fixed.stem

    @property
    def identity(self) -> object:
        """Scans that share both images share the transform."""
        if self._moving is None or self.scan.fixed is None:
            return self
        return ("register", self.body_part, self._moving.path, self.scan.fixed.path)

    @property
    def transform(self) -> Path | None:
        """The matrix file: 4x4 text, world mm, MR to CT; None where there is none."""
        return self.outputs.get("transform", self.body_part)

    def plan(self) -> Plan | Skip:
        """A given matrix, the identity, or mutual information, in this order."""
        moving, fixed = self._moving, self.scan.fixed
        if moving is None:
            selection = self.context.settings.selection
            wanted = selection.head_mr_acq if self.body_part == "head" else selection.body_mr_acq
            return Skip(f"no T1w image ({wanted}) was found")
        registered = self._given is None and self.context.settings.register.method != "identity"
        if registered and self.scan.ct is None:
            return Skip(NO_CT)
        if registered and self.body_part == "head" and not self.total.labels:
            return Skip("there is no total segmentation to find the head in the CT")
        if fixed is None:
            return Skip("neither CT nor PET was found")
        brain = self.total.labels.values() if self.body_part == "head" else []
        kind: Literal["T1w", "DIXON"] = "T1w" if self.body_part == "head" else "DIXON"
        to = names.fixed_label(fixed, moving, self.scan.fixed_told_apart_by)
        return Plan(
            reads=[fixed.path, moving.path, *brain, *([self._given] if self._given else [])],
            makes={("transform", self.body_part): self.context.store.path(names.transform(moving, kind, to))},
            settings=plain(self.context.settings.register),
        )

    def run(self, plan: Plan, writer: Writer) -> None:
        """Write the matrix that was given, or register the MR image."""
        moving, fixed = self._moving, self.scan.fixed
        assert moving is not None
        assert fixed is not None
        matrix, quality = self._matrix(moving, fixed)
        (path,) = plan.makes.values()
        writer.matrix(
            self.context.store.name(path),
            matrix,
            sources=plan.reads,
            Description=f"Rigid transform of {moving.path.name} to {fixed.path.name}: "
            "4x4, world coordinates in mm (RAS+), moving to fixed",
            **quality,
        )

    def _matrix(self, moving: Source, fixed: Source) -> tuple[Matrix, dict[str, Any]]:
        """The matrix, and what its sidecar says about where it comes from."""
        if self._given is not None:
            return read_matrix(self._given), {"Method": "given", "Flags": []}
        methods: dict[RegisterMethod, Callable[[], tuple[Matrix, dict[str, Any]]]] = {
            "rigid": partial(self._rigid, moving, fixed),
            "identity": lambda: (np.eye(4), {"Method": "identity", "Flags": []}),
        }
        return methods[self.context.settings.register.method]()

    def _rigid(self, moving: Source, fixed: Source) -> tuple[Matrix, dict[str, Any]]:
        settings = self.context.settings.register
        ct, grid = read_volume(fixed.path)
        if fixed.suffix == names.CT_SUFFIX:
            ct, _ = without_padding(ct, self.context.settings.resample.ct_outside_hu)
        if self.body_part == "head":
            ct, grid = self._cropped(ct, grid)
        image, image_grid = read_volume(moving.path)
        found = register_rigid(ct, grid, image, image_grid, seed=settings.seed, threads=self.context.threads)
        return found.matrix, quality_of(found)

    def _cropped(self, ct: FloatArray, grid: Grid) -> tuple[FloatArray, Grid]:
        """The CT around the brain."""
        (path,) = self.total.labels.values()
        labels, _ = read_labels(path)
        brain = labels == label_table("total").index_of(BRAIN)
        if not brain.any():
            raise CannotRun(f"{path.name} has no voxel labelled {BRAIN}")
        return crop_to_head(ct, grid, brain, margin_mm=self.context.settings.register.head_margin_mm)

    @property
    def _given(self) -> Path | None:
        return self.scan.given_transforms.get(self.body_part)

    @property
    def _moving(self) -> Source | None:
        return self.scan.head_mr if self.body_part == "head" else self.scan.body_mr


def quality_of(found: RigidRegistration) -> dict[str, Any]:
    """What the sidecar of a matrix says about the registration."""
    return {
        "Method": "rigid, mutual information",
        "Metric": "Mattes mutual information in nats (higher is better)",
        "MetricBefore": found.metric_before,
        "MetricAfter": found.metric_after,
        "InverseConsistencyMm": found.inverse_consistency_mm,
        "Overlap": found.overlap,
        "Flags": list(found.flags),
    }


def read_matrix(path: Path) -> Matrix:
    """A 4x4 matrix from text.

    Raises
    ------
    BadDataError
        The file does not hold four lines of four finite numbers.
    """
    refuse_other_kinds(path)
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except (OSError, ValueError) as fault:
        raise BadDataError(f"{path} cannot be read as a matrix: {fault}.") from fault
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise BadDataError(f"{path} must hold four lines of four finite numbers; found {matrix.shape}.")
    return matrix
