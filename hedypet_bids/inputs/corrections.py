"""Corrections of single participants as data: masks, matrices and sidecar entries in a folder of their own.

The folder has the names of BIDS: ``sub-<L>/**/*_seg-total_dseg.nii.gz`` replaces that segmentation,
``*aorta*.nii.gz`` the aorta, ``*_from-T1w_to-CT*xfm.txt`` (``from-DIXON``) a registration, and the JSON
file of a raw image, under that image's name, the entries that it has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, MissingInputError, shown
from hedypet_bids.inputs.derivatives import with_derivatives
from hedypet_bids.inputs.text_files import read_json
from hedypet_bids.model import Scan
from hedypet_bids.names import Source


class Corrections:
    """What a folder of corrections says; nothing when there is none.

    Raises
    ------
    MissingInputError
        The folder does not exist.
    """

    def __init__(self, root: Path | None) -> None:
        if root is not None and not root.is_dir():
            raise MissingInputError(f"--corrections {root}: the folder does not exist.")
        self.root = root.resolve() if root else None

    def sidecar(self, image: Source) -> dict[str, Any]:
        """The corrected entries of an image's sidecar.

        Raises
        ------
        BadDataError
            The correction is no JSON object, or there are several.
        """
        path = self._sidecar_path(image)
        return read_json(path) if path else {}

    def notes(self, image: Source, raw: dict[str, Any]) -> Iterator[str]:
        """What was changed in an image's sidecar, for the log and the report."""
        for key, value in self.sidecar(image).items():
            before = shown(raw[key]) if key in raw else "nothing"
            yield f"{key} is {shown(value)} by --corrections ({before} in the dataset)"

    def applied_to(self, scan: Scan) -> Scan:
        """The scan with corrected segmentations, aorta and matrices in the place of others."""
        if self.root is None:
            return scan
        found = with_derivatives(
            scan, dict.fromkeys(("totalsegmentator", "synthseg", "aorta", "xfm"), self.root)
        )
        return dataclasses.replace(
            scan,
            ready_segmentations={**scan.ready_segmentations, **found.ready_segmentations},
            aorta_correction=found.aorta_correction or scan.aorta_correction,
            given_transforms={**scan.given_transforms, **found.given_transforms},
        )

    def unused(self, label: str, scans: Sequence[Scan]) -> list[Path]:
        """Files of a participant that correct nothing: a name that does not fit is a correction lost."""
        if self.root is None:
            return []
        used: set[Path] = set()
        for scan in scans:
            images = [*scan.statics, *([scan.dynamic] if scan.dynamic else [])]
            sidecars = [self._sidecar_path(image) for image in images]
            used |= {*scan.ready_segmentations.values(), *scan.given_transforms.values()}
            used |= {path for path in (scan.aorta_correction, *sidecars) if path}
        tables = {names.sidecar_of(path).with_suffix(".tsv") for path in used}
        folder = self.root / f"sub-{label}"
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] != "."]
        return [p for p in files if p not in used | tables | {names.sidecar_of(u) for u in used}]

    def _sidecar_path(self, image: Source) -> Path | None:
        if self.root is None:
            return None
        found = sorted((self.root / f"sub-{image.entities['subject']}").rglob(image.sidecar.name))
        if len(found) > 1:
            raise BadDataError(f"Expected one correction {image.sidecar.name}; found {names.listed(found)}.")
        return found[0] if found else None
