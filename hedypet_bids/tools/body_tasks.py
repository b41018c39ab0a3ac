"""TotalSegmentator's tasks of one image, one network after the other in one process.

What is done before and after a network is what TotalSegmentator does (its ``nnUNet_predict_image``), by its
own tables and functions; resampling is ours, and gives the same voxels. The image is turned and resampled
once for all tasks, and the next network is loaded while one runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from nnunetv2.utilities.file_path_utilities import convert_trainer_plans_config_to_identifier
from numpy.typing import NDArray
from totalsegmentator.cropping import get_bbox_from_mask
from totalsegmentator.map_to_binary import (
    class_map,
)
from totalsegmentator.postprocessing import (
    keep_largest_blob_multilabel,
    remove_auxiliary_labels,
    remove_small_blobs_multilabel,
)
from totalsegmentator.python_api import get_task_config

from hedypet_bids.kernels.resampling.zoom import zoom_linear, zoom_nearest
from hedypet_bids.tools.nnunet import (
    CONFIGURATION,
    Clock,
    Network,
    NetworkInput,
    Way,
    fault_of_network,
    first_that_fits,
    load,
)
from hedypet_bids.tools.totalsegmentator import MODELS, MR_ROUGH_MODEL, ROUGH_MODEL

# TotalSegmentator's own numbers (its nnunet.py and python_api.py).
_TILE_STEP = {"total": 0.8, "total_mr": 0.8}
_OTHER_TILE_STEP = 0.5
_ROUGH = {
    "total": (ROUGH_MODEL, "nnUNetTrainer_4000epochs_NoMirroring"),
    "total_mr": (MR_ROUGH_MODEL, "nnUNetTrainer_2000epochs_NoMirroring"),
}
_ROUGH_MARGIN_MM = 20
_SMALLEST_EXTREMITY_MM3 = 50_000
_THIRDS_ABOVE_VOXELS = 512 * 512 * 900
_THIRDS_ABOVE_PLANES = 200
_THIRDS_MARGIN = 20


_MODELS = {model.number: model for model in MODELS}


@dataclass(frozen=True)
class Part:
    """One network of a task."""

    number: int
    folder: Path
    spacing_mm: float
    tile_step: float


@dataclass(frozen=True)
class BodyTask:
    """A task as TotalSegmentator's tables describe it.

    Parameters
    ----------
    name
        TotalSegmentator's.
    rough
        The network that finds where a subset of regions is.
    """

    name: str
    parts: tuple[Part, ...]
    several: bool
    roi_subset: frozenset[str] = frozenset()
    rough: Part | None = None

    @classmethod
    def of(cls, weights: Path, name: str, *, fast: bool, roi_subset: Iterable[str] | None) -> BodyTask:
        """What TotalSegmentator would run; it ends the interpreter where a licence is missing."""
        config = get_task_config(name, fast=fast, quiet=True)
        several = isinstance(config["task_id"], list)
        numbers = config["task_id"] if several else [config["task_id"]]
        wanted = frozenset(roi_subset or ())
        if several and wanted:
            numbers = [n for n in numbers if wanted & set(_MODELS[n].regions.values())]
        step = _TILE_STEP.get(name, _OTHER_TILE_STEP)
        parts = tuple(_part(weights, n, config["trainer"], config["resample"], step) for n in numbers)
        rough = None
        if wanted:
            model, trainer = _ROUGH[name]
            rough = _part(weights, model.number, trainer, model.spacing_mm, step)
        return cls(name, parts, several, wanted, rough)

    @property
    def networks(self) -> tuple[Part, ...]:
        """All of its networks in the order of their runs."""
        return (*([self.rough] if self.rough else []), *self.parts)

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong with the weights of its networks, by folder name."""
        found = {part.folder.parent.name: fault_of_network(part.folder) for part in self.networks}
        return {folder: fault for folder, fault in found.items() if fault}


def _part(weights: Path, number: int, trainer: str, spacing_mm: float, tile_step: float) -> Part:
    kind = convert_trainer_plans_config_to_identifier(trainer, "nnUNetPlans", CONFIGURATION)
    return Part(number, weights / _MODELS[number].folder / kind, spacing_mm, tile_step)


@dataclass(frozen=True)
class _Resampled:
    """An image at the resolution of a network: axes turned towards right, anterior and superior."""

    turned_shape: tuple[int, ...]
    whole: NetworkInput

    def seen_at_once(self, is_large: bool) -> list[tuple[NetworkInput, slice, slice]]:
        """What a network sees, which planes of its labels count, and where they belong."""
        n_planes = len(self.whole.voxels)
        if not is_large or n_planes <= _THIRDS_ABOVE_PLANES:
            return [(self.whole, slice(None), slice(None))]
        third, margin = n_planes // 3, _THIRDS_MARGIN
        return [
            (NetworkInput(self.whole.voxels[seen], self.whole.spacing_mm), kept, into)
            for seen, kept, into in (
                (slice(third + margin), slice(third), slice(third)),
                (
                    slice(third + 1 - margin, 2 * third + margin),
                    slice(margin - 1, margin - 1 + third),
                    slice(third, 2 * third),
                ),
                (slice(2 * third + 1 - margin, None), slice(margin - 1, None), slice(2 * third, None)),
            )
        ]


class BodyTasks:
    """The tasks of a CT, or of an MR of the body.

    Parameters
    ----------
    image
        A three-dimensional NIfTI file.
    device
        ``cpu`` or ``cuda:N``.
    gpu_mem_mb
        GPU memory that may be used; None: what is free.
    """

    def __init__(
        self,
        image: Path,
        tasks: Sequence[BodyTask],
        clock: Clock,
        *,
        device: torch.device,
        threads: int,
        gpu_mem_mb: float | None = None,
        thirds_above_voxels: int = _THIRDS_ABOVE_VOXELS,
    ) -> None:
        clock.begin("read")
        self.remarks: list[str] = []
        self.ways: list[Way] = []
        stored = nib.load(image)
        self._image = nib.Nifti1Image(np.asanyarray(stored.dataobj), stored.affine)
        self._clock, self._device, self._threads, self._gpu_mem_mb = clock, device, threads, gpu_mem_mb
        self._thirds_above_voxels = thirds_above_voxels
        self._resampled: dict[float, _Resampled] = {}
        self._ahead = _Ahead([part for task in tasks for part in task.networks])

    def labels(self, task: BodyTask) -> NDArray[np.uint8]:
        """The labels of a task on the grid of the image, in TotalSegmentator's numbers."""
        self.remarks.clear()
        self.ways.clear()
        if task.rough is None:
            return self._on_whole(task.name, task.parts, task.several)
        numbers = [number for number, name in class_map[task.name].items() if name in task.roi_subset]
        mask = np.isin(self._on_whole(task.name, (task.rough,), False), numbers)
        labels = np.zeros(mask.shape, np.uint8)
        if mask.any():
            image, box = _cropped(self._image, mask)
            resampled = self._at(image, task.parts[0].spacing_mm)
            found = self._found(image, resampled, task.name, task.parts, task.several)
            labels[box] = found * np.isin(found, numbers)
        return labels

    def _on_whole(self, name: str, parts: Sequence[Part], several: bool) -> NDArray[np.uint8]:
        spacing_mm = parts[0].spacing_mm
        if spacing_mm not in self._resampled:
            self._resampled[spacing_mm] = self._at(self._image, spacing_mm)
        return self._found(self._image, self._resampled[spacing_mm], name, parts, several)

    def _at(self, image: Any, spacing_mm: float) -> _Resampled:
        """An image as networks of a resolution see it."""
        self._clock.begin("resample")
        turned = nib.as_closest_canonical(image)
        voxels, zooms = np.asanyarray(turned.dataobj), np.array(turned.header.get_zooms())
        affine = turned.affine.copy()
        if not np.array_equal(zooms, [spacing_mm] * 3):
            factors = zooms / np.array([spacing_mm] * 3)
            voxels = zoom_linear(voxels, factors, threads=self._threads)
            affine[:3, :3] /= factors
        x, y, z = (float(mm) for mm in voxel_sizes(affine).astype(np.float32))
        return _Resampled(turned.shape, NetworkInput(np.ascontiguousarray(voxels.T), (z, y, x)))

    def _found(
        self, image: Any, resampled: _Resampled, name: str, parts: Sequence[Part], several: bool
    ) -> NDArray[np.uint8]:
        """The labels of an image on its grid."""
        labels = np.zeros(resampled.whole.voxels.shape, np.uint8)
        is_large = several and labels.size > self._thirds_above_voxels
        for part in parts:
            self._clock.begin("load")
            network = self._ahead.take(part)
            for volume, kept, into in resampled.seen_at_once(is_large):
                found = self._run(network, volume)[kept]
                found = _numbers_of_part(part.number, name)[found] if several else found
                np.copyto(labels[into], found, where=found != 0)
        self._clock.begin("post-process")
        # Axes x, y, z in Fortran order, as those of an image that was read from disk.
        labels = _post_processed(labels.T, resampled.whole.spacing_mm, name)
        self._clock.begin("back")
        turned = zoom_nearest(labels, resampled.turned_shape)
        ras, own = nib.orientations.axcodes2ornt("RAS"), nib.orientations.io_orientation(image.affine)
        turn = nib.orientations.ornt_transform(ras, own)
        back: NDArray[np.uint8] = nib.orientations.apply_orientation(turned, turn)
        return back

    def _run(self, network: Network, volume: NetworkInput) -> NDArray[np.uint8]:
        labels, way = first_that_fits(
            self._ways(network, volume),
            lambda way: network.labels(volume, device=way.device, planes=way.planes, clock=self._clock),
            self.remarks.append,
        )
        self.ways.append(way)
        self._device = way.device
        return labels

    def _ways(self, network: Network, volume: NetworkInput) -> list[Way]:
        size = network.size
        # More planes at once were not faster on the processor, whose memory others want as well.
        ways = [Way(torch.device("cpu"), size.tile[0])]
        if self._device.type == "cuda":
            try:
                free_mb = torch.cuda.mem_get_info(self._device)[0] / 1e6
            except RuntimeError:
                free_mb = 0.0  # the GPU is gone: its first use says so, and the processor takes over
            n_planes, *plane = volume.voxels.shape
            many = size.planes_within(min(free_mb, self._gpu_mem_mb or free_mb), (plane[0], plane[1]))
            at_once = dict.fromkeys((min(many, max(n_planes, size.tile[0])), size.tile[0]))
            ways = [*(Way(self._device, planes) for planes in at_once), *ways]
        return ways


class _Ahead:
    """Networks in the order of their use, the next one loaded while one is in use."""

    def __init__(self, order: Sequence[Part]) -> None:
        self._order = list(order)
        self._pool = ThreadPoolExecutor(1, "hedypet-load")
        self._loading: dict[Part, Future[Network]] = {}
        self._begin(0)

    def take(self, part: Part) -> Network:
        position = self._order.index(part)
        # What was to come before and was not needed, or failed, is dropped.
        self._begin(position)
        network = self._loading.pop(part)
        self._loading = {}
        found = network.result()
        self._order = self._order[position + 1 :]
        self._begin(0)
        return found

    def _begin(self, position: int) -> None:
        for part in self._order[position : position + 1]:
            if part not in self._loading:
                self._loading[part] = self._pool.submit(load, part.folder, tile_step=part.tile_step)


def _cropped(image: Any, mask: NDArray[np.bool_]) -> tuple[Any, tuple[slice, ...]]:
    """The part of an image around a mask, as TotalSegmentator cuts it out."""
    margin = (np.array([_ROUGH_MARGIN_MM] * 3) / image.header.get_zooms()).astype(int)
    bounds = get_bbox_from_mask(mask, outside_value=0, addon=margin)
    box = tuple(slice(*bound) for bound in bounds)
    affine = image.affine.copy()
    affine[:3, 3] = (affine @ [*(low for low, _ in bounds), 1])[:3]
    return nib.Nifti1Image(np.asanyarray(image.dataobj)[box].astype(np.int32), affine), box


def _numbers_of_part(number: int, name: str) -> NDArray[np.uint8]:
    """The label of a task for each label of one of its parts."""
    wanted = {region: index for index, region in class_map[name].items()}
    numbers = np.zeros(256, np.uint8)
    for index, region in _MODELS[number].regions.items():
        numbers[index] = wanted[region]
    return numbers


def _post_processed(
    labels: NDArray[np.uint8], spacing_mm: tuple[float, float, float], name: str
) -> NDArray[np.uint8]:
    """Labels at the network's resolution after TotalSegmentator's own corrections."""
    if f"{name}_auxiliary" in class_map:
        image = remove_auxiliary_labels(nib.Nifti1Image(labels, np.diag([*spacing_mm, 1.0])), name)
        labels = np.asanyarray(image.dataobj)
    if name == "body":
        labels = keep_largest_blob_multilabel(labels, class_map[name], ["body_trunc"], quiet=True)
        smallest = _SMALLEST_EXTREMITY_MM3 / np.prod(np.array(spacing_mm, np.float32))
        labels = remove_small_blobs_multilabel(
            labels, class_map[name], ["body_extremities"], interval=[smallest, 1e10], quiet=True
        )
    return labels
