"""The early blood of other people, for a scan that has missed its own.

Blood after 30 min says within a few per cent how much tracer had passed by then: the area under the input
function up to a time, over the blood of the next minutes, is much the same in people who were injected alike.
Over dose or weight it differs three times as much, so that is not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from hedypet_bids.errors import BadDataError
from hedypet_bids.model import FloatArray, FrameTimes

LEAST_PEOPLE = 5
"""With fewer the spread between people is a guess."""

# The blood that scales is that of the first frames, which begin within this time. Over 30 to 40 min the SD of
# Ki was 1.7 % in hedyPET, over 50 to 70 min 2.5 %: the sooner, the more alike is what comes before.
_SCALED_OVER_S = 600.0
# Blood that was missed, or a gap, for longer than this leaves an area that nobody knows.
_MOST_MISSED_S = 5.0
_MOST_GAP_S = 60.0
# Sidecars round to milliseconds, so frames that meet may seem this far apart.
_JOINED_S = 2e-3


@dataclass(frozen=True, eq=False)
class PopulationInput:
    """Areas under the input functions of people, as a function of time.

    Parameters
    ----------
    areas
        Of each person: the area from the injection up to a time in s, Bq/mL*s; NaN outside the scan.
    n_left_out
        People who were not taken: they have a frame without a value, missed blood or no late activity.
    source
        Which data it was made of, such as a checksum; empty: not said.
    """

    areas: tuple[PchipInterpolator, ...]
    n_left_out: int = 0
    source: str = ""

    @property
    def n_of_all(self) -> int:
        """People in the data, with those who were left out."""
        return len(self.areas) + self.n_left_out

    def why_not(self, frames: FrameTimes) -> str:
        """Why it cannot precede the frames of a scan; empty when it can.

        Parameters
        ----------
        frames
            Those from which on the scan's own blood counts, s from injection.

        Returns
        -------
        str
            A clause.
        """
        if frames.start_s[0] <= 0:
            return "no time is left before the first frame that counts"
        found = len(self._over_own_level(frames))
        if found >= LEAST_PEOPLE:
            return ""
        end_min = frames.end_s[_n_scaling(frames) - 1] / 60
        return (
            f"{found} people of the population have blood from the injection to {end_min:.3g} min; expected "
            f"{LEAST_PEOPLE} or more"
        )

    def n_people(self, frames: FrameTimes) -> int:
        """How many people can precede the frames of a scan."""
        return len(self._over_own_level(frames))

    def spread(self, frames: FrameTimes) -> float:
        """Between-person coefficient of variation of the scaled area before the frames of a scan.

        Parameters
        ----------
        frames
            As in :meth:`why_not`.

        Returns
        -------
        float
            Sample standard deviation over mean, no unit.
        """
        areas = self._over_own_level(frames) @ np.diff(_edges(frames))
        return float(areas.std(ddof=1) / areas.mean())

    def scaled(
        self, own: FloatArray, frames: FrameTimes
    ) -> tuple[FrameTimes, NDArray[np.float64], NDArray[np.float64]]:
        """Input functions since the injection: two frames of the population, then a scan's own blood.

        Parameters
        ----------
        own
            Blood of the scan, Bq/mL, shape (n_inputs, n_frames). The first 10 min of it scale the population.
        frames
            When, s from injection.

        Returns
        -------
        frames
            Two frames that fill the time before, and those of the scan.
        mean
            With the mean over people, Bq/mL, shape (n_inputs, 2 + n_frames).
        each
            With each of the people, shape (n_inputs, n_people, 2 + n_frames).

        Examples
        --------
        >>> times = FrameTimes(np.arange(0.0, 4200.0, 60.0), np.full(70, 60.0))
        >>> blood = 5e4 / (1.0 + times.mid_s / 600.0)
        >>> population = population_input([(times, blood * scale) for scale in (0.5, 0.8, 1.0, 1.5, 2.0)])
        >>> late = FrameTimes(times.start_s[30:], times.duration_s[30:])
        >>> whole, mean, _ = population.scaled(blood[None, 30:], late)
        >>> bool(np.isclose(mean[0, :2] @ whole.duration_s[:2], blood[:30].sum() * 60.0))
        True
        """
        blood = np.atleast_2d(np.asarray(own, dtype=np.float64))
        n, edges, shapes = _n_scaling(frames), _edges(frames), self._over_own_level(frames)
        level = np.average(blood[:, :n], axis=1, weights=frames.duration_s[:n])
        early = level[:, None, None] * shapes
        late = np.broadcast_to(blood[:, None], (len(blood), len(shapes), len(frames)))
        whole = FrameTimes(
            np.concatenate([edges[:2], frames.start_s]), np.concatenate([np.diff(edges), frames.duration_s])
        )
        return (
            whole,
            np.concatenate([early.mean(axis=1), blood], axis=-1),
            np.concatenate([early, late], axis=-1),
        )

    def _over_own_level(self, frames: FrameTimes) -> NDArray[np.float64]:
        """Mean blood before the frames over that of the first of them, shape (n_people with both, 2)."""
        n, edges = _n_scaling(frames), _edges(frames)
        start, end, length = frames.start_s[:n], frames.end_s[:n], frames.duration_s[:n]
        ratios = np.full((len(self.areas), 2), np.nan)
        for person, area in enumerate(self.areas):
            level = (area(end) - area(start)).sum() / length.sum()
            # What comes before a person's first frame is no blood.
            before = area(np.maximum(edges, area.x[0]))
            if level > 0:
                ratios[person] = np.diff(before) / np.diff(edges) / level
        found: NDArray[np.float64] = ratios[np.isfinite(ratios).all(axis=1)]
        return found


def population_input(people: Sequence[tuple[FrameTimes, FloatArray]], *, source: str = "") -> PopulationInput:
    """The input functions of people as areas that can be scaled to a scan.

    Parameters
    ----------
    people
        Frames (s from injection) and blood of each, Bq/mL, shape (n_frames,).
    source
        Which data these are.

    Returns
    -------
    PopulationInput
        Of all who have a value in every frame, blood since the injection and no long gap. The area between
        the ends of frames is interpolated by cubic polynomials that keep its monotony (PCHIP), so that all
        means over frames are those that were measured.

    Raises
    ------
    BadDataError
        Fewer than 5 people are left.

    Examples
    --------
    >>> times = FrameTimes(np.arange(0.0, 4200.0, 60.0), np.full(70, 60.0))
    >>> len(population_input([(times, np.full(70, 1000.0 + n)) for n in range(6)]).areas)
    6
    """
    areas = [
        _area(frames, np.asarray(blood, dtype=np.float64))
        for frames, blood in people
        if _known(frames, blood)
    ]
    if len(areas) < LEAST_PEOPLE:
        raise BadDataError(
            f"A population input needs {LEAST_PEOPLE} or more people with a value in every frame, blood "
            f"since the injection and no gap of more than {_MOST_GAP_S:g} s; found {len(areas)} of "
            f"{len(people)}."
        )
    return PopulationInput(tuple(areas), len(people) - len(areas), source)


def _known(frames: FrameTimes, blood: FloatArray) -> bool:
    return bool(
        np.isfinite(blood).all()
        and np.mean(blood) > 0
        and frames.missed_s <= _MOST_MISSED_S
        and frames.gap_s.max(initial=0.0) <= _MOST_GAP_S
    )


def _area(frames: FrameTimes, blood: NDArray[np.float64]) -> PchipInterpolator:
    """The area under a person's blood; over gaps it is the mean of the frames beside."""
    gaps = np.maximum(frames.gap_s, 0.0)
    pieces = np.zeros(2 * len(frames))
    pieces[1::2] = blood * frames.duration_s
    pieces[2::2] = gaps * (blood[:-1] + blood[1:]) / 2
    times = np.stack([frames.start_s, frames.end_s], axis=1).ravel()
    # Where frames meet, an end and a start are one time.
    kept = np.ones(len(times), dtype=np.bool_)
    kept[2::2] = frames.gap_s > _JOINED_S
    return PchipInterpolator(times[kept], np.cumsum(pieces)[kept], extrapolate=False)


def _n_scaling(frames: FrameTimes) -> int:
    """How many frames scale the population."""
    return int(np.count_nonzero(frames.start_s < frames.start_s[0] + _SCALED_OVER_S))


def _edges(frames: FrameTimes) -> NDArray[np.float64]:
    """Injection, and start and end of a frame as long as the first, that ends where that begins, s."""
    start = float(frames.start_s[0])
    return np.array([0.0, start - min(float(frames.duration_s[0]), start / 2), start])
