"""The numbers that a phantom participant was made with, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.labels import label_table
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom.kinetics import Kinetics, input_function
from hedypet_bids.phantom.materials import MATERIALS
from hedypet_bids.phantom.regions import TASKS, material_of_label
from hedypet_bids.phantom.subject import (
    Curves,
    PhantomParticipant,
    aorta_centreline_mm,
    closed_form_volumes_ml,
)

STATIC_FRAME = FrameTimes(start_s=np.array([3000.0]), duration_s=np.array([1200.0]))
"""The static image, 50 to 70 min after injection."""


def truth(
    participant: PhantomParticipant,
    frames: FrameTimes,
    *,
    curves: Curves,
    static: Curves,
    volumes_ml: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Everything known of a participant, ready for JSON.

    ``curves``, ``static``, ``ki`` and ``kinetics`` are by label name (of every task, where all of the
    label is one material) and by material name. Ki, K1, k2, k3 are per minute and mL of tissue without
    its blood: the slope that a Patlak plot of a whole region tends to is (1 - vb) Ki.
    """
    p, materials = participant, _materials_by_name()
    rates = {name: p.kinetics[material] for name, material in materials.items() if material in p.kinetics}
    centreline, radius = aorta_centreline_mm(p)
    return {
        "participant": _person(p),
        "frame_start_s": frames.start_s.tolist(),
        "frame_duration_s": frames.duration_s.tolist(),
        "input_parameters": vars(p.blood),
        "input_function": input_function(frames, p.blood).tolist(),
        "curves": {name: curves[material].tolist() for name, material in materials.items()},
        "static": {name: float(static[material][0]) for name, material in materials.items()},
        "ki": {name: k.ki for name, k in rates.items()},
        "vb": {name: k.vb for name, k in rates.items()},
        "kinetics": {name: _rates(k) for name, k in rates.items()},
        "volumes_ml": {task: dict(volumes) for task, volumes in volumes_ml.items()},
        "closed_form_volumes_ml": closed_form_volumes_ml(p),
        "aorta_centreline_mm": centreline.tolist(),
        "aorta_radius_mm": radius.tolist(),
        "mr2ct_head": p.mr2ct_head.tolist(),
        "mr2ct_body": p.mr2ct_body.tolist(),
        **constants(p),
    }


def constants(participant: PhantomParticipant) -> dict[str, float]:
    """SUV and SUL constants (James and Janmahasatian), Bq/g."""
    w, h_cm = participant.weight_kg, participant.height_m * 100.0
    bmi = w / participant.height_m**2
    if participant.sex == "M":
        james, janma = 1.10 * w - 128.0 * (w / h_cm) ** 2, 9270.0 * w / (6680.0 + 216.0 * bmi)
    else:
        james, janma = 1.07 * w - 148.0 * (w / h_cm) ** 2, 9270.0 * w / (8780.0 + 244.0 * bmi)
    dose_bq = participant.dose_mbq * 1e6
    return {
        "suv": dose_bq / (w * 1000.0),
        "sul_janma": dose_bq / (janma * 1000.0),
        "sul_james": dose_bq / (james * 1000.0),
    }


def label_volumes_ml(labels: NDArray[np.int64], task: str, voxel_volume_ml: float) -> dict[str, float]:
    """Volume of every region of a task from the number of voxels of each label index."""
    table = label_table(task)
    return {
        name: float(labels[index] if index < labels.size else 0) * voxel_volume_ml
        for index, name in zip(table.indices, table.names, strict=True)
    }


def _materials_by_name() -> dict[str, str]:
    found = {name: name for name in MATERIALS}
    for task in TASKS:
        for name in label_table(task).names:
            material = material_of_label(task, name)
            if material:
                found[name] = material
    return found


def _rates(k: Kinetics) -> dict[str, float]:
    return {"K1": k.K1, "k2": k.k2, "k3": k.k3, "vb": k.vb, "ki": k.ki}


def _person(p: PhantomParticipant) -> dict[str, Any]:
    return {
        "label": p.label,
        "sex": p.sex,
        "age": p.age,
        "height_m": p.height_m,
        "weight_kg": p.weight_kg,
        "dose_bq": p.dose_mbq * 1e6,
        "demographic_group": p.demographic_group,
        "scale": p.scale,
        "fat_mm": p.fat_mm * p.scale,
    }
