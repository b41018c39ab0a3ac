"""Numbers that show whether a scan can be trusted, with their normal ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.io.store import Writer, flags_of
from hedypet_bids.io.tables import MISSING, frame_times, read_table, read_timed
from hedypet_bids.kernels.quality import (
    SETTLED_S,
    BodyReference,
    FrameQuality,
    QualityCheck,
    activity_fraction,
    blood_checks,
    body_reference,
    drift_checks,
    frame_quality,
    quality_check,
    static_over_dynamic,
)
from hedypet_bids.kernels.region_statistics import RegionKey
from hedypet_bids.model import FloatArray, FrameTimes, Grid, Scan
from hedypet_bids.names import Source
from hedypet_bids.steps.segment import Segmentation, labels_of
from hedypet_bids.steps.static import Static
from hedypet_bids.steps.step import Plan, Skip, Step

# Large, with little motion, and of different tissues.
COMPARED_ORGANS = ("liver", "spleen", "brain", "heart", "pancreas")
ORGANS_KEY: RegionKey = ("total", 0)
IMAGE_KEY: RegionKey = ("totalimage", 0)
# Larger frames are thinned out: motion of millimetres shows as well in every second voxel.
MOST_VOXELS = 2e7

_FRAME_COLUMNS = (
    "frame",
    "frame_start",
    "frame_end",
    "shift_x",
    "shift_y",
    "shift_z",
    "centroid_shift",
    "ncc",
    "n_negative",
    "n_voxels",
)


@dataclass
class FrameWatch:
    """Looks at the late frames of a series while they pass by to be measured."""

    frames: FrameTimes
    grid: Grid
    most_voxels: float = MOST_VOXELS
    _reference: BodyReference | None = None
    _seen: dict[int, FrameQuality] = field(default_factory=dict)

    def passing(self, frames: Iterable[tuple[int, FloatArray]]) -> Iterator[FloatArray]:
        """The frames, each looked at before it goes on."""
        for index, frame in frames:
            if self.frames.start_s[index] >= SETTLED_S:
                self._look(index, frame)
            yield frame

    def _look(self, index: int, frame: FloatArray) -> None:
        thin = np.asfortranarray(frame[:: self._step, :: self._step, :: self._step])
        if self._reference is None:
            affine = self.grid.affine @ np.diag([self._step, self._step, self._step, 1.0])
            try:
                self._reference = body_reference(thin, Grid(thin.shape, affine))
            except BadDataError:
                # An empty frame shows no body; a later one may.
                return
        self._seen[index] = frame_quality(thin, self._reference)

    @property
    def _step(self) -> int:
        """Of so many voxels along each axis one is looked at."""
        return max(1, int(np.ceil((self.grid.n_voxels / self.most_voxels) ** (1 / 3))))

    def table(self) -> pd.DataFrame:
        """One row per frame that was looked at."""
        rows = [
            (
                index,
                self.frames.start_s[index],
                self.frames.end_s[index],
                *q.shift_mm,
                q.centroid_shift_mm,
                q.ncc,
                q.n_negative,
                int(np.prod([-(-n // self._step) for n in self.grid.shape])),
            )
            for index, q in self._seen.items()
        ]
        return pd.DataFrame(rows, columns=list(_FRAME_COLUMNS))


@dataclass(eq=False)
class CheckQuality(Step):
    """Activity against dose, static against dynamic, motion, odd voxels, and blood that was not seen."""

    scan: Scan
    segmentations: Sequence[Segmentation]
    static: Static
    means: Step
    curves: Step
    blood: Step
    flagged: Sequence[Step]

    @property
    def name(self) -> str:
        """``quality``."""
        return "quality"

    @property
    def checks(self) -> Path | None:
        """The JSON file of the checks; None where there is none."""
        return self.outputs.get("quality")

    def plan(self) -> Plan | Skip:
        """Compare what was measured with what is to be expected."""
        if IMAGE_KEY not in self._means and IMAGE_KEY not in self._curves:
            return Skip("no PET was measured")
        keys = (ORGANS_KEY, IMAGE_KEY)
        tables = [table[key] for table in (self._means, self._curves) for key in keys if key in table]
        frames = self.curves.outputs.get("frames")
        measured = [self.static.metadata(self.static.image)] if self.static.image else []
        measured += [self.scan.metadata(self.scan.dynamic)] if self.scan.dynamic else []
        return Plan(
            reads=[
                *tables,
                *([frames] if frames else []),
                *labels_of(self.segmentations).values(),
                *self._flagged,
            ],
            makes={("quality",): self.context.store.path(names.quality(self._pet))},
            settings={"pet": [{**m.timing_and_scale, "DoseBq": m.dose_bq} for m in measured]},
        )

    def run(self, plan: Plan, writer: Writer) -> None:
        """Compare each number with its normal range."""
        checks = [
            *self._dose_check(),
            *self._agreement_check(),
            *self._static_checks(),
            *self._frame_checks(),
            *self._blood_checks(),
            *self._segmentation_checks(),
        ]
        writer.record(
            names.quality(self._pet),
            {
                "Description": "Quality checks: value, normal range, and what to look at when outside",
                "Checks": [dataclasses.asdict(c) for c in checks],
                "Flags": [*(c.text for c in checks if c.state == "outside"), *flags_of(self._flagged)],
            },
            sources=plan.reads,
        )

    def _dose_check(self) -> Iterator[QualityCheck]:
        """Activity in the field of view over the dose, from the static image or the last frame."""
        static, dynamic = self.static.image, self.scan.dynamic
        if IMAGE_KEY in self._means and static:
            row = read_table(self._means[IMAGE_KEY]).iloc[0]
            mean, volume_ml = row["mean"], row["volume"] * row["n_valid"] / row["n_voxels"]
            dose_bq = self.static.metadata(static).dose_bq
        elif dynamic:
            mean = read_table(self._curves[IMAGE_KEY]).iloc[-1, -1]
            volume_ml = read_table(self._dynamic_volumes()).loc[0, "volume"]
            dose_bq = self.scan.metadata(dynamic).dose_bq
        else:
            return
        yield quality_check(
            "activity_fraction", activity_fraction(mean, voxel_volume_ml=volume_ml, dose_bq=dose_bq)
        )

    def _agreement_check(self) -> Iterator[QualityCheck]:
        """Static means over those of the dynamic frames in the same window, median over some organs."""
        static = self.static.image
        if static is None or ORGANS_KEY not in self._means or ORGANS_KEY not in self._curves:
            return
        window = self.static.metadata(static).frames
        means = read_table(self._means[ORGANS_KEY]).set_index("name")["mean"]
        curves = read_timed(self._curves[ORGANS_KEY])
        ratios = static_over_dynamic(
            means[list(COMPARED_ORGANS)].to_numpy(dtype=np.float64),
            curves[list(COMPARED_ORGANS)].to_numpy(dtype=np.float64).T,
            frame_times(curves),
            start_s=float(window.start_s[0]),
            end_s=float(window.end_s[-1]),
        )
        known = ratios[np.isfinite(ratios)]
        yield quality_check("static_over_dynamic", float(np.median(known)) if known.size else float("nan"))

    def _static_checks(self) -> Iterator[QualityCheck]:
        """Odd voxels of the static image."""
        if IMAGE_KEY not in self._means:
            return
        row = read_table(self._means[IMAGE_KEY]).iloc[0]
        negative = read_sidecar(self._means[IMAGE_KEY])["NegativeVoxels"]
        yield quality_check("static_negative_fraction", negative / row["n_voxels"])
        yield quality_check("static_not_finite_voxels", float(row["n_voxels"] - row["n_valid"]))

    def _frame_checks(self) -> Iterator[QualityCheck]:
        """Motion and odd voxels of the late frames."""
        frames = self.curves.outputs.get("frames")
        if frames is None:
            return
        table = read_table(frames)
        if table.empty:
            return
        seen = [_frame_quality(row) for row in table.to_dict("records")]
        yield from drift_checks(seen, frame_times(table))
        yield quality_check("negative_fraction", float((table["n_negative"] / table["n_voxels"]).max()))
        image = read_table(self._dynamic_volumes()).iloc[0]
        yield quality_check("not_finite_voxels", float(image["n_voxels"] - image["n_valid"]))

    def _blood_checks(self) -> Iterator[QualityCheck]:
        """What the input functions did not see."""
        if self.scan.dynamic and self.blood.outputs.of("blood").keys() - {names.MEASURED}:
            yield from blood_checks(self.scan.metadata(self.scan.dynamic).frames)

    def _segmentation_checks(self) -> Iterator[QualityCheck]:
        """What was found when the segmentations were made or taken over."""
        for task, path in labels_of(self.segmentations).items():
            for found in read_sidecar(path).get("Checks", []):
                value = found["value"]
                checked = quality_check(found["name"], float("nan") if value == MISSING else float(value))
                # Several segmentations have a check of the same name.
                yield dataclasses.replace(
                    checked,
                    name=f"{task}_{checked.name}",
                    text=f"{task}: {checked.text}" if checked.text else "",
                )

    def _dynamic_volumes(self) -> Path:
        return self.curves.outputs.files["volumes", *IMAGE_KEY]

    @property
    def _flagged(self) -> list[Path]:
        """Results of steps that flag what looks odd in their own sidecars."""
        return [path for step in self.flagged for path in step.outputs.files.values()]

    @property
    def _means(self) -> dict[RegionKey, Path]:
        """Tables of means of the static image that stands for the scan."""
        return self.means.outputs.of("means", self.static.image.path.name) if self.static.image else {}

    @property
    def _curves(self) -> dict[RegionKey, Path]:
        return self.curves.outputs.of("mean")

    @property
    def _pet(self) -> Source:
        pet = self.scan.dynamic or self.static.image
        assert pet is not None
        return pet


def _frame_quality(row: Mapping[Any, Any]) -> FrameQuality:
    return FrameQuality(
        total=float("nan"),
        n_negative=int(row["n_negative"]),
        n_not_finite=0,
        ncc=float(row["ncc"]),
        shift_mm=np.array([row["shift_x"], row["shift_y"], row["shift_z"]], dtype=np.float64),
        centroid_mm=np.full(3, np.nan),
        centroid_shift_mm=float(row["centroid_shift"]),
    )
