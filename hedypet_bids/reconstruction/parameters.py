"""Parameter files of JSRecon12, the script around Siemens' e7 tools: ``key := value`` lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hedypet_bids.errors import BadDataError, shown
from hedypet_bids.reconstruction.description import (
    MAX_FRAMES,
    MAX_S,
    Description,
    Framing,
    PostFilter,
    Reconstruction,
)
from hedypet_bids.reconstruction.numbers import millimetres, read_text, version, whole

# JSRecon12 keeps iterations and subsets per algorithm: attenuation-weighted, ordinary Poisson, and with PSF.
_ALGORITHMS = ("aw", "op", "psf")
_USED = "psf"
_KEYS = (
    "postfiltertype",
    "postfilterxy",
    "postfilterz",
    *(f"TOF{algorithm}{what}" for algorithm in _ALGORITHMS for what in ("iter", "subsets")),
    "LMFrames",
    "UseVersion",
    "outimagesize",
)
_SPELLING = {key.lower(): key for key in _KEYS}


@dataclass(frozen=True)
class ParameterFile:
    """What a parameter file says.

    Parameters
    ----------
    reconstruction
        The reconstruction that JSRecon12's PSFTOF batch file makes with it.
    others
        Keys that a description does not know, as they stand.
    notes
        What a reader should know, such as other iterations for other algorithms.
    """

    reconstruction: Reconstruction
    others: Mapping[str, str]
    notes: tuple[str, ...]


def write_parameters(description: Description) -> str:
    """The text of a parameter file, lines ended as on Windows, where JSRecon12 runs."""
    made = description.reconstruction
    values = {
        "postfiltertype": "GAUSS",
        "postfilterxy": repr(made.post_filter.xy_mm),
        "postfilterz": repr(made.post_filter.z_mm),
        "LMFrames": f"{made.frames.start_s}:{','.join(map(str, made.frames.durations_s))}",
        "UseVersion": made.software_version,
        "outimagesize": str(made.matrix_size),
    }
    for algorithm in _ALGORITHMS:
        values[f"TOF{algorithm}iter"] = str(made.iterations)
        values[f"TOF{algorithm}subsets"] = str(made.subsets)
    lines = [
        f"# {description.name}: {description.method}, for the PSFTOF batch file of JSRecon12.",
        f"# Frames: {made.frames}. Post-filter: {made.post_filter}.",
        f"# Written by hedypet-reconstruction from {description.name}.yaml; change that file, not this one.",
        "",
        *(f"{key:<14} := {values[key]}" for key in _KEYS),
    ]
    return "".join(f"{line}\r\n" for line in lines)


def read_parameters(path: Path) -> ParameterFile:
    """What a parameter file on disk says; errors as of :func:`parse_parameters`."""
    return parse_parameters(read_text(path), str(path))


def parse_parameters(text: str, where: str) -> ParameterFile:
    """What the text of a parameter file says; ``where`` names it in messages.

    Raises
    ------
    BadDataError
        A line is neither a comment nor ``key := value``, a key has two values, a key of a
        reconstruction is missing (JSRecon12 would take it from the installation's own file,
        so the result would depend on the computer), or a value is impossible.
    """
    found = _key_values(text, where)
    missing = [key for key in _KEYS if key not in found]
    if missing:
        raise BadDataError(
            f"{where}: expected the keys {', '.join(_KEYS)}; missing: {', '.join(missing)}. Without them "
            "JSRecon12 uses the defaults of its installation: copy these from there into the file."
        )
    if found["postfiltertype"].upper() != "GAUSS":
        raise BadDataError(f"{where}: postfiltertype must be GAUSS; found {shown(found['postfiltertype'])}.")
    reconstruction = Reconstruction(
        iterations=_number(found, f"TOF{_USED}iter", where, most=1000),
        subsets=_number(found, f"TOF{_USED}subsets", where, most=1000),
        post_filter=PostFilter(
            millimetres(found["postfilterxy"], f"{where}: postfilterxy"),
            millimetres(found["postfilterz"], f"{where}: postfilterz"),
        ),
        matrix_size=_number(found, "outimagesize", where, most=4096),
        software_version=version(found["UseVersion"], f"{where}: UseVersion"),
        frames=_frames(found["LMFrames"], f"{where}: LMFrames"),
    )
    others = {key: value for key, value in found.items() if key not in _KEYS}
    return ParameterFile(reconstruction, others, _notes(reconstruction, found, where))


def _key_values(text: str, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        given, assigned, value = (part.strip() for part in content.partition(":="))
        if not given or not assigned or not value:
            raise BadDataError(f"{where}, line {number}: expected KEY := VALUE; found {shown(content)}.")
        # JSRecon12 takes keys in any case.
        key = _SPELLING.get(given.lower(), given)
        if found.setdefault(key, value) != value:
            raise BadDataError(
                f"{where}, line {number}: {key} is {shown(value)} here and {shown(found[key])} above. "
                "Keep one of them."
            )
    return found


def _number(found: Mapping[str, str], key: str, where: str, *, most: int) -> int:
    return whole(found[key], f"{where}: {key}", least=1, most=most)


def _frames(text: str, where: str) -> Framing:
    start, colon, lengths = text.partition(":")
    items = lengths.split(",")
    if not colon or not lengths.strip() or len(items) > MAX_FRAMES:
        raise BadDataError(
            f"{where} must be START:LENGTH,LENGTH,... in whole seconds, as 0:60,300; found {shown(text)}."
        )
    start_s = whole(start.strip(), f"{where} start", least=0, most=MAX_S)
    durations_s = tuple(
        whole(item.strip(), f"{where} length of frame {frame}", least=1, most=MAX_S)
        for frame, item in enumerate(items)
    )
    try:
        return Framing(start_s, durations_s)
    except BadDataError as fault:
        raise BadDataError(f"{where}: {fault}") from fault


def _notes(made: Reconstruction, found: Mapping[str, str], where: str) -> tuple[str, ...]:
    notes = []
    for algorithm in _ALGORITHMS:
        iterations = _number(found, f"TOF{algorithm}iter", where, most=1000)
        subsets = _number(found, f"TOF{algorithm}subsets", where, most=1000)
        if (iterations, subsets) != (made.iterations, made.subsets):
            notes.append(
                f"TOF{algorithm}iter and TOF{algorithm}subsets are {iterations} and {subsets}; PSF+TOF uses "
                f"{made.iterations} and {made.subsets}"
            )
    return tuple(notes)
