"""Every file that hedypet writes, for the page of outputs: its name, what it holds, its columns.

Names come from ``hedypet_bids.names``. The columns of the participants' tables are listed here;
tests/system/test_documentation.py holds them to the files of a real run and to what their sidecars say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hedypet_bids import names
from hedypet_bids.names import Source

REGION_COLUMN = "<region>"
"""Stands for one column a region of the task."""


@dataclass(frozen=True)
class TableColumn:
    """What a column holds, and its unit."""

    name: str
    meaning: str
    units: str = ""


@dataclass(frozen=True)
class OutputFile:
    """A kind of file: its name with placeholders, what it holds, when it is there, and its columns.

    ``columns`` is a key of ``TABLE_KINDS``, or ``readouts`` for those of the data dictionary; ``sidecar``
    says that a JSON file of the same name lies beside it.
    """

    pattern: str
    holds: str
    when: str = ""
    columns: str = ""
    sidecar: bool = True


def _source(placeholder: str, datatype: str, suffix: str, **entities: str) -> Source:
    path = Path(f"{placeholder}_{suffix}.nii.gz")
    return Source(path, Path(), {"subject": "<L>", "session": "<S>", **entities}, suffix, datatype)


_CT = _source("<ct>", "ct", "ct")
_TOPOGRAM = _source("<topogram>", "ct", "Xray")
_STATIC = _source("<static>", "pet", "pet")
_DYNAMIC = _source("<dynamic>", "pet", "pet")
_MR = _source("<mr>", "anat", "T1w")
_FRAMES = _source("sub-<L>_ses-<S>_trc-<T>_rec-<R>", "pet", "pet", reconstruction="<R>")
_NO_PET = "there is a dynamic PET"
_STATIC_THERE = "there is a static PET"


def _in_spaces(source: Source, holds: str, when: str = "") -> list[OutputFile]:
    body = names.image_in_space(source, "bodystat").replace("bodystat", "<body>")
    return [
        OutputFile(body, f"{holds} on the grid of a PET image", when),
        OutputFile(names.image_in_space(source, "head"), f"{holds} in the head space of 1 mm", when),
    ]


def _labels(source: Source, task: str, holds: str, when: str = "") -> list[OutputFile]:
    body = names.segmentation(source, task, "bodystat").replace("bodystat", "<body>")
    files = []
    for name in (names.segmentation(source, task), body, names.segmentation(source, task, "head")):
        where = " on the grid of a PET image" if "<body>" in name else ""
        where = " in the head space" if "space-head" in name else where
        table = name.replace(".nii.gz", ".tsv")
        files.append(OutputFile(name, holds + where, when))
        files.append(OutputFile(table, "its label table", when, "labels", sidecar=False))
    return files


def _eroded(pattern: str) -> str:
    """A name for whole regions, with the part that is there for eroded ones in brackets."""
    return pattern.replace("_seg-<task>_", "_seg-<task>_[desc-eroded1_]")


FILES: Mapping[str, tuple[OutputFile, ...]] = {
    "dataset": (
        OutputFile(
            "dataset_description.json",
            "name, version, the raw dataset and the derivatives used",
            sidecar=False,
        ),
        OutputFile(
            ".bidsignore", "what the validator does not know yet (CT, curves, kinetics)", sidecar=False
        ),
        OutputFile("README", "what made this folder", sidecar=False),
        OutputFile(
            names.report("<L>"),
            "the report of a participant, with its pictures inside",
            sidecar=False,
        ),
        OutputFile(names.GROUP_REPORT, "the page of the group", "the group level was run", sidecar=False),
        OutputFile(
            names.VALIDATOR_LOG, "what the BIDS validator found", "the validator was run", sidecar=False
        ),
    ),
    "segmentations": (
        *_labels(_CT, "<ct task>", "labels of the CT"),
        *_labels(_MR, "<mr task>", "labels of the T1w image", "there is an MPRAGE"),
        OutputFile(
            names.synthseg_volumes(_MR), "volumes as SynthSeg measures them", "SynthSeg was run", "synthseg"
        ),
        OutputFile(
            names.segmentation(_CT, "<aorta task>", "bodydyn"),
            "segments of the aorta, volumes of interest",
            _NO_PET,
        ),
        OutputFile(
            names.label_table_file(_CT, "<aorta task>", "bodydyn"),
            "its label table",
            _NO_PET,
            "labels",
            sidecar=False,
        ),
    ),
    "images": (
        *_in_spaces(_CT, "the CT"),
        *_in_spaces(_TOPOGRAM, "the topogram", "there is a topogram"),
        *_in_spaces(_MR, "an MR image", "there is MR"),
        *_in_spaces(_STATIC, "the static PET", _STATIC_THERE),
        OutputFile(
            names.transform(_MR, "T1w", _CT),
            "MPRAGE to CT (`to-PET` without one), 4x4, world mm",
            "there is an MPRAGE",
        ),
        OutputFile(
            names.transform(_MR, "DIXON", _CT),
            "DIXON to CT, 4x4, world mm",
            "there is a DIXON in-phase image",
        ),
        OutputFile(names.static_mean(_FRAMES), "mean of the late frames", "there is only a dynamic PET"),
        OutputFile(names.suv_image(_STATIC), "the static PET in SUV", "`--write-suv`"),
        OutputFile(names.parametric_map(_DYNAMIC, "Ki"), "Ki of every voxel, mL/min/mL", _NO_PET),
        OutputFile(names.parametric_map(_DYNAMIC, "V0"), "intercept V0 of every voxel, mL/mL", _NO_PET),
    ),
    "tables": (
        OutputFile(names.constants(_STATIC), "SUV and SUL constants", columns="constants"),
        OutputFile(
            _eroded(names.volumes(_STATIC, "<task>", 0)),
            "means of the static PET",
            _STATIC_THERE,
            columns="means",
        ),
        OutputFile(
            _eroded(names.curves(_DYNAMIC, "<task>", 0)), "mean of every region and frame", _NO_PET, "curves"
        ),
        OutputFile(
            names.curves(_DYNAMIC, "<task>", 0, "std").replace("desc-std", "desc-std[eroded1]"),
            "standard deviation within the region",
            _NO_PET,
            "curves",
        ),
        OutputFile(
            _eroded(names.volumes(_DYNAMIC, "<task>", 0)), "volumes on the dynamic grid", _NO_PET, "volumes"
        ),
        OutputFile(names.blood(_DYNAMIC, "<voi><segment>"), "an input function", _NO_PET, "blood"),
        OutputFile(_eroded(names.kinetics(_DYNAMIC, "<task>", 0)), "Patlak fits", _NO_PET, "kinetics"),
        OutputFile(names.frame_quality(_DYNAMIC), "motion in the late frames", _NO_PET, "frames"),
        OutputFile(
            names.quality(_DYNAMIC), "quality checks with their normal ranges", _NO_PET, sidecar=False
        ),
        OutputFile(names.quality(_STATIC), "the same", "there is no dynamic PET", sidecar=False),
    ),
    "logs": (
        *(
            OutputFile(names.figure("<L>", "<picture>").replace(".svg", extension), holds, sidecar=False)
            for extension, holds in (
                (".svg", "a drawing of the report"),
                (".webp", "an image of the report"),
                (".json", "how a picture was made"),
            )
        ),
        OutputFile("logs/CITATION.md", "the methods in words, for a paper, with references", sidecar=False),
        OutputFile("logs/CITATION.bib", "the references as BibTeX", sidecar=False),
        OutputFile(
            f"{names.log_folder('<L>', '<run>')}/hedypet.log", "what happened, with times", sidecar=False
        ),
        OutputFile(
            f"{names.log_folder('<L>', '<run>')}/settings.toml", "all settings of the run", sidecar=False
        ),
        OutputFile(
            f"{names.log_folder('<L>', '<run>')}/plan.tsv",
            "what the run was going to do: step, state, reason",
            sidecar=False,
        ),
        OutputFile(
            f"{names.log_folder('<L>', '<run>')}/steps.tsv",
            "what each step did",
            columns="steps",
            sidecar=False,
        ),
        OutputFile(
            f"{names.log_folder('<L>', '<run>')}/<program>-<task>.log",
            "the words of a program",
            "it ran",
            sidecar=False,
        ),
        OutputFile(
            f"{names.log_folder('<L>', '<run>')}/crash-<step>.txt",
            "the traceback of a step",
            "it failed",
            sidecar=False,
        ),
        OutputFile(names.lock("<L>"), "holds a second run off the participant; stays empty", sidecar=False),
    ),
    "readouts": (
        OutputFile(names.readout("<readout>", ".parquet"), "the table", columns="readouts", sidecar=False),
        OutputFile(
            f"{names.readout('<readout>', '.parquet')}/Subject=sub-<L>/part-0.parquet",
            "a participant's rows",
            "the table has more than a million rows; then the name above is a folder",
            columns="readouts",
            sidecar=False,
        ),
        OutputFile(
            names.readout("<readout>", ".tsv.gz"), "the same as text", columns="readouts", sidecar=False
        ),
        OutputFile(
            names.readout("<readout>", ".json"), "description, unit and levels of every column", sidecar=False
        ),
        OutputFile("readouts/.lock", "makes a second group run wait; stays empty", sidecar=False),
    ),
}
"""Section of the page -> its files."""

_FRAME = (
    TableColumn("frame_start", "Start of the frame after injection", "s"),
    TableColumn("frame_end", "End of the frame after injection", "s"),
)
_REGION = (
    TableColumn("index", "Index of the region in the label table"),
    TableColumn("name", "Name of the region in the label table"),
)
_COUNTS = (
    TableColumn("n_voxels", "Voxels in the region"),
    TableColumn("n_valid", "Finite voxels, the smallest number over the frames"),
    TableColumn("volume", "Volume of the region", "mL"),
)


@dataclass(frozen=True)
class TableKind:
    """The columns of one kind of table, with a heading for them."""

    title: str
    columns: tuple[TableColumn, ...]


TABLE_KINDS: Mapping[str, TableKind] = {
    "labels": TableKind(
        "Label tables",
        (*_REGION, TableColumn("color", "Colour that viewers show the region in, `#rrggbb`")),
    ),
    "synthseg": TableKind(
        "SynthSeg's volumes",
        (TableColumn("name", "region"), TableColumn("volume", "Volume of the region", "mm^3")),
    ),
    "constants": TableKind(
        "Constants",
        (
            TableColumn("name", "`suv`, `sul_james`, `sul_janma` or `sul_decazes`"),
            TableColumn("value", "A PET image in Bq/mL divided by it is SUV or SUL"),
            TableColumn("units", "Unit of the value"),
            TableColumn("method", "Formula of the lean body mass"),
            TableColumn("reason", "Why there is no value, or what is odd about it"),
        ),
    ),
    "means": TableKind(
        "Static means",
        (
            *_REGION,
            TableColumn("mean", "Mean activity concentration of the region", "Bq/mL"),
            TableColumn("std", "Population standard deviation over the voxels", "Bq/mL"),
            TableColumn("n_voxels", "Voxels in the region"),
            TableColumn("n_valid", "Finite voxels in the region"),
            TableColumn("volume", "Volume of the region", "mL"),
        ),
    ),
    "curves": TableKind(
        "Curves",
        (*_FRAME, TableColumn(REGION_COLUMN, "One column a region, named as in the label table", "Bq/mL")),
    ),
    "volumes": TableKind("Volumes", (*_REGION, *_COUNTS)),
    "blood": TableKind(
        "Input functions",
        (
            TableColumn("time", "Middle of the frame after injection", "s"),
            TableColumn(
                "whole_blood_radioactivity",
                "Mean activity concentration in the volume of interest, decay-corrected to injection",
                "Bq/mL",
            ),
            TableColumn("std", "Population standard deviation over the voxels", "Bq/mL"),
            TableColumn("n_voxels", "Voxels in the volume of interest"),
            *_FRAME,
        ),
    ),
    "kinetics": TableKind(
        "Patlak fits",
        (
            *_REGION,
            TableColumn("input_function", "Recording label of the input function"),
            TableColumn(
                "last_frames", "Window: number of last frames; n/a where the window starts at a time"
            ),
            TableColumn("start_min", "Window: start after injection", "min"),
            TableColumn("Ki", "Net influx constant, slope of the fit", "mL/min/mL"),
            TableColumn("Ki_se", "Standard error of Ki", "mL/min/mL"),
            TableColumn("V0", "Intercept of the fit", "mL/mL"),
            TableColumn("V0_se", "Standard error of V0", "mL/mL"),
            TableColumn("r2", "Coefficient of determination"),
            TableColumn("n_used", "Frames in the fit"),
            TableColumn("n_excluded", "Frames of the window left out for lack of blood activity"),
            TableColumn("t_start", "Start of the first frame in the fit", "s"),
            TableColumn("t_end", "End of the last frame in the fit", "s"),
            TableColumn("rule", "Integration rule of the input function"),
            TableColumn("voi_checksum", "Checksum of the voxels that the input function comes from"),
        ),
    ),
    "frames": TableKind(
        "Frames",
        (
            TableColumn("frame", "Frame of the dynamic PET, counted from 0"),
            *_FRAME,
            TableColumn("shift_x", "Displacement of the body from the first late frame, to the right", "mm"),
            TableColumn("shift_y", "The same, to the front", "mm"),
            TableColumn("shift_z", "The same, upwards", "mm"),
            TableColumn(
                "centroid_shift", "Distance of the body's centroid from that of the first late frame", "mm"
            ),
            TableColumn("ncc", "Correlation with the first late frame inside the body"),
            TableColumn("n_negative", "Negative voxels of those looked at"),
            TableColumn("n_voxels", "Voxels looked at"),
        ),
    ),
    "steps": TableKind(
        "Steps of a run",
        (
            TableColumn("step", "Name of the step"),
            TableColumn("state", "`ran`, `done` before, `skipped` or `failed`"),
            TableColumn("seconds", "Time that it took", "s"),
            TableColumn("peak_mb", "Peak memory during the step", "MB"),
            TableColumn("reason", "Why it ran, was skipped or failed"),
        ),
    ),
}
"""Kind of table of a participant -> its columns."""
