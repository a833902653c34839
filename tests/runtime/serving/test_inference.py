"""Does a call run where it should, and does one that hangs cost nobody but itself?"""

import asyncio
import threading
import time

import numpy as np
import pytest

from runtime.backends.base import get_backend
from runtime.errors import EngineHungError, OverloadedError
from runtime.monitor.monitor import Monitor
from runtime.serving.inference import Call, Inference
from runtime.serving.models.model import ServedModel
from tests.runtime.serving.conftest import write_artifact

ROWS = {"input": np.zeros((1, 4), np.float32)}
CALL = Call("tiny", ROWS)


class Gated:
    """An engine that answers only while its gate is open: a fake, for a real one cannot be made to hang at will."""

    def __init__(self, inner):
        self.inputs, self.outputs, self._inner = inner.inputs, inner.outputs, inner
        self.gate, self.entered = threading.Event(), threading.Event()

    def infer(self, inputs):
        self.entered.set()
        assert self.gate.wait(30)
        return self._inner.infer(inputs)

    def close(self):
        self._inner.close()


@pytest.fixture
def gated(repository, artifact):
    """The engine of the only model; its gate opens at the end of the test."""
    manifest = repository.get("tiny").manifest
    model = Gated(get_backend("reference").load(artifact / "model.npz", {}))
    repository.switch(ServedModel(manifest, repository.artifact("tiny"), model, Monitor(manifest)))
    yield model
    model.gate.set()


@pytest.fixture
def make(repository):
    made = []

    def make(**options):
        made.append(Inference(repository, **({"inline_ns": 0, "waiting": 8} | options)))
        return made[-1]

    yield make
    for inference in made:
        inference.close()


def version_of(answer):
    return answer.served.artifact.version


def here(_answer):
    return threading.get_ident()


def test_a_quick_model_runs_in_the_loop_s_thread_and_a_slow_one_in_its_own(make):
    async def ask(inference):
        running = inference.submit(CALL, here)
        return await running if isinstance(running, asyncio.Future) else running

    assert asyncio.run(ask(make(inline_ns=10**12))) == threading.get_ident()
    assert asyncio.run(ask(make())) != threading.get_ident()


def test_a_hung_inference_is_answered_in_time_and_breaks_its_version(make, gated, repository):
    inference = make(inference_s=0.05)

    async def ask():
        started = time.monotonic()
        with pytest.raises(EngineHungError, match=r"tiny 1\.0\.0 has not answered in 0\.05 s"):
            await inference.submit(CALL, version_of)
        return time.monotonic() - started

    assert 0.05 <= asyncio.run(ask()) < 5
    assert repository.health("tiny").failure.startswith("engine.hung")
    assert inference.stuck_s() >= 0.04
    gated.gate.set()
    _eventually(lambda: inference.stuck_s() == 0.0)


def test_a_call_that_only_waited_too_long_breaks_nothing(make, gated, repository):
    """The first takes 20 ms of the bound away from the second, which then has run for less than the bound."""
    inference = make(inference_s=0.5)

    async def ask():
        first = inference.submit(CALL, version_of)
        await asyncio.sleep(0)
        assert gated.entered.wait(10)
        inference._workers._inference_s = 0.02  # as if the second had come at the end of a long queue
        second = inference.submit(CALL, version_of)
        repository.get("tiny")._started_ns = time.perf_counter_ns() + 10**9  # the one under way is young
        with pytest.raises(OverloadedError, match=r"did not get to this request in 0\.02 s"):
            await second
        gated.gate.set()
        return await first

    assert asyncio.run(ask()) == "1.0.0"
    assert repository.health("tiny").failure == ""


def test_a_hung_model_keeps_no_other_waiting_nor_its_own_successor(make, gated, repository, tmp_path):
    inference = make()
    repository.switch(repository.open(write_artifact(tmp_path / "other", model="other", version="3.0.0")))

    async def ask():
        stuck = inference.submit(CALL, version_of)
        assert await asyncio.to_thread(gated.entered.wait, 10)
        assert await inference.submit(Call("other", ROWS), version_of) == "3.0.0"
        repository.switch(repository.open(write_artifact(tmp_path / "newer", version="2.0.0")))
        assert await inference.submit(CALL, version_of) == "2.0.0"
        assert not stuck.done()
        gated.gate.set()
        return await stuck

    assert asyncio.run(ask()) == "1.0.0"


def test_more_than_may_wait_are_refused_and_the_rest_answered(make, gated):
    inference = make(waiting=3)

    async def ask():
        running = [inference.submit(CALL, version_of) for _ in range(3)]
        with pytest.raises(OverloadedError):
            inference.submit(CALL, version_of)
        assert list(inference.queued.values()) == [3]
        gated.gate.set()
        answers = await asyncio.gather(*running)
        assert inference.submit(CALL, version_of) is not None
        return answers

    assert asyncio.run(ask()) == ["1.0.0"] * 3


def test_a_stop_cancels_what_waits_and_holds_up_nobody(make, gated):
    inference = make()

    async def ask():
        running = [inference.submit(CALL, version_of) for _ in range(2)]
        assert await asyncio.to_thread(gated.entered.wait, 10)
        inference.close()
        gated.gate.set()
        return await asyncio.gather(*running, return_exceptions=True)

    first, second = asyncio.run(ask())
    assert isinstance(second, asyncio.CancelledError)
    assert first == "1.0.0" or isinstance(first, asyncio.CancelledError)


def test_a_reader_that_fails_fails_its_request_only(make):
    inference = make()

    def read():
        raise ValueError("no JSON")

    async def ask():
        with pytest.raises(ValueError, match="no JSON"):
            await inference.submit_unread("tiny", read, version_of)
        return await inference.submit_unread("tiny", lambda: CALL, version_of)

    assert asyncio.run(ask()) == "1.0.0"


def test_threads_of_retired_versions_end(make, repository, tmp_path):
    inference = make()

    async def ask():
        for number in range(2, 6):
            await inference.submit(CALL, version_of)
            directory = write_artifact(tmp_path / str(number), version=f"{number}.0.0")
            repository.switch(repository.open(directory))
        await inference.submit(CALL, version_of)

    asyncio.run(ask())
    _eventually(lambda: sum(thread.name == "infer-tiny" for thread in threading.enumerate()) == 1)


def test_a_split_goes_by_the_call_s_key(make, repository, tmp_path):
    inference = make(inline_ns=10**12)
    repository.switch(repository.open(write_artifact(tmp_path / "two", version="2.0.0"), "split", 5000))
    ask = lambda key: inference.submit(Call("tiny", ROWS, key=key), version_of)  # noqa: E731 - one line, asked twice
    by_key = {f"user-{index}": ask(f"user-{index}") for index in range(40)}
    assert set(by_key.values()) == {"1.0.0", "2.0.0"}
    assert {key: ask(key) for key in by_key} == by_key


def _eventually(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
