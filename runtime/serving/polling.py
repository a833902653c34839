"""How does the event loop notice the next request at once, where a sleeping core takes longer to wake than a model to run?

After whatever woke it, the loop looks for more for a moment before it sleeps again. On the machine of docs/figures.md waking
an idle virtual core costs 30 to 60 us, twice what a 16 us model takes; a client that asks again when it is answered then
never waits for it. An idle daemon pays the moment once per wake-up, a few times a second.
"""

import asyncio
import os
import selectors
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any


class PollingSelector(selectors.DefaultSelector):
    """Polls for up to poll_ns before it blocks. Others that want this core get it at every look."""

    def __init__(self, poll_ns: int) -> None:
        super().__init__()
        self._poll_ns = poll_ns

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        look = super().select
        if timeout is not None and timeout <= 0:
            return look(timeout)
        until = perf_counter_ns() + (self._poll_ns if timeout is None else min(self._poll_ns, int(timeout * 1e9)))
        while perf_counter_ns() < until:
            if ready := look(0):
                return ready
            os.sched_yield()
        return look(timeout)


def loop_factory(poll_us: int) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """For `asyncio.Runner`; None for the usual loop: where nothing is to be polled, or there is no second core to do it on."""
    if not poll_us or (os.cpu_count() or 1) < 2:
        return None
    return lambda: asyncio.SelectorEventLoop(PollingSelector(poll_us * 1000))


def run(main: Any, poll_us: int) -> Any:
    """As `asyncio.run`, in a loop that polls."""
    with asyncio.Runner(loop_factory=loop_factory(poll_us)) as runner:
        return runner.run(main)
