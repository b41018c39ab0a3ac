"""The one place that talks to Dask: participants side by side in worker processes, here or elsewhere."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from hedypet_bids.errors import TryAgainError, UsageError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

PROGRESS_TOPIC = "hedypet-progress"
EXIT_TOPIC = "hedypet-worker-exit"
MEMORY_TOPIC = "worker-restart-memory"  # Dask's own: a process was stopped for its memory
GPU_RESOURCE = "GPU"
"""What a worker has as often as it has GPUs; segmentation of a participant takes one."""

CONNECT_TIMEOUT_S = 30

WORKER_SETTINGS: Mapping[str, Any] = {
    # Non-daemonic workers may fork external tools.
    "distributed.worker.daemon": False,
    # A worker is stopped at its share, not before; one that only waits for memory that Python does not give
    # back would wait for ever, and results are too small to spill.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
    # Dask's value makes glibc hand every array back to the system at once and fault its pages in anew.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    # Nobody looks at the profile, for which each worker would be interrupted a hundred times a second.
    "distributed.worker.profile.enabled": False,
    # Nor need anybody know fifty times a second that the event loops turn: an idle run took a tenth of a
    # processor, and every turn in a worker takes the interpreter from the thread that computes.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    # Pages about tasks and memory, which nobody here looks at.
    "distributed.worker.http.routes": [],
}
"""Dask's settings for worker processes, here and of ``hedypet-worker``."""

_OF_OUR_SCHEDULER: Mapping[str, Any] = {
    "distributed.scheduler.http.routes": [],
    # One for its own repetition, and two for having waited on a worker that another participant killed.
    "distributed.scheduler.allowed-failures": 3,
    # A participant waits at the scheduler, where a worker that dies cannot take it along.
    "distributed.scheduler.worker-saturation": 1.0,
}

Notify = Callable[[str, str, str], None]

_log = logging.getLogger("hedypet")


@dataclass(frozen=True)
class Certificates:
    """PEM files with which a run, a scheduler and its workers know each other."""

    ca_file: Path
    cert: Path
    key: Path

    def security(self) -> Any:
        """What Dask takes."""
        from distributed import Security

        of_all = {
            f"tls_{role}_{kind}": str(path)
            for role in ("client", "worker", "scheduler")
            for kind, path in (("cert", self.cert), ("key", self.key))
        }
        return Security(tls_ca_file=str(self.ca_file), require_encryption=True, **of_all)


@dataclass(frozen=True)
class Workers:
    """What there is to work with.

    Parameters
    ----------
    nprocs
        Worker processes on this machine.
    memory_mb
        Memory that they share, each kept to its part; None: they are not watched.
    item_mb
        Memory that one item needs; fewer workers are started where more would not fit.
    scheduler
        Address of a Dask scheduler whose workers do the work instead.
    certificates
        For that scheduler; None where it is on this machine and does not ask for them.
    folder
        For the temporary files of the workers; None: the system's.
    always_watched
        Whether a single worker is kept to the memory as well, which takes a process of its own.
    patience_s
        How long to wait for the first worker that others start, by a queue perhaps.
    """

    nprocs: int
    memory_mb: float | None = None
    item_mb: float = 0.0
    scheduler: str | None = None
    certificates: Certificates | None = None
    folder: Path | None = None
    always_watched: bool = False
    patience_s: float = 900.0

    def number_for(self, n_items: int) -> int:
        """Worker processes to start on this machine."""
        fitting = int(self.memory_mb // self.item_mb) if self.memory_mb and self.item_mb else n_items
        return max(1, min(self.nprocs, n_items, fitting))

    def share_mb(self, n_workers: int) -> int | None:
        """Memory that each of so many workers on this machine is kept to."""
        return int(self.memory_mb // n_workers) if self.memory_mb and self.scheduler is None else None


@dataclass(frozen=True)
class InTwo(Generic[ItemT, ResultT]):
    """How items are done in two steps where only some workers of a cluster have a GPU.

    Parameters
    ----------
    split
        What of an item wants a GPU, and what comes after it; None for a step that is empty.
    join
        One result of the results of both.
    """

    split: Callable[[ItemT], tuple[ItemT | None, ItemT | None]]
    join: Callable[[ResultT, ResultT], ResultT]


def available_cpus() -> int:
    """Processors that this process may use (an allocation may be smaller than the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_address(address: str, certificates: Certificates | None) -> None:
    """Raise UsageError for a scheduler of another machine that could be talked to without certificates.

    Whoever reaches such a scheduler runs code as the user of its workers.
    """
    where = urlsplit(address if "://" in address else f"tcp://{address}")
    if where.scheme == "tls" and certificates is None:
        raise UsageError(
            f"--dask-scheduler {address} needs --tls-ca-file, --tls-cert and --tls-key; docs/engine.md says "
            "how to make them."
        )
    if where.scheme != "tls" and where.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise UsageError(
            f"--dask-scheduler {address}: expected an address that begins with tls://. Without certificates "
            "anybody who reaches the scheduler can run code as you; docs/engine.md says how to make them."
        )


def run_all(
    work: Callable[[ItemT, Notify], ResultT],
    items: Sequence[ItemT],
    *,
    workers: Workers,
    notify: Notify,
    lost: Callable[[ItemT, str], ResultT],
    enough: Callable[[ResultT], bool] = lambda _result: False,
    in_two: InTwo[ItemT, ResultT] | None = None,
) -> Iterator[ResultT]:
    """Results of ``work`` on every item, in the order in which they finish.

    An item whose worker process died is done again elsewhere, and given up when that keeps happening.

    Parameters
    ----------
    work
        Called with an item and a function that reports progress; must be picklable.
    notify
        Gets every progress report, in this process.
    lost
        Makes a result for an item that was given up, with the reason.
    enough
        Whether to begin no further item after a result; those that run are finished.
    in_two
        Given: on a cluster that is already there, one step of each item goes to the workers that have a
        GPU and takes one of them, the rest to any worker.

    Raises
    ------
    TryAgainError
        There is no scheduler at the address given, it is gone, or no worker came that can do what waits.
    """
    n_workers = workers.number_for(len(items))
    if n_workers == 1 and workers.scheduler is None and not workers.always_watched:
        yield from _run_here(work, items, notify, enough)
        return
    with ExitStack() as stack:
        client = _connected(stack, n_workers, workers)
        ends = _Ends(workers.share_mb(n_workers))
        begun: set[str] = set()

        def progress(event: tuple[float, tuple[str, str, str]]) -> None:
            begun.add(event[1][0])
            notify(*event[1])

        client.subscribe_topic(PROGRESS_TOPIC, progress)
        client.subscribe_topic(EXIT_TOPIC, ends.ended)
        client.subscribe_topic(MEMORY_TOPIC, ends.stopped)
        in_two = in_two if workers.scheduler is not None else None
        futures = {_submitted(client, work, item, in_two): item for item in items}
        stack.callback(client.cancel, list(futures))
        waiting = _Waiting(client, workers, wants_gpu=in_two is not None)
        for future in waiting.completed(futures):
            failed = future.status != "finished"
            result = lost(futures[future], ends.of(future.exception())) if failed else future.result()
            yield result
            if enough(result):
                waiting.drop([f for f, item in futures.items() if _label(item) not in begun])


def _run_here(
    work: Callable[[ItemT, Notify], ResultT],
    items: Sequence[ItemT],
    notify: Notify,
    enough: Callable[[ResultT], bool],
) -> Iterator[ResultT]:
    for item in items:
        result = work(item, notify)
        yield result
        if enough(result):
            return


def _label(item: Any) -> str:
    """What progress reports call an item."""
    return str(getattr(item, "label", item))


def _submitted(
    client: Any,
    work: Callable[[ItemT, Notify], ResultT],
    item: ItemT,
    in_two: InTwo[ItemT, ResultT] | None,
) -> Any:
    """The future of an item's result."""
    on_gpu, rest = in_two.split(item) if in_two else (None, item)
    if in_two is None or on_gpu is None:
        return client.submit(_on_worker, work, rest, pure=False)
    # Before anything else that its worker may have to do.
    first = client.submit(_on_worker, work, on_gpu, pure=False, resources={GPU_RESOURCE: 1}, priority=1)
    return first if rest is None else client.submit(_after, first, work, rest, in_two.join, pure=False)


@dataclass
class _Waiting:
    """Waits for futures, and for workers that can do them."""

    client: Any
    workers: Workers
    wants_gpu: bool
    _dropped: set[Any] = field(default_factory=set)

    def completed(self, futures: Mapping[Any, Any]) -> Iterator[Any]:
        """The futures as they end; without those that were dropped.

        Raises
        ------
        TryAgainError
            The scheduler is gone, or no worker came in time that can do what waits.
        """
        from distributed import wait
        from distributed.client import FuturesCancelledError

        lacking = self._asked(self._lacking)
        if lacking:
            _log.warning("%s", lacking)
        pending = set(futures)
        while pending:
            try:
                done = wait(list(pending), self.workers.patience_s, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                lacking = self._asked(self._lacking)
                if lacking:
                    minutes = self.workers.patience_s / 60
                    raise TryAgainError(f"{lacking} None came in {minutes:.2g} minutes.") from None
                continue
            except (OSError, FuturesCancelledError) as fault:
                if not self._dropped:
                    raise self._gone() from fault
                done = {future for future in pending if future.status != "pending"}
            pending -= done
            for future in done - self._dropped:
                if future.status == "cancelled":
                    raise self._gone()
                yield future
            pending -= self._dropped

    def drop(self, futures: Sequence[Any]) -> None:
        """Do without these."""
        dropped = [future for future in futures if future.status == "pending"]
        self._dropped |= set(dropped)
        self.client.cancel(dropped)

    def _asked(self, ask: Callable[[], str]) -> str:
        try:
            return ask()
        except OSError as fault:
            raise self._gone() from fault

    def _lacking(self) -> str:
        """What no worker of the scheduler has; empty where nothing is lacking."""
        if self.workers.scheduler is None:
            return ""
        found = self.client.scheduler_info(n_workers=-1)["workers"].values()
        if not found:
            return (
                f"The Dask scheduler at {self.workers.scheduler} has no workers. Start some with "
                "hedypet-worker."
            )
        if self.wants_gpu and not any(w.get("resources", {}).get(GPU_RESOURCE, 0) for w in found):
            return (
                f"No worker of the Dask scheduler at {self.workers.scheduler} offers a GPU, which --device "
                "gpu asks for. Start hedypet-worker on a machine with a GPU (--gpus 1 where it sees none)."
            )
        return ""

    def _gone(self) -> TryAgainError:
        address = f" at {self.workers.scheduler}" if self.workers.scheduler else ""
        return TryAgainError(
            f"The Dask scheduler{address} is gone. Run the same command again; finished steps are kept."
        )


def _connected(stack: ExitStack, n_workers: int, workers: Workers) -> Any:
    """A client of the scheduler that was given, or of one with workers on this machine."""
    # Imported here: one process needs no cluster, and the import takes half a second. All of it before any
    # setting is changed: what its import adds to the settings would be gone when they are set back.
    import dask
    from distributed import Client, LocalCluster, Security

    # What Dask would choose is shared by all runs of a user, and stays behind.
    folder = stack.enter_context(
        tempfile.TemporaryDirectory(prefix="hedypet-dask-", dir=workers.folder, ignore_cleanup_errors=True)
    )
    stack.enter_context(
        dask.config.set({**WORKER_SETTINGS, **_OF_OUR_SCHEDULER, "temporary-directory": folder})
    )
    if workers.scheduler is not None:
        security = workers.certificates.security() if workers.certificates else None
        try:
            return stack.enter_context(
                Client(workers.scheduler, timeout=CONNECT_TIMEOUT_S, security=security)
            )
        except (OSError, TimeoutError, ValueError) as fault:
            raise TryAgainError(
                f"--dask-scheduler {workers.scheduler}: there is no scheduler ({fault}). Start one with "
                "'dask scheduler' and workers with 'hedypet-worker ADDRESS'."
            ) from fault
    share_mb = workers.share_mb(n_workers)
    try:
        _talk_to_self()
        # Other users of the machine reach its loopback device as well.
        security = Security.temporary()
        stack.enter_context(dask.config.set(_https(security, Path(folder))))
        cluster = LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            worker_class=nanny_class(),
            security=security,
            protocol="tls://",
            memory_limit=None if share_mb is None else f"{share_mb}MB",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
    except (OSError, RuntimeError, TimeoutError) as fault:
        raise TryAgainError(
            f"The worker processes cannot be started ({fault}). They need a loopback network device that is "
            "up (ip link set lo up), and free memory and processes. Without --mem-mb, --nprocs 1 needs none."
        ) from fault
    return stack.enter_context(Client(stack.enter_context(cluster)))


def _https(security: Any, folder: Path) -> dict[str, str]:
    """Settings with which the HTTP servers that Dask always starts ask for TLS as well."""
    files = {"cert": security.tls_scheduler_cert, "key": security.tls_scheduler_key}
    for name, content in files.items():
        (folder / f"{name}.pem").write_text(content)
    return {f"distributed.scheduler.dashboard.tls.{name}": str(folder / f"{name}.pem") for name in files}


def _talk_to_self() -> None:
    """Raise OSError where processes of this machine cannot reach each other; Dask would try for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), CONNECT_TIMEOUT_S).close()


@cache
def nanny_class() -> Any:
    """Dask's watcher of a worker process, which also tells everybody how that process ended."""
    from distributed import Nanny

    class TellingNanny(Nanny):  # type: ignore[misc]
        """Logs an event with the process id and the exit code of a worker process that ended by itself."""

        _started_pid: int | None = None

        async def instantiate(self) -> Any:
            status = await super().instantiate()
            self._started_pid = self.pid
            return status

        async def _on_worker_exit(self, exitcode: int) -> None:
            if self._started_pid is not None:
                self.log_event(EXIT_TOPIC, {"pid": self._started_pid, "exitcode": exitcode})
            await super()._on_worker_exit(exitcode)

    return TellingNanny


@dataclass
class _Ends:
    """How worker processes ended, by process id, as events tell it."""

    share_mb: int | None
    _exit_codes: dict[int, int] = field(default_factory=dict)
    _stopped_mb: dict[int, float] = field(default_factory=dict)

    def ended(self, event: tuple[float, dict[str, int]]) -> None:
        """Keep the exit code of a process."""
        self._exit_codes[event[1]["pid"]] = event[1]["exitcode"]

    def stopped(self, event: tuple[float, dict[str, Any]]) -> None:
        """Keep how much memory a process had when it was stopped for that."""
        self._stopped_mb[event[1]["pid"]] = event[1]["rss"] / 1e6

    def of(self, fault: BaseException) -> str:
        """Why an item was given up."""
        worker = getattr(fault, "last_worker", None)
        if worker is None:
            told = str(fault).strip().partition("\n")[0]
            return f"its worker process was lost ({told or type(fault).__name__})"
        return (
            f"its worker processes were lost again and again; the last one ({worker.address}) "
            f"{self._of_process(worker.pid)}"
        )

    def _of_process(self, pid: int) -> str:
        share = "" if self.share_mb is None else f" of {self.share_mb} MB"
        if pid in self._stopped_mb:
            return f"was stopped with {self._stopped_mb[pid]:.0f} MB, more than its share{share}"
        if pid not in self._exit_codes:
            return "was lost, with its machine or the network to it"
        code = self._exit_codes[pid]
        if code >= 0:
            return f"ended with exit code {code}"
        why = ", which the system sends when memory runs out" if code == -signal.SIGKILL else ""
        limit = f"; its share was{share[3:]}" if share else ""
        return f"was ended by signal {-code} ({_signal_name(-code)}){why}{limit}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _on_worker(work: Callable[[ItemT, Notify], ResultT], item: ItemT) -> ResultT:
    from distributed import get_worker

    worker: Any = get_worker()

    def tell(label: str, step: str, state: str) -> None:
        worker.log_event(PROGRESS_TOPIC, (label, step, state))

    return work(item, tell)


def _after(
    first: ResultT,
    work: Callable[[ItemT, Notify], ResultT],
    rest: ItemT,
    join: Callable[[ResultT, ResultT], ResultT],
) -> ResultT:
    return join(first, _on_worker(work, rest))
