"""How does a build show its progress on stderr? A living tree of stages on a terminal, else plain lines for logs and pipes."""

import sys
import time
from collections.abc import Callable
from typing import Protocol

from toolchain.cli.output import say
from toolchain.pipeline.progress import Progress
from toolchain.report.wording import seconds as seconds_text

Clock = Callable[[], float]
"""Seconds that only go forward, such as time.monotonic."""

BY_VERB = ("make", "check")
BY_TARGET = ("measure", "choose", "profile", "test", "pack")
TICK_LINES_S = 2.0
"""Logs get a line of a running stage at most this often; a terminal shows every tick."""
LEAST_ETA_S = 2.0
"""A shorter rest is not worth a word."""


class Closing(Progress, Protocol):
    """A progress with something to take away at the end, however the build ended."""

    def close(self) -> None: ...


class Estimate:
    """How long the running stage still takes, from its own ticks or else from the last time it ran."""

    def __init__(self, expected_s: float | None = None, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._expected_s = expected_s
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int, int] | None = None

    def tick(self, done: int, of: int) -> None:
        now = self._clock()
        self._first = self._first or (now, done)
        self._last = (now, done, of)

    def remaining_s(self) -> float | None:
        """Seconds from now, None while nothing is known or once it takes longer than the last time."""
        now = self._clock()
        if self._last is not None:
            return self._by_ticks(now)
        if self._expected_s is None or now - self._started > self._expected_s:
            return None
        return self._expected_s - (now - self._started)

    def text(self) -> str:
        """ "about 12 s left", or "" where that is not known or not worth saying."""
        rest = self.remaining_s()
        if rest is None or rest < LEAST_ETA_S:
            return ""
        return f"about {f'{rest:.0f} s' if rest < 60 else seconds_text(rest)} left"

    def _by_ticks(self, now: float) -> float | None:
        """The pace since the first tick, so that what a stage does before its loop is not spread over it."""
        if self._first is None or self._last is None:
            return None
        (first_at, first_done), (at, done, of) = self._first, self._last
        if done > first_done:
            pace = (at - first_at) / (done - first_done)
        elif done > 0:
            pace = (at - self._started) / done
        else:
            return None
        return max(pace * (of - done) - (now - at), 0.0)


def place(name: str) -> tuple[str, str]:
    """Branch and leaf of a stage in the tree: what is done to many variants by verb, what is done for a target below it."""
    verb, _, rest = name.partition(" ")
    if rest and verb in BY_VERB:
        return verb, rest
    if rest and verb in BY_TARGET:
        return rest, verb
    return "", name


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


def close_progress(progress: Closing) -> None:
    progress.close()
