"""How does what a data source returned become what the network takes, by the recipe's own steps?

The same code prepares a raw input on the device, so that training and serving cannot differ.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from runtime.contract.artifact import Step
from runtime.errors import RequestError
from runtime.processing.pipeline import Preparation
from toolchain.errors import DataError

_SPLITS = ("train", "validation", "test")


def processed(result: Any, steps: Sequence[Step]) -> Any:
    """What a source returned, with the steps applied to each example. Without steps, or where it has another form, as it is.

    inputs: an array, or any iterable of examples such as a generator that reads one file after the other: it is run through
    once, and only what the steps leave of an example stays in memory. What the source says of layout and range is of the
    result. Raises DataError naming split and row.
    """
    if not steps or not isinstance(result, Mapping):
        return result
    preparation = Preparation(steps)
    return {name: _split(name, value, preparation) if name in _SPLITS else value for name, value in result.items()}


def _split(name: str, value: Any, preparation: Preparation) -> Any:
    if not isinstance(value, tuple | list) or len(value) != 2:
        return value  # said of by whoever checks the form
    inputs, targets = value
    if isinstance(inputs, Mapping):
        if len(inputs) != 1:
            raise DataError(f"processing.pre is for models with one input; split {name!r} has {', '.join(map(str, inputs))}")
        return {key: _examples(name, examples, preparation) for key, examples in inputs.items()}, targets
    return _examples(name, inputs, preparation), targets


def _examples(name: str, examples: Iterable[Any], preparation: Preparation) -> np.ndarray:
    rows: list[np.ndarray] = []
    for index, example in enumerate(examples):
        try:
            row = preparation.one(np.asarray(example))
        except RequestError as error:
            raise DataError(f"split {name!r}, row {index}: {error}") from error
        if row.dtype == np.float64:
            row = row.astype(np.float32)
        if rows and row.shape != rows[0].shape:
            raise DataError(
                f"split {name!r}, row {index}: the steps make {list(row.shape)} of it, of the first {list(rows[0].shape)}"
            )
        rows.append(row)
    if not rows:
        raise DataError(f"split {name!r} is empty")
    return np.stack(rows)
