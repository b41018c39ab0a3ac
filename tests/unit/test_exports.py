"""The contents page of the package: what it exports is there, documented, and all that there is."""

from __future__ import annotations

import builtins
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hedypet_bids
from hedypet_bids import errors

EXPORTS = [name for name in hedypet_bids.__all__ if name != "__version__"]


def public_callables(name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """What an export lets its user call: itself, and the methods of a class."""
    exported = getattr(hedypet_bids, name)
    yield name, exported
    if inspect.isclass(exported):
        for method, found in inspect.getmembers(exported, callable):
            if not method.startswith("_"):
                yield f"{name}.{method}", found


def documented(heading: str, documentation: str) -> list[str]:
    """The names that stand below a numpydoc heading; none where there is no such heading."""
    lines = documentation.splitlines()
    if heading not in lines:
        return []
    body = lines[lines.index(heading) + 2 :]
    ends = [n for n, line in enumerate(body) if line and set(line) == {"-"}]
    body = body[: ends[0] - 1] if ends else body
    return [name for line in body if line and not line.startswith(" ") for name in line.split(", ")]


def test_nothing_else_is_public() -> None:
    assert sorted(hedypet_bids.__all__) == dir(hedypet_bids)
    # Before anything is imported from it, the package has no other name either.
    code = "import hedypet_bids; print(*sorted(n for n in vars(hedypet_bids) if not n.startswith('_')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"Any", "TYPE_CHECKING", "annotations", "import_module", "version"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Studie"):
        hedypet_bids.Studie  # noqa: B018


@pytest.mark.parametrize("name", EXPORTS)
def test_each_export_is_on_the_contents_page_and_documented(name: str) -> None:
    assert re.search(rf"^:\w+:`{name}`", hedypet_bids.__doc__ or "", re.MULTILINE)
    for title, called in public_callables(name):
        documentation = inspect.getdoc(called) or ""
        assert documentation, title
        arguments = [p for p in inspect.signature(called).parameters if p not in ("self", "cls")]
        unknown = set(documented("Parameters", documentation)) - set(arguments)
        assert not unknown, (title, unknown)


@pytest.mark.parametrize("name", [name for name in EXPORTS if name != "Settings"])
def test_each_export_says_what_it_takes_and_raises(name: str) -> None:
    documentation = inspect.getdoc(getattr(hedypet_bids, name)) or ""
    raised = documented("Raises", documentation)
    assert documented("Parameters", documentation) and raised
    for error in raised:
        assert hasattr(errors, error) or hasattr(builtins, error), error


@pytest.mark.parametrize("name", ["run_participant", "run_group"])
def test_every_parameter_of_a_run_is_documented(name: str) -> None:
    exported = getattr(hedypet_bids, name)
    assert documented("Parameters", inspect.getdoc(exported) or "") == list(
        inspect.signature(exported).parameters
    )
    assert documented("Returns", inspect.getdoc(exported) or "")
