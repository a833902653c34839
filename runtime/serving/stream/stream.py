"""How does every message of a topic get its answer on another, in order, at least once, and none too many at a time?

A message is acknowledged only when the broker has its answer, or its dead letter; until then the broker keeps it, and sends
no more than `max_inflight` at once. So whatever breaks, it is delivered again.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from runtime.errors import (
    DaemonError,
    DrainingError,
    InferenceError,
    ModelNotFoundError,
    OverloadedError,
    RequestError,
    RetiredError,
)
from runtime.serving.inference import Inference
from runtime.serving.limits import LimitSettings
from runtime.serving.models.repository import Repository
from runtime.serving.stream.line import Line
from runtime.serving.stream.payload import BinaryReading, JsonReading, Reply
from runtime.serving.stream.settings import StreamSettings, check_stream, unfit_for_answers

log = logging.getLogger(__name__)

FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 60.0
NOT_NOW_S = 0.2
"""Until a message is tried again whose model is busy or not there yet."""
ANSWERED, DEAD = 'outcome="answered"', 'outcome="dead"'
"""As /metrics labels them."""
_HEADROOM = 64 * 1024
# As for HTTP: JSON of more than this takes as long to read as the longest inference that runs inline.
_INLINE_BYTES = 16 * 1024
_NOT_NOW = (OverloadedError, RetiredError, ModelNotFoundError)


class Stream:
    """One configured stream. For use from one event loop."""

    def __init__(
        self,
        settings: StreamSettings,
        limits: LimitSettings,
        repository: Repository,
        inference: Inference,
        *,
        counts: dict[str, int] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """counts: answered and dead messages, kept up to date there. Raises ConfigError."""
        self._settings = settings
        self._limits = limits
        self._address = check_stream(settings)
        self._repository = repository
        self._inference = inference
        self._jitter = jitter
        self._line: Line | None = None
        self._running: deque[_Item] = deque()
        """Taken and not yet answered, in the order of arrival."""
        self._published: deque[_Item] = deque()
        """Answered, and not yet taken over by the broker."""
        self._stopping = asyncio.Event()
        self.counts = {} if counts is None else counts
        self.counts.update({ANSWERED: 0, DEAD: 0})

    @property
    def is_up(self) -> bool:
        """Whether messages reach the stream now."""
        return self._line is not None and self._line.is_up

    @property
    def taken(self) -> int:
        """Messages under way and not yet answered."""
        return len(self._running)

    async def run(self) -> None:
        """Until `stop`. Reconnects for ever. Raises ConfigError for a file the connection needs and cannot read."""
        tries = 0
        while not self._stopping.is_set():
            self._line = line = Line(
                self._settings, self._address, self._limits.body_bytes + _HEADROOM, self._received, self._taken_over
            )
            try:
                reason = await line.converse()
            except (OSError, ValueError) as error:
                reason = str(error)
            finally:
                self._line = None
                self._running.clear()
                self._published.clear()
            if self._stopping.is_set():
                return
            tries = 1 if line.is_up else tries + 1
            pause_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(tries - 1, 16)) * (0.5 + self._jitter() / 2)
            log.info("stream broker %s:%d: %s; again in %.1f s", self._address.host, self._address.port, reason, pause_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def stop(self, grace_s: float) -> None:
        """Take nothing more, answer what was taken if it does not take too long, and say goodbye."""
        self._stopping.set()
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        while self._line is not None and (self._running or self._published) and loop.time() < until:
            await asyncio.sleep(0.02)
        if self._line is not None:
            await self._line.close()

    # -- one message's way

    def _received(self, line: Line, message: mqtt.MQTTMessage) -> None:
        if line is self._line and not self._stopping.is_set():
            item = _Item(message)
            self._running.append(item)
            if message.qos == 0 and len(self._running) >= self._settings.max_inflight:
                line.pause()  # the broker waits for no acknowledgement of these: only the socket holds them back
            self._try(line, item)

    def _try(self, line: Line, item: "_Item") -> None:
        """Submit a message, or learn that it cannot be."""
        if line is not self._line:
            return
        try:
            answer = self._submit(item)
        except Exception as error:  # noqa: BLE001 - the edge of the worker: whatever happens, the message gets an answer
            self._failed(line, item, error)
            return
        if isinstance(answer, Reply):
            item.letter = answer
            self._flush(line)
        else:
            answer.add_done_callback(partial(self._finished, line, item))

    def _submit(self, item: "_Item") -> "Reply | asyncio.Future[Reply]":
        if reason := item.reply_to and unfit_for_answers(item.reply_to, self._settings.topic_in):
            raise RequestError(f"the response topic {reason}")
        model, key = self._settings.model, item.property("split_key")
        served = self._repository.get(model)
        if self._settings.payload == "binary":
            binary = BinaryReading(served.manifest, item.payload, key)
            return self._inference.submit(binary.call(), binary.answer)
        json = JsonReading(model, item.payload, key, self._limits)
        if len(item.payload) > _INLINE_BYTES:
            return self._inference.submit_unread(model, json.call, json.answer)
        return self._inference.submit(json.call(), json.answer)

    def _finished(self, line: Line, item: "_Item", running: "asyncio.Future[Reply]") -> None:
        if running.cancelled():
            return  # the daemon stops: the broker keeps the message
        if (error := running.exception()) is not None:
            self._failed(line, item, error)
            return
        item.letter = running.result()
        if line is self._line:
            self._flush(line)

    def _failed(self, line: Line, item: "_Item", error: BaseException) -> None:
        """Try again later what may then succeed; what never will goes to the dead-letter topic."""
        if line is not self._line or isinstance(error, DrainingError):
            return
        if isinstance(error, _NOT_NOW):
            asyncio.get_running_loop().call_later(NOT_NOW_S, self._try, line, item)
            return
        if not isinstance(error, (RequestError, InferenceError)):
            log.error("a message on %s failed unexpectedly", item.topic, exc_info=error)
        item.give_up(error)
        self._flush(line)

    def _flush(self, line: Line) -> None:
        """Publish what is answered, in the order in which it came."""
        while self._running and self._running[0].letter is not None:
            item = self._running.popleft()
            self._published.append(item)
            self._publish(line, item)
        if len(self._running) < self._settings.max_inflight:
            line.resume()

    def _publish(self, line: Line, item: "_Item") -> None:
        assert item.letter is not None
        topic = self._settings.topic_dead if item.is_dead else item.reply_to or self._settings.topic_out
        item.number = line.publish(topic, item.letter.payload, item.properties())

    def _taken_over(self, line: Line, number: int, refusal: str) -> None:
        """The broker has an answer: the message it answers may be forgotten, after those before it."""
        if line is not self._line:
            return
        for item in self._published:
            if item.number == number:
                self._settle(line, item, refusal)
                break
        while self._published and self._published[0].is_taken_over:
            item = self._published.popleft()
            self.counts[DEAD if item.is_dead else ANSWERED] += 1
            line.acknowledge(item.message)

    def _settle(self, line: Line, item: "_Item", refusal: str) -> None:
        if not refusal:
            item.is_taken_over = True
        elif item.is_dead:  # nothing is left to do with it but to say so
            log.error("the broker refuses the dead letter of a message on %s: %s; it is dropped", item.topic, refusal)
            item.is_taken_over = True
        else:
            item.give_up(RequestError(f"the broker refuses its answer: {refusal}"))
            self._publish(line, item)


class _Item:
    """One message between its arrival and its acknowledgement. letter: what is to be published for it, once known."""

    def __init__(self, message: mqtt.MQTTMessage) -> None:
        self.message = message
        self.topic: str = message.topic
        self.payload = bytes(message.payload)
        self.reply_to: str = getattr(message.properties, "ResponseTopic", "")
        self.letter: Reply | None = None
        self.number = 0
        self.is_dead = False
        self.is_taken_over = False

    def property(self, name: str) -> str:
        """A user property of the message; "" when it has none of that name."""
        return str(dict(getattr(self.message.properties, "UserProperty", ())).get(name, ""))

    def give_up(self, error: BaseException) -> None:
        """The message itself becomes the letter, with the reason."""
        is_ours = isinstance(error, DaemonError)
        code = error.code if isinstance(error, DaemonError) else DaemonError.code
        reason = str(error)[:1000] if is_ours else "internal error"
        content_type = getattr(self.message.properties, "ContentType", "")
        self.is_dead = True
        self.letter = Reply(self.payload, content_type, (("code", code), ("reason", reason), ("topic", self.topic)))

    def properties(self) -> Properties:
        """Of the letter: what correlates it comes back as it came."""
        assert self.letter is not None
        properties = Properties(PacketTypes.PUBLISH)
        if self.letter.content_type:
            properties.ContentType = self.letter.content_type
        if (correlation := getattr(self.message.properties, "CorrelationData", None)) is not None:
            properties.CorrelationData = correlation
        if self.letter.properties:
            properties.UserProperty = list(self.letter.properties)
        return properties
