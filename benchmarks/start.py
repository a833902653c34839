"""What does it cost to start each command? CPU seconds and memory of `--help`, whole process, median of five."""

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.process import run_measured

COMMANDS = ("toolchain", "runtime", "fleet")
RUNS = 5


def measure() -> Iterator[Figure]:
    for command in COMMANDS:
        program = str(Path(sys.executable).with_name(command))
        runs = [run_measured([program, "--help"]) for _ in range(RUNS + 1)][1:]
        cpu_s = statistics.median(run.cpu_s for run in runs)
        memory = statistics.median(run.peak_mb for run in runs)
        yield Figure(name=f"{command} --help, CPU", value=cpu_s, unit="s", limit=0.3, how=f"median of {RUNS}")
        yield Figure(name=f"{command} --help, memory", value=memory, unit="MB", limit=60)
