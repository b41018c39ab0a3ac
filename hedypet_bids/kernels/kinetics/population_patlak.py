"""Patlak's model for scans that have missed the early blood, which other people lend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.kernels.kinetics.model import Fits, KineticModel, Parameter
from hedypet_bids.kernels.kinetics.patlak import (
    Patlak,
    Window,
    fit_patlak,
    fits_in,
    window_columns,
    windows_of,
)
from hedypet_bids.kernels.kinetics.population_input import PopulationInput
from hedypet_bids.model import FrameTimes
from hedypet_bids.settings import Settings, plain

_NO_POPULATION = (
    "there is no [kinetics] population_readouts in --settings, the folder whose people lend their early blood"
)
# Sidecars round to milliseconds, and scanners begin frames a little early.
_SAME_S = 0.5
_LEAST_FRAMES = 2


class PatlakPBIF(Patlak):
    """Patlak's model with the scan's own blood from t* on and before it that of a population.

    Parameters
    ----------
    population
        The blood of other people; the model is not fitted without it.

    Examples
    --------
    >>> PatlakPBIF().why_not_with(FrameTimes([1800.0], [300.0]), Settings())[:36]
    'there is no [kinetics] population_re'
    """

    name = "PatlakPBIF"
    title = "Patlak's model with a scaled population input"
    from_injection = False
    population = True
    columns: ClassVar[Mapping[str, Any]] = {
        "Ki_error": {
            "Description": "Error of Ki by the early blood that was not the participant's own: standard "
            "deviation over the people of the population, each in the place of their mean, over Ki",
            "Units": "%",
        },
        **Patlak.columns,
    }

    def __init__(self, population: PopulationInput | None = None) -> None:
        self._people = population

    def of_population(self, population: PopulationInput) -> KineticModel:
        """The model with the blood of other people."""
        return PatlakPBIF(population)

    def options(self, settings: Settings) -> Mapping[str, Any]:
        """Windows, t*, and which people."""
        return {
            "windows": [plain(window) for window in windows_of(settings)],
            "t_star_min": settings.kinetics.t_star_min,
            "population": self._people.source if self._people else "",
        }

    def sidecar(self, frames: FrameTimes, settings: Settings) -> Mapping[str, Any]:
        """Who lent their blood, and how much people differ."""
        late = frames_from(frames, settings)
        if self._people is None or late is None:
            return {}
        return {
            "IntegrationRule": "frames",
            "OwnBloodFromS": float(late.start_s[0]),
            "PopulationSource": self._people.source,
            "PopulationSize": self._people.n_people(late),
            "PopulationLeftOut": self._people.n_of_all - self._people.n_people(late),
            "PopulationAreaCV": round(self._people.spread(late), 5),
        }

    def why_not_with(self, frames: FrameTimes, settings: Settings) -> str:
        """Without a population that covers the time before t*, or frames after it."""
        if self._people is None:
            return _NO_POPULATION
        late = frames_from(frames, settings)
        if late is None:
            return (
                f"fewer than {_LEAST_FRAMES} frames start at or after t* = {settings.kinetics.t_star_min:g} "
                "min ([kinetics] t_star_min)"
            )
        return self._people.why_not(late)

    def fit(
        self,
        curves: NDArray[np.float64],
        inputs: NDArray[np.float64],
        frames: FrameTimes,
        settings: Settings,
    ) -> Fits:
        """Ki and V0 with the mean over people, and the spread of Ki over them."""
        windows = windows_of(settings)
        late = frames_from(frames, settings)
        why_not = self.why_not_with(frames, settings)
        if why_not or late is None or self._people is None:
            return _none(why_not, (len(curves), len(inputs), len(windows)), windows)
        whole, mean, each = self._people.scaled(inputs[:, -len(late) :], late)
        n_lent = len(whole) - len(late)
        # What is lent has no tissue, so that no window can reach into it.
        lent = np.full((len(curves), n_lent), np.nan)
        tissue = np.concatenate([lent, curves[:, -len(late) :]], axis=1)
        own = [_of_own_blood(window, late, settings) for window in windows]
        fits = fits_in(own, tissue, mean, whole, "frames")
        n_people = each.shape[1]
        ki = np.stack(
            [
                fit_patlak(tissue, each[:, person], whole, windows=own, rule="frames").ki
                for person in range(n_people)
            ]
        )
        values = {**fits.values}
        with np.errstate(divide="ignore", invalid="ignore"):
            error = 100.0 * ki.std(axis=0, ddof=1) / np.abs(values["Ki"])
        values["Ki_error"] = np.where(np.isfinite(error), error, np.nan)
        early = np.array([_begins_early(window, whole, n_lent) for window in own])
        values["n_used"] = np.where(early, 0, values["n_used"])
        for name in ("t_start", "t_end"):
            values[name] = np.where(early, np.nan, values[name])
        begins = (
            f"the window begins before {late.start_s[0] / 60:.3g} min, where the blood is not the scan's own"
        )
        values["reason"] = np.where(early, begins, values["reason"])
        return Fits(window_columns(windows), values)

    @property
    def maps(self) -> tuple[Parameter, ...]:
        """None: of a scan with early blood Patlak's own are better, of others `Ki_error` has no map."""
        return ()

    def methods(self, settings: Settings) -> str:
        """Whose blood, how it is scaled, and what that costs."""
        return (
            "For scans that have missed the early blood, Patlak plots [@patlak] were also fitted with the "
            f"scan's own blood from {settings.kinetics.t_star_min:g} min on (or from its first frame) and, "
            "before it, the mean input function of other people, each scaled to the scan's own blood in the "
            "10 min from there on. The error of Ki that this brings is the standard deviation over these "
            "people."
        )

    def map_methods(self, settings: Settings) -> str:  # noqa: ARG002
        """There are no maps."""
        return ""


def frames_from(frames: FrameTimes, settings: Settings) -> FrameTimes | None:
    """The frames of a scan whose own blood counts: those that start at or after t*.

    Parameters
    ----------
    frames
        All, s from injection.
    settings
        Those of the run.

    Returns
    -------
    FrameTimes or None
        None where there are fewer than 2.

    Examples
    --------
    >>> frames_from(FrameTimes([0.0, 1800.0, 2100.0], [1800.0, 300.0, 300.0]), Settings()).start_s.tolist()
    [1800.0, 2100.0]
    """
    kept = frames.start_s >= 60.0 * settings.kinetics.t_star_min - _SAME_S
    if np.count_nonzero(kept) < _LEAST_FRAMES:
        return None
    return FrameTimes(frames.start_s[kept], frames.duration_s[kept])


def _of_own_blood(window: Window, late: FrameTimes, settings: Settings) -> Window:
    """A window that starts at a time after t*, without what is lent to a scan that starts later still."""
    if window.start_min is None or window.start_min < settings.kinetics.t_star_min:
        return window
    return Window(start_min=max(window.start_min, float(late.start_s[0]) / 60.0))


def _begins_early(window: Window, whole: FrameTimes, n_lent: int) -> bool:
    """Whether a window has, or would have, frames before those of the scan."""
    index = window.indices(whole)
    few = window.last_frames is not None and window.last_frames > len(whole) - n_lent
    return few or bool((index < n_lent).any())


def _none(why_not: str, shape: tuple[int, int, int], windows: Sequence[Window]) -> Fits:
    """No value anywhere, and why."""
    empty = np.full(shape, np.nan)
    names = ("Ki", "Ki_se", "V0", "V0_se", "Ki_error")
    return Fits(
        window_columns(windows),
        {**dict.fromkeys(names, empty), "reason": why_not},
    )
