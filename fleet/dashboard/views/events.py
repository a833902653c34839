"""How does an event of a device read?

The step log of an update has the kind "update" and carries the state in its detail, followed by what went wrong, if
anything did. Other kinds are shown as they come: a newer device may send kinds this service has never heard of.
"""

from dataclasses import dataclass

from fleet.dashboard.views import status
from fleet.store.tables import Event
from runtime.contract.deployment import DeploymentState

UPDATE = "update"
_MILESTONES = {
    DeploymentState.FETCHING: "Update begins",
    DeploymentState.ROLLING_BACK: "Rolling back",
    DeploymentState.IDLE: "Update ended",
}


@dataclass(frozen=True)
class EventWords:
    """step: the state of an update this event reports, "" for other kinds. is_milestone: worth a line among hundreds."""

    title: str
    detail: str
    tone: str
    step: str
    is_milestone: bool


def describe(event: Event) -> EventWords:
    if event.kind != UPDATE:
        title = status.unknown(event.kind.replace(".", " ")).text
        return EventWords(title, event.detail, "bad" if event.code else "idle", "", True)
    step, _, rest = event.detail.partition(": ")
    milestone = next((title for state, title in _MILESTONES.items() if state == step), "")
    title = milestone or status.installed(step, step).text
    ended_well = step == DeploymentState.IDLE and not event.code
    tone = "bad" if event.code or step == DeploymentState.ROLLING_BACK else "ok" if ended_well else "busy"
    return EventWords(title, rest, tone, step, bool(milestone))
