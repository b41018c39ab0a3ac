"""How much memory a participant needs, estimated from headers before it is read."""

from __future__ import annotations

from pathlib import Path

from hedypet_bids import names
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.io.store import Store
from hedypet_bids.labels import CT_TASKS
from hedypet_bids.model import Scan, Subject
from hedypet_bids.names import Source
from hedypet_bids.settings import SegmentSettings
from hedypet_bids.steps.segment import PARCELS
from hedypet_bids.steps.step import Tools
from hedypet_bids.tools import network_memory, synthseg
from hedypet_bids.tools.synthseg import SynthSeg
from hedypet_bids.tools.totalsegmentator import MR_NETWORKS, TotalSegmentator, models_of_task

# Measured (docs/engine.md): interpreter, libraries and compiled kernels, and bytes a voxel on top.
BASE_MB = 650.0
BYTES_PER_DYNAMIC_VOXEL = 20.0
BYTES_PER_VOXEL = 14.0
# Maps of models that need the body's voxels in all frames: of a slab, at most so many, and of the grid.
BYTES_PER_FITTED_VOXEL, MOST_FITTED_MB, BYTES_PER_MAPPED_VOXEL = 400.0, 600.0, 6.0


def participant_mb(
    subject: Subject, *, side_by_side: bool = False, segmentation_mb: float = 0.0, body_maps: bool = False
) -> float:
    """Memory that the steps of a participant need at most, MB, with the programs that they start.

    The dynamic series is streamed, so a few frames count, not their number.

    Parameters
    ----------
    side_by_side
        For steps that run at the same time: three images at most, of which one may be the series.
    segmentation_mb
        What :func:`segmentation_mb` says; segmentation runs before everything else.
    body_maps
        Whether a model makes maps of the body's voxels in all frames (``KineticModel.of_body``).

    Raises
    ------
    BadDataError
        An image has no readable header.
    """
    scans = subject.scans
    images = {i for s in scans for i in (*s.cts, *s.statics, *s.head_mrs, *s.body_mrs)}
    series = [_series_bytes(_n_voxels(s.dynamic.path), body_maps=body_maps) for s in scans if s.dynamic]
    space = max((BYTES_PER_VOXEL * _n_voxels(image.path) for image in images), default=0.0)
    at_once = max([space, *series]) + (2 * space if side_by_side else 0.0)
    return BASE_MB + max(at_once / 1e6, segmentation_mb)


def segmentation_mb(subject: Subject, tools: Tools, settings: SegmentSettings, store: Store) -> float:
    """Memory of TotalSegmentator or SynthSeg for the tasks that they still have to do, MB."""
    needed_mb = [0.0]
    for scan in subject.scans:
        if tools.totalsegmentator is not None:
            needed_mb.append(_network_mb(scan, tools.totalsegmentator, tools, settings, store))
        if tools.synthseg is not None and scan.head_mr is not None:
            needed_mb.append(_synthseg_mb(scan, scan.head_mr, tools.synthseg, store))
    return max(needed_mb)


def _synthseg_mb(scan: Scan, t1w: Source, tool: SynthSeg, store: Store) -> float:
    made = store.path(names.segmentation(t1w, PARCELS.name)).is_file()
    if made or PARCELS.name in scan.ready_segmentations:
        return 0.0
    return synthseg.synthseg_mb(tool, FrameReader(t1w.path).grid)


def _network_mb(
    scan: Scan, tool: TotalSegmentator, tools: Tools, settings: SegmentSettings, store: Store
) -> float:
    image = scan.ct or scan.body_image
    if image is None or image.suffix == names.PET_SUFFIX:
        return 0.0
    networks = {task.name: task.name for task in CT_TASKS} if scan.ct else MR_NETWORKS
    models = [
        model
        for task, network in networks.items()
        if network not in tools.without
        and task not in scan.ready_segmentations
        and not store.path(names.segmentation(image, task)).is_file()
        for model in models_of_task(
            network, fast=settings.totalseg_fast, roi_subset=settings.totalseg_roi_subset
        )
    ]
    grid = FrameReader(image.path).grid
    needed_mb = network_memory.networks_mb(tool.weights, models, grid)
    # The step that takes the labels of one task runs beside the network of the next.
    return needed_mb + BYTES_PER_VOXEL * grid.n_voxels / 1e6 if needed_mb else 0.0


def memory_limit_mb() -> float:
    """Memory that this process may have, MB: of the machine, or of the container or batch job."""
    # Imported here: it takes half a second, which a run of many participants does not need.
    from distributed.system import MEMORY_LIMIT

    return float(MEMORY_LIMIT) / 1e6


def _series_bytes(n_voxels: int, *, body_maps: bool) -> float:
    """What the steps on a series need, of which one runs at a time."""
    slab = min(BYTES_PER_FITTED_VOXEL * n_voxels, 1e6 * MOST_FITTED_MB)
    maps = slab + BYTES_PER_MAPPED_VOXEL * n_voxels if body_maps else 0.0
    return max(BYTES_PER_DYNAMIC_VOXEL * n_voxels, maps)


def _n_voxels(path: Path) -> int:
    return FrameReader(path).grid.n_voxels
