"""The page of the group: which tables there are, what each participant has, statistics and outliers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hedypet_bids import bids_names as names
from hedypet_bids.labels import CT_TASKS
from hedypet_bids.report.page import number, write_page
from hedypet_bids.steps.readouts import GroupTables

_OUTLIERS_SHOWN = 10
_SHOWN_QUANTITIES = ("SUV", "SUL Janma", "Patlak Ki")


def write_group_page(output: Path, tables: GroupTables) -> None:
    """Write ``group.html`` from the tables of metadata, statistics and outliers."""
    metadata = pd.read_parquet(output / names.readout("metadata", ".parquet"))
    outliers = _outliers(pd.read_parquet(output / names.readout("outliers", ".parquet")))
    statistics = pd.read_parquet(output / names.readout("statistics", ".parquet"))
    participants = [
        {
            "subject": row["Subject"],
            "page": names.report(names.participant_label(row["Subject"])),
            "split": _text(row["Split"]),
            "weight": row["Weight [kg]"],
            "dose": row["Injected Activity [MBq]"],
            "suv": row["SUV Denominator [Bq/mL]"],
            "missing": _text(row["Missing"]),
            "outliers": outliers.get(row["Subject"], ""),
        }
        for row in metadata.to_dict("records")
    ]
    write_page(
        output / names.GROUP_REPORT,
        "group.html",
        participants=participants,
        tables=[(name, rows, _parquet_link(output, name)) for name, rows in tables.rows.items()],
        warnings=tables.warnings,
        quantities=_SHOWN_QUANTITIES,
        regions=_regions(statistics),
    )


def _parquet_link(output: Path, table: str) -> str:
    """The file, or for a partitioned table nothing: browsers show folders as lists of names."""
    path = names.readout(table, ".parquet")
    return "" if (output / path).is_dir() else path


def _outliers(table: pd.DataFrame) -> dict[str, str]:
    """The outliers of each participant as text, the farthest first."""
    listed: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for row in table.to_dict("records"):
        eroded = f" eroded {row['Erosion Iterations']}" if row["Erosion Iterations"] else ""
        text = (
            f"{row['Quantity']} of {row['Label Name']}{eroded} ({row['Task']}) "
            f"{number(row['Value'], 3)}, median {number(row['Median'], 3)}, z {number(row['Robust z'], 2)}"
        )
        listed[row["Subject"]].append((-abs(row["Robust z"]), text))
    return {subject: _shortened([text for _, text in sorted(items)]) for subject, items in listed.items()}


def _shortened(items: list[str]) -> str:
    more = len(items) - _OUTLIERS_SHOWN
    return "; ".join(items[:_OUTLIERS_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _regions(statistics: pd.DataFrame) -> list[dict[str, Any]]:
    """Median, quartiles and number of participants of every CT region over everyone and by sex."""
    chosen = statistics[
        statistics["Task"].isin([task.readout_name for task in CT_TASKS])
        & (statistics["Erosion Iterations"] == 0)
        & (statistics["Age Group"] == "all")
        & statistics["Quantity"].isin(_SHOWN_QUANTITIES)
    ]
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in chosen.to_dict("records"):
        key = (row["Task"], row["Label Name"], row["Sex Group"])
        region = rows.setdefault(key, {"task": key[0], "region": key[1], "sex": key[2], "cells": {}})
        region["cells"][row["Quantity"]] = _cell(row)
    return list(rows.values())


def _cell(row: Mapping[str, Any]) -> str:
    quartiles = f"{number(row['25 %'], 3)} to {number(row['75 %'], 3)}"
    mean = f"mean {number(row['Mean'], 3)}, SD {number(row['SD'], 2)}"
    return f"{number(row['Median'], 3)} ({quartiles}; {mean}; n {row['Participants']})"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
