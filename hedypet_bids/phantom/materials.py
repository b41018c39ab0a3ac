"""What the tissues of the phantom look like on CT and MR, and how they take up FDG.

The rate constants of grey and white matter are those of Huang et al., Am J Physiol 1980;238:E69
(K1 0.102 and 0.054 mL/min/mL, k2 0.130 and 0.109, k3 0.062 and 0.045 per min). The others are round
numbers that give the uptake of healthy adults: about the hedyPET medians of the SUV 50 to 70 min
after injection.
"""

from __future__ import annotations

from dataclasses import dataclass

from hedypet_bids.phantom.kinetics import Kinetics


@dataclass(frozen=True)
class Material:
    """One kind of tissue.

    Parameters
    ----------
    hu
        Mean CT number.
    water, fat
        Dixon signal of its water and of its fat, arbitrary units.
    t1w
        MPRAGE signal, arbitrary units.
    kinetics
        Reference rate constants; each participant's differ a little. None: no activity.
    """

    hu: float
    water: float
    fat: float
    t1w: float
    kinetics: Kinetics | None


_BLOOD = Kinetics(0.0, 0.0, 0.0, 1.0)

MATERIALS = {
    "air": Material(-1000, 0, 0, 0, None),
    "table": Material(-250, 0, 0, 0, None),
    "lumen": Material(-950, 5, 0, 10, Kinetics(0.02, 0.5, 0.001, 0.02)),
    "lung": Material(-750, 40, 10, 40, Kinetics(0.03, 0.20, 0.0035, 0.16)),
    "subcutaneous_fat": Material(-100, 40, 620, 950, Kinetics(0.02, 0.30, 0.018, 0.02)),
    "visceral_fat": Material(-95, 60, 580, 900, Kinetics(0.05, 0.30, 0.036, 0.04)),
    "muscle": Material(55, 300, 15, 380, Kinetics(0.04, 0.30, 0.026, 0.03)),
    "soft": Material(40, 330, 20, 420, Kinetics(0.15, 0.40, 0.012, 0.08)),
    "blood": Material(45, 230, 0, 250, _BLOOD),
    "liver": Material(60, 420, 15, 520, Kinetics(0.75, 0.75, 0.003, 0.15)),
    "spleen": Material(50, 350, 0, 400, Kinetics(0.60, 0.85, 0.006, 0.15)),
    "kidney": Material(35, 340, 10, 400, Kinetics(0.70, 0.70, 0.012, 0.15)),
    "pancreas": Material(40, 390, 40, 470, Kinetics(0.35, 0.55, 0.008, 0.10)),
    "stomach": Material(35, 320, 5, 380, Kinetics(0.30, 0.60, 0.010, 0.05)),
    "bowel": Material(35, 330, 15, 390, Kinetics(0.25, 0.45, 0.015, 0.05)),
    "colon": Material(25, 300, 25, 350, Kinetics(0.10, 0.30, 0.014, 0.03)),
    "gland": Material(45, 360, 15, 430, Kinetics(0.40, 0.80, 0.006, 0.10)),
    "bile": Material(8, 380, 0, 150, Kinetics(0.03, 0.05, 0.002, 0.02)),
    # Urine collects what the kidneys filter and loses none of it: k2 = 0.
    "urine": Material(8, 400, 0, 120, Kinetics(0.10, 0.0, 0.1, 0.0)),
    "spongy_bone": Material(300, 120, 260, 420, Kinetics(0.12, 0.40, 0.016, 0.06)),
    "cortical_bone": Material(700, 25, 30, 60, Kinetics(0.05, 0.30, 0.014, 0.03)),
    "cartilage": Material(90, 200, 40, 300, Kinetics(0.02, 0.20, 0.010, 0.02)),
    "cord": Material(35, 300, 0, 650, Kinetics(0.05, 0.15, 0.020, 0.03)),
    "csf": Material(8, 260, 0, 120, Kinetics(0.02, 0.08, 0.020, 0.01)),
    "gray_matter": Material(40, 360, 0, 600, Kinetics(0.102, 0.130, 0.062, 0.05)),
    "white_matter": Material(30, 410, 0, 900, Kinetics(0.054, 0.109, 0.045, 0.03)),
    "deep_gray_matter": Material(42, 370, 0, 690, Kinetics(0.105, 0.130, 0.065, 0.05)),
    "cerebellar_cortex": Material(40, 350, 0, 590, Kinetics(0.105, 0.140, 0.045, 0.05)),
    "limbic_gray_matter": Material(40, 355, 0, 620, Kinetics(0.080, 0.130, 0.042, 0.05)),
    "brain_stem": Material(32, 390, 0, 850, Kinetics(0.065, 0.120, 0.040, 0.04)),
}
"""Every material by name."""

DELAYS_S = {
    "lung": -3.0,
    "lumen": 2.0,
    "subcutaneous_fat": 12.0,
    "visceral_fat": 9.0,
    "muscle": 9.0,
    "soft": 4.0,
    "liver": 6.0,
    "spleen": 3.0,
    "kidney": 1.5,
    "pancreas": 3.0,
    "stomach": 5.0,
    "bowel": 7.5,
    "colon": 8.0,
    "gland": 3.0,
    "bile": 10.0,
    "urine": 20.0,
    "spongy_bone": 5.0,
    "cortical_bone": 7.0,
    "cartilage": 10.0,
    "cord": 4.0,
    "csf": 6.0,
    "gray_matter": 3.0,
    "white_matter": 4.5,
    "deep_gray_matter": 3.0,
    "cerebellar_cortex": 3.5,
    "limbic_gray_matter": 3.5,
    "brain_stem": 3.5,
}
"""How much later than in the aorta blood arrives in each tissue, s: round numbers in the order of vascular
distance; in the lungs it is earlier. Materials that are not named are blood, or have no activity."""
