"""The static images of a scan; one made from frames for scans that have a dynamic one only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.store import Writer
from hedypet_bids.kernels.kinetics.weighted_sums import weighted_sums
from hedypet_bids.model import FrameTimes, PetMetadata, Scan
from hedypet_bids.names import Source
from hedypet_bids.steps.step import SERIES, Plan, Skip, Step

# Sidecars round times, and scans are started and stopped by hand.
_SAME_TIME_S = 1.0


@dataclass(eq=False)
class Static(Step):
    """The static images of a scan: those of the dataset, else the mean of the frames in a window of time.

    Each frame counts by the time of the window that it covers.
    """

    scan: Scan
    uses: ClassVar[str] = SERIES

    @property
    def name(self) -> str:
        """``static``."""
        return "static"

    @property
    def images(self) -> tuple[Source, ...]:
        """Every static image, the one that stands for the scan first; empty where there is none."""
        made = self.outputs.get("static_image")
        if made is None or self.scan.dynamic is None:
            return self.scan.statics
        return (dataclasses.replace(self.scan.dynamic, path=made, root=self.context.store.root),)

    @property
    def image(self) -> Source | None:
        """The one that stands for the scan."""
        return self.images[0] if self.images else None

    def metadata(self, image: Source) -> PetMetadata:
        """Timing, units, dose and decay state of a static image."""
        if image.path in self.scan.pet:
            return self.scan.metadata(image)
        assert self.scan.dynamic is not None
        start_s, end_s = self._window_s
        return dataclasses.replace(
            self.scan.metadata(self.scan.dynamic),
            frames=FrameTimes(np.array([start_s]), np.array([end_s - start_s])),
            units="Bq/mL",
            units_factor=1.0,
            decay_corrected=True,
            decay_reference_s=0.0,
            decay_factor=np.ones(1),
            notes=(),
        )

    def plan(self) -> Plan | Skip:
        """Average the dynamic PET where there is no static one."""
        dynamic = self.scan.dynamic
        if self.scan.statics or dynamic is None:
            return Skip()
        start_s, end_s = self._window_s
        metadata = self.scan.metadata(dynamic)
        covered_s = float(self._overlap_s(metadata.frames).sum())
        if end_s <= start_s or covered_s < end_s - start_s - _SAME_TIME_S:
            frames = metadata.frames
            return Skip(
                f"the dynamic PET ({frames.start_s[0] / 60:g} to {frames.end_s[-1] / 60:g} min) does not "
                f"cover {start_s / 60:g} to {end_s / 60:g} min; choose another time with --static-window"
            )
        return Plan(
            reads=[dynamic.path],
            makes={("static_image",): self.context.store.path(names.static_mean(dynamic))},
            settings={"window_s": self._window_s, **metadata.timing_and_scale},
        )

    def run(self, plan: Plan, writer: Writer) -> None:
        """Sum the frames, each weighted by its share of the window."""
        dynamic = self.scan.dynamic
        assert dynamic is not None
        reader, metadata = FrameReader(dynamic.path), self.scan.metadata(dynamic)
        overlap_s = self._overlap_s(metadata.frames)
        used = np.flatnonzero(overlap_s)
        weights = overlap_s / overlap_s.sum() * metadata.scale
        chunks = reader.chunks(int(used[0]), int(used[-1]) + 1)
        (mean,) = weighted_sums(chunks, weights[np.newaxis], n_voxels=reader.grid.n_voxels)
        start_s, end_s = self._window_s
        writer.image(
            names.static_mean(dynamic),
            mean.reshape(reader.grid.shape, order="F"),
            reader.grid,
            dtype=np.float32,
            threads=self.context.threads,
            sources=plan.reads,
            Description="Mean of the dynamic PET over a window, each frame by the time that it covers",
            Units="Bq/mL",
            InjectionStart=0,
            FrameTimesStart=[start_s],
            FrameDuration=[end_s - start_s],
            ImageDecayCorrected=True,
            ImageDecayCorrectionTime=0,
            Frames=used.tolist(),
            SkullStripped=False,
        )

    def _overlap_s(self, frames: FrameTimes) -> NDArray[np.float64]:
        """Seconds of the window that each frame covers, shape (n_frames,)."""
        start_s, end_s = self._window_s
        covered = np.minimum(frames.end_s, end_s) - np.maximum(frames.start_s, start_s)
        return np.asarray(np.maximum(covered, 0.0), dtype=np.float64)

    @property
    def _window_s(self) -> tuple[float, float]:
        start_min, end_min = self.context.settings.static.window_min
        return 60.0 * start_min, 60.0 * end_min
