"""Kinetic models: fits of regions, and weights of frames for voxel maps."""

from __future__ import annotations

from collections.abc import Iterable

from hedypet_bids.errors import UsageError, did_you_mean

MODELS = ("Patlak",)
"""Names of the models that there are, as in file names and in ``kinetics.models`` of the settings."""


def check_models(names: Iterable[str]) -> None:
    """Check that there is a model of each of these names.

    Raises
    ------
    UsageError
        There is none for some; a line for each.
    """
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise UsageError(
            "\n".join(
                f"[kinetics] models: expected models among {', '.join(MODELS)}; found {name!r}"
                f"{did_you_mean(name, MODELS)}."
                for name in unknown
            )
        )
