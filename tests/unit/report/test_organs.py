"""Curves of organs from tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hedypet_bids.report.organs import Organ, organ_curve, organ_values


def test_organ_curves_weight_regions_by_their_voxels(tmp_path: Path) -> None:
    curves, volumes = tmp_path / "tacs.tsv", tmp_path / "morph.tsv"
    curves.write_text("frame_start\tframe_end\ta\tb\tc\n0\t10\t1\t5\tn/a\n10\t20\t2\t6\tn/a\n")
    curves.with_suffix(".json").write_text('{"InjectionStart": 0}')
    volumes.write_text("name\tn_voxels\na\t3\nb\t1\nc\t0\n")
    organ = Organ("both", "total", ("a", "b", "c"), erosion=1)
    found = organ_curve(organ, {("total", 0): curves}, {("total", 0): volumes})
    assert found is not None
    np.testing.assert_allclose(found[1], [2.0, 3.0])
    assert found[0].start_s.tolist() == [0, 10]
    assert (
        organ_curve(Organ("none", "total", ("c",)), {("total", 0): curves}, {("total", 0): volumes}) is None
    )
    assert organ_curve(Organ("none", "tissue", ("c",)), {("total", 0): curves}, {}) is None


def test_the_volume_is_that_of_the_whole_organ(tmp_path: Path) -> None:
    whole, eroded = tmp_path / "whole.tsv", tmp_path / "eroded.tsv"
    whole.write_text("name\tn_voxels\tvolume\tmean\nliver\t1139\t1139.0\t4000\n")
    eroded.write_text("name\tn_voxels\tvolume\tmean\nliver\t895\t895.0\t4200\n")
    (liver,) = organ_values({("total", 0): whole, ("total", 1): eroded}, None)
    assert (liver.title, liver.erosion, liver.mean, liver.volume_ml) == ("liver", 1, 4200.0, 1139.0)
    (liver,) = organ_values({("total", 1): eroded}, None)
    assert np.isnan(liver.volume_ml)
