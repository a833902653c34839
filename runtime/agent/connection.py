"""How does the device stay on the line: MQTT 5 over mutual TLS, reconnecting for ever, losing nothing?

The broker keeps the session for a week. A message to the device is acknowledged only once it has been dealt with; a
message from it leaves the outbox only once the broker acknowledged it.
"""

import logging
import random
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from runtime.agent.outbox import Outbox, Parcel
from runtime.contract.canonical import EVENT_LIMIT, write_message
from runtime.contract.telemetry import Presence
from runtime.contract.topics import DELIVERY, PACKET_LIMIT, QOS, SESSION_EXPIRY_S, Channel, subscription, topic
from runtime.errors import StoreError
from runtime.identity import Identity

log = logging.getLogger(__name__)

KEEPALIVE_S = 30
WILL_DELAY_S = 10
"""A device that is back within it was never reported offline."""
IN_FLIGHT = 20
LOOP_S = 1.0
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 60.0
FAREWELL_S = 2.0
_QUOTA_EXCEEDED = 0x97
_REFUSED = 0x80


class Incoming(msgspec.Struct, frozen=True):
    """A message to this device. line: which connection it came on; an acknowledgement is good only there."""

    topic: str
    payload: bytes
    mid: int
    line: int


class Connection:
    """The agent's thread, the only one that touches the MQTT client; other threads leave it things to do and wake it.

    received: called with each message, in order, must not block; connected: called after each (re)connect.
    """

    def __init__(
        self,
        identity: Identity,
        context: ssl.SSLContext,
        outbox: Outbox,
        boot: int,
        *,
        received: Callable[[Incoming], None],
        connected: Callable[[], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        assert identity.broker is not None
        self._identity = identity
        self._broker = identity.broker
        self._outbox = outbox
        self._boot = boot
        self._received = received
        self._connected = connected
        self._jitter = jitter
        self._client = self._make_client(context)
        self._in_flight: dict[int, Parcel] = {}
        self._delivered: list[int] = []
        self._last_sent = 0
        self._states: dict[Channel, bytes] = {}
        self._handled: deque[Incoming] = deque()
        self._line = 0
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)
        self.is_connected = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Say goodbye, so that the last will is not sent, and end the thread."""
        self._stopping.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(FAREWELL_S + LOOP_S)
        self._bell.close()
        self._ear.close()

    def wake(self) -> None:
        """There is something new in the outbox."""
        with suppress(OSError):  # the bell rings already, or the line is closed for good
            self._bell.send(b"!")

    def publish_state(self, channel: Channel, payload: bytes) -> None:
        """Publish a retained document as soon as there is a connection; a newer one of the same channel replaces it."""
        self._states[channel] = payload
        self.wake()

    def acknowledge(self, message: Incoming) -> None:
        """Tell the broker that a message has been dealt with."""
        self._handled.append(message)
        self.wake()

    # -- the agent's thread

    def _run(self) -> None:
        tries = 0
        while not self._stopping.is_set():
            was_up = False
            try:
                self._connect()
                was_up = self._converse()
            except (OSError, ValueError) as error:  # ValueError: a socket that closed under select
                log.info("broker %s:%d: %s", self._broker.host, self._broker.port, error)
            except StoreError:
                log.exception("the outbox cannot be read or written; trying again later")
            except Exception:  # the worker's edge: a bug in one exchange must not take the device off the line for good
                log.exception("the agent's exchange with the broker failed")
            self.is_connected = False
            tries = 1 if was_up else tries + 1
            pause_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(tries - 1, 16)) * (0.5 + self._jitter() / 2)
            self._stopping.wait(pause_s)

    def _connect(self) -> None:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.MaximumPacketSize = PACKET_LIMIT
        properties.ReceiveMaximum = IN_FLIGHT  # a flood waits at the broker, not in this process
        self._client.connect(self._broker.host, self._broker.port, KEEPALIVE_S, clean_start=False, properties=properties)

    def _converse(self) -> bool:
        """Exchange packets until the connection ends. Returns whether the broker ever accepted it."""
        was_up = False
        while self._turn():
            was_up = was_up or self.is_connected
            self._settle()
            if self.is_connected:
                self._send()
            if self._stopping.is_set():
                self._say_goodbye()
                break
        self._settle()
        return was_up

    def _turn(self, timeout_s: float = LOOP_S) -> bool:
        """One round of the network loop; False when the connection is gone."""
        wire: Any = self._client.socket()
        if wire is None:
            return False
        has_buffered = wire.pending() > 0  # TLS decrypts whole records: select does not see what it already holds
        writing = [wire] if self._client.want_write() else []
        readable, writable, _ = select.select([wire, self._ear], writing, [], 0 if has_buffered else timeout_s)
        if self._ear in readable:
            self._ear.recv(4096)
        results = [self._client.loop_read()] if has_buffered or wire in readable else []
        results += [self._client.loop_write()] if writable else []
        results.append(self._client.loop_misc())
        return all(result == mqtt.MQTT_ERR_SUCCESS for result in results)

    def _settle(self) -> None:
        """Take delivered parcels out of the outbox, many in one write."""
        delivered, self._delivered = self._delivered, []
        if delivered:
            self._outbox.remove(delivered)

    def _send(self) -> None:
        """Acknowledge, publish the newest states, then the outbox in order, a bounded number ahead of the broker."""
        while self._handled:
            message = self._handled.popleft()
            if message.line == self._line:
                self._client.ack(message.mid, QOS)
        while self._states:
            channel, payload = self._states.popitem()
            self._client.publish(self._topic(channel), payload, QOS, retain=DELIVERY[channel].retained)
        room = IN_FLIGHT - len(self._in_flight)
        for parcel in self._outbox.after(self._last_sent, room) if room > 0 else []:
            info = self._client.publish(self._topic(parcel.channel, parcel.id), parcel.payload, QOS)
            self._in_flight[info.mid] = parcel
            self._last_sent = parcel.number

    def _say_goodbye(self) -> None:
        if self.is_connected:
            info = self._client.publish(self._topic(Channel.PRESENCE), self._presence(online=False), QOS, retain=True)
            until = time.monotonic() + FAREWELL_S
            while not info.is_published() and time.monotonic() < until and self._turn(0.1):
                self._settle()
        self._client.disconnect()

    # -- paho's callbacks, on the agent's thread

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.warning("broker refuses the connection: %s", reason)
            return
        self._line += 1
        self.is_connected = True
        device = self._identity.device
        for channel in (Channel.DESIRED, Channel.COMMAND):
            client.subscribe(subscription(self._identity.fleet, channel, device), QOS)
        self.publish_state(Channel.PRESENCE, self._presence(online=True))
        self._connected()

    def _on_disconnect(self, _client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self.is_connected:
            log.info("broker connection ended: %s", reason)
        self.is_connected = False

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._received(Incoming(message.topic, bytes(message.payload), message.mid, self._line))

    def _on_publish(self, _client: mqtt.Client, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        parcel = self._in_flight.pop(mid, None)
        if parcel is None:  # a retained document, not a parcel
            return
        if reason.value == _QUOTA_EXCEEDED:
            self._last_sent = min(self._last_sent, parcel.number - 1)
            return
        if reason.value >= _REFUSED:
            log.error("the broker refuses a %s message: %s; it is dropped", parcel.channel, reason)
        self._delivered.append(parcel.number)

    # -- details

    def _make_client(self, context: ssl.SSLContext) -> mqtt.Client:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self._identity.device, protocol=mqtt.MQTTv5, manual_ack=True)
        client.tls_set_context(context)
        client.max_inflight_messages_set(IN_FLIGHT)
        will = Properties(PacketTypes.WILLMESSAGE)
        will.WillDelayInterval = WILL_DELAY_S
        client.will_set(self._topic(Channel.PRESENCE), self._presence(online=False), QOS, retain=True, properties=will)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _topic(self, channel: Channel, id: str = "") -> str:
        return topic(self._identity.fleet, self._identity.device, channel, id)

    def _presence(self, *, online: bool) -> bytes:
        return write_message(Presence(device=self._identity.device, boot=self._boot, online=online), EVENT_LIMIT)
