"""What mkdocs does beyond Markdown: generated parts, pages from other folders, formulas without a script.

A line ``<!-- generated: NAME -->`` of a page stands for what ``docs_reference.PARTS[NAME]`` makes of the
package, so that no flag, file or column is listed by hand. Nothing that a page shows comes from the network.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import docs_reference
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

# Pages whose text stands elsewhere in the repository, where it is looked for on a code host.
PAGES_FROM = {
    "changelog.md": "CHANGELOG.md",
    "slurm.md": "deploy/slurm/README.md",
    "reconstructions.md": "reconstructions/README.md",
}
TUTORIAL = "tutorial.py"
# Files that a page of docs/ stands for.
_OTHER_PAGES = {
    "contributing.md": "CONTRIBUTING.md",
    "index.md": "README.md",
    "tutorial.md": f"docs/{TUTORIAL}",
}

_PART = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)
_FORMULA = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SYMBOL = re.compile(r"\$`([^`\n]+)`\$")
# A link to a file by its relative path; pictures and addresses are left alone.
_LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
# ``:meth:`` before code, and the numbers of references.
_ROLE = re.compile(r":(?:attr|class|func|meth|mod):(?=<code>)| \[1\]_|\.\. \[1\] ")
_CELL = re.compile(r"^# %%", re.MULTILINE)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages from other folders and the tutorial."""
    for name, origin in PAGES_FROM.items():
        files.append(File.generated(config, name, content=(ROOT / origin).read_text("utf-8")))
    tutorial = (Path(config.docs_dir) / TUTORIAL).read_text("utf-8")
    files.append(File.generated(config, "tutorial.md", content=_cells(tutorial)))
    return files


def _cells(script: str) -> str:
    """A script with ``# %%`` cells as Markdown."""
    parts = []
    for cell in _CELL.split(script)[1:]:
        kind, _, text = cell.partition("\n")
        if "[markdown]" in kind:
            parts.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines()))
        else:
            parts.append(f"```python\n{text.strip()}\n```")
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, *, page: Page, config: Any, files: Files) -> str:  # noqa: ARG001
    """Fill in the generated parts and formulas, and point links into the repository to its pages."""
    folder = posixpath.dirname(PAGES_FROM.get(page.file.src_uri, "docs/" + page.file.src_uri))
    markdown = _LINK.sub(lambda found: _link(found, folder), markdown)
    markdown = _PART.sub(_part, markdown)
    markdown = _FORMULA.sub(
        lambda found: f"<div class='formula'>{_mathml(found[1], 'block')}</div>", markdown
    )
    # A line that begins with <math> would be taken for a block.
    return _SYMBOL.sub(lambda found: f"<span>{_mathml(found[1], 'inline')}</span>", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Remove reStructuredText marks, which docstrings have and Markdown does not know."""
    return _ROLE.sub("", html)


def _link(found: re.Match[str], folder: str) -> str:
    """A link as the site needs it: to the page of a file, or the file's name where it has no page."""
    text, target, anchor = found.groups(default="")
    path = posixpath.normpath(posixpath.join(folder, target))
    pages = {origin: name for name, origin in (PAGES_FROM | _OTHER_PAGES).items()}
    if path in pages:
        return f"[{text}]({pages[path]}{anchor})"
    if path.startswith("docs/"):
        return f"[{text}]({path.removeprefix('docs/')}{anchor})"
    return f"{text} (`{path}`)" if (ROOT / path).exists() else found[0]


def _part(found: re.Match[str]) -> str:
    if found[1] not in docs_reference.PARTS:
        raise PluginError(
            f"There is no generated part {found[1]!r}; there are {', '.join(docs_reference.PARTS)}."
        )
    return docs_reference.PARTS[found[1]]()


def _mathml(latex: str, display: str) -> str:
    return convert(latex.strip(), display=display).replace("\n", " ")
