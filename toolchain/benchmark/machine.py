"""What was this machine doing while something was measured, and was the measurement let through?"""

import contextlib
import os
import resource
import time
from pathlib import Path
from types import TracebackType

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_HIGHEST_PRIORITY = -20


class Watch:
    """Notes the load while it is open, and raises this thread's priority where the system lets it (root, or RLIMIT_NICE).

    seen: the machine's state in words, filled when the watch ends.
    """

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def __enter__(self) -> "Watch":
        self._nice = os.getpriority(os.PRIO_PROCESS, 0)
        with contextlib.suppress(OSError):  # an ordinary user may not; `seen` says so
            os.setpriority(os.PRIO_PROCESS, 0, _HIGHEST_PRIORITY)
        self._priority = os.getpriority(os.PRIO_PROCESS, 0)
        self._load = _load()
        self._switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        self._wall, self._busy = time.monotonic(), time.process_time()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        wall, busy = time.monotonic() - self._wall, time.process_time() - self._busy
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - self._switches
        if self._priority != self._nice:
            os.setpriority(os.PRIO_PROCESS, 0, self._nice)
        self.seen = {
            "load before": self._load,
            "load after": _load(),
            "own CPU share": f"{busy / max(wall, 1e-9):.2f}",
            "interruptions": str(switches),
            "priority": f"nice {self._priority}",
            "governor": _governor(),
        }


def _load() -> str:
    """The one-minute load average: runnable processes, this one included."""
    return f"{os.getloadavg()[0]:.2f}"


def _governor() -> str:
    try:
        return GOVERNOR.read_text().strip()
    except OSError:
        return "not readable"
