"""Every parameter of the study, with its unit in its name, to and from TOML.

Pydantic checks types, ranges and choices when a section is made, so that whoever holds a
``Settings`` need not look again. What a user wrote goes through :meth:`Settings.from_toml`
and :meth:`Settings.with_values`, which report all faults together.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import reprlib
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import field
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticKnownError

from hedypet_bids.errors import MissingInputError, UsageError, did_you_mean
from hedypet_bids.labels import regions_of_body

HeaderForm = Literal["agree", "sform"]
Rule = Literal["simpson", "frames"]
RuleChoice = Literal["auto", Rule]
RegisterMethod = Literal["rigid", "identity"]
AortaMethod = Literal["centreline", "nifti_dynamic"]

_CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False)

# More voxels than this in the head space are a slip of the pen; at 0.5 mm the default extent has 68 million.
_MOST_HEAD_VOXELS = 300_000_000


def _whole(value: object) -> object:
    if type(value) is not int:  # True and 3.0 equal whole numbers, and Literal asks for no more
        raise PydanticKnownError("int_type")
    return value


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"expected no value twice; found {_shown(values)}")
    return values


def _rising(window: tuple[float, float]) -> tuple[float, float]:
    if not window[0] < window[1]:
        raise ValueError(f"expected a start before the end; found {_shown(window)}")
    return window


def _in_time(points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    times = [time for time, _ in points]
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise ValueError(f"expected times that increase; found {_shown(times)}")
    return points


def _region(name: str) -> str:
    known = list(regions_of_body().values())
    if name not in known:
        raise ValueError(
            f"expected regions of the total task; found {_shown(name)}{did_you_mean(name, known)}"
        )
    return name


_Flag = Annotated[bool, Strict()]
_Text = Annotated[
    str, Field(pattern=r"^\S(.*\S)?$", description="text that neither begins nor ends with a space")
]
_Folder = Annotated[
    str,
    Field(
        pattern=r"^(\S(.*\S)?)?$", description="a folder, or nothing; it neither begins nor ends with a space"
    ),
]
_Label = Annotated[
    str,
    Field(pattern="^[0-9A-Za-z+]+$", description="a label: letters and digits, without its rec- or acq-"),
]
_Fraction = Annotated[float, Strict(), Field(gt=0, le=1)]
_Name = Annotated[str, Field(pattern="^[0-9A-Za-z]+$", description="a name: letters and digits")]
_Region = Annotated[str, AfterValidator(_region), Field(description="a region of the total task")]
_SplineOrder = Annotated[Literal[1, 3], BeforeValidator(_whole)]
_Seed = Annotated[int, Strict(), Field(ge=0, le=2**32 - 1)]
_Erosions = Annotated[int, Strict(), Field(ge=0, le=20)]
_Frames = Annotated[int, Strict(), Field(ge=2, le=1000)]
_Minute = Annotated[float, Strict(), Field(ge=0, le=1440)]
_Margin = Annotated[float, Strict(), Field(ge=0, le=500)]
_Extent = Annotated[float, Strict(), Field(ge=10, le=600)]
_VoxelEdge = Annotated[float, Strict(), Field(ge=0.25, le=10)]
_Window = Annotated[tuple[_Minute, _Minute], AfterValidator(_rising)]
_Delay = Annotated[float, Strict(), Field(ge=-60, le=120)]
_Delays = Annotated[tuple[_Delay, _Delay], AfterValidator(_rising)]
_FractionAt = tuple[_Minute, _Fraction]
# Checking ends with the first wrong item, so that a list of millions takes no longer than one of two.
_List = Field(max_length=1000, fail_fast=True)
_FilledList = Field(min_length=1, max_length=1000, fail_fast=True)


@dataclasses.dataclass(frozen=True)
class VoiShape:
    """A tube along the aorta's centreline: its width in voxels and its volume (None: full length)."""

    width_voxels: float
    volume_ml: float | None


# hedyPET's three kinds; the names are part of the file names.
VOI_SHAPES: Mapping[str, VoiShape] = {
    "aortavoifull3px": VoiShape(width_voxels=3, volume_ml=None),
    "aortavoi1ml3px": VoiShape(width_voxels=3, volume_ml=1.0),
    "aortavoi2ml5px": VoiShape(width_voxels=5, volume_ml=2.0),
}


@dataclass(frozen=True, config=_CLOSED)
class Selection:
    """Which reconstruction or contrast plays which part when a session has several.

    Attributes
    ----------
    dynamic_rec : str
        ``rec-`` label of the dynamic series.
    static_rec : str
        ``rec-`` label of the static image.
    ct_rec : str
        ``rec-`` label of the CT.
    head_mr_acq : str
        ``acq-`` label of the T1w image of the head.
    body_mr_acq : str
        ``acq-`` label of the DIXON image that is registered to the CT; all contrasts follow it.
    header_form : str
        ``agree``: an image is refused where the sform and the qform of its header are more than 1 mm or 0.5
        degrees apart; ``sform``: that one then counts.
    """

    dynamic_rec: _Label = "acdynPSF"
    static_rec: _Label = "acstatPSF"
    ct_rec: _Label = "br38f"
    head_mr_acq: _Label = "MPRAGE"
    body_mr_acq: _Label = "DIXONbodyIN"
    header_form: HeaderForm = "agree"


@dataclass(frozen=True, config=_CLOSED)
class StaticSettings:
    """Minutes after injection of a dynamic scan that stand for a static image where there is none.

    Attributes
    ----------
    window_min : tuple[float, float]
        Start and end, min; each frame counts by the time of the window that it covers.
    """

    window_min: _Window = (50.0, 70.0)


@dataclass(frozen=True, config=_CLOSED)
class SegmentSettings:
    """How TotalSegmentator and SynthSeg run where there is no ready segmentation.

    Attributes
    ----------
    totalseg_fast : bool
        Take the 3 mm networks (6 mm for the body).
    totalseg_roi_subset : tuple[str, ...]
        Regions of the total task; all others are left out. Empty: all regions.
    synthseg_robust : bool
        Run SynthSeg in its robust mode.
    timeout_s : float
        Longest time of one run of either program, s; after it the program is ended.
    """

    totalseg_fast: _Flag = False
    totalseg_roi_subset: Annotated[tuple[_Region, ...], _List, AfterValidator(_once)] = ()
    synthseg_robust: _Flag = True
    timeout_s: Annotated[float, Strict(), Field(gt=0, le=2_592_000)] = 21600.0


@dataclass(frozen=True, config=_CLOSED)
class RegisterSettings:
    """Rigid MR-to-CT registration by mutual information.

    Attributes
    ----------
    method : {"rigid", "identity"}
        ``rigid``, or ``identity``, which leaves the MR where it is.
    seed : int
        Seed of the random choice of the voxels that are compared.
    head_margin_mm : float
        Margin around the brain to which the CT is cropped for the head's MR, mm.
    """

    method: RegisterMethod = "rigid"
    seed: _Seed = 42
    head_margin_mm: _Margin = 30.0


@dataclass(frozen=True, config=_CLOSED)
class ResampleSettings:
    """Interpolation into the three spaces and the size of the head space.

    Attributes
    ----------
    spline_order : {1, 3}
        Order of the splines that images are resampled with; labels take the nearest voxel.
    ct_outside_hu : float
        Value of CT and topogram outside their field of view, HU; PET and MR get 0.
    head_size_mm : tuple[float, float, float]
        Extent of the head space around the middle of the brain, mm: left to right, back to front, up.
    head_voxel_mm : float
        Edge of its voxels, mm.
    """

    spline_order: _SplineOrder = 3
    ct_outside_hu: Annotated[float, Strict(), Field(ge=-32768, le=32767)] = -1024.0
    head_size_mm: tuple[_Extent, _Extent, _Extent] = (179.0, 230.0, 205.0)
    head_voxel_mm: _VoxelEdge = 1.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        n_voxels = 1.0
        for mm in self.head_size_mm:
            n_voxels *= mm / self.head_voxel_mm
        if n_voxels > _MOST_HEAD_VOXELS:
            raise ValueError(
                f"expected head_size_mm and head_voxel_mm to give at most {_MOST_HEAD_VOXELS:,} voxels; "
                f"found {n_voxels:,.0f}"
            )
        return self


@dataclass(frozen=True, config=_CLOSED)
class NormaliseSettings:
    """SUV and SUL constants.

    Attributes
    ----------
    write_suv : bool
        Write the static PET in SUV as well.
    """

    write_suv: _Flag = False


@dataclass(frozen=True, config=_CLOSED)
class AortaSettings:
    """Aorta segments and volumes of interest for the input functions.

    Attributes
    ----------
    method : {"centreline", "nifti_dynamic"}
        ``centreline``, or ``nifti_dynamic``, the library with which the published tables were made.
    early_window_s : float
        Time from the first frame in which the bolus is looked for, s.
    keep_fraction : float
        Voxels below this share of the median early uptake of their segment are dropped (no unit).
    """

    method: AortaMethod = "centreline"
    early_window_s: Annotated[float, Strict(), Field(gt=0, le=3600)] = 240.0
    keep_fraction: Annotated[float, Strict(), Field(ge=0, le=1)] = 2 / 3


@dataclass(frozen=True, config=_CLOSED)
class CurveSettings:
    """Region statistics of static and dynamic PET.

    Attributes
    ----------
    erosions : tuple[int, ...]
        How often regions are eroded before they are measured; a set of curves for each number.
    """

    erosions: Annotated[tuple[_Erosions, ...], _FilledList, AfterValidator(_once)] = (0, 1)


@dataclass(frozen=True, config=_CLOSED)
class PatlakSettings:
    """Patlak fits: integration rule, and the windows of tables and voxel maps.

    Attributes
    ----------
    rule : {"auto", "simpson", "frames"}
        Integration of the input function: ``simpson``, as in the published tables, ``frames``, exact for any
        frames, or ``auto``: ``simpson`` for the frames of the hedyPET protocol, ``frames`` for all others.
    last_frames : tuple[int, ...]
        Windows that are the last frames of the series: their numbers of frames.
    start_min : tuple[float, ...]
        Further windows: all frames from these times after injection on, min.
    map_last_frames : int
        Number of last frames that the voxel maps are fitted to: by default those from 30 min on with the
        frames of the hedyPET protocol.
    """

    rule: RuleChoice = "auto"
    last_frames: Annotated[tuple[_Frames, ...], _List, AfterValidator(_once)] = (2, 3, 4, 5, 6, 7, 8)
    start_min: Annotated[tuple[_Minute, ...], _List, AfterValidator(_once)] = ()
    map_last_frames: _Frames = 8

    @model_validator(mode="after")
    def _has_a_window(self) -> Self:
        if not (self.last_frames or self.start_min):
            raise ValueError("expected at least one window; found last_frames and start_min both empty")
        return self


@dataclass(frozen=True, config=_CLOSED)
class CompartmentSettings:
    """Compartment models: delays, weights of frames, the liver, and the maps of TwoTissueIrr.

    Attributes
    ----------
    delay_s : tuple[float, float]
        How much later than the input function blood may come, from and to, s; negative: before it.
    half_life_s : float
        Half-life in the weights of the frames, s; 0: that of the scan's radionuclide (of F-18 where the scan
        does not say).
    maps : bool
        Whether TwoTissueIrr makes voxel maps, which need the body's voxels of all frames in the work folder.
    map_fwhm_mm : float
        Width of the Gaussian that smooths the frames for these maps, mm (full width at half maximum), in the
        place of ``[kinetics] map_fwhm_mm``; 0: none, and K1 and vB of a voxel are then mostly noise.
    liver_arterial_fraction : float
        Part of the liver's blood that comes through its artery, for LiverDualInput; the rest is portal blood.
    """

    delay_s: _Delays = (-10.0, 40.0)
    half_life_s: Annotated[float, Strict(), Field(ge=0, le=1e9)] = 0.0
    maps: _Flag = True
    map_fwhm_mm: Annotated[float, Strict(), Field(ge=0, le=100)] = 6.0
    liver_arterial_fraction: Annotated[float, Strict(), Field(gt=0, le=1)] = 0.25


@dataclass(frozen=True, config=_CLOSED)
class KineticsSettings:
    """Kinetic models: which are fitted, to which scans, and what their voxel maps share.

    Attributes
    ----------
    models : tuple[str, ...]
        Names of the models that are fitted. Empty: none.
    tracers : tuple[str, ...]
        Parts of the names of tracers that are trapped, which Patlak's model assumes; others are not fitted.
    latest_start_s : float
        A scan that starts later after injection is not fitted, s: it has missed blood.
    map_fwhm_mm : float
        Width of the Gaussian that smooths the maps, mm (full width at half maximum); 0: none. Those of
        TwoTissueIrr have their own, ``[kinetics.compartments] map_fwhm_mm``.
    map_input_function : str
        Input function of the maps, and the one whose fits pages and group level show: volume of interest
        and segment, as in the file names. ``aortavoicombineddescending``: every voxel of the three kinds of
        volume in the descending aorta; ``aortavoi1ml3pxdescendingupper`` is one of hedyPET's twelve.
    t_star_min : float
        MA1, Logan, MRTM, MRTM2 and RelativePatlak use the frames whose middle is at or after this time, min;
        PatlakPBIF those that start at or after it.
    late_window_min : tuple[float, float]
        FUR and SUVR use the frames whose middle is in this window, min after injection.
    plasma_to_blood : float
        Activity in plasma over that in whole blood (no unit). 0: not known, and no distribution volume.
    parent_fraction : tuple[tuple[float, float], ...]
        Part of the activity in plasma that is the tracer itself: pairs of a time after injection, min, and
        the fraction; linear between them, constant before and after. Empty: not known, as above.
    reference_region : tuple[str, ...]
        Regions of one segmentation that together are the reference region. Empty: there is none.
    k2_prime_per_min : float
        Efflux of the reference region that MRTM2 takes, 1/min. 0: what MRTM gives in the same regions.
    lumped_constant : float
        Of glucose and its analogue in the tissue (no unit). 0: not known, and no CMRglc.
    tissue_density_g_per_ml : float
        Density of the tissue for CMRglc, g/mL.
    population_readouts : str
        Folder with the table ``input_function_tacs`` of a group level (hedypet's or hedyPET's), whose people
        lend PatlakPBIF their early blood; relative to the folder in which hedypet is started. Empty: none.
    patlak : PatlakSettings
        Parameters of Patlak's model, a section of their own.
    compartments : CompartmentSettings
        Parameters of the compartment models, a section of their own.
    """

    models: Annotated[tuple[_Name, ...], _List, AfterValidator(_once)] = ("Patlak",)
    tracers: Annotated[tuple[_Text, ...], _List, AfterValidator(_once)] = ("FDG", "deoxyglucose")
    latest_start_s: Annotated[float, Strict(), Field(ge=0, le=86400)] = 30.0
    map_fwhm_mm: Annotated[float, Strict(), Field(ge=0, le=100)] = 0.0
    map_input_function: _Name = "aortavoicombineddescending"
    t_star_min: _Minute = 30.0
    late_window_min: _Window = (50.0, 70.0)
    plasma_to_blood: Annotated[float, Strict(), Field(ge=0, le=100)] = 0.0
    parent_fraction: Annotated[tuple[_FractionAt, ...], _List, AfterValidator(_in_time)] = ()
    reference_region: Annotated[tuple[_Text, ...], _List, AfterValidator(_once)] = ()
    k2_prime_per_min: Annotated[float, Strict(), Field(ge=0, le=100)] = 0.0
    lumped_constant: Annotated[float, Strict(), Field(ge=0, le=10)] = 0.0
    tissue_density_g_per_ml: Annotated[float, Strict(), Field(gt=0, le=10)] = 1.04
    population_readouts: _Folder = ""
    patlak: PatlakSettings = field(default_factory=PatlakSettings)
    compartments: CompartmentSettings = field(default_factory=CompartmentSettings)


@dataclass(frozen=True, config=_CLOSED)
class Settings:
    """All settings of a run; ``Settings()`` holds the defaults.

    Attributes
    ----------
    selection
        Which image plays which role.
    static
        The static image of a dynamic scan.
    segment
        TotalSegmentator and SynthSeg.
    register
        Registration of MR to CT.
    resample
        Interpolation, and the head space.
    normalise
        SUV and SUL.
    aorta
        Volumes of interest of the input functions.
    curves
        Region statistics.
    kinetics
        Kinetic models.

    Examples
    --------
    >>> Settings().kinetics.patlak.last_frames
    (2, 3, 4, 5, 6, 7, 8)
    >>> Settings(curves=CurveSettings(erosions=(0, 2))).curves.erosions
    (0, 2)
    """

    selection: Selection = field(default_factory=Selection)
    static: StaticSettings = field(default_factory=StaticSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    register: RegisterSettings = field(default_factory=RegisterSettings)
    resample: ResampleSettings = field(default_factory=ResampleSettings)
    normalise: NormaliseSettings = field(default_factory=NormaliseSettings)
    aorta: AortaSettings = field(default_factory=AortaSettings)
    curves: CurveSettings = field(default_factory=CurveSettings)
    kinetics: KineticsSettings = field(default_factory=KineticsSettings)

    def to_toml(self) -> str:
        """The settings as TOML.

        Returns
        -------
        str
            One table a section, as ``--settings`` takes it.
        """
        import tomli_w

        return tomli_w.dumps(plain(self))

    def with_values(self, values: Mapping[str, Any], *, models: Collection[str] = ()) -> Settings:
        """These settings with some values in the place of theirs.

        Parameters
        ----------
        values
            Values by parameter by section, nested as in a TOML file.
        models
            Names of the kinetic models that there are; none: any name is taken.

        Returns
        -------
        Settings
            New ones; these stay as they are.

        Raises
        ------
        UsageError
            A section, parameter or model does not exist, or a value is not allowed; a line for each.

        Examples
        --------
        >>> Settings().with_values({"kinetics": {"patlak": {"rule": "frames"}}}).kinetics.patlak.rule
        'frames'
        """
        merged = _merged(dataclasses.asdict(self), values)
        unknown = _unknown_models(merged, models) if models else []
        try:
            settings = TypeAdapter(Settings).validate_python(merged)
        except ValidationError as fault:
            raise UsageError("\n".join(dict.fromkeys([*_faults(fault, values), *unknown]))) from None
        if unknown:
            raise UsageError("\n".join(unknown))
        return settings

    @classmethod
    def from_toml(cls, path: Path, *, models: Collection[str] = ()) -> Settings:
        """Settings from a TOML file; what it does not name keeps its default.

        Parameters
        ----------
        path
            The file.
        models
            Names of the kinetic models that there are; none: any name is taken.

        Returns
        -------
        Settings
            Checked.

        Raises
        ------
        MissingInputError
            The file is not there or cannot be read.
        UsageError
            It is no TOML, names a section or parameter that does not exist, or a value is not
            allowed; a line for each.
        """
        try:
            given = tomllib.loads(path.read_text("utf-8-sig"))
        except FileNotFoundError:
            raise MissingInputError(f"The settings file {path} does not exist.") from None
        except OSError as fault:
            raise MissingInputError(f"The settings file {path} cannot be read: {fault.strerror}.") from fault
        except (ValueError, RecursionError) as fault:
            raise UsageError(f"The settings file {path} is not valid TOML: {fault}.") from fault
        try:
            return cls().with_values(given, models=models)
        except UsageError as faults:
            raise UsageError("\n".join(f"{path}: {line}" for line in str(faults).split("\n"))) from None


@cache
def allowed() -> Mapping[str, str]:
    """What each parameter may be, in words, by its name with those of its sections.

    Examples
    --------
    >>> allowed()["resample.head_voxel_mm"]
    'a number from 0.25 to 10'
    """
    schema = TypeAdapter(Settings).json_schema()
    return dict(_described(schema, schema["$defs"], ""))


def _described(
    section: Mapping[str, Any], sections: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, str]]:
    for name, schema in section["properties"].items():
        if "$ref" in schema:
            inner = sections[schema["$ref"].rpartition("/")[2]]
            yield from _described(inner, sections, f"{prefix}{name}.")
        else:
            yield prefix + name, _in_words(schema)


def _in_words(schema: Mapping[str, Any]) -> str:
    """What a JSON schema, as pydantic makes it of a field, lets through."""
    if "enum" in schema:
        return " or ".join(json.dumps(choice) for choice in schema["enum"])
    if schema["type"] == "boolean":
        return "true or false"
    if schema["type"] == "string":
        return str(schema["description"])
    if "prefixItems" in schema:
        items = list(dict.fromkeys(map(_in_words, schema["prefixItems"])))
        each = f"each {items[0]}" if len(items) == 1 else " and ".join(items)
        return f"a list of {len(schema['prefixItems'])}, {each}"
    if schema["type"] == "array":
        least = "at least one, " if schema.get("minItems") else ""
        return f"a list, {least}none twice, each {_in_words(schema['items'])}"
    noun = "a whole number" if schema["type"] == "integer" else "a number"
    if "exclusiveMinimum" in schema:
        return f"{noun} above {schema['exclusiveMinimum']}, at most {schema['maximum']}"
    return f"{noun} from {schema['minimum']} to {schema['maximum']}"


def _unknown_models(values: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """A line for every kinetic model that does not exist; other faults of the value are told elsewhere."""
    section = values["kinetics"]
    asked = section.get("models", ()) if isinstance(section, Mapping) else ()
    return [
        f"[kinetics] models: expected models among {', '.join(known)}; found {_shown(name)}"
        f"{did_you_mean(name, known)}."
        for name in (asked if isinstance(asked, (list, tuple)) else ())
        if isinstance(name, str) and name not in known
    ]


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**values, **changes}
    for name in values.keys() & changes.keys():
        if isinstance(values[name], Mapping) and isinstance(changes[name], Mapping):
            merged[name] = _merged(values[name], changes[name])
    return merged


def _faults(fault: ValidationError, given: Mapping[str, Any]) -> Iterator[str]:
    """A line for everything that is wrong: where, what was expected, what was found."""
    for error in fault.errors(include_url=False):
        path = [str(name) for name in takewhile(lambda name: isinstance(name, str), error["loc"])]
        if path == ["patlak"]:
            yield from _moved(given["patlak"])
        elif error["type"] == "unexpected_keyword_argument":
            yield _unknown(path[:-1], path[-1])
        else:
            yield f"{_place(path)}: {_wrong(path, error, given)}."


def _wrong(path: list[str], error: ErrorDetails, given: Mapping[str, Any]) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    value: Any = given
    for name in path:
        value = value[name]
    near = ""
    if error["type"] == "literal_error" and isinstance(value, str):
        near = did_you_mean(value, re.findall("'(.+?)'", error["ctx"]["expected"]))
    expected = allowed().get(".".join(path), "a section with parameters")
    return f"expected {expected}; found {_shown(value)}{near}"


def _unknown(section: list[str], name: str) -> str:
    prefix = "".join(f"{outer}." for outer in section)
    here = [key.removeprefix(prefix).partition(".")[0] for key in allowed() if key.startswith(prefix)]
    known = dict.fromkeys(here)
    homes = " or ".join(f"[{home}]" for home in _homes(name))
    hint = f", which belongs in {homes}" if homes else did_you_mean(name, known)
    what = f"{_place(section)}: expected only" if section else "Expected only the sections"
    return f"{what} {', '.join(known)}; found {_shown(name)}{hint}."


def _moved(old: object) -> Iterator[str]:
    """Where the parameters of the former section ``[patlak]`` stand now."""
    if not isinstance(old, Mapping) or not old:
        yield "[patlak]: now [kinetics] and [kinetics.patlak]."
        return
    for name in old:
        home = next((home for home in _homes(name) if home.startswith("kinetics")), None)
        yield f"[patlak] {name}: now [{home}] {name}." if home else _unknown(["kinetics", "patlak"], name)


def _homes(name: str) -> list[str]:
    """The sections that have a parameter of this name."""
    return [key.rpartition(".")[0] for key in allowed() if key.rpartition(".")[2] == name]


def _place(path: list[str]) -> str:
    is_parameter = ".".join(path) in allowed()
    return f"[{'.'.join(path[:-1])}] {path[-1]}" if is_parameter else f"[{'.'.join(path)}]"


_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 8
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def _shown(value: object) -> str:
    """A value on one line, shortened."""
    try:
        return _SHORT.repr(list(value) if isinstance(value, tuple) else value)
    except ValueError:  # Python writes out no whole number of more than 4300 digits
        return f"a value of type {type(value).__name__} that is too long to show"


def plain(section: Any) -> dict[str, Any]:
    """A settings section as nested dicts and lists, ready for JSON and TOML."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(section)))
    return values


def digest(*parts: object) -> str:
    """SHA-256 (hex, 16 characters) of JSON-like values, the same in every run."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
