"""The one place that talks to Dask: participants side by side in worker processes, here or elsewhere."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from hedypet_bids.errors import TryAgainError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
AnswerT = TypeVar("AnswerT")

PROGRESS_TOPIC = "hedypet-progress"
GPU_RESOURCE = "gpu"
"""What a worker has as often as it has GPUs; each part of an item that wants a GPU takes one."""

CONNECT_TIMEOUT_S = 30
# Workers of a cluster are started by others, by a queue perhaps: how long to wait, and how often to look.
PATIENCE_S = 900.0
_LOOK_UP_S = 2.0
# A worker that died is there again after some seconds.
_RESTART_S = 10.0
# An item that takes less is small, and the next one would only fault the same pages in anew.
_LONG_S = 10.0

WORKER_SETTINGS = {
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
}
"""Dask's settings for worker processes, here and of ``hedypet-worker``."""

Notify = Callable[[str, str, str], None]

_log = logging.getLogger("hedypet")


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
    folder
        For the temporary files of the workers; None: the system's.
    always_watched
        Whether a single worker is kept to the memory as well, which takes a process of its own.
    """

    nprocs: int
    memory_mb: float | None = None
    item_mb: float = 0.0
    scheduler: str | None = None
    folder: Path | None = None
    always_watched: bool = False

    def number_for(self, n_items: int) -> int:
        """Worker processes to start on this machine."""
        fitting = int(self.memory_mb // self.item_mb) if self.memory_mb and self.item_mb else n_items
        return max(1, min(self.nprocs, n_items, fitting))

    def share_mb(self, n_workers: int) -> int | None:
        """Memory that each of so many workers on this machine is kept to."""
        return int(self.memory_mb // n_workers) if self.memory_mb and self.scheduler is None else None


@dataclass(frozen=True)
class GpuParts(Generic[ItemT, ResultT]):
    """How items are done in two parts where only some workers of a cluster have a GPU.

    Parameters
    ----------
    split
        The part of an item that wants a GPU, and what comes after it; None for a part that is empty.
    join
        One result of the results of both parts.
    """

    split: Callable[[ItemT], tuple[ItemT | None, ItemT | None]]
    join: Callable[[ResultT, ResultT], ResultT]


@dataclass(frozen=True)
class _Part(Generic[ItemT, ResultT]):
    """What is sent to a worker: an item or a part of it, and what is known and left to do of that item."""

    item: ItemT
    wants_gpu: bool = False
    rest: ItemT | None = None
    before: ResultT | None = None


def available_cpus() -> int:
    """Processors that this process may use (an allocation may be smaller than the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    work: Callable[[ItemT, Notify], ResultT],
    items: Sequence[ItemT],
    *,
    workers: Workers,
    notify: Notify,
    lost: Callable[[ItemT, str], ResultT],
    enough: Callable[[ResultT], bool] = lambda _result: False,
    gpu_parts: GpuParts[ItemT, ResultT] | None = None,
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
    gpu_parts
        Given: on a cluster that is already there, one part of each item goes to the workers that have a
        GPU and takes one of them, the rest to any worker.

    Raises
    ------
    TryAgainError
        There is no scheduler at the address given.
    """
    n_workers = workers.number_for(len(items))
    results: Iterator[ResultT]
    if n_workers == 1 and workers.scheduler is None and not workers.always_watched:
        results = _run_here(work, items, notify, enough)
    else:
        results = _run_on_cluster(work, items, n_workers, workers, notify, lost, enough, gpu_parts)
    yield from results


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


def _run_on_cluster(
    work: Callable[[ItemT, Notify], ResultT],
    items: Sequence[ItemT],
    n_workers: int,
    workers: Workers,
    notify: Notify,
    lost: Callable[[ItemT, str], ResultT],
    enough: Callable[[ResultT], bool],
    gpu_parts: GpuParts[ItemT, ResultT] | None,
) -> Iterator[ResultT]:
    # Imported here: one process needs no cluster, and the import takes half a second. All of it before any
    # setting is changed: what its import adds to the settings would be gone when they are set back.
    import dask
    import distributed  # noqa: F401

    with ExitStack() as stack:
        # What Dask would choose is shared by all runs of a user, and stays behind.
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(
                prefix="hedypet-dask-", dir=workers.folder, ignore_cleanup_errors=True
            )
        )
        stack.enter_context(
            dask.config.set(
                {
                    **WORKER_SETTINGS,
                    "temporary-directory": folder,
                    # One for its own repetition, one for having waited on a worker that another item killed.
                    "distributed.scheduler.allowed-failures": 2,
                }
            )
        )
        deaths = _Deaths()
        nannies = logging.getLogger("distributed.nanny")
        nannies.addHandler(deaths)
        stack.callback(nannies.removeHandler, deaths)
        client = _client(stack, n_workers, workers)
        client.subscribe_topic(PROGRESS_TOPIC, lambda event: notify(*event[1]))
        client.subscribe_topic("worker-restart-memory", deaths.stopped)
        queue = _Queue(client, work, workers.scheduler)
        stack.callback(queue.cancel)
        split = gpu_parts if workers.scheduler is not None else None
        queue.add(_first_part(item, split) for item in items)
        for part, future in queue.ended():
            if future.status != "finished":
                result = lost(part.item, _why_lost(future.exception(), deaths, workers, n_workers))
            else:
                result = future.result()
            if part.rest is not None and future.status == "finished" and not enough(result):
                queue.add([_Part(part.rest, before=result)])
                continue
            if part.before is not None and split is not None:
                result = split.join(part.before, result)
            if enough(result):
                queue.begin_no_more()
            yield result


def _first_part(item: ItemT, split: GpuParts[ItemT, ResultT] | None) -> _Part[ItemT, ResultT]:
    on_gpu, rest = split.split(item) if split else (None, item)
    if on_gpu is not None:
        return _Part(on_gpu, wants_gpu=True, rest=rest)
    assert rest is not None
    return _Part(rest)


class _Queue(Generic[ItemT, ResultT]):
    """Sends to Dask no more than its workers can begin at once.

    What waits on a worker falls with it when that is brought down by another part; what wants a GPU would
    all wait on the workers that have one.
    """

    def __init__(self, client: Any, work: Callable[[ItemT, Notify], ResultT], scheduler: str | None) -> None:
        self._client = client
        self._work = work
        self._address = f" at {scheduler}" if scheduler else ""
        self._waiting: deque[_Part[ItemT, ResultT]] = deque()
        self._waiting_for_gpu: deque[_Part[ItemT, ResultT]] = deque()
        self._running: dict[Any, _Part[ItemT, ResultT]] = {}

    def add(self, parts: Iterable[_Part[ItemT, ResultT]]) -> None:
        """Have these parts done."""
        for part in parts:
            (self._waiting_for_gpu if part.wants_gpu else self._waiting).append(part)

    def begin_no_more(self) -> None:
        """Let what runs end, and forget the rest."""
        self._waiting.clear()
        self._waiting_for_gpu.clear()

    def cancel(self) -> None:
        """End what was sent; for a run that is itself ending."""
        self._client.cancel(list(self._running))

    def ended(self) -> Iterator[tuple[_Part[ItemT, ResultT], Any]]:
        """Parts with their futures, as they end, until nothing waits nor runs.

        Raises
        ------
        TryAgainError
            The scheduler is gone, or no worker came that can do what waits.
        """
        stuck_since = None
        told = False
        while self._waiting or self._waiting_for_gpu or self._running:
            n_threads, n_gpus = self._asked(self._capacity)
            self._fill(n_threads, n_gpus)
            if any(n_gpus if part.wants_gpu else n_threads for part in self._running.values()):
                stuck_since = None
            elif stuck_since is None:
                stuck_since = time.monotonic()
            elif time.monotonic() - stuck_since > PATIENCE_S:
                raise TryAgainError(
                    f"{self._what_it_lacks(n_threads)} None came in {PATIENCE_S / 60:.0f} minutes."
                )
            elif time.monotonic() - stuck_since > _RESTART_S and not told:
                _log.warning("%s", self._what_it_lacks(n_threads))
                told = True
            if not self._running:
                time.sleep(_LOOK_UP_S)
                continue
            self._asked(self._wait)
            for future in [future for future in self._running if future.status != "pending"]:
                yield self._running.pop(future), future

    def _fill(self, n_threads: int, n_gpus: int) -> None:
        """Send what can begin, parts that want a GPU first: only some workers can do them."""
        n_gpus -= sum(part.wants_gpu for part in self._running.values())
        while self._waiting_for_gpu and n_gpus > 0 and len(self._running) < n_threads:
            self._submit(self._waiting_for_gpu.popleft())
            n_gpus -= 1
        while self._waiting and len(self._running) < n_threads:
            self._submit(self._waiting.popleft())

    def _submit(self, part: _Part[ItemT, ResultT]) -> None:
        # Before anything else that its worker may have to do.
        wishes = {"resources": {GPU_RESOURCE: 1}, "priority": 1} if part.wants_gpu else {}
        future = self._client.submit(_on_worker, self._work, part.item, pure=False, retries=0, **wishes)
        self._running[future] = part

    def _wait(self) -> None:
        """Return when a part ends, or when it is time to look at the workers again."""
        from distributed import wait

        with suppress(TimeoutError):
            wait(list(self._running), _LOOK_UP_S, return_when="FIRST_COMPLETED")

    def _capacity(self) -> tuple[int, int]:
        """Threads and GPUs of all workers."""
        found = self._client.scheduler_info()["workers"].values()
        n_gpus = sum(worker.get("resources", {}).get(GPU_RESOURCE, 0) for worker in found)
        return sum(worker["nthreads"] for worker in found), int(n_gpus)

    def _asked(self, ask: Callable[[], AnswerT]) -> AnswerT:
        """The scheduler's answer; TryAgainError where it is gone."""
        # Dask has a name of its own for futures that end with their scheduler.
        from distributed.client import FuturesCancelledError

        try:
            return ask()
        except (OSError, FuturesCancelledError) as fault:
            raise TryAgainError(
                f"The Dask scheduler{self._address} is gone. Run the same command again; finished steps are "
                "kept."
            ) from fault

    def _what_it_lacks(self, n_threads: int) -> str:
        if n_threads:
            return (
                f"No worker of the Dask scheduler{self._address} offers a GPU, which --device gpu asks for. "
                "Start hedypet-worker on a machine with a GPU (--gpus 1 where it sees none)."
            )
        return f"The Dask scheduler{self._address} has no workers. Start some with hedypet-worker."


def _client(stack: ExitStack, n_workers: int, workers: Workers) -> Any:
    from distributed import Client, LocalCluster

    if workers.scheduler is not None:
        try:
            return stack.enter_context(Client(workers.scheduler, timeout=CONNECT_TIMEOUT_S))
        except (OSError, TimeoutError, ValueError) as fault:
            raise TryAgainError(
                f"--dask-scheduler {workers.scheduler}: there is no scheduler ({fault}). Start one with "
                "'dask scheduler' and workers with 'hedypet-worker ADDRESS'."
            ) from fault
    share_mb = workers.share_mb(n_workers)
    try:
        _talk_to_self()
        cluster = LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=None if share_mb is None else f"{share_mb}MB",
            # On no fixed port, which another run may have, and not open to the network.
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
    except (OSError, RuntimeError, TimeoutError) as fault:
        raise TryAgainError(
            f"The worker processes cannot be started ({fault}). They need a loopback network device that is "
            "up (ip link set lo up), and free memory and processes. Without --mem-mb, --nprocs 1 needs none."
        ) from fault
    return stack.enter_context(Client(stack.enter_context(cluster)))


def _talk_to_self() -> None:
    """Raise OSError where processes of this machine cannot reach each other; Dask would try for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), CONNECT_TIMEOUT_S).close()


class _Deaths(logging.Handler):
    """How worker processes of this machine ended, by process id, as Dask tells it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._signals: dict[int, int] = {}
        self._stopped_mb: dict[int, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the signal that ended a process."""
        told = re.search(r"process (\d+) was killed by signal (\d+)", record.getMessage())
        if told:
            self._signals[int(told[1])] = int(told[2])

    def stopped(self, event: tuple[float, dict[str, Any]]) -> None:
        """Keep how much memory a process had when it was stopped for that."""
        self._stopped_mb[event[1]["pid"]] = event[1]["rss"] / 1e6

    def of(self, worker: Any, share_mb: int | None) -> str:
        """How the process of a worker ended."""
        share = "" if share_mb is None else f" of {share_mb} MB"
        if worker.pid in self._stopped_mb:
            return f"was stopped with {self._stopped_mb[worker.pid]:.0f} MB, more than its share{share}"
        if worker.pid not in self._signals:
            return "was lost, with its machine or the network to it"
        number = self._signals[worker.pid]
        why = ", which the system sends when memory runs out" if number == signal.SIGKILL else ""
        limit = f"; its share was{share[3:]}" if share else ""
        return f"was ended by signal {number} ({_signal_name(number)}){why}{limit}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _why_lost(fault: BaseException, deaths: _Deaths, workers: Workers, n_workers: int) -> str:
    worker = getattr(fault, "last_worker", None)
    if worker is None:
        told = str(fault).strip().partition("\n")[0]
        return f"its worker process was lost ({told or type(fault).__name__})"
    how = deaths.of(worker, workers.share_mb(n_workers))
    return f"its worker processes were lost again and again; the last one ({worker.address}) {how}"


def _on_worker(work: Callable[[ItemT, Notify], ResultT], item: ItemT) -> ResultT:
    from distributed import get_worker

    worker: Any = get_worker()

    def tell(label: str, step: str, state: str) -> None:
        worker.log_event(PROGRESS_TOPIC, (label, step, state))

    began = time.monotonic()
    try:
        return work(item, tell)
    finally:
        if time.monotonic() - began > _LONG_S:
            _give_back_memory()


def _give_back_memory() -> None:
    """Hand what the C library keeps of freed arrays back to the system, once an item, not at every array."""
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
