"""What the runner does with steps that run, are done, cannot run, fail or crash."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hedypet_bids.errors import BadDataError, OutputError
from hedypet_bids.io.store import Store, Writer
from hedypet_bids.run.app import exit_code_of
from hedypet_bids.run.schedule import ParticipantResult, StepRunner
from hedypet_bids.steps.step import CannotRun, Step


@dataclass
class Fake(Step[str]):
    """A step that writes one table, or raises."""

    store: Store
    raises: Exception | None = None
    skip: str = ""
    reads: tuple[Path, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    output: str = "t.tsv"
    runs: int = 0

    @property
    def name(self) -> str:
        return "fake"

    def skip_reason(self) -> str:
        return self.skip

    def sources(self) -> Iterable[Path]:
        return self.reads

    def settings(self) -> Mapping[str, Any]:
        return self.parameters

    def results(self) -> str:
        return "result"

    def nothing(self) -> str:
        return ""

    def outputs(self) -> Iterable[Path]:
        return [self.store.path(self.output)]

    def run(self, writer: Writer) -> None:
        self.runs += 1
        writer.table(self.output, pd.DataFrame({"a": [self.runs]}), sources=self.reads)
        if self.raises:
            raise self.raises


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out", {})


@pytest.fixture
def study(store: Store, tmp_path: Path) -> StepRunner:
    return StepRunner("01", store, tmp_path / "log")


def test_a_step_runs_once_and_is_then_done(store: Store, study: StepRunner) -> None:
    step = Fake(store)
    assert study.do(step) == "result"
    assert study.do(step) == "result"
    assert step.runs == 1
    assert [r.state for r in study.records] == ["ran", "done"]


def test_changed_settings_and_changed_inputs_run_a_step_again(
    store: Store, study: StepRunner, tmp_path: Path
) -> None:
    source = tmp_path / "in.txt"
    source.write_text("1")
    step = Fake(store, reads=(source,))
    study.do(step)
    step.parameters = {"n": 2}
    study.do(step)
    source.write_text("22")
    study.do(step)
    assert step.runs == 3
    assert ["other settings" in study.records[1].reason, "other inputs" in study.records[2].reason] == [
        True,
        True,
    ]


def test_a_skipped_step_gives_nothing_and_its_reason(store: Store, study: StepRunner) -> None:
    assert study.do(Fake(store, skip="no PET")) == ""
    assert study.do(Fake(store, raises=CannotRun("no aorta"))) == ""
    assert [(r.state, r.reason) for r in study.records] == [("skipped", "no PET"), ("skipped", "no aorta")]
    assert study.exit_code == 0


def test_a_failing_step_is_named_and_the_next_one_still_runs(store: Store, study: StepRunner) -> None:
    assert study.do(Fake(store, raises=BadDataError("bad header"))) == ""
    assert study.do(Fake(store, output="other.tsv")) == "result"
    assert [r.state for r in study.records] == ["failed", "ran"]
    assert study.exit_code == 65


def test_a_failed_step_runs_again_next_time(store: Store, study: StepRunner) -> None:
    # Its one file got a sidecar before the failure, as any of several files may.
    step = Fake(store, raises=BadDataError("x"), output="t.tsv")
    study.do(step)
    fixed = Fake(store, output="t.tsv")
    fixed.outputs = lambda: [store.path("t.tsv"), store.path("second.tsv")]  # type: ignore[method-assign]
    study.do(fixed)
    assert fixed.runs == 1


def test_a_crash_is_written_down_and_stops_nothing(store: Store, study: StepRunner, tmp_path: Path) -> None:
    read = tmp_path / "read.nii"
    read.touch()
    study.do(Fake(store, raises=ZeroDivisionError("oops"), reads=(read,)))
    record = study.records[0]
    assert record.state == "failed" and "ZeroDivisionError" in record.reason
    crash = (tmp_path / "log" / "crash-fake.txt").read_text()
    assert "Traceback" in crash and "oops" in crash and "'fake'" in crash and str(read) in crash
    assert study.exit_code == 1


@pytest.mark.parametrize("parallel", [True, False])
def test_branches_are_recorded_as_one_after_the_other(
    store: Store, study: StepRunner, parallel: bool
) -> None:
    study.parallel = parallel
    barrier = threading.Barrier(2 if parallel else 1)

    def branch(output: str, fault: Exception | None, runner: StepRunner) -> str:
        barrier.wait(20.0)
        first = runner.do(Fake(store, output=f"{output}1.tsv"))
        return first + runner.do(Fake(store, output=f"{output}2.tsv", raises=fault))

    found = study.side_by_side(
        partial(branch, "a", BadDataError("first")), partial(branch, "b", OutputError("second"))
    )
    assert found == ("result", "result")
    assert [r.state for r in study.records] == ["ran", "failed", "ran", "failed"]
    assert [r.reason for r in study.records][1::2] == ["first", "second"]
    assert study.exit_code == BadDataError.exit_code != OutputError.exit_code


def test_planning_runs_nothing(store: Store, tmp_path: Path) -> None:
    study = StepRunner("01", store, tmp_path / "log", dry=True)
    step = Fake(store)
    assert study.do(step) == "result"
    assert study.do(Fake(store, reads=(tmp_path / "not made yet",))) == "result"
    assert step.runs == 0
    assert [r.state for r in study.records] == ["to run", "to run"]
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([0, 65], 1), ([65], 65), ([65, 65], 65), ([65, 66], 1), ([1, 0], 1)],
)
def test_exit_code_of_a_run(codes: list[int], expected: int) -> None:
    results = [ParticipantResult(str(n), exit_code=code) for n, code in enumerate(codes)]
    assert exit_code_of(results) == expected
