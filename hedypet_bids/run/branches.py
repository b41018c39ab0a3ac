"""Work side by side in threads, which a signal or a fault in one of them ends as it would end a loop."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from hedypet_bids.errors import StoppedBySignal

ResultT = TypeVar("ResultT")

# A thread that waits for others looks up so often, to see whether it is to end.
_LOOK_UP_S = 0.1


class _Branch(threading.Thread, Generic[ResultT]):
    """A thread that keeps what its work returned or raised."""

    def __init__(self, work: Callable[[], ResultT]) -> None:
        super().__init__(name="hedypet-branch", daemon=True)
        self._work = work
        self._results: list[ResultT] = []
        self.fault: BaseException | None = None
        # Not join: a signal that interrupts it lets Python 3.11 take the thread for ended.
        self.ended = threading.Event()

    def run(self) -> None:
        """Do the work."""
        try:
            self._results.append(self._work())
        except BaseException as fault:  # noqa: BLE001 - handed on to the thread that waits
            self.fault = fault
        finally:
            self.ended.set()

    def result(self) -> ResultT:
        """What the work returned; what it raised is raised here."""
        if self.fault is not None:
            raise self.fault
        return self._results[0]

    def stop(self) -> None:
        """Let StoppedBySignal be raised in the work, at the next instruction of its Python code."""
        if self.ident is not None and not self.ended.is_set():
            # The one way to end a thread that leaves through its finally blocks, which remove half-written
            # files and end external programs.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.ident), ctypes.py_object(StoppedBySignal)
            )


def side_by_side(works: Sequence[Callable[[], ResultT]]) -> list[ResultT]:
    """Results of several works, each in a thread of its own, in their order.

    When one of them raises, or a signal does in the waiting thread, the others are stopped and have ended
    before that goes on to the caller.
    """
    branches = [_Branch(work) for work in works]
    try:
        for branch in branches:
            branch.start()
        running = list(branches)
        while running:
            running[0].ended.wait(_LOOK_UP_S)
            ended = [branch for branch in running if branch.ended.is_set()]
            for branch in ended:
                branch.result()
            running = [branch for branch in running if branch not in ended]
    except BaseException:
        for branch in branches:
            branch.stop()
        for branch in branches:
            if branch.ident is not None:
                branch.ended.wait()
        raise
    return [branch.result() for branch in branches]
