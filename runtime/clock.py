"""What time is it, as far as this device can know?

Many devices have no battery-backed clock and wake up in 1970. The clock is never believed to be earlier than the last
time a signed message carried, plus what this device has been running since: its own record grows no faster than its
monotonic clock, so that a clock which jumps ahead by years for a while does not stay ahead for ever.
"""

import time
from collections.abc import Callable

from runtime.update.store import Store

RECORD_EVERY_S = 600


class Clock:
    """Wall clock with a floor that survives restarts. system_s: seconds since the epoch; both injected by tests."""

    def __init__(
        self, store: Store, system_s: Callable[[], float] = time.time, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._system_s = system_s
        self._monotonic_s = monotonic_s
        self._floor_s = store.trusted_time_s()
        self._floored_s = monotonic_s()

    def now_s(self) -> float:
        return max(self._system_s(), float(self._floor_s))

    def now_ms(self) -> int:
        return int(self.now_s() * 1000)

    @property
    def is_synced(self) -> bool:
        """False while the system clock is behind what is known to have passed: it has not been set since the start."""
        return self._system_s() >= self._floor_s

    @property
    def last_contact_s(self) -> int:
        """The latest time a signed message carried; 0 before the first."""
        return self._store.vouched_time_s()

    def trust(self, time_s: int) -> None:
        """Raise the floor to a time that a signed message carries."""
        self._store.vouch_time(time_s)
        self._raise(time_s)

    def record(self) -> None:
        """Remember the present, at most every ten minutes, so that a restart does not fall far behind it."""
        lived_s = self._monotonic_s() - self._floored_s
        now = int(min(self._system_s(), self._floor_s + lived_s))
        if now >= self._floor_s + RECORD_EVERY_S:
            self._raise(now)

    def _raise(self, time_s: int) -> None:
        if time_s > self._floor_s:
            self._store.trust_time(time_s)
            self._floor_s, self._floored_s = time_s, self._monotonic_s()
