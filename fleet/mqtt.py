"""How does one part of the service reach the broker?

Each part connects as itself, with a certificate of its own: the broker makes the common name the client id, so two
connections under one name would push each other out. The access list gives each name only what it needs.
"""

import ssl
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fleet.pki import KeyPair, service_name
from runtime.contract.topics import SESSION_EXPIRY_S

KEEPALIVE_S = 30
RECONNECT_S = (1, 5)
"""First and longest pause between attempts, in whole seconds; paho adds no jitter."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker is and who we are to it. role: see `fleet.pki.service_name`."""

    host: str
    port: int
    role: str
    authority: Path
    pair: KeyPair


def make_client(link: Link, *, manual_ack: bool = False) -> mqtt.Client:
    """A client that is not connected yet. manual_ack: a message counts as taken only once `client.ack` says so."""
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=service_name(link.role),
        protocol=mqtt.MQTTv5,
        manual_ack=manual_ack,
    )
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(link.authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(link.pair.certificate, link.pair.key)
    client.tls_set_context(context)
    client.reconnect_delay_set(*RECONNECT_S)
    return client


def connect(client: mqtt.Client, link: Link, *, keeps_session: bool = False, receive_maximum: int | None = None) -> None:
    """Start connecting in the background, and again after every loss, until `disconnect`.

    keeps_session: the broker holds what arrives while we are away, for a week at most. receive_maximum: messages the
    broker may send before the first is acknowledged; with it the backlog stays at the broker, which bounds ours.
    """
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    if keeps_session:
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
    if receive_maximum is not None:
        properties.ReceiveMaximum = receive_maximum
    client.connect_async(link.host, link.port, keepalive=KEEPALIVE_S, clean_start=not keeps_session, properties=properties)
    client.loop_start()


def disconnect(client: mqtt.Client) -> None:
    """End the connection and its thread. Blocks until the thread has ended."""
    client.disconnect()
    client.loop_stop()
