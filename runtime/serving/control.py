"""May clients unload models and load them again, and how is that done without holding up requests?"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from runtime.errors import ForbiddenError


class Stored(NamedTuple):
    """What the daemon knows of models beyond those that serve. Each may block; load and unload are called one at a time.

    models: all with a version on this device. load: serve a model's committed version again, no error if it does; raises
    ModelNotFoundError, UnavailableError while an update of it is under way, EngineError or ContractError. unload: serve a
    model no more until it is loaded or the daemon starts; raises as load does.
    """

    models: Callable[[], tuple[str, ...]] = tuple
    load: Callable[[str], None] | None = None
    unload: Callable[[str], None] | None = None


class ModelControl:
    """Loads and unloads in a thread of its own. For use from one event loop."""

    def __init__(self, stored: Stored, *, is_allowed: bool) -> None:
        """is_allowed: what the configuration says; listing is always allowed."""
        self.models = stored.models
        self._stored = stored
        self._is_allowed = is_allowed
        self._thread: ThreadPoolExecutor | None = None

    def load(self, model: str) -> "asyncio.Future[None]":
        """Raises ForbiddenError; the future what `Stored.load` raises."""
        return self._run(self._stored.load, model)

    def unload(self, model: str) -> "asyncio.Future[None]":
        """Raises ForbiddenError; the future what `Stored.unload` raises."""
        return self._run(self._stored.unload, model)

    def close(self) -> None:
        """Start nothing more; does not wait for what runs."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self, action: Callable[[str], None] | None, model: str) -> "asyncio.Future[None]":
        if not self._is_allowed:
            raise ForbiddenError("clients may not load or unload models here; serving.model_control = true allows it")
        if action is None:
            raise ForbiddenError("this server has no store of models to load from")
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="model-control")
        return asyncio.get_running_loop().run_in_executor(self._thread, action, model)
