"""Segments of the aorta, and the volumes of interest of the input functions in it and in the right heart."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids import names
from hedypet_bids.figures.aorta import draw_aorta, draw_aorta_labels
from hedypet_bids.io.manifest import Kind
from hedypet_bids.io.nifti_read import FrameReader, read_labels
from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.io.store import Writer
from hedypet_bids.kernels.aorta import (
    LOWER_DESCENDING,
    UPPER_DESCENDING,
    RightHeartVoi,
    early_weights,
    find_bolus,
    place_right_heart,
    place_vois,
    refine_with_pet,
    segment_aorta,
    wall_distance_mm,
)
from hedypet_bids.kernels.aorta.bolus import FALLBACK_WINDOW_S
from hedypet_bids.kernels.resampling.resample import resample_labels
from hedypet_bids.labels import AORTA_TASK, HEART_VOI_TASK, VOI_TASKS, Task, label_table
from hedypet_bids.model import BoolArray, FrameTimes, Grid, Scan
from hedypet_bids.names import Source
from hedypet_bids.settings import VOI_SHAPES, AortaMethod, AortaSettings, plain
from hedypet_bids.steps.resample import Resample
from hedypet_bids.steps.step import SERIES, CannotRun, Plan, Skip, Step
from hedypet_bids.tools.nifti_dynamic import library_segments, library_vois

AORTA, HEART = "aorta", "heart"
COMBINED = "aortavoicombined"
# What the picture shows around the aorta.
CROP_MARGIN_MM = 25.0

BoxSlices = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class EarlyPhase:
    """The first minutes of the dynamic PET around the aorta, Bq/mL."""

    crops: list[NDArray[np.float32]]
    frames: FrameTimes
    mask: BoolArray

    def median_curve(self) -> NDArray[np.float64]:
        """Median over the aorta in each frame, shape (n_frames,)."""
        inside = (crop[self.mask] for crop in self.crops)
        return np.array([np.median(v[np.isfinite(v)]) if np.isfinite(v).any() else np.nan for v in inside])

    def mean(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weighted sum of the frames."""
        total = np.zeros(self.mask.shape, dtype=np.float64)
        for weight, crop in zip(weights, self.crops, strict=True):
            if weight:
                total += weight * crop
        return total


@dataclass(frozen=True, eq=False)
class Placed:
    """Labels on the crop and what their sidecars say, by task, and a picture of them."""

    labels: Mapping[str, NDArray[np.uint8]]
    sidecars: Mapping[str, Mapping[str, Any]]
    picture: Figure


@dataclass(eq=False)
class PlaceAortaVois(Step):
    """Cuts the aorta into segments and places the volumes of interest where the bolus is seen best."""

    scan: Scan
    bodydyn: Resample
    uses: ClassVar[str] = SERIES

    @property
    def name(self) -> str:
        """``aorta``."""
        return "aorta"

    @property
    def labels(self) -> dict[str, Path]:
        """Label images of the segments and of the volumes of interest by task name."""
        return self.outputs.of("labels", "bodydyn")

    @property
    def vois(self) -> dict[str, Path]:
        """Label images of the volumes of interest by task name."""
        return {task.name: self.labels[task.name] for task in VOI_TASKS if task.name in self.labels}

    @property
    def why_no_right_heart(self) -> str:
        """Why there is no volume of interest in the right heart; empty where there is one, or may be."""
        path = self.labels.get(HEART_VOI_TASK.name)
        if path is None and not self.labels:
            return "there is no aorta, whose bolus tells when blood has left the lungs"
        if path is None:
            return "there is no total segmentation with a heart in the dynamic PET's space"
        return str(read_sidecar(path).get("Reason", ""))

    def plan(self) -> Plan | Skip:
        """Place the volumes of interest from the early frames."""
        dynamic, store = self.scan.dynamic, self.context.store
        if dynamic is None:
            return Skip("no dynamic PET was found")
        aorta = self._aorta
        if aorta is None:
            return Skip("there is no total segmentation in the dynamic PET's space")
        space, named_after = self.scan.space("bodydyn"), self._named_after(dynamic)
        labels: dict[Kind, Path] = {
            ("labels", "bodydyn", task.name): store.path(names.segmentation(named_after, task.name, space))
            for task in (AORTA_TASK, *VOI_TASKS, *([HEART_VOI_TASK] if self._heart else []))
        }
        return Plan(
            reads=list(dict.fromkeys(filter(None, [dynamic.path, aorta, self._heart]))),
            makes={**labels, ("picture", AORTA): store.path(self._picture)},
            settings={
                **plain(self.context.settings.aorta),
                "shapes": {name: plain(shape) for name, shape in VOI_SHAPES.items()},
                **self.scan.metadata(dynamic).timing_and_scale,
            },
        )

    def run(self, plan: Plan, writer: Writer) -> None:
        """Find the segments, look at the first pass of the bolus, place the volumes of interest."""
        dynamic, aorta = self.scan.dynamic, self._aorta
        assert dynamic is not None
        assert aorta is not None
        mask, grid = self._mask(dynamic, aorta)
        box = box_around(mask, margin_mm=CROP_MARGIN_MM, grid=grid)
        heart = self._heart_mask(grid)
        around = box_around(heart, margin_mm=0.0, grid=grid) if heart.any() else box
        early, of_heart = self._early_phase(dynamic, mask[box], box, heart[around], around)
        place = PLACING[self.context.settings.aorta.method]
        placed = place(mask[box], cropped(grid, box), early, self.context.settings.aorta)
        writer.picture(self._picture, placed.picture, sources=plan.reads)
        for task in (AORTA_TASK, *VOI_TASKS):
            labels = np.zeros(grid.shape, dtype=np.uint8)
            labels[box] = placed.labels[task.name]
            self._write(writer, plan, task, labels, grid, placed.sidecars[task.name])
        if self._heart:
            affine, frames = cropped(grid, around).affine, early.frames
            found = place_right_heart(of_heart, heart[around], affine, frames, early.median_curve())
            labels = np.zeros(grid.shape, dtype=np.uint8)
            labels[around] = found.labels
            self._write(writer, plan, HEART_VOI_TASK, labels, grid, about_right_heart(found))

    def _write(
        self,
        writer: Writer,
        plan: Plan,
        task: Task,
        labels: NDArray[np.uint8],
        grid: Grid,
        about: Mapping[str, Any],
    ) -> None:
        dynamic = self.scan.dynamic
        assert dynamic is not None
        writer.segmentation(
            self._named_after(dynamic),
            task,
            self.scan.space("bodydyn"),
            labels,
            grid,
            sources=plan.reads,
            SpatialReference=self.context.store.uri(dynamic.path),
            SkullStripped=False,
            Checksum=checksum(labels),
            **about,
        )

    def _mask(self, dynamic: Source, aorta: Path) -> tuple[BoolArray, Grid]:
        """The aorta on the grid of the dynamic PET."""
        labels, grid = read_labels(aorta)
        # A total segmentation, made or corrected, or a mask of the aorta alone.
        of_total = self.scan.aorta_correction is None or "_seg-total" in aorta.name
        mask = labels == label_table("total").index_of(AORTA) if of_total else labels > 0
        if self.scan.aorta_correction is not None:
            found, grid = grid, FrameReader(dynamic.path).grid
            mask = resample_labels(mask.astype(np.uint8), found, grid) > 0
        if not mask.any():
            raise CannotRun(f"{aorta.name} has no voxel labelled {AORTA} in the dynamic PET's field of view")
        return mask, grid

    def _heart_mask(self, grid: Grid) -> BoolArray:
        """The heart on the grid of the dynamic PET; empty where there is none."""
        if self._heart is None:
            return np.zeros(grid.shape, dtype=bool)
        heart: BoolArray = read_labels(self._heart)[0] == label_table("total").index_of(HEART)
        return heart

    def _early_phase(
        self, dynamic: Source, mask: BoolArray, box: BoxSlices, heart: BoolArray, around: BoxSlices
    ) -> tuple[EarlyPhase, NDArray[np.float32]]:
        """The first minutes around the aorta and in the voxels of the heart, shape (n_frames, n_voxels).

        One pass, of which nothing else is kept.
        """
        metadata = self.scan.metadata(dynamic)
        frames = metadata.frames
        reader = FrameReader(dynamic.path)
        end_s = frames.start_s[0] + self.context.settings.aorta.early_window_s
        stop = max(2, int(np.searchsorted(frames.start_s, end_s)))
        crops, of_heart = [], []
        for index, frame in reader.frames(stop=min(stop, reader.n_frames)):
            crops.append(np.asarray(frame[box] * metadata.scale[index], dtype=np.float32))
            of_heart.append(np.asarray(frame[around][heart] * metadata.scale[index], dtype=np.float32))
        early = EarlyPhase(crops, FrameTimes(frames.start_s[:stop], frames.duration_s[:stop]), mask)
        return early, np.stack(of_heart)

    def _named_after(self, dynamic: Source) -> Source:
        """The image that the segmentation of the aorta labels; a given aorta is on the PET."""
        return (self.scan.body_image if "total" in self.bodydyn.labels else self.scan.anatomy) or dynamic

    @property
    def _aorta(self) -> Path | None:
        """The aorta: its correction, else the total segmentation on the grid of the dynamic PET."""
        return self.scan.aorta_correction or self.bodydyn.labels.get("total")

    @property
    def _heart(self) -> Path | None:
        """The total segmentation on the grid of the dynamic PET, where it knows the heart."""
        return self.bodydyn.labels.get("total") if HEART in self.scan.task("total").table.names else None

    @property
    def _picture(self) -> str:
        return names.figure(self.scan.label, self.scan.stem, AORTA)


def by_centreline(mask: BoolArray, grid: Grid, early: EarlyPhase, settings: AortaSettings) -> Placed:
    """Segments and volumes of interest along the centreline of the aorta, in world mm."""
    bolus = find_bolus(early.median_curve(), early.frames)
    mean = early.mean(early_weights(early.frames, bolus))
    segments = segment_aorta(mask, grid.affine)
    refined, kept = refine_with_pet(segments.labels, mean, fraction=settings.keep_fraction)
    refined_segments = dataclasses.replace(segments, labels=refined)
    labels = {AORTA_TASK.name: refined}
    sidecars: dict[str, Mapping[str, Any]] = {
        AORTA_TASK.name: {
            "Method": "centreline",
            "Flags": list(segments.flags),
            "Quality": segments.qc,
            "KeptFraction": kept,
            "Bolus": dataclasses.asdict(bolus),
        }
    }
    voxel_mm = float(np.cbrt(grid.voxel_volume_ml * 1000))
    for name, shape in VOI_SHAPES.items():
        vois = place_vois(
            refined_segments,
            grid.affine,
            width_mm=shape.width_voxels * voxel_mm,
            volume_ml=shape.volume_ml,
            early_mean=mean,
        )
        labels[name] = vois.labels
        distances = wall_distance_mm(vois.labels, mask, grid.affine)
        sidecars[name] = {
            "Method": "centreline",
            "VolumeMl": vois.volume_ml,
            "WallDistanceMm": {segment: dataclasses.asdict(d) for segment, d in distances.items()},
            "Flags": list(vois.flags),
        }
    labels[COMBINED] = combined(labels)
    sidecars[COMBINED] = {"Method": "centreline", "Description": "the other volumes in the descending aorta"}
    vois_by_name = {name: labels[name] for name in VOI_SHAPES}
    return Placed(labels, sidecars, draw_aorta(mean, refined_segments, vois_by_name, grid))


def combined(labels: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Every voxel of a volume of interest in the upper or lower descending aorta, as label 1."""
    descending = [np.isin(labels[name], (UPPER_DESCENDING, LOWER_DESCENDING)) for name in VOI_SHAPES]
    union: NDArray[np.uint8] = np.logical_or.reduce(descending).astype(np.uint8)
    return union


def about_right_heart(found: RightHeartVoi) -> dict[str, Any]:
    """What the sidecar of the volume in the right heart says; its ``Reason`` why it is empty."""
    return {
        "Method": "first early peak in the right part of the heart",
        "Description": "Blood of the right heart, from which the lungs are fed; empty with a Reason",
        "VolumeMl": found.volume_ml,
        "PeakS": found.peak_s,
        "PeakBqMl": found.peak_bq_ml,
        "AortaPeakS": found.aorta_peak_s,
        "AortaPeakBqMl": found.aorta_peak_bq_ml,
        "LeadS": found.lead_s,
        "Reason": found.reason,
    }


def by_library(mask: BoolArray, grid: Grid, early: EarlyPhase, _settings: AortaSettings) -> Placed:
    """Segments and volumes of interest by nifti_dynamic as it is, for equality with published tables."""
    # The library's own rule: the plain mean of the frames that start within 40 s of injection.
    first = early.frames.start_s < FALLBACK_WINDOW_S
    mean = early.mean(first / first.sum())
    segments = library_segments(mask, grid.affine, mean)
    labels = {AORTA_TASK.name: segments}
    for name, shape in VOI_SHAPES.items():
        labels[name] = library_vois(
            segments, grid.affine, mean, volume_ml=shape.volume_ml, width_voxels=int(shape.width_voxels)
        )
    labels[COMBINED] = combined(labels)
    sidecars = {name: {"Method": "nifti_dynamic 0.3.1", "Flags": []} for name in labels}
    vois_by_name = {name: labels[name] for name in VOI_SHAPES}
    return Placed(labels, sidecars, draw_aorta_labels(segments, vois_by_name, grid))


PLACING: Mapping[AortaMethod, Callable[[BoolArray, Grid, EarlyPhase, AortaSettings], Placed]] = {
    "centreline": by_centreline,
    "nifti_dynamic": by_library,
}
"""Ways to place segments and volumes of interest, by the name of the method in the settings."""


def checksum(labels: NDArray[np.uint8]) -> str:
    """SHA-256 (hex, 16 characters) of which voxels of the grid carry which label."""
    where = np.flatnonzero(labels)
    return hashlib.sha256(where.tobytes() + labels.ravel()[where].tobytes()).hexdigest()[:16]


def box_around(mask: BoolArray, *, margin_mm: float, grid: Grid) -> BoxSlices:
    """The bounding box of a mask, widened by a margin as far as the grid reaches."""
    box = ndimage.find_objects(mask.view(np.uint8))[0]
    margins = np.ceil(margin_mm / grid.voxel_sizes_mm).astype(int)
    wide = [
        slice(max(0, s.start - margin), min(n, s.stop + margin))
        for s, n, margin in zip(box, mask.shape, margins, strict=True)
    ]
    return wide[0], wide[1], wide[2]


def cropped(grid: Grid, box: BoxSlices) -> Grid:
    """The grid of a box of voxels."""
    affine = grid.affine.copy()
    affine[:3, 3] = (grid.affine @ [*(s.start for s in box), 1])[:3]
    return Grid(tuple(s.stop - s.start for s in box), affine)
