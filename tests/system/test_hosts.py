"""Dask workers on hosts of their own: network namespaces, which share files and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import ROOT, Cluster, Run, dask_scheduler, end, outputs


@dataclass(frozen=True)
class Host:
    """A network namespace: its name, and the address of this machine as it is seen from there."""

    name: str
    gateway: str


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Two hosts, each with a line to this machine and none to the other."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip (Debian: iproute2)")
    made: list[tuple[Host, str]] = []
    try:
        for number in range(2):
            name, line = f"hedypet{os.getpid()}{number}", f"hp{os.getpid() % 10000}{number}"
            ours, theirs = f"10.213.{number}.1", f"10.213.{number}.2"
            commands = (
                f"ip netns add {name}",
                f"ip link add {line}a type veth peer name {line}b",
                f"ip link set {line}b netns {name}",
                f"ip address add {ours}/30 dev {line}a",
                f"ip link set {line}a up",
                f"ip -n {name} address add {theirs}/30 dev {line}b",
                f"ip -n {name} link set {line}b up",
                f"ip -n {name} link set lo up",
            )
            for command in commands:
                done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
                if done.returncode:
                    pytest.skip(f"no network namespace can be made here ({command}: {done.stderr.strip()})")
                if command.startswith("ip netns add"):
                    made.append((Host(name, ours), f"{line}a"))
        yield [host for host, _ in made]
    finally:
        for host, line in made:
            # The line would go with the namespace, but later than the next test asks for its name.
            subprocess.run(["ip", "link", "del", line], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", host.name], check=False)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folders of the hosts; who comes second finds what the first has compiled."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A Dask scheduler that listens on every line of this machine."""
    with dask_scheduler(tmp_path, "0.0.0.0") as cluster:
        yield cluster


def worker_on(host: Host, cluster: Cluster, work: Path) -> subprocess.Popen[bytes]:
    return cluster.worker("--work-dir", work / host.name, gateway=host.gateway, host=host.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fails", [pytest.param(False, marks=pytest.mark.exhaustive), True], ids=["both live", "one dies half-way"]
)
def test_two_hosts_finish_a_run(
    fails: bool, coarse_run: Run, hosts: list[Host], cluster: Cluster, work: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    running = {host.name: worker_on(host, cluster, work) for host in hosts}
    words = (coarse_run.bids, output, "participant", "--skip-bids-validation")
    try:
        run = subprocess.Popen(
            [sys.executable, ROOT / "run.py", *words, "--dask-scheduler", cluster.address, *cluster.tls],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert run.stderr is not None
        lines = []
        for line in run.stderr:
            lines.append(line)
            if fails and "resample bodystat: ran" in line and len(running) == 2:
                _, process = running.popitem()
                os.killpg(process.pid, signal.SIGKILL)
        assert run.wait(300) == 0, "".join(lines)
    finally:
        end(list(running.values()))
    assert "2 of 2 participants finished" in lines[-1]
    for label in ("001", "002"):
        expected = outputs(coarse_run.output / f"sub-{label}")
        assert outputs(output / f"sub-{label}").keys() == expected.keys()
    if not fails:
        # Each host has taken one: a worker that did nothing has compiled nothing.
        assert all((work / host.name / "numba").is_dir() for host in hosts)
