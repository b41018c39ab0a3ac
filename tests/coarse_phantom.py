"""A phantom for tests that look at what a run does, not at its numbers: coarse, in few frames, unblurred."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hedypet_bids.phantom import PhantomSize, Voxels, hedypet_frames, merged_frames, write_phantom

COARSE = PhantomSize(
    ct=Voxels((36, 25, 89), (12.0, 12.0, 12.0)),
    attenuation_ct=Voxels((18, 13, 45), (24.0, 24.0, 24.0)),
    static=Voxels((36, 25, 89), (12.0, 12.0, 12.0)),
    dynamic=Voxels((30, 20, 75), (14.0, 14.0, 14.0)),
    mprage=Voxels((32, 39, 35), (6.0, 6.0, 6.0)),
    dixon_head=Voxels((24, 29, 26), (8.0, 8.0, 8.0)),
    dixon_body=Voxels((38, 27, 89), (12.0, 12.0, 12.0)),
    fastview=Voxels((23, 16, 54), (20.0, 20.0, 20.0)),
    psf_fwhm_mm=0.0,
)
"""All images of a scan are written in a fraction of a second."""

FRAMES = merged_frames(hedypet_frames(), 20)


def write_coarse(out: Path, *lacking: Collection[str]) -> Path:
    """A dataset without MR and topogram, whose runs take a third of the time of complete ones.

    One participant for each of ``lacking``, which names what else they are written without.
    """
    without = {f"{number:03}": {"mr", "topogram", *pieces} for number, pieces in enumerate(lacking, start=1)}
    return write_phantom(out, participants=len(lacking), seed=1, size=COARSE, frames=FRAMES, without=without)
