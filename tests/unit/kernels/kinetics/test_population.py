"""Early blood that other people lend: made-up people, and each hedyPET participant with all others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from running import SHARED

from hedypet_bids.errors import BadDataError
from hedypet_bids.kernels.kinetics import Patlak, PatlakPBIF, why_not
from hedypet_bids.kernels.kinetics.population_input import PopulationInput, population_input
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom import hedypet_frames, merged_frames
from hedypet_bids.phantom.kinetics import FengInput, Kinetics, input_function, tissue_curve
from hedypet_bids.settings import Settings

FRAMES = hedypet_frames()
INPUT = FengInput(851100.0, 21880.0, 20810.0, delay_s=15.0)
TISSUE = Kinetics(0.10, 0.15, 0.08, 0.05)
SETTINGS = Settings().with_values({"kinetics": {"patlak": {"rule": "frames", "last_frames": [4, 8, 9]}}})
READOUTS = SHARED / "readouts"
REGIONS = ("Gray matter", "Liver", "Skeletal muscle", "Vertebral column")


def late(frames: FrameTimes, from_s: float) -> slice:
    return slice(int(np.searchsorted(frames.start_s, from_s)), None)


def cut(frames: FrameTimes, which: slice) -> FrameTimes:
    return FrameTimes(frames.start_s[which], frames.duration_s[which])


def people(*boluses: float) -> list[tuple[FrameTimes, NDArray[np.float64]]]:
    """Input functions that differ in dose, which cancels, and in the bolus, which does not."""
    doses = (0.5, 0.8, 1.0, 1.3, 1.7, 2.0)
    return [
        (FRAMES, dose * input_function(FRAMES, replace(INPUT, a1=bolus * INPUT.a1)))
        for dose, bolus in zip(doses, boluses, strict=False)
    ]


def fitted(model: Patlak, curve: Any, blood: Any, frames: FrameTimes = FRAMES) -> pd.DataFrame:
    fits = model.fit(np.atleast_2d(curve), np.atleast_2d(blood), frames, SETTINGS)
    return model.table(fits, ["region"], ["blood"]).set_index("last_frames")


def test_where_all_people_are_alike_ki_is_that_of_the_whole_input_and_has_no_error() -> None:
    population = population_input(people(1, 1, 1, 1, 1))
    blood, curve = input_function(FRAMES, INPUT), tissue_curve(FRAMES, INPUT, TISSUE)
    found, whole = (fitted(model, curve, blood) for model in (PatlakPBIF(population), Patlak()))
    for name in ("Ki", "V0"):
        np.testing.assert_allclose(found.loc[[4, 8], name], whole.loc[[4, 8], name], rtol=1e-3)
    assert found.loc[8, "Ki_error"] < 1e-6
    # Nine frames reach into time that is not the scan's own.
    assert np.isnan(found.loc[9, "Ki"]) and "30 min" in found.loc[9, "reason"]
    assert found.loc[9, "n_used"] == 0


def test_a_scan_and_its_late_part_give_the_same() -> None:
    model = PatlakPBIF(population_input(people(0.6, 0.8, 1.0, 1.2, 1.4)))
    blood, curve = input_function(FRAMES, INPUT), tissue_curve(FRAMES, INPUT, TISSUE)
    which = late(FRAMES, 1800.0)
    whole, part = (
        fitted(model, curve, blood),
        fitted(model, curve[which], blood[which], cut(FRAMES, which)),
    )
    pd.testing.assert_frame_equal(whole, part)
    # Other models need the beginning.
    frames = cut(FRAMES, late(FRAMES, 3000.0))
    assert why_not(Patlak(), "FDG", frames, SETTINGS) and not why_not(model, "FDG", frames, SETTINGS)


def test_windows_that_start_at_a_time_hold_the_frames_of_the_scan() -> None:
    model = PatlakPBIF(population_input(people(1, 1, 1, 1, 1)))
    blood, curve = input_function(FRAMES, INPUT), tissue_curve(FRAMES, INPUT, TISSUE)
    which = late(FRAMES, 3000.0)
    settings = Settings().with_values(
        {"kinetics": {"patlak": {"last_frames": [4], "start_min": [10, 30, 40]}}}
    )
    fits = model.fit(curve[None, which], blood[None, which], cut(FRAMES, which), settings)
    table = model.table(fits, ["region"], ["blood"])
    assert table["start_min"].tolist()[1:] == [10, 30, 40]
    assert np.isnan(table["Ki"][1]) and table["n_used"].tolist() == [4, 0, 4, 4]
    assert table["Ki"][2] == table["Ki"][3] == table["Ki"][0] > 0


def test_error_is_the_spread_of_ki_over_the_people() -> None:
    boluses = (0.6, 0.8, 1.0, 1.2, 1.4)
    lent = people(*boluses)
    blood, curve = input_function(FRAMES, INPUT), tissue_curve(FRAMES, INPUT, TISSUE)
    which = late(FRAMES, 1800.0)
    # The scan as it would be with the whole early blood of each of them, with the same late blood.
    minutes = FRAMES.duration_s / 60
    ki = []
    for _, of_person in lent:
        level = blood[which][:2].mean() / of_person[which][:2].mean()
        joined = np.concatenate([level * of_person[: which.start], blood[which]])
        x = (np.cumsum(joined * minutes) - joined * minutes / 2)[which] / blood[which]
        ki.append(np.polyfit(x, curve[which] / blood[which], 1)[0])
    found = fitted(PatlakPBIF(population_input(lent)), curve, blood).loc[8]
    assert found["Ki_error"] == pytest.approx(100 * np.std(ki, ddof=1) / np.mean(ki), rel=0.05)
    assert found["Ki_error"] > 0.5


def test_people_with_other_frames_lend_the_same() -> None:
    of_others = merged_frames(FRAMES, 30)
    blood, curve = input_function(FRAMES, INPUT), tissue_curve(FRAMES, INPUT, TISSUE)
    models = [
        PatlakPBIF(population_input([(frames, input_function(frames, INPUT))] * 5))
        for frames in (FRAMES, of_others)
    ]
    ki = [fitted(model, curve, blood).loc[8, "Ki"] for model in models]
    assert ki[0] == pytest.approx(ki[1], rel=3e-3)


def test_people_without_whole_blood_are_left_out_and_too_few_are_refused() -> None:
    alike = people(1, 1, 1, 1, 1, 1)
    without_value = alike[0][1].copy()
    without_value[3] = np.nan
    which = late(FRAMES, 60.0)
    broken = [(FRAMES, without_value), (cut(FRAMES, which), alike[1][1][which])]
    population = population_input([*alike[:5], *broken])
    assert population.n_of_all == 7 and population.n_left_out == 2
    with pytest.raises(BadDataError, match="found 4 of 6"):
        population_input([*alike[:4], *broken])
    # Who ends early cannot lend to a scan that starts later.
    early = slice(0, late(FRAMES, 3000.0).start)
    short = population_input([*alike[:4], *[(cut(FRAMES, early), alike[0][1][early])] * 3])
    at_30, at_50 = (cut(FRAMES, late(FRAMES, at)) for at in (1800.0, 3000.0))
    assert not short.why_not(at_30) and short.n_people(at_30) == 7
    assert "4 people" in short.why_not(at_50)
    found = fitted(PatlakPBIF(short), *[np.ones(len(at_50))] * 2, at_50)
    assert found["Ki"].isna().all() and found["reason"].str.contains("4 people").all()


def test_without_people_or_late_frames_there_is_a_reason() -> None:
    assert "population_readouts" in why_not(PatlakPBIF(), "FDG", FRAMES, SETTINGS)
    of_start = cut(FRAMES, slice(0, 40))
    model = PatlakPBIF(population_input(people(1, 1, 1, 1, 1)))
    assert "t_star_min" in why_not(model, "FDG", of_start, SETTINGS)


@pytest.fixture(scope="module")
def measured() -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Blood (n_people, n_frames), and curves of regions in the same order of people."""
    blood = pd.read_csv(READOUTS / "input_function_tacs.tsv.gz", sep="\t")
    blood = blood[blood["Task"].eq("aortavois_ml-full_width-3") & blood["Label Name"].str.contains("desc")]
    tacs = pd.read_csv(READOUTS / "tacs.tsv.gz", sep="\t")
    tacs = tacs[tacs["Erosion Iterations"] == 0]
    shape = {"index": "Subject", "columns": "Frame Index", "values": "PET Mean [Bq/mL]"}
    curves = {name: tacs[tacs["Label Name"] == name].pivot_table(**shape) for name in REGIONS}
    of_people = blood.pivot_table(**shape)
    return of_people.to_numpy(), {n: c.loc[of_people.index].to_numpy() for n, c in curves.items()}


@pytest.mark.skipif(
    not READOUTS.is_dir(), reason="the measured hedyPET tables (shared/data/readouts) are not here"
)
@pytest.mark.parametrize(("from_min", "most_sd"), [(30.0, 2.0), (50.0, 3.0)])
def test_of_each_person_with_the_blood_of_all_others(
    measured: tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]], from_min: float, most_sd: float
) -> None:
    blood, curves = measured
    assert len(blood) == 41
    which = late(FRAMES, 60 * from_min)
    last = min(8, len(FRAMES) - which.start)
    settings = SETTINGS.with_values({"kinetics": {"patlak": {"last_frames": [last]}}})
    deviations, errors = [], []
    for person, own in enumerate(blood):
        others: PopulationInput = population_input([(FRAMES, b) for b in np.delete(blood, person, axis=0)])
        regions = np.array([of_people[person] for of_people in curves.values()])
        whole = Patlak().fit(regions, own[None], FRAMES, settings).values["Ki"].ravel()
        part = PatlakPBIF(others).fit(regions[:, which], own[None, which], cut(FRAMES, which), settings)
        deviations.append(100 * (part.values["Ki"].ravel() / whole - 1))
        errors.append(part.values["Ki_error"].ravel())
    bias, sd = np.mean(deviations, axis=0), np.std(deviations, axis=0, ddof=1)
    assert (np.abs(bias) < 0.5).all(), bias
    assert (sd < most_sd).all(), sd
    # The error that each scan is given is that which is found.
    np.testing.assert_allclose(np.mean(errors, axis=0), sd, rtol=0.25)
