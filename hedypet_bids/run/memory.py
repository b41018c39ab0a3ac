"""How much memory a participant needs, estimated from headers before it is read."""

from __future__ import annotations

from pathlib import Path

from hedypet_bids import names
from hedypet_bids.inputs.roles import ParticipantInputs
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.store import Store
from hedypet_bids.labels import CT_TASKS
from hedypet_bids.settings import SegmentSettings
from hedypet_bids.steps.step import Tools
from hedypet_bids.tools import network_memory
from hedypet_bids.tools.totalsegmentator import models_of

# Measured (docs/engine.md): interpreter, libraries and compiled kernels, and bytes a voxel on top.
BASE_MB = 600.0
BYTES_PER_DYNAMIC_VOXEL = 20.0
BYTES_PER_VOXEL = 14.0


def participant_mb(
    inputs: ParticipantInputs, *, side_by_side: bool = False, segmentation_mb: float = 0.0
) -> float:
    """Memory that the steps of a participant need at most, MB, with the programs that they start.

    The dynamic series is streamed, so a few frames count, not their number.

    Parameters
    ----------
    side_by_side
        For branches of the study that run at the same time: the three spaces, each with its largest image.
    segmentation_mb
        What :func:`segmentation_mb` says; segmentation runs before everything else.

    Raises
    ------
    BadDataError
        An image has no readable header.
    """
    images = [*inputs.cts, *inputs.statics, *inputs.head_mrs, *inputs.body_mrs]
    space = max((BYTES_PER_VOXEL * _n_voxels(image.path) for image in images), default=0.0)
    series = BYTES_PER_DYNAMIC_VOXEL * _n_voxels(inputs.dynamic.path) if inputs.dynamic else 0.0
    at_once = max(space, series) + (2 * space if side_by_side else 0.0)
    return BASE_MB + max(at_once / 1e6, segmentation_mb)


def segmentation_mb(
    inputs: ParticipantInputs, tools: Tools, settings: SegmentSettings, store: Store
) -> float:
    """Memory of TotalSegmentator for the tasks that it still has to do, MB; SynthSeg's is not known."""
    tool, ct = tools.totalsegmentator, inputs.ct
    if tool is None or ct is None:
        return 0.0
    models = [
        model
        for task in CT_TASKS
        if task.name not in {*tools.without, *inputs.ready_segmentations}
        and not store.path(names.segmentation(ct, task.name)).is_file()
        for model in models_of(
            task.name, fast=settings.totalseg_fast, roi_subset=settings.totalseg_roi_subset
        )
    ]
    return network_memory.memory_mb(tool.weights, models, FrameReader(ct.path).grid)


def memory_limit_mb() -> float:
    """Memory that this process may have, MB: of the machine, or of the container or batch job."""
    # Imported here: it takes half a second, which a run of many participants does not need.
    from distributed.system import MEMORY_LIMIT

    return float(MEMORY_LIMIT) / 1e6


def _n_voxels(path: Path) -> int:
    return FrameReader(path).grid.n_voxels
