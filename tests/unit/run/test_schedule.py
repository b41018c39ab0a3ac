"""Steps as a graph: in order, once, side by side or not; what fails stops only what needs it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, OutputError, StoppedBySignal
from hedypet_bids.io.manifest import Kind, StepRecord
from hedypet_bids.io.store import Store, Writer
from hedypet_bids.io.tables import read_table
from hedypet_bids.model import Scan
from hedypet_bids.names import ScanName
from hedypet_bids.run.app import exit_code_of
from hedypet_bids.run.job import ParticipantResult, joined
from hedypet_bids.run.schedule import COUNTED, UNNEEDED, Schedule
from hedypet_bids.settings import Settings
from hedypet_bids.steps.step import CannotRun, Context, Plan, Skip, Step, Tools

LIMIT_S = 20.0
SCAN = Scan("01", ScanName())


@dataclass(eq=False)
class Fake(Step):
    """A step that adds one to what it reads from the tables of those that it builds on."""

    title: str
    after: Sequence[Fake] = ()
    reads: tuple[Path, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    skip: Skip | None = None
    raises: BaseException | None = None
    during: Callable[[], object] = lambda: None
    scan: Scan = field(default=SCAN, kw_only=True)
    also: str = ""
    same_as: str = ""
    holds: str = ""
    always: str = ""
    runs: int = 0

    def __post_init__(self) -> None:
        self.uses = self.holds  # type: ignore[misc]

    @property
    def name(self) -> str:
        return self.title

    @property
    def group(self) -> str:
        return self.title.split()[0]

    @property
    def identity(self) -> object:
        return self.same_as or self

    @property
    def table(self) -> Path | None:
        return self.outputs.get("table", self.title)

    def plan(self) -> Plan | Skip:
        if self.skip is not None:
            return self.skip
        before = [step.table for step in self.after if step.table]
        if self.after and not before:
            return Skip(f"there is nothing of {self.after[0].title}")
        store = self.context.store
        makes: dict[Kind, Path] = {("table", self.title): store.path(f"{self.same_as or self.title}.tsv")}
        if self.also:
            makes["also",] = store.path(self.also)
        return Plan([*before, *self.reads], makes, self.parameters, always=self.always)

    def run(self, plan: Plan, writer: Writer) -> None:
        self.runs += 1
        values = [read_table(path)["value"].iloc[0] for path in plan.reads if path.suffix == ".tsv"]
        for number, path in enumerate(plan.makes.values()):
            table = pd.DataFrame({"value": [sum(values) + 1]})
            writer.table(writer.store.name(path), table, sources=list(plan.reads))
            if number == 0:
                self.during()
                if self.raises:
                    raise self.raises


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out", {})


Do = Callable[..., Schedule]


@pytest.fixture(params=[1, 3], ids=["one after the other", "side by side"])
def at_once(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def do(store: Store, tmp_path: Path, at_once: int) -> Do:
    """Runs steps, both ways."""

    def run(*steps: Step, **how: Any) -> Schedule:
        context = Context(Settings(), store, tools=Tools(log_folder=tmp_path / "log"))
        schedule = Schedule("01", context, **{"side_by_side": at_once, **how})
        for step in steps:
            schedule.add(step)
        schedule.run()
        return schedule

    return run


def states(schedule: Schedule) -> dict[str, str]:
    return {record.title: record.state for record in schedule.records}


def diamond(**more: Any) -> tuple[Fake, Fake, Fake, Fake]:
    a = Fake("a")
    b, c = Fake("b", (a,), **more), Fake("c", (a,))
    return a, b, c, Fake("d", (b, c))


def test_steps_get_what_those_before_them_made(store: Store, do: Do) -> None:
    schedule = do(*diamond())
    assert states(schedule) == dict.fromkeys("abcd", "ran")
    values = {name: read_table(store.path(f"{name}.tsv"))["value"].iloc[0] for name in "abcd"}
    assert values == {"a": 1, "b": 2, "c": 2, "d": 5}
    assert [output.path for output in schedule.outputs()] == ["a.tsv", "b.tsv", "c.tsv", "d.tsv"]


def test_records_are_in_the_order_of_the_pipeline_whatever_ends_first(do: Do) -> None:
    slow = Fake("slow", during=lambda: time.sleep(0.2))
    assert list(states(do(slow, *(Fake(name) for name in "abc")))) == ["slow", "a", "b", "c"]


def test_independent_steps_run_at_the_same_time(do: Do) -> None:
    barrier = threading.Barrier(3)
    steps = [Fake(name, during=lambda: barrier.wait(LIMIT_S)) for name in "abc"]
    assert states(do(*steps, side_by_side=3)) == dict.fromkeys("abc", "ran")


def test_what_only_one_may_use_is_used_by_one(do: Do) -> None:
    using: list[str] = []
    most = [0]

    def use(name: str) -> None:
        using.append(name)
        most[0] = max(most[0], len(using))
        time.sleep(0.05)
        using.remove(name)

    steps = [Fake(name, holds="series", during=lambda name=name: use(name)) for name in "abc"]  # type: ignore[misc]
    assert states(do(*steps)) == dict.fromkeys("abc", "ran")
    assert most == [1]


def test_a_second_run_does_nothing(do: Do) -> None:
    do(*diamond())
    again = diamond()
    schedule = do(*again)
    assert states(schedule) == dict.fromkeys("abcd", "done") and not any(step.runs for step in again)
    assert len(schedule.outputs()) == 4


def test_changed_settings_and_inputs_run_a_step_again_and_what_needs_it(do: Do, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("1")
    do(*diamond(reads=(source,)))
    changed = do(*diamond(reads=(source,), parameters={"n": 2}))
    assert states(changed) == {"a": "done", "b": "ran", "c": "done", "d": "ran"}
    assert "settings" in changed.records[1].reason
    source.write_text("22")
    changed = do(*diamond(reads=(source,), parameters={"n": 2}))
    assert states(changed) == {"a": "done", "b": "ran", "c": "done", "d": "ran"}
    assert "inputs" in changed.records[1].reason


def test_plan_resume_and_run_are_one_walk(do: Do, store: Store) -> None:
    planned = do(*diamond(), dry=True)
    assert not store.root.exists()
    assert states(planned) == dict.fromkeys("abcd", "to run")
    ran = do(*diamond())
    assert [r.title for r in planned.records] == [r.title for r in ran.records]
    assert planned.outputs() == ran.outputs()
    store.path("c.tsv").unlink()
    to_do = do(*diamond(), dry=True)
    assert states(to_do) == {"a": "done", "b": "done", "c": "to run", "d": "to run"}
    assert "c.tsv" in to_do.records[2].reason
    assert states(do(*diamond())) == {"a": "done", "b": "done", "c": "ran", "d": "ran"}
    assert states(do(*diamond(), dry=True)) == dict.fromkeys("abcd", "done")


def test_a_failure_stops_only_what_builds_on_it(do: Do, store: Store) -> None:
    a, b, c, d = diamond(also="b2.tsv", raises=BadDataError("bad header"))
    needs_b = Fake("needs b", (b,))
    schedule = do(a, b, c, d, needs_b)
    assert states(schedule) == {"a": "ran", "b": "failed", "c": "ran", "d": "ran", "needs b": "skipped"}
    assert schedule.records[1].reason == "bad header" and schedule.exit_code == 65
    assert [output.step for output in schedule.outputs()] == ["a", "c", "d"]
    # Also where some of its files were complete.
    assert store.path("b.json").is_file()
    assert states(do(*diamond(also="b2.tsv"))) == {"a": "done", "b": "ran", "c": "done", "d": "ran"}


def test_the_exit_code_is_that_of_the_first_failure(do: Do) -> None:
    schedule = do(
        Fake("a", raises=OutputError("first"), during=lambda: time.sleep(0.1)),
        Fake("b", raises=BadDataError("second")),
    )
    assert [r.exit_code for r in schedule.records] == [OutputError.exit_code, BadDataError.exit_code]
    assert schedule.exit_code == OutputError.exit_code


def test_a_step_that_cannot_run_is_skipped_with_its_reason(do: Do) -> None:
    a = Fake("a", raises=CannotRun("no aorta"))
    schedule = do(a, Fake("b", (a,)), Fake("c", skip=Skip("no PET")))
    assert states(schedule) == dict.fromkeys("abc", "skipped")
    assert [r.reason for r in schedule.records][::2] == ["no aorta", "no PET"]
    assert schedule.exit_code == 0 and schedule.outputs() == ()


def test_a_step_with_nothing_to_do_leaves_no_record(do: Do) -> None:
    heard: list[tuple[str, str, str]] = []
    schedule = do(Fake("a", skip=Skip()), Fake("b"), notify=lambda *told: heard.append(told))
    assert states(schedule) == {"b": "ran"}
    # Those who count steps are told.
    assert heard[0] == ("01", "2", COUNTED)
    assert ("01", "a", UNNEEDED) in heard and ("01", "b", "ran") in heard


def test_a_crash_is_written_down_and_stops_nothing(do: Do, tmp_path: Path) -> None:
    read = tmp_path / "read.nii"
    read.touch()
    schedule = do(Fake("a b", raises=ZeroDivisionError("oops"), reads=(read,)), Fake("c"))
    assert states(schedule) == {"a b": "failed", "c": "ran"}
    assert "ZeroDivisionError" in schedule.records[0].reason and schedule.exit_code == 1
    crash = (tmp_path / "log" / names.crash_file("a b")).read_text()
    assert "Traceback" in crash and "oops" in crash and str(read) in crash


def test_equal_identities_are_one_step(store: Store) -> None:
    first, second = (Scan("01", ScanName(s), alone=False, told_apart_by={"ses": s}) for s in "ab")
    a = Fake("shared", scan=first, same_as="ct")
    b = Fake("shared", scan=second, same_as="ct")
    context = Context(Settings(), store)
    schedule = Schedule("01", context)
    assert schedule.add(a) is a and schedule.add(b) is a
    assert len(schedule.run()) == 1 and (a.runs, b.runs) == (1, 0)
    (output,) = schedule.outputs()
    assert output.scans == ("ses-a", "ses-b") == schedule.records[0].scans


def test_two_steps_for_one_file_are_refused_with_both_names(do: Do) -> None:
    first, second = (Scan("01", ScanName(s), alone=False, told_apart_by={"ses": s}) for s in "ab")
    schedule = do(Fake("x", scan=first, also="same.tsv"), Fake("y", scan=second, also="same.tsv"))
    failed = [record for record in schedule.records if record.state == "failed"]
    assert len(failed) == 1 and schedule.exit_code == 65
    assert all(part in failed[0].reason for part in ("same.tsv", "ses-a", "ses-b"))
    planned = do(Fake("x", scan=first, also="same.tsv"), Fake("y", scan=second, also="same.tsv"), dry=True)
    assert [r.state for r in planned.records].count("failed") == 1


def test_only_chosen_steps_run_and_others_count_when_they_are_done(do: Do) -> None:
    schedule = do(*diamond(), steps=["a", "c"])
    assert states(schedule) == {"a": "ran", "b": "skipped", "c": "ran", "d": "skipped"}
    assert all("--steps" in record.reason for record in schedule.records if record.state == "skipped")
    assert states(do(*diamond(), steps=["b"])) == {"a": "done", "b": "ran", "c": "done", "d": "skipped"}
    planned = do(*diamond(), steps=["d"], dry=True)
    assert states(planned) == {"a": "done", "b": "done", "c": "done", "d": "to run"}


def test_only_what_may_run_here_is_told_where_another_part_tells_of_the_rest(do: Do) -> None:
    heard: set[tuple[str, str, str]] = set()
    do(*diamond(), steps=["a"], tells_of_all=False, notify=lambda *told: heard.add(told))
    assert {(step, state) for _, step, state in heard} == {("4", COUNTED), ("a", "started"), ("a", "ran")}


def test_a_page_is_made_anew_in_every_run(do: Do) -> None:
    for _ in range(2):
        assert states(do(Fake("page", always="it tells of this run"))) == {"page": "ran"}


def test_a_signal_ends_all_steps_through_their_finally_blocks(store: Store, do: Do, at_once: int) -> None:
    """What is half-written is removed before the signal goes on to the caller."""
    started = [threading.Event() for _ in range(at_once)]

    def endless(number: int) -> Callable[[], object]:
        def work() -> object:
            from hedypet_bids.io import stop

            started[number].set()
            while True:
                stop.raise_if_asked()
                time.sleep(0.01)

        return work

    def send() -> None:
        for event in started:
            assert event.wait(LIMIT_S)
        os.kill(os.getpid(), signal.SIGUSR1)

    def end(_number: int, _frame: object) -> None:
        raise StoppedBySignal

    steps = [Fake(f"step {n}", during=endless(n)) for n in range(at_once)]
    before = signal.signal(signal.SIGUSR1, end)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(StoppedBySignal):
            do(*steps)
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    for path in store.root.rglob("*"):
        assert not path.name.startswith(".tmp-")
        assert names.sidecar_of(path).is_file()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hedypet-step")]
    # The next run in the same process is not stopped by the wish to stop this one.
    assert set(states(do(*diamond())).values()) == {"ran"}


# ---- results of participants


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([0, 65], 1), ([65], 65), ([65, 65], 65), ([65, 66], 1), ([1, 0], 1)],
)
def test_exit_code_of_a_run(codes: list[int], expected: int) -> None:
    results = [ParticipantResult(str(n), exit_code=code) for n, code in enumerate(codes)]
    assert exit_code_of(results) == expected
    # Who was not asked for does not count.
    assert exit_code_of([*results, ParticipantResult("x", nothing_selected=True)]) == expected


def test_exit_code_where_nothing_was_asked_for() -> None:
    assert exit_code_of([ParticipantResult(n, nothing_selected=True) for n in "ab"]) == 18


def test_the_parts_of_a_job_are_told_apart_by_scan() -> None:
    """Both parts know every step; each has run its own."""
    gpu = ParticipantResult(
        "1",
        (
            StepRecord("segment total", "ran", about="ct-a"),
            StepRecord("segment total", "failed", "no memory", about="ct-b", exit_code=1),
            StepRecord("means", "skipped", "--steps leaves it out", about="ses-a"),
        ),
        exit_code=1,
    )
    rest = ParticipantResult(
        "1",
        (
            StepRecord("segment total", "done", about="ct-a"),
            StepRecord("segment total", "skipped", "--steps leaves it out", about="ct-b"),
            StepRecord("means", "ran", about="ses-a"),
        ),
    )
    both = joined(gpu, rest)
    assert both.exit_code == 1
    assert [(r.about, r.state) for r in both.records] == [
        ("ct-a", "ran"),
        ("ct-b", "failed"),
        ("ses-a", "ran"),
    ]
