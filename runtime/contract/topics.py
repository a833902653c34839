"""Which MQTT topics exist, who writes them, and how are they delivered?

All lie below `edge/1/{fleet}/{device}/`, MQTT 5, QoS 1. The device id equals the certificate's common name and the MQTT
client id; the broker's access list lets a device touch only its own branch, in the direction the table gives.
"""

import enum
import re

import msgspec

from runtime.contract.canonical import COMMAND_LIMIT, DESIRED_LIMIT, EVENT_LIMIT, REPORTED_LIMIT, TELEMETRY_LIMIT
from runtime.contract.errors import TopicError
from runtime.contract.version import TOPIC_VERSION

PREFIX = f"edge/{TOPIC_VERSION}"
QOS = 1
SESSION_EXPIRY_S = 7 * 24 * 3600
PACKET_LIMIT = TELEMETRY_LIMIT + 1024
"""What the broker accepts: the largest payload, plus room for the topic and properties."""

_NAME = re.compile(r"[a-z0-9-]{1,40}")


class Channel(enum.StrEnum):
    DESIRED = "desired"
    REPORTED = "reported"
    PRESENCE = "presence"
    EVENT = "event"
    TELEMETRY = "telemetry"
    COMMAND = "command"
    RESULT = "result"


class Delivery(msgspec.Struct, frozen=True):
    """How a channel is carried. to_device: the service writes and the device reads, else the other way round."""

    to_device: bool
    retained: bool
    limit: int
    has_id: bool = False


DELIVERY: dict[Channel, Delivery] = {
    Channel.DESIRED: Delivery(to_device=True, retained=True, limit=DESIRED_LIMIT),
    Channel.REPORTED: Delivery(to_device=False, retained=True, limit=REPORTED_LIMIT),
    Channel.PRESENCE: Delivery(to_device=False, retained=True, limit=EVENT_LIMIT),
    Channel.EVENT: Delivery(to_device=False, retained=False, limit=EVENT_LIMIT),
    Channel.TELEMETRY: Delivery(to_device=False, retained=False, limit=TELEMETRY_LIMIT),
    Channel.COMMAND: Delivery(to_device=True, retained=False, limit=COMMAND_LIMIT, has_id=True),
    Channel.RESULT: Delivery(to_device=False, retained=False, limit=COMMAND_LIMIT, has_id=True),
}


class Address(msgspec.Struct, frozen=True):
    """A topic taken apart; `id` is "" except for commands and results."""

    fleet: str
    device: str
    channel: Channel
    id: str = ""


def topic(fleet: str, device: str, channel: Channel, id: str = "") -> str:
    """The topic's name. Raises TopicError if an id breaks the grammar, or is missing or superfluous."""
    parts = [fleet, device] + ([id] if DELIVERY[channel].has_id else [])
    for part in parts:
        if not _NAME.fullmatch(part):
            raise TopicError(f"{part!r} is not an id: use 1 to 40 of a-z, 0-9 and -")
    if id and not DELIVERY[channel].has_id:
        raise TopicError(f"{channel} takes no id")
    return "/".join([PREFIX, fleet, device, channel.value, *parts[2:]])


def subscription(fleet: str, channel: Channel, device: str = "+", share: str = "") -> str:
    """A topic filter for one channel of one device, or of all; `share` names a shared subscription's group."""
    if device != "+" and not _NAME.fullmatch(device):
        raise TopicError(f"{device!r} is not a device id")
    filter_ = f"{PREFIX}/{fleet}/{device}/{channel.value}" + ("/+" if DELIVERY[channel].has_id else "")
    return f"$share/{share}/{filter_}" if share else filter_


def parse(name: str) -> Address:
    """Take a topic apart. Raises TopicError for anything `topic` would not have made."""
    parts = name.split("/")
    if len(parts) in (5, 6) and "/".join(parts[:2]) == PREFIX and parts[4] in set(Channel):
        channel = Channel(parts[4])
        id_ = parts[5] if len(parts) == 6 else ""
        if topic(parts[2], parts[3], channel, id_) == name:
            return Address(parts[2], parts[3], channel, id_)
    raise TopicError(f"{name!r} is not a topic of {PREFIX}/{{fleet}}/{{device}}/")
