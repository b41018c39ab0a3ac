"""One trained network of nnU-Net: loaded by nnU-Net's own code, run tile by tile, labels out.

Everything that decides about a label is nnU-Net's: normalisation, padding, places and weights of the tiles,
the network. What is left out is what takes the time: the scores of every class never leave the device
(:mod:`hedypet_bids.kernels.sliding_window`).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import bounding_box_to_slice, get_bbox_from_mask
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from hedypet_bids.kernels.sliding_window import Tiles, labels_by_tiles
from hedypet_bids.tools.network_memory import NetworkSize

CHECKPOINT = "checkpoint_final.pth"
FOLD = 0
CONFIGURATION = "3d_fullres"
_NORMALISED_BY = (["CTNormalization"], ["ZScoreNormalization"])

T = TypeVar("T")


class OtherKind(Exception):  # noqa: N818 - no failure: TotalSegmentator's own path can run it
    """Raised for a network that this module does not run as nnU-Net would, with the reason."""


@dataclass
class Clock:
    """Seconds of each phase; one at a time."""

    device: str = "cpu"
    seconds: dict[str, float] = field(default_factory=dict)
    _phase: str = "start"
    _since: float = field(default_factory=time.monotonic)

    def begin(self, phase: str) -> None:
        """End the phase before and begin another."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        now = time.monotonic()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now


@dataclass(frozen=True)
class NetworkInput:
    """A volume as networks of one resolution see it: axes (z, y, x), Hounsfield units or intensities."""

    voxels: NDArray[Any]
    spacing_mm: tuple[float, float, float]

    @cached_property
    def box(self) -> tuple[slice, slice, slice]:
        """The part that nnU-Net looks at: all but outer planes of zeros."""
        # nnU-Net fills the holes of the mask before, which changes nothing about its box.
        return tuple(bounding_box_to_slice(get_bbox_from_mask(self.voxels != 0)))

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        """What nnU-Net takes for the body where a network was trained on images with nothing around it."""
        found: NDArray[np.bool_] = create_nonzero_mask(self.voxels[None])
        return found


@dataclass(frozen=True)
class Network:
    """A trained network in the memory of the host, until it runs."""

    predictor: nnUNetPredictor
    size: NetworkSize

    def labels(
        self, seen: NetworkInput, *, device: torch.device, planes: int, clock: Clock
    ) -> NDArray[np.uint8]:
        """The labels (z, y, x) of a volume.

        Parameters
        ----------
        planes
            See :func:`hedypet_bids.kernels.sliding_window.labels_by_tiles`.

        Raises
        ------
        OtherKind
            nnU-Net would resample the volume for this network.
        """
        clock.device = device.type
        clock.begin("prepare")
        box = seen.box
        predictor, plan = self.predictor, self.predictor.configuration_manager
        # A view of the whole: where means are taken, their last bit depends on the order in memory.
        data = seen.voxels.astype(np.float32)[None, *box]
        if tuple(compute_new_shape(data.shape[1:], seen.spacing_mm, plan.spacing)) != data.shape[1:]:
            raise OtherKind(f"its voxels are {plan.spacing} mm, those of the image {seen.spacing_mm} mm")
        intensities = predictor.plans_manager.foreground_intensity_properties_per_channel
        outside = [np.where(seen.inside[box], np.int8(0), np.int8(-1)) if plan.use_mask_for_norm[0] else None]
        data = plan.preprocessor_class(verbose=False)._normalize(data, outside, plan, intensities)
        patch = tuple(plan.patch_size)
        padded, inner = pad_nd_image(torch.from_numpy(data), patch, "constant", {"value": 0}, True, None)
        del data
        with self._on(device), torch.inference_mode():
            tiles = Tiles(
                patch,
                compute_steps_for_sliding_window(padded.shape[1:], patch, predictor.tile_step_size),
                compute_gaussian(patch, sigma_scale=1.0 / 8, value_scaling_factor=10, device=device),
            )
            found = labels_by_tiles(
                padded[0],
                tiles,
                lambda tile: predictor._internal_maybe_mirror_and_predict(tile)[0],
                self.size.n_classes,
                planes=planes,
                told=clock.begin,
            )
        labels = np.zeros(seen.voxels.shape, np.uint8)
        labels[box] = found[tuple(inner[1:])]
        return labels

    @contextlib.contextmanager
    def _on(self, device: torch.device) -> Iterator[None]:
        """The network on a device, with nnU-Net's precision there."""
        predictor, on_host = self.predictor, self.predictor.network.eval()
        predictor.device = device
        try:
            if device.type == "cpu":
                yield
            else:
                # A copy: nothing comes back from a GPU that is gone.
                predictor.network = deepcopy(on_host).to(device)
                with torch.autocast(device.type):
                    yield
        finally:
            predictor.network = on_host
            compute_gaussian.cache_clear()
            if device.type != "cpu":
                torch.cuda.empty_cache()


def load(folder: Path, *, tile_step: float) -> Network:
    """The network in a model folder of nnU-Net (``<trainer>__<plans>__<configuration>``).

    Parameters
    ----------
    tile_step
        Distance of neighbouring tiles in lengths of a tile.

    Raises
    ------
    OtherKind
        It is none that this module runs.
    """
    predictor = nnUNetPredictor(
        tile_step_size=tile_step,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=(FOLD,), checkpoint_name=CHECKPOINT)
    # The weights are in the network by now; a second copy of them is not needed.
    predictor.list_of_parameters = None
    plan, plans = predictor.configuration_manager, predictor.plans_manager
    for reason, is_so in {
        "it is no three-dimensional one of one channel": plan.normalization_schemes not in _NORMALISED_BY
        or len(plan.patch_size) != 3,
        "it does not read images by NibabelIOWithReorient": plans.image_reader_writer_class
        is not NibabelIOWithReorient,
        "it turns axes": list(plans.transpose_forward) != [0, 1, 2],
        "it has regions instead of labels": predictor.label_manager.has_regions,
        "it builds on another one": plan.previous_stage_name is not None,
        "it has more than 255 classes": predictor.label_manager.num_segmentation_heads > 255,
    }.items():
        if is_so:
            raise OtherKind(f"{folder.parent.name}: {reason}")
    return Network(predictor, NetworkSize.read(folder / f"fold_{FOLD}" / CHECKPOINT))


def fault_of_network(folder: Path) -> str:
    """Why nnU-Net cannot load the network of a folder, told without reading its weights; empty if it can."""
    try:
        plans = PlansManager(json.loads((folder / "plans.json").read_text("utf-8")))
        dataset = json.loads((folder / "dataset.json").read_text("utf-8"))
        checkpoint = torch.load(
            folder / f"fold_{FOLD}" / CHECKPOINT, map_location="cpu", mmap=True, weights_only=False
        )
        plan = plans.get_configuration(checkpoint["init_args"]["configuration"])
        with torch.device("meta"):
            network = get_network_from_plans(
                plan.network_arch_class_name,
                plan.network_arch_init_kwargs,
                plan.network_arch_init_kwargs_req_import,
                determine_num_input_channels(plans, plan, dataset),
                plans.get_label_manager(dataset).num_segmentation_heads,
                deep_supervision=False,
            )
        wanted = {name: tuple(values.shape) for name, values in network.state_dict().items()}
        found = {name: tuple(values.shape) for name, values in checkpoint["network_weights"].items()}
    except Exception as fault:  # noqa: BLE001 - files from anywhere: whatever is wrong with them is the answer
        return f"{type(fault).__name__}: {fault}"
    differing = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if not differing:
        return ""
    name = differing[0]
    return (
        f"fold_{FOLD}/{CHECKPOINT} is of another architecture than plans.json says: {name} has the shape "
        f"{found.get(name, 'of nothing')}; expected {wanted.get(name, 'no such weights')}"
    )


@dataclass(frozen=True)
class Way:
    """Where a network runs, and how many planes of scores it holds at once."""

    device: torch.device
    planes: int

    def __str__(self) -> str:
        return (
            f"{'the processor' if self.device.type == 'cpu' else 'the GPU'} in slabs of {self.planes} planes"
        )


def first_that_fits(
    ways: Sequence[Way], run: Callable[[Way], T], tell: Callable[[str], Any]
) -> tuple[T, Way]:
    """What ``run`` gives on the first of several ways whose memory suffices, and that way.

    Parameters
    ----------
    tell
        Told of every way that failed, and what is done instead.

    Raises
    ------
    RuntimeError
        As ``run`` on the last way.
    """
    for way, following in pairwise(ways):
        try:
            return run(way), way
        except RuntimeError as fault:  # torch's own for lack of memory, and for a GPU that is gone
            if way.device.type == "cpu" and not isinstance(fault, torch.OutOfMemoryError):
                raise
            reason = str(fault).splitlines()[0]
            tell(f"{way} failed ({type(fault).__name__}: {reason}); repeated on {following}")
    return run(ways[-1]), ways[-1]
