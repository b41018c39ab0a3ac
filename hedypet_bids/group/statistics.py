"""Uptake and kinetics of every region over the participants: statistics by sex and age, and outliers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hedypet_bids.group.tables import schema
from hedypet_bids.group.values import (
    REGION,
    Series,
    StudyValues,
    Values,
    main_parameters,
)
from hedypet_bids.names import NORMALISATIONS

OUTLIER_Z = 5.0
# With fewer values the median absolute deviation says little about how far values lie apart.
MIN_FOR_OUTLIERS = 8
MAD_TO_SD = 1.4826
"""1 over the normal distribution's quantile at 3/4."""

_QUANTILES = {
    "Minimum": 0.0,
    "5 %": 0.05,
    "25 %": 0.25,
    "Median": 0.5,
    "75 %": 0.75,
    "95 %": 0.95,
    "Maximum": 1.0,
}


def statistics_table(study: StudyValues) -> pa.Table:
    """Statistics by region, quantity, tracer and reconstruction, with one scan a participant: the first."""
    regions = study.regions
    rows: list[dict[str, Any]] = []
    for series in study.series([*NORMALISATIONS, *main_parameters()]):
        first = study.first_scans(series.scans)
        values = series.values[first]
        people = [study.metadata[series.scans[at]] for at in first]
        scan = {"Tracer": series.tracer, "Reconstruction": series.reconstruction}
        for (sex, age), members in demographic_groups(people).items():
            group = {"Quantity": series.quantity, "Sex Group": sex, "Age Group": age, **scan}
            found = zip(regions, _rows_of(column_statistics(values[members])), strict=True)
            rows += [{**region, **group, **row} for region, row in found if row["Participants"]]
    # Stable: quantities and groups of a region stay in the order above.
    rows.sort(key=lambda row: [row[key] for key in REGION])
    return pa.Table.from_pylist(rows, schema=schema("statistics"))


def outliers_table(study: StudyValues) -> pa.Table:
    """Scans that lie far from the median of the participants' first scans."""
    regions = study.regions
    rows = [
        {**regions[region], "Quantity": series.quantity, **row}
        for series in study.series(["SUV", *main_parameters()])
        for region, row in _outliers(study, series)
    ]
    rows.sort(key=lambda row: [row[key] for key in ("Subject", *REGION)])
    return pa.Table.from_pylist(rows, schema=schema("outliers"))


def _outliers(study: StudyValues, series: Series) -> Iterator[tuple[int, dict[str, Any]]]:
    z, median, mad = robust_z(series.values, series.values[study.first_scans(series.scans)])
    for at, region in np.argwhere(np.abs(z) > OUTLIER_Z):
        scan = study.metadata[series.scans[at]]
        row = {
            "Subject": scan["Subject"],
            "Value": series.values[at, region],
            "Median": median[region],
            "MAD": mad[region],
            "Robust z": z[at, region],
            **{key: scan.get(key) for key in ("Session", "Tracer", "Run")},
            "Reconstruction": series.reconstruction,
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
        sd = np.sqrt(squares.sum(axis=0) / np.where(n > 1, n - 1, np.nan))
    quantiles = {name: _quantile(ordered, n, q) for name, q in _QUANTILES.items()}
    return {"Participants": n, "Mean": mean, "SD": sd, **quantiles}


def robust_z(values: Values, reference: Values | None = None) -> tuple[Values, Values, Values]:
    """Distance from the column's median in MAD x 1.4826, that median, and MAD x 1.4826.

    Values that are not finite, columns of fewer than eight values and columns whose MAD is 0 have z = 0.

    Parameters
    ----------
    values
        Shape (n_scans, n_regions).
    reference
        What median and MAD are taken of, shape (n_participants, n_regions). Default: ``values``.
    """
    ordered, n = _ordered(values if reference is None else reference)
    median = _quantile(ordered, n, 0.5)
    mad = MAD_TO_SD * _quantile(np.sort(np.abs(ordered - median), axis=0), n, 0.5)
    usable = (n >= MIN_FOR_OUTLIERS) & (mad > 0) & np.isfinite(values)
    z = np.zeros(values.shape)
    np.divide(values - median, mad, out=z, where=usable)
    return z, median, mad


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
