"""How do several small requests become one inference, and whose outputs are whose?

Only for models whose batch is free in every tensor. Requests join when all their tensors agree but for the batch; what is
joined waits until enough rows are there or the oldest request has waited its bound. Should the joint inference fail, each
request runs again by itself, so that one which the engine chokes on fails nobody else.
"""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

from runtime.backends.base import Tensors
from runtime.contract.artifact import Manifest

Form = tuple[tuple[str, tuple[int, ...]], ...]
"""What two requests must share to be joined: each input's name and its shape behind the batch."""


class Handle(Protocol):
    def cancel(self) -> object: ...


Later = Callable[[float, Callable[[], None]], Handle]
"""`call_later` of an event loop, or of a test's clock."""


def has_free_batch(manifest: Manifest) -> bool:
    """Whether requests to this model can be joined: the first axis of every tensor is free."""
    return all(spec.shape[:1] == (-1,) for spec in (*manifest.inputs, *manifest.outputs))


def form_of(inputs: Tensors) -> Form:
    return tuple(sorted((name, array.shape[1:]) for name, array in inputs.items()))


def rows_of(inputs: Tensors) -> int:
    """Examples in a request; 0 where its tensors speak of different numbers of them, so that it cannot be joined."""
    sizes = {array.shape[0] for array in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else 0


def join(requests: Sequence[Tensors]) -> dict[str, np.ndarray]:
    """One batch of several requests of one form."""
    return {name: np.concatenate([inputs[name] for inputs in requests]) for name in requests[0]}


def split(outputs: Tensors, rows: Sequence[int]) -> list[dict[str, np.ndarray]] | None:
    """Each request's part of a joint answer; None where an output is not one entry per row after all."""
    if any(array.shape[:1] != (sum(rows),) for array in outputs.values()):
        return None
    ends = np.cumsum(rows).tolist()
    return [{name: array[end - count : end] for name, array in outputs.items()} for count, end in zip(rows, ends, strict=True)]


Item = TypeVar("Item")


class Gathering(Generic[Item]):
    """Requests of one form that wait to be joined. For use from one event loop.

    The first to come starts the clock; `flush` gets them all, in their order, when enough rows are there or the time is up.
    """

    def __init__(self, most_rows: int, delay_s: float, later: Later, flush: Callable[[list[Item]], None]) -> None:
        self._most_rows = most_rows
        self._delay_s = delay_s
        self._later = later
        self._flush = flush
        self._items: list[Item] = []
        self._rows = 0
        self._timer: Handle | None = None

    def add(self, item: Item, rows: int) -> None:
        """A request that does not fit behind the others sends those on first."""
        if self._items and self._rows + rows > self._most_rows:
            self.send()
        self._items.append(item)
        self._rows += rows
        if self._rows >= self._most_rows:
            self.send()
        elif self._timer is None:
            self._timer = self._later(self._delay_s, self.send)

    def send(self) -> None:
        """Whatever waits goes now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if items := self.take():
            self._flush(items)

    def take(self) -> list[Item]:
        """Whatever waits, which nobody will send any more."""
        items, self._items, self._rows = self._items, [], 0
        return items
