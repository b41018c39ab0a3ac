"""deploy/slurm on a real SLURM: jobs, dependencies, exit codes, resources and outputs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from running import ROOT, Run, content_of, only

from hedypet_bids.run.options import STEP_NAMES

DEPLOY = ROOT / "deploy" / "slurm"
SLURM_UP = ROOT / "scripts" / "slurm_up.sh"
BIN = Path(sys.executable).parent
HEDYPET = shlex.join([sys.executable, str(ROOT / "run.py")])
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
TASK_MB = 3000
SMALL = {
    "HEDYPET_SEGMENT_SBATCH": f"--gres=gpu:1 --cpus-per-task=1 --mem={TASK_MB}",
    "HEDYPET_PARTICIPANT_SBATCH": f"--cpus-per-task=1 --mem={TASK_MB}",
    "HEDYPET_GROUP_SBATCH": f"--cpus-per-task=1 --mem={TASK_MB}",
}


@dataclass(frozen=True)
class Task:
    """What SLURM tells of a job, or of one task of an array."""

    name: str
    state: str
    exit_code: str
    dependency: str
    started: str
    ended: str


@dataclass(frozen=True)
class Cluster:
    """A running SLURM of two nodes, both of them this machine."""

    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), **more}

    def call(self, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment(**environment),
        )

    def submit(self, *arguments: str | Path, **environment: str) -> dict[str, int]:
        """Submit with ``submit.sh``; the ids of the jobs by name."""
        done = self.call(DEPLOY / "submit.sh", *arguments, **{**SMALL, **environment})
        assert done.returncode == 0, done.stderr
        return {name: int(number) for name, number in map(str.split, done.stdout.splitlines())}

    def tasks(self) -> dict[tuple[int, str], Task]:
        """All jobs by number and array index; the index is empty outside of arrays."""
        found = {}
        for line in self.call("scontrol", "--oneliner", "show", "job").stdout.splitlines():
            fields = dict(re.findall(r"(\w+)=(\S*)", line))
            if "JobId" in fields:
                key = (int(fields.get("ArrayJobId", fields["JobId"])), fields.get("ArrayTaskId", ""))
                names = ("JobName", "JobState", "ExitCode", "Dependency", "StartTime", "EndTime")
                found[key] = Task(*(fields[name] for name in names))
        return found

    def wait(self, *jobs: int, timeout_s: float = 300) -> dict[tuple[int, str], Task]:
        """The tasks of these jobs, once all have ended."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            tasks = {key: task for key, task in self.tasks().items() if key[0] in jobs}
            if tasks and all(task.state in ENDED for task in tasks.values()):
                return tasks
            time.sleep(0.5)
        raise AssertionError(f"jobs {jobs} have not ended after {timeout_s} s: {tasks}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    missing = [name for name in ("sbatch", "slurmctld", "slurmd", "munged") if not shutil.which(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (Debian packages slurm-wlm and munge)")
    if os.getuid() != 0:
        pytest.skip("only root can start the daemons of SLURM")
    folder = tmp_path_factory.mktemp("slurm")
    up = subprocess.run([SLURM_UP, folder], capture_output=True, text=True, check=False)
    assert up.returncode == 0, up.stderr
    cluster = Cluster(folder)
    yield cluster
    cluster.call("scancel", "--user=root")
    subprocess.run([SLURM_UP, "--stop", folder], check=True)


@pytest.fixture
def copy(coarse: Path, tmp_path: Path) -> Path:
    """A coarse phantom of two participants to break."""
    return Path(shutil.copytree(coarse, tmp_path / "bids", copy_function=os.link))


def results(output: Path) -> dict[str, bytes]:
    """Tables and images by name: all that does not tell of a run."""
    suffixes = (".tsv", ".tsv.gz", ".nii.gz", ".txt", ".parquet")
    paths = [path for path in output.rglob("*") if path.is_file() and path.name.endswith(suffixes)]
    names = [path.relative_to(output) for path in paths]
    return {str(name): content_of(output / name) for name in names if not {"log", "logs"} & {*name.parts}}


def differing(one: Path, other: Path) -> list[str]:
    """Names of results that only one output has, or that are not the same byte for byte."""
    first, second = results(one), results(other)
    return [name for name in sorted({*first, *second}) if first.get(name) != second.get(name)]


def states(tasks: dict[tuple[int, str], Task]) -> dict[tuple[int, str], tuple[str, str]]:
    return {key: (task.state, task.exit_code) for key, task in tasks.items()}


def steps_of_last_run(output: Path, label: str) -> pd.Series:
    """The states of the steps that had something to do, without the page, which every run writes anew."""
    path = max((output / f"sub-{label}" / "log").glob("*/steps.tsv"), key=lambda p: p.stat().st_mtime_ns)
    states = pd.read_csv(path, sep="\t").set_index("step")["state"].drop("report")
    return states[states != "skipped"]


def stand_in(folder: Path, name: str, script: str) -> Path:
    """A small program in place of hedypet or singularity."""
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    return path


# The whole way with the real program


@pytest.mark.exhaustive
def test_two_participants_come_out_as_without_slurm(
    cluster: Cluster, coarse: Path, coarse_run: Run, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    jobs = cluster.submit(coarse, output, HEDYPET=HEDYPET)
    tasks = cluster.wait(*jobs.values())

    segment, participant, group = jobs["segment"], jobs["participant"], jobs["group"]
    expected = {(segment, "1"), (segment, "2"), (participant, "1"), (participant, "2"), (group, "")}
    assert states(tasks) == dict.fromkeys(expected, ("COMPLETED", "0:0"))
    for earlier, later in ((segment, participant), (participant, group)):
        ended = max(task.ended for (number, _), task in tasks.items() if number == earlier)
        started = min(task.started for (number, _), task in tasks.items() if number == later)
        assert ended <= started

    assert len(results(output)) > 100 and differing(output, coarse_run.output) == []
    assert len(list((output / "logs" / "slurm").glob("*.log"))) == 5

    last = steps_of_last_run(output, "001")
    by_array = last.index.str.startswith("segment")
    assert last[by_array].eq("done").all() and last[~by_array].eq("ran").all()


@pytest.mark.slow
def test_a_participant_that_fails_shows_as_failed_and_goes_on_when_mended(
    cluster: Cluster, copy: Path, coarse_run: Run, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    ct = only(copy / "sub-002", "*_rec-br38f_ct.nii.gz")
    whole = ct.read_bytes()
    ct.unlink()
    ct.write_bytes(whole[: len(whole) // 2])
    jobs = cluster.submit(copy, output, HEDYPET=HEDYPET)
    tasks = states(cluster.wait(*jobs.values()))

    assert tasks[jobs["participant"], "1"] == ("COMPLETED", "0:0")
    assert tasks[jobs["participant"], "2"] == ("FAILED", "65:0")
    # The tables are made of what there is; that a participant failed is not hidden.
    assert tasks[jobs["group"], ""] == ("FAILED", "1:0")
    log = output / "logs" / "slurm" / f"participant_{jobs['participant']}_2.log"
    assert ct.name in log.read_text()
    assert steps_of_last_run(output, "001").eq("ran").any()

    ct.write_bytes(whole)
    again = cluster.submit(copy, output, HEDYPET=HEDYPET)
    assert {state for state, _ in states(cluster.wait(*again.values())).values()} == {"COMPLETED"}
    assert steps_of_last_run(output, "001").eq("done").all()
    assert differing(output, coarse_run.output) == []


@pytest.mark.slow
def test_a_dataset_that_is_not_valid_is_refused_before_anything_is_submitted(
    cluster: Cluster, copy: Path, tmp_path: Path
) -> None:
    description = copy / "dataset_description.json"
    description.unlink()
    description.write_text('{"Name": "without a version"}')
    before = cluster.tasks().keys()
    done = cluster.call(DEPLOY / "submit.sh", copy, tmp_path / "out", **SMALL, HEDYPET=HEDYPET)
    assert done.returncode == 16
    assert "nothing was submitted" in done.stderr and "BIDSVersion" in done.stderr
    assert cluster.tasks().keys() == before


STRANGER = """
import subprocess, sys, tempfile
from distributed import Client
from distributed.security import Security

folder = tempfile.mkdtemp()
key, certificate = f"{folder}/key.pem", f"{folder}/cert.pem"
subprocess.run(
    ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=stranger", "-keyout", key]
    + ["-out", certificate],
    check=True,
    capture_output=True,
)
# The scheduler's certificate is public to whoever connects; its key is not.
own = Security(
    tls_ca_file=sys.argv[2],
    tls_client_key=key,
    tls_client_cert=certificate,
    require_encryption=True,
)
try:
    Client(sys.argv[1], security=own, timeout=5)
    print("connected")
except OSError:
    print("refused")
"""


@pytest.mark.slow
def test_dask_over_two_nodes(cluster: Cluster, coarse: Path, coarse_run: Run, tmp_path: Path) -> None:
    output, log, nodes, stranger = (tmp_path / name for name in ("out", "job.log", "nodes", "stranger"))
    client = tmp_path / "client.py"
    client.write_text(STRANGER)
    image = tmp_path / "hedypet.sif"
    image.touch()
    # As the real one with --cleanenv: only SINGULARITYENV_* gets in. A worker first tells where it runs and
    # how a client with a certificate of its own fares.
    stand_in(
        tmp_path,
        "singularity",
        f"while [[ $1 != {image} ]]; do shift; done\nshift\n"
        f'inside=("PATH={BIN}:$PATH" "HOME=$HOME")\n'
        "for name in ${!SINGULARITYENV_*}; do\n"
        '  inside+=("${name#SINGULARITYENV_}=${!name}")\n'
        "done\n"
        "if [[ $1 == hedypet-worker ]]; then\n"
        f'  echo "$SLURMD_NODENAME" >>{nodes}\n'
        f'  {sys.executable} {client} "$2" "$4" >>{stranger}\n'
        "fi\n"
        'exec env -i "${inside[@]}" "$@"',
    )
    done = cluster.call(
        *("sbatch", "--wait", "--nodes=2", "--ntasks=2", "--cpus-per-task=1", f"--mem-per-cpu={TASK_MB}"),
        *(f"--output={log}", DEPLOY / "dask.sbatch", coarse, output),
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        HEDYPET_IMAGE=str(image),
    )
    assert done.returncode == 0, log.read_text()
    assert sorted(nodes.read_text().split()) == ["n1", "n2"]
    assert "2 of 2 participants finished" in log.read_text()
    assert differing(output, coarse_run.output) == []
    assert stranger.read_text().splitlines() == ["refused", "refused"]
    assert not list((output / "logs" / "slurm").iterdir())


@pytest.mark.slow
def test_dask_without_workers_ends_instead_of_waiting(cluster: Cluster, coarse: Path, tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    done = cluster.call(
        *("sbatch", "--wait", "--ntasks=2", "--cpus-per-task=1", f"--mem-per-cpu={TASK_MB}"),
        *(f"--output={log}", DEPLOY / "dask.sbatch", coarse, tmp_path / "out"),
        HEDYPET=HEDYPET,
        HEDYPET_WORKER="false",
        HEDYPET_SCHEDULER=f"{BIN / 'dask'} scheduler",
    )
    assert done.returncode == 75, log.read_text()
    assert "all workers have ended" in log.read_text()


# How the program is called, with stand-ins


@pytest.mark.slow
def test_each_task_runs_the_container_with_its_own_resources(
    cluster: Cluster, coarse: Path, tmp_path: Path
) -> None:
    calls, scratch, output, image = (tmp_path / name for name in ("calls", "scratch", "out", "hedypet.sif"))
    calls.mkdir()
    scratch.mkdir()
    image.touch()
    stand_in(
        tmp_path,
        "singularity",
        f'name="{calls}/${{SLURM_JOB_NAME:-check}}${{SLURM_ARRAY_TASK_ID-}}"\n'
        'printf "%s\\n" "$@" >"$name"; echo "$SINGULARITY_BIND" >"$name.bind"',
    )
    jobs = cluster.submit(
        *(coarse, output, "--window-start", "20", "30", "--participant-label", "sub-002", "001"),
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        HEDYPET_IMAGE=str(image),
        SLURM_TMPDIR=str(scratch),
        HEDYPET_PARTICIPANT_SBATCH="--cpus-per-task=2 --mem-per-cpu=700",
    )
    assert {state for state, _ in states(cluster.wait(*jobs.values())).values()} == {"COMPLETED"}

    def words(name: str) -> list[str]:
        return (calls / name).read_text().splitlines()

    container = [
        *("exec", "--nv", "--cleanenv", "--bind", f"{coarse}:{coarse}:ro"),
        *("--bind", f"{output}:{output}", str(image), "hedypet", str(coarse), str(output)),
    ]
    own, labels = ["--window-start", "20", "30"], ["--participant-label", "002", "001"]
    assert words("check") == [*container, "participant", "--dry-run", *labels, *own]

    everything_else = [name for name in STEP_NAMES if name != "segment"]
    expected: dict[str, tuple[list[str], int, int]] = {"hedypet-group": (["group"], 1, TASK_MB)}
    for index, label in enumerate(("002", "001"), start=1):
        for name, steps, cpus, mem_mb in (
            ("segment", ["segment"], 1, TASK_MB),
            ("participant", everything_else, 2, 1400),
        ):
            level = ["participant", "--skip-bids-validation", *own, "--steps", *steps]
            expected[f"hedypet-{name}{index}"] = ([*level, "--participant-label", label], cpus, mem_mb)
    assert {path.name for path in calls.iterdir() if path.suffix != ".bind"} == {"check", *expected}
    for name, (level, cpus, mem_mb) in expected.items():
        work = Path(words(name)[-3])
        resources = ["--nprocs", str(cpus), "--work-dir", str(work), "--mem-mb", str(mem_mb)]
        assert words(name) == [*container, *level, *resources]
        assert work.parent == scratch and not work.exists()
        assert words(f"{name}.bind") == [str(work)]


@pytest.mark.slow
def test_the_next_job_waits_for_all_tasks_also_for_failed_ones(
    cluster: Cluster, coarse: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    fails = '"$*" == *"--steps segment"*"label 001"*'
    program = stand_in(
        tmp_path,
        "program",
        f"until [[ -e {gate} ]]; do sleep 0.2; done\nif [[ {fails} ]]; then exit 74; fi",
    )
    jobs = cluster.submit(coarse, tmp_path / "out", "--skip-bids-validation", HEDYPET=str(program))
    waiting = {name: task for (_, _), task in cluster.tasks().items() if (name := task.name)}
    assert waiting["hedypet-participant"].dependency.startswith(f"afterany:{jobs['segment']}_*")
    assert waiting["hedypet-group"].dependency.startswith(f"afterany:{jobs['participant']}_*")
    gate.touch()
    tasks = states(cluster.wait(*jobs.values()))
    assert tasks.pop((jobs["segment"], "1")) == ("FAILED", "74:0")
    assert set(tasks.values()) == {("COMPLETED", "0:0")} and len(tasks) == 4


@pytest.mark.slow
def test_before_the_time_limit_the_program_is_asked_to_end(
    cluster: Cluster, coarse: Path, tmp_path: Path
) -> None:
    program = stand_in(tmp_path, "program", 'trap "sleep 1; exit 75" TERM\nsleep 100 & wait')
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    jobs = cluster.submit(
        *(coarse, tmp_path / "out", "--skip-bids-validation", "--participant-label", "001"),
        HEDYPET=str(program),
        HEDYPET_SEGMENT_SBATCH=f"--time=1 --mem={TASK_MB}",
        HEDYPET_PARTICIPANT_SBATCH=f"--hold --mem={TASK_MB}",
        SLURM_TMPDIR=str(scratch),
    )
    # SLURM warns 2 minutes before the limit, so at once where the limit is 1 minute.
    tasks = cluster.wait(jobs["segment"], timeout_s=60)
    assert states(tasks) == {(jobs["segment"], "1"): ("FAILED", "75:0")}
    assert not list(scratch.iterdir())
    cluster.call("scancel", str(jobs["participant"]), str(jobs["group"]))


@pytest.mark.slow
def test_a_job_that_sbatch_refuses_takes_back_those_before_it(
    cluster: Cluster, coarse: Path, tmp_path: Path
) -> None:
    before = cluster.tasks().keys()
    done = cluster.call(
        *(DEPLOY / "submit.sh", coarse, tmp_path / "out", "--skip-bids-validation"),
        **{**SMALL, "HEDYPET_GROUP_SBATCH": "--partition=nowhere"},
        HEDYPET="sleep 100",
    )
    assert done.returncode != 0
    assert "invalid partition" in done.stderr and "sbatch refused the job group" in done.stderr
    new = {key[0] for key in cluster.tasks().keys() - before}
    assert len(new) == 2
    assert {task.state for task in cluster.wait(*new, timeout_s=60).values()} == {"CANCELLED"}


# What submit.sh refuses; no SLURM is needed


def refused(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DEPLOY / "submit.sh", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], **environment},
    )


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--steps", "report"], 2, "--steps is set by the jobs themselves"),
        (["--nprocs=4"], 2, "--nprocs=4 is set by the jobs themselves"),
        (["--mem_mb", "4000"], 2, "--mem_mb is set by the jobs themselves"),
        (["-w", "work"], 2, "-w is set by the jobs themselves"),
        (["--dask-scheduler", "tls://a:1"], 2, "--dask-scheduler is set by the jobs themselves"),
        (["--dry-run"], 2, "run hedypet itself with --dry-run"),
        (["--participant-label", "001", "absent"], 18, "--participant-label absent"),
        (["--participant-label=absent"], 18, "--participant-label absent"),
        ([], 2, "set HEDYPET_IMAGE"),
    ],
)
def test_options_that_submit_refuses(tmp_path: Path, options: list[str], code: int, words: str) -> None:
    (tmp_path / "bids" / "sub-001").mkdir(parents=True)
    done = refused(tmp_path / "bids", tmp_path / "out", *options)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert not list(tmp_path.rglob("participants-*"))


def test_folders_and_programs_that_submit_refuses(tmp_path: Path) -> None:
    bids = tmp_path / "bids"
    assert refused(bids, tmp_path / "out").returncode == 66
    bids.mkdir()
    assert refused(bids, tmp_path / "out").returncode == 18
    (bids / "sub-001").mkdir()
    done = refused(bids, tmp_path / "out", HEDYPET_IMAGE=str(tmp_path / "absent.sif"))
    assert done.returncode == 66 and "absent.sif" in done.stderr
    done = refused(bids, tmp_path / "out", HEDYPET="'unmatched")
    assert done.returncode == 2 and "cannot be split" in done.stderr
    assert refused(bids).returncode == 2


def test_scripts_pass_shellcheck() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed (Debian package shellcheck)")
    scripts = [*DEPLOY.glob("*.sh"), *DEPLOY.glob("*.sbatch"), SLURM_UP]
    assert len(scripts) == 4
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
