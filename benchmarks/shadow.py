"""What does a shadow cost live requests, and does it tell the truth about agreement?

    python -m benchmarks.shadow [--blocks 7] [--rounds 5] [--seconds 0.5] [--share 1000] [--permille N] [--rate 0]
        [--compared 5000] [--json FILE]

Live requests to the tiny model of `benchmarks.serving`, in this process. Slices without a shadow, without one again, and
with one take turns; what the second without differs from the first is what the machine alone makes of a p99, and a figure
of the shadow's is worth no more than that. The shadow is the same network with some noise on its last weights; the truth is
what both say of every input that was asked. With --rate 0 a request follows the other at once, the hardest on the shadow's
budget; else so many come each second.
"""

import argparse
import contextlib
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.figures import Figure, show
from benchmarks.serving import write_tiny_artifact
from runtime.contract.artifact import read_manifest
from runtime.contract.canonical import write_json
from runtime.serving.models.repository import Repository
from runtime.serving.models.shadow import Shadow, ShadowSettings

INPUTS = 4096
NOISE = 0.15
ARMS = OFF, OFF_AGAIN, ON = "without", "without again", "with"
GIVE_UP_S = 120.0


class Plan(NamedTuple):
    """As the options of the command say."""

    blocks: int = 7
    rounds: int = 5
    seconds: float = 0.5
    share: int = 1000
    permille: int = ShadowSettings().cpu_permille
    rate: float = 0.0
    compared: int = 5000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=7, help="of which each gives one ratio")
    parser.add_argument("--rounds", type=int, default=5, help="of slices in a block")
    parser.add_argument("--seconds", type=float, default=0.5, help="per slice")
    parser.add_argument("--share", type=int, default=1000, help="of live requests, out of 10,000")
    parser.add_argument("--permille", type=int, default=ShadowSettings().cpu_permille, help="CPU budget of the shadow")
    parser.add_argument("--rate", type=float, default=0.0, help="live requests a second; 0 for one after the other")
    parser.add_argument("--compared", type=int, default=5000, help="samples to tell the agreement by; 0 to leave it out")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    plan = Plan(**{name: getattr(options, name) for name in Plan._fields})
    return show(run(plan), options.json)


def run(plan: Plan) -> list[Figure]:
    inputs = np.random.default_rng(3).random((INPUTS, 1, 1, 32, 32)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        plain, beside = write_tiny_artifact(Path(folder) / "tiny"), write_noisy(Path(folder) / "noisy")
        figures: list[Figure] = []
        with serving(plain, plan.permille) as repository:
            if plan.blocks:
                figures += measure_cost(repository, beside, plan, inputs)
            if plan.compared:
                figures += measure_agreement(repository, beside, plan, inputs)
        return figures


@contextlib.contextmanager
def serving(artifact: Path, permille: int) -> Iterator[Repository]:
    repository = Repository(shadow=ShadowSettings(cpu_permille=permille))
    repository.switch(repository.open(artifact))
    yield repository
    repository.close()


def measure_cost(repository: Repository, beside: Path, plan: Plan, inputs: np.ndarray) -> list[Figure]:
    """Of each block the median of its rounds' ratios of one slice to the one beside it: a machine changes its pace in seconds.

    The shadow stays open and is looked away from in slices without it, so that nothing but its work differs.
    """
    active = repository.get("tiny")
    repository.switch(repository.open(beside, "shadow", plan.share))
    (shadow,) = repository.shadows()
    offer = active.mirror
    asked = 0
    ratios: dict[tuple[str, int], list[float]] = {(arm, percent): [] for arm in (OFF_AGAIN, ON) for percent in (50, 99)}
    alone: list[tuple[float, float]] = []
    for block in range(-1, plan.blocks):  # the first warms up
        near: dict[tuple[str, int], list[float]] = {key: [] for key in ratios}
        for number in range(plan.rounds):
            arms = ARMS[number % 3 :] + ARMS[: number % 3]  # each is first in its turn
            found: dict[tuple[str, int], float] = {}
            for arm in reversed(arms) if block % 2 else arms:
                active.mirror = offer if arm == ON else None
                taken = _block(repository, inputs, plan.seconds, plan.rate)
                active.mirror = None
                found |= {(arm, percent): float(np.percentile(taken, percent)) for percent in (50, 99)}
                if arm == ON:
                    asked += len(taken)
                    _drain(shadow)
            alone.append((found[OFF, 50], found[OFF, 99]))
            for arm, percent in ratios:
                near[arm, percent].append(found[arm, percent] / found[OFF, percent])
        if block >= 0:
            for key, values in near.items():
                ratios[key].append(float(np.median(values)))
    totals = shadow.totals()
    repository.retire("tiny", "shadow")
    figures = [
        Figure(name=f"live {name} without a shadow", value=round(float(value) / 1000, 1), unit="us")
        for name, value in zip(("p50", "p99"), np.median(alone, axis=0), strict=True)
    ]
    for (arm, percent), values in ratios.items():
        spread = ", ".join(f"{value:.2f}" for value in values)
        limit = 1.10 if (arm, percent) == (ON, 99) else None
        figures.append(Figure(name=f"live p{percent}, {arm} / without", value=_median(values), unit="x", limit=limit, how=spread))
    settled = totals.compared + totals.failed
    figures += [
        Figure(name="share sampled", value=round(totals.sampled / asked * 100, 3), unit="%", how=f"of {asked} requests"),
        Figure(name="compared, of those sampled", value=round(settled / totals.sampled * 100, 1), unit="%", how=f"{settled}"),
    ]
    return figures


def measure_agreement(repository: Repository, beside: Path, plan: Plan, inputs: np.ndarray) -> list[Figure]:
    """Within the budget, while requests follow each other at once: most samples are dropped, which must not bend the figure."""
    truth = float(agree(repository, beside, inputs).mean())
    repository.switch(repository.open(beside, "shadow", plan.share))
    (shadow,) = repository.shadows()
    started = time.monotonic()
    asked = 0
    while shadow.totals().compared < plan.compared and time.monotonic() - started < GIVE_UP_S:
        asked += len(_block(repository, inputs, 0.5, plan.rate, first=asked))
    seconds, totals = time.monotonic() - started, shadow.totals()
    repository.retire("tiny", "shadow")
    told = totals.agreed / totals.compared
    error = (truth * (1 - truth) / totals.compared) ** 0.5
    how = f"{totals.compared} compared of {totals.sampled} sampled of {asked} in {seconds:.0f} s"
    return [
        Figure(name="agreement told", value=round(told, 4), unit="", how=how),
        Figure(name="agreement, truth", value=round(truth, 4), unit="", how=f"all {INPUTS} inputs, each asked of both"),
        Figure(name="standard error of so many", value=round(error * 100, 3), unit="%"),
        Figure(name="agreement, told - truth", value=round(abs(told - truth) * 100, 3), unit="%", limit=1.0),
    ]


def _drain(shadow: Shadow) -> None:
    """Wait until it has nothing left to do: a slice without it is to be one."""
    until = time.monotonic() + GIVE_UP_S
    while shadow.queued and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.02)  # what was taken last still runs


def agree(repository: Repository, beside: Path, inputs: np.ndarray) -> np.ndarray:
    """Whether both versions see the same class, input by input, each asked alone as live requests are."""
    active, other = repository.get("tiny"), repository.open(beside, "shadow")
    same = [active.infer({"input": one})["scores"].argmax() == other.infer({"input": one})["scores"].argmax() for one in inputs]
    other.retire()
    active.monitor.take()
    return np.array(same)


def _block(repository: Repository, inputs: np.ndarray, seconds: float, rate: float, first: int = 0) -> np.ndarray:
    """Nanoseconds of each live request."""
    taken = []
    clock = time.perf_counter_ns
    stop, due, step = clock() + int(seconds * 1e9), clock(), int(1e9 / rate) if rate else 0
    index = first
    while (started := clock()) < stop:
        repository.infer("tiny", {"input": inputs[index % INPUTS]})
        taken.append(clock() - started)
        index += 1
        if step:
            due += step
            time.sleep(max(0.0, (due - clock()) / 1e9))
    return np.array(taken)


def _median(values: list[float]) -> float:
    return round(float(np.median(values)), 3)


def write_noisy(directory: Path) -> Path:
    """The tiny artifact as version 2.0.0, with noise on the weights of its last layer."""
    import onnx
    from onnx import numpy_helper

    write_tiny_artifact(directory)
    model = onnx.load(directory / "model.onnx")
    weight = next(one for one in model.graph.initializer if one.name == "wd")
    values = numpy_helper.to_array(weight)
    noise = NOISE * np.random.default_rng(4).normal(size=values.shape)
    weight.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), "wd"))
    onnx.save(model, directory / "model.onnx")
    raw = (directory / "model.onnx").read_bytes()
    document = json.loads((directory / "manifest.json").read_bytes())
    document["version"] = "2.0.0"
    entry = next(one for one in document["files"] if one["name"] == "model.onnx")
    entry |= {"sha256": hashlib.sha256(raw).hexdigest(), "size_bytes": len(raw)}
    (directory / "manifest.json").write_bytes(write_json(read_manifest(json.dumps(document).encode()).value))
    return directory


if __name__ == "__main__":
    sys.exit(main())
