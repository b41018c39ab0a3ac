"""Rigid transforms that bring the MR images to the CT or, without one, to the PET."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.nifti_read import read_labels, read_volume
from hedypet_bids.io.store import Writer
from hedypet_bids.kernels.registration.rigid import RigidRegistration, crop_to_head, register_rigid
from hedypet_bids.labels import label_table
from hedypet_bids.model import FloatArray, Grid, Matrix
from hedypet_bids.names import Source
from hedypet_bids.settings import RegisterMethod, plain
from hedypet_bids.steps.step import CannotRun, Step, Subject

BRAIN = "brain"
NO_CT = (
    "no CT was found to register it to (where the scanner aligns MR and PET use --register identity, else "
    "give the transforms to the PET with --derivatives xfm=PATH)"
)
Part = Literal["head", "body"]


@dataclass(frozen=True)
class Register(Step[Path | None]):
    """MPRAGE to the head of the CT (``head``) or DIXON body to the CT (``body``).

    Without CT nothing is registered: the MR images are aligned with the PET where the user says so, or
    moved by a given transform.
    """

    subject: Subject
    part: Part
    total: Path | None

    @property
    def name(self) -> str:
        """``register head`` or ``register body``."""
        return f"register {self.part}"

    def skip_reason(self) -> str:
        """Why the MR image cannot be registered."""
        if self._image is None:
            selection = self.subject.settings.selection
            wanted = selection.head_mr_acq if self.part == "head" else selection.body_mr_acq
            return f"no T1w image ({wanted}) was found"
        if self._given is not None or self.subject.settings.register.method == "identity":
            return "" if self._target else "neither CT nor PET was found"
        if self.subject.inputs.ct is None:
            return NO_CT
        if self.part == "head" and self.total is None:
            return "there is no total segmentation to find the head in the CT"
        return ""

    def sources(self) -> Iterable[Path]:
        """The CT, the MR image and, for the head, the brain's segmentation."""
        given = [self._given] if self._given else []
        brain = [self.total] if self.part == "head" and self.total else []
        return [self._fixed_image.path, self._moving.path, *brain, *given]

    def settings(self) -> Mapping[str, Any]:
        """Seed and head crop."""
        return plain(self.subject.settings.register)

    def results(self) -> Path | None:
        """The matrix file: 4x4 text, world mm, MR to CT."""
        return self.subject.store.path(self._output)

    def nothing(self) -> Path | None:
        """No matrix."""
        return None

    def outputs(self) -> Iterable[Path]:
        """The matrix file."""
        return [self.subject.store.path(self._output)]

    def run(self, writer: Writer) -> None:
        """Write the matrix that was given, or register the MR image."""
        matrix, quality = self._matrix()
        writer.matrix(
            self._output,
            matrix,
            sources=self.sources(),
            Description=f"Rigid transform of {self._moving.path.name} to {self._fixed_image.path.name}: "
            "4x4, world coordinates in mm (RAS+), moving to fixed",
            **quality,
        )

    def _matrix(self) -> tuple[Matrix, dict[str, Any]]:
        """The matrix, and what its sidecar says about where it comes from."""
        if self._given is not None:
            return read_matrix(self._given), {"Method": "given", "Flags": []}
        methods: dict[RegisterMethod, Callable[[], tuple[Matrix, dict[str, Any]]]] = {
            "rigid": self._rigid,
            "identity": _identity,
        }
        return methods[self.subject.settings.register.method]()

    def _rigid(self) -> tuple[Matrix, dict[str, Any]]:
        settings = self.subject.settings.register
        fixed, fixed_grid = self._fixed()
        moving, moving_grid = read_volume(self._moving.path)
        found = register_rigid(
            fixed, fixed_grid, moving, moving_grid, seed=settings.seed, threads=self.subject.threads
        )
        return found.matrix, quality_of(found)

    @property
    def _given(self) -> Path | None:
        return self.subject.inputs.given_transforms.get(self.part)

    def _fixed(self) -> tuple[FloatArray, Grid]:
        """The CT, cropped to the head when that is what is registered."""
        ct, grid = read_volume(self.subject.ct.path)
        if self.part == "body":
            return ct, grid
        assert self.total is not None
        labels, _ = read_labels(self.total)
        brain = labels == label_table("total").index_of(BRAIN)
        if not brain.any():
            raise CannotRun(f"{self.total.name} has no voxel labelled {BRAIN}")
        return crop_to_head(ct, grid, brain, margin_mm=self.subject.settings.register.head_margin_mm)

    @property
    def _target(self) -> Source | None:
        return self.subject.inputs.ct or self.subject.inputs.pet

    @property
    def _fixed_image(self) -> Source:
        assert self._target is not None
        return self._target

    @property
    def _image(self) -> Source | None:
        return self.subject.inputs.head_mr if self.part == "head" else self.subject.inputs.body_mr

    @property
    def _moving(self) -> Source:
        assert self._image is not None
        return self._image

    @property
    def _output(self) -> str:
        return names.transform(self._moving, "T1w" if self.part == "head" else "DIXON", self._fixed_image)


def _identity() -> tuple[Matrix, dict[str, Any]]:
    return np.eye(4), {"Method": "identity", "Flags": []}


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
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except (OSError, ValueError) as fault:
        raise BadDataError(f"{path} cannot be read as a matrix: {fault}.") from fault
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise BadDataError(f"{path} must hold four lines of four finite numbers; found {matrix.shape}.")
    return matrix
