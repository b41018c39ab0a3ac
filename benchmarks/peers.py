"""Voxel fits beside named peers: SRTM by basis functions (NiftyPAD) and Patlak (nifti_dynamic).

    python -m benchmarks.peers [--voxels 100000] [--peer-voxels 1000] [--repeats 3]

The curves are exact but for noise, so that the error of each is known as well. NiftyPAD fits a voxel at a
time, with its own 40 basis functions and the same weights; it is no dependency (``pip install --no-deps
niftypad``), and without it its row is left out. Exit status 1 when Ki differs from nifti_dynamic's, or a peer
is faster a voxel or has an error of BPND that is 5 % smaller.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median

import numpy as np
from nifti_dynamic.patlak import roi_patlak
from numpy.typing import NDArray

from benchmarks.measure import print_machine
from hedypet_bids.kernels.kinetics import SRTM
from hedypet_bids.kernels.kinetics.patlak import Window, fit_patlak
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom.kinetics import (
    Kinetics,
    hedypet_frames,
    input_function,
    scaled_feng_input,
    tissue_curve,
)
from hedypet_bids.settings import Settings

LAST_FRAMES = 8
# Relative standard deviation of a voxel in a frame of 5 min.
NOISE = 0.05
REFERENCE = Kinetics(0.10, 0.25, 0.0, 0.0)
N_TISSUES, SLAB = 40, 10_000
MOST_DIFFERENCE = 1e-9
# Of NiftyPAD: its lowest and highest rate, 1/s, and how many.
RATES_PER_S, N_RATES = [0.01 / 60, 0.3 / 60], 40


@dataclass(frozen=True)
class Data:
    """Curves of voxels, Bq/mL, shape (n_voxels, n_frames), and their true BPND."""

    frames: FrameTimes
    blood: NDArray[np.float64]
    reference: NDArray[np.float64]
    curves: NDArray[np.float64]
    bp_nd: NDArray[np.float64]


def main() -> int:
    """Exit status after printing times, ratios and differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--voxels", type=int, default=100_000)
    parser.add_argument("--peer-voxels", type=int, default=1_000, help="that NiftyPAD fits")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print_machine()
    data = simulated(args.voxels)
    return max(patlak(data, args.repeats), srtm(data, args.peer_voxels, args.repeats))


def simulated(n_voxels: int) -> Data:
    """Voxels of tissues with one compartment, for which SRTM is exact, with noise."""
    frames, feng = hedypet_frames(), scaled_feng_input(8000.0)
    rng = np.random.default_rng(0)
    r1, bp_nd = rng.uniform(0.7, 1.3, N_TISSUES), rng.uniform(0.2, 3.0, N_TISSUES)
    vt = REFERENCE.vt * (1 + bp_nd)
    K1 = REFERENCE.K1 * r1
    tissues = np.array(
        [tissue_curve(frames, feng, Kinetics(k, k / v, 0.0, 0.0)) for k, v in zip(K1, vt, strict=True)]
    )
    which = np.arange(n_voxels) % N_TISSUES
    sd = NOISE * tissues[which, -1:] * np.sqrt(frames.duration_s[-1] / frames.duration_s)
    curves = tissues[which] + sd * rng.normal(size=sd.shape)
    blood = input_function(frames, feng)
    return Data(frames, blood, tissue_curve(frames, feng, REFERENCE), curves, bp_nd[which])


def patlak(data: Data, repeats: int) -> int:
    """Compare the slope and intercept of every voxel with those of nifti_dynamic."""
    windows, mid_s = [Window(last_frames=LAST_FRAMES)], data.frames.mid_s
    (ours_s, peer_s), (ours, peer) = timed(
        repeats,
        lambda: fit_patlak(data.curves, data.blood, data.frames, windows=windows, rule="simpson"),
        lambda: roi_patlak(data.curves, data.blood, mid_s, LAST_FRAMES),
    )
    difference = float(np.abs(ours.ki[:, 0, 0] - peer[0]).max() / np.abs(peer[0]).max())
    print(
        f"Patlak, {len(data.curves)} curves: hedypet {ours_s:.2f} s with standard errors and R2, "
        f"nifti_dynamic {peer_s:.2f} s ({peer_s / ours_s:.1f} x); largest difference of Ki {difference:.1e} "
        "of the largest"
    )
    return int(difference > MOST_DIFFERENCE or peer_s < ours_s)


def srtm(data: Data, n_peer: int, repeats: int) -> int:
    """Compare BPND of every voxel with that of NiftyPAD's voxel loop."""
    if find_spec("niftypad") is None:
        print("SRTM: left out; NiftyPAD is not installed (pip install --no-deps niftypad)")
        return 0
    (ours_s, peer_s), (ours, peer) = timed(repeats, lambda: ours_of(data), lambda: niftypad_of(data, n_peer))
    ours_each, peer_each = ours_s / len(data.curves), peer_s / n_peer
    errors = [
        float(np.sqrt(np.nanmean((found[:n_peer] / data.bp_nd[:n_peer] - 1) ** 2))) for found in (ours, peer)
    ]
    lost = int(np.isnan(ours[:n_peer]).sum())
    ratio, difference = peer_each / ours_each, float(np.nanmedian(np.abs(ours[:n_peer] - peer)))
    print(
        f"SRTM: hedypet {len(data.curves)} voxels, {1e-3 / ours_each:.1f} kvoxel/s with standard errors; "
        f"NiftyPAD {n_peer} voxels, {1e-3 / peer_each:.2f} kvoxel/s ({ratio:.0f} x); error of BPND "
        f"{errors[0]:.2%} and {errors[1]:.2%}, median difference {difference:.4f}; n/a {lost}"
    )
    return int(peer_each < ours_each or 1.05 * errors[1] < errors[0])


def ours_of(data: Data) -> NDArray[np.float64]:
    """BPND of every voxel, in slabs."""
    slabs = np.array_split(data.curves, -(-len(data.curves) // SLAB))
    fits = [SRTM().fit(slab, data.reference[None], data.frames, Settings()) for slab in slabs]
    return np.concatenate([np.asarray(fit.values["BPND"])[:, 0, 0] for fit in fits])


def niftypad_of(data: Data, n_voxels: int) -> NDArray[np.float64]:
    """BPND of some voxels by NiftyPAD's own steps: the reference each second, bases, one voxel at a time."""
    from niftypad import basis, tac

    times = np.array([data.frames.start_s, data.frames.end_s]).astype(int)
    reference = tac.Ref(data.reference.copy(), times)
    reference.interp_1()
    weights = np.sqrt(data.frames.duration_s)
    bases = basis.make_basis(reference.inputf1, times, beta_lim=RATES_PER_S, n_beta=N_RATES, w=weights)
    found = []
    for curve in data.curves[:n_voxels]:
        voxel = tac.TAC(curve.copy(), times)
        voxel.run_model("srtmb_basis", {"b": bases})
        found.append(voxel.km_results["bp"])
    return np.array(found)


def timed(repeats: int, *works: Callable[[], object]) -> tuple[list[float], list]:
    """Median seconds and last result of each, run in turn."""
    seconds: list[list[float]] = [[] for _ in works]
    results: list = [None for _ in works]
    for _ in range(repeats):
        for number, work in enumerate(works):
            began = time.perf_counter()
            results[number] = work()
            seconds[number].append(time.perf_counter() - began)
    return [median(each) for each in seconds], results


if __name__ == "__main__":
    sys.exit(main())
