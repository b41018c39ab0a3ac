from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from hedypet_bids.errors import BadDataError
from hedypet_bids.inputs.participant_metadata import read_participant
from hedypet_bids.inputs.pet_metadata import HALF_LIFE_S, decay_correction, odd_dose, read_pet_metadata
from hedypet_bids.model import FrameTimes

REALISTIC = Path(__file__).resolve().parents[4] / "shared" / "data" / "realistic"
F18_S = 6586.2


def sidecar(**changes):
    """Two frames of an FDG scan; a change to None takes the key away."""
    content = {
        "Units": "Bq/mL",
        "TracerRadionuclide": "F18",
        "InjectedRadioactivity": 200,
        "InjectedRadioactivityUnits": "MBq",
        "ModeOfAdministration": "bolus",
        "TimeZero": "10:00:00",
        "ScanStart": 0,
        "InjectionStart": 0,
        "FrameTimesStart": [0, 60],
        "FrameDuration": [60, 300],
        "ImageDecayCorrected": True,
        "ImageDecayCorrectionTime": 0,
    } | changes
    return {key: value for key, value in content.items() if value is not None}


def read(n_frames=2, **changes):
    return read_pet_metadata(sidecar(**changes), n_frames=n_frames, where="sub-1_pet.json")


def test_a_scan_that_needs_no_conversion():
    pet = read()
    assert (pet.dose_bq, pet.dose_reason, pet.units_factor) == (200e6, "", 1.0)
    assert (pet.radionuclide, pet.half_life_s) == ("F18", F18_S)
    assert (pet.scan_start_s, pet.decay_corrected, pet.decay_reference_s) == (0.0, True, 0.0)
    assert pet.frames.start_s.tolist() == [0, 60]
    assert pet.scale.tolist() == [1, 1]
    assert pet.notes == ()


# ---- times


def test_times_count_from_the_injection():
    """The scan is time zero, the tracer was given half an hour before."""
    pet = read(InjectionStart=-1800)
    assert pet.frames.start_s.tolist() == [1800, 1860]
    assert pet.scan_start_s == 1800


@given(st.floats(-20000, 20000), st.sampled_from([True, False]), st.floats(-3000, 3000))
@settings(max_examples=60, deadline=None)
def test_the_choice_of_time_zero_does_not_matter(shift_s, corrected, reference_s):
    """Moving every time by the same amount changes nothing but rounding."""
    times = {"ScanStart": -5, "InjectionStart": 10, "ImageDecayCorrectionTime": reference_s}
    base = read(ImageDecayCorrected=corrected, FrameTimesStart=[-5, 60], FrameDuration=[60, 300], **times)
    moved = read(
        ImageDecayCorrected=corrected,
        FrameTimesStart=[-5 + shift_s, 60 + shift_s],
        **{key: value + shift_s for key, value in times.items()},
    )
    np.testing.assert_allclose(moved.frames.start_s, base.frames.start_s, atol=1e-8)
    np.testing.assert_allclose(moved.scale, base.scale, rtol=1e-9)
    assert moved.scan_start_s == pytest.approx(base.scan_start_s, abs=1e-8)


def test_a_static_image_may_have_numbers_instead_of_lists():
    pet = read(1, FrameTimesStart=3000, FrameDuration=1200, ScanStart=0)
    assert pet.frames.mid_s.tolist() == [3600]


def test_a_missing_scan_start_is_the_first_frame_and_noted():
    pet = read(ScanStart=None, FrameTimesStart=[20, 80])
    assert pet.scan_start_s == 20
    assert "ScanStart" in pet.notes[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"FrameTimesStart": [0, 60, 120]}, "3 entries, the image 2 frames"),
        ({"FrameDuration": [60]}, "1 entries, the image 2 frames"),
        ({"FrameTimesStart": None}, "found nothing"),
        ({"FrameTimesStart": ["a", "b"]}, "list of seconds"),
        ({"FrameDuration": [60, 0]}, "Frame 1"),
        ({"FrameDuration": [90, 300]}, "overlap"),
        ({"FrameTimesStart": [60, 0]}, "must increase"),
        ({"InjectionStart": None}, "InjectionStart must be a number"),
        ({"InjectionStart": "n/a"}, "InjectionStart must be a number"),
        ({"InjectionStart": 4000}, "before the injection"),
        ({"ScanStart": 3000}, "before ScanStart"),
        ({"ImageDecayCorrected": None}, "ImageDecayCorrected must be true or false"),
        ({"ImageDecayCorrected": "yes"}, "ImageDecayCorrected must be true or false"),
        ({"ImageDecayCorrectionTime": None, "InjectionStart": -3600}, "ImageDecayCorrectionTime"),
        ({"ImageDecayCorrectionTime": 30, "TracerRadionuclide": "Xe133"}, "TracerRadionuclide"),
        ({"ImageDecayCorrected": False, "TracerRadionuclide": None}, "TracerRadionuclide"),
        ({"Units": "CNTS"}, "counts"),
        ({"Units": "PROPCNTS"}, "PROPCNTS"),
        ({"Units": "counts/s"}, "counts/s"),
        ({"Units": "g/mL"}, "g/mL"),
        ({"Units": "SUV"}, "SUV"),
        ({"Units": "mBq/mL"}, "mBq/mL"),
        ({"Units": None}, "found nothing"),
    ],
)
def test_impossible_contents_are_refused_with_the_file(changes, words):
    with pytest.raises(BadDataError, match=r"sub-1_pet\.json") as caught:
        read(**changes)
    assert words in str(caught.value)


# ---- units and dose


@pytest.mark.parametrize(
    ("units", "factor"),
    [
        ("Bq/mL", 1),
        ("Bq/ml", 1),
        ("BQML", 1),
        ("Bq/cc", 1),
        ("kBq/mL", 1e3),
        ("kBq / ml", 1e3),
        ("MBq/mL", 1e6),
    ],
)
def test_units_become_bq_per_ml(units, factor):
    pet = read(Units=units)
    assert pet.units_factor == factor
    assert pet.scale.tolist() == [factor, factor]
    assert pet.units == units


@pytest.mark.parametrize(
    ("amount", "units", "dose_bq"),
    [
        (27895853.2, "Bq", 27895853.2),
        (27895.8, "kBq", 27895800.0),
        (27.9, "MBq", 27.9e6),
        ("27.9", "MBq", 27.9e6),
        (0.2, "GBq", 2e8),
        (5, "mCi", 185e6),
        (5000, "uCi", 185e6),
        (5000, "µCi", 185e6),
        (5000, "\u03bcCi", 185e6),
    ],
)
def test_dose_units(amount, units, dose_bq):
    pet = read(InjectedRadioactivity=amount, InjectedRadioactivityUnits=units)
    assert pet.dose_bq == pytest.approx(dose_bq, rel=1e-12)
    assert pet.dose_reason == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"InjectedRadioactivity": None}, "InjectedRadioactivity is nothing"),
        ({"InjectedRadioactivity": "n/a"}, "InjectedRadioactivity is 'n/a'"),
        ({"InjectedRadioactivityUnits": None}, "BIDS has no default"),
        ({"InjectedRadioactivityUnits": "n/a"}, "'n/a'"),
        ({"InjectedRadioactivityUnits": "mBq"}, "'mBq'"),
        # The usual mistake: a number in Bq beside the word MBq, or the other way round.
        ({"InjectedRadioactivity": 27895853}, "check InjectedRadioactivityUnits"),
        ({"InjectedRadioactivityUnits": "Bq"}, "check InjectedRadioactivityUnits"),
        ({"InjectedRadioactivity": -200}, "-200 MBq"),
        ({"InjectedRadioactivity": 0}, "0 MBq"),
    ],
)
def test_an_unknown_dose_is_nan_with_a_reason_and_no_failure(changes, words):
    pet = read(**changes)
    assert math.isnan(pet.dose_bq)
    assert words in pet.dose_reason
    assert pet.dose_reason in pet.notes


# ---- decay


@pytest.mark.parametrize(
    ("text", "nuclide"),
    [
        ("F18", "F18"),
        ("18F", "F18"),
        ("F-18", "F18"),
        ("[18F]", "F18"),
        ("^18^Fluorine", "F18"),
        ("c11", "C11"),
        ("Ga68", "Ga68"),
        ("ZR89", "Zr89"),
        ("Rubidium-82", "Rb82"),
    ],
)
def test_spellings_of_radionuclides(text, nuclide):
    assert read(TracerRadionuclide=text).radionuclide == nuclide
    assert nuclide in HALF_LIFE_S


def test_half_lives_are_those_of_the_nuclides():
    """Minutes, hours or days as any textbook rounds them."""
    textbook_s = {
        "C11": 20.4 * 60,
        "N13": 9.97 * 60,
        "O15": 122,
        "F18": 109.8 * 60,
        "Cu64": 12.7 * 3600,
        "Ga68": 67.7 * 60,
        "Rb82": 1.26 * 60,
        "Zr89": 78.4 * 3600,
        "I124": 4.18 * 86400,
    }
    assert {n: pytest.approx(t, rel=5e-3) for n, t in textbook_s.items()} == dict(HALF_LIFE_S)


@given(st.floats(-100, 20000), st.floats(0.5, 3600), st.sampled_from(sorted(HALF_LIFE_S)))
@settings(max_examples=60, deadline=None)
def test_decay_correction_gives_back_constant_activity(start_s, duration_s, nuclide):
    """The factor times the mean of the decaying activity over the frame is 1."""
    rate = math.log(2) / HALF_LIFE_S[nuclide]
    start_s = min(start_s, 20 / rate)
    frames = FrameTimes(start_s=[start_s], duration_s=[duration_s])
    area, _ = quad(
        lambda t: math.exp(-rate * t), start_s, start_s + duration_s, epsabs=0, epsrel=1e-12, limit=500
    )
    factor = decay_correction(frames, half_life_s=HALF_LIFE_S[nuclide]).item()
    assert factor * area / duration_s == pytest.approx(1, rel=1e-9)


def test_an_uncorrected_image_is_corrected_frame_by_frame():
    pet = read(
        ImageDecayCorrected=False, ImageDecayCorrectionTime="n/a", InjectionStart=-3600, Units="kBq/mL"
    )
    assert not pet.decay_corrected
    assert math.isnan(pet.decay_reference_s)
    rate = math.log(2) / F18_S
    for start_s, duration_s, scale in zip([3600, 3660], [60, 300], pet.scale, strict=True):
        mean = (math.exp(-rate * start_s) - math.exp(-rate * (start_s + duration_s))) / (rate * duration_s)
        assert scale * mean == pytest.approx(1000, rel=1e-9)
    assert any("not decay-corrected" in note for note in pet.notes)


def test_an_image_corrected_to_the_scan_start_is_shifted_to_the_injection():
    """One half-life after injection: twice the stored values."""
    pet = read(InjectionStart=-F18_S)
    np.testing.assert_allclose(pet.scale, [2, 2])
    assert pet.decay_reference_s == F18_S
    assert any("shifted to injection" in note for note in pet.notes)


def test_a_missing_reference_time_is_harmless_when_scan_and_injection_start_together():
    pet = read(ImageDecayCorrectionTime=None)
    assert pet.scale.tolist() == [1, 1]
    assert "ImageDecayCorrectionTime" in pet.notes[0]


def test_an_unlisted_nuclide_is_no_hindrance_when_nothing_is_to_be_corrected():
    pet = read(TracerRadionuclide="Br76")
    assert math.isnan(pet.half_life_s)
    assert pet.scale.tolist() == [1, 1]


@pytest.mark.parametrize(("reference_s", "noted"), [(0, False), (-3600, True)])
def test_decay_factors_that_contradict_the_reference_time_are_noted(reference_s, noted):
    frames = FrameTimes(start_s=[3600, 3660], duration_s=[60, 300])
    factors = decay_correction(frames, half_life_s=F18_S) * 2 ** (-3600 / F18_S)
    pet = read(
        InjectionStart=-3600, ImageDecayCorrectionTime=reference_s, DecayCorrectionFactor=factors.tolist()
    )
    assert any("DecayCorrectionFactor" in note for note in pet.notes) == noted


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ScaleFactor": [1.0, 2.0]}, "ScaleFactor"),
        ({"ModeOfAdministration": "bolus-infusion"}, "bolus-infusion"),
    ],
)
def test_oddities_are_noted(changes, words):
    assert any(words in note for note in read(**changes).notes)
    assert read(ScaleFactor=[1, 1.0]).notes == ()


@pytest.mark.skipif(
    not REALISTIC.is_dir(), reason="the realistic dataset (shared/data/realistic) is not here"
)
@pytest.mark.parametrize(
    ("subject", "rec", "n_frames", "dose_mbq"),
    [
        ("001", "acdynPSF", 69, 27.895853241040463),
        ("001", "acstatPSF", 1, 27.895853241040463),
        ("002", "acstatPSF", 1, 43.93098807971909),
    ],
)
def test_realistic_sidecars(subject, rec, n_frames, dose_mbq):
    name = f"sub-{subject}_ses-quadra_trc-18FFDG_rec-{rec}_pet.json"
    content = json.loads((REALISTIC / f"sub-{subject}" / "ses-quadra" / "pet" / name).read_text())
    pet = read_pet_metadata(content, n_frames=n_frames, where=name)
    assert pet.dose_bq == pytest.approx(dose_mbq * 1e6, rel=1e-12)
    assert pet.frames.end_s[-1] == 4200
    assert (pet.scale == 1).all()
    assert pet.notes == ()


# ---- participants


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        ({"sex": "F", "weight": "70.0", "height": "1.7"}, {}, ("F", 70, 1.7)),
        ({"sex": "male", "body_weight": "82", "body_height": "186"}, {}, ("M", 82, 1.86)),
        ({"Sex": "FEMALE", "bodyweight": "55.5", "bodyheight": "1.62"}, {}, ("F", 55.5, 1.62)),
        ({"sex": "m", "body-weight": "60", "Height": "170"}, {"Height": {"Units": "cm"}}, ("M", 60, 1.7)),
        (
            {"sex": "F", "weight": "70000", "height": "1700"},
            {"weight": {"Units": "g"}, "height": {"Units": "mm"}},
            ("F", 70, 1.7),
        ),
        ({"sex": "F", "weight": "154.3236", "height": "1.7"}, {"weight": {"Units": "lb"}}, ("F", 70, 1.7)),
        (
            {"sex": "1", "weight_kg": "70", "height_cm": "170"},
            {"sex": {"Levels": {"1": "Male"}}},
            ("M", 70, 1.7),
        ),
        ({"sex": "n/a", "weight": "n/a", "height": ""}, {}, (None, None, None)),
        ({"sex": None, "participant_id": "sub-1"}, {}, (None, None, None)),
        ({}, {}, (None, None, None)),
    ],
)
def test_names_and_units_of_participants_tables(row, columns, expected):
    found = read_participant("1", row, columns=columns)
    sex, weight_kg, height_m = expected
    assert found.sex == sex
    assert found.weight_kg == (weight_kg and pytest.approx(weight_kg, rel=1e-6))
    assert found.height_m == (height_m and pytest.approx(height_m))


@pytest.mark.parametrize(
    ("row", "columns", "lost", "words"),
    [
        ({"height": "175"}, {}, None, "taken as cm"),
        ({"weight": "70,5"}, {}, "weight_kg", "not a number"),
        ({"weight": "70"}, {"weight": {"Units": "stone"}}, "weight_kg", "'stone' are unknown"),
        ({"sex": "O"}, {}, "sex", "expected M, F"),
        ({"age": "89+"}, {}, "age", "lower limit"),
        ({"age": "old"}, {}, "age", "not a number"),
    ],
)
def test_what_is_assumed_or_not_understood_is_noted(row, columns, lost, words):
    found = read_participant("1", row, columns=columns)
    assert len(found.notes) == 1
    assert words in found.notes[0]
    if lost:
        assert getattr(found, lost) is None


def test_stated_units_are_believed():
    """What the dataset states is not improved upon; 170 m is refused later, by its range."""
    assert read_participant("1", {"height": "170"}, columns={"height": {"Units": "m"}}).height_m == 170


def test_the_place_nearest_to_the_scan_wins_and_contradictions_are_noted():
    found = read_participant(
        "1",
        {"sex": "F", "weight": "70", "height": "1.70"},
        session={"session_id": "ses-1", "weight": "72"},
        sidecar={"PatientWeight": 70.1, "PatientSize": 1.7, "PatientSex": "M", "PatientAge": "045Y"},
    )
    assert (found.sex, found.weight_kg, found.height_m, found.age) == ("F", 72, 1.7, 45)
    assert len(found.notes) == 3
    assert "'72' in sessions.tsv but '70' in participants.tsv" in found.notes[1]
    assert "'F' in participants.tsv but 'M' in the PET sidecar" in found.notes[0]


def test_the_sidecar_stands_in_and_group_and_age_are_kept():
    found = read_participant(
        "072",
        {"age": "31", "demographic-group": "F18-34"},
        sidecar={"PatientWeight": 70, "PatientSize": 1.7, "PatientSex": "F"},
    )
    assert dataclasses.asdict(found) == {
        "label": "072",
        "sex": "F",
        "weight_kg": 70.0,
        "height_m": 1.7,
        "age": 31.0,
        "demographic_group": "F18-34",
        "glucose_mmol_l": None,
        "notes": (),
    }


def test_sessions_have_units_of_their_own():
    found = read_participant(
        "1",
        {"height": "1.7"},
        columns={"height": {"Units": "m"}},
        session={"height": "171"},
        session_columns={"height": {"Units": "cm"}},
    )
    assert found.height_m == pytest.approx(1.71)


@pytest.mark.parametrize(
    ("dose_mbq", "nuclide", "weight_kg", "odd"),
    [
        (774.0, "F18", 70.0, False),
        (0.774, "F18", 70.0, True),
        (7740.0, "F18", 70.0, True),
        (0.774, "F18", 25.0, False),
        (0.774, "F18", None, False),
        (1200.0, "Rb82", 70.0, False),
        (1200.0, "Zr89", 70.0, True),
        (0.774, "Tb152", 70.0, False),
        (math.nan, "F18", 70.0, False),
    ],
)
def test_doses_that_nobody_is_given_are_odd(
    dose_mbq: float, nuclide: str, weight_kg: float | None, odd: bool
) -> None:
    metadata = dataclasses.replace(read(), dose_bq=dose_mbq * 1e6, radionuclide=nuclide)
    assert bool(odd_dose(metadata, weight_kg)) == odd


@pytest.mark.parametrize(
    ("tracer", "nuclide", "agree"),
    [
        ("[18F]FDG", "F18", True),
        ("18F-FDG", "18F", True),
        ("FDG", "F18", True),
        ("F-18 fluorodeoxyglucose", "F18", True),
        ("[11C]UCB-J", "C11", True),
        ("68Ga-DOTATOC", "Ga68", True),
        ("15OH2O", "O15", True),
        ("[18F]FDG", "C11", False),
        ("18FFDG", "Ga68", False),
        ("[11C]choline", "F18", False),
        ("F-18 FDG", "Zz99", False),
        ("n/a", "F18", True),
    ],
)
def test_the_name_of_the_tracer_and_its_nuclide_agree(tracer: str, nuclide: str, agree: bool) -> None:
    problems = read(TracerName=tracer, TracerRadionuclide=nuclide).problems
    assert any("TracerRadionuclide" in problem for problem in problems) != agree


@pytest.mark.parametrize(
    ("reference_s", "odd"), [(-90_000, True), (-3600, False), (0, False), (300, False), (99_999, True)]
)
def test_decay_is_corrected_to_a_time_of_the_scan(reference_s: float, odd: bool) -> None:
    problems = read(ImageDecayCorrectionTime=reference_s).problems
    assert any("ImageDecayCorrectionTime" in problem for problem in problems) == odd
