"""Which of a participant's images play which role in which scan."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.nifti_read import FrameReader
from hedypet_bids.names import ScanName, Source
from hedypet_bids.settings import Selection

ROLES = ("dynamic", "static", "ct", "topogram", "head_mr", "body_mr")

# Short entity keys of file names, as people write them in filters, to pybids' long ones.
_LONG_ENTITY = {
    "sub": "subject",
    "ses": "session",
    "rec": "reconstruction",
    "acq": "acquisition",
    "trc": "tracer",
    "ce": "ceagent",
}
_FLAGS = {"static": "--static-rec", "dynamic": "--dynamic-rec", "ct": "--ct-rec"}


@dataclass(frozen=True)
class Roles:
    """The images of one scan by the role that they play; None or empty where there is none."""

    dynamic: Source | None = None
    statics: tuple[Source, ...] = ()
    ct: Source | None = None
    other_cts: tuple[Source, ...] = ()
    topogram: Source | None = None
    head_mr: Source | None = None
    head_mr_group: tuple[Source, ...] = ()
    body_mr: Source | None = None
    body_mr_group: tuple[Source, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Images:
    """The images of a participant by kind.

    Parameters
    ----------
    sessions
        Session labels in their order in time, as far as that is known.
    """

    pets: tuple[Source, ...] = ()
    cts: tuple[Source, ...] = ()
    topograms: tuple[Source, ...] = ()
    plain_mrs: tuple[Source, ...] = ()
    head_mrs: tuple[Source, ...] = ()
    body_mrs: tuple[Source, ...] = ()
    sessions: tuple[str, ...] = ()

    @classmethod
    def of(cls, images: Iterable[Source], sessions: Sequence[str]) -> Images:
        """The images, classified by suffix and acquisition label."""
        found: dict[str, list[Source]] = {}
        for image in images:
            found.setdefault(_kind(image), []).append(image)
        in_order = {**dict.fromkeys(sessions), **dict.fromkeys(_sorted({_session(i) for i in images}))}
        return cls(**{kind: tuple(these) for kind, these in found.items() if kind}, sessions=tuple(in_order))

    @property
    def scans(self) -> tuple[ScanName, ...]:
        """Every scan that there is; one without a name where there is no PET."""
        found = {ScanName.of(pet) for pet in self.pets}
        position = {session: at for at, session in enumerate(self.sessions)}
        return tuple(sorted(found, key=lambda name: (position[name.session], name))) or (ScanName(),)


@dataclass(frozen=True)
class Chooser:
    """How the images of a scan are chosen where there are several.

    Parameters
    ----------
    selection
        Preferred labels.
    filters
        Role -> entity -> value or values, see ``--bids-filter-file``.
    reconstructions
        Labels that a PET image may have; empty for any.
    """

    selection: Selection
    filters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reconstructions: Collection[str] = ()

    def roles(self, scan: ScanName, images: Images) -> Roles:
        """The images that belong to a scan, by role.

        Those of its own session, else of the nearest one that has some.

        Raises
        ------
        BadDataError
            Several could play the same role; or an image has another number of frames than its
            reconstruction label says.
        """
        notes: list[str] = []
        own = [pet for pet in images.pets if ScanName.of(pet) == scan]
        pets = [pet for pet in own if self._is_wanted(pet)]
        if own and not pets:
            labels = names.listed(self.reconstructions)
            notes.append(f"none of its PET images is asked for: none has rec-{labels} (--rec-label)")
        frames = {pet: FrameReader(pet.path).n_frames for pet in pets}
        self._check_frames(frames)
        dynamics = [pet for pet in pets if frames[pet] > 1]
        statics = [pet for pet in pets if frames[pet] == 1]
        static = self._one("static", statics, "reconstruction", self.selection.static_rec)
        cts = _nearest("CT", self._passing("ct", images.cts), scan, images, notes)
        topograms = _nearest("topogram", images.topograms, scan, images, notes)
        plain = _nearest("T1w", self._passing("head_mr", images.plain_mrs), scan, images, notes)
        head = _nearest("DIXON head", images.head_mrs, scan, images, notes)
        body = _nearest("DIXON body", images.body_mrs, scan, images, notes)
        in_phase = [mr for mr in body if _acquisition(mr) == self.selection.body_mr_acq]
        ct = self._one("ct", cts, "reconstruction", self.selection.ct_rec)
        body_mr = self._one("body_mr", in_phase, "acquisition", self.selection.body_mr_acq)
        return Roles(
            dynamic=self._one("dynamic", dynamics, "reconstruction", self.selection.dynamic_rec),
            # Without one that stands for the scan, filters leave none that do.
            statics=(static, *(s for s in statics if s != static)) if static else (),
            ct=ct,
            other_cts=tuple(c for c in cts if c != ct),
            topogram=self._one("topogram", topograms, "reconstruction", ""),
            head_mr=self._one("head_mr", plain, "acquisition", self.selection.head_mr_acq),
            head_mr_group=tuple(head),
            body_mr=body_mr,
            body_mr_group=tuple(m for m in body if m != body_mr),
            notes=tuple(notes),
        )

    def _is_wanted(self, pet: Source) -> bool:
        return not self.reconstructions or pet.entities.get("reconstruction") in self.reconstructions

    def _check_frames(self, frames: Mapping[Source, int]) -> None:
        """Raise BadDataError when the reconstruction that plays a role cannot play it."""
        static, dynamic = self.selection.static_rec, self.selection.dynamic_rec
        for pet, n in frames.items():
            for role, label, expected, fits in (
                ("static", static, "a 3D image", n == 1),
                ("dynamic", dynamic, "a 4D image", n > 1),
            ):
                labelled = pet.entities.get("reconstruction") == label and static != dynamic
                if labelled and not fits and not self.filters.get(role):
                    raise BadDataError(
                        f"{pet.path} has {n} frame{'' if n == 1 else 's'}; its reconstruction {label} is the "
                        f"{role} one, so {expected} was expected. Restore the image, or choose another with "
                        f"{_FLAGS[role]}."
                    )

    def _passing(self, role: str, candidates: Sequence[Source]) -> Sequence[Source]:
        wanted = self.filters.get(role)
        return [c for c in candidates if _passes(c, wanted)] if wanted else candidates

    def _one(self, role: str, candidates: Sequence[Source], entity: str, preferred: str) -> Source | None:
        """The one image that plays a role: by filter, by the preferred label, or the only one."""
        if self.filters.get(role):
            candidates = self._passing(role, candidates)
        elif preferred:
            candidates = [c for c in candidates if c.entities.get(entity) == preferred] or candidates
        if len(candidates) > 1:
            listed = "\n  ".join(str(c.path.relative_to(c.root)) for c in candidates)
            telling = _telling(candidates, entity)
            flag = f"{_FLAGS[role]} LABEL, or with " if role in _FLAGS and telling == "reconstruction" else ""
            raise BadDataError(
                f"Expected one image for the role {role!r}; found {len(candidates)}:\n  {listed}\n"
                f"Choose one with {flag}--bids-filter-file, for example "
                f'{{"{role}": {{"{telling}": "LABEL"}}}}.'
            )
        return candidates[0] if candidates else None


def _telling(candidates: Sequence[Source], entity: str) -> str:
    """An entity in which all of the candidates differ; the given one where there is none."""
    keys = [entity, *candidates[0].entities]
    return next((k for k in keys if len({c.entities.get(k) for c in candidates}) == len(candidates)), entity)


def _nearest(
    kind: str, candidates: Sequence[Source], scan: ScanName, images: Images, notes: list[str]
) -> list[Source]:
    """Those of the scan's own session, else of the session with some that is nearest to it."""
    own = [image for image in candidates if _session(image) == scan.session]
    if own or not candidates:
        return _of_scan(own, scan)
    position = {session: at for at, session in enumerate(images.sessions)}
    # A scan without a session (no PET, or names without ses-) takes the first one.
    here = position.get(scan.session, 0)
    nearest = min((_session(i) for i in candidates), key=lambda s: (abs(position[s] - here), position[s]))
    choice = len({_session(image) for image in candidates}) > 1
    several = len({name.session for name in images.scans}) > 1
    if scan.session and (choice or several or kind == "CT"):
        notes.append(f"{kind} images are those of ses-{nearest}, the session nearest to ses-{scan.session}")
    return _of_scan([candidate for candidate in candidates if _session(candidate) == nearest], scan)


def _of_scan(images: list[Source], scan: ScanName) -> list[Source]:
    """Where some images carry the scan's own tracer or run, these alone."""
    for entity, value in (("tracer", scan.tracer), ("run", scan.run)):
        named = [image for image in images if value and image.entities.get(entity) == value]
        unnamed = [image for image in images if not image.entities.get(entity)]
        images = named or unnamed or images
    return images


def _kind(image: Source) -> str:
    """The field of :class:`Images` that an image belongs to; empty for none."""
    if image.suffix != names.MR_SUFFIX:
        return {
            names.PET_SUFFIX: "pets",
            names.CT_SUFFIX: "cts",
            names.TOPOGRAM_SUFFIX: "topograms",
        }.get(image.suffix, "")
    acquisition = _acquisition(image)
    if acquisition.startswith(names.HEAD_MR_GROUP):
        return "head_mrs"
    return "body_mrs" if acquisition.startswith(names.BODY_MR_GROUPS) else "plain_mrs"


def _session(image: Source) -> str:
    return image.entities.get("session", "")


def _acquisition(image: Source) -> str:
    return image.entities.get("acquisition", "")


def _sorted(sessions: Iterable[str]) -> list[str]:
    """Session labels in the order in which people count: 2 before 10."""
    return sorted(sessions, key=lambda s: [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in _runs(s)])


def _runs(text: str) -> list[str]:
    return [piece for piece in re.split(r"(\d+)", text) if piece]


def _passes(source: Source, wanted: Mapping[str, Any]) -> bool:
    for key, value in wanted.items():
        allowed = [str(v) for v in value] if isinstance(value, list) else [str(value)]
        if source.entities.get(_LONG_ENTITY.get(key, key)) not in allowed:
            return False
    return True
