"""The wish that this process ends, which threads look at in their loops: signals reach only the main one."""

from __future__ import annotations

import threading

from hedypet_bids.errors import StoppedBySignal

_wanted = threading.Event()


def ask() -> None:
    """Have every thread that calls :func:`check` end."""
    _wanted.set()


def withdraw() -> None:
    """Take the wish back, once they have ended."""
    _wanted.clear()


def raise_if_asked() -> None:
    """Raise StoppedBySignal where the end was asked for."""
    if _wanted.is_set():
        raise StoppedBySignal
