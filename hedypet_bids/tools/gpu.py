"""Which GPU a program will use, and keeping it to one program at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hedypet_bids.io.lock import exclusive

_DEVICES = Path("/dev")


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as the driver numbers them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    found = sorted(int(path.name[6:]) for path in _DEVICES.glob("nvidia[0-9]*") if path.name[6:].isdigit())
    return [str(number) for number in found]


def gpu_of(device: str) -> str | None:
    """The GPU that ``--device`` stands for, as the driver numbers it; None for the processor."""
    if device == "cpu":
        return None
    gpus = visible_gpus()
    if device == "auto" and not gpus:
        return None
    number = int(device.partition(":")[2] or 0)
    return gpus[number] if number < len(gpus) else str(number)


@contextmanager
def reserved(device: str, folder: Path) -> Iterator[None]:
    """Hold the GPU of ``--device`` while the block runs; others on this machine wait for it.

    Two networks at once on one GPU run out of its memory, and are no faster.

    Parameters
    ----------
    folder
        Where the processes that share the GPU meet: the work folder.
    """
    gpu = gpu_of(device)
    if gpu is None:
        yield
        return
    name = re.sub(r"[^A-Za-z0-9]+", "-", gpu)
    with exclusive(folder / f"hedypet-gpu-{name}.lock", wait=True, what=f"GPU {gpu}"):
        yield
