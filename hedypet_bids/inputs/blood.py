"""Blood samples of the raw dataset: ``*_recording-<label>_blood.tsv``, in hedypet's units.

BIDS gives their times in s from TimeZero; here they are in s from injection, and activity is in Bq/mL,
decay-corrected to injection.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, shown
from hedypet_bids.inputs.index import check_named_after_folder
from hedypet_bids.inputs.participant_metadata import as_number
from hedypet_bids.inputs.text_files import read_json, read_tsv, sidecars_of
from hedypet_bids.io.presence import is_there
from hedypet_bids.model import BloodRecording, PetMetadata
from hedypet_bids.names import ScanName, Source

_TIME, _PLASMA, _BLOOD, _PARENT = (
    "time",
    "plasma_radioactivity",
    "whole_blood_radioactivity",
    "metabolite_parent_fraction",
)
_QUANTITIES = {_PLASMA: "plasma", _BLOOD: "whole_blood", _PARENT: "parent_fraction"}
# Which key of a sidecar promises which column.
_PROMISED = {"PlasmaAvail": _PLASMA, "WholeBloodAvail": _BLOOD, "MetaboliteAvail": _PARENT}
_MISSING = ("", "n/a")
_CARRIED = ("MetaboliteMethod", "MetaboliteRecoveryCorrectionApplied", "DispersionCorrected")

_PREFIX = {
    "": 1.0,
    "n": 1e-9,
    "u": 1e-6,
    "\u00b5": 1e-6,
    "\u03bc": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
}
_VOLUME_ML = {"ml": 1.0, "cc": 1.0, "cm3": 1.0, "cm^3": 1.0, "dl": 100.0, "l": 1000.0}
_CONCENTRATION = re.compile(
    r"(?P<prefix>[nu\u00b5\u03bcmkMG]?)(?P<unit>Bq|Ci)\s*(?:/|\s)\s*(?P<volume>[mMd]?[lL]|cc|cm\^?3)"
)
# Fewer show no curve.
_FEWEST_SAMPLES = 3
_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "min": 60.0, "minute": 60.0, "minutes": 60.0}
_BQ_PER_CI = 3.7e10
# More than rounding above 1, as of fractions in percent.
_MOST_PARENT = 1.05


def blood_of(
    root: Path, label: str, pet: Source, scans: Sequence[ScanName], metadata: PetMetadata
) -> tuple[BloodRecording, ...]:
    """The blood samples of a dynamic PET.

    Those of its folder and above whose names say nothing else than its own, but for the recording.

    Parameters
    ----------
    root
        The dataset.
    label
        Of the participant.
    scans
        All of the participant.
    metadata
        Of the PET.

    Raises
    ------
    BadDataError
        A file cannot be right, does not say of which scan it is, or none has blood at all.
    """
    found: dict[str, BloodRecording] = {}
    sidecars = []
    for path in sorted((root / f"sub-{label}").rglob("*_blood.tsv")):
        check_named_after_folder(path, label)
        told = names.entities_of(path.name)
        recording = told.pop("recording", "")
        if not told.items() <= names.entities_of(pet.path.name).items():
            continue
        own = ScanName.of(pet)
        others = [s for s in scans if s != own and s.could_name(path.name) and _same_session(s, own, told)]
        if others:
            raise BadDataError(
                f"{path} may be of {own.title} or of {names.listed(scan.title for scan in others)}. Put what "
                "tells them apart (trc-, run-) into its name."
            )
        if recording in found:
            raise BadDataError(
                f"{found[recording].path} and {path} are both recording-{recording} of {own.title}; expected "
                "one. Remove the other, or put what tells them apart into their names."
            )
        sidecars.append(_sidecar(path, root))
        found[recording] = _recording(path, sidecars[-1], recording, metadata)
    _check_promises(found, sidecars)
    n_samples = [
        sum(int(np.isfinite(getattr(r, quantity)).sum()) for r in found.values())
        for quantity in (_QUANTITIES[_BLOOD], _QUANTITIES[_PLASMA])
    ]
    if found and max(n_samples) < _FEWEST_SAMPLES:
        raise BadDataError(
            f"{next(iter(found.values())).path} and what belongs to it hold {n_samples[0]} samples of "
            f"{_BLOOD} and {n_samples[1]} of {_PLASMA}; expected {_FEWEST_SAMPLES} or more of one, or "
            "no such file."
        )
    return tuple(found.values())


def _same_session(scan: ScanName, own: ScanName, told: Mapping[str, str]) -> bool:
    return scan.session == own.session or "ses" not in told


def _sidecar(path: Path, root: Path) -> dict[str, Any]:
    """The sidecar of a recording, with what it inherits."""
    content: dict[str, Any] = {}
    for found in sidecars_of(Source(path, root, {}, "blood", "pet")):
        content |= read_json(found)
    return content


def _recording(path: Path, sidecar: Mapping[str, Any], label: str, metadata: PetMetadata) -> BloodRecording:
    columns = _columns(path)
    time_s = columns[_TIME] * _seconds(path, sidecar) - metadata.injection_start_s
    factor = _decay_factor(path, sidecar, time_s, metadata)
    nothing = np.full(len(time_s), math.nan)
    values = {
        name: columns[name] * _to_bq_ml(path, sidecar, name) * factor if name in columns else nothing
        for name in (_BLOOD, _PLASMA)
    }
    values[_PARENT] = columns.get(_PARENT, nothing)
    _check_values(path, values)
    notes: list[str] = []
    known = np.isfinite(list(values.values())).any(axis=0)
    order = np.argsort(time_s[known], kind="stable")
    time_s = time_s[known][order]
    values = {name: column[known][order] for name, column in values.items()}
    if (np.diff(order) < 0).any():
        notes.append(f"{path.name} was not in order of time; it was sorted")
    time_s, values = _without_doubles(path, time_s, values, notes)
    if _decay_stated(sidecar) is None:
        notes.append(
            f"{path.name} does not say whether its activity is decay-corrected (BloodDecayCorrected); it is "
            "taken to be corrected to the same time as the image"
        )
    if label == "autosampler" and sidecar.get("DispersionCorrected") is not True:
        notes.append(
            f"{path.name} is not corrected for dispersion in the sampler's tubing (DispersionCorrected); it "
            "is used as it is"
        )
    return BloodRecording(
        label,
        path,
        time_s,
        values[_BLOOD],
        values[_PLASMA],
        values[_PARENT],
        tuple(notes),
        {key: sidecar[key] for key in _CARRIED if key in sidecar},
    )


def _columns(path: Path) -> dict[str, NDArray[np.float64]]:
    """The columns that are known, as numbers; NaN for ``n/a``."""
    rows = [row.checked() for row in read_tsv(path)] if is_there(path) else []
    if not rows or _TIME not in rows[0]:
        found = names.listed(rows[0])[:200] if rows else "no row"
        raise BadDataError(f"{path} needs a column {_TIME} and a row a sample; found {found}.")
    columns = {}
    for name in (name for name in (_TIME, _BLOOD, _PLASMA, _PARENT) if name in rows[0]):
        numbers = np.array([as_number(row[name]) for row in rows])
        for number, row in zip(numbers, rows, strict=True):
            if math.isnan(number) and (row[name].strip() not in _MISSING or name == _TIME):
                raise BadDataError(
                    f"{path}: the column {name} holds {shown(row[name])}; expected a number"
                    f"{'' if name == _TIME else ' or n/a'}. Mend the cell."
                )
        columns[name] = numbers
    return columns


def _check_promises(recordings: Mapping[str, BloodRecording], sidecars: Iterable[Mapping[str, Any]]) -> None:
    """Raise BadDataError where the sidecars say that something was measured that no recording has."""
    for key, column in _PROMISED.items():
        promised = any(str(sidecar.get(key, "")).lower() == "true" for sidecar in sidecars)
        quantity = _QUANTITIES[column]
        if promised and not any(np.isfinite(getattr(r, quantity)).any() for r in recordings.values()):
            path = next(iter(recordings.values())).path
            raise BadDataError(
                f"The sidecar of {path} says {key}, but no recording of the scan has values of {column}. Add "
                "the column, or correct the sidecar."
            )


def _units(sidecar: Mapping[str, Any], column: str) -> Any:
    about = sidecar.get(column)
    return about.get("Units") if isinstance(about, dict) else None


def _seconds(path: Path, sidecar: Mapping[str, Any]) -> float:
    units = _units(sidecar, _TIME)
    factor = _SECONDS.get(str(units).strip().lower()) if units is not None else 1.0
    if factor is None:
        raise BadDataError(f"{path}: Units of {_TIME} must be s or min; found {shown(units)}.")
    return factor


def _to_bq_ml(path: Path, sidecar: Mapping[str, Any], column: str) -> float:
    """What a column is multiplied by to be Bq/mL."""
    units = _units(sidecar, column)
    match = _CONCENTRATION.fullmatch(str(units).strip()) if units is not None else None
    if match is None:
        found = "nothing" if units is None else shown(units)
        raise BadDataError(
            f"{path}: Units of {column} in its sidecar must be an activity in a volume, such as Bq/mL, "
            f"kBq/mL, MBq/L or nCi/mL; found {found}. Correct them."
        )
    of_unit = 1.0 if match["unit"] == "Bq" else _BQ_PER_CI
    return _PREFIX[match["prefix"]] * of_unit / _VOLUME_ML[match["volume"].lower()]


def _decay_stated(sidecar: Mapping[str, Any]) -> bool | None:
    stated = sidecar.get("BloodDecayCorrected")
    return stated if isinstance(stated, bool) else None


def _decay_factor(
    path: Path, sidecar: Mapping[str, Any], time_s: NDArray[np.float64], metadata: PetMetadata
) -> NDArray[np.float64] | float:
    """What activity is multiplied by to be decay-corrected to injection."""
    stated, half_life_s = _decay_stated(sidecar), metadata.half_life_s
    if stated is False:
        at_s: NDArray[np.float64] | float = time_s
    else:
        own_s = as_number(sidecar.get("BloodDecayCorrectionTime")) - metadata.injection_start_s
        at_s = metadata.decay_reference_s if math.isnan(own_s) else own_s
        if math.isnan(at_s):
            raise BadDataError(
                f"{path}: its image is not decay-corrected, so its sidecar must say BloodDecayCorrected: "
                "false, or true with BloodDecayCorrectionTime (s from TimeZero)."
            )
        if at_s == 0:
            return 1.0
    if math.isnan(half_life_s):
        raise BadDataError(
            f"{path}: its activity must be decay-corrected to the injection, which needs the "
            "TracerRadionuclide of the image."
        )
    return np.exp2(np.asarray(at_s) / half_life_s)


def _check_values(path: Path, values: Mapping[str, NDArray[np.float64]]) -> None:
    for name, column in values.items():
        known = column[np.isfinite(column)]
        if name == _PARENT and known.size and not (known.min() >= 0 and known.max() <= _MOST_PARENT):
            raise BadDataError(
                f"{path}: {_PARENT} must be 0 to 1; found {known.min():g} to {known.max():g}. Is it in "
                "percent?"
            )
        if name != _PARENT and known.size and not known.max() > 0:
            raise BadDataError(f"{path}: {name} is nowhere above 0; expected blood with activity.")


def _without_doubles(
    path: Path, time_s: NDArray[np.float64], values: dict[str, NDArray[np.float64]], notes: list[str]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """The samples with each time once; what stands at a time twice must be the same."""
    times, first = np.unique(time_s, return_index=True)
    if len(times) == len(time_s):
        return time_s, values
    merged = {name: column[first].copy() for name, column in values.items()}
    for at, time in enumerate(times):
        here = time_s == time
        for name, column in values.items():
            different = np.unique(column[here][np.isfinite(column[here])])
            if len(different) > 1:
                raise BadDataError(
                    f"{path}: {name} has {len(different)} values for the same time, {time:g} s after the "
                    f"injection: {names.listed(f'{value:g}' for value in different[:4])}. Keep one."
                )
            merged[name][at] = different[0] if len(different) else math.nan
    notes.append(f"{path.name} has times that stand there several times; each counts once")
    return times, merged
