"""Who speaks, in which boot, and where does what it says wait?"""

from collections.abc import Callable
from typing import NamedTuple

from runtime.agent.outbox import Outbox
from runtime.clock import Clock


class Sender(NamedTuple):
    """Shared by everything that adds messages. wake: called after each, so that it is sent soon."""

    device: str
    boot: int
    clock: Clock
    outbox: Outbox
    wake: Callable[[], None]
