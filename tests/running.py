"""What tests run and find: the command line, its outputs, the truth of a phantom."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from isal import igzip

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
BIN = Path(sys.executable).parent

# Schedulers and workers import the work of the tests, and the package that is tested.
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


@dataclass(frozen=True)
class Run:
    """A dataset and what the command line made of it."""

    bids: Path
    output: Path
    participant: subprocess.CompletedProcess[str]
    group: subprocess.CompletedProcess[str]


# Importing the libraries takes a command longer than most tests: one process does it and then forks.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["hedypet_bids.run.app", "hedypet_bids.pipeline", "bids"])


def hedypet(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    words = [str(ROOT / "run.py"), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        process = _FORKS.Process(target=_command, args=(words, dict(os.environ), Path.cwd(), files))
        process.start()
        process.join()
        said = [file.read_text(errors="replace") for file in files]
    assert process.exitcode is not None
    return subprocess.CompletedProcess(words, process.exitcode, *said)


def _command(words: list[str], environment: dict[str, str], folder: Path, files: list[Path]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = words
    from hedypet_bids.cli.main import main

    sys.exit(main())


def run_both_levels(bids: Path, output: Path, *options: str) -> Run:
    """Participant, then group."""
    participant = hedypet(bids, output, "participant", *options)
    return Run(bids, output, participant, hedypet(bids, output, "group"))


def truth(bids: Path, label: str) -> dict[str, Any]:
    """What a phantom was made from."""
    path = bids.parent / f"{bids.name}_truth" / f"sub-{label}.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def content_of(path: Path) -> bytes:
    """What a file holds; of a compressed image a digest of what is compressed.

    The compressor (isal) was once seen to take one byte more for the same voxels.
    """
    if path.suffix == ".parquet":
        # The run is in its metadata.
        rows = pq.ParquetFile(path).read().replace_schema_metadata(None)
        return repr((rows.schema, rows.to_pylist())).encode()
    if not path.name.endswith(".nii.gz"):
        return path.read_bytes()
    with igzip.open(path) as file:
        return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]


def steps_that_ran(said: str) -> list[str]:
    """Participant and step, without the pages, which every run writes anew."""
    ran = re.findall(r"(sub-\S+ .+): ran$", said, re.MULTILINE)
    return [step for step in ran if " report" not in step]


def only(folder: Path, pattern: str) -> Path:
    """The one file of a folder that matches."""
    found = sorted(folder.rglob(pattern))
    assert len(found) == 1, (pattern, found)
    return found[0]


_PYTHON = re.compile(r"(<!-- not run: .+ -->\n)?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_blocks(page: Path) -> list[str]:
    """The Python code of a page of the documentation, without what is only shown."""
    return [code for shown, code in _PYTHON.findall(page.read_text("utf-8")) if not shown]


def outputs(folder: Path) -> dict[str, bytes]:
    """Every result by name, without what tells of a run: logs, reports, and times in sidecars."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "log" not in path.relative_to(folder).parts and path.suffix != ".html":
            content = content_of(path)
            if path.name.endswith("_manifest.json"):
                manifest = json.loads(content)
                steps = [[step[key] for key in ("step", "about", "missing")] for step in manifest["steps"]]
                content = json.dumps([manifest["scans"], manifest["outputs"], steps]).encode()
            elif path.suffix == ".json":
                content = re.sub(rb'"(ModifiedNs|Digest|SHA256|Run)": [^,\n]*', b"", content)
                content = re.sub(rb'("[^"]*\.nii\.gz": \{\s*)"Size": [0-9]+', rb"\1", content)
                # The size of an image that was compressed here may differ as its bytes may, see content_of.
                content = re.sub(rb'("bids::[^"]*\.nii\.gz",\s*)"Size": [0-9]+', rb"\1", content)
            found[str(path.relative_to(folder))] = content
    return found


@dataclass(frozen=True)
class Cluster:
    """A Dask scheduler on this machine, and the certificate that it and its workers share."""

    port: int
    cert: Path
    key: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    @property
    def tls(self) -> tuple[str, ...]:
        """The options that name the certificate."""
        return tls_options(self.cert, self.key)

    def worker(
        self, *more: str | Path, gateway: str = "127.0.0.1", host: str = ""
    ) -> subprocess.Popen[bytes]:
        """A worker; on a host of its own, a network namespace, where one is named."""
        words = (BIN / "hedypet-worker", f"tls://{gateway}:{self.port}", *self.tls, "--memory-limit", "4GB")
        return subprocess.Popen(
            [*(("ip", "netns", "exec", host) if host else ()), *words, *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=ENVIRONMENT,
        )


def tls_options(cert: Path, key: Path) -> tuple[str, ...]:
    """What all programs are given of a certificate that is its own authority."""
    return ("--tls-ca-file", str(cert), "--tls-cert", str(cert), "--tls-key", str(key))


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate and its key, made as docs/engine.md makes them."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=hedypet -keyout"
    subprocess.run([*words.split(), key, "-out", cert], check=True, capture_output=True)
    return cert, key


@contextmanager
def dask_scheduler(folder: Path, host: str = "127.0.0.1") -> Iterator[Cluster]:
    """A scheduler as docs/engine.md starts it."""
    cert, key = make_certificate(folder)
    with socket.socket() as free:
        free.bind((host, 0))
        port = int(free.getsockname()[1])
    words = ("scheduler", "--protocol", "tls", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
    with (folder / "scheduler.log").open("w") as log:
        process = subprocess.Popen(
            [BIN / "dask", *words, *tls_options(cert, key), "--host", host, "--port", str(port)],
            stderr=log,
            env=ENVIRONMENT,
        )
    try:
        yield Cluster(port, cert, key, process)
    finally:
        process.terminate()
        process.wait(30)


def end(workers: list[subprocess.Popen[bytes]]) -> None:
    """Stop workers."""
    for process in workers:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
