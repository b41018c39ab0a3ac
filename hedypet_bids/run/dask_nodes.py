"""Dask's own processes as hedypet runs them, and what they report about a run that Dask itself does not.

Imports Dask, which takes half a second: to be imported where there are workers, and not before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Any

from distributed import Nanny, Scheduler, SchedulerPlugin, Worker
from distributed.core import Status

ENDS_TOPIC = "hedypet-worker-ends"
"""Events of Dask with the address of a worker whose process ended, its exit code and its memory, MB."""

NO_WORKERS, NO_GPU = "no worker", "no worker with a GPU"
"""What a run lacks, of which no task can run."""


class _WithoutPages:
    """No web server: Dask's is neither encrypted nor asks who is there."""

    def start_http_server(self, *_given: object, **_more: object) -> None:
        """Leave Dask's status pages out."""


class PrivateScheduler(_WithoutPages, Scheduler):  # type: ignore[misc]
    """A scheduler that listens to Dask's own connections and nothing else."""


class PrivateWorker(_WithoutPages, Worker):  # type: ignore[misc]
    """A worker that listens to Dask's own connections and nothing else."""


class TellingNanny(Nanny):  # type: ignore[misc]
    """A nanny that reports how its worker process ended, where that was not asked for."""

    _watched: Any = None
    _stopped_mb: float | None = None

    def log_event(self, topic: str, msg: Any) -> None:
        """Remember that the worker is being stopped for its memory."""
        if topic == "worker-restart-memory":
            self._stopped_mb = msg["rss"] / 1e6
        super().log_event(topic, msg)

    async def instantiate(self) -> Status:
        """Start the worker process, and be there when it ends."""
        status = await super().instantiate()
        # The same object starts each of the processes that follow each other.
        if self.process is not None and self.process is not self._watched:
            self._watched = self.process
            pass_on = self.process.on_exit

            def ended(exit_code: int) -> None:
                if self.status == Status.running:
                    message = {"worker": self.worker_address, "exit_code": exit_code}
                    self.log_event(ENDS_TOPIC, {**message, "stopped_mb": self._stopped_mb})
                self._stopped_mb = None
                pass_on(exit_code)

            self.process.on_exit = ended
        return status


class RunWatch(SchedulerPlugin):  # type: ignore[misc]
    """On the scheduler, for one run: whose fault a worker's end is, and whether its tasks can run at all.

    Dask blames all that was sent to a worker for its end, also what only waited there; after some such ends
    it gives a task up. Here only those are blamed that had begun.

    Parameters
    ----------
    name
        Of the run: its tasks have keys that begin with it, and its events this topic.
    client
        Dask's name of the client whose run it is; the watch ends with it.
    notice_s
        For how long no task can run before the run is told, seconds.
    patience_s
        For how long before its tasks are cancelled, seconds.
    """

    def __init__(self, name: str, client: str, *, notice_s: float, patience_s: float) -> None:
        self.name = name
        self._client = client
        self._notice_s, self._patience_s = notice_s, patience_s
        self._scheduler: Any = None
        self._begun: set[str] = set()
        self._ends: Counter[str] = Counter()
        self._states: dict[str, str] = {}
        self._timers: list[asyncio.TimerHandle] = []

    async def start(self, scheduler: Any) -> None:
        """Begin to watch."""
        self._scheduler = scheduler

    def remove_client(self, scheduler: Any, client: str) -> None:
        """End with the client."""
        if client == self._client:
            self._stop_timers()
            scheduler.remove_plugin(name=self.name)

    def log_event(self, topic: str, msg: Any) -> None:
        """Note that a task has begun, and take back the blame when a worker has ended."""
        if topic == self.name and "begun" in msg:
            self._begun.add(msg["begun"])
            self._scheduler.tasks[msg["begun"]].suspicious = self._ends[msg["begun"]]
        elif topic == "all" and msg.get("action") == "remove-worker" and not msg["expected"]:
            self._blame_those_begun(msg["processing-tasks"])

    def _blame_those_begun(self, keys: Collection[Any]) -> None:
        tasks = [self._scheduler.tasks[key] for key in keys if self._is_ours(key)]
        begun = [task for task in tasks if task.key in self._begun]
        # One that could not even report that it had begun: the first in the worker's order.
        blamed = begun or sorted(tasks, key=lambda task: task.priority)[:1]
        self._ends.update(task.key for task in blamed)
        for task in tasks:
            # Dask looks at it as soon as a worker ends: what only waits then must not be near its limit.
            task.suspicious = 0 if begun or task not in blamed else self._ends[task.key]
        self._begun.difference_update(keys)

    def transition(self, key: Any, _start: str, finish: str, *_given: object, **_more: object) -> None:
        """Note what became of a task."""
        if self._is_ours(key):
            self._states[key] = finish
            self._time()

    def add_worker(self, scheduler: Any, worker: str) -> None:  # noqa: ARG002 - the names that Dask gives
        """See whether tasks can run now."""
        self._time()

    def remove_worker(self, scheduler: Any, worker: str, **_more: object) -> None:  # noqa: ARG002
        """See whether tasks can still run."""
        self._time()

    def _is_ours(self, key: Any) -> bool:
        return isinstance(key, str) and key.startswith(self.name)

    def _time(self) -> None:
        """Have the timers run while no task can."""
        states = set(self._states.values())
        # What is queued waits for workers that have other work, unless there are none.
        cannot_run = "no-worker" in states or ("queued" in states and not self._scheduler.workers)
        if "processing" in states or not cannot_run:
            self._stop_timers()
        elif not self._timers:
            loop = asyncio.get_running_loop()
            self._timers = [
                loop.call_later(self._notice_s, self._tell_what_it_lacks),
                loop.call_later(self._patience_s, self._give_up),
            ]

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers = []

    def _lack(self) -> str:
        return NO_GPU if self._scheduler.workers else NO_WORKERS

    def _tell_what_it_lacks(self) -> None:
        self._scheduler.log_event(self.name, {"lacks": self._lack()})

    def _give_up(self) -> None:
        waiting = [key for key, state in self._states.items() if state in ("no-worker", "queued")]
        waited = f"None came in {self._patience_s / 60:.0f} minutes."
        self._scheduler.stimulus_cancel(waiting, self._client, False, self._lack(), waited)
