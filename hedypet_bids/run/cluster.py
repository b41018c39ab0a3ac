"""The one place that talks to Dask: participants side by side in worker processes, here or elsewhere."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hedypet_bids.errors import TryAgainError, UsageError
from hedypet_bids.io.atomic import temporary_folder
from hedypet_bids.io.between_processes import check_locks_between
from hedypet_bids.io.work_dir import LEFT_OVER

if TYPE_CHECKING:
    from hedypet_bids.run.job import Notify

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

GPU_RESOURCE = "GPU"
"""What a worker has as often as it has GPUs; each part of an item that wants a GPU takes one."""

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

_log = logging.getLogger("hedypet")


@dataclass(frozen=True)
class Certificates:
    """What the processes of a cluster know each other by: PEM files; None for those of Dask's settings.

    Parameters
    ----------
    ca_file
        Certificate of the authority that signed those of all processes.
    cert, key
        Certificate of this process, and its private key.
    """

    ca_file: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def security(self, role: str) -> Any:
        """Dask's object for connections that are encrypted, and on which both sides show who they are.

        Parameters
        ----------
        role
            ``client`` or ``worker``, which differ in the settings of Dask that are used.

        Raises
        ------
        UsageError
            A file is missing, cannot be read or is no certificate.
        """
        from distributed.security import Security

        fields = {
            "tls_ca_file": self.ca_file,
            f"tls_{role}_cert": self.cert,
            f"tls_{role}_key": self.key,
        }
        given = {name: str(path) for name, path in fields.items() if path is not None}
        absent = [path for path in given.values() if not Path(path).is_file()]
        if absent:
            raise UsageError(f"There is no certificate or key {', '.join(absent)}. {HOW_TO_ENCRYPT}")
        security = Security(require_encryption=True, **given)
        if not all(getattr(security, name) for name in fields):
            raise UsageError(f"A Dask scheduler needs certificates. {HOW_TO_ENCRYPT}")
        try:
            security.get_connection_args(role)
        except OSError as fault:  # such as ssl.SSLError
            raise UsageError(f"The certificates cannot be used: {fault}. {HOW_TO_ENCRYPT}") from fault
        return security


HOW_TO_ENCRYPT = (
    "Whoever reaches a scheduler without encryption can run programs as its owner, so its address begins "
    "with tls://, and it, its workers and hedypet are given --tls-ca-file, --tls-cert and --tls-key. One "
    "call of openssl makes them; docs/engine.md (On several machines) shows it."
)


@dataclass(frozen=True)
class Patience:
    """How long to wait, seconds.

    Parameters
    ----------
    connect_s
        For an answer of the scheduler.
    notice_s
        Before it is said that no worker can do what is left; one that ended is there again sooner.
    worker_s
        For such a worker, which others start, by a queue perhaps.
    end_s
        For how the process of a lost worker ended; where its machine is gone nobody says.
    """

    connect_s: float = 30.0
    notice_s: float = 10.0
    worker_s: float = 900.0
    end_s: float = 5.0


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
        For the connection to that scheduler.
    folder
        For the temporary files of the workers; None: the system's.
    always_watched
        Whether a single worker is kept to the memory as well, which takes a process of its own.
    patience
        How long to wait for what others do.
    """

    nprocs: int
    memory_mb: float | None = None
    item_mb: float = 0.0
    scheduler: str | None = None
    certificates: Certificates = Certificates()
    folder: Path | None = None
    always_watched: bool = False
    patience: Patience = Patience()

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
        There is no scheduler at the address given, it went away, or no worker came that can do the work.
    UsageError
        The certificates for the scheduler are missing or cannot be used.
    """
    n_workers = workers.number_for(len(items))
    if n_workers > 1 or workers.scheduler is not None or workers.always_watched:
        yield from _run_on_cluster(work, items, n_workers, workers, notify, lost, enough, gpu_parts)
        return
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
    from distributed import Event, as_completed

    from hedypet_bids.run.dask_nodes import ENDS_TOPIC, RunWatch

    with ExitStack() as stack:
        # What Dask would choose is shared by all runs of a user, and stays behind.
        folder = stack.enter_context(temporary_folder(workers.folder, prefix=LEFT_OVER))
        # A lost item is done once more.
        own = {"temporary-directory": str(folder), "distributed.scheduler.allowed-failures": 1}
        stack.enter_context(dask.config.set({**WORKER_SETTINGS, **own}))
        client = _client(stack, n_workers, workers)
        run = f"hedypet-{uuid.uuid4().hex}"
        events = _Events(notify, workers.scheduler)
        client.subscribe_topic(run, events.of_run)
        client.subscribe_topic(ENDS_TOPIC, events.of_ends)
        wait = workers.patience
        client.register_plugin(RunWatch(run, client.id, notice_s=wait.notice_s, patience_s=wait.worker_s))
        split = gpu_parts if workers.scheduler is not None else None
        parts = _submit(client, run, work, items, enough, split)
        stack.callback(client.cancel, list(parts))
        done: dict[Any, ResultT] = {}
        for future, result in as_completed(
            list(parts), loop=client.loop, with_results=True, raise_errors=False
        ):
            part = parts[future]
            if future.cancelled():
                raise events.why_cancelled(result)
            if future.status == "error":
                if part.then is not None:
                    continue  # what comes after it ends in the same way
                why = _why_lost(result[1], events, workers, workers.share_mb(n_workers))
                result = _result_of_lost(part, parts, done, why, lost, split)
            elif result is None:
                continue  # enough was done before it began
            done[future] = result
            if enough(result):
                Event(run, client).set()
            elif part.then is not None:
                continue
            yield result


@dataclass
class _Part(Generic[ItemT]):
    """What is sent to a worker: an item or a part of it; the futures of the parts before and after it."""

    item: ItemT
    before: Any = None
    then: Any = None


def _submit(
    client: Any,
    run: str,
    work: Callable[[ItemT, Notify], ResultT],
    items: Sequence[ItemT],
    enough: Callable[[ResultT], bool],
    gpu_parts: GpuParts[ItemT, ResultT] | None,
) -> dict[Any, _Part[ItemT]]:
    """The futures of all parts of all items, those that want a GPU before anything else on their workers."""
    parts: dict[Any, _Part[ItemT]] = {}
    given = (work, enough, run)
    for number, item in enumerate(items):
        on_gpu, rest = gpu_parts.split(item) if gpu_parts else (None, item)
        first = None
        if on_gpu is not None:
            wishes = {"resources": {GPU_RESOURCE: 1}, "priority": 1}
            first = client.submit(_on_worker, *given, on_gpu, key=f"{run}-{number}-gpu", **wishes)
            parts[first] = _Part(on_gpu)
        if rest is not None:
            after = (gpu_parts.join, first) if first is not None and gpu_parts is not None else ()
            future = client.submit(_on_worker, *given, rest, *after, key=f"{run}-{number}")
            parts[future] = _Part(rest, before=first)
            if first is not None:
                parts[first].then = future
    return parts


def _on_worker(
    work: Callable[[ItemT, Notify], ResultT],
    enough: Callable[[ResultT], bool],
    run: str,
    item: ItemT,
    join: Callable[[ResultT, ResultT], ResultT] | None = None,
    before: ResultT | None = None,
) -> ResultT | None:
    """The result of an item or a part of it; None where enough was done before it began."""
    from distributed import get_worker
    from distributed.utils import sync

    worker: Any = get_worker()
    scheduler = worker.scheduler
    if (join and before is None) or sync(worker.loop, scheduler.event_is_set, name=run):
        return None
    # The scheduler has to know whose fault it is before this can end the process.
    begun = {"begun": worker.get_current_task()}
    sync(worker.loop, scheduler.log_event, topic=run, msg=begun)
    result = work(item, lambda *step: worker.log_event(run, {"step": step}))
    if enough(result):
        # Here, since this worker may begin the next item before the run has seen the result.
        sync(worker.loop, scheduler.event_set, name=run)
    return join(before, result) if join and before is not None else result


class _Events:
    """What the processes of the cluster report while they work."""

    def __init__(self, notify: Notify, scheduler: str | None) -> None:
        self._notify = notify
        self._address = f" at {scheduler}" if scheduler else ""
        self._ends: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()

    def of_run(self, event: tuple[float, dict[str, Any]]) -> None:
        """A step has begun or ended, or no task can run."""
        if "step" in event[1]:
            self._notify(*event[1]["step"])
        elif "lacks" in event[1]:
            _log.warning("%s", self._what_it_lacks(event[1]["lacks"]))

    def of_ends(self, event: tuple[float, dict[str, Any]]) -> None:
        """A worker process has ended."""
        with self._changed:
            self._ends[event[1]["worker"]] = event[1]
            self._changed.notify_all()

    def end_of(self, address: str, within_s: float) -> dict[str, Any] | None:
        """How a worker process ended; None where nobody reports it in time."""
        with self._changed:
            self._changed.wait_for(lambda: address in self._ends, within_s)
            return self._ends.get(address)

    def why_cancelled(self, cancelled: Any) -> TryAgainError:
        """The error of a run whose task was cancelled."""
        from hedypet_bids.run.dask_nodes import NO_GPU, NO_WORKERS

        if cancelled.reason in (NO_GPU, NO_WORKERS):
            return TryAgainError(f"{self._what_it_lacks(cancelled.reason)} {cancelled.msg}")
        return TryAgainError(
            f"The Dask scheduler{self._address} is gone. Run the same command again; finished steps are kept."
        )

    def _what_it_lacks(self, lack: str) -> str:
        from hedypet_bids.run.dask_nodes import NO_GPU

        if lack == NO_GPU:
            return (
                f"No worker of the Dask scheduler{self._address} offers a GPU, which --device gpu asks for. "
                "Start hedypet-worker on a machine with a GPU (--gpus 1 where it sees none)."
            )
        return f"The Dask scheduler{self._address} has no workers. Start some with hedypet-worker."


def _client(stack: ExitStack, n_workers: int, workers: Workers) -> Any:
    from distributed import Client, SpecCluster
    from distributed.security import Security

    from hedypet_bids.run.dask_nodes import PrivateScheduler, PrivateWorker, TellingNanny

    if workers.scheduler is not None:
        security = workers.certificates.security("client")
        try:
            return stack.enter_context(
                Client(workers.scheduler, timeout=workers.patience.connect_s, security=security)
            )
        except (OSError, TimeoutError, ValueError) as fault:
            raise TryAgainError(
                f"--dask-scheduler {workers.scheduler}: there is no scheduler ({fault}). Start one with "
                "'dask scheduler' and workers with 'hedypet-worker ADDRESS'."
            ) from fault
    share_mb = workers.share_mb(n_workers)
    # Other users of this machine can reach its loopback device, and have no certificate.
    security = Security.temporary()
    private = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
    nanny = {
        "cls": TellingNanny,
        "options": {
            **private,
            "worker_class": PrivateWorker,
            "nthreads": 1,
            "memory_limit": None if share_mb is None else f"{share_mb}MB",
            "silence_logs": logging.CRITICAL,
        },
    }
    check_locks_between()
    try:
        _talk_to_self(workers.patience.connect_s)
        cluster = SpecCluster(
            workers=dict.fromkeys(range(n_workers), nanny),
            scheduler={"cls": PrivateScheduler, "options": {**private, "port": 0, "dashboard": False}},
            security=security,
            silence_logs=logging.CRITICAL,
        )
    except (OSError, RuntimeError, TimeoutError) as fault:
        raise TryAgainError(
            f"The worker processes cannot be started ({fault}). They need a loopback network device that is "
            "up (ip link set lo up), and free memory and processes. Without --mem-mb, --nprocs 1 needs none."
        ) from fault
    return stack.enter_context(Client(stack.enter_context(cluster)))


def _talk_to_self(within_s: float) -> None:
    """Raise OSError where processes of this machine cannot reach each other; Dask would try for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), within_s).close()


def _result_of_lost(
    part: _Part[ItemT],
    parts: dict[Any, _Part[ItemT]],
    done: dict[Any, ResultT],
    why: str,
    lost: Callable[[ItemT, str], ResultT],
    gpu_parts: GpuParts[ItemT, ResultT] | None,
) -> ResultT:
    """The result of an item of which a part was given up, with that of a part that finished before it."""
    if part.before is None or gpu_parts is None:
        return lost(part.item, why)
    if part.before in done:
        return gpu_parts.join(done[part.before], lost(part.item, why))
    return lost(parts[part.before].item, why)


def _why_lost(fault: BaseException, events: _Events, workers: Workers, share_mb: int | None) -> str:
    worker = getattr(fault, "last_worker", None)
    if worker is None:
        told = str(fault).strip().partition("\n")[0]
        return f"its worker process was lost ({told or type(fault).__name__})"
    how = _how_it_ended(events.end_of(worker.address, workers.patience.end_s), share_mb)
    return f"its worker processes were lost again and again; the last one ({worker.address}) {how}"


def _how_it_ended(end: dict[str, Any] | None, share_mb: int | None) -> str:
    if end is None:
        return "was lost, with its machine or the network to it"
    if end["stopped_mb"] is not None:
        share = "" if share_mb is None else f" of {share_mb} MB"
        return f"was stopped with {end['stopped_mb']:.0f} MB, more than its share{share}"
    limit = "" if share_mb is None else f"; its share was {share_mb} MB"
    if end["exit_code"] >= 0:
        return f"ended with exit code {end['exit_code']}{limit}"
    number = -end["exit_code"]
    why = ", which the system sends when memory runs out" if number == signal.SIGKILL else ""
    return f"was ended by signal {number} ({_signal_name(number)}){why}{limit}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
