"""What is done in each state of an update?

One idempotent action per state of `table.py`. The heavy and the dangerous happen in the helper process; here, files are
linked, the switch is thrown, and the serving side is told.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from runtime.config import UpdateSettings
from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import DeploymentState as S
from runtime.contract.deployment import DeviceProfile, Settings
from runtime.errors import FetchError, HelperTimeoutError, ProbationError
from runtime.update.machine import DONE, Action, Answer, Job
from runtime.update.requests import FetchRequest, Reply, Request, Task, TestRequest, VerifyRequest
from runtime.update.state import State
from runtime.update.table import Event

FETCH_SLICE_S = 30.0
PROBATION_LOOK_S = 0.5
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0

Delegate = Callable[[Task, Request, float], Reply]


class Serving(Protocol):
    """What an update needs of the inference side."""

    def open(self, directory: Path) -> Any:
        """Check and load the artifact in a slot, without serving it yet. Raises EngineError or ContractError."""

    def switch(self, served: Any) -> Any:
        """Serve it from the next request on, in place of the model's previous version, which is closed when unused."""

    def retire(self, model: str) -> Any:
        """Serve this model no more. An unknown model is no error."""

    def artifact(self, model: str) -> ArtifactRef | None:
        """What serves now."""

    def counts(self, model: str) -> tuple[int, int]:
        """Requests and errors of the version that serves now, since it began to."""


class Actions:
    """The actions of one device. settings: the fleet's newest wishes; monotonic_s, jitter: injected by tests."""

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
    ) -> None:
        self._state_dir = state.directory
        self._store = state.store
        self._slots = state.slots
        self._serving = serving
        self._delegate = delegate
        self._profile = profile
        self._bounds = bounds
        self._settings = settings
        self._monotonic_s = monotonic_s
        self._jitter = jitter
        self._since: dict[tuple[str, S], float] = {}
        self._tries: dict[str, int] = {}

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
        slowly, for a bounded time.
        """
        request = FetchRequest(
            state_dir=str(self._state_dir),
            model=job.model,
            artifact=job.artifact,
            floor=self._store.floor(job.model),
            profile=self._profile,
            reserve_bytes=self._bounds.reserve_bytes,
            source=job.source,
        )
        try:
            self._delegate(Task.FETCH, request, min(FETCH_SLICE_S, self._bounds.fetch_timeout_s))
        except HelperTimeoutError as error:
            if self._lasting_s(job) >= self._bounds.fetch_timeout_s:
                raise
            return Answer(Event.LATER, error.code, str(error))
        except FetchError as error:
            if job.source or self._lasting_s(job) >= self._bounds.fetch_retry_s:
                raise
            return Answer(Event.LATER, error.code, str(error), wait_s=self._next_retry_s(job))
        return DONE

    def verify(self, job: Job) -> Answer:
        """Build the slot from blobs, then check every byte of it."""
        self._slots.fill(job.model, job.slot, job.artifact.sha256)
        request = VerifyRequest(
            directory=str(self._slots.directory(job.model, job.slot)),
            model=job.model,
            artifact=job.artifact,
            floor=self._store.floor(job.model),
            profile=self._profile,
        )
        self._delegate(Task.VERIFY, request, self._bounds.verify_timeout_s)
        return DONE

    def test(self, job: Job) -> Answer:
        """Have the model compute its golden outputs in a process of its own."""
        directory = str(self._slots.directory(job.model, job.slot))
        request = TestRequest(directory=directory, memory_bytes=self._bounds.helper_memory_bytes)
        self._delegate(Task.TEST, request, self._bounds.test_timeout_s)
        return DONE

    def switch(self, job: Job) -> Answer:
        """Load, then move the symlink, then let requests in: whatever fails or dies before the rename leaves the old version."""
        opened = self._serving.open(self._slots.directory(job.model, job.slot))
        self._slots.activate(job.model, job.slot)
        self._serving.switch(opened)
        self._since.pop((job.model, S.PROBATION), None)
        return DONE

    def watch(self, job: Job) -> Answer:
        """Probation: the share of failing requests decides while it lasts; crashes are counted at each start."""
        if self._serving.artifact(job.model) != job.artifact:
            raise ProbationError("the new version does not serve")
        requests, errors = self._serving.counts(job.model)
        if requests >= self._bounds.probation_min_requests and errors > requests * self._bounds.probation_max_error_ratio:
            raise ProbationError(f"{errors} of {requests} requests failed")
        left_s = self._settings().probation_s - self._lasting_s(job)
        return DONE if left_s <= 0 else Answer(Event.LATER, wait_s=min(PROBATION_LOOK_S, left_s))

    def commit(self, job: Job) -> Answer:
        """From here on nothing below the artifact's signed floor is accepted for this model."""
        manifest = self._slots.manifest(job.model, job.slot).value
        self._store.raise_floor(job.model, manifest.rollback_floor)
        return DONE

    def roll_back(self, job: Job) -> Answer:
        """Make the previous slot the serving one, on disk first. With no previous version the model serves no more."""
        self._slots.activate(job.model, job.previous)
        if job.previous is None:
            self._serving.retire(job.model)
        elif self._serving.artifact(job.model) != self._slots.artifact(job.model, job.previous):
            self._serving.switch(self._serving.open(self._slots.directory(job.model, job.previous)))
        return DONE

    def report(self, job: Job) -> Answer:
        """The outcome is stored already and goes out with every report; what is left is to forget this update's timers."""
        self._tries.pop(job.model, None)
        for state in S:
            self._since.pop((job.model, state), None)
        return DONE

    def _lasting_s(self, job: Job) -> float:
        """How long this job has been in its state, since this process first looked."""
        now = self._monotonic_s()
        return now - self._since.setdefault((job.model, job.state), now)

    def _next_retry_s(self, job: Job) -> float:
        tries = self._tries[job.model] = self._tries.get(job.model, 0) + 1
        return min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** (tries - 1)) * (0.5 + self._jitter() / 2)
