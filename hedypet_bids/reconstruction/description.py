"""What a reconstruction is, and the YAML files that describe one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from hedypet_bids.errors import BadDataError, MissingInputError, shown
from hedypet_bids.reconstruction.numbers import millimetres, read_text, version, whole

# The only one whose parameters are known here: point-spread function and time of flight (JSRecon12: PSFTOF).
METHOD = "PSF+TOF"
# A day, in frames of 1 s at the shortest: beyond that a number is a slip.
MAX_FRAMES = 10_000
MAX_S = 86_400

_NAME = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True)
class Framing:
    """When frames start and how long each lasts, in whole seconds from the start of the list-mode file.

    Raises
    ------
    BadDataError
        There is no frame, or there are too many, or one of them lasts less than 1 s.
    """

    start_s: int
    durations_s: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.n_frames <= MAX_FRAMES:
            raise BadDataError(f"Expected 1 to {MAX_FRAMES} frames; found {self.n_frames}.")
        for frame, duration_s in enumerate(self.durations_s):
            if duration_s < 1:
                raise BadDataError(f"Frame {frame} lasts {duration_s} s; expected at least 1 s.")
        if self.start_s < 0 or self.end_s > MAX_S:
            raise BadDataError(
                f"Frames from {self.start_s} to {self.end_s} s; expected times from 0 to {MAX_S} s."
            )

    @property
    def n_frames(self) -> int:
        """How many frames there are."""
        return len(self.durations_s)

    @property
    def starts_s(self) -> tuple[int, ...]:
        """The start of each frame."""
        return tuple(itertools.accumulate(self.durations_s[:-1], initial=self.start_s))

    @property
    def end_s(self) -> int:
        """The end of the last frame."""
        return self.start_s + sum(self.durations_s)

    def __str__(self) -> str:
        return f"{runs(self.durations_s)} from {self.start_s} to {self.end_s} s"


@dataclass(frozen=True)
class PostFilter:
    """Full widths at half maximum of the Gaussian after reconstruction; 0 and 0 for none."""

    xy_mm: float
    z_mm: float

    def __str__(self) -> str:
        if self.xy_mm == self.z_mm:
            return f"Gaussian {self.xy_mm:g} mm" if self.xy_mm else "none"
        return f"Gaussian {self.xy_mm:g} mm in xy, {self.z_mm:g} mm in z"


@dataclass(frozen=True)
class Reconstruction:
    """Everything of a reconstruction that a parameter file holds."""

    iterations: int
    subsets: int
    post_filter: PostFilter
    matrix_size: int
    software_version: str
    frames: Framing


@dataclass(frozen=True)
class Description:
    """A reconstruction with its name (the label of ``rec-`` in BIDS) and method."""

    name: str
    method: str
    reconstruction: Reconstruction


def runs(durations_s: Sequence[float]) -> str:
    """Frame durations as counts of equal ones, such as ``20x2, 10x5 s (30 frames)``."""
    blocks = [(len(list(same)), duration_s) for duration_s, same in itertools.groupby(durations_s)]
    listed = ", ".join(f"{count}x{duration_s:g}" for count, duration_s in blocks)
    frames = "frame" if len(durations_s) == 1 else "frames"
    return f"{listed} s ({len(durations_s)} {frames}, {sum(durations_s):g} s)"


def shipped_descriptions() -> dict[str, Path]:
    """The descriptions that come with hedypet: name -> YAML file."""
    # An installed wheel carries the folder as data; in a checkout it stands beside the package.
    folder = Path(str(resources.files("hedypet_bids"))) / "data" / "reconstructions"
    if not folder.is_dir():
        folder = Path(__file__).resolve().parents[2] / "reconstructions"
    found = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not found:
        raise MissingInputError(f"{folder} holds no description; hedypet is not completely installed.")
    return found


def read_description(path: Path) -> Description:
    """The description in a YAML file; its name is that of the file.

    Raises
    ------
    MissingInputError
        The file is not there.
    BadDataError
        It is no YAML, lacks a key or has an unknown one, a value is impossible, or the
        frames do not add up to the count and the end that the file itself states.
    """
    description = parse_description(read_text(path), str(path))
    if description.name != path.stem:
        raise BadDataError(
            f"{path}: name is {description.name!r}, but the file is called {path.name}. Rename one of them."
        )
    return description


def parse_description(text: str, where: str) -> Description:
    """The description that a YAML text holds; ``where`` names it in messages."""
    keys = ("name", "method", "iterations", "subsets", "post_filter", "matrix_size", "software_version")
    content = _mapping(_load(text, where), (*keys, "frames"), where)
    name, method = content["name"], content["method"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadDataError(f"{where}: name must be letters and digits, as in rec-NAME; found {shown(name)}.")
    if method != METHOD:
        raise BadDataError(f"{where}: method must be {METHOD}; found {shown(method)}.")
    widths = _mapping(content["post_filter"], ("xy_mm", "z_mm"), f"{where}: post_filter")
    reconstruction = Reconstruction(
        iterations=whole(content["iterations"], f"{where}: iterations", least=1, most=1000),
        subsets=whole(content["subsets"], f"{where}: subsets", least=1, most=1000),
        post_filter=PostFilter(
            millimetres(widths["xy_mm"], f"{where}: post_filter xy_mm"),
            millimetres(widths["z_mm"], f"{where}: post_filter z_mm"),
        ),
        matrix_size=whole(content["matrix_size"], f"{where}: matrix_size", least=1, most=4096),
        software_version=version(content["software_version"], f"{where}: software_version"),
        frames=_frames(content["frames"], f"{where}: frames"),
    )
    return Description(name, method, reconstruction)


def description_yaml(description: Description) -> str:
    """The YAML text that :func:`parse_description` reads as this description."""
    made = description.reconstruction
    blocks = [
        f"    - {{count: {len(list(same))}, duration_s: {duration_s}}}"
        for duration_s, same in itertools.groupby(made.frames.durations_s)
    ]
    lines = [
        f'name: "{description.name}"',
        f"method: {description.method}",
        f"iterations: {made.iterations}",
        f"subsets: {made.subsets}",
        "post_filter:  # Gaussian, full width at half maximum; 0 and 0: no filter",
        f"  xy_mm: {made.post_filter.xy_mm!r}",
        f"  z_mm: {made.post_filter.z_mm!r}",
        f"matrix_size: {made.matrix_size}",
        f"software_version: {made.software_version}",
        "frames:  # n_frames and end_s are checked against the blocks",
        f"  start_s: {made.frames.start_s}",
        "  blocks:",
        *blocks,
        f"  n_frames: {made.frames.n_frames}",
        f"  end_s: {made.frames.end_s}",
    ]
    return "\n".join(lines) + "\n"


def _frames(content: object, where: str) -> Framing:
    stated = _mapping(content, ("start_s", "blocks", "n_frames", "end_s"), where)
    blocks = stated["blocks"]
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= MAX_FRAMES:
        raise BadDataError(f"{where}: blocks must list count and duration_s; found {shown(blocks)}.")
    durations_s: list[int] = []
    for number, given in enumerate(blocks, start=1):
        place = f"{where}: block {number}"
        block = _mapping(given, ("count", "duration_s"), place)
        count = whole(block["count"], f"{place}: count", least=1, most=MAX_FRAMES)
        duration_s = whole(block["duration_s"], f"{place}: duration_s", least=1, most=MAX_S)
        if len(durations_s) + count > MAX_FRAMES:
            raise BadDataError(f"{place}: the blocks have more than {MAX_FRAMES} frames.")
        durations_s += [duration_s] * count
    start_s = whole(stated["start_s"], f"{where}: start_s", least=0, most=MAX_S)
    try:
        frames = Framing(start_s, tuple(durations_s))
    except BadDataError as fault:
        raise BadDataError(f"{where}: {fault}") from fault
    _check_sums(frames, stated, where)
    return frames


def _check_sums(frames: Framing, stated: Mapping[str, object], where: str) -> None:
    n_frames = whole(stated["n_frames"], f"{where}: n_frames", least=1, most=MAX_FRAMES)
    end_s = whole(stated["end_s"], f"{where}: end_s", least=1, most=MAX_S)
    if (n_frames, end_s) != (frames.n_frames, frames.end_s):
        raise BadDataError(
            f"{where}: n_frames and end_s say {n_frames} frames to {end_s} s, the blocks give "
            f"{frames.n_frames} frames to {frames.end_s} s ({frames}). Correct one of them."
        )


def _mapping(content: object, keys: Sequence[str], where: str) -> Mapping[str, object]:
    """The content as a mapping with exactly these keys."""
    if not isinstance(content, dict):
        raise BadDataError(f"{where}: expected the keys {', '.join(keys)}; found {shown(content)}.")
    missing = [key for key in keys if key not in content]
    unknown = [str(key) for key in content if key not in keys]
    if missing or unknown:
        found = [f"missing: {', '.join(missing)}"] if missing else []
        found += [f"unknown: {', '.join(unknown)[:80]}"] if unknown else []
        raise BadDataError(f"{where}: expected the keys {', '.join(keys)}; {'; '.join(found)}.")
    return content


class _Loader(yaml.BaseLoader):
    """YAML with every scalar left as text (so that ``2020-13-45`` or ``no`` is no trap) and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for earlier, key in itertools.combinations(keys, 2):
            if earlier.value == key.value:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _load(text: str, where: str) -> object:
    try:
        # The loader constructs strings, lists and mappings only.
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, OverflowError) as fault:
        # PyYAML passes on what chr says to the escape of a character that does not exist.
        raise BadDataError(f"{where} is not valid YAML: {' '.join(str(fault).split())}.") from fault
    except RecursionError:
        raise BadDataError(f"{where} is not a description: it is nested too deeply.") from None
