"""One device: what serves, how its updates went, how it has been running."""

from collections.abc import Sequence
from dataclasses import dataclass

from fleet.dashboard import charts
from fleet.dashboard.reading.devices import DevicePageFacts
from fleet.dashboard.reading.windows import SPANS_S, WindowFacts
from fleet.dashboard.views import status, wording
from fleet.dashboard.views.alerts import AlertCard, alert_card
from fleet.dashboard.views.drift import DriftSummary, drift_summary
from fleet.dashboard.views.events import describe
from fleet.dashboard.views.overview import health_of
from fleet.dashboard.views.series import window_charts
from fleet.dashboard.views.status import Badge
from fleet.store.tables import Artifact, Device, Event, Installed, Job, Rollout, Twin

SPAN_TITLES = {"15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 days"}


@dataclass(frozen=True)
class SlotBox:
    name: str
    text: str
    is_active: bool


@dataclass(frozen=True)
class ServingCard:
    """One model on the device. target: what it should serve, "" when that is what it serves."""

    model: str
    version: str
    href: str
    artifact: str
    engine_target: str
    status: Badge
    slots: tuple[SlotBox, ...]
    wanted: str
    rollout: str
    error_code: str
    error_detail: str
    changed: str
    changed_at: str
    health: Badge
    rate: str
    errors: str
    latency: str


@dataclass(frozen=True)
class LogLine:
    at: str
    at_full: str
    title: str
    detail: str
    code: str
    tone: str


@dataclass(frozen=True)
class UpdateLog:
    """One job with the steps the device reported for it, oldest first; a retry or the way back is part of the same job."""

    title: str
    version: str
    rollout: str
    state: Badge
    error_code: str
    error_detail: str
    when: str
    when_at: str
    took: str
    lines: tuple[LogLine, ...]


@dataclass(frozen=True)
class ModelCharts:
    model: str
    plots: tuple[charts.Plot, ...]


@dataclass(frozen=True)
class SpanLink:
    title: str
    href: str
    current: bool


@dataclass(frozen=True)
class DevicePage:
    id: str
    presence: Badge
    seen: str
    labels: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    serving: tuple[ServingCard, ...]
    alerts: tuple[AlertCard, ...]
    updates: tuple[UpdateLog, ...]
    other_events: tuple[LogLine, ...]
    charts: tuple[ModelCharts, ...]
    spans: tuple[SpanLink, ...]
    span: str
    window_note: str
    drift: tuple[DriftSummary, ...]


def device_page(facts: DevicePageFacts, now: float) -> DevicePage:
    device, twin = facts.device, facts.twin
    by_model = _by_model(facts.windows)
    told = {job.rollout for job, _, _ in facts.jobs}
    start = now - SPANS_S[facts.span]
    return DevicePage(
        id=device.id,
        presence=status.REVOKED if device.revoked_ms else status.PRESENCE[bool(twin and twin.online)],
        seen=_seen(twin, now),
        labels=tuple(sorted(device.labels.items())),
        facts=tuple(_hardware(device, twin, now)),
        serving=tuple(_serving(row, facts.wanted.get(row.model), by_model.get(row.model, ()), now) for row in facts.installed),
        alerts=tuple(alert_card(row, now) for row in facts.alerts),
        updates=tuple(_update(job, rollout, artifact, facts.events, now) for job, rollout, artifact in facts.jobs),
        other_events=tuple(log_line(event) for event in reversed(facts.events) if event.rollout not in told),
        charts=tuple(ModelCharts(model, tuple(window_charts(rows, start=start, end=now))) for model, rows in by_model.items()),
        spans=tuple(
            SpanLink(title, f"/devices/{device.id}?span={name}", name == facts.span) for name, title in SPAN_TITLES.items()
        ),
        span=facts.span,
        window_note=_window_note(facts, now),
        drift=tuple(drift_summary(row, now) for row in facts.drift),
    )


def log_line(event: Event) -> LogLine:
    """One event as a line. A code other than "" says that something went wrong."""
    at = event.at_ms / 1000
    words = describe(event)
    return LogLine(wording.hour(at), wording.clock(at), words.title, words.detail, event.code, words.tone)


def _by_model(windows: Sequence[WindowFacts]) -> dict[str, list[WindowFacts]]:
    grouped: dict[str, list[WindowFacts]] = {}
    for window in windows:
        grouped.setdefault(window.model, []).append(window)
    return dict(sorted(grouped.items()))


def _seen(twin: Twin | None, now: float) -> str:
    if twin is None or not (twin.presence_ms or twin.reported_ms):
        return "never connected"
    moment = max(twin.presence_ms or 0, twin.reported_ms or 0) / 1000
    return f"{'connected' if twin.online else 'last seen'} {wording.ago(moment, now)}"


def _hardware(device: Device, twin: Twin | None, now: float) -> list[tuple[str, str]]:
    profile = (twin.profile if twin else None) or {}
    versions = dict(twin.versions) if twin else {}
    engines = ", ".join(f"{name} {version}" for name, version in sorted((profile.get("engines") or {}).items()))
    return [
        ("Profiles", ", ".join(profile.get("profiles") or ()) or wording.MISSING),
        ("Architecture", profile.get("arch") or wording.MISSING),
        ("Engines", engines or wording.MISSING),
        ("Instruction sets", ", ".join(profile.get("instruction_sets") or ()) or wording.MISSING),
        ("Memory", wording.size(profile.get("memory_bytes") or None)),
        ("Software", ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or wording.MISSING),
        (
            "Clock",
            "synchronised"
            if twin and twin.clock_synced
            else "not synchronised"
            if twin and twin.reported_ms
            else wording.MISSING,
        ),
        ("Enrolled", wording.clock(device.enrolled_ms / 1000)),
        ("Certificate", f"{wording.duration(device.certificate_expires_ms / 1000 - now)} left"),
        ("Desired state", _generations(twin)),
    ]


def _generations(twin: Twin | None) -> str:
    if twin is None or not twin.generation:
        return "nothing wanted yet"
    if twin.applied_generation >= twin.generation:
        return f"generation {twin.generation}, applied"
    return f"generation {twin.generation}, device is at {twin.applied_generation}"


def _serving(row: Installed, wanted: Artifact | None, windows: Sequence[WindowFacts], now: float) -> ServingCard:
    health, rate, errors, latency = health_of([window for window in windows if window.sha256 == row.sha256], now)
    pending = wanted is not None and wanted.sha256 != row.sha256
    return ServingCard(
        model=row.model,
        version=row.version or wording.MISSING,
        href=f"/releases/{row.model}/{row.version}" if row.version else "",
        artifact=wording.short(row.sha256 or ""),
        engine_target=row.target or "",
        status=status.installed(row.state, row.outcome),
        slots=_slots(row, wanted if pending else None),
        wanted=wanted.version if pending and wanted else "",
        rollout=row.rollout,
        error_code=row.error_code,
        error_detail=row.error_detail,
        changed=wording.ago(row.changed_ms / 1000, now),
        changed_at=wording.clock(row.changed_ms / 1000),
        health=health,
        rate=rate,
        errors=errors,
        latency=latency,
    )


def _slots(row: Installed, incoming: Artifact | None) -> tuple[SlotBox, ...]:
    """Slot A and B: what serves stands in the active one; what is being brought in goes to the other."""
    boxes = []
    for name in ("a", "b"):
        if row.slot == name:
            boxes.append(SlotBox(name.upper(), row.version or wording.MISSING, True))
        elif incoming is not None and row.state != "idle":
            boxes.append(
                SlotBox(name.upper(), f"{incoming.version} {status.installed(row.state, row.outcome).text.lower()}", False)
            )
        else:
            boxes.append(SlotBox(name.upper(), "standby", False))
    return tuple(boxes)


def _update(job: Job, rollout: Rollout, artifact: Artifact, events: Sequence[Event], now: float) -> UpdateLog:
    mine = [event for event in events if event.rollout == job.rollout]
    began = (job.dispatched_ms or rollout.created_ms) / 1000
    return UpdateLog(
        title=f"{rollout.model} {artifact.version}",
        version=artifact.version,
        rollout=rollout.id,
        state=status.job(job.state),
        error_code=job.error_code,
        error_detail=job.error_detail,
        when=wording.ago(began, now),
        when_at=wording.clock(began),
        took=wording.duration(job.finished_ms / 1000 - began) if job.finished_ms else "",
        lines=tuple(log_line(event) for event in mine),
    )


def _window_note(facts: DevicePageFacts, now: float) -> str:
    if facts.last_window_ms is None:
        return "No telemetry window has arrived yet. The first one comes a window's length after the device begins to serve."
    if not facts.windows:
        return (
            f"No window in this span; the last one is from {wording.ago(facts.last_window_ms / 1000, now)}. Choose a longer span."
        )
    dropped = sum(window.dropped_rows for window in facts.windows)
    text = f"{wording.plural(len(facts.windows), 'window')}, last {wording.ago(facts.last_window_ms / 1000, now)}, times in UTC"
    return f"{text}; {wording.plural(dropped, 'row')} served but not monitored" if dropped else text
