"""Another user of the machine, who reaches its loopback device, gets neither code executed nor data."""

from __future__ import annotations

import functools
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from distributed import LocalCluster
from distributed.protocol import dumps
from distributed.protocol.utils import pack_frames_prelude
from explorer_process import explorer
from running import ROOT
from scans_output import write_scans_output

NOBODY = 65534
NOBODYS_PYTHON = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    "/usr/bin/python3",
)
ALERT = 0x15  # the type of the record with which TLS refuses

# To each port: Dask's own messages in the clear, the same by TLS without a certificate, and a web request.
ATTACK = """
import json, socket, ssl, sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
ports, messages = json.load(sys.stdin)
messages = [bytes.fromhex(message) for message in messages] + [b"GET / HTTP/1.0\\r\\n\\r\\n"]
open_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
open_tls.check_hostname, open_tls.verify_mode = False, ssl.CERT_NONE
def ask(port, message, way):
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 5) as line:
        line.settimeout(2)
        try:
            with line if way == "plain" else open_tls.wrap_socket(line) as talk:
                talk.sendall(message)
                while more := talk.recv(65536):
                    answer += more
        except OSError:
            pass
    return port, way, answer.hex()
with ThreadPoolExecutor(30) as pool:
    print(json.dumps(list(pool.map(ask, *zip(*product(ports, messages, ("plain", "tls")))))))
"""


# What can be seen of a process, and what its port answers without the token.
LOOK = """
import json, pathlib, socket, sys
pid, port, paths = json.load(sys.stdin)
seen = []
for name in ("cmdline", "environ"):
    try:
        seen.append(pathlib.Path(f"/proc/{pid}/{name}").read_text("latin-1"))
    except PermissionError:
        pass
for path, more in paths:
    with socket.create_connection(("127.0.0.1", port), 60) as line:
        line.sendall(f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\n{more}\\r\\n".encode())
        seen.append(line.recv(65536).decode("latin-1"))
print(json.dumps(seen))
"""


def as_nobody(code: str, given: object) -> list[Any]:
    """What a program of another user prints, as JSON."""
    done = subprocess.run(
        [*NOBODYS_PYTHON, "-I", "-c", code],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    answer: list[Any] = json.loads(done.stdout)
    return answer


def frames(message: dict[str, object]) -> bytes:
    """A message as Dask sends it."""
    parts = [bytes(frame) for frame in dumps(message)]
    prelude = bytes(pack_frames_prelude(parts))
    return struct.pack("Q", len(prelude) + sum(map(len, parts))) + prelude + b"".join(parts)


def attack(ports: list[int], marker: Path) -> list[tuple[int, str, bytes]]:
    """What nobody (the user) is answered by each port when asking it to make a folder; all can be reached."""
    code = pickle.dumps(functools.partial(os.mkdir, str(marker)))
    greeting = frames({"compression": None, "python": sys.version_info[:3], "pickle-protocol": 4})
    calls = [
        greeting + frames({"op": op, "function": code, "wait": True, "reply": True})
        for op in ("run", "run_function")
    ]
    answers = as_nobody(ATTACK, [ports, [call.hex() for call in calls]])
    return [(port, way, bytes.fromhex(answer)) for port, way, answer in answers]


def listening(process: psutil.Process) -> list[int]:
    """Ports on which a process and its children listen."""
    members = [process, *process.children(recursive=True)]
    found = [line for member in members for line in member.net_connections("inet")]
    return sorted({line.laddr.port for line in found if line.status == psutil.CONN_LISTEN})


@pytest.fixture(autouse=True)
def _another_user() -> None:
    if os.getuid() != 0 or not shutil.which("setpriv") or not Path("/usr/bin/python3").is_file():
        pytest.skip("taking another user's part needs root, setpriv and the system's Python")


@pytest.mark.slow
def test_another_user_gets_nothing_from_a_run_with_workers(coarse: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    words = (coarse, tmp_path / "out", "participant", "--skip-bids-validation", "--nprocs", "2")
    with subprocess.Popen(
        [sys.executable, ROOT / "run.py", *words], stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        next(line for line in run.stderr if ": ran" in line)  # the workers are there, and at work
        ports = listening(psutil.Process(run.pid))
        answers = attack(ports, marker)
        rest = run.stderr.read()
    assert run.returncode == 0, rest
    # The scheduler, two nannies and two workers.
    assert len(ports) == 5 and len(answers) == 5 * 3 * 2
    assert not marker.exists()
    for port, way, answer in answers:
        assert not answer or (way == "plain" and answer[0] == ALERT and len(answer) < 10), (port, way, answer)


@pytest.mark.slow
def test_the_attack_works_where_nothing_is_encrypted(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        port = int(cluster.scheduler_address.rpartition(":")[2])
        answers = attack([port], marker)
    assert marker.is_dir()
    assert any(answer for _, way, answer in answers if way == "plain")


def test_another_user_gets_nothing_from_the_explorer(tmp_path: Path) -> None:
    upgrade = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    asked = [("/", ""), ("/_stcore/stream", upgrade), ("/media/x", ""), ("/_stcore/health", "")]
    with explorer(write_scans_output(tmp_path / "out")) as (address, pid):
        found = urlsplit(address)
        token = found.query.removeprefix("token=")
        answers = as_nobody(LOOK, [pid, found.port, asked])
        (right,) = as_nobody(LOOK, [pid, found.port, [(f"/?token={token}", "")]])[-1:]
    assert not any(token in answer for answer in answers)
    assert [answer.split()[1] for answer in answers[-len(asked) :]] == ["403"] * len(asked)
    # It could be reached: with the token it would have opened.
    assert right.split()[1] == "303"
