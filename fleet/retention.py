"""How long is telemetry kept, and how does it go without stopping those who write?

Windows and events are history: gates look back hours, drift and pages days. What is older is deleted in small batches, so
that the write lock is never held for long. Releases, rollouts, verdicts and the audit log stay.
"""

from collections.abc import Callable

from sqlalchemy import delete, select

from fleet.config import RetentionSection
from fleet.periodic import Periodic
from fleet.store.database import Database
from fleet.store.tables import Event, Window

DAY_MS = 24 * 3600 * 1000
EVERY_MS = 3600 * 1000
BATCH = 5_000
"""Some 50 ms of the write lock on a laptop's disk."""


class Retention:
    def __init__(self, database: Database, now_ms: Callable[[], int], settings: RetentionSection) -> None:
        self._database = database
        self._now_ms = now_ms
        self._settings = settings
        self._periodic = Periodic("retention", self.run_once, EVERY_MS)

    async def start(self) -> None:
        self._periodic.start()

    async def stop(self) -> None:
        await self._periodic.stop()

    def run_once(self) -> None:
        now_ms = self._now_ms()
        while self._delete(Window, now_ms - self._settings.windows_days * DAY_MS) == BATCH:
            pass
        while self._delete(Event, now_ms - self._settings.events_days * DAY_MS) == BATCH:
            pass

    def _delete(self, table: type[Window] | type[Event], before_ms: int) -> int:
        """Delete the oldest rows received before a moment, at most BATCH; returns how many."""
        with self._database.write() as session:
            # Ids rise with arrival, so the oldest rows lie together at the beginning and need no index of their own.
            oldest = session.execute(select(table.id, table.received_ms).order_by(table.id).limit(BATCH)).all()
            ids = [row.id for row in oldest if row.received_ms < before_ms]
            if ids:
                session.execute(delete(table).where(table.id <= ids[-1], table.received_ms < before_ms))
            return len(ids)
