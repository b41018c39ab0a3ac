"""Patlak kinetics: Ki of every region for every input function and window, and voxel maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.store import Writer, read_sidecar
from hedypet_bids.io.tables import read_table
from hedypet_bids.kernels.kinetics.patlak import PatlakFit, Window, fit_patlak, map_weights
from hedypet_bids.kernels.kinetics.weighted_sums import smooth, weighted_sums
from hedypet_bids.kernels.region_statistics import RegionKey
from hedypet_bids.labels import VOI_TASKS, LabelTable, task
from hedypet_bids.model import InputFunction
from hedypet_bids.settings import PatlakSettings, Rule, plain
from hedypet_bids.steps.input_functions import InputFunctions, read_blood
from hedypet_bids.steps.step import CannotRun, Step, Subject, pet_facts
from hedypet_bids.steps.tacs import Curves, read_curves


@dataclass(frozen=True)
class FitPatlak(Step[dict[RegionKey, Path]]):
    """Regional Ki and V0 for every region x input function x window."""

    subject: Subject
    curves: Curves
    blood: InputFunctions

    @property
    def name(self) -> str:
        """``patlak``."""
        return "patlak"

    def skip_reason(self) -> str:
        """Why there are no kinetics."""
        return _why_not(self.subject, self.blood)

    def sources(self) -> Iterable[Path]:
        """Curve tables and blood tables."""
        return [*self._curves().values(), *self.blood.paths.values()]

    def settings(self) -> Mapping[str, Any]:
        """Rule and windows."""
        settings = self.subject.settings.kinetics.patlak
        return {"rule": settings.rule, "windows": [plain(window) for window in windows_of(settings)]}

    def results(self) -> dict[RegionKey, Path]:
        """Tables of kinetic parameters by task and erosion."""
        return {
            key: self.subject.store.path(names.kinetics(self.subject.dynamic, *key)) for key in self._curves()
        }

    def nothing(self) -> dict[RegionKey, Path]:
        """No kinetics."""
        return {}

    def outputs(self) -> Iterable[Path]:
        """The tables."""
        return self.results().values()

    def run(self, writer: Writer) -> None:
        """Fit every curve of every task in one call per task."""
        settings = self.subject.settings.kinetics.patlak
        windows = windows_of(settings)
        bloods = [read_blood(path) for path in self.blood.paths.values()]
        checksums = [
            str(read_sidecar(path).get("VolumeOfInterestChecksum")) for path in self.blood.paths.values()
        ]
        for key, path in self._curves().items():
            frames, curves = read_curves(read_table(path))
            fit = fit_patlak(
                curves, np.array([b.mean for b in bloods]), frames, windows=windows, rule=settings.rule
            )
            writer.table(
                names.kinetics(self.subject.dynamic, *key),
                kinetics_table(fit, task(key[0]).table, bloods, checksums, windows, settings.rule),
                sources=[path, *self.blood.paths.values()],
                Description="Patlak fits by ordinary least squares, a row per region, input function, window",
                IntegrationRule=settings.rule,
                ErosionIterations=key[1],
                **_KINETICS_COLUMNS,
            )

    def _curves(self) -> dict[RegionKey, Path]:
        """The curves to fit: those of regions, not those of the volumes of interest."""
        vois = {voi.name for voi in VOI_TASKS}
        return {key: path for key, path in self.curves.paths.items() if key[0] not in vois}


@dataclass(frozen=True)
class MapPatlak(Step[dict[str, Path]]):
    """Voxel maps of Ki and V0 as weighted sums over the last frames."""

    subject: Subject
    blood: InputFunctions

    @property
    def name(self) -> str:
        """``patlak maps``."""
        return "patlak maps"

    def skip_reason(self) -> str:
        """Why there are no maps."""
        why_not = _why_not(self.subject, self.blood)
        if why_not:
            return why_not
        wanted = self.subject.settings.kinetics.map_input_function
        known = names.listed(self.blood.paths)
        return "" if wanted in self.blood.paths else f"there is no input function {wanted}; there is {known}"

    def sources(self) -> Iterable[Path]:
        """The dynamic PET and the input function."""
        return [self.subject.dynamic.path, self._blood_path]

    def settings(self) -> Mapping[str, Any]:
        """Rule, window, input function, frame times and units."""
        settings = self.subject.settings.kinetics
        return {
            "rule": settings.patlak.rule,
            "last_frames": settings.patlak.map_last_frames,
            "input_function": settings.map_input_function,
            "fwhm_mm": settings.map_fwhm_mm,
            **pet_facts(self.subject.metadata(self.subject.dynamic)),
        }

    def results(self) -> dict[str, Path]:
        """Names of the maps by measure."""
        store = self.subject.store
        return {m: store.path(names.parametric_map(self.subject.dynamic, m)) for m in ("Ki", "V0")}

    def nothing(self) -> dict[str, Path]:
        """No maps."""
        return {}

    def outputs(self) -> Iterable[Path]:
        """The maps."""
        return self.results().values()

    def run(self, writer: Writer) -> None:
        """Sum the weighted frames of the window into two maps."""
        settings = self.subject.settings.kinetics
        blood = read_blood(self._blood_path)
        if not blood.n_voxels:
            raise CannotRun(f"the input function {blood.name} has no voxel in the field of view")
        window = Window(last_frames=settings.patlak.map_last_frames)
        weights = np.array(map_weights(blood.mean, blood.frames, window=window, rule=settings.patlak.rule))
        if not np.isfinite(weights).all():
            raise BadDataError(
                f"{self._blood_path.name}: the last {settings.patlak.map_last_frames} frames do not allow "
                "a Patlak fit (fewer than two frames with positive blood activity); no map can be made. "
                "Choose another [kinetics] map_input_function or [kinetics.patlak] map_last_frames in the "
                "settings."
            )
        scale = self.subject.metadata(self.subject.dynamic).scale
        used = np.flatnonzero(weights.any(axis=0))
        reader = FrameReader(self.subject.dynamic.path)
        chunks = reader.chunks(start=int(used[0]), stop=int(used[-1]) + 1)
        maps = weighted_sums(chunks, weights * scale, n_voxels=reader.grid.n_voxels)
        for flat, (measure, units) in zip(maps, (("Ki", "mL/min/mL"), ("V0", "mL/mL")), strict=True):
            values = flat.reshape(reader.grid.shape, order="F")
            if settings.map_fwhm_mm:
                values = smooth(
                    values, fwhm_mm=settings.map_fwhm_mm, voxel_sizes_mm=reader.grid.voxel_sizes_mm
                )
            writer.image(
                names.parametric_map(self.subject.dynamic, measure),  # type: ignore[arg-type]
                values,
                reader.grid,
                dtype=np.float32,
                sources=[self.subject.dynamic.path, self._blood_path],
                SkullStripped=False,
                Units=units,
                IntegrationRule=settings.patlak.rule,
                LastFrames=settings.patlak.map_last_frames,
                SmoothingFwhmMm=settings.map_fwhm_mm,
                InputFunction=settings.map_input_function,
            )

    @property
    def _blood_path(self) -> Path:
        return self.blood.paths[self.subject.settings.kinetics.map_input_function]


def _why_not(subject: Subject, blood: InputFunctions) -> str:
    """Why Patlak's model does not apply to a scan; empty when it does."""
    if subject.inputs.dynamic is None:
        return "no dynamic PET was found"
    metadata, settings = subject.metadata(subject.dynamic), subject.settings.kinetics
    if "Patlak" not in settings.models:
        return "the settings do not ask for Patlak's model"
    tracer = metadata.tracer or subject.dynamic.entities.get("tracer", "")
    if tracer and not any(known.lower() in tracer.lower() for known in settings.tracers):
        return (
            f"Patlak's model needs a tracer that is trapped, and {tracer} is none of "
            f"{names.listed(settings.tracers)}; name it in kinetics.tracers of --settings if it is"
        )
    start_s = float(metadata.frames.start_s[0])
    if start_s > settings.latest_start_s:
        return (
            f"the dynamic PET starts {start_s / 60:.1f} min after injection, so the integral of the input "
            "function is unknown"
        )
    return "" if blood.paths else "there is no input function"


_KINETICS_COLUMNS: Mapping[str, Any] = {
    "input_function": {"Description": "Recording label of the input function"},
    "last_frames": {"Description": "Window: number of last frames; n/a where the window starts at a time"},
    "start_min": {"Description": "Window: start after injection", "Units": "min"},
    "Ki": {"Description": "Net influx constant, slope of the fit", "Units": "mL/min/mL"},
    "Ki_se": {"Description": "Standard error of Ki", "Units": "mL/min/mL"},
    "V0": {"Description": "Intercept of the fit", "Units": "mL/mL"},
    "V0_se": {"Description": "Standard error of V0", "Units": "mL/mL"},
    "r2": {"Description": "Coefficient of determination"},
    "n_used": {"Description": "Frames in the fit"},
    "n_excluded": {"Description": "Frames of the window left out for lack of blood activity"},
    "t_start": {"Description": "Start of the first frame in the fit", "Units": "s"},
    "t_end": {"Description": "End of the last frame in the fit", "Units": "s"},
    "rule": {"Description": "Integration rule of the input function"},
    "voi_checksum": {"Description": "Checksum of the voxels that the input function comes from"},
}


def windows_of(settings: PatlakSettings) -> tuple[Window, ...]:
    """The windows asked for: last frames first, then start times."""
    by_frames = tuple(Window(last_frames=n) for n in settings.last_frames)
    return by_frames + tuple(Window(start_min=t) for t in settings.start_min)


def kinetics_table(
    fit: PatlakFit,
    regions: LabelTable,
    bloods: Sequence[InputFunction],
    checksums: Sequence[str],
    windows: Sequence[Window],
    rule: Rule,
) -> pd.DataFrame:
    """Fits of shape (n_regions, n_inputs, n_windows) as one row each, in that order."""
    shape = fit.ki.shape

    def spread(values: Iterable[Any], axis: int) -> Any:
        along = np.array(list(values))
        return np.broadcast_to(along.reshape([-1 if a == axis else 1 for a in range(3)]), shape).ravel()

    def each(values: Any) -> Any:
        return np.broadcast_to(values, shape).ravel()

    return pd.DataFrame(
        {
            "index": spread(regions.indices, 0),
            "name": spread(regions.names, 0),
            "input_function": spread((b.name for b in bloods), 1),
            "last_frames": pd.array(spread(_values(windows, "last_frames"), 2), dtype="Float64").astype(
                "Int64"
            ),
            "start_min": spread(_values(windows, "start_min"), 2),
            "Ki": each(fit.ki),
            "Ki_se": each(fit.ki_se),
            "V0": each(fit.v0),
            "V0_se": each(fit.v0_se),
            "r2": each(fit.r2),
            "n_used": each(fit.n_used),
            "n_excluded": each(fit.n_excluded),
            "t_start": each(fit.t_start_s),
            "t_end": each(fit.t_end_s),
            "rule": rule,
            "voi_checksum": spread(checksums, 1),
        }
    )


def _values(windows: Sequence[Window], attribute: str) -> Iterator[float]:
    for window in windows:
        value = getattr(window, attribute)
        yield float("nan") if value is None else float(value)
