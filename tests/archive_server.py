"""A server of archives on this machine, and small archives of models without networks in them."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from hedypet_bids.tools.totalsegmentator import Model

PLANS = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A ZIP archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # the same bytes at any time
    return content.getvalue()


def model_members(folder: str, seed: int = 1) -> dict[str, bytes]:
    """The files of a model; its checkpoint is an archive (as PyTorch's are) of some 400 kB of noise."""
    noise = np.random.default_rng(seed).bytes(400_000)
    stage = f"{folder}/{PLANS}"
    return {
        f"{stage}/plans.json": b"{}",
        f"{stage}/dataset.json": b"{}",
        f"{stage}/fold_0/checkpoint_final.pth": zipped({"archive/data.pkl": noise}),
    }


def model_of(number: int, content: bytes, *, licensed: bool = False) -> Model:
    """A model as hedypet knows it whose archive has this content."""
    sha256 = hashlib.sha256(content).hexdigest()
    return Model(number, f"Dataset{number}_toy", len(content), sha256, licensed)


@dataclass
class ArchiveServer:
    """What the server has and how it behaves; and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of each answer, after which the connection ends
    resumes: bool = True
    address: str = ""
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)  # path, Range, body
    sent: int = 0


@contextmanager
def archive_server() -> Iterator[ArchiveServer]:
    """A running server, on a free port of the loopback device."""
    state = ArchiveServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            wanted = self.headers.get("Range", "")
            state.asked.append((self.path, wanted, body))
            content = state.files.get(self.path)
            if content is None:
                return self.send_error(404)
            begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.resumes else 0
            if begin >= len(content) > 0:
                return self.send_error(416)
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            part = content[begin:][: state.cut_after]
            state.sent += len(part)
            self.wfile.write(part)
            return None

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
