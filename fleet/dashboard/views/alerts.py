"""One alert as a card: what, how bad, since when, and the page where it can be dealt with."""

from dataclasses import dataclass

from fleet.dashboard.views import status, wording
from fleet.dashboard.views.status import Badge
from fleet.store.tables import Alert


@dataclass(frozen=True)
class AlertCard:
    id: int
    kind: str
    severity: Badge
    title: str
    about: str
    href: str
    since: str
    since_at: str


def alert_card(row: Alert, now: float) -> AlertCard:
    opened = row.opened_ms / 1000
    return AlertCard(
        id=row.id,
        kind=row.kind,
        severity=status.alert(row.severity),
        title=row.title,
        about=" · ".join(part for part in (row.device, row.model) if part),
        href=_href(row),
        since=wording.ago(opened, now),
        since_at=wording.clock(opened),
    )


def _href(row: Alert) -> str:
    """The most telling page: a drift alarm leads to the histograms, else the rollout before the device."""
    if row.device and "drift" in row.kind:
        return f"/devices/{row.device}/drift"
    if row.rollout:
        return f"/rollouts/{row.rollout}"
    return f"/devices/{row.device}" if row.device else ""
