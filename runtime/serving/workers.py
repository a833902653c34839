"""Where does a slow inference run, so that the event loop stays free?

Each slow model gets one thread: engines bring their own parallelism, and a model that is stuck keeps nobody else waiting.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from runtime.errors import OverloadedError

Result = TypeVar("Result")


class Workers:
    """Threads by model name, started at need. For use from one event loop only."""

    def __init__(self, waiting: int) -> None:
        """waiting: requests that may be under way or queued per model; more are refused."""
        self._most_waiting = waiting
        self._executors: dict[str, ThreadPoolExecutor] = {}
        self._waiting: dict[str, int] = {}

    def is_busy(self, model: str) -> bool:
        """Whether a request for this model is under way or queued, so that running another here would block the loop."""
        return self._waiting.get(model, 0) > 0

    def submit(self, model: str, run: Callable[[], Result]) -> "asyncio.Future[Result]":
        """Call `run` in the model's thread. Raises OverloadedError when too many wait already."""
        waiting = self._waiting.get(model, 0)
        if waiting >= self._most_waiting:
            raise OverloadedError(f"{waiting} requests for {model} are waiting already")
        if model not in self._executors:
            self._executors[model] = ThreadPoolExecutor(1, thread_name_prefix=f"infer-{model}")
        self._waiting[model] = waiting + 1
        future = asyncio.get_running_loop().run_in_executor(self._executors[model], run)
        future.add_done_callback(lambda _: self._done(model))
        return future

    def close(self) -> None:
        """Start nothing more; does not wait for what runs."""
        for executor in self._executors.values():
            executor.shutdown(wait=False, cancel_futures=True)

    def _done(self, model: str) -> None:
        self._waiting[model] -= 1
