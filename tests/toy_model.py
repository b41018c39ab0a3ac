"""A kinetic model as someone might add one: the tracer in a region over that in the blood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from hedypet_bids.kernels.kinetics import Fits, KineticModel, Parameter
from hedypet_bids.kernels.reference import Reference


class Ratio(KineticModel):
    """The mean of a region over that of the input function; it does nothing but this."""

    name = "Ratio"
    title = "Tissue to blood"
    parameters = (Parameter("R", "", "Mean over mean"),)
    references: ClassVar[Mapping[str, Reference]] = {
        "anyone2001": Reference("Anyone, Alex", "On ratios", 2001, "Journal of Ratios", doi="10.1/1")
    }

    def options(self, settings: Any) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def fit(self, curves: Any, inputs: Any, frames: Any, settings: Any) -> Fits:  # noqa: ARG002
        ratio = curves.mean(axis=1)[:, None, None] / inputs.mean(axis=1)[None, :, None]
        return Fits({}, {"R": ratio, "R_se": 0.01 * ratio})

    def methods(self, settings: Any) -> str:  # noqa: ARG002
        return "Ratios were taken [@anyone2001]."
