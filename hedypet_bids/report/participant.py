"""The pages of a participant: one a scan, and one that leads to them where there are several."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, HedypetError
from hedypet_bids.figures.pictures import Picture
from hedypet_bids.figures.rasters import ABOVE_COLOUR, BELOW_COLOUR
from hedypet_bids.io.atomic import write_bytes, write_text
from hedypet_bids.io.manifest import Manifest, ScanEntry, ScanOutputs, StepRecord
from hedypet_bids.io.store import Store, flags_of
from hedypet_bids.io.tables import read_table
from hedypet_bids.model import Scan, Subject
from hedypet_bids.names import ScanName
from hedypet_bids.report.kinetics import DynamicSections
from hedypet_bids.report.methods import methods_of, methods_of_dataset
from hedypet_bids.report.organs import CONSTANTS, REPORTED_ORGANS, organ_values
from hedypet_bids.report.page import write_page
from hedypet_bids.report.pictures import Gallery
from hedypet_bids.report.summary import (
    ScanPage,
    minutes_of,
    performed_for,
    spaces_of,
    summary_of,
    with_unit,
)
from hedypet_bids.settings import AortaMethod, Settings

SectionT = TypeVar("SectionT")

MAIN_ORGANS = tuple(region for organ in REPORTED_ORGANS if organ.task == "total" for region in organ.regions)
"""The regions of the CT in the table of organs; the group's page shows them first."""

CITATION = "logs/CITATION"

# In both projections the patient's left or back is on the left.
_AORTA_CAPTIONS: Mapping[AortaMethod, str] = {
    "centreline": "Segments and volumes of interest on the early PET, seen from behind and from the "
    "patient's right, and the PET along the straightened centreline.",
    "nifti_dynamic": "Segments and volumes of interest, seen from behind and from the patient's right.",
}


def write_scan_page(page: ScanPage) -> None:
    """Write the page of a scan, its pictures and ``logs/CITATION``; always anew, as it tells of this run."""
    scan, outputs = page.scan, page.outputs
    sections = _Sections()
    metadata = scan.metadata(scan.dynamic) if scan.dynamic else None
    kinetics = DynamicSections(outputs, page.settings, scan.person, metadata)
    scale = float(page.statics[page.static].scale[0]) if page.static else 1.0
    gallery = Gallery(scan, page.static, scale, outputs)
    content: dict[str, Any] = {
        "organs": sections.get("the tables of organs", lambda: _organs(page, kinetics)),
        "constants": sections.get("the normalisation constants", lambda: _constants(page)),
        "organs_note": sections.get("the note on kinetics", kinetics.note),
        "models": sections.get("the kinetic models", kinetics.models),
        "patlak": sections.get("the Patlak plots", kinetics.patlak_pictures),
        "patlak_windows": sections.get("Ki against the start of the window", kinetics.patlak_windows),
        "input_functions": sections.get("the input functions", kinetics.input_function_pictures),
        "curves": sections.get("the curves", kinetics.curve_pictures),
        "uptake": sections.get("the projections of the PET", gallery.uptake),
        "maps": sections.get("the projections of parametric maps", gallery.maps),
        "segmentations": sections.get("the segmentations", gallery.segmentations),
        "alignments": sections.get("the alignment", gallery.alignments),
        "aorta": _aorta(page),
        "spaces": sections.get("the spaces", lambda: list(spaces_of(page))),
    }
    windows = content["patlak_windows"]
    content["patlak_windows_picture"] = windows.picture() if windows else None
    _write_pictures(page, content)
    write_page(
        page.store.path(names.report(scan.stem)),
        "scan.html",
        label=scan.label,
        scan=_titled(scan.name) if not scan.alone else "",
        all_scans=names.report(names.page_stem(scan.label)) if not scan.alone else "",
        **content,
        problems=sections.problems,
        **summary_of(page),
        methods=methods_of(page.settings, performed_for(page)),
        outline_colours=(BELOW_COLOUR, ABOVE_COLOUR),
        reason={r.step: r.reason for r in page.records if r.state in ("skipped", "failed")},
        settings=page.settings.to_toml(),
    )
    _write_citation(page.store, page.settings)


def write_participant_page(
    subject: Subject,
    outputs: Mapping[Scan, ScanOutputs],
    store: Store,
    records: Sequence[StepRecord],
) -> None:
    """Write the page that leads to the scans of a participant of whom the dataset has several.

    Parameters
    ----------
    outputs
        What was made of each scan of this run, its page included.
    records
        What became of the steps of this run.
    """
    scans = {scan.name: scan for scan in outputs}
    broken = {scan.name: scan.reason for scan in subject.broken}
    earlier = _Earlier.of(subject.label, store)
    rows = []
    for name in subject.all_scans:
        if name in scans:
            rows.append(_row_of_this_run(scans[name], outputs[scans[name]], records))
        elif name in broken:
            rows.append({**_row(name, "cannot be used"), "problems": [broken[name]]})
        else:
            rows.append(earlier.row(name))
    told = {str(name) for name in subject.all_scans}
    shared = [(record.title, record.reason) for record in _failed(records) if record.about not in told]
    write_page(
        store.path(names.report(names.page_stem(subject.label))),
        "participant.html",
        label=subject.label,
        rows=rows,
        shared=shared,
    )


@dataclasses.dataclass(frozen=True)
class _Earlier:
    """What earlier runs left of the scans that this run was not asked for."""

    label: str
    store: Store
    manifest: Manifest | None

    @classmethod
    def of(cls, label: str, store: Store) -> _Earlier:
        try:
            return cls(label, store, Manifest.read(store.root, label))
        except BadDataError:
            return cls(label, store, None)

    def row(self, name: ScanName) -> dict[str, Any]:
        """The scan as an earlier run left it."""
        page = self.store.path(names.report(names.page_stem(self.label, name)))
        row = _row(name, "not part of this run", page if page.is_file() else None)
        if self.manifest is None:
            return row
        entry = next((entry for entry in self.manifest.scans if entry.name == name), None)
        if entry is not None:
            made = self.manifest.of_scan(entry).files
            files = {kind: self.store.root / path for kind, path in made.items()}
            row |= {**_acquisition(entry), "flags": list(flags_of(files.values()))}
        failed = [record for record in self.manifest.failed if record.about == str(name)]
        return {**row, "problems": [f"{record.step} failed: {record.reason}" for record in failed]}


def _row_of_this_run(scan: Scan, outputs: ScanOutputs, records: Sequence[StepRecord]) -> dict[str, Any]:
    """A scan in the list: how it was acquired, what is flagged and what failed."""
    return {
        **_row(scan.name, "", outputs.get("page")),
        **_acquisition(ScanEntry.of(scan)),
        "flags": list(flags_of(outputs.files.values())),
        "problems": [f"{r.step} failed: {r.reason}" for r in _failed(records) if r.about == scan.about],
    }


def _acquisition(entry: ScanEntry) -> dict[str, Any]:
    """When a scan was acquired, and the dose; nothing where there was no PET."""
    spans = {"dynamic": entry.dynamic_s, "static": entry.static_s}
    acquired = [f"{kind}: {minutes_of(*span)}" for kind, span in spans.items() if span]
    dose = with_unit(entry.dose_bq / 1e6 if entry.dose_bq else None, "MBq") if acquired else ""
    return {"acquired": acquired, "dose": dose}


def _row(name: ScanName, state: str, page: Path | None = None) -> dict[str, Any]:
    return {
        "title": _titled(name),
        "state": state,
        "page": page.name if page else "",
        "acquired": [],
        "dose": "",
        "flags": [],
        "problems": [],
    }


def _failed(records: Sequence[StepRecord]) -> list[StepRecord]:
    return [record for record in records if record.state == "failed"]


def _titled(name: ScanName) -> str:
    """A scan in a heading: ``session quadra, tracer 18FFDG``."""
    return ", ".join(f"{entity} {value}" for entity, value in dataclasses.asdict(name).items() if value)


class _Sections:
    """Makes the sections of a page one by one: one that cannot be shown does not keep the rest out."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []

    def get(self, title: str, make: Callable[[], SectionT]) -> SectionT | None:
        """What is to be shown; None, with the reason among the problems, where that failed."""
        try:
            return make()
        except HedypetError as error:
            self.problems.append((title, str(error)))
            return None


def _organs(page: ScanPage, kinetics: DynamicSections) -> list[dict[str, Any]]:
    """A table of organs for each static image; Ki stands in that of the first."""
    tables = []
    for image in page.statics:
        first, rows = image == page.static, []
        means = page.outputs.of("means", image.path.name)
        for organ in organ_values(means, page.outputs.get("constants")):
            ki, ki_se = kinetics.ki(organ.title) if first else (None, None)
            rows.append(
                {
                    "name": organ.title,
                    "erosion": organ.erosion,
                    "volume": organ.volume_ml,
                    "mean": organ.mean,
                    "ki": ki,
                    "ki_se": ki_se,
                    **dict(zip(CONSTANTS, organ.uptake, strict=True)),
                }
            )
        if rows:
            tables.append({"image": image.path.name, "first": first, "rows": rows})
    return tables


def _aorta(page: ScanPage) -> Picture | None:
    path = page.outputs.get("picture", "aorta")
    if path is None or not path.is_file():
        return None
    alt = "Coronal and sagittal projection of the aorta's segments and volumes of interest"
    return Picture("aorta", _AORTA_CAPTIONS[page.settings.aorta.method], alt, path.read_bytes())


def _constants(page: ScanPage) -> list[dict[str, Any]]:
    path = page.outputs.get("constants")
    if path is None:
        return []
    table = read_table(path)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{**row, "reason": row["reason"] or ""} for row in rows]


def _write_pictures(page: ScanPage, content: Mapping[str, Any]) -> None:
    """The pictures of the page, but that of the aorta, which its step has written, also as files."""
    scan = page.scan
    for picture in _pictures_in([value for key, value in content.items() if key != "aorta"]):
        path = page.store.path(names.figure(scan.label, scan.stem, picture.name))
        write_bytes(path.with_suffix(picture.extension), picture.content)


def _pictures_in(content: Any) -> Iterator[Picture]:
    if isinstance(content, Picture):
        yield content
    elif dataclasses.is_dataclass(content):
        yield from _pictures_in([getattr(content, field.name) for field in dataclasses.fields(content)])
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _pictures_in(value)


def _write_citation(store: Store, settings: Settings) -> None:
    """The methods text of the dataset and its references, unless they are there as they should be."""
    methods = methods_of_dataset(settings)
    for extension, text in ((".md", methods.markdown()), (".bib", methods.bibtex())):
        path = store.path(CITATION + extension)
        if not path.is_file() or path.read_text("utf-8") != text:
            write_text(path, text)
