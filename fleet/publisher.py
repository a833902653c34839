"""How does every device get the newest desired state, whatever happens to the broker?

One thread does the same round again and again: issue anew what expires soon, seal generations that have no signed bytes
yet, and send what was not handed to the broker since it was last (re)connected. The signed bytes are stored before they
are sent, so that one generation never has two bodies, and after each connect everything counts as unsent, because a broker
that came back may have lost what it retained.

An acknowledgement by the broker is noted as "sent" and means nothing more; that a device has a generation is known only
from its own report. Retained messages are only ever replaced, never cleared: not even for a revoked device.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from sqlalchemy.orm import Session

from fleet.config import DefaultsSection
from fleet.errors import ExternalError
from fleet.mqtt import Link, connect, disconnect, make_client
from fleet.store.database import Database
from fleet.store.tables import Event, Twin
from fleet.store.twins import TwinRepository
from fleet.trust.store import TrustStore
from runtime.contract.canonical import DESIRED_LIMIT, write_message
from runtime.contract.deployment import Deployment, Desired, Settings
from runtime.contract.errors import ContractError, MalformedError
from runtime.contract.topics import QOS, Channel, topic
from runtime.contract.trust import ENVELOPE_OVERHEAD

log = logging.getLogger(__name__)

POLL_S = 0.5
"""Another process may have changed a twin; within this one `wake` is quicker."""
BATCH = 500
ACK_LIMIT_S = 10.0
RETRY_S = 5.0
PAYLOAD_LIMIT = DESIRED_LIMIT - ENVELOPE_OVERHEAD
"""The topic's limit holds for the envelope as a whole."""


class Sealed(NamedTuple):
    """One generation of one device, ready to send."""

    device: str
    generation: int
    envelope: bytes


class Publisher:
    """Keeps the retained `desired` topics equal to the twins in the database. One per fleet at a time."""

    def __init__(
        self,
        database: Database,
        trust: TrustStore,
        link: Link,
        fleet: str,
        defaults: DefaultsSection,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._trust = trust
        self._link = link
        self._fleet = fleet
        self._defaults = defaults
        self._now_s = now_s
        self._client = make_client(link)
        self._client.max_inflight_messages_set(BATCH)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_publish = self._acknowledged
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._is_new_connection = threading.Event()
        self._answers = threading.Condition()
        self._answered: dict[int, bool] = {}
        self._unsealable: set[tuple[str, int]] = set()
        self._is_held_back = False
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    async def start(self) -> None:
        """Begin connecting and publishing in the background; returns at once, with or without a broker."""
        connect(self._client, self._link)
        self._thread.start()

    async def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)
            await asyncio.to_thread(disconnect, self._client)

    def wake(self) -> None:
        """Say that a twin changed, from any thread."""
        self._wake.set()

    @property
    def state(self) -> str:
        """ "ok", or what keeps desired states from going out."""
        return self._failure or ("ok" if self._client.is_connected() else "not connected to the broker")

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(POLL_S)
            self._wake.clear()
            try:
                self._round()
                self._failure = ""
            except Exception as error:  # the edge of this worker: desired states must go out again once the cause is gone
                self._failure = str(error) or type(error).__name__
                log.exception("publishing failed; next attempt in %.0f s", RETRY_S)
                self._stopping.wait(RETRY_S)

    def _round(self) -> None:
        self._reissue()
        if self._client.is_connected() and self._is_new_connection.is_set():
            self._is_new_connection.clear()
            with self._database.write() as session:
                TwinRepository(session).forget_published()
        last = ""
        while not self._stopping.is_set() and (twins := self._unsent(after=last)):
            last = twins[-1].device  # what cannot be sealed or sent is passed over; the next round looks at it again
            ready = self._sealed(twins)
            if not self._client.is_connected():
                return
            if ready and not self._send(ready) and self._client.is_connected():
                raise ExternalError(f"the broker did not take all of {len(ready)} desired states")

    def _reissue(self) -> None:
        """A new generation for what would expire within half its life: a device back from a break still gets a fresh one."""
        if not self._trust.is_authorized():
            return
        with self._database.read() as session:
            due = [twin.device for twin in TwinRepository(session).expiring(self._fresh_until(), BATCH)]
        if due:
            with self._database.write() as session:
                twins = TwinRepository(session)
                for device in due:
                    twins.reissue(device)

    def _unsent(self, after: str) -> Sequence[Twin]:
        with self._database.read() as session:
            return TwinRepository(session).unpublished(BATCH, after)

    def _sealed(self, twins: Sequence[Twin]) -> list[Sealed]:
        """Those of the twins that have signed bytes, or get them here, in one transaction."""
        ready = [Sealed(twin.device, twin.generation, twin.desired) for twin in twins if twin.desired is not None]
        bare = [twin for twin in twins if twin.desired is None and (twin.device, twin.generation) not in self._unsealable]
        if bare and self._may_seal():
            with self._database.write() as session:
                wanted = TwinRepository(session).deployments_of([twin.device for twin in bare])
                ready += [sealed for twin in bare if (sealed := self._seal(session, twin, wanted[twin.device])) is not None]
        return ready

    def _may_seal(self) -> bool:
        is_authorized = self._trust.is_authorized()
        if not is_authorized and not self._is_held_back:
            log.warning("nothing is sent to devices before the signing keys name this service: toolchain keys authorize --to URL")
        self._is_held_back = not is_authorized
        return is_authorized

    def _seal(self, session: Session, twin: Twin, deployments: tuple[Deployment, ...]) -> Sealed | None:
        """Sign this generation; None if that cannot be done, or it is not the newest any more.

        The deployments were read after the twin and may already be those of a later generation; then the twin is not
        sealed, because only the newest generation can be.
        """
        now_s = int(self._now_s())
        expires = now_s + self._defaults.desired_ttl_s
        defaults = {"window_s": self._defaults.window_s, "probation_s": self._defaults.probation_s}
        try:
            desired = Desired(
                device=twin.device,
                generation=twin.generation,
                issued_at=now_s,
                expires=expires,
                settings=msgspec.convert(defaults | twin.settings, Settings),
                deployments=deployments,
            )
            envelope = self._trust.seal(write_message(desired, PAYLOAD_LIMIT), PAYLOAD_LIMIT)
        except (ContractError, msgspec.ValidationError) as error:
            # One device whose state cannot be said must not keep the others from theirs.
            code = error.code if isinstance(error, ContractError) else MalformedError.code
            self._unsealable.add((twin.device, twin.generation))
            session.add(_refusal(twin, code, str(error), now_s * 1000))
            log.error("the desired state of %s cannot be sealed: %s", twin.device, error)
            return None
        is_kept = TwinRepository(session).seal(twin.device, twin.generation, envelope, expires)
        return Sealed(twin.device, twin.generation, envelope) if is_kept else None

    def _send(self, batch: Sequence[Sealed]) -> bool:
        """Publish, wait for the broker's answers, note the accepted ones. False unless it accepted all."""
        with self._answers:
            self._answered.clear()
        waiting: dict[int, Sealed] = {}
        for sealed in batch:
            name = topic(self._fleet, sealed.device, Channel.DESIRED)
            waiting[self._client.publish(name, sealed.envelope, qos=QOS, retain=True).mid] = sealed
        with self._answers:
            self._answers.wait_for(
                lambda: waiting.keys() <= self._answered.keys() or not self._client.is_connected(), ACK_LIMIT_S
            )
            accepted = [sealed for mid, sealed in waiting.items() if self._answered.get(mid)]
        with self._database.write() as session:
            twins = TwinRepository(session)
            for sealed in accepted:
                twins.mark_published(sealed.device, sealed.generation)
        return len(accepted) == len(batch)

    def _fresh_until(self) -> int:
        return int(self._now_s()) + self._defaults.desired_ttl_s // 2

    # called by paho's thread

    def _connected(self, _client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object) -> None:
        if reason.is_failure:
            log.error("the broker refuses the publisher: %s", reason)
            return
        self._is_new_connection.set()
        self._wake.set()

    def _disconnected(self, *_: object) -> None:
        with self._answers:
            self._answers.notify_all()

    def _acknowledged(self, _client: mqtt.Client, _data: object, mid: int, reason: ReasonCode, _properties: Properties) -> None:
        if reason.is_failure:
            log.error("the broker refuses a desired state: %s", reason)
        with self._answers:
            self._answered[mid] = not reason.is_failure
            self._answers.notify_all()


def _refusal(twin: Twin, code: str, detail: str, now_ms: int) -> Event:
    return Event(
        source="service", device=twin.device, at_ms=now_ms, received_ms=now_ms, kind="desired.refused", code=code, detail=detail
    )
