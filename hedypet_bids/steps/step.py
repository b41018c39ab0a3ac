"""What a step is: inputs bound at construction, outputs known before it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from hedypet_bids.inputs.participant_metadata import ParticipantMetadata
from hedypet_bids.inputs.pet_metadata import PetMetadata
from hedypet_bids.inputs.roles import ParticipantInputs
from hedypet_bids.io.store import Store, Writer
from hedypet_bids.names import Source
from hedypet_bids.settings import Settings
from hedypet_bids.tools.synthseg import SynthSeg
from hedypet_bids.tools.totalsegmentator import TotalSegmentator

State = Literal["ran", "done", "skipped", "failed", "to run"]
ResultT_co = TypeVar("ResultT_co", covariant=True)


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
        For the programs' own words.
    """

    totalsegmentator: TotalSegmentator | None = None
    synthseg: SynthSeg | None = None
    without: Mapping[str, str] = field(default_factory=dict, hash=False)
    work_dir: Path | None = None
    log_folder: Path = Path()


@dataclass(frozen=True)
class Subject:
    """A participant with everything the steps may ask about it."""

    inputs: ParticipantInputs
    facts: ParticipantMetadata
    pet: Mapping[Path, PetMetadata] = field(hash=False)
    settings: Settings
    store: Store
    threads: int = 1
    tools: Tools = field(default_factory=Tools)

    @property
    def label(self) -> str:
        """The participant label, without ``sub-``."""
        return self.inputs.label

    @property
    def dynamic(self) -> Source:
        """The dynamic PET; to be asked only where ``skip_reason`` has made sure that there is one."""
        assert self.inputs.dynamic is not None
        return self.inputs.dynamic

    @property
    def static(self) -> Source:
        """The static PET that is measured; as :attr:`dynamic`."""
        assert self.inputs.static is not None
        return self.inputs.static

    @property
    def ct(self) -> Source:
        """The CT that is segmented; as :attr:`dynamic`."""
        assert self.inputs.ct is not None
        return self.inputs.ct

    def metadata(self, source: Source) -> PetMetadata:
        """Timing, units, dose and decay state of a PET image."""
        return self.pet[source.path]


def pet_facts(metadata: PetMetadata) -> dict[str, Any]:
    """What of a PET image's sidecar the results depend on."""
    return {
        "FrameStart": metadata.frames.start_s.tolist(),
        "FrameDuration": metadata.frames.duration_s.tolist(),
        "ScaleToBqMl": metadata.scale.tolist(),
    }


class CannotRun(Exception):  # noqa: N818 - no failure: the images hold nothing to work on
    """Raised by ``run`` when only the images' content shows that a step does not apply.

    The step counts as skipped, with this reason, and the study goes on.
    """


class Step(ABC, Generic[ResultT_co]):
    """A step of the study: files in, files out.

    ``outputs`` says which files the step makes without making them, so that the plan
    can be shown, and a finished step be recognised, without running it.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The step's name in the plan, the log and the sidecars."""

    @property
    def group(self) -> str:
        """The name under which ``--steps`` knows this step: the first word of its own by default."""
        return self.name.split()[0]

    @abstractmethod
    def skip_reason(self) -> str:
        """Why the step cannot run for this participant; empty when it can."""

    def missing(self) -> Mapping[str, str]:
        """Parts that the step leaves out although it runs, each with its reason."""
        return {}

    @abstractmethod
    def sources(self) -> Iterable[Path]:
        """Every file that the step reads."""

    def settings(self) -> Mapping[str, Any]:
        """The parameters that the results depend on."""
        return {}

    @abstractmethod
    def results(self) -> ResultT_co:
        """The names of the results, for the steps that follow."""

    @abstractmethod
    def nothing(self) -> ResultT_co:
        """What the steps that follow get when this one does not run."""

    @abstractmethod
    def outputs(self) -> Iterable[Path]:
        """Every file that the step makes and that has a sidecar."""

    @abstractmethod
    def run(self, writer: Writer) -> None:
        """Make the outputs.

        Raises
        ------
        CannotRun
            The images show that the step does not apply.
        HedypetError
            The step failed.
        """


@dataclass(frozen=True)
class StepRecord:
    """What became of one step."""

    step: str
    state: State
    reason: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0
    missing: tuple[tuple[str, str], ...] = ()
