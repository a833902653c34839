"""What does the page of one rollout read?

Counts come from the database; of the devices at most JOBS are read, those with trouble or under way first, so that watching
a rollout of ten thousand costs no more than watching one of three hundred.
"""

from dataclasses import dataclass

from sqlalchemy import case, func, or_, select
from sqlalchemy.orm import Session, aliased

from fleet.errors import UnknownRolloutError
from fleet.store.tables import Artifact, Audit, Event, Installed, Job, Rollout, Twin, Verdict

JOBS = 300
TIMELINE_EVENTS = 300
VERDICTS_KEPT = 400
"""Newest verdicts read: five gates at one evaluation every two seconds make about three minutes of history."""


@dataclass(frozen=True)
class JobFacts:
    """One device's part. previous: version it goes back to, None when it had none. now: what the device says of this model.

    silent_ms: since when the device is not connected; None while it is.
    """

    job: Job
    artifact: Artifact
    previous: str | None
    now: Installed | None
    silent_ms: int | None


@dataclass(frozen=True)
class RolloutPageFacts:
    """counts: devices per (stage, job state). jobs: by position. verdicts, events, audit: oldest first."""

    rollout: Rollout
    counts: dict[tuple[int, str], int]
    jobs: tuple[JobFacts, ...]
    verdicts: tuple[Verdict, ...]
    events: tuple[Event, ...]
    audit: tuple[Audit, ...]


def find_rollout(session: Session, id: str) -> Rollout:
    """Raises UnknownRolloutError."""
    rollout = session.get(Rollout, id)
    if rollout is None:
        raise UnknownRolloutError(f"there is no rollout {id!r}")
    return rollout


def read_rollout(session: Session, id: str) -> RolloutPageFacts:
    """Raises UnknownRolloutError."""
    rollout = find_rollout(session, id)
    events = select(Event).where(Event.rollout == id).order_by(Event.received_ms.desc(), Event.id.desc()).limit(TIMELINE_EVENTS)
    verdicts = (
        select(Verdict).where(Verdict.rollout == id).order_by(Verdict.evaluation.desc(), Verdict.id.desc()).limit(VERDICTS_KEPT)
    )
    objects = (Audit.object == id, Audit.object == f"rollout/{id}", Audit.object == f"rollouts/{id}")
    return RolloutPageFacts(
        rollout=rollout,
        counts=_counts(session, id),
        jobs=tuple(_jobs(session, rollout)),
        verdicts=tuple(reversed(session.scalars(verdicts).all())),
        events=tuple(reversed(session.scalars(events).all())),
        audit=tuple(session.scalars(select(Audit).where(or_(*objects)).order_by(Audit.at_ms, Audit.id))),
    )


def _counts(session: Session, rollout: str) -> dict[tuple[int, str], int]:
    query = select(Job.stage, Job.state, func.count()).where(Job.rollout == rollout).group_by(Job.stage, Job.state)
    return {(stage or 0, state): amount for stage, state, amount in session.execute(query)}


def _jobs(session: Session, rollout: Rollout) -> list[JobFacts]:
    previous = aliased(Artifact)
    urgency = case((Job.state.in_(("failed", "return_failed")), 0), (Job.state.in_(("dispatched", "returning")), 1), else_=2)
    query = (
        select(Job, Artifact, previous.version, Installed, Twin.online, Twin.presence_ms)
        .join(Artifact, Artifact.id == Job.artifact_id)
        .outerjoin(previous, previous.id == Job.previous_artifact_id)
        .outerjoin(Installed, (Installed.device == Job.device) & (Installed.model == rollout.model))
        .outerjoin(Twin, Twin.device == Job.device)
        .where(Job.rollout == rollout.id)
        .order_by(urgency, Job.position, Job.device)
        .limit(JOBS)
    )
    found = [
        JobFacts(job, artifact, version, now, None if online else presence_ms or 0)
        for job, artifact, version, now, online, presence_ms in session.execute(query)
    ]
    return sorted(found, key=lambda one: (one.job.position, one.job.device))
