"""Where does a request run, and who makes its answer?

One way in for every transport: HTTP, gRPC and streams hand over a call and a function that makes their answer of its
outputs. A quick model runs at once in the event loop's thread, for a hand-over costs more than it does; a slow one in its
own. The answer is made where the inference ran, so that a large one holds nobody up either.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from runtime.backends.base import Tensors
from runtime.serving.model import ServedModel
from runtime.serving.repository import Repository
from runtime.serving.workers import Workers

Made = TypeVar("Made")


class Call(NamedTuple):
    """One request to a model. version: "" for any. key: what an A/B split goes by, such as a user's id; "" for none."""

    model: str
    inputs: Tensors
    version: str = ""
    key: str = ""


class Answer(NamedTuple):
    """What answered, and what it said."""

    served: ServedModel
    outputs: dict[str, np.ndarray]


class Inference:
    """Runs calls on a repository's models. For use from one event loop."""

    def __init__(self, repository: Repository, *, inline_ns: int, waiting: int) -> None:
        """inline_ns: expected cost from which on a call leaves the loop's thread; waiting: calls queued per model at most."""
        self._repository = repository
        self._inline_ns = inline_ns
        self._workers = Workers(waiting)

    def submit(self, call: Call, make: Callable[[Answer], Made]) -> "Made | asyncio.Future[Made]":
        """Run a call now or soon.

        Raises, or its future does: ModelNotFoundError, RequestError, InferenceError, OverloadedError, or what `make` raises.
        A future is cancelled when the daemon stops first.
        """
        served = self._repository.get(call.model, call.version)
        if served.expected_ns(call.inputs) <= self._inline_ns and not self._workers.is_busy(call.model):
            return self._run(call, make)
        return self._workers.submit(call.model, partial(self._run, call, make))

    def submit_unread(self, model: str, read: Callable[[], Call], make: Callable[[Answer], Made]) -> "asyncio.Future[Made]":
        """As `submit`, for a request so large that reading it would hold up the loop: `read` runs in the model's thread too."""
        return self._workers.submit(model, lambda: self._run(read(), make))

    def close(self) -> None:
        """Start nothing more; does not wait for what runs."""
        self._workers.close()

    def _run(self, call: Call, make: Callable[[Answer], Made]) -> Made:
        served, outputs = self._repository.infer(call.model, call.inputs, call.version)
        return make(Answer(served, outputs))
