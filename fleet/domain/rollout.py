"""What does a rollout do next, given what its devices report?

`TRANSITIONS` is the machine. `step` looks at the evidence, picks at most one event, and says what is to be done; whoever
calls it stores the new progress and the actions' jobs together, so that a crash between two steps loses nothing and
repeats nothing. It fails closed: a gate that fails stops the rollout, one that cannot tell holds it, a silent device
holds it, and nothing but a device's own report ends an update.
"""

import enum
import hashlib
from collections.abc import Sequence

import msgspec

from fleet.domain.evidence import DeviceEvidence, Evidence
from fleet.domain.gates import Verdict, build_gates
from fleet.domain.jobs import RETURN_ENDED, SETTLED, Job, JobState
from fleet.domain.plan import Plan
from fleet.errors import StateError


class RolloutState(enum.StrEnum):
    """CREATED: planned, nobody was told. UPDATING: devices of the current stage are told and report. SOAKING: all have
    reported, gates watch. AWAITING_APPROVAL: gates pass, a person decides. PAUSED: nobody new is told; updates under way
    end as they may. ROLLING_BACK: every device that was told goes back. DONE and ROLLED_BACK are ends.
    """

    CREATED = "created"
    UPDATING = "updating"
    SOAKING = "soaking"
    AWAITING_APPROVAL = "awaiting_approval"
    PAUSED = "paused"
    ROLLING_BACK = "rolling_back"
    DONE = "done"
    ROLLED_BACK = "rolled_back"


class RolloutEvent(enum.StrEnum):
    """START, PAUSE, RESUME, APPROVE, ROLL_BACK come from a person, the others from the evidence."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    APPROVE = "approve"
    ROLL_BACK = "rollback"
    SETTLED = "settled"
    PASSED = "passed"
    APPROVAL_DUE = "approval_due"
    FINISHED = "finished"
    FAILED = "failed"
    FAILED_PAUSE = "failed_pause"
    RETURNED = "returned"


S, E = RolloutState, RolloutEvent

TRANSITIONS: dict[tuple[RolloutState, RolloutEvent], RolloutState] = {
    (S.CREATED, E.START): S.UPDATING,
    (S.CREATED, E.ROLL_BACK): S.ROLLED_BACK,
    (S.UPDATING, E.SETTLED): S.SOAKING,
    (S.SOAKING, E.PASSED): S.UPDATING,
    (S.SOAKING, E.APPROVAL_DUE): S.AWAITING_APPROVAL,
    (S.SOAKING, E.FINISHED): S.DONE,
    (S.AWAITING_APPROVAL, E.APPROVE): S.UPDATING,
    (S.AWAITING_APPROVAL, E.FINISHED): S.DONE,
    (S.PAUSED, E.RESUME): S.UPDATING,
    (S.PAUSED, E.ROLL_BACK): S.ROLLING_BACK,
    (S.DONE, E.ROLL_BACK): S.ROLLING_BACK,
    (S.ROLLING_BACK, E.RETURNED): S.ROLLED_BACK,
} | {
    (state, event): target
    for state in (S.UPDATING, S.SOAKING, S.AWAITING_APPROVAL)
    for event, target in {
        E.FAILED: S.ROLLING_BACK,
        E.FAILED_PAUSE: S.PAUSED,
        E.PAUSE: S.PAUSED,
        E.ROLL_BACK: S.ROLLING_BACK,
    }.items()
}
"""An absent pair is refused: by `StateError` to a person, and a step never leaves the table."""

ACTIVE = frozenset({S.UPDATING, S.SOAKING, S.AWAITING_APPROVAL, S.PAUSED, S.ROLLING_BACK})
"""States the scheduler looks at."""
CLAIMING = ACTIVE - {S.ROLLING_BACK}
"""States in which no other rollout of the model may take the same devices. One that is rolling back yields: a repaired
version must not wait for a device that is switched off."""
OPERATOR_EVENTS = (E.START, E.PAUSE, E.RESUME, E.APPROVE, E.ROLL_BACK)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a rollout is. entered_ms: when it entered its state; reason: why, for people.

    evaluation: number of the newest stored verdicts, made at evaluated_ms; judged: their stage, decisions and digest.
    """

    state: RolloutState = RolloutState.CREATED
    stage: int = 0
    entered_ms: int = 0
    reason: str = ""
    evaluation: int = 0
    evaluated_ms: int = 0
    judged: str = ""


class Dispatch(msgspec.Struct, frozen=True):
    """Tell the device to serve the job's artifact."""

    job: Job


class SendBack(msgspec.Struct, frozen=True):
    """Tell the device to serve what it served before, or nothing of this model if it served nothing."""

    job: Job


class Amend(msgspec.Struct, frozen=True):
    """Keep the job's new state; the device is told nothing."""

    job: Job


class Record(msgspec.Struct, frozen=True):
    """Keep these verdicts; (rollout, stage, evaluation) makes storing them twice harmless."""

    stage: int
    evaluation: int
    verdicts: tuple[Verdict, ...]


Action = Dispatch | SendBack | Amend | Record


def operate(progress: Progress, event: RolloutEvent, plan: Plan, now_ms: int, reason: str) -> Progress:
    """What a person asked for. Raises StateError when the rollout's state does not allow it."""
    if event is E.APPROVE and progress.state is S.AWAITING_APPROVAL:
        if progress.stage + 1 == len(plan.stages):
            return _enter(progress, E.FINISHED, now_ms, reason)
        return _enter(msgspec.structs.replace(progress, stage=progress.stage + 1), event, now_ms, reason)
    return _enter(progress, event, now_ms, reason)


def retry(jobs: Sequence[Job]) -> list[Amend]:
    """What resuming does to devices whose update failed: a new attempt, since a device never repeats a failed one."""
    return [
        Amend(msgspec.structs.replace(job, state=JobState.PENDING, attempt=job.attempt + 1, error_code="", error_detail=""))
        for job in jobs
        if job.state is JobState.FAILED
    ]


def step(
    plan: Plan, progress: Progress, evidence: Evidence, now_ms: int, *, evaluate_ms: int = 2_000
) -> tuple[Progress, list[Action]]:
    """One look at a rollout: its new progress and what to do; equal progress and no actions mean nothing has changed.

    evidence: every device of the rollout, jobs settled from the newest reports. evaluate_ms: verdicts whose decisions
    stay the same are stored no more often than this.
    """
    if progress.state is S.ROLLING_BACK:
        return _roll_back(progress, evidence, now_ms)
    if progress.state not in (S.UPDATING, S.SOAKING, S.AWAITING_APPROVAL):
        return progress, []
    reached = Evidence(devices=tuple(device for device in evidence.devices if device.job.stage <= progress.stage))
    verdicts = tuple(gate.judge(reached) for gate in build_gates(plan.gates))
    progress, actions = _record(progress, verdicts, now_ms, evaluate_ms)
    failed = next((verdict for verdict in verdicts if verdict.decision == "fail"), None)
    if failed is not None:
        event = E.FAILED if plan.on_failure == "rollback" else E.FAILED_PAUSE
        return _enter(progress, event, now_ms, f"gate {failed.gate}: {failed.reason}"), actions
    if progress.state is S.UPDATING:
        progress, dispatched = _update(plan, progress, reached.devices, now_ms)
        return progress, actions + dispatched
    if progress.state is S.SOAKING:
        return _soak(plan, progress, verdicts, now_ms), actions
    return progress, actions


def _update(plan: Plan, progress: Progress, devices: Sequence[DeviceEvidence], now_ms: int) -> tuple[Progress, list[Action]]:
    """Tell as many devices as may update at once; when all have reported, the soak begins."""
    jobs = [device.job for device in devices]
    if all(job.state in SETTLED for job in jobs):
        updated = sum(job.state is JobState.SUCCEEDED for job in jobs)
        return _enter(progress, E.SETTLED, now_ms, f"{updated} of {len(jobs)} devices run {plan.version}"), []
    pending = [job for job in jobs if job.state is JobState.PENDING]
    under_way = sum(job.state is JobState.DISPATCHED for job in jobs)
    free = len(pending) if plan.concurrency is None else max(plan.concurrency - under_way, 0)
    return progress, [Dispatch(msgspec.structs.replace(job, state=JobState.DISPATCHED)) for job in pending[:free]]


def _soak(plan: Plan, progress: Progress, verdicts: Sequence[Verdict], now_ms: int) -> Progress:
    """Go on once the time is over and every gate passes; a gate that holds makes the soak longer."""
    stage = plan.stages[progress.stage]
    if now_ms - progress.entered_ms < stage.soak_s * 1000 or any(verdict.decision != "pass" for verdict in verdicts):
        return progress
    passed = f"stage {progress.stage + 1} passed {len(verdicts)} gates"
    if stage.approval:
        return _enter(progress, E.APPROVAL_DUE, now_ms, passed)
    if progress.stage + 1 == len(plan.stages):
        return _enter(progress, E.FINISHED, now_ms, passed)
    return _enter(msgspec.structs.replace(progress, stage=progress.stage + 1), E.PASSED, now_ms, passed)


def _roll_back(progress: Progress, evidence: Evidence, now_ms: int) -> tuple[Progress, list[Action]]:
    """Send back every device that was told; when none is still on its way, the rollback is over."""
    actions: list[Action] = []
    for device in evidence.devices:
        job = device.job
        if job.state in RETURN_ENDED or job.state is JobState.RETURNING:
            continue
        if not device.is_ours:
            actions.append(Amend(msgspec.structs.replace(job, state=JobState.WITHDRAWN)))
        else:
            back = msgspec.structs.replace(job, state=JobState.RETURNING, attempt=job.attempt + 1)
            actions.append(SendBack(back))
    if actions or any(device.job.state not in RETURN_ENDED for device in evidence.devices):
        return progress, actions
    return _enter(progress, E.RETURNED, now_ms, progress.reason), []


def _record(progress: Progress, verdicts: tuple[Verdict, ...], now_ms: int, evaluate_ms: int) -> tuple[Progress, list[Action]]:
    """Keep verdicts when a decision changed, or when figures changed and the last ones are old enough."""
    decisions = "".join(verdict.decision[0] for verdict in verdicts)
    judged = f"{progress.stage}:{decisions}:{hashlib.sha256(msgspec.json.encode(verdicts)).hexdigest()[:16]}"
    same_decisions = progress.judged.rpartition(":")[0] == judged.rpartition(":")[0]
    if judged == progress.judged or (same_decisions and now_ms - progress.evaluated_ms < evaluate_ms):
        return progress, []
    evaluation = progress.evaluation + 1
    progress = msgspec.structs.replace(progress, evaluation=evaluation, evaluated_ms=now_ms, judged=judged)
    return progress, [Record(progress.stage, evaluation, verdicts)]


def _enter(progress: Progress, event: RolloutEvent, now_ms: int, reason: str) -> Progress:
    target = TRANSITIONS.get((progress.state, event))
    if target is None:
        raise StateError(f"a rollout that is {progress.state} cannot {event}")
    return msgspec.structs.replace(progress, state=target, entered_ms=now_ms, reason=reason)
