"""The pages of a participant: one a scan and, where it has several, one that leads to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hedypet_bids import names
from hedypet_bids.io.manifest import ScanOutputs
from hedypet_bids.io.store import Writer
from hedypet_bids.model import Scan, Subject
from hedypet_bids.report.participant import write_participant_page, write_scan_page
from hedypet_bids.report.summary import ScanPage
from hedypet_bids.steps.register import Register
from hedypet_bids.steps.resample import Resample
from hedypet_bids.steps.segment import Segmentation
from hedypet_bids.steps.static import Static
from hedypet_bids.steps.step import Plan, Skip, Step

_OF_THIS_RUN = "the page tells of this run"


@dataclass(eq=False)
class ReportScan(Step):
    """The page of one scan, always made anew."""

    scan: Scan
    static: Static
    segmentations: Sequence[Segmentation]
    transforms: Sequence[Register]
    spaces: Sequence[Resample]
    measured: Sequence[Step]

    @property
    def name(self) -> str:
        """``report``."""
        return "report"

    def of_scan(self) -> ScanOutputs:
        """Everything that was made of the scan, the page included."""
        steps = (*self.builds_on(), self)
        return ScanOutputs({kind: path for step in steps for kind, path in step.outputs.files.items()})

    def plan(self) -> Plan | Skip:
        """Show what the other steps made."""
        page = self.context.store.path(names.report(self.scan.stem))
        return Plan([], {("page",): page}, always=_OF_THIS_RUN)

    def run(self, _plan: Plan, _writer: Writer) -> None:
        """Write the page, its pictures and the citations."""
        write_scan_page(
            ScanPage(
                scan=self.scan,
                statics={image: self.static.metadata(image) for image in self.static.images},
                outputs=self.of_scan(),
                # What scans share is told on the page of each.
                records=[
                    record
                    for record in self.context.records()
                    if record.about in {step.about for step in self.builds_on()}
                ],
                settings=self.context.settings,
                store=self.context.store,
                log_folder=self.context.tools.log_folder,
            )
        )


@dataclass(eq=False)
class ReportParticipant(Step):
    """The page that leads to those of the scans, for participants of whom the dataset has several."""

    subject: Subject
    reports: Sequence[ReportScan]

    @property
    def name(self) -> str:
        """``report participant``."""
        return "report participant"

    @property
    def scans(self) -> tuple[str, ...]:
        """Every scan of the run."""
        return tuple(str(scan.name) for scan in self.subject.scans)

    @property
    def about(self) -> str:
        """Nothing in particular."""
        return ""

    def plan(self) -> Plan | Skip:
        """Lead to the pages of the scans."""
        if len(self.subject.all_scans) < 2:
            return Skip()
        page = self.context.store.path(names.report(names.page_stem(self.subject.label)))
        return Plan([], {("participant_page",): page}, always=_OF_THIS_RUN)

    def run(self, _plan: Plan, _writer: Writer) -> None:
        """Write the page."""
        outputs = {report.scan: report.of_scan() for report in self.reports}
        write_participant_page(self.subject, outputs, self.context.store, self.context.records())
