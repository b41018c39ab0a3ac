"""The images of one participant by the part they play."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hedypet_bids.names import Source


@dataclass(frozen=True)
class ParticipantInputs:
    """The images of one participant by the part they play; None or empty where there is none.

    ``anatomy`` is the image whose voxels the segmentations of the body label: the CT or, of a PET/MR
    scanner, the image that ready segmentations are named after.
    """

    label: str
    dynamic: Source | None = None
    static: Source | None = None
    other_statics: tuple[Source, ...] = ()
    ct: Source | None = None
    other_cts: tuple[Source, ...] = ()
    anatomy: Source | None = None
    topogram: Source | None = None
    head_mr: Source | None = None
    head_mr_group: tuple[Source, ...] = ()
    body_mr: Source | None = None
    body_mr_group: tuple[Source, ...] = ()
    ready_segmentations: Mapping[str, Path] = field(default_factory=dict, hash=False)
    aorta_correction: Path | None = None
    given_transforms: Mapping[str, Path] = field(default_factory=dict, hash=False)

    @property
    def statics(self) -> tuple[Source, ...]:
        """Every static PET reconstruction, the one that is measured first."""
        return ((self.static,) if self.static else ()) + self.other_statics

    @property
    def cts(self) -> tuple[Source, ...]:
        """Every CT reconstruction, the segmented one first."""
        return ((self.ct,) if self.ct else ()) + self.other_cts

    @property
    def head_mrs(self) -> tuple[Source, ...]:
        """Every MR image that moves with the head registration."""
        return ((self.head_mr,) if self.head_mr else ()) + self.head_mr_group

    @property
    def body_mrs(self) -> tuple[Source, ...]:
        """Every MR image that moves with the body registration."""
        return ((self.body_mr,) if self.body_mr else ()) + self.body_mr_group

    @property
    def pet(self) -> Source | None:
        """The image that stands for the scan: the static one, else the dynamic one."""
        return self.static or self.dynamic
