"""The list of a participant's current outputs, with which every run ends.

What is not in it does not exist for the group level, :class:`hedypet_bids.Study` and the pages.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.atomic import write_text
from hedypet_bids.io.presence import refuse_other_kinds
from hedypet_bids.model import Scan
from hedypet_bids.names import ScanName, Source
from hedypet_bids.version import __version__

StepState = Literal["ran", "done", "skipped", "failed", "to run"]

Kind = tuple[str | int, ...]
"""What an output is: ``("mean", "total", 0)`` are the curves of the task total without erosion."""

FORMAT = 1

_AGAIN = "Run the participant level again on all its scans; finished steps are kept."


@dataclass(frozen=True)
class StepRecord:
    """What became of one step.

    Parameters
    ----------
    step
        Its name.
    about
        The scan or image that it worked on; empty where the participant has one scan.
    state
        ``ran``, ``done`` (the results of an earlier run are current), ``skipped``, ``failed`` or, in a plan,
        ``to run``.
    reason
        Why it ran, was skipped or failed.
    seconds, peak_mb
        Time that it took, and peak memory of the process meanwhile, MB.
    exit_code
        That of its failure; 0 otherwise.
    missing
        Parts that it left out although it ran, each with its reason.
    scans
        The scans that it worked for; none where it is about the participant.
    """

    step: str
    state: StepState
    reason: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0
    missing: tuple[tuple[str, str], ...] = ()
    about: str = ""
    exit_code: int = 0
    scans: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The step, and what it worked on where that needs saying."""
        return f"{self.step} [{self.about}]" if self.about else self.step


@dataclass(frozen=True)
class Output:
    """A current output.

    Parameters
    ----------
    kind
        What it is: ``("labels", "bodystat", "total")``.
    path
        Where it lies below the output folder.
    scans
        The scans that it belongs to.
    step
        The step that made it.
    """

    kind: Kind
    path: str
    scans: tuple[str, ...]
    step: str


_Item = TypeVar("_Item", StepRecord, Output)


@dataclass(frozen=True)
class ScanEntry:
    """A scan in the manifest.

    Parameters
    ----------
    name
        Its entities.
    page
        The file name of its page; empty where there is none.
    dynamic, statics
        File names of its images; empty where there is none.
    dynamic_s, static_s
        Start and end of the dynamic series and of the static image that stands for the scan, s from
        injection; None where there is none.
    dose_bq
        Activity injected, Bq; None where it is not known.
    """

    name: ScanName
    page: str = ""
    dynamic: str = ""
    statics: tuple[str, ...] = ()
    dynamic_s: tuple[float, float] | None = None
    static_s: tuple[float, float] | None = None
    dose_bq: float | None = None

    @classmethod
    def of(cls, scan: Scan, page: str = "") -> ScanEntry:
        """The entry of a scan.

        Parameters
        ----------
        scan
            One that can be used.
        page
            The file name of its page; empty where there is none.

        Returns
        -------
        ScanEntry
            What the manifest says of it.
        """
        reference = scan.metadata(scan.reference) if scan.reference else None
        return cls(
            scan.name,
            page,
            scan.dynamic.path.name if scan.dynamic else "",
            tuple(image.path.name for image in scan.statics),
            _span_s(scan, scan.dynamic),
            _span_s(scan, scan.static),
            reference.dose_bq if reference and math.isfinite(reference.dose_bq) else None,
        )


def new_run() -> str:
    """The name of a new run: when it began, and what tells it from others of that second."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Manifest:
    """A participant's current outputs, and what failed or was left out and why.

    Parameters
    ----------
    label
        Participant label without ``sub-``.
    run
        The run that wrote it, as its log folder is called.
    scans
        The scans whose outputs are listed.
    steps
        What became of every step of the last run of each scan.
    outputs
        Every output that is current.
    version
        The hedypet that wrote it.

    Examples
    --------
    >>> manifest = Manifest.read(Path("OUTPUT_DIR"), "001")
    >>> outputs = manifest.of_scan(manifest.scans[0])
    >>> outputs.get("constants").name
    'sub-001_ses-quadra_trc-18FFDG_rec-acstatPSF_norm.tsv'
    >>> sorted(outputs.of("kinetics", "Patlak", "total"))
    [0, 1]
    """

    label: str
    run: str
    scans: tuple[ScanEntry, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    outputs: tuple[Output, ...] = ()
    version: str = field(default=__version__)

    def of_scan(self, scan: ScanEntry) -> ScanOutputs:
        """The outputs of one scan.

        Parameters
        ----------
        scan
            One of ``scans``.

        Returns
        -------
        ScanOutputs
            Their paths below the output folder by what they are.
        """
        mine = [output for output in self.outputs if str(scan.name) in output.scans]
        return ScanOutputs({output.kind: Path(output.path) for output in mine})

    @property
    def failed(self) -> tuple[StepRecord, ...]:
        """The steps that failed in the last run."""
        return tuple(step for step in self.steps if step.state == "failed")

    def write(self, root: Path) -> Path:
        """Write it into the output folder.

        Parameters
        ----------
        root
            The output folder.

        Returns
        -------
        pathlib.Path
            The file.
        """
        body = _plain(asdict(self))
        content = {"Format": FORMAT, "Checksum": _checksum(body), **body}
        path = root / names.manifest(self.label)
        write_text(path, json.dumps(content, indent=1) + "\n")
        return path

    @classmethod
    def read(cls, root: Path, label: str) -> Manifest:
        """The manifest of a participant.

        Parameters
        ----------
        root
            The output folder.
        label
            Participant label without ``sub-``.

        Returns
        -------
        Manifest
            What the participant's last runs left.

        Raises
        ------
        BadDataError
            There is none (the output is of an older version, or the run did not come to its end), it is not
            as hedypet wrote it, or it cannot be read.
        """
        found = cls.read_if_there(root, label)
        if found is None:
            raise BadDataError(
                f"sub-{label} has no manifest ({names.manifest(label)}): its last run did not come to its "
                f"end, or was of an older hedypet. {_AGAIN}"
            )
        return found

    @classmethod
    def read_if_there(cls, root: Path, label: str) -> Manifest | None:
        """As :meth:`read`, but None where there is no such file.

        Parameters
        ----------
        root
            The output folder.
        label
            Participant label without ``sub-``.

        Returns
        -------
        Manifest or None
            What the participant's last runs left.

        Raises
        ------
        BadDataError
            It is not as hedypet wrote it, or cannot be read.
        """
        path = root / names.manifest(label)
        refuse_other_kinds(path)
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise BadDataError(f"The manifest {path} cannot be read: {fault.strerror}.") from fault
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as fault:
            raise BadDataError(f"The manifest {path} is damaged: it is not JSON. {_AGAIN}") from fault
        made_for = body.pop("Format", None) if isinstance(body, dict) else None
        if made_for != FORMAT:
            raise BadDataError(
                f"The manifest {path} has the format {str(made_for)[:20]}, and this hedypet reads {FORMAT}. "
                f"{_AGAIN}"
            )
        if body.pop("Checksum", None) != _checksum(body) or body.get("label") != label:
            raise BadDataError(
                f"The manifest {path} is not as hedypet wrote it: it was edited, or copied from another "
                f"participant. {_AGAIN}"
            )
        return _adapter().validate_json(text, strict=True)


@dataclass(frozen=True)
class ScanOutputs:
    """The outputs of one scan by what they are.

    Parameters
    ----------
    files
        Paths, below the output folder or absolute, by kind: ``("labels", "bodystat", "total")``.

    Examples
    --------
    >>> outputs = ScanOutputs({("mean", "total", 0): Path("a.tsv"), ("mean", "total", 1): Path("b.tsv")})
    >>> sorted(outputs.of("mean", "total"))
    [0, 1]
    >>> outputs.get("mean", "body", 0) is None
    True
    """

    files: Mapping[Kind, Path] = field(default_factory=dict)

    def of(self, *kind: str | int) -> dict[Any, Path]:
        """Outputs whose kind begins so.

        Parameters
        ----------
        kind
            The beginning of a kind.

        Returns
        -------
        dict
            Paths by the rest of the kind; a rest of one item stands alone, not in a tuple.
        """
        n = len(kind)
        found = {key[n:]: path for key, path in self.files.items() if key[:n] == kind and len(key) > n}
        return {rest[0] if len(rest) == 1 else rest: path for rest, path in found.items()}

    def get(self, *kind: str | int) -> Path | None:
        """The output of exactly this kind.

        Parameters
        ----------
        kind
            The whole kind.

        Returns
        -------
        pathlib.Path or None
            Its path; None where there is none.
        """
        return self.files.get(kind)


def merged(new: Manifest, old: Manifest | None, *, in_dataset: Sequence[ScanName], root: Path) -> Manifest:
    """The manifest of a run with what an earlier one says of scans that the run was not asked for.

    Scans that the dataset no longer has, and outputs that are gone, are dropped. What stays is listed in the
    order in which one run over all scans lists it.

    Parameters
    ----------
    in_dataset
        Every scan that the dataset has of the participant, in their order.
    """
    old = old or replace(new, scans=(), steps=(), outputs=())
    order = {str(name): at for at, name in enumerate(in_dataset)}
    told = {str(scan.name) for scan in new.scans} | {name for step in new.steps for name in step.scans}
    others = order.keys() - told
    scans = [*new.scans, *(scan for scan in old.scans if str(scan.name) in others)]
    there = [output for output in old.outputs if (root / output.path).is_file()]
    return replace(
        new,
        scans=tuple(sorted(scans, key=lambda scan: order.get(str(scan.name), -1))),
        steps=_joined(new.steps, old.steps, lambda step: step.title, order, others),
        outputs=_joined(new.outputs, there, lambda output: output.path, order, others),
    )


def _joined(
    new: Sequence[_Item],
    old: Sequence[_Item],
    key: Callable[[_Item], str],
    order: Mapping[str, int],
    others: Collection[str],
) -> tuple[_Item, ...]:
    """Steps or outputs of a run, and those of other scans of an earlier one, in the order of scans."""
    place = {key(item): at for at, item in enumerate(new)}
    former = {key(item): at for at, item in enumerate(old)}
    whose: dict[str, list[str]] = {key(item): [name for name in item.scans if name in others] for item in old}
    found = {key(item): item for item in old if whose[key(item)]} | {key(item): item for item in new}

    def rank(name: str) -> int:
        return order.get(name, -1)

    def shared(item: _Item) -> _Item:
        mine: tuple[str, ...] = item.scans if key(item) in place else ()
        return replace(item, scans=tuple(sorted({*mine, *whose.get(key(item), ())}, key=rank)))

    def position(item: _Item) -> tuple[int, int]:
        """That of its first scan; of those of one scan as the scan's last run has them."""
        first = item.scans[0] if item.scans else ""
        return rank(first), (former if first in others else place).get(key(item), len(found))

    return tuple(sorted(map(shared, found.values()), key=position))


def _span_s(scan: Scan, image: Source | None) -> tuple[float, float] | None:
    if image is None:
        return None
    frames = scan.metadata(image).frames
    return float(frames.start_s[0]), float(frames.end_s[-1])


def _checksum(body: Mapping[str, Any]) -> str:
    """Of all that a manifest says: what was changed by hand is no list of what hedypet made."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    # Messages may hold file names whose bytes are no text.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


@cache
def _adapter() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


def labels_with_outputs(root: Path) -> Iterator[str]:
    """The participants that have a folder in an output, in order."""
    yield from sorted(path.name.removeprefix("sub-") for path in root.glob("sub-*") if path.is_dir())
