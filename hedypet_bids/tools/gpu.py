"""Which GPU a program will use, and keeping it to one program at a time."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hedypet_bids.errors import TryAgainError
from hedypet_bids.io.lock import exclusive

_DEVICES = Path("/dev")

# Where all of several GPUs are held, how often to look for one that is free again.
_LOOK_UP_S = 1.0


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as the driver numbers them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    found = sorted(int(path.name[6:]) for path in _DEVICES.glob("nvidia[0-9]*") if path.name[6:].isdigit())
    return [str(number) for number in found]


@dataclass(frozen=True)
class Reservation:
    """A GPU that is held for a program, or the processor.

    Parameters
    ----------
    environment
        Variables with which the program sees that GPU as its first; empty where it is to choose by itself.
    handles
        File descriptors of the locks, for the program to inherit: it holds them for as long as it lives.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    handles: tuple[int, ...] = ()


def gpus_of(device: str) -> list[str]:
    """The GPUs that ``--device`` allows, as the driver numbers them; none for the processor."""
    if device == "cpu":
        return []
    gpus = visible_gpus()
    if device == "auto":
        return gpus
    number = device.partition(":")[2]
    if not number:
        return gpus or ["0"]
    return [gpus[int(number)] if int(number) < len(gpus) else number]


@contextmanager
def reserved(device: str, folder: Path) -> Iterator[Reservation]:
    """Hold one of the GPUs of ``--device`` while the block runs; others on this machine wait for it.

    Two networks at once on one GPU run out of its memory, and are no faster.

    Parameters
    ----------
    folder
        Where the processes that share the GPUs meet: the work folder.
    """
    gpus = gpus_of(device)
    if not gpus:
        yield Reservation()
        return
    with ExitStack() as stack:
        gpu, handle = _first_free(gpus, folder, stack)
        # Numbers are the driver's, which are the order on the bus; CUDA's own order is by speed.
        choice = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpu}
        yield Reservation(choice if len(gpus) > 1 else {}, (handle,))


def _first_free(gpus: list[str], folder: Path, stack: ExitStack) -> tuple[str, int]:
    """A GPU that nobody holds, after waiting for one, and the handle of its lock."""
    while True:
        for gpu in gpus:
            name = re.sub(r"[^A-Za-z0-9]+", "-", gpu)
            lock = exclusive(folder / f"hedypet-gpu-{name}.lock", wait=len(gpus) == 1, holder=f"GPU {gpu}")
            with suppress(TryAgainError):
                return gpu, stack.enter_context(lock)
        time.sleep(_LOOK_UP_S)
