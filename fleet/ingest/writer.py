"""How does a batch of messages become rows, each exactly once, without one bad message spoiling the rest?

One transaction per batch. Repeats find their row and change nothing: windows and events by (device, boot, seq). Reports
are ordered by `seq` within a boot and by arrival across boots: a boot is 64 random bits, so two of them have no order of
their own, but reports come over one connection without a stored session, where the retained newest arrives first and
nothing older can follow it. A last will of an earlier boot, late by its delay, does not take a device offline that has
announced itself since.

If the database refuses a batch, its messages are tried one by one and the one at fault is dropped and noted; if the
database cannot be reached, `StoreError` says so and the caller tries the whole batch again.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from fleet.changes import Change, Changes
from fleet.errors import DeviceBarredError, StoreError
from fleet.ingest.messages import Arrival, Message, Refusal, read
from fleet.store.database import Database
from fleet.store.tables import Device
from fleet.store.telemetry import TelemetryRepository
from fleet.store.twins import TwinRepository
from runtime.contract.telemetry import Presence, Result
from runtime.contract.topics import Channel

log = logging.getLogger(__name__)

UNSTORABLE = "ingest.unstorable"
REFUSED = "ingest.refused"
NOTE_PAUSE_MS = 60_000
"""At most one note per device and code in this time: a device that sends only rubbish must not fill the event table."""
NOTED_LIMIT = 10_000


class Stored(NamedTuple):
    """What a committed batch changed. counts: new, repeated, refused; noted: refusals that got an event row."""

    counts: Counter[str]
    changes: set[Change]
    noted: list[Refusal]


class Writer:
    """Stores batches; belongs to one thread. counts: received, new, repeated, refused messages so far."""

    def __init__(self, database: Database, fleet: str, changes: Changes, on_reports: Callable[[], None]) -> None:
        """on_reports: told after a commit in which a device reported, came, went or logged a step."""
        self.counts: Counter[str] = Counter()
        self._database = database
        self._fleet = fleet
        self._changes = changes
        self._on_reports = on_reports
        self._born: dict[str, int] = {}
        self._noted_ms: dict[tuple[str, str], int] = {}

    def write(self, batch: Sequence[Arrival]) -> None:
        """Every message is stored, known already, or refused when this returns. Raises StoreError while the database is out of reach."""
        items = [read(arrival, self._fleet) for arrival in batch]
        try:
            self._write(items)
        except Exception as error:  # the edge of the worker: whatever one message causes, the others must get through
            if _is_outage(error):
                raise
            log.warning("a batch of %d cannot be stored; storing its messages one by one", len(items), exc_info=True)
            for item in items:
                self._write_alone(item)

    def _write_alone(self, item: Message | Refusal) -> None:
        try:
            self._write([item])
        except Exception as error:  # as above
            if _is_outage(error):
                raise
            log.exception("a message of %s is dropped", item.device or "an unknown device")
            self._write([Refusal(item.device, UNSTORABLE, f"the database does not take it: {error}", item.received_ms)])

    def _write(self, items: Sequence[Message | Refusal]) -> None:
        with self._database.write() as session:
            stored = self._store(session, items)
        self.counts += Counter(received=len(items)) + stored.counts
        self._remember(stored.noted)
        for change in stored.changes:
            self._changes.publish(change.kind, change.id)
        if any(change.kind != "window" for change in stored.changes):
            self._on_reports()

    def _store(self, session: Session, items: Sequence[Message | Refusal]) -> Stored:
        messages: dict[Channel, list[Message]] = {channel: [] for channel in Channel}
        refusals: list[Refusal] = []
        known = _known(session, {item.device for item in items})
        for item in items:
            if isinstance(item, Refusal):
                refusals.append(item)
            elif item.device in known:
                messages[item.channel].append(item)
            else:
                code, detail = DeviceBarredError.code, f"{item.channel} of {item.device}, which is not enrolled or is revoked"
                refusals.append(Refusal(item.device, code, detail, item.received_ms))
        counts, changes = self._store_telemetry(session, messages)
        for message in messages[Channel.REPORTED] + messages[Channel.PRESENCE]:
            is_new = self._store_twin(TwinRepository(session), message)
            counts["new" if is_new else "repeated"] += 1
            if is_new:
                changes.add(Change("device", message.device))
        counts["refused"] += len(refusals)
        noted = self._note(session, refusals)
        return Stored(counts, changes | {Change("event", refusal.device) for refusal in noted}, noted)

    def _store_telemetry(self, session: Session, messages: dict[Channel, list[Message]]) -> tuple[Counter[str], set[Change]]:
        telemetry = TelemetryRepository(session)
        counts: Counter[str] = Counter()
        if windows := messages[Channel.TELEMETRY]:
            stored = telemetry.add_windows([message.body for message in windows], windows[-1].received_ms)
            counts += Counter(new=stored.new, repeated=stored.repeated)
        if events := messages[Channel.EVENT]:
            stored = telemetry.add_events([message.body.value for message in events], events[-1].received_ms)
            counts += Counter(new=stored.new, repeated=stored.repeated)
        for message in messages[Channel.RESULT]:
            result: Result = message.body.value
            detail = f"{result.id}: {len(result.body)} bytes"
            telemetry.note("command.result", result.code, detail, message.received_ms, device=message.device)
            counts["new"] += 1
        changes = {Change("window", message.device) for message in windows}
        return counts, changes | {Change("event", message.device) for message in events + messages[Channel.RESULT]}

    def _store_twin(self, twins: TwinRepository, message: Message) -> bool:
        if message.channel is Channel.REPORTED:
            return twins.save_reported(message.device, message.body, message.received_ms)
        presence: Presence = message.body.value
        if presence.online:
            self._born[message.device] = presence.boot
        elif self._born.get(message.device, presence.boot) != presence.boot:
            return False
        return twins.save_presence(message.device, presence.online, message.received_ms)

    def _note(self, session: Session, refusals: Sequence[Refusal]) -> list[Refusal]:
        """Event rows for refusals, one per device and code at most; returns those that got one."""
        due: dict[tuple[str, str], Refusal] = {}
        for refusal in refusals:
            key = (refusal.device, refusal.code)
            if refusal.received_ms - self._noted_ms.get(key, -NOTE_PAUSE_MS) >= NOTE_PAUSE_MS:
                due.setdefault(key, refusal)
        telemetry = TelemetryRepository(session)
        for refusal in due.values():
            telemetry.note(REFUSED, refusal.code, refusal.detail[:1000], refusal.received_ms, device=refusal.device or None)
        return list(due.values())

    def _remember(self, noted: Sequence[Refusal]) -> None:
        if len(self._noted_ms) > NOTED_LIMIT:
            self._noted_ms.clear()
        for refusal in noted:
            self._noted_ms[refusal.device, refusal.code] = refusal.received_ms


def _known(session: Session, devices: set[str]) -> set[str]:
    return set(session.scalars(select(Device.id).where(Device.id.in_(devices), Device.revoked_ms.is_(None))))


def _is_outage(error: Exception) -> bool:
    """Whether the database, and not what we asked it to store, is at fault: then the same batch may succeed later."""
    return isinstance(error, StoreError) and not isinstance(error.__cause__, IntegrityError | DataError)
