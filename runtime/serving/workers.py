"""Where does a slow inference run, so that the event loop stays free, and what if it never comes back?

Each slow version gets one thread: engines bring their own parallelism, and one that is stuck keeps nobody else waiting, not
even its own successor. A call that takes too long is answered with an error while its thread may still be stuck: no thread
can be ended from outside, so what is counted is the failure. The threads are daemons: one that is stuck holds up no stop.
"""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from runtime.errors import EngineHungError, OverloadedError
from runtime.serving.models.model import ServedModel

Result = TypeVar("Result")


class Workers:
    """Threads by version, started at need and ended when their version is retired. For use from one event loop only."""

    def __init__(self, waiting: int, inference_s: float = 0.0) -> None:
        """waiting: calls that may be under way or queued per version; more are refused.

        inference_s: a call that takes longer, its wait included, is answered with an error; 0 for no bound.
        """
        self._most_waiting = waiting
        self._inference_s = inference_s
        self._lanes: dict[ServedModel, _Lane] = {}

    def is_busy(self, served: ServedModel) -> bool:
        """Whether a call to this version is under way or queued, so that running another here would block the loop."""
        lane = self._lanes.get(served)
        return lane is not None and lane.waiting > 0

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way or queued, of whatever version."""
        return not any(lane.waiting for lane in self._lanes.values())

    @property
    def queued(self) -> dict[ServedModel, int]:
        """How many calls are under way or wait, by version."""
        return {served: lane.waiting for served, lane in self._lanes.items()}

    def submit(self, served: ServedModel, run: Callable[[], Result]) -> "asyncio.Future[Result]":
        """Call `run` in the version's thread. Raises OverloadedError when too many wait already.

        The future fails with EngineHungError when the engine has been at work for inference_s, with OverloadedError when the
        call has waited so long; it is cancelled when the daemon stops first.
        """
        lane = self._lane(served)
        if lane.waiting >= self._most_waiting:
            raise OverloadedError(f"{lane.waiting} requests for {served.manifest.model} are waiting already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        lane.waiting += 1
        lane.calls.put((loop, future, run))
        if self._inference_s:
            timer = loop.call_later(self._inference_s, self._expire, served, future)
            future.add_done_callback(lambda _: timer.cancel())
        return future

    def close(self) -> None:
        """Start nothing more; does not wait for what runs."""
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()

    def _lane(self, served: ServedModel) -> "_Lane":
        lane = self._lanes.get(served)
        if lane is None:
            for gone in [other for other in self._lanes if other.is_retired and not self._lanes[other].waiting]:
                self._lanes.pop(gone).close()
            lane = self._lanes[served] = _Lane(f"infer-{served.manifest.model}")
        return lane

    def _expire(self, served: ServedModel, future: "asyncio.Future[Any]") -> None:
        if future.done():
            return
        name = f"{served.manifest.model} {served.manifest.version}"
        # Told apart with a tenth to spare: the call began a moment after its timer.
        if served.stuck_s() >= 0.9 * self._inference_s:
            error = EngineHungError(f"{name} has not answered in {self._inference_s:g} s")
            served.fail(error)
            future.set_exception(error)
        else:
            future.set_exception(OverloadedError(f"{name} did not get to this request in {self._inference_s:g} s"))


class _Lane:
    """One thread that makes calls in their order. waiting: those not yet answered by the thread; kept by the event loop."""

    def __init__(self, name: str) -> None:
        self.calls: SimpleQueue[Any] = SimpleQueue()
        self.waiting = 0
        self._is_closed = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def close(self) -> None:
        self._is_closed = True
        self.calls.put(None)

    def _run(self) -> None:
        while (call := self.calls.get()) is not None:
            loop, future, run = call
            result, error = None, None
            if not self._is_closed and not future.done():
                try:
                    result = run()
                except BaseException as raised:  # noqa: BLE001 - it is the future's to raise
                    error = raised
            try:
                loop.call_soon_threadsafe(partial(self._settle, future, result, error))
            except RuntimeError:  # the loop has ended, and with it whoever waited
                return

    def _settle(self, future: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
        self.waiting -= 1
        if future.done():
            return
        if self._is_closed:
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
