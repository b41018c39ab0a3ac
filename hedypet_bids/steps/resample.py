"""Images and segmentations in one of the spaces: body-static, body-dynamic or head 1 mm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.io.nifti_read import read_labels, read_volume
from hedypet_bids.io.store import Writer
from hedypet_bids.kernels.resampling.resample import (
    clip_negative,
    head_grid,
    moved,
    resample_labels,
    resample_slabs,
    topogram_grid,
)
from hedypet_bids.labels import CT_TASKS, Task, label_table, task
from hedypet_bids.model import Grid
from hedypet_bids.names import Source, Space
from hedypet_bids.settings import plain
from hedypet_bids.steps.register import BRAIN, read_matrix
from hedypet_bids.steps.segment import grid_of
from hedypet_bids.steps.step import CannotRun, Step, Subject, pet_facts

Planes = NDArray[np.float32]


@dataclass(frozen=True)
class Transforms:
    """Matrix files, MR to CT (or PET, where there is no CT); None where there is none."""

    head: Path | None
    body: Path | None


@dataclass(frozen=True)
class ImagesInSpace:
    """Label images by task name and images by the name of their source, on one grid."""

    labels: Mapping[str, Path] = field(default_factory=dict, hash=False)
    images: Mapping[str, Path] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Resample(Step[ImagesInSpace]):
    """Every image (cubic B-spline) and segmentation (nearest neighbour) in one space."""

    subject: Subject
    space: Space
    segmentations: Mapping[str, Path]
    transforms: Transforms

    @property
    def name(self) -> str:
        """``resample <space>``."""
        return f"resample {self.space}"

    def skip_reason(self) -> str:
        """Why the space does not exist."""
        if self.space == "head":
            found = self._brain is not None
            return "" if found else "there is no total segmentation to find the brain"
        kind = "static" if self.space == "bodystat" else "dynamic"
        return "" if self._reference else f"no {kind} PET was found"

    def missing(self) -> Mapping[str, str]:
        """The images that cannot be placed or are not there."""
        inputs, reasons = self.subject.inputs, {}
        if inputs.head_mrs and self.transforms.head is None:
            reasons["head MR images"] = f"their transform to the {self._fixed} is missing"
        if inputs.body_mrs and self.transforms.body is None:
            reasons["body MR images"] = f"their transform to the {self._fixed} is missing"
        lost = set(self.segmentations) - {what.name for what, _, _ in self._labels()}
        if lost:
            what = ", ".join(sorted(lost))
            reasons[f"segmentations {what}"] = (
                f"the transform of their MR image to the {self._fixed} is missing"
            )
        if inputs.topogram is None:
            reasons["topogram"] = "no topogram was found"
        return reasons

    def sources(self) -> Iterable[Path]:
        """Images, segmentations, matrices, and the image that defines the grid."""
        reference = [self._reference.path] if self._reference else []
        transforms = [t for t in (self.transforms.head, self.transforms.body) if t]
        images = [image.path for image, _ in self._images()]
        return {*reference, *transforms, *images, *self.segmentations.values()}

    def settings(self) -> Mapping[str, Any]:
        """Interpolation, the head grid, and units and decay factors of the PET images."""
        pet = {
            image.path.name: pet_facts(self.subject.metadata(image)) for image in self.subject.inputs.statics
        }
        return {**plain(self.subject.settings.resample), "pet": pet}

    def results(self) -> ImagesInSpace:
        """Names of the label images and images in this space."""
        store = self.subject.store
        return ImagesInSpace(
            labels={
                task.name: store.path(names.segmentation(source, task.name, self.space))
                for task, source, _ in self._labels()
            },
            images={
                image.path.name: store.path(names.image_in_space(image, self.space))
                for image, _ in self._images()
            },
        )

    def nothing(self) -> ImagesInSpace:
        """No images."""
        return ImagesInSpace()

    def outputs(self) -> Iterable[Path]:
        """Label images and images."""
        results = self.results()
        return [*results.labels.values(), *results.images.values()]

    def run(self, writer: Writer) -> None:
        """Resample every segmentation and image."""
        target = self._grid()
        for segmented, source, transform in self._labels():
            self._write_labels(writer, segmented, source, transform, target)
        for image, transform in self._images():
            self._write_image(writer, image, transform, target)

    def _write_labels(
        self, writer: Writer, what: Task, source: Source, transform: Path | None, target: Grid
    ) -> None:
        path = self.segmentations[what.name]
        labels, grid = read_labels(path)
        writer.segmentation(
            source,
            what,
            self.space,
            resample_labels(labels, _placed(grid, transform), target, threads=self.subject.threads),
            target,
            sources=[path] if transform is None else [path, transform],
            **self._sidecar("nearest neighbour", 0),
        )

    def _write_image(self, writer: Writer, image: Source, transform: Path | None, target: Grid) -> None:
        settings = self.subject.settings.resample
        data, grid = read_volume(image.path, int16=True)
        grid = _placed(grid, transform)
        is_ct = image.suffix in (names.CT_SUFFIX, names.TOPOGRAM_SUFFIX)
        outside = settings.ct_outside_hu if is_ct else 0.0
        if image.suffix == names.TOPOGRAM_SUFFIX:
            target = topogram_grid(grid, target)
        planes = resample_slabs(
            data,
            grid,
            target,
            order=settings.spline_order,
            outside=outside,
            threads=self.subject.threads,
        )
        findings: dict[str, Any] = {}
        if image.suffix == names.PET_SUFFIX:
            planes = self._activity(image, planes, findings, clip=all((row >= 0).all() for row in data.T))
        writer.image(
            names.image_in_space(image, self.space),
            planes,
            target,
            dtype=np.float32,
            aligned=True,
            threads=self.subject.threads,
            sources=[image.path] if transform is None else [image.path, transform],
            findings=findings,
            **self._sidecar(f"B-spline of order {settings.spline_order}", outside),
        )

    def _activity(
        self, image: Source, planes: Iterable[Planes], findings: dict[str, Any], *, clip: bool
    ) -> Iterator[Planes]:
        """PET in Bq/mL; ``findings`` has the number of negative voxels that were set to 0 so far.

        Cubic interpolation undershoots beside hot organs; negatives of the source itself stay.
        """
        scale = np.float32(self.subject.metadata(image).scale[0])
        findings |= {"ClippedNegativeVoxels": 0, "Units": "Bq/mL"}
        for slab in planes:
            if clip:
                findings["ClippedNegativeVoxels"] += clip_negative(slab)
            slab *= scale
            yield slab

    def _sidecar(self, interpolation: str, outside: float) -> dict[str, Any]:
        reference = self._reference or self._head_reference
        assert reference is not None
        sidecar: dict[str, Any] = {
            "SpatialReference": self.subject.store.uri(reference.path),
            "SkullStripped": False,
            "Interpolation": interpolation,
            "OutsideValue": outside,
        }
        if self.space == "head":
            settings = self.subject.settings.resample
            size = " x ".join(f"{mm:g}" for mm in settings.head_size_mm)
            sidecar["Resolution"] = f"{settings.head_voxel_mm:g} mm isotropic, {size} mm around the brain"
        return sidecar

    @property
    def _reference(self) -> Source | None:
        """The PET image whose grid is the space's; the head's grid is made around the brain."""
        inputs = self.subject.inputs
        return {"bodystat": inputs.static, "bodydyn": inputs.dynamic, "head": None}[self.space]

    def _grid(self) -> Grid:
        if self._reference is not None:
            return grid_of(self._reference.path)
        assert self._brain is not None
        what, _, transform = self._brain
        path, settings = self.segmentations[what.name], self.subject.settings.resample
        labels, grid = read_labels(path)
        brain = labels == label_table("total").index_of(BRAIN) if what.name == "total" else labels > 0
        if not brain.any():
            raise CannotRun(f"{path.name} has no voxel labelled {BRAIN}")
        return head_grid(
            brain, _placed(grid, transform), size_mm=settings.head_size_mm, voxel_mm=settings.head_voxel_mm
        )

    @property
    def _brain(self) -> tuple[Task, Source, Path | None] | None:
        """The segmentation that shows where the brain is: that of the body, else that of the brain alone."""
        of = {what.name: (what, source, transform) for what, source, transform in self._labels()}
        return next((of[name] for name in ("total", "synthseg", "synthsegparc") if name in of), None)

    @property
    def _head_reference(self) -> Source | None:
        return self._brain[1] if self._brain else None

    @property
    def _fixed(self) -> str:
        return "CT" if self.subject.inputs.ct else "PET"

    def _labels(self) -> Iterator[tuple[Task, Source, Path | None]]:
        """Segmentations to resample, each with its image and the matrix that moves it."""
        inputs = self.subject.inputs
        for name in self.segmentations:
            source = inputs.anatomy if task(name) in CT_TASKS else inputs.head_mr
            if source is None:
                continue
            moves = source.suffix == names.MR_SUFFIX
            transform = self.transforms.head if source == inputs.head_mr else self.transforms.body
            if not moves or transform is not None:
                yield task(name), source, transform if moves else None

    def _images(self) -> Iterator[tuple[Source, Path | None]]:
        """Images to resample, each with the matrix that moves it (None: it is where the CT is)."""
        inputs = self.subject.inputs
        topogram = [inputs.topogram] if inputs.topogram else []
        for image in [*inputs.cts, *inputs.statics, *topogram]:
            yield image, None
        for transform, images in (
            (self.transforms.head, inputs.head_mrs),
            (self.transforms.body, inputs.body_mrs),
        ):
            if transform is not None:
                yield from ((image, transform) for image in images)


def _placed(grid: Grid, transform: Path | None) -> Grid:
    return grid if transform is None else moved(grid, read_matrix(transform))
