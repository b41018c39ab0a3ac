"""Every parameter of the study, with its unit in its name, to and from TOML."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from hedypet_bids.errors import MissingInputError, UsageError

Rule = Literal["simpson", "frames"]
RegisterMethod = Literal["rigid", "identity"]
AortaMethod = Literal["centreline", "nifti_dynamic"]


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Selection:
    """Which reconstruction or contrast plays which part when a session has several.

    Attributes
    ----------
    dynamic_rec
        ``rec-`` label of the dynamic series.
    static_rec
        ``rec-`` label of the static image.
    ct_rec
        ``rec-`` label of the CT.
    head_mr_acq
        ``acq-`` label of the T1w image of the head.
    body_mr_acq
        ``acq-`` label of the DIXON image that is registered to the CT; all contrasts follow it.
    """

    dynamic_rec: str = "acdynPSF"
    static_rec: str = "acstatPSF"
    ct_rec: str = "br38f"
    head_mr_acq: str = "MPRAGE"
    body_mr_acq: str = "DIXONbodyIN"


@dataclass(frozen=True)
class StaticSettings:
    """Minutes after injection of a dynamic scan that stand for a static image where there is none.

    Attributes
    ----------
    window_min
        Start and end, min; each frame counts by the time of the window that it covers.
    """

    window_min: tuple[float, ...] = (50.0, 70.0)


@dataclass(frozen=True)
class SegmentSettings:
    """How TotalSegmentator and SynthSeg run where there is no ready segmentation.

    Attributes
    ----------
    totalseg_fast
        Take the 3 mm networks (6 mm for the body).
    totalseg_roi_subset
        Regions of the total task; all others are left out. Empty: all regions.
    synthseg_robust
        Run SynthSeg in its robust mode.
    timeout_s
        Longest time of one run of either program, s; after it the program is ended.
    """

    totalseg_fast: bool = False
    totalseg_roi_subset: tuple[str, ...] = ()
    synthseg_robust: bool = True
    timeout_s: float = 21600.0


@dataclass(frozen=True)
class RegisterSettings:
    """Rigid MR-to-CT registration by mutual information.

    Attributes
    ----------
    method
        ``rigid``, or ``identity``, which leaves the MR where it is.
    seed
        Seed of the random choice of the voxels that are compared.
    head_margin_mm
        Margin around the brain to which the CT is cropped for the head's MR, mm.
    """

    method: RegisterMethod = "rigid"
    seed: int = 42
    head_margin_mm: float = 30.0


@dataclass(frozen=True)
class ResampleSettings:
    """Interpolation into the three spaces and the size of the head space.

    Attributes
    ----------
    spline_order
        Order of the splines that images are resampled with; labels take the nearest voxel.
    ct_outside_hu
        Value of CT and topogram outside their field of view, HU; PET and MR get 0.
    head_size_mm
        Extent of the head space around the middle of the brain, mm: left to right, back to front, up.
    head_voxel_mm
        Edge of its voxels, mm.
    """

    spline_order: int = 3
    ct_outside_hu: float = -1024.0
    head_size_mm: tuple[float, float, float] = (179.0, 230.0, 205.0)
    head_voxel_mm: float = 1.0


@dataclass(frozen=True)
class NormaliseSettings:
    """SUV and SUL constants.

    Attributes
    ----------
    write_suv
        Write the static PET in SUV as well.
    """

    write_suv: bool = False


@dataclass(frozen=True)
class AortaSettings:
    """Aorta segments and volumes of interest for the input functions.

    Attributes
    ----------
    method
        ``centreline``, or ``nifti_dynamic``, the library with which the published tables were made.
    early_window_s
        Time from the first frame in which the bolus is looked for, s.
    keep_fraction
        Voxels below this share of the median early uptake of their segment are dropped (no unit).
    """

    method: AortaMethod = "centreline"
    early_window_s: float = 240.0
    keep_fraction: float = 2 / 3


@dataclass(frozen=True)
class CurveSettings:
    """Region statistics of static and dynamic PET.

    Attributes
    ----------
    erosions
        How often regions are eroded before they are measured; a set of curves for each number.
    """

    erosions: tuple[int, ...] = (0, 1)


@dataclass(frozen=True)
class PatlakSettings:
    """Patlak fits: integration rule, windows, and what the voxel maps use.

    Attributes
    ----------
    rule
        Integration of the input function: ``simpson``, as in the published tables, or ``frames``.
    last_frames
        Windows that are the last frames of the series: their numbers of frames.
    start_min
        Further windows: all frames from these times after injection on, min.
    map_last_frames
        Number of last frames that the voxel maps are fitted to.
    map_fwhm_mm
        Width of the Gaussian that smooths the maps, mm (full width at half maximum); 0: none.
    map_input_function
        Input function of the maps: volume of interest and segment, as in the file names.
    tracers
        Parts of the names of tracers that are trapped, which Patlak's model assumes; others are not fitted.
    latest_start_s
        A scan that starts later after injection is not fitted, s: it has missed blood.
    """

    rule: Rule = "simpson"
    last_frames: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    start_min: tuple[float, ...] = ()
    map_last_frames: int = 4
    map_fwhm_mm: float = 0.0
    map_input_function: str = "aortavoi1ml3pxdescendingupper"
    tracers: tuple[str, ...] = ("FDG", "deoxyglucose")
    latest_start_s: float = 30.0


@dataclass(frozen=True)
class Settings:
    """All settings of a run; ``Settings()`` holds the defaults."""

    selection: Selection = field(default_factory=Selection)
    static: StaticSettings = field(default_factory=StaticSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    register: RegisterSettings = field(default_factory=RegisterSettings)
    resample: ResampleSettings = field(default_factory=ResampleSettings)
    normalise: NormaliseSettings = field(default_factory=NormaliseSettings)
    aorta: AortaSettings = field(default_factory=AortaSettings)
    curves: CurveSettings = field(default_factory=CurveSettings)
    patlak: PatlakSettings = field(default_factory=PatlakSettings)

    def to_toml(self) -> str:
        """The settings as TOML, one table a section."""
        import tomli_w

        return tomli_w.dumps(plain(self))

    def with_values(self, values: Mapping[str, Mapping[str, Any]]) -> Settings:
        """These settings with some values (section -> parameter -> value) in the place of theirs."""
        changed = {name: dataclasses.replace(getattr(self, name), **v) for name, v in values.items()}
        return dataclasses.replace(self, **changed)

    @classmethod
    def from_toml(cls, path: Path) -> Settings:
        """Settings from a TOML file; what it does not name keeps its default.

        Raises
        ------
        MissingInputError
            The file is not there.
        UsageError
            It is no TOML, or names a section, a parameter or a type that does not exist.
        """
        try:
            given = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise MissingInputError(f"The settings file {path} does not exist.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
            raise UsageError(f"The settings file {path} is not valid TOML: {fault}.") from fault
        return cls(**{name: _section(cls, name, values, path) for name, values in given.items()})


def _section(settings: type[Settings], name: str, values: object, path: Path) -> Any:
    sections = get_type_hints(settings)
    if name not in sections or not isinstance(values, Mapping):
        raise UsageError(
            f"{path}: expected only the sections {', '.join(sections)}; found {name!r}. Remove or rename it."
        )
    known = {f.name: f for f in dataclasses.fields(sections[name])}
    converted = {}
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"{path}: [{name}] knows {', '.join(known)}; found {key!r}.")
        converted[key] = _like_default(getattr(sections[name](), key), value, f"{path}: [{name}] {key}")
    return sections[name](**converted)


def _like_default(default: object, value: object, where: str) -> object:
    """The TOML value in the type of the parameter's default."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(default) is not type(value):
        raise UsageError(f"{where} must be a {type(default).__name__} such as {default!r}; found {value!r}.")
    return value


def plain(section: Any) -> dict[str, Any]:
    """A settings section as nested dicts and lists, ready for JSON and TOML."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(section)))
    return values


def digest(*parts: object) -> str:
    """SHA-256 (hex, 16 characters) of JSON-like values, the same in every run."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
