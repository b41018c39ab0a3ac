"""Voxels of a CT that hold no measurement: what scanners write outside their field of view."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Air is -1000 HU and noise adds a few hundred. Below lie -2000 and -3024 (GE), -8192 (Siemens) and -32768.
_LOWEST_HU = -1500.0
# -2000 read without its sign.
_UNSIGNED = 63536


def padding(hu: NDArray[Any]) -> NDArray[np.bool_]:
    """Which voxels are padding.

    Parameters
    ----------
    hu
        Hounsfield units, any shape.

    Returns
    -------
    NDArray
        The same shape; False for NaN.
    """
    found: NDArray[np.bool_] = (hu < _LOWEST_HU) | (hu == _UNSIGNED)
    return found


def without_padding(hu: NDArray[Any], fill_hu: float) -> tuple[NDArray[Any], int]:
    """A CT with air where it has padding, which interpolation would spread as rings into the body.

    Parameters
    ----------
    hu
        Hounsfield units, any shape; changed in place.
    fill_hu
        What stands for padding, HU.

    Returns
    -------
    tuple
        ``hu``, and how many voxels were padding.
    """
    where = padding(hu)
    n = int(np.count_nonzero(where))
    if n:
        hu[where] = fill_hu
    return hu, n
