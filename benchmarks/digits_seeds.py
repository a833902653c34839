"""How good is the digits recipe, and how much of that is luck? Trains it with several seeds and prints the test accuracies.

    python benchmarks/digits_seeds.py [--seeds 7 1 2] [--set model.options.width=24] [--json]

Each seed is a whole build with its own cache, in a temporary folder; nothing is tracked.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

RECIPE = Path(__file__).parents[1] / "models" / "digits" / "recipe.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 1, 2], help="the first is the committed one")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="a change of the recipe, KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ["EDGEWRIGHT_TRACKING"] = "off"
    rows = [measure(seed, arguments.changes) for seed in arguments.seeds]
    median = statistics.median(row["accuracy"] for row in rows)
    if arguments.json:
        print(json.dumps({"seeds": rows, "median": median}, indent=2))
        return
    for row in rows:
        print(f"seed {row['seed']}: test accuracy {row['accuracy']:.4f} of n = {row['n']}, build {row['seconds']:.1f} s")
    print(f"median {median:.4f}")


def measure(seed: int, changes: list[str]) -> dict[str, float]:
    from toolchain.pipeline.cache import StageCache
    from toolchain.pipeline.progress import Silent
    from toolchain.pipeline.result import run_build

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        result = run_build(
            RECIPE,
            Silent(),
            cache=StageCache(place / "cache"),
            out=place / "out",
            changes=(f"train.seed={seed}", *changes),
        )
    metric = result.targets[0].metrics[0]
    print(f"seed {seed} done", file=sys.stderr)
    return {"seed": seed, "accuracy": metric.value, "n": metric.n, "seconds": round(time.monotonic() - started, 1)}


if __name__ == "__main__":
    main()
