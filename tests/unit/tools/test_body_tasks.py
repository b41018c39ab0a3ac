"""The tasks of a CT or MR against TotalSegmentator's own run, with nets of random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from segmentation_comparison import Comparison, comparison

pytest.importorskip("totalsegmentator.map_tasks_config")


@pytest.fixture(scope="module")
def compare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    """Both on the same CT, with small nets that give many labels."""
    from toy_weights import BANDS, MR_BANDS, write_random_weights

    folder = tmp_path_factory.mktemp("compare")
    write_random_weights(folder / "weights", *BANDS, *MR_BANDS, features=[4, 8, 8, 8])
    with comparison(folder / "weights", folder / "work") as process:
        yield process


def made_up(shape=(52, 44, 60), voxels_mm=(2.0, 2.0, 2.0), axes="RAS", **more: Any) -> dict[str, Any]:
    return {"shape": shape, "voxels_mm": voxels_mm, "axes": axes, "degrees": 0.0, "seed": 1, **more}


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    task=st.sampled_from([("total", True), ("tissue_types", False), ("body", False), ("body", True)]),
    shape=st.tuples(st.integers(8, 60), st.integers(8, 60), st.integers(1, 100)),
    voxels_mm=st.tuples(*[st.sampled_from([1.0, 1.5, 1.523, 2.6])] * 2, st.sampled_from([1.5, 2.0, 5.0])),
    axes=st.sampled_from(["RAS", "LPS", "LPI", "SRA", "PIR", "ASL"]),
    degrees=st.sampled_from([0.0, 12.0]),
    whole=st.booleans(),
)
def test_labels_are_those_of_totalsegmentator(compare, task, shape, voxels_mm, axes, degrees, whole) -> None:
    name, fast = task
    if fast and shape[2] * voxels_mm[2] <= 3:
        return  # nothing is left of it at 6 mm
    ct = made_up(shape, voxels_mm, axes, degrees=degrees, whole=whole)
    assert compare(made_up=ct, task=name, fast=fast)["different"] == 0


@pytest.mark.exhaustive
def test_the_parts_of_total_are_those_of_totalsegmentator(compare: Comparison) -> None:
    found = compare(made_up=made_up((44, 36, 110)), task="total")
    assert found["different"] == 0 and found["labels"] > 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "fast", "axes"),
    [
        ("total_mr", True, "LPS"),
        ("total_mr", False, "RAS"),
        ("body_mr", False, "SRA"),
        ("body_mr", True, "RAS"),
    ],
)
def test_labels_of_an_mr_are_those_of_totalsegmentator(
    task: str, fast: bool, axes: str, compare: Comparison
) -> None:
    ct = made_up((40, 36, 48), axes=axes, around=0)
    found = compare(made_up=ct, task=task, fast=fast)
    assert found["different"] == 0 and found["labels"] > 1
    if task == "total_mr":
        regions = ["liver", "aorta", "vertebrae", "brain"]
        assert compare(made_up=ct, task=task, fast=fast, roi_subset=regions)["different"] == 0


@pytest.mark.exhaustive
def test_labels_are_those_of_totalsegmentator_with_its_worker_processes(compare: Comparison) -> None:
    assert compare(made_up=made_up(axes="PIR"), task="tissue_types", workers=True)["different"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_a_subset_of_regions_is_that_of_totalsegmentator(fast: bool, compare: Comparison) -> None:
    # The lowest net's labels are random as well, so these are found somewhere.
    regions = ["liver", "aorta", "rib_left_5", "heart", "vertebrae_L1", "spleen", "colon"]
    found = compare(made_up=made_up(axes="LPS"), task="total", fast=fast, roi_subset=regions)
    assert found["different"] == 0


@pytest.mark.exhaustive
def test_a_ct_in_thirds_is_that_of_totalsegmentator(compare: Comparison) -> None:
    found = compare(made_up=made_up((20, 20, 205), (3.0, 3.0, 1.5)), task="total", split=True)
    assert found["different"] == 0 and found["labels"] > 20


@pytest.mark.slow
def test_a_network_of_the_real_architecture_gives_the_labels_of_totalsegmentator(tmp_path: Path) -> None:
    from toy_weights import write_random_weights

    write_random_weights(tmp_path / "weights", 297)
    with comparison(tmp_path / "weights", tmp_path / "work") as compare:
        found = compare(made_up=made_up((40, 30, 75), (3.5, 3.5, 3.0), "LPI"), task="total", fast=True)
    assert found["different"] == 0 and found["labels"] > 5
