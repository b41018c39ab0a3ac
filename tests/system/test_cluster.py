"""Workers that die, runs that are killed, stopped or doubled, and what is asked for in part."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import dask
import pandas as pd
import pytest
from cluster_work import (
    Done,
    die_always,
    die_once,
    die_when_bad,
    do_part,
    fail_or_take_time,
    split_by_name,
    wait_long,
)
from distributed import Client
from kills import killed
from running import (
    ROOT,
    Cluster,
    Run,
    dask_scheduler,
    end,
    hedypet,
    make_certificate,
    only,
    outputs,
    steps_that_ran,
)

from hedypet_bids.cli.main import parse
from hedypet_bids.cli.worker import main as worker_main
from hedypet_bids.errors import BadDataError, TryAgainError, UsageError
from hedypet_bids.inputs.dataset import Dataset
from hedypet_bids.inputs.subject import read_subject
from hedypet_bids.io.lock import exclusive
from hedypet_bids.io.manifest import StepRecord
from hedypet_bids.io.store import Store
from hedypet_bids.phantom import write_phantom
from hedypet_bids.run.app import workers_for
from hedypet_bids.run.cluster import Certificates, GpuParts, Patience, Workers, run_all
from hedypet_bids.run.job import Job, ParticipantResult, gpu_part, joined
from hedypet_bids.run.memory import participant_mb
from hedypet_bids.run.options import STEP_NAMES
from hedypet_bids.settings import Settings


@pytest.fixture(scope="module")
def undisturbed(one_coarse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    done = hedypet(one_coarse, output, "participant", "--skip-bids-validation")
    assert done.returncode == 0, done.stderr
    return output


# The process kills itself when the step has written its first file but not yet its sidecar.
KILLER = """
import os, sys
from pathlib import Path
from hedypet_bids.cli.main import main
step = f'"Step": "{sys.argv[1]}"'
def watch(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith(".json"):
        if step in Path(arguments[0]).read_text():
            os.kill(os.getpid(), 9)
sys.addaudithook(watch)
sys.exit(main(sys.argv[2:]))
"""


def check_kills_inside(steps: Sequence[str], bids: Path, undisturbed: Path, output: Path) -> None:
    """Kill a run inside each of these steps, one after the other; the next ends as an undisturbed one."""
    arguments = [str(bids), str(output), "participant", "--skip-bids-validation", "--nprocs", "1"]
    for step in steps:
        done = subprocess.run(
            [sys.executable, "-c", KILLER, step, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, (step, done.stderr)
    done = hedypet(*arguments)
    assert done.returncode == 0, done.stderr
    runs = sorted(output.glob("sub-001/log/*/steps.tsv"))
    # Only the last run lived to write its record: all that was finished before is not repeated.
    assert len(runs) == 1
    states = pd.read_csv(runs[0], sep="\t").set_index("step")["state"]
    before = states.loc[: steps[-1]].iloc[:-1]
    assert before.isin(["done", "skipped"]).all() and states[steps[-1]] == "ran" == states["report"]
    expected, found = outputs(undisturbed), outputs(output)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert not list(output.rglob(".tmp-*.json"))


@pytest.mark.slow
def test_a_run_killed_inside_steps_ends_as_an_undisturbed_one(
    one_coarse: Path, undisturbed: Path, tmp_path: Path
) -> None:
    steps = ["resample bodydyn", "aorta", "maps Patlak"]
    check_kills_inside(steps, one_coarse, undisturbed, tmp_path / "out")


@pytest.mark.exhaustive
def test_a_run_killed_inside_every_step_ends_as_an_undisturbed_one(phantom: Path, tmp_path: Path) -> None:
    bids = tmp_path / "bids"
    shutil.copytree(phantom, bids, ignore=shutil.ignore_patterns("sub-002"), copy_function=os.link)
    done = hedypet(bids, tmp_path / "undisturbed", "participant", "--skip-bids-validation")
    assert done.returncode == 0, done.stderr
    # The page has no sidecar, and is made anew by every run.
    steps = pd.read_csv(only(tmp_path / "undisturbed", "steps.tsv"), sep="\t")["step"].tolist()[:-1]
    assert len(steps) == 18
    check_kills_inside(steps, bids, tmp_path / "undisturbed", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("nprocs", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_a_run_killed_at_any_moment_ends_as_an_undisturbed_one(
    nprocs: int, one_coarse: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """A short part of tests/kills.py; the moments differ from run to run, and stand in the message."""
    after_s = [random.uniform(4, 16) for _ in range(2)]
    found = killed(one_coarse, tmp_path / "out", outputs(undisturbed), nprocs=nprocs, after_s=after_s)
    assert not found.exit_code and not found.differing, (found, after_s)


@pytest.mark.slow
def test_branches_side_by_side_give_the_same_bytes(
    one_coarse: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """One participant and several processors: its spaces are made at the same time, unless --low-mem."""
    output = tmp_path / "out"
    given = (one_coarse, output, "participant", "--skip-bids-validation", "--nprocs", "4")
    beside = hedypet(*given)
    assert beside.returncode == 0, beside.stderr
    expected = outputs(undisturbed)
    assert outputs(output) == expected
    shutil.rmtree(output)
    alone = hedypet(*given, "--low-mem")
    assert alone.returncode == 0, alone.stderr
    assert outputs(output) == expected

    def starts(done: subprocess.CompletedProcess[str]) -> list[str]:
        return re.findall(r"sub-001 (.+): ran", done.stderr)

    # One after the other, in the order of the pipeline.
    in_turn = ["resample bodystat", "normalise", "resample bodydyn", "aorta", "tacs", "means"]
    assert [step for step in starts(alone) if step in in_turn] == in_turn
    assert sorted(starts(beside)) == sorted(starts(alone))


@pytest.mark.slow
def test_a_fault_in_a_branch_leaves_the_others_whole(one_coarse: Path, tmp_path: Path) -> None:
    raw, output = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(one_coarse, raw)
    dynamic = only(raw / "sub-001", "*rec-acdynPSF_pet.nii.gz")
    content = bytearray(dynamic.read_bytes())
    content[-8] ^= 255  # the checksum at the end: the header can be read, the last frame cannot
    dynamic.write_bytes(content)
    done = hedypet(raw, output, "participant", "--skip-bids-validation", "--nprocs", "4")
    assert done.returncode == 65, done.stderr
    assert f"sub-001 FAILED: tacs: {dynamic}" in done.stderr
    states = pd.read_csv(only(output, "steps.tsv"), sep="\t").set_index("step")["state"]
    assert states["tacs"] == "failed" and states["kinetics Patlak"] == "skipped"
    assert states[["means", "resample head", "quality", "report"]].eq("ran").all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "nprocs",
    [pytest.param("1", marks=pytest.mark.exhaustive), "2", pytest.param("8", marks=pytest.mark.exhaustive)],
)
def test_sigterm_ends_a_run_cleanly_and_it_goes_on(
    coarse: Path, one_coarse: Path, tmp_path: Path, nprocs: str
) -> None:
    """In one process, in two, and in threads: one participant with more processors than it needs."""
    output = tmp_path / "out"
    raw = one_coarse if nprocs == "8" else coarse
    arguments = [raw, output, "participant", "--skip-bids-validation", "--nprocs", nprocs]
    process = subprocess.Popen(
        [sys.executable, ROOT / "run.py", *arguments], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "resample bodystat: ran" in line:
            process.terminate()
    assert process.wait(60) == 75, lines
    assert "finished steps are kept" in lines[-1] and "Traceback" not in "".join(lines)
    assert nprocs == "2" or not list(output.rglob(".tmp-*"))
    for path in output.rglob("*_space-bodystat*.nii.gz"):
        assert path.with_name(path.name.removesuffix(".nii.gz") + ".json").is_file()
    again = hedypet(*arguments)
    assert again.returncode == 0, again.stderr
    assert re.search(r"resample bodystat: done", again.stderr)


def test_a_second_run_on_the_same_participant_says_why_it_stops(one_coarse: Path, tmp_path: Path) -> None:
    lock = tmp_path / "out" / "sub-001" / "log" / ".lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = hedypet(one_coarse, tmp_path / "out", "participant", "--skip-bids-validation")
    assert done.returncode == 75, done.stderr
    assert "Another run is working on sub-001" in done.stdout + done.stderr
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


@pytest.mark.slow
def test_two_runs_into_one_output_end_with_valid_files(coarse: Path, coarse_run: Run, tmp_path: Path) -> None:
    output = tmp_path / "out"
    runs = [
        subprocess.Popen(
            [
                sys.executable,
                ROOT / "run.py",
                coarse,
                output,
                "participant",
                "--skip-bids-validation",
                "--participant-label",
                label,
            ],
            stderr=subprocess.DEVNULL,
        )
        for label in ("001", "002")
    ]
    assert [run.wait(300) for run in runs] == [0, 0]
    groups = [
        subprocess.Popen(
            [sys.executable, ROOT / "run.py", coarse, output, "group"], stderr=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    assert [run.wait(300) for run in groups] == [0, 0]
    # The dataset's own path stands in no table, so these are the bytes of the ordinary run.
    expected = outputs(coarse_run.output / "readouts")
    assert outputs(output / "readouts") == expected
    json.loads((output / "dataset_description.json").read_text())


def test_a_lock_is_released_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "lock"
    with exclusive(path, wait=False, holder="it"):
        code = f"""
from pathlib import Path
from hedypet_bids.io.lock import exclusive
with exclusive(Path({str(path)!r}), wait=False, holder="it"): pass
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "TryAgainError" in done.stderr and "working on it" in done.stderr
    with exclusive(path, wait=False, holder="it"):
        pass
    holder = subprocess.Popen(
        [sys.executable, "-c", code.replace("pass", "print(1, flush=True); import time; time.sleep(60)")],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline()
    with pytest.raises(TryAgainError), exclusive(path, wait=False, holder="it"):
        pass
    holder.kill()
    holder.wait()
    with exclusive(path, wait=False, holder="it"):
        pass


@pytest.mark.slow
def test_steps_run_in_part_and_the_rest_resumes(one_coarse: Path, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = (one_coarse, output, "participant", "--skip-bids-validation")
    first = hedypet(*arguments, "--steps", "segment")
    assert first.returncode == 0, first.stderr
    assert {p.name.rsplit("_", 1)[1] for p in output.rglob("*.nii.gz")} == {"dseg.nii.gz"}
    assert not list(output.rglob("*_space-*")) and not (output / "sub-001.html").exists()
    plan = hedypet(*arguments, "--dry-run", "--steps", "resample", "normalise")
    assert re.search("resample bodystat +to run", plan.stdout)
    assert re.search("aorta +skipped +--steps leaves it out", plan.stdout)
    rest = hedypet(*arguments)
    assert rest.returncode == 0 and "segment total: done" in rest.stderr
    assert outputs(output) == outputs(undisturbed)
    assert hedypet(*arguments, "--steps", "magic").returncode == 2


def test_what_each_step_took_is_kept(undisturbed: Path) -> None:
    table = pd.read_csv(only(undisturbed, "steps.tsv"), sep="\t")
    assert (table["seconds"] > 0).all() and table["peak_mb"].between(100, 3000).all()
    assert only(undisturbed, "settings.toml")
    plan = pd.read_csv(only(undisturbed, "plan.tsv"), sep="\t")
    assert plan["step"].tolist() == table["step"].tolist()
    assert plan["state"].eq("to run").equals(table["state"].eq("ran")) and plan["reason"].notna().all()


@pytest.mark.slow
def test_with_checksums_only_other_content_counts(one_coarse: Path, tmp_path: Path) -> None:
    """A copy of the dataset, with other times, is the same dataset; one other byte makes it another."""
    raw, output = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(one_coarse, raw)
    given = (
        raw,
        output,
        "participant",
        "--skip-bids-validation",
        "--checksums",
        "--steps",
        "segment",
        "means",
    )
    assert hedypet(*given).returncode == 0
    for path in raw.rglob("*.nii.gz"):
        os.utime(path, (1e9, 1e9))
    again = hedypet(*given)
    assert again.returncode == 0 and steps_that_ran(again.stderr) == [], again.stderr
    changed = only(raw / "sub-001", "*rec-acstatPSF_pet.nii.gz")
    content = bytearray(changed.read_bytes())
    content[4] ^= 1  # the time in the header of gzip, which no program looks at
    changed.write_bytes(content)
    os.utime(changed, (1e9, 1e9))
    last = hedypet(*given)
    assert "means: ran" in last.stderr and "segment total: done" in last.stderr, last.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "without"), [("tiny", {"mr"}), pytest.param("small", (), marks=pytest.mark.exhaustive)]
)
def test_the_estimate_of_memory_is_no_less_than_what_is_used(
    size: str, without: Collection[str], tmp_path: Path
) -> None:
    bids = write_phantom(tmp_path / "bids", participants=1, seed=1, size=size, without={"001": without})
    subject = read_subject(Dataset(bids), "001")
    for nprocs in ("1", "4"):
        output = tmp_path / f"out{nprocs}"
        done = hedypet(bids, output, "participant", "--skip-bids-validation", "--nprocs", nprocs)
        assert done.returncode == 0, done.stderr
        peak_mb = pd.read_csv(only(output, "steps.tsv"), sep="\t")["peak_mb"].max()
        estimate_mb = participant_mb(subject, side_by_side=nprocs != "1")
        assert peak_mb <= estimate_mb <= 2 * peak_mb, (nprocs, peak_mb, estimate_mb)


@pytest.mark.slow
def test_so_is_the_estimate_where_voxels_of_the_body_are_fitted(tmp_path: Path) -> None:
    bids = write_phantom(tmp_path / "bids", participants=1, seed=1, size="tiny", without={"001": {"mr"}})
    subject, output = read_subject(Dataset(bids), "001"), tmp_path / "out"
    model = ("--model", "TwoTissueIrr")
    done = hedypet(bids, output, "participant", "--skip-bids-validation", "--nprocs", "1", *model)
    assert done.returncode == 0, done.stderr
    steps = pd.read_csv(only(output, "steps.tsv"), sep="\t").set_index("step")
    assert steps.loc["maps TwoTissueIrr", "state"] == "ran"
    estimate_mb = participant_mb(subject, body_maps=True)
    assert steps["peak_mb"].max() <= estimate_mb <= 2 * steps["peak_mb"].max()


@pytest.mark.slow
def test_levels_are_groups_of_steps(one_coarse: Path, tmp_path: Path) -> None:
    arguments = (one_coarse, tmp_path / "out", "participant", "--skip-bids-validation", "--dry-run")
    plan = hedypet(*arguments, "--level", "minimal").stdout
    assert "to run" in re.search(r"segment total.*", plan)[0]  # type: ignore[index]
    for left_out in ("resample bodystat", "normalise", "tacs"):
        assert "--steps leaves it out" in re.search(f"{left_out} .*", plan)[0]  # type: ignore[index]
    plan = hedypet(*arguments, "--level", "resampling").stdout
    assert "to run" in re.search(r"normalise .*", plan)[0]  # type: ignore[index]
    assert "--steps leaves it out" in re.search(r"^ +means .*", plan, re.M)[0]  # type: ignore[index]
    both = hedypet(*arguments, "--level", "full", "--steps", "tacs")
    assert both.returncode == 2 and "not allowed with" in both.stderr
    assert hedypet(*arguments, "--level", "full").stdout == hedypet(*arguments).stdout


def test_memory_limits_the_workers() -> None:
    assert Workers(8).number_for(3) == 3
    assert Workers(2).number_for(30) == 2
    assert Workers(8, memory_mb=10_000, item_mb=3000).number_for(30) == 3
    assert Workers(8, memory_mb=1000, item_mb=3000).number_for(30) == 1


@pytest.mark.parametrize(
    ("more", "has_mb", "n_workers", "warned"),
    [
        ([], 1e6, 4, False),
        ([], 1500.0, 2, False),
        ([], 500.0, 1, True),
        (["--mem-mb", "1500"], 1e6, 2, False),
        (["--mem-mb", "500"], 1e6, 1, True),
        (["--dask-scheduler", "tls://x:1"], 500.0, 4, False),
    ],
)
def test_no_more_workers_start_than_fit_into_the_memory(
    more: list[str],
    has_mb: float,
    n_workers: int,
    warned: bool,
    one_coarse: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logging.getLogger("hedypet"), "propagate", True)
    # A tiny participant is estimated to need a little more than 600 MB.
    jobs = [Job("001", one_coarse, Store(tmp_path, {}), Settings(), "run")] * 4
    options = parse([str(one_coarse), str(tmp_path), "participant", *more])
    workers = workers_for(options, jobs, 4, has_mb=lambda: has_mb)
    assert workers.number_for(4) == n_workers
    assert ("estimated to need" in caplog.text) is warned


# Work for the engine itself; module-level, so that workers find it.


def _silent(*_: str) -> None:
    """No progress is looked at."""


def _lost(item: str, reason: str) -> str:
    return f"lost {item}: {reason}"


@pytest.mark.slow
def test_a_lost_worker_costs_one_repetition_then_its_item(tmp_path: Path) -> None:
    markers = [str(tmp_path / name) for name in ("a", "b")]
    done = list(run_all(die_once, markers, workers=Workers(2), notify=_silent, lost=_lost))
    assert done == ["second time", "second time"]
    names = ["one", "bad", "two"]
    found = sorted(run_all(die_always, names, workers=Workers(2, 4000.0, 500.0), notify=_silent, lost=_lost))
    assert found[:2] == ["good one", "good two"]
    assert "lost bad" in found[2] and "signal 9 (SIGKILL)" in found[2] and "share was 2000 MB" in found[2]


TWICE = """
from hedypet_bids.run.cluster import Workers
from hedypet_bids.run.cluster import run_all
if __name__ == "__main__":
    for _ in range(2):
        two = Workers(2)
        print(sorted(run_all(lambda item, _: 2 * item, [1, 2], workers=two, notify=print, lost=print)))
"""


@pytest.mark.slow
def test_a_process_may_run_workers_more_than_once() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[2, 4]\n[2, 4]\n"), done.stderr


def test_enough_stops_before_the_next_item() -> None:
    seen = list(
        run_all(
            lambda item, _notify: item,
            ["one", "two", "three"],
            workers=Workers(1),
            notify=_silent,
            lost=_lost,
            enough=lambda result: result == "two",
        )
    )
    assert seen == ["one", "two"]


def test_the_first_crash_stops_when_asked(coarse: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(coarse, raw)
    only(raw / "sub-001", "*rec-acstatPSF_pet.nii.gz").write_bytes(b"no image")
    done = hedypet(
        raw,
        tmp_path / "out",
        "participant",
        "--skip-bids-validation",
        "--nprocs",
        "1",
        "--stop-on-first-crash",
    )
    assert done.returncode == 1, done.stderr
    assert "not begun" in done.stderr and not (tmp_path / "out" / "sub-002.html").exists()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A Dask scheduler on this machine."""
    with dask_scheduler(tmp_path) as cluster:
        yield cluster


def workers_of(cluster: Cluster, patience: Patience | None = None) -> Workers:
    certificates = Certificates(cluster.cert, cluster.cert, cluster.key)
    return Workers(1, scheduler=cluster.address, certificates=certificates, patience=patience or Patience())


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_cluster_finishes_although_a_worker_is_killed_half_way(
    coarse: Path, coarse_run: Run, cluster: Cluster, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    workers = [cluster.worker(), cluster.worker()]
    try:
        run = subprocess.Popen(
            [
                sys.executable,
                ROOT / "run.py",
                coarse,
                output,
                "participant",
                "--skip-bids-validation",
                "--dask-scheduler",
                cluster.address,
                *cluster.tls,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert run.stderr is not None
        lines = []
        for line in run.stderr:
            lines.append(line)
            if "resample bodystat: ran" in line and len(workers) == 2:
                # The whole machine goes: the worker and the process that watches over it.
                os.killpg(workers.pop().pid, signal.SIGKILL)
        assert run.wait(300) == 0, "".join(lines)
    finally:
        end(workers)
    for label in ("001", "002"):
        expected = outputs(coarse_run.output / f"sub-{label}")
        assert outputs(output / f"sub-{label}").keys() == expected.keys()
    assert "2 of 2 participants finished" in lines[-1]


def lost_part(part: str, reason: str) -> list[Done]:
    raise AssertionError(f"{part}: {reason}")


@pytest.mark.slow
def test_parts_that_want_a_gpu_take_one_each_and_the_rest_go_anywhere(cluster: Cluster) -> None:
    # Three parts at a time, and a single GPU among them.
    workers = [cluster.worker("--nthreads", "3", "--gpus", "1"), cluster.worker("--gpus", "0")]
    items = ["gpu rest"] * 4 + ["gpu", "rest", "rest"]
    try:
        found = list(
            run_all(
                do_part,
                items,
                workers=workers_of(cluster),
                notify=_silent,
                lost=lost_part,
                gpu_parts=GpuParts(split_by_name, lambda one, two: one + two),
            )
        )
    finally:
        end(workers)
    assert sorted([part.part for part in parts] for parts in found) == sorted(
        [["gpu", "rest"]] * 4 + [["gpu"], ["rest"], ["rest"]]
    )
    on_gpu = sorted((p for parts in found for p in parts if p.part == "gpu"), key=lambda p: p.began)
    assert len(on_gpu) == 5 and all(part.gpus == 1 for part in on_gpu)
    assert all(one.ended <= two.began for one, two in pairwise(on_gpu))
    assert all(parts[0].ended <= parts[1].began for parts in found if len(parts) == 2)


@pytest.mark.slow
def test_a_part_that_kills_its_gpu_worker_costs_only_its_item(cluster: Cluster) -> None:
    workers = [cluster.worker("--gpus", "1")]
    parts: GpuParts[str, str] = GpuParts(
        lambda name: (f"gpu {name}", f"rest {name}"), lambda one, two: f"{one}, {two}"
    )
    try:
        found = list(
            run_all(
                die_when_bad,
                ["bad", "a", "b", "c"],
                workers=workers_of(cluster),
                notify=_silent,
                lost=_lost,
                gpu_parts=parts,
            )
        )
    finally:
        end(workers)
    assert sorted(text for text in found if "bad" not in text) == [
        f"gpu {name}, rest {name}" for name in ("a", "b", "c")
    ]
    assert [text.partition(":")[0] for text in found if "bad" in text] == ["lost gpu bad"]


@pytest.mark.slow
def test_a_cluster_without_what_is_needed_is_told_and_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("hedypet"), "propagate", True)

    def run(patience: Patience) -> list[list[Done]]:
        return list(
            run_all(
                do_part,
                ["gpu rest"],
                workers=workers_of(cluster, patience),
                notify=_silent,
                lost=lost_part,
                gpu_parts=GpuParts(split_by_name, lambda one, two: one + two),
            )
        )

    short = Patience(notice_s=1.0, worker_s=3.0)
    with pytest.raises(TryAgainError, match="has no workers"):
        run(short)
    workers = [cluster.worker("--gpus", "0")]
    try:
        with Client(cluster.address, security=workers_of(cluster).certificates.security("client")) as client:
            client.wait_for_workers(1, timeout=60)
        with pytest.raises(TryAgainError, match=r"offers a GPU.*--gpus 1"):
            run(short)
        # One that comes later is found.
        caplog.clear()
        timer = threading.Timer(3.0, lambda: workers.append(cluster.worker("--gpus", "1")))
        timer.start()
        (parts,) = run(Patience(notice_s=1.0, worker_s=120.0))
        timer.join()
    finally:
        end(workers)
    assert [part.part for part in parts] == ["gpu", "rest"]
    assert "offers a GPU" in caplog.text


@pytest.mark.slow
def test_a_scheduler_that_goes_away_is_named(cluster: Cluster, tmp_path: Path) -> None:
    workers = [cluster.worker()]
    marker = tmp_path / "marker"

    def kill() -> None:
        while not marker.exists():
            time.sleep(0.1)
        cluster.process.kill()

    try:
        threading.Thread(target=kill).start()
        patience = Patience(connect_s=5.0)
        results = run_all(
            wait_long, [str(marker)], workers=workers_of(cluster, patience), notify=_silent, lost=_lost
        )
        with pytest.raises(TryAgainError, match=r"is gone\. Run the same command again"):
            list(results)
    finally:
        end(workers)


@pytest.mark.slow
def test_what_runs_is_finished_after_the_first_failure(tmp_path: Path) -> None:
    """Two worker processes: the one that has not failed is let end, and nothing else begins."""
    found = list(
        run_all(
            fail_or_take_time,
            [str(tmp_path / name) for name in ("bad", "slow", "next", "last")],
            workers=Workers(2),
            notify=_silent,
            lost=_lost,
            enough=lambda result: result == "bad",
        )
    )
    assert found == ["bad", "slow"]


def test_a_worker_says_what_is_wrong_with_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["--nthreads", "0"], "at least 1"),
        (["--gpus", "-1"], "at least 0"),
        (["--memory-limit", "much"], "a size such as 16GB"),
    ):
        with pytest.raises(SystemExit) as ended:
            worker_main(["tls://127.0.0.1:9", *words])
        assert ended.value.code == 2
        assert told in capsys.readouterr().err


@pytest.mark.slow
def test_a_cluster_segments_where_the_gpus_are(
    coarse: Path, coarse_run: Run, cluster: Cluster, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = (coarse, output, "participant", "--skip-bids-validation", "--device", "gpu")
    workers = [cluster.worker("--gpus", "1"), cluster.worker("--gpus", "0")]
    try:
        done = hedypet(*words, "--dask-scheduler", cluster.address, *cluster.tls)
    finally:
        end(workers)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 participants finished" in done.stderr
    for label in ("001", "002"):
        expected = outputs(coarse_run.output / f"sub-{label}")
        assert outputs(output / f"sub-{label}").keys() == expected.keys()
        rest, on_gpu = sorted(path.parent for path in output.glob(f"sub-{label}/log/*/steps.tsv"))
        assert on_gpu.name == f"{rest.name}_gpu"
        states = pd.read_csv(on_gpu / "steps.tsv", sep="\t").set_index("step")["state"]
        assert states["segment total"] == "ran" and states["resample bodystat"] == "skipped"
        states = pd.read_csv(rest / "steps.tsv", sep="\t").set_index("step")["state"]
        assert states["segment total"] == "done" and states["resample bodystat"] == "ran"


def test_the_two_parts_of_a_participant_are_its_steps_and_give_one_result(tmp_path: Path) -> None:
    job = Job("001", tmp_path, Store(tmp_path, {}), Settings(), "run")
    on_gpu, rest = gpu_part(job)
    assert on_gpu and rest and on_gpu.steps + rest.steps == STEP_NAMES and on_gpu.run_id != rest.run_id
    assert gpu_part(replace(job, steps=("segment",)))[1] is None
    assert gpu_part(replace(job, steps=("tacs", "report")))[0] is None
    left_out = StepRecord("segment total", "skipped", "--steps leaves it out")
    segmented = StepRecord("segment total", "failed", "why")
    one = ParticipantResult("001", (segmented, StepRecord("aorta", "skipped")), 66, "why")
    two = ParticipantResult("001", (left_out, StepRecord("aorta", "ran")), 0, "")
    both = joined(one, two)
    assert [record.state for record in both.records] == ["failed", "ran"]
    assert both.exit_code == 66 and both.error == "why"
    assert joined(one, replace(two, exit_code=75, error="why")).error == "why"


def test_an_address_without_a_scheduler_is_named(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    certificates = Certificates(cert, cert, key)
    nowhere = "tls://127.0.0.1:9"
    workers = Workers(1, scheduler=nowhere, certificates=certificates, patience=Patience(connect_s=1.0))
    with pytest.raises(TryAgainError, match="there is no scheduler"):
        list(run_all(die_always, ["a"], workers=workers, notify=_silent, lost=_lost))


def test_a_scheduler_that_anybody_can_use_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its address, and where there is no certificate to show; what Dask's settings name counts."""
    with pytest.raises(UsageError, match="tls://"):
        parse([str(tmp_path), str(tmp_path / "out"), "participant", "--dask-scheduler", "tcp://node1:8786"])
    with pytest.raises(SystemExit) as ended:
        worker_main(["tcp://node1:8786"])
    assert ended.value.code == 2 and "tls://" in capsys.readouterr().err
    assert worker_main(["tls://127.0.0.1:9", "--work-dir", str(tmp_path)]) == 2
    assert "--tls-ca-file" in capsys.readouterr().err
    with pytest.raises(UsageError, match="absent"):
        Certificates(tmp_path / "absent", tmp_path / "absent", tmp_path / "absent").security("client")
    cert, key = map(str, make_certificate(tmp_path))
    with pytest.raises(UsageError, match="--tls-key"):
        Certificates(Path(cert), Path(cert)).security("client")
    with pytest.raises(UsageError, match="cannot be used"):
        Certificates(Path(cert), Path(key), Path(key)).security("worker")
    named = {"ca-file": cert, "client.cert": cert, "client.key": key}
    with dask.config.set({f"distributed.comm.tls.{name}": path for name, path in named.items()}):
        assert Certificates().security("client").require_encryption


def test_an_unreadable_image_has_no_estimate(one_coarse: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(one_coarse, raw)
    usable = read_subject(Dataset(raw), "001")
    (scan,) = usable.scans
    only(raw / "sub-001", "*rec-acdynPSF_pet.nii.gz").write_bytes(b"no image")
    with pytest.raises(BadDataError, match="acdynPSF"):
        participant_mb(replace(usable, scans=(scan,)))
