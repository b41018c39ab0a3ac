"""The one place that talks to Dask: participants side by side in worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

PROGRESS_TOPIC = "hedypet-progress"
Notify = Callable[[str, str, str], None]


def available_cpus() -> int:
    """Processors that this process may use (an allocation may be smaller than the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    work: Callable[[ItemT, Notify], ResultT],
    items: Sequence[ItemT],
    *,
    nprocs: int,
    mem_mb: int | None,
    notify: Notify,
    lost: Callable[[ItemT, str], ResultT],
) -> Iterator[ResultT]:
    """Results of ``work`` on every item, in the order in which they finish.

    Parameters
    ----------
    work
        Called with an item and a function that reports progress; must be picklable.
    nprocs, mem_mb
        Worker processes, and the memory in MB that they share.
    notify
        Gets every progress report, in this process.
    lost
        Makes a result for an item whose worker died.
    """
    n_workers = min(nprocs, len(items))
    if n_workers <= 1:
        yield from (work(item, notify) for item in items)
        return
    yield from _run_on_cluster(work, items, n_workers, mem_mb, notify, lost)


def _run_on_cluster(
    work: Callable[[ItemT, Notify], ResultT],
    items: Sequence[ItemT],
    n_workers: int,
    mem_mb: int | None,
    notify: Notify,
    lost: Callable[[ItemT, str], ResultT],
) -> Iterator[ResultT]:
    # Imported here: one process needs no cluster, and the import takes half a second.
    import dask
    from distributed import Client, LocalCluster, as_completed

    # Non-daemonic workers may fork external tools.
    with (
        dask.config.set({"distributed.worker.daemon": False}),
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=f"{mem_mb // n_workers}MB" if mem_mb else "auto",
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.subscribe_topic(PROGRESS_TOPIC, lambda event: notify(*event[1]))
        futures = {client.submit(_on_worker, work, item, pure=False, retries=0): item for item in items}
        for future in as_completed(futures):
            if future.status == "finished":
                yield future.result()
            else:
                yield lost(futures[future], f"the worker process was lost: {future.exception()}")


def _on_worker(work: Callable[[ItemT, Notify], ResultT], item: ItemT) -> ResultT:
    from distributed import get_worker

    worker: Any = get_worker()

    def tell(label: str, step: str, state: str) -> None:
        worker.log_event(PROGRESS_TOPIC, (label, step, state))

    return work(item, tell)
