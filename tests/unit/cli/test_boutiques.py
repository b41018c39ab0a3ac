"""The Boutiques descriptor: valid by Boutiques' rules, and the command line takes what it builds."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hedypet_bids.cli.boutiques import PrintDescriptor, descriptor
from hedypet_bids.cli.main import _parser, parse
from hedypet_bids.errors import InvalidDatasetError, UsageError

EXAMPLES = 40


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


def device(text: str) -> str:
    if text != "cpu" and not text[-1].isdigit():
        raise argparse.ArgumentTypeError("cpu or gpu:1")
    return text


@pytest.fixture
def boutiques() -> Any:
    return pytest.importorskip("boutiques", reason="needs the package boutiques (extra dev)")


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Boutiques takes file names relative to the present folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def described(empty_folder: Path) -> Path:
    path = empty_folder / "hedypet.json"
    path.write_text(json.dumps(descriptor(_parser(), "1.2.3")))
    return path


def inputs_of(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {given["id"]: given for given in content["inputs"]}


def small_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tool", description="Does something.")
    parser.add_argument("folder", type=Path, help="the folder")
    group = parser.add_argument_group("how much (or how little)")
    group.add_argument("-n", "--n-things", type=positive, default=3, help="things (default: %(default)s)")
    group.add_argument("--width", type=float)
    group.add_argument("--label", nargs="+", choices=("a", "b"), help="labels")
    group.add_argument("--on", type=device, metavar="{cpu,gpu:N}")
    group.add_argument("-q", action="store_true", help="be quiet")
    group.add_argument("--secret", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version="tool 1")
    parser.add_argument("--spec", action=PrintDescriptor, version="1", help="print the descriptor")
    return parser


def test_each_kind_of_argument() -> None:
    content = descriptor(small_parser(), "1")
    assert content["command-line"] == "tool [FOLDER] [N_THINGS] [WIDTH] [LABEL] [ON] [Q]"
    found = inputs_of(content)
    assert list(found) == ["folder", "n_things", "width", "label", "on", "q"]
    assert (found["folder"]["type"], found["folder"]["optional"]) == ("File", False)
    assert "command-line-flag" not in found["folder"]
    things = found["n_things"]
    assert (things["type"], things["integer"], things["minimum"]) == ("Number", True, 1)
    assert (things["command-line-flag"], things["description"]) == ("--n-things", "things (default: 3)")
    assert found["width"]["type"] == "Number"
    assert "minimum" not in found["width"]
    label = found["label"]
    assert (label["value-choices"], label["list"], label["min-list-entries"]) == (["a", "b"], True, 1)
    assert found["on"]["value-choices"] == ["cpu"]
    assert (found["q"]["type"], found["q"]["optional"], found["q"]["command-line-flag"]) == (
        "Flag",
        True,
        "-q",
    )
    assert content["groups"] == [
        {
            "id": "how_much_or_how_little_options",
            "name": "How much (or how little)",
            "members": ["n_things", "width", "label", "on", "q"],
        }
    ]


def test_hedypet_says_what_its_command_line_says() -> None:
    content = descriptor(_parser(), "1.2.3")
    assert (content["name"], content["tool-version"], content["schema-version"]) == (
        "hedypet",
        "1.2.3",
        "0.5",
    )
    assert content["command-line"].startswith("hedypet [BIDS_DIR] [OUTPUT_DIR] [ANALYSIS_LEVEL] ")
    found = inputs_of(content)
    assert found["analysis_level"]["value-choices"] == ["participant", "group"]
    assert found["participant_label"]["list"]
    assert found["nprocs"]["minimum"] == 1
    # A File must exist when a platform starts the run; the folders that hedypet makes do not yet.
    assert (found["bids_dir"]["type"], found["output_dir"]["type"]) == ("File", "String")
    assert (found["work_dir"]["type"], found["bids_database_dir"]["type"]) == ("String", "String")
    codes = {error["code"]: error["description"] for error in content["error-codes"]}
    assert codes[InvalidDatasetError.exit_code] == "The BIDS validator rejects the input dataset."
    assert codes[UsageError.exit_code]


def test_every_option_of_the_help_is_an_input() -> None:
    """The help is the other account of the command line."""
    shown = {
        word.strip(",")
        for line in _parser().format_help().partition("positional arguments")[2].splitlines()
        for word in line.split()
        if line.startswith("  -") and word.startswith("--")
    }
    flags = {given.get("command-line-flag") for given in descriptor(_parser(), "1")["inputs"]}
    assert shown - flags <= {"--help", "--version", "--bids-exec-spec"}
    assert "--participant-label" in shown


def test_boutiques_accepts_the_descriptor(boutiques: Any, described: Path) -> None:
    boutiques.validate(str(described))


def test_boutiques_refuses_a_broken_one(boutiques: Any, described: Path) -> None:
    """The check above can fail."""
    content = json.loads(described.read_text())
    content["command-line"] = content["command-line"].replace(" [NPROCS]", "")
    described.write_text(json.dumps(content))
    with pytest.raises(Exception, match="NPROCS"), contextlib.redirect_stdout(io.StringIO()):
        boutiques.validate(str(described))


def simulated(boutiques: Any, described: Path, invocation: dict[str, Any]) -> list[str]:
    """The arguments that Boutiques builds for an invocation."""
    path = described.with_name("invocation.json")
    path.write_text(json.dumps(invocation))
    with contextlib.redirect_stdout(io.StringIO()):
        done = boutiques.execute("simulate", str(described), "-i", str(path))
    program, *arguments = shlex.split(done.stdout)
    assert program == "hedypet"
    return arguments


def test_a_full_invocation_arrives_unchanged(boutiques: Any, described: Path) -> None:
    invocation = {
        "bids_dir": "bids",
        "output_dir": "out",
        "analysis_level": "participant",
        "participant_label": ["001", "002"],
        "derivatives": ["totalsegmentator=ts", "aorta=masks"],
        "bids_filter_file": "filter.json",
        "skip_bids_validation": True,
        "window_start": [30, 40.5],
        "integration_rule": "frames",
        "work_dir": "scratch",
        "bids_database_dir": "index",
        "nprocs": 2,
        "dry_run": False,
        "verbose": True,
    }
    options = parse(simulated(boutiques, described, invocation))
    assert (options.bids_dir, options.output_dir, options.level) == (Path("bids"), Path("out"), "participant")
    assert options.participant_labels == ("001", "002")
    assert options.derivatives == {"totalsegmentator": Path("ts"), "aorta": Path("masks")}
    assert (options.bids_filter_file, options.work_dir) == (Path("filter.json"), Path("scratch"))
    assert options.database_dir == Path("index")
    assert options.values["kinetics"]["patlak"] == {"start_min": (30.0, 40.5), "rule": "frames"}
    assert (options.nprocs, options.skip_bids_validation, options.dry_run) == (2, True, False)
    assert options.verbosity == 1


@pytest.mark.parametrize("wrong", [{"analysis_level": "session"}, {"nprocs": 0}, {"participant_label": []}])
def test_boutiques_refuses_what_hedypet_would(
    boutiques: Any, described: Path, wrong: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    invocation = {"bids_dir": "bids", "output_dir": "out", "analysis_level": "group"} | wrong
    with pytest.raises(Exception, match=next(iter(wrong))):
        simulated(boutiques, described, invocation)
    capsys.readouterr()


def random_invocations(content: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """Invocations within the descriptor's own limits: each optional input in about half of them."""
    chance = random.Random(seed)
    exclusive = [group["members"] for group in content["groups"] if group.get("mutually-exclusive")]
    for _ in range(EXAMPLES):
        kept = {chance.choice(members) for members in exclusive}
        left_out = {name for members in exclusive for name in members} - kept
        found = {
            given["id"]: _value(given, chance)
            for given in content["inputs"]
            if not given["optional"] or (given["id"] not in left_out and chance.random() < 0.5)
        }
        level = next(given for given in content["inputs"] if given["id"] == "analysis_level")
        disabled = level["value-disables"][found["analysis_level"]]
        yield {name: value for name, value in found.items() if name not in disabled}


def _value(given: dict[str, Any], chance: random.Random) -> Any:
    if given["type"] == "Flag":
        return True
    if given.get("list"):
        least, most = given.get("min-list-entries", 0), given.get("max-list-entries", 3)
        return [_item(given, chance) for _ in range(chance.randint(least, most))]
    return _item(given, chance)


def _item(given: dict[str, Any], chance: random.Random) -> Any:
    if "value-choices" in given:
        return chance.choice(given["value-choices"])
    if given["type"] == "Number":
        return given.get("minimum", 0) + chance.randint(0, 50)
    # NAME=PATH and tls:// are forms, which a descriptor cannot state.
    forms = {"derivatives": "synthseg=ready", "dask_scheduler": "tls://node1:8786"}
    return forms.get(given["id"], f"{given['id']}{chance.randint(0, 9)}")


def test_hedypet_accepts_every_invocation_of_the_descriptor(boutiques: Any, described: Path) -> None:
    content = json.loads(described.read_text())
    for invocation in random_invocations(content, seed=1):
        options = parse(simulated(boutiques, described, invocation))
        assert options.level == invocation["analysis_level"]
        assert options.session_labels == tuple(invocation.get("session_label", ()))
        assert options.mem_mb == invocation.get("mem_mb")


def test_what_excludes_each_other_is_refused_by_both(
    boutiques: Any, described: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = {"bids_dir": "bids", "output_dir": "out", "analysis_level": "participant"}
    both |= {"steps": ["tacs"], "level": "minimal"}  # type: ignore[dict-item]
    with pytest.raises(Exception, match="level"):
        simulated(boutiques, described, both)
    words = ("bids", "out", "participant", "--steps", "tacs", "--level", "minimal")
    with pytest.raises(UsageError, match="not allowed with"):
        parse(words)
    capsys.readouterr()


def test_boutiques_own_example_is_accepted(boutiques: Any, described: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        example = json.loads(boutiques.example(str(described)))
    assert parse(simulated(boutiques, described, example)).level in ("participant", "group")


def test_the_option_prints_the_descriptor_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        small_parser().parse_args(["--spec"])
    assert ended.value.code in (None, 0, os.EX_OK)
    assert json.loads(capsys.readouterr().out) == descriptor(small_parser(), "1")
    assert not hasattr(small_parser().parse_args(["folder"]), "spec")
