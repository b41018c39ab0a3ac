"""Kinetic parameters of every region, for every input function and window, by every model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.errors import did_you_mean
from hedypet_bids.inputs.population import of_scan
from hedypet_bids.io.manifest import Kind
from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.io.store import Writer
from hedypet_bids.io.tables import read_blood, read_curves
from hedypet_bids.kernels.kinetics import Fits, KineticModel, fits_with, why_not
from hedypet_bids.kernels.region_statistics import RegionKey
from hedypet_bids.labels import INPUT_TASKS, LabelTable
from hedypet_bids.model import FrameTimes, Scan
from hedypet_bids.report.organs import reference_curve
from hedypet_bids.settings import Settings
from hedypet_bids.steps.input_functions import ExtractInputFunctions
from hedypet_bids.steps.step import CannotRun, Plan, Skip, Step
from hedypet_bids.steps.tacs import MeasureCurves

_NO_REFERENCE = "there is no reference region; name one with --reference-region"
# Regions that are named where the wanted one is not there.
_MOST_ALIKE = 8


@dataclass(eq=False)
class FitModel(Step):
    """A kinetic model fitted to every region curve with every input function."""

    scan: Scan
    model: KineticModel
    curves: MeasureCurves
    blood: ExtractInputFunctions

    @property
    def name(self) -> str:
        """``kinetics <model>``."""
        return f"kinetics {self.model.name}"

    def plan(self) -> Plan | Skip:
        """Fit the curves of regions, not those of the volumes of interest."""
        dynamic, settings = self.scan.dynamic, self.context.settings
        reason = why_no_kinetics(self.model, self.scan, self.blood, settings)
        if not reason and self.model.reference:
            reason = self._why_no_reference()
        if not reason and not self._fitted():
            reason = f"no segmentation of this scan has the region {names.listed(self.model.regions)}"
        if reason or dynamic is None:
            return Skip(reason)
        makes: dict[Kind, Path] = {
            ("kinetics", self.model.name, *key): self.context.store.path(
                names.kinetics(dynamic, *key, self.model.name)
            )
            for key in self._fitted()
        }
        options = model_of(self.model, self.scan, settings).options(settings)
        return Plan([*self._curves().values(), *self._inputs()], makes, options)

    def run(self, _plan: Plan, writer: Writer) -> None:
        """Fit all curves in one call; of a model with a reference region, those of each table."""
        dynamic, settings = self.scan.dynamic, self.context.settings
        assert dynamic is not None
        model = model_of(self.model, self.scan, settings)
        # Regions of several tables share what a model makes of an input function.
        fitted = self._fitted()
        for keys in [[key] for key in fitted] if model.reference else [list(fitted)]:
            tables = [self._read(key, fitted[key]) for key in keys]
            frames = tables[0][0]
            curves = np.concatenate([curves for _, curves in tables])
            parts = list(
                self._with_reference(model, curves, frames, keys[0][1])
                if model.reference
                else self._with_blood(model, curves, frames)
            )
            last = 0
            for key, (_, of_table) in zip(keys, tables, strict=True):
                first, last = last, last + len(of_table)
                of_regions = [
                    (checksums, fits.of_regions(slice(first, last), len(curves))) for checksums, fits in parts
                ]
                table = in_order_of_regions(
                    [kinetics_table(model, fits, fitted[key], checksums) for checksums, fits in of_regions]
                )
                writer.table(
                    names.kinetics(dynamic, *key, model.name),
                    table,
                    sources=[self._curves()[key], *self._inputs()],
                    Description=f"{model.title}: fits, a row per region, input function and window",
                    ErosionIterations=key[1],
                    **model.sidecar(frames, settings),
                    **{name: column for name, column in columns_of(model).items() if name in table},
                )

    def _fitted(self) -> dict[RegionKey, LabelTable]:
        """The regions that the model is fitted to, by table of curves; tables without any are left out."""
        regions = {key: self.scan.task(key[0]).table for key in self._curves()}
        if self.model.regions:
            regions = {key: table.only(self.model.regions) for key, table in regions.items()}
        return {key: table for key, table in regions.items() if table.names}

    def _read(self, key: RegionKey, regions: LabelTable) -> tuple[FrameTimes, NDArray[np.float64]]:
        """Frames, and the curves of some regions of a table."""
        frames, curves = read_curves(self._curves()[key])
        every = self.scan.task(key[0]).table.indices
        return frames, curves[[every.index(index) for index in regions.indices]]

    def _inputs(self) -> list[Path]:
        """The files that the input functions, or the reference curve, come from."""
        if not self.model.reference:
            return list(self.blood.tables_of(self.model.blood).values())
        outputs = self.curves.outputs
        return [path for part in ("mean", "volumes") for path in outputs.of(part).values()]

    def _with_blood(
        self, model: KineticModel, curves: NDArray[np.float64], frames: FrameTimes
    ) -> Iterator[tuple[dict[str, str | None], Fits]]:
        """Fits with the input functions, and the checksum of its voxels by the name of each."""
        read = {path: read_blood(path) for path in self._inputs()}
        checksums = {
            blood.name: read_sidecar(path).get("VolumeOfInterestChecksum") for path, blood in read.items()
        }
        for bloods, fits in fits_with(model, curves, [*read.values()], frames, self.context.settings):
            yield {blood.name: checksums[blood.name] for blood in bloods}, fits

    def _with_reference(
        self, model: KineticModel, curves: NDArray[np.float64], frames: FrameTimes, erosion: int
    ) -> Iterator[tuple[dict[str, str | None], Fits]]:
        """Fits with the curve of the reference region, and its name."""
        regions = self.context.settings.kinetics.reference_region
        volumes = self.curves.outputs.of("volumes")
        found = reference_curve(regions, self._curves(), volumes, erosion)
        if found is None:
            raise CannotRun(f"the reference region {names.listed(regions)} has no voxel in the field of view")
        yield {" + ".join(regions): None}, model.fit(curves, found[1][None], frames, self.context.settings)

    def _why_no_reference(self) -> str:
        """Why there is no curve of the reference region; empty where there is one."""
        wanted = self.context.settings.kinetics.reference_region
        tasks = {key[0]: self.scan.task(key[0]).table.names for key in self._curves()}
        if any(set(wanted) <= set(regions) for regions in tasks.values()):
            return ""
        known = dict.fromkeys(name for regions in tasks.values() for name in regions)
        lacking = [name for name in wanted if name not in known]
        if not lacking:
            return (
                f"the reference regions {names.listed(wanted)} are of different segmentations; expected one"
            )
        name = lacking[0]
        alike = [region for region in known if name.lower() in region.lower()][:_MOST_ALIKE]
        hint = f"; there is {names.listed(alike)}" if alike else did_you_mean(name, known)
        return f"no segmentation of this scan has the reference region {name!r}{hint}"

    def _curves(self) -> dict[RegionKey, Path]:
        vois = {voi.name for voi in INPUT_TASKS}
        return {key: path for key, path in self.curves.outputs.of("mean").items() if key[0] not in vois}


def model_of(model: KineticModel, scan: Scan, settings: Settings) -> KineticModel:
    """The model with what it needs to know of a scan, and of other people."""
    metadata = None if scan.dynamic is None else scan.metadata(scan.dynamic)
    return of_scan(model, scan.person, metadata, settings)


def why_no_kinetics(model: KineticModel, scan: Scan, blood: ExtractInputFunctions, settings: Settings) -> str:
    """Why a model is not fitted to a scan; empty when it is."""
    if scan.dynamic is None:
        return "no dynamic PET was found"
    metadata = scan.metadata(scan.dynamic)
    tracer = metadata.tracer or scan.name.tracer
    reason = why_not(model_of(model, scan, settings), tracer, metadata.frames, settings)
    if model.reference:
        lacks = "" if settings.kinetics.reference_region else _NO_REFERENCE
    else:
        lacks = blood.why_none_of(model.blood)
    return reason or lacks


def columns_of(model: KineticModel) -> dict[str, Any]:
    """What the columns of a model's tables mean, for their sidecars."""
    parameters: dict[str, Any] = {}
    for parameter in model.parameters:
        units = {"Units": parameter.units} if parameter.units else {}
        parameters[parameter.name] = {"Description": parameter.description, **units}
        parameters[f"{parameter.name}_se"] = {"Description": f"Standard error of {parameter.name}", **units}
    source = "Reference region" if model.reference else "Recording label of the input function"
    return {
        "input_function": {"Description": source},
        **parameters,
        **model.columns,
        "reason": {"Description": "Why values are n/a, or what is doubtful about them"},
        "voi_checksum": {"Description": "Checksum of the voxels that the input function comes from"},
    }


def in_order_of_regions(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of the same regions as one, in which the rows of a region stand together."""
    if len(tables) == 1:
        return tables[0]
    both = pd.concat(tables, ignore_index=True)
    order = {index: at for at, index in enumerate(dict.fromkeys(tables[0]["index"]))}
    return both.iloc[np.argsort(both["index"].map(order), kind="stable")].reset_index(drop=True)


def kinetics_table(
    model: KineticModel, fits: Fits, regions: LabelTable, inputs: Mapping[str, str | None]
) -> pd.DataFrame:
    """Fits of shape (n_regions, n_inputs, n_windows) as one row each, in that order.

    Parameters
    ----------
    inputs
        Checksum of its volume of interest by the name of each input function; None for a reference region.
    """
    table = model.table(fits, regions.names, list(inputs))
    table.insert(0, "index", np.repeat(regions.indices, len(table) // len(regions.indices)))
    if any(inputs.values()):
        table["voi_checksum"] = table["input_function"].map(inputs)
    return table
