"""How long do calls take beside one another, and how do they compare when nothing disturbs them?

Needs NumPy only, so that a device can run it. All callables are measured in one run, in turns: block after block, in an order that
rotates, so that what disturbs the machine hits them alike. The ratio compares how fast they run when nothing does: whatever else
happens can only add time, so the fastest calls of the quietest blocks tell it (Chen and Revels 2016, "Robust benchmarking in noisy
environments"). The percentiles are of all calls by the wall clock, disturbed or not. docs/measuring.md has the figures this rests on.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCKS = 90
ROUNDS = 6
"""The models are opened anew this often: where their memory lies can change a time by 10 % and stays for as long as they are open."""
BLOCK_NS = 10_000_000
"""A block of one variant lasts this long: the first calls refill the caches the others emptied, and some must follow them."""
BUDGET_NS = 1_500_000_000
"""No variant takes longer than this in all, so a loaded machine or a slow model gets fewer blocks and a wider interval."""
MIN_CALLS, MAX_CALLS = 5, 400
LONG_NS = 200_000
"""From here on a call's own CPU time is read too. Below it, the reading would cost more than it tells, and few are interrupted."""
WARM_UP_WINDOW, WARM_UP_LIMIT, WARM_UP_NS = 5, 200, 300_000_000
_STALE_WINDOWS = 3
_FASTEST_CALLS, _QUIETEST_BLOCKS = 0.05, 0.1
_RESAMPLES = 2000
_SEED = 0
_QUANTILES = np.linspace(0, 1, 21)

Call = Callable[[], Any]
Opener = Callable[[ExitStack], Call]
Nanoseconds = NDArray[np.int64]


class Block(NamedTuple):
    """Calls of one variant in a row. wall: ns by the clock; own: ns undisturbed, which leaves out what an interruption took."""

    wall: Nanoseconds
    own: Nanoseconds


class Times(NamedTuple):
    """All calls of one variant. warm_up: those made before its times settled, which are in no block."""

    blocks: list[Block]
    warm_up: int


ESTIMATOR = "fastest 5 % of calls in the quietest tenth of blocks; interval by bootstrap over blocks"


def run_rounds(
    openers: Mapping[str, Opener], tick: Callable[[int, int, str], None], *, threads: int, blocks: int | None = None
) -> dict[str, Times]:
    """Open, warm up and time every variant, ROUNDS times over. blocks: of each variant in all, BLOCKS when None."""
    wanted = max(ROUNDS, BLOCKS if blocks is None else blocks)
    share = BUDGET_NS * len(openers) // ROUNDS
    times = {name: Times([], 0) for name in openers}
    with ExitStack() as last:
        for index in range(ROUNDS):
            with ExitStack() as stack:
                calls = {name: opener(stack) for name, opener in openers.items()}
                last.close()  # only now, or the new models would lie where the old ones lay
                last.enter_context(stack.pop_all())
            for name, call in calls.items():
                times[name] = Times(times[name].blocks, times[name].warm_up + warm_up(call))
            goal = wanted * (index + 1) // ROUNDS - wanted * index // ROUNDS
            found = run_blocks(calls, goal, share, own_time=threads == 1)
            for name, some in found.items():
                times[name].blocks.extend(some)
            tick(index + 1, ROUNDS, "")
    return times


def run_blocks(calls: Mapping[str, Call], blocks: int, budget_ns: int, *, own_time: bool) -> dict[str, list[Block]]:
    """Up to `blocks` blocks of every call in turns, two at least. Each gets as many calls a block as fit into BLOCK_NS."""
    counts = {name: _calls_per_block(call) for name, call in calls.items()}
    names = list(calls)
    found: dict[str, list[Block]] = {name: [] for name in names}
    was_enabled = gc.isenabled()
    gc.disable()
    start = time.perf_counter_ns()
    try:
        for block in range(blocks):
            if block >= 2 and time.perf_counter_ns() - start > budget_ns:
                break
            turn = block % len(names)
            for name in names[turn:] + names[:turn]:
                count, typical = counts[name]
                timed = _time_own if own_time and typical >= LONG_NS else _time
                found[name].append(timed(calls[name], count))
    finally:
        if was_enabled:
            gc.enable()
    return found


def warm_up(call: Call) -> int:
    """Call until the times have settled. Returns how many calls that took.

    Settled: in _STALE_WINDOWS windows in a row of WARM_UP_WINDOW calls, none was 2 % faster than the fastest before it. Never more than
    WARM_UP_LIMIT calls or WARM_UP_NS.
    """
    best, stale, count = np.inf, 0, 0
    start = time.perf_counter_ns()
    while stale < _STALE_WINDOWS and count < WARM_UP_LIMIT and time.perf_counter_ns() - start < WARM_UP_NS:
        fastest = float(_time(call, WARM_UP_WINDOW).wall.min())
        count += WARM_UP_WINDOW
        stale = 0 if fastest < 0.98 * best else stale + 1
        best = min(best, fastest)
    return count


def figures(times: Times, baseline: Times) -> dict[str, Any]:
    """The fields of a LatencyResult that times decide; both arguments from the same run, block by block."""
    own, base = (_fastest(found.blocks) for found in (times, baseline))
    draws = np.random.default_rng(_SEED).integers(0, len(own), (_RESAMPLES, len(own)))
    ratios = _undisturbed(base[draws]) / _undisturbed(own[draws])
    low, high = np.quantile(ratios, [0.025, 0.975])
    every = np.concatenate([block.wall for block in times.blocks])
    p50, p90, p99 = (int(value) for value in np.quantile(every, [0.5, 0.9, 0.99]))
    return {
        "p50_ns": p50,
        "p90_ns": p90,
        "p99_ns": p99,
        "mean_ns": int(every.mean()),
        "samples": len(every),
        "ratio": float(_undisturbed(base) / _undisturbed(own)),
        "ratio_low": float(low),
        "ratio_high": float(high),
        "quantiles": [int(value) for value in np.quantile(every, _QUANTILES)],
        "warm_up": times.warm_up,
    }


def _fastest(blocks: Sequence[Block]) -> NDArray[np.float64]:
    """The mean of each block's fastest calls: float64[blocks]. A single fastest call of thousands would be a fluke of the clock."""
    return np.array([_lowest(block.own.astype(np.float64), _FASTEST_CALLS) for block in blocks])


def _undisturbed(fastest: NDArray[np.float64]) -> Any:
    """The mean of the quietest blocks' figures, over the last axis."""
    return _lowest(fastest, _QUIETEST_BLOCKS)


def _lowest(values: NDArray[np.float64], share: float) -> Any:
    count = max(1, int(values.shape[-1] * share))
    return np.partition(values, count - 1, axis=-1)[..., :count].mean(axis=-1)


def _calls_per_block(call: Call) -> tuple[int, float]:
    """How many, and how many ns one takes."""
    typical = max(1.0, float(_time(call, MIN_CALLS).wall.min()))
    return int(np.clip(BLOCK_NS / typical, MIN_CALLS, MAX_CALLS)), typical


def _time(call: Call, count: int) -> Block:
    clock = time.perf_counter_ns
    marks = np.empty(count + 1, dtype=np.int64)
    marks[0] = clock()
    for index in range(1, count + 1):
        call()
        marks[index] = clock()
    wall = np.diff(marks)
    return Block(wall, wall)


def _time_own(call: Call, count: int) -> Block:
    """As `_time`, with the process's own CPU time of each call: with one thread it lacks just what others took in between."""
    clock, cpu = time.perf_counter_ns, time.process_time_ns
    wall, busy = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    for index in range(count):
        start, own = clock(), cpu()
        call()
        busy[index] = cpu() - own
        wall[index] = clock() - start
    return Block(wall, np.minimum(wall, busy))
