"""Input functions as tables: the curves of the volumes of interest, and blood that was sampled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedypet_bids import names
from hedypet_bids.io.manifest import Kind
from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.io.store import Writer
from hedypet_bids.io.tables import read_curves, read_table
from hedypet_bids.kernels.aorta import (
    HEDYPET_RANGES,
    late_max_over_min,
    leading_edge_delays_s,
    unordered,
    unusual,
)
from hedypet_bids.kernels.kinetics.blood_samples import ContinuousBlood, continuous_blood
from hedypet_bids.kernels.kinetics.input_curve import InputCurve
from hedypet_bids.labels import HEART_VOI_TASK, INPUT_TASKS, VOI_TASKS, Task
from hedypet_bids.model import BloodRecording, FrameTimes, InputFunction, Scan
from hedypet_bids.settings import KineticsSettings, digest
from hedypet_bids.steps.aorta import PlaceAortaVois
from hedypet_bids.steps.step import Plan, Skip, Step
from hedypet_bids.steps.tacs import MeasureCurves


@dataclass(eq=False)
class ExtractInputFunctions(Step):
    """Two tables an input function: the blood of each frame, and the continuous curve.

    There is one per volume of interest and segment, n/a where the segment has no voxel, and one of the blood
    samples where the dataset has some.
    """

    scan: Scan
    aorta: PlaceAortaVois
    curves: MeasureCurves

    @property
    def name(self) -> str:
        """``input_functions``."""
        return "input_functions"

    @property
    def tables(self) -> dict[str, Path]:
        """Blood tables of aorta and samples by recording label (``aortavoi1ml3pxdescendingupper``)."""
        others = self.tables_of(HEART_VOI_TASK.name)
        return {name: path for name, path in self.outputs.of("blood").items() if name not in others}

    def tables_of(self, task_name: str) -> dict[str, Path]:
        """Blood tables of one kind of volume by recording label; those of aorta and samples when empty."""
        if not task_name:
            return self.tables
        tasks = [task for task in INPUT_TASKS if task.name == task_name]
        wanted = {names.recording(task.name, part) for task in tasks for part in task.table.names}
        return {name: path for name, path in self.outputs.of("blood").items() if name in wanted}

    def why_none_of(self, task_name: str) -> str:
        """Why there is no input function of one kind of volume; empty where there is one."""
        if self.tables_of(task_name):
            return ""
        of_heart = task_name == HEART_VOI_TASK.name
        return (self.aorta.why_no_right_heart if of_heart else "") or "there is no input function"

    def plan(self) -> Plan | Skip:
        """Write the curves of the volumes of interest as blood tables."""
        dynamic, curves = self.scan.dynamic, self.curves.outputs
        if dynamic is None:
            return Skip("no dynamic PET was found")
        why_not = "" if self.aorta.vois else "there is no volume of interest in the aorta"
        why_not = why_not or ("" if curves.files else "there are no time-activity curves")
        if why_not and not self.scan.blood:
            return Skip(why_not)
        tables = [
            path
            for kind in ("mean", "std", "volumes")
            for task in self._tasks()
            if (path := curves.get(kind, task.name, 0))
        ]
        recordings = [names.recording(task.name, part) for task in self._tasks() for part in task.table.names]
        makes: dict[Kind, Path] = {}
        for recording in recordings:
            makes["blood", recording] = self.context.store.path(names.blood(dynamic, recording))
            makes["continuous_input", recording] = self.context.store.path(
                names.continuous_input(dynamic, recording)
            )
        if self.scan.blood:
            makes["blood", names.MEASURED] = self.context.store.path(names.measured_blood(dynamic))
            makes["continuous_input", names.MEASURED] = self.context.store.path(
                names.continuous_input(dynamic, names.MEASURED)
            )
        kinetics = self.context.settings.kinetics
        return Plan(
            reads=[
                *tables,
                *(self.aorta.labels[task.name] for task in self._tasks()),
                *(recording.path for recording in self.scan.blood),
            ],
            makes=makes,
            settings={
                **self.scan.metadata(dynamic).time_origin,
                "plasma_to_blood": kinetics.plasma_to_blood,
                "parent_fraction": kinetics.parent_fraction,
                **self._about_samples(),
            },
            missing={"image-derived input functions": why_not} if why_not else {},
        )

    def run(self, _plan: Plan, writer: Writer) -> None:
        """Write the curve of each segment of each volume of interest."""
        dynamic = self.scan.dynamic
        assert dynamic is not None
        metadata, kinetics = self.scan.metadata(dynamic), self.context.settings.kinetics
        if self.scan.blood:
            self._write_measured(writer)
        for task in self._tasks():
            measured = self._measured(task)
            voi = read_sidecar(self.aorta.labels[task.name])
            quality = curve_quality([f.mean for f in measured], measured[0].frames)
            for segment, found in zip(task.table.names, measured, strict=True):
                reason = _why_without_values(found, segment)
                about = {
                    **metadata.time_origin,
                    "VolumeOfInterest": task.name,
                    "Segment": segment,
                    "Identifier": names.input_function_identifier(task.readout_name, segment),
                    "Reason": reason,
                }
                measured_table = writer.table(
                    names.blood(dynamic, found.name),
                    blood_table(found, metadata.injection_start_s),
                    sources=[dynamic.path, self.aorta.labels[task.name]],
                    **_BLOOD_COLUMNS,
                    **about,
                    VolumeOfInterestChecksum=voi.get("Checksum"),
                    Method=voi.get("Method"),
                    Quality=quality,
                )
                writer.table(
                    names.continuous_input(dynamic, found.name),
                    continuous_table(found, metadata.injection_start_s, kinetics),
                    sources=[measured_table],
                    **_CONTINUOUS_COLUMNS,
                    **about,
                    **_plasma_of(kinetics),
                )

    def _about_samples(self) -> dict[str, Any]:
        """What the curve through blood samples depends on besides their files: sidecars, and the frames."""
        dynamic = self.scan.dynamic
        if dynamic is None or not self.scan.blood:
            return {}
        frames = self.scan.metadata(dynamic).frames
        return {
            "frames": [frames.start_s.tolist(), frames.duration_s.tolist()],
            "samples": digest(
                *(
                    [r.label, *(a.tolist() for a in (r.time_s, r.whole_blood, r.plasma, r.parent_fraction))]
                    for r in self.scan.blood
                )
            ),
        }

    def _write_measured(self, writer: Writer) -> None:
        """Write the input function of the blood samples."""
        dynamic, kinetics = self.scan.dynamic, self.context.settings.kinetics
        assert dynamic is not None
        metadata = self.scan.metadata(dynamic)
        found = continuous_blood(
            self.scan.blood,
            metadata.frames,
            plasma_to_blood=kinetics.plasma_to_blood,
            parent_fraction=kinetics.parent_fraction,
        )
        about = {
            **metadata.time_origin,
            "Identifier": names.MEASURED,
            "Recordings": [recording.label for recording in self.scan.blood],
            "Assumed": list(found.assumed),
            "Notes": [note for recording in self.scan.blood for note in recording.notes],
        }
        sources = [recording.path for recording in self.scan.blood]
        writer.table(
            names.measured_blood(dynamic),
            measured_table(found, metadata.frames, metadata.injection_start_s),
            sources=sources,
            **_MEASURED_COLUMNS,
            **about,
            **_measured_how(self.scan.blood),
            Flags=list(found.flags),
        )
        writer.table(
            names.continuous_input(dynamic, names.MEASURED),
            pd.DataFrame(
                {
                    "time": found.time_s + metadata.injection_start_s,
                    "whole_blood_radioactivity": found.whole_blood,
                    "plasma_radioactivity": found.plasma,
                    "metabolite_parent_fraction": found.parent_fraction,
                    "AIF": found.parent,
                }
            ),
            sources=sources,
            **_SAMPLED_COLUMNS,
            **about,
        )

    def _measured(self, task: Task) -> list[InputFunction]:
        """The curves of one kind of volume of interest, a segment each."""
        tables = {kind: self.curves.outputs.files[kind, task.name, 0] for kind in ("mean", "std", "volumes")}
        frames, mean = read_curves(tables["mean"])
        _, std = read_curves(tables["std"])
        counts = read_table(tables["volumes"])["n_voxels"]
        return [
            InputFunction(names.recording(task.name, segment), frames, mean[i], std[i], int(counts[i]))
            for i, segment in enumerate(task.table.names)
        ]

    def _tasks(self) -> list[Task]:
        heart = [] if self.aorta.why_no_right_heart else [HEART_VOI_TASK]
        return [task for task in (*VOI_TASKS, *heart) if task.name in self.aorta.labels]


# What BIDS requires of a blood table, and its columns.
_BLOOD_COLUMNS: Mapping[str, Any] = {
    "PlasmaAvail": False,
    "MetaboliteAvail": False,
    "WholeBloodAvail": True,
    "DispersionCorrected": False,
    "time": {"Description": "Middle of the frame from TimeZero", "Units": "s"},
    "whole_blood_radioactivity": {
        "Description": "Mean activity concentration in the volume of interest, decay-corrected to injection",
        "Units": "Bq/mL",
    },
    "std": {"Description": "Population standard deviation over the voxels", "Units": "Bq/mL"},
    "n_voxels": {"Description": "Voxels in the volume of interest"},
    "frame_start": {"Description": "Start of the frame from TimeZero", "Units": "s"},
    "frame_end": {"Description": "End of the frame from TimeZero", "Units": "s"},
}


# kinfitr, with which bloodstream and petfit read such tables, takes no other spelling of the unit
# (unit_convert); petfit (blooddata2inputfunction_tsv) writes the same columns and units.
_PER_ML = "Bq"
_CONTINUOUS_COLUMNS: Mapping[str, Any] = {
    "Description": "Input function between the frames: between rows it is a straight line, and its means "
    "over the frames are those of the blood table",
    "time": {"Description": "Time from TimeZero", "Units": "s"},
    "whole_blood_radioactivity": {
        "Description": "Activity in 1 mL of whole blood, decay-corrected to injection",
        "Units": _PER_ML,
    },
    "plasma_radioactivity": {
        "Description": "Activity in 1 mL of plasma: whole blood times PlasmaToBlood",
        "Units": _PER_ML,
    },
    "metabolite_parent_fraction": {
        "Description": "Part of the activity in plasma that is the tracer itself",
        "Units": "unitless",
    },
    "AIF": {
        "Description": "Activity of the tracer itself in 1 mL of plasma: plasma times parent fraction",
        "Units": _PER_ML,
    },
}
_SAMPLED_COLUMNS: Mapping[str, Any] = {
    **_CONTINUOUS_COLUMNS,
    "Description": "Input function through blood samples; between rows it is a straight line",
    "plasma_radioactivity": {"Description": "Activity in 1 mL of plasma", "Units": _PER_ML},
}
_MEASURED_COLUMNS: Mapping[str, Any] = {
    "Description": "Means over the frames of the PET of the curve through blood samples",
    "PlasmaAvail": True,
    "WholeBloodAvail": True,
    "time": {"Description": "Middle of the frame from TimeZero", "Units": "s"},
    "whole_blood_radioactivity": {
        "Description": "Mean activity of whole blood, decay-corrected to injection",
        "Units": "Bq/mL",
    },
    "plasma_radioactivity": {
        "Description": "Mean activity of plasma, decay-corrected to injection",
        "Units": "Bq/mL",
    },
    "metabolite_parent_fraction": {
        "Description": "Part of the activity in plasma that is the tracer itself: AIF over plasma",
        "Units": "unitless",
    },
    "AIF": {"Description": "Mean activity of the tracer itself in plasma", "Units": "Bq/mL"},
    "frame_start": {"Description": "Start of the frame from TimeZero", "Units": "s"},
    "frame_end": {"Description": "End of the frame from TimeZero", "Units": "s"},
}
# What stands for plasma where the settings say nothing.
_SAME_AS_BLOOD, _ALL_PARENT = 1.0, ((0.0, 1.0),)


def _measured_how(recordings: Iterable[BloodRecording]) -> dict[str, Any]:
    """What BIDS requires of a blood table, from the sidecars of the recordings."""
    found: dict[str, Any] = {"MetaboliteAvail": False, "DispersionCorrected": False}
    for recording in recordings:
        found |= recording.measured_how
        if np.isfinite(recording.parent_fraction).any():
            found["MetaboliteAvail"] = True
    if found["MetaboliteAvail"]:
        found = {"MetaboliteMethod": "n/a", "MetaboliteRecoveryCorrectionApplied": False, **found}
    return found


def measured_table(found: ContinuousBlood, frames: FrameTimes, injection_start_s: float) -> pd.DataFrame:
    """Means of sampled blood over frames as a BIDS blood table, whose times count from TimeZero."""
    shown = frames.later(injection_start_s)
    plasma, parent = found.means(found.plasma, frames), found.means(found.parent, frames)
    fraction = np.divide(parent, plasma, out=np.full(len(frames), np.nan), where=plasma > 0)
    return pd.DataFrame(
        {
            "time": shown.mid_s,
            "whole_blood_radioactivity": found.means(found.whole_blood, frames),
            "plasma_radioactivity": plasma,
            "metabolite_parent_fraction": fraction,
            "AIF": parent,
            "frame_start": shown.start_s,
            "frame_end": shown.end_s,
        }
    )


def continuous_table(
    found: InputFunction, injection_start_s: float, kinetics: KineticsSettings
) -> pd.DataFrame:
    """An input function at the corners of its continuous curve, with times from TimeZero.

    Where a frame has no value it has a row a frame, without values.
    """
    if np.isfinite(found.mean).all():
        minutes, blood = InputCurve(found.mean, found.frames).pieces[:2]
    else:
        minutes, blood = found.frames.mid_s / 60.0, np.full(len(found.frames), np.nan)
    plasma = (kinetics.plasma_to_blood or _SAME_AS_BLOOD) * blood
    at, fractions = zip(*(kinetics.parent_fraction or _ALL_PARENT), strict=True)
    parent = np.interp(minutes, at, fractions)
    return pd.DataFrame(
        {
            "time": minutes * 60.0 + injection_start_s,
            "whole_blood_radioactivity": blood,
            "plasma_radioactivity": plasma,
            "metabolite_parent_fraction": parent,
            "AIF": plasma * parent,
        }
    )


def _why_without_values(found: InputFunction, segment: str) -> str:
    """Why an input function has no value in a frame; empty where it has one in each."""
    if not found.n_voxels:
        return f"the {segment} has no voxel in the field of view"
    lacking = np.flatnonzero(~np.isfinite(found.mean))
    return f"the {segment} has no finite voxel in frame {lacking[0]}" if lacking.size else ""


def _plasma_of(kinetics: KineticsSettings) -> dict[str, Any]:
    """How plasma follows from whole blood, and what of that is assumed."""
    known = {"PlasmaToBlood": kinetics.plasma_to_blood, "ParentFraction": kinetics.parent_fraction}
    assumed = {"PlasmaToBlood": _SAME_AS_BLOOD, "ParentFraction": _ALL_PARENT}
    return {
        **{name: value or assumed[name] for name, value in known.items()},
        "Assumed": [name for name, value in known.items() if not value],
    }


def blood_table(found: InputFunction, injection_start_s: float) -> pd.DataFrame:
    """An input function as a BIDS blood table, whose times count from TimeZero."""
    frames = found.frames.later(injection_start_s)
    return pd.DataFrame(
        {
            "time": frames.mid_s,
            "whole_blood_radioactivity": found.mean,
            "std": found.std,
            "n_voxels": found.n_voxels,
            "frame_start": frames.start_s,
            "frame_end": frames.end_s,
        }
    )


def curve_quality(curves: Iterable[NDArray[np.float64]], frames: FrameTimes) -> dict[str, Any]:
    """Delays of the leading edge and late agreement of the segments, with flags outside the normal range."""
    present = {label: c for label, c in enumerate(curves, start=1) if np.isfinite(c).all()}
    if len(present) < 2:
        # A single curve has nothing to agree with.
        return {}
    delays = leading_edge_delays_s(present, frames)
    ratio = late_max_over_min(present, frames)
    measures = {"late_max_over_min": ratio, "delay_s": max(delays.values(), default=float("nan"))}
    return {
        "LeadingEdgeDelayS": delays,
        "LateMaxOverMin": ratio,
        "NormalRanges": {name: list(HEDYPET_RANGES[name]) for name in measures},
        "Flags": [*unusual(measures), *unordered(delays)],
    }
