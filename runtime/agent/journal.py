"""What happened on this device that the fleet should know of, in order and once each?

Events: steps of updates, refusals, alarms. Each gets the next number of this boot and waits in the outbox.
"""

import itertools
import logging
import threading
from collections.abc import Callable

from runtime.agent.outbox import Outbox
from runtime.clock import Clock
from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import EVENT_LIMIT, write_message
from runtime.contract.telemetry import Event
from runtime.contract.topics import Channel
from runtime.errors import StoreError

log = logging.getLogger(__name__)

DETAIL_LIMIT = 1000


class Journal:
    """Safe to share between threads. wake: called after each event, so that it is sent soon."""

    def __init__(self, device: str, boot: int, clock: Clock, outbox: Outbox, wake: Callable[[], None]) -> None:
        self._device = device
        self._boot = boot
        self._clock = clock
        self._outbox = outbox
        self._wake = wake
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def note(
        self,
        kind: str,
        code: str = "",
        detail: str = "",
        *,
        model: str = "",
        artifact: ArtifactRef | None = None,
        rollout: str = "",
        attempt: int = 0,
    ) -> None:
        """Add an event. Never raises for a full or damaged outbox: what is noted must not stand in its own way."""
        with self._lock:
            event = Event(
                device=self._device,
                boot=self._boot,
                seq=next(self._numbers),
                at_ms=self._clock.now_ms(),
                clock_synced=self._clock.is_synced,
                kind=kind,
                code=code,
                model=model,
                artifact=artifact,
                rollout=rollout,
                attempt=attempt,
                detail=detail[:DETAIL_LIMIT],
            )
            try:
                self._outbox.put(Channel.EVENT, write_message(event, EVENT_LIMIT))
            except StoreError as error:
                log.error("event %s %s is lost: %s", kind, code, error)
        self._wake()
