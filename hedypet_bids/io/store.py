"""The output dataset: names resolved, files written atomically, sidecars last.

A result is done when its sidecar is there, carries the digest of the step's
settings, inputs (size and modification time) and code version, and the file is the
one that was written. There is no other record of what has been done.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray

from hedypet_bids import names
from hedypet_bids.errors import HedypetError, OutputError
from hedypet_bids.io.atomic import atomic, write_bytes, write_error, write_text
from hedypet_bids.io.nifti_write import write_nifti
from hedypet_bids.io.presence import refuse_other_kinds
from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.io.tables import write_table
from hedypet_bids.labels import Task, color
from hedypet_bids.model import Grid, IntArray
from hedypet_bids.names import ScanSpace, Source
from hedypet_bids.settings import digest
from hedypet_bids.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAMP_KEY = "hedypet"
# Of a JSON file that is its own sidecar.
_CONTENT = "Content"
_DRAWING = threading.Lock()
BIDS_VERSION = "1.10.0"
SOURCE_URL = "https://github.com/DEPICT-RH/hedyPET"


@dataclass(frozen=True)
class Store:
    """An output folder and the datasets its files may come from.

    Parameters
    ----------
    root
        The output folder.
    links
        Datasets by the name that BIDS URIs give them: ``raw`` and the ready derivatives.
    checksums
        Tell inputs apart by their content instead of their size and modification time.
    """

    root: Path
    links: Mapping[str, Path] = field(default_factory=dict, hash=False)
    checksums: bool = False

    def path(self, name: str) -> Path:
        """The absolute path of an output file."""
        return self.root / name

    def name(self, path: Path) -> str:
        """The name of an output file, as :meth:`path` takes it."""
        return path.relative_to(self.root).as_posix()

    def uri(self, path: Path) -> str:
        """The BIDS URI of a file of this output or of a linked dataset."""
        if path.is_relative_to(self.root):
            return f"bids::{path.relative_to(self.root).as_posix()}"
        # The longest match: ready derivatives usually lie inside the raw dataset.
        holders = [(n, r) for n, r in self.links.items() if path.is_relative_to(r)]
        if holders:
            name, root = max(holders, key=lambda item: len(item[1].parts))
            return f"bids:{name}:{path.relative_to(root).as_posix()}"
        return path.resolve().as_uri()

    def write_dataset_files(self) -> None:
        """Write dataset_description.json, .bidsignore and README, unless they are as they should be."""
        description = {
            "Name": "hedypet derivatives",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "License": "n/a",
            "GeneratedBy": [_generated_by()],
            "SourceDatasets": [{"URL": self.links["raw"].as_uri()}] if "raw" in self.links else [],
            "DatasetLinks": {name: root.as_uri() for name, root in self.links.items()},
        }
        wanted = {
            names.DESCRIPTION: json.dumps(description, indent=2) + "\n",
            ".bidsignore": "".join(f"{line}\n" for line in names.BIDSIGNORE),
            "README": f"{_README} {__version__}. sub-*.html are the reports, readouts/ the group tables.\n",
        }
        for name, text in wanted.items():
            path = self.path(name)
            found = _text_of(path)
            if found != text and (name == names.DESCRIPTION or not path.exists() or _is_ours(name, found)):
                write_text(path, text)

    def check_ours(self) -> None:
        """Raise OutputError where the output folder is an input, or holds what hedypet did not write."""
        for name, root in self.links.items():
            # The derivatives folder of the raw dataset is the usual place; what is linked in it is an input.
            usual = name == "raw" and self.root.is_relative_to(root / "derivatives")
            if self.root.is_relative_to(root) and not usual:
                raise OutputError(
                    f"The output folder {self.root} lies in the input {root}. Choose another one; is the "
                    "order bids_dir output_dir right?"
                )
        try:
            held = sorted(path.name for path in self.root.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return
        except OSError as fault:
            raise OutputError(f"The output folder {self.root} cannot be used: {fault.strerror}.") from fault
        if names.DESCRIPTION in held:
            if not _generated_by_us(self.path(names.DESCRIPTION)):
                raise OutputError(
                    f"The output folder {self.root} is a dataset that hedypet did not write (GeneratedBy in "
                    f"its {names.DESCRIPTION}). Choose an empty folder; is the order bids_dir output_dir "
                    "right?"
                )
        elif others := [name for name in held if not _is_left_over(self.path(name))]:
            raise OutputError(
                f"The output folder {self.root} holds {names.listed(others[:3])}, which hedypet did not "
                "write; expected an empty folder or an output of hedypet. Choose another one."
            )


_PROGRAM = "hedypet"
_README = "Quantitative readouts of total-body FDG PET, written by hedypet"


def _is_ours(name: str, text: str | None) -> bool:
    """Whether a README or .bidsignore is one that hedypet wrote, maybe of another version."""
    if name == "README":
        return (text or "").startswith(_README)
    return {*(text or "").splitlines()} <= {*names.BIDSIGNORE}


def _is_left_over(path: Path) -> bool:
    """Whether hedypet may have left it in a folder whose description was removed, or never written."""
    if path.name.startswith("sub-") and path.suffix != ".html":
        label = path.name.removeprefix("sub-")
        return (path / "log").is_dir() or (path.parent / names.manifest(label)).is_file()
    return path.suffix == ".html" or path.name in ("logs", "readouts", "README")


def _generated_by_us(description: Path) -> bool:
    refuse_other_kinds(description)
    try:
        content = json.loads(description.read_bytes())
        return any(program["Name"] == _PROGRAM for program in content["GeneratedBy"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


@dataclass(frozen=True)
class Stamp:
    """What the results of one step are made from."""

    step: str
    digest: str
    settings: Mapping[str, Any] = field(hash=False)
    inputs: tuple[Mapping[str, Any], ...] = field(hash=False)

    @classmethod
    def of(cls, step: str, inputs: Iterable[Path], settings: Mapping[str, Any], store: Store) -> Stamp:
        """The stamp of a step for its inputs as they are now."""
        # By URI, not by path: an output that was moved is still done.
        states = tuple(sorted((_input_state(path, store) for path in set(inputs)), key=lambda s: s["URI"]))
        return cls(step, digest(step, __version__, settings, states), settings, states)

    def reason_to_run(self, outputs: Iterable[Path]) -> str:
        """Why the step has to run; empty when every output carries this stamp."""
        for path in outputs:
            if not path.is_file():
                return f"{path.name} is not there"
            sidecar = read_sidecar(path)
            found = sidecar.get(STAMP_KEY, {})
            if found.get("Digest") != self.digest:
                return f"{path.name} {self._difference(found)}"
            changed = what_changed(path, sidecar)
            if changed:
                return changed
        return ""

    def _difference(self, found: Mapping[str, Any]) -> str:
        if not found:
            return "was left unfinished"
        if found.get("Version") != __version__:
            return f"was made by hedypet {found.get('Version')}"
        if found.get("Settings") != json.loads(json.dumps(self.settings)):
            return "was made with other settings"
        return "was made from other inputs"


class Writer:
    """Writes the results of one step of one participant; each file's sidecar follows the file.

    Used as a context manager: when the step fails, files that have no sidecar yet are removed.
    """

    def __init__(self, store: Store, stamp: Stamp) -> None:
        self.store = store
        self.stamp = stamp
        self._open: list[Path] = []

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._open:
            # Where it cannot be removed (a disc gone read-only), it stays unfinished: it has no sidecar.
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def image(
        self,
        name: str,
        data: NDArray[Any] | Iterable[NDArray[Any]],
        grid: Grid,
        *,
        sources: Iterable[Path],
        dtype: DTypeLike | None = None,
        aligned: bool = False,
        threads: int = 1,
        findings: Mapping[str, Any] = MappingProxyType({}),
        **sidecar: Any,
    ) -> Path:
        """Write an image, in its own space or aligned with another scan, and its sidecar.

        ``findings`` goes into the sidecar, too; it is read after the voxels, which may fill it.
        """
        path = self._begin(name)
        write_nifti(path, data, grid, dtype=dtype, aligned=aligned, threads=threads)
        self._finish(path, sources, {**sidecar, **findings})
        return path

    def segmentation(
        self,
        source: Source,
        task: Task,
        space: ScanSpace | None,
        labels: IntArray,
        grid: Grid,
        *,
        sources: Iterable[Path],
        **sidecar: Any,
    ) -> Path:
        """Write a label image in the smallest integer type, its label table and its sidecar."""
        table = self._begin(names.label_table_file(source, task.name, space))
        path = self._begin(names.segmentation(source, task.name, space))
        columns = {
            "index": task.table.indices,
            "name": task.table.names,
            "color": [color(index) for index in task.table.indices],
        }
        write_table(table, pd.DataFrame(columns))
        smallest = np.min_scalar_type(int(labels.max(initial=0)))
        write_nifti(path, labels, grid, dtype=smallest, aligned=space is not None)
        self._finish(path, sources, sidecar, beside=[table])
        self._open.remove(table)
        return path

    def table(self, name: str, table: pd.DataFrame, *, sources: Iterable[Path], **sidecar: Any) -> Path:
        """Write a TSV and its sidecar; returns the path."""
        path = self._begin(name)
        write_table(path, table)
        self._finish(path, sources, sidecar)
        return path

    def picture(self, name: str, figure: Figure, *, sources: Iterable[Path]) -> Path:
        """Write a figure as SVG, the same bytes for the same figure, and its sidecar."""
        path = self._begin(name)
        write_bytes(path, svg_of(figure))
        self._finish(path, sources, {})
        return path

    def record(self, name: str, content: Mapping[str, Any], *, sources: Iterable[Path]) -> Path:
        """Write a JSON file that is its own sidecar; returns the path."""
        path = self._begin(name)
        self._finish(path, sources, content)
        return path

    def matrix(
        self, name: str, matrix: NDArray[np.float64], *, sources: Iterable[Path], **sidecar: Any
    ) -> Path:
        """Write a 4x4 matrix as text and its sidecar; returns the path."""
        path = self._begin(name)
        with atomic(path) as temporary:
            np.savetxt(temporary, matrix, fmt="%.17g")
        self._finish(path, sources, sidecar)
        return path

    def _begin(self, name: str) -> Path:
        path = self.store.path(name)
        # An old sidecar must not vouch for the new file while that is being written.
        try:
            names.sidecar_of(path).unlink(missing_ok=True)
        except OSError as fault:
            raise write_error(path, fault) from fault
        self._open.append(path)
        return path

    def _finish(
        self, path: Path, sources: Iterable[Path], sidecar: Mapping[str, Any], beside: Sequence[Path] = ()
    ) -> None:
        content = _plain({**sidecar, "Sources": [self.store.uri(source) for source in sources]})
        sidecar_path = names.sidecar_of(path)
        if path == sidecar_path:
            written: dict[str, Any] = {_CONTENT: digest(content)}
        else:
            if not path.is_file():
                raise OutputError(
                    f"{path} disappeared while {self.stamp.step} ran. Was the output folder moved or "
                    "removed? Run the same command again; only what is missing is made again."
                )
            written = {file.name: _output_state(file) for file in (path, *beside)}
        stamp = {
            "Step": self.stamp.step,
            "Version": __version__,
            "Digest": self.stamp.digest,
            "Settings": self.stamp.settings,
            "Inputs": list(self.stamp.inputs),
            "Written": written,
        }
        write_text(sidecar_path, json.dumps({**content, STAMP_KEY: _plain(stamp)}, indent=2) + "\n")
        self._open.remove(path)


def what_changed(path: Path, sidecar: Mapping[str, Any]) -> str:
    """Whether an output, or what was written beside it, is no longer what was written; empty when it is.

    Another size or other bytes are a change; another time alone, as of a copy, is none.
    """
    if STAMP_KEY not in sidecar:
        return f"{names.sidecar_of(path).name} cannot be read as what hedypet wrote"
    written = sidecar[STAMP_KEY].get("Written", {})
    if not written:
        return f"{path.name} was made by a version of hedypet that kept no checksums"
    for name, state in written.items():
        if name == _CONTENT:
            own = {key: value for key, value in sidecar.items() if key != STAMP_KEY}
            if digest(own) != state:
                return f"{path.name} was changed after it was written"
            continue
        file = path.with_name(name)
        try:
            found = file.stat()
        except OSError:
            return f"{name} is not there"
        same_time = found.st_mtime_ns == state["ModifiedNs"]
        if found.st_size != state["Size"] or not (same_time or _sha256(file) == state["SHA256"]):
            return f"{name} was changed after it was written"
    return ""


def svg_of(figure: Figure) -> bytes:
    """A matplotlib figure as SVG; the same figure gives the same bytes."""
    import matplotlib

    buffer = io.BytesIO()
    # The settings are those of the whole process, in which others may draw.
    with _DRAWING, matplotlib.rc_context({"svg.hashsalt": "hedypet", "svg.fonttype": "none"}):
        # The solver of the layout is free in its last digits, and names of clip paths are made from them.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axes in figure.axes:
            axes.set_position(np.round(axes.get_position(original=True).bounds, 9))
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "hedypet"}, dpi=110)
    return buffer.getvalue()


def flags_of(paths: Iterable[Path]) -> dict[str, str]:
    """What the sidecars of results flag, each with the first file that says so.

    Parameters
    ----------
    paths
        Outputs, whose sidecars may hold ``Flags``, also under ``Quality``.
    """
    found: dict[str, str] = {}
    # The quality checks repeat what other files flag, which are where to look.
    sidecars = sorted({names.sidecar_of(path) for path in paths}, key=lambda p: (p.stem.endswith("_qc"), p))
    for path in sidecars:
        sidecar = read_sidecar(path)
        quality = sidecar.get("Quality")
        flags = [*sidecar.get("Flags", []), *(quality.get("Flags", []) if isinstance(quality, dict) else [])]
        found |= {flag: path.name for flag in flags if flag not in found}
    return found


def _input_state(path: Path, store: Store) -> dict[str, Any]:
    try:
        found = path.stat()
    except OSError as fault:
        raise HedypetError(f"The input {path} has disappeared: {fault.strerror}.") from fault
    known = {"URI": store.uri(path), "Size": found.st_size}
    if store.checksums:
        return {**known, "SHA256": _checksum(path, found.st_size, found.st_mtime_ns)}
    return {**known, "ModifiedNs": found.st_mtime_ns}


def _output_state(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {"Size": found.st_size, "ModifiedNs": found.st_mtime_ns, "SHA256": _sha256(path)}


@cache
def _checksum(path: Path, _size: int, _modified_ns: int) -> str:
    """SHA-256 of a file, read once in a process as long as it does not change."""
    return _sha256(path)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as fault:
        raise HedypetError(f"{path} cannot be read: {fault.strerror}.") from fault


def _text_of(path: Path) -> str | None:
    """What a file of the output says; None where there is none."""
    try:
        return path.read_text("utf-8") if path.is_file() else None
    except OSError as fault:
        raise write_error(path, fault) from fault


def _generated_by() -> dict[str, Any]:
    """Name, version and, from the environment that the image sets, the container."""
    entry: dict[str, Any] = {"Name": _PROGRAM, "Version": __version__, "CodeURL": SOURCE_URL}
    tag = os.environ.get("HEDYPET_CONTAINER_TAG")
    if tag:
        entry["Container"] = {"Type": os.environ.get("HEDYPET_CONTAINER_TYPE", "docker"), "Tag": tag}
    return entry


def _plain(value: Any) -> Any:
    """A value ready for strict JSON: arrays as lists, NaN as ``n/a``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return "n/a"
    return value
