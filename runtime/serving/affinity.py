"""On which CPUs does serving run, and how does everything else stay off them?

A thread hands its CPUs on to those it starts. So the thread that serves binds itself before it starts others, engines are
opened by threads bound the same way, for theirs to be bound too, and what serving does not wait for lets go again first.
"""

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

from runtime.errors import ConfigError

Result = TypeVar("Result")


class Affinity:
    """The CPUs of `[serving] cpus`; does nothing where that is empty."""

    def __init__(self, cpus: Iterable[int]) -> None:
        """Raises ConfigError for a CPU this process may not use, and where threads cannot be bound at all."""
        self._cpus = frozenset(cpus)
        self._others: frozenset[int] = frozenset()
        if not self._cpus:
            return
        if not hasattr(os, "sched_setaffinity"):
            raise ConfigError("[serving] cpus: threads cannot be bound to CPUs on this system; leave it empty")
        self._others = frozenset(os.sched_getaffinity(0))
        if missing := sorted(self._cpus - self._others):
            usable = ", ".join(map(str, sorted(self._others)))
            raise ConfigError(f"[serving] cpus: there is no CPU {missing[0]} for this process; choose among {usable}")

    def bind(self) -> None:
        """The calling thread, and those it will start, run on the CPUs of serving only."""
        if self._cpus:
            os.sched_setaffinity(0, self._cpus)

    def release(self) -> None:
        """The calling thread, and those it will start, run wherever this process could at its start."""
        if self._cpus:
            os.sched_setaffinity(0, self._others)

    def bound(self, work: Callable[[], Result]) -> Result:
        """What `work` returns; threads that it starts are bound, the calling one is as before afterwards."""
        if not self._cpus:
            return work()
        before = os.sched_getaffinity(0)
        self.bind()
        try:
            return work()
        finally:
            os.sched_setaffinity(0, before)
