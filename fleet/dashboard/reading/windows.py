"""Which windows does a chart need, and what is inside one?

The columns beside a window serve sums; latency and resources stand only in the message itself, which is decoded here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet.store import tables
from fleet.store.telemetry import read_stored
from runtime.contract.telemetry import Window

SPANS_S = {"15m": 900, "1h": 3_600, "6h": 21_600, "24h": 86_400, "7d": 604_800}
"""What a reader may ask a device page to cover."""
DEFAULT_WINDOWS = 120
"""Unasked, the longest span that the newest so many windows fill."""


@dataclass(frozen=True)
class WindowFacts:
    """One window; start_s in Unix seconds. message: the decoded content."""

    start_s: float
    duration_s: float
    model: str
    version: str
    sha256: str
    requests: int
    errors: int
    rows: int
    dropped_rows: int
    message: Window


def newest_windows(session: Session, device: str, model: str, limit: int) -> list[WindowFacts]:
    """The newest windows of one model on one device, oldest first."""
    query = (
        select(tables.Window)
        .where(tables.Window.device == device, tables.Window.model == model, tables.Window.role == "active")
        .order_by(tables.Window.at_ms.desc())
        .limit(limit)
    )
    return [facts_of(row) for row in reversed(session.scalars(query).all())]


def windows_since(session: Session, device: str, since_ms: int) -> list[WindowFacts]:
    """Every window of a device from a moment on, oldest first."""
    query = (
        select(tables.Window)
        .where(tables.Window.device == device, tables.Window.at_ms >= since_ms, tables.Window.role == "active")
        .order_by(tables.Window.at_ms)
    )
    return [facts_of(row) for row in session.scalars(query)]


def fitting_span(session: Session, device: str, now_ms: int) -> str:
    """The longest span that the device's newest DEFAULT_WINDOWS windows fill; the shortest while there are too few."""
    newest = (
        select(tables.Window.at_ms)
        .where(tables.Window.device == device)
        .order_by(tables.Window.at_ms.desc())
        .limit(DEFAULT_WINDOWS)
    )
    oldest = session.scalar(select(func.min(newest.subquery().c.at_ms)))
    age_s = 0 if oldest is None else (now_ms - oldest) / 1000
    filled = [name for name, span_s in SPANS_S.items() if span_s <= age_s]
    return filled[-1] if filled else next(iter(SPANS_S))


def facts_of(row: tables.Window) -> WindowFacts:
    return WindowFacts(
        start_s=row.at_ms / 1000,
        duration_s=row.duration_ms / 1000,
        model=row.model,
        version=row.version,
        sha256=row.sha256,
        requests=row.requests,
        errors=row.errors,
        rows=row.rows,
        dropped_rows=row.dropped_rows,
        message=read_stored(row),
    )


def merged_latency(windows: Sequence[WindowFacts]) -> dict[int, int]:
    merged: dict[int, int] = {}
    for window in windows:
        for cell, amount in window.message.latency.items():
            merged[cell] = merged.get(cell, 0) + amount
    return merged
