"""The sessions of a made-up participant, and the PET acquisitions in them.

The first FDG acquisition of the first session is the participant as :func:`make_participant` draws them. In
every other one dose, blood and rate constants are their own. Between two acquisitions with the same tracer
Ki (or VT), K1 and vb of each tissue differ by factors that are known: the differences that a test-retest
analysis finds have a true value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hedypet_bids.model import FrameTimes
from hedypet_bids.phantom.kinetics import BloodSplit, Kinetics, merged_frames
from hedypet_bids.phantom.materials import DELAYS_S, MATERIALS
from hedypet_bids.phantom.subject import (
    BODY_CENTRE_MM,
    Curves,
    PhantomParticipant,
    blood_curve,
    material_curves,
    rigid,
    vary_kinetics,
)
from hedypet_bids.phantom.tracers import FDG, REFERENCE, Tracer

Factors = Mapping[str, Mapping[str, float]]

WITHIN_SUBJECT_SD = 0.05
"""Standard deviation of the logarithm of Ki, VT, K1 and vb of a tissue over a participant's scans."""
STATIC_FRAME = FrameTimes(start_s=np.array([3000.0]), duration_s=np.array([1200.0]))
"""The static images, 50 to 70 min after injection."""
MR_SESSION = "vida"
MOST_SESSIONS, MOST_SCANS = 9, 8
"""So many sessions, and so many acquisitions in one: their names stay in order, and their day has room."""

_PET_CT_SESSION = "quadra"
_FIRST_DAY = datetime(2025, 3, 3, 9, 30)
_MR_DAY = timedelta(days=1)
_DAYS_BETWEEN = 14
_FIRST_INJECTION = datetime(2025, 3, 3, 10, 0)
_BETWEEN_INJECTIONS = timedelta(minutes=100)
_ROTATION_DEG, _SHIFT_MM = 1.5, 5.0
_WEIGHT_CHANGE_KG = (0.5, 2.0)


@dataclass(frozen=True, eq=False)
class PhantomScan:
    """A PET acquisition: a participant, session, tracer and run.

    Parameters
    ----------
    participant
        As they were at this scan: dose, blood and rate constants are those of this tracer.
    run
        From 1; None where the session has one run of each tracer.
    frames
        Of the dynamic series.
    time_zero
        Time of day of the injection.
    factors
        By material, ``K1``, ``net`` (Ki, of reversible tracers VT) and ``vb`` as multiples of those in the
        first acquisition with this tracer.
    """

    participant: PhantomParticipant
    session: str
    tracer: Tracer
    run: int | None
    frames: FrameTimes
    time_zero: str
    factors: Factors

    @cached_property
    def curves(self) -> Curves:
        """Curves of the materials over the dynamic frames."""
        return material_curves(self.participant, self.frames)

    @cached_property
    def static_curves(self) -> Curves:
        """Means of the materials over the static frame."""
        return material_curves(self.participant, STATIC_FRAME)

    @property
    def entities(self) -> str:
        """BIDS entities that tell the scan from the participant's others, as ``ses-quadra_trc-18FFDG``."""
        parts = (("ses", self.session), ("trc", self.tracer.label), ("run", self.run))
        return "_".join(f"{key}-{value}" for key, value in parts if value)


@dataclass(frozen=True, eq=False)
class PhantomSession:
    """A PET/CT session: one pose on the table, one CT, one or several PET acquisitions.

    Parameters
    ----------
    label
        Without ``ses-``; empty in a dataset without sessions.
    participant
        As they were on this day: weight and pose.
    """

    label: str
    participant: PhantomParticipant
    start: datetime
    scans: tuple[PhantomScan, ...]


def make_sessions(
    participant: PhantomParticipant,
    *,
    sessions: int,
    tracers: Sequence[Tracer],
    runs: int,
    frames: FrameTimes,
    delays: bool = False,
    blood: bool = False,
) -> list[PhantomSession]:
    """The PET/CT sessions of a participant, ``quadra``, ``quadra2`` and so on, two weeks apart.

    Parameters
    ----------
    sessions
        How many; 0: one, in a dataset without sessions.
    tracers
        Injected one after the other in each session; the second one and later ones are reconstructed in half
        the frames.
    runs
        Injections of each tracer in each session.
    frames
        Of the first tracer.
    delays
        Whether blood arrives in each tissue at a time of its own, ``DELAYS_S``; else everywhere at once.
    blood
        Whether blood is sampled in scans with reversible tracers. Plasma then holds metabolites, and
        ``REFERENCE`` binds nothing.
    """
    made = []
    for number in range(1, max(sessions, 1) + 1):
        label = f"{_PET_CT_SESSION}{number if number > 1 else ''}" if sessions else ""
        person = participant if number == 1 else _on_another_day(participant, number)
        scans = []
        for place, (tracer, run) in enumerate((t, r) for t in tracers for r in range(1, runs + 1)):
            injected, factors = _at_injection(person, tracer, (number, run))
            if delays:
                injected = _with_delays(injected)
            if blood and tracer.is_reversible:
                injected = _with_metabolites(injected)
            scan = PhantomScan(
                injected,
                session=label,
                tracer=tracer,
                run=run if runs > 1 else None,
                frames=frames if tracer is tracers[0] else merged_frames(frames, (len(frames) + 1) // 2),
                time_zero=f"{_FIRST_INJECTION + place * _BETWEEN_INJECTIONS:%H:%M:%S}",
                factors=factors,
            )
            scans.append(scan)
        start = _FIRST_DAY + timedelta(days=_DAYS_BETWEEN * (number - 1))
        made.append(PhantomSession(label, person, start, tuple(scans)))
    return made


def mr_start(sessions: Sequence[PhantomSession]) -> datetime:
    """When the MR session began: the day after the first PET/CT session."""
    return sessions[0].start + _MR_DAY


def _on_another_day(participant: PhantomParticipant, number: int) -> PhantomParticipant:
    """The participant with another weight, lying a few millimetres and degrees elsewhere."""
    rng = participant.rng("session", number)
    change = float(rng.choice((-1.0, 1.0)) * rng.uniform(*_WEIGHT_CHANGE_KG))
    pose = rigid(rng, _ROTATION_DEG, _SHIFT_MM, np.array(BODY_CENTRE_MM))
    return replace(
        participant,
        weight_kg=round(participant.weight_kg + change, 1),
        pose=pose,
        mr2ct_head=pose @ participant.mr2ct_head,
        mr2ct_body=pose @ participant.mr2ct_body,
    )


def _at_injection(
    person: PhantomParticipant, tracer: Tracer, occasion: tuple[int, int]
) -> tuple[PhantomParticipant, Factors]:
    """The participant with dose, blood and tissues of one injection, and what of them is due to the day.

    ``occasion`` is the number of the session and of the run, from 1.
    """
    kinetics = person.kinetics
    if tracer is not FDG:
        kinetics = vary_kinetics(tracer.kinetics, person.rng("kinetics", tracer.label))
    first, now = (_deviations(person, tracer, each) for each in ((1, 1), occasion))
    factors = {name: _factors(k, now[name] - first[name]) for name, k in kinetics.items()}
    if tracer is FDG and occasion == (1, 1):
        return person, factors
    rng = person.rng("scan", tracer.label, *occasion)
    dose = float(rng.uniform(*tracer.mbq_per_kg)) * person.weight_kg
    changed = replace(
        person,
        dose_mbq=dose,
        blood=blood_curve(
            float(rng.uniform(*tracer.late_blood_suv)), rng, dose_mbq=dose, weight_kg=person.weight_kg
        ),
        kinetics={name: k.scaled(**factors[name]) for name, k in kinetics.items()},
    )
    return changed, factors


def _with_delays(person: PhantomParticipant) -> PhantomParticipant:
    later = {name: replace(k, delay_s=DELAYS_S.get(name, 0.0)) for name, k in person.kinetics.items()}
    return replace(person, kinetics=later)


def _with_metabolites(person: PhantomParticipant) -> PhantomParticipant:
    free = replace(person.kinetics[REFERENCE], k3=0.0, k4=0.0)
    return replace(person, kinetics={**person.kinetics, REFERENCE: free}, split=BloodSplit())


def _deviations(
    person: PhantomParticipant, tracer: Tracer, occasion: tuple[int, int]
) -> dict[str, NDArray[np.float64]]:
    """What the day adds to the logarithms of K1, Ki or VT, and vb of each material, shape (3,)."""
    drawn = person.rng("day", tracer.label, *occasion).standard_normal((len(MATERIALS), 3))
    return dict(zip(MATERIALS, WITHIN_SUBJECT_SD * np.clip(drawn, -2.0, 2.0), strict=True))


def _factors(tissue: Kinetics, deviation: NDArray[np.float64]) -> dict[str, float]:
    K1, net, vb = np.exp(deviation).tolist()
    if tissue.vb == 1.0:  # blood itself
        K1 = net = vb = 1.0
    elif tissue.k2 == 0:
        net = K1
    return {"K1": K1, "net": net, "vb": vb}
