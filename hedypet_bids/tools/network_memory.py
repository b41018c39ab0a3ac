"""How much memory TotalSegmentator needs for a CT, told from the plans of its networks before it runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

from hedypet_bids.model import Grid
from hedypet_bids.tools.totalsegmentator import Model, checkpoints

# Measured with toy weights (docs/engine.md): TotalSegmentator's processes with PyTorch, before any image.
_BASE_MB = 1400.0
# nnU-Net keeps a logit of every class in two bytes and turns them into labels as floats of four.
_BYTES_PER_LOGIT = 6.3
# The resampled image and the labels of all parts, in the types that they pass through.
_BYTES_PER_VOXEL = 40.0
# What a U-Net of nnU-Net holds at once, measured with one of six stages, in feature maps of its first stage.
_FEATURE_MAPS = 6.0
_BYTES_PER_FEATURE = 4.0


def memory_mb(weights: Path, models: Iterable[Model], ct: Grid) -> float:
    """Memory (MB) that TotalSegmentator's processes need together for a CT on this grid, at most.

    0 where no weights can be read: then nothing can run either.
    """
    needs = [_network_mb(path, ct) for model in models for path in checkpoints(weights, model)[:1]]
    return _BASE_MB + max(needs) if needs else 0.0


def _network_mb(checkpoint: Path, ct: Grid) -> float:
    folder = checkpoint.parents[1]
    try:
        plans = json.loads((folder / "plans.json").read_text("utf-8"))
        dataset = json.loads((folder / "dataset.json").read_text("utf-8"))
        plan: dict[str, Any] = plans["configurations"][folder.name.rpartition("__")[2]]
        n_voxels = prod(ct.shape) * prod(ct.voxel_sizes_mm) / prod(plan["spacing"])
        logits = _BYTES_PER_LOGIT * len(dataset["labels"]) * n_voxels
        features = _BYTES_PER_FEATURE * _first_features(plan) * prod(plan["patch_size"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return 0.0  # the run itself says what is wrong with the weights
    parameters = checkpoint.stat().st_size
    return float(logits + _BYTES_PER_VOXEL * n_voxels + _FEATURE_MAPS * features + parameters) / 1e6


def _first_features(plan: dict[str, Any]) -> int:
    """Features of the first stage; older plans name them otherwise."""
    if "architecture" in plan:
        return int(plan["architecture"]["arch_kwargs"]["features_per_stage"][0])
    return int(plan["UNet_base_num_features"])
