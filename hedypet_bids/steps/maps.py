"""Voxel maps of kinetic parameters: weighted sums over the frames of the dynamic PET, or fits of the body."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io import stop
from hedypet_bids.io.frame_copy import FramesAgain
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.store import Writer
from hedypet_bids.io.tables import read_blood
from hedypet_bids.kernels.kinetics import KineticModel
from hedypet_bids.kernels.kinetics.body_voxels import BodyVoxels, Frames
from hedypet_bids.kernels.kinetics.weighted_sums import smooth_image, weighted_sums, weighted_sums_of_pieces
from hedypet_bids.model import FloatArray, InputFunction, Scan
from hedypet_bids.steps.input_functions import ExtractInputFunctions
from hedypet_bids.steps.kinetics import model_of, why_no_kinetics
from hedypet_bids.steps.step import SERIES, CannotRun, Plan, Skip, Step
from hedypet_bids.steps.tacs import MeasureCurves

_Image = NDArray[np.float32] | Iterator[NDArray[np.float32]]
"""Whole, or some planes at a time."""
_log = logging.getLogger("hedypet")


@dataclass(eq=False)
class MapModel(Step):
    """The voxel maps of a kinetic model."""

    scan: Scan
    model: KineticModel
    blood: ExtractInputFunctions
    curves: MeasureCurves
    uses: ClassVar[str] = SERIES

    @property
    def name(self) -> str:
        """``maps <model>``."""
        return f"maps {self.model.name}"

    def plan(self) -> Plan | Skip:
        """Sum the frames with the weights of the model, or fit the voxels of the body."""
        dynamic, settings = self.scan.dynamic, self.context.settings
        if not self.model.maps:
            return Skip()
        reason = why_no_kinetics(self.model, self.scan, self.blood, settings)
        if reason or dynamic is None:
            return Skip(reason)
        wanted = settings.kinetics.map_input_function
        if wanted not in self.blood.tables:
            return Skip(f"there is no input function {wanted}; there is {names.listed(self.blood.tables)}")
        if why_not := self.model.why_no_maps(self.scan.metadata(dynamic).frames, settings):
            return Skip(why_not)
        if self.model.of_body and not self.curves.bodydyn.labels:
            return Skip("no segmentation says where the body is")
        return Plan(
            reads=[dynamic.path, self._blood_path, *self._body_labels()],
            makes={
                ("map", self.model.name, parameter.name): self.context.store.path(
                    names.parametric_map(dynamic, self.model.name, parameter.name)
                )
                for parameter in self.model.maps
            },
            settings={
                **model_of(self.model, self.scan, settings).map_options(settings),
                "input_function": wanted,
                "fwhm_mm": self.model.map_fwhm_mm(settings),
                **self.scan.metadata(dynamic).timing_and_scale,
            },
        )

    def run(self, plan: Plan, writer: Writer) -> None:
        """Write a map a parameter."""
        dynamic, settings = self.scan.dynamic, self.context.settings
        assert dynamic is not None
        blood, reader = read_blood(self._blood_path), FrameReader(dynamic.path)
        if not blood.is_known:
            raise CannotRun(f"the input function {blood.name} has no values")
        if self.model.of_body and blood.whole_blood is not None:
            # Their voxels are fitted with one curve, which for samples would put plasma into the vessels.
            raise CannotRun(
                f"these maps need the blood of the image; {blood.name} comes from samples. Choose an input "
                "function of the aorta in [kinetics] map_input_function"
            )
        made = self._of_body if self.model.of_body else self._of_frames
        for values, parameter in zip(made(reader, blood), self.model.maps, strict=True):
            writer.image(
                names.parametric_map(dynamic, self.model.name, parameter.name),
                values,
                reader.grid,
                dtype=np.float32,
                threads=self.context.threads,
                sources=plan.reads,
                SkullStripped=False,
                Units=parameter.units,
                **model_of(self.model, self.scan, settings).map_sidecar(blood.frames, settings),
                **self._mask(),
                SmoothingFwhmMm=self.model.map_fwhm_mm(settings),
                InputFunction=settings.kinetics.map_input_function,
            )

    def _of_frames(self, reader: FrameReader, blood: InputFunction) -> Iterator[_Image]:
        """Weighted sums of whole frames."""
        assert self.scan.dynamic is not None
        settings = self.context.settings
        try:
            by_name = self.model.map_weights(blood.mean, blood.frames, settings)
        except BadDataError as fault:
            raise BadDataError(f"{self._blood_path.name}: {fault}") from fault
        weights = np.array([by_name[parameter.name] for parameter in self.model.maps])
        fwhm_mm, grid = self.model.map_fwhm_mm(settings), reader.grid

        def smoothed(flat: NDArray[np.float32]) -> NDArray[np.float32]:
            values = flat.reshape(grid.shape, order="F")
            if not fwhm_mm:
                return values
            return smooth_image(values, fwhm_mm=fwhm_mm, voxel_sizes_mm=grid.voxel_sizes_mm)

        return map(smoothed, self._summed(reader, weights * self.scan.metadata(self.scan.dynamic).scale))

    def _summed(self, reader: FrameReader, weights: FloatArray) -> Iterable[NDArray[np.float32]]:
        """The maps, flat: from the frames kept when the curves were measured, else from the series."""
        used, n_voxels, copy = np.flatnonzero(weights.any(axis=0)), reader.grid.n_voxels, self.curves.copy
        if used.size and copy.has(used.tolist()):
            return weighted_sums_of_pieces(
                copy.piece, weights, n_voxels=n_voxels, threads=self.context.threads
            )
        if copy.why_none:
            self._say_again(copy.why_none)
        chunks = reader.chunks(start=int(used[0]), stop=int(used[-1]) + 1)
        return weighted_sums(chunks, weights, n_voxels=n_voxels)

    def _of_body(self, reader: FrameReader, blood: InputFunction) -> Iterator[_Image]:
        """Fits of the voxels of the body, a plane of an image at a time."""
        dynamic, threads = self.scan.dynamic, self.context.threads
        assert dynamic is not None
        voxels = self.curves.body_voxels()
        body = BodyVoxels(
            reader.grid.shape,
            reader.grid.voxel_sizes_mm,
            voxels,
            np.broadcast_to(self.scan.metadata(dynamic).scale, reader.n_frames),
            self._frames_of_body(reader, voxels),
        )
        model = model_of(self.model, self.scan, self.context.settings)
        by_name = model.body_maps(blood.mean, blood.frames, self.context.settings, body, threads)
        return (_planes(by_name[parameter.name], body) for parameter in self.model.maps)

    def _frames_of_body(self, reader: FrameReader, voxels: NDArray[np.intp]) -> Callable[[int, int], Frames]:
        """Reads the body from its copy, which is made now if it was not; else from the series again."""
        copy, frames = self.curves.body, range(reader.n_frames)
        if not copy.has(frames) and not copy.why_none:
            for _ in copy.passing(reader.frames(), frames, self.context.tools.work_dir, voxels=voxels):
                pass
        if not copy.has(frames):
            self._say_again(copy.why_none)
            return FramesAgain(reader, voxels).of

        def from_copy(_first: int, _last: int) -> Frames:
            stop.raise_if_asked()
            return copy.piece

        return from_copy

    def _say_again(self, why: str) -> None:
        _log.info("sub-%s %s: the series is decompressed again: %s", self.scan.label, self.name, why)

    def _mask(self) -> Mapping[str, Any]:
        """What a sidecar says of the voxels that were fitted."""
        if not self.model.of_body:
            return {}
        labelled = names.listed(self.curves.bodydyn.labels)
        return {"Mask": f"Voxels with a label of {labelled}, without lungs; n/a (NaN) elsewhere"}

    def _body_labels(self) -> list[Path]:
        return list(self.curves.bodydyn.labels.values()) if self.model.of_body else []

    @property
    def _blood_path(self) -> Path:
        return self.blood.tables[self.context.settings.kinetics.map_input_function]


def _planes(values: NDArray[np.float32], body: BodyVoxels) -> Iterator[NDArray[np.float32]]:
    """The planes of an image of the body in turn, NaN outside."""
    shape = (*body.shape[:2], 1)
    for k in range(body.shape[2]):
        plane = np.full(shape[0] * shape[1], np.nan, dtype=np.float32)
        first, last = body.places(k, k + 1)
        plane[body.positions[first:last] - k * plane.size] = values[first:last]
        yield plane.reshape(shape, order="F")
