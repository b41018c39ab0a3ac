"""Weights that TotalSegmentator's real code loads and runs.

Those of :func:`write_weights` are of nets that label by Hounsfield unit alone. They have 1x1x1 convolutions:
the first stage hands its input through, and the last layer gives each label k the logit ``2 c_k x - c_k^2``,
so that the label whose centre ``c_k`` is nearest to the voxel wins. Those of :func:`write_random_weights` are
of nets of the real architecture, whose labels mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from totalsegmentator.map_tasks_config import TASK_CONFIGS
from totalsegmentator.map_to_binary import (
    class_map,
    class_map_5_parts,
    class_map_parts_mr,
    map_taskid_to_partname_ct,
    map_taskid_to_partname_mr,
)

from hedypet_bids.tools.totalsegmentator import MODELS, Model

NET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
_IMPORTED = ["conv_op", "norm_op", "nonlin"]
SCALE_HU = 500.0
PASS_THROUGH = 4.0  # keeps the rectifier's input positive

# Label name -> centre of its band, HU. "background" takes what is nearest to air.
ORGAN_BANDS = {"background": -1000.0, "lung_upper_lobe_left": -650.0, "liver": 50.0, "aorta": 300.0}
BANDS: Mapping[int, Mapping[str, float]] = {
    297: ORGAN_BANDS,
    298: ORGAN_BANDS,
    299: {"background": -1000.0, "body_trunc": 0.0},
    300: {"background": -1000.0, "body_trunc": 0.0},
    481: {"background": -1000.0, "subcutaneous_fat": -100.0, "skeletal_muscle": 60.0},
    # The five parts of total do not overlap; the later one wins where they do.
    291: {"background": -1000.0, "lung_upper_lobe_left": -650.0, "liver": 50.0},
    292: {"background": 0.0, "vertebrae_L1": 1200.0},
    293: {"background": 0.0, "aorta": 300.0},
    294: {"background": 0.0},
    295: {"background": 0.0},
}
# An MR is normalised to its own mean and spread: nothing, water and fat of the DIXON images of a phantom.
MR_BANDS: Mapping[int, Mapping[str, float]] = {
    850: {"background": -300.0, "liver": 450.0, "aorta": 1200.0},
    851: {"background": 0.0},
    852: {"background": -300.0, "liver": 450.0, "aorta": 1200.0},
    597: {"background": -300.0, "body_trunc": 450.0},
    598: {"background": -300.0, "body_trunc": 450.0},
}


# Of TotalSegmentator's networks, but for the tile.
REAL_FEATURES = [32, 64, 128, 256, 320, 320]
SMALL_TILE = [64, 48, 64]


def write_weights(folder: Path, *numbers: int) -> None:
    """Write the weights of some models, or of all, as TotalSegmentator's folders."""
    for number in numbers or BANDS:
        labels = _labels(number)
        bands = {**BANDS, **MR_BANDS}[number]
        centres = {labels[name]: centre / SCALE_HU for name, centre in bands.items()}
        net = _net(_architecture(), len(labels))
        _set_bands(net, centres)
        _write_model(folder, number, net, _architecture(), [64, 64, 64])


def write_random_weights(folder: Path, *numbers: int, features: list[int] = REAL_FEATURES) -> None:
    """Write random weights of nets of the real architecture with small tiles."""
    for number in numbers or BANDS:
        torch.manual_seed(number)
        architecture = _real_architecture(features)
        net = _net(architecture, len(_labels(number)))
        _write_model(folder, number, net, architecture, SMALL_TILE)


def _labels(number: int) -> dict[str, int]:
    return {"background": 0, **{name: index for index, name in _classes(number).items()}}


def _net(architecture: dict[str, Any], n_labels: int) -> Any:
    return get_network_from_plans(NET, architecture, _IMPORTED, 1, n_labels, deep_supervision=False)


def _write_model(folder: Path, number: int, net: Any, architecture: dict[str, Any], tile: list[int]) -> None:
    labels, trainer = _labels(number), _trainer(number)
    known = next(model for model in MODELS if model.number == number)
    model = folder / known.folder / f"{trainer}__nnUNetPlans__3d_fullres"
    (model / "fold_0").mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(_plans(known, architecture, tile)))
    (model / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "CT"},
                "labels": labels,
                "numTraining": 1,
                "file_ending": ".nii.gz",
                "overwrite_image_reader_writer": "NibabelIOWithReorient",
            }
        )
    )
    torch.save(
        {
            "network_weights": net.state_dict(),
            "trainer_name": trainer,
            "init_args": {"configuration": "3d_fullres", "fold": 0},
            "inference_allowed_mirroring_axes": None,
        },
        model / "fold_0" / "checkpoint_final.pth",
    )


def _classes(number: int) -> dict[int, str]:
    for parts, of_number in (
        (class_map_5_parts, map_taskid_to_partname_ct),
        (class_map_parts_mr, map_taskid_to_partname_mr),
    ):
        if number in of_number:
            return parts[of_number[number]]
    return class_map[next(model.of_task for model in MODELS if model.number == number)]


def _trainer(number: int) -> str:
    for task in ("total", "body", "tissue_types", "total_mr", "body_mr"):
        config = TASK_CONFIGS[task]
        for mode in config.get("sub_modes", {"only": config}).values():
            ids = mode["task_id"]
            if number in (ids if isinstance(ids, list) else [ids]):
                return str(mode["trainer"])
    raise KeyError(number)


def _architecture() -> dict[str, Any]:
    return {
        "n_stages": 2,
        "features_per_stage": [2, 2],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[1, 1, 1]] * 2,
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": None,
        "norm_op_kwargs": {},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def _real_architecture(features: list[int]) -> dict[str, Any]:
    n = len(features)
    return {
        **_architecture(),
        "n_stages": n,
        "features_per_stage": features,
        "kernel_sizes": [[3, 3, 3]] * n,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * min(n - 1, 4), *[[1, 1, 1]] * (n - 5)],
        "n_conv_per_stage": [2] * n,
        "n_conv_per_stage_decoder": [2] * (n - 1),
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    }


def _plans(model: Model, architecture: dict[str, Any], tile: list[int]) -> dict[str, Any]:
    of_mr = model.of_task.endswith("_mr")
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    resample = "resample_data_or_seg_to_shape"
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": tile,
        "median_image_size_in_voxels": [100.0] * 3,
        "spacing": [model.spacing_mm] * 3,
        "normalization_schemes": ["ZScoreNormalization" if of_mr else "CTNormalization"],
        "use_mask_for_norm": [of_mr and model.of_task == "body_mr"],
        "resampling_fn_data": resample,
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": resample,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": resample,
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": NET,
            "arch_kwargs": architecture,
            "_kw_requires_import": _IMPORTED,
        },
        "batch_dice": False,
    }
    intensities = {
        "max": 3071.0,
        "mean": 0.0,
        "median": 0.0,
        "min": -1024.0,
        "percentile_00_5": -1024.0,
        "percentile_99_5": 1500.0,
        "std": SCALE_HU,
    }
    return {
        "dataset_name": model.folder,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [model.spacing_mm] * 3,
        "original_median_shape_after_transp": [100] * 3,
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
    }


def _set_bands(net: Any, centres: Mapping[int, float]) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        first = net.encoder.stages[0][0].convs[0].conv
        first.weight[0, 0, 0, 0, 0], first.bias[0] = 1.0, PASS_THROUGH
        last = net.decoder.stages[-1].convs[0].conv
        # Its input is the upsampled second stage, then the first stage.
        last.weight[0, last.weight.shape[1] // 2, 0, 0, 0] = 1.0
        head = net.decoder.seg_layers[-1]
        for label in range(head.bias.shape[0]):
            # Finite: nnU-Net sums logits in half precision.
            head.bias[label] = -200.0
            if label in centres:
                centre = centres[label]
                head.weight[label, 0, 0, 0, 0] = 20 * centre
                head.bias[label] = -20 * centre * PASS_THROUGH - 10 * centre**2
