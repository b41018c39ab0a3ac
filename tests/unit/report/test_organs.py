"""Curves of organs from tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hedypet_bids.io.tables import frame_times, read_table
from hedypet_bids.report.organs import Organ, organ_curve


def test_organ_curves_weight_regions_by_their_voxels(tmp_path: Path) -> None:
    curves, volumes = tmp_path / "tacs.tsv", tmp_path / "morph.tsv"
    curves.write_text("frame_start\tframe_end\ta\tb\tc\n0\t10\t1\t5\tn/a\n10\t20\t2\t6\tn/a\n")
    volumes.write_text("name\tn_voxels\na\t3\nb\t1\nc\t0\n")
    organ = Organ("both", "total", ("a", "b", "c"), erosion=1)
    found = organ_curve(organ, {("total", 0): curves}, {("total", 0): volumes})
    assert found is not None
    np.testing.assert_allclose(found[1], [2.0, 3.0])
    np.testing.assert_array_equal(found[0].start_s, frame_times(read_table(curves)).start_s)
    assert (
        organ_curve(Organ("none", "total", ("c",)), {("total", 0): curves}, {("total", 0): volumes}) is None
    )
    assert organ_curve(Organ("none", "tissue", ("c",)), {("total", 0): curves}, {}) is None
