"""What does a shadow cost live requests, and does it tell the truth about agreement?

    python -m benchmarks.shadow [--blocks 7] [--seconds 4] [--share 1000] [--permille 20] [--rate 0] [--json FILE]

Live requests to the tiny model of `benchmarks.serving`, in this process; slices with and without a shadow take turns,
and a ratio is that of ten slices to the ten between them. The shadow is the same network with some noise on its last
weights; the truth is what both say of every input that was asked. With --rate 0 a request follows the other at once, the
hardest on the shadow's budget; else so many come each second.
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
from runtime.serving.repository import Repository
from runtime.serving.shadow import ShadowSettings

INPUTS = 4096
NOISE = 0.15
REQUESTS = 200_000
SLICES = 10
"""Of a block, in turns with and without: other work on the machine then falls on both sides."""


class Plan(NamedTuple):
    """As the options of the command say."""

    blocks: int = 7
    seconds: float = 4.0
    share: int = 1000
    permille: int = ShadowSettings().cpu_permille
    rate: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=7, help="with a shadow, each beside one without")
    parser.add_argument("--seconds", type=float, default=4.0, help="per block")
    parser.add_argument("--share", type=int, default=1000, help="of live requests, out of 10,000")
    parser.add_argument("--permille", type=int, default=ShadowSettings().cpu_permille, help="CPU budget of the shadow")
    parser.add_argument("--rate", type=float, default=0.0, help="live requests a second; 0 for one after the other")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    return show(run(Plan(options.blocks, options.seconds, options.share, options.permille, options.rate)), options.json)


def run(plan: Plan) -> list[Figure]:
    inputs = np.random.default_rng(3).random((INPUTS, 1, 1, 32, 32)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        plain, beside = write_tiny_artifact(Path(folder) / "tiny"), write_noisy(Path(folder) / "noisy")
        with serving(plain, plan.permille) as repository:
            figures = measure_cost(repository, beside, plan, inputs)
        with serving(plain, 1000) as repository:
            return figures + measure_agreement(repository, beside, plan, inputs)


@contextlib.contextmanager
def serving(artifact: Path, permille: int) -> Iterator[Repository]:
    repository = Repository(shadow=ShadowSettings(cpu_permille=permille))
    repository.switch(repository.open(artifact))
    yield repository
    repository.close()


def measure_cost(repository: Repository, beside: Path, plan: Plan, inputs: np.ndarray) -> list[Figure]:
    ratios: dict[int, list[float]] = {50: [], 99: []}
    sampled = compared = asked = 0
    _block(repository, inputs, plan.seconds / 4, plan.rate)
    for _ in range(plan.blocks):
        parts: dict[bool, list[np.ndarray]] = {False: [], True: []}
        for number in range(SLICES):
            for is_on in (False, True) if number % 2 else (True, False):  # neither is always first
                if is_on:
                    repository.switch(repository.open(beside, "shadow", plan.share))
                    time.sleep(0.05)  # its opening is not what is measured
                parts[is_on].append(_block(repository, inputs, plan.seconds / SLICES, plan.rate))
                if is_on:
                    (shadow,) = repository.shadows()
                    repository.retire("tiny", "shadow")
                    sampled += shadow.totals().sampled
                    compared += shadow.totals().compared
                    asked += len(parts[True][-1])
        taken = {is_on: np.concatenate(slices) for is_on, slices in parts.items()}
        for percent, values in ratios.items():
            values.append(float(np.percentile(taken[True], percent) / np.percentile(taken[False], percent)))
    spread = ", ".join(f"{ratio:.2f}" for ratio in ratios[99])
    return [
        Figure(name="live p50 with shadow / without, median", value=_median(ratios[50]), unit="x"),
        Figure(name="live p99 with shadow / without, median", value=_median(ratios[99]), unit="x", limit=1.10, how=spread),
        Figure(name="share sampled", value=round(sampled / asked * 100, 3), unit="%", how=f"of {asked} live requests"),
        Figure(name="of those compared within the budget", value=round(compared / sampled * 100, 1), unit="%"),
    ]


def measure_agreement(repository: Repository, beside: Path, plan: Plan, inputs: np.ndarray) -> list[Figure]:
    """Without a budget, and with a pause when the queue fills: what is dropped widens an interval, which is not the question."""
    truth = float(agree(repository, beside, inputs).mean())
    repository.switch(repository.open(beside, "shadow", plan.share))
    (shadow,) = repository.shadows()
    for number in range(REQUESTS):
        repository.infer("tiny", {"input": inputs[number % INPUTS]})
        while shadow.queued > ShadowSettings().waiting_rows // 2:
            time.sleep(0.001)
    while shadow.queued:
        time.sleep(0.01)
    totals = shadow.totals()
    told = totals.agreed / totals.compared
    return [
        Figure(name="agreement told", value=round(told, 4), unit="", how=f"{totals.compared} of {REQUESTS} requests compared"),
        Figure(name="agreement, truth", value=round(truth, 4), unit="", how=f"all {INPUTS} inputs, each asked of both"),
        Figure(name="agreement, told - truth", value=round(abs(told - truth) * 100, 3), unit="%", limit=1.0),
    ]


def agree(repository: Repository, beside: Path, inputs: np.ndarray) -> np.ndarray:
    """Whether both versions see the same class, input by input, each asked alone as live requests are."""
    active, other = repository.get("tiny"), repository.open(beside, "shadow")
    same = [active.infer({"input": one})["scores"].argmax() == other.infer({"input": one})["scores"].argmax() for one in inputs]
    other.retire()
    active.monitor.take()
    return np.array(same)


def _block(repository: Repository, inputs: np.ndarray, seconds: float, rate: float) -> np.ndarray:
    """Nanoseconds of each live request."""
    taken = []
    clock = time.perf_counter_ns
    stop, due, step = clock() + int(seconds * 1e9), clock(), int(1e9 / rate) if rate else 0
    index = 0
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
