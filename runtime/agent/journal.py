"""What happened on this device that the fleet should know of, in order and once each?

Events: steps of updates, refusals, alarms. Each gets the next number of this boot and waits in the outbox.
"""

import itertools
import logging
import threading

from runtime.agent.sender import Sender
from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import EVENT_LIMIT, write_message
from runtime.contract.telemetry import Event
from runtime.contract.topics import Channel
from runtime.errors import StoreError

log = logging.getLogger(__name__)

DETAIL_LIMIT = 1000


class Journal:
    """Safe to share between threads."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
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
    ) -> bool:
        """Add an event. False when the outbox is full or damaged, which is logged: what is noted must not stand in its own way."""
        with self._lock:
            event = Event(
                device=self._sender.device,
                boot=self._sender.boot,
                seq=next(self._numbers),
                at_ms=self._sender.clock.now_ms(),
                clock_synced=self._sender.clock.is_synced,
                kind=kind,
                code=code,
                model=model,
                artifact=artifact,
                rollout=rollout,
                attempt=attempt,
                detail=detail[:DETAIL_LIMIT],
            )
            try:
                self._sender.outbox.put(Channel.EVENT, write_message(event, EVENT_LIMIT))
            except StoreError as error:
                log.error("event %s %s is lost: %s", kind, code, error)
                return False
        self._sender.wake()
        return True
