"""Which buttons does a rollout offer now, and what does each ask before it acts?

The domain's transition table decides what is possible, so page and service cannot disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fleet.dashboard.views.rollouts import stage_title, state_badge
from fleet.domain.plan import Stage
from fleet.domain.rollout import TRANSITIONS, RolloutEvent, RolloutState
from fleet.store.tables import Rollout

S, E = RolloutState, RolloutEvent


@dataclass(frozen=True)
class Action:
    """A button. why_not: why it is disabled, "" when it can be pressed. consequence: what the confirmation says."""

    name: str
    title: str
    style: str
    why_not: str
    question: str
    consequence: str


@dataclass(frozen=True)
class _Words:
    """{what}: model and version; {stage}: the current one; {next}: what follows it; {reach}: devices that were told."""

    title: str
    style: str
    question: str
    consequence: str


_WORDS: dict[RolloutEvent, _Words] = {
    E.START: _Words("Start", "primary", "Start {what}?", "Stage 1 begins: its devices are told to update at once."),
    E.PAUSE: _Words(
        "Pause",
        "",
        "Pause {what}?",
        "No further device is told to update. Updates under way end by themselves, and devices stay on the version they have. "
        "You can resume or roll back later.",
    ),
    E.RESUME: _Words(
        "Resume",
        "primary",
        "Resume {what}?",
        "The current stage goes on where it stopped. Devices whose update failed get a new attempt, and the soak begins anew.",
    ),
    E.APPROVE: _Words("Approve", "primary", "Approve stage {stage} of {what}?", "All gates pass. {next}"),
    E.ROLL_BACK: _Words(
        "Roll back",
        "danger",
        "Roll back {what}?",
        "Every device that was told goes back to the version it served before: {reach}. A rollback cannot be cancelled; "
        "to try again, create a new rollout.",
    ),
}
_CANCEL = _Words("Cancel", "", "Cancel {what}?", "No device was told. The rollout ends here and cannot be started any more.")
"""What rolling back means before the start."""
_ALWAYS_SHOWN = (E.PAUSE, E.ROLL_BACK)
"""While a rollout moves these keep their place, disabled when they cannot apply; a button that comes and goes under a
hand in a hurry is worse than one that is grey."""


def actions_of(rollout: Rollout, stages: Sequence[Stage], told: int, *, can_operate: bool) -> tuple[Action, ...]:
    """told: devices that were told to update and did not go back yet."""
    facts = {
        "what": f"{rollout.model} {rollout.version}",
        "stage": rollout.stage + 1,
        "next": _following(stages, rollout.stage),
        "reach": f"{told} device{'s' if told != 1 else ''}",
    }
    actions = []
    for event, words in _WORDS.items():
        allowed = is_allowed(rollout.state, event)
        if not allowed and (event not in _ALWAYS_SHOWN or rollout.state in (S.CREATED, S.DONE, S.ROLLED_BACK)):
            continue
        spoken = _CANCEL if rollout.state == S.CREATED and event is E.ROLL_BACK else words
        why_not = "" if can_operate else "needs the role operator"
        if not allowed:
            why_not = f"not while it is {state_badge(rollout.state).text.lower()}"
        question, consequence = spoken.question.format(**facts), spoken.consequence.format(**facts)
        actions.append(Action(event.value, spoken.title, spoken.style, why_not, question, consequence))
    return tuple(actions)


def is_allowed(state: str, event: RolloutEvent) -> bool:
    """False too for a state of a newer service that this page does not know."""
    return any(known == state and at is event for known, at in TRANSITIONS)


def _following(stages: Sequence[Stage], current: int) -> str:
    if current + 1 >= len(stages):
        return "This was the last stage: the rollout is done."
    return f"Stage {current + 2} ({stage_title(stages[current + 1])}) begins at once."
