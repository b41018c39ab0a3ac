"""The explorer's server: Streamlit behind a guard, which lets in only whoever has the token of this start.

Streamlit has neither a token nor, unless configured, an opinion on host names: any user of the machine, and
any web page that the user's browser is on, could otherwise read all data through the loopback device.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from hedypet_bids.errors import MissingProgramError, UsageError

APP = Path(__file__).with_name("app.py")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_LAST_PORT = 65535
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]+)?", re.IGNORECASE)
_OPTIONS = {
    # Nothing is sent anywhere, and nothing is watched for changes.
    "browser.gatherUsageStats": False,
    "server.fileWatcherType": "none",
    "server.headless": True,
    # Whatever the user's own configuration says, for other applications.
    "server.baseUrlPath": "",
    "server.enableStaticServing": False,
    "client.toolbarMode": "viewer",
    "theme.base": "light",
    "theme.primaryColor": "#0072B2",
}

Message = MutableMapping[str, Any]
Application = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Any]


def listen(address: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises
    ------
    UsageError
        The address is none of this machine, or its port is in use.
    """
    try:
        if not 0 <= port <= _LAST_PORT:
            raise OverflowError(f"ports go up to {_LAST_PORT}")  # the system may take it modulo 65536
        family, _, _, _, where = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(where[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as fault:
        raise UsageError(
            f"The explorer cannot listen on {address}, port {port}: {fault}. Give an --address of this "
            "machine, or another --port (0 takes a free one)."
        ) from fault


def names_of(listening: socket.socket, address: str) -> frozenset[str]:
    """The names by which a browser may ask for what listens, besides the address that it reached."""
    if ipaddress.ip_address(listening.getsockname()[0]).is_loopback:
        return LOOPBACK_NAMES
    return LOOPBACK_NAMES | {name.lower() for name in (address, socket.gethostname(), socket.getfqdn())}


def url_of(listening: socket.socket, token: str) -> str:
    """The address to open: numbers for the loopback device, whose names others may listen on, too."""
    address, port = listening.getsockname()[:2]
    ip = ipaddress.ip_address(address)
    if ip.is_unspecified:
        address = socket.gethostname()
    return f"http://{f'[{address}]' if ':' in address else address}:{port}/?token={token}"


def serve(listening: socket.socket, output: Path, *, token: str, names: frozenset[str]) -> None:
    """Show an output until a signal ends it.

    Raises
    ------
    MissingProgramError
        The Streamlit that is installed is too old.
    """
    sys.argv = [str(APP), str(output.resolve())]
    # A .streamlit folder of the place where it is started must not change it.
    os.chdir(APP.parent)
    try:
        import uvicorn
        from streamlit import config
        from streamlit.starlette import App
    except ImportError as fault:
        raise MissingProgramError(f"The explorer needs a newer Streamlit: {fault}.") from fault
    for option, value in _OPTIONS.items():
        config.set_option(option, value)
    guard = Guard(App(APP), token=token, names=names, port=listening.getsockname()[1])
    configuration = uvicorn.Config(
        guard,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        log_config=None,
        log_level="warning",
        access_log=False,
        # Whom a request is for is what the guard checks: no header may say otherwise.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(configuration).run(sockets=[listening])


class Guard:
    """An ASGI application that passes on what brings the token and comes from its own pages.

    The token comes once in the address; the answer moves it into a cookie, which no script can read and no
    other site's page can send along. All else, WebSockets included, is answered with 403.
    """

    def __init__(self, app: Application, *, token: str, names: frozenset[str], port: int) -> None:
        self._app, self._token, self._names = app, token.encode(), names
        # Cookies do not know ports: several explorers must not take each other's.
        self._cookie = f"hedypet-{port}".encode()

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan" or self._may_pass(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif self._is_for_us(scope) and self._brings_token(scope):
            cookie = self._cookie + b"=" + self._token + b"; Path=/; HttpOnly; SameSite=Lax"
            await _answer(send, 303, [(b"location", b"/"), (b"set-cookie", cookie)], b"")
        else:
            await _answer(send, 403, [], b"Open the address that hedypet-explorer printed, with its token.\n")

    def _may_pass(self, scope: Message) -> bool:
        parts = b";".join(_all(scope, b"cookie")).split(b";")
        cookies = [part.strip().partition(b"=") for part in parts]
        own = [value for name, _, value in cookies if name == self._cookie]
        return self._is_for_us(scope) and any(secrets.compare_digest(value, self._token) for value in own)

    def _is_for_us(self, scope: Message) -> bool:
        """Whether it was asked for by a name of this explorer, and not by another site's page."""
        hosts, origins = _all(scope, b"host"), _all(scope, b"origin")
        asked = _HOST.fullmatch(hosts[0].decode("latin-1")) if len(hosts) == 1 else None
        if asked is None:
            return False
        name = (asked[1] or asked[2]).lower()
        own = {scheme + hosts[0].lower() for scheme in (b"http://", b"https://")}
        return own.issuperset(map(bytes.lower, origins)) and name in {*self._names, scope["server"][0]}

    def _brings_token(self, scope: Message) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        right = any(secrets.compare_digest(each.encode(), self._token) for each in given)
        return right and scope["method"] == "GET"


def _all(scope: Message, name: bytes) -> list[bytes]:
    """All values of a header; ASGI has their names in lower case."""
    return [value for header, value in scope["headers"] if header == name]


async def _answer(
    send: Callable[[Message], Awaitable[None]], status: int, headers: list[tuple[bytes, bytes]], text: bytes
) -> None:
    always = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        (b"cache-control", b"no-store"),
        (b"referrer-policy", b"no-referrer"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": always + headers})
    await send({"type": "http.response.body", "body": text})
