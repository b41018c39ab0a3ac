"""A PET sidecar held against a description."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedypet_bids.errors import BadDataError, shown
from hedypet_bids.reconstruction.description import Description, Framing, PostFilter, runs
from hedypet_bids.reconstruction.numbers import read_text

# Sidecars round times; the shortest frame of a dynamic series is 1 s.
_SAME_S = 0.1
_SAME_MM = 0.01

# Siemens writes method, iterations and subsets as one text, as in "PSF+TOF 4i5s".
_NAME_WITH_NUMBERS = re.compile(r"(?P<method>.*?)\s*(?P<iterations>\d+)i(?P<subsets>\d+)s", re.DOTALL)
# "All-pass" is the convolution kernel that Siemens' DICOM states for unfiltered images.
_UNFILTERED = {"", "none", "allpass", "nofilter"}
_LAST_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\D*$")


@dataclass(frozen=True)
class Difference:
    """A key of a sidecar that does not say what the description does."""

    key: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.key}: expected {self.expected}; found {self.found}"


def read_pet_sidecar(path: Path) -> dict[str, Any]:
    """Content of a JSON sidecar.

    Raises
    ------
    MissingInputError
        The file is not there.
    BadDataError
        It is no JSON object.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as fault:
        raise BadDataError(f"{path} is not valid JSON: {fault}.") from fault
    if not isinstance(content, dict):
        raise BadDataError(f"{path} must hold a JSON object; found {shown(content)}.")
    return content


def differences(description: Description, sidecar: Mapping[str, Any]) -> list[Difference]:
    """Every key of the sidecar that contradicts the description, or is missing; none when they agree.

    The matrix is no part of a sidecar, and the software version only where ``SoftwareVersions`` is.
    """
    made = description.reconstruction
    return [
        *_method(description, sidecar),
        *_filter(made.post_filter, sidecar),
        *_frames(made.frames, sidecar),
        *_software(made.software_version, sidecar),
    ]


def _found(sidecar: Mapping[str, Any], key: str) -> str:
    return shown(sidecar[key]) if key in sidecar else "nothing"


def _method(description: Description, sidecar: Mapping[str, Any]) -> Iterator[Difference]:
    name = str(sidecar.get("ReconMethodName", ""))
    combined = _NAME_WITH_NUMBERS.fullmatch(name.strip())
    method = combined["method"] if combined else name
    if _letters(method) != _letters(description.method):
        yield Difference("ReconMethodName", description.method, _found(sidecar, "ReconMethodName"))
    made = description.reconstruction
    for what, expected in (("iterations", made.iterations), ("subsets", made.subsets)):
        stated = _parameter(sidecar, what)
        if stated is None and combined:
            stated = float(combined[what])
        if stated != expected:
            found = "nothing" if stated is None else f"{stated:g}"
            yield Difference(f"ReconMethodParameterValues ({what})", str(expected), found)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def _parameter(sidecar: Mapping[str, Any], what: str) -> float | None:
    labels, values = (sidecar.get(f"ReconMethodParameter{part}") for part in ("Labels", "Values"))
    if not isinstance(labels, list) or not isinstance(values, list):
        return None
    for label, value in zip(labels, values, strict=False):
        if what.removesuffix("s") in str(label).lower():
            number = _number(value)
            return None if math.isnan(number) else number
    return None


def _number(value: object) -> float:
    """A number of a JSON file; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        return math.nan
    return float(value)


def _filter(expected: PostFilter, sidecar: Mapping[str, Any]) -> Iterator[Difference]:
    stated = sidecar.get("ReconFilterType")
    kinds = stated if isinstance(stated, list) else [stated]
    kind = " ".join(str(part) for part in kinds)
    found = _filter_stated(kind, sidecar) if "ReconFilterType" in sidecar else None
    if found is None:
        yield Difference("ReconFilterType", str(expected), _found(sidecar, "ReconFilterType"))
    elif bool(found.xy_mm or found.z_mm) != bool(expected.xy_mm or expected.z_mm):
        yield Difference("ReconFilterType", str(expected), shown(stated))
    elif not (_same_mm(found.xy_mm, expected.xy_mm) and _same_mm(found.z_mm, expected.z_mm)):
        size = "of unknown width" if math.isnan(found.xy_mm) else str(found)
        yield Difference("ReconFilterSize", str(expected), size)


def _same_mm(found: float, expected: float) -> bool:
    return abs(found - expected) <= _SAME_MM


def _filter_stated(kind: str, sidecar: Mapping[str, Any]) -> PostFilter | None:
    """The filter that a sidecar states; NaN widths when it names none, None for another kind of filter."""
    if _letters(kind) in _UNFILTERED:
        return PostFilter(0.0, 0.0)
    if "gauss" not in kind.lower():
        return None
    sizes = sidecar.get("ReconFilterSize")
    widths = [_number(size) for size in (sizes if isinstance(sizes, list) else [sizes])]
    if widths and not any(map(math.isnan, widths)) and len(set(widths[:-1])) <= 1:
        return PostFilter(widths[0], widths[-1])
    # As in "XYZ Gauss2.00", Siemens' name of the kernel.
    named = _LAST_NUMBER.search(kind)
    width = float(named[1]) if named else math.nan
    return PostFilter(width, width)


def _frames(expected: Framing, sidecar: Mapping[str, Any]) -> Iterator[Difference]:
    scan_start_s = _number(sidecar.get("ScanStart"))
    if math.isnan(scan_start_s):
        yield Difference("ScanStart", "seconds from TimeZero", _found(sidecar, "ScanStart"))
        scan_start_s = 0.0
    durations_s = _numbers(sidecar.get("FrameDuration"))
    if durations_s is None:
        yield Difference("FrameDuration", runs(expected.durations_s), _found(sidecar, "FrameDuration"))
    elif _unlike(durations_s, expected.durations_s):
        yield Difference("FrameDuration", runs(expected.durations_s), runs(durations_s))
    starts_s = _numbers(sidecar.get("FrameTimesStart"))
    if starts_s is None:
        wanted = f"{expected.n_frames} times in s"
        yield Difference("FrameTimesStart", wanted, _found(sidecar, "FrameTimesStart"))
    else:
        yield from _starts(expected, [start_s - scan_start_s for start_s in starts_s])


def _starts(expected: Framing, starts_s: list[float]) -> Iterator[Difference]:
    if len(starts_s) != expected.n_frames:
        yield Difference("FrameTimesStart", f"{expected.n_frames} frames", f"{len(starts_s)}")
    wrong = _unlike(starts_s[: expected.n_frames], expected.starts_s[: len(starts_s)])
    if wrong:
        frame = wrong[0]
        others = f" (and {len(wrong) - 1} more frames differ)" if len(wrong) > 1 else ""
        yield Difference(
            "FrameTimesStart",
            f"frame {frame} to start {expected.starts_s[frame]} s after ScanStart",
            f"{starts_s[frame]:g} s{others}",
        )


def _numbers(content: object) -> list[float] | None:
    numbers = [_number(value) for value in (content if isinstance(content, list) else [content])]
    return None if not numbers or any(map(math.isnan, numbers)) else numbers


def _unlike(found: list[float], expected: tuple[int, ...]) -> list[int]:
    """The frames whose times differ; all of them where the counts do."""
    if len(found) != len(expected):
        return list(range(max(len(found), len(expected))))
    return [i for i, pair in enumerate(zip(found, expected, strict=True)) if abs(pair[0] - pair[1]) > _SAME_S]


def _software(expected: str, sidecar: Mapping[str, Any]) -> Iterator[Difference]:
    if "SoftwareVersions" in sidecar and expected.lower() not in str(sidecar["SoftwareVersions"]).lower():
        yield Difference("SoftwareVersions", expected, _found(sidecar, "SoftwareVersions"))
