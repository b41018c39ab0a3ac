"""The input function and the tissue curves of the phantom, as exact averages over frames.

Plasma and whole blood are taken to be the same: FDG enters red cells quickly, and hedypet makes its
input functions from whole blood. Everything is decay-corrected to the injection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from hedypet_bids.model import FrameTimes

_SECONDS_PER_MINUTE = 60.0

# The frames of hedyPET: (how many, seconds each); 69 frames in 70 min.
_HEDYPET_SCHEDULE = ((20, 2.0), (10, 5.0), (15, 10.0), (6, 60.0), (10, 120.0), (8, 300.0))

# So fine that the means of whole blood are exact to rounding.
_GAUSS_POINTS, _GAUSS_STEP_S = 6, 2.0

# States of the linear system that tissue_curve solves.
_N_STATES = 8
_T_EXP, _EXP_1, _EXP_2, _EXP_3, _FREE, _BOUND, _AREA_BLOOD, _AREA_TISSUE = range(_N_STATES)


@dataclass(frozen=True)
class FengInput:
    """An FDG input function of the shape of Feng, Huang and Wang (1993), model 2.

    Zero until ``delay_s``, then, with t in minutes since,
    ``(a1 t - a2 - a3) exp(-l1 t) + a2 exp(-l2 t) + a3 exp(-l3 t)``.

    Parameters
    ----------
    a1
        Bq/mL/min.
    a2, a3
        Bq/mL.
    l1, l2, l3
        1/min.
    """

    a1: float
    a2: float
    a3: float
    l1: float = 4.134
    l2: float = 0.1191
    l3: float = 0.01043
    delay_s: float = 15.0


@dataclass(frozen=True)
class Kinetics:
    """Rate constants of the two-tissue model; without k4 it is irreversible, without k3 it has one tissue.

    Parameters
    ----------
    K1
        mL/min/mL.
    k2, k3, k4
        1/min.
    vb
        Fraction of the volume that is blood, 0 to 1.
    delay_s
        How much later than in the aorta its blood arrives, s.
    """

    K1: float
    k2: float
    k3: float
    vb: float
    k4: float = 0.0
    delay_s: float = 0.0

    @property
    def ki(self) -> float:
        """Net influx rate K1 k3 / (k2 + k3) of the tissue without its blood, mL/min/mL; 0 if reversible."""
        return self.K1 * self.k3 / (self.k2 + self.k3) if self.k3 > 0 and self.k4 == 0 else 0.0

    @property
    def vt(self) -> float:
        """Distribution volume K1/k2 (1 + k3/k4) of the tissue without its blood, mL/mL; may be infinite."""
        if self.K1 == 0:
            return 0.0
        if self.k2 == 0 or (self.k3 > 0 and self.k4 == 0):
            return math.inf
        return self.K1 / self.k2 * (1.0 + (self.k3 / self.k4 if self.k3 > 0 else 0.0))

    def scaled(self, *, K1: float, net: float, vb: float) -> Kinetics:
        """The same tissue with K1, its net uptake (Ki if irreversible, else VT) and vb times these factors.

        Without k2 Ki is K1, and only ``K1`` counts.
        """
        if self.k4 > 0 or self.k3 == 0:
            return replace(self, K1=self.K1 * K1, k2=self.k2 * K1 / net, vb=self.vb * vb)
        kept = self.k3 / (self.k2 + self.k3) * net / K1
        k3 = self.k2 * kept / (1.0 - kept) if self.k2 > 0 else self.k3
        return replace(self, K1=self.K1 * K1, k3=k3, vb=self.vb * vb)


@dataclass(frozen=True)
class BloodSplit:
    """What blood holds beside the tracer itself: in plasma metabolites, in red cells another concentration.

    Of the activity in plasma ``parent_last + (1 - parent_last) exp(-t / parent_s)`` is the tracer itself,
    ``t`` s after its arrival.

    Parameters
    ----------
    plasma_to_blood
        Activity in 1 mL of plasma over that in 1 mL of whole blood.
    """

    plasma_to_blood: float = 1.2
    parent_last: float = 0.25
    parent_s: float = 1500.0

    def parent_fraction(self, t_s: NDArray[np.float64], arrival_s: float) -> NDArray[np.float64]:
        """Part of the activity in plasma that is the tracer itself, at times after injection."""
        since_s = np.maximum(np.asarray(t_s, dtype=np.float64) - arrival_s, 0.0)
        fraction: NDArray[np.float64] = self.parent_last + (1.0 - self.parent_last) * np.exp(
            -since_s / self.parent_s
        )
        return fraction

    def whole_blood(self, t_s: NDArray[np.float64], p: FengInput) -> NDArray[np.float64]:
        """Activity in whole blood, Bq/mL, where ``p`` is that of the tracer in plasma."""
        return feng_input(t_s, p) / self.parent_fraction(t_s, p.delay_s) / self.plasma_to_blood

    def frame_means(self, frames: FrameTimes, p: FengInput) -> NDArray[np.float64]:
        """Average of whole blood over each frame, Bq/mL, shape (n_frames,)."""
        nodes, weights = np.polynomial.legendre.leggauss(_GAUSS_POINTS)
        means = []
        for start_s, end_s in zip(frames.start_s, frames.end_s, strict=True):
            first_s = min(max(start_s, p.delay_s), end_s)
            edges_s = np.linspace(first_s, end_s, 1 + max(math.ceil((end_s - first_s) / _GAUSS_STEP_S), 1))
            half_s, mid_s = np.diff(edges_s) / 2.0, (edges_s[1:] + edges_s[:-1]) / 2.0
            values = self.whole_blood(mid_s[:, None] + half_s[:, None] * nodes, p)
            means.append((values @ weights * half_s).sum() / (end_s - start_s))
        return np.array(means)


def hedypet_frames() -> FrameTimes:
    """The 69 frames of the hedyPET protocol, 0 to 4200 s."""
    duration = np.concatenate([np.full(count, seconds) for count, seconds in _HEDYPET_SCHEDULE])
    return FrameTimes(start_s=np.cumsum(duration) - duration, duration_s=duration)


def merged_frames(frames: FrameTimes, n_frames: int) -> FrameTimes:
    """A schedule of ``n_frames`` over the same time: runs of neighbouring frames joined."""
    groups = np.array_split(np.arange(len(frames)), n_frames)
    start = np.array([frames.start_s[group[0]] for group in groups])
    end = np.array([frames.end_s[group[-1]] for group in groups])
    return FrameTimes(start_s=start, duration_s=end - start)


def scaled_feng_input(late_bq_ml: float, *, delay_s: float = 15.0, late_s: float = 3600.0) -> FengInput:
    """The input function with Feng's published shape that is ``late_bq_ml`` at ``late_s``.

    Source of the shape: Feng D, Huang SC, Wang X, Int J Biomed Comput 1993;32:95, in
    microcurie/mL: 851.1, 21.88, 20.81 and 4.134, 0.1191, 0.01043 per min. It peaks 15 s
    after its arrival.
    """
    shape = FengInput(851.1, 21.88, 20.81, delay_s=delay_s)
    factor = late_bq_ml / float(feng_input(np.array([late_s]), shape)[0])
    return FengInput(shape.a1 * factor, shape.a2 * factor, shape.a3 * factor, delay_s=delay_s)


def feng_input(t_s: NDArray[np.float64], parameters: FengInput) -> NDArray[np.float64]:
    """Blood activity at the times ``t_s`` (s from injection), Bq/mL, of the same shape."""
    p = parameters
    t = np.maximum(np.asarray(t_s, dtype=np.float64) - p.delay_s, 0.0) / _SECONDS_PER_MINUTE
    first = (p.a1 * t - p.a2 - p.a3) * np.exp(-p.l1 * t)
    values = first + p.a2 * np.exp(-p.l2 * t) + p.a3 * np.exp(-p.l3 * t)
    return np.where(t > 0, values, 0.0)


def input_function(frames: FrameTimes, parameters: FengInput) -> NDArray[np.float64]:
    """Average of the input function over each frame, Bq/mL, shape (n_frames,)."""
    return tissue_curve(frames, parameters, Kinetics(0.0, 0.0, 0.0, 1.0))


def irreversible_two_tissue(
    frames: FrameTimes, *, K1: float, k2: float, k3: float, vb: float, input_parameters: FengInput
) -> NDArray[np.float64]:
    """Average of a tissue curve over each frame, Bq/mL, shape (n_frames,).

    ``C = (1 - vb) (C1 + C2) + vb Cp`` with ``dC1/dt = K1 Cp - (k2 + k3) C1`` and
    ``dC2/dt = k3 C1`` (Phelps et al., Ann Neurol 1979;6:371, with k4 = 0).

    Parameters
    ----------
    K1, k2, k3
        Per minute (K1: mL/min/mL).
    vb
        Blood fraction, 0 to 1.
    """
    return tissue_curve(frames, input_parameters, Kinetics(K1, k2, k3, vb))


def tissue_curve(
    frames: FrameTimes, p: FengInput, tissue: Kinetics, split: BloodSplit | None = None
) -> NDArray[np.float64]:
    """Average of the curve of any tissue over each frame, Bq/mL, shape (n_frames,).

    With ``split`` the input is that of the tracer in plasma, and vessels hold the whole blood of that.

    Differences of the exact running integrals at the frame edges, over the durations. Input and tissue
    together are one linear system x' = A x, so matrix exponentials take its states and integrals from one
    edge to the next: no error of time steps, and nothing special where rates are equal.
    """
    arrival_s = p.delay_s + tissue.delay_s
    edges_s = np.unique(np.concatenate([[arrival_s], frames.start_s, frames.end_s]))
    edges_s = edges_s[edges_s >= arrival_s]
    # Schedules have few different durations, and an exponential is the costly part.
    steps_s, which = np.unique(np.diff(edges_s), return_inverse=True)
    system = _system(p, tissue) / _SECONDS_PER_MINUTE
    moves = [expm(system * step_s) for step_s in steps_s]
    states = np.zeros((edges_s.size, _N_STATES))
    states[0, _EXP_1 : _EXP_3 + 1] = 1.0
    for edge, step in enumerate(which):
        states[edge + 1] = moves[step] @ states[edge]
    area = (1.0 - tissue.vb) * states[:, _AREA_TISSUE]
    if split is None:
        area = area + tissue.vb * states[:, _AREA_BLOOD]
    # Edges before the arrival find the first one, where nothing has come yet.
    first, last = np.searchsorted(edges_s, frames.start_s), np.searchsorted(edges_s, frames.end_s)
    means: NDArray[np.float64] = (area[last] - area[first]) / (frames.duration_s / _SECONDS_PER_MINUTE)
    if split is not None:
        means += tissue.vb * split.frame_means(frames, replace(p, delay_s=arrival_s))
    return means


def _system(p: FengInput, tissue: Kinetics) -> NDArray[np.float64]:
    blood = np.zeros(_N_STATES)
    blood[[_T_EXP, _EXP_1, _EXP_2, _EXP_3]] = p.a1, -(p.a2 + p.a3), p.a2, p.a3
    matrix = np.zeros((_N_STATES, _N_STATES))
    matrix[_T_EXP, [_T_EXP, _EXP_1]] = -p.l1, 1.0
    matrix[_EXP_1, _EXP_1], matrix[_EXP_2, _EXP_2], matrix[_EXP_3, _EXP_3] = -p.l1, -p.l2, -p.l3
    matrix[_FREE] = tissue.K1 * blood
    matrix[_FREE, _FREE] = -(tissue.k2 + tissue.k3)
    matrix[_FREE, _BOUND] = tissue.k4
    matrix[_BOUND, [_FREE, _BOUND]] = tissue.k3, -tissue.k4
    matrix[_AREA_BLOOD] = blood
    matrix[_AREA_TISSUE, [_FREE, _BOUND]] = 1.0
    return matrix
