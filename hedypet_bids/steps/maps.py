"""Voxel maps of kinetic parameters, as weighted sums over the frames of the dynamic PET."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.frame_copy import FrameCopy
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.store import Writer
from hedypet_bids.io.tables import read_blood
from hedypet_bids.kernels.kinetics import KineticModel
from hedypet_bids.kernels.kinetics.weighted_sums import smooth_image, weighted_sums, weighted_sums_of_pieces
from hedypet_bids.model import FloatArray, Scan
from hedypet_bids.steps.input_functions import ExtractInputFunctions
from hedypet_bids.steps.kinetics import why_no_kinetics
from hedypet_bids.steps.step import SERIES, CannotRun, Plan, Skip, Step

_log = logging.getLogger("hedypet")


@dataclass(eq=False)
class MapModel(Step):
    """The voxel maps of a kinetic model."""

    scan: Scan
    model: KineticModel
    blood: ExtractInputFunctions
    copy: FrameCopy = field(default_factory=FrameCopy)
    uses: ClassVar[str] = SERIES

    @property
    def name(self) -> str:
        """``maps <model>``."""
        return f"maps {self.model.name}"

    def plan(self) -> Plan | Skip:
        """Sum the frames with the weights of the model."""
        dynamic, settings = self.scan.dynamic, self.context.settings
        if not self.model.maps:
            return Skip()
        reason = why_no_kinetics(self.model, self.scan, self.blood, settings)
        if reason or dynamic is None:
            return Skip(reason)
        wanted = settings.kinetics.map_input_function
        if wanted not in self.blood.tables:
            return Skip(f"there is no input function {wanted}; there is {names.listed(self.blood.tables)}")
        return Plan(
            reads=[dynamic.path, self._blood_path],
            makes={
                ("map", self.model.name, parameter.name): self.context.store.path(
                    names.parametric_map(dynamic, self.model.name, parameter.name)
                )
                for parameter in self.model.maps
            },
            settings={
                **self.model.map_options(settings),
                "input_function": wanted,
                "fwhm_mm": settings.kinetics.map_fwhm_mm,
                **self.scan.metadata(dynamic).timing_and_scale,
            },
        )

    def run(self, plan: Plan, writer: Writer) -> None:
        """Sum the weighted frames of the window into a map a parameter."""
        dynamic, settings = self.scan.dynamic, self.context.settings
        assert dynamic is not None
        blood = read_blood(self._blood_path)
        if not blood.is_known:
            raise CannotRun(f"the input function {blood.name} has no values")
        try:
            by_name = self.model.map_weights(blood.mean, blood.frames, settings)
        except BadDataError as fault:
            raise BadDataError(f"{self._blood_path.name}: {fault}") from fault
        weights = np.array([by_name[parameter.name] for parameter in self.model.maps])
        reader = FrameReader(dynamic.path)
        maps = self._summed(reader, weights * self.scan.metadata(dynamic).scale)
        fwhm_mm = settings.kinetics.map_fwhm_mm
        for flat, parameter in zip(maps, self.model.maps, strict=True):
            values = flat.reshape(reader.grid.shape, order="F")
            if fwhm_mm:
                values = smooth_image(values, fwhm_mm=fwhm_mm, voxel_sizes_mm=reader.grid.voxel_sizes_mm)
            writer.image(
                names.parametric_map(dynamic, self.model.name, parameter.name),
                values,
                reader.grid,
                dtype=np.float32,
                threads=self.context.threads,
                sources=plan.reads,
                SkullStripped=False,
                Units=parameter.units,
                **self.model.map_sidecar(blood.frames, settings),
                SmoothingFwhmMm=fwhm_mm,
                InputFunction=settings.kinetics.map_input_function,
            )

    def _summed(self, reader: FrameReader, weights: FloatArray) -> Iterable[NDArray[np.float32]]:
        """The maps, flat: from the frames kept when the curves were measured, else from the series."""
        used, n_voxels = np.flatnonzero(weights.any(axis=0)), reader.grid.n_voxels
        if used.size and self.copy.has(used.tolist()):
            return weighted_sums_of_pieces(
                self.copy.piece, weights, n_voxels=n_voxels, threads=self.context.threads
            )
        if self.copy.why_none:
            who = f"sub-{self.scan.label} {self.name}"
            _log.info("%s: the series is decompressed again: %s", who, self.copy.why_none)
        chunks = reader.chunks(start=int(used[0]), stop=int(used[-1]) + 1)
        return weighted_sums(chunks, weights, n_voxels=n_voxels)

    @property
    def _blood_path(self) -> Path:
        return self.blood.tables[self.context.settings.kinetics.map_input_function]
