"""The table of transitions, walked; and single steps that the stories in tests/scenarios build on."""

import pytest

from fleet.domain.evidence import Behaviour, DeviceEvidence, Evidence
from fleet.domain.jobs import Job, JobState
from fleet.domain.plan import Plan, Stage
from fleet.domain.rollout import (
    ACTIVE,
    OPERATOR_EVENTS,
    TRANSITIONS,
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
from fleet.errors import StateError

S, E = RolloutState, RolloutEvent
PLAN = Plan(model="digits", version="2.0.0", stages=(Stage(count=1, soak_s=10), Stage(percent=100, soak_s=10)))
ENDS = {S.DONE, S.ROLLED_BACK}


def device(name: str, state: JobState, stage: int = 0, **changes: object) -> DeviceEvidence:
    job = Job(device=name, stage=stage, attempt=1, state=state, sha256="n", previous_sha256="o", error_code="update.failed")
    rows = Behaviour(windows=1, requests=500, rows=500, latency={60: 500})
    return DeviceEvidence(**{"job": job, "before": rows, "after": rows, **changes})  # type: ignore[arg-type]


def at(state: RolloutState, stage: int = 0, entered_ms: int = 0) -> Progress:
    return Progress(state=state, stage=stage, entered_ms=entered_ms)


def evidence(*devices: DeviceEvidence) -> Evidence:
    return Evidence(devices=devices)


def test_every_state_but_an_end_can_be_left_and_reaches_an_end() -> None:
    reaches: dict[RolloutState, set[RolloutState]] = {state: {state} for state in S}
    for _ in S:
        for (source, _), target in TRANSITIONS.items():
            reaches[source] |= reaches[target]
    for state in S:
        assert reaches[state] & ENDS, f"{state} leads nowhere"
        if state is not S.CREATED:
            assert state in reaches[S.CREATED], f"nothing leads to {state}"


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_an_operator_can_end_whatever_is_under_way(state: RolloutState) -> None:
    """A rollout nobody can cancel is what users of other tools complain about most."""
    assert (state, E.ROLL_BACK) in TRANSITIONS or state is S.ROLLING_BACK


@pytest.mark.parametrize("state", sorted(S))
@pytest.mark.parametrize("event", OPERATOR_EVENTS)
def test_what_the_table_lacks_is_refused(state: RolloutState, event: RolloutEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert operate(at(state), event, PLAN, 5, "why").state in set(S)
    else:
        with pytest.raises(StateError, match=str(state)):
            operate(at(state), event, PLAN, 5, "why")


def test_only_the_stage_under_way_is_dispatched() -> None:
    found = evidence(device("a", JobState.PENDING), device("b", JobState.PENDING, 1))
    after, actions = step(PLAN, at(S.UPDATING), found, 0)
    told = [action.job.device for action in actions if isinstance(action, Dispatch)]
    assert after.state is S.UPDATING
    assert told == ["a"]


@pytest.mark.parametrize(("limit", "told"), [(1, 0), (2, 1), (3, 2), (9, 3)])
def test_concurrency_counts_those_under_way(limit: int, told: int) -> None:
    plan = Plan(model="digits", version="2.0.0", concurrency=limit)
    found = evidence(device("a", JobState.DISPATCHED), *(device(name, JobState.PENDING) for name in "bcd"))
    _, actions = step(plan, at(S.UPDATING), found, 0)
    assert sum(isinstance(action, Dispatch) for action in actions) == told


def test_a_stage_is_settled_when_the_last_device_has_reported() -> None:
    waiting = evidence(device("a", JobState.SUCCEEDED), device("b", JobState.DISPATCHED))
    assert step(PLAN, at(S.UPDATING), waiting, 10**9)[0].state is S.UPDATING
    settled = evidence(device("a", JobState.SUCCEEDED), device("b", JobState.WITHDRAWN))
    assert step(PLAN, at(S.UPDATING), settled, 7)[0] == step(PLAN, at(S.UPDATING), settled, 7)[0]
    assert step(PLAN, at(S.UPDATING), settled, 7)[0].state is S.SOAKING


@pytest.mark.parametrize(("now_ms", "state"), [(9_999, S.SOAKING), (10_000, S.UPDATING), (10_001, S.UPDATING)])
def test_a_soak_ends_at_its_time_and_not_before(now_ms: int, state: RolloutState) -> None:
    after, _ = step(PLAN, at(S.SOAKING), evidence(device("a", JobState.SUCCEEDED), device("b", JobState.PENDING, 1)), now_ms)
    assert after.state is state
    assert after.stage == (1 if state is S.UPDATING else 0)


def test_a_holding_gate_makes_the_soak_longer_for_as_long_as_it_holds() -> None:
    silent = evidence(device("a", JobState.SUCCEEDED, after=Behaviour()))
    assert step(PLAN, at(S.SOAKING), silent, 10**12)[0].state is S.SOAKING


def test_unreadable_evidence_holds() -> None:
    unreadable = evidence(device("a", JobState.SUCCEEDED, unreadable="window 1/2: Malformed"))
    assert step(PLAN, at(S.SOAKING), unreadable, 10**12)[0].state is S.SOAKING


@pytest.mark.parametrize("state", [S.UPDATING, S.SOAKING, S.AWAITING_APPROVAL])
@pytest.mark.parametrize(("on_failure", "target"), [("rollback", S.ROLLING_BACK), ("pause", S.PAUSED)])
def test_a_failing_gate_stops_the_rollout_wherever_it_is(state: RolloutState, on_failure: str, target: RolloutState) -> None:
    plan = Plan(model="digits", version="2.0.0", stages=PLAN.stages, on_failure=on_failure)  # type: ignore[arg-type]
    after, actions = step(plan, at(state), evidence(device("a", JobState.FAILED), device("b", JobState.PENDING)), 5)
    assert after.state is target
    assert "failed_updates" in after.reason
    assert not [action for action in actions if isinstance(action, Dispatch)]
    assert [action for action in actions if isinstance(action, Record)], "the verdict that stopped it must be kept"


def test_a_device_of_a_later_stage_is_no_evidence_yet() -> None:
    found = evidence(device("a", JobState.PENDING), device("b", JobState.FAILED, 1))
    assert step(PLAN, at(S.UPDATING), found, 5)[0].state is S.UPDATING


@pytest.mark.parametrize("state", [S.CREATED, S.PAUSED, S.DONE, S.ROLLED_BACK])
def test_nothing_happens_by_itself_at_rest(state: RolloutState) -> None:
    found = evidence(device("a", JobState.FAILED), device("b", JobState.PENDING))
    assert step(PLAN, at(state), found, 10**12) == (at(state), [])


def test_a_rollback_sends_back_everyone_who_was_told_and_nobody_else() -> None:
    found = evidence(
        device("told", JobState.DISPATCHED),
        device("done", JobState.SUCCEEDED),
        device("failed", JobState.FAILED),
        device("never", JobState.PENDING, 1),
        device("gone", JobState.WITHDRAWN),
        device("taken", JobState.SUCCEEDED, is_ours=False),
    )
    after, actions = step(PLAN, at(S.ROLLING_BACK), found, 5)
    assert after.state is S.ROLLING_BACK
    assert [action.job.device for action in actions if isinstance(action, SendBack)] == ["told", "done", "failed"]
    assert [action.job.device for action in actions if isinstance(action, Amend)] == ["taken"]
    assert {action.job.attempt for action in actions if isinstance(action, SendBack)} == {2}


def test_a_rollback_ends_when_the_last_device_is_back() -> None:
    back = [device("a", JobState.RETURNED), device("b", JobState.RETURN_FAILED), device("c", JobState.PENDING, 1)]
    waiting = evidence(*back, device("d", JobState.RETURNING))
    assert step(PLAN, at(S.ROLLING_BACK), waiting, 10**12) == (at(S.ROLLING_BACK), [])
    assert step(PLAN, at(S.ROLLING_BACK), evidence(*back), 5)[0].state is S.ROLLED_BACK


def test_approval_of_the_last_stage_ends_the_rollout_and_of_any_other_enters_the_next() -> None:
    first = operate(at(S.AWAITING_APPROVAL, 0), E.APPROVE, PLAN, 5, "approve by ann")
    assert (first.state, first.stage) == (S.UPDATING, 1)
    last = operate(at(S.AWAITING_APPROVAL, 1), E.APPROVE, PLAN, 5, "approve by ann")
    assert (last.state, last.stage) == (S.DONE, 1)


def test_resuming_gives_failed_devices_a_new_attempt() -> None:
    jobs = [device("a", JobState.FAILED).job, device("b", JobState.SUCCEEDED).job]
    (amend,) = retry(jobs)
    assert (amend.job.device, amend.job.state, amend.job.attempt, amend.job.error_code) == ("a", JobState.PENDING, 2, "")


class TestRecordedVerdicts:
    FOUND = evidence(device("a", JobState.SUCCEEDED))

    def records(self, progress: Progress, found: Evidence, now_ms: int) -> tuple[Progress, list[Record]]:
        after, actions = step(PLAN, progress, found, now_ms, evaluate_ms=1000)
        return after, [action for action in actions if isinstance(action, Record)]

    def test_the_same_verdicts_are_not_recorded_twice(self) -> None:
        after, first = self.records(at(S.SOAKING), self.FOUND, 0)
        assert (len(first), first[0].evaluation) == (1, 1)
        assert self.records(after, self.FOUND, 5_000) == (after, [])

    @pytest.mark.parametrize(("now_ms", "recorded"), [(999, 0), (1000, 1), (1001, 1)])
    def test_new_figures_wait_their_turn(self, now_ms: int, recorded: int) -> None:
        after, _ = self.records(at(S.SOAKING), self.FOUND, 0)
        more = Behaviour(windows=2, requests=900, rows=900, latency={60: 900})
        _, second = self.records(after, evidence(device("a", JobState.SUCCEEDED, after=more)), now_ms)
        assert len(second) == recorded

    def test_a_new_decision_is_recorded_at_once(self) -> None:
        after, _ = self.records(at(S.SOAKING), self.FOUND, 0)
        _, second = self.records(after, evidence(device("a", JobState.FAILED)), 1)
        assert [record.evaluation for record in second] == [2]
