"""Picture of the aorta: its segments and volumes of interest, on the early PET where that is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.errors import BadDataError
from hedypet_bids.model import FloatArray, Grid

# Okabe and Ito's palette: told apart with every common colour blindness, and dark enough on white.
SEGMENT_COLOURS: Mapping[int, str] = {1: "#D55E00", 2: "#0072B2", 3: "#009E73", 4: "#CC79A7"}
SEGMENT_TITLES: Mapping[int, str] = {
    1: "ascending",
    2: "top",
    3: "upper descending",
    4: "lower descending",
}
_LINE_COLOUR = "black"
# The blood of the bolus comes out mid-grey, so that colours on it stay what they are in the legend.
_BLACK = 2.2
# Enough around the aorta to see heart, spine and liver as landmarks.
_MARGIN_MM = 25.0
_HALF_WIDTH_MM = 25.0
_COARSEST_STEP_MM = 2.0


class Segments(Protocol):
    """What the picture needs of the segments of an aorta."""

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Segment label of each voxel."""

    @property
    def points_mm(self) -> NDArray[np.float64]:
        """Centreline in world mm, shape (n, 3)."""

    @property
    def segment(self) -> NDArray[np.uint8]:
        """Label of each point of the centreline, shape (n,)."""


def draw_aorta(
    early_mean: FloatArray, segments: Segments, vois: Mapping[str, NDArray[np.uint8]], grid: Grid
) -> Figure:
    """Coronal and sagittal projections of the early PET with segments and VOIs, and views along the aorta.

    Parameters
    ----------
    early_mean
        Mean of the early frames, shape of the grid.
    segments
        Labels, and the centreline that the views along the aorta follow.
    vois
        Labels of each kind of volume of interest, by the name to show.

    Raises
    ------
    BadDataError
        There is no segment, or an image has another shape than the grid.
    """
    scene = _Scene(segments.labels, grid, early_mean, vois)
    figure, axes, last = _frame(scene, vois, unrolled=True)
    _draw_projections(axes, scene, vois, segments.points_mm)
    _draw_unrolled(last, early_mean, segments, vois, grid)
    return figure


def draw_aorta_labels(labels: NDArray[np.uint8], vois: Mapping[str, NDArray[np.uint8]], grid: Grid) -> Figure:
    """Coronal and sagittal projections of the segments and VOIs alone.

    Raises
    ------
    BadDataError
        There is no segment, or an image has another shape than the grid.
    """
    scene = _Scene(labels, grid, None, vois)
    figure, axes, _ = _frame(scene, vois, unrolled=False)
    _draw_projections(axes, scene, vois, None)
    return figure


class _Scene:
    """The box around the aorta on a grid along the world axes, so that a pixel is a place in mm."""

    def __init__(
        self,
        labels: NDArray[np.uint8],
        grid: Grid,
        early_mean: FloatArray | None,
        vois: Mapping[str, NDArray[np.uint8]],
    ) -> None:
        for name, image in (("segments", labels), ("early PET", early_mean), *vois.items()):
            if image is not None and image.shape != grid.shape:
                raise BadDataError(
                    f"{name} has shape {image.shape}; expected that of the grid, {grid.shape}."
                )
        if not labels.any():
            raise BadDataError("There is no aorta segment to draw.")
        voxels = np.argwhere(labels)
        where = voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        self.step_mm = max(_COARSEST_STEP_MM, float(grid.voxel_sizes_mm.min()))
        self.low_mm = where.min(axis=0) - _MARGIN_MM
        self.shape = tuple(
            int(n) for n in np.ceil((where.max(axis=0) + _MARGIN_MM - self.low_mm) / self.step_mm) + 1
        )
        self.grid = grid
        self.labels = self.placed(labels)
        self.pet = None if early_mean is None else self.placed(early_mean.astype(np.float32))

    def placed(self, image: NDArray[Any]) -> NDArray[Any]:
        """An image on the world grid: labels by the nearest voxel, values linearly."""
        to_world = np.diag([self.step_mm] * 3 + [1.0])
        to_world[:3, 3] = self.low_mm
        matrix = np.linalg.solve(self.grid.affine, to_world)
        order = _order(image)
        placed: NDArray[Any] = ndimage.affine_transform(
            _finite(image), matrix[:3, :3], matrix[:3, 3], self.shape, order=order
        )
        return placed

    def projection(self, image: NDArray[Any], along: int) -> NDArray[Any]:
        """Maximum along a world axis, rows from low to high z."""
        projected: NDArray[Any] = image.max(axis=along).T
        return projected

    def extent(self, across: int) -> tuple[float, float, float, float]:
        """Edges of a projection in mm."""
        low = self.low_mm - self.step_mm / 2
        high = low + np.array(self.shape) * self.step_mm
        return float(low[across]), float(high[across]), float(low[2]), float(high[2])


def _frame(
    scene: _Scene, vois: Mapping[str, Any], *, unrolled: bool
) -> tuple[Figure, NDArray[Any], list[Axes]]:
    """A figure with two panels for the segments, two for each kind of VOI, and two along the aorta."""
    pairs = 1 + len(vois)
    widths = [scene.shape[0], scene.shape[1]] * pairs
    if unrolled:
        widths += [int(2 * _HALF_WIDTH_MM / scene.step_mm)] * 2
    height = 5.5
    width = height * 0.8 * sum(widths) / scene.shape[2] + 0.55 * len(widths)
    figure = Figure(figsize=(max(width, 5.0), height), layout="constrained")
    axes = figure.subplots(1, len(widths), width_ratios=widths)
    handles: list[Any] = [Patch(color=SEGMENT_COLOURS[k], label=SEGMENT_TITLES[k]) for k in SEGMENT_COLOURS]
    if unrolled:
        handles.append(Line2D([], [], color=_LINE_COLOUR, lw=1.2, label="centreline"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure, axes[: 2 * pairs], list(axes[2 * pairs :])


def _draw_projections(
    axes: NDArray[Any],
    scene: _Scene,
    vois: Mapping[str, NDArray[np.uint8]],
    line_mm: NDArray[np.float64] | None,
) -> None:
    """The segments in the first two panels, each kind of VOI in two further ones."""
    shown = {"segments": scene.labels, **{name: scene.placed(image) for name, image in vois.items()}}
    for column, (name, labels) in enumerate(shown.items()):
        for axis, across, view in ((axes[2 * column], 0, "coronal"), (axes[2 * column + 1], 1, "sagittal")):
            _draw_panel(axis, scene, labels, across, opacity=0.35 if column == 0 else 0.9)
            if line_mm is not None and column == 0:
                for piece in _pieces(line_mm):
                    axis.plot(piece[:, across], piece[:, 2], color=_LINE_COLOUR, lw=1.2)
            axis.set_title(f"{name}\n{view}", fontsize=8)
            axis.set_xlabel(("left   x [mm]   right", "back   y [mm]   front")[across], fontsize=7)
            axis.tick_params(labelsize=6)
            if axis is axes[0]:
                axis.set_ylabel("z [mm]", fontsize=7)
            else:
                axis.tick_params(labelleft=False)


def _draw_panel(axis: Axes, scene: _Scene, labels: NDArray[np.uint8], across: int, *, opacity: float) -> None:
    """One projection: PET in grey where known, the outline of the aorta, labels in colours."""
    along, extent = 1 - across, scene.extent(across)
    if scene.pet is not None:
        top = _BLACK * float(np.percentile(scene.pet[scene.labels > 0], 99))
        axis.imshow(
            scene.projection(scene.pet, along),
            extent=extent,
            origin="lower",
            cmap="gray_r",
            vmin=0,
            vmax=max(top, 1e-9),
        )
    outline = scene.projection(scene.labels > 0, along)
    x = np.linspace(extent[0] + scene.step_mm / 2, extent[1] - scene.step_mm / 2, outline.shape[1])
    z = np.linspace(extent[2] + scene.step_mm / 2, extent[3] - scene.step_mm / 2, outline.shape[0])
    axis.contour(x, z, outline, levels=[0.5], colors="0.35", linewidths=0.6)
    for label, colour in SEGMENT_COLOURS.items():
        there = scene.projection(labels == label, along)
        if there.any():
            axis.imshow(_coloured(there, colour, opacity), extent=extent, origin="lower")
            axis.contour(x, z, there, levels=[0.5], colors=colour, linewidths=0.9)
    axis.set_aspect("equal")


def _coloured(mask: NDArray[Any], colour: str, opacity: float) -> NDArray[np.float64]:
    """RGBA image of a mask in one colour."""
    image = np.zeros((*mask.shape, 4))
    image[mask > 0] = to_rgba(colour, opacity)
    return image


def _pieces(line_mm: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The centreline cut where it jumps from one limb to the other (no arch in the mask)."""
    jumps = np.flatnonzero(np.linalg.norm(np.diff(line_mm, axis=0), axis=1) > 5.0) + 1
    return np.split(line_mm, jumps)


def _draw_unrolled(
    axes: list[Axes],
    early_mean: FloatArray,
    segments: Segments,
    vois: Mapping[str, NDArray[np.uint8]],
    grid: Grid,
) -> None:
    """The PET along the straightened centreline in two planes, with the segments and the first VOIs."""
    offsets = np.arange(-_HALF_WIDTH_MM, _HALF_WIDTH_MM + 0.5, 1.0)
    voi_name = next(iter(vois), None)
    pieces = _pieces(segments.points_mm)
    first, second = (np.concatenate(n) for n in zip(*map(_normals, pieces), strict=True))
    length = len(segments.points_mm)
    extent = (-_HALF_WIDTH_MM, _HALF_WIDTH_MM, float(length), 0.0)
    for axis, normal, title in zip(axes, (first, second), ("front-back", "side-side"), strict=True):
        where = segments.points_mm[:, None] + offsets[:, None] * normal[:, None]
        pet = _sample(early_mean.astype(np.float32), grid, where)
        top = _BLACK * float(np.nanpercentile(early_mean[segments.labels > 0], 99))
        axis.imshow(pet, extent=extent, cmap="gray_r", vmin=0, vmax=max(top, 1e-9), aspect="equal")
        inside = _sample(segments.labels, grid, where)
        voi = None if voi_name is None else _sample(vois[voi_name], grid, where)
        for label, colour in SEGMENT_COLOURS.items():
            if (inside == label).any():
                axis.contour(
                    offsets, np.arange(length), inside == label, levels=[0.5], colors=colour, linewidths=0.9
                )
            if voi is not None and (voi == label).any():
                axis.imshow(_coloured(voi == label, colour, 0.6), extent=extent, aspect="equal")
        axis.set_xlim(-_HALF_WIDTH_MM, _HALF_WIDTH_MM)
        axis.set_ylim(length, 0)
        axis.set_title(f"unrolled\n{title}", fontsize=8)
        axis.set_xlabel("off the line [mm]", fontsize=7)
        axis.tick_params(labelsize=6)
    axes[0].set_ylabel("along the aorta from the root [mm]", fontsize=7)


def _normals(line_mm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two directions across a line at each point, turning as little as possible along it."""
    tangent = np.gradient(line_mm, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = np.empty_like(tangent)
    # The root runs upwards, so the patient's front is across it.
    carried = np.array([0.0, 1.0, 0.0])
    for k, along in enumerate(tangent):
        across = carried - (carried @ along) * along
        size = float(np.linalg.norm(across))
        carried = across / size if size > 1e-6 else np.roll(along, 1)
        normal[k] = carried
    return normal, np.cross(tangent, normal)


def _sample(image: NDArray[Any], grid: Grid, where: NDArray[np.float64]) -> NDArray[Any]:
    """Values of an image at points in world mm, 0 outside; labels by the nearest voxel."""
    inverse = np.linalg.inv(grid.affine)
    voxels = where @ inverse[:3, :3].T + inverse[:3, 3]
    sampled: NDArray[Any] = ndimage.map_coordinates(
        _finite(image), np.moveaxis(voxels, -1, 0), order=_order(image)
    )
    return sampled


def _order(image: NDArray[Any]) -> Literal[0, 1]:
    """Interpolation order: 0 for labels, 1 for values."""
    return 0 if np.issubdtype(image.dtype, np.integer) else 1


def _finite(image: NDArray[Any]) -> NDArray[Any]:
    """An image whose unknown values are 0."""
    finite: NDArray[Any] = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
    return finite
