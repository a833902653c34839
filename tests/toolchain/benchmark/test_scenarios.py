"""Do the four loads of MLPerf ask what the rules say, and judge by the right figure? Time here passes only in calls and sleeps."""

from collections.abc import Callable

import numpy as np
import pytest

from toolchain.benchmark import scenarios

MS = 1_000_000


class Clock:
    """Nanoseconds that pass when somebody sleeps, infers or looks at the clock."""

    def __init__(self) -> None:
        self.now = 0

    def perf_counter_ns(self) -> int:
        self.now += 5_000
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)

    def taking(self, ns: int) -> Callable[[int], None]:
        return lambda count: self.sleep(count * ns / 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(scenarios, "time", clock)
    return clock


def test_single_stream_is_the_90th_percentile_of_one_at_a_time(clock: Clock) -> None:
    pace = iter([*[MS] * 20, *[*[MS] * 8, 3 * MS, 9 * MS] * 10_000])  # warm-up first; then one in ten is slower than 3 ms
    found = scenarios.run("single", lambda count: clock.sleep(count * next(pace) / 1e9), 2.0)
    assert found["p90_ns"] == pytest.approx(3 * MS, rel=0.25)
    assert found["queries"] == pytest.approx(2000 / 2, rel=0.01)  # 20 ms for ten


def test_multi_stream_asks_for_eight_at_a_time(clock: Clock) -> None:
    asked: list[int] = []
    found = scenarios.run("multi", lambda count: (asked.append(count), clock.sleep(count * MS / 1e9)), 1.0)
    assert set(asked[20:]) == {8}
    assert found["p99_ns"] == pytest.approx(8 * MS, rel=0.01)


def test_offline_counts_examples_in_large_batches(clock: Clock) -> None:
    found = scenarios.run("offline", clock.taking(MS), 2.0)
    assert found["samples_per_s"] == pytest.approx(1000, rel=0.02)
    assert found["samples"] % found["batch"] == 0


def test_arrivals_are_poisson_at_the_rate(clock: Clock) -> None:
    starts: list[int] = []
    latencies = scenarios.poisson(lambda: starts.append(clock.now), rate=200, duration_s=10)
    gaps = np.diff(starts) / 1e9
    assert len(latencies) == 2000
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.06)
    assert gaps.std() == pytest.approx(1 / 200, rel=0.1)  # of an exponential distribution the spread is the mean


def test_waiting_in_line_counts_as_latency(clock: Clock) -> None:
    """M/D/1 at 80 % load: the mean wait is 0.8 / (2 x 0.2) = 2 service times. Source: Pollaczek-Khinchine."""
    latencies = scenarios.poisson(lambda: clock.sleep(MS / 1e9), rate=800, duration_s=30)
    assert latencies.mean() == pytest.approx(3 * MS, rel=0.1)


def test_server_finds_the_rate_that_keeps_the_bound(clock: Clock) -> None:
    """M/D/1 with service 1 ms: at a load of 0.6 the 99th percentile is some 5 ms, at 0.9 some 20 ms."""
    found = scenarios.run("server", clock.taking(MS), 80.0, bound_ns=6 * MS)
    assert 500 < found["qps"] < 750
    assert found["p99_ns"] <= found["bound_ns"] == 6 * MS


def test_server_that_can_never_keep_the_bound_says_none(clock: Clock) -> None:
    assert scenarios.run("server", clock.taking(MS), 10.0, bound_ns=MS // 2)["qps"] == 0


def test_server_without_a_bound_takes_ten_times_the_median(clock: Clock) -> None:
    assert scenarios.run("server", clock.taking(MS), 10.0)["bound_ns"] == pytest.approx(10 * MS, rel=0.01)
