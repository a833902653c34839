"""Whole stories of an update, told over the pure machine: what happens where, which states follow, what is reported."""

from typing import NamedTuple

import pytest

from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import DeploymentState as S
from runtime.contract.deployment import Outcome
from runtime.errors import FetchError, ProbationError, SelfTestError, StoreError
from runtime.update.machine import DONE, Answer, Job, Machine, follow, resume
from runtime.update.table import COUNTED, MAX_INTERRUPTIONS, Event

ARTIFACT = ArtifactRef(version="1.1.0", target="x86-64-cpu", sha256="0" * 64)
NEW = Job(model="digits", artifact=ARTIFACT, rollout="r1", slot="b", previous="a", generation=4)
FORWARD = [S.FETCHING, S.VERIFYING, S.TESTING, S.SWITCHING, S.PROBATION, S.COMMITTING, S.REPORTING, S.IDLE]
LATER = Answer(Event.LATER)


class Story(NamedTuple):
    """script: what the action of a state answers or raises, in turn; a state not named, or used up, answers DONE."""

    name: str
    script: dict[S, list[object]]
    path: list[S]
    outcome: Outcome
    code: str = ""


def before(state: S) -> list[S]:
    return FORWARD[: FORWARD.index(state) + 1]


REFUSED = [S.REPORTING, S.IDLE]
BACK = [S.ROLLING_BACK, S.REPORTING, S.IDLE]
STORIES = [
    Story("all goes well", {}, FORWARD, Outcome.SUCCEEDED),
    Story("the store is away for a while", {S.FETCHING: [LATER, LATER]}, FORWARD, Outcome.SUCCEEDED),
    Story("probation takes its time", {S.PROBATION: [LATER] * 5}, FORWARD, Outcome.SUCCEEDED),
    Story("the store stays away", {S.FETCHING: [FetchError("no")]}, [*before(S.FETCHING), *REFUSED], Outcome.REFUSED, "update.fetch_failed"),
    Story("wrong outputs", {S.TESTING: [SelfTestError("off")]}, [*before(S.TESTING), *REFUSED], Outcome.REFUSED, "update.self_test_failed"),
    Story("the engine cannot open it", {S.SWITCHING: [StoreError("no")]}, [*before(S.SWITCHING), *BACK], Outcome.ROLLED_BACK, "store.error"),
    Story("requests fail", {S.PROBATION: [LATER, ProbationError("9 of 10")]}, [*before(S.PROBATION), *BACK], Outcome.ROLLED_BACK, "update.probation_failed"),
    Story("the commit cannot be stored", {S.COMMITTING: [OSError(5, "EIO")]}, [*before(S.COMMITTING), *BACK], Outcome.ROLLED_BACK, "store.error"),
    Story("a bug in an action", {S.VERIFYING: [ZeroDivisionError()]}, [*before(S.VERIFYING), *REFUSED], Outcome.REFUSED, "daemon.error"),
    Story(
        "going back fails too: the first failure is the one reported",
        {S.PROBATION: [ProbationError("bad")], S.ROLLING_BACK: [StoreError("worse")]},
        [*before(S.PROBATION), *BACK],
        Outcome.ROLLED_BACK,
        "update.probation_failed",
    ),
]  # fmt: skip


class Device:
    """A machine whose actions follow a script, and a disk that remembers every stored state."""

    def __init__(self, script):
        self.script = {state: list(answers) for state, answers in script.items()}
        self.stored = []
        self.machine = Machine(dict.fromkeys([*FORWARD[:-1], S.ROLLING_BACK], self.act), self.stored.append, lambda _job: None)

    def act(self, job):
        assert self.stored[-1] == job  # the state is on disk before its action runs
        answers = self.script.get(job.state, [])
        answer = answers.pop(0) if answers else DONE
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def run(self, job):
        while job.is_running:
            job, _ = self.machine.step(job)
        return job


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_story(story):
    device = Device(story.script)
    job = device.run(device.machine.start(NEW))
    assert [stored.state for stored in device.stored] == story.path
    assert (job.outcome, job.error_code) == (story.outcome, story.code)
    assert bool(job.error_detail) == bool(story.code)


@pytest.mark.parametrize("state", FORWARD[:5])
def test_something_newer_is_wanted(state):
    job = Job(**{**{name: getattr(NEW, name) for name in NEW.__struct_fields__}, "state": state})
    device = Device({})
    device.stored.append(job)
    ended = device.run(device.machine.supersede(job, "desired generation 5"))
    assert ended.error_code == "update.superseded"
    assert ended.outcome is (Outcome.REFUSED if state in FORWARD[:3] else Outcome.ROLLED_BACK)
    assert (S.ROLLING_BACK in [stored.state for stored in device.stored]) is (state in (S.SWITCHING, S.PROBATION))


@pytest.mark.parametrize("state", [S.COMMITTING, S.ROLLING_BACK, S.REPORTING])
def test_what_is_past_the_point_of_return_finishes_first(state):
    job = Job(model="digits", artifact=ARTIFACT, slot="b", state=state)
    assert Device({}).machine.supersede(job, "generation 5") is job


@pytest.mark.parametrize("state", [*FORWARD[:-1], S.ROLLING_BACK])
def test_a_power_loss_resumes_in_the_same_state(state):
    job = Job(model="digits", artifact=ARTIFACT, slot="b", state=state)
    resumed = resume(job, clean=False)
    assert resumed.state is state
    assert resumed.interruptions == (1 if state in COUNTED else 0)


@pytest.mark.parametrize(
    ("interruptions", "gives_up"), [(MAX_INTERRUPTIONS - 2, False), (MAX_INTERRUPTIONS - 1, True), (MAX_INTERRUPTIONS, True)]
)
@pytest.mark.parametrize("state", sorted(COUNTED))
def test_a_reboot_storm_ends_in_a_rollback(state, interruptions, gives_up):
    job = Job(model="digits", artifact=ARTIFACT, slot="b", previous="a", state=state, interruptions=interruptions)
    resumed = resume(job, clean=False)
    assert (resumed.state is S.ROLLING_BACK) is gives_up
    if gives_up:
        assert resumed.error_code == "update.interrupted"
        assert resumed.outcome is (Outcome.REFUSED if state in FORWARD[:3] else Outcome.ROLLED_BACK)


@pytest.mark.parametrize("state", sorted(COUNTED))
def test_an_orderly_stop_is_no_interruption(state):
    job = Job(model="digits", artifact=ARTIFACT, slot="b", state=state, interruptions=MAX_INTERRUPTIONS - 1)
    assert resume(job, clean=True) == job


def test_probation_starts_with_a_clean_record():
    job = Job(model="digits", artifact=ARTIFACT, slot="b", state=S.SWITCHING, interruptions=2)
    assert follow(job, DONE).interruptions == 0


def test_an_absent_pair_takes_the_safe_exit():
    job = Job(model="digits", artifact=ARTIFACT, slot="b", state=S.TESTING)
    assert follow(job, LATER).state is S.ROLLING_BACK
    assert follow(Job(model="digits", artifact=ARTIFACT, slot="b", state=S.REPORTING), LATER).state is S.REPORTING
