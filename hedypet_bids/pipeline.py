"""The pipeline in order: what is done to one participant, and to the group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hedypet_bids.group.readouts import GroupTables, write_readouts
from hedypet_bids.group.splits import Splits
from hedypet_bids.kernels.kinetics import KineticModel
from hedypet_bids.labels import task
from hedypet_bids.model import Scan, Subject
from hedypet_bids.report.group import write_group_page
from hedypet_bids.settings import Settings
from hedypet_bids.steps.aorta import PlaceAortaVois
from hedypet_bids.steps.input_functions import ExtractInputFunctions
from hedypet_bids.steps.kinetics import FitModel
from hedypet_bids.steps.maps import MapModel
from hedypet_bids.steps.means import MeasureStatic
from hedypet_bids.steps.normalise import Normalise, SuvImage
from hedypet_bids.steps.quality import CheckQuality
from hedypet_bids.steps.register import Register
from hedypet_bids.steps.report import ReportParticipant, ReportScan
from hedypet_bids.steps.resample import Resample
from hedypet_bids.steps.segment import MergeParcels, Networks, SegmentBody, SegmentParcels
from hedypet_bids.steps.static import Static
from hedypet_bids.steps.step import StepT
from hedypet_bids.steps.tacs import MeasureCurves


class Do(Protocol):
    """Has a step done when those that it builds on are settled."""

    def __call__(self, step: StepT) -> StepT:
        """The step; where scans share it, the one that stands for both."""


def process_participant(subject: Subject, models: tuple[KineticModel, ...], do: Do) -> None:
    """Every scan of a participant; what scans share of the anatomy is done once."""
    reports = [process_scan(scan, models, do) for scan in subject.scans]
    do(ReportParticipant(subject, reports))


def process_scan(scan: Scan, models: tuple[KineticModel, ...], do: Do) -> ReportScan:
    """One scan from images to kinetics and its page."""
    networks = Networks()
    total = do(SegmentBody(scan, task("total"), networks))
    tissue = do(SegmentBody(scan, task("tissue"), networks))
    body = do(SegmentBody(scan, task("body"), networks))
    parcels = do(SegmentParcels(scan))
    brain = do(MergeParcels(scan, parcels=parcels))
    segmentations = (total, tissue, body, parcels, brain)

    head_to_ct = do(Register(scan, "head", total))
    body_to_ct = do(Register(scan, "body", total))

    static = do(Static(scan))
    bodystat = do(Resample(scan, "bodystat", static, segmentations, head_to_ct, body_to_ct))
    constants = do(Normalise(scan, static, segmentations))
    do(SuvImage(scan, static, constants))

    bodydyn = do(Resample(scan, "bodydyn", static, segmentations, head_to_ct, body_to_ct))
    aorta = do(PlaceAortaVois(scan, bodydyn))
    curves = do(MeasureCurves(scan, bodydyn, aorta, models))
    blood = do(ExtractInputFunctions(scan, aorta, curves))
    kinetics = [do(FitModel(scan, model, curves, blood)) for model in models]
    maps = [do(MapModel(scan, model, blood, curves)) for model in models]

    head = do(Resample(scan, "head", static, segmentations, head_to_ct, body_to_ct))
    means = do(MeasureStatic(scan, static, bodystat, head))
    flagged = (head_to_ct, body_to_ct, aorta, blood)
    quality = do(CheckQuality(scan, segmentations, static, means, curves, blood, flagged))

    spaces = (bodystat, bodydyn, head)
    measured = (constants, means, aorta, curves, blood, *kinetics, *maps, quality)
    return do(ReportScan(scan, static, segmentations, (head_to_ct, body_to_ct), spaces, measured))


def process_group(
    output: Path,
    settings: Settings,
    *,
    labels: Sequence[str] | None = None,
    splits: Splits | None = None,
    nprocs: int | None = None,
) -> GroupTables:
    """The readout tables and the group page, from the outputs of the participants."""
    tables = write_readouts(output, settings, labels=labels, splits=splits, nprocs=nprocs)
    write_group_page(output, tables, settings)
    return tables
