"""`python -m benchmarks [--only start rebuild device serving fetch] [--json FILE]`: the figures of docs/figures.md.

Exit 3 when a limit is not met. Run it on a quiet machine: what is measured here shares its cores.
"""

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.figures import Figure, show

PARTS = ("start", "rebuild", "device", "serving", "fetch")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures: list[Figure] = []
    for part in options.only:
        print(f"measuring {part} ...", file=sys.stderr)
        figures += importlib.import_module(f"benchmarks.{part}").measure()
    return show(figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
