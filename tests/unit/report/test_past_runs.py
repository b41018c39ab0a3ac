"""Times and failures of earlier runs, from their log folders."""

from __future__ import annotations

from pathlib import Path

from hedypet_bids.io.manifest import StepRecord
from hedypet_bids.report.past_runs import PastRuns, crash_text

COLUMNS = "step\tabout\tstate\tseconds\tpeak_mb\treason\n"


def write_log(logs: Path, run: str, text: str) -> None:
    (logs / run).mkdir(parents=True)
    (logs / run / "steps.tsv").write_text(text)


def test_the_last_run_that_did_the_work_counts(tmp_path: Path) -> None:
    write_log(tmp_path, "1", COLUMNS + "tacs\tses-a\tran\t5\t100\t\ntacs\tses-b\tfailed\t2\t10\tfull disc\n")
    write_log(tmp_path, "2", COLUMNS + "tacs\tses-a\tdone\t0\t0\t\ntacs\tses-b\tskipped\t0\t0\tno CT\n")
    write_log(tmp_path, "3", COLUMNS + "tacs\tses-a\tran\t7\t70\t\n")
    past = PastRuns.before(tmp_path / "3")
    first, second = (past.of(StepRecord("tacs", "done", about=about)) for about in ("ses-a", "ses-b"))
    assert first is not None and second is not None
    assert (first.run, first.state, first.seconds, first.peak_mb) == ("1", "ran", 5.0, 100.0)
    assert (second.run, second.state, second.reason) == ("1", "failed", "full disc")
    assert past.of(StepRecord("tacs", "done")) is None


def test_logs_that_do_not_say_what_a_step_worked_on_are_of_the_only_scan(tmp_path: Path) -> None:
    write_log(tmp_path, "1", "step\tstate\tseconds\tpeak_mb\treason\naorta\tran\t5\t100\t\n")
    write_log(tmp_path, "2", COLUMNS + "quality\t\tran\t3\t50\t\n")
    past = PastRuns.before(tmp_path / "3")
    assert {past.of(StepRecord(name, "done")).run for name in ("aorta", "quality")} == {"1", "2"}


def test_half_a_table_is_passed_over(tmp_path: Path) -> None:
    write_log(tmp_path, "1", "")
    write_log(tmp_path, "2", "step\tstate\naorta\tran\n")
    (tmp_path / "3").mkdir()
    assert PastRuns.before(tmp_path / "4").steps == {}


def test_the_end_of_a_crash_file_is_shown(tmp_path: Path) -> None:
    record = StepRecord("kinetics Patlak", "failed", about="ses-a_trc-18FFDG")
    assert crash_text(tmp_path, record) == ""
    (tmp_path / "crash-kinetics-Patlak-ses-a_trc-18FFDG.txt").write_text("x" * 30_000 + "the end")
    text = crash_text(tmp_path, record)
    assert text.endswith("the end") and len(text) == 20_000
