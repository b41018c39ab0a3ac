"""Tables as text: what a spreadsheet would run is shielded, and comes back as it was."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedypet_bids.errors import BadDataError
from hedypet_bids.group.table_file import TableFile
from hedypet_bids.io.tables import read_curves, read_table, read_timed, write_table

HOSTILE = ["=1+1", "+SUM(A1)", "-2+3", "@cmd", "'=1", " =1", "''@x"]
HARMLESS = ["liver", "-0.5", "+1e-3", "'quoted'", "a=b"]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_no_cell_begins_like_a_formula_unless_it_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    texts = HOSTILE + HARMLESS
    table = pd.DataFrame({"name": texts, "=value": np.linspace(-1, 1, len(texts))})
    write_table(path, table)
    with path.open(newline="") as file:
        cells = [cell for line in csv.reader(file, delimiter="\t") for cell in line]
    assert not [c for c in cells if c.lstrip()[:1] in tuple("=+-@") and not is_number(c)]
    pd.testing.assert_frame_equal(read_table(path), table, check_dtype=False)
    assert TableFile(path).text("name") == texts
    np.testing.assert_array_equal(TableFile(path).real("=value"), table["=value"])
    assert TableFile(path).frame()["name"].tolist() == texts


PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126, blacklist_characters='"'), min_size=1)


@given(texts=st.lists(PRINTABLE, min_size=1, max_size=5))
def test_texts_come_back(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("tables") / "table.tsv"
    write_table(path, pd.DataFrame({"name": ["text", *texts]}))
    assert read_table(path)["name"].fillna("n/a").tolist() == ["text", *texts]


CURVES = pd.DataFrame({"frame_start": [137, 147], "frame_end": [147, 207], "liver": [3.0, 5.0]})


def test_times_are_read_from_the_injection(tmp_path: Path) -> None:
    path = tmp_path / "x_tacs.tsv"
    write_table(path, CURVES)
    path.with_suffix(".json").write_text('{"InjectionStart": 137}')
    frames, curves = read_curves(path)
    assert (frames.start_s.tolist(), frames.end_s.tolist()) == ([0, 10], [10, 70])
    assert curves.tolist() == [[3.0, 5.0]]


@pytest.mark.parametrize("sidecar", ["", "{}", '{"InjectionStart": "n/a"}', '{"InjectionStart": true}'])
def test_times_without_the_injection_are_refused(tmp_path: Path, sidecar: str) -> None:
    path = tmp_path / "x_tacs.tsv"
    write_table(path, CURVES)
    path.with_suffix(".json").write_text(sidecar)
    with pytest.raises(BadDataError, match=r"x_tacs\.json does not say InjectionStart"):
        read_timed(path)


def test_times_that_are_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x_tacs.tsv"
    write_table(path, CURVES.assign(frame_end="late"))
    path.with_suffix(".json").write_text('{"InjectionStart": 0}')
    with pytest.raises(BadDataError, match="frame_end"):
        read_timed(path)
