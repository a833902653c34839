"""What does the desired state ask of this device now, given what it serves and how its last updates ended?

Pure: no clock, no disk. The updater carries the decisions out.
"""

from collections.abc import Mapping

import msgspec

from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import Deployment, Desired, Outcome, Slot
from runtime.contract.errors import ExpiredError
from runtime.errors import UnsuitableError
from runtime.update.machine import Job

FAILURES = (Outcome.REFUSED, Outcome.ROLLED_BACK)


class Present(msgspec.Struct, frozen=True):
    """What lies on the device for one model: the serving slot and its artifact (None: nothing serves)."""

    slot: Slot | None = None
    artifact: ArtifactRef | None = None


class Start(msgspec.Struct, frozen=True):
    """Begin an update."""

    job: Job


class Record(msgspec.Struct, frozen=True):
    """Store a job as it is: nothing runs, but the report must speak of it."""

    job: Job


class Supersede(msgspec.Struct, frozen=True):
    """End a running update, because something else is wanted."""

    model: str
    by: str


class Retire(msgspec.Struct, frozen=True):
    """Take a model off the device."""

    model: str


class HoldBack(msgspec.Struct, frozen=True):
    """Do not start yet. code: "" while waiting for a time, else why; until_s: when to look again, 0 for never by itself."""

    model: str
    code: str = ""
    detail: str = ""
    until_s: float = 0.0


Decision = Start | Record | Supersede | Retire | HoldBack


def plan(
    desired: Desired, jobs: Mapping[str, Job], present: Mapping[str, Present], now_s: float, is_clock_synced: bool = True
) -> list[Decision]:
    """Every decision that follows now. An update under way for what is still wanted gets none: it just goes on."""
    wanted = _one_per_model(desired)
    decisions: list[Decision] = []
    for deployment in wanted.values():
        job, here = jobs.get(deployment.model), present.get(deployment.model, Present())
        decision = (
            _while_running(desired, deployment, job)
            if job is not None and job.is_running
            else _while_idle(desired, deployment, job, here, now_s=now_s, is_clock_synced=is_clock_synced)
        )
        if decision is not None:
            decisions.append(decision)
    decisions.extend(_unwanted(desired, wanted, jobs, present))
    return decisions


def _one_per_model(desired: Desired) -> dict[str, Deployment]:
    """The active deployment of each model; one of a role this version cannot serve stands only where no active one does."""
    chosen: dict[str, Deployment] = {}
    for deployment in desired.deployments:
        if deployment.model not in chosen or deployment.role == "active":
            chosen[deployment.model] = deployment
    return chosen


def _while_running(desired: Desired, deployment: Deployment, job: Job) -> Decision | None:
    if job.artifact != deployment.artifact:
        return Supersede(job.model, f"desired generation {desired.generation}")
    restated = msgspec.structs.replace(job, rollout=deployment.rollout, attempt=deployment.attempt, generation=desired.generation)
    return Record(restated) if restated != job else None


def _while_idle(
    desired: Desired, deployment: Deployment, job: Job | None, here: Present, *, now_s: float, is_clock_synced: bool
) -> Decision | None:
    new = Job(
        model=deployment.model,
        artifact=deployment.artifact,
        rollout=deployment.rollout,
        attempt=deployment.attempt,
        generation=desired.generation,
        slot="b" if here.slot == "a" else "a",
        previous=here.slot,
    )
    if here.artifact == deployment.artifact and deployment.role == "active":
        served = msgspec.structs.replace(new, slot=here.slot or "a", outcome=Outcome.SUCCEEDED)
        return None if job is not None and _speaks_of(job, deployment) and job.outcome is Outcome.SUCCEEDED else Record(served)
    if job is not None and _is_settled(job, deployment):
        return None
    if deployment.kind != "model" or deployment.role != "active":
        detail = f"this version deploys models as active, not {deployment.kind!r} as {deployment.role!r}"
        return Record(msgspec.structs.replace(new, outcome=Outcome.REFUSED, error_code=UnsuitableError.code, error_detail=detail))
    if deployment.not_before > now_s:
        return HoldBack(deployment.model, until_s=deployment.not_before)
    if not is_clock_synced:
        return HoldBack(deployment.model, detail="the clock is not set yet")
    if now_s >= desired.expires:
        return HoldBack(deployment.model, ExpiredError.code, f"desired generation {desired.generation} is past its expiry")
    return Start(new)


def _unwanted(
    desired: Desired, wanted: Mapping[str, Deployment], jobs: Mapping[str, Job], present: Mapping[str, Present]
) -> list[Decision]:
    """Models the fleet once deployed here and no longer names. A side-loaded one is not the fleet's to remove."""
    decisions: list[Decision] = []
    for model, job in jobs.items():
        if model in wanted or job.generation == 0:
            continue
        if job.is_running:
            decisions.append(Supersede(model, f"desired generation {desired.generation}"))
        elif model in present:
            decisions.append(Retire(model))
    return decisions


def _speaks_of(job: Job, deployment: Deployment) -> bool:
    return (job.artifact, job.rollout, job.attempt) == (deployment.artifact, deployment.rollout, deployment.attempt)


def _is_settled(job: Job, deployment: Deployment) -> bool:
    """Whether this very job failed already. A higher generation alone may be the fleet re-issuing what it said before."""
    return (
        job.outcome in FAILURES
        and (job.artifact, job.rollout) == (deployment.artifact, deployment.rollout)
        and deployment.attempt <= job.attempt
    )
