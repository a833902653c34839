"""What is done in each state of an update?

One idempotent action per state of `table.py`. The heavy and the dangerous happen in the helper process; here, files are
linked, the switch is thrown, and the serving side is told.
"""

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from runtime.backends.fallback import expected_engine
from runtime.config import UpdateSettings
from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import SHARE_WHOLE, DeviceProfile, Outcome, Role, Settings
from runtime.contract.deployment import DeploymentState as S
from runtime.errors import FetchError, HelperTimeoutError, ProbationError, StoreError
from runtime.serving.models.health import Health
from runtime.update.machine import DONE, Action, Answer, Job
from runtime.update.memory_fit import Room, measured_need, require_room, rooms
from runtime.update.probation import failure_of
from runtime.update.requests import FetchRequest, Reply, Request, Task, TestRequest, VerifyRequest
from runtime.update.state import State
from runtime.update.table import Event

log = logging.getLogger(__name__)

FETCH_SLICE_S = 30.0
PROBATION_LOOK_S = 0.5
ROLL_BACK_RETRY_S = 5.0
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0

Delegate = Callable[[Task, Request, float], Reply]


class Serving(Protocol):
    """What an update needs of the inference side. A model has up to one version per role."""

    def open(self, directory: Path, role: Role = "active", share: int = SHARE_WHOLE, *, trial: bool = False) -> Any:
        """Check and load the artifact in a slot, without serving it yet. Raises EngineError or ContractError.

        share: of the traffic, out of SHARE_WHOLE. trial: not committed, so it may be run apart until `settle`.
        """

    def switch(self, served: Any) -> Any:
        """Serve it from the next request on, in place of what had its role, which is closed when unused."""

    def retire(self, model: str, role: Role = "active") -> Any:
        """Serve this model no more in this role. An unknown one is no error."""

    def artifact(self, model: str, role: Role = "active") -> ArtifactRef | None:
        """What serves now."""

    def health(self, model: str, role: Role = "active") -> Health:
        """How the version that serves now has fared, since it began to."""

    def settle(self, model: str, role: Role = "active") -> Any:
        """It is committed: a trial may now run where the others do. Raises EngineError when it cannot."""


class Actions:
    """The actions of one device. settings: the fleet's newest wishes; monotonic_s, jitter: injected by tests.

    memory: the bounds on the process that will serve, given `[update] memory_bytes`.
    """

    def __init__(
        self,
        state: State,
        serving: Serving,
        delegate: Delegate,
        *,
        profile: DeviceProfile,
        bounds: UpdateSettings,
        settings: Callable[[], Settings],
        monotonic_s: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        memory: Callable[[int], tuple[Room, ...]] = rooms,
    ) -> None:
        self._state_dir = state.directory
        self._clock = state.clock
        self._store = state.store
        self._slots = state.slots
        self._serving = serving
        self._delegate = delegate
        self._profile = profile
        self._bounds = bounds
        self._settings = settings
        self._monotonic_s = monotonic_s
        self._jitter = jitter
        self._rooms = lambda: memory(bounds.memory_bytes)
        self._since: dict[tuple[str, S], float] = {}
        self._tries: dict[str, int] = {}
        self._brought: dict[str, tuple[int, float]] = {}

    def table(self) -> dict[S, Action]:
        return {
            S.FETCHING: self.fetch,
            S.VERIFYING: self.verify,
            S.TESTING: self.test,
            S.SWITCHING: self.switch,
            S.PROBATION: self.watch,
            S.COMMITTING: self.commit,
            S.ROLLING_BACK: self.roll_back,
            S.REPORTING: self.report,
        }

    def fetch(self, job: Job) -> Answer:
        """Bring the blobs, a slice of time at a go, so that a newer desired state never waits for a slow download.

        What a slice brought stays on the disk and the next resumes there. An unreachable store is tried again, ever more
        slowly, for a bounded time without a byte: a poor line that brings some now and then is given fetch_timeout_s.
        """
        request = FetchRequest(
            state_dir=str(self._state_dir),
            model=job.model,
            artifact=job.artifact,
            floor=self._store.floor(job.model),
            profile=self._profile,
            reserve_bytes=self._bounds.reserve_bytes,
            bytes_per_s=self._bounds.fetch_bytes_per_s,
            source=job.source,
            disk_bytes=self._bounds.disk_bytes,
            keep=self._others(job),
            rooms=self._rooms(),
            now_s=int(self._clock.now_s()),
            last_contact_s=self._clock.last_contact_s,
        )
        try:
            self._delegate(Task.FETCH, request, min(FETCH_SLICE_S, self._bounds.fetch_timeout_s))
        except HelperTimeoutError as error:
            if self._lasting_s(job) >= self._bounds.fetch_timeout_s:
                raise
            return Answer(Event.LATER, error.code, str(error))
        except FetchError as error:
            if job.source or self._stalled_s(job) >= self._bounds.fetch_retry_s:
                raise
            return Answer(Event.LATER, error.code, str(error), wait_s=self._next_retry_s(job))
        return DONE

    def verify(self, job: Job) -> Answer:
        """Build the slot from blobs, then check every byte of it."""
        self._slots.fill(job.lane, job.slot, job.artifact.sha256)
        request = VerifyRequest(
            directory=str(self._slots.directory(job.lane, job.slot)),
            model=job.model,
            artifact=job.artifact,
            floor=self._store.floor(job.model),
            profile=self._profile,
        )
        self._delegate(Task.VERIFY, request, self._bounds.verify_timeout_s)
        return DONE

    def test(self, job: Job) -> Answer:
        """Have the model compute its golden outputs in a process of its own, then see whether it fits into this one too."""
        directory = str(self._slots.directory(job.lane, job.slot))
        manifest = self._slots.manifest(job.lane, job.slot).value
        request = TestRequest(directory=directory, memory_bytes=self._bounds.helper_memory_bytes)
        reply = self._delegate(Task.TEST, request, self._bounds.test_timeout_s)
        require_room(measured_need(reply.figures, expected_engine(manifest).name), self._rooms())
        return DONE

    def switch(self, job: Job) -> Answer:
        """Load, then move the symlink, then let requests in: whatever fails or dies before the rename leaves the old version."""
        before = self._serving.health(job.model, job.role)
        opened = self._serving.open(self._slots.directory(job.lane, job.slot), job.role, job.share, trial=True)
        self._slots.activate(job.lane, job.slot)
        self._serving.switch(opened)
        self._since.pop((job.lane, S.PROBATION), None)
        is_known = not before.failure and before.requests >= self._bounds.probation_min_requests
        return Answer(Event.DONE, baseline_ns=before.p50_ns if is_known else 0)

    def watch(self, job: Job) -> Answer:
        """Probation: what the version does with live requests decides while it lasts; crashes are counted at each start."""
        health = self._serving.health(job.model, job.role)
        if self._serving.artifact(job.model, job.role) != job.artifact:  # a broken one has given its place back already
            raise ProbationError(f"the new version does not serve{health.failure and ': '}{health.failure}")
        limit_ns = self._slots.manifest(job.lane, job.slot).value.limits.max_latency_ns
        if failure := failure_of(job, health, self._bounds, limit_ns):
            raise ProbationError(failure)
        left_s = self._settings().probation_s - self._lasting_s(job)
        return DONE if left_s <= 0 else Answer(Event.LATER, wait_s=min(PROBATION_LOOK_S, left_s))

    def commit(self, job: Job) -> Answer:
        """The version may run where the others do; from here on nothing below its signed floor is accepted for this model.

        A shadow or split raises no floor: it is on trial in the fleet's eyes, and must not bar what answers.
        """
        self._serving.settle(job.model, job.role)
        if job.role == "active":
            self._store.raise_floor(job.model, self._slots.manifest(job.lane, job.slot).value.rollback_floor)
        return DONE

    def roll_back(self, job: Job) -> Answer:
        """Make the previous slot the serving one. With no previous version nothing of the lane serves.

        The way back does not end before it is on the disk: the next start would serve what was refused. A disk that fails
        meanwhile keeps nobody from being served by the old version.
        """
        answer = DONE
        try:
            self._slots.activate(job.lane, job.previous)
        except OSError as error:
            log.error("%s: the way back cannot be stored yet: %s", job.lane, error)
            answer = Answer(Event.LATER, StoreError.code, str(error), wait_s=ROLL_BACK_RETRY_S)
        if job.previous is None:
            self._serving.retire(job.model, job.role)
        elif self._serving.artifact(job.model, job.role) != self._slots.artifact(job.lane, job.previous):
            self._serving.switch(self._serving.open(self._slots.directory(job.lane, job.previous), job.role, job.share))
        return answer

    def report(self, job: Job) -> Answer:
        """The outcome is stored already and goes out with every report; what is left is to forget this update's timers.

        A slot that holds what was refused is emptied: should the serving one be damaged, this is no version to fall back to.
        """
        self._tries.pop(job.lane, None)
        self._brought.pop(job.lane, None)
        for state in S:
            self._since.pop((job.lane, state), None)
        has_failed = job.outcome is not Outcome.SUCCEEDED and job.is_placed and self._slots.active(job.lane) != job.slot
        if has_failed and self._slots.artifact(job.lane, job.slot) in (job.artifact, None):
            self._slots.drop(job.lane, job.slot)
        return DONE

    def _others(self, job: Job) -> tuple[str, ...]:
        """Manifests whose blobs are in no slot yet, and yet needed: those of the other updates on their way."""
        return tuple(
            other.artifact.sha256 for other in self._store.jobs().values() if other.is_running and other.lane != job.lane
        )

    def _lasting_s(self, job: Job) -> float:
        """How long this job has been in its state, since this process first looked."""
        now = self._monotonic_s()
        return now - self._since.setdefault((job.lane, job.state), now)

    def _stalled_s(self, job: Job) -> float:
        """How long nothing more has come of what this job fetches."""
        here = sum(path.stat().st_size for path in self._slots.blobs.iterdir())
        now = self._monotonic_s()
        held, since = self._brought.get(job.lane, (-1, now))
        if here > held:
            held, since = here, now
            self._tries.pop(job.lane, None)
        self._brought[job.lane] = (held, since)
        return now - since

    def _next_retry_s(self, job: Job) -> float:
        tries = self._tries[job.lane] = self._tries.get(job.lane, 0) + 1
        return min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** (tries - 1)) * (0.5 + self._jitter() / 2)
