"""How fast may a fetch go, and how often does it say how far it is?"""

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

BURST_S = 1.0
"""How much unused time may be made up for after a stall."""
LARGEST_PIECE, SMALLEST_PIECE = 256 * 1024, 1024
SAY_EVERY_S = 5.0
_MB = 1e6


class Pace:
    """A token bucket over bytes that have arrived: who is too early sleeps, and TCP holds the sender back.

    It starts empty, so that a fetch in many short slices is no faster than one. bytes_per_s: 0 for no bound.
    """

    def __init__(
        self,
        bytes_per_s: int = 0,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._monotonic_s = monotonic_s
        self._sleep = sleep
        self._paid_until_s = monotonic_s()

    @property
    def piece_bytes(self) -> int:
        """How much to read at once, so that a slow pace is still an even one."""
        if not self._bytes_per_s:
            return LARGEST_PIECE
        return max(SMALLEST_PIECE, min(LARGEST_PIECE, self._bytes_per_s // 8))

    @property
    def buffer_bytes(self) -> int:
        """How much the kernel may hold that nobody has read, 0 for what it likes.

        Half a second's worth: less would slow lines with a long way below the bound, more would be lost when a slice ends.
        """
        return max(8 * SMALLEST_PIECE, self._bytes_per_s // 2) if self._bytes_per_s else 0

    def spend(self, count: int) -> None:
        """Sleep until `count` more bytes are within the bound."""
        if not self._bytes_per_s:
            return
        now = self._monotonic_s()
        self._paid_until_s = max(self._paid_until_s, now - BURST_S) + count / self._bytes_per_s
        if self._paid_until_s > now:
            self._sleep(self._paid_until_s - now)


class Progress:
    """Says in the log how far a blob is, at most every few seconds."""

    def __init__(self, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._said_s = monotonic_s()

    def at(self, sha256: str, have: int, size_bytes: int) -> None:
        now = self._monotonic_s()
        if now - self._said_s >= SAY_EVERY_S:
            self._said_s = now
            log.info("blob %s…: %.1f of %.1f MB", sha256[:12], have / _MB, size_bytes / _MB)
