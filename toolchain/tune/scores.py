"""What is a trial worth, which limits does it miss, and which trial does the build go on with? Pure, but for reading the results."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from toolchain.errors import StageError
from toolchain.pipeline.build import Steered, Tried
from toolchain.pipeline.candidates import Made
from toolchain.pipeline.choose import BYTES_PER_KB, NS_PER_MS
from toolchain.pipeline.record import TrialResult
from toolchain.recipe import Objective

State = Literal["complete", "pruned", "failed"]

PARITY, DROP, LATENCY, SIZE = "parity", "max_drop", "max_latency_ms", "max_size_kb"
"""Names of what a trial can miss: the recipe's own keys, and outputs that differ from the float model's."""

LATENCY_TOLERANCE = 0.05
"""Relative difference below which two latencies are taken for equal: what a ratio measured twice may differ by (docs/figures.md)."""
_NORMAL_95 = 1.96


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial gave. values: per objective of the recipe; margins: by limit, above 0 where it is missed.

    error_bar: one standard error of the deciding metric. chosen: the variant the values are of. seconds: the trial took.
    """

    state: State
    seconds: float
    values: tuple[float, ...] = ()
    margins: dict[str, float] = {}
    error_bar: float = 0.0
    chosen: str = ""
    same_as: int | None = None
    error: str = ""

    @property
    def violated(self) -> tuple[str, ...]:
        return tuple(name for name, margin in self.margins.items() if margin > 0)


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """One finished trial as the choice sees it."""

    trial: TrialResult
    outcome: Outcome

    @property
    def missed_by(self) -> float:
        return sum(max(0.0, margin) for margin in self.outcome.margins.values())


def first_target(steered: Steered) -> Tried:
    """The target whose chosen variant a trial's values are of: the recipe's first."""
    return steered.targets[0]


def judged_variant(tried: Tried) -> str:
    """The chosen variant, or the nearest one where none passed."""
    return tried.choice.value.chosen or tried.choice.value.nearest


def margins(tried: Tried, max_drop: float) -> dict[str, float]:
    """How far beyond each limit of its target a variant lies, as a share of the limit; 0 or less where it keeps it.

    The drop is in the metric's own unit, for its limit may be 0.
    """
    name = judged_variant(tried)
    made = tried.made[name]
    found = {
        PARITY: 0.0 if made.checked.value.parity.ok else 1.0,
        DROP: made.checked.value.drop.value - max_drop,
    }
    latency = tried.latencies.latencies.get(name) if tried.latencies else None
    if tried.target.max_latency_ms is not None and latency is not None:
        found[LATENCY] = latency.p90_ns / (tried.target.max_latency_ms * NS_PER_MS) - 1
    if tried.target.max_size_kb is not None:
        found[SIZE] = made.variant.value.size_bytes / (tried.target.max_size_kb * BYTES_PER_KB) - 1
    if not tried.choice.value.chosen and all(margin <= 0 for margin in found.values()):
        found["limits"] = 1.0  # rejected for what none of these names; it must not pass for a trial that fits
    return found


def values(made: Made, objectives: Sequence[Objective], latency_ns: float | None) -> tuple[float, ...]:
    """The metric on validation data, nanoseconds, bytes. Raises StageError where the metric is no number."""
    found = {
        "metric": made.checked.value.metrics[0].value,
        "latency": math.nan if latency_ns is None else latency_ns,
        "size": float(made.variant.value.size_bytes),
    }
    chosen = tuple(found[name] for name in objectives)
    for name, value in zip(objectives, chosen, strict=True):
        if not math.isfinite(value):
            raise StageError(f"its {name} is {value}, not a number to compare")
    return chosen


def error_bar(made: Made) -> float:
    """One standard error of the deciding metric, from its 95 % interval."""
    metric = made.checked.value.metrics[0]
    return (metric.high - metric.low) / 2 / _NORMAL_95


def front(finished: Sequence[Finished], objectives: Sequence[Objective], goal: str) -> list[Finished]:
    """Trials that no other one beats in an objective without losing in another. What is within LATENCY_TOLERANCE is not beaten."""
    signs = _signs(objectives, goal)

    def beats(other: Outcome, own: Outcome) -> bool:
        gains = [sign * (a - b) for sign, a, b in zip(signs, other.values, own.values, strict=True)]
        rooms = [_noise(name, value) for name, value in zip(objectives, own.values, strict=True)]
        return min(gains) >= 0 and any(gain > room for gain, room in zip(gains, rooms, strict=True))

    return [item for item in finished if not any(beats(other.outcome, item.outcome) for other in finished)]


def pick(finished: Sequence[Finished], objectives: Sequence[Objective], goal: str, max_drop: float) -> tuple[Finished, str]:
    """The trial to go on with, and why. Where none keeps all limits, the one that misses them by least.

    Of the trials no other one beats, those as good as the best in the first objective remain, then those as good as their best in
    the second, and so on; of those that are left the earliest, so that the recipe as written stays where nothing is really better.
    As good: a metric within one standard error of
    the best (Breiman et al., Classification and Regression Trees, 1984, 3.4.3), and never more than max_drop away, or only the best
    where it is the last objective; a latency within LATENCY_TOLERANCE; a size only if it is the same.
    """
    complete = [item for item in finished if item.outcome.state == "complete"]
    feasible = [item for item in complete if not item.outcome.violated]
    if not feasible:
        nearest = min(complete, key=lambda item: (item.missed_by, item.trial.number))
        return (
            nearest,
            f"none of {len(finished)} trials keeps every limit; this one misses {' and '.join(nearest.outcome.violated)} by least",
        )
    signs = _signs(objectives, goal)
    left = best = front(feasible, objectives, goal)
    for index, (name, sign) in enumerate(zip(objectives, signs, strict=True)):
        top = max(left, key=lambda item: (sign * item.outcome.values[index], -item.trial.number))
        room = _noise(name, top.outcome.values[index])
        if name == "metric" and index < len(objectives) - 1:  # there is something to trade it for
            room = min(top.outcome.error_bar, max_drop)
        left = [item for item in left if sign * item.outcome.values[index] >= sign * top.outcome.values[index] - room]
    chosen = min(left, key=lambda item: item.trial.number)
    return chosen, _reason(objectives, len(best), len(feasible), len(finished))


def _signs(objectives: Sequence[Objective], goal: str) -> list[int]:
    """1 where more is better, else -1."""
    return [1 if name == "metric" and goal == "max" else -1 for name in objectives]


def _noise(objective: Objective, value: float) -> float:
    return LATENCY_TOLERANCE * value if objective == "latency" else 0.0


def _reason(objectives: Sequence[Objective], front_size: int, feasible: int, total: int) -> str:
    within = f"{feasible} of {total} trials keep every limit"
    if len(objectives) == 1:
        return f"the best {objectives[0]}; {within}"
    rest = ", then ".join(objectives[1:])
    return f"of the {front_size} nothing else beats, the best {rest} among those as good in {objectives[0]}; {within}"
