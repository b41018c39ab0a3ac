"""Pictures of a participant's page: arrays and tables in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hedypet_bids.model import FloatArray, Grid, IntArray

# Okabe and Ito's palette: told apart with every common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
SUV_WINDOW = (0.0, 10.0)
HU_WINDOW = (-200.0, 300.0)
SETTLED_MIN = 5.0


def to_ras(data: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The image with axes nearest to right, anterior, superior, and its voxel sizes in that order, mm."""
    orientation = nib.orientations.io_orientation(grid.affine)
    turned = nib.orientations.apply_orientation(data, orientation)
    sizes = np.empty(3)
    sizes[orientation[:, 0].astype(int)] = grid.voxel_sizes_mm
    return turned, sizes


def draw_projections(image: FloatArray, grid: Grid, *, suv_constant: float) -> Figure:
    """Maximum intensity projections, coronal and sagittal, SUV 0 to 10 where the constant is known."""
    turned, sizes = to_ras(image, grid)
    known = np.isfinite(suv_constant)
    values = turned / suv_constant if known else turned
    top = SUV_WINDOW[1] if known else float(np.nanpercentile(values, 99.9))
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, along, title in ((axes[0], 1, "coronal"), (axes[1], 0, "sagittal")):
        across = 0 if along == 1 else 1
        shown = axis.imshow(
            np.nanmax(values, axis=along).T,
            origin="lower",
            cmap="gray_r",
            vmin=0,
            vmax=top,
            aspect=sizes[2] / sizes[across],
        )
        axis.set_title(title)
        axis.set_axis_off()
    figure.colorbar(shown, ax=axes, shrink=0.5, label="SUV [g/mL]" if known else "Bq/mL")
    return figure


def draw_labels(image: FloatArray, labels: IntArray, grid: Grid, *, title: str) -> Figure:
    """A CT with its labels in colours, the coronal and sagittal slice through the middle of the labels."""
    turned, sizes = to_ras(image, grid)
    painted, _ = to_ras(labels, grid)
    middle = [int(np.median(where)) for where in np.nonzero(painted)] if painted.any() else [0, 0, 0]
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, along, name in ((axes[0], 1, "coronal"), (axes[1], 0, "sagittal")):
        across = 0 if along == 1 else 1
        aspect = sizes[2] / sizes[across]
        ct, label = (np.take(volume, middle[along], axis=along).T for volume in (turned, painted))
        axis.imshow(ct, origin="lower", cmap="gray", vmin=HU_WINDOW[0], vmax=HU_WINDOW[1], aspect=aspect)
        shuffled = np.ma.masked_equal(np.where(label > 0, label * 7 % 19 + 1, 0), 0)
        axis.imshow(
            shuffled,
            origin="lower",
            cmap="tab20",
            alpha=0.5,
            vmin=1,
            vmax=20,
            aspect=aspect,
            interpolation="nearest",
        )
        axis.set_title(f"{title}, {name}")
        axis.set_axis_off()
    return figure


def draw_alignment(fixed: FloatArray, moved: FloatArray, grid: Grid, *, title: str) -> Figure:
    """Contours of a moved MR image on the CT, through the middle of the grid."""
    ct, sizes = to_ras(fixed, grid)
    mr, _ = to_ras(moved, grid)
    # A quarter of bright tissue lies between the noise of air and the darkest soft tissue.
    level = 0.25 * float(np.percentile(mr[mr > 0], 95)) if (mr > 0).any() else 0.0
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots(1, 3)
    planes = ((0, 1, 2, "sagittal"), (1, 0, 2, "coronal"), (2, 0, 1, "axial"))
    for axis, (along, across, up, name) in zip(axes, planes, strict=True):
        where = ct.shape[along] // 2
        aspect = sizes[up] / sizes[across]
        ct_slice, mr_slice = (np.take(volume, where, axis=along).T for volume in (ct, mr))
        axis.imshow(
            ct_slice, origin="lower", cmap="gray", vmin=HU_WINDOW[0], vmax=HU_WINDOW[1], aspect=aspect
        )
        if np.ptp(mr_slice) > 0:
            axis.contour(gaussian_filter(mr_slice, 1.0), levels=[level], colors=[COLOURS[4]], linewidths=0.7)
        axis.set_title(name)
        axis.set_axis_off()
    figure.suptitle(title)
    return figure


def draw_curves(curves: pd.DataFrame, regions: Sequence[str], *, scale: float, units: str) -> Figure:
    """Time-activity curves of some regions, minutes after injection."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axis = figure.subplots()
    minutes = (curves["frame_start"] + curves["frame_end"]) / 120
    top = 0.0
    for colour, region in zip(COLOURS, [r for r in regions if r in curves], strict=False):
        values = curves[region] / scale
        axis.plot(minutes, values, color=colour, marker=".", markersize=3, label=region)
        top = max(top, float(values[minutes > SETTLED_MIN].max()))
    # The first pass is shown with the input functions; here it would flatten everything else.
    axis.set_ylim(0, 1.3 * top if top > 0 else None)
    axis.set_xlabel("time after injection [min]")
    axis.set_ylabel(units)
    axis.legend(fontsize="small", ncols=2)
    return figure


def draw_input_functions(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Every input function: the first three minutes, and the whole scan on a logarithmic axis."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    early, late = figure.subplots(1, 2)
    styles = ("-", "--", ":")
    for number, (name, table) in enumerate(curves.items()):
        # Four segments of three kinds, then what is combined of them.
        colour, style = (COLOURS[number % 4], styles[number // 4]) if number < 12 else ("black", "-")
        look: dict[str, Any] = {"color": colour, "linestyle": style, "label": name}
        kilo = table["whole_blood_radioactivity"] / 1000
        early.plot(table["time"], kilo, **look)
        late.plot(table["time"] / 60, kilo.where(kilo > 1e-3 * kilo.max()), **look)
    early.set_xlim(0, 180)
    early.set_xlabel("time after injection [s]")
    early.set_ylabel("whole blood [kBq/mL]")
    late.set_yscale("log")
    late.set_xlabel("time after injection [min]")
    figure.legend(*early.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="x-small")
    return figure
