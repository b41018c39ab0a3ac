"""Projections, segmentations and alignments on the page of a scan, from images read slab by slab."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hedypet_bids.figures.palette import HU_WINDOW, KI_WINDOW, SUV_WINDOW
from hedypet_bids.figures.pictures import Blend, Picture
from hedypet_bids.figures.planes import (
    CORONAL,
    SAGITTAL,
    VIEW_NAMES,
    ShownBox,
    Survey,
    View,
    Voxel,
    read_planes,
    read_projections,
    survey_labels,
    world_shape,
    world_sizes_mm,
)
from hedypet_bids.figures.rasters import (
    SKIN_HU,
    Shade,
    blend,
    draw_labels,
    draw_view,
    front_first,
    legend_of,
    window_of,
)
from hedypet_bids.io.manifest import ScanOutputs
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.kernels.kinetics import known_models
from hedypet_bids.labels import LabelTable, label_table
from hedypet_bids.model import Scan
from hedypet_bids.names import Source, Space
from hedypet_bids.report.organs import suv_constant

Views = dict[int, View]

LEGEND_ENTRIES = 20
_MARGIN_MM = 25.0
# Of the window of a projection: what is body.
_BODY = 0.05
# Of bright tissue: between the noise of air and the darkest soft tissue.
_MR_OUTLINE, _PET_OUTLINE = 0.25, 0.3
_PET_COLOURS = "inferno"
_FRONT_AND_SIDE = (CORONAL, SAGITTAL)
_HEMISPHERE = 0.35


@dataclass(frozen=True)
class Scaled:
    """Pictures that share a scale of values."""

    pictures: Sequence[Picture]
    low: float
    high: float
    units: str
    colours: str


@dataclass(frozen=True)
class Segmented:
    """Pictures of a segmentation with the names and colours of its largest labels."""

    title: str
    pictures: Sequence[Picture]
    legend: Sequence[tuple[str, str]]
    n_labels: int


@dataclass(frozen=True)
class Aligned:
    """Three planes of two images, for a slider between them."""

    name: str
    title: str
    below: str
    above: str
    blends: Sequence[Blend]


@dataclass(frozen=True)
class ParametricMap:
    """Projections of the voxel map of a parameter of a kinetic model."""

    model: str
    measure: str
    scaled: Scaled


@dataclass(frozen=True)
class Gallery:
    """The pictures of the images of a scan.

    Parameters
    ----------
    static
        The static PET that stands for the scan.
    scale
        What its stored values are multiplied by to be Bq/mL.
    """

    scan: Scan
    static: Source | None
    scale: float
    outputs: ScanOutputs

    def uptake(self) -> Scaled | None:
        """Maximum intensity projections of the static PET, SUV 0 to 10 where the constant is known."""
        if self.static is None:
            return None
        known = bool(np.isfinite(self._suv))
        views = _scaled(read_projections(self.static.path), self._to_suv_or_kbq)
        window = SUV_WINDOW if known else window_of(list(views.values()))
        return _projections(views, window, "SUV [g/mL]" if known else "kBq/mL", "mip", "static PET")

    def maps(self) -> list[ParametricMap]:
        """Maximum intensity projections of the map of each model's most important parameter."""
        found: dict[str, ParametricMap] = {}
        for model in known_models().values():
            for parameter in model.maps[:1]:
                path = self.outputs.get("map", model.name, parameter.name)
                if path is None:
                    continue
                views, measure = read_projections(path), parameter.name
                window = KI_WINDOW if measure == "Ki" else window_of(list(views.values()))
                units = f"{measure} [{parameter.units or 1}]"
                prefix = f"{measure.lower()}mip"
                prefix = model.name.lower() + prefix if prefix in found else prefix
                scaled = _projections(views, window, units, prefix, f"{measure} map")
                found[prefix] = ParametricMap(model.name, measure, scaled)
        return list(found.values())

    def segmentations(self) -> list[Segmented]:
        """Labels of the CT over it, and those of the brain over the head MR, where these are."""
        found = []
        for name in ("total", "tissue", "body"):
            path = self.outputs.get("labels", "bodystat", name)
            if path and self._ct:
                ct = {along: self._cropped(view) for along, view in self._ct.items()}
                labels = read_planes(path, self._centre, along=_FRONT_AND_SIDE)
                labels = {along: self._cropped(view) for along, view in labels.items()}
                survey = self._total if name == "total" else None
                survey, table = survey or survey_labels(path), self.scan.task(name).table
                found.append(_segmented(table, "CT", (ct, Shade(*HU_WINDOW)), labels, survey))
        path = self.outputs.get("labels", "head", "synthseg")
        if path and self._head_mr:
            shade = Shade(*window_of(list(self._head_mr.values())))
            labels = read_planes(path, self._head_centre, along=_FRONT_AND_SIDE)
            found.append(
                _segmented(
                    label_table("synthseg"), "head MR", (self._head_mr, shade), labels, survey_labels(path)
                )
            )
        return found

    def alignments(self) -> list[Aligned]:
        """PET and body MR on the CT in the static PET's space, head MR on the CT in the head space."""
        return [*self._pet_on_ct(), *self._head_mr_on_ct(), *self._body_mr_on_ct()]

    def _pet_on_ct(self) -> Iterator[Aligned]:
        if self.static is None or not self._ct:
            return
        pet = _scaled(read_planes(self.static.path, self._centre), self._to_suv_or_kbq)
        inside = np.concatenate([pet[along].values[self._ct[along].values > SKIN_HU] for along in pet])
        level = _PET_OUTLINE * float(np.median(inside)) if inside.size else 0.0
        shade = Shade(*window_of(list(pet.values()), 99.0), _PET_COLOURS)
        yield self._aligned("pet", "Static PET on the CT", self._ct, pet, shade, level, "PET", crop=True)

    def _body_mr_on_ct(self) -> Iterator[Aligned]:
        path = self._in_space("bodystat", self.scan.body_mr)
        if path and self._ct:
            mr = read_planes(path, self._centre)
            yield self._mr_aligned("body", self._ct, mr, crop=True)

    def _head_mr_on_ct(self) -> Iterator[Aligned]:
        path = self._in_space("head", self.scan.ct)
        if path and self._head_mr:
            yield self._mr_aligned("head", read_planes(path, self._head_centre), self._head_mr, crop=False)

    def _mr_aligned(self, body_part: str, ct: Views, mr: Views, *, crop: bool) -> Aligned:
        views = list(mr.values())
        level = _MR_OUTLINE * window_of(views, 95.0)[1]
        shade, title = Shade(*window_of(views)), f"{body_part.capitalize()} MR on the CT"
        return self._aligned(body_part, title, ct, mr, shade, level, f"{body_part} MR", crop=crop)

    def _aligned(
        self,
        name: str,
        title: str,
        ct: Views,
        moved: Views,
        shade: Shade,
        level: float,
        called: str,
        *,
        crop: bool,
    ) -> Aligned:
        blends = []
        for below, above in zip(front_first(ct), front_first(moved), strict=True):
            pair = (self._cropped(below), self._cropped(above)) if crop else (below, above)
            shades = (Shade(*HU_WINDOW), shade)
            blends.append(blend(*pair, shades, (SKIN_HU, level), (f"align{name}", "CT", called)))
        return Aligned(name, title, "CT", called, blends)

    def _cropped(self, view: View) -> View:
        return view.cropped(self._box) if self._box else view

    def _in_space(self, space: Space, source: Source | None) -> Path | None:
        return self.outputs.get("image", space, source.path.name) if source else None

    @cached_property
    def _suv(self) -> float:
        return suv_constant(self.outputs.get("constants"))

    @property
    def _to_suv_or_kbq(self) -> float:
        """What stored values of the static PET are multiplied by to be SUV or, if unknown, kBq/mL."""
        return self.scale / (self._suv if np.isfinite(self._suv) else 1000.0)

    @cached_property
    def _total(self) -> Survey | None:
        path = self.outputs.get("labels", "bodystat", "total")
        return survey_labels(path) if path else None

    @cached_property
    def _box(self) -> ShownBox | None:
        """Around the body (else the organs) in the static PET's space."""
        path = self.outputs.get("labels", "bodystat", "body")
        survey = survey_labels(path) if path else self._total
        if survey is None or not survey.counts or self.static is None:
            return None
        sizes_mm = world_sizes_mm(FrameReader(self.static.path).grid)
        return ShownBox.around(survey.marginals, [round(_MARGIN_MM / mm) for mm in sizes_mm])

    @cached_property
    def _centre(self) -> Voxel:
        """The middle of the organs in the static PET's space; of its grid without segmentation."""
        if self._total is not None:
            return self._total.centre()
        assert self.static is not None
        return _middle(self.static.path)

    @cached_property
    def _ct(self) -> Views:
        """Planes of the CT in the static PET's space; none without it."""
        path = self._in_space("bodystat", self.scan.ct)
        return read_planes(path, self._centre) if path else {}

    @cached_property
    def _head_centre(self) -> Voxel:
        path = self.outputs.get("labels", "head", "synthseg")
        if path:
            return survey_labels(path).centre(_HEMISPHERE)
        return _middle(next(iter(self.outputs.of("image", "head").values())))

    @cached_property
    def _head_mr(self) -> Views:
        """Planes of the head MR in the head space; none without it."""
        path = self._in_space("head", self.scan.head_mr)
        return read_planes(path, self._head_centre) if path else {}


def _segmented(
    table: LabelTable, image: str, background: tuple[Views, Shade], labels: Views, survey: Survey
) -> Segmented:
    """A segmentation over an image, with its legend."""
    name, (views, shade) = table.task, background
    pictures = [
        draw_labels(
            views[along],
            shade,
            labels[along],
            name=f"seg{name}{VIEW_NAMES[along]}",
            title=VIEW_NAMES[along],
            alt=f"{VIEW_NAMES[along].capitalize()} plane of the {image} with the labels of {name} in colours",
        )
        for along in _FRONT_AND_SIDE
    ]
    names = dict(zip(table.indices, table.names, strict=True))
    legend = legend_of(survey.counts, names, LEGEND_ENTRIES)
    return Segmented(f"{name} on the {image}", pictures, legend, len(survey.counts))


def _projections(views: Views, window: tuple[float, float], units: str, name: str, image: str) -> Scaled:
    """Coronal and sagittal projections, dark where much is, without the air around."""
    box = _body_box(views, window[1])
    shade = Shade(*window, "gray_r")
    pictures = [
        draw_view(
            view.cropped(box),
            shade,
            name=f"{name}{view.name}",
            title=view.name,
            alt=f"{view.name.capitalize()} maximum intensity projection of the {image}, {units} "
            f"{window[0]:g} to "
            f"{window[1]:.3g} from white to black",
        )
        for view in front_first(views)
    ]
    return Scaled(pictures, *window, units, "white, black")


def _body_box(views: Views, high: float) -> ShownBox:
    """Where projections show more than air."""
    coronal, sagittal = (views[along].values > _BODY * high for along in (CORONAL, SAGITTAL))
    marginals = (coronal.sum(axis=1), sagittal.sum(axis=1), coronal.sum(axis=0))
    margins = (views[CORONAL].pixel_mm[0], views[SAGITTAL].pixel_mm[0], views[CORONAL].pixel_mm[1])
    return ShownBox.around(marginals, [round(_MARGIN_MM / mm) for mm in margins])


def _scaled(views: Views, scale: float) -> Views:
    return {
        along: View(along, view.values * np.float32(scale), view.pixel_mm) for along, view in views.items()
    }


def _middle(path: Path) -> Voxel:
    x, y, z = (n // 2 for n in world_shape(FrameReader(path).grid))
    return x, y, z
