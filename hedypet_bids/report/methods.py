"""The methods text: what was done with which settings, and the papers to cite for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hedypet_bids.report.references import REFERENCES
from hedypet_bids.settings import AortaMethod, KineticsSettings, Settings
from hedypet_bids.version import __version__

_CITED = re.compile(r" ?\[(@[a-z]+(?:; @[a-z]+)*)\]")

MADE, READY = "made", "ready"
_SEGMENTATIONS_GIVEN = "segmentations that came with the dataset"


@dataclass(frozen=True)
class Parts:
    """What took place for a participant; the text is about nothing else.

    Parameters
    ----------
    segmented
        ``made`` or ``ready`` (taken over) by task.
    registered
        ``rigid``, ``identity`` or ``given`` by part (head, body).
    labelled
        What organs and tissues were segmented on: ``CT``, ``PET`` or ``MR image``.
    fixed
        What the MR images were brought to: ``CT`` or ``PET``.
    """

    segmented: Mapping[str, str] = field(default_factory=dict)
    registered: Mapping[str, str] = field(default_factory=dict)
    static: bool = False
    static_from_frames: bool = False
    dynamic: bool = False
    head_space: bool = False
    constants: bool = False
    aorta: bool = False
    kinetics: bool = False
    maps: bool = False
    labelled: str = "CT"
    fixed: str = "CT"


@dataclass(frozen=True)
class Methods:
    """The text as paragraphs with citations as ``[@key]``, and the keys in the order of their first use."""

    paragraphs: tuple[str, ...]
    keys: tuple[str, ...]

    def numbered(self) -> tuple[str, ...]:
        """The paragraphs with numbers in brackets for the citations."""
        return tuple(_CITED.sub(self._numbers, paragraph) for paragraph in self.paragraphs)

    def references(self) -> tuple[str, ...]:
        """The list that the numbers point to."""
        return tuple(REFERENCES[key].text() for key in self.keys)

    def markdown(self) -> str:
        """The text and its references as Markdown."""
        listed = "\n".join(f"{n}. {text}" for n, text in enumerate(self.references(), start=1))
        return "# Methods\n\n" + "\n\n".join(self.numbered()) + f"\n\n## References\n\n{listed}\n"

    def bibtex(self) -> str:
        """The references as BibTeX."""
        return "\n".join(REFERENCES[key].bibtex(key) for key in self.keys)

    def _numbers(self, match: re.Match[str]) -> str:
        return f" [{', '.join(str(self.keys.index(key) + 1) for key in _keys_of(match))}]"


def methods_of(settings: Settings, parts: Parts) -> Methods:
    """What was done for one participant."""
    return _methods(_introduction(), _participant(settings, parts))


def methods_of_dataset(settings: Settings) -> Methods:
    """What is done with these settings wherever the images for it are there."""
    either = Parts(
        segmented=dict.fromkeys(("total", "synthseg"), "either"),
        registered=dict.fromkeys(("head", "body"), settings.register.method),
        static=True,
        static_from_frames=True,
        dynamic=True,
        head_space=True,
        constants=True,
        aorta=True,
        kinetics="Patlak" in settings.kinetics.models,
        maps=True,
    )
    lead = (
        "What follows was done for each participant whose images allow it; the reports say what was left out."
    )
    return _methods(f"{_introduction()} {lead}", _participant(settings, either))


def _methods(introduction: str, paragraphs: Iterator[str]) -> Methods:
    texts = (introduction, *(p for p in paragraphs if p), _software())
    keys = dict.fromkeys(key for text in texts for match in _CITED.finditer(text) for key in _keys_of(match))
    return Methods(texts, tuple(keys))


def _keys_of(match: re.Match[str]) -> list[str]:
    return [key.removeprefix("@") for key in match[1].split("; ")]


def _introduction() -> str:
    return (
        f"Images were processed with hedypet {__version__}, a BIDS App [@bidsapps] for datasets in "
        "the Brain Imaging "
        "Data Structure [@bids; @petbids]."
    )


def _participant(settings: Settings, parts: Parts) -> Iterator[str]:
    yield " ".join(filter(None, (_ct_segmentation(settings, parts), _mr_segmentation(settings, parts))))
    yield _registration(settings, parts)
    yield _spaces(settings, parts)
    yield " ".join(filter(None, (_normalisation(parts), _regions(settings, parts))))
    if parts.aorta:
        yield _aorta(settings)
    if parts.kinetics:
        yield _patlak(settings.kinetics, maps=parts.maps)


def _software() -> str:
    return "Computations rest on NumPy [@numpy] and SciPy [@scipy]."


def _ct_segmentation(settings: Settings, parts: Parts) -> str:
    tasks = [task for task in ("total", "tissue", "body") if task in parts.segmented]
    if not tasks:
        return ""
    how = parts.segmented[tasks[0]]
    chosen = settings.segment
    detail = " at 3 mm (the body at 6 mm)" if chosen.totalseg_fast else ""
    if chosen.totalseg_roi_subset:
        detail += f", limited to {_listed(chosen.totalseg_roi_subset)}"
    if how == READY:
        return (
            f"Organs, tissues and body on the {parts.labelled} were taken over from {_SEGMENTATIONS_GIVEN}."
        )
    made = f"Organs, tissues and body on the CT were segmented with TotalSegmentator{detail}"
    made += " [@totalsegmentator; @nnunet]"
    return made + ("." if how == MADE else ", unless segmentations came with the dataset.")


def _mr_segmentation(settings: Settings, parts: Parts) -> str:
    how = parts.segmented.get("synthseg") or parts.segmented.get("synthsegparc")
    if how is None:
        return ""
    if how == READY:
        return f"Brain regions on the T1-weighted MR image were taken over from {_SEGMENTATIONS_GIVEN}."
    robust = settings.segment.synthseg_robust
    which = (
        "SynthSeg in its robust variant [@synthseg; @synthsegrobust]" if robust else "SynthSeg [@synthseg]"
    )
    made = f"Brain regions on the T1-weighted MR image were segmented with {which}"
    return made + ("." if how == MADE else ", unless segmentations came with the dataset.")


def _registration(settings: Settings, parts: Parts) -> str:
    images = {"head": "the T1-weighted MR image", "body": "the Dixon MR image"}
    texts = {
        "rigid": f"brought to the {parts.fixed} by a rigid transform that maximises Mattes' mutual "
        f"information [@mattes] (seed {settings.register.seed})",
        "identity": f"taken to lie where the {parts.fixed} is, without registration",
        "given": f"brought to the {parts.fixed} by the transform that came with the dataset",
    }
    by_method: dict[str, list[str]] = {}
    for part, method in parts.registered.items():
        by_method.setdefault(method, []).append(images[part])
    sentences = []
    for method, which in by_method.items():
        names = " and ".join(which)
        verb = "were each" if len(which) > 1 else "was"
        sentences.append(f"{names[0].upper()}{names[1:]} {verb} {texts[method]}.")
    return " ".join(sentences)


def _spaces(settings: Settings, parts: Parts) -> str:
    resample = settings.resample
    size = " x ".join(f"{mm:g}" for mm in resample.head_size_mm)
    spaces = [
        *(["the grid of the static PET"] if parts.static else []),
        *(["the grid of the dynamic PET"] if parts.dynamic else []),
        *(
            [f"a {resample.head_voxel_mm:g} mm grid of {size} mm around the brain"]
            if parts.head_space
            else []
        ),
    ]
    if not spaces:
        return ""
    mean = ""
    if parts.static_from_frames:
        low, high = settings.static.window_min
        mean = (
            f" Without a static image, the mean of the dynamic PET from {low:g} to {high:g} min stood for it."
        )
    return (
        f"Images were resampled in one step with B-splines of order {resample.spline_order} [@thevenaz], "
        f"segmentations by nearest neighbour, to {_listed(spaces)}.{mean}"
    )


def _normalisation(parts: Parts) -> str:
    if not parts.constants:
        return ""
    return (
        "Standardised uptake values (SUV) are activity concentration over injected activity per body "
        "weight; SUL use "
        "the lean body mass by James [@james], by Janmahasatian [@janmahasatian] and, from the fat "
        "between hip and "
        f"skull on the {parts.labelled}, by a variant of Decazes' method [@decazes]."
    )


def _regions(settings: Settings, parts: Parts) -> str:
    measured = [
        *(["the mean of each region in the static PET"] if parts.static else []),
        *(["its mean in each frame of the dynamic PET"] if parts.dynamic else []),
    ]
    if not measured or not parts.segmented:
        return ""
    erosions = _listed([str(n) for n in settings.curves.erosions])
    what = " and ".join(measured)
    verb = "were" if len(measured) > 1 else "was"
    return (
        f"{what[0].upper()}{what[1:]} {verb} measured after {erosions} erosions with a face-connected "
        "structuring element."
    )


def _aorta(settings: Settings) -> str:
    aorta = settings.aorta
    texts: dict[AortaMethod, str] = {
        "nifti_dynamic": (
            "Image-derived input functions come from volumes of interest that the library "
            "nifti_dynamic places in four "
            "segments of the aorta; they are whole-blood curves without corrections for metabolites "
            "or dispersion."
        ),
        "centreline": (
            "Image-derived input functions are the mean activity of volumes of interest along the "
            "centreline of the aorta, "
            f"in four segments, placed where the bolus shows in the first {aorta.early_window_s:g} s of "
            "the dynamic PET, "
            f"without the voxels below {aorta.keep_fraction:.0%} of the median early uptake of their "
            "segment; they are "
            "whole-blood curves without corrections for metabolites or dispersion."
        ),
    }
    return texts[aorta.method]


def _patlak(settings: KineticsSettings, *, maps: bool) -> str:
    rules = {
        "simpson": "the input function was integrated by Simpson's rule over the middles of the frames",
        "frames": "the input function was integrated with the whole area of each finished frame and "
        "linearly within "
        "the running one",
    }
    windows = [
        *(
            [f"the last {_listed([str(n) for n in settings.patlak.last_frames])} frames"]
            if settings.patlak.last_frames
            else []
        ),
        *(
            [f"frames from {_listed([f'{t:g}' for t in settings.patlak.start_min])} min on"]
            if settings.patlak.start_min
            else []
        ),
    ]
    text = (
        "Net influx Ki and intercept V0 are slope and intercept of Patlak plots [@patlak], fitted by "
        "ordinary least "
        f"squares over {' and over '.join(windows)}; {rules[settings.patlak.rule]}."
    )
    if maps:
        smoothed = (
            f", smoothed with a Gaussian of {settings.map_fwhm_mm:g} mm FWHM" if settings.map_fwhm_mm else ""
        )
        text += (
            f" Voxel maps use the last {settings.patlak.map_last_frames} frames and the input function "
            f"{settings.map_input_function}{smoothed}."
        )
    return text


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
