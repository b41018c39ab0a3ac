"""Volume, SUV and SUL of the main organs, and their curves, from the tables of a scan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedypet_bids.io.tables import frame_times, read_table, read_timed
from hedypet_bids.kernels.region_statistics import RegionKey
from hedypet_bids.labels import label_table
from hedypet_bids.model import FrameTimes

CONSTANTS = ("suv", "sul_james", "sul_janma", "sul_decazes")


@dataclass(frozen=True)
class Organ:
    """An organ of the report: one region of a task, or several taken together.

    Parameters
    ----------
    erosion
        Wanted number of erosions; the nearest that was measured is taken.
    """

    title: str
    task: str
    regions: tuple[str, ...]
    erosion: int = 1

    def key(self, measured: Collection[RegionKey]) -> RegionKey | None:
        """The table to read; None where the task was not measured."""
        there = [key for key in measured if key[0] == self.task]
        return min(there, key=lambda key: (abs(key[1] - self.erosion), key[1]), default=None)


# The cortex is thinner than what an erosion leaves.
GREY_MATTER = Organ(
    "brain grey matter", "synthseg", ("Left-Cerebral-Cortex", "Right-Cerebral-Cortex"), erosion=0
)
LIVER = Organ("liver", "total", ("liver",))
MUSCLE = Organ("muscle (gluteus maximus)", "total", ("gluteus_maximus_left", "gluteus_maximus_right"))
WHOLE_AORTA = Organ("aorta", "total", ("aorta",))
REPORTED_ORGANS = (
    Organ("brain", "total", ("brain",)),
    GREY_MATTER,
    Organ("heart", "total", ("heart",)),
    WHOLE_AORTA,
    Organ("lungs", "total", tuple(name for name in label_table("total").names if name.startswith("lung_"))),
    LIVER,
    Organ("spleen", "total", ("spleen",)),
    Organ("pancreas", "total", ("pancreas",)),
    Organ("kidney, left", "total", ("kidney_left",)),
    Organ("kidney, right", "total", ("kidney_right",)),
    Organ("colon", "total", ("colon",)),
    Organ("urinary bladder", "total", ("urinary_bladder",)),
    Organ("vertebra L3", "total", ("vertebrae_L3",)),
    MUSCLE,
)
CURVE_ORGANS = (
    "aorta",
    "brain",
    "heart",
    "liver",
    "spleen",
    "kidney, left",
    "colon",
    "muscle (gluteus maximus)",
)
PATLAK_ORGANS = (GREY_MATTER, LIVER, MUSCLE)


@dataclass(frozen=True)
class OrganValues:
    """One row of the table; NaN for what is unknown.

    Parameters
    ----------
    erosion, mean
        Erosions of the region that was measured, and its mean, Bq/mL.
    volume_ml
        Of the whole organ, without erosion.
    uptake
        Mean over SUV constant and over the three SUL constants, g/mL, in the order of ``CONSTANTS``.
    """

    title: str
    erosion: int
    volume_ml: float
    mean: float
    uptake: tuple[float, ...]


def organ_values(means: Mapping[RegionKey, Path], constants: Path | None) -> list[OrganValues]:
    """The main organs that the static PET shows."""
    divisors = _constants(constants)
    tables = {key: read_table(path).set_index("name") for key, path in means.items()}
    rows = []
    for organ in REPORTED_ORGANS:
        key = organ.key(means)
        if key is None:
            continue
        found = tables[key].reindex(list(organ.regions))
        n = found["n_voxels"].fillna(0).to_numpy(dtype=np.float64)
        if not n.sum():
            continue
        mean = _weighted(found["mean"].to_numpy(dtype=np.float64), n)
        whole = tables.get((organ.task, 0))
        volume_ml = float("nan") if whole is None else whole["volume"].reindex(list(organ.regions)).sum()
        rows.append(
            OrganValues(
                organ.title,
                key[1],
                float(volume_ml),
                mean,
                tuple(mean / divisor for divisor in divisors),
            )
        )
    return rows


def organ_named(title: str) -> Organ:
    """One of the main organs by its title."""
    return next(organ for organ in REPORTED_ORGANS if organ.title == title)


def suv_constant(constants: Path | None) -> float:
    """Bq/mL of an SUV of 1; NaN where unknown."""
    return _constants(constants)[0]


def organ_curve(
    organ: Organ, curves: Mapping[RegionKey, Path], volumes: Mapping[RegionKey, Path]
) -> tuple[FrameTimes, NDArray[np.float64]] | None:
    """Frame times and mean curve (Bq/mL) of an organ, regions weighted by voxels; None if it has none."""
    key = organ.key(curves)
    if key is None:
        return None
    table = read_timed(curves[key])
    n_voxels = read_table(volumes[key]).set_index("name")["n_voxels"]
    n = n_voxels.reindex(list(organ.regions)).fillna(0).to_numpy(dtype=np.float64)
    if not n.sum():
        return None
    values = table[[name for name, count in zip(organ.regions, n, strict=True) if count]].to_numpy(
        dtype=np.float64
    )
    return frame_times(table), values @ (n[n > 0] / n.sum())


def reference_curve(
    regions: Sequence[str], curves: Mapping[RegionKey, Path], volumes: Mapping[RegionKey, Path], erosion: int
) -> tuple[FrameTimes, NDArray[np.float64]] | None:
    """The mean curve of regions of one task, that of the first that has them all, as :func:`organ_curve`."""
    for name in dict.fromkeys(key[0] for key in curves):
        organ = Organ("reference region", name, tuple(regions), erosion)
        key = organ.key(curves)
        if key and set(regions) <= set(read_table(curves[key]).columns):
            return organ_curve(organ, curves, volumes)
    return None


def organ_curves(
    curves: Mapping[RegionKey, Path], volumes: Mapping[RegionKey, Path], titles: Collection[str]
) -> pd.DataFrame:
    """The curves of some of the main organs beside the frame times, a column an organ; empty without any."""
    columns: dict[str, NDArray[np.float64]] = {}
    for organ in REPORTED_ORGANS:
        found = organ_curve(organ, curves, volumes) if organ.title in titles else None
        if found is not None:
            frames, curve = found
            columns |= {"frame_start": frames.start_s, "frame_end": frames.end_s, organ.title: curve}
    return pd.DataFrame(columns)


def _constants(path: Path | None) -> list[float]:
    values = read_table(path).set_index("name")["value"] if path else pd.Series(dtype=np.float64)
    return [float(values.get(name, float("nan"))) for name in CONSTANTS]


def _weighted(values: NDArray[np.float64], n: NDArray[np.float64]) -> float:
    there = n > 0
    return float((values[there] * n[there]).sum() / n[there].sum())
