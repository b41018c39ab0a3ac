"""The irreversible two-tissue model of the lungs, whose blood comes from the right heart.

Blood passes the lungs before it comes to the aorta: with the aorta's curve the bolus in the lungs is too
early and too narrow for any delay.
"""

from __future__ import annotations

from hedypet_bids.kernels.kinetics.compartments import TwoTissue
from hedypet_bids.kernels.kinetics.model import Parameter
from hedypet_bids.labels import HEART_VOI_TASK
from hedypet_bids.settings import Settings


class LungRightHeart(TwoTissue):
    """The irreversible two-tissue model of the lungs with the right heart as its input."""

    name = "LungRightHeart"
    title = "Irreversible two-tissue model of the lungs with the right heart as input"
    of_body = False
    blood = HEART_VOI_TASK.name
    # Lobes of a CT, whole lungs of an MR.
    regions = (
        "lung_upper_lobe_left",
        "lung_lower_lobe_left",
        "lung_upper_lobe_right",
        "lung_middle_lobe_right",
        "lung_lower_lobe_right",
        "lung_left",
        "lung_right",
    )

    @property
    def maps(self) -> tuple[Parameter, ...]:
        """None: a voxel of the lung is mostly air, and moves."""
        return ()

    def methods(self, settings: Settings) -> str:
        """Where its input comes from, and the model."""
        return (
            "The lungs were fitted with the irreversible two-tissue model with a fraction of blood "
            "[@sokoloff; @phelps; @huang] (k4 = 0) and the right heart as their input: 1 mL in the right "
            "part of the segmented heart, where activity is highest before the bolus comes to the aorta, "
            "provided that blood comes there at least 3 s earlier and at least as active. "
            f"{self._shared_methods(settings)}"
        )
