"""Any kinetic model on curves of one's own, without a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hedypet_bids.errors import BadDataError, UsageError, did_you_mean
from hedypet_bids.kernels.kinetics.model import KineticModel, known_models
from hedypet_bids.model import FrameTimes
from hedypet_bids.settings import Settings

Curves: TypeAlias = ArrayLike | Mapping[str, ArrayLike] | pd.DataFrame


def fit(
    model: str | KineticModel,
    curves: Curves,
    input_functions: Curves,
    frames: FrameTimes,
    settings: Settings | None = None,
) -> pd.DataFrame:
    """Fit a kinetic model to time-activity curves, as the pipeline does.

    Parameters
    ----------
    model
        Its name, such as ``Patlak``, ``TwoTissueIrr``, ``MA1`` or ``SRTM``, or an object of its class.
    curves
        Decay-corrected activity of tissue, averaged over the frames, Bq/mL: an array of shape (n_frames,) or
        (n_regions, n_frames), or curves by the name of their region (a mapping, or a table with a column a
        region and a row a frame).
    input_functions
        Activity of blood in the same form and units; of a model with a reference region the curve of that.
    frames
        When the frames are, s from injection.
    settings
        The parameters of the models; those of the pipeline by default.

    Returns
    -------
    pandas.DataFrame
        One row per region, input function and window: ``name``, ``input_function``, each parameter of the
        model with its standard error (``<name>_se``), and the columns of the model. Where a column
        ``reason`` is not empty, it says why values are NaN, or what is doubtful about them.

    Raises
    ------
    UsageError
        There is no such model.
    BadDataError
        A curve does not have one number per frame, or the model cannot be fitted to such frames.

    Examples
    --------
    >>> from hedypet_bids.phantom.kinetics import Kinetics, hedypet_frames, scaled_feng_input, tissue_curve
    >>> frames, blood = hedypet_frames(), scaled_feng_input(8000.0)
    >>> brain = tissue_curve(frames, blood, Kinetics(0.10, 0.13, 0.06, 0.05))
    >>> aorta = tissue_curve(frames, blood, Kinetics(0.0, 0.0, 0.0, 1.0))
    >>> found = fit("TwoTissueIrr", {"brain": brain}, {"aorta": aorta}, frames)
    >>> found[["name", "input_function", "K1", "vB"]].round(2).values.tolist()
    [['brain', 'aorta', 0.1, 0.05]]
    """
    if isinstance(model, str):
        known = known_models()
        if model not in known:
            hint = did_you_mean(model, known) or f"; there are {', '.join(known)}"
            raise UsageError(f"There is no kinetic model {model!r}{hint}.")
        model = known[model]
    settings = settings or Settings()
    regions, of_regions = _named(curves, "region", frames)
    inputs, of_inputs = _named(input_functions, "input function", frames)
    if why_not := model.why_not_with(frames, settings):
        raise BadDataError(f"{model.title} cannot be fitted to these curves: {why_not}.")
    return model.table(model.fit(of_regions, of_inputs, frames, settings), regions, inputs)


def _named(curves: Curves, what: str, frames: FrameTimes) -> tuple[list[str], NDArray[np.float64]]:
    """Names and an array (n_curves, n_frames)."""
    by_name: dict[str, Any]
    if isinstance(curves, Mapping | pd.DataFrame):
        by_name = {str(name): curves[name] for name in curves}
    else:
        found = np.atleast_2d(np.asarray(curves))
        by_name = {f"{what} {n}": curve for n, curve in enumerate(found, start=1)}
    if not by_name:
        raise BadDataError(f"Expected at least one {what}; found none.")
    for name, curve in by_name.items():
        try:
            by_name[name] = np.asarray(curve, dtype=np.float64)
        except (TypeError, ValueError) as fault:
            raise BadDataError(f"The curve of {name} does not hold numbers alone: {fault}.") from fault
        if by_name[name].shape != (len(frames),):
            raise BadDataError(
                f"The curve of {name} needs one value per frame; found the shape {by_name[name].shape} and "
                f"{len(frames)} frames."
            )
    return list(by_name), np.array(list(by_name.values()))
