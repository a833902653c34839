"""How does whoever waits for a batch run see how far it is?"""

import sys
import time
from collections.abc import Callable
from typing import TextIO

_TERMINAL_S = 0.2
_LOG_S = 5.0


class Progress:
    """Lines on stderr: on a terminal one that is written over, elsewhere a new one every few seconds."""

    def __init__(
        self, total: int, already: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._clock = clock
        self._total = total
        self._already = already
        self._started = self._said = clock()
        self._has_line = False

    def at(self, rows: int) -> None:
        """So many rows are done, those of an earlier run included."""
        now = self._clock()
        if now - self._said < (_TERMINAL_S if self._is_terminal else _LOG_S):
            return
        self._said = now
        rate = (rows - self._already) / max(now - self._started, 1e-9)
        left = (self._total - rows) / rate if rate else 0.0
        text = f"{rows} of {self._total} rows, {rate:.0f} rows/s, {_clock_of(left)} left"
        print(
            f"\r\x1b[K{text}" if self._is_terminal else text, end="" if self._is_terminal else "\n", file=self._stream, flush=True
        )
        self._has_line = self._is_terminal

    def end(self) -> None:
        if self._has_line:
            print(file=self._stream, flush=True)


def _clock_of(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
