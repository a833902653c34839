"""How does an update move: act, look up what follows, store it, act again?

The interpreter of `table.py`. The new state is on disk before its action runs, so after a power loss the device knows
what it was about to do; actions are idempotent and answer with one event.
"""

import logging
from collections.abc import Callable, Mapping

import msgspec

from runtime.contract.artifact import ArtifactRef, Count, Name
from runtime.contract.deployment import SHARE_WHOLE, Outcome, Role, Slot
from runtime.contract.deployment import DeploymentState as S
from runtime.contract.errors import ContractError
from runtime.errors import DaemonError, InterruptedUpdateError, StoreError, SupersededError
from runtime.update.lanes import lane_of
from runtime.update.table import COUNTED, MAX_INTERRUPTIONS, OUTCOME_OF_FAILURE, RESUME, SAFE_EXIT, TRANSITIONS, Event

log = logging.getLogger(__name__)

DETAIL_LIMIT = 500


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One update in one lane, from the moment it starts until the next one starts; kept in state.db.

    slot: where the artifact goes; previous: the slot that served when it started (None: nothing did).
    generation: of the desired state that asked for it; 0 for a side-load, whose bundle is `source` ("": the fleet's store).
    over: the generation a side-load stands above; a newer one is the fleet's word again.
    outcome is set once, by what happened first; a crash loop of a committed version is the one thing that changes it later.
    interruptions: unclean stops since the update, or its probation, began. is_placed: the slot may hold the artifact.
    baseline_ns: half of the previous version's requests took less, when it was replaced; 0 = unknown.
    """

    model: Name
    role: Role = "active"
    share: Count = SHARE_WHOLE
    artifact: ArtifactRef
    rollout: str = ""
    attempt: Count = 0
    generation: Count = 0
    source: str = ""
    over: Count = 0
    slot: Slot
    previous: Slot | None = None
    state: S = S.IDLE
    outcome: Outcome = Outcome.NONE
    error_code: str = ""
    error_detail: str = ""
    interruptions: Count = 0
    is_placed: bool = False
    baseline_ns: Count = 0

    @property
    def lane(self) -> str:
        return lane_of(self.model, self.role)

    @property
    def is_running(self) -> bool:
        return self.state is not S.IDLE


class Answer(msgspec.Struct, frozen=True):
    """What an action says. wait_s: with LATER, how long until it wants to be asked again; baseline_ns: as of `Job`."""

    event: Event
    code: str = ""
    detail: str = ""
    wait_s: float = 0.0
    baseline_ns: int = 0


DONE = Answer(Event.DONE)

Action = Callable[[Job], Answer]


def follow(job: Job, answer: Answer) -> Job:
    """The job after an answer; pure. An absent pair takes the safe exit."""
    state = TRANSITIONS.get((job.state, answer.event))
    if state is None:
        log.error("update of %s: no transition for %s in %s", job.lane, answer.event, job.state)
        state = SAFE_EXIT[job.state]
    change: dict[str, object] = {"state": state}
    if state is S.PROBATION and job.state is not S.PROBATION:
        change["interruptions"] = 0
        change["baseline_ns"] = answer.baseline_ns
    if state is S.VERIFYING:
        change["is_placed"] = True
    if answer.event not in (Event.DONE, Event.LATER, Event.START) and job.outcome is Outcome.NONE:
        change["outcome"] = OUTCOME_OF_FAILURE.get(job.state, Outcome.ROLLED_BACK)
        change["error_code"], change["error_detail"] = answer.code, answer.detail[:DETAIL_LIMIT]
    elif answer.event is Event.DONE and job.state is S.COMMITTING:
        change["outcome"] = Outcome.SUCCEEDED
    return msgspec.structs.replace(job, **change)


def resume(job: Job, *, clean: bool) -> Job:
    """The job after a start of the daemon; pure. clean: the last stop was an orderly one and counts as no interruption."""
    if not job.is_running:
        return job
    resumed = msgspec.structs.replace(job, state=RESUME[job.state])
    if clean or job.state not in COUNTED:
        return resumed
    counted = msgspec.structs.replace(resumed, interruptions=job.interruptions + 1)
    if counted.interruptions < MAX_INTERRUPTIONS:
        return counted
    detail = f"interrupted {counted.interruptions} times, last while {job.state}"
    return follow(counted, Answer(Event.EXHAUSTED, InterruptedUpdateError.code, detail))


class Machine:
    """Moves jobs. save: makes a job durable before it returns; changed: told after each save."""

    def __init__(self, actions: Mapping[S, Action], save: Callable[[Job], None], changed: Callable[[Job], None]) -> None:
        self._actions = actions
        self._save = save
        self._changed = changed

    def start(self, job: Job) -> Job:
        return self._move(job, Answer(Event.START))

    def step(self, job: Job) -> tuple[Job, float]:
        """Run the action of the job's state once. Returns the job as stored, and how long to wait before the next step."""
        answer = self._act(job)
        return self._move(job, answer), answer.wait_s

    def supersede(self, job: Job, by: str) -> Job:
        """Leave the way forward, if the state allows it, because `by` wants something else."""
        if (job.state, Event.SUPERSEDED) not in TRANSITIONS:
            return job
        return self._move(job, Answer(Event.SUPERSEDED, SupersededError.code, f"superseded by {by}"))

    def _act(self, job: Job) -> Answer:
        try:
            return self._actions[job.state](job)
        except (DaemonError, ContractError) as error:
            log.warning("update of %s to %s: %s failed: %s", job.lane, job.artifact.version, job.state, error)
            return Answer(Event.FAILED, error.code, str(error))
        except OSError as error:
            log.warning("update of %s to %s: %s failed: %s", job.lane, job.artifact.version, job.state, error)
            return Answer(Event.FAILED, StoreError.code, str(error))
        except Exception as error:  # the worker's edge: whatever an action did not foresee ends this update only
            log.exception("update of %s to %s: %s failed unexpectedly", job.lane, job.artifact.version, job.state)
            return Answer(Event.FAILED, DaemonError.code, f"{type(error).__name__}: {error}")

    def _move(self, job: Job, answer: Answer) -> Job:
        moved = follow(job, answer)
        if moved != job:
            self._save(moved)
            self._changed(moved)
        return moved
