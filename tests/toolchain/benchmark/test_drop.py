"""Is a drop judged over the same examples, and does the test say what it cannot tell apart?"""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from toolchain.benchmark.metrics import Metric, resolve_metrics
from toolchain.benchmark.quality import (
    SLICES,
    class_slices,
    column_slices,
    discordant,
    paired_drop,
    resolution,
)
from toolchain.recipe import parse_recipe

N = 400


def metric(name: str = "accuracy", **section: object) -> Metric:
    recipe = {
        "model": {"name": "m", "version": "1.0.0", "network": "a.py:b"},
        "data": {"source": "a.py:c"},
        "metric": [{"name": name, **section}],
    }
    return resolve_metrics(parse_recipe(recipe, "recipe.toml"), Path())[0]


def answers(right: np.ndarray) -> np.ndarray:
    """Scores of two classes, where the target is always class 1: right where told so."""
    return np.stack([~right, right], axis=1).astype(np.float32)


def pair(lost: int, won: int, wrong: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Of N examples both get `wrong` wrong; the second loses and wins some more."""
    before, after = np.ones(N, dtype=bool), np.ones(N, dtype=bool)
    before[:wrong] = after[:wrong] = False
    after[wrong : wrong + lost] = False
    before[wrong + lost : wrong + lost + won] = False
    return answers(before), answers(after)


TARGETS = np.ones(N, dtype=np.int64)


def test_a_paired_interval_agrees_with_the_closed_form() -> None:
    """Of paired shares: variance (b + c - (b - c)^2 / n) / n^2. Source: Agresti 2013, Categorical Data Analysis, 11.1."""
    lost, won = 40, 20
    drop = paired_drop(metric(), *pair(lost, won), TARGETS)
    spread = 1.96 * math.sqrt(lost + won - (lost - won) ** 2 / N) / N
    assert drop.value == pytest.approx(0.05)
    assert (drop.high - drop.low) / 2 == pytest.approx(spread, rel=0.1)
    assert drop.n == N


def test_what_both_get_wrong_does_not_widen_the_interval() -> None:
    few, many = (paired_drop(metric(), *pair(6, 2, wrong), TARGETS) for wrong in (0, 200))
    assert (few.low, few.high) == (many.low, many.high)


def test_another_metric_gets_the_same_kind_of_interval() -> None:
    generator = np.random.default_rng(0)
    targets = generator.normal(size=N)
    reference = targets[:, None] + generator.normal(size=(N, 1))
    drop = paired_drop(metric("mae"), reference, reference + 0.05, targets)
    assert drop.low < drop.value < drop.high
    own = metric("mae").judge(reference, targets, "test")
    assert drop.high - drop.low < own.high - own.low  # unpaired, a shift of 0.05 would drown


@pytest.mark.parametrize("examples", [5, 6])
def test_the_least_resolution_is_what_mcnemar_s_exact_test_can_tell(examples: int) -> None:
    significant = scipy.stats.binomtest(examples, examples).pvalue < 0.05
    reference, outputs = pair(examples, 0)
    drop = paired_drop(metric(), reference, outputs, TARGETS)
    found = resolution(metric().judge(outputs, TARGETS, "test"), drop, discordant(metric(), reference, outputs, TARGETS))
    assert found == 6 / N
    assert (drop.value >= found) == significant


def test_many_discordant_examples_blur_the_resolution() -> None:
    reference, outputs = pair(50, 50)
    drop = paired_drop(metric(), reference, outputs, TARGETS)
    judged = metric().judge(outputs, TARGETS, "test")
    assert resolution(judged, drop, discordant(metric(), reference, outputs, TARGETS)) == pytest.approx(1.96 * 10 / N, rel=1e-3)


def test_a_model_that_answers_alike_is_held_against_the_metric_s_own_interval() -> None:
    generator = np.random.default_rng(0)
    targets, outputs = generator.normal(size=N), generator.normal(size=(N, 1))
    drop = paired_drop(metric("rmse"), outputs, outputs, targets)
    judged = metric("rmse").judge(outputs, targets, "test")
    assert (drop.low, drop.high) == (0, 0)
    assert resolution(judged, drop, discordant(metric("rmse"), outputs, outputs, targets)) == (judged.high - judged.low) / 2


def test_each_class_with_examples_has_its_recall() -> None:
    targets = np.array([0] * 10 + [2] * 30)
    outputs = np.eye(3)[np.array([0] * 9 + [1] + [2] * 15 + [0] * 15)]
    first, second = class_slices(("cat", "dog", "owl"), outputs, targets)
    assert (first.column, first.value, first.metric.name, first.metric.value, first.metric.n) == (
        "class",
        "cat",
        "recall",
        0.9,
        10,
    )
    assert (second.value, second.metric.value) == ("owl", 0.5)
    assert second.metric.low < 0.5 < second.metric.high
    assert class_slices((), outputs, targets) == ()


def test_a_column_s_values_are_judged_by_the_deciding_metric() -> None:
    right = np.array([True] * 30 + [False] * 10)
    columns = {"camera": np.array(["left"] * 20 + ["right"] * 20)}
    left, other = column_slices(columns, metric(), answers(right), np.ones(40, dtype=np.int64), [].append)
    assert (left.column, left.value, left.metric.value) == ("camera", "left", 1.0)
    assert (other.value, other.metric.value, other.metric.n) == ("right", 0.5, 20)


def test_a_value_the_metric_says_nothing_about_has_no_slice_and_that_is_said() -> None:
    labels = np.array([1] * 20 + [0, 1] * 10)
    columns = {"site": np.array(["a"] * 20 + ["b"] * 20)}
    said: list[str] = []
    (found,) = column_slices(columns, metric("roc_auc"), labels[:, None].astype(float), labels, said.append)
    assert [note.partition(" is left out: ")[0] for note in said] == ["slice site = a"]
    assert (found.value, found.metric.value) == ("b", 1.0)


def test_of_many_values_those_with_most_examples_are_kept() -> None:
    values = np.array([f"user{index:03}" for index in range(200) for _ in range(1 + (index >= 200 - SLICES))])
    right = np.ones(len(values), dtype=bool)
    found = column_slices({"user": values}, metric(), answers(right), np.ones(len(values), dtype=np.int64), [].append)
    assert [each.value for each in found] == [f"user{index:03}" for index in range(200 - SLICES, 200)]
