"""Numbers of many participants for a page: packed for its script, and drawn as histograms."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BYTES_A_VALUE = 16 / 3
"""What a packed value takes in a page: 4 bytes in base64."""

# Wong, Nature Methods 2011;8:441: told apart with every kind of colour vision, in grey too.
_COLOURS = ("#0072b2", "#e69f00", "#8c8c8c")
_WIDTH, _HEIGHT, _LEFT, _BASE, _TOP = 260, 160, 44, 118, 12
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_BINS = 10


def packed(values: NDArray[Any]) -> str:
    """Values as base64 of little-endian float32, which keeps seven digits and NaN."""
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode()


@dataclass(frozen=True)
class Bar:
    """A part of a bar in the picture's own pixels, with the text that says it."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    text: str


@dataclass(frozen=True)
class Histogram:
    """A histogram ready to be drawn: bars, ticks (position, text), and what it says in words."""

    title: str
    alt: str
    bars: Sequence[Bar]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    legend: Sequence[tuple[str, str]]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    base: int = _BASE

    @classmethod
    def of(cls, title: str, groups: Mapping[str, NDArray[np.float64]]) -> Histogram | None:
        """The histogram of the finite values, groups stacked in their order; None where there is no value."""
        finite = {name: values[np.isfinite(values)] for name, values in groups.items()}
        finite = {name: values for name, values in finite.items() if values.size}
        if not finite:
            return None
        edges = bin_edges(np.concatenate(list(finite.values())))
        counts = {name: np.histogram(values, edges)[0] for name, values in finite.items()}
        most = int(np.sum(list(counts.values()), axis=0).max())
        colour = dict(zip(groups, _COLOURS, strict=False))
        everything = np.concatenate(list(finite.values()))
        alt = (
            f"Histogram of {title}: {everything.size} participants, {everything.min():.4g} to "
            f"{everything.max():.4g}, median {np.median(everything):.4g}"
        )
        step = _nice_step(most / 3, whole=True)
        return cls(
            title,
            alt,
            _bars(edges, counts, colour, _scale(most)),
            [(_x(edges, edge), f"{edge:.4g}") for edge in edges[:: math.ceil(len(edges) / 6)]],
            [(_BASE - n * _scale(most), str(n)) for n in range(0, most + 1, int(step))],
            [(name, colour[name]) for name in finite],
        )


def bin_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most ten bins of a round width (1, 2, 2.5 or 5 times a power of ten) that hold all values."""
    low, high = float(values.min()), float(values.max())
    # One value still needs a bin with a width that fits its size.
    step = _nice_step((high - low) / (_MOST_BINS - 2) or abs(low) / 10 or 1.0)
    first, last = math.floor(low / step), math.floor(high / step) + 1
    return np.arange(first, last + 1, dtype=np.float64) * step


def _nice_step(least: float, *, whole: bool = False) -> float:
    """The smallest round number that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    step = next(s * power for s in _STEPS if s * power >= least * (1 - 1e-9))
    return max(1.0, math.ceil(step)) if whole else step


def _bars(
    edges: NDArray[np.float64],
    counts: Mapping[str, NDArray[Any]],
    colour: Mapping[str, str],
    scale: float,
) -> list[Bar]:
    bars = []
    below = np.zeros(len(edges) - 1)
    for name, numbers in counts.items():
        for i in np.flatnonzero(numbers):
            left, right = _x(edges, edges[i]), _x(edges, edges[i + 1])
            height = float(numbers[i]) * scale
            text = f"{edges[i]:.4g} to {edges[i + 1]:.4g}: {numbers[i]} {name}"
            top = _BASE - float(below[i]) * scale - height
            bars.append(Bar(left + 0.5, top, right - left - 1, height, colour[name], text))
        below = below + numbers
    return bars


def _scale(most: int) -> float:
    return (_BASE - _TOP) / most


def _x(edges: NDArray[np.float64], value: float) -> float:
    along = (value - float(edges[0])) / float(edges[-1] - edges[0])
    return _LEFT + along * (_WIDTH - _LEFT - 14)
