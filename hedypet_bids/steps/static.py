"""A static image for participants that have a dynamic one only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.store import Writer
from hedypet_bids.kernels.kinetics.weighted_sums import weighted_sums
from hedypet_bids.model import FrameTimes
from hedypet_bids.names import Source
from hedypet_bids.steps.step import Step, Subject, pet_facts

# Sidecars round times, and scans are started and stopped by hand.
_SAME_TIME_S = 1.0


@dataclass(frozen=True)
class AverageFrames(Step[Subject]):
    """The mean of the dynamic PET over a window of time, each frame by the time that it covers."""

    subject: Subject

    @property
    def name(self) -> str:
        """``static image``."""
        return "static image"

    @property
    def group(self) -> str:
        """``resample``, whose first image it is."""
        return "resample"

    def skip_reason(self) -> str:
        """Why the window has no mean."""
        start_s, end_s = self._window_s
        frames = self.subject.metadata(self.subject.dynamic).frames
        covered_s = float(self._overlap_s().sum())
        if end_s - start_s > 0 and covered_s >= end_s - start_s - _SAME_TIME_S:
            return ""
        return (
            f"the dynamic PET ({frames.start_s[0] / 60:g} to {frames.end_s[-1] / 60:g} min) does not cover "
            f"{start_s / 60:g} to {end_s / 60:g} min; choose another time with --static-window"
        )

    def sources(self) -> Iterable[Path]:
        """The dynamic PET."""
        return [self.subject.dynamic.path]

    def settings(self) -> Mapping[str, Any]:
        """The window, frame times and units."""
        return {"window_s": self._window_s, **pet_facts(self.subject.metadata(self.subject.dynamic))}

    def results(self) -> Subject:
        """The participant with the mean as static PET."""
        start_s, end_s = self._window_s
        static = self._image
        metadata = dataclasses.replace(
            self.subject.metadata(self.subject.dynamic),
            frames=FrameTimes(np.array([start_s]), np.array([end_s - start_s])),
            units="Bq/mL",
            units_factor=1.0,
            decay_corrected=True,
            decay_reference_s=0.0,
            decay_factor=np.ones(1),
            notes=(),
        )
        return dataclasses.replace(
            self.subject,
            inputs=dataclasses.replace(self.subject.inputs, static=static),
            pet={**self.subject.pet, static.path: metadata},
        )

    def nothing(self) -> Subject:
        """The participant as it is."""
        return self.subject

    def outputs(self) -> Iterable[Path]:
        """The image."""
        return [self._image.path]

    def run(self, writer: Writer) -> None:
        """Sum the frames, each weighted by its share of the window."""
        reader = FrameReader(self.subject.dynamic.path)
        overlap_s = self._overlap_s()
        used = np.flatnonzero(overlap_s)
        weights = overlap_s / overlap_s.sum() * self.subject.metadata(self.subject.dynamic).scale
        chunks = reader.chunks(int(used[0]), int(used[-1]) + 1)
        (mean,) = weighted_sums(chunks, weights[np.newaxis], n_voxels=reader.grid.n_voxels)
        start_s, end_s = self._window_s
        writer.image(
            names.static_mean(self.subject.dynamic),
            mean.reshape(reader.grid.shape, order="F"),
            reader.grid,
            dtype=np.float32,
            threads=self.subject.threads,
            sources=self.sources(),
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

    def _overlap_s(self) -> NDArray[np.float64]:
        """Seconds of the window that each frame covers, shape (n_frames,)."""
        frames = self.subject.metadata(self.subject.dynamic).frames
        start_s, end_s = self._window_s
        covered = np.minimum(frames.end_s, end_s) - np.maximum(frames.start_s, start_s)
        return np.asarray(np.maximum(covered, 0.0), dtype=np.float64)

    @property
    def _window_s(self) -> tuple[float, float]:
        start_min, end_min = self.subject.settings.static.window_min
        return 60.0 * start_min, 60.0 * end_min

    @property
    def _image(self) -> Source:
        path = self.subject.store.path(names.static_mean(self.subject.dynamic))
        return dataclasses.replace(self.subject.dynamic, path=path, root=self.subject.store.root)
