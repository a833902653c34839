"""How is a rollout kept so that two writers can never both move it, and a step is stored whole or not at all?"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import select, tuple_, update
from sqlalchemy.orm import Session

from fleet.domain.gates import Verdict
from fleet.domain.jobs import Job as JobValue
from fleet.domain.jobs import JobState
from fleet.domain.plan import Assignment, Plan
from fleet.domain.rollout import ACTIVE, CLAIMING, Progress, RolloutState
from fleet.errors import RaceError, UnknownRolloutError
from fleet.store import tables
from fleet.store.database import read_meta, write_meta
from fleet.store.inserts import insert_new
from fleet.store.tables import Artifact, Job, Rollout

EPOCH_KEY = "scheduler.epoch"
ENDED = (RolloutState.DONE, RolloutState.ROLLED_BACK)


class RolloutRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, rollout: str) -> Rollout:
        """Raises UnknownRolloutError."""
        found = self._session.get(Rollout, rollout)
        if found is None:
            raise UnknownRolloutError(f"there is no rollout {rollout!r}")
        return found

    def by_key(self, idempotency_key: str) -> Rollout | None:
        return self._session.scalar(select(Rollout).where(Rollout.idempotency_key == idempotency_key))

    def page(self, after: str | None, limit: int) -> Sequence[Rollout]:
        """Rollouts from the newest on, behind the one with the id `after`. Raises UnknownRolloutError."""
        statement = select(Rollout).order_by(Rollout.created_ms.desc(), Rollout.id.desc()).limit(limit)
        if after is not None:
            last = self.get(after)
            statement = statement.where(tuple_(Rollout.created_ms, Rollout.id) < (last.created_ms, last.id))
        return self._session.scalars(statement).all()

    def active(self) -> Sequence[Rollout]:
        """Rollouts the scheduler must look at, oldest first."""
        states = [state.value for state in ACTIVE]
        return self._session.scalars(select(Rollout).where(Rollout.state.in_(states)).order_by(Rollout.created_ms)).all()

    def add(self, row: Rollout) -> Rollout:
        self._session.add(row)
        self._session.flush()
        return row

    def save(self, rollout: str, revision: int, epoch: int | None, progress: Progress, now_ms: int) -> int:
        """Store progress by compare-and-set; returns the new revision. Raises RaceError if anyone wrote in between.

        epoch: the writing scheduler's; None for an operator. A scheduler that is no longer the newest is refused here.
        """
        values = {
            "state": progress.state.value,
            "stage": progress.stage,
            "progress": msgspec.to_builtins(progress),
            "reason": progress.reason,
            "revision": revision + 1,
            "finished_ms": now_ms if progress.state in ENDED else None,
        }
        if epoch is not None:
            if self.epoch() != epoch:
                raise RaceError(f"scheduler epoch {epoch} is over: another scheduler has taken charge")
            values["epoch"] = epoch
        statement = update(Rollout).where(Rollout.id == rollout, Rollout.revision == revision).values(**values)
        if self._session.execute(statement).rowcount != 1:  # type: ignore[attr-defined]  # CursorResult, as of any update
            raise RaceError(f"rollout {rollout} was changed by someone else; read it again")
        self._session.expire_all()
        return revision + 1

    def epoch(self) -> int:
        return int(read_meta(self._session, EPOCH_KEY) or 0)

    def take_charge(self) -> int:
        """Begin a new scheduler epoch, which fences every earlier scheduler off."""
        epoch = self.epoch() + 1
        write_meta(self._session, EPOCH_KEY, str(epoch))
        return epoch

    # jobs

    def assign(self, rollout: str, assignments: Sequence[Assignment]) -> None:
        """Make the jobs of a rollout that starts."""
        ids = self._artifact_ids({a.sha256 for a in assignments} | {a.previous_sha256 for a in assignments})
        insert_new(
            self._session,
            Job,
            [
                {
                    "rollout": rollout,
                    "device": assignment.device,
                    "attempt": 1,
                    "position": position,
                    "stage": assignment.stage,
                    "artifact_id": ids[assignment.sha256],
                    # A device may serve what was never published here; there is no way back to that.
                    "previous_artifact_id": ids.get(assignment.previous_sha256),
                    "state": JobState.PENDING.value,
                    "error_code": "",
                    "error_detail": "",
                }
                for position, assignment in enumerate(assignments)
            ],
        )

    def jobs(self, rollout: str) -> list[JobValue]:
        """The rollout's jobs as the domain sees them, in the order of dispatch."""
        digests = self._digests(rollout)
        rows = self._session.scalars(select(Job).where(Job.rollout == rollout).order_by(Job.position)).all()
        return [
            JobValue(
                device=row.device,
                stage=row.stage,
                attempt=row.attempt,
                state=JobState(row.state),
                sha256=digests[row.artifact_id],
                previous_sha256=digests[row.previous_artifact_id] if row.previous_artifact_id is not None else "",
                error_code=row.error_code,
                error_detail=row.error_detail,
            )
            for row in rows
        ]

    def job_rows(self, rollout: str) -> Sequence[Job]:
        return self._session.scalars(select(Job).where(Job.rollout == rollout).order_by(Job.position)).all()

    def save_job(self, rollout: str, job: JobValue, now_ms: int) -> Job:
        """Store a job's new state with the moment it was told or ended."""
        row = self._session.scalars(select(Job).where(Job.rollout == rollout, Job.device == job.device)).one()
        if row.state != job.state.value:
            if job.state in (JobState.DISPATCHED, JobState.RETURNING):
                row.dispatched_ms = now_ms if job.state is JobState.DISPATCHED else row.dispatched_ms
                row.finished_ms = None
            elif job.state is not JobState.PENDING:
                row.finished_ms = now_ms
        row.state, row.attempt = job.state.value, job.attempt
        row.error_code, row.error_detail = job.error_code, job.error_detail
        self._session.flush()
        return row

    def rivals(self, rollout: str, model: str) -> dict[str, str]:
        """Devices that other rollouts of the model have a claim on, with the rollout that has it."""
        states = [state.value for state in CLAIMING]
        rows = self._session.execute(
            select(Job.device, Job.rollout)
            .join(Rollout, Rollout.id == Job.rollout)
            .where(Rollout.model == model, Rollout.id != rollout, Rollout.state.in_(states))
        ).all()
        return {row.device: row.rollout for row in rows}

    # verdicts

    def save_verdicts(self, rollout: str, stage: int, evaluation: int, verdicts: Sequence[Verdict], now_ms: int) -> int:
        """Keep what the gates said; an evaluation held already changes nothing. Returns how many were new."""
        rows = [
            {
                "rollout": rollout,
                "stage": stage,
                "evaluation": evaluation,
                "gate": verdict.gate,
                "decision": verdict.decision,
                "reason": verdict.reason,
                "numbers": msgspec.to_builtins(verdict),
                "at_ms": now_ms,
            }
            for verdict in verdicts
        ]
        return insert_new(self._session, tables.Verdict, rows)

    def verdicts(self, rollout: str, limit: int = 100) -> Sequence[tables.Verdict]:
        """Stored verdicts, newest evaluation first."""
        return self._session.scalars(
            select(tables.Verdict)
            .where(tables.Verdict.rollout == rollout)
            .order_by(tables.Verdict.evaluation.desc(), tables.Verdict.id)
            .limit(limit)
        ).all()

    def _artifact_ids(self, digests: set[str]) -> dict[str, int]:
        rows = self._session.execute(select(Artifact.sha256, Artifact.id).where(Artifact.sha256.in_(digests))).all()
        return {row.sha256: row.id for row in rows}

    def _digests(self, rollout: str) -> dict[int, str]:
        used = select(Job.artifact_id).where(Job.rollout == rollout)
        previous = select(Job.previous_artifact_id).where(Job.rollout == rollout)
        rows = self._session.execute(
            select(Artifact.id, Artifact.sha256).where(Artifact.id.in_(used) | Artifact.id.in_(previous))
        ).all()
        return {row.id: row.sha256 for row in rows}


def plan_of(row: Rollout) -> Plan:
    return msgspec.convert(row.plan, Plan)


def progress_of(row: Rollout) -> Progress:
    return msgspec.convert(row.progress, Progress)
