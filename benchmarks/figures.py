"""What is a measured figure, and how are figures shown: a table for people, JSON for programs."""

import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured number. limit: what it must not exceed (at_most) or fall below; None: told, not judged."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_most: bool = True
    how: str = ""

    @property
    def holds(self) -> bool | None:
        if self.limit is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def show(figures: Iterable[Figure], as_json: Path | None) -> int:
    """Print the table, write the JSON where asked, and answer with the exit code: 3 when a limit is not met."""
    figures = list(figures)
    width = max(len(figure.name) for figure in figures)
    print(f"{'figure':{width}}  {'measured':>12}  {'limit':>12}  ")
    for figure in figures:
        limit = "" if figure.limit is None else f"{'<=' if figure.at_most else '>='} {figure.limit:g}"
        mark = {True: "holds", False: "NOT MET", None: ""}[figure.holds]
        print(f"{figure.name:{width}}  {figure.value:8.3f} {figure.unit:<5}{limit:>10}  {mark:8}{figure.how}")
    print(f"\nmachine: {machine()}", file=sys.stderr)
    if as_json:
        as_json.write_text(json.dumps({"machine": machine(), "figures": msgspec.to_builtins(figures)}, indent=2) + "\n")
    return 3 if any(figure.holds is False for figure in figures) else 0


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith(("model name", "Model"))
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
