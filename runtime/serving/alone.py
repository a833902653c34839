"""Does one caller ask at a time, so that running its inference in the event loop holds up nobody else?

A thread's hand-over costs more than its 17 us where each wake-up finds a core asleep: a fifth of an image network's run. A
caller that waits for its answer before it asks again gains by doing without, and nobody loses. Who else asked shows in the
loop: what arrived during an inference is read in the turn that follows it.
"""

import asyncio
import time
from collections.abc import Callable

COMPANY_S = 1.0
"""For so long after callers met each runs in a thread again; then one is tried alone."""
_MEETINGS = 2
"""One that asks again within a turn of the loop, its connection unknown, is not taken for two at once."""


class Alone:
    """Whether there is but one caller. For use from one event loop."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._watching: asyncio.Handle | None = None
        self._is_same_turn = False
        self._served: object = None
        """Whose run the last one was."""
        self._meetings = 0
        self._company_until_s = 0.0

    def asked(self, caller: object = None) -> None:
        """To be told at each call, whatever the model: one that comes on the heels of a long run has waited for it.

        caller: the same for what comes by one connection, None where that is not known. Whoever was just answered and asks
        again has kept nobody waiting; in the very turn of the run, such as by pipelining, it keeps everybody.
        """
        if self._watching is None:
            return
        is_again = caller is not None and caller == self._served and not self._is_same_turn
        self._watching.cancel()
        self._watching = None
        if is_again:
            self._meetings = 0
            return
        self._meetings += 1
        if self._meetings >= _MEETINGS:
            self._company_until_s = self._clock_s() + COMPANY_S

    def is_so(self) -> bool:
        return self._clock_s() >= self._company_until_s

    def ran(self, caller: object = None) -> None:
        """To be told after each run for a lone caller."""
        self._served, self._is_same_turn = caller, True
        # The next turn reads what arrived meanwhile, but comes to it only behind what is called soon: hence a second.
        self._watching = asyncio.get_running_loop().call_soon(self._turned)

    def _turned(self) -> None:
        self._is_same_turn = False
        self._watching = asyncio.get_running_loop().call_soon(self._nobody_asked)

    def _nobody_asked(self) -> None:
        self._watching = None
        self._meetings = 0
