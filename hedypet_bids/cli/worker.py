"""``hedypet-worker``: a worker of the same image that takes participants from a Dask scheduler."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hedypet_bids.cli.console_streams import on_console
from hedypet_bids.cli.scheduler_options import TLS_OPTIONS, scheduler_address
from hedypet_bids.errors import OutputError, TryAgainError, UsageError
from hedypet_bids.io import work_dir
from hedypet_bids.io.atomic import temporary_folder
from hedypet_bids.run.cluster import GPU_RESOURCE, WORKER_SETTINGS, Certificates, available_cpus
from hedypet_bids.run.options import THREADS_VARIABLE, WORK_DIR_VARIABLE
from hedypet_bids.tools.gpu import visible_gpus
from hedypet_bids.version import __version__


@on_console
def main(argv: Sequence[str] | None = None) -> int:
    """Work until the scheduler closes or a signal comes; returns the exit status."""
    parser = argparse.ArgumentParser(prog="hedypet-worker", description=__doc__)
    parser.add_argument(
        "scheduler",
        type=scheduler_address,
        metavar="ADDRESS",
        help="of the scheduler, such as tls://node1:8786",
    )
    for flag, text in TLS_OPTIONS.items():
        parser.add_argument(flag, type=Path, metavar="FILE", help=text)
    parser.add_argument(
        "--nthreads", type=partial(_number, least=1), default=1, help="participants at a time (default: 1)"
    )
    parser.add_argument(
        "--gpus",
        type=partial(_number, least=0),
        metavar="N",
        help="number of GPUs offered to segmentations (default: all it sees)",
    )
    parser.add_argument(
        "--memory-limit", type=_memory, metavar="SIZE", help="such as 16GB (default: of the machine)"
    )
    parser.add_argument("-w", "--work-dir", type=Path, help="folder for temporary files and caches")
    parser.add_argument("--version", action="version", version=f"hedypet-worker {__version__}")
    given = parser.parse_args(argv)
    os.environ.setdefault(THREADS_VARIABLE, str(max(1, available_cpus() // given.nthreads)))
    try:
        folder = work_dir.prepare(given.work_dir)
    except OutputError as error:
        print(f"hedypet-worker: {error}", file=sys.stderr)
        return error.exit_code
    os.environ[WORK_DIR_VARIABLE] = str(folder.resolve())
    gpus = len(visible_gpus()) if given.gpus is None else given.gpus
    with temporary_folder(folder, prefix=work_dir.LEFT_OVER) as temporary:
        try:
            security = Certificates(given.tls_ca_file, given.tls_cert, given.tls_key).security("worker")
            asyncio.run(_work(given.scheduler, security, given.nthreads, gpus, given.memory_limit, temporary))
        except UsageError as error:
            print(f"hedypet-worker: {error}", file=sys.stderr)
            return error.exit_code
        except (OSError, TimeoutError, ValueError) as fault:
            print(
                f"hedypet-worker: there is no scheduler at {given.scheduler}: {fault}. Start one with "
                "'dask scheduler', or check the address and the network between the machines.",
                file=sys.stderr,
            )
            return TryAgainError.exit_code
    return 0


def _number(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, found {text!r}")
    return int(text)


def _memory(text: str) -> int:
    from dask.utils import parse_bytes

    try:
        return int(parse_bytes(text))
    except ValueError as fault:
        raise argparse.ArgumentTypeError(f"expected a size such as 16GB, found {text!r}") from fault


async def _work(
    scheduler: str, security: Any, nthreads: int, gpus: int, memory: int | None, folder: Path
) -> None:
    # Imported here: --help and --version do not need it.
    import dask
    from distributed.system import MEMORY_LIMIT

    from hedypet_bids.run.dask_nodes import PrivateWorker, TellingNanny

    with dask.config.set(WORKER_SETTINGS):
        async with TellingNanny(
            scheduler,
            security=security,
            worker_class=PrivateWorker,
            nthreads=nthreads,
            # Dask's own choice is a share of the machine by threads.
            memory_limit=MEMORY_LIMIT if memory is None else memory,
            local_directory=str(folder),
            resources={GPU_RESOURCE: gpus},
        ) as nanny:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, lambda: asyncio.ensure_future(nanny.close()))
            await nanny.finished()


if __name__ == "__main__":
    sys.exit(main())
