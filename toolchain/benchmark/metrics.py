"""Which metrics decide, which way is better, and how is one applied to a model's outputs?"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from toolchain.data.code import callable_in, closure_of, find_callable, loaded, meaning_digest
from toolchain.errors import RecipeError, StageError
from toolchain.pipeline.record import MetricResult
from toolchain.recipe import MetricSection, Recipe

if TYPE_CHECKING:  # NumPy takes longer to import than a build with nothing to do may last
    import numpy as np

    from toolchain.benchmark.scores import Score

Goal = Literal["max", "min"]
KEY = "metric.name"
_GOALS: dict[str, Goal] = {"accuracy": "max", "f1_macro": "max", "mae": "min", "rmse": "min", "r2": "max", "roc_auc": "max"}
"""The built-in metrics; `scores.SCORES` computes them."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of the recipe, ready to judge. reference: the callable's place, "" for a built-in; code: digest of its files."""

    name: str
    goal: Goal
    max_drop: float
    reference: str
    code: str
    folder: Path

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its value, for cache keys; the tolerated drop decides only the choice."""
        return {"name": self.name, "goal": self.goal, "code": self.code}

    def drop(self, reference: float, value: float) -> float:
        """How much worse than the reference, in the metric's unit; negative when better."""
        return reference - value if self.goal == "max" else value - reference

    def judge(self, outputs: "np.ndarray", targets: "np.ndarray", split: Literal["validation", "test"]) -> MetricResult:
        """The figure with its 95 % interval. Raises StageError when the metric gives no finite number."""
        from toolchain.benchmark.scores import interval

        with self.scoring() as score:
            value = self._number(score, outputs, targets)
            low, high = interval(score, outputs, targets)
        return MetricResult(name=self.name, goal=self.goal, value=value, low=low, high=high, n=len(targets), split=split)

    def value(self, outputs: "np.ndarray", targets: "np.ndarray") -> float:
        """The bare figure, where no interval is needed."""
        with self.scoring() as score:
            return self._number(score, outputs, targets)

    @contextmanager
    def scoring(self) -> "Iterator[Score]":
        """The bare function of outputs and targets, loaded once for many calls."""
        from toolchain.benchmark.scores import SCORES

        if not self.reference:
            yield SCORES[self.name]
            return
        reference = find_callable(self.reference, self.folder, KEY)
        with loaded(reference, KEY) as module:
            yield callable_in(module, reference, KEY)

    def _number(self, score: "Score", outputs: "np.ndarray", targets: "np.ndarray") -> float:
        try:
            value = float(score(outputs, targets))
        except Exception as error:
            raise StageError(f"metric {self.name!r} fails on outputs {list(outputs.shape)}: {error}") from error
        if not math.isfinite(value):
            raise StageError(f"metric {self.name!r} is {value}, not a number to compare")
        return value


def resolve_metrics(recipe: Recipe, folder: Path) -> tuple[Metric, ...]:
    """The metrics a recipe names; the first decides. Raises RecipeError for an unknown name or a callable without a goal."""
    return tuple(_resolve(section, folder) for section in recipe.metrics)


def _resolve(section: MetricSection, folder: Path) -> Metric:
    if section.name in _GOALS:
        goal = section.goal or _GOALS[section.name]
        return Metric(name=section.name, goal=goal, max_drop=section.max_drop, reference="", code="", folder=folder)
    if ":" not in section.name:
        raise RecipeError(f"{KEY}: {section.name!r} is no metric known here ({', '.join(_GOALS)}); or name a FILE:callable")
    if section.goal is None:
        raise RecipeError(f'metric.goal: "max" or "min" is required for {section.name!r}')
    reference = find_callable(section.name, folder, KEY)
    return Metric(
        name=reference.attribute,
        goal=section.goal,
        max_drop=section.max_drop,
        reference=section.name,
        code=meaning_digest(closure_of(reference)),
        folder=folder,
    )
