"""A value a scan, quantity and region: what statistics and test-retest are computed from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hedypet_bids.group.dictionary import kinetic_quantity
from hedypet_bids.group.scan_files import ScanFiles, reconstruction_of
from hedypet_bids.io.store import STAMP_KEY
from hedypet_bids.io.tables import FRAME_END, FRAME_START
from hedypet_bids.kernels.kinetics import KineticModel, Parameter, known_models
from hedypet_bids.names import NORMALISATIONS

UPTAKE, VOLUME = "PET Mean [Bq/mL]", "Volume [mL]"
REGION = ("Task", "Label Index", "Label Name", "Erosion Iterations")
Values = NDArray[np.float64]


@dataclass(frozen=True)
class RegionValues:
    """A scan's value of each region.

    Parameters
    ----------
    column
        ``UPTAKE``, ``VOLUME`` or a kinetic quantity.
    framing
        As in the column Framing.
    regions
        JSON of their keys, since most scans have the same ones.
    """

    column: str
    reconstruction: str
    framing: str
    regions: str
    values: Values

    @classmethod
    def of(cls, rows: pa.Table, source: str, column: str, framing: str) -> RegionValues:
        """The values of the column ``source``, of rows of one reconstruction with a row a region."""
        keys = zip(*(rows.column(key).to_pylist() for key in REGION), strict=True)
        reconstruction = rows.column("Reconstruction")[0].as_py() or ""
        values = rows.column(source).to_numpy()
        return cls(column, reconstruction, framing, json.dumps(list(keys)), values)


def main_parameters() -> dict[str, tuple[KineticModel, Parameter]]:
    """The most important parameter of each kinetic model, by what the column Quantity calls it."""
    return {
        kinetic_quantity(model.name, model.parameters[0].name): (model, model.parameters[0])
        for model in known_models().values()
    }


def region_values(
    files: ScanFiles, tables: Mapping[str, pa.Table], *, everything: bool
) -> tuple[RegionValues, ...]:
    """The uptakes and main kinetic parameters of a scan; volumes and other parameters when asked for."""
    return (*_of_statics(files, tables["means"], everything), *_of_kinetics(files, tables, everything))


def _of_statics(files: ScanFiles, means: pa.Table, everything: bool) -> Iterator[RegionValues]:
    images = dict.fromkeys(key[0] for key in files.outputs.of("means"))
    for image in images:
        of_image = pc.equal(pc.fill_null(means.column("Reconstruction"), ""), reconstruction_of(image))
        rows = means.filter(of_image)
        framing = _static_framing(files, image) if everything else ""
        yield RegionValues.of(rows, UPTAKE, UPTAKE, framing)
        if everything:
            yield RegionValues.of(rows, VOLUME, VOLUME, framing)


def _of_kinetics(
    files: ScanFiles, tables: Mapping[str, pa.Table], everything: bool
) -> Iterator[RegionValues]:
    rows, keys = tables["kinetics"], files.outputs.of("mean")
    framing = _dynamic_framing(files, *next(iter(keys))) if everything and keys else ""
    for model in known_models().values():
        for parameter in model.parameters if everything else model.parameters[:1]:
            wanted = (pc.field("Model") == model.name) & (pc.field("Parameter") == parameter.name)
            found = rows.filter(wanted)
            if found.num_rows:
                quantity = kinetic_quantity(model.name, parameter.name)
                yield RegionValues.of(found, "Value", quantity, framing)
    if everything and rows.num_rows and not tables["means"].num_rows:
        yield RegionValues.of(_once_a_region(rows), VOLUME, VOLUME, framing)


def _once_a_region(rows: pa.Table) -> pa.Table:
    """The rows of the first parameter of the first model."""
    first = rows.slice(0, 1).to_pylist()[0]
    return rows.filter((pc.field("Model") == first["Model"]) & (pc.field("Parameter") == first["Parameter"]))


def _static_framing(files: ScanFiles, image: str) -> str:
    """The length of a static image, from the record of what its means were made from."""
    key = next(key for key in files.outputs.of("means") if key[0] == image)
    made_from = files.sidecar("means", *key)[STAMP_KEY].get("Settings") or {}
    frames = made_from.get("pet", {}).get(image, {})
    return framing_of(frames.get("FrameStart", []), frames.get("FrameDuration", []))


def _dynamic_framing(files: ScanFiles, task: str, erosion: int) -> str:
    curves = files.table("mean", task, erosion)
    start, end = curves.real(FRAME_START), curves.real(FRAME_END)
    return framing_of(start.tolist(), (end - start).tolist())


def framing_of(start_s: Sequence[float], duration_s: Sequence[float]) -> str:
    """Frames as ``2x10,60 s``, the same for scans that begin at another time after injection.

    Examples
    --------
    >>> framing_of([3, 13, 53], [10, 10, 60])
    '2x10,gap30,60 s'
    """
    pieces: list[str] = []
    for i, (start, duration) in enumerate(zip(start_s, duration_s, strict=True)):
        gap = start - start_s[i - 1] - duration_s[i - 1] if i else 0.0
        # Starts and durations are rounded to milliseconds where they are written.
        if abs(gap) > 0.05:
            pieces.append(f"gap{gap:.6g}")
        pieces.append(f"{round(duration, 1):g}")
    runs = [(piece, len(list(same))) for piece, same in groupby(pieces)]
    return ",".join(f"{n}x{piece}" if n > 1 else piece for piece, n in runs) + " s" if runs else ""


@dataclass(frozen=True)
class Series:
    """A quantity of all scans of a tracer that have it in a reconstruction.

    Parameters
    ----------
    scans
        Positions of the scans, in order.
    values
        Shape (n_scans, n_regions); NaN where there is no value.
    framings
        Of each scan.
    """

    quantity: str
    tracer: str | None
    reconstruction: str | None
    scans: list[int]
    values: Values
    framings: list[str]


@dataclass(frozen=True)
class _Kept:
    """What stays in memory of the values of a scan; the codes are shared by scans with the same regions."""

    scan: int
    codes: NDArray[np.intp]
    values: Values
    framing: str


@dataclass
class StudyValues:
    """Values of all scans: a number and a code a region."""

    metadata: list[Mapping[str, Any]] = field(default_factory=list)
    _codes: dict[str, NDArray[np.intp]] = field(default_factory=dict)
    _regions: dict[tuple[str, int, str, int], int] = field(default_factory=dict)
    _values: dict[tuple[str, str, str], list[_Kept]] = field(default_factory=dict)

    def add(self, metadata: Mapping[str, Any], values: Sequence[RegionValues]) -> None:
        """Take in a scan; those of a participant come in the order of their names."""
        position = len(self.metadata)
        self.metadata.append(metadata)
        for found in values:
            key = (found.column, metadata.get("Tracer") or "", found.reconstruction)
            kept = _Kept(position, self._codes_of(found.regions), found.values, found.framing)
            self._values.setdefault(key, []).append(kept)

    @property
    def regions(self) -> list[dict[str, Any]]:
        """The regions of the columns of every series."""
        return [dict(zip(REGION, region, strict=True)) for region in sorted(self._regions)]

    def series(self, quantities: Sequence[str]) -> Iterator[Series]:
        """Every quantity by tracer and reconstruction."""
        for quantity in quantities:
            column = UPTAKE if quantity in NORMALISATIONS else VOLUME if quantity == "Volume" else quantity
            for key in sorted(key for key in self._values if key[0] == column):
                found = self._values[key]
                scans, values = [kept.scan for kept in found], self._matrix(found)
                if quantity in NORMALISATIONS:
                    constants = [self.metadata[scan].get(NORMALISATIONS[quantity], np.nan) for scan in scans]
                    values = values / np.array(constants, dtype=np.float64)[:, None]
                framings = [kept.framing for kept in found]
                yield Series(quantity, key[1] or None, key[2] or None, scans, values, framings)

    def first_scans(self, scans: Sequence[int]) -> list[int]:
        """Where the first scan of each participant stands among some scans."""
        first: dict[str, int] = {}
        for at, scan in enumerate(scans):
            first.setdefault(self.metadata[scan]["Subject"], at)
        return list(first.values())

    def _codes_of(self, regions: str) -> NDArray[np.intp]:
        if regions not in self._codes:
            keys = [(t, i, n, e) for t, i, n, e in json.loads(regions)]
            codes = [self._regions.setdefault(key, len(self._regions)) for key in keys]
            self._codes[regions] = np.array(codes, dtype=np.intp)
        return self._codes[regions]

    def _matrix(self, found: Sequence[_Kept]) -> Values:
        """Values as (n_scans, n_regions), regions in their order."""
        matrix = np.full((len(found), len(self._regions)), np.nan)
        for row, kept in enumerate(found):
            matrix[row, kept.codes] = kept.values
        return matrix[:, [self._regions[region] for region in sorted(self._regions)]]
