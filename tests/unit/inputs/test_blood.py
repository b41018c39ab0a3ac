"""Blood samples: units, times, decay, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hedypet_bids.errors import BadDataError
from hedypet_bids.inputs.blood import blood_of
from hedypet_bids.inputs.pet_metadata import read_pet_metadata
from hedypet_bids.names import ScanName, Source

F18_S = 6586.2
PET = {
    "Units": "Bq/mL",
    "TracerRadionuclide": "F18",
    "TimeZero": "10:00:00",
    "ScanStart": 100,
    "InjectionStart": 100,
    "FrameTimesStart": [100, 160],
    "FrameDuration": [60, 60],
    "ImageDecayCorrected": True,
    "ImageDecayCorrectionTime": 100,
}
OWN, OTHER = ScanName("a", "FDG"), ScanName("a", "PSMA")
STEM = "sub-1_ses-a_recording-manual"


def read(tmp_path: Path, table: str, sidecar: dict[str, Any] | None = None, *, stem: str = STEM, **more: Any):
    """The recordings of a scan with one table, in which columns are separated by spaces."""
    folder = tmp_path / "sub-1" / "ses-a" / "pet"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}_blood.tsv"
    path.write_text(table.replace(" ", "\t"))
    path.with_suffix(".json").write_text(json.dumps(UNITS if sidecar is None else sidecar))
    image = folder / "sub-1_ses-a_trc-FDG_rec-dyn_pet.nii.gz"
    entities = {"subject": "1", "session": "a", "tracer": "FDG", "reconstruction": "dyn"}
    source = Source(image, tmp_path, entities, "pet", "pet")
    metadata = read_pet_metadata({**PET, **more.pop("pet", {})}, n_frames=2, where="x")
    return blood_of(tmp_path, "1", source, more.pop("scans", [OWN]), metadata)


def units(plasma: str = "Bq/mL", blood: str = "Bq/mL", **more: Any) -> dict[str, Any]:
    return {
        "time": {"Units": "s"},
        "plasma_radioactivity": {"Units": plasma},
        "whole_blood_radioactivity": {"Units": blood},
        **more,
    }


UNITS = units()
TABLE = "time plasma_radioactivity\n100 0\n130 500\n160 200\n"


def test_times_count_from_the_injection(tmp_path: Path) -> None:
    [found] = read(tmp_path, TABLE)
    assert (found.label, found.time_s.tolist()) == ("manual", [0, 30, 60])
    assert found.plasma.tolist() == [0, 500, 200] and np.isnan(found.whole_blood).all()
    minutes = {**UNITS, "time": {"Units": "min"}}
    [found] = read(tmp_path, "time plasma_radioactivity\n2 5\n3 7\n4 6\n", minutes)
    assert found.time_s.tolist() == [20, 80, 140]


@pytest.mark.parametrize(
    ("written", "factor"),
    [
        ("kBq/mL", 1e3),
        ("MBq/L", 1e3),
        ("Bq/cc", 1.0),
        ("kBq/ml", 1e3),
        ("nCi/mL", 37.0),
        ("uCi/mL", 3.7e4),
        ("µCi/mL", 3.7e4),
        ("Bq/L", 1e-3),
        ("Bq cm3", 1.0),
    ],
)
def test_other_units_are_converted(tmp_path: Path, written: str, factor: float) -> None:
    [found] = read(tmp_path, TABLE, units(plasma=written))
    np.testing.assert_allclose(found.plasma, np.array([0, 500, 200]) * factor)


@pytest.mark.parametrize(
    ("stated", "factor"),
    [
        ({}, [1.0, 1.0, 1.0]),
        ({"BloodDecayCorrected": True}, [1.0, 1.0, 1.0]),
        ({"BloodDecayCorrected": True, "BloodDecayCorrectionTime": 0}, [2 ** (-100 / F18_S)] * 3),
        ({"BloodDecayCorrected": False}, [2 ** (t / F18_S) for t in (0, 30, 60)]),
    ],
)
def test_decay_is_corrected_to_the_injection(
    tmp_path: Path, stated: dict[str, Any], factor: list[float]
) -> None:
    [found] = read(tmp_path, TABLE, units(**stated))
    np.testing.assert_allclose(found.plasma, np.array([0, 500, 200]) * factor, rtol=1e-12)
    assert bool(found.notes) == ("BloodDecayCorrected" not in stated)


def test_what_is_out_of_order_or_stands_twice_is_put_right_and_told(tmp_path: Path) -> None:
    stated = units(BloodDecayCorrected=True)
    [found] = read(
        tmp_path,
        "time plasma_radioactivity whole_blood_radioactivity\n"
        "160 200 n/a\n130 500 400\n160 200 100\n100 n/a n/a\n190 150 80\n",
        stated,
    )
    assert found.time_s.tolist() == [30, 60, 90]
    assert found.plasma.tolist() == [500, 200, 150] and found.whole_blood.tolist() == [400, 100, 80]
    assert len(found.notes) == 2


def test_recordings_of_other_scans_are_left_alone(tmp_path: Path) -> None:
    assert read(tmp_path, TABLE, stem="sub-1_ses-a_trc-PSMA_recording-manual", scans=[OWN, OTHER]) == ()
    [found] = read(tmp_path, TABLE, stem="sub-1_ses-a_trc-FDG_recording-manual", scans=[OWN, OTHER])
    assert found.path.name.startswith("sub-1_ses-a_trc-FDG")


@pytest.mark.parametrize(
    ("table", "sidecar", "more", "words"),
    [
        (TABLE, units(plasma="Bq"), {}, "found 'Bq'"),
        (TABLE, {"time": {"Units": "s"}}, {}, "found nothing"),
        (TABLE, {**UNITS, "time": {"Units": "h"}}, {}, "'h'"),
        (TABLE.replace("500", "much"), UNITS, {}, "'much'"),
        (TABLE.replace("130", "n/a"), UNITS, {}, "column time"),
        ("plasma_radioactivity\n5\n", UNITS, {}, "needs a column time"),
        ("time\n5\n", UNITS, {}, "0 of plasma_radioactivity"),
        ("time plasma_radioactivity\n130 9\n160 5\n", UNITS, {}, "2 of plasma_radioactivity"),
        (TABLE + "130 400\n", UNITS, {}, "2 values for the same time"),
        ("time plasma_radioactivity\n100 0\n130 0\n", UNITS, {}, "nowhere above 0"),
        (TABLE, {**UNITS, "MetaboliteAvail": True}, {}, "MetaboliteAvail"),
        (
            "time plasma_radioactivity metabolite_parent_fraction\n100 5 100\n130 500 60\n",
            UNITS,
            {},
            "percent",
        ),
        (TABLE, UNITS, {"scans": [OWN, OTHER]}, "trc-PSMA"),
        (TABLE, UNITS, {"pet": {"ImageDecayCorrected": False}}, "BloodDecayCorrected"),
    ],
)
def test_what_cannot_be_right_is_refused(
    tmp_path: Path, table: str, sidecar: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadDataError) as error:
        read(tmp_path, table, sidecar, **more)
    assert words in str(error.value) and f"{STEM}_blood.tsv" in str(error.value)


def test_content_that_was_not_fetched_is_told_as_such(tmp_path: Path) -> None:
    folder = tmp_path / "sub-1" / "ses-a" / "pet"
    folder.mkdir(parents=True)
    (folder / f"{STEM}_blood.tsv").symlink_to(tmp_path / "annex")
    with pytest.raises(BadDataError, match=f"{STEM}_blood.tsv is a link"):
        read(tmp_path, TABLE, stem="sub-1_ses-a_recording-autosampler")
