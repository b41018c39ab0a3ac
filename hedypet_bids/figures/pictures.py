"""Pictures of a page: bytes with what stands below them and what is read out instead of them."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from matplotlib.figure import Figure

from hedypet_bids.io.store import svg_of

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
