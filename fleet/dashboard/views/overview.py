"""The fleet at a glance: figures, running rollouts, alerts, versions in the field and the devices themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from fleet.dashboard import charts
from fleet.dashboard.reading.overview import PAGE, DeviceFacts, OverviewFacts
from fleet.dashboard.reading.windows import WindowFacts, merged_latency
from fleet.dashboard.views import status, wording
from fleet.dashboard.views.alerts import AlertCard, alert_card
from fleet.dashboard.views.drift import judgements
from fleet.dashboard.views.rollouts import RolloutCard, rollout_card
from fleet.dashboard.views.status import Badge
from fleet.store.tables import Drift, Installed
from runtime.contract.artifact import version_key
from runtime.monitor.cells import latency_quantile

HEALTH_WINDOWS = 5
"""A device's health speaks of its last five windows: recent, yet not one odd minute."""
SILENT_WINDOWS = 3
GRACE_S = 30
"""Figures older than three windows and the time to deliver one say nothing about now."""
BAD_ERROR_SHARE = 0.01
"""The share at which the gates' default limit would stop a rollout."""
SERIES_TONES = 5
FILTER_TITLES = {
    "": "All",
    "online": "Online",
    "offline": "Offline",
    "updating": "Updating",
    "failed": "Failed",
    "drifting": "Drifting",
}


@dataclass(frozen=True)
class Figure:
    """One number of the strip on top. tone: "" where the number makes no claim."""

    label: str
    value: str
    note: str
    tone: str
    testid: str


@dataclass(frozen=True)
class VersionBar:
    """How many devices serve which version of a model, newest version first."""

    model: str
    total: int
    segments: tuple[charts.Segment, ...]


@dataclass(frozen=True)
class ServingCell:
    """One model on a device, as the table shows it."""

    model: str
    version: str
    status: Badge
    error_code: str


@dataclass(frozen=True)
class DeviceRow:
    id: str
    labels: tuple[tuple[str, str], ...]
    presence: Badge
    seen: str
    seen_at: str
    serving: tuple[ServingCell, ...]
    health: Badge
    rate: str
    errors: str
    latency: str
    drift: Badge
    spark: charts.Line | None


@dataclass(frozen=True)
class FilterLink:
    title: str
    count: str
    href: str
    current: bool
    name: str


@dataclass(frozen=True)
class Paging:
    text: str
    previous: str
    following: str


@dataclass(frozen=True)
class OverviewPage:
    figures: tuple[Figure, ...]
    rollouts: tuple[RolloutCard, ...]
    alerts: tuple[AlertCard, ...]
    open_alerts: str
    versions: tuple[VersionBar, ...]
    devices: tuple[DeviceRow, ...]
    filters: tuple[FilterLink, ...]
    paging: Paging
    number: int
    only: str
    search: str
    is_empty: bool


def overview_page(facts: OverviewFacts, *, only: str, search: str, page: int, now: float) -> OverviewPage:
    rollouts = tuple(rollout_card(one, now) for one in facts.rollouts)
    return OverviewPage(
        figures=_figures(facts),
        rollouts=rollouts,
        alerts=tuple(alert_card(row, now) for row in facts.alerts),
        open_alerts=wording.count(facts.open_alerts),
        versions=version_bars(facts.versions),
        devices=tuple(_device_row(one, now) for one in facts.devices),
        filters=_filters(facts.counts, only, search),
        paging=_paging(facts.matching, only, search, page),
        number=page,
        only=only,
        search=search,
        is_empty=facts.counts[""] == 0,
    )


def version_bars(versions: Sequence[tuple[str, str, int]]) -> tuple[VersionBar, ...]:
    """(model, version, devices) as one bar per model; the newest version always has the first colour."""
    bars = []
    for model in sorted({model for model, _, _ in versions}):
        mine = sorted(
            ((version, amount) for name, version, amount in versions if name == model),
            key=lambda one: version_key(one[0]),
            reverse=True,
        )
        parts = [(version, amount, f"series-{min(rank + 1, SERIES_TONES)}") for rank, (version, amount) in enumerate(mine)]
        bars.append(VersionBar(model, sum(amount for _, amount in mine), charts.segments(parts)))
    return tuple(bars)


def health_of(windows: Sequence[WindowFacts], now: float) -> tuple[Badge, str, str, str]:
    """Badge, request rate, error share and median latency of a device's last windows."""
    recent = list(windows)[-HEALTH_WINDOWS:]
    if recent and now - (recent[-1].start_s + recent[-1].duration_s) > SILENT_WINDOWS * recent[-1].duration_s + GRACE_S:
        note = f"last window {wording.ago(recent[-1].start_s + recent[-1].duration_s, now)}"
        return Badge("Silent", "idle", note), wording.MISSING, wording.MISSING, wording.MISSING
    requests = sum(window.requests for window in recent)
    errors = sum(window.errors for window in recent)
    seconds = sum(window.duration_s for window in recent)
    if not recent or not seconds:
        return Badge("No windows", "idle"), wording.MISSING, wording.MISSING, wording.MISSING
    share = errors / requests if requests else None
    return (
        _health_badge(share),
        f"{wording.significant(requests / seconds)}/s",
        wording.percent(share, 2),
        wording.latency(latency_quantile(merged_latency(recent), 0.5)),
    )


def _health_badge(error_share: float | None) -> Badge:
    if error_share is None:
        return Badge("Idle", "idle", "no requests")
    if error_share >= BAD_ERROR_SHARE:
        return Badge("Failing", "bad", f"{wording.percent(error_share)} of requests fail")
    return Badge("Some errors", "warn") if error_share else Badge("Healthy", "ok")


def drift_badge(rows: Sequence[Drift]) -> Badge:
    """The worst of a device's models, with the most changed streams as a note."""
    states = {row.state for row in rows}
    if "alarm" in states:
        names = [stream.name for row in rows for stream in judgements(row) if stream.is_alarmed]
        return Badge("Drift", "bad", ", ".join(names[:3]))
    if "clean" in states:
        return Badge("Steady", "ok")
    return Badge("Collecting", "idle", "not enough rows yet for a judgement") if states else Badge("Not judged", "idle")


def _figures(facts: OverviewFacts) -> tuple[Figure, ...]:
    total, online = facts.counts[""], facts.counts["online"]
    failed, updating, drifting = facts.counts["failed"], facts.counts["updating"], facts.counts["drifting"]
    return (
        Figure(
            "Devices online",
            f"{wording.count(online)} / {wording.count(total)}",
            _online_note(total, online),
            "",
            "figure-online",
        ),
        Figure("Updating", wording.count(updating), "between two versions now", "busy" if updating else "", "figure-updating"),
        Figure(
            "Failed updates",
            wording.count(failed),
            "newest update refused or rolled back",
            "bad" if failed else "",
            "figure-failed",
        ),
        Figure(
            "Drifting",
            wording.count(drifting),
            "inputs or outputs left the reference",
            "bad" if drifting else "",
            "figure-drifting",
        ),
        Figure(
            "Open alerts",
            wording.count(facts.open_alerts),
            "see below" if facts.open_alerts else "nothing waits",
            "warn" if facts.open_alerts else "",
            "figure-alerts",
        ),
    )


def _online_note(total: int, online: int) -> str:
    if not total:
        return "none enrolled yet"
    return "all of them" if online == total else f"{wording.count(total - online)} not connected"


def _device_row(facts: DeviceFacts, now: float) -> DeviceRow:
    windows = max(facts.windows.values(), key=lambda rows: rows[-1].start_s if rows else 0.0, default=[])
    health, rate, errors, latency = health_of(windows, now)
    twin = facts.twin
    online = bool(twin and twin.online)
    seen = max((twin.presence_ms or 0, twin.reported_ms or 0), default=0) / 1000 if twin else 0.0
    return DeviceRow(
        id=facts.device.id,
        labels=tuple(sorted(facts.device.labels.items())),
        presence=status.PRESENCE[online],
        seen="" if online else wording.ago(seen or None, now),
        seen_at=wording.clock(seen or None),
        serving=tuple(serving_cell(row) for row in facts.installed),
        health=health,
        rate=rate,
        errors=errors,
        latency=latency,
        drift=drift_badge(facts.drift),
        spark=charts.sparkline([window.requests / max(window.duration_s, 1e-3) for window in windows])
        if len(windows) > 1
        else None,
    )


def serving_cell(row: Installed) -> ServingCell:
    return ServingCell(row.model, row.version or wording.MISSING, status.installed(row.state, row.outcome), row.error_code)


def _href(only: str, search: str, page: int = 1) -> str:
    query = {name: value for name, value in (("only", only), ("q", search), ("page", page if page > 1 else "")) if value}
    return f"/?{urlencode(query)}" if query else "/"


def _filters(counts: dict[str, int], only: str, search: str) -> tuple[FilterLink, ...]:
    return tuple(
        FilterLink(title, wording.count(counts[name]), _href(name, search), name == only, name or "all")
        for name, title in FILTER_TITLES.items()
    )


def _paging(matching: int, only: str, search: str, page: int) -> Paging:
    first, last = (page - 1) * PAGE + 1, min(page * PAGE, matching)
    text = f"{wording.count(first)}–{wording.count(last)} of {wording.plural(matching, 'device')}" if matching else ""
    return Paging(
        text=text,
        previous=_href(only, search, page - 1) if page > 1 else "",
        following=_href(only, search, page + 1) if last < matching else "",
    )
