"""Pages from templates: self-contained HTML, readable offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape

from hedypet_bids.io.atomic import write_text
from hedypet_bids.io.tables import MISSING
from hedypet_bids.version import __version__


def write_page(path: Path, template: str, **content: Any) -> None:
    """Render a template of ``report/templates`` to a file."""
    environment = Environment(
        loader=PackageLoader("hedypet_bids", "report/templates"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number_text
    write_text(path, environment.get_template(template).render(version=__version__, **content))


def number_text(value: Any, digits: int = 4) -> str:
    """A number for people: some significant digits, ``n/a`` for what is missing."""
    if value is None or value == MISSING or pd.isna(value):
        return "n/a"
    return f"{float(value):.{digits}g}"
