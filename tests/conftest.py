"""Data that several tests share: a tiny phantom, both levels run on it, and the realistic dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from coarse_phantom import COARSE, FRAMES, write_coarse
from running import SHARED, Run, run_both_levels

from hedypet_bids.phantom import write_phantom


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """Leave the variables of the process as they were: the command line sets some for its libraries."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny phantom dataset: participant 001 complete, 002 without dynamic PET, MR and topogram."""
    return write_phantom(
        tmp_path_factory.mktemp("phantom") / "bids",
        participants=2,
        seed=1,
        size="tiny",
        without={"002": ("dynamic", "mr", "topogram")},
    )


@pytest.fixture(scope="session")
def phantom_run(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both levels run on the tiny phantom."""
    # One process: workers spend longer on their imports than on a participant.
    return run_both_levels(phantom, tmp_path_factory.mktemp("phantom-run") / "out", "--nprocs", "1")


@pytest.fixture(scope="session")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coarse phantom dataset: participant 001 has CT and PET, 002 no dynamic series."""
    return write_coarse(tmp_path_factory.mktemp("coarse") / "bids", (), ("dynamic",))


@pytest.fixture(scope="session")
def coarse_run(coarse: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both levels run on the coarse phantom."""
    return run_both_levels(coarse, tmp_path_factory.mktemp("coarse-run") / "out", "--nprocs", "1")


@pytest.fixture(scope="session")
def one_coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coarse phantom dataset of one participant with CT and PET."""
    return write_coarse(tmp_path_factory.mktemp("one-coarse") / "bids", ())


@pytest.fixture(scope="session")
def coarse_with_mr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coarse phantom dataset of one participant with CT, PET and MR."""
    bids = tmp_path_factory.mktemp("coarse-with-mr") / "bids"
    return write_phantom(bids, participants=1, seed=1, size=COARSE, frames=FRAMES)


@pytest.fixture(scope="session")
def coarse_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings for a coarse head space: 3 instead of 80 MB of results, and seconds less for each image."""
    path = tmp_path_factory.mktemp("settings") / "settings.toml"
    path.write_text("[resample]\nhead_voxel_mm = 4.0\n")
    return path


@pytest.fixture(scope="session")
def realistic() -> Path:
    """The realistic dataset that stands beside the project on the development machines."""
    path = SHARED / "realistic"
    if not path.is_dir():
        pytest.skip("the realistic dataset (shared/data/realistic) is not on this machine")
    return path


@pytest.fixture(scope="session")
def realistic_run(realistic: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both levels run on the realistic dataset."""
    return run_both_levels(realistic, tmp_path_factory.mktemp("realistic-run") / "out")
