"""Sidecars of output files: what a file holds and how it was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hedypet_bids import names


def read_sidecar(path: Path) -> dict[str, Any]:
    """The sidecar of an output file; empty when it is missing or was cut short."""
    sidecar = names.sidecar_of(path)
    try:
        content = json.loads(sidecar.read_text("utf-8")) if sidecar.is_file() else {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}
