"""Where does a request run, and who makes its answer?

One way in for every transport: HTTP, gRPC and streams hand over a call and a function that makes their answer of its
outputs. A quick model runs at once in the event loop's thread, for a hand-over costs more than it does; a slow one in its
own, unless it is not that slow and its caller the only one. Where joining is configured, requests to a model with a free
batch wait a moment for others to run with. The answer is made where the inference ran, so that a large one holds nobody up
either.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from runtime.backends.base import Tensors
from runtime.errors import InferenceError
from runtime.serving.alone import Alone
from runtime.serving.batching import Form, Gathering, Later, form_of, has_free_batch, join, rows_of, split
from runtime.serving.models.model import ServedModel
from runtime.serving.models.repository import Repository
from runtime.serving.workers import Workers

log = logging.getLogger(__name__)

Made = TypeVar("Made")

_MOST_FORMS = 64


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


class Joining(NamedTuple):
    """How requests are joined: up to `rows` examples, none of which waits longer than delay_s. rows 1: they are not."""

    rows: int = 1
    delay_s: float = 0.0


class _Waiting(NamedTuple):
    call: Call
    make: Callable[[Answer], Any]
    future: "asyncio.Future[Any]"
    rows: int


class Inference:
    """Runs calls on a repository's models. For use from one event loop."""

    def __init__(
        self,
        repository: Repository,
        *,
        inline_ns: int,
        alone_ns: int = 0,
        waiting: int,
        inference_s: float = 0.0,
        joining: Joining = Joining(),  # noqa: B008 - frozen
        later: Later | None = None,
    ) -> None:
        """inline_ns: expected cost from which on a call leaves the loop's thread; alone_ns: the same for a lone caller, unless
        inference_s is set, which only a thread can keep; waiting: calls queued per version at most; inference_s: see Workers;
        later: how a joined call's bound is kept, None for the loop's own clock.
        """
        self._repository = repository
        self._inline_ns = inline_ns
        self._alone_ns = 0 if inference_s else alone_ns
        self._lone = Alone()
        self._workers = Workers(waiting, inference_s)
        self.joining = joining
        self._later = later
        self._gatherings: dict[ServedModel, dict[Form, Gathering[_Waiting]]] = {}
        self._counting = threading.Lock()  # models run in threads of their own
        self.batches = self.joined = 0
        """How many inferences ran for several requests, and for how many requests."""

    def submit(self, call: Call, make: Callable[[Answer], Made], caller: object = None) -> "Made | asyncio.Future[Made]":
        """Run a call now or soon. caller: see `Alone.asked`.

        Raises, or its future does: ModelNotFoundError, RequestError, InferenceError, OverloadedError, or what `make` raises.
        A future is cancelled when the daemon stops first.
        """
        self._lone.asked(caller)
        served = self._repository.pick(call.model, call.version, call.key)
        if self.joining.rows > 1 and has_free_batch(served.manifest):
            served.check(call.inputs)
            if 0 < (rows := rows_of(call.inputs)) < self.joining.rows:
                return self._gather(served, call, make, rows)
        expected_ns = served.expected_ns(call.inputs)
        if expected_ns <= self._inline_ns and not self._workers.is_busy(served):
            return self._run(served, call, make)
        if expected_ns <= self._alone_ns and self._lone.is_so() and self._workers.is_idle:
            try:
                return self._run(served, call, make)
            finally:
                self._lone.ran(caller)
        return self._workers.submit(served, partial(self._run, served, call, make))

    def submit_unread(
        self, model: str, read: Callable[[], Call], make: Callable[[Answer], Made], caller: object = None
    ) -> "asyncio.Future[Made]":
        """As `submit`, for a request so large that reading it would hold up the loop: `read` runs in the model's thread too."""

        self._lone.asked(caller)

        def run() -> Made:
            call = read()
            return self._run(self._repository.pick(call.model, call.version, call.key), call, make)

        return self._workers.submit(self._repository.get(model), run)

    @property
    def queued(self) -> dict[ServedModel, int]:
        """Requests handed to a thread and not yet answered, by version."""
        return self._workers.queued

    def stuck_s(self) -> float:
        """For how long the oldest inference under way has been in its engine; 0.0 when there is none."""
        return self._repository.stuck_s()

    def close(self) -> None:
        """Start nothing more; does not wait for what runs."""
        self._workers.close()
        for gatherings in self._gatherings.values():
            for gathering in gatherings.values():
                for waiting in gathering.take():
                    waiting.future.cancel()

    def _run(self, served: ServedModel, call: Call, make: Callable[[Answer], Made]) -> Made:
        return make(Answer(*self._repository.run(served, call.inputs, call.version)))

    def _gather(self, served: ServedModel, call: Call, make: Callable[[Answer], Made], rows: int) -> "asyncio.Future[Made]":
        loop = asyncio.get_running_loop()
        if served not in self._gatherings:
            for gone in [other for other in self._gatherings if other.is_retired]:
                for gathering in self._gatherings.pop(gone).values():
                    gathering.send()
        gatherings, form = self._gatherings.setdefault(served, {}), form_of(call.inputs)
        if form not in gatherings:
            if len(gatherings) >= _MOST_FORMS:  # a model with more than its batch free has no end of them
                for gathering in gatherings.values():
                    gathering.send()
                gatherings.clear()
            later = self._later or loop.call_later
            flush = partial(self._flush, served)
            gatherings[form] = Gathering(self.joining.rows, self.joining.delay_s, later, flush)
        future: asyncio.Future[Made] = loop.create_future()
        gatherings[form].add(_Waiting(call, make, future, rows), rows)
        return future

    def _flush(self, served: ServedModel, items: list[_Waiting]) -> None:
        """Run what has gathered, here if it is quick and alone, else in the version's thread."""
        items = [item for item in items if not item.future.done()]
        if not items:
            return
        is_quick = sum(served.expected_ns(item.call.inputs) for item in items) <= self._inline_ns
        try:
            if is_quick and not self._workers.is_busy(served):
                _hand_out(items, self._run_joined(served, items))
                return
            running = self._workers.submit(served, partial(self._run_joined, served, items))
        except Exception as error:  # noqa: BLE001 - every request learns what became of it
            _hand_out(items, [error] * len(items))
            return
        running.add_done_callback(partial(_finish, items))

    def _run_joined(self, served: ServedModel, items: list[_Waiting]) -> list[Any]:
        """What to tell each request: what its `make` returned, or the error it is to get."""
        if len(items) > 1 and not served.is_retired:
            try:
                inputs = join([item.call.inputs for item in items])
                parts = split(served.infer(inputs, requests=len(items)), [item.rows for item in items])
            except InferenceError as error:
                if served.failure:
                    log.warning("%s failed on %d joined requests: %s", served.manifest.model, len(items), error)
                parts = None
            if parts is not None:
                with self._counting:
                    self.batches += 1
                    self.joined += len(items)
                return [self._made(item, Answer(served, part)) for item, part in zip(items, parts, strict=True)]
        return [self._alone(served, item) for item in items]

    def _made(self, item: _Waiting, answer: Answer) -> Any:
        served = answer.served
        if served.mirror is not None:
            served.mirror(served, item.call.inputs, answer.outputs, item.rows)
        try:
            return item.make(answer)
        except Exception as error:  # noqa: BLE001 - the edge of one request among several
            return error

    def _alone(self, served: ServedModel, item: _Waiting) -> Any:
        try:
            return self._run(served, item.call, item.make)
        except Exception as error:  # noqa: BLE001 - as above
            return error


def _finish(items: list[_Waiting], running: "asyncio.Future[list[Any]]") -> None:
    if running.cancelled():
        for item in items:
            item.future.cancel()
    elif (error := running.exception()) is not None:
        _hand_out(items, [error] * len(items))
    else:
        _hand_out(items, running.result())


def _hand_out(items: list[_Waiting], results: list[Any]) -> None:
    for item, result in zip(items, results, strict=True):
        if item.future.done():
            continue
        if isinstance(result, BaseException):
            item.future.set_exception(result)
        else:
            item.future.set_result(result)
