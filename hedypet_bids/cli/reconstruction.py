"""The command ``hedypet-reconstruction``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hedypet_bids.cli.console_streams import on_console
from hedypet_bids.errors import HedypetError, UsageError
from hedypet_bids.io.atomic import write_bytes
from hedypet_bids.reconstruction.description import (
    METHOD,
    Description,
    description_yaml,
    read_description,
    shipped_descriptions,
)
from hedypet_bids.reconstruction.parameters import read_parameters, write_parameters
from hedypet_bids.reconstruction.sidecar import differences, read_pet_sidecar

_DIFFERENT = 1
_REC_LABEL = re.compile(r"_rec-([A-Za-z0-9]+)_")


@on_console
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status (1 when a sidecar differs)."""
    given = _parser().parse_args(argv)
    try:
        if given.command == "write":
            return _write(given.description, given.output_dir)
        if given.command == "check":
            return _check(given.sidecar, given.description)
        return _parse(given.file)
    except HedypetError as fault:
        sys.stderr.write(f"hedypet-reconstruction: error: {fault}\n")
        return fault.exit_code


def _write(paths: Sequence[Path], output_dir: Path) -> int:
    # All are read before any is written, so that a bad one leaves no half set.
    descriptions = [read_description(path) for path in paths or shipped_descriptions().values()]
    for description in descriptions:
        path = output_dir / f"{description.name}.txt"
        write_bytes(path, write_parameters(description).encode("ascii"))
        sys.stdout.write(f"{path}: {description.reconstruction.frames}\n")
    return 0


def _check(path: Path, description_path: Path | None) -> int:
    sidecar = read_pet_sidecar(path)
    description = read_description(description_path) if description_path else _description_of(path)
    found = differences(description, sidecar)
    for difference in found:
        sys.stdout.write(f"{path.name}: {difference}\n")
    if found:
        return _DIFFERENT
    sys.stdout.write(f"{path.name}: as {description.name} describes\n")
    return 0


def _description_of(sidecar: Path) -> Description:
    """The shipped description for the ``rec-`` label of a sidecar."""
    shipped = shipped_descriptions()
    label = _REC_LABEL.search(sidecar.name)
    if label is None or label[1] not in shipped:
        raise UsageError(
            f"{sidecar.name}: expected a rec- label among {', '.join(shipped)}. "
            "Name the description to compare with: --description FILE."
        )
    return read_description(shipped[label[1]])


def _parse(path: Path) -> int:
    parsed = read_parameters(path)
    name = re.sub(r"[^A-Za-z0-9]", "", path.stem) or "reconstruction"
    sys.stdout.write(description_yaml(Description(name, METHOD, parsed.reconstruction)))
    for note in parsed.notes:
        sys.stderr.write(f"{path.name}: {note}\n")
    for key, value in parsed.others.items():
        sys.stderr.write(f"{path.name}: {key} := {value} does not belong in a description\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hedypet-reconstruction",
        description="Parameter files of JSRecon12 (e7 tools) from one description of each reconstruction.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{write,check,parse}")
    write = commands.add_parser("write", help="write parameter files")
    write.add_argument(
        "description", nargs="*", type=Path, help="YAML files (default: those that come with hedypet)"
    )
    write.add_argument(
        "-o", "--output-dir", type=Path, default=Path(), metavar="DIR", help="default: this folder"
    )
    check = commands.add_parser(
        "check", help="name each difference between a PET sidecar and a description (exit status 1 if any)"
    )
    check.add_argument("sidecar", type=Path, help="the *_pet.json of an image")
    check.add_argument(
        "--description",
        type=Path,
        metavar="FILE",
        help="YAML file (default: the one that comes with hedypet for the sidecar's rec- label)",
    )
    parse = commands.add_parser("parse", help="print the description that a parameter file amounts to")
    parse.add_argument("file", type=Path, help="a parameter file of JSRecon12")
    return parser
