"""Is a range that makes no valid recipe refused before anything runs, with its key and the nearest one?"""

from pathlib import Path
from typing import Any

import pytest

from toolchain.errors import RecipeError
from toolchain.recipe import parse_recipe
from toolchain.tune.space import Space


def space(sampler: str = "tpe", **ranges: dict[str, Any]) -> Space:
    document = {
        "model": {"name": "m", "version": "1.0.0", "network": "m.py:network", "options": {"width": 16}},
        "data": {"source": "m.py:splits"},
        "train": {"epochs": 5, "learning_rate": 0.3},
        "compress": {"prune_ratios": [0.5]},
        "tune": {"sampler": sampler, "space": {key.replace("__", "."): value for key, value in ranges.items()}},
    }
    return Space(parse_recipe(document, "recipe.toml"), "recipe.toml")


@pytest.mark.parametrize(
    ("key", "found", "expected"),
    [
        ("train__epoch", {"low": 1, "high": 5}, r"tune\.space\.train\.epoch: unknown key; did you mean train\.epochs\?"),
        ("trian__epochs", {"low": 1, "high": 5}, r"unknown key; did you mean train\?"),
        ("train__epochs", {"low": 0, "high": 5}, r"tune\.space\.train\.epochs: Expected `int` >= 1"),
        ("train__epochs", {"low": 1.5, "high": 5}, r"Expected `int`, got `float`"),
        ("train__epochs", {"low": 5, "high": 5}, "low = 5 must be below high = 5"),
        ("train__epochs", {"low": 1}, "give choices, or low and high"),
        ("train__epochs", {"low": 1, "high": 5, "choices": [1]}, "give either choices, or low and high"),
        ("train__epochs", {"choices": [1, 2, 1]}, "two choices are the same"),
        ("train__epochs", {"low": 1, "high": 9, "step": 0}, "step = 0 must be above 0"),
        ("train__epochs", {"low": 1, "high": 9, "step": 0.5}, "an integer where low and high are"),
        ("train__learning_rate", {"low": 0.0, "high": 1.0, "log": True}, "log needs low above 0"),
        ("train__learning_rate", {"low": 0.1, "high": 1.0, "log": True, "step": 0.1}, "log and step exclude each other"),
        ("train__precision", {"choices": ["float32", "float8"]}, "Invalid enum value 'float8'"),
        ("target__max_latency_ms", {"low": 1.0, "high": 2.0}, "does not change what trials are judged by"),
        ("model__version", {"choices": ["1.0.0", "2.0.0"]}, "does not change what trials are judged by"),
    ],
)
def test_what_makes_no_recipe_is_named(key: str, found: dict[str, Any], expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        space(**{key: found})


def test_a_grid_needs_a_finite_space() -> None:
    with pytest.raises(
        RecipeError, match=r'tune\.space\.train\.learning_rate: sampler "grid" needs choices, integers, or a step'
    ):
        space("grid", train__learning_rate={"low": 0.1, "high": 1.0})


def test_the_grid_is_every_combination_once() -> None:
    found = space(
        "grid",
        train__epochs={"low": 1, "high": 6, "step": 2},
        train__learning_rate={"low": 0.1, "high": 0.3, "step": 0.1},
        train__precision={"choices": ["float32", "bfloat16"]},
    )
    points = list(found.grid())
    assert found.size == len(points) == len({tuple(point.items()) for point in points}) == 3 * 3 * 2
    assert {point["train.learning_rate"] for point in points} == {0.1, 0.2, 0.3}
    assert {point["train.epochs"] for point in points} == {1, 3, 5}


def test_the_recipe_s_own_place_in_the_space() -> None:
    inside = space(train__epochs={"low": 1, "high": 9, "step": 2}, train__learning_rate={"low": 0.1, "high": 1.0, "step": 0.1})
    assert inside.as_written() == {"train.epochs": 5, "train.learning_rate": pytest.approx(0.3)}
    assert space(train__epochs={"choices": [1, 2]}).as_written() is None
    assert space(model__options__depth={"choices": [1, 2]}).as_written() is None
    assert space(train__learning_rate={"low": 0.4, "high": 1.0}).as_written() is None


def test_settings_reach_the_recipe_by_their_keys() -> None:
    found = space(
        model__options__width={"choices": [8, 16]},
        compress__prune_ratios__0={"low": 0.2, "high": 0.8},
        train__epochs={"low": 1, "high": 9},
    )
    recipe = found.apply({"model.options.width": 8, "compress.prune_ratios.0": 0.25, "train.epochs": 7})
    assert recipe.model.options == {"width": 8}
    assert recipe.compress.prune_ratios == (0.25,)
    assert recipe.train is not None
    assert recipe.train.epochs == 7
    assert recipe.tune is None


def test_one_and_true_are_two_choices() -> None:
    assert space(model__options__width={"choices": [1, True]}).size == 2
    assert space(model__options__width={"choices": [16.0]}).as_written() is None


def test_distributions_are_optuna_s(tmp_path: Path) -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found = space(
        train__epochs={"low": 1, "high": 9, "step": 3},
        train__learning_rate={"low": 0.1, "high": 1.0, "log": True},
        train__precision={"choices": ["float32", "bfloat16"]},
    ).distributions()
    assert found["train.epochs"] == IntDistribution(1, 7, step=3)
    assert found["train.learning_rate"] == FloatDistribution(0.1, 1.0, log=True)
    assert found["train.precision"] == CategoricalDistribution(("float32", "bfloat16"))
