"""How fast is each variant beside the float baseline, and how sure is that?

All variants are measured in one run, in turns: block after block, in an order that rotates, so that whatever else the machine
does hits them alike. The ratio is the median over blocks of baseline time / variant time; its interval is a bootstrap over
blocks, because what disturbs one call disturbs its neighbours too.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import LoadedModel
from toolchain.benchmark.run import load
from toolchain.pipeline.products import MeasuredModels, Variant
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.record import LatencyResult
from toolchain.pipeline.stage import Stored

BLOCKS = 40
BLOCK_NS = 10_000_000
"""A block of one variant lasts this long: long enough to average single hiccups, short enough that 40 rounds take seconds."""
MIN_CALLS, MAX_CALLS = 5, 400
WARM_UP_CALLS = 20
_RESAMPLES = 2000
_SEED = 0

Call = Callable[[], Any]
Nanoseconds = NDArray[np.int64]


def measure(
    variants: Sequence[Stored[Variant]], baseline: str, rows: list[np.ndarray], threads: int, progress: Progress
) -> MeasuredModels:
    """Latency of single inferences with `threads` threads. rows: the inputs, of which one example is fed at a time."""
    with ExitStack() as stack:
        calls = {}
        for variant in variants:
            model = stack.enter_context(closing(load(variant, {"threads": threads})))
            calls[variant.value.name] = _caller(model, variant.value, rows)
        times = run_blocks(calls, progress, BLOCKS)
    batch = max(1, variants[0].value.inputs[0].shape[0])
    latencies = {name: summarize(blocks, times[baseline], threads, batch) for name, blocks in times.items()}
    conditions = {
        "blocks": str(BLOCKS),
        "baseline": baseline,
        "threads": str(threads),
        "order": "rotating, block by block",
        "clock": "monotonic, one call at a time, garbage collection off",
    }
    return MeasuredModels(latencies=latencies, conditions=conditions)


def run_blocks(calls: Mapping[str, Call], progress: Progress, blocks: int) -> dict[str, list[Nanoseconds]]:
    """Times of every call, per name and block. Each name gets as many calls a block as fit into BLOCK_NS."""
    for call in calls.values():
        for _ in range(WARM_UP_CALLS):
            call()
    counts = {name: _calls_per_block(call) for name, call in calls.items()}
    names = list(calls)
    times: dict[str, list[Nanoseconds]] = {name: [] for name in names}
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for block in range(blocks):
            turn = block % len(names)
            for name in names[turn:] + names[:turn]:
                times[name].append(_time(calls[name], counts[name]))
            progress.tick(block + 1, blocks, "")
    finally:
        if was_enabled:
            gc.enable()
    return times


def summarize(blocks: Sequence[Nanoseconds], baseline: Sequence[Nanoseconds], threads: int, batch: int) -> LatencyResult:
    """The figures of one variant; both arguments block by block from the same run."""
    ratios = np.array([np.median(base) / np.median(own) for base, own in zip(baseline, blocks, strict=True)])
    draws = np.random.default_rng(_SEED).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
    every = np.concatenate(blocks)
    p50, p90, p99 = (int(value) for value in np.quantile(every, [0.5, 0.9, 0.99]))
    return LatencyResult(
        p50_ns=p50, p90_ns=p90, p99_ns=p99, mean_ns=int(every.mean()), samples=len(every), threads=threads, batch=batch,
        ratio=float(np.median(ratios)), ratio_low=float(low), ratio_high=float(high),
    )  # fmt: skip


def _caller(model: LoadedModel, variant: Variant, rows: list[np.ndarray]) -> Call:
    size = max(1, variant.inputs[0].shape[0])
    feed = {spec.name: np.ascontiguousarray(array[:size]) for spec, array in zip(variant.inputs, rows, strict=True)}
    return lambda: model.infer(feed)


def _calls_per_block(call: Call) -> int:
    typical = float(np.median(_time(call, MIN_CALLS)))
    return int(np.clip(BLOCK_NS / max(typical, 1.0), MIN_CALLS, MAX_CALLS))


def _time(call: Call, count: int) -> Nanoseconds:
    clock = time.perf_counter_ns
    marks = np.empty(count + 1, dtype=np.int64)
    marks[0] = clock()
    for index in range(1, count + 1):
        call()
        marks[index] = clock()
    return np.diff(marks)
