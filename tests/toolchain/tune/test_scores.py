"""Does the build go on with the best trial that keeps every limit, by the stated rule?"""

import pytest

from toolchain.pipeline.record import TrialResult
from toolchain.tune.scores import Finished, Outcome, State, front, pick


def trial(
    number: int, *values: float, margins: dict[str, float] | None = None, error_bar: float = 0.01, state: State = "complete"
) -> Finished:
    outcome = Outcome(state=state, seconds=1.0, values=values, margins=margins or {}, error_bar=error_bar)
    result = TrialResult(number=number, settings={}, state=state, values=values, violated=outcome.violated, seconds=1.0)
    return Finished(trial=result, outcome=outcome)


def best(
    *trials: Finished, objectives: tuple[str, ...] = ("metric", "latency"), goal: str = "max", max_drop: float = 0.02
) -> int:
    return pick(trials, objectives, goal, max_drop)[0].trial.number  # type: ignore[arg-type]


def test_one_objective_takes_the_best_and_the_earliest_of_equals() -> None:
    assert best(trial(0, 0.90), trial(1, 0.95), trial(2, 0.95), objectives=("metric",)) == 1
    assert best(trial(0, 0.90), trial(1, 0.95), objectives=("metric",), goal="min") == 0
    assert best(trial(0, 900.0), trial(1, 800.0), objectives=("size",)) == 1


@pytest.mark.parametrize(("metric", "expected"), [(0.9401, 1), (0.9399, 0)])
def test_a_faster_trial_wins_within_one_standard_error(metric: float, expected: int) -> None:
    assert best(trial(0, 0.95, 1000.0), trial(1, metric, 500.0)) == expected


def test_the_standard_error_of_few_examples_excuses_no_more_than_the_limit() -> None:
    assert best(trial(0, 0.95, 1000.0, error_bar=0.2), trial(1, 0.92, 500.0)) == 0
    assert best(trial(0, 0.95, 1000.0, error_bar=0.2), trial(1, 0.931, 500.0)) == 1


def test_latency_first_calls_five_percent_equal() -> None:
    order = ("latency", "metric")
    assert best(trial(0, 1000.0, 0.90), trial(1, 1049.0, 0.95), objectives=order) == 1
    assert best(trial(0, 1000.0, 0.90), trial(1, 1051.0, 0.95), objectives=order) == 0


def test_the_recipe_as_written_stays_where_nothing_is_measurably_better() -> None:
    assert best(trial(0, 0.95, 1000.0), trial(1, 0.95, 960.0)) == 0
    assert best(trial(0, 0.95, 1000.0), trial(1, 0.95, 940.0)) == 1


def test_a_limit_that_is_missed_outweighs_everything() -> None:
    fast = trial(1, 0.99, 10.0, margins={"max_size_kb": 0.1})
    assert best(trial(0, 0.90, 1000.0, margins={"max_size_kb": 0.0}), fast) == 0


def test_where_none_keeps_the_limits_the_nearest_is_taken() -> None:
    chosen, reason = pick(
        [trial(0, 0.9, 1.0, margins={"max_size_kb": 0.4, "max_drop": -0.1}), trial(1, 0.8, 1.0, margins={"max_size_kb": 0.3})],
        ("metric", "latency"), "max", 0.01,
    )  # fmt: skip
    assert chosen.trial.number == 1
    assert reason == "none of 2 trials keeps every limit; this one misses max_size_kb by least"


def test_what_was_not_finished_is_never_taken() -> None:
    assert best(trial(0, 0.5), trial(1, state="pruned"), trial(2, state="failed"), objectives=("metric",)) == 0


def test_the_front_is_what_nothing_else_beats() -> None:
    trials = [trial(0, 0.9, 10.0), trial(1, 0.9, 11.0), trial(2, 0.95, 20.0), trial(3, 0.8, 9.0), trial(4, 0.9, 10.0)]
    assert [item.trial.number for item in front(trials, ("metric", "latency"), "max")] == [0, 2, 3, 4]
