"""The tracers that the phantom can be injected with, and how its tissues take them up.

FDG's rate constants stand with the other properties of the tissues in
:mod:`hedypet_bids.phantom.materials`. Those of the other tracers are round numbers that put the organs in
the order known from healthy adults: PSMA-1007 has two tissues, and stays longest in kidneys, liver, spleen
and glands; UCB-J has one tissue, and its distribution volumes in the brain are about those of Finnema et
al., J Cereb Blood Flow Metab 2018;38:2041.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hedypet_bids.phantom.kinetics import Kinetics
from hedypet_bids.phantom.materials import MATERIALS


@dataclass(frozen=True)
class Tracer:
    """One tracer.

    Parameters
    ----------
    label
        Value of the BIDS entity ``trc``.
    name, radionuclide
        ``TracerName`` and ``TracerRadionuclide`` of the sidecar.
    half_life_s
        Of the radionuclide, s.
    mbq_per_kg
        Lowest and highest injected activity by body weight.
    late_blood_suv
        Lowest and highest SUV of blood an hour after injection.
    kinetics
        Reference rate constants by material; materials that are not named have no activity.
    """

    label: str
    name: str
    radionuclide: str
    half_life_s: float
    mbq_per_kg: tuple[float, float]
    late_blood_suv: tuple[float, float]
    kinetics: Mapping[str, Kinetics]

    @property
    def is_reversible(self) -> bool:
        """Whether every tissue lets the tracer go again, so that it has a distribution volume."""
        return all(k.k3 == 0 or k.k4 > 0 for k in self.kinetics.values())


_F18_HALF_LIFE_S, _C11_HALF_LIFE_S = 109.77 * 60.0, 20.385 * 60.0
_BLOOD = Kinetics(0.0, 0.0, 0.0, 1.0)

# K1, k2, k3, vb, k4
_PSMA = {
    "lumen": Kinetics(0.02, 0.5, 0.0, 0.02),
    "lung": Kinetics(0.03, 0.20, 0.010, 0.16, 0.040),
    "subcutaneous_fat": Kinetics(0.02, 0.30, 0.010, 0.02, 0.040),
    "visceral_fat": Kinetics(0.03, 0.30, 0.010, 0.04, 0.040),
    "muscle": Kinetics(0.04, 0.20, 0.020, 0.03, 0.040),
    "soft": Kinetics(0.10, 0.30, 0.030, 0.08, 0.040),
    "blood": _BLOOD,
    "liver": Kinetics(0.60, 0.30, 0.100, 0.15, 0.020),
    "spleen": Kinetics(0.50, 0.30, 0.080, 0.15, 0.020),
    "kidney": Kinetics(0.65, 0.25, 0.150, 0.15, 0.020),
    "pancreas": Kinetics(0.30, 0.40, 0.060, 0.10, 0.030),
    "stomach": Kinetics(0.20, 0.40, 0.050, 0.05, 0.040),
    "bowel": Kinetics(0.25, 0.35, 0.080, 0.05, 0.025),
    "colon": Kinetics(0.10, 0.30, 0.040, 0.03, 0.040),
    "gland": Kinetics(0.35, 0.40, 0.120, 0.10, 0.020),
    "bile": Kinetics(0.05, 0.02, 0.020, 0.02, 0.020),
    "urine": Kinetics(0.02, 0.01, 0.0, 0.0),
    "spongy_bone": Kinetics(0.08, 0.30, 0.030, 0.06, 0.040),
    "cortical_bone": Kinetics(0.03, 0.30, 0.020, 0.03, 0.040),
    "cartilage": Kinetics(0.02, 0.20, 0.010, 0.02, 0.040),
    "cord": Kinetics(0.01, 0.15, 0.010, 0.03, 0.040),
    "csf": Kinetics(0.002, 0.05, 0.0, 0.01),
    "gray_matter": Kinetics(0.010, 0.10, 0.010, 0.05, 0.040),
    "white_matter": Kinetics(0.006, 0.10, 0.010, 0.03, 0.040),
    "deep_gray_matter": Kinetics(0.010, 0.10, 0.012, 0.05, 0.040),
    "cerebellar_cortex": Kinetics(0.011, 0.10, 0.012, 0.05, 0.040),
    "limbic_gray_matter": Kinetics(0.009, 0.10, 0.010, 0.05, 0.040),
    "brain_stem": Kinetics(0.008, 0.10, 0.010, 0.04, 0.040),
}

# K1, VT, vb
_UCBJ = {
    "lumen": (0.02, 0.1, 0.02),
    "lung": (0.10, 1.5, 0.16),
    "subcutaneous_fat": (0.02, 1.0, 0.02),
    "visceral_fat": (0.05, 1.5, 0.04),
    "muscle": (0.06, 2.0, 0.03),
    "soft": (0.15, 2.0, 0.08),
    "liver": (0.70, 9.0, 0.15),
    "spleen": (0.60, 5.0, 0.15),
    "kidney": (0.80, 5.0, 0.15),
    "pancreas": (0.45, 6.0, 0.10),
    "stomach": (0.30, 4.0, 0.05),
    "bowel": (0.30, 4.0, 0.05),
    "colon": (0.15, 3.0, 0.03),
    "gland": (0.40, 5.0, 0.10),
    "bile": (0.05, 4.0, 0.02),
    "urine": (0.04, 4.0, 0.0),
    "spongy_bone": (0.12, 2.5, 0.06),
    "cortical_bone": (0.05, 1.0, 0.03),
    "cartilage": (0.02, 0.8, 0.02),
    "cord": (0.10, 4.0, 0.03),
    "csf": (0.01, 0.5, 0.01),
    "gray_matter": (0.35, 18.0, 0.05),
    "white_matter": (0.12, 5.0, 0.03),
    "deep_gray_matter": (0.36, 17.0, 0.05),
    "cerebellar_cortex": (0.34, 14.0, 0.05),
    "limbic_gray_matter": (0.28, 15.0, 0.05),
    "brain_stem": (0.20, 7.0, 0.04),
}

FDG = Tracer(
    "18FFDG",
    "FDG",
    "F18",
    _F18_HALF_LIFE_S,
    mbq_per_kg=(2.7, 3.3),
    # The hedyPET aortas have a median of 1.9 from 50 to 70 min.
    late_blood_suv=(1.9, 2.2),
    kinetics={name: m.kinetics for name, m in MATERIALS.items() if m.kinetics is not None},
)

REFERENCE = "cerebellar_cortex"
"""The material that binds nothing of a reversible tracer in scans with blood samples."""

TRACERS: Mapping[str, Tracer] = {
    tracer.label: tracer
    for tracer in (
        FDG,
        Tracer("18FPSMA1007", "PSMA-1007", "F18", _F18_HALF_LIFE_S, (3.6, 4.4), (1.2, 1.6), _PSMA),
        Tracer(
            "11CUCBJ",
            "UCB-J",
            "C11",
            _C11_HALF_LIFE_S,
            (5.0, 8.0),
            (0.35, 0.55),
            {
                "blood": _BLOOD,
                **{name: Kinetics(K1, K1 / vt, 0.0, vb) for name, (K1, vt, vb) in _UCBJ.items()},
            },
        ),
    )
}
"""Every tracer by the value of its BIDS entity."""
