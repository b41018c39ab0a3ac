"""The parts of the documentation that are made from the package: flags, settings, files, columns, models."""

from __future__ import annotations

import argparse
import importlib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import griffe
import tomli_w

from hedypet_bids.cli.boutiques import descriptor
from hedypet_bids.group.dictionary import TABLES, column_of
from hedypet_bids.kernels.quality import NORMAL_RANGES
from hedypet_bids.labels import ALL_TASKS
from hedypet_bids.report.references import known_references
from hedypet_bids.settings import Settings, allowed, plain
from hedypet_bids.tools.totalsegmentator import MODELS, TASK_NAMES, models_of_task
from hedypet_bids.version import __version__

ROOT = Path(__file__).resolve().parents[1]
MAIN_PROGRAM = "hedypet"


class _FoundParserError(BaseException):
    """Carries a program's parser out of it, before it does anything."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


@cache
def parsers() -> Mapping[str, argparse.ArgumentParser]:
    """Program -> the parser that it really uses, for every command that installing hedypet brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {program: _parser_of(entry) for program, entry in project["scripts"].items()}


def _parser_of(entry: str) -> argparse.ArgumentParser:
    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        raise _FoundParserError(parser)

    module, _, function = entry.partition(":")
    main = getattr(importlib.import_module(module), function)
    with (
        patch.object(argparse.ArgumentParser, "parse_args", stop),
        patch.object(argparse.ArgumentParser, "parse_known_args", stop),
    ):
        try:
            main()
        except _FoundParserError as found:
            return found.parser
    raise LookupError(f"{entry} reads no command line with argparse; expected that of every program.")


def visible(group: argparse._ArgumentGroup) -> list[argparse.Action]:
    """The arguments of a group that --help shows."""
    subcommands = argparse._SubParsersAction
    return [a for a in group._group_actions if a.help != argparse.SUPPRESS and not isinstance(a, subcommands)]


def subcommands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """The parsers of a program's own commands."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return found[0].choices if found else {}


def _flags(parser: argparse.ArgumentParser, prefix: str, heading: str) -> Iterator[str]:
    for group in parser._action_groups:
        arguments = visible(group)
        if not arguments:
            continue
        yield f"{heading} {(group.title or '').capitalize()}\n" if heading else ""
        yield '<dl class="flags">'
        for action in arguments:
            yield f'<dt id="{prefix}{_anchor(action)}"><code>{escape(_invocation(action))}</code></dt>'
            yield f"<dd>{escape(parser._get_formatter()._expand_help(action)) if action.help else ''}</dd>"
        yield "</dl>\n"


def _anchor(action: argparse.Action) -> str:
    return max(action.option_strings, key=len).lstrip("-") if action.option_strings else action.dest


def _invocation(action: argparse.Action) -> str:
    formatter = argparse.HelpFormatter("")
    if not action.option_strings:
        return formatter._metavar_formatter(action, action.dest)(1)[0]
    if action.nargs == 0:
        return ", ".join(action.option_strings)
    values = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    return f"{', '.join(action.option_strings)} {values}"


def command_line() -> str:
    """Every flag of hedypet, by the groups of --help."""
    return "\n".join(_flags(parsers()[MAIN_PROGRAM], "", "###"))


def other_programs() -> str:
    """Every flag of the other programs."""
    lines = []
    for program, parser in parsers().items():
        if program == MAIN_PROGRAM:
            continue
        lines += [f"### {program}\n", escape((parser.description or "").strip().splitlines()[0]) + "\n"]
        lines += _flags(parser, f"{program}-", "")
        for name, command in subcommands(parser).items():
            lines += [f"`{program} {name}`\n", *_flags(command, f"{program}-{name}-", "")]
    return "\n".join(lines)


def exit_codes() -> str:
    """Exit codes and what they mean."""
    codes = descriptor(parsers()[MAIN_PROGRAM], __version__)["error-codes"]
    rows = [("0", "All participants that were asked for are done.")]
    rows += [(str(entry["code"]), entry["description"]) for entry in codes]
    return table(("code", "meaning"), sorted(rows, key=lambda row: int(row[0])))


def settings_file() -> str:
    """The default settings as a TOML file."""
    return f"```toml\n{Settings().to_toml()}```"


def settings_parameters() -> str:
    """Every parameter of the settings: default, what is allowed, what it means; a table a section."""
    lines = []
    for name, values in _sections(plain(Settings()), ""):
        about, meanings = _described(name)
        rows = [
            (f"`{key}`", f"`{_toml(value)}`", allowed()[f"{name}.{key}"], _code(meanings[key]))
            for key, value in values.items()
            if not isinstance(value, dict)
        ]
        lines += [f"#### [{name}]\n", _code(about) + "\n"]
        lines += [table(("parameter", "default", "allowed", "meaning"), rows), ""]
    return "\n".join(lines)


def _sections(outer: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every section with its name in the file, sections of sections after the one that holds them."""
    for name, values in outer.items():
        if isinstance(values, dict):
            yield f"{prefix}{name}", values
            yield from _sections(values, f"{prefix}{name}.")


def _described(name: str) -> tuple[str, Mapping[str, str]]:
    """The docstring of a section: what it is about, and the meaning of each of its parameters."""
    section: Any = Settings()
    for part in name.split("."):
        section = getattr(section, part)
    text, attributes = griffe.Docstring(type(section).__doc__ or "").parse("numpy")
    return text.value, {entry.name: " ".join(entry.description.split()) for entry in attributes.value}


def _toml(value: object) -> str:
    """A value as it stands in the file, lists on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return tomli_w.dumps({"x": value}).strip().removeprefix("x = ")


def models() -> str:
    """TotalSegmentator's models, what they are for, and their licence."""
    rows = []
    for model in MODELS:
        uses = [f"`{task}`" for task in TASK_NAMES if model in models_of_task(task)]
        uses += [
            f"`{t}` with `--totalseg-fast`"
            for t in ("total", "body")
            if model in models_of_task(t, fast=True)
        ]
        licence = "licence number needed" if model.licensed else "Apache-2.0"
        download = f"{model.archive_size / 1e6:.0f} MB" if model.archive_size else "not known"
        sha256 = f"`{model.sha256}`" if model.sha256 else "recorded when it is first fetched"
        use = ", ".join(uses) or "`--totalseg-roi-subset`"
        rows.append((str(model.number), use, licence, f"`{model.folder}`", download, sha256))
    return table(("model", "used for", "licence", "folder", "download", "SHA-256 of the archive"), rows)


def tasks() -> str:
    """The segmentation tasks with their names in file names and in the readout tables."""
    origin = {"ct": "CT", "mr": "T1w (MPRAGE)", "pet": "early dynamic PET and CT", "none": "no segmentation"}
    rows = [
        (
            f"`{t.name}`",
            f"`{t.readout_name}`",
            origin[t.modality],
            str(len(t.table.names)),
            "yes" if t.eroded else "no",
        )
        for t in ALL_TASKS
    ]
    return table(("in file names", "in readout tables", "from", "regions", "also eroded"), rows)


def regions() -> str:
    """The regions of every task, index and name."""
    lines = []
    for task in ALL_TASKS:
        if task.table_name != task.name:
            continue
        listed = ", ".join(
            f"{i}&nbsp;{escape(n)}" for i, n in zip(task.table.indices, task.table.names, strict=True)
        )
        lines.append(f"<details><summary><code>{task.name}</code></summary><p>{listed}</p></details>\n")
    return "\n".join(lines)


def normal_ranges() -> str:
    """The quality checks, their normal ranges, and what to look at outside."""
    rows = [
        (
            f"`{name}`",
            r.meaning,
            f"{_number(r.low)} to {_number(r.high)} {'' if r.units == '1' else r.units}",
            r.outside,
        )
        for name, r in NORMAL_RANGES.items()
    ]
    return table(("check", "what it is", "normal", "when outside"), rows)


def readout_columns() -> str:
    """The columns of every readout table, from the data dictionary."""
    lines = []
    for name, columns in TABLES.items():
        found = {column: column_of(name, column) for column in columns}
        rows = [
            (f"`{c}`", column.description + _levels(column.levels), column.units)
            for c, column in found.items()
        ]
        lines += [f"### readouts/{name}\n", table(("column", "meaning", "unit"), rows), ""]
    return "\n".join(lines)


def _levels(levels: Mapping[str, str] | None) -> str:
    return ": " + "; ".join(f"`{value}` {meaning}" for value, meaning in levels.items()) if levels else ""


def references() -> str:
    """The papers that the methods come from."""
    return "\n".join(f"- {reference.text()}" for reference in known_references().values())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "&#124;") for cell in line) + " |" for line in lines)


def _code(text: str) -> str:
    """The text with reStructuredText's code marks as Markdown's."""
    return text.replace("``", "`")


def _number(value: float) -> str:
    return f"{value:g}"


PARTS: Mapping[str, Callable[[], str]] = {
    "command line": command_line,
    "other programs": other_programs,
    "exit codes": exit_codes,
    "settings file": settings_file,
    "settings parameters": settings_parameters,
    "models": models,
    "tasks": tasks,
    "regions": regions,
    "normal ranges": normal_ranges,
    "readout columns": readout_columns,
    "references": references,
    "contributing": lambda: _without_title(ROOT / "CONTRIBUTING.md"),
}
"""Name in ``<!-- generated: NAME -->`` -> what makes the text."""


def _without_title(path: Path) -> str:
    return path.read_text("utf-8").split("\n", 1)[1]
