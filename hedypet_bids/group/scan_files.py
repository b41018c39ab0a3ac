"""The tables of one scan that its participant's manifest lists; nothing else exists for the group level."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.group.table_file import TableFile
from hedypet_bids.io.manifest import Kind, Manifest, ScanEntry, ScanOutputs
from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.io.store import STAMP_KEY, what_changed

_MEND = "Run the participant level again; only what is missing is made again."


@dataclass
class ScanFiles:
    """What is listed of a scan, each table read once.

    Parameters
    ----------
    root
        The output folder.
    versions
        The versions of hedypet that made the tables read so far.
    """

    root: Path
    label: str
    entry: ScanEntry
    outputs: ScanOutputs
    versions: set[str] = field(default_factory=set)
    _tables: dict[Kind, TableFile] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, manifest: Manifest, entry: ScanEntry) -> ScanFiles:
        """The files of a scan.

        Raises
        ------
        BadDataError
            A table that is listed, or its sidecar, is gone.
        """
        files = cls(root, manifest.label, entry, manifest.of_scan(entry))
        for path in files.outputs.files.values():
            if path.suffix in (".tsv", ".json"):
                files._check_there(root / path)
        return files

    def table(self, *kind: str | int) -> TableFile:
        """A table by what it is.

        Raises
        ------
        BadDataError
            It is not listed, cannot be read, or its sidecar was cut short.
        """
        if kind not in self._tables:
            self.sidecar(*kind)
            self._tables[kind] = TableFile(self._path(*kind))
        return self._tables[kind]

    def sidecar(self, *kind: str | int) -> dict[str, Any]:
        """The sidecar of an output; raises as :meth:`table`."""
        path = self._path(*kind)
        content = read_sidecar(path)
        stamp = content.get(STAMP_KEY)
        if not isinstance(stamp, dict):
            raise BadDataError(f"{names.sidecar_of(path)} is not a complete sidecar of hedypet. {_MEND}")
        self.versions.add(str(stamp.get("Version")))
        return content

    @property
    def static(self) -> str:
        """The file name of the static image that stands for the scan; empty where there is none."""
        made = self.outputs.get("static_image")
        return next(iter(self.entry.statics), made.name if made else "")

    @property
    def dynamic_reconstruction(self) -> str:
        """The reconstruction of the dynamic series."""
        return reconstruction_of(self.entry.dynamic)

    @property
    def reconstruction(self) -> str:
        """The reconstruction that stands for the scan: the static image's, else the dynamic one's."""
        return reconstruction_of(self.static or self.entry.dynamic)

    def _path(self, *kind: str | int) -> Path:
        path = self.outputs.get(*kind)
        if path is None:
            raise BadDataError(
                f"{names.manifest(self.label)} does not list the table {' '.join(map(str, kind))} of "
                f"{self.entry.name or 'the scan'}, without which others cannot be read. {_MEND}"
            )
        return self.root / path

    def _check_there(self, path: Path) -> None:
        for file in (path, names.sidecar_of(path)):
            if not file.is_file():
                raise BadDataError(
                    f"{names.manifest(self.label)} lists {file}, which no longer exists. {_MEND}"
                )
        changed = what_changed(path, read_sidecar(path))
        if changed:
            raise BadDataError(f"{path.parent}: {changed}. {_MEND}")


def reconstruction_of(file_name: str) -> str:
    """The reconstruction that a file name tells; empty where it tells none."""
    return names.entities_of(file_name).get("rec", "")
