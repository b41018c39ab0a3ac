"""Distribution volume of reversible tracers from an input function: MA1 and Logan's plot.

Both follow from the equations of any number of reversible compartments once tissue and blood are in balance,
after a time t*: with C the activity of a region and Cp that of the tracer itself in plasma,
int C / C = VT int Cp / C + b (Logan 1990). MA1 (Ichise 2002) fits the same to C, on which noise does not
bias it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.kernels.kinetics.model import Fits, KineticModel, Parameter
from hedypet_bids.kernels.kinetics.patlak import Window, integrate
from hedypet_bids.kernels.kinetics.regression import (
    FIT_COLUMNS,
    LinearFit,
    fit_linear,
    fits_of_one_window,
    noise_of,
    reasons,
)
from hedypet_bids.kernels.reference import Reference
from hedypet_bids.model import FloatArray, FrameTimes
from hedypet_bids.settings import Settings

_WHOLE_BLOOD = (
    "the input function is not known to be the tracer itself in plasma, and a distribution volume needs "
    "[kinetics] plasma_to_blood and parent_fraction of --settings"
)


def plasma_of(blood: FloatArray, frames: FrameTimes, settings: Settings) -> NDArray[np.float64]:
    """The tracer itself in plasma, from whole blood and what the settings say of both.

    Parameters
    ----------
    blood
        Bq/mL, shape (..., n_frames).
    frames
        When the frames are, s from injection.
    settings
        With ``[kinetics] plasma_to_blood`` and ``parent_fraction``.

    Returns
    -------
    NDArray
        Bq/mL, same shape; NaN where one of both is not known.

    Examples
    --------
    >>> known = {"kinetics": {"plasma_to_blood": 1.2, "parent_fraction": [[0, 1], [60, 0.5]]}}
    >>> frames = FrameTimes([0.0, 1800.0], [600.0, 0.5])
    >>> plasma_of(np.array([100.0, 100.0]), frames, Settings().with_values(known)).round(0).tolist()
    [115.0, 90.0]
    """
    kinetics = settings.kinetics
    curve = np.asarray(blood, dtype=np.float64)
    if not (kinetics.plasma_to_blood and kinetics.parent_fraction):
        return np.full(curve.shape, np.nan)
    minutes, fractions = zip(*kinetics.parent_fraction, strict=True)
    factor: NDArray[np.float64] = kinetics.plasma_to_blood * np.interp(
        frames.mid_s / 60.0, minutes, fractions
    )
    return curve * factor


class Graphical(KineticModel):
    """What MA1 and Logan's plot share: curves, their integrals, and the frames from t* on."""

    trapped = False
    columns: ClassVar[Mapping[str, Any]] = FIT_COLUMNS

    def options(self, settings: Settings) -> Mapping[str, Any]:
        """t*, and what is known of plasma."""
        kinetics = settings.kinetics
        return {
            "t_star_min": kinetics.t_star_min,
            "plasma_to_blood": kinetics.plasma_to_blood,
            "parent_fraction": kinetics.parent_fraction,
        }

    def sidecar(self, frames: FrameTimes, settings: Settings) -> Mapping[str, Any]:  # noqa: ARG002
        """The same."""
        kinetics = settings.kinetics
        return {
            "TStar": kinetics.t_star_min * 60.0,
            "PlasmaToBlood": kinetics.plasma_to_blood or "n/a",
            "ParentFraction": kinetics.parent_fraction or "n/a",
        }

    def fit(
        self,
        curves: NDArray[np.float64],
        inputs: NDArray[np.float64],
        frames: FrameTimes,
        settings: Settings,
    ) -> Fits:
        """VT and b of every region with every input function, from t* on."""
        t_star = settings.kinetics.t_star_min
        index = Window(start_min=t_star).indices(frames)
        plasma = plasma_of(inputs, frames, settings)
        area = integrate(curves, frames, rule="frames")[:, None, index]
        plasma_area = integrate(plasma, frames, rule="frames")[None, :, index]
        tissue = curves[:, None, index]
        found, values = self._solved(tissue, area, plasma_area, frames, index)
        known = bool(settings.kinetics.plasma_to_blood and settings.kinetics.parent_fraction)
        flat = ~(np.isfinite(inputs).all(axis=1) & (inputs.max(axis=1) > 0))
        why = reasons(
            (not known, _WHOLE_BLOOD),
            (
                len(index) < 3,
                f"there are {len(index)} frames from t* = {t_star:g} min on; expected 3 or more",
            ),
            (flat[None, :], "the input function has no activity"),
            (~np.isfinite(curves).all(axis=1, keepdims=True), "the region has no voxel"),
            (~(tissue > 0).all(axis=-1), "the region has a frame without activity from t* on"),
            (~np.isfinite(found.beta).all(axis=-1), "the frames do not tell VT and b apart"),
            (~((values["VT"] > 0) & (values["b"] < 0)), "the curve does not show that the tracer leaves"),
        )
        return Fits({}, fits_of_one_window(values, why, frames, index))

    def fit_plasma(
        self,
        curves: NDArray[np.float64],
        plasma: NDArray[np.float64],
        whole_blood: NDArray[np.float64],  # noqa: ARG002
        frames: FrameTimes,
        settings: Settings,
        *,
        parent_known: bool,
    ) -> Fits:
        """The same with plasma as it is; without parent fraction there is no distribution volume."""
        of_plasma = {"plasma_to_blood": 1.0, "parent_fraction": [[0.0, 1.0]] if parent_known else []}
        return self.fit(curves, plasma, frames, settings.with_values({"kinetics": of_plasma}))

    @abstractmethod
    def _solved(
        self,
        tissue: FloatArray,
        area: FloatArray,
        plasma_area: FloatArray,
        frames: FrameTimes,
        index: NDArray[np.intp],
    ) -> tuple[LinearFit, dict[str, NDArray[np.float64]]]:
        """The fit, and the columns of its parameters; curves are (n_regions, n_inputs, n_frames)."""

    def methods(self, settings: Settings) -> str:
        """Window, integrals and plasma."""
        kinetics = settings.kinetics
        text = (
            f"{self._what} over the frames from {kinetics.t_star_min:g} min on; tissue and input function "
            "were "
            "integrated with the whole area of each finished frame and linearly within the running one."
        )
        if not (kinetics.plasma_to_blood and kinetics.parent_fraction):
            return (
                f"{text} The ratio of plasma to blood and the parent fraction were not known, so it is n/a."
            )
        points = ", ".join(f"{part:g} at {minute:g} min" for minute, part in kinetics.parent_fraction)
        return (
            f"{text} The input function was the image-derived curve of whole blood times a plasma-to-blood "
            "ratio "
            f"of {kinetics.plasma_to_blood:g} and a parent fraction of {points}, linear in between."
        )

    _what: ClassVar[str]


class MA1(Graphical):
    """Ichise's multilinear analysis: C = -(VT/b) int Cp + (1/b) int C.

    Examples
    --------
    A tissue that is in balance with constant blood at four times its activity:

    >>> known = {"kinetics": {"t_star_min": 0, "plasma_to_blood": 1, "parent_fraction": [[0, 1]]}}
    >>> frames = FrameTimes(np.arange(0.0, 3600.0, 60.0), np.full(60, 60.0))
    >>> minutes = frames.mid_s / 60
    >>> tissue = 4000.0 * (1 - np.exp(-0.1 * minutes))
    >>> settings = Settings().with_values(known)
    >>> fits = MA1().fit(tissue[None], np.full((1, 60), 1000.0), frames, settings)
    >>> round(float(fits.values["VT"][0, 0, 0]), 1)
    4.0
    """

    name = "MA1"
    title = "Multilinear analysis MA1"
    parameters = (
        Parameter("VT", "mL/mL", "Distribution volume of the tracer over that in plasma"),
        Parameter("b", "min", "Intercept of the analysis; negative"),
    )
    references: ClassVar[Mapping[str, Reference]] = {
        "ichise2002": Reference(
            "Ichise, Masanori and Toyama, Hiroshi and Innis, Robert B and Carson, Richard E",
            "Strategies to improve neuroreceptor parameter estimation by linear regression analysis",
            2002,
            "Journal of Cerebral Blood Flow and Metabolism",
            "22",
            "1271-1281",
            "10.1097/01.WCB.0000038000.34930.4E",
        )
    }
    _what = (
        "The distribution volume VT comes from multilinear analysis MA1 [@ichise2002], least squares "
        "weighted by "
        "the length of the frames,"
    )

    def _solved(
        self,
        tissue: FloatArray,
        area: FloatArray,
        plasma_area: FloatArray,
        frames: FrameTimes,
        index: NDArray[np.intp],
    ) -> tuple[LinearFit, dict[str, NDArray[np.float64]]]:
        def noise(beta: NDArray[np.float64]) -> NDArray[np.float64]:
            return own - beta[..., 1, None, None] * summed

        own, summed = noise_of(frames, index)
        found = fit_linear(tissue, [plasma_area, area], frames.duration_s[index], noise)
        of_plasma, of_tissue = found.beta[..., 0], found.beta[..., 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return found, {
                "VT": -of_plasma / of_tissue,
                "VT_se": found.se_of(-1 / of_tissue, of_plasma / of_tissue**2),
                "b": 1 / of_tissue,
                "b_se": found.se_of(np.zeros_like(of_tissue), -1 / of_tissue**2),
                "r2": found.r2,
            }


class Logan(Graphical):
    """Logan's plot: int C / C = VT int Cp / C + b.

    Examples
    --------
    >>> [parameter.name for parameter in Logan().parameters]
    ['VT', 'b']
    """

    name = "Logan"
    title = "Logan's graphical analysis"
    parameters = (
        Parameter(
            "VT", "mL/mL", "Distribution volume of the tracer over that in plasma; noise makes it too low"
        ),
        Parameter("b", "min", "Intercept of the plot; negative"),
    )
    references: ClassVar[Mapping[str, Reference]] = {
        "logan": Reference(
            "Logan, Jean and Fowler, Joanna S and Volkow, Nora D and others",
            "Graphical analysis of reversible radioligand binding from time-activity measurements applied to "
            "[N-11C-methyl]-(-)-cocaine PET studies in human subjects",
            1990,
            "Journal of Cerebral Blood Flow and Metabolism",
            "10",
            "740-747",
            "10.1038/jcbfm.1990.127",
        )
    }
    _what = (
        "The distribution volume VT is the slope of Logan's plot [@logan], which noise in the tissue makes "
        "too "
        "low, by ordinary least squares"
    )

    def _solved(
        self,
        tissue: FloatArray,
        area: FloatArray,
        plasma_area: FloatArray,
        frames: FrameTimes,
        index: NDArray[np.intp],
    ) -> tuple[LinearFit, dict[str, NDArray[np.float64]]]:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            y, x = area / tissue, plasma_area / tissue

        def noise(beta: NDArray[np.float64]) -> NDArray[np.float64]:
            with np.errstate(divide="ignore", invalid="ignore"):
                errors = (summed - beta[..., 1, None, None] * own) / tissue[..., None]
            return np.nan_to_num(errors, posinf=0.0, neginf=0.0)

        own, summed = noise_of(frames, index)
        found = fit_linear(y, [x, np.ones(x.shape)], np.ones(len(index)), noise)
        slope, intercept = found.beta[..., 0], found.beta[..., 1]
        return found, {
            "VT": slope,
            "VT_se": found.se_of(np.ones_like(slope), np.zeros_like(slope)),
            "b": intercept,
            "b_se": found.se_of(np.zeros_like(slope), np.ones_like(slope)),
            "r2": found.r2,
        }
