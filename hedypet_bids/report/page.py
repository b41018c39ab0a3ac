"""Pages from templates: self-contained HTML, readable offline."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure

from hedypet_bids.io.atomic import write_text
from hedypet_bids.io.store import svg_of
from hedypet_bids.io.tables import MISSING
from hedypet_bids.version import __version__

_MEDIA = {".svg": "image/svg+xml", ".webp": "image/webp"}


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Parameters
    ----------
    name
        For its file: letters and digits only.
    title
        What stands below it.
    alt
        The text for those who cannot see it.
    content
        The bytes of the file.
    extension
        ``.svg`` or ``.webp``.
    size_mm
        Width and height of what a picture of an image shows; (0, 0) for others.
    """

    name: str
    title: str
    alt: str
    content: bytes
    extension: str = ".svg"
    size_mm: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, figure: Figure, name: str, title: str, alt: str) -> Picture:
        """A matplotlib figure, which stays sharp at every size."""
        return cls(name, title, alt, svg_of(figure))

    @property
    def data_uri(self) -> str:
        """The picture inside the page."""
        return f"data:{_MEDIA[self.extension]};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Blend:
    """Two pictures of the same place, one over the other, for a slider between them."""

    title: str
    below: Picture
    above: Picture


def write_page(path: Path, template: str, **content: Any) -> None:
    """Render a template of ``report/templates`` to a file."""
    environment = Environment(
        loader=PackageLoader("hedypet_bids", "report/templates"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    write_text(path, environment.get_template(template).render(version=__version__, **content))


def number(value: Any, digits: int = 4) -> str:
    """A number for people: some significant digits, ``n/a`` for what is missing."""
    if value is None or value == MISSING or pd.isna(value):
        return "n/a"
    return f"{float(value):.{digits}g}"
