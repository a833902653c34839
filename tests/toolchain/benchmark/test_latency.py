"""Does the interleaved measurement order and weigh what it measured rightly?"""

from contextlib import ExitStack

import numpy as np
import pytest

from tests.toolchain.benchmark.conftest import Variants
from toolchain.benchmark import timing
from toolchain.benchmark.latency import measure, summarize
from toolchain.benchmark.timing import Block, Call, Times, figures, run_blocks, run_rounds, warm_up
from toolchain.pipeline.progress import Silent


def times(microseconds: float, count: int = 40, noise: float = 0.0, seed: int = 0) -> Times:
    generator = np.random.default_rng(seed)
    scales = np.exp(generator.normal(0, noise, count))
    return Times([block(np.full(50, microseconds * 1000 * scale)) for scale in scales], 15)


def block(wall: np.ndarray, own: np.ndarray | None = None) -> Block:
    return Block(wall.astype(np.int64), (wall if own is None else own).astype(np.int64))


def test_ratio_is_baseline_over_variant() -> None:
    result = summarize(figures(times(50), times(100)), 1, 1)
    assert (result.ratio, result.ratio_low, result.ratio_high) == (2.0, 2.0, 2.0)
    assert (result.p50_ns, result.mean_ns, result.samples, result.warm_up) == (50_000, 50_000, 2000, 15)


def test_a_disturbance_that_hits_most_blocks_of_one_leaves_the_ratio() -> None:
    """Two of three blocks of the variant run while the machine is three times slower; the baseline is spared."""
    blocks = [block(each.wall * (1 if index % 3 == 0 else 3)) for index, each in enumerate(times(50).blocks)]
    result = summarize(figures(Times(blocks, 0), times(100)), 1, 1)
    assert result.ratio == 2.0
    assert result.p50_ns == 150_000  # the percentiles hide nothing


def test_calls_interrupted_every_time_still_count_by_their_own_cpu_time() -> None:
    """A long call never gets through in one piece on a full machine; a short one does."""
    cut = Times([block(np.full(5, 26_000_000), np.full(5, 18_000_000)) for _ in range(12)], 0)
    whole = Times([block(np.full(5, 6_000_000)) for _ in range(12)], 0)
    assert summarize(figures(whole, cut), 1, 1).ratio == 3.0


def test_equal_variants_cannot_be_told_apart_and_different_ones_can() -> None:
    same = summarize(figures(times(100, noise=0.1, seed=1), times(100, noise=0.1, seed=2)), 1, 1)
    assert same.ratio_low < 1 < same.ratio_high
    faster = summarize(figures(times(70, noise=0.1, seed=1), times(100, noise=0.1, seed=2)), 1, 1)
    assert faster.ratio_low > 1


def test_percentiles_are_ordered_and_single_calls_are_kept() -> None:
    spiky = Times([block(np.array([10, 10, 10, 10, 10, 10, 10, 10, 10, 1000])) for _ in range(10)], 0)
    result = summarize(figures(spiky, spiky), 1, 1)
    assert result.p50_ns <= result.p90_ns <= result.p99_ns
    assert result.mean_ns > result.p50_ns
    assert len(result.quantiles) == 21
    assert (result.quantiles[0], result.quantiles[10], result.quantiles[20]) == (10, result.p50_ns, 1000)


def test_blocks_alternate_and_rotate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MAX_CALLS", timing.MIN_CALLS)
    calls: list[str] = []
    found = run_blocks({name: lambda name=name: calls.append(name) for name in "abc"}, 4, 10**10, own_time=True)
    runs = [calls[index] for index in range(len(calls)) if index == 0 or calls[index] != calls[index - 1]]
    assert "".join(runs) == "abcabcbcacababc"
    assert {name: len(blocks) for name, blocks in found.items()} == {"a": 4, "b": 4, "c": 4}


def test_a_slow_model_gets_fewer_blocks_and_no_more_time() -> None:
    assert {len(blocks) for blocks in run_blocks({"a": lambda: None}, 50, 0, own_time=True).values()} == {2}


def test_warm_up_goes_on_until_the_calls_get_no_faster(clock: list[int]) -> None:
    pace = iter([900, 700, 500, 300, *[100] * 400])
    assert warm_up(lambda: clock.append(next(pace))) == 5 + 3 * timing.WARM_UP_WINDOW
    pace = iter([*np.geomspace(10_000, 100, 30).astype(int), *[100] * 400])
    assert warm_up(lambda: clock.append(next(pace))) == 30 + 3 * timing.WARM_UP_WINDOW


def test_warm_up_ends_even_where_the_times_never_settle(clock: list[int]) -> None:
    pace = iter(np.geomspace(1_000_000, 1, 1000).astype(int))
    assert warm_up(lambda: clock.append(next(pace))) == timing.WARM_UP_LIMIT


def test_models_are_opened_anew_for_every_round_before_the_last_ones_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ROUNDS", 3)
    events: list[str] = []

    def opener(stack: ExitStack) -> Call:
        events.append("open")
        stack.callback(events.append, "close")
        return lambda: None

    found = run_rounds({"a": opener}, Silent().tick, threads=1, blocks=7)
    assert events == ["open", "open", "close", "open", "close", "close"]
    assert len(found["a"].blocks) == 7


def test_conditions_say_what_the_machine_did(variants: Variants, rows: list[np.ndarray]) -> None:
    measured = measure(list(variants.values()), "onnxruntime-float32", rows, 1, Silent())
    assert measured.latencies["onnxruntime-float32"].ratio == 1.0
    assert measured.latencies["onnxruntime-int8"].warm_up > 0
    seen = measured.conditions
    assert seen["threads"] == "1"
    assert float(seen["load before"]) >= 0
    assert 0 < float(seen["own CPU share"]) <= 1.1
    assert int(seen["interruptions"]) >= 0
    assert {"governor", "priority", "precision", "load after"} <= seen.keys()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Time passes only by what calls append here, in ns."""
    passed: list[int] = []
    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: sum(passed))
    return passed
