"""An output of several scans, written by hand: what every file and number in it is, is known."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hedypet_bids.io.manifest import Kind, Manifest, Output, ScanEntry
from hedypet_bids.io.store import Store
from hedypet_bids.names import ScanName

TEST, RETEST = ScanName("test", "18FFDG"), ScanName("retest", "18FFDG")
SCANS = {"01": (TEST, RETEST), "02": (TEST,)}
RECONSTRUCTIONS = ("acPSF", "osem")

LIVER = {("01", TEST): 4000.0, ("01", RETEST): 6000.0, ("02", TEST): 3000.0}
"""Mean of the liver in acPSF, Bq/mL; osem has half of it, the brain twice as much."""
CONSTANT = {("01", TEST): 2000.0, ("01", RETEST): 2500.0, ("02", TEST): 1500.0}
"""What activity is divided by to be SUV, Bq/g; the other normalisations have twice as much."""
KI = {("01", TEST): 0.010, ("01", RETEST): 0.012, ("02", TEST): 0.020}

FACTOR = {"liver": 1.0, "brain": 2.0}
NORMALISATIONS = ("SUV", "SUL Decazes", "SUL Janma", "SUL James")
INPUT = "aortavois_ml-1_width-3_aorta_descending_upper"


def write_scans_output(root: Path) -> Path:
    """Participant 01 with a test and a retest, 02 with a test alone; both levels."""
    root.mkdir(parents=True)
    Store(root).write_dataset_files()
    for label, scans in SCANS.items():
        _write_participant(root, label, scans)
    for table, rows in _tables().items():
        _write_readout(root, table, rows)
    return root


def _write_participant(root: Path, label: str, scans: tuple[ScanName, ...]) -> None:
    outputs: list[Output] = []

    def add(kind: Kind, path: str, *owners: ScanName) -> Path:
        outputs.append(Output(kind, path, tuple(map(str, owners)), "step"))
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    first, sub = scans[0], f"sub-{label}"
    anat = f"{sub}/ses-test/anat/{sub}_ses-test"
    _image(add(("labels", "total"), f"{anat}_seg-total_dseg.nii.gz", *scans), 5)
    for number, scan in enumerate(scans):
        # There is one CT; where the scans share its name, the space tells their files apart.
        space = "bodystat" if scan == first else f"bodystatses{scan.session}"
        _image(add(("labels", "bodystat", "total"), f"{anat}_space-{space}_seg-total_dseg.nii.gz", scan), 5)
        ct = f"{sub}/ses-test/ct/{sub}_ses-test_space-{space}_ct.nii.gz"
        _image(add(("image", "bodystat", f"{sub}_ses-test_ct.nii.gz"), ct, scan), 40)
        pet = f"{sub}/ses-{scan.session}/pet/{sub}_{scan}"
        for rec, factor in zip(RECONSTRUCTIONS, (1.0, 0.5), strict=True):
            source = f"{sub}_{scan}_rec-{rec}_pet.nii.gz"
            path = f"{pet}_rec-{rec}_space-bodystat_pet.nii.gz"
            _image(add(("image", "bodystat", source), path, scan), factor * LIVER[label, scan])
        curves = pd.DataFrame({"frame_start": [0.0, 60.0], "frame_end": [60.0, 120.0], "liver": number})
        path = f"{pet}_rec-dyn_seg-total_tacs.tsv"
        written = add(("mean", "total", 0), path, scan)
        curves.to_csv(written, sep="\t", index=False)
        written.with_suffix(".json").write_text('{"InjectionStart": 0}')
        path = f"{pet}_rec-dyn_seg-total_model-Patlak_kinpar.tsv"
        fits = pd.DataFrame({"name": ["liver"], "Ki": [KI[label, scan]]})
        fits.to_csv(add(("kinetics", "Patlak", "total", 0), path, scan), sep="\t", index=False)
        page = add(("page",), f"{sub}_{scan}.html", scan)
        page.write_text(f"<title>{sub} {scan}</title>")
    Manifest(
        label=label,
        run="run",
        scans=tuple(
            ScanEntry(
                scan,
                f"{sub}_{scan}.html",
                f"{sub}_{scan}_rec-dyn_pet.nii.gz",
                tuple(f"{sub}_{scan}_rec-{rec}_pet.nii.gz" for rec in RECONSTRUCTIONS),
            )
            for scan in scans
        ),
        outputs=tuple(outputs),
    ).write(root)


def _image(path: Path, value: float) -> None:
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), value, dtype=np.float32), np.diag([4.0, 4, 4, 1])), path)


def _tables() -> dict[str, pd.DataFrame]:
    metadata, means, curves, blood, fits, estimates = [], [], [], [], [], []
    for (label, scan), liver in LIVER.items():
        of_scan = {"Session": scan.session, "Tracer": scan.tracer, "Run": None}
        subject = {"Subject": f"sub-{label}"}
        denominators = {
            f"{name} Denominator [Bq/mL]": CONSTANT[label, scan] * (1 if name == "SUV" else 2)
            for name in NORMALISATIONS
        }
        person = {
            "Weight [kg]": 70.0,
            "Demographic Group [Sex,Age]": "F18-34",
            "Injected Activity [MBq]": 100.0,
        }
        more = {"Height [m]": 1.7, "Sex": "F", "Age [years]": 30.0, "Missing": None, "Split": None}
        metadata.append({**subject, **person, **denominators, **more, **of_scan, "Reconstruction": None})
        for name, factor in FACTOR.items():
            region = {
                **subject,
                "Task": "ts_total",
                "Label Index": 5,
                "Label Name": name,
                "Erosion Iterations": 0,
            }
            for rec, share in zip(RECONSTRUCTIONS, (1.0, 0.5), strict=True):
                mean = {"PET Mean [Bq/mL]": liver * factor * share, "PET STD [Bq/mL]": 10.0}
                means.append({**region, **mean, "Volume [mL]": 9.0, **of_scan, "Reconstruction": rec})
            dynamic = {**of_scan, "Reconstruction": "dyn"}
            for frame in range(3):
                at = {"Frame Index": frame, "Frame Time Middle [s]": 30.0 + 60 * frame}
                mean = {"PET Mean [Bq/mL]": liver * factor * frame, "PET STD [Bq/mL]": 10.0}
                curves.append({**region, **at, **mean, **dynamic})
                if name == "liver":
                    voi = {"Task": "aortavois_ml-1_width-3", "Label Name": "aorta_descending_upper"}
                    blood.append({**region, **voi, **at, **mean, **dynamic})
            for window in (2, 3, 4):
                ki = {
                    "Patlak Ki": KI[label, scan] * factor,
                    "Patlak Ki SE": 0.001,
                    "Patlak V0": 0.5,
                    "R2": 0.9,
                }
                asked = {"Input Function Identifier": INPUT, "Regression Frames": window}
                fits.append({**region, **asked, **ki, **dynamic})
            for parameter, value, units in (
                ("Ki", KI[label, scan] * factor, "mL/min/mL"),
                ("V0", 0.5, "mL/mL"),
            ):
                asked = {"Model": "Patlak", "Input Function Identifier": INPUT, "Parameter": parameter}
                estimates.append({**region, **asked, "Value": value, "SE": 0.001, "Units": units, **dynamic})
    tables = {"metadata": metadata, "means": means, "tacs": curves, "input_function_tacs": blood}
    return {
        name: pd.DataFrame(rows)
        for name, rows in {**tables, "patlak_ki": fits, "kinetics": estimates}.items()
    }


def _write_readout(root: Path, table: str, rows: pd.DataFrame) -> None:
    path = root / "readouts" / f"{table}.parquet"
    path.parent.mkdir(exist_ok=True)
    types = {"O": pa.string(), "i": pa.int64(), "f": pa.float64()}
    schema = pa.schema([(name, types.get(kind.kind, pa.string())) for name, kind in rows.dtypes.items()])
    pq.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False), path)
    path.with_suffix(".json").write_text(json.dumps({name: {"Description": name} for name in rows}))
