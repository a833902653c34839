"""How does a model do under the four loads of MLPerf Inference? Needs NumPy only, so that a device can run it.

single   one example at a time, the next when the last is done; judged by the 90th percentile of latency
multi    eight examples at a time, the next when the last are done; by the 99th percentile of a query's latency
server   examples arrive at random (Poisson); by the highest rate at which the 99th percentile keeps a latency bound
offline  all examples at once; by examples per second

Source: MLPerf Inference rules, section "Scenarios". The rules want 600 s a run and more queries than some seconds give, so a figure of
a short run is no MLPerf result; `--loadgen` runs MLPerf's own generator.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

SCENARIOS = ("single", "multi", "server", "offline")
STREAMS = 8
SINGLE_PERCENTILE, MULTI_PERCENTILE, SERVER_PERCENTILE = 90, 99, 99
OFFLINE_BATCH = 32
_BOUND_FACTOR = 10
_PROBES = 7
_FEWEST = 20
_SPIN_NS = 300_000
_SEED = 0

Infer = Callable[[int], Any]
"""Runs so many examples, as one batch where the model allows it."""
Clock = Callable[[], int]


def run(scenario: str, infer: Infer, duration_s: float, bound_ns: int | None = None) -> dict[str, Any]:
    """The scenario's figures after about duration_s: ns, examples per second, counts."""
    for _ in range(_FEWEST):
        infer(1)
    if scenario == "single":
        return single_stream(infer, duration_s)
    if scenario == "multi":
        return multi_stream(infer, duration_s)
    if scenario == "server":
        return server(infer, duration_s, bound_ns)
    return offline(infer, duration_s)


def single_stream(infer: Infer, duration_s: float) -> dict[str, Any]:
    times = _closed_loop(lambda: infer(1), duration_s)
    return {"metric": "p90_ns", "p90_ns": _percentile(times, SINGLE_PERCENTILE), "queries": len(times)}


def multi_stream(infer: Infer, duration_s: float) -> dict[str, Any]:
    times = _closed_loop(lambda: infer(STREAMS), duration_s)
    return {
        "metric": "p99_ns",
        "p99_ns": _percentile(times, MULTI_PERCENTILE),
        "queries": len(times),
        "samples_per_query": STREAMS,
    }


def offline(infer: Infer, duration_s: float) -> dict[str, Any]:
    """In batches of OFFLINE_BATCH, as a system under test may cut one large query."""
    start = time.perf_counter_ns()
    times = _closed_loop(lambda: infer(OFFLINE_BATCH), duration_s)
    seconds = (time.perf_counter_ns() - start) / 1e9
    samples = len(times) * OFFLINE_BATCH
    return {"metric": "samples_per_s", "samples_per_s": samples / seconds, "samples": samples, "batch": OFFLINE_BATCH}


def server(infer: Infer, duration_s: float, bound_ns: int | None) -> dict[str, Any]:
    """The highest rate found by bisection between nothing and what the model does without a pause; the last probe that kept the bound."""
    span = duration_s / (_PROBES + 1)
    service = float(np.median(_closed_loop(lambda: infer(1), span)))
    bound = bound_ns or default_bound(service)
    low, high = 0.0, 1e9 / service
    best: dict[str, Any] = {"qps": 0.0, "p99_ns": 0, "queries": 0}
    for _ in range(_PROBES):
        rate = (low + high) / 2
        latencies = poisson(lambda: infer(1), rate, span)
        p99 = _percentile(latencies, SERVER_PERCENTILE)
        if p99 <= bound:
            low, best = rate, {"qps": rate, "p99_ns": p99, "queries": len(latencies)}
        else:
            high = rate
    return {"metric": "qps", **best, "bound_ns": bound}


def default_bound(service_ns: float) -> int:
    """Where nobody gives a bound. MLPerf fixes one per benchmark; a model of one's own has none."""
    return round(_BOUND_FACTOR * service_ns)


def poisson(call: Callable[[], Any], rate: float, duration_s: float) -> np.ndarray:
    """Latencies in ns, from arrival to answer, of queries that arrive at random and wait in one line: int64[queries]."""
    count = max(_FEWEST, int(rate * duration_s))
    arrivals = np.cumsum(np.random.default_rng(_SEED).exponential(1e9 / rate, count)).astype(np.int64)
    latencies = np.empty(count, dtype=np.int64)
    start = time.perf_counter_ns()
    for index, arrival in enumerate((arrivals + start).tolist()):
        _wait_until(arrival)
        call()
        latencies[index] = time.perf_counter_ns() - arrival
    return latencies


def _closed_loop(call: Callable[[], Any], duration_s: float) -> np.ndarray:
    clock = time.perf_counter_ns
    times: list[int] = []
    end = clock() + round(duration_s * 1e9)
    while (start := clock()) < end or len(times) < _FEWEST:
        call()
        times.append(clock() - start)
    return np.array(times, dtype=np.int64)


def _wait_until(moment_ns: int) -> None:
    """Sleep, then spin: a sleep alone comes back up to 0.1 ms late, which would count as latency."""
    left = moment_ns - time.perf_counter_ns()
    if left > _SPIN_NS:
        time.sleep((left - _SPIN_NS) / 1e9)
    while time.perf_counter_ns() < moment_ns:
        pass


def _percentile(times: np.ndarray, percent: int) -> int:
    return int(np.percentile(times, percent))
