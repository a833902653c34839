"""What does the desired state ask of this device now, given what it serves and how its last updates ended?

Pure: no clock, no disk. The updater carries the decisions out. Each lane is decided for itself, with one tie: a shadow or
split waits for an active version of its model, beside which it is to run.
"""

from collections.abc import Mapping

import msgspec

from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import Deployment, Desired, Outcome, Slot
from runtime.contract.errors import ExpiredError
from runtime.errors import NoActiveVersionError, UnsuitableError
from runtime.update.lanes import in_order, lane_of, parts_of
from runtime.update.machine import Job

FAILURES = (Outcome.REFUSED, Outcome.ROLLED_BACK)


class Present(msgspec.Struct, frozen=True):
    """What lies on the device in one lane: the serving slot and its artifact (None: nothing serves)."""

    slot: Slot | None = None
    artifact: ArtifactRef | None = None


class Start(msgspec.Struct, frozen=True):
    """Begin an update."""

    job: Job


class Record(msgspec.Struct, frozen=True):
    """Store a job as it is: nothing runs, but the report must speak of it."""

    job: Job


class Share(msgspec.Struct, frozen=True):
    """Store a job and give what serves in its lane the job's share of the traffic, without fetching anything."""

    job: Job


class Supersede(msgspec.Struct, frozen=True):
    """End a running update, because something else is wanted."""

    lane: str
    by: str


class Retire(msgspec.Struct, frozen=True):
    """Take what is in a lane off the device."""

    lane: str


class HoldBack(msgspec.Struct, frozen=True):
    """Do not start yet. code: "" while waiting for a time, else why; until_s: when to look again, 0 for never by itself."""

    lane: str
    code: str = ""
    detail: str = ""
    until_s: float = 0.0


Decision = Start | Record | Share | Supersede | Retire | HoldBack


def plan(
    desired: Desired, jobs: Mapping[str, Job], present: Mapping[str, Present], now_s: float, is_clock_synced: bool = True
) -> list[Decision]:
    """Every decision that follows now. An update under way for what is still wanted gets none: it just goes on."""
    wanted = {lane_of(deployment.model, deployment.role): deployment for deployment in desired.deployments}
    decisions: list[Decision] = []
    for lane in in_order(wanted):
        job, here = jobs.get(lane), present.get(lane, Present())
        if job is not None and _stands_above(job, wanted[lane], desired):
            continue
        decision = (
            _while_running(desired, wanted[lane], job)
            if job is not None and job.is_running
            else _while_idle(desired, wanted[lane], job, here, present, now_s=now_s, is_clock_synced=is_clock_synced)
        )
        if decision is not None:
            decisions.append(decision)
    decisions.extend(_unwanted(desired, wanted, jobs, present))
    return decisions


def _while_running(desired: Desired, deployment: Deployment, job: Job) -> Decision | None:
    if job.artifact != deployment.artifact:
        return Supersede(job.lane, f"desired generation {desired.generation}")
    if job.outcome in FAILURES:
        return None  # it is on its way out: whether what is wanted now is another try is asked when it has ended
    restated = msgspec.structs.replace(
        job,
        rollout=deployment.rollout,
        attempt=deployment.attempt,
        generation=desired.generation,
        share=deployment.share,
    )
    if restated == job:
        return None
    return Record(restated) if job.role == "active" or restated.share == job.share else Share(restated)


def _while_idle(
    desired: Desired,
    deployment: Deployment,
    job: Job | None,
    here: Present,
    present: Mapping[str, Present],
    *,
    now_s: float,
    is_clock_synced: bool,
) -> Decision | None:
    new = Job(
        model=deployment.model,
        role=deployment.role,
        share=deployment.share,
        artifact=deployment.artifact,
        rollout=deployment.rollout,
        attempt=deployment.attempt,
        generation=desired.generation,
        slot="b" if here.slot == "a" else "a",
        previous=here.slot,
    )
    lane = new.lane
    if here.artifact == deployment.artifact:
        served = msgspec.structs.replace(new, slot=here.slot or "a", outcome=Outcome.SUCCEEDED)
        if deployment.role != "active" and (job is None or job.share != deployment.share):
            return Share(served)
        return None if job is not None and _speaks_of(job, deployment) and job.outcome is Outcome.SUCCEEDED else Record(served)
    if job is not None and _is_settled(job, deployment):
        return None
    if deployment.kind != "model":
        detail = f"this version deploys models, not {deployment.kind!r}"
        return Record(msgspec.structs.replace(new, outcome=Outcome.REFUSED, error_code=UnsuitableError.code, error_detail=detail))
    if deployment.not_before > now_s:
        return HoldBack(lane, until_s=deployment.not_before)
    if not is_clock_synced:
        return HoldBack(lane, detail="the clock is not set yet")
    if now_s >= desired.expires:
        return HoldBack(lane, ExpiredError.code, f"desired generation {desired.generation} is past its expiry")
    if deployment.role != "active" and present.get(deployment.model, Present()).artifact is None:
        detail = f"{deployment.model} has no active version here, beside which a {deployment.role} could run"
        return HoldBack(lane, NoActiveVersionError.code, detail)
    return Start(new)


def _unwanted(
    desired: Desired, wanted: Mapping[str, Deployment], jobs: Mapping[str, Job], present: Mapping[str, Present]
) -> list[Decision]:
    """Lanes the fleet once filled here and no longer names. A side-loaded model is not the fleet's to remove."""
    decisions: list[Decision] = []
    for lane, job in jobs.items():
        if lane in wanted or job.generation == 0:
            continue
        if job.is_running:
            decisions.append(Supersede(lane, f"desired generation {desired.generation}"))
        elif lane in present or job.outcome is Outcome.SUCCEEDED:
            # A job that succeeded and has no slot any more: the power went in the middle of its removal.
            decisions.append(Retire(lane))
    # With state.db its job may be lost; but a shadow or split is never side-loaded, so it was the fleet's.
    lost = [lane for lane in present if lane not in wanted and lane not in jobs and parts_of(lane)[1] != "active"]
    decisions.extend(map(Retire, lost))
    return decisions


def _stands_above(job: Job, deployment: Deployment, desired: Desired) -> bool:
    """Whether something else was side-loaded after the fleet had said this: then its next word decides, not this one."""
    return (
        bool(job.source)
        and job.over >= desired.generation
        and job.artifact != deployment.artifact
        and job.outcome not in FAILURES
    )


def _speaks_of(job: Job, deployment: Deployment) -> bool:
    return (job.artifact, job.rollout, job.attempt) == (deployment.artifact, deployment.rollout, deployment.attempt)


def _is_settled(job: Job, deployment: Deployment) -> bool:
    """Whether this very job failed already. A higher generation alone may be the fleet re-issuing what it said before."""
    return (
        job.outcome in FAILURES
        and (job.artifact, job.rollout) == (deployment.artifact, deployment.rollout)
        and deployment.attempt <= job.attempt
    )
