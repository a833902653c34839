"""How does a page learn at once that something changed, without asking the database over and over?

Whoever commits a change says so here; everyone who listens hears {kind, id} and reads what it needs itself. Notices are
hints, not data: one that is lost costs a page a moment, never the truth, so a slow listener loses the oldest.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Literal, NamedTuple

Kind = Literal["device", "release", "rollout", "window", "event", "drift", "alert", "audit"]

BACKLOG = 256
"""Notices a listener may lag behind; two fleets' worth of a small installation, a few kB."""


class Change(NamedTuple):
    """kind: which sort of thing; id: its id, as in the API's paths (a window's is its device's)."""

    kind: Kind
    id: str


class Changes:
    """An in-process broadcast. `publish` may be called from any thread; `listen` belongs to an event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: set[_Listener] = set()

    def publish(self, kind: Kind, id: str) -> None:
        """Tell every listener. Never blocks and never raises: a listener whose loop has closed is forgotten."""
        change = Change(kind, id)
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            if not listener.offer(change):
                with self._lock:
                    self._listeners.discard(listener)

    @contextlib.contextmanager
    def listen(self) -> Iterator[AsyncIterator[Change]]:
        """Everything published from now on, until `close`. Notices that repeat one not yet read are dropped."""
        listener = _Listener(asyncio.get_running_loop())
        with self._lock:
            self._listeners.add(listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def close(self) -> None:
        """End every listener's iteration: the service is going down, and open streams would keep it waiting."""
        with self._lock:
            listeners, self._listeners = self._listeners, set()
        for listener in listeners:
            listener.end()

    @property
    def listeners(self) -> int:
        return len(self._listeners)


class _Listener:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Change, None] = {}  # a dict keeps order and drops repeats
        self._ready = asyncio.Event()
        self._is_over = False

    def offer(self, change: Change) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._add, change)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def end(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the iteration
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._is_over = True
        self._ready.set()

    def _add(self, change: Change) -> None:
        self._waiting[change] = None
        if len(self._waiting) > BACKLOG:
            del self._waiting[next(iter(self._waiting))]
        self._ready.set()

    def __aiter__(self) -> AsyncIterator[Change]:
        return self

    async def __anext__(self) -> Change:
        while not self._waiting:
            if self._is_over:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        change = next(iter(self._waiting))
        del self._waiting[change]
        return change
