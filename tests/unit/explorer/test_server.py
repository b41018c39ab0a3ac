"""Who gets in: asked of a running explorer, byte by byte, as a browser or an attacker may."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from explorer_process import explorer
from scans_output import write_scans_output

from hedypet_bids.cli.explorer import main
from hedypet_bids.explorer.server import listen, names_of, url_of

UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: streamlit\r\n"
)
STREAM = "/_stcore/stream"
PATHS = (
    *("/", "/index.html", "/static/js/index.js", "/favicon.png", "/app/static/x", "/unknown"),
    *(
        "/_stcore/health",
        "/healthz",
        "/_stcore/host-config",
        "/_stcore/metrics",
        "/_stcore/script-health-check",
    ),
    *("/_stcore/upload_file/a/b", "/_stcore/agent/openapi.json", "/_stcore/bidi-components/x/y"),
    *("/media/x.tsv", "/component/x/y", "/component/../_stcore/health", "//", STREAM, "*"),
)


class Running(NamedTuple):
    port: int
    token: str

    @property
    def cookie(self) -> str:
        return f"Cookie: hedypet-{self.port}={self.token}\r\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    output = write_scans_output(tmp_path_factory.mktemp("access") / "out")
    with explorer(output) as (address, _):
        found = urlsplit(address)
        assert found.hostname == "127.0.0.1" and found.port
        yield Running(found.port, found.query.removeprefix("token="))


def ask(
    running: Running, path: str, headers: str = "", *, method: str = "GET", host: str | None = "127.0.0.1"
) -> tuple[int, str]:
    """The status and all else of an answer."""
    named = "" if host is None else f"Host: {host}\r\n"
    closes = "" if "Upgrade" in headers else "Connection: close\r\n"
    request = f"{method} {path} HTTP/1.1\r\n{named}{headers}{closes}\r\n"
    with closing(socket.create_connection(("127.0.0.1", running.port), 60)) as line:
        line.sendall(request.encode("latin-1"))
        answer = line.recv(65536).decode("latin-1")
        while "\r\n\r\n" not in answer:
            answer += line.recv(65536).decode("latin-1")
    return int(answer.split()[1]), answer


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_served_without_the_token(path: str, running: Running) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE"):
        status, answer = ask(running, path, method=method)
        assert status in (400, 403), (method, answer)
        assert "set-cookie" not in answer.lower() and "streamlit" not in answer.lower()
    if path != "*":
        assert ask(running, path, UPGRADE)[0] == 403


def test_another_token_is_none(running: Running) -> None:
    wrong = ("", "x", running.token[:-1], running.token + "x", running.token.swapcase(), "%ff%00", "\xff")
    for token in wrong:
        assert ask(running, f"/?token={token}")[0] in (400, 403)
        for name in (f"hedypet-{running.port}", "token"):
            for path, upgrade in (("/", ""), (STREAM, UPGRADE)):
                assert ask(running, path, f"Cookie: {name}={token}\r\n{upgrade}")[0] == 403
    assert ask(running, "/", f"Cookie: hedypet-1={running.token}\r\n")[0] == 403
    assert ask(running, f"/?token={running.token}", method="POST")[0] == 403
    # A WebSocket gets in by the cookie alone, which other sites cannot send along.
    assert ask(running, f"{STREAM}?token={running.token}", UPGRADE)[0] == 403


def test_the_token_of_the_address_becomes_a_cookie_that_opens_everything(running: Running) -> None:
    status, answer = ask(running, f"//evil.example/?a=1&token={running.token}")
    lines = dict(line.lower().split(": ", 1) for line in answer.split("\r\n") if ": " in line)
    assert status == 303 and lines["location"] == "/"
    assert {"httponly", "samesite=lax"} <= set(lines["set-cookie"].split("; "))
    assert lines["referrer-policy"] == "no-referrer" and lines["cache-control"] == "no-store"
    assert ask(running, "/", running.cookie)[0] == 200
    assert ask(running, "/_stcore/health", running.cookie)[0] == 200
    assert ask(running, STREAM, running.cookie + UPGRADE)[0] == 101
    # What other programs of this machine have set does not get in the way, nor does it help.
    assert ask(running, "/", f'Cookie: a="{{;}}"; =; b\r\n{running.cookie}')[0] == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1", "[::1]", "[::1]:9000"])
def test_own_names_are_answered_through_any_forwarded_port(host: str, running: Running) -> None:
    assert ask(running, "/", running.cookie, host=host)[0] == 200
    own_page = f"Origin: http://{host.lower()}\r\n"
    assert ask(running, STREAM, running.cookie + own_page + UPGRADE, host=host)[0] == 101


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "localhost.evil.example",
            "localhost.",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0",
        ),
        *("", "localhost@evil.example", "evil.example#localhost", "localhost:x", "[::2]", "local\xe9", None),
    ],
)
def test_foreign_names_are_refused_whatever_they_bring(host: str | None, running: Running) -> None:
    for path, headers in (
        (f"/?token={running.token}", ""),
        ("/", running.cookie),
        ("/media/x", running.cookie),
        (STREAM, running.cookie + UPGRADE),
    ):
        status, answer = ask(running, path, headers, host=host)
        assert status in (400, 403) and "set-cookie" not in answer
    if host is not None:
        forwarded = f"{running.cookie}X-Forwarded-Host: localhost\r\nForwarded: host=localhost\r\n"
        assert ask(running, "/", forwarded, host=host)[0] in (400, 403)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://[", "", "\xff"]
)
def test_pages_of_other_sites_and_ports_are_refused(origin: str, running: Running) -> None:
    host = f"127.0.0.1:{running.port}"
    headers = f"{running.cookie}Origin: {origin}\r\n"
    assert ask(running, STREAM, headers + UPGRADE, host=host)[0] == 403
    assert ask(running, "/_stcore/upload_file/a/b", headers, method="PUT", host=host)[0] == 403


def test_two_hosts_are_no_host(running: Running) -> None:
    assert ask(running, "/", f"{running.cookie}Host: localhost\r\n", host="evil.example")[0] in (400, 403)


# ---- where it listens


def test_it_listens_on_the_loopback_device_unless_asked() -> None:
    with listen("127.0.0.1", 0) as own:
        assert own.getsockname()[0] == "127.0.0.1"
        assert names_of(own, "127.0.0.1") == {"localhost", "127.0.0.1", "::1"}
        assert url_of(own, "t") == f"http://127.0.0.1:{own.getsockname()[1]}/?token=t"
    with listen("0.0.0.0", 0) as everybody:
        assert {socket.gethostname().lower(), "localhost"} <= names_of(everybody, "0.0.0.0")
        assert f"//{socket.gethostname()}:" in url_of(everybody, "t")


@pytest.mark.parametrize(
    "options",
    [["--port", "99999"], ["--port", "-1"], ["--address", "no.such.invalid"], ["--address", "203.0.113.1"]],
)
def test_an_address_that_cannot_be_had_is_told(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    assert main([str(tmp_path), "--no-browser", *options]) == 2
    assert options[1] in capsys.readouterr().err


def test_a_port_in_use_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    with listen("127.0.0.1", 0) as other:
        port = str(other.getsockname()[1])
        assert main([str(tmp_path), "--no-browser", "--port", port]) == 2
    assert port in capsys.readouterr().err
