"""The numbers that a phantom participant was made with, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.labels import label_table
from hedypet_bids.phantom.kinetics import Kinetics, input_function
from hedypet_bids.phantom.materials import MATERIALS
from hedypet_bids.phantom.regions import TASKS, material_of_label
from hedypet_bids.phantom.scans import WITHIN_SUBJECT_SD, PhantomScan
from hedypet_bids.phantom.subject import (
    PhantomParticipant,
    aorta_centreline_mm,
    closed_form_volumes_ml,
)
from hedypet_bids.phantom.tracers import REFERENCE, Tracer


def truth(scan: PhantomScan, *, volumes_ml: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Everything known of a scan, ready for JSON.

    ``curves``, ``static``, ``ki`` (``vt`` of a reversible tracer) and ``kinetics`` are by label name (of
    every task, where all of the label is one material) and by material name. Ki, VT, K1, k2, k3, k4 are per
    minute and mL of tissue without its blood: the slope that a Patlak plot of a whole region tends to is
    (1 - vb) Ki. Where blood arrives at a time of its own in each tissue, ``kinetics`` has that too, as
    ``delay_s`` after the aorta. Where blood is sampled, ``input_function`` is that of the tracer itself in
    plasma, ``blood`` what whole blood holds, and ``bp_nd`` VT over that of the reference, less 1.
    """
    p, frames, materials = scan.participant, scan.frames, _materials_by_name()
    net = _net(scan.tracer)
    rates = {name: p.kinetics[material] for name, material in materials.items() if material in p.kinetics}
    delayed = any(k.delay_s for k in p.kinetics.values())
    centreline, radius = aorta_centreline_mm(p)
    return {
        "participant": _person(p),
        "frame_start_s": frames.start_s.tolist(),
        "frame_duration_s": frames.duration_s.tolist(),
        "input_parameters": vars(p.blood),
        "input_function": input_function(frames, p.blood).tolist(),
        "curves": {name: scan.curves[material].tolist() for name, material in materials.items()},
        "static": {name: float(scan.static_curves[material][0]) for name, material in materials.items()},
        net: {name: getattr(k, net) for name, k in rates.items()},
        "vb": {name: k.vb for name, k in rates.items()},
        "kinetics": {name: _rates(k, net, delayed=delayed) for name, k in rates.items()},
        "volumes_ml": {task: dict(volumes) for task, volumes in volumes_ml.items()},
        **(_blood(scan, rates) if p.split else {}),
        "closed_form_volumes_ml": closed_form_volumes_ml(p),
        "aorta_centreline_mm": centreline.tolist(),
        "aorta_radius_mm": radius.tolist(),
        "mr2ct_head": p.mr2ct_head.tolist(),
        "mr2ct_body": p.mr2ct_body.tolist(),
        **participant_constants(p),
    }


def _blood(scan: PhantomScan, rates: Mapping[str, Kinetics]) -> dict[str, Any]:
    """Blood of a scan in which it is sampled, and binding against the reference."""
    p, frames = scan.participant, scan.frames
    assert p.split is not None
    free = p.kinetics[REFERENCE].vt
    return {
        "blood": {
            **vars(p.split),
            "whole_blood": p.split.frame_means(frames, p.blood).tolist(),
        },
        "reference": REFERENCE,
        "bp_nd": {name: k.vt / free - 1.0 for name, k in rates.items()},
    }


def scan_truth(scan: PhantomScan) -> dict[str, Any]:
    """What tells a scan from the participant's others, ready for JSON.

    ``within_subject_factors`` has, by the names of :func:`truth`, K1, vb and ki (or vt) as multiples of
    those in the first scan with this tracer. ``pose`` takes the world of the first session's CT to that of
    this session's.
    """
    p, net = scan.participant, _net(scan.tracer)
    factors = {
        name: {"K1": f["K1"], net: f["net"], "vb": f["vb"]}
        for name, material in _materials_by_name().items()
        if (f := scan.factors.get(material)) is not None
    }
    return {
        "scan": {
            "session": scan.session,
            "tracer": scan.tracer.label,
            "run": scan.run,
            "radionuclide": scan.tracer.radionuclide,
            "half_life_s": scan.tracer.half_life_s,
            "time_zero": scan.time_zero,
        },
        "within_subject_sd": WITHIN_SUBJECT_SD,
        "within_subject_factors": factors,
        "pose": p.pose.tolist(),
    }


def participant_constants(participant: PhantomParticipant) -> dict[str, float]:
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


def _net(tracer: Tracer) -> str:
    return "vt" if tracer.is_reversible else "ki"


def _rates(k: Kinetics, net: str, *, delayed: bool) -> dict[str, float]:
    k4 = {"k4": k.k4} if net == "vt" else {}
    delay = {"delay_s": k.delay_s} if delayed else {}
    return {"K1": k.K1, "k2": k.k2, "k3": k.k3, **k4, "vb": k.vb, net: getattr(k, net), **delay}


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
