"""What did a device say, and may it have said that?

From topic and payload to a decoded message, or to a refusal with a stable code. Pure: whether the device is enrolled is
the database's to know.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from fleet.store.telemetry import LARGEST_COUNT, require_countable
from runtime.contract.canonical import COMMAND_LIMIT, EVENT_LIMIT, REPORTED_LIMIT, Received, read_message
from runtime.contract.deployment import Reported
from runtime.contract.errors import ContractError, MalformedError, TopicError, WrongDeviceError
from runtime.contract.telemetry import Event, Presence, Result, Window, read_window
from runtime.contract.topics import Channel, parse


class Arrival(NamedTuple):
    """A message as the broker delivered it, and when (Unix milliseconds)."""

    topic: str
    payload: bytes
    received_ms: int


class Message(NamedTuple):
    device: str
    channel: Channel
    body: Received[Any]
    received_ms: int


class Refusal(NamedTuple):
    """device: "" when not even the topic could be read."""

    device: str
    code: str
    detail: str
    received_ms: int


def read(arrival: Arrival, fleet: str) -> Message | Refusal:
    """Decode one arrival. Never raises: what cannot be decoded is a refusal."""
    device = ""
    try:
        address = parse(arrival.topic)
        if address.fleet != fleet or address.channel not in _READERS:
            raise TopicError(f"{arrival.topic} is not a topic devices of {fleet} write to")
        device = address.device
        body = _READERS[address.channel](arrival.payload)
        # The broker's access list vouches for the topic; a payload that names another device is a lie or a mix-up.
        if getattr(body.value, "device", device) != device:
            raise WrongDeviceError(f"{address.channel} of {device!r} names {body.value.device!r}")
        if address.id and body.value.id != address.id:
            raise TopicError(f"{address.channel} for {address.id!r} answers {body.value.id!r}")
    except ContractError as error:
        return Refusal(device, error.code, str(error), arrival.received_ms)
    return Message(device, address.channel, body, arrival.received_ms)


def _window(payload: bytes) -> Received[Window]:
    received = read_window(payload)
    require_countable(received.value)
    return received


def _reported(payload: bytes) -> Received[Reported]:
    received = read_message(payload, Reported, REPORTED_LIMIT)
    places = [(deployment.model, deployment.role) for deployment in received.value.deployments]
    if len(set(places)) != len(places):
        raise MalformedError("Reported: a model is reported twice in one role")
    if received.value.profile.memory_bytes > LARGEST_COUNT:
        raise MalformedError(f"Reported: memory_bytes is over {LARGEST_COUNT}")
    return received


_READERS: dict[Channel, Callable[[bytes], Received[Any]]] = {
    Channel.TELEMETRY: _window,
    Channel.REPORTED: _reported,
    Channel.PRESENCE: lambda payload: read_message(payload, Presence, EVENT_LIMIT),
    Channel.EVENT: lambda payload: read_message(payload, Event, EVENT_LIMIT),
    Channel.RESULT: lambda payload: read_message(payload, Result, COMMAND_LIMIT),
}
