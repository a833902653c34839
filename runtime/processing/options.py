"""What may an option of a processing step be, and does a manifest's value fit?

Manifests hold no floats: a fraction is a decimal string ("0.229"), several are separated by commas ("0.485,0.456,0.406").
"""

import math
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from runtime.contract.artifact import OptionValue
from runtime.errors import ProcessingError

Value = int | float | bool | str | tuple[float, ...]
Kind = Literal["whole", "decimal", "decimals", "choice", "flag", "text"]

_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?")
_MOST_DECIMALS = 1024
_LONGEST_TEXT = 200


class Option(msgspec.Struct, frozen=True):
    """One option. default: as a manifest would write it, None where the option must be given.

    low, high: inclusive bounds of numbers; choices: of a "choice".
    """

    name: str
    kind: Kind
    meaning: str
    default: OptionValue | None = None
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    def read(self, given: OptionValue) -> Value:
        """The value a step computes with. Raises ValueError that says what is expected."""
        if self.kind == "flag":
            if not isinstance(given, bool):
                raise ValueError("expected true or false")
            return given
        if self.kind == "whole":
            if isinstance(given, bool) or not isinstance(given, int):
                raise ValueError(f"expected a whole number {self.bounds()}")
            return self._bounded(given)
        if self.kind == "text":
            if not isinstance(given, str) or not 0 < len(given) <= _LONGEST_TEXT:
                raise ValueError(f"expected a text of 1 to {_LONGEST_TEXT} characters")
            return given
        if self.kind == "choice":
            if not isinstance(given, str) or given not in self.choices:
                raise ValueError(f"expected one of {', '.join(self.choices)}")
            return given
        parts = self._numbers(given)
        return tuple(parts) if self.kind == "decimals" else parts[0]

    def bounds(self) -> str:
        """In words: "from 1 to 10", "of at least 1", "of at most 10", or nothing."""
        low, high = (f"{bound:.15g}" for bound in (self.low, self.high))
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"from {low} to {high}"
        if math.isfinite(self.low):
            return f"of at least {low}"
        return f"of at most {high}" if math.isfinite(self.high) else ""

    def _numbers(self, given: OptionValue) -> list[float]:
        form = "decimals separated by commas" if self.kind == "decimals" else "a decimal"
        expected = f'expected {form} {self.bounds()}, written as a text such as "0.5"'.replace(" ,", ",")
        if isinstance(given, bool) or not isinstance(given, int | str):
            raise ValueError(expected)
        texts = [text.strip() for text in str(given).split(",")]
        most = _MOST_DECIMALS if self.kind == "decimals" else 1
        if len(texts) > most or not all(_DECIMAL.fullmatch(text) for text in texts):
            raise ValueError(expected)
        return [float(self._bounded(float(text))) for text in texts]

    def _bounded(self, number: float) -> int | float:
        if not math.isfinite(number) or not self.low <= number <= self.high:
            raise ValueError(f"expected a number {self.bounds()}")
        return number


def read_options(step: str, known: tuple[Option, ...], given: Mapping[str, OptionValue]) -> dict[str, Value]:
    """Every option of a step, defaults filled in. Raises ProcessingError naming the step and the option."""
    names = [option.name for option in known]
    for name in given:
        if name not in names:
            raise ProcessingError(f"processing step {step!r} has no option {name!r}; it takes {', '.join(names) or 'none'}")
    values: dict[str, Value] = {}
    for option in known:
        stated = given.get(option.name, option.default)
        if stated is None:
            raise ProcessingError(f"processing step {step!r} needs the option {option.name!r}: {option.meaning}")
        try:
            values[option.name] = option.read(stated)
        except ValueError as error:
            raise ProcessingError(f"processing step {step!r}, option {option.name!r} = {stated!r}: {error}") from error
    return values
