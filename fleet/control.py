"""What happens when a person creates, starts, pauses, resumes, approves or rolls back a rollout?

One transaction each: check, change, audit. The API and the dashboard's buttons both come here, so neither can do what the
other may not.
"""

import secrets
from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy.orm import Session

from fleet.changes import Changes
from fleet.domain.plan import Assignment, Plan, Skipped, assign, check_plan
from fleet.domain.rollout import Progress, RolloutEvent, RolloutState, operate, retry
from fleet.errors import BusyModelError, IdempotencyError
from fleet.store.access import AccessRepository
from fleet.store.database import Database
from fleet.store.planning import candidates, offers
from fleet.store.releases import ReleaseRepository
from fleet.store.rollouts import RolloutRepository, plan_of, progress_of
from fleet.store.tables import Rollout
from fleet.store.telemetry import TelemetryRepository
from runtime.contract.canonical import sha256_hex


class Actor(msgspec.Struct, frozen=True):
    """Who asks: the name of an API token or login, and its role."""

    name: str
    role: str


class RolloutControl:
    def __init__(self, database: Database, changes: Changes, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._changes = changes
        self._now_ms = now_ms

    def create(self, plan: Plan, actor: Actor, key: str | None = None) -> tuple[str, bool]:
        """Keep a rollout without starting it; returns its id and whether it is new.

        key: the same one with the same plan gives the same rollout. Raises UnknownReleaseError, PlanError (no device, no
        artifact, bad stages) or IdempotencyError.
        """
        now_ms = self._now_ms()
        request_sha256 = sha256_hex(msgspec.json.encode(plan, order="sorted"))
        scoped_key = f"{actor.name}:{key}" if key else None
        with self._database.write() as session:
            rollouts = RolloutRepository(session)
            held = rollouts.by_key(scoped_key) if scoped_key else None
            if held is not None:
                if held.request_sha256 != request_sha256:
                    raise IdempotencyError("this Idempotency-Key was used for another rollout")
                return held.id, False
            rollout = f"r-{secrets.token_hex(4)}"
            resolve_plan(session, rollout, plan)
            progress = Progress(entered_ms=now_ms)
            rollouts.add(
                Rollout(
                    id=rollout,
                    release_id=ReleaseRepository(session).get(plan.model, plan.version).id,
                    model=plan.model,
                    version=plan.version,
                    plan=msgspec.to_builtins(plan),
                    state=progress.state.value,
                    progress=msgspec.to_builtins(progress),
                    created_ms=now_ms,
                    created_by=actor.name,
                    idempotency_key=scoped_key,
                    request_sha256=request_sha256,
                )
            )
            detail = {"model": plan.model, "version": plan.version}
            AccessRepository(session).record(actor.name, actor.role, "rollout.create", rollout, detail=detail, now_ms=now_ms)
        self._changes.publish("rollout", rollout)
        return rollout, True

    def act(self, rollout: str, event: RolloutEvent, actor: Actor) -> RolloutState:
        """Apply what a person asked for and return the new state.

        Raises UnknownRolloutError, StateError, RaceError, and on start BusyModelError or PlanError.
        """
        now_ms = self._now_ms()
        with self._database.write() as session:
            rollouts = RolloutRepository(session)
            row = rollouts.get(rollout)
            plan, revision = plan_of(row), row.revision
            progress = operate(progress_of(row), event, plan, now_ms, f"{event} by {actor.name}")
            if event is RolloutEvent.START:
                _start(session, rollout, plan)
            elif event is RolloutEvent.RESUME:
                for amend in retry(rollouts.jobs(rollout)):
                    rollouts.save_job(rollout, amend.job, now_ms)
            rollouts.save(rollout, revision, None, progress, now_ms)
            title = f"{plan.model} {plan.version}: {progress.reason}"
            TelemetryRepository(session).note(f"rollout.{progress.state}", "", title, now_ms, rollout=rollout)
            detail = {"state": progress.state.value, "stage": progress.stage}
            AccessRepository(session).record(actor.name, actor.role, f"rollout.{event}", rollout, detail=detail, now_ms=now_ms)
        self._changes.publish("rollout", rollout)
        return progress.state


def resolve_plan(session: Session, rollout: str, plan: Plan) -> tuple[list[Assignment], list[Skipped]]:
    """Every device's part in a plan, as the fleet stands now. Raises UnknownReleaseError or PlanError."""
    check_plan(plan)
    return assign(rollout, plan, candidates(session, plan.model), offers(session, plan.model, plan.version))


def _start(session: Session, rollout: str, plan: Plan) -> None:
    """Resolve the plan anew, since devices come and go between creation and start, and make the jobs."""
    assignments, _ = resolve_plan(session, rollout, plan)
    _require_free(RolloutRepository(session).rivals(rollout, plan.model), assignments)
    RolloutRepository(session).assign(rollout, assignments)


def _require_free(rivals: dict[str, str], assignments: Sequence[Assignment]) -> None:
    taken = sorted({(assignment.device, rivals[assignment.device]) for assignment in assignments if assignment.device in rivals})
    if taken:
        device, rival = taken[0]
        raise BusyModelError(f"rollout {rival} has {device} in hand ({len(taken)} devices in all); end it first")
