"""Does every project that plain int8 ruins get caught before packing, and recovered? The table of the fixed suite, through `Build`.

    python -m benchmarks.collapses [ROW...] [--json]

Caught: plain int8 of the row's engine is rejected with a reason, and what is packed keeps the recipe's limit on test data.
Recovered: within the recipe's trials some int8 variant of that engine passes on validation data and keeps the limit on test data.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from tests.toolchain.compress.collapses import COLLAPSES, Collapse, lay
from toolchain.benchmark import profile, timing
from toolchain.benchmark.quality import test
from toolchain.pipeline.build import Build, Finished, Settings, Steered
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.candidates import Made
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.stage import Runner
from toolchain.recipe import load_recipe
from toolchain.targets import this_host


class Outcome(NamedTuple):
    """One row. Drops are of the deciding metric, absolute; rung: the first variant that passed, "" where none did."""

    name: str
    engine: str
    max_drop: float
    plain_drop: float
    is_caught: bool
    packed: str
    rung: str
    trials: int
    validation_drop: float
    test_drop: float

    @property
    def is_recovered(self) -> bool:
        return bool(self.rung) and self.test_drop <= self.max_drop


def run(row: Collapse, root: Path) -> Outcome:
    """Train, build and judge one row below `root`. Latencies are measured in short blocks: nothing here rests on them."""
    path = lay(row, root / row.name)
    recipe = load_recipe(path)
    runner = Runner(StageCache(root / "cache"), Silent(), row.name)
    build = Build(recipe, path.parent, Settings(), runner, this_host())
    hasty = mock.patch.multiple(timing, BLOCK_NS=50_000, BLOCKS=4, ROUNDS=1)
    with hasty, mock.patch.object(profile, "peak_bytes", return_value=None):
        steered = build.steer()
    done = build.finish(steered).targets[0]
    tried = {name: made for name, made in done.tried.made.items() if made.variant.value.precision == "int8"}
    rejected = {item.name: item.reason for item in done.tried.choice.value.judgements if item.verdict == "rejected"}
    plain = f"{row.engine}-int8"
    collapsed = tried[plain].checked.value.drop.value > row.max_drop
    caught = collapsed and bool(rejected.get(plain)) and done.tested.drop.value <= row.max_drop
    rung = next((name for name, made in tried.items() if _passes(made, row)), "")
    return Outcome(
        name=row.name, engine=row.engine, max_drop=row.max_drop, plain_drop=tried[plain].checked.value.drop.value,
        is_caught=caught, packed=done.tried.choice.value.chosen, rung=rung,
        trials=list(tried).index(rung) + 1 if rung else len(tried),
        validation_drop=tried[rung].checked.value.drop.value if rung else float("nan"),
        test_drop=_test_drop(tried[rung], steered, done, build) if rung else float("nan"),
    )  # fmt: skip


def _passes(made: Made, row: Collapse) -> bool:
    return made.checked.value.parity.ok and made.checked.value.drop.value <= row.max_drop


def _test_drop(made: Made, steered: Steered, done: Finished, build: Build) -> float:
    """The test split plays no part in any choice here either: it is opened after all of them."""
    splits, base = steered.splits, steered.base
    held_out = splits.part(splits.value.held_out, splits.value.held_out.digest)
    start = base.part(base.value.variant, base.digest)
    return test(made.variant, start, held_out, splits.value.steering.classes, build.metrics, Silent()).drop.value


def rows(names: Sequence[str]) -> Iterator[Collapse]:
    known = [row.name for row in COLLAPSES]
    for name in names:
        if name not in known:
            raise SystemExit(f"no row {name!r}; known: {', '.join(known)}")
    return (row for row in COLLAPSES if not names or row.name in names)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collapses", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("row", nargs="*")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    wanted = parser.parse_args()
    logging.getLogger("torch").setLevel(logging.ERROR)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(wanted.row):
            found.append(run(row, Path(folder)))
            print(_line(found[-1]), file=sys.stderr if wanted.json else sys.stdout, flush=True)
    caught, recovered = sum(item.is_caught for item in found), sum(item.is_recovered for item in found)
    if wanted.json:
        table = [{**item._asdict(), "is_recovered": item.is_recovered} for item in found]
        print(json.dumps({"rows": table, "caught": caught, "recovered": recovered, "of": len(found)}))
    else:
        print(f"caught before packing: {caught} of {len(found)}; recovered: {recovered} of {len(found)}")


def _line(item: Outcome) -> str:
    recovered = (
        f"{item.rung} in trial {item.trials}: {item.validation_drop:+.4f} validation, {item.test_drop:+.4f} test"
        if item.rung
        else f"by none of {item.trials}"
    )
    verdict = "recovered" if item.is_recovered else "NOT recovered"
    caught = "caught" if item.is_caught else "NOT caught"
    return f"{item.name:24} int8 {item.plain_drop:+.4f} (limit {item.max_drop:g}), {caught}; {verdict}, {recovered}"


if __name__ == "__main__":
    main()
