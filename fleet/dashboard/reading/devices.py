"""What does the page of one device read?"""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet.dashboard.reading.windows import SPANS_S, WindowFacts, fitting_span, windows_since
from fleet.errors import UnknownDeviceError
from fleet.store.tables import Alert, Artifact, Device, Drift, Event, Installed, Job, Rollout, Twin, Wanted, Window

HISTORY_EVENTS = 200
HISTORY_JOBS = 12


@dataclass(frozen=True)
class DevicePageFacts:
    """wanted: model -> artifact it should serve. jobs: its newest updates with their rollout and artifact, newest first.

    events: its newest events, oldest first. windows: since the span's begin, oldest first.
    """

    device: Device
    twin: Twin | None
    installed: tuple[Installed, ...]
    wanted: dict[str, Artifact]
    drift: tuple[Drift, ...]
    alerts: tuple[Alert, ...]
    jobs: tuple[tuple[Job, Rollout, Artifact], ...]
    events: tuple[Event, ...]
    windows: tuple[WindowFacts, ...]
    last_window_ms: int | None
    span: str


def read_device(session: Session, id: str, *, span: str, now_ms: int) -> DevicePageFacts:
    """span: a name of SPANS_S, anything else takes the fitting one. Raises UnknownDeviceError."""
    device = find_device(session, id)
    if span not in SPANS_S:
        span = fitting_span(session, id, now_ms)
    wanted = select(Wanted, Artifact).join(Artifact, Artifact.id == Wanted.artifact_id).where(Wanted.device == id)
    jobs = (
        select(Job, Rollout, Artifact)
        .join(Rollout, Rollout.id == Job.rollout)
        .join(Artifact, Artifact.id == Job.artifact_id)
        .where(Job.device == id, Job.dispatched_ms.is_not(None))
        .order_by(Job.dispatched_ms.desc())
        .limit(HISTORY_JOBS)
    )
    events = select(Event).where(Event.device == id).order_by(Event.received_ms.desc(), Event.id.desc()).limit(HISTORY_EVENTS)
    return DevicePageFacts(
        device=device,
        twin=session.get(Twin, id),
        installed=tuple(session.scalars(select(Installed).where(Installed.device == id).order_by(Installed.model))),
        wanted={row.model: artifact for row, artifact in session.execute(wanted)},
        drift=tuple(session.scalars(select(Drift).where(Drift.device == id).order_by(Drift.model))),
        alerts=tuple(
            session.scalars(select(Alert).where(Alert.device == id, Alert.closed_ms.is_(None)).order_by(Alert.opened_ms.desc()))
        ),
        jobs=tuple((job, rollout, artifact) for job, rollout, artifact in session.execute(jobs)),
        events=tuple(reversed(session.scalars(events).all())),
        windows=tuple(windows_since(session, id, now_ms - SPANS_S[span] * 1000)),
        last_window_ms=_last_window(session, id),
        span=span,
    )


def find_device(session: Session, id: str) -> Device:
    """Raises UnknownDeviceError. A revoked device is found too: its history stays."""
    device = session.get(Device, id)
    if device is None:
        raise UnknownDeviceError(f"no device {id!r} is enrolled here")
    return device


def _last_window(session: Session, id: str) -> int | None:
    return session.scalar(select(func.max(Window.at_ms)).where(Window.device == id))
