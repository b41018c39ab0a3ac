"""Two-tissue fits with delay: every region of a participant, beside scipy's curve_fit of some of them.

The curves are those of eleven tissues with the noise of regions. ``curve_fit`` starts at the rates of a
common tissue, has the same weights and knows the bounds. It gets the model twice: as it is usually written,
with ``numpy.convolve`` on a grid of 0.5 s, and with hedypet's own exact frame means. Run with
``python -m benchmarks.compartments``; exit status 1 when all regions take more than 1 s, when a region is not
300 times as fast as the usual model, or when the error of K1 is worse.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from benchmarks.measure import print_machine
from hedypet_bids.kernels.kinetics.compartments import fit_compartments
from hedypet_bids.kernels.kinetics.input_curve import InputCurve
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom.kinetics import (
    Kinetics,
    hedypet_frames,
    input_function,
    scaled_feng_input,
    tissue_curve,
)

N_REGIONS, N_CONVOLVED, N_EXACT, REPEATS = 1036, 11, 110, 5
GRID_S = 0.5
LIMIT_S, LEAST_RATIO, NOISE = 1.0, 300.0, 0.005
ARRIVAL_S, HALF_LIFE_S = 17.3, 6586.2
# K1, k2, k3, vB, delay in s.
TISSUES = (
    (0.10, 0.13, 0.062, 0.05, 3.1),
    (0.054, 0.109, 0.045, 0.03, 4.3),
    (0.04, 0.30, 0.026, 0.03, 8.7),
    (0.75, 0.75, 0.003, 0.15, 6.2),
    (1.2, 1.6, 0.006, 0.20, 2.8),
    (1.5, 1.2, 0.02, 0.20, 1.3),
    (0.6, 1.2, 0.1, 0.20, 0.7),
    (0.4, 0.8, 0.03, 0.05, 5.1),
    (0.25, 0.5, 0.1, 0.10, 6.9),
    (0.02, 0.3, 0.01, 0.02, 12.3),
    (0.3, 0.5, 0.015, 0.05, 7.7),
)
START = (0.2, 0.4, 0.03, 0.05, 5.0)
LOW, HIGH = (0.0, 0.01, 0.0, 0.0, -10.0), (10.0, 8.0, 8.0, 1.0, 40.0)

Model = Callable[..., NDArray[np.float64]]


def main() -> int:
    """Exit status after printing times, biases and spreads."""
    print_machine()
    frames, late = hedypet_frames(), scaled_feng_input(8000.0, delay_s=ARRIVAL_S)
    blood = input_function(frames, late)
    weights = frames.duration_s * np.exp2(-frames.mid_s / HALF_LIFE_S)
    noiseless = []
    for K1, k2, k3, vb, delay_s in TISSUES:
        arrived = scaled_feng_input(8000.0, delay_s=ARRIVAL_S + delay_s, late_s=3600.0 + delay_s)
        noiseless.append(tissue_curve(frames, arrived, Kinetics(K1, k2, k3, vb)))
    which = np.arange(N_REGIONS) % len(TISSUES)
    sd = NOISE * np.array(noiseless)[which, -1:] * np.sqrt(weights[-1] / weights)
    curves = np.array(noiseless)[which] + sd * np.random.default_rng(0).normal(size=sd.shape)

    fit_compartments(curves[:20], blood[None], frames)  # compiled
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        ours = fit_compartments(curves, blood[None], frames).parameters("2TCM")
        times.append(time.perf_counter() - began)
    ours_s = float(np.median(times))

    print(f"{N_REGIONS} regions, 69 frames, 3 models: {ours_s:.2f} s ({min(times):.2f} to {max(times):.2f})")

    ratios, true = {}, np.array(TISSUES)[which, :1]
    print(f"hedypet: {1e3 * ours_s / N_REGIONS:.2f} ms a region, error of K1 {error(ours['K1'], true):.1%}")
    for name, (model, n) in {
        "convolve": (convolving(blood, frames), N_CONVOLVED),
        "exact": (exact(blood, frames), N_EXACT),
    }.items():
        began = time.perf_counter()
        found = np.array(
            [
                curve_fit(model, frames.mid_s, c, START, s, bounds=(LOW, HIGH), x_scale=START)[0]
                for c, s in zip(curves[:n], sd[:n], strict=True)
            ]
        )
        region_s = (time.perf_counter() - began) / n
        ratios[name] = region_s / (ours_s / N_REGIONS)
        errors = error(found[:, :1], true[:n]), error(ours["K1"][:n], true[:n])
        print(
            f"curve_fit, {name}: {1e3 * region_s:.0f} ms a region, {ratios[name]:.0f} times ours; "
            f"error of K1 in {n} regions {errors[0]:.1%}, ours {errors[1]:.1%}"
        )
        worse = errors[1] > 1.05 * errors[0]
    return int(ours_s > LIMIT_S or ratios["convolve"] < LEAST_RATIO or worse)


def error(found: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Root mean square of the relative error: bias and spread together."""
    return float(np.sqrt(np.mean((found / true - 1) ** 2)))


def exact(blood: NDArray[np.float64], frames: FrameTimes) -> Model:
    """The model with hedypet's frame means."""
    curve = InputCurve(blood, frames)

    def model(_t: object, K1: float, k2: float, k3: float, vb: float, delay_s: float) -> NDArray[np.float64]:
        a = k2 + k3
        tissue = K1 * k3 / a * curve.integral(delay_s) + K1 * k2 / a * curve.convolved(a, delay_s)
        mixed: NDArray[np.float64] = (1 - vb) * tissue + vb * curve.shifted(delay_s)
        return mixed

    return model


def convolving(blood: NDArray[np.float64], frames: FrameTimes) -> Model:
    """The model by numerical convolution of the same curve, and its means over the frames."""
    times, values = InputCurve(blood, frames).pieces[:2]
    grid = np.arange(0.0, frames.end_s[-1] + GRID_S, GRID_S) / 60

    def model(_t: object, K1: float, k2: float, k3: float, vb: float, delay_s: float) -> NDArray[np.float64]:
        late = np.interp(grid - delay_s / 60, times, values, left=0.0)
        response = K1 / (k2 + k3) * (k3 + k2 * np.exp(-(k2 + k3) * grid))
        response[0] /= 2  # trapezoids
        tissue = np.convolve(late, response)[: len(grid)] * GRID_S / 60
        mixed = (1 - vb) * tissue + vb * late
        area = np.concatenate([[0.0], np.cumsum((mixed[1:] + mixed[:-1]) / 2)]) * GRID_S
        ends = [np.interp(edges / 60, grid, area) for edges in (frames.start_s, frames.end_s)]
        means: NDArray[np.float64] = (ends[1] - ends[0]) / frames.duration_s
        return means

    return model


if __name__ == "__main__":
    sys.exit(main())
