"""Projections, segmentations and alignments of a participant's page, from images read slab by slab."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    Box,
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
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.labels import task
from hedypet_bids.names import Source
from hedypet_bids.report.organs import suv_constant
from hedypet_bids.steps.resample import ImagesInSpace
from hedypet_bids.steps.step import Subject

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
class Gallery:
    """The pictures of one participant's images."""

    subject: Subject
    static_space: ImagesInSpace
    head_space: ImagesInSpace
    constants: Path | None
    maps: Mapping[str, Path]

    def uptake(self) -> Scaled | None:
        """Maximum intensity projections of the static PET, SUV 0 to 10 where the constant is known."""
        static = self.subject.inputs.static
        if static is None:
            return None
        suv = suv_constant(self.constants)
        known = bool(np.isfinite(suv))
        scale = float(self.subject.metadata(static).scale[0]) / (suv if known else 1000.0)
        views = _scaled(read_projections(static.path), scale)
        window = SUV_WINDOW if known else window_of(list(views.values()))
        return _projections(views, window, "SUV [g/mL]" if known else "kBq/mL", "mip", "static PET")

    def ki_map(self) -> Scaled | None:
        """Maximum intensity projections of the Ki map."""
        path = self.maps.get("Ki")
        if path is None:
            return None
        return _projections(read_projections(path), KI_WINDOW, "Ki [mL/min/mL]", "kimip", "Ki map")

    def segmentations(self) -> list[Segmented]:
        """Labels of the CT over it, and those of the brain over the head MR, where these are."""
        found = []
        for name in ("total", "tissue", "body"):
            if name in self.static_space.labels and self._ct:
                ct = {along: self._cropped(view) for along, view in self._ct.items()}
                labels = read_planes(self.static_space.labels[name], self._centre, along=_FRONT_AND_SIDE)
                labels = {along: self._cropped(view) for along, view in labels.items()}
                survey = self._total if name == "total" else None
                survey = survey or survey_labels(self.static_space.labels[name])
                found.append(_segmented(name, "CT", (ct, Shade(*HU_WINDOW)), labels, survey))
        if "synthseg" in self.head_space.labels and self._head_mr:
            path = self.head_space.labels["synthseg"]
            shade = Shade(*window_of(list(self._head_mr.values())))
            labels = read_planes(path, self._head_centre, along=_FRONT_AND_SIDE)
            found.append(
                _segmented("synthseg", "head MR", (self._head_mr, shade), labels, survey_labels(path))
            )
        return found

    def alignments(self) -> list[Aligned]:
        """PET and body MR on the CT in the static PET's space, head MR on the CT in the head space."""
        return [*self._pet_on_ct(), *self._head_mr_on_ct(), *self._body_mr_on_ct()]

    def _pet_on_ct(self) -> Iterator[Aligned]:
        static = self.subject.inputs.static
        if static is None or not self._ct:
            return
        suv = suv_constant(self.constants)
        scale = float(self.subject.metadata(static).scale[0]) / (suv if np.isfinite(suv) else 1000.0)
        pet = _scaled(read_planes(static.path, self._centre), scale)
        inside = np.concatenate([pet[along].values[self._ct[along].values > SKIN_HU] for along in pet])
        level = _PET_OUTLINE * float(np.median(inside)) if inside.size else 0.0
        shade = Shade(*window_of(list(pet.values()), 99.0), _PET_COLOURS)
        yield self._aligned("pet", "Static PET on the CT", self._ct, pet, shade, level, "PET", crop=True)

    def _body_mr_on_ct(self) -> Iterator[Aligned]:
        path = self._in_space(self.static_space, self.subject.inputs.body_mr)
        if path and self._ct:
            mr = read_planes(path, self._centre)
            yield self._mr_aligned("body", self._ct, mr, crop=True)

    def _head_mr_on_ct(self) -> Iterator[Aligned]:
        path = self._in_space(self.head_space, self.subject.inputs.ct)
        if path and self._head_mr:
            yield self._mr_aligned("head", read_planes(path, self._head_centre), self._head_mr, crop=False)

    def _mr_aligned(self, part: str, ct: Views, mr: Views, *, crop: bool) -> Aligned:
        views = list(mr.values())
        level = _MR_OUTLINE * window_of(views, 95.0)[1]
        shade, title = Shade(*window_of(views)), f"{part.capitalize()} MR on the CT"
        return self._aligned(part, title, ct, mr, shade, level, f"{part} MR", crop=crop)

    def _aligned(
        self,
        name: str,
        title: str,
        ct: Views,
        moved: Views,
        shade: Shade,
        level: float,
        what: str,
        *,
        crop: bool,
    ) -> Aligned:
        blends = []
        for below, above in zip(front_first(ct), front_first(moved), strict=True):
            pair = (self._cropped(below), self._cropped(above)) if crop else (below, above)
            shades = (Shade(*HU_WINDOW), shade)
            blends.append(blend(*pair, shades, (SKIN_HU, level), (f"align{name}", "CT", what)))
        return Aligned(name, title, "CT", what, blends)

    def _cropped(self, view: View) -> View:
        return view.cropped(self._box) if self._box else view

    @staticmethod
    def _in_space(space: ImagesInSpace, source: Source | None) -> Path | None:
        return space.images.get(source.path.name) if source else None

    @cached_property
    def _total(self) -> Survey | None:
        path = self.static_space.labels.get("total")
        return survey_labels(path) if path else None

    @cached_property
    def _box(self) -> Box | None:
        """Around the body (else the organs) in the static PET's space."""
        path = self.static_space.labels.get("body")
        survey = survey_labels(path) if path else self._total
        if survey is None or not survey.counts:
            return None
        sizes_mm = world_sizes_mm(FrameReader(self.subject.static.path).grid)
        return Box.around(survey.marginals, [round(_MARGIN_MM / mm) for mm in sizes_mm])

    @cached_property
    def _centre(self) -> Voxel:
        """The middle of the organs in the static PET's space; of its grid without segmentation."""
        if self._total is not None:
            return self._total.centre()
        return _middle(self.subject.static.path)

    @cached_property
    def _ct(self) -> Views:
        """Planes of the CT in the static PET's space; none without it."""
        path = self._in_space(self.static_space, self.subject.inputs.ct)
        return read_planes(path, self._centre) if path else {}

    @cached_property
    def _head_centre(self) -> Voxel:
        path = self.head_space.labels.get("synthseg")
        if path:
            return survey_labels(path).centre(_HEMISPHERE)
        return _middle(next(iter(self.head_space.images.values())))

    @cached_property
    def _head_mr(self) -> Views:
        """Planes of the head MR in the head space; none without it."""
        path = self._in_space(self.head_space, self.subject.inputs.head_mr)
        return read_planes(path, self._head_centre) if path else {}


def _segmented(
    name: str, what: str, background: tuple[Views, Shade], labels: Views, survey: Survey
) -> Segmented:
    """A segmentation over an image, with its legend."""
    views, shade = background
    pictures = [
        draw_labels(
            views[along],
            shade,
            labels[along],
            name=f"seg{name}{VIEW_NAMES[along]}",
            title=VIEW_NAMES[along],
            alt=f"{VIEW_NAMES[along].capitalize()} plane of the {what} with the labels of {name} in colours",
        )
        for along in _FRONT_AND_SIDE
    ]
    table = task(name).table
    names = dict(zip(table.indices, table.names, strict=True))
    legend = legend_of(survey.counts, names, LEGEND_ENTRIES)
    return Segmented(f"{name} on the {what}", pictures, legend, len(survey.counts))


def _projections(views: Views, window: tuple[float, float], units: str, name: str, what: str) -> Scaled:
    """Coronal and sagittal projections, dark where much is, without the air around."""
    box = _body_box(views, window[1])
    shade = Shade(*window, "gray_r")
    pictures = [
        draw_view(
            view.cropped(box),
            shade,
            name=f"{name}{view.name}",
            title=view.name,
            alt=f"{view.name.capitalize()} maximum intensity projection of the {what}, {units} "
            f"{window[0]:g} to "
            f"{window[1]:.3g} from white to black",
        )
        for view in front_first(views)
    ]
    return Scaled(pictures, *window, units, "white, black")


def _body_box(views: Views, high: float) -> Box:
    """Where projections show more than air."""
    coronal, sagittal = (views[along].values > _BODY * high for along in (CORONAL, SAGITTAL))
    marginals = (coronal.sum(axis=1), sagittal.sum(axis=1), coronal.sum(axis=0))
    margins = (views[CORONAL].pixel_mm[0], views[SAGITTAL].pixel_mm[0], views[CORONAL].pixel_mm[1])
    return Box.around(marginals, [round(_MARGIN_MM / mm) for mm in margins])


def _scaled(views: Views, scale: float) -> Views:
    return {
        along: View(along, view.values * np.float32(scale), view.pixel_mm) for along, view in views.items()
    }


def _middle(path: Path) -> Voxel:
    x, y, z = (n // 2 for n in world_shape(FrameReader(path).grid))
    return x, y, z
