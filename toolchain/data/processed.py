"""How does what a data source returned become what the network takes, by the recipe's own steps?

The same code prepares a raw input on the device, so that training and serving cannot differ.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from runtime.contract.artifact import Step
from runtime.errors import RequestError
from runtime.processing.pipeline import Preparation
from toolchain.errors import DataError

_SPLITS = ("train", "validation", "test")
_BOUNDED = frozenset({"resize", "center_crop", "grayscale", "to_float", "scale", "normalize", "channels_first"})
"""Steps whose results on pictures lie between those on a black and a white one: means of pixels, and straight lines of them."""


def processed(result: Any, steps: Sequence[Step]) -> Any:
    """What a source returned, with the steps applied to each example. Without steps, or where it has another form, as it is.

    inputs: an array, or any iterable of examples such as a generator that reads one file after the other: it is run through
    once, and only what the steps leave of an example stays in memory. What the source says of layout and range is of the
    result; of pictures of bytes the range is worked out where the source says none. Raises DataError naming split and row.
    """
    if not isinstance(result, Mapping):
        return result
    if not steps:
        for name in _SPLITS:
            if isinstance(value := result.get(name), tuple | list) and value and isinstance(value[0], Iterator):
                raise DataError(
                    f"split {name!r} comes example by example, as they are: say how to prepare them in [processing] pre"
                )
        return result
    preparation = _Watched(steps)
    done = {name: _split(name, value, preparation) if name in _SPLITS else value for name, value in result.items()}
    picture = preparation.first
    if "range" in done or picture is None or picture.dtype != np.uint8 or any(step.name not in _BOUNDED for step in steps):
        return done
    ends = np.concatenate([preparation.one(np.full_like(picture, value)).ravel() for value in (0, 255)])
    return {**done, "range": (float(ends.min()), float(ends.max()))}


class _Watched(Preparation):
    """Remembers the first example."""

    first: np.ndarray | None = None

    def one(self, example: np.ndarray) -> np.ndarray:
        if self.first is None:
            self.first = example
        return super().one(example)


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
