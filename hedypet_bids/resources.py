"""How much memory a participant needs, estimated from headers before it is read."""

from __future__ import annotations

from pathlib import Path

from hedypet_bids.io.frames import FrameReader
from hedypet_bids.io.participant_inputs import ParticipantInputs

# Measured (docs/engine.md): interpreter, libraries and compiled kernels, and bytes a voxel on top.
BASE_MB = 600.0
BYTES_PER_DYNAMIC_VOXEL = 20.0
BYTES_PER_VOXEL = 14.0


def participant_mb(inputs: ParticipantInputs, *, side_by_side: bool = False) -> float:
    """Memory that the steps of a participant need at most, MB.

    The dynamic series is streamed, so a few frames count, not their number. Programs that segment run in
    processes of their own and are not counted.

    Parameters
    ----------
    side_by_side
        For branches of the study that run at the same time: the three spaces, each with its largest image.

    Raises
    ------
    BadDataError
        An image has no readable header.
    """
    images = [*inputs.cts, *inputs.statics, *inputs.head_mrs, *inputs.body_mrs]
    space = max((BYTES_PER_VOXEL * _n_voxels(image.path) for image in images), default=0.0)
    series = BYTES_PER_DYNAMIC_VOXEL * _n_voxels(inputs.dynamic.path) if inputs.dynamic else 0.0
    at_once = max(space, series) + (2 * space if side_by_side else 0.0)
    return BASE_MB + at_once / 1e6


def memory_limit_mb() -> float:
    """Memory that this process may have, MB: of the machine, or of the container or batch job."""
    # Imported here: it takes half a second, which a run of many participants does not need.
    from distributed.system import MEMORY_LIMIT

    return float(MEMORY_LIMIT) / 1e6


def _n_voxels(path: Path) -> int:
    return FrameReader(path).grid.n_voxels
