"""``hedypet-explorer OUTPUT_DIR``: the readouts of a study in the browser, on this machine only."""

from __future__ import annotations

import argparse
import html
import os
import secrets
import signal
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from hedypet_bids.cli.console_streams import on_console
from hedypet_bids.errors import HedypetError, MissingInputError, MissingProgramError
from hedypet_bids.explorer.server import LOOPBACK_NAMES, listen, names_of, serve, url_of
from hedypet_bids.version import __version__

PACKAGES = ("streamlit", "plotly")
INSTALL = "pip install -c constraints.txt '.[explorer]'"


@on_console
def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal ends it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="hedypet-explorer", description=__doc__)
    parser.add_argument("output_dir", type=Path, help="output of hedypet, group level included")
    parser.add_argument("--port", type=int, default=8501, help="default: %(default)s; 0: a free one")
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        help="to listen on (default: %(default)s, which no other machine can reach)",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address without opening a browser"
    )
    parser.add_argument("--version", action="version", version=f"hedypet-explorer {__version__}")
    given = parser.parse_args(argv)
    try:
        _check(given.output_dir)
        _serve(given)
    except HedypetError as error:
        print(f"hedypet-explorer: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        pass
    return 0


def _serve(given: argparse.Namespace) -> None:
    token = secrets.token_urlsafe(32)
    with listen(given.address, given.port) as listening:
        names = names_of(listening, given.address)
        url = url_of(listening, token)
        if names != LOOPBACK_NAMES:
            print(
                "hedypet-explorer: other machines can reach it, and who listens to the network can read the "
                "token and the data, which are not encrypted. Safer: leave --address away and use ssh -L.",
                file=sys.stderr,
            )
        # It ends tidily by either signal.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        print(f"The explorer is at {url}", flush=True)
        with _browser(url, wanted=not given.no_browser):
            serve(listening, given.output_dir, token=token, names=names)


@contextmanager
def _browser(url: str, *, wanted: bool) -> Iterator[None]:
    """Open a browser while the block runs.

    It is given a private page that leads to the address: all users of the machine can see command lines.
    """
    if not wanted or (sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="hedypet-explorer-") as folder:
        page = Path(folder) / "open.html"
        page.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(url)}">', "utf-8")
        threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()
        yield


def _check(output: Path) -> None:
    """Raise a HedypetError when there is nothing to show, or nothing to show it with."""
    if not (output / "dataset_description.json").is_file():
        raise MissingInputError(
            f"{output} holds no dataset_description.json, so it is not an output of hedypet. Give the "
            "output_dir of the participant level."
        )
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise MissingProgramError(
            f"The explorer needs {', '.join(missing)}; install them with {INSTALL} in the folder of "
            "hedypet's source. The container image is without them: run the explorer outside, on the output."
        )


if __name__ == "__main__":
    sys.exit(main())
