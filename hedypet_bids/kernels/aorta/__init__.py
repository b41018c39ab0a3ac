"""From an aorta mask and a dynamic PET to input functions: the public names.

In the order in which they are used: :func:`segment_aorta` cuts the mask into four segments,
:func:`find_bolus` and :func:`early_weights` say which frames show the bolus, :func:`refine_with_pet`
drops voxels without blood, :func:`place_vois` chooses the voxels of an input function, and the
rest judges the result. :func:`place_right_heart` chooses those of the lungs' input function.
"""

from hedypet_bids.kernels.aorta.agreement import (
    LATE_START_S,
    WallDistance,
    late_max_over_min,
    leading_edge_delays_s,
    unordered,
    unusual,
    wall_distance_mm,
)
from hedypet_bids.kernels.aorta.bolus import BolusTiming, early_weights, find_bolus, leading_edge_s
from hedypet_bids.kernels.aorta.right_heart import RightHeartVoi, place_right_heart
from hedypet_bids.kernels.aorta.segments import (
    ASCENDING,
    HEDYPET_RANGES,
    LOWER_DESCENDING,
    SEGMENT_NAMES,
    TOP,
    UPPER_DESCENDING,
    AortaSegments,
    segment_aorta,
)
from hedypet_bids.kernels.aorta.vois import VoiResult, place_vois, refine_with_pet

__all__ = [
    "ASCENDING",
    "HEDYPET_RANGES",
    "LATE_START_S",
    "LOWER_DESCENDING",
    "SEGMENT_NAMES",
    "TOP",
    "UPPER_DESCENDING",
    "AortaSegments",
    "BolusTiming",
    "RightHeartVoi",
    "VoiResult",
    "WallDistance",
    "early_weights",
    "find_bolus",
    "late_max_over_min",
    "leading_edge_delays_s",
    "leading_edge_s",
    "place_right_heart",
    "place_vois",
    "refine_with_pet",
    "segment_aorta",
    "unordered",
    "unusual",
    "wall_distance_mm",
]
