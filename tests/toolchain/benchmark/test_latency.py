"""Does the interleaved measurement order and weigh what it measured rightly?"""

import numpy as np
import pytest

from toolchain.benchmark import latency
from toolchain.benchmark.latency import run_blocks, summarize
from toolchain.pipeline.progress import Silent


def blocks(microseconds: float, count: int = 40, noise: float = 0.0, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    scales = np.exp(generator.normal(0, noise, count))
    return [np.full(50, microseconds * 1000 * scale).astype(np.int64) for scale in scales]


def test_ratio_is_baseline_over_variant() -> None:
    result = summarize(blocks(50), blocks(100), threads=1, batch=1)
    assert (result.ratio, result.ratio_low, result.ratio_high) == (2.0, 2.0, 2.0)
    assert (result.p50_ns, result.mean_ns, result.samples) == (50_000, 50_000, 2000)


def test_a_disturbance_that_hits_both_leaves_the_ratio() -> None:
    """Every fourth block runs while the machine is three times slower."""
    load = [3 if block % 4 == 0 else 1 for block in range(40)]
    own = [block * factor for block, factor in zip(blocks(50), load, strict=True)]
    base = [block * factor for block, factor in zip(blocks(100), load, strict=True)]
    result = summarize(own, base, threads=1, batch=1)
    assert result.ratio == 2.0
    assert result.p99_ns > 2 * result.p50_ns


def test_equal_variants_cannot_be_told_apart_and_different_ones_can() -> None:
    same = summarize(blocks(100, noise=0.1, seed=1), blocks(100, noise=0.1, seed=2), threads=1, batch=1)
    assert same.ratio_low < 1 < same.ratio_high
    faster = summarize(blocks(70, noise=0.1, seed=1), blocks(100, noise=0.1, seed=2), threads=1, batch=1)
    assert faster.ratio_low > 1


def test_percentiles_are_ordered_and_single_calls_are_kept() -> None:
    spiky = [np.array([10, 10, 10, 10, 10, 10, 10, 10, 10, 1000]) for _ in range(10)]
    result = summarize(spiky, spiky, threads=1, batch=1)
    assert result.p50_ns <= result.p90_ns <= result.p99_ns
    assert result.mean_ns > result.p50_ns


def test_blocks_alternate_and_rotate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MAX_CALLS", latency.MIN_CALLS)
    monkeypatch.setattr(latency, "WARM_UP_CALLS", 1)
    calls: list[str] = []
    times = run_blocks({name: lambda name=name: calls.append(name) for name in "abc"}, Silent(), blocks=4)
    runs = [calls[index] for index in range(len(calls)) if index == 0 or calls[index] != calls[index - 1]]
    assert "".join(runs) == "abcabcabcbcacababc"
    assert {name: len(found) for name, found in times.items()} == {"a": 4, "b": 4, "c": 4}
