"""Which connections does the ingest hold, and why two?

Telemetry, events and results must survive a break of ours, so the broker keeps a session for them; the shared subscription
lets several ingest processes split the windows. Reports and presence are retained and only the newest counts: their
connection keeps no session, so that after a break the retained newest is all that arrives and nothing queued earlier can
come behind it.
"""

import asyncio
from collections.abc import Callable

from fleet.changes import Changes
from fleet.ingest.consumer import Consumer
from fleet.ingest.writer import Writer
from fleet.mqtt import Link
from fleet.pki import INGEST, RECONCILER
from fleet.store.database import Database
from runtime.contract.topics import Channel, subscription

SHARE = "ingest"


class Ingest:
    """Start it once the database is there; it waits for the broker by itself."""

    def __init__(
        self, database: Database, link: Callable[[str], Link], fleet: str, changes: Changes, on_reports: Callable[[], None]
    ) -> None:
        """link: the broker as one of the two roles. on_reports: see `Writer`."""
        # Two writers, one per thread: each remembers births and notes of its own channels only.
        self._telemetry_writer = Writer(database, fleet, changes, on_reports)
        self._twin_writer = Writer(database, fleet, changes, on_reports)
        streams = [
            subscription(fleet, Channel.TELEMETRY, share=SHARE),
            subscription(fleet, Channel.EVENT),
            subscription(fleet, Channel.RESULT),
        ]
        twins = [subscription(fleet, Channel.REPORTED), subscription(fleet, Channel.PRESENCE)]
        self._telemetry = Consumer(link(INGEST), streams, self._telemetry_writer.write, keeps_session=True)
        self._twins = Consumer(link(RECONCILER), twins, self._twin_writer.write, keeps_session=False)

    async def start(self) -> None:
        """Begin connecting in the background; returns at once, with or without a broker."""
        self._twins.start()
        self._telemetry.start()

    async def stop(self) -> None:
        """Finish the batches at hand and leave; what was not acknowledged stays with the broker."""
        await asyncio.gather(asyncio.to_thread(self._telemetry.stop), asyncio.to_thread(self._twins.stop))

    @property
    def is_connected(self) -> bool:
        return self._telemetry.is_connected and self._twins.is_connected

    def counts(self) -> dict[str, int]:
        """Messages so far: received, new, repeated, refused, dropped (QoS 0 beyond the backlog), and the backlog now."""
        total = self._telemetry_writer.counts + self._twin_writer.counts
        both = (self._telemetry, self._twins)
        return {
            **{name: total[name] for name in ("received", "new", "repeated", "refused")},
            "dropped": sum(consumer.dropped for consumer in both),
            "backlog": sum(consumer.backlog for consumer in both),
        }
