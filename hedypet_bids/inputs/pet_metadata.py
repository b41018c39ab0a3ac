"""What a PET sidecar says about timing, units, dose and decay, in hedypet's units.

BIDS gives all times of a PET image in s relative to ``TimeZero``; here they are
relative to the start of the injection.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.errors import BadDataError, shown
from hedypet_bids.inputs.participant_metadata import as_number
from hedypet_bids.model import FrameTimes, PetMetadata

# Half-lives in s as given by the National Nuclear Data Center (NuDat); the first four are also those of
# table 5.7 of the European Pharmacopoeia.
HALF_LIFE_S: Mapping[str, float] = {
    "C11": 20.385 * 60,
    "N13": 9.965 * 60,
    "O15": 122.24,
    "F18": 109.77 * 60,
    "Cu64": 12.701 * 3600,
    "Ga68": 67.71 * 60,
    "Rb82": 1.2575 * 60,
    "Zr89": 78.41 * 3600,
    "I124": 4.1760 * 86400,
}

_ELEMENTS = {
    "carbon": "C",
    "nitrogen": "N",
    "oxygen": "O",
    "fluorine": "F",
    "copper": "Cu",
    "gallium": "Ga",
    "rubidium": "Rb",
    "zirconium": "Zr",
    "iodine": "I",
}

_CONCENTRATION = re.compile(r"(?P<prefix>[kM]?)[Bb][Qq](?:\s*/\s*|\s+)?(?:[mM][lL]|cc|cm\^?3)")
_CONCENTRATION_BQ_ML = {"": 1.0, "k": 1e3, "M": 1e6}

# 1 Ci = 3.7e10 Bq. Both code points of the micro sign occur.
_DOSE_BQ = {
    "Bq": 1.0,
    "kBq": 1e3,
    "MBq": 1e6,
    "GBq": 1e9,
    "Ci": 3.7e10,
    "mCi": 3.7e7,
    "uCi": 3.7e4,
    "\u00b5Ci": 3.7e4,
    "\u03bcCi": 3.7e4,
}
_HALF_LIFE = "RadionuclideHalfLife"
# DICOM's total dose may be corrected for the rest in the syringe, or for decay until the scan.
_SAME_DOSE = 0.2
# From a mouse's dose to several times the largest clinical one (Rb-82, O-15 water: 2 GBq).
DOSE_RANGE_BQ = (1e5, 1e10)

# MBq that people above _LIGHTEST_KG are given: about a tenth of the usual dose to several times the
# highest in the guidelines of EANM and SNMMI (FDG, C-11 choline, N-13 ammonia, O-15 water, Cu-64 and Ga-68
# DOTATATE, Rb-82, Zr-89 antibodies, I-124).
DOSES_MBQ: Mapping[str, tuple[float, float]] = {
    "C11": (30, 2000),
    "N13": (30, 2000),
    "O15": (30, 5000),
    "F18": (10, 1000),
    "Cu64": (10, 1000),
    "Ga68": (10, 1000),
    "Rb82": (50, 5000),
    "Zr89": (3, 500),
    "I124": (2, 1000),
}
_LIGHTEST_KG = 30.0

# Beyond so many half-lives (a factor of a million) nothing is left to be measured: times are wrong or in ms.
_MOST_HALF_LIVES = 20.0
# Where the nuclide is not known: longer than any PET study.
_LONGEST_S = 30 * 86400.0

# Sidecars round times to milliseconds or to whole seconds.
_SAME_TIME_S = 1.0
_SAME_FACTOR = 0.01
_SAME_START_S = 60.0
SAME_INJECTION_S = 60.0
_DAY_S = 86400.0
# Watches and scanners differ by a minute or two; more is another injection, or times from another zero.
_OTHER_TIME_S = 300.0
# As BIDS and as dcm2niix call them.
_DECAY_FACTORS = ("DecayCorrectionFactor", "DecayFactor")
# Blood that came before is no longer negligible.
_MISSED_S = 5.0
# Longer frames at the start do not show the bolus.
_BOLUS_S = 60.0


def read_pet_metadata(sidecar: Mapping[str, Any], *, n_frames: int, where: str) -> PetMetadata:
    """The metadata of a PET image from its sidecar.

    Parameters
    ----------
    sidecar
        Content of ``*_pet.json``, with what it inherits.
    n_frames
        Frames of the image (1 for a 3D image).
    where
        Name of the file for messages.

    Raises
    ------
    BadDataError
        Units that are no activity concentration, frame times that do not fit the image
        or each other, or a decay state that is missing or cannot be undone. An unknown
        dose is no error: it leaves ``dose_bq`` NaN with its reason.
    """
    injection_s = _required_number(sidecar, "InjectionStart", where)
    frames = _frames(sidecar, injection_s, n_frames, where)
    notes: list[str] = []
    units, units_factor = _units(sidecar, where)
    nuclide = _radionuclide(sidecar.get("TracerRadionuclide"))
    half_life_s = _half_life(sidecar, nuclide, where)
    _check_time("FrameTimesStart", float(frames.start_s[0]), nuclide, half_life_s, where)
    _check_time("FrameTimesStart + FrameDuration", float(frames.end_s[-1]), nuclide, half_life_s, where)
    scan_start_s = _scan_start(sidecar, frames, injection_s, where, notes)
    corrected = _decay_corrected(sidecar, where)
    reference_s = math.nan
    if corrected:
        reference_s = _decay_reference(sidecar, injection_s, scan_start_s, where, notes)
        _check_time("ImageDecayCorrectionTime", reference_s, nuclide, half_life_s, where)
    decay_factor = _decay_factors(frames, half_life_s, reference_s, sidecar, where)
    dose_bq, dose_reason = _dose(sidecar)
    notes += _conversions(reference_s, units_factor, units)
    notes += _other_notes(sidecar)
    injection_clock_s = (clock_s(sidecar.get("TimeZero")) + injection_s) % _DAY_S
    problems = [
        *_stated_factors(sidecar, frames, half_life_s, reference_s, where),
        *_clock_problems(sidecar, frames, injection_s, injection_clock_s, where),
        *_series_problems(frames),
        *_decay_problems(sidecar, nuclide, reference_s, float(frames.end_s[-1])),
        *filter(None, [dose_reason]),
    ]
    return PetMetadata(
        frames=frames,
        units=units,
        units_factor=units_factor,
        dose_bq=dose_bq,
        dose_reason=dose_reason,
        radionuclide=nuclide,
        half_life_s=half_life_s,
        decay_corrected=corrected,
        decay_reference_s=reference_s,
        decay_factor=decay_factor,
        scan_start_s=scan_start_s,
        notes=(*notes, *problems),
        problems=tuple(problems),
        tracer=_tracer(sidecar),
        injection_clock_s=injection_clock_s,
        injection_start_s=injection_s,
        time_zero="" if math.isnan(injection_clock_s) else str(sidecar["TimeZero"]).strip(),
    )


def decay_correction(frames: FrameTimes, *, half_life_s: float) -> NDArray[np.float64]:
    """Factors that correct frame means for decay back to time 0, shape (n_frames,).

    Exact for activity that is constant within a frame apart from decay:
    exp(k a) * k d / (1 - exp(-k d)) with k = ln 2 / half-life, a the start and d the
    duration of the frame.
    """
    rate = math.log(2.0) / half_life_s
    decay = rate * frames.duration_s
    # A frame too short for any decay has the limit, 1.
    within = np.divide(decay, -np.expm1(-decay), out=np.ones_like(decay), where=decay > 0)
    factors: NDArray[np.float64] = np.exp(rate * frames.start_s) * within
    return factors


def _required_number(sidecar: Mapping[str, Any], key: str, where: str) -> float:
    value = as_number(sidecar.get(key))
    if math.isnan(value):
        raise BadDataError(
            f"{where}: {key} must be a number of seconds relative to TimeZero; "
            f"found {_shown(sidecar, key)}. Add it to the sidecar."
        )
    return value


def _shown(sidecar: Mapping[str, Any], key: str) -> str:
    if key not in sidecar:
        near = difflib.get_close_matches(key.lower(), [other.lower() for other in sidecar], n=1, cutoff=0.9)
        others = [other for other in sidecar if other.lower() in near]
        return f"nothing (but {others[0]!r}, which BIDS does not know)" if others else "nothing"
    return shown(sidecar[key])


def odd_dose(metadata: PetMetadata, weight_kg: float | None) -> str:
    """Why a dose is none that a person of this weight is given; empty where it may be, or is not known.

    Parameters
    ----------
    weight_kg
        Of who was scanned; those below 30 kg are not judged.

    Examples
    --------
    >>> sidecar = {"InjectionStart": 0, "FrameTimesStart": [0], "FrameDuration": [60], "Units": "Bq/mL",
    ...     "ImageDecayCorrected": True, "ImageDecayCorrectionTime": 0, "TracerRadionuclide": "F18",
    ...     "InjectedRadioactivity": 3.7, "InjectedRadioactivityUnits": "MBq"}
    >>> odd_dose(read_pet_metadata(sidecar, n_frames=1, where="x_pet.json"), 70)
    'the dose is 3.7 MBq; people are given 10 to 1000 MBq of F18. Check InjectedRadioactivityUnits'
    """
    limits = DOSES_MBQ.get(metadata.radionuclide)
    dose_mbq = metadata.dose_bq / 1e6
    if limits is None or weight_kg is None or weight_kg <= _LIGHTEST_KG or math.isnan(dose_mbq):
        return ""
    low, high = limits
    if low <= dose_mbq <= high:
        return ""
    return (
        f"the dose is {dose_mbq:.4g} MBq; people are given {low:g} to {high:g} MBq of "
        f"{metadata.radionuclide}. Check InjectedRadioactivityUnits"
    )


def _check_time(key: str, time_s: float, nuclide: str, half_life_s: float, where: str) -> None:
    """Raise BadDataError for a time, s from injection, at which nothing can have been measured."""
    known = not math.isnan(half_life_s)
    limit_s = _MOST_HALF_LIVES * half_life_s if known else _LONGEST_S
    if abs(time_s) > limit_s:
        limit = f"{_MOST_HALF_LIVES:g} half-lives of {nuclide}" if known else f"{_LONGEST_S / 86400:g} days"
        raise BadDataError(
            f"{where}: {key} is {time_s:g} s from the injection, more than {limit} ({limit_s:g} s). "
            "Are the times in milliseconds, or InjectionStart not relative to TimeZero? BIDS wants seconds."
        )


def _frames(sidecar: Mapping[str, Any], injection_s: float, n_frames: int, where: str) -> FrameTimes:
    start = _numbers(sidecar, "FrameTimesStart", n_frames, where)
    duration = _numbers(sidecar, "FrameDuration", n_frames, where)
    try:
        frames = FrameTimes(start_s=start - injection_s, duration_s=duration)
    except BadDataError as fault:
        raise BadDataError(f"{where}: {fault}") from fault
    if frames.end_s[-1] <= 0:
        raise BadDataError(
            f"{where}: the last frame ends {-frames.end_s[-1]:g} s before the injection. "
            f"Check InjectionStart ({injection_s:g} s) and FrameTimesStart; both are relative to TimeZero."
        )
    return frames


def _numbers(sidecar: Mapping[str, Any], key: str, n_frames: int, where: str) -> NDArray[np.float64]:
    content = sidecar.get(key)
    values = content if isinstance(content, list) else [content]
    found = np.array([as_number(value) for value in values], dtype=np.float64)
    if np.isnan(found).any():
        raise BadDataError(
            f"{where}: {key} must be a list of seconds, one per frame; found {_shown(sidecar, key)}."
        )
    if found.size != n_frames:
        raise BadDataError(
            f"{where}: {key} has {found.size} entries, the image {n_frames} frames. "
            "Restore the sidecar that belongs to this image."
        )
    return found


def _units(sidecar: Mapping[str, Any], where: str) -> tuple[str, float]:
    """The units as written, and the factor to Bq/mL."""
    units = str(sidecar.get("Units", "")).strip()
    match = _CONCENTRATION.fullmatch(units)
    if match is None:
        raise BadDataError(
            f"{where}: Units must be Bq/mL, kBq/mL or MBq/mL; found {_shown(sidecar, 'Units')}. "
            "Images in counts or SUV cannot be quantified: convert them, or correct Units."
        )
    return units, _CONCENTRATION_BQ_ML[match["prefix"]]


def _radionuclide(text: object) -> str:
    """A nuclide as ``F18`` from F18, 18F, F-18, [18F] or ^18^Fluorine; empty when it is none of these."""
    found = re.fullmatch(
        r"(?:([A-Za-z]+)(\d+)|(\d+)([A-Za-z]+))", re.sub(r"[\s^\[\]_-]", "", str(text or ""))
    )
    if found is None:
        return ""
    symbol = found[1] or found[4]
    return _ELEMENTS.get(symbol.lower(), symbol.capitalize()) + (found[2] or found[3])


def _tracer(sidecar: Mapping[str, Any]) -> str:
    text = str(sidecar.get("TracerName") or "").strip()
    return "" if text.lower() in ("n/a", "na", "unknown", "none") else text


def _half_life(sidecar: Mapping[str, Any], nuclide: str, where: str) -> float:
    """Half-life in s: the table's, for a nuclide that it does not list the sidecar's; NaN without either.

    Raises
    ------
    BadDataError
        The sidecar's is not that of its nuclide.
    """
    known, stated = HALF_LIFE_S.get(nuclide, math.nan), as_number(sidecar.get(_HALF_LIFE))
    if math.isnan(known):
        return stated if stated > 0 else math.nan
    if abs(stated / known - 1.0) > _SAME_FACTOR:
        raise BadDataError(
            f"{where}: {_HALF_LIFE} is {stated:g} s, but that of {nuclide} is {known:g} s. Correct it or "
            "TracerRadionuclide in the sidecar or with --corrections."
        )
    return known


def _scan_start(
    sidecar: Mapping[str, Any], frames: FrameTimes, injection_s: float, where: str, notes: list[str]
) -> float:
    """Start of the scan in s from injection; noted when the first frame stands for it."""
    first_s = float(frames.start_s[0])
    scan_start_s = as_number(sidecar.get("ScanStart")) - injection_s
    if math.isnan(scan_start_s):
        notes.append(f"ScanStart is missing; the first frame's start, {first_s:g} s after injection, is used")
        return first_s
    if first_s < scan_start_s - _SAME_TIME_S:
        raise BadDataError(
            f"{where}: frame 0 starts at {first_s + injection_s:g} s, before ScanStart "
            f"({scan_start_s + injection_s:g} s). Both must be relative to TimeZero."
        )
    return scan_start_s


def _decay_corrected(sidecar: Mapping[str, Any], where: str) -> bool:
    corrected = sidecar.get("ImageDecayCorrected")
    if not isinstance(corrected, bool):
        raise BadDataError(
            f"{where}: ImageDecayCorrected must be true or false (without quotes); "
            f"found {_shown(sidecar, 'ImageDecayCorrected')}. Add it to the sidecar."
        )
    return corrected


def _decay_reference(
    sidecar: Mapping[str, Any], injection_s: float, scan_start_s: float, where: str, notes: list[str]
) -> float:
    """The time that a decay-corrected image is corrected to, s from injection."""
    reference_s = as_number(sidecar.get("ImageDecayCorrectionTime")) - injection_s
    if not math.isnan(reference_s):
        return reference_s
    if abs(scan_start_s) <= _SAME_TIME_S:
        notes.append(
            "ImageDecayCorrectionTime is missing; scan and injection start together, so this time is used"
        )
        return 0.0
    raise BadDataError(
        f"{where}: ImageDecayCorrectionTime must be a number of seconds relative to TimeZero; found "
        f"{_shown(sidecar, 'ImageDecayCorrectionTime')}. Without it the image cannot be related to the dose: "
        f"scan and injection are {abs(scan_start_s):g} s apart. Add it to the sidecar."
    )


def _decay_factors(
    frames: FrameTimes, half_life_s: float, reference_s: float, sidecar: Mapping[str, Any], where: str
) -> NDArray[np.float64]:
    """Factors to decay correction to injection; ``reference_s`` is NaN for an uncorrected image."""
    if reference_s == 0:
        return np.ones(len(frames))
    if math.isnan(half_life_s):
        raise BadDataError(
            f"{where}: decay must be corrected to the time of injection, which needs a TracerRadionuclide "
            f"among {', '.join(HALF_LIFE_S)}, or its {_HALF_LIFE}; found "
            f"{_shown(sidecar, 'TracerRadionuclide')}."
        )
    if math.isnan(reference_s):
        return decay_correction(frames, half_life_s=half_life_s)
    return np.full(len(frames), 2.0 ** (reference_s / half_life_s))


def _decay_problems(
    sidecar: Mapping[str, Any], nuclide: str, reference_s: float, end_s: float
) -> Iterator[str]:
    """What is odd about the nuclide and the time to which decay is corrected; times in s from injection."""
    tracer = _tracer(sidecar)
    named = {
        known
        for known in HALF_LIFE_S
        for symbol, mass in re.findall(r"([A-Za-z]+)(\d+)", known)
        if re.search(rf"(?<!\d){mass}[\s^\]-]*{symbol}|(?<![A-Za-z]){symbol}[\s^-]*{mass}(?!\d)", tracer)
    }
    if nuclide and named and nuclide not in named:
        yield (
            f"TracerName is {_shown(sidecar, 'TracerName')}, but TracerRadionuclide is "
            f"{_shown(sidecar, 'TracerRadionuclide')}: one is wrong, and decay is corrected for the second"
        )
    if reference_s > end_s + _SAME_START_S or reference_s < -_DAY_S:
        yield (
            f"ImageDecayCorrectionTime is {reference_s:g} s after the injection, but the scan ends after "
            f"{end_s:g} s: expected the injection, or a time in the scan"
        )


def _dose(sidecar: Mapping[str, Any]) -> tuple[float, str]:
    """Injected activity in Bq, or NaN and the reason."""
    amount = as_number(sidecar.get("InjectedRadioactivity"))
    units = str(sidecar.get("InjectedRadioactivityUnits", "")).strip()
    if math.isnan(amount):
        found = _shown(sidecar, "InjectedRadioactivity")
        return math.nan, f"the injected activity is unknown: InjectedRadioactivity is {found}"
    if units not in _DOSE_BQ:
        found = _shown(sidecar, "InjectedRadioactivityUnits")
        return math.nan, (
            f"the injected activity is unknown: InjectedRadioactivityUnits is {found}, expected one of "
            "Bq, kBq, MBq, GBq, mCi, uCi (BIDS has no default)"
        )
    dose_bq = amount * _DOSE_BQ[units]
    low, high = DOSE_RANGE_BQ
    if not low <= dose_bq <= high:
        return math.nan, (
            f"the injected activity is unknown: {amount:g} {units} is not between {low / 1e6:g} and "
            f"{high / 1e6:g} MBq; check InjectedRadioactivityUnits"
        )
    total_bq = as_number(sidecar.get("RadionuclideTotalDose"))
    # Some converters give it in MBq.
    if total_bq > 0 and all(abs(dose_bq / total - 1.0) > _SAME_DOSE for total in (total_bq, total_bq * 1e6)):
        return math.nan, (
            f"the injected activity is unknown: InjectedRadioactivity is {amount:g} {units}, but "
            f"RadionuclideTotalDose is {total_bq:g} Bq; correct the one that is wrong"
        )
    return dose_bq, ""


def _conversions(reference_s: float, units_factor: float, units: str) -> Iterator[str]:
    if units_factor != 1:
        yield f"the image is in {units}; it was converted to Bq/mL"
    if math.isnan(reference_s):
        yield "the image is not decay-corrected; its frames were corrected to the time of injection"
    elif reference_s:
        yield (
            f"the image is decay-corrected to {reference_s:g} s after injection; it was shifted to injection"
        )


def _stated_factors(
    sidecar: Mapping[str, Any], frames: FrameTimes, half_life_s: float, reference_s: float, where: str
) -> Iterator[str]:
    """What is wrong when the scanner's own decay factors disagree with the times in the sidecar.

    Raises
    ------
    BadDataError
        They fit frames that are all later: the times are counted from another moment than the sidecar says.
    """
    if math.isnan(half_life_s) or math.isnan(reference_s):
        return
    expected = decay_correction(frames, half_life_s=half_life_s) * 2.0 ** (-reference_s / half_life_s)
    for key in _DECAY_FACTORS:
        stated = sidecar.get(key)
        factors = np.array([as_number(value) for value in stated] if isinstance(stated, list) else [])
        if factors.shape != (len(frames),) or np.isnan(factors).any():
            continue
        wrong = np.abs(factors / expected - 1.0) > _SAME_FACTOR
        if not wrong.any():
            continue
        frame = int(np.argmax(wrong))
        text = (
            f"{key} of frame {frame} is {factors[frame]:g}; ImageDecayCorrectionTime and the frame times "
            f"give {expected[frame]:g}"
        )
        later_s = _later_s(factors * 2.0 ** (reference_s / half_life_s), frames, half_life_s)
        if later_s > _SAME_START_S:
            raise BadDataError(
                f"{where}: {text}. It fits frames that start {later_s:.0f} s later. Are FrameTimesStart and "
                "ScanStart counted from the scan instead of TimeZero? Correct them in the sidecar or with "
                "--corrections."
            )
        yield f"{text}: check them"


def _later_s(factors: NDArray[np.float64], frames: FrameTimes, half_life_s: float) -> float:
    """How much later all frames would be that the factors fit, s; NaN where they fit no such frames."""
    rate = math.log(2.0) / half_life_s
    with np.errstate(invalid="ignore", divide="ignore"):
        decay = rate * frames.duration_s
        start_s = np.log(factors * -np.expm1(-decay) / decay) / rate
    later_s = start_s - frames.start_s
    coherent = np.isfinite(later_s).all() and np.ptp(later_s) <= _SAME_START_S
    return float(later_s.mean()) if coherent else math.nan


def clock_s(text: object) -> float:
    """A time of day, ``10:50:00`` or DICOM's ``105000.00``, in s after midnight; NaN for what is none."""
    found = re.fullmatch(r"(\d\d):?(\d\d):?(\d\d(?:\.\d+)?)", str(text).strip())
    if found is None:
        return math.nan
    hours, minutes, seconds = (float(part) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds if hours < 24 and minutes < 60 and seconds < 60 else math.nan


def apart_s(one_s: float, other_s: float) -> float:
    """How much later the second of two times of day is, s, across midnight as well: -12 to 12 h."""
    return (other_s - one_s + _DAY_S / 2) % _DAY_S - _DAY_S / 2


def at_clock(time_s: float) -> str:
    """A time of day for people."""
    whole = round(time_s) % round(_DAY_S)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _clock_problems(
    sidecar: Mapping[str, Any], frames: FrameTimes, injection_s: float, injection_clock_s: float, where: str
) -> Iterator[str]:
    """What is wrong when times of day in the sidecar disagree with its times in seconds.

    Raises
    ------
    BadDataError
        The injection, or an image whose times begin with 0, was at another time.
    """
    if math.isnan(injection_clock_s):
        if "TimeZero" in sidecar:
            yield f"TimeZero must be a time of day, hh:mm:ss; found {_shown(sidecar, 'TimeZero')}"
        return
    later_s = apart_s(injection_clock_s, clock_s(sidecar.get("RadiopharmaceuticalStartTime")))
    if abs(later_s) > _SAME_START_S:
        text = (
            f"RadiopharmaceuticalStartTime is {_shown(sidecar, 'RadiopharmaceuticalStartTime')}, but "
            f"TimeZero and InjectionStart put the injection at {at_clock(injection_clock_s)}"
        )
        if abs(later_s) > _OTHER_TIME_S:
            raise BadDataError(
                f"{where}: {text}. Dose and image cannot be related: correct InjectionStart (seconds from "
                "TimeZero) in the sidecar or with --corrections."
            )
        yield f"{text}: check them"
    first_s = injection_clock_s + float(frames.start_s[0])
    if abs(apart_s(first_s, clock_s(sidecar.get("AcquisitionTime")))) > _OTHER_TIME_S:
        text = (
            f"AcquisitionTime is {_shown(sidecar, 'AcquisitionTime')}, but TimeZero and FrameTimesStart put "
            f"the first frame at {at_clock(first_s)}"
        )
        # A static image that claims to begin with the clock; the time of a series may be that of any frame.
        if len(frames) == 1 and abs(frames.start_s[0] + injection_s) <= _SAME_TIME_S:
            raise BadDataError(
                f"{where}: {text}. Are FrameTimesStart and ScanStart counted from the scan instead of "
                "TimeZero? Correct them in the sidecar or with --corrections."
            )
        yield f"{text}: check them"


def _series_problems(frames: FrameTimes) -> Iterator[str]:
    """What a dynamic series did not see: blood before it, the bolus, what happened between its frames."""
    if len(frames) == 1:
        return
    missed_s, first_s = float(frames.start_s[0]), float(frames.duration_s[0])
    if missed_s > _MISSED_S:
        yield (
            f"the first {missed_s:g} s after injection were not seen; the blood of that time is missing in "
            "the input functions, so Ki is too high"
        )
    gaps = np.flatnonzero(frames.gap_s > _SAME_TIME_S)
    if gaps.size:
        longest = int(np.argmax(frames.gap_s))
        several = f"are {gaps.size} gaps between frames, the longest" if gaps.size > 1 else "is a gap"
        yield (
            f"there {several} of {frames.gap_s[longest]:g} s after frame {longest}; input functions are "
            "interpolated over it"
        )
    if first_s > _BOLUS_S and missed_s < _BOLUS_S:
        yield f"the first frame lasts {first_s:g} s, in which the bolus comes and goes"


def _other_notes(sidecar: Mapping[str, Any]) -> Iterator[str]:
    scaling = sidecar.get("ScaleFactor")
    factors = scaling if isinstance(scaling, list) else [] if scaling is None else [scaling]
    if any(as_number(factor) != 1.0 for factor in factors):
        yield "ScaleFactor in the sidecar is not applied; the scaling in the image's header is"
    mode = str(sidecar.get("ModeOfAdministration", "")).strip().lower()
    if "infusion" in mode:
        yield f"the tracer was given as {mode}; times count from InjectionStart"
