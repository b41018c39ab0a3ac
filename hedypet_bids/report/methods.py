"""The methods text: what was done with which settings, and the papers to cite for it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from hedypet_bids.kernels.kinetics import kinetic_models, known_models
from hedypet_bids.names import MEASURED, enumerated
from hedypet_bids.report.references import known_references
from hedypet_bids.settings import AortaMethod, Settings
from hedypet_bids.version import __version__

_CITED = re.compile(r" ?\[(@[a-z0-9]+(?:; @[a-z0-9]+)*)\]")

MADE, READY = "made", "ready"
_SEGMENTATIONS_GIVEN = "segmentations that came with the dataset"


@dataclass(frozen=True)
class Performed:
    """What was done for a scan; the text is about nothing else.

    Parameters
    ----------
    segmented
        ``made`` or ``ready`` (taken over) by task.
    registered
        ``rigid``, ``identity`` or ``given`` by body part (head, body).
    labelled
        What organs and tissues were segmented on: ``CT``, ``PET`` or ``MR image``.
    fixed
        What the MR images were brought to: ``CT`` or ``PET``.
    sampled
        Whether blood was sampled.
    fitted, mapped
        Names of the kinetic models that were fitted to regions and to voxels.
    """

    segmented: Mapping[str, str] = field(default_factory=dict)
    registered: Mapping[str, str] = field(default_factory=dict)
    static: bool = False
    static_from_frames: bool = False
    dynamic: bool = False
    head_space: bool = False
    constants: bool = False
    aorta: bool = False
    sampled: bool = False
    fitted: Collection[str] = ()
    mapped: Collection[str] = ()
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
        return tuple(known_references()[key].text() for key in self.keys)

    def markdown(self) -> str:
        """The text and its references as Markdown."""
        listed = "\n".join(f"{n}. {text}" for n, text in enumerate(self.references(), start=1))
        return "# Methods\n\n" + "\n\n".join(self.numbered()) + f"\n\n## References\n\n{listed}\n"

    def bibtex(self) -> str:
        """The references as BibTeX."""
        return "\n".join(known_references()[key].bibtex(key) for key in self.keys)

    def _numbers(self, match: re.Match[str]) -> str:
        return f" [{', '.join(str(self.keys.index(key) + 1) for key in _keys_of(match))}]"


def methods_of(settings: Settings, performed: Performed) -> Methods:
    """What was done for one scan."""
    return _methods(_introduction(), _scan(settings, performed))


def methods_of_dataset(settings: Settings) -> Methods:
    """What is done with these settings wherever the images for it are there."""
    models = [model.name for model in kinetic_models(settings)]
    anything = Performed(
        segmented=dict.fromkeys(("total", "synthseg"), "either"),
        registered=dict.fromkeys(("head", "body"), settings.register.method),
        static=True,
        static_from_frames=True,
        dynamic=True,
        head_space=True,
        constants=True,
        aorta=True,
        fitted=models,
        mapped=models,
    )
    lead = (
        "What follows was done for each participant whose images allow it; the reports say what was left out."
    )
    return _methods(f"{_introduction()} {lead}", _scan(settings, anything))


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


def _scan(settings: Settings, performed: Performed) -> Iterator[str]:
    yield " ".join(
        filter(None, (_body_segmentation(settings, performed), _mr_segmentation(settings, performed)))
    )
    yield _registration(settings, performed)
    yield _spaces(settings, performed)
    yield " ".join(filter(None, (_normalisation(performed), _regions(settings, performed))))
    if performed.aorta:
        yield _aorta(settings)
    if performed.sampled:
        yield (
            f"Blood samples gave the input function {MEASURED}: the tracer itself in plasma, joined by "
            "straight lines up to the peak and log-linearly after it, as means over the frames of the PET; "
            "whole blood stands for the blood in the tissue of compartment models."
        )
    yield from _kinetics(settings, performed)


def _software() -> str:
    return "Computations rest on NumPy [@numpy] and SciPy [@scipy]."


def _body_segmentation(settings: Settings, performed: Performed) -> str:
    tasks = [task for task in ("total", "tissue", "body") if task in performed.segmented]
    if not tasks:
        return ""
    how = performed.segmented[tasks[0]]
    chosen = settings.segment
    detail = " at 3 mm (the body at 6 mm)" if chosen.totalseg_fast else ""
    if chosen.totalseg_roi_subset:
        detail += f", limited to {enumerated(chosen.totalseg_roi_subset)}"
    if how == READY:
        labelled = performed.labelled
        return f"Organs, tissues and body on the {labelled} were taken over from {_SEGMENTATIONS_GIVEN}."
    if performed.labelled == "MR image":
        made = (
            f"Organs and body on the MR image were segmented with TotalSegmentator's networks for MR{detail}"
        )
    else:
        made = f"Organs, tissues and body on the CT were segmented with TotalSegmentator{detail}"
    made += " [@totalsegmentator; @nnunet]"
    return made + ("." if how == MADE else ", unless segmentations came with the dataset.")


def _mr_segmentation(settings: Settings, performed: Performed) -> str:
    how = performed.segmented.get("synthseg") or performed.segmented.get("synthsegparc")
    if how is None:
        return ""
    if how == READY:
        return f"Brain regions on the T1-weighted MR image were taken over from {_SEGMENTATIONS_GIVEN}."
    robust = settings.segment.synthseg_robust
    program = (
        "SynthSeg in its robust variant [@synthseg; @synthsegrobust]" if robust else "SynthSeg [@synthseg]"
    )
    made = f"Brain regions on the T1-weighted MR image were segmented with {program}"
    return made + ("." if how == MADE else ", unless segmentations came with the dataset.")


def _registration(settings: Settings, performed: Performed) -> str:
    images = {"head": "the T1-weighted MR image", "body": "the Dixon MR image"}
    texts = {
        "rigid": f"brought to the {performed.fixed} by a rigid transform that maximises Mattes' mutual "
        f"information [@mattes] (seed {settings.register.seed})",
        "identity": f"taken to lie where the {performed.fixed} is, without registration",
        "given": f"brought to the {performed.fixed} by the transform that came with the dataset",
    }
    by_method: dict[str, list[str]] = {}
    for body_part, method in performed.registered.items():
        by_method.setdefault(method, []).append(images[body_part])
    sentences = []
    for method, moved in by_method.items():
        verb = "were each" if len(moved) > 1 else "was"
        sentences.append(_capitalised(f"{' and '.join(moved)} {verb} {texts[method]}."))
    return " ".join(sentences)


def _spaces(settings: Settings, performed: Performed) -> str:
    resample = settings.resample
    size = " x ".join(f"{mm:g}" for mm in resample.head_size_mm)
    spaces = [
        *(["the grid of the static PET"] if performed.static else []),
        *(["the grid of the dynamic PET"] if performed.dynamic else []),
        *(
            [f"a {resample.head_voxel_mm:g} mm grid of {size} mm around the brain"]
            if performed.head_space
            else []
        ),
    ]
    if not spaces:
        return ""
    mean = ""
    if performed.static_from_frames:
        low, high = settings.static.window_min
        mean = (
            f" Without a static image, the mean of the dynamic PET from {low:g} to {high:g} min stood for it."
        )
    return (
        f"Images were resampled in one step with B-splines of order {resample.spline_order} [@thevenaz], "
        f"segmentations by nearest neighbour, to {enumerated(spaces)}.{mean}"
    )


def _normalisation(performed: Performed) -> str:
    if not performed.constants:
        return ""
    return (
        "Standardised uptake values (SUV) are activity concentration over injected activity per body "
        "weight; SUL use "
        "the lean body mass by James [@james], by Janmahasatian [@janmahasatian] and, from the fat "
        "between hip and "
        f"skull on the {performed.labelled}, by a variant of Decazes' method [@decazes]."
    )


def _regions(settings: Settings, performed: Performed) -> str:
    measures = [
        *(["the mean of each region in the static PET"] if performed.static else []),
        *(["its mean in each frame of the dynamic PET"] if performed.dynamic else []),
    ]
    if not measures or not performed.segmented:
        return ""
    erosions = enumerated(settings.curves.erosions)
    verb = "were" if len(measures) > 1 else "was"
    return _capitalised(
        f"{' and '.join(measures)} {verb} measured after {erosions} erosions with a face-connected "
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


def _kinetics(settings: Settings, performed: Performed) -> Iterator[str]:
    """A paragraph a model, written by the model."""
    for name, model in known_models().items():
        if name in performed.fitted:
            maps = model.map_methods(settings) if name in performed.mapped else ""
            yield " ".join(filter(None, (model.methods(settings), maps)))


def _capitalised(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
