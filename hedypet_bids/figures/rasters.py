"""Pictures of planes and projections: arrays in, compressed pictures to scale out."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from hedypet_bids.figures.pictures import Blend, Picture
from hedypet_bids.figures.planes import CORONAL, SAGITTAL, View
from hedypet_bids.labels import color

# The skin, and the lungs: half-way between air and soft tissue.
SKIN_HU = -400.0
BELOW_COLOUR, ABOVE_COLOUR = "#56B4E9", "#E69F00"
_TALL_PX, _OTHER_PX = 900, 700
_QUALITY = 82
_OUTLINE_SMOOTHING_MM = 3.0
_SMALLEST_OUTLINED_MM2 = 400.0
_LABEL_OPACITY = 0.55
_DPI = 100


@dataclass(frozen=True)
class Shade:
    """How values become grey or colour: the window, and the colour map.

    ``gray`` shows high values bright, ``gray_r`` dark.
    """

    low: float
    high: float
    colours: str | Colormap = "gray"


@dataclass(frozen=True)
class Outline:
    """Where an image passes a level, to be drawn over another."""

    view: View
    level: float
    colour: str
    style: Literal["solid", "dashed"]


def window_of(views: Sequence[View], percentile: float = 99.5) -> tuple[float, float]:
    """From 0 to a percentile of what is positive in some views."""
    values = np.concatenate([view.values[view.values > 0] for view in views])
    return 0.0, float(np.percentile(values, percentile)) if values.size else 1.0


def draw_view(
    view: View, shade: Shade, *, name: str, title: str, alt: str, outlines: Sequence[Outline] = ()
) -> Picture:
    """A view in shades, with outlines of other images on the same grid."""
    figure, axis = _canvas(view)
    _draw_background(axis, view, shade)
    for outline in outlines:
        _draw_outline(axis, outline)
    _draw_sides(axis, view, "black" if shade.colours == "gray_r" else "white")
    return _picture(figure, view, name, title, alt)


def draw_labels(background: View, shade: Shade, labels: View, *, name: str, title: str, alt: str) -> Picture:
    """A CT or an MR image with labels over it, in the colours of their label table."""
    figure, axis = _canvas(background)
    _draw_background(axis, background, shade)
    painted = _painted(labels.values.T.astype(np.int64))
    axis.imshow(painted, origin="lower", extent=_extent_mm(labels), interpolation="nearest", aspect="auto")
    _draw_sides(axis, background, "white")
    return _picture(figure, background, name, title, alt)


def blend(
    below: View,
    above: View,
    shades: tuple[Shade, Shade],
    levels: tuple[float, float],
    names: tuple[str, str, str],
) -> Blend:
    """Two images of a place, each with its own outline and the other's.

    ``names`` are a prefix for the files and what the two images are called.
    """
    # Dashed over solid: where the two coincide, both are seen.
    outlines = (
        Outline(below, levels[0], BELOW_COLOUR, "solid"),
        Outline(above, levels[1], ABOVE_COLOUR, "dashed"),
    )
    prefix, *called = names
    pictures = [
        draw_view(
            view,
            shade,
            name=f"{prefix}{view.name}{side}",
            title=image,
            alt=f"{view.name.capitalize()} plane of the {image} with the outlines of {called[0]} and "
            f"{called[1]}",
            outlines=outlines,
        )
        for view, shade, image, side in zip((below, above), shades, called, ("below", "above"), strict=True)
    ]
    return Blend(below.name, pictures[0], pictures[1])


def legend_of(counts: Mapping[int, int], names: Mapping[int, str], most: int) -> list[tuple[str, str]]:
    """Name and colour of the largest labels, largest first."""
    largest = sorted(counts, key=lambda index: -counts[index])[:most]
    return [(names.get(index, str(index)), color(index)) for index in largest]


def _canvas(view: View) -> tuple[Figure, Axes]:
    """A figure of one axis without a frame, as large as the view has room for."""
    width_mm, height_mm = _size_mm(view)
    pixels = _TALL_PX if height_mm > 1.3 * width_mm else _OTHER_PX
    inch_per_mm = pixels / _DPI / max(width_mm, height_mm)
    figure = Figure(figsize=(max(width_mm * inch_per_mm, 1.0), max(height_mm * inch_per_mm, 1.0)), dpi=_DPI)
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axis.set_axis_off()
    return figure, axis


def _draw_background(axis: Axes, view: View, shade: Shade) -> None:
    axis.imshow(
        view.values.T,
        origin="lower",
        extent=_extent_mm(view),
        cmap=shade.colours,
        vmin=shade.low,
        vmax=max(shade.high, shade.low + 1e-9),
        interpolation="bilinear",
        aspect="auto",
    )


def _extent_mm(view: View) -> tuple[float, float, float, float]:
    width_mm, height_mm = _size_mm(view)
    return 0.0, width_mm, 0.0, height_mm


def _size_mm(view: View) -> tuple[float, float]:
    n_across, n_up = view.values.shape
    return n_across * view.pixel_mm[0], n_up * view.pixel_mm[1]


def _draw_outline(axis: Axes, outline: Outline) -> None:
    smooth = _without_specks(outline.view, outline.level)
    if not smooth.min() < outline.level < smooth.max():
        return
    across, up = (
        (np.arange(n) + 0.5) * mm for n, mm in zip(smooth.shape, outline.view.pixel_mm, strict=True)
    )
    axis.contour(
        across,
        up,
        smooth.T,
        levels=[outline.level],
        colors=[outline.colour],
        linewidths=1.5,
        linestyles=outline.style,
    )


def _without_specks(view: View, level: float) -> NDArray[np.float32]:
    """The values, smoothed, and on one side of a level wherever only a speck of noise is on the other."""
    sigma = [_OUTLINE_SMOOTHING_MM / mm for mm in view.pixel_mm]
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(view.values.astype(np.float32), sigma)
    smallest = _SMALLEST_OUTLINED_MM2 / (view.pixel_mm[0] * view.pixel_mm[1])
    for side, other in ((smooth > level, smooth.min()), (smooth <= level, smooth.max())):
        pieces, _ = ndimage.label(side)
        small = np.bincount(pieces.ravel()) < smallest
        small[0] = False
        smooth[small[pieces]] = other
    return smooth


def _draw_sides(axis: Axes, view: View, colour: str) -> None:
    """Letters on the left and right edge: which side of the patient it is."""
    low, high = ("P", "A") if view.along == SAGITTAL else ("L", "R")
    style: dict[str, Any] = {"va": "top", "color": colour, "fontsize": 18, "weight": "bold"}
    axis.text(0.02, 0.98, low, ha="left", transform=axis.transAxes, **style)
    axis.text(0.98, 0.98, high, ha="right", transform=axis.transAxes, **style)


def _painted(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """RGBA of labels in the colours of their table; clear where there is none."""
    image = np.zeros((*labels.shape, 4))
    for index in np.unique(labels):
        if index > 0:
            image[labels == index] = (*to_rgb(color(int(index))), _LABEL_OPACITY)
    return image


def _picture(figure: Figure, view: View, name: str, title: str, alt: str) -> Picture:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": _QUALITY, "method": 4}
    figure.savefig(buffer, format="webp", dpi=_DPI, pil_kwargs=options)
    return Picture(name, title, alt, buffer.getvalue(), ".webp", _size_mm(view))


def front_first(views: Mapping[int, View]) -> list[View]:
    """The views in the order of the page: coronal, sagittal, axial."""
    return [views[along] for along in sorted(views, key=lambda along: (along != CORONAL, along))]
