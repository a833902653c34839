"""Does the table itself hold: every working state can fail, has a way back after a power loss, and reaches an end?"""

from pathlib import Path

import pytest

from runtime.contract.deployment import DeploymentState as S
from runtime.contract.deployment import Outcome
from runtime.update.diagram import draw
from runtime.update.table import COUNTED, OUTCOME_OF_FAILURE, RESUME, SAFE_EXIT, TRANSITIONS, Event

WORKING = [state for state in S if state is not S.IDLE]
BEFORE_SWITCH = {S.FETCHING, S.VERIFYING, S.TESTING}


@pytest.mark.parametrize("state", WORKING)
def test_every_working_state_can_succeed_and_fail(state):
    assert (state, Event.DONE) in TRANSITIONS
    assert (state, Event.FAILED) in TRANSITIONS


@pytest.mark.parametrize("state", WORKING)
def test_every_working_state_resumes_in_a_working_state(state):
    assert RESUME[state] in WORKING


@pytest.mark.parametrize("state", WORKING)
@pytest.mark.parametrize("always", [Event.DONE, Event.FAILED])
def test_every_working_state_reaches_idle_and_visits_no_state_twice(state, always):
    seen = []
    while state is not S.IDLE:
        assert state not in seen
        seen.append(state)
        state = TRANSITIONS[state, always]


def test_every_state_is_reached_from_idle():
    reached = {S.IDLE}
    while True:
        further = {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached
        if not further:
            break
        reached |= further
    assert reached == set(S)


@pytest.mark.parametrize("state", sorted(COUNTED))
def test_every_counted_state_can_be_given_up_and_until_the_commit_superseded(state):
    assert TRANSITIONS[state, Event.EXHAUSTED] is S.ROLLING_BACK
    assert TRANSITIONS.get((state, Event.SUPERSEDED)) in ((S.REPORTING, S.ROLLING_BACK) if state is not S.COMMITTING else (None,))


def test_waiting_stays_where_it_is():
    assert all(after is before for (before, event), after in TRANSITIONS.items() if event is Event.LATER)


def test_what_fails_before_the_switch_is_refused_and_after_it_rolled_back():
    for state in WORKING:
        failure = TRANSITIONS[state, Event.FAILED]
        if state in BEFORE_SWITCH:
            assert (failure, OUTCOME_OF_FAILURE[state]) == (S.REPORTING, Outcome.REFUSED)
        elif state in OUTCOME_OF_FAILURE:
            assert (failure, OUTCOME_OF_FAILURE[state]) == (S.ROLLING_BACK, Outcome.ROLLED_BACK)


def test_only_idle_starts_and_only_reporting_ends():
    assert [before for (before, event) in TRANSITIONS if event is Event.START] == [S.IDLE]
    assert {before for (before, _), after in TRANSITIONS.items() if after is S.IDLE} == {S.REPORTING}


def test_the_safe_exit_never_leads_forward():
    assert set(SAFE_EXIT) == set(S)
    assert set(SAFE_EXIT.values()) == {S.ROLLING_BACK, S.REPORTING}


def test_the_diagram_in_the_docs_is_drawn_from_the_table():
    page = Path(__file__).parents[3] / "docs" / "update-states.md"
    assert page.read_text(encoding="utf-8") == draw(), "run: python -m runtime.update.diagram > docs/update-states.md"
