"""Descriptions of reconstructions, the parameter files made from them, and sidecars held against them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedypet_bids.cli.reconstruction import main
from hedypet_bids.errors import BadDataError
from hedypet_bids.reconstruction import (
    Description,
    Framing,
    PostFilter,
    Reconstruction,
    description_yaml,
    differences,
    parse_description,
    parse_parameters,
    read_description,
    read_pet_sidecar,
    shipped_descriptions,
    write_parameters,
)

FOLDER = Path(__file__).resolve().parents[3] / "reconstructions"
NAMES = ("acdynPSF", "acstatPSF")
# The frames of hedyPET, written out once more by hand.
DURATIONS_S = [2] * 20 + [5] * 10 + [10] * 15 + [60] * 6 + [120] * 10 + [300] * 8


def shipped(name: str) -> Description:
    return read_description(FOLDER / f"{name}.yaml")


def plain_values(text: str) -> dict[str, str]:
    """The values of a parameter file, read the simplest way."""
    lines = [line.split(":=") for line in text.splitlines() if ":=" in line]
    return {key.strip(): value.strip() for key, value in lines}


# ---- what comes with hedypet


def test_the_dynamic_series_has_69_frames_of_4200_s() -> None:
    frames = shipped("acdynPSF").reconstruction.frames
    assert list(frames.durations_s) == DURATIONS_S
    assert (frames.n_frames, sum(frames.durations_s), frames.start_s, frames.end_s) == (69, 4200, 0, 4200)
    assert frames.starts_s[:3] == (0, 2, 4)
    assert frames.starts_s[-1] == 3900


def test_the_parameter_file_itself_has_69_frames_of_4200_s() -> None:
    start, _, lengths = plain_values((FOLDER / "acdynPSF.txt").read_text())["LMFrames"].partition(":")
    numbers = [int(length) for length in lengths.split(",")]
    assert (int(start), len(numbers), sum(numbers)) == (0, 69, 4200)
    assert numbers == DURATIONS_S


@pytest.mark.parametrize(
    ("name", "filter_mm", "frames"), [("acdynPSF", 0.0, None), ("acstatPSF", 2.0, "3000:1200")]
)
def test_the_parameter_files_hold_the_study_s_values(name: str, filter_mm: float, frames: str | None) -> None:
    values = plain_values((FOLDER / f"{name}.txt").read_text())
    numbers = {f"TOF{kind}{what}" for kind in ("aw", "op", "psf") for what in ("iter", "subsets")}
    assert set(values) == numbers | {
        *("postfiltertype", "postfilterxy", "postfilterz", "LMFrames", "UseVersion", "outimagesize")
    }
    assert {key: values[key] for key in numbers} == {
        key: "4" if key.endswith("iter") else "5" for key in numbers
    }
    assert (values["UseVersion"], values["outimagesize"], values["postfiltertype"]) == (
        "VR20",
        "440",
        "GAUSS",
    )
    assert (float(values["postfilterxy"]), float(values["postfilterz"])) == (filter_mm, filter_mm)
    assert frames in (None, values["LMFrames"])


def test_the_committed_files_are_those_that_the_descriptions_give(tmp_path: Path) -> None:
    assert tuple(shipped_descriptions()) == NAMES
    assert main(["write", "-o", str(tmp_path)]) == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in FOLDER.glob("*.txt")}
    assert all(content.count(b"\n") == content.count(b"\r\n") for content in written.values())


# ---- there and back


@st.composite
def descriptions(draw: st.DrawFn) -> Description:
    widths = st.floats(0, 100, allow_nan=False)
    counts = st.integers(1, 1000)
    return Description(
        draw(st.from_regex(r"[A-Za-z0-9]{1,20}", fullmatch=True)),
        "PSF+TOF",
        Reconstruction(
            iterations=draw(counts),
            subsets=draw(counts),
            post_filter=PostFilter(draw(widths) + 0.0, draw(widths) + 0.0),
            matrix_size=draw(st.integers(1, 4096)),
            software_version=draw(st.sampled_from(["VR20", "VG80A", "VE11P", "V18"])),
            frames=Framing(
                draw(st.integers(0, 20_000)), tuple(draw(st.lists(st.integers(1, 300), min_size=1)))
            ),
        ),
    )


@given(descriptions())
def test_a_parameter_file_says_what_it_was_written_from(description: Description) -> None:
    parsed = parse_parameters(write_parameters(description), "here")
    assert (parsed.reconstruction, parsed.others, parsed.notes) == (description.reconstruction, {}, ())


@given(descriptions())
def test_a_description_says_what_it_was_written_from(description: Description) -> None:
    assert parse_description(description_yaml(description), "here") == description


# ---- existing parameter files

GOOD = """\
# anything
POSTFILTERTYPE := gauss
postfilterxy :=   4   # FWHM
postfilterz:=5.5
TOFawiter := 4
TOFawsubsets := 5
TOFopiter := 3
TOFopsubsets := 21
TOFpsfiter := 4
TOFpsfsubsets := 5
LMFrames := 10: 60,60, 300
UseVersion := VR20
outimagesize := 220
zoom := 2
"""


def test_a_file_from_elsewhere() -> None:
    parsed = parse_parameters(GOOD, "here")
    assert parsed.reconstruction == Reconstruction(
        4, 5, PostFilter(4.0, 5.5), 220, "VR20", Framing(10, (60, 60, 300))
    )
    assert parsed.others == {"zoom": "2"}
    assert len(parsed.notes) == 1
    assert "TOFopiter and TOFopsubsets are 3 and 21" in parsed.notes[0]


def test_parse_prints_a_description_that_gives_the_same_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["parse", str(FOLDER / "acdynPSF.txt")]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    (tmp_path / "acdynPSF.yaml").write_text(printed.out)
    assert main(["write", str(tmp_path / "acdynPSF.yaml"), "-o", str(tmp_path)]) == 0
    assert (tmp_path / "acdynPSF.txt").read_bytes() == (FOLDER / "acdynPSF.txt").read_bytes()


def test_parse_names_what_a_description_does_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine-1.txt").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert main(["parse", str(tmp_path / "mine-1.txt")]) == 0
    printed = capsys.readouterr()
    assert parse_description(printed.out, "here").name == "mine1"
    assert "zoom := 2" in printed.err
    assert "TOFopiter" in printed.err


def test_the_published_framing_is_seen_to_be_two_frames_short() -> None:
    """hedyPET's own file ends after six frames of 300 s."""
    short = ",".join(map(str, DURATIONS_S[:-2]))
    frames = parse_parameters(GOOD.replace("10: 60,60, 300", f"0:{short}"), "here").reconstruction.frames
    assert (frames.n_frames, frames.end_s) == (67, 3600)
    text = (FOLDER / "acdynPSF.yaml").read_text().replace("count: 8", "count: 6")
    with pytest.raises(BadDataError, match=r"69 frames to 4200 s, the blocks give 67 frames to 3600 s"):
        parse_description(text, "here")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("UseVersion := VR20\n", "", "missing: UseVersion"),
        ("TOFpsfiter := 4", "TOFpsfiter = 4", "line 9: expected KEY := VALUE"),
        ("TOFpsfiter := 4", "TOFpsfiter := 0", "TOFpsfiter must be a whole number from 1"),
        ("TOFpsfiter := 4", "TOFpsfiter := four", "found 'four'"),
        ("TOFawiter := 4", "TOFawiter := -1", "TOFawiter must be a whole number"),
        ("zoom := 2", "tofpsfiter := 6", "line 14: TOFpsfiter is '6' here and '4' above"),
        ("gauss", "hann", "postfiltertype must be GAUSS"),
        ("postfilterz:=5.5", "postfilterz:=nan", "postfilterz must be 0 to 100 mm"),
        ("postfilterz:=5.5", "postfilterz:=-1", "postfilterz must be 0 to 100 mm"),
        ("10: 60,60, 300", "all", "START:LENGTH"),
        ("10: 60,60, 300", "10:", "START:LENGTH"),
        ("10: 60,60, 300", "10:60,,300", "length of frame 1"),
        ("10: 60,60, 300", "10:60,0", "length of frame 1"),
        ("10: 60,60, 300", "10:1.5", "length of frame 0"),
        ("10: 60,60, 300", "86000:400,1", "86000 to 86401 s"),
        ("10: 60,60, 300", "0:" + "1," * 20_000 + "1", "START:LENGTH"),
        ("outimagesize := 220", "outimagesize := " + "9" * 5000, "outimagesize must be"),
        ("VR20", "20", "software version such as VR20"),
    ],
)
def test_broken_parameter_files_are_refused(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(BadDataError, match=message):
        parse_parameters(GOOD.replace(old, new), "here")


# ---- broken descriptions


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("subsets: 5\n", "", "missing: subsets"),
        ("subsets: 5", "subset: 5", "missing: subsets; unknown: subset"),
        ("subsets: 5", "subsets: 5\nsubsets: 6", "'subsets' stands twice"),
        ("subsets: 5", "subsets: [5]", "subsets must be a whole number"),
        ("subsets: 5", "subsets: yes", "subsets must be a whole number"),
        ("subsets: 5", "subsets: 2020-13-45", "subsets must be a whole number"),
        ("subsets: 5", "subsets: !!python/object/apply:os.getcwd []", "subsets must be a whole number"),
        ("method: PSF+TOF", "method: FBP", "method must be PSF"),
        ("name: acdynPSF", "name: ../x", "name must be letters and digits"),
        ("xy_mm: 0", "xy_mm: 200", "post_filter xy_mm must be 0 to 100 mm"),
        ("{count: 20, duration_s: 2}", "{count: 20}", "block 1: expected the keys count, duration_s"),
        ("{count: 20, duration_s: 2}", "20x2", "block 1: expected the keys count, duration_s"),
        ("count: 20", "count: 99999999", "block 1: count must be a whole number from 1 to 10000"),
        ("start_s: 0", "start_s: 10", "the blocks give 69 frames to 4210 s"),
        ("end_s: 4200", "end_s: 3600", "say 69 frames to 3600 s"),
        ("name: acdynPSF", "name: [unclosed", "not valid YAML"),
        ("name: acdynPSF", "{a: b}: c", "not valid YAML"),
        ("name: acdynPSF", r'name: "\UFFFFFFFF"', "not valid YAML"),
        ("name: acdynPSF", "name: " + "[" * 5000, "nested too deeply|not valid YAML"),
        ("name: acdynPSF", "name: &a [*a]", "name must be letters and digits|not valid YAML"),
    ],
)
def test_broken_descriptions_are_refused(old: str, new: str, message: str) -> None:
    text = (FOLDER / "acdynPSF.yaml").read_text()
    assert old in text
    with pytest.raises(BadDataError, match=message):
        parse_description(text.replace(old, new), "here")


@given(st.text(max_size=200))
def test_no_text_at_all_gives_anything_but_a_description_or_an_error(text: str) -> None:
    for parse in (parse_description, parse_parameters):
        with pytest.raises(BadDataError):
            parse(text, "here")


def test_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text((FOLDER / "acdynPSF.yaml").read_text())
    with pytest.raises(BadDataError, match=r"called other\.yaml"):
        read_description(path)


# ---- sidecars


def agreeing(name: str) -> dict[str, Any]:
    """A sidecar in full agreement, written out by hand."""
    dynamic = name == "acdynPSF"
    starts_s = [float(sum(DURATIONS_S[:i])) for i in range(69)]
    return {
        "ScanStart": 0,
        "ReconMethodName": "PSF+TOF",
        "ReconMethodParameterLabels": ["subsets", "iterations"],
        "ReconMethodParameterValues": [5, 4],
        "ReconFilterType": "none" if dynamic else "Gaussian",
        "FrameTimesStart": starts_s if dynamic else [3000],
        "FrameDuration": list(DURATIONS_S) if dynamic else [1200],
    } | ({} if dynamic else {"ReconFilterSize": 2})


def found(name: str, **changes: Any) -> dict[str, str]:
    """Differences to a sidecar with some changes (None takes a key away): key -> what was found."""
    content = {key: value for key, value in (agreeing(name) | changes).items() if value is not None}
    return {difference.key: difference.found for difference in differences(shipped(name), content)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        # As Siemens' DICOM says it.
        {
            "ReconMethodName": "PSF+TOF 4i5s",
            "ReconMethodParameterLabels": None,
            "ReconMethodParameterValues": None,
        },
        {"SoftwareVersions": "VR20B-0000"},
        {"ScanStart": 0.02},
    ],
)
def test_sidecars_that_agree(name: str, changes: dict[str, Any]) -> None:
    assert found(name, **changes) == {}


@pytest.mark.parametrize(
    "filtered",
    [
        {"ReconFilterSize": [2, 2, 2.0]},
        {"ReconFilterType": ["Gaussian"], "ReconFilterSize": [2]},
        {"ReconFilterType": "XYZ Gauss2.00", "ReconFilterSize": None},
    ],
)
def test_ways_to_write_the_filter(filtered: dict[str, Any]) -> None:
    assert found("acstatPSF", **filtered) == {}
    assert list(found("acdynPSF", **filtered | {"ReconFilterType": "Gauss 2"})) == ["ReconFilterType"]


def test_times_count_from_the_start_of_the_scan() -> None:
    """The clock's zero is the injection of another tracer, 100 s before the scan."""
    later = {
        "ScanStart": 100,
        "FrameTimesStart": [start + 100 for start in agreeing("acdynPSF")["FrameTimesStart"]],
    }
    assert found("acdynPSF", **later) == {}
    assert found("acdynPSF", ScanStart=100) == {"FrameTimesStart": "-100 s (and 68 more frames differ)"}


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("acdynPSF", {"ReconMethodName": "OP-OSEM"}, {"ReconMethodName": "'OP-OSEM'"}),
        ("acdynPSF", {"ReconMethodName": None}, {"ReconMethodName": "nothing"}),
        (
            "acdynPSF",
            {"ReconMethodParameterValues": [21, 3]},
            {"ReconMethodParameterValues (iterations)": "3", "ReconMethodParameterValues (subsets)": "21"},
        ),
        (
            "acdynPSF",
            {"ReconMethodParameterValues": None},
            {
                "ReconMethodParameterValues (iterations)": "nothing",
                "ReconMethodParameterValues (subsets)": "nothing",
            },
        ),
        ("acdynPSF", {"ReconFilterType": None}, {"ReconFilterType": "nothing"}),
        ("acdynPSF", {"ReconFilterType": "Butterworth"}, {"ReconFilterType": "'Butterworth'"}),
        ("acstatPSF", {"ReconFilterType": "none"}, {"ReconFilterType": "'none'"}),
        ("acstatPSF", {"ReconFilterSize": 5}, {"ReconFilterSize": "Gaussian 5 mm"}),
        ("acstatPSF", {"ReconFilterSize": None}, {"ReconFilterSize": "of unknown width"}),
        ("acstatPSF", {"FrameDuration": [600]}, {"FrameDuration": "1x600 s (1 frame, 600 s)"}),
        ("acstatPSF", {"FrameTimesStart": 0}, {"FrameTimesStart": "0 s"}),
        ("acstatPSF", {"FrameTimesStart": None}, {"FrameTimesStart": "nothing"}),
        ("acstatPSF", {"FrameDuration": ["long"]}, {"FrameDuration": "['long']"}),
        ("acstatPSF", {"ScanStart": "10:00"}, {"ScanStart": "'10:00'"}),
        ("acstatPSF", {"SoftwareVersions": ["VG80A"]}, {"SoftwareVersions": "['VG80A']"}),
    ],
)
def test_each_difference_is_named(name: str, changes: dict[str, Any], expected: dict[str, str]) -> None:
    assert found(name, **changes) == expected


def test_a_series_that_ends_early_is_named_by_count_and_length() -> None:
    short = agreeing("acdynPSF")
    assert found(
        "acdynPSF", FrameTimesStart=short["FrameTimesStart"][:-2], FrameDuration=short["FrameDuration"][:-2]
    ) == {
        "FrameDuration": "20x2, 10x5, 15x10, 6x60, 10x120, 6x300 s (67 frames, 3600 s)",
        "FrameTimesStart": "67",
    }


def check(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    status = main(["check", str(path)])
    return status, capsys.readouterr().out.splitlines()


def sidecars(bids: Path, rec: str) -> list[Path]:
    return sorted(bids.glob(f"sub-*/**/*_rec-{rec}_pet.json"))


def check_dataset(bids: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Dynamic series as described; of static images only the filter differs, where they state none."""
    assert sidecars(bids, "acdynPSF")
    for path in sidecars(bids, "acdynPSF"):
        assert check(path, capsys) == (0, [f"{path.name}: as acdynPSF describes"])
    for path in sidecars(bids, "acstatPSF"):
        stated = read_pet_sidecar(path)["ReconFilterType"]
        unlike = [f"{path.name}: ReconFilterType: expected Gaussian 2 mm; found {stated!r}"]
        expected = (1, unlike) if stated == "none" else (0, [f"{path.name}: as acstatPSF describes"])
        assert check(path, capsys) == expected


def test_the_phantom_s_sidecars(phantom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_dataset(phantom, capsys)


def test_the_realistic_dataset_s_sidecars(realistic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_dataset(realistic, capsys)


def test_a_changed_sidecar_of_the_phantom(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = sidecars(phantom, "acdynPSF")[0]
    content = json.loads(source.read_text())
    content["ReconMethodParameterValues"] = [8, 5]
    content["FrameDuration"][60] = 100
    (tmp_path / source.name).write_text(json.dumps(content))
    status, lines = check(tmp_path / source.name, capsys)
    assert status == 1
    assert lines == [
        f"{source.name}: ReconMethodParameterValues (iterations): expected 4; found 8",
        f"{source.name}: FrameDuration: expected 20x2, 10x5, 15x10, 6x60, 10x120, 8x300 s "
        "(69 frames, 4200 s); found 20x2, 10x5, 15x10, 6x60, 9x120, 1x100, 8x300 s (69 frames, 4180 s)",
    ]


# ---- the command


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["check", "sub-1_rec-acdynPSF_pet.json"], 66, "sub-1_rec-acdynPSF_pet.json is not a file"),
        (["check", "folder"], 66, "folder is not a file"),
        (["check", "list_rec-acdynPSF_pet.json"], 65, "must hold a JSON object"),
        (["check", "cut_rec-acdynPSF_pet.json"], 65, "not valid JSON"),
        (["check", "deep_rec-acdynPSF_pet.json"], 65, "not valid JSON"),
        (["check", "whole_pet.json"], 2, "rec- label among acdynPSF, acstatPSF"),
        (["check", "whole_pet.json", "--description", "broken.yaml"], 65, "broken.yaml"),
        (["parse", "bytes.bin"], 65, "not a UTF-8 text file"),
        (["parse", "broken.yaml"], 65, "line 1: expected KEY := VALUE"),
        (["parse", "missing.txt"], 66, "missing.txt is not a file"),
        (["write", "broken.yaml"], 65, "broken.yaml"),
        (["write", "-o", "bytes.bin"], 73, "cannot be written"),
    ],
)
def test_faults_end_with_their_exit_status_and_one_message(
    arguments: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "list_rec-acdynPSF_pet.json").write_text("[]")
    (tmp_path / "cut_rec-acdynPSF_pet.json").write_text('{"ScanStart": 0, ')
    (tmp_path / "deep_rec-acdynPSF_pet.json").write_text("[" * 100_000)
    (tmp_path / "whole_pet.json").write_text("{}")
    (tmp_path / "bytes.bin").write_bytes(b"\xff\xfe\x00\x81")
    (tmp_path / "broken.yaml").write_text("frames: {")
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) == status
    printed = capfd.readouterr()
    assert message in printed.err
    assert printed.err.startswith("hedypet-reconstruction: error: ")
    assert (printed.out, sorted(tmp_path.rglob("*"))) == ("", before)


def test_the_commands_of_the_readme_run(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = (FOLDER / "README.md").read_text().partition("## The command\n")[2]
    block = section.partition("```bash\n")[2].partition("```")[0]
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(commands) == 4
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text((FOLDER / "acstatPSF.yaml").read_text().replace("acstatPSF", "mine"))
    Path("old-parameters.txt").write_text(GOOD)
    source = sidecars(phantom, "acdynPSF")[0]
    Path(source.name).write_text(source.read_text())
    for program, *arguments in commands:
        assert program == "hedypet-reconstruction"
        assert main(arguments[: arguments.index(">")] if ">" in arguments else arguments) == 0
    assert {path.name for path in Path("FOLDER").iterdir()} == {"acdynPSF.txt", "acstatPSF.txt", "mine.txt"}
    assert 'name: "oldparameters"' in capsys.readouterr().out


def test_an_empty_sidecar_differs_in_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sub-1_rec-acstatPSF_pet.json"
    path.write_text("{}")
    status, lines = check(path, capsys)
    assert status == 1
    assert [line.split(": ")[1] for line in lines] == [
        "ReconMethodName",
        "ReconMethodParameterValues (iterations)",
        "ReconMethodParameterValues (subsets)",
        "ReconFilterType",
        "ScanStart",
        "FrameDuration",
        "FrameTimesStart",
    ]


def test_the_command_imports_nothing_heavy() -> None:
    code = "import sys, hedypet_bids.reconstruction; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "pandas", "nibabel", "bids"} & set(done.stdout.split())
