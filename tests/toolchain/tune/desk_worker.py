"""A worker process for tests of the desk: it claims real trials of a real study, and only computes what they give."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from toolchain.recipe import parse_recipe
from toolchain.tune.desk import Desk
from toolchain.tune.scores import Outcome
from toolchain.tune.space import Space

NAME = "study"


def open_desk(root: Path, **tune: Any) -> Desk:
    """width: 4 values, depth: 3."""
    document = {
        "model": {"name": "m", "version": "1.0.0", "network": "m.py:network", "options": {"width": 16, "depth": 1}},
        "data": {"source": "m.py:splits"},
        "tune": {
            "space": {"model.options.width": {"choices": [8, 16, 24, 32]}, "model.options.depth": {"low": 1, "high": 3}},
            "objectives": ["metric"],
            **tune,
        },
    }
    recipe = parse_recipe(document, "recipe.toml")
    assert recipe.tune is not None
    (root / "studies").mkdir(parents=True, exist_ok=True)
    return Desk(recipe.tune, Space(recipe, "recipe.toml"), root, NAME, "max")


def outcome(params: dict[str, Any] | None, seconds: float = 0.0) -> Outcome:
    value = params["model.options.width"] * params["model.options.depth"] if params else 0.0
    return Outcome(state="complete", seconds=seconds, values=(float(value),), margins={"max_drop": value - 60.0})


def work(desk: Desk, log: Path, seconds: float) -> None:
    """Until the search is over. Each trial is written to the log before it begins and once its outcome is kept."""
    while True:
        claim = desk.claim()
        if claim is None:
            if desk.is_over:
                return
            time.sleep(0.02)
            continue
        with desk.working(claim):
            _append(log, f"begin {claim.number} {claim.params} {os.getpid()}")
            time.sleep(seconds)
            desk.finish(claim, outcome(claim.params, seconds))
            _append(log, f"end {claim.number} {claim.params} {os.getpid()}")


def _append(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(f"{line}\n")


if __name__ == "__main__":
    root, sampler, trials, seconds, storage = sys.argv[1:]
    work(open_desk(Path(root), sampler=sampler, trials=int(trials), storage=storage), Path(root) / "log", float(seconds))
