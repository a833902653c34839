"""How does a build show its progress on stderr? A living tree of stages on a terminal, else plain lines for logs and pipes."""

import sys
import time
from typing import Protocol

from toolchain.cli.estimate import LEAST_ETA_S, Clock, Estimate
from toolchain.cli.output import say
from toolchain.pipeline.progress import Progress
from toolchain.report.wording import seconds as seconds_text

TICK_LINES_S = 2.0
"""Logs get a line of a running stage at most this often; a terminal shows every tick."""


class Closing(Progress, Protocol):
    """A progress with something to take away at the end, however the build ended."""

    def close(self) -> None: ...


class PlainProgress:
    """Lines for logs and pipes, no control characters. explain: also say why each stage ran or did not."""

    def __init__(self, *, explain: bool, clock: Clock = time.monotonic) -> None:
        self._explain = explain
        self._clock = clock
        self._expected_s: float | None = None
        self._estimate = Estimate(clock=clock)
        self._said_at = clock()

    def expect(self, seconds: float | None) -> None:
        self._expected_s = seconds

    def stage(self, name: str, *, ran: bool, why: str) -> None:
        if not ran:
            say(f"{name}: reused{f' ({why})' if self._explain else ''}")
            return
        self._estimate = Estimate(self._expected_s, self._clock)
        self._said_at = self._clock()
        is_long = self._expected_s is not None and self._expected_s >= LEAST_ETA_S
        last = f"took {seconds_text(self._expected_s or 0)} last time" if is_long else ""
        about = ", ".join(text for text in (why if self._explain else "", last) if text)
        self._expected_s = None
        if about:
            say(f"{name}: runs ({about})")

    def done(self, name: str, seconds: float, summary: str) -> None:
        say(f"{name}: {summary or 'done'}, {seconds:.1f} s")

    def tick(self, done: int, of: int, text: str) -> None:
        self._estimate.tick(done, of)
        now = self._clock()
        if text and (done >= of or done <= 1 or now - self._said_at >= TICK_LINES_S):
            self._said_at = now
            say(f"  {done}/{of} {', '.join(each for each in (text, self._estimate.text()) if each)}")

    def note(self, text: str) -> None:
        say(f"note: {text}")

    def close(self) -> None:
        """Nothing of it stays on a terminal."""


def open_progress(*, explain: bool) -> Closing:
    """For a terminal the living one, else plain lines."""
    if not sys.stderr.isatty():
        return PlainProgress(explain=explain)
    from toolchain.cli.live import LiveProgress

    return LiveProgress(explain=explain)
