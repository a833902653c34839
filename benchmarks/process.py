"""What did a finished process cost, by the operating system's own accounting?"""

import os
import subprocess
import time
from typing import NamedTuple


class Cost(NamedTuple):
    wall_s: float
    cpu_s: float
    peak_mb: float
    exit_code: int


def run_measured(command: list[str], env: dict[str, str] | None = None) -> Cost:
    """Run to the end, output thrown away; CPU includes the children it waited for, peak is the largest single process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})})
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, process.returncode)
