"""What was this machine doing while something was measured, and was the measurement let through?"""

import os
import resource
import time
from pathlib import Path
from types import TracebackType

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_REAL_TIME = 1
"""The lowest real-time priority is above every ordinary process already; Linux keeps 5 % of a core for those."""


class Watch:
    """Notes the load while it is open, and gives this thread real-time priority where the system lets it (root, or RLIMIT_RTPRIO).

    A niceness would not do: it ranks the processes of one session, not those of others (autogroup, sched(7)). Threads and processes
    started meanwhile do not inherit it, so with one thread, where engines run in the caller's, all of an inference has it and nothing
    keeps it. seen: the machine's state in words, filled when the watch ends.
    """

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def __enter__(self) -> "Watch":
        self._before = _scheduling()
        self._raised = _real_time()
        self._load = _load()
        self._switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        self._wall, self._busy = time.monotonic(), time.process_time()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        wall, busy = time.monotonic() - self._wall, time.process_time() - self._busy
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - self._switches
        if self._raised and self._before:
            os.sched_setscheduler(0, *self._before)
        self.seen = {
            "load before": self._load,
            "load after": _load(),
            "own CPU share": f"{busy / max(wall, 1e-9):.2f}",
            "interruptions": str(switches),
            "priority": "real-time" if self._raised else "ordinary",
            "governor": _governor(),
        }


def _scheduling() -> "tuple[int, os.sched_param] | None":
    """Policy and parameter of this thread; None where the system has no such thing."""
    return (os.sched_getscheduler(0), os.sched_getparam(0)) if hasattr(os, "sched_setscheduler") else None


def _real_time() -> bool:
    if not hasattr(os, "sched_setscheduler"):
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(_REAL_TIME))
    except OSError:  # an ordinary user may not
        return False
    return True


def _load() -> str:
    """The one-minute load average: runnable processes, this one included."""
    return f"{os.getloadavg()[0]:.2f}"


def _governor() -> str:
    try:
        return GOVERNOR.read_text().strip()
    except OSError:
        return "not readable"
