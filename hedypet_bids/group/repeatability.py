"""Test-retest: how far the scans of a participant in several sessions agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import fdtri

from hedypet_bids.group.dictionary import kinetic_quantity
from hedypet_bids.group.tables import schema
from hedypet_bids.group.values import REGION, Series, StudyValues, Values
from hedypet_bids.kernels.kinetics import known_models
from hedypet_bids.names import NORMALISATIONS

TO_REPEATABILITY = 1.96 * np.sqrt(2.0)
"""Repeatability coefficient over within-subject SD (Bland and Altman 1996)."""


class Icc(NamedTuple):
    """ICC(2,1) with its 95 % interval, each of shape (n_regions,)."""

    value: Values
    low: Values
    high: Values


def icc_2_1(values: Values, *, confidence: float = 0.95) -> Icc:
    """Intraclass correlation: two-way random effects, absolute agreement, single measurement.

    ICC(2,1) of Shrout and Fleiss (1979), ICC(A,1) of McGraw and Wong (1996), whose interval it has.

    Parameters
    ----------
    values
        Shape (n_participants, n_sessions, n_regions), all finite.

    Returns
    -------
    Icc
        NaN with fewer than two participants or sessions, and where all values are the same.

    Examples
    --------
    >>> first, second = [2.0, 4.0, 6.0], [3.0, 4.0, 8.0]
    >>> icc_2_1(np.array([first, second]).T[:, :, None]).value.round(3)
    array([0.9])
    """
    n, k, n_regions = values.shape
    if min(n, k) < 2:
        return Icc(*np.full((3, n_regions), np.nan))
    mean = values.mean(axis=(0, 1))
    people, sessions = values.mean(axis=1), values.mean(axis=0)
    between = k * ((people - mean) ** 2).sum(axis=0) / (n - 1)
    across = n * ((sessions - mean) ** 2).sum(axis=0) / (k - 1)
    residual = values - people[:, None] - sessions[None] + mean
    error = (residual**2).sum(axis=(0, 1)) / ((n - 1) * (k - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        icc = (between - error) / (between + (k - 1) * error + k * (across - error) / n)
        a = k * icc / (n * (1 - icc))
        b = 1 + k * icc * (n - 1) / (n * (1 - icc))
        freedom = (a * across + b * error) ** 2 / (
            (a * across) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
        )
        tail = (1 + confidence) / 2
        below = fdtri(n - 1, freedom, tail)
        above = fdtri(freedom, n - 1, tail)
        rest = k * across + (k * n - k - n) * error
        # Over the quantiles, which leave the range of numbers where there is next to no freedom.
        low = n * (between / below - error) / (rest + n * between / below)
        high = n * (between - error / above) / (rest / above + n * between)
    perfect = icc == 1
    return Icc(icc, np.where(perfect, 1.0, low), np.where(perfect, 1.0, high))


def within_subject_sd(values: Values) -> Values:
    """Square root of the mean square within participants, in a one-way analysis of variance.

    Parameters
    ----------
    values
        Shape (n_participants, n_sessions, n_regions); NaN where a participant lacks a session. Participants
        with one value say nothing.

    Returns
    -------
    NDArray
        Shape (n_regions,); NaN where nobody has two values.
    """
    finite = np.isfinite(values)
    n = finite.sum(axis=1)
    filled = np.where(finite, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=1) / n
        squares = np.where(finite, (values - mean[:, None]) ** 2, 0.0).sum(axis=(0, 1))
        freedom = np.maximum(n - 1, 0).sum(axis=0)
        return np.asarray(np.sqrt(squares / np.where(freedom > 0, freedom, np.nan)))


def agreement(values: Values) -> dict[str, NDArray[Any]]:
    """Everything that the table repeatability says of a quantity, by column.

    Parameters
    ----------
    values
        Shape (n_participants, n_sessions, n_regions), sessions in order; NaN where there is none. Of each
        region only participants with two values or more count.

    Returns
    -------
    dict
        Arrays of shape (n_regions,).
    """
    values = _compacted(values)
    n_sessions = np.isfinite(values).sum(axis=1)
    first, last = values[:, 0], _last(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = last - first
        n = np.isfinite(difference).sum(axis=0)
        bias = _mean(difference)
        variance = np.nansum((difference - bias) ** 2, axis=0) / np.where(n > 1, n - 1, np.nan)
        sd = within_subject_sd(values)
        icc = _icc_by_completeness(values)
        return {
            "Participants": n,
            "Sessions": n_sessions.sum(axis=0),
            "Mean": np.nansum(values, axis=(0, 1)) / np.where(n > 0, n_sessions.sum(axis=0), np.nan),
            "Within-Subject SD": sd,
            "Repeatability Coefficient": TO_REPEATABILITY * sd,
            "ICC(2,1)": icc.value,
            "ICC(2,1) Low": icc.low,
            "ICC(2,1) High": icc.high,
            "Bias": bias,
            "Bias SE": np.sqrt(variance / n),
            "Mean Change [%]": _mean(percent_change(first, last)),
            "Reason": _reasons(n, icc.value),
        }


def percent_change(first: Values, last: Values) -> Values:
    """Change over the first value, in %; NaN where that is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(first != 0, 100.0 * (last - first) / first, np.nan))


def repeatability_tables(study: StudyValues) -> dict[str, pa.Table]:
    """The tables ``repeatability`` (by region) and ``repeatability_changes`` (by participant and region)."""
    kinetic = [kinetic_quantity(m.name, p.name) for m in known_models().values() for p in m.parameters]
    found = [
        retest
        for series in study.series([*NORMALISATIONS, *kinetic, "Volume"])
        for retest in _retests(study, series)
    ]
    by_region: list[dict[str, Any]] = []
    by_participant: list[dict[str, Any]] = []
    for retest in found:
        by_region += _region_rows(study, retest)
        by_participant += _participant_rows(study, retest)
    # Stable: quantities of a region stay in the order above.
    by_region.sort(key=lambda row: [row[key] for key in REGION])
    by_participant.sort(key=lambda row: [row[key] for key in ("Subject", *REGION)])
    return {
        name: pa.Table.from_pylist(rows, schema=schema(name))
        for name, rows in (("repeatability", by_region), ("repeatability_changes", by_participant))
    }


@dataclass(frozen=True)
class _Retest:
    """A quantity of the participants with several sessions of one framing.

    Parameters
    ----------
    scans
        Positions of each participant's scans, in the order of the sessions.
    values
        Shape (n_participants, n_sessions, n_regions); NaN where there is none.
    """

    series: Series
    framing: str
    scans: list[list[int]]
    values: Values

    @property
    def columns(self) -> Mapping[str, Any]:
        return {
            "Quantity": self.series.quantity,
            "Tracer": self.series.tracer,
            "Reconstruction": self.series.reconstruction,
            "Framing": self.framing or None,
        }


def _retests(study: StudyValues, series: Series) -> Iterator[_Retest]:
    """The participants who were scanned in several sessions, by framing."""
    by_framing: dict[str, dict[str, dict[str, int]]] = {}
    for at, (scan, framing) in enumerate(zip(series.scans, series.framings, strict=True)):
        row = study.metadata[scan]
        sessions = by_framing.setdefault(framing, {}).setdefault(row["Subject"], {})
        # The first run of a session stands for it.
        sessions.setdefault(row.get("Session") or "", at)
    for framing, people in sorted(by_framing.items()):
        rows = [list(sessions.values()) for sessions in people.values() if len(sessions) > 1]
        if not rows:
            continue
        values = np.full((len(rows), max(map(len, rows)), series.values.shape[1]), np.nan)
        for participant, positions in enumerate(rows):
            values[participant, : len(positions)] = series.values[positions]
        if series.quantity == "Volume":
            values[values == 0] = np.nan  # a region that is not there
        yield _Retest(series, framing, [[series.scans[at] for at in row] for row in rows], values)


def _region_rows(study: StudyValues, retest: _Retest) -> Iterator[dict[str, Any]]:
    found = agreement(retest.values)
    lists = [column.tolist() for column in found.values()]
    for region, row in zip(study.regions, zip(*lists, strict=True), strict=True):
        content = dict(zip(found, row, strict=True))
        if content["Participants"]:
            yield {**region, **retest.columns, **content}


def _participant_rows(study: StudyValues, retest: _Retest) -> Iterator[dict[str, Any]]:
    regions, columns = study.regions, retest.columns
    for scans, values in zip(retest.scans, retest.values, strict=True):
        finite = np.isfinite(values)
        first = finite.argmax(axis=0)
        last = len(finite) - 1 - finite[::-1].argmax(axis=0)
        for at in np.flatnonzero(finite.sum(axis=0) > 1).tolist():
            before, after = values[first[at], at], values[last[at], at]
            yield {
                "Subject": study.metadata[scans[0]]["Subject"],
                **regions[at],
                **columns,
                "First Session": study.metadata[scans[first[at]]].get("Session"),
                "Last Session": study.metadata[scans[last[at]]].get("Session"),
                "First Value": before,
                "Last Value": after,
                "Change [%]": percent_change(before, after).item(),
            }


def _compacted(values: Values) -> Values:
    """The same with the finite values of each participant first, and none of those with a single one."""
    finite = np.isfinite(values)
    order = np.argsort(~finite, axis=1, kind="stable")
    compact = np.take_along_axis(np.where(finite, values, np.nan), order, axis=1)
    return np.where(finite.sum(axis=1, keepdims=True) > 1, compact, np.nan)


def _last(values: Values) -> Values:
    """The last finite value of each participant, of values with the finite ones first."""
    n = np.isfinite(values).sum(axis=1, keepdims=True)
    return np.take_along_axis(values, np.maximum(n - 1, 0), axis=1)[:, 0]


def _icc_by_completeness(values: Values) -> Icc:
    """ICC over as many first sessions as every participant of a region has."""
    n_regions = values.shape[2]
    found = Icc(*np.full((3, n_regions), np.nan))
    n_sessions = np.isfinite(values).sum(axis=1)
    patterns, which = np.unique(n_sessions, axis=1, return_inverse=True)
    for i, pattern in enumerate(patterns.T):
        people, regions = pattern > 0, np.flatnonzero(which.ravel() == i)
        if people.any():
            block = values[people][:, : pattern[people].min()][:, :, regions]
            for whole, part in zip(found, icc_2_1(block), strict=True):
                whole[regions] = part
    return found


def _mean(values: Values) -> Values:
    """Mean of the finite values of every column; NaN where there is none."""
    n = np.isfinite(values).sum(axis=0)
    return np.asarray(np.nansum(values, axis=0) / np.where(n > 0, n, np.nan))


def _reasons(n: Sequence[int] | NDArray[Any], icc: Values) -> NDArray[Any]:
    few, same = "one participant: no ICC and no standard error", "all values are the same: no ICC"
    text = np.where(np.asarray(n) == 1, few, np.where(np.isfinite(icc), "", same)).astype(object)
    text[text == ""] = None
    return text
