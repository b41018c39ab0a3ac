"""Images and segmentations in one of the spaces: body-static, body-dynamic or head 1 mm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.io.nifti_read import read_labels, read_volume
from hedypet_bids.io.store import Writer
from hedypet_bids.kernels.hounsfield import without_padding
from hedypet_bids.kernels.resampling.resample import (
    clip_negative,
    head_grid,
    moved,
    resample_labels,
    resample_slabs,
    topogram_grid,
)
from hedypet_bids.labels import CT_TASKS, Task, label_table, task
from hedypet_bids.model import Grid, IntArray, Scan
from hedypet_bids.names import Source, Space
from hedypet_bids.settings import plain
from hedypet_bids.steps.register import BRAIN, Register, read_matrix
from hedypet_bids.steps.segment import Segmentation, grid_of, labels_of
from hedypet_bids.steps.static import Static
from hedypet_bids.steps.step import CannotRun, Plan, Skip, Step

Planes = NDArray[np.float32]


@dataclass(eq=False)
class Resample(Step):
    """Every image (cubic B-spline) and segmentation (nearest neighbour) in one space."""

    scan: Scan
    space: Space
    static: Static
    segmentations: Sequence[Segmentation]
    head: Register
    body: Register

    @property
    def name(self) -> str:
        """``resample <space>``."""
        return f"resample {self.space}"

    @property
    def labels(self) -> dict[str, Path]:
        """Label images in this space by task name."""
        return self.outputs.of("labels", self.space)

    @property
    def images(self) -> dict[str, Path]:
        """Images in this space by the file name of their source."""
        return self.outputs.of("image", self.space)

    def plan(self) -> Plan | Skip:
        """Bring everything into the space that can be placed there."""
        if self.space == "head" and self._brain is None:
            return Skip("there is no total segmentation to find the brain")
        if self.space != "head" and self._reference is None:
            return Skip(f"no {'static' if self.space == 'bodystat' else 'dynamic'} PET was found")
        labels, images = list(self._labels()), list(self._images())
        of_scan, store = self.scan.space(self.space), self.context.store
        reference = [self._reference.path] if self._reference else []
        transforms = [t for t in (self.head.transform, self.body.transform) if t]
        return Plan(
            reads={*reference, *transforms, *(image.path for image, _ in images), *self._segmented.values()},
            makes={
                **{
                    ("labels", self.space, what.name): store.path(
                        names.segmentation(source, what.name, of_scan)
                    )
                    for what, source, _ in labels
                },
                **{
                    ("image", self.space, image.path.name): store.path(names.image_in_space(image, of_scan))
                    for image, _ in images
                },
            },
            settings={
                **plain(self.context.settings.resample),
                "pet": {i.path.name: self.static.metadata(i).timing_and_scale for i in self.static.images},
            },
            missing=self._missing(),
        )

    def run(self, _plan: Plan, writer: Writer) -> None:
        """Resample every segmentation and image."""
        target = self._grid()
        for segmented, source, transform in self._labels():
            self._write_labels(writer, segmented, source, transform, target)
        for image, transform in self._images():
            self._write_image(writer, image, transform, target)

    def sources_of_labels(self) -> list[Path]:
        """What :meth:`labels_on` reads."""
        placed_labels = list(self._labels())
        transforms = [transform for _, _, transform in placed_labels if transform]
        return [*(self._segmented[what.name] for what, _, _ in placed_labels), *dict.fromkeys(transforms)]

    def labels_on(self, what: str, target: Grid) -> IntArray:
        """A segmentation that lies in this space, resampled onto another grid of the scan's world."""
        transform = next(transform for task, _, transform in self._labels() if task.name == what)
        labels, grid = read_labels(self._segmented[what])
        return resample_labels(labels, placed(grid, transform), target, threads=self.context.threads)

    def _missing(self) -> dict[str, str]:
        """The images that cannot be placed or are not there."""
        scan, reasons = self.scan, {}
        fixed = "CT" if scan.ct else "PET"
        if scan.head_mrs and self.head.transform is None:
            reasons["head MR images"] = f"their transform to the {fixed} is missing"
        if scan.body_mrs and self.body.transform is None:
            reasons["body MR images"] = f"their transform to the {fixed} is missing"
        lost = set(self._segmented) - {what.name for what, _, _ in self._labels()}
        if lost:
            reason = f"the transform of their MR image to the {fixed} is missing"
            reasons[f"segmentations {', '.join(sorted(lost))}"] = reason
        if scan.topogram is None:
            reasons["topogram"] = "no topogram was found"
        return reasons

    def _write_labels(
        self, writer: Writer, what: Task, source: Source, transform: Path | None, target: Grid
    ) -> None:
        path = self._segmented[what.name]
        labels, grid = read_labels(path)
        writer.segmentation(
            source,
            what,
            self.scan.space(self.space),
            resample_labels(labels, placed(grid, transform), target, threads=self.context.threads),
            target,
            sources=[path] if transform is None else [path, transform],
            **self._sidecar("nearest neighbour", 0),
        )

    def _write_image(self, writer: Writer, image: Source, transform: Path | None, target: Grid) -> None:
        settings = self.context.settings.resample
        data, grid = read_volume(image.path, int16=True)
        grid = placed(grid, transform)
        is_ct = image.suffix in (names.CT_SUFFIX, names.TOPOGRAM_SUFFIX)
        outside = settings.ct_outside_hu if is_ct else 0.0
        findings: dict[str, Any] = {}
        if image.suffix == names.TOPOGRAM_SUFFIX:
            target = topogram_grid(grid, target)
        if image.suffix == names.CT_SUFFIX:
            data, findings["PaddingVoxels"] = without_padding(data, outside)
        planes = resample_slabs(
            data,
            grid,
            target,
            order=settings.spline_order,
            outside=outside,
            threads=self.context.threads,
        )
        if image.suffix == names.PET_SUFFIX:
            planes = self._activity(image, planes, findings, clip=all((row >= 0).all() for row in data.T))
        writer.image(
            names.image_in_space(image, self.scan.space(self.space)),
            planes,
            target,
            dtype=np.float32,
            aligned=True,
            threads=self.context.threads,
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
        scale = np.float32(self.static.metadata(image).scale[0])
        findings |= {"ClippedNegativeVoxels": 0, "Units": "Bq/mL"}
        for slab in planes:
            if clip:
                findings["ClippedNegativeVoxels"] += clip_negative(slab)
            slab *= scale
            yield slab

    def _sidecar(self, interpolation: str, outside: float) -> dict[str, Any]:
        brain = self._brain
        reference = self._reference or (brain[1] if brain else None)
        assert reference is not None
        sidecar: dict[str, Any] = {
            "SpatialReference": self.context.store.uri(reference.path),
            "SkullStripped": False,
            "Interpolation": interpolation,
            "OutsideValue": outside,
        }
        if self.space == "head":
            settings = self.context.settings.resample
            size = " x ".join(f"{mm:g}" for mm in settings.head_size_mm)
            sidecar["Resolution"] = f"{settings.head_voxel_mm:g} mm isotropic, {size} mm around the brain"
        return sidecar

    @property
    def _reference(self) -> Source | None:
        """The PET image whose grid is the space's; the head's grid is made around the brain."""
        return {"bodystat": self.static.image, "bodydyn": self.scan.dynamic, "head": None}[self.space]

    def _grid(self) -> Grid:
        if self._reference is not None:
            return grid_of(self._reference.path)
        assert self._brain is not None
        what, _, transform = self._brain
        path, settings = self._segmented[what.name], self.context.settings.resample
        labels, grid = read_labels(path)
        brain = labels == label_table("total").index_of(BRAIN) if what.name == "total" else labels > 0
        if not brain.any():
            raise CannotRun(f"{path.name} has no voxel labelled {BRAIN}")
        return head_grid(
            brain, placed(grid, transform), size_mm=settings.head_size_mm, voxel_mm=settings.head_voxel_mm
        )

    @property
    def _brain(self) -> tuple[Task, Source, Path | None] | None:
        """The segmentation that shows where the brain is: that of the body, else that of the brain alone."""
        of = {what.name: (what, source, transform) for what, source, transform in self._labels()}
        return next((of[name] for name in ("total", "synthseg", "synthsegparc") if name in of), None)

    @property
    def _segmented(self) -> dict[str, Path]:
        return labels_of(self.segmentations)

    def _labels(self) -> Iterator[tuple[Task, Source, Path | None]]:
        """Segmentations to resample, each with its image and the matrix that moves it."""
        scan = self.scan
        for name in self._segmented:
            source = scan.body_image if task(name) in CT_TASKS else scan.head_mr
            if source is None:
                continue
            moves = source.suffix == names.MR_SUFFIX
            transform = self.head.transform if source == scan.head_mr else self.body.transform
            if not moves or transform is not None:
                yield scan.task(name), source, transform if moves else None

    def _images(self) -> Iterator[tuple[Source, Path | None]]:
        """Images to resample, each with the matrix that moves it (None: it is where the CT is)."""
        scan = self.scan
        topogram = [scan.topogram] if scan.topogram else []
        for image in [*scan.cts, *self.static.images, *topogram]:
            yield image, None
        for transform, images in (
            (self.head.transform, scan.head_mrs),
            (self.body.transform, scan.body_mrs),
        ):
            if transform is not None:
                yield from ((image, transform) for image in images)


def placed(grid: Grid, transform: Path | None) -> Grid:
    """The grid of an image that a matrix moves; as it is without one."""
    return grid if transform is None else moved(grid, read_matrix(transform))
