"""Which pieces of an aorta mask belong together, and which are another tube or debris."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.kernels.aorta.centreline import Cloud, Indices, Points, centre, trace

MAX_GAP_MM = 25.0
# Below this a piece holds no stretch of aorta worth bridging to (1 cm of a 17 mm wide aorta is 2.3 mL).
_MIN_PIECE_ML = 0.5
# A piece thinner than this part of the largest piece is a branch or a leak, not the next stretch of aorta.
_MIN_RELATIVE_DEPTH = 0.4
# The angle between the direction in which an end points and the way across the gap: 53 degrees at most.
_MIN_FACING_COSINE = 0.6
# Variance of the voxels along over that across: L^2 / (3 r^2) for a cylinder, 3 at a length of 3 radii.
_BLOB_VARIANCES = 3.0
# An arch on its own is about as wide as long, too; its line is longer than this.
_BLOB_DEPTHS = 4.0
# Over this stretch the direction of an end is measured.
_END_MM = 12


@dataclass(frozen=True, eq=False)
class Tube:
    """Pieces of a mask that form one tube.

    Parameters
    ----------
    members
        Numbers of its voxels in the cloud of the whole mask.
    line
        Centreline at 1 mm steps, mm.
    links
        Bridges between its pieces, as pairs of positions within ``members``.
    gaps_mm
        Width of each bridged gap.
    """

    members: Indices
    line: Points
    links: list[tuple[int, int]] = field(default_factory=list)
    gaps_mm: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _End:
    """Where a tube stops and the direction it points in there.

    A blob, which is about as long as wide, has its middle for an end and points nowhere.
    """

    at: Points
    direction: Points | None


@dataclass(frozen=True, eq=False)
class _Bridge:
    gap_mm: float
    here: int
    there: int


def join_pieces(cloud: Cloud) -> list[Tube]:
    """The tubes that a mask falls into, the largest first; small and thin pieces are in none of them.

    Two pieces are one tube if an end of one is at most 25 mm from an end of the other and they point
    at each other. The limbs of an arch that the edge of the image cuts off stay apart.
    """
    left = [_tube(members, [], [], cloud) for members in _pieces(cloud)]
    tubes: list[Tube] = []
    while left:
        tube, left = _grow(left[0], left[1:], cloud)
        tubes.append(tube)
    return sorted(tubes, key=lambda tube: -len(tube.members))


def _tube(members: Indices, links: list[tuple[int, int]], gaps_mm: list[float], cloud: Cloud) -> Tube:
    """A tube with its centreline."""
    own = cloud.only(members)
    return Tube(members, centre(trace(own, links), own), links, gaps_mm)


def _pieces(cloud: Cloud) -> list[Indices]:
    """Voxel numbers of each 26-connected piece that can be a stretch of aorta, the largest first."""
    box = np.zeros(cloud.voxels.max(axis=0) + 1, dtype=bool)
    box[tuple(cloud.voxels.T)] = True
    numbers, _ = ndimage.label(box, np.ones((3, 3, 3), dtype=bool))
    piece = numbers[tuple(cloud.voxels.T)] - 1
    sizes = np.bincount(piece)
    order = np.argsort(-sizes, kind="stable")
    least = max(4.0, _MIN_PIECE_ML / cloud.crop.voxel_volume_ml)
    found = [np.flatnonzero(piece == k) for k in order if k == order[0] or sizes[k] >= least]
    full = float(np.percentile(cloud.depth_mm[found[0]], 95))
    return [
        members
        for k, members in enumerate(found)
        if k == 0 or cloud.depth_mm[members].max() >= _MIN_RELATIVE_DEPTH * full
    ]


def _grow(tube: Tube, others: list[Tube], cloud: Cloud) -> tuple[Tube, list[Tube]]:
    """The tube with every other tube that continues it, and the tubes left over."""
    left = list(others)
    while True:
        found = [
            (bridge.gap_mm, k, bridge) for k, o in enumerate(left) if (bridge := _bridge(tube, o, cloud))
        ]
        if not found:
            return tube, left
        _, k, bridge = min(found, key=lambda item: item[:2])
        other = left.pop(k)
        n = len(tube.members)
        moved = [(a + n, b + n) for a, b in other.links]
        tube = _tube(
            np.concatenate([tube.members, other.members]),
            [*tube.links, *moved, (bridge.here, bridge.there + n)],
            [*tube.gaps_mm, *other.gaps_mm, bridge.gap_mm],
            cloud,
        )


def _bridge(tube: Tube, other: Tube, cloud: Cloud) -> _Bridge | None:
    """The shortest bridge between ends that point at each other, or None."""
    a, b = cloud.only(tube.members), cloud.only(other.members)
    if _cut_by_the_image(a, b):
        return None
    found = []
    for p in _ends(tube, a):
        for q in _ends(other, b):
            there = _closest(b.points, p.at if q.direction is None else q.at)
            here = _closest(a.points, b.points[there] if p.direction is None else p.at)
            across = b.points[there] - a.points[here]
            if _face(p, q, across, float(cloud.crop.voxel_sizes_mm.max())):
                found.append((float(np.linalg.norm(across)), here, there))
    if not found:
        return None
    distance_mm, here, there = min(found)
    return _Bridge(max(0.0, distance_mm - float(cloud.crop.voxel_sizes_mm.mean())), here, there)


def _ends(tube: Tube, cloud: Cloud) -> list[_End]:
    """Both ends of a tube, or the middle of a blob."""
    line = tube.line
    variance = np.linalg.eigvalsh(np.cov(cloud.points.T))
    if len(line) < _BLOB_DEPTHS * cloud.depth_mm.max() and variance[2] < _BLOB_VARIANCES * variance[1]:
        return [_End(cloud.points.mean(axis=0), None)]
    back = min(_END_MM, len(line) - 1)
    found = []
    for end, inner in ((line[0], line[back]), (line[-1], line[-1 - back])):
        found.append(_End(end, (end - inner) / np.linalg.norm(end - inner)))
    return found


def _face(p: _End, q: _End, across: Points, voxel_mm: float) -> bool:
    """Whether two ends are near and point at each other; ``across`` leads from one to the other."""
    if float(np.linalg.norm(across)) > MAX_GAP_MM + voxel_mm:
        return False
    if p.direction is None or q.direction is None:
        # From a blob only its middle is known well enough to give a direction.
        across = q.at - p.at
    elif float(np.linalg.norm(across)) < 2 * voxel_mm:
        # Across a voxel or two the way from end to end is rounding; the ends are compared directly.
        across = p.direction - q.direction
    unit = across / max(float(np.linalg.norm(across)), 1e-9)
    along = [d @ u for d, u in ((p.direction, unit), (q.direction, -unit)) if d is not None]
    return all(float(cosine) >= _MIN_FACING_COSINE for cosine in along)


def _closest(points: Points, target: Points) -> int:
    """Number of the point nearest to a target."""
    return int(np.argmin(((points - target) ** 2).sum(axis=1)))


def _cut_by_the_image(a: Cloud, b: Cloud) -> bool:
    """Whether both pieces reach the upper edge of the image: the arch between them lies beyond it."""
    edge = a.crop.box_shape[2] - 2
    reach: NDArray[np.int64] = np.array([a.voxels[:, 2].max(), b.voxels[:, 2].max()])
    return bool(a.crop.at_high[2] and (reach >= edge).all())
