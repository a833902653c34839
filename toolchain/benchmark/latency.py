"""How fast is each variant of a build beside the float baseline, and how sure is that?"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import msgspec
import numpy as np

from runtime.backends.base import LoadedModel
from toolchain.benchmark.machine import Watch
from toolchain.benchmark.run import load
from toolchain.benchmark.timing import ESTIMATOR, ROUNDS, Call, Opener, Times, figures, run_rounds
from toolchain.pipeline.products import MeasuredModels, Variant
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.record import LatencyResult
from toolchain.pipeline.stage import Stored


def measure(
    variants: Sequence[Stored[Variant]], baseline: str, rows: list[np.ndarray], threads: int, progress: Progress
) -> MeasuredModels:
    """Latency of single inferences with `threads` threads. rows: the inputs, of which one example is fed at a time."""
    openers = {variant.value.name: _opener(variant, rows, threads) for variant in variants}
    with Watch() as watch:
        times = run_rounds(openers, progress.tick, threads=threads)
    batch = max(1, variants[0].value.inputs[0].shape[0])
    latencies = {name: summarize(figures(found, times[baseline]), threads, batch) for name, found in times.items()}
    return MeasuredModels(latencies=latencies, conditions={"baseline": baseline, **_conditions(times, threads), **watch.seen})


def _conditions(times: Mapping[str, Times], threads: int) -> dict[str, str]:
    """How it was measured, for whoever wants to do it again."""
    return {
        "blocks": str(min(len(found.blocks) for found in times.values())),
        "rounds": f"{ROUNDS}, the models opened anew for each",
        "threads": str(threads),
        "precision": "pinned by each variant's engine options",
        "order": "rotating, block by block",
        "clock": "monotonic, one call at a time, garbage collection off",
        "ratio": ESTIMATOR,
    }


def summarize(found: Mapping[str, Any], threads: int, batch: int) -> LatencyResult:
    """`timing.figures`, from this process or another machine's, as a result."""
    return msgspec.convert({**found, "threads": threads, "batch": batch}, LatencyResult)


def _opener(variant: Stored[Variant], rows: list[np.ndarray], threads: int) -> Opener:
    return lambda stack: _caller(stack.enter_context(closing(load(variant, {"threads": threads}))), variant.value, rows)


def _caller(model: LoadedModel, variant: Variant, rows: list[np.ndarray]) -> Call:
    size = max(1, variant.inputs[0].shape[0])
    feed = {spec.name: np.ascontiguousarray(array[:size]) for spec, array in zip(variant.inputs, rows, strict=True)}
    return lambda: model.infer(feed)
