"""Time of all Patlak fits of a study: 80 participants, 500 regions, 12 input functions, 7 windows.

Run with ``python benchmarks/patlak.py``; exit status 1 when it takes more than 5 s of compute.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from hedypet_bids.kernels.kinetics.patlak import Window, fit_patlak
from hedypet_bids.model import FrameTimes

N_PARTICIPANTS, N_REGIONS, N_INPUTS = 80, 500, 12
WINDOWS = tuple(Window(last_frames=n) for n in range(2, 9))
LIMIT_S = 5.0

# hedyPET's framing: 69 frames in 70 min.
DURATIONS_S = np.repeat([2.0, 5, 10, 60, 120, 300], [20, 10, 15, 6, 10, 8])


def main() -> int:
    """Exit status after printing the time of each integration rule."""
    frames = FrameTimes(start_s=np.cumsum(DURATIONS_S) - DURATIONS_S, duration_s=DURATIONS_S)
    rng = np.random.default_rng(0)
    curves = rng.uniform(100, 5000, (N_REGIONS, len(frames)))
    inputs = rng.uniform(500, 2000, (N_INPUTS, len(frames)))
    n_fits = N_PARTICIPANTS * N_REGIONS * N_INPUTS * len(WINDOWS)
    slowest_s = 0.0
    for rule in ("simpson", "frames"):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        for _ in range(N_PARTICIPANTS):
            fit_patlak(curves, inputs, frames, windows=WINDOWS, rule=rule)
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        print(f"{rule}: {n_fits} fits in {wall_s:.2f} s ({cpu_s:.2f} s of processor time)")
        slowest_s = max(slowest_s, cpu_s)
    return int(slowest_s > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
