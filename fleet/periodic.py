"""How does blocking work run again and again beside the event loop, and stop without being cut in half?"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class Periodic:
    """Runs `work` in a thread, pauses, and starts over. A run that raises is logged; the next one follows all the same.

    `wake` shortens the pause; woken while it works, it works once more at once.
    """

    def __init__(self, name: str, work: Callable[[], None], pause_ms: int) -> None:
        self._name = name
        self._work = work
        self._pause_s = pause_ms / 1000
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self.failure = ""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name=self._name)

    def wake(self) -> None:
        """Say that there is work, from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing works any more
                self._loop.call_soon_threadsafe(self._woken.set)

    async def stop(self) -> None:
        """Let the run under way finish, then stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            run = asyncio.create_task(asyncio.to_thread(self._guarded))
            try:
                await asyncio.shield(run)
            except asyncio.CancelledError:
                await run  # a thread cannot be cancelled; left behind, it would go on writing after the stop
                raise
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._pause_s)

    def _guarded(self) -> None:
        try:
            self._work()
            self.failure = ""
        except Exception as error:  # the edge of the worker: the database may come back
            if self.failure != str(error):
                log.exception("%s failed; it goes on trying", self._name)
            self.failure = str(error) or type(error).__name__
