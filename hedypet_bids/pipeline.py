"""The study in order: what is done to one participant, and to the group."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hedypet_bids.group.readouts import GroupTables, write_readouts
from hedypet_bids.group.splits import Splits
from hedypet_bids.report.group import write_group_page
from hedypet_bids.report.participant import DynamicFindings, Findings, StaticFindings, write_report
from hedypet_bids.settings import Settings
from hedypet_bids.steps.aorta import PlaceAortaVois
from hedypet_bids.steps.input_functions import ExtractInputFunctions
from hedypet_bids.steps.kinetics import FitPatlak, MapPatlak
from hedypet_bids.steps.means import MeasureStatic
from hedypet_bids.steps.normalise import Normalise, WriteSuv
from hedypet_bids.steps.quality import CheckQuality
from hedypet_bids.steps.register import Register
from hedypet_bids.steps.resample import Resample, Transforms
from hedypet_bids.steps.segment import SEGMENTATION_ORDER, segment
from hedypet_bids.steps.static import AverageFrames
from hedypet_bids.steps.step import Subject
from hedypet_bids.steps.tacs import MeasureCurves

if TYPE_CHECKING:
    from hedypet_bids.run.schedule import StepRunner


def run_participant(subject: Subject, study: StepRunner) -> None:
    """One participant from images to kinetics and report."""
    labels: dict[str, Path] = {}
    for task in SEGMENTATION_ORDER:
        labels |= study.do(segment(subject, task, labels))

    total = labels.get("total")
    head, body = study.side_by_side(
        lambda part: part.do(Register(subject, "head", total)),
        lambda part: part.do(Register(subject, "body", total)),
    )
    transforms = Transforms(head, body)

    if subject.inputs.dynamic and not subject.inputs.static:
        subject = study.do(AverageFrames(subject))
    static, dynamic, head_space = study.side_by_side(
        partial(measure_static, subject, labels, transforms),
        partial(measure_dynamic, subject, labels, transforms),
        lambda part: part.do(Resample(subject, "head", labels, transforms)),
    )
    curves = dynamic.curves
    quality = study.do(CheckQuality(subject, static.means, curves.paths, curves.frame_quality, labels))

    if not study.dry and study.wants("report"):
        write_report(subject, study.records, Findings(static, dynamic, head_space, quality))


def measure_static(
    subject: Subject, labels: Mapping[str, Path], transforms: Transforms, study: StepRunner
) -> StaticFindings:
    """Images in the static PET's space, constants of SUV and SUL, and the mean of every region."""
    space = study.do(Resample(subject, "bodystat", labels, transforms))
    constants = study.do(Normalise(subject, labels))
    if subject.settings.normalise.write_suv:
        study.do(WriteSuv(subject, constants))
    means = study.do(MeasureStatic(subject, space.labels))
    return StaticFindings(space, constants, means)


def measure_dynamic(
    subject: Subject, labels: Mapping[str, Path], transforms: Transforms, study: StepRunner
) -> DynamicFindings:
    """The aorta's volumes, the curve of every region, input functions, and Patlak's Ki and V0."""
    space = study.do(Resample(subject, "bodydyn", labels, transforms))
    aorta = study.do(PlaceAortaVois(subject, space.labels))
    curves = study.do(MeasureCurves(subject, space.labels, aorta))
    blood = study.do(ExtractInputFunctions(subject, aorta, curves))
    kinetics, maps = study.side_by_side(
        lambda part: part.do(FitPatlak(subject, curves, blood)),
        lambda part: part.do(MapPatlak(subject, blood)),
    )
    return DynamicFindings(aorta, curves, blood, kinetics, maps)


def run_group(
    output: Path, settings: Settings, *, splits: Splits | None = None, nprocs: int | None = None
) -> GroupTables:
    """The readout tables and the group page, from the outputs of the participants."""
    tables = write_readouts(output, settings, splits=splits, nprocs=nprocs)
    write_group_page(output, tables, settings.kinetics)
    return tables
