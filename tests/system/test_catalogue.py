"""Bad and odd inputs, each one edit away from the tiny phantom: an answer for each, never a traceback.

Participant 001 gets the edit, 002 stays as it is and must come through in every case.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edits import (
    CT,
    DYNAMIC,
    MISSING,
    N_FRAMES,
    NESTED,
    READY,
    STATIC,
    Edit,
    both,
    bytes_of,
    cell,
    copy,
    extension,
    file,
    first,
    flipped,
    gzip_of,
    header,
    large,
    link,
    misnamed,
    moved_out,
    participants,
    renamed,
    replace,
    scaled,
    sidecar,
    small_dynamic,
    small_image,
    swapped,
    voxels,
    without,
)

from hedypet_bids.cli.main import main

# What reads the static image, the dynamic one, and the ready segmentations, and little else.
READ_STATIC, READ_DYNAMIC, TAKE_READY = ("means",), ("tacs",), ("segment",)


@dataclass(frozen=True)
class Case:
    """One edit of the dataset and the answer to it.

    Parameters
    ----------
    code
        Exit code when participant 001 alone is asked for.
    words
        All of them are somewhere in what is printed, logged or written to tables.
    steps
        Steps that run for real; only planned when empty.
    options
        More of the command line.
    everyone
        Whether the fault is the dataset's, so that participant 002 ends the same way.
    defect
        What hedypet still does wrong, so that the case is expected to fail.
    """

    name: str
    edit: Edit
    code: int
    words: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    everyone: bool = False
    defect: str = ""

    @property
    def parameter(self) -> Any:
        """The case for pytest."""
        marks = [pytest.mark.xfail(strict=True, reason=self.defect)] if self.defect else []
        return pytest.param(self, id=self.name.replace(" ", "-"), marks=marks)


FRAME_TIMES = [
    Case(
        "one frame time too many",
        sidecar(DYNAMIC, FrameTimesStart=lambda t: [*t, 4200.0]),
        65,
        ("FrameTimesStart has 70 entries", f"{N_FRAMES} frames", "acdynPSF_pet.json"),
    ),
    Case(
        "no frame durations", sidecar(DYNAMIC, FrameDuration=MISSING), 65, ("FrameDuration must be a list",)
    ),
    Case("unsorted frames", sidecar(DYNAMIC, FrameTimesStart=swapped), 65, ("must increase",)),
    Case("overlapping frames", sidecar(DYNAMIC, FrameDuration=first(3.0)), 65, ("must not overlap",)),
    Case("a negative duration", sidecar(DYNAMIC, FrameDuration=first(-2.0)), 65, ("a positive number",)),
    Case("a duration of zero", sidecar(DYNAMIC, FrameDuration=first(0)), 65, ("Frame 0", "positive")),
    Case("null for a frame time", sidecar(DYNAMIC, FrameTimesStart=first(None)), 65, ("list of seconds",)),
    Case("frame times as text", sidecar(DYNAMIC, FrameTimesStart="0 2 4"), 65, ("list of seconds",)),
    Case("frame times as an object", sidecar(DYNAMIC, FrameTimesStart={"0": 1}), 65, ("list of seconds",)),
    Case(
        "a frame time of 10**400", sidecar(DYNAMIC, FrameTimesStart=first(10**400)), 65, ("list of seconds",)
    ),
    Case(
        "milliseconds",
        sidecar(DYNAMIC, FrameTimesStart=scaled(1000), FrameDuration=scaled(1000)),
        65,
        ("half-lives", "milliseconds"),
    ),
    Case(
        "every frame before the injection",
        sidecar(STATIC, FrameTimesStart=[-3000.0], ScanStart=-3000),
        65,
        ("before the injection", "InjectionStart"),
    ),
    Case(
        "no injection time",
        sidecar(DYNAMIC, InjectionStart=MISSING),
        65,
        ("InjectionStart must be a number",),
    ),
    Case("a frame before the scan", sidecar(DYNAMIC, ScanStart=100), 65, ("before ScanStart",)),
    Case("no scan start", sidecar(DYNAMIC, ScanStart=MISSING), 0, ("ScanStart is missing",), READ_STATIC),
    Case(
        "a static image that counts from its own start",
        sidecar(STATIC, FrameTimesStart=[0.0], DecayCorrectionFactor=[1.46]),
        65,
        ("DecayCorrectionFactor of frame 0 is 1.46", "counted from the scan instead of TimeZero"),
    ),
    Case(
        "a static image that counts from its own start, in dcm2niix's words",
        sidecar(STATIC, FrameTimesStart=[0.0], DecayFactor=[1.45951]),
        65,
        ("DecayFactor of frame 0 is 1.4595", "counted from the scan instead of TimeZero"),
    ),
    Case(
        "a static image acquired later than it says",
        sidecar(STATIC, FrameTimesStart=[0.0], TimeZero="10:00:00", AcquisitionTime="10:50:00.000000"),
        65,
        ("AcquisitionTime is '10:50:00.000000'", "10:00:00", "counted from the scan instead of TimeZero"),
    ),
    Case(
        "two times of one injection",
        both(sidecar(STATIC, TimeZero="10:50:00"), sidecar(DYNAMIC, TimeZero="10:00:00")),
        65,
        ("10:50:00", "10:00:00", "one injection", "acstatPSF", "acdynPSF"),
    ),
    Case(
        "an injection an hour before TimeZero",
        sidecar(STATIC, TimeZero="10:00:00", RadiopharmaceuticalStartTime="090000.00"),
        65,
        ("RadiopharmaceuticalStartTime is '090000.00'", "10:00:00", "InjectionStart"),
    ),
    Case(
        "a watch that is two minutes slow",
        both(
            sidecar(STATIC, TimeZero="00:00:30", RadiopharmaceuticalStartTime="23:58:30"),
            sidecar(DYNAMIC, TimeZero="00:00:30"),
        ),
        0,
        ("RadiopharmaceuticalStartTime is '23:58:30'", "check them"),
    ),
    Case(
        "no time of day",
        sidecar(STATIC, TimeZero="25:99:99"),
        0,
        ("TimeZero must be a time of day", "25:99:99"),
    ),
    Case(
        "a series that begins late",
        sidecar(DYNAMIC, FrameTimesStart=lambda t: [at + 12.0 for at in t]),
        0,
        ("the first 12 s after injection were not seen",),
    ),
    Case(
        "a series with a gap",
        sidecar(
            DYNAMIC, FrameTimesStart=lambda t: [at + (1200.0 if n >= 40 else 0.0) for n, at in enumerate(t)]
        ),
        0,
        ("gap of 1200 s after frame 39", "interpolated over it"),
    ),
    Case(
        "a series with a gap, to be integrated by Simpson's rule",
        sidecar(
            DYNAMIC, FrameTimesStart=lambda t: [at + (1200.0 if n >= 40 else 0.0) for n, at in enumerate(t)]
        ),
        0,
        ("gap of 1200 s after frame 39", "Simpson's rule cannot"),
        options=("--integration-rule", "simpson"),
    ),
    Case(
        "a long first frame",
        sidecar(
            DYNAMIC,
            FrameTimesStart=lambda t: [0.0, *(at + 300.0 for at in t[1:])],
            FrameDuration=first(302.0),
        ),
        0,
        ("the first frame lasts 302 s", "misses the bolus"),
        options=("--integration-rule", "simpson"),
    ),
]

UNITS_AND_DOSE = [
    Case("no units", sidecar(STATIC, Units=MISSING), 65, ("Units must be Bq/mL", "found nothing")),
    Case("an image in SUV", sidecar(STATIC, Units="g/mL"), 65, ("Units must be", "'g/mL'", "convert them")),
    Case("an image in counts", sidecar(DYNAMIC, Units="counts"), 65, ("Units must be", "'counts'")),
    Case("units that are a list", sidecar(DYNAMIC, Units=["Bq/mL"]), 65, ("Units must be",)),
    Case("kBq/mL", sidecar(STATIC, Units="kBq/mL"), 0, ("sub-001",)),
    Case("another way to write Bq/mL", sidecar(STATIC, Units="BQML"), 0, ("sub-001",)),
    Case(
        "no dose",
        sidecar(STATIC, InjectedRadioactivity=MISSING),
        0,
        ("injected activity is unknown", "found nothing|is nothing"),
        ("normalise",),
    ),
    Case(
        "a dose without units",
        sidecar(STATIC, InjectedRadioactivityUnits=MISSING),
        0,
        ("InjectedRadioactivityUnits is nothing", "BIDS has no default"),
        ("normalise",),
    ),
    Case(
        "MBq called Bq",
        sidecar(STATIC, InjectedRadioactivityUnits="Bq"),
        0,
        ("is not between", "check InjectedRadioactivityUnits"),
        ("normalise",),
    ),
    Case(
        "kBq called MBq",
        sidecar(STATIC, InjectedRadioactivity=201907.0),
        0,
        ("201907 MBq is not between",),
        ("normalise",),
    ),
    # 200,000 kBq / 80 kg = 2500 Bq/g.
    Case(
        "a dose in kBq",
        both(sidecar(STATIC, InjectedRadioactivity=200_000, InjectedRadioactivityUnits="kBq"), cell(3, "80")),
        0,
        ("suv\t2500",),
        ("normalise",),
    ),
    Case(
        "a dose a thousand times smaller than DICOM's",
        sidecar(
            STATIC,
            InjectedRadioactivity=774040,
            InjectedRadioactivityUnits="Bq",
            RadionuclideTotalDose=774040000,
        ),
        0,
        ("injected activity is unknown", "RadionuclideTotalDose is 7.7404e+08 Bq"),
        ("normalise",),
    ),
    Case(
        "a key that is nearly right",
        sidecar(STATIC, InjectedRadioactivityUnits=MISSING, InjectedRadioActivityUnits="MBq"),
        0,
        ("InjectedRadioactivityUnits is nothing", "'InjectedRadioActivityUnits'"),
        ("normalise",),
    ),
    Case(
        "a negative dose",
        sidecar(STATIC, InjectedRadioactivity=-200),
        0,
        ("-200 MBq is not between",),
        ("normalise",),
    ),
    Case(
        "a dose of 10**400",
        sidecar(STATIC, InjectedRadioactivity=10**400),
        0,
        ("injected activity is unknown",),
        ("normalise",),
    ),
]

DECAY = [
    Case(
        "decay state not told",
        sidecar(STATIC, ImageDecayCorrected=MISSING),
        65,
        ("ImageDecayCorrected must be true or false", "Add it"),
    ),
    Case("decay state as text", sidecar(STATIC, ImageDecayCorrected="yes"), 65, ("true or false", "'yes'")),
    Case(
        "corrected to an unknown time",
        sidecar(STATIC, ImageDecayCorrectionTime=MISSING, ScanStart=3000),
        65,
        ("ImageDecayCorrectionTime must be", "3000 s apart"),
    ),
    Case(
        "corrected to a time in another century",
        sidecar(STATIC, ImageDecayCorrectionTime=1e9),
        65,
        ("ImageDecayCorrectionTime", "half-lives"),
    ),
    Case(
        "not corrected, nuclide unknown",
        sidecar(STATIC, ImageDecayCorrected=False, TracerRadionuclide="Xx99"),
        65,
        ("TracerRadionuclide", "Xx99"),
    ),
    Case(
        "a half-life of another nuclide",
        sidecar(STATIC, RadionuclideHalfLife=1223),
        65,
        ("RadionuclideHalfLife is 1223 s", "F18 is 6586.2 s"),
    ),
    Case(
        "a nuclide with its half-life",
        sidecar(STATIC, ImageDecayCorrected=False, TracerRadionuclide="Sc44", RadionuclideHalfLife=14292.0),
        0,
        ("not decay-corrected", "were corrected to the time of injection"),
        READ_STATIC,
    ),
    Case("true as text", sidecar(STATIC, ImageDecayCorrected="true"), 65, ("without quotes", "'true'")),
    Case(
        "not corrected",
        sidecar(STATIC, ImageDecayCorrected=False, ImageDecayCorrectionTime=MISSING),
        0,
        ("not decay-corrected", "were corrected to the time of injection"),
        READ_STATIC,
    ),
    Case(
        "corrected to the scan's start",
        sidecar(STATIC, ImageDecayCorrectionTime=3000),
        0,
        ("decay-corrected to 3000 s after injection; it was shifted",),
        READ_STATIC,
    ),
]

PEOPLE = [
    Case("no weight", cell(3, "n/a"), 0, ("weight is unknown|weight",), ("normalise",)),
    Case(
        "a weight of 700 kg", cell(3, "700"), 0, ("the weight is 700 kg; expected between",), ("normalise",)
    ),
    Case("a weight that is a word", cell(3, "heavy"), 0, ("'heavy': not a number",), ("normalise",)),
    Case("a weight of 10**400", cell(3, "1" + "0" * 400), 0, ("not a number",), ("normalise",)),
    Case("a height of 0", cell(4, "0"), 0, ("height is 0 m; expected between",), ("normalise",)),
    Case("a height of 165 m", cell(4, "165"), 0, ("height is 165 m; expected",), ("normalise",)),
    Case(
        "a height in cm",
        both(cell(4, "165"), without("participants.json")),
        0,
        ("taken as cm",),
        ("normalise",),
    ),
    Case("height and weight swapped", both(cell(3, "163"), cell(4, "0.61")), 0, ("BMI of 438", "swapped")),
    Case("a height in inches", both(cell(3, "61"), cell(4, "0.642")), 0, ("BMI of 148",), ("normalise",)),
    Case(
        "participants.json not fetched",
        both(without("participants.json"), lambda r: (r / "participants.json").symlink_to("nowhere")),
        65,
        ("participants.json", "datalad get"),
        everyone=True,
    ),
    Case(
        "participants.tsv is a folder",
        both(without("participants.tsv"), lambda r: (r / "participants.tsv").mkdir()),
        65,
        ("participants.tsv must be a file",),
        everyone=True,
    ),
    Case(
        "a quote that is not closed among the names of columns",
        participants(lambda text: text.replace("\tsex", '\t"sex', 1)),
        65,
        ("participants.tsv, line 1", "quote"),
        everyone=True,
    ),
    Case("an unknown sex", cell(1, "X"), 0, ("expected M, F, male or female",), ("normalise",)),
    Case("no table of participants", without("participants.tsv"), 0, ("sub-001",)),
    Case(
        "a participant who is not in the table",
        participants(lambda text: re.sub("sub-001.*\n", "", text)),
        0,
        ("weight",),
        ("normalise",),
    ),
    Case(
        "a table with a byte order mark and CRLF",
        both(
            cell(3, "80"),
            sidecar(STATIC, InjectedRadioactivity=200),
            participants(lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()),
        ),
        0,
        ("suv\t2500",),
        ("normalise",),
    ),
    Case(
        "a table with commas",
        participants(lambda text: text.replace("\t", ",")),
        65,
        ("no column participant_id", "participants.tsv", "tab"),
        everyone=True,
    ),
    Case(
        "a participant twice, differently",
        participants(lambda text: text + "sub-001\tM\t20\t120\t1.99\tM18\n"),
        65,
        ("participants.tsv", "rows of sub-001 that differ"),
    ),
    Case(
        "a participant twice, the same",
        participants(lambda text: text + text.splitlines(keepends=True)[1]),
        0,
        ("sub-001",),
    ),
    Case(
        "a table with a cell too many",
        participants(lambda text: re.sub("(sub-001.*)\n", r"\1\tmore\n", text)),
        65,
        ("participants.tsv, line 2", "7 cells; expected 6"),
    ),
    Case(
        "a quote that is not closed",
        participants(lambda text: text.replace("sub-001\t", 'sub-001\t"', 1)),
        65,
        ("participants.tsv, line 2", "quote"),
    ),
    Case(
        "cells in quotes",
        participants(lambda text: re.sub("sub-001\t([^\t]*)", r'"sub-001"\t"\1"', text)),
        0,
        ("sub-001",),
    ),
    Case(
        "a column twice",
        participants(lambda text: text.replace("height", "weight", 1)),
        65,
        ("participants.tsv", "weight twice"),
        everyone=True,
    ),
    Case(
        "a PET named after somebody else",
        misnamed(DYNAMIC, "sub-001", "sub-002"),
        65,
        ("sub-002_ses-quadra", "sub-001", "its folder"),
    ),
    Case(
        "a PET named after another session",
        misnamed(STATIC, "ses-quadra", "ses-later"),
        65,
        ("ses-later", "ses-quadra", "its folder"),
    ),
    Case("a sidecar that is null", file(f"{STATIC}.json", "null"), 65, ("acstatPSF_pet.json", "found null")),
    Case(
        "a table of other text",
        participants(lambda _: b"\xff\xfe\x00\xd8"),
        65,
        ("participants.tsv", "as a table"),
        everyone=True,
    ),
    Case("a huge table", large("participants.tsv", 300), 65, ("participants.tsv", "300 MB"), everyone=True),
    Case(
        "a deep participants.json",
        file("participants.json", NESTED),
        65,
        ("participants.json", "deep"),
        everyone=True,
    ),
]

HEADERS = [
    Case(
        "an affine with NaN", header(STATIC, srow_x=(np.nan, 0, 0, 0)), 65, ("affine", "finite", "acstatPSF")
    ),
    Case("a singular affine", header(STATIC, srow_x=(0, 0, 0, 0)), 65, ("singular", "acstatPSF")),
    Case(
        "a singular affine of the CT", header(CT, srow_x=(0, 0, 0, 0)), 65, ("singular", "br38f"), TAKE_READY
    ),
    Case("an empty file", file(f"{STATIC}.nii.gz", b""), 65, ("cannot be read as NIfTI", "acstatPSF")),
    Case("a file of 60 bytes", gzip_of(STATIC, lambda b: b[:60]), 65, ("cannot be read as NIfTI",)),
    Case(
        "a text called image",
        file(f"{STATIC}.nii.gz", "see server 2\n" * 99),
        65,
        ("cannot be read as NIfTI",),
    ),
    Case("not compressed", gzip_of(STATIC, gzip.decompress), 65, ("cannot be read as NIfTI", "acstatPSF")),
    Case(
        "a folder called image",
        both(without(f"{STATIC}.nii.gz"), lambda r: (r / f"{STATIC}.nii.gz").mkdir()),
        0,
    ),
    Case(
        "a hundred times more voxels than bytes",
        header(STATIC, dim=(3, 30000, 30000, 30000, 1, 1, 1, 1)),
        65,
        ("declares",),
    ),
    Case("negative dimensions", header(STATIC, dim=(3, -71, 49, 178, 1, 1, 1, 1)), 65, ("acstatPSF", "-71")),
    Case("no voxels", header(STATIC, dim=(3, 0, 49, 178, 1, 1, 1, 1)), 65, ("acstatPSF", "dimensions")),
    Case("two dimensions", header(STATIC, dim=(2, 71, 49, 1, 1, 1, 1, 1)), 65, ("3D or 4D",)),
    Case("five dimensions", header(STATIC, dim=(5, 71, 49, 89, 1, 2, 1, 1)), 65, ("3D or 4D",)),
    Case("ninety dimensions", header(STATIC, dim=(90, 71, 49, 178, 1, 1, 1, 1)), 65, ("acstatPSF",)),
    Case(
        "complex voxels",
        header(STATIC, datatype=32, bitpix=64),
        65,
        ("complex64", "expected integers or floats"),
    ),
    Case("coloured voxels", header(STATIC, datatype=128, bitpix=24), 65, ("expected integers or floats",)),
    Case("voxels of an unknown type", header(STATIC, datatype=9999), 65, ("acstatPSF", "9999")),
    Case("voxels far behind the end", header(STATIC, vox_offset=1e30), 65, ("acstatPSF",)),
    Case("voxels at NaN", header(STATIC, vox_offset=np.nan), 65, ("acstatPSF",)),
    Case("voxels at 0", header(STATIC, vox_offset=0), 65, ("acstatPSF", "vox_offset 0")),
    Case(
        "no position",
        header(STATIC, sform_code=0, qform_code=0),
        65,
        ("acstatPSF", "sform_code and qform_code", "guessed"),
    ),
    Case("no position of the CT", header(CT, sform_code=0, qform_code=0), 65, ("br38f", "guessed")),
    Case(
        "no position of a segmentation",
        header(f"{READY}total_dseg", sform_code=0, qform_code=0),
        65,
        ("total_dseg", "guessed"),
    ),
    Case(
        "two positions", header(STATIC, qform_code=1, qoffset_z=500.0), 65, ("acstatPSF", "header_form", "mm")
    ),
    Case("voxels in the header", header(STATIC, vox_offset=64), 65, ("acstatPSF", "offset")),
    Case("an infinite slope", header(STATIC, scl_slope=np.inf), 65, ("acstatPSF", "slope")),
    Case("a header with its image elsewhere", header(STATIC, magic=b"ni1"), 65, ("acstatPSF", "single-file")),
    Case(
        "an extension of two gigabytes", bytes_of(STATIC, extension(2**31 - 8)), 0, ("sub-001",), READ_STATIC
    ),
    Case("an extension of negative size", bytes_of(STATIC, extension(-160)), 0, ("sub-001",), READ_STATIC),
    Case(
        "an affine in metres",
        header(STATIC, srow_x=(0.008, 0, 0, 0), srow_y=(0, 0.008, 0, 0), srow_z=(0, 0, 0.006, 0)),
        65,
        ("voxels of 0.008 x 0.008 x 0.006 mm", "metres"),
    ),
    Case(
        "a CT of another place",
        header(CT, srow_x=(6.0, 0, 0, 5000)),
        65,
        ("do not overlap", "acstatPSF", "br38f", "5"),
    ),
    Case(
        "an extension of two gigabytes in the CT",
        bytes_of(CT, extension(2**31 - 8)),
        0,
        (),
        TAKE_READY,
    ),
    Case(
        "an extension without end in a segmentation",
        both(bytes_of(f"{READY}total_dseg", extension(2**31 - 8)), without(f"{READY}total_dseg.tsv")),
        0,
        (),
        TAKE_READY,
    ),
]

VOXELS = [
    Case(
        "gzip cut in the middle",
        gzip_of(STATIC, lambda b: b[: len(b) // 2]),
        65,
        ("cut short or corrupt",),
        READ_STATIC,
    ),
    Case(
        "gzip without its end", gzip_of(STATIC, lambda b: b[:-5]), 65, ("cut short or corrupt",), READ_STATIC
    ),
    Case("a flipped byte", gzip_of(STATIC, flipped(0.6)), 65, ("corrupt", "Restore"), READ_STATIC),
    Case("a damaged CT", gzip_of(CT, flipped(0.6)), 65, ("corrupt", "br38f"), TAKE_READY),
    Case(
        "a damaged series", gzip_of(DYNAMIC, flipped(0.6)), 65, ("corrupt", "acdynPSF", "frame"), READ_DYNAMIC
    ),
    Case("3D where frames are expected", small_dynamic((4, 5, 6)), 65, ("acdynPSF", "1 frame;", "4D image")),
    Case(
        "frames where 3D is expected",
        both(
            lambda root: small_image(root / f"{STATIC}.nii.gz", (4, 5, 6, 3)),
            sidecar(STATIC, FrameTimesStart=[3000, 3400, 3800], FrameDuration=[400, 400, 400]),
        ),
        65,
        ("acstatPSF", "3 frames", "static"),
    ),
    Case(
        "3D with the sidecar of one frame where frames are expected",
        both(
            small_dynamic((4, 5, 6)),
            sidecar(DYNAMIC, FrameTimesStart=[0], FrameDuration=[4200]),
        ),
        65,
        ("acdynPSF", "dynamic"),
    ),
    Case("fewer frames than the sidecar", small_dynamic((4, 5, 6, 68)), 65, ("69 entries", "68 frames")),
    Case("negative voxels", voxels(STATIC, lambda v: -v), 0, ("sub-001",), READ_STATIC),
    Case("nothing but zeros", voxels(STATIC, np.zeros_like), 0, ("sub-001",), READ_STATIC),
    Case("nothing but NaN", voxels(STATIC, lambda v: np.full_like(v, np.nan)), 0, ("sub-001",), READ_STATIC),
]

SELECTION = [
    Case(
        "two static images that match",
        copy(STATIC, STATIC.replace("_trc-", "_task-rest_trc-")),
        65,
        ("'static'; found 2", "task-rest_trc-", "ses-quadra_trc-", "--bids-filter-file"),
    ),
    Case(
        "two runs of the static image",
        both(
            copy(STATIC, STATIC.replace("_pet", "_run-2_pet")),
            copy(STATIC, STATIC.replace("_pet", "_run-1_pet")),
            without(f"{STATIC}.*"),
        ),
        0,
        ("means [ses-quadra_trc-18FFDG_run-1]", "means [ses-quadra_trc-18FFDG_run-2]"),
    ),
    Case(
        "two sessions with PET",
        copy(STATIC, STATIC.replace("ses-quadra", "ses-later")),
        0,
        (
            "means [ses-later_trc-18FFDG]",
            "means [ses-quadra_trc-18FFDG]",
            "CT images are those of ses-quadra",
        ),
    ),
    Case(
        "two sessions with PET, one chosen",
        copy(STATIC, STATIC.replace("ses-quadra", "ses-later")),
        0,
        ("segment total",),
        options=("--session-label", "quadra"),
    ),
    Case(
        "a session that is not there",
        without(),
        18,
        ("folder ses-x", "--session-label"),
        options=("--session-label", "x"),
        everyone=True,
    ),
    Case(
        "no sessions",
        renamed(("/ses-quadra", ""), ("/ses-vida", ""), ("_ses-quadra", ""), ("_ses-vida", "")),
        0,
        ("sub-001_rec-br38f_seg-total",),
    ),
    Case(
        "a long label",
        renamed(("sub-001", "sub-" + "P0001Visit" * 6)),
        0,
        ("sub-" + "P0001Visit" * 6, "segment total"),
    ),
    Case(
        "another tracer",
        both(
            renamed(("18FFDG", "68GaDOTATOC")),
            *(
                sidecar(s.replace("18FFDG", "68GaDOTATOC"), TracerRadionuclide="Ga68", TracerName="DOTATOC")
                for s in (STATIC, DYNAMIC)
            ),
        ),
        0,
        ("trc-68GaDOTATOC",),
        READ_STATIC,
    ),
    # As in the PET datasets of bids-examples: one session, one dynamic image without rec, a blood curve.
    Case(
        "names as in the public examples",
        both(
            without(f"{STATIC}.*", "sub-001/*/ct", "derivatives/totalsegmentator/sub-001"),
            renamed(
                ("_trc-18FFDG_rec-acdynPSF", ""),
                ("ses-quadra", "ses-baseline"),
                ("ses-vida", "ses-baseline"),
            ),
            file(
                "sub-001/ses-baseline/pet/sub-001_ses-baseline_recording-manual_blood.tsv",
                "time\tplasma_radioactivity\n0\t0\n60\t9\n4200\t3\n",
            ),
            file(
                "sub-001/ses-baseline/pet/sub-001_ses-baseline_recording-manual_blood.json",
                '{"plasma_radioactivity": {"Units": "kBq/mL"}}',
            ),
        ),
        0,
        ("sub-001_ses-baseline_acq-MPRAGE_seg-synthseg", "no CT was found", "rec-mean_pet"),
    ),
    Case("no CT", without("sub-001/*/ct", "derivatives/totalsegmentator/sub-001"), 0, ("no CT was found",)),
    Case("no MR", without("sub-001/ses-vida", "derivatives/synthseg/sub-001"), 0, ("no T1w image",)),
    Case("dynamic only", without(f"{STATIC}.*"), 0, ("rec-acdynPSFmean_pet.nii.gz is not there",)),
    Case("static only", without(f"{DYNAMIC}.*"), 0, ("no dynamic PET was found",)),
    Case("no PET", without("sub-001/*/pet"), 0, ("no PET was found",)),
    Case("an empty participant", without("sub-001/*"), 0, ("no CT was found", "no PET was found")),
    Case(
        "a filter that fits nothing",
        without(),
        0,
        ("rec-acdynPSFmean_pet.nii.gz is not there",),
        options=("--bids-filter-file", "{root}/../filter.json"),
    ),
    Case(
        "shell characters in a label",
        both(
            renamed(("sub-001", "sub-$(touch hacked);a")),
            file("sub-$(touch hacked);a/x.txt", ""),
        ),
        65,
        ("sub-$(touch hacked);a", "letters and digits", "Rename"),
    ),
]

SIDECARS = [
    Case("no sidecar", without(f"{STATIC}.json"), 65, ("has no sidecar", "FrameTimesStart")),
    Case("half a sidecar", file(f"{STATIC}.json", '{"Units": "Bq/mL", "Frame'), 65, ("acstatPSF_pet.json",)),
    Case("an empty sidecar", file(f"{STATIC}.json", ""), 65, ("acstatPSF_pet.json",)),
    Case(
        "a sidecar that is a list",
        file(f"{STATIC}.json", "[1, 2]"),
        65,
        ("acstatPSF_pet.json", "JSON object"),
    ),
    Case(
        "a sidecar that is a number", file(f"{STATIC}.json", "7"), 65, ("acstatPSF_pet.json", "JSON object")
    ),
    Case(
        "a sidecar in UTF-16",
        file(f"{STATIC}.json", '{"Units": "Bq/mL"}'.encode("utf-16")),
        65,
        ("acstatPSF_pet.json",),
    ),
    Case("a sidecar nested 100,000 deep", file(f"{STATIC}.json", NESTED), 65, ("acstatPSF_pet.json", "deep")),
    Case("a sidecar of 300 MB", large(f"{STATIC}.json", 300), 65, ("acstatPSF_pet.json", "300 MB")),
    Case(
        "a huge sidecar that no image of ours needs",
        large("sub-001/ses-vida/anat/sub-001_ses-vida_acq-other_bold.json", 300),
        0,
        ("segment total",),
    ),
    Case(
        "a number with 10,000 digits",
        file(f"{STATIC}.json", '{"Units": ' + "9" * 10_000 + "}"),
        65,
        ("acstatPSF_pet.json",),
    ),
    Case("half a character", sidecar(STATIC, TracerName="\ud800"), 0, ("sub-001",)),
    Case(
        "a sidecar that names another participant", sidecar(STATIC, subject="002", session=7), 0, ("sub-001",)
    ),
    Case("NaN and Infinity", sidecar(STATIC, Whatever=[float("nan"), float("inf")]), 0, ("sub-001",)),
    Case(
        "a broken description",
        file("dataset_description.json", "{"),
        65,
        ("dataset_description.json",),
        everyone=True,
    ),
    Case("a description without a name", file("dataset_description.json", "{}"), 0, ("segment total",)),
]

LINKS = [
    Case("an image that is kept elsewhere", moved_out(f"{STATIC}.nii.gz"), 0, ("sub-001",), READ_STATIC),
    Case(
        "a link to content that is not there",
        link(f"{STATIC}.nii.gz", "../../.git/annex/objects/x"),
        66,
        ("acstatPSF", "is a link to", "datalad get"),
    ),
    Case(
        "a link to itself", link(f"{STATIC}.nii.gz", Path(f"{STATIC}.nii.gz").name), 65, ("acstatPSF", "link")
    ),
    Case("a folder that holds itself", link("sub-001/ses-quadra/again", "../.."), 0, ("segment total",)),
    Case("a participant that is a link to itself", link("sub-003", "sub-003"), 0, ("segment total",)),
    Case("unreadable", lambda root: unreadable(root / f"{STATIC}.nii.gz"), 65, ("acstatPSF", "ermission")),
]

SEGMENTATIONS = [
    Case(
        "unknown labels",
        voxels(f"{READY}total_dseg", lambda v: np.where(v > 0, 250, 0).astype(np.uint8)),
        65,
        ("250", "label table"),
        TAKE_READY,
    ),
    Case(
        "labels that are no whole numbers",
        voxels(f"{READY}total_dseg", lambda v: v.astype(np.float32) + 0.5),
        65,
        ("whole numbers",),
        TAKE_READY,
    ),
    Case(
        "negative labels",
        voxels(f"{READY}total_dseg", lambda v: -v.astype(np.int16)),
        65,
        ("negative label",),
        TAKE_READY,
    ),
    Case(
        "labels of a billion",
        voxels(f"{READY}total_dseg", lambda v: v.astype(np.int32) + 2**30),
        65,
        ("labels up to 65535", "total_dseg.nii.gz"),
        TAKE_READY,
    ),
    Case(
        "a label with two names",
        file(f"{READY}total_dseg.tsv", "index\tname\n5\tliver\n5\tspleen\n"),
        65,
        ("total_dseg.tsv", "label 5 both 'liver' and 'spleen'"),
        TAKE_READY,
    ),
    Case(
        "another grid",
        voxels(f"{READY}total_dseg", lambda v: v[1:]),
        65,
        ("does not lie on the grid",),
        TAKE_READY,
    ),
    Case(
        "frames of labels",
        voxels(f"{READY}total_dseg", lambda v: np.stack([v, v], axis=-1)),
        65,
        ("2 frames",),
        TAKE_READY,
    ),
    Case(
        "a label table without its columns",
        file(f"{READY}total_dseg.tsv", "a\tb\n1\t2\n"),
        65,
        ("columns index",),
        TAKE_READY,
    ),
    Case(
        "a label table with names of another scheme",
        file(f"{READY}total_dseg.tsv", "index\tname\n5\tleft toe\n"),
        65,
        ("unknown scheme", "left toe"),
        TAKE_READY,
    ),
    Case(
        "two ready segmentations",
        copy(f"{READY}total_dseg", f"{READY}totalV2_dseg"),
        65,
        ("Expected one total segmentation", "totalV2", "Remove or rename"),
    ),
    Case(
        "a segmentation that is no image",
        file(f"{READY}total_dseg.nii.gz", "x"),
        65,
        ("cannot be read as NIfTI", "seg-total"),
        TAKE_READY,
    ),
    Case(
        "a CT that is PET",
        lambda root: replace(root / f"{CT}.nii.gz", (root / f"{STATIC}.nii.gz").read_bytes()),
        65,
        ("does not lie on the grid",),
        TAKE_READY,
    ),
]

CATALOGUE = [
    *FRAME_TIMES,
    *UNITS_AND_DOSE,
    *DECAY,
    *PEOPLE,
    *HEADERS,
    *VOXELS,
    *SELECTION,
    *SIDECARS,
    *LINKS,
    *SEGMENTATIONS,
]


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    replace(path, path.read_bytes())
    path.chmod(0)


@pytest.fixture(autouse=True)
def _same_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Leave the caches and the signal handlers of the tests' process as they were."""
    for variable in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        if variable not in os.environ:
            monkeypatch.setenv(variable, str(tmp_path_factory.getbasetemp() / variable.lower()))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def dataset(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom whose files are links to the phantom's."""
    root = tmp_path / "bids"
    shutil.copytree(phantom, root, copy_function=os.link)
    (tmp_path / "filter.json").write_text('{"static": {"reconstruction": "other"}}')
    return root


@dataclass(frozen=True)
class Answer:
    """What a run said: its exit code, its output on the terminal, and all that it wrote."""

    code: int
    printed: str
    written: str


@pytest.fixture
def ask(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs the participant level in this process."""

    def run(*options: str, output: str = "out") -> Answer:
        folder = tmp_path / output
        code = main(
            [str(dataset), str(folder), "participant", "--skip-bids-validation", "--nprocs", "1", *options]
        )
        printed = "".join(capsys.readouterr())
        texts = [p.read_text() for p in sorted(folder.rglob("*")) if p.suffix in (".log", ".tsv")]
        return Answer(code, printed, "\n".join(texts))

    return run


@pytest.mark.parametrize("case", [case.parameter for case in CATALOGUE])
def test_every_input_gets_an_answer(
    case: Case, dataset: Path, tmp_path: Path, ask: Callable[..., Answer]
) -> None:
    case.edit(dataset)
    label = next(p.name for p in sorted(dataset.glob("sub-*")) if p.name != "sub-002" and p.is_dir())
    how = ["--steps", *case.steps] if case.steps else ["--dry-run"]
    how += [option.format(root=dataset) for option in case.options]

    together = ask(*how, output="together")
    _check_clean(together, tmp_path / "together", tmp_path)
    answer = together
    if case.code:
        answer = ask("--participant-label", label, *how, output="alone")
        _check_clean(answer, tmp_path / "alone", tmp_path)
    assert answer.code == case.code, answer.printed
    said = answer.printed + answer.written
    for words in case.words:
        assert re.search(re.escape(words).replace(r"\|", "|"), said), f"{words!r} not in: {answer.printed}"
    if case.everyone:
        assert together.code == case.code, together.printed
        return
    assert together.code == (1 if case.code else 0), together.printed
    if case.steps:
        assert "sub-002 FAILED" not in together.printed
        assert case.steps == READ_DYNAMIC or any((tmp_path / "together/sub-002").rglob("sub-002*.json"))
    else:
        assert re.search(r"sub-002\n(  .*\n)*    segment total +to run", together.printed), together.printed


def _check_clean(answer: Answer, output: Path, tmp_path: Path) -> None:
    """No crash, no image or table without its sidecar, nothing run or written elsewhere."""
    assert "Traceback" not in answer.printed + answer.written
    assert not list(output.rglob("crash-*"))
    for path in output.rglob("*.nii.gz"):
        assert path.with_name(path.name.replace(".nii.gz", ".json")).is_file(), path
    assert not [
        p for p in output.rglob("*") if p.name.startswith(".") and p.name not in (".lock", ".bidsignore")
    ]
    assert not any(path.name == "hacked" for path in (*tmp_path.rglob("*"), *Path.cwd().iterdir()))


# ---- the dataset and the command line as a whole


def test_folders_above_the_dataset_may_be_called_anything(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    below = tmp_path / "pet" / "sub-99" / "ses-9" / "rec-x_ct.nii" / "bids"
    below.parent.mkdir(parents=True)
    dataset.rename(below)
    assert (
        main([str(below), str(tmp_path / "out"), "participant", "--skip-bids-validation", "--dry-run"]) == 0
    )
    plan = capsys.readouterr().out
    assert "sub-001_ses-quadra_rec-br38f_seg-total_dseg.nii.gz" in plan
    assert re.search("sub-001\n(  .*\n)*    tacs +to run", plan)


@pytest.mark.parametrize(
    ("edit", "arguments", "code", "words"),
    [
        (without("dataset_description.json"), ["{bids}", "{out}"], 66, "no dataset_description.json"),
        (without("sub-*"), ["{bids}", "{out}"], 18, "no sub-* folder"),
        (without(), ["{bids}/nothing", "{out}"], 66, "does not exist"),
        (without(), ["{bids}/participants.tsv", "{out}"], 66, "is not a folder"),
        (without(), ["{bids}", "{bids}"], 2, "output"),
        (without(), ["{bids}", "{bids}/sub-001/out"], 2, "output"),
        (without(), ["{bids}", "{bids}/../filter.json"], 73, "Not a directory"),
        (without(), ["{bids}", "{out}", "--participant-label", "009"], 18, "It has: 001, 002"),
        (without(), ["{bids}", "{out}", "--participant-label", "../x"], 18, "No folder for participant ../x"),
        (without(), ["{bids}", "{out}", "--participant-label", "$(touch hacked)"], 18, "No folder"),
        (without(), ["{bids}", "{out}", "--participant-label", "001/ses-quadra"], 18, "No folder"),
        (without(), ["{bids}", "{out}", "--bids-filter-file", "{bids}/none.json"], 66, "does not exist"),
        (
            file("f.json", "{"),
            ["{bids}", "{out}", "--bids-filter-file", "{bids}/f.json"],
            65,
            "cannot be read as JSON",
        ),
        (file("f.json", NESTED), ["{bids}", "{out}", "--bids-filter-file", "{bids}/f.json"], 65, "deep"),
        (
            file("f.json", '{"pet": {}}'),
            ["{bids}", "{out}", "--bids-filter-file", "{bids}/f.json"],
            2,
            "keys are among",
        ),
        (without(), ["{bids}", "{out}", "-d", "totalsegmentator={bids}/none"], 66, "does not exist"),
        (without(), ["{bids}", "{out}", "--split", "train"], 2, "--split"),
        (file("s.toml", "[patlak"), ["{bids}", "{out}", "--settings", "{bids}/s.toml"], 2, "not valid TOML"),
        (file("s.toml", "[other]"), ["{bids}", "{out}", "--settings", "{bids}/s.toml"], 2, "other"),
    ],
)
def test_impossible_requests_are_refused(
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    edit: Edit,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    edit(dataset)
    bids, out, *options = (a.format(bids=dataset, out=tmp_path / "out") for a in arguments)
    before = sorted(dataset.rglob("*"))
    assert main([bids, out, "participant", "--skip-bids-validation", "--nprocs", "1", *options]) == code
    printed = "".join(capsys.readouterr())
    assert words in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()
    assert sorted(dataset.rglob("*")) == before
