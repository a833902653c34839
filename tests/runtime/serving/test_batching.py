"""Do joined requests get what they would have got alone, and does none wait beyond its bound?"""

import asyncio

import numpy as np
import pytest

from runtime.backends.base import get_backend
from runtime.contract.artifact import TensorSpec
from runtime.errors import InferenceError, RequestError
from runtime.monitor.monitor import Monitor
from runtime.serving.batching import Gathering, form_of, has_free_batch, join, rows_of, split
from runtime.serving.inference import Call, Inference, Joining
from runtime.serving.models.model import ServedModel
from tests.runtime.serving.conftest import expected_scores, write_artifact

INLINE, THREADED = 10**12, 0


class Clock:
    """A `call_later` whose time passes when told."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def later(self, delay_s, call):
        timer = Timer(self.now + delay_s, call)
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        self.now += seconds
        due = [timer for timer in self.timers if timer.at <= self.now and not timer.is_cancelled]
        self.timers = [timer for timer in self.timers if timer not in due and not timer.is_cancelled]
        for timer in due:
            timer.call()


class Timer:
    def __init__(self, at, call):
        self.at, self.call, self.is_cancelled = at, call, False

    def cancel(self):
        self.is_cancelled = True


def test_requests_gather_until_enough_rows_are_there():
    sent, clock = [], Clock()
    gathering = Gathering(4, 0.010, clock.later, sent.append)
    for item, rows in (("a", 1), ("b", 2), ("c", 2), ("d", 2)):
        gathering.add(item, rows)
    assert sent == [["a", "b"], ["c", "d"]]  # c would have made five
    clock.advance(1)
    assert len(sent) == 2


def test_the_oldest_decides_how_long_they_wait():
    sent, clock = [], Clock()
    gathering = Gathering(100, 0.5, clock.later, sent.append)
    gathering.add("a", 1)
    clock.advance(0.375)
    gathering.add("b", 1)
    assert sent == []
    clock.advance(0.125)
    assert sent == [["a", "b"]]
    gathering.add("c", 1)
    clock.advance(0.375)
    assert len(sent) == 1
    clock.advance(0.125)
    assert sent[1:] == [["c"]]


def test_joining_and_splitting_are_inverse():
    generator = np.random.default_rng(1)
    requests = [{"a": generator.random((rows, 2, 3)), "b": generator.random((rows,))} for rows in (1, 4, 2)]
    joined = join(requests)
    parts = split(joined, [rows_of(request) for request in requests])
    for request, part in zip(requests, parts, strict=True):
        assert all((request[name] == part[name]).all() for name in request)
    assert split({"out": np.zeros((6, 1))}, [1, 4, 2]) is None
    assert split({"out": np.zeros(())}, [1]) is None
    assert rows_of({"a": np.zeros((2, 1)), "b": np.zeros((3, 1))}) == 0
    assert form_of({"a": np.zeros((2, 5)), "b": np.zeros(3)}) == (("a", (5,)), ("b", ()))


def test_only_models_with_a_free_batch_join(repository, tmp_path):
    assert has_free_batch(repository.get("tiny").manifest)
    fixed = (TensorSpec(name="input", datatype="FP32", shape=(1, 4), labels=("a", "b", "c", "d")),)
    write_artifact(tmp_path / "fixed", model="fixed", inputs=fixed)
    assert not has_free_batch(repository.open(tmp_path / "fixed").manifest)


@pytest.fixture(params=[INLINE, THREADED], ids=["inline", "threaded"])
def joining(repository, request):
    """An Inference that joins up to 8 rows, none waiting beyond 10 ms of its own clock."""
    clock = Clock()
    inference = Inference(repository, inline_ns=request.param, waiting=64, joining=Joining(8, 0.010), later=clock.later)
    inference.clock = clock
    yield inference
    inference.close()


def call(rows, first=0.0):
    return Call("tiny", {"input": np.full((rows, 4), first, np.float32)})


def outputs_of(answer):
    return answer.outputs["output"]


def test_joined_requests_get_their_own_answers_in_one_inference(joining, repository):
    async def ask():
        calls = [call(rows, rows / 10) for rows in (1, 2, 5)]
        return await asyncio.gather(*[joining.submit(one, outputs_of) for one in calls])

    answers = asyncio.run(ask())
    for rows, answer in zip((1, 2, 5), answers, strict=True):
        np.testing.assert_allclose(answer, expected_scores(np.full((rows, 4), rows / 10)), rtol=1e-5)
    assert (joining.batches, joining.joined) == (1, 3)
    window = repository.get("tiny").monitor.take()
    assert (window.requests, sum(window.latency.values()), window.rows) == (3, 3, 8)


def test_one_alone_runs_at_its_bound_and_not_before(joining):
    async def ask():
        future = joining.submit(call(1), outputs_of)
        joining.clock.advance(0.0099)
        assert not future.done()
        joining.clock.advance(0.0001)
        return await future

    assert asyncio.run(ask()).shape == (1, 3)
    assert joining.batches == 0


def test_a_request_as_large_as_a_batch_waits_for_nobody(joining):
    async def ask():
        running = joining.submit(call(8), outputs_of)
        return await running if isinstance(running, asyncio.Future) else running

    assert asyncio.run(ask()).shape == (8, 3)
    assert joining.clock.timers == []


class Allergic:
    """Fails on any batch that holds the number 13."""

    def __init__(self, inner):
        self.inputs, self.outputs, self._inner = inner.inputs, inner.outputs, inner

    def infer(self, inputs):
        if (inputs["input"] == 13).any():
            raise InferenceError("thirteen")
        return self._inner.infer(inputs)

    def close(self):
        self._inner.close()


def test_a_request_the_engine_chokes_on_fails_nobody_else(joining, repository, artifact):
    manifest = repository.get("tiny").manifest
    model = Allergic(get_backend("reference").load(artifact / "model.npz", {}))
    repository.switch(ServedModel(manifest, repository.artifact("tiny"), model, Monitor(manifest)))

    def refuse(_answer):
        raise RequestError("no such output")

    async def ask():
        running = [joining.submit(call(1, first), outputs_of) for first in (1.0, 13.0, 2.0)]
        running.append(joining.submit(call(1, 3.0), refuse))
        with pytest.raises(RequestError):  # what does not pass `check` never joins
            joining.submit(Call("tiny", {"input": np.zeros((1, 5), np.float32)}), outputs_of)
        joining.clock.advance(0.010)
        return await asyncio.gather(*running, return_exceptions=True)

    one, thirteen, two, refused = asyncio.run(ask())
    assert isinstance(thirteen, InferenceError)
    assert isinstance(refused, RequestError)
    np.testing.assert_allclose(one, expected_scores(np.full((1, 4), 1.0)), rtol=1e-5)
    np.testing.assert_allclose(two, expected_scores(np.full((1, 4), 2.0)), rtol=1e-5)


def test_requests_that_wait_through_a_switch_run_on_the_new_version(joining, repository, tmp_path):
    async def ask():
        running = [joining.submit(call(1, 1.0), lambda answer: answer.served.artifact.version) for _ in range(2)]
        repository.switch(repository.open(write_artifact(tmp_path / "newer", version="2.0.0")))
        joining.clock.advance(0.010)
        return await asyncio.gather(*running)

    assert asyncio.run(ask()) == ["2.0.0", "2.0.0"]


def test_what_waits_at_a_stop_is_cancelled(joining):
    async def ask():
        future = joining.submit(call(1), outputs_of)
        joining.close()
        with pytest.raises(asyncio.CancelledError):
            await future

    asyncio.run(ask())
