"""How much memory TotalSegmentator's networks need for a CT, told from their plans before they run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import io_orientation

from hedypet_bids.model import Grid
from hedypet_bids.tools.totalsegmentator import Model, checkpoints

# Each was measured (docs/segmentation.md). Python with PyTorch, nnU-Net and TotalSegmentator.
_BASE_MB = 850.0
# The CT as it is stored, turned, and the labels on its grid.
_BYTES_PER_CT_VOXEL = 8.0
# At the network's resolution: the CT twice, its normalised copy and that with margins, and labels.
_BYTES_PER_VOXEL = 16.0
# Sums of each class and of the weights in half precision, and the largest of them with its class.
_BYTES_PER_CLASS, _BYTES_PER_SUM = 2.0, 9.0
# What a U-Net of nnU-Net holds at once, in feature maps of its first stage.
_FEATURE_MAPS = 6.0
_BYTES_PER_FEATURE = 4.0

TILES_AT_ONCE = 2
"""So many tiles, at most, are looked at at the same time on the processor."""


@dataclass(frozen=True)
class NetworkSize:
    """What decides about the memory of a network.

    Parameters
    ----------
    tile
        Voxels along z, y and x.
    features
        Feature maps of the first stage.
    parameters_mb
        The weights.
    """

    n_classes: int
    tile: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    features: int
    parameters_mb: float

    @classmethod
    def read(cls, checkpoint: Path) -> NetworkSize:
        """From the files beside a checkpoint.

        Raises
        ------
        OSError, ValueError, KeyError, TypeError
            They cannot be read, or do not say it.
        """
        folder = checkpoint.parents[1]
        plans = json.loads((folder / "plans.json").read_text("utf-8"))
        dataset = json.loads((folder / "dataset.json").read_text("utf-8"))
        plan: dict[str, Any] = plans["configurations"][folder.name.rpartition("__")[2]]
        # Older plans name the features of the first stage otherwise.
        features = (
            plan["architecture"]["arch_kwargs"]["features_per_stage"][0]
            if "architecture" in plan
            else plan["UNet_base_num_features"]
        )
        z, y, x = (int(n) for n in plan["patch_size"])
        spacing = (float(mm) for mm in plan["spacing"])
        parameters_mb = checkpoint.stat().st_size / 1e6
        return cls(len(dataset["labels"]), (z, y, x), tuple(spacing), int(features), parameters_mb)  # type: ignore[arg-type]

    @property
    def tile_mb(self) -> float:
        """The network and what it holds for one tile."""
        features = _FEATURE_MAPS * _BYTES_PER_FEATURE * self.features * prod(self.tile)
        return self.parameters_mb + features / 1e6

    def plane_mb(self, plane: tuple[int, int]) -> float:
        """The sums of a plane (y, x), or of a tile's where that is larger."""
        held = max(plane[0], self.tile[1]) * max(plane[1], self.tile[2])
        return (_BYTES_PER_CLASS * self.n_classes + _BYTES_PER_SUM) * held / 1e6

    def planes_within(self, free_mb: float, plane: tuple[int, int]) -> int:
        """How many planes of sums fit into memory beside the network; at least those of a tile are needed."""
        return max(self.tile[0], int((free_mb - self.tile_mb) / self.plane_mb(plane)))


def networks_mb(weights: Path, models: Iterable[Model], ct: Grid) -> float:
    """Memory (MB) that the process which segments a CT on this grid needs, at most, on the processor.

    0 where no weights can be read: then nothing can run either.
    """
    needs = [_network_mb(path, ct) for model in models for path in checkpoints(weights, model)[:1]]
    if not any(needs):
        return 0.0
    return _BASE_MB + max(needs) + _BYTES_PER_CT_VOXEL * ct.n_voxels / 1e6


def _network_mb(checkpoint: Path, ct: Grid) -> float:
    try:
        size = NetworkSize.read(checkpoint)
        extent_mm = np.zeros(3)
        extent_mm[io_orientation(ct.affine)[:, 0].astype(int)] = ct.voxel_sizes_mm * ct.shape
        z, y, x = (
            max(tile, ceil(mm / spacing_mm))
            for mm, spacing_mm, tile in zip(extent_mm[::-1], size.spacing_mm, size.tile, strict=True)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return 0.0  # the run itself says what is wrong with the weights
    sums_mb = size.tile[0] * size.plane_mb((y, x))
    # The next network is loaded while this one runs.
    scores_mb = _BYTES_PER_FEATURE * size.n_classes * prod(size.tile) / 1e6
    tiles_mb = TILES_AT_ONCE * (size.tile_mb - size.parameters_mb + scores_mb)
    return float(tiles_mb + 3 * size.parameters_mb + sums_mb + _BYTES_PER_VOXEL * (x * y * z) / 1e6)
