"""The page that leads to the scans of a participant."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hedypet_bids.io.manifest import Manifest, Output, ScanEntry, ScanOutputs, StepRecord
from hedypet_bids.io.store import Store
from hedypet_bids.model import BrokenScan, FrameTimes, Person, PetMetadata, Scan, Subject
from hedypet_bids.names import ScanName, Source
from hedypet_bids.report.participant import write_participant_page, write_scan_page
from hedypet_bids.report.summary import ScanPage
from hedypet_bids.settings import Settings

NAMES = [ScanName("a", "18FFDG"), ScanName("b", "18FFDG"), ScanName("c", "11CPIB"), ScanName("d", "11CPIB")]


class Rows(HTMLParser):
    """The text and the links of each row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, list[str]]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append(("", []))
        if tag == "a" and self.rows:
            self.rows[-1][1].append(dict(attrs)["href"] or "")

    def handle_data(self, data: str) -> None:
        if self.rows:
            text, links = self.rows[-1]
            self.rows[-1] = (text + data, links)


@pytest.fixture
def scan() -> Scan:
    """A scan with a static PET."""
    pet = Source(
        Path("/raw/sub-01_ses-a_trc-18FFDG_pet.nii.gz"), Path("/raw"), {"subject": "01"}, "pet", "pet"
    )
    metadata = PetMetadata(
        frames=FrameTimes(np.array([3600.0]), np.array([600.0])),
        units="Bq/mL",
        units_factor=1.0,
        dose_bq=2.5e8,
        dose_reason="",
        radionuclide="F18",
        half_life_s=6586.0,
        decay_corrected=True,
        decay_reference_s=0.0,
        decay_factor=np.ones(1),
        scan_start_s=3600.0,
    )
    return Scan("01", NAMES[0], alone=False, statics=(pet,), person=Person("01"), pet={pet.path: metadata})


def test_every_scan_is_listed_with_what_became_of_it(tmp_path: Path, scan: Scan) -> None:
    (tmp_path / "sub-01").mkdir()
    for name, flag in (("now", "the <aorta> is wide"), ("before", "the dose is odd")):
        (tmp_path / "sub-01" / f"{name}.json").write_text(json.dumps({"Flags": [flag]}))
        (tmp_path / "sub-01" / f"{name}.tsv").touch()
    for name in (NAMES[0], NAMES[2]):
        (tmp_path / f"sub-01_{name}.html").touch()
    Manifest(
        "01",
        "earlier",
        scans=(ScanEntry(NAMES[2]),),
        steps=(StepRecord("aorta", "failed", "no room", about=str(NAMES[2])),),
        outputs=(Output(("constants",), "sub-01/before.tsv", (str(NAMES[2]),), "normalise"),),
    ).write(tmp_path)
    page = tmp_path / f"sub-01_{NAMES[0]}.html"
    outputs = {scan: ScanOutputs({("page",): page, ("constants",): tmp_path / "sub-01" / "now.tsv"})}
    records = [
        StepRecord("tacs", "failed", "<script>disc</script>", about=scan.about),
        StepRecord("segment total", "failed", "no licence", about="sub-01_ses-a_ct"),
        StepRecord("quality", "ran", about=scan.about),
    ]
    subject = Subject("01", (scan,), tuple(NAMES), (BrokenScan(NAMES[1], "holes & gaps", 65),))
    write_participant_page(subject, outputs, Store(tmp_path), records)

    text = (tmp_path / "sub-01.html").read_text()
    parser = Rows()
    parser.feed(text)
    [_, this, broken, earlier, never] = parser.rows
    for wanted in ("session a, tracer 18FFDG", "60 to 70 min", "250 MBq", "the <aorta> is wide"):
        assert wanted in this[0]
    assert "tacs failed: <script>disc</script>" in this[0] and "script" not in parser.tags
    assert this[1] == [page.name]
    assert "session b" in broken[0] and "holes & gaps" in broken[0] and broken[1] == []
    assert "aorta failed: no room" in earlier[0] and "the dose is odd" in earlier[0]
    assert earlier[1] == [f"sub-01_{NAMES[2]}.html"]
    assert "session d" in never[0] and never[1] == []
    assert "no licence" in text and "no licence" not in this[0]


def test_without_a_manifest_scans_of_earlier_runs_are_still_found(tmp_path: Path, scan: Scan) -> None:
    (tmp_path / f"sub-01_{NAMES[1]}.html").touch()
    write_participant_page(
        Subject("01", (scan,), tuple(NAMES[:2])), {scan: ScanOutputs()}, Store(tmp_path), []
    )
    parser = Rows()
    parser.feed((tmp_path / "sub-01.html").read_text())
    assert [links for _, links in parser.rows[1:]] == [[], [f"sub-01_{NAMES[1]}.html"]]


def test_tables_that_cannot_be_read_leave_the_rest_of_the_page(tmp_path: Path, scan: Scan) -> None:
    (tmp_path / "sub-01_recording-x_blood.tsv").touch()
    (tmp_path / "sub-01_norm.tsv").write_text("name\tvalue\tmethod\treason\nsuv\t3000\tweight\tn/a\n")
    files = {("blood", "x"): "sub-01_recording-x_blood.tsv", ("constants",): "sub-01_norm.tsv"}
    outputs = ScanOutputs({kind: tmp_path / name for kind, name in files.items()})
    log_folder = tmp_path / "sub-01" / "log" / "run"
    write_scan_page(ScanPage(scan, {}, outputs, [], Settings(), Store(tmp_path), log_folder))
    text = (tmp_path / f"{scan.stem}.html").read_text()
    assert "Not shown: the input functions" in text and files["blood", "x"] in text
    assert 'id="constants-table"' in text and "3000" in text
    assert (tmp_path / "logs" / "CITATION.md").is_file()
