"""The head of the phantom: scalp, skull and the regions of SynthSeg, mm in the reference body."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.phantom.regions import CORTEX, INNER_FAT, MUSCLE, PARCELS_PER_HEMISPHERE, SKIN_FAT, code_of
from hedypet_bids.phantom.regions import regions as all_regions
from hedypet_bids.phantom.shapes import Coords, Ellipsoid, Solid, Stroke, tube

TOP_MM = 522.0
"""Height of the top of the head."""
CENTRE_MM = (0.0, 4.0, 440.0)
"""Middle of the cerebrum."""

_SCALP_MM = 4.0
_HEAD = Ellipsoid((0.0, 5.0, 412.0), (78.0, 98.0, 110.0))
_JAW = Ellipsoid((0.0, 45.0, 318.0), (50.0, 55.0, 45.0))
_SKULL = Ellipsoid((0.0, 2.0, 435.0), (69.0, 87.0, 79.0))
_CAVITY = Ellipsoid((0.0, 2.0, 435.0), (62.0, 80.0, 72.0))

_CEREBRUM = Ellipsoid((0.0, 4.0, 444.0), (60.5, 77.5, 60.0))
_WHITE = Ellipsoid((0.0, 4.0, 444.0), (49.0, 66.0, 48.5))
_FISSURE_MM = 1.5

# name: centre on the right side, semi-axes. The left side is its mirror image.
_PAIRED = {
    "Cerebellum-Cortex": ((25.0, -45.0, 400.0), (25.0, 27.0, 22.0)),
    "Cerebellum-White-Matter": ((23.0, -45.0, 400.0), (15.0, 16.0, 12.0)),
    "Lateral-Ventricle": ((14.0, 5.0, 459.0), (7.0, 32.0, 9.0)),
    "Inf-Lat-Vent": ((36.0, -14.0, 424.0), (3.5, 12.0, 4.5)),
    "Thalamus-Proper*": ((12.0, -8.0, 441.0), (8.5, 14.0, 9.0)),
    "Caudate": ((15.0, 25.0, 441.0), (5.5, 13.0, 6.5)),
    "Putamen": ((31.0, 8.0, 438.0), (6.0, 17.0, 10.0)),
    "Pallidum": ((20.5, 7.0, 430.0), (4.5, 8.0, 7.0)),
    "Hippocampus": ((26.0, -14.0, 421.0), (6.0, 17.0, 6.0)),
    "Amygdala": ((26.0, 11.0, 419.0), (6.0, 7.0, 6.0)),
    "Accumbens-area": ((9.0, 24.0, 429.0), (4.5, 5.0, 4.0)),
    "VentralDC": ((10.0, -6.0, 423.0), (6.0, 9.0, 6.0)),
}
_MIDLINE: dict[str, tuple[Solid, ...]] = {
    "3rd-Ventricle": (Ellipsoid((0.0, -2.0, 439.0), (3.0, 12.0, 9.0)),),
    "Brain-Stem": tube(((0, -8, 416), (0, -14, 395), (0, -18, 368)), (11.0, 14.0, 9.0)),
    "4th-Ventricle": (Ellipsoid((0.0, -32.0, 398.0), (6.0, 5.0, 8.0)),),
}


@dataclass(frozen=True)
class CortexSectors:
    """The parcels of one hemisphere: angular sectors seen from the side, a lateral and a medial one each."""

    n_parcels: int = PARCELS_PER_HEMISPHERE

    def number(self, x: Coords, y: Coords, z: Coords) -> NDArray[np.int64]:
        """The parcel of each point, 0 to ``n_parcels`` - 1."""
        (cx, cy, cz), (a, b, c) = _CEREBRUM.centre, _CEREBRUM.semi
        u, v, w = np.abs(x - cx) / a, (y - cy) / b, (z - cz) / c
        n_sectors = self.n_parcels // 2
        sector = np.floor((np.arctan2(w, v) / (2 * np.pi) + 0.5) * n_sectors).astype(np.int64)
        # On a sphere u > 1/2 holds a quarter of the surface on each side, so both parcels are equal.
        lateral = u > 0.5 * np.sqrt(u**2 + v**2 + w**2)
        return 2 * np.clip(sector, 0, n_sectors - 1) + lateral


def head_strokes() -> Iterator[Stroke]:
    """Scalp, face, jaw, skull and brain in the order of painting."""
    yield Stroke(_HEAD, code_of(SKIN_FAT))
    yield Stroke(_JAW, code_of(SKIN_FAT))
    yield Stroke(_shrunk(_HEAD, _SCALP_MM), code_of(MUSCLE))
    yield Stroke(_shrunk(_JAW, _SCALP_MM), code_of(MUSCLE))
    yield from (Stroke(Ellipsoid((x, 78.0, 395.0), (13.0,) * 3), code_of(INNER_FAT)) for x in (-32.0, 32.0))
    mandible = tube(
        ((-46, 20, 335), (-42, 35, 308), (0, 86, 300), (42, 35, 308), (46, 20, 335)),
        (7.0, 7.0, 9.0, 7.0, 7.0),
    )
    yield from (Stroke(cone, code_of("skull")) for cone in mandible)
    yield Stroke(_SKULL, code_of("skull"))
    yield Stroke(_CAVITY, code_of("CSF"))
    for side, prefix, sign in (("Left", CORTEX[0], -1.0), ("Right", CORTEX[1], 1.0)):
        first = next(code for code, region in enumerate(all_regions()) if region.name.startswith(prefix))
        half = (-sign, 0.0, 0.0, -_FISSURE_MM)
        yield Stroke(_cut(_CEREBRUM, half), first, parcels=CortexSectors())
        yield Stroke(_cut(_WHITE, half), code_of(f"{side}-Cerebral-White-Matter"))
        for name, ((x, y, z), semi) in _PAIRED.items():
            cuts = ((-sign, 0.0, 0.0, 0.0),) if name.startswith("Cerebellum") else ()
            yield Stroke(Ellipsoid((sign * x, y, z), semi, cuts), code_of(f"{side}-{name}"))
    for name, solids in _MIDLINE.items():
        yield from (Stroke(solid, code_of(name)) for solid in solids)


def whole_brain_ellipsoids() -> dict[str, Ellipsoid]:
    """Brain regions that are complete ellipsoids, by name."""
    covered = ("Cerebellum", "Thalamus", "Pallidum", "VentralDC")
    return {
        f"{side}-{name}": Ellipsoid((sign * centre[0], centre[1], centre[2]), semi)
        for name, (centre, semi) in _PAIRED.items()
        for side, sign in (("Left", -1.0), ("Right", 1.0))
        if not name.startswith(covered)
    }


def _shrunk(solid: Ellipsoid, by_mm: float) -> Ellipsoid:
    a, b, c = solid.semi
    return Ellipsoid(solid.centre, (a - by_mm, b - by_mm, c - by_mm))


def _cut(solid: Ellipsoid, half_space: tuple[float, float, float, float]) -> Ellipsoid:
    return Ellipsoid(solid.centre, solid.semi, (half_space,))
