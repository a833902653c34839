"""Which stream is configured, and may it be? The [stream] table of runtime.toml."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from runtime.contract.topics import PREFIX
from runtime.errors import ConfigError

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """broker: mqtt://HOST[:PORT] or mqtts://...; "" for no stream. topic_in may hold wildcards; the others name one topic.

    payload: "json" is the protocol's request and response; "binary" the bytes of the one input and of the one output.
    max_inflight: messages taken and not yet answered; further ones stay with the broker at qos 1, at qos 0 on the line.
    client_id: what the broker keeps the session by. username, password_file, ca_file, certificate_file, key_file: as the
    broker asks for them.
    """

    broker: str = ""
    model: str = ""
    topic_in: str = ""
    topic_out: str = ""
    topic_dead: str = ""
    qos: Literal[0, 1] = 1
    max_inflight: Annotated[int, Meta(ge=1, le=65_535)] = 16
    payload: Literal["json", "binary"] = "json"
    client_id: Annotated[str, Meta(min_length=1, max_length=128)] = "edgewright-stream"
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""


class BrokerAddress(NamedTuple):
    host: str
    port: int
    is_tls: bool


def check_stream(settings: StreamSettings) -> BrokerAddress:
    """Where the broker is. Raises ConfigError for what cannot work, or would meet the line to the fleet or the stream itself."""
    for key in ("model", "topic_in", "topic_out", "topic_dead"):
        if not getattr(settings, key):
            raise ConfigError(f"stream.{key} is missing; a stream needs broker, model, topic_in, topic_out and topic_dead")
    for key in ("password_file", "ca_file", "certificate_file", "key_file"):
        if (path := getattr(settings, key)) and not Path(path).is_file():
            raise ConfigError(f"stream.{key}: there is no file {path}")
    _check_filter(settings.topic_in)
    for key in ("topic_out", "topic_dead"):
        if reason := unfit_for_answers(getattr(settings, key), settings.topic_in):
            raise ConfigError(f"stream.{key} {reason}")
    try:
        address = urlsplit(settings.broker)
        port = address.port
    except ValueError as error:
        raise ConfigError(f"stream.broker {settings.broker!r}: {error}") from error
    if address.scheme not in _PORTS or not address.hostname or address.path.strip("/") or address.username or address.query:
        raise ConfigError(f"stream.broker {settings.broker!r} is not mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
    return BrokerAddress(address.hostname, port or _PORTS[address.scheme], address.scheme == "mqtts")


def unfit_for_answers(topic: str, topic_in: str) -> str:
    """Why no answer may go to a topic; "" when one may."""
    if not topic or len(topic.encode("utf-8", "replace")) > 65_535 or any(sign in topic for sign in "+#\0"):
        return f"{topic[:100]!r} is not the name of one topic"
    if topic == PREFIX or topic.startswith((f"{PREFIX}/", "$")):
        return f"{topic[:100]!r} belongs to the fleet or to the broker; choose another prefix"
    if matches(topic_in, topic):
        return f"{topic[:100]!r} is read by the stream itself (stream.topic_in {topic_in!r})"
    return ""


def matches(filter: str, topic: str) -> bool:
    """Whether a subscription takes in a topic. Source: MQTT 5, section 4.7."""
    wanted, parts = _levels(filter), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return not (index == 0 and topic.startswith("$"))
        if index >= len(parts) or (level != "+" and level != parts[index]):
            return False
    return len(wanted) == len(parts)


def _check_filter(filter: str) -> None:
    levels = _levels(filter)
    if "\0" in filter or any(("#" in level or "+" in level) and len(level) > 1 for level in levels) or "#" in levels[:-1]:
        raise ConfigError(f"stream.topic_in {filter!r} is no topic filter: + and # stand alone between slashes, # last")
    if _meets_fleet(levels):
        raise ConfigError(f"stream.topic_in {filter!r} takes in the fleet's own line, {PREFIX}/; choose another prefix")


def _levels(filter: str) -> list[str]:
    levels = filter.split("/")
    return levels[2:] if levels[0] == "$share" and len(levels) > 2 else levels


def _meets_fleet(levels: list[str]) -> bool:
    for level, own in zip(levels, PREFIX.split("/"), strict=False):
        if level == "#":
            return True
        if level not in ("+", own):
            return False
    return len(levels) >= len(PREFIX.split("/"))
