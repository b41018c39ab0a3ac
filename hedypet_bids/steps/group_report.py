"""The page of the group: which tables there are, and what each participant has."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hedypet_bids import bids_names as names
from hedypet_bids.report.page import write_page
from hedypet_bids.steps.readouts import GroupTables


def write_group_page(output: Path, tables: GroupTables) -> None:
    """Write ``group.html`` from the metadata table."""
    metadata = pd.read_parquet(output / names.readout("metadata", ".parquet"))
    participants = [
        {
            "subject": row["Subject"],
            "page": names.report(names.participant_label(row["Subject"])),
            "weight": row["Weight [kg]"],
            "dose": row["Injected Activity [MBq]"],
            "suv": row["SUV Denominator [Bq/mL]"],
            "missing": row["Missing"] if isinstance(row["Missing"], str) else "",
        }
        for row in metadata.to_dict("records")
    ]
    write_page(
        output / names.GROUP_REPORT, "group.html", participants=participants, tables=list(tables.rows.items())
    )
