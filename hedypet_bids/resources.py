"""How much memory a participant needs, estimated from headers before it is read."""

from __future__ import annotations

from pathlib import Path

from hedypet_bids.io.frames import FrameReader
from hedypet_bids.io.participant_inputs import ParticipantInputs

# Measured (docs/engine.md): interpreter, libraries and compiled kernels, and bytes a voxel on top.
BASE_MB = 600.0
BYTES_PER_DYNAMIC_VOXEL = 20.0
BYTES_PER_VOXEL = 14.0


def participant_mb(inputs: ParticipantInputs) -> float:
    """Memory that the steps of a participant need at most, MB.

    The dynamic series is streamed, so a few frames count, not their number. Programs that segment run in
    processes of their own and are not counted.

    Raises
    ------
    BadDataError
        An image has no readable header.
    """
    images = [*inputs.cts, *inputs.statics, *inputs.head_mrs, *inputs.body_mrs]
    needs = [BYTES_PER_VOXEL * _n_voxels(image.path) for image in images]
    if inputs.dynamic is not None:
        needs.append(BYTES_PER_DYNAMIC_VOXEL * _n_voxels(inputs.dynamic.path))
    return BASE_MB + max(needs, default=0.0) / 1e6


def _n_voxels(path: Path) -> int:
    return FrameReader(path).grid.n_voxels
