"""Settings survive TOML and refuse what they do not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedypet_bids.errors import MissingInputError, UsageError
from hedypet_bids.settings import PatlakSettings, Settings, digest, plain


def test_toml_round_trip(tmp_path: Path) -> None:
    settings = Settings(patlak=PatlakSettings(rule="frames", last_frames=(4,), start_min=(30.0,)))
    path = tmp_path / "settings.toml"
    path.write_text(settings.to_toml())
    assert Settings.from_toml(path) == settings


def test_what_a_file_does_not_name_keeps_its_default(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[resample]\nct_outside_hu = -1000\n")
    settings = Settings.from_toml(path)
    assert settings.resample.ct_outside_hu == -1000.0
    assert settings.patlak == Settings().patlak


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not toml", "not valid TOML"),
        ("[nothing]\n", "expected only the sections"),
        ("[patlak]\nwindow = 3\n", "knows rule"),
        ("[patlak]\nmap_last_frames = 'four'\n", "must be a int"),
        ("[resample]\nspline_order = 2.5\n", "must be a int"),
        ("patlak = 3\n", "expected only the sections"),
    ],
)
def test_unknown_sections_parameters_and_types_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        Settings.from_toml(path)


def test_missing_file_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError):
        Settings.from_toml(tmp_path / "no.toml")


def test_digest_depends_on_every_value_and_not_on_key_order() -> None:
    settings = plain(Settings())
    assert digest(settings) == digest(dict(reversed(list(settings.items()))))
    changed = {**settings, "curves": {"erosions": [0, 2]}}
    assert digest(settings) != digest(changed)
