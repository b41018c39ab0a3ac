"""The trunk, neck and thighs of the phantom, mm in the reference body of 1.72 m.

x to the right, y to the front, z up; z = 0 lies at the lower end of the lungs. Names are those of the
total task. Sizes are round numbers for adults.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hedypet_bids.model import Sex
from hedypet_bids.phantom.regions import (
    INNER_FAT,
    LEG_FAT,
    LEG_MUSCLE,
    MUSCLE,
    SKIN_FAT,
    TABLE,
    code_of,
)
from hedypet_bids.phantom.shapes import Box, Cone, Ellipsoid, Loft, Section, Solid, Stroke, tube

Path = tuple[tuple[float, float, float], ...]
Channel = tuple[Path, tuple[float, ...]]

# z, x0, y0, a, b
_TRUNK = tuple(
    Section(*row)
    for row in (
        (-372, 0, -10, 130, 70),
        (-350, 0, -6, 152, 92),
        (-320, 0, -4, 156, 100),
        (-250, 0, -2, 152, 101),
        (-150, 0, 0, 136, 97),
        (-60, 0, 0, 134, 98),
        (40, 0, 0, 140, 101),
        (120, 0, 0, 144, 99),
        (170, 0, -3, 140, 86),
        (195, 0, -6, 112, 70),
        (214, 0, -8, 58, 56),
    )
)
_NECK = (Section(190, 0, -8, 56, 56), Section(250, 0, -8, 52, 52), Section(345, 0, -8, 54, 60))
_CAVITY = tuple(
    Section(*row)
    for row in (
        (-335, 0, 4, 70, 45),
        (-300, 0, 4, 95, 66),
        (-200, 0, 6, 106, 74),
        (-60, 0, 6, 114, 78),
        (40, 0, 6, 121, 80),
        (120, 0, 4, 112, 74),
        (170, 0, 0, 74, 50),
        (195, 0, -4, 34, 30),
    )
)
_LEG = ((-1000.0, 62.0, 62.0), (-520.0, 70.0, 76.0), (-400.0, 78.0, 86.0), (-310.0, 76.0, 88.0))
_LEG_X, _LEG_Y = 86.0, -6.0
_SHOULDER = ((126.0, -2.0, 158.0), (36.0, 46.0, 46.0))

# The oblique fissures are planes that fall to the front, the horizontal one is level.
_LOWER_LOBE = (0.0, 1.0, 1.0, 68.0)
_MIDDLE_LOBE = (0.0, 0.0, 1.0, 88.0)
_LUNGS = (
    ("upper_lobe_right", Ellipsoid((68.0, 2.0, 78.0), (52.0, 70.0, 105.0))),
    ("middle_lobe_right", Ellipsoid((68.0, 2.0, 78.0), (52.0, 70.0, 105.0), (_MIDDLE_LOBE,))),
    ("lower_lobe_right", Ellipsoid((68.0, 2.0, 78.0), (52.0, 70.0, 105.0), (_LOWER_LOBE,))),
    ("upper_lobe_left", Ellipsoid((-68.0, 0.0, 82.0), (50.0, 70.0, 101.0))),
    ("lower_lobe_left", Ellipsoid((-68.0, 0.0, 82.0), (50.0, 70.0, 101.0), (_LOWER_LOBE,))),
)
_ORGANS = (
    ("liver", Ellipsoid((44.0, 10.0, -26.0), (74.0, 62.0, 62.0))),
    ("stomach", Ellipsoid((-50.0, 34.0, -50.0), (38.0, 32.0, 44.0))),
    ("spleen", Ellipsoid((-86.0, -30.0, -28.0), (23.0, 34.0, 46.0))),
    ("small_bowel", Ellipsoid((0.0, 36.0, -190.0), (60.0, 32.0, 46.0))),
    ("pancreas", Ellipsoid((2.0, 14.0, -92.0), (52.0, 12.0, 14.0))),
    ("kidney_right", Ellipsoid((58.0, -44.0, -128.0), (27.0, 24.0, 50.0))),
    ("kidney_left", Ellipsoid((-58.0, -44.0, -128.0), (27.0, 24.0, 50.0))),
    ("adrenal_gland_right", Ellipsoid((36.0, -32.0, -62.0), (6.0, 9.0, 11.0))),
    ("adrenal_gland_left", Ellipsoid((-44.0, -30.0, -62.0), (6.0, 9.0, 11.0))),
    ("gallbladder", Ellipsoid((64.0, 52.0, -72.0), (14.0, 14.0, 20.0))),
    ("urinary_bladder", Ellipsoid((0.0, 22.0, -290.0), (36.0, 30.0, 29.0))),
    ("thyroid_gland", Ellipsoid((16.0, 14.0, 228.0), (8.0, 10.0, 20.0))),
    ("thyroid_gland", Ellipsoid((-16.0, 14.0, 228.0), (8.0, 10.0, 20.0))),
    ("heart", Ellipsoid((-20.0, 24.0, 38.0), (50.0, 40.0, 42.0))),
    ("atrial_appendage_left", Ellipsoid((-44.0, 34.0, 74.0), (11.0, 12.0, 10.0))),
)
_PROSTATE = Ellipsoid((0.0, 18.0, -333.0), (20.0, 15.0, 12.0))

# The ascending limb, a half circle over the left main bronchus, the descending limb to the bifurcation.
_AORTA_ROOT, _AORTA_DOWN = np.array([16.0, 20.0, 118.0]), np.array([-20.0, -34.0, 118.0])
_AORTA_LOW: Path = ((-20, -38, 60), (-17, -36, 0), (-11, -24, -60), (-7, -10, -110), (-5, -5, -158))
_ARCH_STEPS = 12
# Wide for an adult, so that coarse voxels show it; the hedyPET aortas have median radii up to 13 mm.
_RADIUS_ROOT_MM, _RADIUS_ARCH_MM, _RADIUS_LOW_MM = 14.0, 12.6, 12.1

_TUBES: tuple[tuple[str, Channel], ...] = (
    ("esophagus", (((3, -28, 205), (6, -32, 110), (-2, -24, 20), (-24, 20, -20)), (7, 7, 7, 7))),
    ("trachea", (((2, 6, 262), (8, -6, 190), (16, -22, 118)), (9, 9, 9))),
    ("trachea", (((16, -22, 118), (44, -18, 92)), (7, 6))),
    ("trachea", (((16, -22, 118), (-38, -12, 92)), (7, 6))),
    ("duodenum", (((28, 24, -78), (42, 14, -100), (42, 10, -138), (10, 14, -146)), (10, 11, 11, 10))),
    ("colon", (((84, 12, -214), (88, 16, -104)), (18, 16))),
    ("colon", (((88, 16, -104), (55, 52, -118), (0, 60, -134), (-62, 46, -110), (-92, 6, -92)), (15,) * 5)),
    ("colon", (((-92, 6, -92), (-88, 6, -205), (-58, -2, -256), (0, -34, -276), (0, -42, -330)), (14,) * 5)),
    ("pulmonary_vein", (((-38, -12, 72), (0, -6, 66), (44, -8, 74)), (8, 8, 8))),
    ("superior_vena_cava", (((36, 8, 66), (43, 6, 166)), (10, 9))),
    ("brachiocephalic_vein_right", (((43, 6, 166), (46, 6, 196)), (8, 7))),
    ("brachiocephalic_vein_left", (((43, 8, 168), (6, 26, 178), (-34, 12, 194)), (7, 7, 7))),
    ("inferior_vena_cava", (((20, -6, -164), (22, -8, -60), (20, 2, 16)), (11, 12, 12))),
    ("portal_vein_and_splenic_vein", (((-60, -10, -66), (0, 2, -74), (40, 14, -42)), (5, 6, 7))),
    ("iliac_vena_right", (((20, -8, -164), (38, -22, -215), (56, -12, -255)), (8, 7, 7))),
    ("iliac_vena_left", (((18, -10, -166), (-34, -24, -215), (-56, -12, -255)), (8, 7, 7))),
    ("iliac_artery_right", (((-1, -4, -166), (26, -6, -205), (44, 4, -245)), (7, 6.5, 6))),
    ("iliac_artery_left", (((-9, -4, -166), (-32, -6, -205), (-46, 4, -245)), (7, 6.5, 6))),
    ("brachiocephalic_trunk", (((10, 10, 150), (24, 4, 194)), (7, 6))),
    ("common_carotid_artery_right", (((24, 4, 194), (25, 2, 290)), (4.5, 4))),
    ("common_carotid_artery_left", (((-3, -8, 152), (-20, 0, 196), (-25, 2, 290)), (4.5, 4.5, 4))),
    ("subclavian_artery_right", (((24, 4, 194), (60, -4, 200), (88, -6, 188)), (5, 5, 5))),
    ("subclavian_artery_left", (((-12, -22, 150), (-28, -10, 194), (-88, -6, 188)), (5, 5, 5))),
)
# On the right side; the left is its mirror image. Painted over muscle and inner fat only.
_PAIRED_MUSCLES: tuple[tuple[str, tuple[Solid, ...]], ...] = (
    ("gluteus_maximus", (Ellipsoid((70.0, -78.0, -300.0), (58.0, 34.0, 74.0)),)),
    ("gluteus_medius", (Ellipsoid((114.0, -30.0, -232.0), (30.0, 50.0, 54.0)),)),
    ("gluteus_minimus", (Ellipsoid((118.0, -12.0, -262.0), (16.0, 28.0, 28.0)),)),
    (
        "autochthon",
        tube(((30, -78, -215), (30, -72, -120), (31, -80, -20), (30, -86, 110), (22, -62, 200)), (20,) * 5),
    ),
    ("iliopsoas", tube(((40, -32, -70), (44, -26, -160), (62, -2, -230), (86, 26, -300)), (9, 17, 17, 14))),
)
_PAIRED_BONES: tuple[tuple[str, tuple[Solid, ...]], ...] = (
    ("hip", tube(((48, -68, -205), (96, -38, -200), (112, 0, -205)), (9, 12, 10))),
    ("hip", tube(((62, -60, -225), (96, -28, -225), (92, -10, -285)), (12, 12, 26))),
    ("hip", tube(((92, -10, -285), (66, -34, -330), (58, -34, -358)), (26, 17, 15))),
    (
        "hip",
        tube(
            ((88, -2, -290), (50, 32, -312), (10, 42, -322), (36, 2, -346), (58, -34, -356)),
            (18, 10, 10, 8, 10),
        ),
    ),
    ("femur", tube(((95, -8, -288), (122, -12, -318), (108, -6, -400), (94, -4, -1000)), (23, 17, 14, 14))),
    ("scapula", (Ellipsoid((92.0, -72.0, 132.0), (32.0, 7.0, 46.0)),)),
    ("clavicula", tube(((14, 52, 184), (70, 36, 192), (122, 2, 190)), (7, 6, 6))),
    ("humerus", (Ellipsoid((134.0, -4.0, 164.0), (20.0, 21.0, 21.0)),)),
)
_STERNUM = Ellipsoid((0.0, 88.0, 108.0), (19.0, 8.0, 74.0))

# y of the middle of the vertebral bodies by z: lordosis of neck and loins, kyphosis of the chest.
_SPINE_Z = (-300.0, -225.0, -195.0, -130.0, -45.0, 20.0, 100.0, 160.0, 205.0, 260.0, 305.0, 350.0)
_SPINE_Y = (-72.0, -56.0, -44.0, -34.0, -46.0, -56.0, -60.0, -52.0, -34.0, -22.0, -20.0, -18.0)
_LEVELS = (
    (("C", 7), 306.0, 205.0, (11.0, 9.0)),
    (("T", 12), 205.0, -45.0, (15.5, 13.0)),
    (("L", 5), -45.0, -195.0, (22.0, 17.0)),
)
_DISC_MM = 3.0
_CANAL_MM = 9.0

_RIB_RADIUS_MM = 5.5
# Angle from the back, degrees, where bone ends; the cartilages of ribs 1 to 10 lead on to the sternum.
_RIB_END_DEG = (140, 140, 140, 140, 138, 135, 130, 125, 120, 115, 95, 70)
_CARTILAGE_END_DEG = (166, 168, 168, 168, 168, 166, 160, 150, 140, 132)
_RIB_DROP_MM = 55.0


def table_stroke(fat_mm: float) -> Stroke:
    """The table of the scanner, under the back of a body with so much subcutaneous fat."""
    back = max(s.b - s.y0 for s in _TRUNK) + fat_mm
    return Stroke(Box((-200.0, -back - 14.0, -2000.0), (200.0, -back - 4.0, 2000.0)), code_of(TABLE))


def outline_strokes(*, fat_mm: float) -> Iterator[Stroke]:
    """Skin, muscle wall and cavity of trunk, neck and thighs; ``fat_mm``: the subcutaneous fat."""
    for margin, leg, rest in ((fat_mm, LEG_FAT, SKIN_FAT), (0.0, LEG_MUSCLE, MUSCLE)):
        for sign in (-1.0, 1.0):
            sections = tuple(Section(z, sign * _LEG_X, _LEG_Y, a, b) for z, a, b in _LEG)
            yield Stroke(Loft(sections, margin), code_of(leg))
            (x, y, z), (a, b, c) = _SHOULDER
            shoulder = Ellipsoid((sign * x, y, z), (a + margin, b + margin, c + margin))
            yield Stroke(shoulder, code_of(rest))
        yield Stroke(Loft(_TRUNK, margin), code_of(rest))
        yield Stroke(Loft(_NECK, min(margin, 6.0)), code_of(rest))
    yield Stroke(Loft(_CAVITY), code_of(INNER_FAT))


def content_strokes(*, sex: Sex, aorta_width: float) -> Iterator[Stroke]:
    """Everything inside the outline, below the head, in the order of painting.

    ``aorta_width`` is a factor on the radius of the aorta.
    """
    yield from _muscles()
    yield from _organs(sex)
    yield from _skeleton()
    yield from (Stroke(cone, code_of(name)) for name, (path, radii) in _TUBES for cone in tube(path, radii))
    path, radii = aorta_line(aorta_width)
    yield from (Stroke(cone, code_of("aorta")) for cone in tube(path, radii))


def aorta_line(width: float) -> tuple[Path, tuple[float, ...]]:
    """Points of the middle of the aorta from the root to the bifurcation, and the radius at each, mm."""
    angle = np.linspace(0.0, np.pi, _ARCH_STEPS + 1)[:, np.newaxis]
    middle, half = (_AORTA_ROOT + _AORTA_DOWN) / 2, (_AORTA_ROOT - _AORTA_DOWN) / 2
    arch = middle + np.cos(angle) * half + np.sin(angle) * np.array([0.0, 0.0, np.linalg.norm(half)])
    points = np.vstack([[12.0, 22.0, 60.0], arch, _AORTA_LOW])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    knots = [along[0], along[1], along[1 + _ARCH_STEPS], along[-1]]
    radii = np.interp(along, knots, [_RADIUS_ROOT_MM, _RADIUS_ARCH_MM, _RADIUS_ARCH_MM, _RADIUS_LOW_MM])
    return tuple((float(p[0]), float(p[1]), float(p[2])) for p in points), tuple(
        float(r) * width for r in radii
    )


def whole_trunk_ellipsoids() -> dict[str, Ellipsoid]:
    """Regions below the head that are complete ellipsoids, by name."""
    whole = ("kidney_left", "kidney_right", "urinary_bladder", "gallbladder")
    return {name: solid for name, solid in _ORGANS if name in whole}


def _muscles() -> Iterator[Stroke]:
    over = frozenset({code_of(MUSCLE), code_of(INNER_FAT), code_of(LEG_MUSCLE)})
    for name, solids in _PAIRED_MUSCLES:
        for side, mirrored in _both_sides(solids):
            yield from (Stroke(solid, code_of(f"{name}_{side}"), over) for solid in mirrored)


def _organs(sex: Sex) -> Iterator[Stroke]:
    yield from (Stroke(solid, code_of(f"lung_{lobe}")) for lobe, solid in _LUNGS)
    yield from (Stroke(solid, code_of(name)) for name, solid in _ORGANS)
    if sex == "M":
        yield Stroke(_PROSTATE, code_of("prostate"))


def _skeleton() -> Iterator[Stroke]:
    yield from _ribs()
    over = frozenset(
        code_of(name)
        for name in (MUSCLE, INNER_FAT, LEG_MUSCLE, *(f"{m}_{s}" for m, _ in _PAIRED_MUSCLES for s in _SIDES))
    )
    for name, solids in _PAIRED_BONES:
        for side, mirrored in _both_sides(solids):
            yield from (Stroke(solid, code_of(f"{name}_{side}"), over) for solid in mirrored)
    yield Stroke(_STERNUM, code_of("sternum"), over)
    yield from _spine()


def _ribs() -> Iterator[Stroke]:
    lungs = [code_of(f"lung_{lobe}") for lobe, _ in _LUNGS]
    wall = frozenset(
        {code_of(MUSCLE), code_of(INNER_FAT), code_of("autochthon_left"), code_of("autochthon_right"), *lungs}
    )
    back_z = np.linspace(195.0, -35.0, 12)
    for rib, (z, end) in enumerate(zip(back_z, _RIB_END_DEG, strict=True), start=1):
        bone = tube(_rib_line(z, 18.0, end), (_RIB_RADIUS_MM,) * 13)
        for side, solids in _both_sides(bone):
            yield from (Stroke(solid, code_of(f"rib_{side}_{rib}"), wall) for solid in solids)
        if rib <= len(_CARTILAGE_END_DEG):
            cartilage = tube(_rib_line(z, end, _CARTILAGE_END_DEG[rib - 1]), (_RIB_RADIUS_MM,) * 13)
            for _, solids in _both_sides(cartilage):
                yield from (Stroke(solid, code_of("costal_cartilages"), wall) for solid in solids)


def _rib_line(back_z: float, start_deg: float, end_deg: float) -> Path:
    """Thirteen points in the chest wall, between the cavity and the outline, falling to the front."""
    angle = np.deg2rad(np.linspace(start_deg, end_deg, 13))
    z = back_z - _RIB_DROP_MM * (1.0 - np.cos(angle)) / 2.0
    semi = [
        np.interp(z, [s.z for s in _TRUNK], [getattr(s, axis) for s in _TRUNK])
        + np.interp(z, [s.z for s in _CAVITY], [getattr(s, axis) for s in _CAVITY])
        for axis in ("a", "b")
    ]
    x, y = semi[0] / 2.0 * np.sin(angle), 2.0 - semi[1] / 2.0 * np.cos(angle)
    return tuple((float(p), float(q), float(r)) for p, q, r in zip(x, y, z, strict=True))


def _spine() -> Iterator[Stroke]:
    for (letter, count), top, bottom, semi in _LEVELS:
        edges = np.linspace(top, bottom, count + 1)
        for number in range(count):
            yield from _vertebra(f"vertebrae_{letter}{number + 1}", edges[number + 1], edges[number], semi)
    yield from _vertebra("vertebrae_S1", -225.0, -195.0, (24.0, 17.0))
    for solid in tube(((0, -62, -236), (0, -72, -300)), (24, 12)):
        yield Stroke(solid, code_of("sacrum"))
    canal = [(0.0, _spine_y(z) - 13.0 - _CANAL_MM, z) for z in np.linspace(-60.0, 345.0, 28)]
    yield from (Stroke(cone, code_of("spinal_cord")) for cone in tube(canal, (5.0,) * 28))


def _vertebra(name: str, low: float, high: float, semi: tuple[float, float]) -> Iterator[Stroke]:
    (a, b), gap = semi, _DISC_MM / 2
    body = tuple(Section(z, 0.0, _spine_y(z), a, b) for z in (low + gap, high - gap))
    yield Stroke(Loft(body), code_of(name))
    z = (low + high) / 2
    back = _spine_y(z) - b
    yield Stroke(Cone((0.0, back, z), (0.0, back - 24.0, z - 4.0), 9.0, 5.0), code_of(name))


_SIDES = ("left", "right")


def _both_sides(solids: tuple[Solid, ...]) -> Iterator[tuple[str, tuple[Solid, ...]]]:
    """A structure of the right side as ``left`` (mirrored) and ``right``."""
    yield "left", tuple(_mirrored(solid) for solid in solids)
    yield "right", solids


def _mirrored(solid: Solid) -> Solid:
    if isinstance(solid, Ellipsoid):
        (x, y, z) = solid.centre
        return Ellipsoid((-x, y, z), solid.semi, tuple((-nx, ny, nz, d) for nx, ny, nz, d in solid.cuts))
    if isinstance(solid, Cone):
        (x0, y0, z0), (x1, y1, z1) = solid.start, solid.end
        return Cone((-x0, y0, z0), (-x1, y1, z1), solid.radius_start, solid.radius_end)
    raise TypeError(f"{type(solid).__name__} has no mirror image here")


def _spine_y(z: float) -> float:
    return float(np.interp(z, _SPINE_Z, _SPINE_Y))
