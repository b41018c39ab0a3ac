"""Tables of a dataset, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedypet_bids.errors import BadDataError
from hedypet_bids.inputs.text_files import participant_rows, read_tsv


def table(folder: Path, text: str) -> Path:
    path = folder / "participants.tsv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("cell", ['"', '"open', '"open\t'])
def test_an_open_quote_spoils_its_own_row(tmp_path: Path, cell: str) -> None:
    text = f"participant_id\tnote\tweight\nsub-1\t\t70\nsub-2\t{cell}\t80\nsub-3\tgood\t90\n"
    rows = {row.cells["participant_id"]: row for row in read_tsv(table(tmp_path, text))}
    assert [label for label, row in rows.items() if row.fault] == ["sub-2"]
    assert "line 3" in rows["sub-2"].fault
    assert rows["sub-3"].cells["weight"] == "90"


def test_quotes_of_a_spreadsheet_are_taken_off(tmp_path: Path) -> None:
    text = '"participant_id"\t"note"\n"sub-1"\t"a ""good"" one"\nsub-2\t5" pipe\n'
    rows = list(read_tsv(table(tmp_path, text)))
    assert [dict(row.cells) for row in rows] == [
        {"participant_id": "sub-1", "note": 'a "good" one'},
        {"participant_id": "sub-2", "note": '5" pipe'},
    ]
    assert not any(row.fault for row in rows)


def test_a_cell_too_many_is_a_fault_and_one_cut_off_is_empty(tmp_path: Path) -> None:
    text = "participant_id\tage\tweight\nsub-1\t\t30\t70\nsub-2\t30\nsub-3\t30\t70\t\n"
    first, second, third = read_tsv(table(tmp_path, text))
    assert "4 cells; expected 3" in first.fault
    assert not second.fault and second.cells["weight"] == ""
    assert not third.fault and third.cells["weight"] == "70"


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="weight twice"):
        list(read_tsv(table(tmp_path, "participant_id\tweight\tweight\nsub-1\t70\t71\n")))


CELLS = st.text(st.characters(blacklist_characters="\t\r\n", blacklist_categories=("Cs", "Cc")), max_size=8)


@given(notes=st.lists(CELLS, min_size=3, max_size=3))
def test_no_row_depends_on_what_another_says(
    notes: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = "".join(f"sub-{i}\t{i}0\t{note}\n" for i, note in enumerate(notes))
    path = table(tmp_path_factory.mktemp("table"), f"participant_id\tweight\tnote\n{lines}")
    found = participant_rows(path, {"0", "1", "2"})
    for label in "012":
        (row,) = found[label]
        assert row.cells["weight"] == f"{label}0"
