"""Labels of a volume from a network that looks at it tile by tile, as nnU-Net does, a few planes at a time.

nnU-Net sums the weighted scores of overlapping tiles for every class of the whole volume, and then takes the
class of the largest. Here the sums move along the first axis: planes that no further tile touches become
labels at once. Tiles, weights, types and the order of all sums are nnU-Net's, so the labels are as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

# The rank of a half-precision infinity, see _take_larger, and the one that NaN is given.
_INFINITE, _NAN = 0x7C00, 0x7FFF


class ScoresNotFinite(ArithmeticError):  # noqa: N818 - says what happened
    """The network gave scores that no class can be told from."""


@dataclass(frozen=True)
class Tiles:
    """Where a network looks.

    Parameters
    ----------
    shape
        Voxels of a tile along each axis.
    starts
        The first voxel of the tiles along each axis, ascending; a tile stands at each combination.
    weights
        How much a tile counts in each of its voxels, in half precision.
    """

    shape: tuple[int, int, int]
    starts: tuple[Sequence[int], Sequence[int], Sequence[int]]
    weights: torch.Tensor


def labels_by_tiles(
    volume: torch.Tensor,
    tiles: Tiles,
    score: Callable[[torch.Tensor], torch.Tensor],
    n_classes: int,
    *,
    planes: int,
    at_once: int = 1,
    told: Callable[[str], Any] = lambda _phase: None,
) -> NDArray[np.uint8]:
    """The class of the largest score in each voxel; of equal ones the first.

    Parameters
    ----------
    volume
        What the network sees, three-dimensional, at least as large as a tile.
    score
        The network: a tile of shape (1, 1, ...) to the scores (classes, ...) of its voxels.
    planes
        Planes of the first axis whose sums are held at once; at least those of a tile are.
    at_once
        Tiles that are scored at the same time, each in a thread of its own; they are summed in their order.
    told
        Called with ``"net"`` and ``"argmax"`` when that begins.

    Raises
    ------
    ScoresNotFinite
        Sums are infinite or no numbers.
    """
    depth, device = tiles.shape[0], tiles.weights.device
    planes = min(max(planes, depth), volume.shape[0])
    held = (planes, *volume.shape[1:])
    scores = torch.zeros((n_classes, *held), dtype=torch.half, device=device)
    weights = torch.zeros(held, dtype=torch.half, device=device)
    labels = np.empty(tuple(volume.shape), np.uint8)
    first, end = 0, 0
    for start in tiles.starts[0]:
        if start + depth > first + planes:
            told("argmax")
            labels[first:start] = _largest(scores[:, : start - first], weights[: start - first])
            _move(scores, start - first, end - first)
            _move(weights[None], start - first, end - first)
            first = start
        told("net")
        end = start + depth
        row = volume[start:end].to(device)
        here = slice(start - first, end - first)
        places = [
            (slice(y, y + tiles.shape[1]), slice(x, x + tiles.shape[2]))
            for y in tiles.starts[1]
            for x in tiles.starts[2]
        ]
        seen = (row[(slice(None), *place)].contiguous()[None, None] for place in places)
        scored = _in_order(score, seen, at_once)
        for place in places:
            # Not kept by a name or by zip, so that it is gone before the next tile is begun.
            _add(scores[(slice(None), here, *place)], next(scored).to(device), tiles.weights)
            weights[(here, *place)] += tiles.weights
    told("argmax")
    n_left = volume.shape[0] - first
    labels[first:] = _largest(scores[:, :n_left], weights[:n_left])
    return labels


def _in_order(
    score: Callable[[torch.Tensor], torch.Tensor], seen: Iterable[torch.Tensor], at_once: int
) -> Iterator[torch.Tensor]:
    """The scores of tiles as they come, of which some are being made while one is looked at."""
    if at_once == 1:
        yield from map(score, seen)
        return
    with ThreadPoolExecutor(at_once, "hedypet-tile") as pool:
        running: deque[Future[torch.Tensor]] = deque()
        for tile in seen:
            running.append(pool.submit(score, tile))
            if len(running) == at_once:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _add(sums: torch.Tensor, scores: torch.Tensor, weights: torch.Tensor) -> None:
    """Add weighted scores to sums in half precision, rounded once whatever the type of the scores is."""
    if not sums.is_cpu:
        sums += scores.mul_(weights)
        return
    # Class by class, so that the processor's cache holds what it works on, and in steps that it has
    # instructions for: a quarter of the time.
    for total, score in zip(sums, scores, strict=True):
        total.copy_(score.mul_(weights).add_(total.float()))


def _move(sums: torch.Tensor, start: int, end: int) -> None:
    """Bring the planes from ``start`` to ``end`` to the front, and set those behind them to zero."""
    for each in sums:
        each[: end - start] = each[start:end].clone()
        each[end - start :] = 0


def _largest(scores: torch.Tensor, weights: torch.Tensor) -> NDArray[np.uint8]:
    """The class of the largest mean score."""
    # nnU-Net rounds the means before it compares them: this makes scores equal that were not.
    finite, label = _on_processor(scores, weights) if scores.is_cpu else _on_gpu(scores, weights)
    if not finite:
        raise ScoresNotFinite("the network gave scores that are infinite or no numbers")
    return label


def _on_gpu(scores: torch.Tensor, weights: torch.Tensor) -> tuple[bool, NDArray[np.uint8]]:
    best = scores[0] / weights
    label = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number in range(1, len(scores)):
        mean = scores[number] / weights
        label.masked_fill_(mean > best, number)
        torch.maximum(best, mean, out=best)  # NaN stays NaN
    return bool(torch.isfinite(best).all()), label.cpu().numpy()


def _on_processor(scores: torch.Tensor, weights: torch.Tensor) -> tuple[bool, NDArray[np.uint8]]:
    best = np.full(tuple(weights.shape), -_INFINITE, np.int16)
    label = np.zeros(best.shape, np.uint8)
    for number in range(len(scores)):
        mean = torch.div(scores[number], weights).view(torch.int16).numpy()
        _take_larger(mean.reshape(-1), number, best.reshape(-1), label.reshape(-1))
    return bool(abs(best.astype(np.int32)).max(initial=0) < _INFINITE), label


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _take_larger(
    bits: NDArray[np.int16], number: int, best: NDArray[np.int16], label: NDArray[np.uint8]
) -> None:
    """Take a class where its score is larger: the bits of half-precision scores, and the best rank so far.

    Integers compare as the numbers do once those of negative ones are turned round; processors have no
    instruction that compares numbers in half precision.
    """
    for i in range(bits.size):
        rank = bits[i] if bits[i] >= 0 else np.int16(-32768 - bits[i])
        if rank < -_INFINITE:
            rank = np.int16(_NAN)
        if rank > best[i]:
            best[i] = rank
            label[i] = number
