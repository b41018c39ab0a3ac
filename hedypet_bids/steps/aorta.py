"""Segments of the aorta and the volumes of interest of the input functions."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids import bids_names as names
from hedypet_bids.bids_names import Source
from hedypet_bids.io.frames import FrameReader, read_labels
from hedypet_bids.io.store import Writer
from hedypet_bids.kernels.aorta import (
    early_weights,
    find_bolus,
    place_vois,
    refine_with_pet,
    segment_aorta,
    wall_distance_mm,
)
from hedypet_bids.kernels.bolus import FALLBACK_WINDOW_S
from hedypet_bids.labels import AORTA_TASK, VOI_TASKS, label_table
from hedypet_bids.model import BoolArray, FrameTimes, Grid
from hedypet_bids.settings import VOI_SHAPES, AortaSettings, plain
from hedypet_bids.steps.step import CannotRun, Step, Subject, pet_facts
from hedypet_bids.tools.nifti_dynamic_aorta import library_segments, library_vois

AORTA = "aorta"
CROP_MARGIN_VOXELS = 5

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class AortaImages:
    """Label images of the segments and, by task, of the volumes of interest."""

    segments: Path | None = None
    vois: Mapping[str, Path] = field(default_factory=dict, hash=False)


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
    """Labels on the crop and facts for the sidecar, by task."""

    labels: Mapping[str, NDArray[np.uint8]]
    facts: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class PlaceAortaVois(Step[AortaImages]):
    """Cuts the aorta into segments and places the volumes of interest where the bolus is seen best."""

    subject: Subject
    labels: Mapping[str, Path]

    @property
    def name(self) -> str:
        """``aorta``."""
        return "aorta"

    def skip_reason(self) -> str:
        """Why there is no aorta to measure."""
        if self.subject.inputs.dynamic is None:
            return "no dynamic PET was found"
        return "" if "total" in self.labels else "there is no total segmentation in the dynamic PET's space"

    def sources(self) -> Iterable[Path]:
        """The dynamic PET and the total segmentation on its grid."""
        return [self._dynamic.path, self.labels["total"]]

    def settings(self) -> Mapping[str, Any]:
        """Method, early window, refinement, shapes, and the frame times."""
        shapes = {name: plain(shape) for name, shape in VOI_SHAPES.items()}
        facts = pet_facts(self.subject.metadata(self._dynamic))
        return {**plain(self.subject.settings.aorta), "shapes": shapes, **facts}

    def results(self) -> AortaImages:
        """Names of the label images."""
        return AortaImages(
            segments=self._path(AORTA_TASK.name),
            vois={task.name: self._path(task.name) for task in VOI_TASKS},
        )

    def nothing(self) -> AortaImages:
        """No label image."""
        return AortaImages()

    def outputs(self) -> Iterable[Path]:
        """The label images."""
        return [self._path(task.name) for task in (AORTA_TASK, *VOI_TASKS)]

    def run(self, writer: Writer) -> None:
        """Find the segments, look at the first pass of the bolus, place the volumes of interest."""
        total, grid = read_labels(self.labels["total"])
        mask = total == label_table("total").index_of(AORTA)
        del total
        if not mask.any():
            raise CannotRun(f"{self.labels['total'].name} has no voxel labelled {AORTA}")
        box = box_around(mask, margin=CROP_MARGIN_VOXELS)
        early = self._early_phase(mask[box], box)
        place = by_library if self.subject.settings.aorta.method == "nifti_dynamic" else by_centreline
        placed = place(mask[box], cropped(grid, box), early, self.subject.settings.aorta)
        for task in (AORTA_TASK, *VOI_TASKS):
            labels = np.zeros(grid.shape, dtype=np.uint8)
            labels[box] = placed.labels[task.name]
            writer.segmentation(
                self._ct,
                task,
                "bodydyn",
                labels,
                grid,
                sources=self.sources(),
                SpatialReference=self.subject.store.uri(self._dynamic.path),
                SkullStripped=False,
                Checksum=checksum(labels),
                **placed.facts[task.name],
            )

    def _early_phase(self, mask: BoolArray, box: Box) -> EarlyPhase:
        """The first minutes around the aorta: one pass, of which only the crops are kept."""
        metadata = self.subject.metadata(self._dynamic)
        frames = metadata.frames
        reader = FrameReader(self._dynamic.path)
        end_s = frames.start_s[0] + self.subject.settings.aorta.early_window_s
        stop = max(2, int(np.searchsorted(frames.start_s, end_s)))
        crops = [
            np.asarray(frame[box] * metadata.scale[index], dtype=np.float32)
            for index, frame in reader.frames(stop=min(stop, reader.n_frames))
        ]
        return EarlyPhase(crops, FrameTimes(frames.start_s[:stop], frames.duration_s[:stop]), mask)

    def _path(self, task: str) -> Path:
        return self.subject.store.path(names.segmentation(self._ct, task, "bodydyn"))

    @property
    def _dynamic(self) -> Source:
        assert self.subject.inputs.dynamic is not None
        return self.subject.inputs.dynamic

    @property
    def _ct(self) -> Source:
        # Segments are named after the image whose segmentation they come from.
        assert self.subject.inputs.ct is not None
        return self.subject.inputs.ct


def by_centreline(mask: BoolArray, grid: Grid, early: EarlyPhase, settings: AortaSettings) -> Placed:
    """Segments and volumes of interest along the centreline of the aorta, in world mm."""
    bolus = find_bolus(early.median_curve(), early.frames)
    mean = early.mean(early_weights(early.frames, bolus))
    segments = segment_aorta(mask, grid.affine)
    refined, kept = refine_with_pet(segments.labels, mean, fraction=settings.keep_fraction)
    refined_segments = dataclasses.replace(segments, labels=refined)
    labels = {AORTA_TASK.name: refined}
    facts: dict[str, Mapping[str, Any]] = {
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
        facts[name] = {
            "Method": "centreline",
            "VolumeMl": vois.volume_ml,
            "WallDistanceMm": {segment: dataclasses.asdict(d) for segment, d in distances.items()},
            "Flags": list(vois.flags),
        }
    return Placed(labels, facts)


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
    return Placed(labels, {name: {"Method": "nifti_dynamic 0.3.1"} for name in labels})


def checksum(labels: NDArray[np.uint8]) -> str:
    """SHA-256 (hex, 16 characters) of which voxels of the grid carry which label."""
    where = np.flatnonzero(labels)
    return hashlib.sha256(where.tobytes() + labels.ravel()[where].tobytes()).hexdigest()[:16]


def box_around(mask: BoolArray, *, margin: int) -> Box:
    """The bounding box of a mask, widened by some voxels as far as the grid reaches."""
    box = ndimage.find_objects(mask.view(np.uint8))[0]
    wide = [
        slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(box, mask.shape, strict=True)
    ]
    return wide[0], wide[1], wide[2]


def cropped(grid: Grid, box: Box) -> Grid:
    """The grid of a box of voxels."""
    affine = grid.affine.copy()
    affine[:3, 3] = (grid.affine @ [*(s.start for s in box), 1])[:3]
    return Grid(tuple(s.stop - s.start for s in box), affine)
