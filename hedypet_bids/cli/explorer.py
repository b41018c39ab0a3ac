"""``hedypet-explorer OUTPUT_DIR``: the readouts of a study in the browser, on this machine only."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from hedypet_bids.cli.console_streams import on_console
from hedypet_bids.errors import HedypetError, MissingInputError, MissingProgramError
from hedypet_bids.version import __version__

PACKAGES = ("streamlit", "plotly")
INSTALL = "pip install -c constraints.txt '.[explorer]'"
_APP = Path(__file__).parents[1] / "explorer" / "app.py"


@on_console
def main(argv: Sequence[str] | None = None) -> int:
    """Become the explorer; returns the exit status where it cannot start."""
    parser = argparse.ArgumentParser(prog="hedypet-explorer", description=__doc__)
    parser.add_argument("output_dir", type=Path, help="output of hedypet, group level included")
    parser.add_argument("--port", type=int, default=8501, help="of the address (default: %(default)s)")
    parser.add_argument(
        "--address",
        default="localhost",
        help="to listen on (default: %(default)s, which no other machine can reach)",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address without opening a browser"
    )
    parser.add_argument("--version", action="version", version=f"hedypet-explorer {__version__}")
    given = parser.parse_args(argv)
    try:
        _check(given.output_dir)
    except HedypetError as error:
        print(f"hedypet-explorer: {error}", file=sys.stderr)
        return error.exit_code
    return _become_streamlit(given)


def _become_streamlit(given: argparse.Namespace) -> NoReturn:
    """Run Streamlit in the place of this process, so that signals and the exit status are its own."""
    command = [
        *(sys.executable, "-m", "streamlit", "run", str(_APP)),
        *("--server.address", given.address, "--server.port", str(given.port)),
        *("--server.headless", "true" if given.no_browser else "false"),
        # Nothing is sent anywhere, and nothing is watched for changes.
        *("--browser.gatherUsageStats", "false", "--server.fileWatcherType", "none"),
        *("--client.toolbarMode", "viewer", "--theme.base", "light", "--theme.primaryColor", "#0072B2"),
        *("--", str(given.output_dir.resolve())),
    ]
    # Its own folder: a .streamlit folder of the place where it is started must not change it.
    os.chdir(_APP.parent)
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": _python_path()})


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


def _python_path() -> str:
    """Where this package was imported from, before what the user has set."""
    here = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))


if __name__ == "__main__":
    sys.exit(main())
