"""Which steps has an update, what may follow each, and where does it go on after a power loss?

Data only; `machine.py` interprets it, and the tests walk it. The states are the contract's, since both ends see them.
"""

import enum

from runtime.contract.deployment import DeploymentState as S
from runtime.contract.deployment import Outcome


class Event(enum.StrEnum):
    """What an action answers with. EXHAUSTED and SUPERSEDED come from outside the action.

    LATER: not finished, nothing failed; ask again after the delay the answer names.
    EXHAUSTED: interrupted too often. SUPERSEDED: a newer desired state wants something else for this model.
    """

    START = "start"
    DONE = "done"
    FAILED = "failed"
    LATER = "later"
    EXHAUSTED = "exhausted"
    SUPERSEDED = "superseded"


E = Event

TRANSITIONS: dict[tuple[S, Event], S] = {
    (S.IDLE, E.START): S.FETCHING,
    (S.FETCHING, E.DONE): S.VERIFYING,
    (S.FETCHING, E.LATER): S.FETCHING,
    (S.FETCHING, E.FAILED): S.REPORTING,
    (S.FETCHING, E.SUPERSEDED): S.REPORTING,
    (S.FETCHING, E.EXHAUSTED): S.ROLLING_BACK,
    (S.VERIFYING, E.DONE): S.TESTING,
    (S.VERIFYING, E.FAILED): S.REPORTING,
    (S.VERIFYING, E.SUPERSEDED): S.REPORTING,
    (S.VERIFYING, E.EXHAUSTED): S.ROLLING_BACK,
    (S.TESTING, E.DONE): S.SWITCHING,
    (S.TESTING, E.FAILED): S.REPORTING,
    (S.TESTING, E.SUPERSEDED): S.REPORTING,
    (S.TESTING, E.EXHAUSTED): S.ROLLING_BACK,
    (S.SWITCHING, E.DONE): S.PROBATION,
    (S.SWITCHING, E.FAILED): S.ROLLING_BACK,
    (S.SWITCHING, E.SUPERSEDED): S.ROLLING_BACK,
    (S.SWITCHING, E.EXHAUSTED): S.ROLLING_BACK,
    (S.PROBATION, E.DONE): S.COMMITTING,
    (S.PROBATION, E.LATER): S.PROBATION,
    (S.PROBATION, E.FAILED): S.ROLLING_BACK,
    (S.PROBATION, E.SUPERSEDED): S.ROLLING_BACK,
    (S.PROBATION, E.EXHAUSTED): S.ROLLING_BACK,
    (S.COMMITTING, E.DONE): S.REPORTING,
    (S.COMMITTING, E.FAILED): S.ROLLING_BACK,
    (S.COMMITTING, E.EXHAUSTED): S.ROLLING_BACK,
    (S.ROLLING_BACK, E.DONE): S.REPORTING,
    (S.ROLLING_BACK, E.LATER): S.ROLLING_BACK,
    (S.ROLLING_BACK, E.FAILED): S.REPORTING,
    (S.REPORTING, E.DONE): S.IDLE,
    (S.REPORTING, E.FAILED): S.IDLE,
}

RESUME: dict[S, S] = {state: state for state in S if state is not S.IDLE}
"""Where an update goes on after a power loss: every action is idempotent, so each state simply acts again."""

COUNTED: frozenset[S] = frozenset({S.FETCHING, S.VERIFYING, S.TESTING, S.SWITCHING, S.PROBATION, S.COMMITTING})
"""States whose interruptions count: something in them may be what takes the device down. The count starts anew in PROBATION.

COMMITTING is one of them, since there a version that ran in a process of its own is opened in the daemon's.
"""
MAX_INTERRUPTIONS = 3

OUTCOME_OF_FAILURE: dict[S, Outcome] = {
    S.FETCHING: Outcome.REFUSED,
    S.VERIFYING: Outcome.REFUSED,
    S.TESTING: Outcome.REFUSED,
    S.SWITCHING: Outcome.ROLLED_BACK,
    S.PROBATION: Outcome.ROLLED_BACK,
    S.COMMITTING: Outcome.ROLLED_BACK,
}
"""How an update that leaves the way forward in this state is reported: before the switch nothing had changed."""

SAFE_EXIT: dict[S, S] = {state: S.REPORTING if state in (S.ROLLING_BACK, S.REPORTING) else S.ROLLING_BACK for state in S}
"""Where a pair that the table lacks goes: such a pair is a bug, and the old version is the one that is known to work."""
