"""What a step is: it says what it would read and make, and makes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hedypet_bids.io.manifest import Kind, ScanOutputs, StepRecord
from hedypet_bids.io.store import Store, Writer
from hedypet_bids.model import Scan
from hedypet_bids.settings import Settings
from hedypet_bids.tools.synthseg import SynthSeg
from hedypet_bids.tools.totalsegmentator import TotalSegmentator

SEGMENTATION = "segmentation"
SERIES = "series"
MAPS = "maps"
"""The step that makes voxel maps, as ``--steps`` knows it."""


@dataclass(frozen=True)
class Tools:
    """The segmentation programs of this machine, and where they may write.

    Parameters
    ----------
    totalsegmentator, synthseg
        None where the program is not to be used; ``without`` then has the reason by task name.
    work_dir
        For temporary files; None for the system's folder.
    log_folder
        For the programs' own logs.
    """

    totalsegmentator: TotalSegmentator | None = None
    synthseg: SynthSeg | None = None
    without: Mapping[str, str] = field(default_factory=dict, hash=False)
    work_dir: Path | None = None
    log_folder: Path = Path()


@dataclass(frozen=True)
class Context:
    """What all steps of a run share.

    Parameters
    ----------
    settings
        The parameters of the study.
    store
        The output folder.
    threads
        Threads that a step may use.
    tools
        External programs.
    records
        Says what has become of the steps so far, in the order of the pipeline.
    wants
        Says whether the steps of a name, as ``--steps`` knows it, may run.
    """

    settings: Settings
    store: Store
    threads: int = 1
    tools: Tools = field(default_factory=Tools)
    records: Callable[[], Sequence[StepRecord]] = tuple
    wants: Callable[[str], bool] = lambda _group: True


class CannotRun(Exception):  # noqa: N818 - no failure: the images hold nothing to work on
    """Raised by ``run`` when only the images' content shows that a step does not apply.

    The step counts as skipped, with this reason, and the pipeline goes on.
    """


@dataclass(frozen=True)
class Plan:
    """What a step would do.

    Parameters
    ----------
    reads
        Every file that it reads.
    makes
        Every file that it makes and that has a sidecar, by what it is.
    settings
        The parameters that the results depend on.
    missing
        What it leaves out although it runs, each with its reason.
    always
        Why it runs even where its results are there; empty: it does not.
    """

    reads: Iterable[Path]
    makes: Mapping[Kind, Path]
    settings: Mapping[str, Any] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    always: str = ""


@dataclass(frozen=True)
class Skip:
    """Why a step does not apply; an empty reason: there is nothing to do and nothing to say."""

    reason: str = ""


@dataclass(eq=False)
class Step(ABC):
    """A step of the pipeline: files in, files out.

    Its fields hold the scan that it works on and the steps that it builds on. It is planned when those are
    settled: ``made`` of each then holds what it made, and is empty where it did not run.
    """

    context: Context = field(init=False, repr=False)
    outputs: ScanOutputs = field(init=False, repr=False, default=ScanOutputs())

    uses: ClassVar[str] = ""
    """What only one step at a time may use: a network's memory, the dynamic series."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The step's name in the plan, the log and the sidecars; its first word is that of ``--steps``."""

    @property
    def group(self) -> str:
        """The name under which ``--steps`` knows this step: that of its module."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def about(self) -> str:
        """The scan or image that it works on; empty where the participant has one scan."""
        return self.scan.about

    @property
    def scans(self) -> tuple[str, ...]:
        """The scans whose outputs it makes."""
        return (str(self.scan.name),)

    @property
    def identity(self) -> object:
        """Steps that are equal in this are the same one: what several scans share is done once."""
        return self

    scan: Scan = field(init=False, repr=False)

    @abstractmethod
    def plan(self) -> Plan | Skip:
        """What it reads, what it makes and what will be missing, or why it does not apply."""

    @abstractmethod
    def run(self, plan: Plan, writer: Writer) -> None:
        """Make what the plan says.

        Raises
        ------
        CannotRun
            The images show that the step does not apply.
        HedypetError
            The step failed.
        """

    def close(self) -> None:  # noqa: B027 - most steps hold nothing
        """Let go of what outlives ``run``; called when no step runs any more."""

    def builds_on(self) -> Iterator[Step]:
        """The steps among its fields."""
        for each in fields(self):
            value = getattr(self, each.name, None)
            yield from (item for item in _flat(value) if isinstance(item, Step))


StepT = TypeVar("StepT", bound=Step)


def _flat(value: Any) -> Iterator[Any]:
    """A value, or the values of a collection of them."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            yield from _flat(item)
    else:
        yield value
