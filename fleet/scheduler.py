"""Who moves the rollouts on, and what makes sure that nothing moves twice?

Every half second: read reports and windows, let the domain decide, store progress, jobs, wanted states and verdicts in one
transaction that only succeeds if nobody changed the rollout since it was read. All state is in the database, so a service
that was killed goes on where it was. A scheduler that starts takes a new epoch; an older one's writes are refused.
"""

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy.orm import Session

from fleet.changes import Changes
from fleet.config import SchedulerSection
from fleet.domain.jobs import Job
from fleet.domain.rollout import Action, Amend, Dispatch, Progress, Record, RolloutState, SendBack, step
from fleet.errors import RaceError
from fleet.periodic import Periodic
from fleet.store.alerts import AlertRepository, new_alert
from fleet.store.database import Database
from fleet.store.evidence import EvidenceReader
from fleet.store.releases import ReleaseRepository
from fleet.store.rollouts import RolloutRepository, plan_of, progress_of
from fleet.store.tables import Rollout, Wanted
from fleet.store.telemetry import TelemetryRepository
from fleet.store.twins import TwinRepository

log = logging.getLogger(__name__)

NOTABLE = {RolloutState.ROLLING_BACK: "rollout.stopped", RolloutState.PAUSED: "rollout.paused_by_gate"}
"""States a step of its own accord enters only because a gate failed."""


class Scheduler:
    """Owns the periodic step. `run_once` is what it does; `start` and `stop` make it periodic."""

    def __init__(
        self,
        database: Database,
        changes: Changes,
        now_ms: Callable[[], int],
        settings: SchedulerSection,
        on_wanted: Callable[[], None],
    ) -> None:
        """on_wanted: told when a desired state changed, so that the publisher need not wait for its own look."""
        self._database = database
        self._changes = changes
        self._now_ms = now_ms
        self._settings = settings
        self._on_wanted = on_wanted
        self._reader = EvidenceReader()
        self._epoch = 0
        self._periodic = Periodic("scheduler", self.run_once, settings.step_ms)

    async def start(self) -> None:
        """Take charge and begin stepping. Raises StoreError."""
        await asyncio.to_thread(self.take_charge)
        self._periodic.start()

    async def stop(self) -> None:
        """Let a step under way finish, then stop."""
        await self._periodic.stop()

    def wake(self) -> None:
        """Say that reports came in, from any thread."""
        self._periodic.wake()

    @property
    def failure(self) -> str:
        """Why the newest look failed, "" when it did not."""
        return self._periodic.failure

    def take_charge(self) -> None:
        with self._database.write() as session:
            self._epoch = RolloutRepository(session).take_charge()

    def run_once(self) -> None:
        """Look at every active rollout once. A rollout whose step fails is left as it is: it holds, the others go on."""
        with self._database.read() as session:
            active = [row.id for row in RolloutRepository(session).active()]
        self._reader.keep_only(set(active))
        for rollout in active:
            try:
                self._step(rollout)
            except RaceError as error:
                log.info("rollout %s: %s", rollout, error)
            except Exception:  # the edge of the worker: one bad rollout must not stop the rest
                log.exception("rollout %s holds: its step failed", rollout)

    def _step(self, rollout: str) -> None:
        now_ms = self._now_ms()
        with self._database.read() as session:
            row = RolloutRepository(session).get(rollout)
            plan, before, revision = plan_of(row), progress_of(row), row.revision
            evidence, moved = self._reader.read(session, row)
        after, actions = step(plan, before, evidence, now_ms, evaluate_ms=self._settings.evaluate_ms)
        if after == before and not actions and not moved:
            return
        with self._database.write() as session:
            RolloutRepository(session).save(rollout, revision, self._epoch, after, now_ms)
            told = _Effects(session, row, now_ms).apply(moved, actions)
            _note(session, row, before, after, now_ms)
        self._changes.publish("rollout", rollout)
        for device in told:
            self._changes.publish("device", device)
        if told:
            self._on_wanted()


class _Effects:
    """Stores what one step decided."""

    def __init__(self, session: Session, rollout: Rollout, now_ms: int) -> None:
        self._rollouts = RolloutRepository(session)
        self._twins = TwinRepository(session)
        self._releases = ReleaseRepository(session)
        self._session = session
        self._rollout = rollout
        self._now_ms = now_ms

    def apply(self, moved: list[Job], actions: list[Action]) -> list[str]:
        """Returns the devices whose wanted state changed."""
        told = []
        for job in moved:
            self._rollouts.save_job(self._rollout.id, job, self._now_ms)
        for action in actions:
            match action:
                case Dispatch(job):
                    self._want(job, job.sha256)
                    told.append(job.device)
                case SendBack(job) if self._is_ours(job.device):
                    self._want(job, job.previous_sha256)
                    told.append(job.device)
                case SendBack(job):
                    log.info("rollout %s: %s was taken over by another rollout", self._rollout.id, job.device)
                case Amend(job):
                    self._rollouts.save_job(self._rollout.id, job, self._now_ms)
                case Record(stage, evaluation, verdicts):
                    self._rollouts.save_verdicts(self._rollout.id, stage, evaluation, verdicts, self._now_ms)
        return told

    def _want(self, job: Job, sha256: str) -> None:
        self._rollouts.save_job(self._rollout.id, job, self._now_ms)
        artifact = self._releases.by_digest(sha256) if sha256 else None
        artifact_id = artifact.id if artifact else None
        self._twins.want(job.device, self._rollout.model, artifact_id, self._rollout.id, job.attempt)

    def _is_ours(self, device: str) -> bool:
        """Read again under the write lock: a later rollout may have taken the device since the evidence was read."""
        held = self._session.get(Wanted, (device, self._rollout.model))
        return held is None or held.rollout == self._rollout.id


def _note(session: Session, rollout: Rollout, before: Progress, after: Progress, now_ms: int) -> None:
    """Write the change of state into the event log, and raise an alert when a gate has stopped the rollout.

    The alert speaks of the model and stays open until some rollout of it is done: a rollback alone repairs nothing.
    """
    if after.state is before.state and after.stage == before.stage:
        return
    title = f"{rollout.model} {rollout.version}: {after.reason}"
    code = NOTABLE.get(after.state, "")
    TelemetryRepository(session).note(f"rollout.{after.state}", code, title, now_ms, rollout=rollout.id)
    if code:
        detail = {"stage": before.stage, "evaluation": after.evaluation, "reason": after.reason}
        alert = new_alert("rollout", f"rollout:{rollout.model}", title, detail, now_ms, model=rollout.model, rollout=rollout.id)
        AlertRepository(session).open(alert)
    elif after.state is RolloutState.DONE:
        AlertRepository(session).close(f"rollout:{rollout.model}", now_ms)
