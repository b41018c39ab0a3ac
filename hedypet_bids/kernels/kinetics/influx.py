"""Uptake of trapped tracers beside Patlak's Ki: FUR, the relative Patlak plot, the metabolism of glucose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedypet_bids.kernels.kinetics.model import Fits, KineticModel, Parameter
from hedypet_bids.kernels.kinetics.patlak import Patlak, Window, integrate
from hedypet_bids.kernels.kinetics.reference_region import in_window
from hedypet_bids.kernels.kinetics.regression import (
    FIT_COLUMNS,
    fit_linear,
    fits_of_one_window,
    mean_ratio,
    reasons,
)
from hedypet_bids.kernels.reference import Reference
from hedypet_bids.model import FrameTimes, Person
from hedypet_bids.settings import Settings

_NO_GLUCOSE = (
    "the blood glucose is not known; give a column blood_glucose in sessions.tsv or participants.tsv, with "
    "Units "
    "mmol/L or mg/dL in its JSON file"
)


class FUR(KineticModel):
    """Fractional uptake rate: late activity over the integral of the input function up to it.

    Examples
    --------
    >>> frames = FrameTimes([0.0, 3000.0], [3000.0, 600.0])
    >>> fits = FUR().fit(np.array([[0.0, 11.0]]), np.array([[10.0, 10.0]]), frames, Settings())
    >>> fits.values["FUR"].item()
    0.02
    """

    name = "FUR"
    title = "Fractional uptake rate"
    parameters = (
        Parameter(
            "FUR", "mL/min/mL", "Late activity over the integral of the input function; larger than Ki"
        ),
    )
    columns: ClassVar[Mapping[str, Any]] = {
        name: meaning for name, meaning in FIT_COLUMNS.items() if name != "r2"
    }
    references = Patlak.references

    def options(self, settings: Settings) -> Mapping[str, Any]:
        """The window."""
        return {"late_window_min": settings.kinetics.late_window_min}

    def fit(
        self,
        curves: NDArray[np.float64],
        inputs: NDArray[np.float64],
        frames: FrameTimes,
        settings: Settings,
    ) -> Fits:
        """Mean activity over mean integral of the frames of the window."""
        index = in_window(frames, settings)
        low, high = settings.kinetics.late_window_min
        area = integrate(inputs, frames, rule="frames")[None, :, index]
        fur, se = mean_ratio(curves[:, None, index], area, frames.duration_s[index])
        why = reasons(
            (not len(index), f"no frame has its middle between {low:g} and {high:g} min"),
            (~(area > 0).all(axis=-1), "the input function has no activity"),
            (~np.isfinite(curves[:, index]).all(axis=1, keepdims=True), "the region has no voxel"),
            (~np.isfinite(fur), "the curves have no finite ratio"),
        )
        return Fits({}, fits_of_one_window({"FUR": fur, "FUR_se": se}, why, frames, index))

    def methods(self, settings: Settings) -> str:
        """Window and integral."""
        low, high = settings.kinetics.late_window_min
        return (
            "The fractional uptake rate FUR (Thie, J Nucl Med 1995;36:711) is ordinate over abscissa of "
            f"Patlak's plot [@patlak]: the mean activity from {low:g} to {high:g} min over the mean integral "
            "of the input function from the injection to the middle of each of these frames. It also holds "
            "tracer that is not trapped, so it is larger than Ki and falls with time."
        )


class RelativePatlak(KineticModel):
    """Patlak's plot with the integral from the first late frame on: contrast within a scan, not Ki.

    Examples
    --------
    >>> RelativePatlak().parameters[0].name
    'slope'
    """

    name = "RelativePatlak"
    title = "Relative Patlak plot"
    from_injection = False
    parameters = (
        Parameter("slope", "mL/min/mL", "Slope of the relative plot: Ki but for a factor of the scan"),
        Parameter("intercept", "mL/mL", "Intercept of the relative plot"),
    )
    columns: ClassVar[Mapping[str, Any]] = FIT_COLUMNS
    references: ClassVar[Mapping[str, Reference]] = {
        "zuo": Reference(
            "Zuo, Yang and Qi, Jinyi and Wang, Guobao",
            "Relative Patlak plot for dynamic PET parametric imaging without the need for early-time input "
            "function",
            2018,
            "Physics in Medicine and Biology",
            "63",
            "165004",
            "10.1088/1361-6560/aad444",
        )
    }

    def options(self, settings: Settings) -> Mapping[str, Any]:
        """t*."""
        return {"t_star_min": settings.kinetics.t_star_min}

    def fit(
        self,
        curves: NDArray[np.float64],
        inputs: NDArray[np.float64],
        frames: FrameTimes,
        settings: Settings,
    ) -> Fits:
        """Ordinary least squares from t* on; frames before it are not looked at."""
        t_star = settings.kinetics.t_star_min
        index = Window(start_min=t_star).indices(frames)
        blood, minutes = inputs[:, index], frames.duration_s[index] / 60.0
        pauses = frames.gap_s[index[:-1]] / 60.0 * (blood[:, :-1] + blood[:, 1:]) / 2
        finished = np.cumsum(blood[:, :-1] * minutes[:-1] + pauses, axis=1)
        area = np.concatenate([np.zeros((len(blood), min(len(index), 1))), finished], axis=1)
        area = area + blood * minutes / 2
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            x, y = area / blood, curves[:, None, index] / blood
        found = fit_linear(y, [x, np.ones_like(x)], np.ones(len(index)))
        one, zero = np.ones_like(found.r2), np.zeros_like(found.r2)
        values = {
            "slope": found.beta[..., 0],
            "slope_se": found.se_of(one, zero),
            "intercept": found.beta[..., 1],
            "intercept_se": found.se_of(zero, one),
            "r2": found.r2,
        }
        few = f"there are {len(index)} frames from t* = {t_star:g} min on; expected 3 or more"
        why = reasons(
            (len(index) < 3, few),
            (
                ~(blood > 0).all(axis=1, keepdims=True).T,
                "the input function has a frame without activity from t* on",
            ),
            (~np.isfinite(curves[:, index]).all(axis=1, keepdims=True), "the region has no voxel"),
            (
                ~np.isfinite(found.r2 + found.beta.sum(axis=-1)) & (len(index) > 2),
                "the frames do not allow a fit",
            ),
        )
        return Fits({}, fits_of_one_window(values, why, frames, index))

    def methods(self, settings: Settings) -> str:
        """Window, and what the slope is not."""
        return (
            f"The relative Patlak plot [@zuo] integrates the input function from the first frame after "
            f"{settings.kinetics.t_star_min:g} min on; its slope is Ki times a factor that differs between "
            "scans, "
            "so it compares regions of one scan only."
        )


class CMRglc(KineticModel):
    """Metabolic rate of glucose from Patlak's Ki: 100 Ki glucose / (lumped constant x density).

    Parameters
    ----------
    person
        Who was scanned; the model is not fitted without blood glucose.

    Examples
    --------
    >>> CMRglc(Person("001", glucose_mmol_l=5.0)).parameters[0].units
    'umol/100 g/min'
    """

    name = "CMRglc"
    title = "Metabolic rate of glucose"
    parameters = (Parameter("CMRglc", "umol/100 g/min", "Metabolic rate of glucose"),)
    columns: ClassVar[Mapping[str, Any]] = {**Patlak.columns, "reason": FIT_COLUMNS["reason"]}
    references: ClassVar[Mapping[str, Reference]] = {
        **Patlak.references,
        "phelps": Reference(
            "Phelps, Michael E and Huang, Sung-Cheng and Hoffman, Edward J and others",
            "Tomographic measurement of local cerebral glucose metabolic rate in humans with "
            "(F-18)2-fluoro-2-deoxy-D-glucose: validation of method",
            1979,
            "Annals of Neurology",
            "6",
            "371-388",
            "10.1002/ana.410060502",
        ),
    }

    def __init__(self, person: Person | None = None) -> None:
        self._patlak, self._person = Patlak(), person

    def of(self, person: Person) -> KineticModel:
        """The model with the participant's glucose."""
        return CMRglc(person)

    def why_not_with(self, frames: FrameTimes, settings: Settings) -> str:
        """Without glucose or lumped constant, or where Patlak's model cannot be fitted."""
        if not settings.kinetics.lumped_constant:
            return "there is no [kinetics] lumped_constant in --settings"
        if self._person is None or self._person.glucose_mmol_l is None:
            notes = self._person.notes if self._person else ()
            return next((note for note in notes if note.startswith("blood glucose")), _NO_GLUCOSE)
        return self._patlak.why_not_with(frames, settings)

    def options(self, settings: Settings) -> Mapping[str, Any]:
        """Those of Patlak's model, and all factors."""
        return {**self._patlak.options(settings), **self._factors(settings)}

    def sidecar(self, frames: FrameTimes, settings: Settings) -> Mapping[str, Any]:
        """Those of Patlak's model, and all factors."""
        return {**self._patlak.sidecar(frames, settings), **self._factors(settings)}

    def _factors(self, settings: Settings) -> Mapping[str, Any]:
        kinetics = settings.kinetics
        return {
            "PlasmaGlucose": self._person.glucose_mmol_l if self._person else None,
            "PlasmaGlucoseUnits": "mmol/L",
            "LumpedConstant": kinetics.lumped_constant,
            "TissueDensity": kinetics.tissue_density_g_per_ml,
            "TissueDensityUnits": "g/mL",
        }

    def fit(
        self,
        curves: NDArray[np.float64],
        inputs: NDArray[np.float64],
        frames: FrameTimes,
        settings: Settings,
    ) -> Fits:
        """Patlak's Ki times the factor, in every window."""
        kinetics = settings.kinetics
        glucose = self._person.glucose_mmol_l if self._person else None
        factor = np.nan
        if glucose and kinetics.lumped_constant:
            factor = 100.0 * glucose / (kinetics.lumped_constant * kinetics.tissue_density_g_per_ml)
        fits = self._patlak.fit(curves, inputs, frames, settings)
        others = {name: value for name, value in fits.values.items() if name in self.columns}
        rates = {"CMRglc": fits.values["Ki"] * factor, "CMRglc_se": fits.values["Ki_se"] * factor}
        return Fits(fits.windows, {**rates, **others})

    def shown(self, table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
        """The rows that Patlak's model shows."""
        return self._patlak.shown(table, settings)

    def methods(self, settings: Settings) -> str:
        """Factors, after those of Patlak's model."""
        kinetics = settings.kinetics
        return (
            "The metabolic rate of glucose [@phelps] is 100 Ki glucose / (lumped constant x density), with "
            "Patlak's "
            "Ki [@patlak] of the whole-blood input function, the participant's blood glucose as that of "
            "plasma, a "
            f"lumped constant of {kinetics.lumped_constant:g} and a density of "
            f"{kinetics.tissue_density_g_per_ml:g} g/mL."
        )
