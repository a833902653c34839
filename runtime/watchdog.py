"""Does the daemon still move: its event loop, its updates, each inference?

A thread looks several times in the time a supervisor grants. While everything moves it sends the supervisor a sign of life;
when something does not, it stops sending, writes the reason to the disk for the next start to tell, and, where
`[serving] watchdog_s` asks for it, ends the process, for whatever supervises it to start it again.
"""

import asyncio
import contextlib
import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO

from runtime.errors import DaemonError
from runtime.exits import EXIT_STUCK
from runtime.files import write_durably
from runtime.notify import Notifier

log = logging.getLogger(__name__)

REASON_FILE = "watchdog.reason"
TRACE_FILE = "watchdog.trace"
LOOKS = 4
"""Looks in the time granted; half of them may find nothing moving before the reason is written."""
_TRACE_KEPT = 600
_STDERR = 2

Check = Callable[[], str]
"""Why something has stood still for too long; "" while it moves."""


class LoopPulse:
    """Whether an event loop turns: each look leaves it a call to make before the next."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limit_s: float, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._loop = loop
        self._limit_s = limit_s
        self._monotonic_s = monotonic_s
        self._asked_s = 0.0

    def __call__(self) -> str:
        if self._asked_s:
            waited_s = self._monotonic_s() - self._asked_s
            return f"the event loop has not turned for {waited_s:.1f} s" if waited_s > self._limit_s else ""
        self._asked_s = self._monotonic_s()
        with contextlib.suppress(RuntimeError):  # closed: the daemon is at its end
            self._loop.call_soon_threadsafe(self._answer)
        return ""

    def _answer(self) -> None:
        self._asked_s = 0.0


def stuck_in(what: str, stuck_s: Callable[[], float], limit_s: float) -> Check:
    """A check of something that knows for how long it has been busy with one thing."""

    def check() -> str:
        lasted_s = stuck_s()
        return f"{what} has been busy with one thing for {lasted_s:.1f} s" if lasted_s > limit_s else ""

    return check


class Watchdog:
    """granted_s: what the supervisor grants, 0 for no supervisor; own_s: after how long to end the process, 0 for never."""

    def __init__(
        self,
        checks: Iterable[Check],
        notifier: Notifier,
        state_dir: Path,
        *,
        granted_s: float,
        own_s: float,
        monotonic_s: Callable[[], float] = time.monotonic,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._checks: Sequence[Check] = tuple(checks)
        self._notifier = notifier
        self._state_dir = state_dir
        self._own_s = own_s
        self.every_s = shortest(granted_s, own_s) / LOOKS
        self._monotonic_s = monotonic_s
        self._end = end
        self._since_s: float | None = None
        self._trace: IO[str] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look, where anybody wants to know."""
        if not self.every_s:
            return
        if self._own_s:
            try:
                self._trace = (self._state_dir / TRACE_FILE).open("w", encoding="utf-8")
            except OSError as error:
                log.warning("a hang will leave no trace behind: %s", error)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._own_s:
            faulthandler.cancel_dump_traceback_later()
        if self._trace is not None:
            self._trace.close()
            (self._state_dir / TRACE_FILE).unlink(missing_ok=True)

    def look(self) -> str:
        """Look once and do what follows. Returns what stands still, "" for nothing."""
        stuck = "; ".join(filter(None, [check() for check in self._checks]))
        if not stuck:
            if self._since_s is not None:
                log.warning("it moves again")
                (self._state_dir / REASON_FILE).unlink(missing_ok=True)
            self._since_s = None
            self._notifier.alive()
            return ""
        now = self._monotonic_s()
        if self._since_s is None:
            self._since_s = now
            self._note(stuck)
        if self._own_s and now - self._since_s >= self._own_s / 2:
            log.critical("this process ends itself, to be started anew: %s", stuck)
            self._end(EXIT_STUCK)
        return stuck

    def _run(self) -> None:
        while not self._stopping.wait(self.every_s):
            if self._own_s:
                # For a hang that holds the interpreter, and with it this thread: a timer of its own ends the process then.
                faulthandler.dump_traceback_later(2 * self._own_s, exit=True, file=self._trace or _STDERR)
            self.look()

    def _note(self, stuck: str) -> None:
        log.critical("something stands still: %s; what each thread does:", stuck)
        faulthandler.dump_traceback(file=_STDERR)
        self._notifier.status(stuck)
        try:
            write_durably(self._state_dir / REASON_FILE, stuck.encode())
        except (OSError, DaemonError) as error:
            log.error("the next start will not know of it: %s", error)


def take_reason(state_dir: Path) -> str:
    """Why the last run was ended by a watchdog, "" if it was not; the next call knows nothing of it any more."""
    reason, trace = state_dir / REASON_FILE, state_dir / TRACE_FILE
    try:
        found = reason.read_text(encoding="utf-8", errors="replace") if reason.exists() else ""
        seen = trace.read_text(encoding="utf-8", errors="replace") if trace.exists() else ""
        reason.unlink(missing_ok=True)
        trace.unlink(missing_ok=True)
    except OSError as error:
        log.error("how the last run ended is not known: %s", error)
        return ""
    if not found and seen.strip():
        found = f"the interpreter stood still, held by native code: {' '.join(seen.split())[:_TRACE_KEPT]}"
    return found


def shortest(*seconds: float) -> float:
    """The shortest of those that are not 0; 0.0 when all are."""
    return min((one for one in seconds if one), default=0.0)
