"""The command line: what it accepts, what it refuses, and how fast it answers."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from hedypet_bids import __version__
from hedypet_bids.cli.main import main, parse
from hedypet_bids.errors import UnknownLevelError, UsageError

RUN = Path(__file__).resolve().parents[3] / "run.py"


def test_version_is_the_one_of_the_version_file() -> None:
    assert __version__ == RUN.with_name("version").read_text().strip()


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_version_and_help_answer_without_importing_anything_heavy(flag: str) -> None:
    # Imports are what takes time; counting them holds on a busy machine, where a stopwatch does not.
    code = (
        "import sys; from hedypet_bids.cli.main import main\n"
        f"try: main([{flag!r}])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'nibabel', 'bids', 'scipy', 'torch', 'distributed', 'pydantic'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_version_answers_in_under_a_third_of_a_second() -> None:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, str(RUN), "--version"], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.3


@pytest.mark.parametrize(
    ("dashes", "underscores"),
    [
        (["--participant-label", "001"], ["--participant_label", "001"]),
        (["--session-label", "a"], ["--session_label", "a"]),
        (["--skip-bids-validation"], ["--skip_bids_validation"]),
        (["--mem-mb", "100"], ["--mem_mb", "100"]),
        (["--work-dir", "w"], ["--work_dir", "w"]),
        (["--bids-filter-file", "f.json"], ["--bids_filter_file", "f.json"]),
    ],
)
def test_dashes_and_underscores_mean_the_same(dashes: list[str], underscores: list[str]) -> None:
    positional = ["in", "out", "participant"]
    assert parse(positional + dashes) == parse(positional + underscores)
    assert parse(positional + dashes) != parse(positional)


def test_labels_may_carry_their_prefix() -> None:
    options = parse(["in", "out", "participant", "--participant-label", "sub-01", "02"])
    assert options.participant_labels == ("01", "02")


def test_derivatives_are_named_paths() -> None:
    given = parse(["in", "out", "participant", "-d", "totalsegmentator=/a", "synthseg=/b"])
    assert given.derivatives == {"totalsegmentator": Path("/a"), "synthseg": Path("/b")}


# What would change nothing in the tables of the group.
OF_PARTICIPANTS = (
    ["--session-label", "a"],
    ["--rec_label", "a"],
    ["--static-rec", "a"],
    ["--static-window", "40", "60"],
    ["--steps", "tacs"],
    ["--level", "minimal"],
    ["--reports-only"],
    ["-d", "xfm=/a"],
    ["--device", "cpu"],
    ["--no-totalsegmentator"],
    ["--write_suv"],
    ["--checksums"],
)


@pytest.mark.parametrize(
    "arguments",
    [
        ["in", "out"],
        ["in", "out", "participant", "group"],
        ["in", "out", "participant", "--no-such-flag"],
        ["in", "out", "participant", "--nprocs", "0"],
        ["in", "out", "participant", "--nprocs", "two"],
        ["in", "out", "participant", "-d", "atlas=/a"],
        ["in", "in", "participant"],
        ["in", "in/sub-01/out", "participant"],
        ["in", "out", "participant", "--split", "train"],
        ["in", "out", "participant", "--splits", "splits.json"],
        *(["in", "out", "group", *words] for words in OF_PARTICIPANTS),
    ],
)
def test_nonsense_is_refused_as_usage(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(arguments)


def test_output_in_the_derivatives_of_the_dataset_is_allowed() -> None:
    assert parse(["in", "in/derivatives/hedypet", "participant"]).level == "participant"


def test_unknown_level_has_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownLevelError):
        parse(["in", "out", "session"])
    assert main(["in", "out", "session"]) == 17
    assert "expected one of participant, group" in capsys.readouterr().err
