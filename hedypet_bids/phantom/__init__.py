"""A whole-body PET/CT/MR phantom with known truth, written as a raw BIDS dataset.

The command ``hedypet-phantom`` calls :func:`write_phantom`. The body is analytic
(:func:`sample_labels` on any grid) and so are the curves (:func:`irreversible_two_tissue`,
:func:`input_function`).
"""

from hedypet_bids.phantom.dataset import PIECES, truth_folder, write_phantom
from hedypet_bids.phantom.grids import SIZES, PhantomSize, Voxels
from hedypet_bids.phantom.kinetics import (
    FengInput,
    Kinetics,
    feng_input,
    hedypet_frames,
    input_function,
    irreversible_two_tissue,
    merged_frames,
    scaled_feng_input,
    tissue_curve,
)
from hedypet_bids.phantom.regions import label_lut
from hedypet_bids.phantom.scans import PhantomScan, PhantomSession, make_sessions
from hedypet_bids.phantom.subject import (
    PhantomParticipant,
    aorta_centreline_mm,
    closed_form_volumes_ml,
    make_participant,
    material_curves,
    sample_labels,
)
from hedypet_bids.phantom.tracers import TRACERS, Tracer

__all__ = [
    "PIECES",
    "SIZES",
    "TRACERS",
    "FengInput",
    "Kinetics",
    "PhantomParticipant",
    "PhantomScan",
    "PhantomSession",
    "PhantomSize",
    "Tracer",
    "Voxels",
    "aorta_centreline_mm",
    "closed_form_volumes_ml",
    "feng_input",
    "hedypet_frames",
    "input_function",
    "irreversible_two_tissue",
    "label_lut",
    "make_participant",
    "make_sessions",
    "material_curves",
    "merged_frames",
    "sample_labels",
    "scaled_feng_input",
    "tissue_curve",
    "truth_folder",
    "write_phantom",
]
