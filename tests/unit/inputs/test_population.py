"""People who lend their early blood, from group tables in every form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hedypet_bids.errors import BadDataError, MissingInputError
from hedypet_bids.inputs.population import read_population
from hedypet_bids.kernels.kinetics.population_input import PopulationInput, population_input
from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom import hedypet_frames
from hedypet_bids.phantom.kinetics import FengInput, input_function
from hedypet_bids.settings import Settings

FRAMES = hedypet_frames()
LATE = FrameTimes(FRAMES.start_s[-8:], FRAMES.duration_s[-8:])
BLOOD = input_function(FRAMES, FengInput(851100.0, 21880.0, 20810.0, delay_s=15.0))
FULL = "aortavois_ml-full_width-3"
SEGMENTS = ("aorta_ascending", "aorta_descending_lower", "aorta_descending_upper")


def rows(subject: str, blood: Any, task: str = FULL, **more: Any) -> pd.DataFrame:
    """A person's rows in hedyPET's own columns; the ascending aorta has another curve."""
    parts = [
        pd.DataFrame(
            {
                "Subject": subject,
                "Task": task,
                "Label Name": segment,
                "Frame Index": np.arange(len(FRAMES)),
                "Frame Time Middle [s]": FRAMES.mid_s,
                "PET Mean [Bq/mL]": np.nan if "ascending" in segment else factor * np.asarray(blood),
                **more,
            }
        )
        for segment, factor in zip(SEGMENTS, (1.0, 0.9, 1.1), strict=True)
    ]
    return pd.concat(parts)


def shape_of(number: int) -> Any:
    return BLOOD * (1 + 0.1 * number * (FRAMES.mid_s < 300))


def table(n: int = 6) -> pd.DataFrame:
    return pd.concat([rows(f"sub-{number:03}", shape_of(number)) for number in range(n)], ignore_index=True)


def read(folder: Path) -> PopulationInput:
    found = read_population(
        Settings().with_values({"kinetics": {"population_readouts": str(folder.resolve())}})
    )
    assert found is not None
    return found


def test_every_form_of_the_table_gives_the_same_people(tmp_path: Path) -> None:
    assert read_population(Settings()) is None
    written = table()
    timed = written.assign(
        **{
            "Frame Start [s]": np.tile(FRAMES.start_s, 18),
            "Frame End [s]": np.tile(FRAMES.end_s, 18),
            "Tracer": "FDG",
        }
    )
    for name in ("parquet", "timed", "split", "text"):
        (tmp_path / name).mkdir()
    written.to_parquet(tmp_path / "parquet" / "input_function_tacs.parquet")
    timed.to_parquet(tmp_path / "timed" / "input_function_tacs.parquet")
    timed.to_parquet(tmp_path / "split" / "input_function_tacs.parquet", partition_cols=["Subject"])
    written.to_csv(tmp_path / "text" / "input_function_tacs.tsv.gz", sep="\t", index=False, na_rep="n/a")
    expected = population_input([(FRAMES, shape_of(number)) for number in range(6)])
    found = [read(tmp_path / name) for name in ("parquet", "timed", "split", "text")]
    for population in found:
        assert population.n_of_all == 6 and population.n_left_out == 0
        assert population.spread(LATE) == pytest.approx(expected.spread(LATE), rel=1e-6)
        assert population.scaled(np.ones((1, 8)), LATE)[1] == pytest.approx(
            expected.scaled(np.ones((1, 8)), LATE)[1], rel=1e-6
        )
    assert found[0].source == found[3].source and found[1].source == found[2].source


def test_what_is_read_is_told_apart_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "input_function_tacs.parquet"
    sources = []
    for n in (6, 7):
        table(n).to_parquet(path)
        sources.append(read(tmp_path).source)
    assert sources[0] != sources[1]


def test_the_first_scan_with_a_trapped_tracer_and_the_largest_volume_counts(tmp_path: Path) -> None:
    other = np.ones(len(FRAMES))
    parts = []
    for number in range(6):
        subject = f"sub-{number:03}"
        scan = {"Session": "1", "Tracer": "FDG"}
        parts += [
            rows(subject, shape_of(number), **scan),
            rows(subject, other, **{**scan, "Session": "2"}),
            rows(subject, other, **{**scan, "Tracer": "DOTATOC", "Session": "0"}),
            rows(subject, other, task="aortavois_ml-1_width-3", **scan),
        ]
    pd.concat(parts).to_parquet(tmp_path / "input_function_tacs.parquet")
    expected = population_input([(FRAMES, shape_of(number)) for number in range(6)])
    assert read(tmp_path).spread(LATE) == pytest.approx(expected.spread(LATE), rel=1e-6)


def test_what_is_wrong_with_the_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="nowhere does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(MissingInputError, match="input_function_tacs"):
        read(tmp_path)
    (tmp_path / "input_function_tacs.pkl.gz").write_bytes(b"")
    with pytest.raises(MissingInputError, match="pickle"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (table(4), "found 4 of 4"),
        (table().drop(columns="PET Mean [Bq/mL]"), "PET Mean"),
        (table().assign(Task="aortavois_ml-1_width-3"), FULL),
        (table().assign(Tracer="DOTATOC"), "FDG"),
        (table().assign(**{"PET Mean [Bq/mL]": "much"}), "cannot be read"),
        (table()[lambda rows: rows["Frame Index"] != 3], "frames of sub-000"),
    ],
    ids=["few", "column", "task", "tracer", "text", "frames"],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, content: pd.DataFrame, words: str) -> None:
    path = tmp_path / "input_function_tacs.tsv"
    content.to_csv(path, sep="\t", index=False)
    with pytest.raises(BadDataError, match=words) as refused:
        read(tmp_path)
    assert str(path) in str(refused.value)


def test_no_table_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "input_function_tacs.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(BadDataError, match="cannot be read"):
        read(tmp_path)
