"""Two-tissue maps: voxels a second and core, and the map of a whole series against its decompression.

    python -m benchmarks.voxel_compartments [--series FILE] [--repeats 3]
    python -m benchmarks.voxel_compartments --memory [--dir FOLDER]

Voxels are those of eleven tissues with noise. ``--series`` names a dynamic image, with its frame times in the
JSON file beside it, of which the body is taken to be what the last frames show, and blood what peaks first.
``--memory`` shows the peak memory of the maps at full spatial size, whose frames are read from a file. Exit
status 1 when fewer than 50 kvoxel/s are fitted with a delay that is free, or 150 near a known one, or when
the map of the series takes more than 8 times its decompression, all in processors' time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks import series
from benchmarks.compartments import ARRIVAL_S, HALF_LIFE_S, TISSUES
from benchmarks.measure import peak_mb, print_machine
from hedypet_bids.io.frame_copy import FrameCopy
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.kernels.kinetics.body_voxels import BodyVoxels, body_maps
from hedypet_bids.kernels.kinetics.input_curve import InputCurve
from hedypet_bids.kernels.kinetics.voxel_compartments import (
    curve_space,
    fit_voxels,
    weighted_sums_of_frames,
)
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom.kinetics import (
    Kinetics,
    hedypet_frames,
    input_function,
    scaled_feng_input,
    tissue_curve,
)

N_VOXELS, NOISE = 55_000, 0.07
LEAST_FREE, LEAST_NEAR, MOST_DECOMPRESSIONS = 50.0, 150.0, 8.0
# Of the mean of the last frames: what is body. Of the voxels that are highest in the frame of the peak.
BODY, N_BLOOD = 0.1, 100


def main() -> int:
    """Exit status after printing speeds, or peak memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", type=Path)
    parser.add_argument("--dir", type=Path, help="folder for the data of --memory")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    print_machine()
    if args.memory:
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            print_memory(Path(folder))
        return 0
    slow = print_speeds(args.repeats)
    return int((args.series is not None and print_series(args.series, args.repeats)) or slow)


def print_speeds(repeats: int) -> bool:
    """Whether fewer voxels a second are fitted than should be, in one thread."""
    frames, curves, delays = hedypet_frames(), [], []
    for K1, k2, k3, vb, delay_s in TISSUES:
        late = scaled_feng_input(8000.0, delay_s=ARRIVAL_S + delay_s, late_s=3600.0 + delay_s)
        curves.append(tissue_curve(frames, late, Kinetics(K1, k2, k3, vb)))
        delays.append(delay_s)
    which = np.arange(N_VOXELS) % len(TISSUES)
    weights = frames.duration_s * np.exp2(-frames.mid_s / HALF_LIFE_S)
    voxels = np.array(curves)[which]
    sd = NOISE * voxels[:, -1:] * np.sqrt(weights[-1] / weights)
    voxels += sd * np.random.default_rng(0).normal(size=voxels.shape)
    values = np.ascontiguousarray(voxels.T, dtype=np.float32)

    blood = input_function(frames, scaled_feng_input(8000.0, delay_s=ARRIVAL_S))
    space = curve_space(InputCurve(blood, frames))
    sums, near_s = weighted_sums_of_frames(values, space.weights), np.array(delays)[which]
    contenders: dict[str, tuple[Callable[[], object], float]] = {
        f"{space.n_sums} sums of {len(frames)} frames": (
            lambda: weighted_sums_of_frames(values, space.weights),
            0.0,
        ),
        "fit, delay free": (lambda: fit_voxels(sums, space), LEAST_FREE),
        "fit, near a delay": (lambda: fit_voxels(sums, space, near_s=near_s), LEAST_NEAR),
    }
    slow = False
    for name, (work, least) in contenders.items():
        work()  # compiled
        speed = N_VOXELS / 1e3 / median(_seconds(work)[1] for _ in range(repeats))
        slow = slow or speed < least
        print(f"{name}: {speed:.0f} kvoxel/s and core")
    return slow


def print_series(path: Path, repeats: int) -> bool:
    """Whether the map of a series, in all threads, takes too long against its decompression."""
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    frames = FrameTimes(sidecar["FrameTimesStart"], sidecar["FrameDuration"])
    reader, threads = FrameReader(path), os.cpu_count() or 1
    curve, voxels = _blood_and_body(reader)
    with tempfile.TemporaryDirectory() as folder:
        copy = FrameCopy()
        for _ in copy.passing(reader.frames(), range(len(frames)), Path(folder), voxels=voxels):
            pass
        body = BodyVoxels(
            reader.grid.shape,
            reader.grid.voxel_sizes_mm,
            voxels,
            np.ones(len(frames)),
            lambda _first, _last: copy.piece,
        )

        def mapped() -> None:
            body_maps(body, curve_space(InputCurve(curve, frames)), fwhm_mm=6.0, threads=threads)

        def decompressed() -> None:
            for _ in reader.chunks():
                pass

        mapped()  # compiled
        pairs = [(_seconds(decompressed), _seconds(mapped)) for _ in range(repeats)]
        copy.close()
    (once_s, once), (whole_s, whole) = (
        map(median, zip(*times, strict=True)) for times in zip(*pairs, strict=True)
    )
    print(
        f"{voxels.size / 1e3:.0f} kvoxel of {path.name} in {threads} threads: {whole_s:.1f} s, decompression "
        f"{once_s:.2f} s ({whole_s / once_s:.1f} times); of processors' time {whole:.1f} s, "
        f"{whole / once:.1f} times"
    )
    return whole > MOST_DECOMPRESSIONS * once


def _blood_and_body(reader: FrameReader) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """A curve of blood, and the voxels of the body."""
    late, highest, bright = np.zeros(reader.grid.n_voxels), 0.0, np.empty(0, dtype=np.intp)
    for index, frame in reader.frames():
        flat = frame.reshape(-1, order="F")
        if index >= reader.n_frames - 4:
            late += flat
        top = np.argpartition(flat, -N_BLOOD)[-N_BLOOD:]
        if flat[top].mean() > highest and index < reader.n_frames // 2:
            highest, bright = float(flat[top].mean()), top
    curve = np.array([frame.reshape(-1, order="F")[bright].mean() for _, frame in reader.frames()])
    return curve.astype(np.float64), np.flatnonzero(late > BODY * late[late > 0].mean())


def print_memory(folder: Path) -> None:
    """Print the peak memory before and after the maps of a body at full size."""
    frames, grid = hedypet_frames(), series.grid_of(series.FULL_SIZE)
    voxels = np.flatnonzero(next(series.frames(series.FULL_SIZE, 1)).reshape(-1, order="F") > 0)
    blood = input_function(frames, scaled_feng_input(8000.0, delay_s=ARRIVAL_S))
    brain = tissue_curve(frames, scaled_feng_input(8000.0, delay_s=20.0), Kinetics(0.1, 0.13, 0.06, 0.05))
    rng, path = np.random.default_rng(0), folder / "body"
    with path.open("wb") as file:
        for value in brain:
            file.write((value * (1 + 0.2 * rng.standard_normal(voxels.size, np.float32))).astype(np.float32))

    def read(frame: int, start: int, stop: int) -> NDArray[np.float32]:
        offset = 4 * (frame * voxels.size + start)
        return np.fromfile(path, np.float32, stop - start, offset=offset)

    body = BodyVoxels(
        grid.shape, grid.voxel_sizes_mm, voxels, np.ones(len(frames)), lambda _first, _last: read
    )
    space, threads = curve_space(InputCurve(blood, frames)), os.cpu_count() or 1
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_mb()
    took, _ = _seconds(lambda: body_maps(body, space, fwhm_mm=6.0, threads=threads))
    print(
        f"{voxels.size / 1e6:.1f} Mvoxel in {took:.0f} s and {threads} threads: peak memory {before:.0f} MB "
        f"before, {peak_mb():.0f} MB with the maps"
    )


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Time that the work took, and processors' time, to which other programs add less."""
    began, began_processing = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - began_processing


if __name__ == "__main__":
    sys.exit(main())
