"""The page of the group: distributions over the participants, outliers, what is missing, who they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.figures.distributions import BYTES_A_VALUE, Histogram, packed
from hedypet_bids.group.dictionary import COLUMNS
from hedypet_bids.group.page_values import (
    PageRegion,
    PageScan,
    Quality,
    RegionTable,
    metadata_of_manifests,
    page_scans,
    read_input_functions,
    read_quality,
    read_region_values,
    read_small_table,
)
from hedypet_bids.group.readouts import GroupTables
from hedypet_bids.group.statistics import MAD_TO_SD, MIN_FOR_OUTLIERS, OUTLIER_Z
from hedypet_bids.group.values import UPTAKE, VOLUME, main_parameters
from hedypet_bids.labels import CT_TASKS
from hedypet_bids.names import NORMALISATIONS, SCAN_COLUMNS
from hedypet_bids.report.page import number_text, write_page
from hedypet_bids.settings import Settings

MOST_VALUE_BYTES = 9_000_000
"""What the values by region may take in the page: with the rest, 1,000 full participants stay under 15 MB."""

MAIN_REGIONS = (
    "brain",
    "heart",
    "aorta",
    "liver",
    "spleen",
    "pancreas",
    "kidney_left",
    "kidney_right",
    "colon",
    "urinary_bladder",
    "vertebrae_L3",
    "gluteus_maximus_left",
    "gluteus_maximus_right",
)
"""Regions of the task total that the page shows first."""

_MOST_ROWS = 500  # of the tables of outliers and of flags
_SHOWN_UPTAKES = ("SUV", "SUL Janma")
_TASK_ORDER = ("ts_total", "ts_tissue", "ts_body", "totalimage", "aortasegments", "synthseg", "synthsegparc")
_SEXES = {"F": "female", "M": "male"}
_NO_SEX = "sex not known"
_DEMOGRAPHICS = {
    "Age [years]": "age",
    "Weight [kg]": "weight",
    "Height [m]": "height",
    "Injected Activity [MBq]": "dose",
}


def write_group_page(
    output: Path,
    tables: GroupTables,
    settings: Settings | None = None,
    *,
    most_value_bytes: int = MOST_VALUE_BYTES,
) -> None:
    """Write ``group.html`` from the readout tables and what the participants' manifests list.

    A table that is missing or cannot be read is named on the page, which then goes without it.

    Parameters
    ----------
    settings
        Which kinetic models the participants were to have. Default: the default settings.
    most_value_bytes
        What the values by region may take in the page.
    """
    settings = settings or Settings()
    metadata, problems = read_small_table(output, "metadata")
    if problems:
        metadata = metadata_of_manifests(output, metadata)
    scans = page_scans(output, metadata, settings)
    # What is known of a participant: of the first scan that tells it.
    people = metadata.groupby("Subject", sort=False).first().reset_index()
    small = {name: read_small_table(output, name) for name in ("outliers", "statistics", "repeatability")}
    values, unread_values = read_region_values(output, scans)
    quality = read_quality(output, scans)
    kinetic = {
        quantity: units
        for quantity, units in _kinetic_units().items()
        if values.has(quantity) or quantity in _asked_for(settings)
    }
    unread = [problem for _, found in small.values() for problem in found]
    write_page(
        output / names.GROUP_REPORT,
        "group.html",
        n_participants=len(people),
        n_scans=len(scans),
        tables=[(name, rows, _parquet_link(output, name)) for name, rows in tables.rows.items()],
        run=tables.run,
        warnings=tables.warnings,
        problems=[*problems, *unread, *unread_values, *quality.problems],
        missing=[{"subject": scan.title, "reasons": scan.missing} for scan in scans if scan.missing],
        missing_parts=_missing_parts(scans),
        demographics=_demographics(people),
        histograms=_histograms(people),
        participants=_participants(scans, quality),
        has_splits=bool(metadata["Split"].notna().any()),
        varying=[column for column in SCAN_COLUMNS[1:] if metadata[column].nunique(dropna=False) > 1],
        pages={scan.title: scan.page for scan in scans if scan.page},
        several_sessions=bool((metadata.groupby("Subject")["Session"].nunique() > 1).any()),
        repeatability=_repeatability(small["repeatability"][0]),
        **_quality_section(scans, quality),
        **_outliers_section(scans, small["outliers"][0]),
        **_regions_section(scans, values, kinetic, quality, most_value_bytes),
        input_functions=read_input_functions(output),
        quantities=[*_SHOWN_UPTAKES, *kinetic],
        statistics=_statistics(small["statistics"][0]),
    )


def _regions_section(
    scans: Sequence[PageScan],
    values: RegionTable,
    kinetic: Mapping[str, str],
    quality: Quality,
    most_bytes: int,
) -> dict[str, Any]:
    """The distributions by region, drawn by the page itself; ``kinetic``: quantities and their units."""
    columns = {"uptake": UPTAKE, "volume": VOLUME, **{quantity: quantity for quantity in kinetic}}
    regions, n_left_out = _shown_regions(values, BYTES_A_VALUE * len(columns), most_bytes)
    return {
        "n_regions": len(regions),
        "n_left_out": n_left_out,
        "without": [
            quantity
            for quantity in kinetic
            if not any(np.isfinite(values.of(region, quantity)).any() for region in regions)
        ],
        "data": {
            "participants": _scan_data(scans),
            "quantities": _quantities(kinetic),
            "tasks": {t: (COLUMNS["Task"].levels or {}).get(t, t) for t in {r.task for r in regions}},
            "regions": [_region_data(region, values, columns) for region in regions],
            "quality": _quality_data(quality),
            "outliers": {"z": OUTLIER_Z, "least": MIN_FOR_OUTLIERS, "madToSd": MAD_TO_SD},
        },
    }


def _quality_section(scans: Sequence[PageScan], quality: Quality) -> dict[str, Any]:
    """Checks outside their range, and the scans of which steps failed."""
    flags = [(scan, flag) for scan, found in quality.flags.items() for flag in found]
    return {
        "flags": flags[:_MOST_ROWS],
        "n_flags": len(flags),
        "n_checked": len(quality.flags),
        "failed": [(scan.title, scan.failed) for scan in scans if scan.failed],
    }


def _outliers_section(scans: Sequence[PageScan], table: pd.DataFrame) -> dict[str, Any]:
    return {
        "outliers": _outliers(scans, table),
        "n_outliers": len(table),
        "min_for_outliers": MIN_FOR_OUTLIERS,
        "outlier_z": OUTLIER_Z,
    }


def _parquet_link(output: Path, table: str) -> str:
    """The file, or for a partitioned table nothing: browsers show folders as lists of names."""
    path = names.readout(table, ".parquet")
    return "" if (output / path).is_dir() else path


def _shown_regions(values: RegionTable, bytes_a_scan: float, most_bytes: int) -> tuple[list[PageRegion], int]:
    """The regions that fit into the page, the most looked at first, and how many do not."""

    def rank(region: PageRegion) -> tuple[Any, ...]:
        task = _TASK_ORDER.index(region.task) if region.task in _TASK_ORDER else len(_TASK_ORDER)
        return region.erosion, not _is_main(region), task, region.name

    regions = sorted(values.regions, key=rank)
    each = bytes_a_scan * max(1, len(values.scans))
    shown = regions[: max(1, int(most_bytes / each))]
    return shown, len(regions) - len(shown)


def _is_main(region: PageRegion) -> bool:
    return region.task == "ts_total" and region.name in MAIN_REGIONS


def _region_data(region: PageRegion, values: RegionTable, columns: Mapping[str, str]) -> dict[str, Any]:
    """Values of a region by the key in the page's data, which tells what ``columns`` there are."""
    by_key = {key: values.of(region, column) for key, column in columns.items()}
    return {
        "task": region.task,
        "name": region.name,
        "erosion": region.erosion,
        "main": MAIN_REGIONS.index(region.name) if _is_main(region) else None,
        **{key: packed(found) if np.isfinite(found).any() else "" for key, found in by_key.items()},
    }


def _kinetic_units() -> dict[str, str]:
    """Units of the main parameter of each model, by what the column Quantity calls it."""
    return {quantity: parameter.units for quantity, (_, parameter) in main_parameters().items()}


def _asked_for(settings: Settings) -> set[str]:
    """The main parameters of the models that the settings ask for."""
    models = settings.kinetics.models
    return {quantity for quantity, (model, _) in main_parameters().items() if model.name in models}


def _shown_quantities() -> list[str]:
    """The quantities of the page's tables of regions."""
    return [*_SHOWN_UPTAKES, *main_parameters()]


def _quantities(kinetic: Mapping[str, str]) -> list[dict[str, str]]:
    """What can be chosen: the column of the values, and the constant that they are divided by."""
    uptakes = [
        {"name": name, "units": "g/mL", "column": "uptake", "constant": column}
        for name, column in NORMALISATIONS.items()
    ]
    return [
        *uptakes,
        *(
            {"name": quantity, "units": units, "column": quantity, "constant": ""}
            for quantity, units in kinetic.items()
        ),
        {"name": "Volume", "units": COLUMNS[VOLUME].units, "column": "volume", "constant": ""},
    ]


def _scan_data(scans: Sequence[PageScan]) -> dict[str, Any]:
    def numbers(column: str) -> list[float | None]:
        found = [scan.columns[column] for scan in scans]
        return [None if pd.isna(value) or not np.isfinite(value) else float(value) for value in found]

    def texts(column: str) -> list[str]:
        return [_text(scan.columns[column]) for scan in scans]

    return {
        "label": [scan.title for scan in scans],
        "subject": [str(scan.columns["Subject"]) for scan in scans],
        "page": [scan.page for scan in scans],
        "sex": texts("Sex"),
        "age": numbers("Age [years]"),
        # hedyPET writes the group as sex and years: F18-34.
        "ageGroup": [group.lstrip("FM") for group in texts("Demographic Group [Sex,Age]")],
        "split": texts("Split"),
        "session": texts("Session"),
        "tracer": texts("Tracer"),
        "constants": {column: numbers(column) for column in NORMALISATIONS.values()},
    }


def _quality_data(quality: Quality) -> list[dict[str, Any]]:
    return [
        {
            "name": measure.name.replace("_", " "),
            "meaning": measure.meaning,
            "units": measure.units,
            "low": measure.low,
            "high": measure.high,
            "values": packed(measure.values),
        }
        for measure in quality.measures.values()
    ]


def _missing_parts(scans: Sequence[PageScan]) -> list[tuple[str, int]]:
    """How many scans lack each part."""
    counts = Counter(gap.name for scan in scans for gap in set(scan.gaps) if gap.kind != "detail")
    return counts.most_common()


def _demographics(metadata: pd.DataFrame) -> list[dict[str, Any]]:
    """Number, median and range of age, weight, height and dose, over everyone and by sex."""
    members = {"everyone": np.full(len(metadata), True), **_by_sex(metadata)}
    rows = []
    for group, chosen in members.items():
        cells = [_median_and_range(_real(metadata, column)[chosen]) for column in _DEMOGRAPHICS]
        rows.append({"group": group, "n": int(chosen.sum()), "cells": cells})
    return rows


def _histograms(metadata: pd.DataFrame) -> list[Histogram]:
    """Of age, weight, height and dose, by sex; without those that nobody has."""
    found = []
    for column in _DEMOGRAPHICS:
        values = _real(metadata, column)
        groups = {group: values[chosen] for group, chosen in _by_sex(metadata).items()}
        found.append(Histogram.of(column.replace("Injected Activity", "Dose"), groups))
    return [histogram for histogram in found if histogram]


def _by_sex(metadata: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    sex = metadata["Sex"].map(_SEXES).fillna(_NO_SEX)
    groups = {group: (sex == group).to_numpy() for group in (*_SEXES.values(), _NO_SEX)}
    return {group: chosen for group, chosen in groups.items() if chosen.any()}


def _median_and_range(values: NDArray[np.float64]) -> str:
    values = values[np.isfinite(values)]
    if not values.size:
        return "n/a"
    span = f"{number_text(values.min())} to {number_text(values.max())}"
    return f"{number_text(np.median(values))} ({span}; n {values.size})"


def _participants(scans: Sequence[PageScan], quality: Quality) -> list[dict[str, Any]]:
    return [
        {
            "subject": scan.title,
            "scan": {column: _text(scan.columns[column]) for column in SCAN_COLUMNS},
            "failed": len(scan.failed),
            "split": _text(scan.columns["Split"]),
            "sex": _SEXES.get(_text(scan.columns["Sex"]), "n/a"),
            "numbers": [scan.columns[column] for column in _DEMOGRAPHICS],
            "suv": scan.columns["SUV Denominator [Bq/mL]"],
            "flags": len(quality.flags[scan.title]) if scan.title in quality.flags else None,
        }
        for scan in scans
    ]


def _outliers(scans: Sequence[PageScan], table: pd.DataFrame) -> list[dict[str, Any]]:
    """The farthest outliers, the farthest first."""
    order = table["Robust z"].abs().sort_values(ascending=False, kind="stable").index[:_MOST_ROWS]
    titles = {scan.key(SCAN_COLUMNS): scan.title for scan in scans}
    units = {quantity["name"]: quantity["units"] for quantity in _quantities(_kinetic_units())}
    return [
        {
            "subject": titles.get("\t".join(_text(row[key]) for key in SCAN_COLUMNS), row["Subject"]),
            "measure": f"{row['Quantity']} of {row['Label Name']}",
            "task": row["Task"],
            "erosion": row["Erosion Iterations"],
            "value": row["Value"],
            "median": row["Median"],
            "units": units[row["Quantity"]],
            "z": row["Robust z"],
        }
        for row in table.reset_index(drop=True).loc[order].to_dict("records")
    ]


def _repeatability(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Test-retest of the main regions without erosion."""
    chosen = table[
        (table["Task"] == "ts_total")
        & table["Label Name"].isin(MAIN_REGIONS)
        & (table["Erosion Iterations"] == 0)
        & table["Quantity"].isin(_shown_quantities())
    ]
    return [
        {
            "region": row["Label Name"],
            "quantity": row["Quantity"],
            "scan": ", ".join(filter(None, (_text(row[c]) for c in ("Tracer", "Reconstruction", "Framing")))),
            "n": row["Participants"],
            "mean": row["Mean"],
            "sd": row["Within-Subject SD"],
            "coefficient": row["Repeatability Coefficient"],
            "icc": row["ICC(2,1)"],
            "low": row["ICC(2,1) Low"],
            "high": row["ICC(2,1) High"],
            "bias": row["Bias"],
            "bias_se": row["Bias SE"],
            "change": row["Mean Change [%]"],
            "reason": _text(row["Reason"]),
        }
        for row in chosen.to_dict("records")
    ]


def _statistics(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Median, quartiles and number of participants of every CT region over everyone and by sex."""
    chosen = table[
        table["Task"].isin([task.readout_name for task in CT_TASKS])
        & (table["Erosion Iterations"] == 0)
        & (table["Age Group"] == "all")
        & table["Quantity"].isin(_shown_quantities())
    ]
    several = {q for q, n in chosen.groupby("Quantity")["Reconstruction"].nunique().items() if n > 1}
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in chosen.to_dict("records"):
        key = (row["Task"], row["Label Name"], row["Sex Group"], _text(row["Tracer"]))
        kept = rows.setdefault(
            key, {**dict(zip(("task", "region", "sex", "tracer"), key, strict=True)), "cells": {}}
        )
        prefix = f"{_text(row['Reconstruction']) or 'n/a'}: " if row["Quantity"] in several else ""
        kept["cells"].setdefault(row["Quantity"], []).append(prefix + _cell(row))
    return list(rows.values())


def _cell(row: Mapping[Any, Any]) -> str:
    quartiles = f"{number_text(row['25 %'], 3)} to {number_text(row['75 %'], 3)}"
    mean = f"mean {number_text(row['Mean'], 3)}, SD {number_text(row['SD'], 2)}"
    return f"{number_text(row['Median'], 3)} ({quartiles}; {mean}; n {row['Participants']})"


def _real(metadata: pd.DataFrame, column: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = metadata[column].to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
