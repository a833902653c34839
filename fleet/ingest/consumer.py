"""How do messages get from the broker to a writer so that none is lost and the backlog stays bounded?

paho's thread only queues; a worker takes batches, writes them, and acknowledges after the commit. The broker sends no more
than RECEIVE_MAXIMUM unacknowledged messages, so while the database is out of reach the backlog waits at the broker. A
connection that is lost takes its acknowledgements with it: messages of an earlier one are written but not acknowledged,
and what the broker sends again is a repeat the writer knows.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.reasoncodes import ReasonCode

from fleet.errors import StoreError
from fleet.ingest.messages import Arrival
from fleet.mqtt import Link, connect, disconnect, make_client
from runtime.contract.topics import QOS

log = logging.getLogger(__name__)

BATCH = 500
"""Rows a transaction; SQLite took 8,167 events/s at 50 and 14,218 at 500 (FACTS)."""
LINGER_S = 0.02
"""How long a batch waits for company: it bounds the transactions a second under a trickle to 50."""
RECEIVE_MAXIMUM = 2 * BATCH
QUEUE = 4 * RECEIVE_MAXIMUM
"""Room for one connection's unacknowledged messages beside an earlier one's; QoS 0, which no device should use, is dropped beyond."""
IDLE_S = 0.2
RETRY_S = (0.1, 5.0)


class Delivery(NamedTuple):
    arrival: Arrival
    mid: int
    qos: int
    connection: int


class Consumer:
    """One connection with its subscriptions, one worker thread, one writer."""

    def __init__(
        self, link: Link, filters: Sequence[str], write: Callable[[Sequence[Arrival]], None], *, keeps_session: bool
    ) -> None:
        """filters: what to subscribe to. write: raises StoreError when the batch should be tried again.

        keeps_session: whether the broker holds messages while we are away, which makes order across a break unsure.
        """
        self.dropped = 0
        self._link = link
        self._filters = filters
        self._write = write
        self._keeps_session = keeps_session
        self._client = make_client(link, manual_ack=True)
        self._client.on_connect = self._connected
        self._client.on_subscribe = self._subscribed
        self._client.on_message = self._arrived
        self._queue: queue.Queue[Delivery] = queue.Queue(QUEUE)
        self._connection = 0
        self._stopping = threading.Event()
        self._worker = threading.Thread(target=self._work, name=f"ingest-{link.role}", daemon=True)

    @property
    def is_connected(self) -> bool:
        return self._client.is_connected()

    @property
    def backlog(self) -> int:
        return self._queue.qsize()

    def start(self) -> None:
        self._worker.start()
        connect(self._client, self._link, keeps_session=self._keeps_session, receive_maximum=RECEIVE_MAXIMUM)

    def stop(self) -> None:
        """Finish the batch at hand and leave; the rest was not acknowledged and stays with the broker. Blocks."""
        self._stopping.set()
        if self._worker.ident is not None:
            self._worker.join()
            disconnect(self._client)

    def _work(self) -> None:
        while not self._stopping.is_set():
            if batch := self._batch():
                self._settle(batch)

    def _batch(self) -> list[Delivery]:
        try:
            batch = [self._queue.get(timeout=IDLE_S)]
        except queue.Empty:
            return []
        deadline = time.monotonic() + LINGER_S
        while len(batch) < BATCH:
            try:
                batch.append(self._queue.get(timeout=max(deadline - time.monotonic(), 0)))
            except queue.Empty:
                break
        return batch

    def _settle(self, batch: Sequence[Delivery]) -> None:
        """Write until it succeeds, or until we are to stop: then the broker has it still."""
        pause = RETRY_S[0]
        while True:
            try:
                self._write([delivery.arrival for delivery in batch])
                break
            except StoreError as error:
                if self._stopping.is_set():
                    log.warning("%d messages stay with the broker: %s", len(batch), error)
                    return
                log.warning("%s; trying again in %.1f s", error, pause)
            self._stopping.wait(pause)
            pause = min(2 * pause, RETRY_S[1])
        for delivery in batch:
            if delivery.qos and delivery.connection == self._connection:
                self._client.ack(delivery.mid, delivery.qos)

    # called by paho's thread

    def _connected(self, client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object) -> None:
        if reason.is_failure:
            log.error("the broker refuses %s: %s", self._link.role, reason)
            return
        self._connection += 1
        client.subscribe([(name, QOS) for name in self._filters])

    def _subscribed(self, _client: mqtt.Client, _data: object, _mid: int, reasons: list[ReasonCode], _properties: object) -> None:
        for name, reason in zip(self._filters, reasons, strict=True):
            if reason.is_failure:
                log.error("the broker refuses the subscription %s: %s", name, reason)

    def _arrived(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        arrival = Arrival(message.topic, bytes(message.payload), int(time.time() * 1000))
        delivery = Delivery(arrival, message.mid, message.qos, self._connection)
        if message.qos:
            self._queue.put(delivery)
            return
        try:
            self._queue.put_nowait(delivery)
        except queue.Full:
            self.dropped += 1
