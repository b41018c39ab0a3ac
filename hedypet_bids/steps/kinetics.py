"""Kinetic parameters of every region, for every input function and window, by every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedypet_bids import names
from hedypet_bids.io.manifest import Kind
from hedypet_bids.io.store import Writer, read_sidecar
from hedypet_bids.io.tables import read_blood, read_table
from hedypet_bids.kernels.kinetics import Fits, KineticModel, why_not
from hedypet_bids.kernels.region_statistics import RegionKey
from hedypet_bids.labels import VOI_TASKS, LabelTable
from hedypet_bids.model import Scan
from hedypet_bids.settings import Settings
from hedypet_bids.steps.input_functions import ExtractInputFunctions
from hedypet_bids.steps.step import Plan, Skip, Step
from hedypet_bids.steps.tacs import MeasureCurves, read_curves


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
        dynamic, bloods = self.scan.dynamic, self.blood.tables
        reason = why_no_kinetics(self.model, self.scan, self.blood, self.context.settings)
        if reason or dynamic is None:
            return Skip(reason)
        makes: dict[Kind, Path] = {
            ("kinetics", self.model.name, *key): self.context.store.path(
                names.kinetics(dynamic, *key, self.model.name)
            )
            for key in self._curves()
        }
        options = self.model.options(self.context.settings)
        return Plan([*self._curves().values(), *bloods.values()], makes, options)

    def run(self, _plan: Plan, writer: Writer) -> None:
        """Fit every curve of every task in one call per task."""
        dynamic, settings = self.scan.dynamic, self.context.settings
        assert dynamic is not None
        paths = self.blood.tables.values()
        bloods = [read_blood(path) for path in paths]
        inputs = {
            blood.name: str(read_sidecar(path).get("VolumeOfInterestChecksum"))
            for blood, path in zip(bloods, paths, strict=True)
        }
        for key, path in self._curves().items():
            frames, curves = read_curves(read_table(path))
            fits = self.model.fit(curves, np.array([b.mean for b in bloods]), frames, settings)
            table = kinetics_table(self.model, fits, self.scan.task(key[0]).table, inputs)
            writer.table(
                names.kinetics(dynamic, *key, self.model.name),
                table,
                sources=[path, *paths],
                Description=f"{self.model.title}: fits, a row per region, input function and window",
                ErosionIterations=key[1],
                **self.model.sidecar(frames, settings),
                **{name: column for name, column in columns_of(self.model).items() if name in table},
            )

    def _curves(self) -> dict[RegionKey, Path]:
        vois = {voi.name for voi in VOI_TASKS}
        return {key: path for key, path in self.curves.outputs.of("mean").items() if key[0] not in vois}


def why_no_kinetics(model: KineticModel, scan: Scan, blood: ExtractInputFunctions, settings: Settings) -> str:
    """Why a model is not fitted to a scan; empty when it is."""
    if scan.dynamic is None:
        return "no dynamic PET was found"
    metadata = scan.metadata(scan.dynamic)
    tracer = metadata.tracer or scan.name.tracer
    reason = why_not(model, tracer, metadata.frames, settings)
    return reason or ("" if blood.tables else "there is no input function")


def columns_of(model: KineticModel) -> dict[str, Any]:
    """What the columns of a model's tables mean, for their sidecars."""
    parameters: dict[str, Any] = {}
    for parameter in model.parameters:
        units = {"Units": parameter.units} if parameter.units else {}
        parameters[parameter.name] = {"Description": parameter.description, **units}
        parameters[f"{parameter.name}_se"] = {"Description": f"Standard error of {parameter.name}", **units}
    return {
        "input_function": {"Description": "Recording label of the input function"},
        **parameters,
        **model.columns,
        "reason": {"Description": "Why values are n/a, or what is doubtful about them"},
        "voi_checksum": {"Description": "Checksum of the voxels that the input function comes from"},
    }


def kinetics_table(
    model: KineticModel, fits: Fits, regions: LabelTable, inputs: Mapping[str, str]
) -> pd.DataFrame:
    """Fits of shape (n_regions, n_inputs, n_windows) as one row each, in that order.

    Where the model means nothing in a region, its parameters are missing and ``reason`` says why.

    Parameters
    ----------
    inputs
        Checksum of its volume of interest by the name of each input function.
    """
    table = fits.table(regions.names, list(inputs))
    table.insert(0, "index", np.repeat(regions.indices, len(table) // len(regions.indices)))
    reasons = {region: why_not for region in regions.names if (why_not := model.why_not_in(region))}
    if reasons:
        blank = table["name"].isin(reasons)
        names_of = [name for p in model.parameters for name in (p.name, f"{p.name}_se") if name in table]
        table[names_of] = table[names_of].mask(blank)
        table["reason"] = table["name"].map(reasons).where(blank, table.get("reason"))
    if "reason" in table:
        table["reason"] = table["reason"].replace("", None)
    return table.assign(voi_checksum=table["input_function"].map(inputs))
