"""Columns of the readout tables: hedyPET's names and order first, new ones after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """A column's type, meaning, unit and, where it has few values, those values."""

    arrow: Any
    description: str
    units: str = ""
    levels: Mapping[str, str] | None = None

    def describe(self) -> dict[str, Any]:
        """The column's entry in a BIDS data dictionary."""
        entry: dict[str, Any] = {"Description": self.description}
        if self.units:
            entry["Units"] = self.units
        if self.levels:
            entry["Levels"] = dict(self.levels)
        return entry


_TEXT, _INT, _REAL = pa.string(), pa.int64(), pa.float64()
_TASKS = {
    "ts_total": "TotalSegmentator organs",
    "ts_tissue": "TotalSegmentator tissue types",
    "ts_body": "TotalSegmentator body",
    "synthseg": "SynthSeg brain structures",
    "synthsegparc": "SynthSeg brain structures with cortical parcels",
    "aortasegments": "segments of the aorta",
    "aortavois_ml-full_width-3": "aorta volume of interest, full length, 3 voxels wide",
    "aortavois_ml-1_width-3": "aorta volume of interest, 1 mL, 3 voxels wide",
    "aortavois_ml-2_width-5": "aorta volume of interest, 2 mL, 5 voxels wide",
    "aortavois_combined": "every voxel of the three kinds of volume in the descending aorta",
    "heartvois_ml-1": "volume of interest in the right heart, 1 mL, where its blood is seen undiluted",
    "totalimage": "every voxel of the image",
}
_QUANTITY_UNITS = "g/mL for SUV and SUL, mL for Volume, else those of the kinetic parameter (table kinetics)"
_FIRST_SCANS = "participants, each with the first scan of this tracer and reconstruction"
_UPTAKES = {
    "SUV": "mean of the static PET over dose per body weight",
    "SUL Decazes": "mean of the static PET over dose per lean body mass from the CT's fat",
    "SUL Janma": "mean of the static PET over dose per lean body mass by Janmahasatian",
    "SUL James": "mean of the static PET over dose per lean body mass by James",
}

COLUMNS: Mapping[str, Column] = {
    "Subject": Column(_TEXT, "Participant"),
    "Task": Column(_TEXT, "Segmentation that the region belongs to", levels=_TASKS),
    "Label Index": Column(_INT, "Index of the region in the label table of the task"),
    "Label Name": Column(_TEXT, "Name of the region in the label table of the task"),
    "Erosion Iterations": Column(_INT, "How often the region was eroded by one voxel"),
    "Frame Index": Column(_INT, "Frame of the dynamic PET, counted from 0"),
    "Frame Time Middle [s]": Column(_REAL, "Middle of the frame after injection", "s"),
    "Frame Start [s]": Column(_REAL, "Start of the frame after injection", "s"),
    "Frame End [s]": Column(_REAL, "End of the frame after injection", "s"),
    "PET Mean [Bq/mL]": Column(_REAL, "Mean over the finite voxels of the region", "Bq/mL"),
    "PET STD [Bq/mL]": Column(_REAL, "Population standard deviation over these voxels", "Bq/mL"),
    "Voxel Count": Column(_INT, "Voxels in the region"),
    "Valid Voxel Count": Column(_INT, "Finite voxels in the region"),
    "Volume [mL]": Column(_REAL, "Volume of the region", "mL"),
    "Input Function Identifier": Column(
        _TEXT, "Volume of interest and segment of the aorta; in the table kinetics also a reference region"
    ),
    "Regression Frames": Column(_INT, "Number of last frames in the Patlak fit"),
    "Patlak Ki": Column(_REAL, "Net influx constant", "mL/min/mL"),
    "Patlak Ki SE": Column(_REAL, "Standard error of Patlak Ki", "mL/min/mL"),
    "Patlak V0": Column(_REAL, "Intercept of the Patlak fit", "mL/mL"),
    "Patlak V0 SE": Column(_REAL, "Standard error of Patlak V0", "mL/mL"),
    "R2": Column(_REAL, "Coefficient of determination of the fit"),
    "Frames Used": Column(_INT, "Frames in the fit after excluding those without blood activity"),
    "Window Start [s]": Column(_REAL, "Start of the first frame of the fit", "s"),
    "Window End [s]": Column(_REAL, "End of the last frame of the fit", "s"),
    "Weight [kg]": Column(_REAL, "Body weight", "kg"),
    "Height [m]": Column(_REAL, "Body height", "m"),
    "Sex": Column(_TEXT, "Sex", levels={"F": "female", "M": "male"}),
    "Age [years]": Column(_REAL, "Age", "years"),
    "Demographic Group [Sex,Age]": Column(_TEXT, "Sex and age group"),
    "Injected Activity [MBq]": Column(_REAL, "Activity at the time of injection", "MBq"),
    "SUV Denominator [Bq/mL]": Column(_REAL, "Dose over body weight; activity divided by it is SUV", "Bq/g"),
    "SUL Decazes Denominator [Bq/mL]": Column(_REAL, "Dose over lean body mass from the CT's fat", "Bq/g"),
    "SUL Janma Denominator [Bq/mL]": Column(_REAL, "Dose over lean body mass by Janmahasatian", "Bq/g"),
    "SUL James Denominator [Bq/mL]": Column(_REAL, "Dose over lean body mass by James", "Bq/g"),
    "Missing": Column(_TEXT, "Parts of the study without a result, and steps that failed in the last run"),
    "hedypet Version": Column(_TEXT, "Version of hedypet that made the results"),
    "Split": Column(_TEXT, "Splits of the study that the participant belongs to, as given by the user"),
    "Quantity": Column(_TEXT, "What is summarised"),
    "Sex Group": Column(_TEXT, "Sex, or all", levels={"F": "female", "M": "male", "all": "all"}),
    "Age Group": Column(_TEXT, "Age group in years, or all"),
    "Participants": Column(_INT, f"Number with a value of this region, of all {_FIRST_SCANS}"),
    "Mean": Column(_REAL, f"Mean over {_FIRST_SCANS}", _QUANTITY_UNITS),
    "SD": Column(_REAL, "Sample standard deviation over the same", _QUANTITY_UNITS),
    "Minimum": Column(_REAL, "Smallest value", _QUANTITY_UNITS),
    "5 %": Column(_REAL, "5 % quantile (linear interpolation)", _QUANTITY_UNITS),
    "25 %": Column(_REAL, "25 % quantile", _QUANTITY_UNITS),
    "Median": Column(_REAL, f"Median over {_FIRST_SCANS}", _QUANTITY_UNITS),
    "75 %": Column(_REAL, "75 % quantile", _QUANTITY_UNITS),
    "95 %": Column(_REAL, "95 % quantile", _QUANTITY_UNITS),
    "Maximum": Column(_REAL, "Largest value", _QUANTITY_UNITS),
    "Value": Column(_REAL, "Value of the scan", _QUANTITY_UNITS),
    "MAD": Column(_REAL, "Median absolute deviation from the median, times 1.4826", _QUANTITY_UNITS),
    "Robust z": Column(_REAL, "Value minus Median, over MAD"),
    "Model": Column(_TEXT, "Kinetic model"),
    "Parameter": Column(_TEXT, "Parameter of the kinetic model"),
    "SE": Column(_REAL, "Standard error of Value, in the same units"),
    "Units": Column(_TEXT, "Units of Value"),
    "Session": Column(_TEXT, "Session of the scan"),
    "Tracer": Column(_TEXT, "Tracer of the scan, as its file names have it"),
    "Run": Column(_TEXT, "Run of the scan"),
    "Reconstruction": Column(
        _TEXT,
        "Reconstruction of the PET that the values are from; in metadata that which stands for the scan",
    ),
    "Framing": Column(
        _TEXT,
        "Frame durations, as 4x60,3x120 s; a gap between frames as gap60. Of a static image its length. "
        "Empty where it is not known",
    ),
    "Sessions": Column(_INT, "Scans of these participants, each in a session of its own"),
    "Within-Subject SD": Column(
        _REAL,
        "Square root of the mean square within participants (one-way analysis of variance)",
        _QUANTITY_UNITS,
    ),
    "Repeatability Coefficient": Column(
        _REAL,
        "1.96 times the square root of 2 times Within-Subject SD: two scans of a participant differ by less "
        "in 95 % of pairs",
        _QUANTITY_UNITS,
    ),
    "ICC(2,1)": Column(
        _REAL,
        "Intraclass correlation: two-way random effects, absolute agreement, single measurement (Shrout and "
        "Fleiss 1979; ICC(A,1) of McGraw and Wong 1996), over the first sessions that every participant has",
    ),
    "ICC(2,1) Low": Column(_REAL, "Lower end of its 95 % interval (McGraw and Wong 1996)"),
    "ICC(2,1) High": Column(_REAL, "Upper end of its 95 % interval"),
    "Bias": Column(_REAL, "Mean over participants of the last session minus the first", _QUANTITY_UNITS),
    "Bias SE": Column(_REAL, "Standard error of Bias", _QUANTITY_UNITS),
    "Mean Change [%]": Column(_REAL, "Mean over participants of Change [%]", "%"),
    "Reason": Column(_TEXT, "Why a value is not given"),
    "First Session": Column(_TEXT, "The earlier session that is compared, in the order of their names"),
    "Last Session": Column(_TEXT, "The later session"),
    "First Value": Column(_REAL, "Value in the first session", _QUANTITY_UNITS),
    "Last Value": Column(_REAL, "Value in the last session", _QUANTITY_UNITS),
    "Change [%]": Column(_REAL, "Last session minus first, over the first", "%"),
}

_SCAN = ("Session", "Tracer", "Run", "Reconstruction")
_REGION = ("Subject", "Task", "Label Index", "Label Name", "Erosion Iterations")
_CURVE = (
    *_REGION,
    "Frame Index",
    "Frame Time Middle [s]",
    "PET Mean [Bq/mL]",
    "PET STD [Bq/mL]",
    "Voxel Count",
    "Volume [mL]",
    "Frame Start [s]",
    "Frame End [s]",
    *_SCAN,
)

TABLES: Mapping[str, tuple[str, ...]] = {
    "metadata": (
        "Subject",
        "Weight [kg]",
        "Demographic Group [Sex,Age]",
        "Injected Activity [MBq]",
        "SUV Denominator [Bq/mL]",
        "SUL Decazes Denominator [Bq/mL]",
        "SUL Janma Denominator [Bq/mL]",
        "SUL James Denominator [Bq/mL]",
        "Height [m]",
        "Sex",
        "Age [years]",
        "Missing",
        "hedypet Version",
        "Split",
        *_SCAN,
    ),
    "means": (
        *_REGION,
        "PET Mean [Bq/mL]",
        "PET STD [Bq/mL]",
        "Voxel Count",
        "Volume [mL]",
        "Valid Voxel Count",
        *_SCAN,
    ),
    "tacs": _CURVE,
    "input_function_tacs": _CURVE,
    "patlak_ki": (
        *_REGION,
        "Input Function Identifier",
        "Regression Frames",
        "Patlak Ki",
        "Voxel Count",
        "Volume [mL]",
        "Patlak Ki SE",
        "Patlak V0",
        "Patlak V0 SE",
        "R2",
        "Frames Used",
        "Window Start [s]",
        "Window End [s]",
        *_SCAN,
    ),
    "kinetics": (
        *_REGION,
        "Model",
        "Input Function Identifier",
        "Parameter",
        "Value",
        "SE",
        "Units",
        "Reason",
        "Voxel Count",
        "Volume [mL]",
        *_SCAN,
    ),
    "statistics": (
        *_REGION[1:],
        "Quantity",
        "Sex Group",
        "Age Group",
        "Participants",
        "Mean",
        "SD",
        "Minimum",
        "5 %",
        "25 %",
        "Median",
        "75 %",
        "95 %",
        "Maximum",
        "Tracer",
        "Reconstruction",
    ),
    "outliers": (*_REGION, "Quantity", "Value", "Median", "MAD", "Robust z", *_SCAN),
    "repeatability": (
        *_REGION[1:],
        "Quantity",
        "Participants",
        "Sessions",
        "Mean",
        "Within-Subject SD",
        "Repeatability Coefficient",
        "ICC(2,1)",
        "ICC(2,1) Low",
        "ICC(2,1) High",
        "Bias",
        "Bias SE",
        "Mean Change [%]",
        "Reason",
        "Tracer",
        "Reconstruction",
        "Framing",
    ),
    "repeatability_changes": (
        *_REGION,
        "Quantity",
        "First Session",
        "Last Session",
        "First Value",
        "Last Value",
        "Change [%]",
        "Tracer",
        "Reconstruction",
        "Framing",
    ),
}

PARTICIPANT_TABLES = ("means", "tacs", "input_function_tacs", "patlak_ki", "kinetics")
"""Tables that hold rows of each participant's own results."""

REPEATABILITY_TABLES = ("repeatability", "repeatability_changes")
"""Tables that compare the sessions of each participant."""

# Names that mean something else in one table than in the others.
_OF_ONE_TABLE = {
    ("kinetics", "Value"): Column(_REAL, "Estimate", "those of the column Units"),
    ("repeatability", "Participants"): Column(
        _INT, "Participants with a value of this region in two or more sessions"
    ),
    ("repeatability", "Mean"): Column(_REAL, "Mean over all scans of these participants", _QUANTITY_UNITS),
}


def column_of(table: str, name: str) -> Column:
    """A column of a table, with the levels that the kinetic models give it.

    Examples
    --------
    >>> column_of("kinetics", "Model").levels["Patlak"]
    "Patlak's model"
    """
    # Imported here: the models take a second, which readers of tables need not wait for.
    from hedypet_bids.kernels.kinetics import known_models

    column = _OF_ONE_TABLE.get((table, name), COLUMNS[name])
    models = known_models().values()
    if name == "Model":
        return replace(column, levels={model.name: model.title for model in models})
    if name == "Parameter":
        meanings: dict[str, list[str]] = {}
        for model in models:
            for parameter in model.parameters:
                meanings.setdefault(parameter.name, []).append(f"{parameter.description} ({model.title})")
        return replace(column, levels={name: "; ".join(found) for name, found in meanings.items()})
    if name == "Quantity":
        kinetic = {
            kinetic_quantity(model.name, parameter.name): f"{parameter.description} ({model.title})"
            for model in models
            for parameter in (model.parameters if table in REPEATABILITY_TABLES else model.parameters[:1])
        }
        volume = {"Volume": "volume of the region"} if table in REPEATABILITY_TABLES else {}
        return replace(column, levels={**_UPTAKES, **kinetic, **volume})
    return column


def kinetic_quantity(model: str, parameter: str) -> str:
    """How the column Quantity names a kinetic parameter: ``Patlak Ki``."""
    return f"{model} {parameter}"
