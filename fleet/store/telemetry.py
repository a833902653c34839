"""How do windows and events enter the database once, however often they arrive, and how are they found again?"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.store.inserts import insert_new
from fleet.store.tables import Device, Event, Window
from runtime.contract import telemetry
from runtime.contract.canonical import INFLATED_TELEMETRY_LIMIT, Received, read_message
from runtime.contract.errors import MalformedError

LARGEST_COUNT = 2**53
"""Counts above this are no counts: sums of them would leave the range of a column, and of a JSON number."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch. unknown: from devices that are not enrolled; dropped."""

    new: int = 0
    repeated: int = 0
    unknown: int = 0


class TelemetryRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add_windows(self, windows: Sequence[Received[telemetry.Window]], received_ms: int) -> Stored:
        """Keep a batch; a window held already changes nothing. Check each with `require_countable` before."""
        rows = [_window_row(window, received_ms) for window in windows]
        known = self._known({row["device"] for row in rows})
        kept = [row for row in rows if row["device"] in known]
        new = insert_new(self._session, Window, kept)
        return Stored(new=new, repeated=len(kept) - new, unknown=len(rows) - len(kept))

    def add_events(self, events: Sequence[telemetry.Event], received_ms: int) -> Stored:
        """Keep a batch of device events; one held already changes nothing."""
        rows = [_event_row(event, received_ms) for event in events]
        known = self._known({row["device"] for row in rows})
        kept = [row for row in rows if row["device"] in known]
        new = insert_new(self._session, Event, kept)
        return Stored(new=new, repeated=len(kept) - new, unknown=len(rows) - len(kept))

    def note(self, kind: str, code: str, detail: str, now_ms: int, *, device: str | None = None, rollout: str = "") -> None:
        """Add an event of the service itself."""
        row = Event(source="service", device=device, at_ms=now_ms, received_ms=now_ms, kind=kind, code=code, detail=detail)
        row.rollout = rollout
        self._session.add(row)
        self._session.flush()

    def windows_of(self, device: str, model: str, sha256: str, *, after_id: int = 0, since_ms: int = 0) -> Sequence[Window]:
        """Windows of one artifact serving on one device, in the order they came, behind `after_id` and `since_ms`."""
        return self._session.scalars(
            select(Window)
            .where(
                Window.device == device,
                Window.model == model,
                Window.sha256 == sha256,
                Window.role == "active",
                Window.id > after_id,
                Window.received_ms >= since_ms,
            )
            .order_by(Window.id)
        ).all()

    def last_windows(self, device: str, model: str, sha256: str, before_ms: int, limit: int) -> Sequence[Window]:
        """The newest windows of an artifact on a device that arrived before a moment, newest first."""
        return self._session.scalars(
            select(Window)
            .where(
                Window.device == device,
                Window.model == model,
                Window.sha256 == sha256,
                Window.role == "active",
                Window.received_ms < before_ms,
            )
            .order_by(Window.id.desc())
            .limit(limit)
        ).all()

    def window_page(self, device: str, model: str | None, before: int | None, limit: int) -> Sequence[Window]:
        """A device's windows from the newest on, older than the one with id `before`."""
        statement = select(Window).where(Window.device == device).order_by(Window.id.desc()).limit(limit)
        if model is not None:
            statement = statement.where(Window.model == model)
        return self._session.scalars(statement if before is None else statement.where(Window.id < before)).all()

    def event_page(self, device: str | None, before: int | None, limit: int) -> Sequence[Event]:
        """Events of one device, or of all, from the newest on."""
        statement = select(Event).order_by(Event.id.desc()).limit(limit)
        if device is not None:
            statement = statement.where(Event.device == device)
        return self._session.scalars(statement if before is None else statement.where(Event.id < before)).all()

    def _known(self, devices: set[str]) -> set[str]:
        return set(self._session.scalars(select(Device.id).where(Device.id.in_(devices), Device.revoked_ms.is_(None))))


def require_countable(window: telemetry.Window) -> None:
    """Raise MalformedError for figures no honest device can reach, or that contradict each other."""
    cells = [*window.classes, *window.confidence, *window.latency.values(), *window.resources.values()]
    totals = [window.requests, window.errors, window.rows, window.dropped_rows, window.start_ms, window.duration_ms]
    for stream in window.streams:
        cells += [*stream.cells, stream.missing, stream.out_of_range]
    if max(cells + totals) > LARGEST_COUNT:
        raise MalformedError(f"Window: a figure is over {LARGEST_COUNT}")
    if window.errors > window.requests:
        raise MalformedError(f"Window: {window.errors} errors in {window.requests} requests")


def read_stored(row: Window) -> telemetry.Window:
    """The message behind a stored window. Raises MalformedError when its bytes do not decode."""
    return read_message(row.raw, telemetry.Window, INFLATED_TELEMETRY_LIMIT).value


def gaps(rows: Sequence[Window]) -> int:
    """Windows that are missing between those given: holes in `seq` within each boot."""
    per_boot: dict[int, list[int]] = {}
    for row in rows:
        per_boot.setdefault(row.boot, []).append(row.seq)
    return sum(max(seqs) - min(seqs) + 1 - len(Counter(seqs)) for seqs in per_boot.values())


def _window_row(received: Received[telemetry.Window], received_ms: int) -> dict[str, Any]:
    window = received.value
    return {
        "device": window.device,
        "boot": window.boot,
        "seq": window.seq,
        "model": window.model,
        "version": window.artifact.version,
        "target": window.artifact.target,
        "sha256": window.artifact.sha256,
        "role": window.role,
        "edges": window.edges,
        "at_ms": window.start_ms if window.clock_synced else received_ms,
        "duration_ms": window.duration_ms,
        "clock_synced": window.clock_synced,
        "received_ms": received_ms,
        "requests": window.requests,
        "errors": window.errors,
        "rows": window.rows,
        "dropped_rows": window.dropped_rows,
        "raw": received.raw,
    }


def _event_row(event: telemetry.Event, received_ms: int) -> dict[str, Any]:
    return {
        "source": "device",
        "device": event.device,
        "boot": event.boot,
        "seq": event.seq,
        "at_ms": min(event.at_ms, LARGEST_COUNT) if event.clock_synced else received_ms,
        "received_ms": received_ms,
        "kind": event.kind[:80],
        "code": event.code[:80],
        "model": event.model[:80],
        "version": event.artifact.version if event.artifact else "",
        "rollout": event.rollout[:80],
        "attempt": min(event.attempt, LARGEST_COUNT),
        "detail": event.detail,
    }
