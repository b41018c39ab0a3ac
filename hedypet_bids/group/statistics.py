"""Uptake and influx of every region over the participants: statistics by sex and age, and outliers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hedypet_bids.group.rows import INPUT_FUNCTION_IDENTIFIERS, ParticipantRows
from hedypet_bids.group.tables import schema
from hedypet_bids.names import NORMALISATIONS
from hedypet_bids.settings import PatlakSettings

OUTLIER_Z = 5.0
# With fewer values the median absolute deviation says little about the spread.
MIN_FOR_OUTLIERS = 8
_MAD_TO_SD = 1.4826  # 1 over the normal distribution's quantile at 3/4

_UPTAKE, _KI = "PET Mean [Bq/mL]", "Patlak Ki"
_KEYS = ("Task", "Label Index", "Label Name", "Erosion Iterations")
_QUANTILES = {
    "Minimum": 0.0,
    "5 %": 0.05,
    "25 %": 0.25,
    "Median": 0.5,
    "75 %": 0.75,
    "95 %": 0.95,
    "Maximum": 1.0,
}
Values = NDArray[np.float64]


@dataclass(frozen=True)
class RegionValues:
    """One participant's value of each region."""

    regions: str
    values: Values

    @classmethod
    def of(cls, rows: pa.Table, column: str) -> RegionValues:
        """The values of a column; the regions as JSON, since most participants have the same ones."""
        keys = zip(*(rows.column(key).to_pylist() for key in _KEYS), strict=True)
        return cls(json.dumps(list(keys)), rows.column(column).to_numpy())


def participant_values(rows: ParticipantRows, patlak: PatlakSettings) -> dict[str, RegionValues]:
    """A participant's mean uptakes and its Ki for the input function and window of the voxel maps."""
    identifier = INPUT_FUNCTION_IDENTIFIERS.get(patlak.map_input_function, patlak.map_input_function)
    wanted = (pc.field("Input Function Identifier") == identifier) & (
        pc.field("Regression Frames") == patlak.map_last_frames
    )
    found = {_UPTAKE: rows.tables["means"], _KI: rows.tables["patlak_ki"].filter(wanted)}
    return {column: RegionValues.of(table, column) for column, table in found.items() if table.num_rows}


@dataclass
class StudyValues:
    """Values of all participants: a number and a code a region."""

    _codes: dict[str, NDArray[np.intp]] = field(default_factory=dict)
    _regions: dict[tuple[str, int, str, int], int] = field(default_factory=dict)
    _values: dict[str, list[tuple[int, NDArray[np.intp], Values]]] = field(default_factory=dict)
    _metadata: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, metadata: Mapping[str, Any], values: Mapping[str, RegionValues]) -> None:
        """Take in a participant."""
        position = len(self._metadata)
        self._metadata.append(metadata)
        for column, found in values.items():
            self._values.setdefault(column, []).append((position, self._code(found.regions), found.values))

    def tables(self) -> dict[str, pa.Table]:
        """The tables ``statistics`` (by region) and ``outliers`` (by participant)."""
        order = sorted(self._regions)
        codes = [self._regions[region] for region in order]
        heads = [dict(zip(_KEYS, region, strict=True)) for region in order]
        statistics: list[dict[str, Any]] = []
        outliers: list[dict[str, Any]] = []
        for quantity, matrix in self._quantities():
            values = matrix[:, codes]
            for (sex, age), members in demographic_groups(self._metadata).items():
                group = {"Quantity": quantity, "Sex Group": sex, "Age Group": age}
                rows = zip(heads, _rows_of(column_statistics(values[members])), strict=True)
                statistics += [{**head, **group, **row} for head, row in rows if row["Participants"]]
            if quantity in ("SUV", _KI):
                outliers += [{**heads[at], "Quantity": quantity, **row} for at, row in self._outliers(values)]
        # Stable: quantities and groups of a region stay in the order above.
        statistics.sort(key=lambda row: [row[key] for key in _KEYS])
        outliers.sort(key=lambda row: [row[key] for key in ("Subject", *_KEYS)])
        return {
            "statistics": pa.Table.from_pylist(statistics, schema=schema("statistics")),
            "outliers": pa.Table.from_pylist(outliers, schema=schema("outliers")),
        }

    def _code(self, regions: str) -> NDArray[np.intp]:
        if regions not in self._codes:
            keys = [(t, i, n, e) for t, i, n, e in json.loads(regions)]
            codes = [self._regions.setdefault(key, len(self._regions)) for key in keys]
            self._codes[regions] = np.array(codes, dtype=np.intp)
        return self._codes[regions]

    def _quantities(self) -> Iterator[tuple[str, Values]]:
        """Every quantity as a matrix (n_participants, n_regions); NaN where there is no value."""
        uptake = self._matrix(_UPTAKE)
        for quantity, column in NORMALISATIONS.items():
            constants = np.array([row.get(column, np.nan) for row in self._metadata], dtype=np.float64)
            yield quantity, uptake / constants[:, None]
        yield _KI, self._matrix(_KI)

    def _matrix(self, column: str) -> Values:
        matrix = np.full((len(self._metadata), len(self._regions)), np.nan)
        for position, codes, values in self._values.get(column, []):
            matrix[position, codes] = values
        return matrix

    def _outliers(self, values: Values) -> Iterator[tuple[int, dict[str, Any]]]:
        z, centre, spread = robust_z(values)
        for position, region in np.argwhere(np.abs(z) > OUTLIER_Z):
            row = {
                "Subject": self._metadata[position]["Subject"],
                "Value": values[position, region],
                "Median": centre[region],
                "MAD": spread[region],
                "Robust z": z[position, region],
            }
            yield int(region), row


def demographic_groups(metadata: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], NDArray[np.intp]]:
    """Positions of the participants of each sex and age group; ``all`` stands for everyone."""
    members: dict[tuple[str, str], list[int]] = {("all", "all"): list(range(len(metadata)))}
    for position, row in enumerate(metadata):
        sex = row.get("Sex") or ""
        # hedyPET writes the group as sex and years: F18-34.
        age = (row.get("Demographic Group [Sex,Age]") or "").lstrip("FM")
        for key in {(sex, "all"), ("all", age), (sex, age)}:
            if all(key):
                members.setdefault(key, []).append(position)
    return {key: np.array(positions, dtype=np.intp) for key, positions in sorted(members.items())}


def column_statistics(values: Values) -> dict[str, NDArray[Any]]:
    """Number, mean, SD and quantiles of the finite values of every column of (n_participants, n_regions).

    The SD is the sample's (n - 1), NaN for fewer than two values; quantiles interpolate linearly.
    """
    ordered, n = _ordered(values)
    finite = np.isfinite(ordered)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(finite, ordered, 0.0).sum(axis=0) / n
        squares = np.where(finite, ordered - mean, 0.0) ** 2
        spread = np.sqrt(squares.sum(axis=0) / np.where(n > 1, n - 1, np.nan))
    quantiles = {name: _quantile(ordered, n, q) for name, q in _QUANTILES.items()}
    return {"Participants": n, "Mean": mean, "SD": spread, **quantiles}


def robust_z(values: Values) -> tuple[Values, Values, Values]:
    """Distance from the column's median in MAD x 1.4826, that median, and MAD x 1.4826.

    Values that are not finite, columns of fewer than eight values and columns without spread have z = 0.
    """
    ordered, n = _ordered(values)
    centre = _quantile(ordered, n, 0.5)
    spread = _MAD_TO_SD * _quantile(np.sort(np.abs(ordered - centre), axis=0), n, 0.5)
    usable = (n >= MIN_FOR_OUTLIERS) & (spread > 0) & np.isfinite(values)
    z = np.zeros(values.shape)
    np.divide(values - centre, spread, out=z, where=usable)
    return z, centre, spread


def _ordered(values: Values) -> tuple[Values, NDArray[np.intp]]:
    """Columns sorted, with what is not finite as NaN at the end, and their numbers of finite values."""
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)
    return ordered, np.isfinite(ordered).sum(axis=0)


def _quantile(ordered: Values, n: NDArray[np.intp], q: float) -> Values:
    """A quantile of each sorted column, whose first n values are finite; NaN for a column without."""
    last = np.maximum(n - 1, 0)
    low = np.floor(q * last).astype(np.intp)
    columns = np.arange(ordered.shape[1])
    below, above = ordered[low, columns], ordered[np.minimum(low + 1, last), columns]
    return np.asarray(below + (q * last - low) * (above - below))


def _rows_of(columns: Mapping[str, NDArray[Any]]) -> Iterator[dict[str, Any]]:
    lists = [values.tolist() for values in columns.values()]
    for row in zip(*lists, strict=True):
        yield dict(zip(columns, row, strict=True))
