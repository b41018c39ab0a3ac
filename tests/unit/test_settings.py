"""Settings survive TOML, and whatever else a file holds is refused line by line."""

from __future__ import annotations

import dataclasses
import datetime
import pickle
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError
from running import hedypet

from hedypet_bids.cli.main import _parser, main, settings_of
from hedypet_bids.cli.main import parse as parse_command
from hedypet_bids.errors import MissingInputError, UsageError
from hedypet_bids.settings import (
    AortaMethod,
    KineticsSettings,
    PatlakSettings,
    RegisterMethod,
    ResampleSettings,
    RuleChoice,
    Settings,
    allowed,
    digest,
    plain,
)

CHANGED = Settings(
    kinetics=KineticsSettings(patlak=PatlakSettings(rule="frames", last_frames=(4,), start_min=(30.0,)))
)


def read(folder: Path, text: str) -> Settings:
    path = folder / "settings.toml"
    path.write_text(text, "utf-8")
    return Settings.from_toml(path)


def faults(folder: Path, text: str) -> list[str]:
    """What is said of a file, a line a fault, without the file's name."""
    with pytest.raises(UsageError) as refused:
        read(folder, text)
    lines = str(refused.value).split("\n")
    assert all(line.startswith(f"{folder / 'settings.toml'}: ") and line.endswith(".") for line in lines)
    return [line.partition(": ")[2] for line in lines]


def test_what_a_file_does_not_name_keeps_its_default(tmp_path: Path) -> None:
    settings = read(tmp_path, "[resample]\nct_outside_hu = -1000\n[kinetics.patlak]\nrule = 'frames'\n")
    assert settings.resample == ResampleSettings(ct_outside_hu=-1000.0)
    assert isinstance(settings.resample.ct_outside_hu, float)  # so that 1000 and 1000.0 have one digest
    assert settings.kinetics == KineticsSettings(patlak=PatlakSettings(rule="frames"))
    assert read(tmp_path, "") == Settings()


WRONG = {
    "[kinetics.patlak]\nrule = 'Simpson'": ("[kinetics.patlak] rule", "'simpson'"),
    "[kinetics.patlak]\nmap_last_frames = 'four'": ("[kinetics.patlak] map_last_frames", "whole number"),
    "[kinetics.patlak]\nlast_frames = [1]": ("[kinetics.patlak] last_frames", "from 2"),
    "[kinetics.patlak]\nlast_frames = [4, 4]": ("[kinetics.patlak] last_frames", "twice"),
    "[kinetics.patlak]\nstart_min = [-5]": ("[kinetics.patlak] start_min", "from 0"),
    "[kinetics.patlak]\nlast_frames = []": ("[kinetics.patlak]", "start_min"),
    "[kinetics]\nrule = 'frames'": ("[kinetics]", "[kinetics.patlak]"),
    "[kinetics.compartments]\ndelay_s = [5, 5]": ("[kinetics.compartments] delay_s", "before the end"),
    "[kinetics.compartments]\ndelay_s = [-90, 5]": ("[kinetics.compartments] delay_s", "from -60 to 120"),
    "[kinetics.compartments]\nhalf_life_s = -1": ("[kinetics.compartments] half_life_s", "from 0"),
    "[kinetics]\nmap_fwhm_mm = nan": ("[kinetics] map_fwhm_mm", "nan"),
    "[kinetics]\nmap_fwhm_mm = inf": ("[kinetics] map_fwhm_mm", "inf"),
    "[kinetics]\nmap_fwhm_mm = true": ("[kinetics] map_fwhm_mm", "True"),
    "[kinetics]\ntracers = ['']": ("[kinetics] tracers", "''"),
    "[kinetics]\nmodels = ['../x']": ("[kinetics] models", "'../x'"),
    "[kinetics]\nmodels = 'Patlak'": ("[kinetics] models", "a list"),
    "[aorta]\nmethod = 'nifti-dynamic'": ("[aorta] method", "'nifti_dynamic'"),
    "[aorta]\nkeep_fraction = 1.5": ("[aorta] keep_fraction", "0 to 1"),
    "[curves]\nerosions = [-1, 'x']": ("[curves] erosions", "[-1, 'x']"),
    "[curves]\nerosions = [1000000]": ("[curves] erosions", "1000000"),
    "[curves]\nerosions = []": ("[curves] erosions", "at least one"),
    "[curves]\nerosions = [0, 0]": ("[curves] erosions", "twice"),
    "[curves]\nerosion = [0]": ("[curves]", "'erosions'"),
    "[resample]\nspline_order = 99": ("[resample] spline_order", "1 or 3"),
    "[resample]\nspline_order = 3.0": ("[resample] spline_order", "3.0"),
    "[resample]\nspline_order = true": ("[resample] spline_order", "True"),
    "[resample]\nhead_voxel_mm = 0": ("[resample] head_voxel_mm", "found 0"),
    "[resample]\nhead_size_mm = [200, 200]": ("[resample] head_size_mm", "a list of 3"),
    "[resample]\nhead_voxel_mm = 0.25\nhead_size_mm = [600, 600, 600]": ("[resample]", "13,824,000,000"),
    "[register]\nseed = 3.7": ("[register] seed", "3.7"),
    f"[register]\nseed = 0x{'f' * 20_000}": ("[register] seed", "too long"),
    "[segment]\ntotalseg_fast = 1": ("[segment] totalseg_fast", "true or false"),
    "[segment]\ntotalseg_fast = 'true'": ("[segment] totalseg_fast", "'true'"),
    "[segment]\ntotalseg_roi_subset = ['livr']": ("[segment] totalseg_roi_subset", "'liver'"),
    "[segment]\ntimeout_s = 0": ("[segment] timeout_s", "above 0"),
    "[static]\nwindow_min = [70, 50]": ("[static] window_min", "before the end"),
    "[static]\nwindow_min = [-1, 50]": ("[static] window_min", "from 0"),
    "[selection]\nstatic_rec = 'rec-acstatPSF'": ("[selection] static_rec", "letters and digits"),
    "[statc]\nwindow_min = [50, 70]": ("Expected only the sections", "'static'"),
    "aorta = 3": ("[aorta]", "found 3"),
    "[[aorta]]": ("[aorta]", "found"),
    "patlak = 3": ("[patlak]", "[kinetics.patlak]"),
    "[patlak]\nrule = 'frames'": ("[patlak] rule", "[kinetics.patlak] rule"),
    "[patlak]\nlatest_start_s = 1.0": ("[patlak] latest_start_s", "[kinetics] latest_start_s"),
}


@pytest.mark.parametrize(("text", "words"), WRONG.items(), ids=range(len(WRONG)))
def test_a_wrong_value_gets_one_line_with_its_place(
    tmp_path: Path, text: str, words: tuple[str, str]
) -> None:
    [line] = faults(tmp_path, text)
    place, expected = words
    assert line.startswith(place)
    assert expected in line


def test_all_faults_of_a_file_are_told_together(tmp_path: Path) -> None:
    texts = [text for text in WRONG if text.startswith("[")][::7]
    sections = {text.partition("\n")[0]: text for text in texts}  # TOML opens a section once
    assert len(sections) > 3
    said = faults(tmp_path, "\n".join(sections.values()))
    assert sorted(said) == sorted(line for text in sections.values() for line in faults(tmp_path, text))


@pytest.mark.parametrize(
    "content",
    [b"not toml", b"[curves", b"\xff\xfe", b"x = " + b"[" * 10_000, b"x = " + b"9" * 5000],
    ids=["words", "open", "bytes", "deep", "long"],
)
def test_what_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not valid TOML"):
        Settings.from_toml(path)


def test_a_file_that_is_missing_or_a_folder_is_a_missing_input(tmp_path: Path) -> None:
    for path in (tmp_path / "no.toml", tmp_path):
        with pytest.raises(MissingInputError, match=str(path)):
            Settings.from_toml(path)


def test_settings_are_values() -> None:
    assert pickle.loads(pickle.dumps(CHANGED)) == CHANGED != Settings()
    assert {CHANGED, Settings(), Settings().with_values(plain(CHANGED))} == {CHANGED, Settings()}
    with pytest.raises(dataclasses.FrozenInstanceError):
        CHANGED.kinetics.map_fwhm_mm = 3.0  # type: ignore[misc]
    # The defaults themselves are allowed, which pydantic does not look at.
    assert Settings().with_values(plain(Settings())) == Settings()


def test_values_from_python_are_checked_too() -> None:
    with pytest.raises(ValidationError):
        dataclasses.replace(CHANGED.kinetics.patlak, rule="Simpson")
    with pytest.raises(ValidationError):
        KineticsSettings(map_fwhm_mm=float("nan"))
    with pytest.raises(UsageError, match=r"\[curves\] erosions"):
        CHANGED.with_values({"curves": {"erosions": (0, 21)}})
    kept = CHANGED.with_values({"kinetics": {"map_fwhm_mm": 4}}).kinetics
    assert (kept.map_fwhm_mm, kept.patlak) == (4.0, CHANGED.kinetics.patlak)


def test_digest_depends_on_every_value_and_not_on_key_order() -> None:
    settings = plain(Settings())
    assert digest(settings) == digest(dict(reversed(list(settings.items()))))
    changed = {**settings, "curves": {"erosions": [0, 2]}}
    assert digest(settings) != digest(changed)


# ---- any document

ANYTHING = st.recursive(
    st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.just(datetime.time(1, 2))
    | st.sampled_from(("simpson", "frames", "Patlak", "identity", "liver", "FDG")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = st.integers(-2, 25) | st.floats(-2, 700)
NEARLY = NUMBERS | st.lists(NUMBERS, max_size=4)


def documents(known: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Documents with the names of the settings, other names, and values of every kind."""
    values = {
        name: (documents(default) if isinstance(default, dict) else st.just(default) | NEARLY) | ANYTHING
        for name, default in known.items()
    }
    several = st.sets(st.sampled_from(sorted(known)), max_size=3)
    named = several.flatmap(lambda names: st.fixed_dictionaries({name: values[name] for name in names}))
    others = st.dictionaries(st.text(max_size=6) | st.just("patlak"), ANYTHING, max_size=1)
    return st.tuples(named, st.just({}) | others).map(lambda parts: {**parts[1], **parts[0]})


@hypothesis_settings(max_examples=400, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(document=documents(plain(Settings())))
def test_any_document_gives_settings_or_lines_of_faults(document: dict[str, Any]) -> None:
    try:
        made = Settings().with_values(document)
    except UsageError as refused:
        lines = str(refused).split("\n")
        assert len(lines) == len(set(lines))
        assert all("expected" in line.lower() or "now [kinetics" in line for line in lines), lines
        assert all(line.isprintable() and len(line) < 500 for line in lines)
    else:
        assert Settings().with_values(plain(made)) == made


@hypothesis_settings(max_examples=100, deadline=5000)
@given(
    rule=st.sampled_from(typing.get_args(RuleChoice)),
    erosions=st.lists(st.integers(0, 20), min_size=1, max_size=21, unique=True),
    starts=st.lists(st.floats(0, 1440), unique=True, max_size=20),
    tracer=st.text(min_size=1).filter(lambda text: text.strip() == text and "\n" not in text),
    window=st.tuples(st.floats(0, 1440), st.floats(0, 1440)).filter(lambda ends: ends[0] < ends[1]),
    voxel_mm=st.floats(0.5, 10),
)
def test_toml_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    rule: str,
    erosions: list[int],
    starts: list[float],
    tracer: str,
    window: tuple[float, float],
    voxel_mm: float,
) -> None:
    made = Settings().with_values(
        {
            "static": {"window_min": window},
            "resample": {"head_voxel_mm": voxel_mm},
            "curves": {"erosions": erosions},
            "kinetics": {"tracers": [tracer], "patlak": {"rule": rule, "start_min": starts}},
        }
    )
    assert made.curves.erosions == tuple(erosions) and made.static.window_min == window
    assert read(tmp_path_factory.getbasetemp(), made.to_toml()) == made


@pytest.mark.parametrize("name", allowed())
@pytest.mark.parametrize("value", [10**6, ["x"] * 10**6, "x" * 10**6], ids=["number", "list", "text"])
def test_absurd_sizes_are_refused_at_once(name: str, value: object) -> None:
    *sections, parameter = name.split(".")
    values: dict[str, Any] = {parameter: value}
    for section in reversed(sections):
        values = {section: values}

    @hypothesis_settings(max_examples=1, deadline=5000)
    @given(st.none())
    def refused(_: None) -> None:
        try:
            Settings().with_values(values)
        except UsageError as fault:
            assert len(str(fault)) < 500

    refused()


# ---- the command line


def test_bad_values_end_the_program_before_any_work(phantom: Path, tmp_path: Path) -> None:
    """Every value that was once taken, crashed or never ended."""
    bad = {
        "kinetics": {"map_fwhm_mm": float("nan"), "patlak": {"rule": "Simpson"}},
        "aorta": {"method": "nifti-dynamic"},
        "curves": {"erosions": [-1, "x"]},
        "resample": {"spline_order": 99, "head_voxel_mm": 0},
    }
    path = tmp_path / "f.toml"
    path.write_text(tomli_w.dumps(bad))
    made = [tmp_path / "out", tmp_path / "work"]
    done = hedypet(phantom, made[0], "participant", "--settings", path, "--work-dir", made[1], "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 6 and all(str(path) in line for line in lines), done.stderr
    for place in ("rule", "map_fwhm_mm", "[aorta] method", "erosions", "spline_order", "head_voxel_mm"):
        assert sum(place in line for line in lines) == 1, place
    assert not any(folder.exists() for folder in made)


@pytest.mark.parametrize("level", ["participant", "group"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--static-window", "70", "50"], "[static] window_min"),
        (["--window-start", "-5"], "[kinetics.patlak] start_min"),
        (["--map-fwhm", "nan"], "[kinetics] map_fwhm_mm"),
        (["--static-rec", "rec-acstatPSF"], "[selection] static_rec"),
        (["--totalseg-roi-subset", "livr"], "'liver'"),
        (["--model", "Patlac"], "'Patlak'"),
        (["--patlak-rule", "frames"], "--integration-rule"),
        (["--patlak-start", "30", "40"], "--window-start"),
        (["--patlak_map_fwhm", "4"], "--map-fwhm"),
    ],
)
def test_bad_flags_end_the_program_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], level: str, flags: list[str], words: str
) -> None:
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), level, *flags]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())


def test_flags_go_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text("[kinetics]\nmap_fwhm_mm = 4\n[kinetics.patlak]\nrule = 'frames'\nstart_min = [20]\n")
    words = ["in", "out", "participant", "--settings", str(path), "--window-start", "30", "--model", "Patlak"]
    made = settings_of(parse_command(words)).kinetics
    assert made == KineticsSettings(map_fwhm_mm=4.0, patlak=PatlakSettings(rule="frames", start_min=(30.0,)))


@pytest.mark.parametrize(
    ("flag", "choices"),
    [("--integration-rule", RuleChoice), ("--aorta-method", AortaMethod), ("--register", RegisterMethod)],
)
def test_flags_offer_what_the_settings_allow(flag: str, choices: object) -> None:
    # The parser lists them itself, so that --help need not import pydantic.
    [action] = [action for action in _parser()._actions if flag in action.option_strings]
    assert tuple(action.choices or ()) == typing.get_args(choices)
