"""What does a build cost, and what when nothing changed? Digits with every candidate and in the demo's quick way, whole processes."""

import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.demo.local_fleet import QUICK
from benchmarks.figures import Figure
from benchmarks.process import run_measured

RECIPE = Path(__file__).parents[1] / "models" / "digits" / "recipe.toml"
RUNS = 5
QUICK_FLAGS = [part for key, value in QUICK.items() for part in ("--set", f"{key}={value}")]


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("toolchain")), "build", str(RECIPE), "--out", f"{folder}/out"]
        environment = {"EDGEWRIGHT_CACHE": f"{folder}/cache", "EDGEWRIGHT_TRACKING": f"sqlite:///{folder}/mlflow.db"}
        quick = run_measured([*command, *QUICK_FLAGS], {**environment, "EDGEWRIGHT_CACHE": f"{folder}/quick"})
        cold = run_measured(command, environment)
        again = [run_measured(command, environment) for _ in range(RUNS)]
    if any(run.exit_code for run in (quick, cold, *again)):
        raise RuntimeError(f"`{' '.join(command)}` failed")
    wall_s = statistics.median(run.wall_s for run in again)
    how = "tracking and report included"
    yield Figure(name="build of digits, quick as in the demo, cold", value=quick.wall_s, unit="s", limit=60, how=how)
    yield Figure(name="build of digits with every candidate, cold", value=cold.wall_s, unit="s", limit=240, how=how)
    yield Figure(name="build again, nothing changed", value=wall_s, unit="s", limit=1, how=f"median of {RUNS}")
    yield Figure(name="build again / cold", value=wall_s / cold.wall_s, unit="", limit=0.05)
