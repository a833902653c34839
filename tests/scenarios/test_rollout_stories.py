"""Whole rollouts over the pure domain: who fails where, which states follow, and what every device serves at the end.

`Fleet` is the world around the domain: it carries actions out, lets devices answer, and passes time. Each story is a row.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from fleet.domain.evidence import Behaviour, DeviceEvidence, Evidence
from fleet.domain.gates import GateLimits
from fleet.domain.jobs import Job, JobState, Report, settle
from fleet.domain.plan import Plan, Stage
from fleet.domain.rollout import (
    ACTIVE,
    Amend,
    Dispatch,
    Progress,
    Record,
    RolloutEvent,
    RolloutState,
    SendBack,
    operate,
    retry,
    step,
)
from runtime.contract.deployment import Outcome

OLD, NEW = "old", "new"
STEP_MS = 1_000
WINDOW_MS = 2_000
"""A device's first window under the new artifact comes this long after its update."""
PATIENCE = 300
"""Steps after which a story that has not ended counts as held."""


@dataclass
class World:
    """What goes wrong. Each value names devices, by their place in the order of dispatch."""

    refuses: set[int] = field(default_factory=set)
    refuses_once: set[int] = field(default_factory=set)
    silent: set[int] = field(default_factory=set)
    without_traffic: set[int] = field(default_factory=set)
    errors: set[int] = field(default_factory=set)
    slow: set[int] = field(default_factory=set)
    confused: set[int] = field(default_factory=set)
    unreadable: set[int] = field(default_factory=set)
    revoked: set[int] = field(default_factory=set)
    cannot_return: set[int] = field(default_factory=set)
    empty: bool = False


class Fleet:
    """Eight devices under one rollout."""

    def __init__(self, plan: Plan, world: World) -> None:
        self.plan = plan
        self.world = world
        self.progress = Progress()
        self.now_ms = 0
        self.path = [self.progress.state]
        self.serving = dict.fromkeys(range(8), "" if world.empty else OLD)
        self.settled_ms: dict[int, int] = {}
        self.dispatches: list[tuple[int, int]] = []
        ends = [stage.reach(8) for stage in plan.stages]
        self.jobs = {
            n: Job(
                device=f"gw-{n}",
                stage=next(number for number, end in enumerate(ends) if n < end),
                attempt=1,
                state=JobState.PENDING,
                sha256=NEW,
                previous_sha256=self.serving[n],
            )
            for n in range(8)
        }

    def ask(self, event: RolloutEvent) -> None:
        self._move(operate(self.progress, event, self.plan, self.now_ms, f"{event} by ann"))
        if event is RolloutEvent.RESUME:
            for amend in retry(list(self.jobs.values())):
                self._keep(amend.job)

    def tick(self) -> None:
        """Devices report, the domain takes a step, its actions are carried out, a second passes."""
        self.jobs = {n: settle("r", job, self._report(n, job)) for n, job in self.jobs.items()}
        evidence = Evidence(devices=tuple(self._evidence(n, job) for n, job in self.jobs.items()))
        progress, actions = step(self.plan, self.progress, evidence, self.now_ms, evaluate_ms=STEP_MS)
        self._move(progress)
        for action in actions:
            match action:
                case Dispatch(job) | SendBack(job):
                    self.dispatches.append((self._number(job), job.attempt))
                    self._keep(job)
                case Amend(job):
                    self._keep(job)
                case Record():
                    pass
        self.now_ms += STEP_MS

    def run(self, until: Callable[["Fleet"], bool] = lambda fleet: fleet.progress.state not in ACTIVE) -> None:
        for _ in range(PATIENCE):
            if until(self):
                return
            self.tick()

    def _report(self, n: int, job: Job) -> Report:
        if n in self.world.silent:
            return Report()
        if n in self.world.revoked:
            return Report(revoked=True)
        if job.state is JobState.DISPATCHED:
            fails = n in self.world.refuses or (n in self.world.refuses_once and job.attempt == 1)
            self.serving[n] = self.serving[n] if fails else NEW
            return self._final(n, job, NEW, fails)
        if job.state is JobState.RETURNING:
            fails = n in self.world.cannot_return
            self.serving[n] = self.serving[n] if fails else job.previous_sha256
            return self._final(n, job, job.previous_sha256, fails)
        return Report()

    def _final(self, n: int, job: Job, wanted: str, fails: bool) -> Report:
        return Report(
            applied=True,
            serving_sha256=self.serving[n],
            wanted_sha256=wanted,
            rollout="r",
            attempt=job.attempt,
            outcome=Outcome.REFUSED if fails else Outcome.SUCCEEDED,
            error_code="update.self_test_failed" if fails else "",
        )

    def _evidence(self, n: int, job: Job) -> DeviceEvidence:
        rows = 10_000
        calm = Behaviour(windows=9, requests=rows, rows=rows, latency={60: rows}, classes=(rows // 2, rows // 2))
        after = calm
        if n in self.world.errors:
            after = msgspec.structs.replace(calm, errors=rows // 10)
        if n in self.world.slow:
            after = msgspec.structs.replace(calm, latency={90: rows})
        if n in self.world.confused:
            after = msgspec.structs.replace(calm, classes=(rows, 0))
        if job.state is JobState.SUCCEEDED:
            self.settled_ms.setdefault(n, self.now_ms)
        no_window_yet = self.now_ms - self.settled_ms.get(n, self.now_ms) < WINDOW_MS
        if n in self.world.without_traffic or no_window_yet:
            after = Behaviour()
        before = None if self.world.empty else calm
        return DeviceEvidence(
            job=job,
            before=before,
            after=after,
            unreadable="a torn window" if n in self.world.unreadable else "",
            is_ours=n not in self.world.revoked,
        )

    def _move(self, progress: Progress) -> None:
        if progress.state is not self.progress.state:
            self.path.append(progress.state)
        self.progress = progress

    def _keep(self, job: Job) -> None:
        self.jobs[self._number(job)] = job

    def _number(self, job: Job) -> int:
        return int(job.device.removeprefix("gw-"))


STAGES = (Stage(count=1, soak_s=5), Stage(percent=50, soak_s=5), Stage(percent=100, soak_s=5))
PLAN = Plan(model="digits", version="2.0.0", stages=STAGES)
GOOD = "created updating soaking updating soaking updating soaking done"
STOPPED_AT_CANARY = "created updating soaking rolling_back rolled_back"


@dataclass(frozen=True)
class Story:
    """path: states in order. served: what each of the eight devices serves at the end, N new, O old, - nothing."""

    name: str
    world: World
    path: str
    served: str
    plan: Plan = PLAN


def planned(**changes: object) -> Plan:
    return msgspec.structs.replace(PLAN, **changes)


STORIES = [
    Story("all is well", World(), GOOD, "NNNNNNNN"),
    Story("a first version, nothing to compare with", World(empty=True), GOOD, "NNNNNNNN"),
    Story("the canary refuses the artifact", World(refuses={0}), "created updating rolling_back rolled_back", "OOOOOOOO"),
    Story("a device of the second stage refuses it", World(refuses={2}),
          "created updating soaking updating rolling_back rolled_back", "OOOOOOOO"),
    Story("one refusal is tolerated", World(refuses={2}), GOOD, "NNONNNNN",
          planned(gates=GateLimits(max_failed_updates=1))),
    Story("one is tolerated, two are not", World(refuses={2, 3}),
          "created updating soaking updating rolling_back rolled_back", "OOOOOOOO",
          planned(gates=GateLimits(max_failed_updates=1))),
    Story("requests fail on the canary", World(errors={0}), STOPPED_AT_CANARY, "OOOOOOOO"),
    Story("the canary answers slowly", World(slow={0}), STOPPED_AT_CANARY, "OOOOOOOO"),
    Story("the canary's classes shift", World(confused={0}), STOPPED_AT_CANARY, "OOOOOOOO"),
    Story("classes shift in the last stage only", World(confused={7}),
          "created updating soaking updating soaking updating soaking rolling_back rolled_back", "OOOOOOOO"),
    Story("a first version goes wrong: back to nothing", World(empty=True, errors={0}), STOPPED_AT_CANARY, "--------"),
    Story("a silent canary holds", World(silent={0}), "created updating", "OOOOOOOO"),
    Story("a silent device of stage two holds there", World(silent={3}), "created updating soaking updating", "NNNOOOOO"),
    Story("a canary without traffic holds", World(without_traffic={0}), "created updating soaking", "NOOOOOOO"),
    Story("unreadable evidence holds", World(unreadable={0}), "created updating soaking", "NOOOOOOO"),
    Story("a revoked device is no reason to wait", World(revoked={2}), GOOD, "NNONNNNN"),
    Story("pause instead of going back", World(errors={0}), "created updating soaking paused", "NOOOOOOO",
          planned(on_failure="pause")),
    Story("one device cannot go back; the rest do", World(errors={1}, cannot_return={1}),
          "created updating soaking updating soaking rolling_back rolled_back", "ONOOOOOO"),
    Story("approval is waited for", World(), "created updating soaking awaiting_approval", "NOOOOOOO",
          planned(stages=(msgspec.structs.replace(STAGES[0], approval=True), *STAGES[1:]))),
]  # fmt: skip


@pytest.mark.parametrize("story", STORIES, ids=[story.name for story in STORIES])
def test_story(story: Story) -> None:
    fleet = Fleet(story.plan, replace(story.world))
    fleet.ask(RolloutEvent.START)
    fleet.run()
    assert " ".join(fleet.path) == story.path
    letters = {NEW: "N", OLD: "O", "": "-"}
    assert "".join(letters[fleet.serving[n]] for n in range(8)) == story.served
    assert len(set(fleet.dispatches)) == len(fleet.dispatches), "a device was told the same attempt twice"


def test_a_failed_device_succeeds_on_the_attempt_after_resuming() -> None:
    fleet = Fleet(planned(on_failure="pause"), World(refuses_once={0}))
    fleet.ask(RolloutEvent.START)
    fleet.run(lambda now: now.progress.state is RolloutState.PAUSED)
    fleet.ask(RolloutEvent.RESUME)
    fleet.run()
    assert fleet.progress.state is RolloutState.DONE
    assert [attempt for n, attempt in fleet.dispatches if n == 0] == [1, 2]


def test_pausing_tells_nobody_new_and_resuming_goes_on_where_it_was() -> None:
    fleet = Fleet(PLAN, World())
    fleet.ask(RolloutEvent.START)
    fleet.run(lambda now: now.progress.stage == 1)
    fleet.ask(RolloutEvent.PAUSE)
    told = list(fleet.dispatches)
    for _ in range(50):
        fleet.tick()
    assert fleet.dispatches == told
    fleet.ask(RolloutEvent.RESUME)
    fleet.run()
    assert fleet.progress.state is RolloutState.DONE
    assert sorted(n for n, _ in fleet.dispatches) == list(range(8))


@pytest.mark.parametrize("ticks", range(25))
def test_rolling_back_at_any_moment_brings_every_device_home(ticks: int) -> None:
    fleet = Fleet(PLAN, World())
    fleet.ask(RolloutEvent.START)
    for _ in range(ticks):
        fleet.tick()
    fleet.ask(RolloutEvent.ROLL_BACK)
    fleet.run()
    assert fleet.progress.state is RolloutState.ROLLED_BACK
    assert set(fleet.serving.values()) == {OLD}


def test_a_device_that_comes_back_during_a_rollback_ends_it() -> None:
    fleet = Fleet(PLAN, World(silent={0}))
    fleet.ask(RolloutEvent.START)
    fleet.run(lambda now: bool(now.dispatches))
    fleet.ask(RolloutEvent.ROLL_BACK)
    fleet.run()
    assert fleet.progress.state is RolloutState.ROLLING_BACK
    fleet.world.silent.clear()
    fleet.run()
    assert fleet.progress.state is RolloutState.ROLLED_BACK


def test_with_a_concurrency_of_two_no_more_than_two_update_at_once() -> None:
    fleet = Fleet(planned(stages=(Stage(percent=100, soak_s=5),), concurrency=2), World())
    fleet.ask(RolloutEvent.START)
    most = 0
    while fleet.progress.state is RolloutState.UPDATING:
        fleet.tick()
        most = max(most, sum(job.state is JobState.DISPATCHED for job in fleet.jobs.values()))
    assert most == 2
    fleet.run()
    assert fleet.progress.state is RolloutState.DONE
