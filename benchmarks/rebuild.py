"""What does a build cost when nothing changed? A cold build of digits, then the same command again, whole processes."""

import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.process import run_measured

RECIPE = Path(__file__).parents[1] / "models" / "digits" / "recipe.toml"
RUNS = 5


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("toolchain")), "build", str(RECIPE), "--out", f"{folder}/out"]
        environment = {"EDGEWRIGHT_CACHE": f"{folder}/cache", "EDGEWRIGHT_TRACKING": f"sqlite:///{folder}/mlflow.db"}
        cold = run_measured(command, environment)
        again = [run_measured(command, environment) for _ in range(RUNS)]
    if any(run.exit_code for run in (cold, *again)):
        raise RuntimeError(f"`{' '.join(command)}` failed")
    wall_s = statistics.median(run.wall_s for run in again)
    yield Figure(name="build of digits, cold", value=cold.wall_s, unit="s", limit=60, how="tracking and report included")
    yield Figure(name="build again, nothing changed", value=wall_s, unit="s", limit=1, how=f"median of {RUNS}")
    yield Figure(name="build again / cold", value=wall_s / cold.wall_s, unit="", limit=0.05)
