"""The version of the package, from the file ``version`` at the top of the project."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def _read_version() -> str:
    # An installed wheel carries the file as data; in a checkout it stands beside the package.
    packaged = resources.files("hedypet_bids").joinpath("data/version")
    if packaged.is_file():
        return packaged.read_text("utf-8").strip()
    return Path(__file__).resolve().parent.with_name("version").read_text("utf-8").strip()


__version__ = _read_version()
