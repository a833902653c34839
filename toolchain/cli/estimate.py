"""How long does the running stage still take?"""

import time
from collections.abc import Callable

from toolchain.report.wording import seconds as seconds_text

Clock = Callable[[], float]
"""Seconds that only go forward, such as time.monotonic."""

LEAST_ETA_S = 2.0
"""A shorter rest is not worth a word."""


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
