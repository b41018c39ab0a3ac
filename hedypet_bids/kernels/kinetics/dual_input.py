"""The irreversible two-tissue model of the liver, which the portal vein and the hepatic artery feed.

Blood in the portal vein has passed the gut, so that it comes spread out: as the arterial input function
convolved with ka exp(-ka t). The input of the liver is a fixed part of arterial blood, with a delay, and
for the rest portal blood. Its shift, integral and convolution follow in closed form from those of the artery.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from hedypet_bids.kernels.kinetics.compartments import (
    MODELS,
    CompartmentFits,
    TwoTissue,
    checked,
    doubt_of,
    weighted_r2,
)
from hedypet_bids.kernels.kinetics.input_curve import InputCurve
from hedypet_bids.kernels.kinetics.model import Fits, Parameter
from hedypet_bids.kernels.kinetics.shares import RATES_PER_MIN, non_negative, root_weights
from hedypet_bids.kernels.reference import Reference
from hedypet_bids.model import FloatArray, FrameTimes
from hedypet_bids.settings import Settings, plain

# Slower, portal blood looks like tissue; faster, like the artery's.
_PORTAL_PER_MIN = np.geomspace(1.0, 10.0, 13)
# The hepatic artery leaves the aorta below the place of any input function.
_DELAYS_S = np.arange(-1.0, 20.5, 1.0)
_ALL = 7  # the shares of B, E and I, as bits
# Two rates closer than this, relative to one of them, are told apart by rounding alone.
_APART = 1e-5
_TWO_TISSUES = MODELS.index("2TCM")
# Places in the covariance: the shares, log a, the delay, log ka.
_RATE, _DELAY, _PORTAL, _N_PARAMETERS = 3, 4, 5, 6
_NEAR = 1e-6
_MOST_STARTS = 6


@dataclass(frozen=True, eq=False)
class DualInputFits:
    """The two-tissue model with two inputs, fitted to every curve with every arterial input function.

    Parameters
    ----------
    tissue
        Rates, blood fraction and delay; of its three models the last alone has values.
    portal_per_min, portal_se
        ka and its standard error, 1/min, shape (n_regions, n_inputs); no error at a bound.
    """

    tissue: CompartmentFits
    portal_per_min: NDArray[np.float64]
    portal_se: NDArray[np.float64]


def fit_dual_input(
    curves: FloatArray,
    input_functions: FloatArray,
    frames: FrameTimes,
    *,
    whole_blood: FloatArray | None = None,
    arterial_fraction: float = 0.25,
    half_life_s: float = 6586.2,
) -> DualInputFits:
    """The irreversible two-tissue model of an organ that artery and portal vein feed.

    Parameters
    ----------
    curves
        Regional activity, decay-corrected, Bq/mL, shape (n_regions, n_frames).
    input_functions
        Activity of arterial blood, Bq/mL, shape (n_inputs, n_frames).
    frames
        When the frames are, s from injection.
    whole_blood
        What the blood in the tissue holds, Bq/mL, shape (n_inputs, n_frames), where the input functions are
        of plasma; else it is these.
    arterial_fraction
        Part of the blood that comes through the artery, 0 to 1. Fixed: a fit takes it to 0.
    half_life_s
        Of the radionuclide, s; F-18 by default.

    Returns
    -------
    DualInputFits
        NaN where a curve or input function allows no fit.

    References
    ----------
    Winterdahl M, Keiding S, Sørensen M, Mortensen FV, Alstrup AKO, Munk OL. Tracer input for kinetic
    modelling of liver physiology determined without sampling portal venous blood in pigs. Eur J Nucl Med Mol
    Imaging 2011;38:263-270 (a quarter of the flow is arterial).

    Examples
    --------
    >>> from hedypet_bids.phantom.kinetics import Kinetics, hedypet_frames, scaled_feng_input, tissue_curve
    >>> frames, blood = hedypet_frames(), scaled_feng_input(8000.0)
    >>> aorta, spleen = (
    ...     tissue_curve(frames, blood, Kinetics(*rates))
    ...     for rates in ((0.0, 0.0, 0.0, 1.0), (0.9, 1.1, 0.01, 0.1))
    ... )
    >>> found = fit_dual_input(spleen[None], aorta[None], frames, arterial_fraction=1.0)
    >>> round(found.tissue.parameters("2TCM")["K1"].item(), 2)
    0.9
    """
    regions, inputs, bloods, why_not = checked(curves, input_functions, whole_blood, frames)
    root = root_weights(frames, half_life_s)
    shape = (len(regions), len(inputs))
    found = {
        name: np.full((*shape, *rest), np.nan)
        for name, rest in (
            ("shares", (3, 3)),
            ("rate", (3,)),
            ("delay", (3,)),
            ("portal", ()),
            ("portal_se", ()),
        )
    }
    covariance, free = np.zeros((*shape, 3, 5, 5)), np.zeros((*shape, 3, 5), dtype=bool)
    known, rss = np.flatnonzero(np.isfinite(regions).all(axis=1)), np.full(shape, np.nan)
    for i in (i for i, reason in enumerate(why_not) if not reason):
        arteries = InputCurve(inputs[i], frames), InputCurve(bloods[i], frames)
        model = _DualInput(*arteries, root, arterial_fraction)
        for r in known:
            fit = model.fit(regions[r] * root)
            at = r, i, _TWO_TISSUES
            found["shares"][at], covariance[at] = fit.shares, fit.covariance[:_PORTAL, :_PORTAL]
            free[at] = fit.free[:_PORTAL]
            found["rate"][at], found["delay"][at] = np.exp(fit.place[0]), fit.place[1]
            rss[r, i] = fit.rss
            found["portal"][r, i] = portal = np.exp(fit.place[2])
            if fit.free[_PORTAL]:
                found["portal_se"][r, i] = portal * np.sqrt(fit.covariance[_PORTAL, _PORTAL])
    r2 = np.full((*shape, 3), np.nan)
    r2[..., _TWO_TISSUES] = weighted_r2(regions * root, root, rss)
    tissue = CompartmentFits(
        shares=found["shares"],
        rate_per_min=found["rate"],
        delay_s=found["delay"],
        covariance=covariance,
        free=free,
        r2=r2,
        aicc=np.full((*shape, 3), np.nan),
        why_not=why_not,
        doubt=doubt_of(frames),
    )
    return DualInputFits(tissue, found["portal"], found["portal_se"])


@dataclass(frozen=True, eq=False)
class _Fit:
    """Shares; log a, delay (s) and log ka; covariance of all, and which are not at a bound."""

    shares: NDArray[np.float64]
    place: NDArray[np.float64]
    covariance: NDArray[np.float64]
    free: NDArray[np.bool_]
    rss: float


class _DualInput:
    """The bases of one arterial input function, and the fits that begin at the best of a grid."""

    def __init__(
        self, artery: InputCurve, blood: InputCurve, root: NDArray[np.float64], fraction: float
    ) -> None:
        self._artery, self._blood, self._root, self._fraction = artery, blood, root, fraction
        portal, delays, rates = _PORTAL_PER_MIN[:, None, None], _DELAYS_S[None, :, None], RATES_PER_MIN
        self._nodes = np.stack(np.broadcast_arrays(np.log(rates), delays, np.log(portal)), axis=-1)
        self._nodes = self._nodes.reshape(-1, 3)
        self._lower, self._upper = self._nodes.min(axis=0), self._nodes.max(axis=0)
        self._bases = self._bases_at(RATES_PER_MIN, _DELAYS_S, _PORTAL_PER_MIN)
        self._grams = np.einsum("nif,njf->nij", self._bases, self._bases)

    def fit(self, weighted: NDArray[np.float64]) -> _Fit:
        """The fit of a weighted curve."""
        dots, shares = self._bases @ weighted, np.empty(3)
        nodes = zip(self._grams, dots, strict=True)
        explained = np.array([non_negative(gram, dot, _ALL, shares) for gram, dot in nodes])
        # Exchange and portal blood may change places in a curve, so fits begin at the best of several ka.
        by_portal = explained.reshape(len(_PORTAL_PER_MIN), -1)
        starts = np.arange(len(by_portal)) * by_portal.shape[1] + by_portal.argmax(axis=1)
        likely = starts[np.argsort(-explained[starts])][:_MOST_STARTS]
        places = [self._descended(weighted, self._nodes[start]) for start in likely]
        rss, place = min(places, key=lambda found: found[0])
        shares, _ = self._best(weighted, place)
        return _Fit(shares, place, *self._covariance(shares, place, rss), rss)

    def _descended(
        self, weighted: NDArray[np.float64], start: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64]]:
        """The residual sum of squares of the best fit near a place, and where that is."""

        def residual(place: NDArray[np.float64]) -> NDArray[np.float64]:
            return weighted - self._best(weighted, place)[1]

        found = least_squares(
            residual,
            np.clip(start, self._lower + _NEAR, self._upper - _NEAR),
            bounds=(self._lower, self._upper),
            x_scale=(1.0, 5.0, 1.0),
            xtol=1e-10,
            ftol=1e-12,
            gtol=1e-12,
        )
        return 2 * float(found.cost), np.asarray(found.x)

    def _best(
        self, weighted: NDArray[np.float64], place: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The best shares at a place, and the weighted curve that they make."""
        bases, shares = self._at(place), np.empty(3)
        non_negative(bases @ bases.T, bases @ weighted, _ALL, shares)
        return shares, shares @ bases

    def _covariance(
        self, shares: NDArray[np.float64], place: NDArray[np.float64], rss: float
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Covariance of the free parameters, 0 elsewhere, and which are free."""
        inside = (place > self._lower + 10 * _NEAR) & (place < self._upper - 10 * _NEAR)
        free = np.concatenate([shares > 0, inside & [shares[1] > 0, shares.any(), shares.any()]])
        jacobian = np.zeros((_N_PARAMETERS, len(self._root)))
        jacobian[:_RATE] = self._at(place)
        for k, step in enumerate((1e-4, 1e-3, 1e-4)):
            ahead, behind = place.copy(), place.copy()
            ahead[k] += step
            behind[k] -= step
            jacobian[_RATE + k] = shares @ (self._at(ahead) - self._at(behind)) / (2 * step)
        size = np.sqrt((jacobian**2).sum(axis=1))
        free &= size > 0  # without portal blood nothing depends on ka
        covariance = np.zeros((_N_PARAMETERS, _N_PARAMETERS))
        left = len(self._root) - int(free.sum())
        if free.any() and left > 0:
            scaled = jacobian[free] / size[free, None]
            inverse = np.linalg.pinv(scaled @ scaled.T, rcond=1e-13, hermitian=True)
            covariance[np.ix_(free, free)] = rss / left * inverse / np.outer(size[free], size[free])
        return covariance, free

    def _at(self, place: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weighted bases B, E (min) and I (min), shape (3, n_frames), at log a, delay (s) and log ka."""
        rate, delay_s, portal = np.exp(place[:1]), place[1:2], np.exp(place[2:])
        return np.asarray(self._bases_at(rate, delay_s, portal)[0])

    def _bases_at(
        self, rates: NDArray[np.float64], delays_s: NDArray[np.float64], portal: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Those of every ka, delay and a, in that order, shape (n_nodes, 3, n_frames)."""
        artery, blood, early, rates = self._artery, self._blood, 0.0, rates.copy()
        for each in portal:
            rates[np.abs(rates - each) < _APART * each] *= 1 + _APART
        shape = (len(portal), len(delays_s), len(rates), len(self._root))
        slow, fast, passing = artery.convolved(portal, early), artery.convolved(rates, early), portal[:, None]
        arterial = (
            blood.shifted(delays_s)[None, :, None],
            np.swapaxes(artery.convolved(rates, delays_s), 0, 1)[None],
            artery.integral(delays_s)[None, :, None],
        )
        spread = (
            (passing * blood.convolved(portal, early))[:, None, None],
            ((passing / (passing - rates))[..., None] * (fast - slow[:, None]))[:, None],
            (artery.integral(early) - slow)[:, None, None],
        )
        of_artery, of_vein = (
            np.stack([np.broadcast_to(part, shape).reshape(-1, shape[-1]) for part in parts], axis=1)
            for parts in (arterial, spread)
        )
        return np.asarray((self._fraction * of_artery + (1 - self._fraction) * of_vein) * self._root)


_WINTERDAHL = Reference(
    "Winterdahl, Michael and Keiding, Susanne and Sørensen, Michael and Mortensen, Frank Viborg and "
    "Alstrup, Aage Kristian Olsen and Munk, Ole Lajord",
    "Tracer input for kinetic modelling of liver physiology determined without sampling portal venous blood "
    "in pigs",
    2011,
    "European Journal of Nuclear Medicine and Molecular Imaging",
    "38",
    "263-270",
    "10.1007/s00259-010-1620-0",
)


class LiverDualInput(TwoTissue):
    """The irreversible two-tissue model of the liver, with portal vein and hepatic artery as its inputs."""

    name = "LiverDualInput"
    title = "Irreversible two-tissue model of the liver with dual input"
    of_body = False
    regions = ("liver",)
    parameters = (
        *TwoTissue.parameters,
        Parameter("ka", "1/min", "Rate with which the gut passes arterial blood on to the portal vein"),
    )
    columns: ClassVar[Mapping[str, Any]] = {
        "Ki_arterial": {
            "Description": "Ki of the same curve with the artery alone, as of TwoTissueIrr",
            "Units": "mL/min/mL",
        },
        "K1_arterial": {
            "Description": "K1 of the same curve with the artery alone, as of TwoTissueIrr",
            "Units": "mL/min/mL",
        },
        "r2": TwoTissue.columns["r2"],
        "missed_start": TwoTissue.columns["missed_start"],
    }
    references: ClassVar[Mapping[str, Reference]] = {
        **{key: TwoTissue.references[key] for key in ("sokoloff", "phelps", "huang", "iida")},
        "winterdahl": _WINTERDAHL,
    }

    @property
    def maps(self) -> tuple[Parameter, ...]:
        """None: its input is that of one organ."""
        return ()

    def options(self, settings: Settings) -> Mapping[str, Any]:
        """Those of the model with one input, and how much of the blood is arterial."""
        fraction = plain(settings.kinetics.compartments)["liver_arterial_fraction"]
        return {**super().options(settings), "liver_arterial_fraction": fraction}

    def _fit(
        self,
        curves: NDArray[np.float64],
        inputs: NDArray[np.float64],
        whole_blood: NDArray[np.float64] | None,
        frames: FrameTimes,
        settings: Settings,
    ) -> Fits:
        """Both inputs, and beside them the values with the artery alone."""
        chosen = settings.kinetics.compartments
        found = fit_dual_input(
            curves,
            inputs,
            frames,
            whole_blood=whole_blood,
            arterial_fraction=chosen.liver_arterial_fraction,
            half_life_s=self.half_life_s(settings),
        )
        alone = self._of_compartments(curves, inputs, whole_blood, frames, settings).parameters("2TCM")
        values = found.tissue.parameters("2TCM")
        reason = values.pop("reason")
        bound = np.isfinite(found.portal_per_min) & ~np.isfinite(found.portal_se)
        reason[bound] = ["; ".join(filter(None, [told, "ka is at a bound"])) for told in reason[bound]]
        columns = {
            **values,
            "ka": found.portal_per_min,
            "ka_se": found.portal_se,
            "Ki_arterial": alone["Ki"],
            "K1_arterial": alone["K1"],
            "r2": found.tissue.r2[..., _TWO_TISSUES],
            "missed_start": np.full(reason.shape, frames.missed_s),
            "reason": reason,
        }
        return Fits({}, {name: value[..., None] for name, value in columns.items()})

    def methods(self, settings: Settings) -> str:
        """Inputs, which of their properties are fixed, and where else to look."""
        fraction = settings.kinetics.compartments.liver_arterial_fraction
        return (
            "The liver was fitted with the irreversible two-tissue model [@sokoloff; @phelps; @huang] and "
            f"two inputs [@winterdahl]: arterial blood ({fraction:.0%} of the flow, fixed; delay from "
            f"{_DELAYS_S[0]:g} to {_DELAYS_S[-1]:g} s [@iida]) and, for the rest, portal blood, as arterial "
            f"blood convolved with ka exp(-ka t), ka from {_PORTAL_PER_MIN[0]:g} to {_PORTAL_PER_MIN[-1]:g} "
            "per min. Standard errors come from the Jacobian of all six parameters. Ki and K1 with the "
            "artery alone are given beside."
        )
