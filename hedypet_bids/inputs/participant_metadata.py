"""Weight, height, sex, age and blood glucose of a participant, in the names and units that datasets use."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hedypet_bids.errors import shown
from hedypet_bids.kernels.lean_mass import HEIGHT_RANGE_M, WEIGHT_RANGE_KG
from hedypet_bids.model import Person, Sex

# BIDS prescribes no names for weight and height; DICOM's come with sidecars made by dcm2niix.
_WEIGHT_NAMES = ("weight", "bodyweight", "weightkg", "bodyweightkg", "patientweight")
_HEIGHT_NAMES = (
    "height",
    "bodyheight",
    "heightm",
    "heightcm",
    "bodyheightcm",
    "patientsize",
    "patientheight",
)
_SEX_NAMES = ("sex", "patientsex", "gender")
_AGE_NAMES = ("age", "patientage")
_GROUP_NAMES = ("demographicgroup",)
_GLUCOSE_NAMES = ("bloodglucose",)

_KG = {"kg": 1.0, "kilogram": 1.0, "kilograms": 1.0, "g": 1e-3, "lb": 0.45359237, "lbs": 0.45359237}
_M = {"m": 1.0, "meter": 1.0, "metre": 1.0, "meters": 1.0, "metres": 1.0, "cm": 0.01, "mm": 1e-3}
_MMOL_L = {"mmol/l": 1.0, "mg/dl": 0.0555}
# What people have who can be scanned; a value outside is in other units.
_GLUCOSE_RANGE_MMOL_L = (1.0, 40.0)
# The units are part of these names, or fixed by DICOM (0010,1030) and (0010,1020).
_UNITS_OF_NAME = {
    "weightkg": "kg",
    "bodyweightkg": "kg",
    "patientweight": "kg",
    "heightm": "m",
    "heightcm": "cm",
    "bodyheightcm": "cm",
    "patientsize": "m",
}
# Nobody is 3 m tall, and no one whose height is given in cm is as small as 3 cm.
_TALLEST_M = 3.0

_SEXES: Mapping[str, Sex] = {"m": "M", "male": "M", "f": "F", "female": "F"}
_YEARS = {"Y": 1.0, "M": 1.0 / 12.0, "W": 7.0 / 365.25, "D": 1.0 / 365.25}
_SAME = 0.005


@dataclass(frozen=True)
class _Place:
    """A table row or sidecar: its name for messages, its cells, and what its JSON says on columns."""

    name: str
    cells: Mapping[str, Any]
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Cell:
    """What one place says on one question: as text, and the value made of it (None: unreadable)."""

    place: str
    text: str
    value: Any
    note: str = ""


BMI_RANGE = (10.0, 80.0)
"""Body mass index, kg/m2, of people; beyond it height and weight are swapped or in other units."""


def read_participant(
    label: str,
    row: Mapping[str, Any],
    *,
    columns: Mapping[str, Any] | None = None,
    session: Mapping[str, Any] | None = None,
    session_columns: Mapping[str, Any] | None = None,
    sidecar: Mapping[str, Any] | None = None,
) -> Person:
    """The participant's metadata from all that the dataset says.

    What is nearest to the scan wins: the row of the session, then the row of the
    participant, then the PET sidecar. Contradictions are noted.

    Parameters
    ----------
    row, session
        Rows of ``participants.tsv`` and of ``sub-<label>_sessions.tsv``; empty or None
        when there is none.
    columns, session_columns
        Contents of ``participants.json`` and of the sessions' JSON file.
    sidecar
        Content of the PET image's sidecar.
    """
    places = (
        _Place("sessions.tsv", session or {}, session_columns or columns or {}),
        _Place("participants.tsv", row, columns or {}),
        _Place("the PET sidecar", sidecar or {}),
    )
    notes: list[str] = []
    sex = _answer("sex", _cells(places, _SEX_NAMES, _sex), notes)
    weight_kg = _answer("weight", _cells(places, _WEIGHT_NAMES, _weight), notes)
    height_m = _answer("height", _cells(places, _HEIGHT_NAMES, _height), notes)
    odd = _odd_build(weight_kg, height_m)
    if odd:
        notes.append(odd)
        weight_kg = height_m = None
    return Person(
        label=label,
        sex=sex,
        weight_kg=weight_kg,
        height_m=height_m,
        age=_answer("age", _cells(places, _AGE_NAMES, _age), notes),
        demographic_group=_answer("demographic group", _cells(places, _GROUP_NAMES, _text), notes),
        glucose_mmol_l=_answer("blood glucose", _cells(places[:2], _GLUCOSE_NAMES, _glucose), notes),
        notes=tuple(notes),
    )


def as_number(value: object) -> float:
    """A finite number from JSON or a table cell; NaN for anything else, ``n/a`` included."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return found if math.isfinite(found) else math.nan


def _odd_build(weight_kg: float | None, height_m: float | None) -> str:
    """Why height and weight, each possible alone, are not those of one person; empty where they may be."""
    if not (_within(weight_kg, WEIGHT_RANGE_KG) and _within(height_m, HEIGHT_RANGE_M)):
        return ""
    assert weight_kg is not None
    assert height_m is not None
    bmi = weight_kg / height_m**2
    if _within(bmi, BMI_RANGE):
        return ""
    return (
        f"a weight of {weight_kg:g} kg and a height of {height_m:g} m make a BMI of {bmi:.0f}; expected "
        f"{BMI_RANGE[0]:g} to {BMI_RANGE[1]:g}, so neither is used. Are they swapped, in inches or in pounds?"
    )


def _within(value: float | None, limits: tuple[float, float]) -> bool:
    return value is not None and limits[0] <= value <= limits[1]


_Parser = Callable[[str, str, Any], tuple[Any, str]]
"""(text, name of the column, its JSON entry) -> (value or None, note)."""


def _cells(places: Sequence[_Place], names: Sequence[str], parse: _Parser) -> Iterator[_Cell]:
    """Every answer to one question, best place first."""
    for place in places:
        plain = {re.sub(r"[^a-z0-9]", "", column.lower()): column for column in place.cells if column}
        for name in names:
            column = plain.get(name)
            text = "" if column is None else str(place.cells[column] or "").strip()
            if column is None or text.lower() in ("", "n/a", "na", "nan", "none"):
                continue
            entry = place.columns.get(column)
            value, note = parse(text, name, entry if isinstance(entry, Mapping) else {})
            yield _Cell(place.name, text, value, note)


def _answer(question: str, cells: Iterator[_Cell], notes: list[str]) -> Any:
    """The first readable answer; what is wrong with any of them goes to the notes."""
    best: _Cell | None = None
    for cell in cells:
        if cell.value is None:
            notes.append(f"{question} in {cell.place} is {shown(cell.text)}: {cell.note or 'not understood'}")
        elif best is None:
            best = cell
            notes += [f"{question} in {cell.place} is {shown(cell.text)}: {cell.note}"] if cell.note else []
        elif not _same(best.value, cell.value):
            notes.append(
                f"{question} is {shown(best.text)} in {best.place} but {shown(cell.text)} in {cell.place}; "
                f"that in {best.place} is used"
            )
    return None if best is None else best.value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=_SAME)
    return bool(a == b)


def _weight(text: str, name: str, entry: Any) -> tuple[float | None, str]:
    return _quantity(text, _KG, _units(name, entry) or "kg")


def _height(text: str, name: str, entry: Any) -> tuple[float | None, str]:
    units = _units(name, entry)
    if units:
        return _quantity(text, _M, units)
    if as_number(text) > _TALLEST_M:
        value, note = _quantity(text, _M, "cm")
        return value, note or "no units are given; taken as cm"
    return _quantity(text, _M, "m")


def _glucose(text: str, _name: str, entry: Any) -> tuple[float | None, str]:
    units = str(entry.get("Units") or "").strip().lower()
    if not units:
        return None, "its units are not given; expected Units mmol/L or mg/dL in the JSON file of the table"
    value, note = _quantity(text, _MMOL_L, units)
    if value is not None and not _within(value, _GLUCOSE_RANGE_MMOL_L):
        low, high = _GLUCOSE_RANGE_MMOL_L
        return None, f"{value:.3g} mmol/L; expected {low:g} to {high:g} mmol/L. Are the units right?"
    return value, note


def _units(name: str, entry: Any) -> str:
    return _UNITS_OF_NAME.get(name) or str(entry.get("Units") or "").strip().lower()


def _quantity(text: str, factors: Mapping[str, float], units: str) -> tuple[float | None, str]:
    value = as_number(text)
    if math.isnan(value):
        return None, "not a number"
    if units not in factors:
        return None, f"its units {shown(units)} are unknown; expected one of {', '.join(factors)}"
    return value * factors[units], ""


def _sex(text: str, _name: str, entry: Any) -> tuple[Sex | None, str]:
    levels = entry.get("Levels")
    meaning = levels.get(text) if isinstance(levels, Mapping) else None
    if isinstance(meaning, Mapping):
        meaning = meaning.get("Description")
    for candidate in (meaning, text):
        sex = _SEXES.get(str(candidate).strip().lower())
        if sex:
            return sex, ""
    return None, "expected M, F, male or female"


def _age(text: str, _name: str, _entry: Any) -> tuple[float | None, str]:
    dicom = re.fullmatch(r"(\d{1,3})([YMWD])", text)
    if dicom:
        return float(dicom[1]) * _YEARS[dicom[2]], ""
    if text.endswith("+") and not math.isnan(as_number(text[:-1])):
        return None, "a lower limit, so the age itself is unknown"
    value = as_number(text)
    return (None, "not a number") if math.isnan(value) else (value, "")


def _text(text: str, _name: str, _entry: Any) -> tuple[str, str]:
    return text, ""
