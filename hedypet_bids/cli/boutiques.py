"""The command line as a Boutiques 0.5 descriptor, for platforms that build their forms from one.

Generated from the argument parser, so that the two cannot drift apart.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from hedypet_bids.errors import HedypetError
from hedypet_bids.run.options import LEVELS, has_meaning

SCHEMA_VERSION = "0.5"

# Folders that hedypet makes. A Boutiques File must exist before the run, so these are Strings.
_MADE_BY_HEDYPET = frozenset({"output_dir", "work_dir", "bids_database_dir"})


class PrintDescriptor(argparse.Action):
    """The option that prints the descriptor of its parser and ends the program, as ``--version`` does."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, version: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **{"default": argparse.SUPPRESS, **options})
        self.version = version

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print the descriptor and exit with status 0."""
        sys.stdout.write(json.dumps(descriptor(parser, self.version), indent=2, ensure_ascii=False) + "\n")
        parser.exit()


def descriptor(parser: argparse.ArgumentParser, version: str) -> dict[str, Any]:
    """A Boutiques descriptor, ready for JSON, of a parser's command line.

    Parameters
    ----------
    parser
        Parser with positional arguments and options of the kinds that hedypet uses: paths,
        texts, numbers, choices, flags, and lists of these.
    version
        The version of the tool.
    """
    actions = [action for action in parser._actions if _is_input(action)]
    # Positionals stand first: an option with several values would take them up.
    actions.sort(key=lambda action: bool(action.option_strings))
    return {
        "name": parser.prog,
        "description": parser.description or parser.prog,
        "tool-version": version,
        "schema-version": SCHEMA_VERSION,
        "command-line": " ".join([parser.prog, *map(_value_key, actions)]),
        "inputs": [_input(action, parser) for action in actions],
        "groups": list(_groups(parser)),
        "output-files": [
            {
                "id": "derivatives_dataset",
                "name": "Derivatives",
                "description": "BIDS derivatives of every participant, reports and readout tables.",
                "path-template": "[OUTPUT_DIR]",
            }
        ],
        "error-codes": [{"code": code, "description": text} for code, text in sorted(_errors().items())],
        "tags": {"domain": ["neuroinformatics", "nuclear medicine"], "field": ["PET"], "app": ["BIDS"]},
    }


def _is_input(action: argparse.Action) -> bool:
    """Whether the action takes part in a run: no help, no version, no second spelling of an option."""
    ends_the_program = isinstance(action, argparse._HelpAction | argparse._VersionAction | PrintDescriptor)
    return not ends_the_program and action.help != argparse.SUPPRESS


def _value_key(action: argparse.Action) -> str:
    return f"[{action.dest.upper()}]"


def _flag(action: argparse.Action) -> str:
    return max(action.option_strings, key=len)


def _input(action: argparse.Action, parser: argparse.ArgumentParser) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": action.dest,
        "name": action.dest.replace("_", " ").capitalize(),
        # As --help shows it, with %(default)s and the like filled in.
        "description": parser._get_formatter()._expand_help(action) if action.help else "",
        "value-key": _value_key(action),
        "optional": bool(action.option_strings) and not action.required,
        **_type(action),
    }
    if action.option_strings:
        described["command-line-flag"] = _flag(action)
    if action.nargs in ("+", "*"):
        described |= {"list": True, "min-list-entries": int(action.nargs == "+")}
    elif isinstance(action.nargs, int) and action.nargs > 1:
        described |= {"list": True, "min-list-entries": action.nargs, "max-list-entries": action.nargs}
    if action.dest == "analysis_level":
        options = [each.dest for each in parser._actions if each.option_strings and _is_input(each)]
        described["value-disables"] = {
            level: [option for option in options if not has_meaning(option, level)] for level in LEVELS
        }
    return described


def _type(action: argparse.Action) -> dict[str, Any]:
    choices = _choices(action)
    if action.nargs == 0:
        return {"type": "Flag"}
    if choices:
        return {"type": "String", "value-choices": choices}
    if action.type is Path:
        return {"type": "String" if action.dest in _MADE_BY_HEDYPET else "File"}
    made = _made_type(action.type)
    if made is float:
        return {"type": "Number"}
    if made is int:
        return {"type": "Number", "integer": True, **_minimum(action)}
    return {"type": "String"}


def _choices(action: argparse.Action) -> list[str]:
    """The choices of an argument; those that its own check lets through when only its metavar lists them."""
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    shown = re.fullmatch(r"\{(.+)\}", action.metavar) if isinstance(action.metavar, str) else None
    # A metavar may end in a form such as gpu:N, which is no choice itself.
    return [choice for choice in shown[1].split(",") if _accepts(action, choice)] if shown else []


def _accepts(action: argparse.Action, text: str) -> bool:
    if not callable(action.type):
        return True
    try:
        action.type(text)
    except (argparse.ArgumentTypeError, TypeError, ValueError):
        return False
    return True


def _made_type(convert: object) -> object:
    """The type that an argument is converted to: the type itself, or what a function says it returns."""
    return convert if isinstance(convert, type) or convert is None else get_type_hints(convert).get("return")


def _minimum(action: argparse.Action) -> dict[str, Any]:
    """The least number that the argument's own check lets through, when that is 0 or 1."""
    if isinstance(action.type, type) or not callable(action.type):
        return {}
    least = next((value for value in (-1, 0, 1) if _accepts(action, str(value))), -1)
    return {"minimum": least} if least >= 0 else {}


def _groups(parser: argparse.ArgumentParser) -> Iterator[dict[str, Any]]:
    """The headings of ``--help`` that hold inputs, apart from argparse's own two, and exclusive options.

    Boutiques wants an input in one group only.
    """
    exclusive = [
        [action for action in group._group_actions if _is_input(action)]
        for group in parser._mutually_exclusive_groups
    ]
    for members in exclusive:
        ids = [action.dest for action in members]
        yield {
            "id": "_or_".join(ids),
            "name": f"One of {', '.join(_flag(action) for action in members)}",
            "members": ids,
            "mutually-exclusive": True,
        }
    elsewhere = [action for members in exclusive for action in members]
    for group in parser._action_groups:
        inputs = [action for action in group._group_actions if _is_input(action) and action not in elsewhere]
        if group.title and inputs and all(action.option_strings for action in inputs):
            words = re.findall(r"[a-z0-9]+", group.title.lower())
            yield {
                "id": "_".join([*words, "options"]),
                "name": group.title.capitalize(),
                "members": [action.dest for action in inputs],
            }


def _errors() -> dict[int, str]:
    """Exit code -> what it means, from the error classes."""
    meanings = {HedypetError.exit_code: "At least one participant failed."}
    classes = HedypetError.__subclasses__()
    for error in classes:
        classes += error.__subclasses__()
        meanings[error.exit_code] = (error.__doc__ or "").splitlines()[0].replace("``", "")
    return meanings
