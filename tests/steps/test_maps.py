"""Voxel maps from the frames that were kept while the curves were measured, or from the series again."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from running import Run, only

from hedypet_bids.cli.main import main

AGAIN = "decompressed again"


def logs(output: Path) -> str:
    return "".join(path.read_text() for path in sorted(output.rglob("sub-001/log/*/hedypet.log")))


@pytest.mark.slow
def test_without_room_for_frames_the_series_is_decompressed_again(
    coarse_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    shutil.copytree(coarse_run.output, output)
    assert AGAIN not in logs(output)
    for path in [*output.rglob("*_mimap.*"), *output.rglob("*_tacs.*")]:
        path.unlink()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1, 1, 1000))
    arguments = [str(coarse_run.bids), str(output), "participant", "--participant-label", "001"]
    assert main([*arguments, "--nprocs", "1", "--skip-bids-validation"]) == 0
    assert AGAIN in logs(output)
    for measure in ("Ki", "V0"):
        before, after = (
            np.asanyarray(nib.load(only(folder, f"*_meas-{measure}_mimap.nii.gz")).dataobj)
            for folder in (coarse_run.output, output)
        )
        assert np.isfinite(before).any()
        np.testing.assert_array_equal(before, after)
