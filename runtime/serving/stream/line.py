"""How does one connection to the stream's broker live in the event loop? paho's client, fed and emptied by the loop.

Each connection has a client of its own: what was under way on a broken one is delivered again by the broker, which keeps
the session, and nothing of the old client can mix with it.
"""

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from runtime.contract.topics import SESSION_EXPIRY_S
from runtime.errors import ConfigError
from runtime.serving.stream.settings import BrokerAddress, StreamSettings

log = logging.getLogger(__name__)

KEEPALIVE_S = 30
CONNECT_S = 10.0
FAREWELL_S = 1.0
_MISC_S = 1.0
_REFUSED = 0x80


class Line:
    """One connection. received: called with each message; published: with the number and the refusal ("" for none) of each
    publication. All in the event loop's thread, and none may block.
    """

    def __init__(
        self,
        settings: StreamSettings,
        address: BrokerAddress,
        most_bytes: int,
        received: Callable[["Line", mqtt.MQTTMessage], None],
        published: Callable[["Line", int, str], None],
    ) -> None:
        """most_bytes: of a message; the broker keeps larger ones from us. Raises ConfigError for a file that is not there."""
        self._settings = settings
        self._address = address
        self._most_bytes = most_bytes
        self._received = received
        self._published = published
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        # paho's callbacks hold its locks: what they tell is passed on when they are done.
        self._events: deque[Callable[[], None]] = deque()
        self._is_writing = self._is_paused = False
        self.is_up = False
        self._client = self._make_client()

    async def converse(self) -> str:
        """Connect and exchange messages until the connection ends. Returns why it did; is_up tells that it was subscribed.

        Raises OSError or ValueError when there is no connection.
        """
        await asyncio.to_thread(self._connect)
        wire = self._client.socket()
        if not isinstance(wire, socket.socket):  # paho's type is wider for websockets
            return "the connection was closed at once"
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer waits 40 ms for the one before it
        self._loop.add_reader(wire, self._read)
        try:
            self._pump()
            while not self._ended.done():
                await asyncio.wait({self._ended}, timeout=_MISC_S)
                self._settle(self._client.loop_misc(), "no sign of life")
                self._pump()
        finally:
            self._loop.remove_reader(wire)
            self._loop.remove_writer(wire)
        return self._ended.result()

    def publish(self, topic: str, payload: bytes, properties: Properties) -> int:
        """Returns the publication's number, with which `published` is told."""
        info = self._client.publish(topic, payload, self._settings.qos, properties=properties)
        self._loop.call_soon(self._pump)  # so that whoever asks has the number before it is told of it
        return int(info.mid)

    def acknowledge(self, message: mqtt.MQTTMessage) -> None:
        """The broker may forget this message, and send another in its place."""
        self._client.ack(message.mid, message.qos)
        self._loop.call_soon(self._pump)

    def pause(self) -> None:
        """Read nothing more for now."""
        wire = self._client.socket()
        if wire is not None and not self._is_paused:
            self._is_paused = True
            self._loop.remove_reader(wire)

    def resume(self) -> None:
        wire = self._client.socket()
        if wire is not None and self._is_paused:
            self._is_paused = False
            self._loop.add_reader(wire, self._read)
            self._loop.call_soon(self._read)  # for what TLS has decrypted already

    async def close(self) -> None:
        """Say goodbye. What is not acknowledged will be delivered again to the next connection."""
        if self._client.is_connected():
            self._client.disconnect()
            self._pump()
            await asyncio.wait({self._ended}, timeout=FAREWELL_S)
        self._end("closed")

    # -- the event loop's side

    def _read(self) -> None:
        if self._is_paused:
            return
        self._settle(self._client.loop_read(), "the broker closed the connection")
        wire = self._client.socket()
        if isinstance(wire, ssl.SSLSocket) and wire.pending():  # whole records are decrypted: the loop sees nothing more
            self._loop.call_soon(self._read)
        self._pump()

    def _pump(self) -> None:
        """Send what paho has to send; the rest when the socket takes more."""
        if self._client.want_write():
            self._settle(self._client.loop_write(), "the broker takes nothing more")
        while self._events:
            self._events.popleft()()
        wire = self._client.socket()
        if wire is None:
            self._end("the connection was lost")
        elif self._client.want_write() and not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(wire, self._write)

    def _write(self) -> None:
        self._settle(self._client.loop_write(), "the broker takes nothing more")
        wire = self._client.socket()
        if self._is_writing and wire is not None and not self._client.want_write():
            self._is_writing = False
            self._loop.remove_writer(wire)
        self._pump()

    def _settle(self, result: int, reason: str) -> None:
        if result != mqtt.MQTT_ERR_SUCCESS:
            self._end(f"{reason} ({mqtt.error_string(result)})")

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)

    # -- paho's callbacks

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._end(f"the broker refuses the connection: {reason}")
            return
        # A retained request is run once, not at every reconnect.
        options = SubscribeOptions(qos=self._settings.qos, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        client.subscribe(self._settings.topic_in, options=options)

    def _on_subscribe(self, _client: mqtt.Client, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._end(f"the broker refuses the subscription to {self._settings.topic_in}: {reasons[0]}")
        else:
            self.is_up = True

    def _on_disconnect(self, _client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._end(str(reason))

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._events.append(partial(self._received, self, message))

    def _on_publish(self, _client: mqtt.Client, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        self._events.append(partial(self._published, self, mid, str(reason) if reason.value >= _REFUSED else ""))

    def _on_socket_close(self, _client: mqtt.Client, _data: Any, wire: Any) -> None:
        self._loop.remove_reader(wire)
        self._loop.remove_writer(wire)
        self._is_writing = False

    # -- details

    def _connect(self) -> None:
        """Blocks; in a thread of its own."""
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = self._settings.max_inflight  # what cannot be taken waits at the broker
        properties.MaximumPacketSize = self._most_bytes
        self._client.connect(self._address.host, self._address.port, KEEPALIVE_S, clean_start=False, properties=properties)
        self._client.on_socket_close = self._on_socket_close

    def _make_client(self) -> mqtt.Client:
        settings = self._settings
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=settings.client_id, protocol=mqtt.MQTTv5, manual_ack=settings.qos > 0
        )
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages_set(2 * settings.max_inflight)  # an answer, or a dead letter in its place
        try:
            if settings.username:
                password = Path(settings.password_file).read_text(encoding="utf-8").strip() if settings.password_file else None
                client.username_pw_set(settings.username, password)
            if self._address.is_tls:
                context = ssl.create_default_context(cafile=settings.ca_file or None)
                if settings.certificate_file:
                    context.load_cert_chain(settings.certificate_file, settings.key_file or None)
                client.tls_set_context(context)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(f"the stream's password or certificates cannot be read: {error}") from error
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client
