"""``hedypet-weights``: fetch, check and list the weights of TotalSegmentator."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hedypet_bids.cli.console_streams import on_console
from hedypet_bids.errors import BadDataError, HedypetError, MissingInputError, Problems, UsageError
from hedypet_bids.tools import totalsegmentator
from hedypet_bids.tools.totalsegmentator import CT_NETWORKS, MODELS, TASK_NAMES, Model, models_of_task
from hedypet_bids.tools.weights import LOCK_FILE, changes_of_weights, fetch_model, known_hash

_OPEN = "Apache-2.0"
_LICENSED = "licence number needed (free for non-commercial use)"


@on_console
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = _parser().parse_args(argv)
    folder = totalsegmentator.weights_folder(given.weights)
    try:
        models = _chosen(given.models) if given.command != "list" else MODELS
        if given.command == "fetch":
            licence = totalsegmentator.find_licence(given.totalseg_license)
            if not (given.models or licence):
                models = _without_licensed(models)
            fetch(folder, models, licence=licence, mirror=given.mirror)
        elif given.command == "check":
            check_models(folder, models)
        else:
            show_state(folder)
    except HedypetError as error:
        print(f"hedypet-weights: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def show_state(folder: Path) -> None:
    """Print every model with its tasks, licence, and size on disk."""
    faults = totalsegmentator.faults_of_weights(folder, MODELS)
    print(f"Weights in {folder}")
    for model in MODELS:
        size = sum(file.stat().st_size for file in (folder / model.folder).rglob("*") if file.is_file())
        state = faults.get(model, f"{size / 1e6:.1f} MB")
        print(f"{model.number}  {model.folder:50}  {_use_of(model):32}  {_licence_of(model)}: {state}")


def check_models(folder: Path, models: Sequence[Model]) -> None:
    """Read every file of the models; raise BadDataError or MissingInputError when one is not right."""
    faults = _faults(folder, models)
    for model in models:
        print(f"{model.number}  {model.folder}: {faults.get(model, 'whole')}")
    if not faults:
        return
    numbers = " ".join(str(model.number) for model in faults)
    advice = f"Fetch them with '{totalsegmentator.FETCH_COMMAND} {numbers}'."
    if all(reason == "missing" for reason in faults.values()):
        raise MissingInputError(f"{len(faults)} of {len(models)} models are not in {folder}. {advice}")
    raise BadDataError(f"{len(faults)} of {len(models)} models in {folder} are not right. {advice}")


def fetch(folder: Path, models: Sequence[Model], *, licence: str = "", mirror: str = "") -> None:
    """Download the models that are missing or not right; one that fails does not keep others from it.

    Raises
    ------
    UsageError
        A model needs a licence number, and there is none or it is refused.
    HedypetError
        As :func:`hedypet_bids.tools.weights.fetch_model`.
    """
    faults = _faults(folder, models)
    if any(model.licensed for model in faults) and not licence:
        raise UsageError(
            "The tissue model is only available with a licence number: give --totalseg-license or set "
            f"{totalsegmentator.LICENCE_VARIABLE}. Name the other models to fetch these alone."
        )
    problems = Problems()
    for model, reason in faults.items():
        size = f" {model.archive_size / 1e6:.0f} MB" if model.archive_size else ""
        print(f"{model.number}  {model.folder}: {reason}; fetching{size}", flush=True)
        with problems.noted():
            first = not known_hash(folder, model)
            sha256 = fetch_model(folder, model, licence=licence, mirror=mirror)
            if first:
                print(f"{model.number}  no hash of it is known; SHA-256 {sha256} is now in {LOCK_FILE}")
    problems.raise_any()
    check_models(folder, models)


def _faults(folder: Path, models: Sequence[Model]) -> dict[Model, str]:
    """What is wrong with the files of each model, and what is not as it was fetched."""
    faults = totalsegmentator.faults_of_weights(folder, models, read=True)
    return {**changes_of_weights(folder, models), **faults}


def _without_licensed(models: Sequence[Model]) -> list[Model]:
    """The models that need no licence number; says which ones are left out."""
    for model in models:
        if model.licensed:
            print(
                f"{model.number}  {model.folder}: left out, as it needs a licence number "
                f"(--totalseg-license or {totalsegmentator.LICENCE_VARIABLE})"
            )
    return [model for model in models if not model.licensed]


def _chosen(numbers: Sequence[int]) -> list[Model]:
    """The models asked for; by default those of the three tasks at full resolution."""
    if not numbers:
        return [model for task in CT_NETWORKS for model in models_of_task(task)]
    by_number = {model.number: model for model in MODELS}
    unknown = [number for number in numbers if number not in by_number]
    if unknown:
        raise UsageError(f"There is no model {unknown[0]}; there are {', '.join(map(str, by_number))}.")
    return [by_number[number] for number in numbers]


def _use_of(model: Model) -> str:
    uses = [task for task in TASK_NAMES if model in models_of_task(task)]
    uses += [
        f"{task} --totalseg-fast"
        for task in TASK_NAMES
        if task not in uses and model in models_of_task(task, fast=True)
    ]
    return ", ".join(uses) or "--totalseg-roi-subset"


def _licence_of(model: Model) -> str:
    return _LICENSED if model.licensed else _OPEN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hedypet-weights", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("fetch", "download what is missing or broken (tasks total, tissue and body by default)"),
        ("check", "read every file and say what is missing or broken"),
        ("list", "every model with its use, licence and size"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--weights", type=Path, metavar="DIR", help="where the weights are")
        if name != "list":
            command.add_argument("models", nargs="*", type=int, metavar="MODEL", help="numbers, as in list")
        if name == "fetch":
            command.add_argument("--totalseg-license", metavar="NUMBER", help="for the tissue model")
            command.add_argument(
                "--mirror",
                default="",
                metavar="URL",
                help="where the archives are, instead of GitHub",
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
