"""Which keys of the recipe may a search change, and to what?

Keys are the recipe's own, dotted as `--set` takes them. Every range is tried on the recipe before anything runs: what makes no
valid recipe is named with its key, not met in the tenth trial.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from toolchain.errors import RecipeError
from toolchain.recipe import RangeSection, Recipe, with_settings

if TYPE_CHECKING:  # a build with nothing to do may not wait for it
    from optuna.distributions import BaseDistribution

Value = str | int | float | bool
Params = dict[str, Value]

ALLOWED = ("model.network", "model.options.", "data.options.", "train.", "compress.")
"""What a search may change. Names, limits, metrics and targets are what a trial is judged by."""


class Space:
    """The ranges of one recipe, by key. source: the recipe's file, for errors. Raises RecipeError."""

    def __init__(self, recipe: Recipe, source: str) -> None:
        if recipe.tune is None:
            raise AssertionError("a recipe without [tune] has no space")
        self._recipe = recipe
        self._source = source
        self.ranges: dict[str, RangeSection] = dict(sorted(recipe.tune.space.items()))
        for key, found in self.ranges.items():
            self._require_valid(key, found)
        if recipe.tune.sampler == "grid":
            for key, found in self.ranges.items():
                if _points(found) is None:
                    raise self._error(key, 'sampler "grid" needs choices, integers, or a step')

    @property
    def size(self) -> int | None:
        """How many different settings there are; None where a range is continuous."""
        counts = [_points(found) for found in self.ranges.values()]
        return math.prod(count for count in counts if count is not None) if None not in counts else None

    def grid(self) -> Iterator[Params]:
        """All settings of a finite space, the last key changing fastest."""
        for values in itertools.product(*(_values(found) for found in self.ranges.values())):
            yield dict(zip(self.ranges, values, strict=True))

    def as_written(self) -> Params | None:
        """The recipe's own values, or None where one of them lies outside its range."""
        document = msgspec.json.decode(msgspec.json.encode(self._recipe))
        params = {}
        for key, found in self.ranges.items():
            value = _own_value(_look_up(document, key), found)
            if value is None:
                return None
            params[key] = value
        return params

    def apply(self, params: Mapping[str, Value]) -> Recipe:
        """The recipe with these values and without its [tune]: what one would write by hand. Raises RecipeError."""
        return with_settings(msgspec.structs.replace(self._recipe, tune=None), params, self._source)

    def distributions(self) -> "dict[str, BaseDistribution]":
        """The ranges as Optuna takes them."""
        return {key: _distribution(found) for key, found in self.ranges.items()}

    def _require_valid(self, key: str, found: RangeSection) -> None:
        if problem := _problem(found):
            raise self._error(key, problem)
        for value in found.choices or (found.low, found.high):
            try:
                with_settings(msgspec.structs.replace(self._recipe, tune=None), {key: value}, self._source)
            except RecipeError as error:
                place, _, text = str(error).partition(": ")
                raise self._error(key, text if place == f"--set {key}" else str(error)) from error
        if not any(key == allowed or (allowed.endswith(".") and key.startswith(allowed)) for allowed in ALLOWED):
            raise self._error(key, f"a search does not change what trials are judged by; it may change {', '.join(ALLOWED)}")

    def _error(self, key: str, text: str) -> RecipeError:
        return RecipeError(f"{self._source}: tune.space.{key}: {text}")


def _problem(found: RangeSection) -> str:
    """What is wrong with a range on its own, or ""."""
    bounds = [bound for bound in (found.low, found.high) if bound is not None]
    if found.choices:
        if bounds or found.log or found.step is not None:
            return "give either choices, or low and high"
        distinct = {(type(choice), choice) for choice in found.choices}
        return "" if len(distinct) == len(found.choices) else "two choices are the same"
    if found.low is None or found.high is None:
        return "give choices, or low and high"
    if not all(map(math.isfinite, bounds)) or found.low >= found.high:
        return f"low = {found.low} must be below high = {found.high}"
    if found.log and found.low <= 0:
        return f"log needs low above 0, got {found.low}"
    if found.log and found.step is not None:
        return "log and step exclude each other"
    if found.step is not None and (found.step <= 0 or (_is_whole(found) and not isinstance(found.step, int))):
        return f"step = {found.step} must be above 0, and an integer where low and high are"
    return ""


def _is_whole(found: RangeSection) -> bool:
    return isinstance(found.low, int) and isinstance(found.high, int)


def _points(found: RangeSection) -> int | None:
    """How many values a range has, None where it is continuous."""
    if found.choices:
        return len(found.choices)
    if found.low is None or found.high is None or (found.step is None and not _is_whole(found)):
        return None
    # The small share forgives 0.1 + 0.2: a step that fits but for rounding fits.
    return int((found.high - found.low) / (found.step or 1) + 1e-9) + 1


def _values(found: RangeSection) -> tuple[Value, ...]:
    if found.choices:
        return found.choices
    points = _points(found)
    if points is None or found.low is None:
        raise AssertionError("a continuous range has no list of values")
    step = found.step or 1
    if _is_whole(found):
        return tuple(found.low + index * step for index in range(points))
    return tuple(round(found.low + index * step, 12) for index in range(points))


def _own_value(value: Any, found: RangeSection) -> Value | None:
    """The recipe's value as the range would give it, None where it would not."""
    if found.choices:
        return next((choice for choice in found.choices if type(choice) is type(value) and choice == value), None)
    if isinstance(value, bool) or not isinstance(value, int | float) or found.low is None or found.high is None:
        return None
    if not found.low <= value <= found.high or (_is_whole(found) and not isinstance(value, int)):
        return None
    if _points(found) is None or (_is_whole(found) and found.step is None):
        return value
    return next((step for step in _values(found) if math.isclose(float(step), value, rel_tol=1e-9)), None)


def _look_up(document: Any, key: str) -> Any:
    """The value under a dotted key, None where there is none."""
    for part in key.split("."):
        if isinstance(document, dict):
            document = document.get(part)
        elif isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        else:
            return None
    return document


def _distribution(found: RangeSection) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if found.choices:
        return CategoricalDistribution(found.choices)
    if found.low is None or found.high is None:
        raise AssertionError("checked when the space was made")
    if not _is_whole(found):
        points = _points(found)
        high = found.high if found.step is None or points is None else found.low + (points - 1) * found.step
        return FloatDistribution(found.low, high, log=found.log, step=found.step)
    step = int(found.step or 1)
    return IntDistribution(int(found.low), int(found.low) + int(found.high - found.low) // step * step, log=found.log, step=step)
