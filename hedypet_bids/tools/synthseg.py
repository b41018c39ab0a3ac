"""SynthSeg: running FreeSurfer's ``mri_synthseg`` on a T1w image."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

from hedypet_bids.errors import BadDataError, HedypetError, MissingProgramError
from hedypet_bids.model import Grid
from hedypet_bids.tools.external import run_program
from hedypet_bids.tools.gpu import Reservation

SYNTHSEG = "mri_synthseg"
DEVICE_VARIABLE = "HEDYPET_SYNTHSEG_DEVICE"
"""``cpu`` in it says that the program can use no GPU, as in the container image."""
LOWEST_QC_SCORE = 0.65
"""Below it a segmentation failed (Billot et al., PNAS 2023;120(9):e2216399120)."""


# TensorFlow with the networks, and the volumes around them.
_BASE_MB = 2000.0
# The U-Net works on voxels of 1 mm, each axis filled up to a multiple of 32. Where it needs most it holds the
# feature maps of its first stage (24), those that come up from the second (48), and both together.
_FEATURE_MAPS, _BYTES_PER_FEATURE, _MULTIPLE = 144, 4, 32


@dataclass(frozen=True)
class SynthSeg:
    """SynthSeg on this machine."""

    program: Path
    device: str = "auto"


@dataclass(frozen=True)
class SynthSegRun:
    """What ``mri_synthseg`` measured: volumes in mm3 and quality scores (0 to 1) by name."""

    seconds: float
    device: str
    volumes_mm3: Mapping[str, float]
    qc_scores: Mapping[str, float]


def find_synthseg(given: Path | None = None) -> Path | None:
    """The executable as given, of FREESURFER_HOME or on PATH; None where there is none.

    Raises
    ------
    MissingProgramError
        The one given is not there or cannot be executed.
    """
    if given is not None:
        if not (given.is_file() and os.access(given, os.X_OK)):
            raise MissingProgramError(f"--mri-synthseg {given}: expected an executable file; there is none.")
        return given.resolve()
    home = os.environ.get("FREESURFER_HOME")
    beside = Path(home) / "bin" / SYNTHSEG if home else None
    if beside is not None and os.access(beside, os.X_OK):
        return beside
    found = shutil.which(SYNTHSEG)
    return Path(found) if found else None


def run_synthseg(
    tool: SynthSeg,
    t1w: Path,
    result: Path,
    *,
    robust: bool = True,
    threads: int = 1,
    timeout_s: float,
    log: Path,
    gpu: Reservation | None = None,
) -> SynthSegRun:
    """Segment a T1w image (NIfTI) with cortical parcels into ``result``, in the image's own grid.

    Parameters
    ----------
    gpu
        What is held for it, see :func:`hedypet_bids.tools.gpu.reserved`.

    Raises
    ------
    BadDataError
        A table it wrote cannot be read.
    MissingProgramError, ReadWriteError, TryAgainError, HedypetError
        As :func:`hedypet_bids.tools.external.run_program`.
    """
    volumes, scores = result.with_name("volumes.csv"), result.with_name("qc.csv")
    on_cpu = device_of(tool) == "cpu"
    command = [
        *(str(tool.program), "--i", str(t1w), "--o", str(result)),
        *("--vol", str(volumes), "--qc", str(scores), "--threads", str(threads)),
        *("--parc", "--keepgeom"),
        *(["--robust"] if robust else []),
        *(["--cpu"] if on_cpu else []),
    ]
    finished = run_program(
        command,
        title=SYNTHSEG,
        log=log,
        timeout_s=timeout_s,
        environment={**_environment(tool), **(gpu.environment if gpu else {})},
        handles=gpu.handles if gpu else (),
    )
    if not result.is_file():
        raise HedypetError(f"{SYNTHSEG} ended without a result; its log is {log}.")
    return SynthSegRun(
        finished.seconds, "cpu" if on_cpu else "gpu", _row_of_numbers(volumes), _row_of_numbers(scores)
    )


def device_of(tool: SynthSeg) -> str:
    """Where the program will run, in the words of ``--device``; ``cpu`` where it can use no GPU."""
    if os.environ.get(DEVICE_VARIABLE) == "cpu":
        return "cpu"
    # nvidia-smi comes with the driver; SynthSeg's own TensorFlow cannot be asked from here.
    if tool.device == "auto" and shutil.which("nvidia-smi") is None:
        return "cpu"
    return tool.device


def synthseg_mb(tool: SynthSeg, t1w: Grid) -> float:
    """Memory (MB) that the program needs at least for a T1w image on this grid.

    Examples
    --------
    >>> import numpy as np
    >>> head = Grid((192, 256, 192), np.eye(4))
    >>> round(synthseg_mb(SynthSeg(Path("mri_synthseg"), "cpu"), head))
    7436
    """
    if device_of(tool) != "cpu":
        return _BASE_MB  # the maps are in the memory of the GPU
    voxels = prod(ceil(mm / _MULTIPLE) * _MULTIPLE for mm in t1w.voxel_sizes_mm * t1w.shape)
    return float(_BASE_MB + _FEATURE_MAPS * _BYTES_PER_FEATURE * voxels / 1e6)


def _environment(tool: SynthSeg) -> dict[str, str]:
    environment = {}
    if "FREESURFER_HOME" not in os.environ:
        environment["FREESURFER_HOME"] = str(tool.program.parent.parent)
    if ":" in tool.device:
        environment["CUDA_VISIBLE_DEVICES"] = tool.device.partition(":")[2]
    return environment


def _row_of_numbers(path: Path) -> dict[str, float]:
    """The one row of a table whose first column names the image."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, row = list(csv.reader(file))[:2]
        return {name.strip(): float(text) for name, text in zip(header[1:], row[1:], strict=True)}
    except (OSError, ValueError) as fault:
        raise BadDataError(
            f"{SYNTHSEG} wrote no readable {path.name}: expected a header and one row of numbers; {fault}."
        ) from fault
