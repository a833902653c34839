"""Does the stream answer every message, in order, at least once, whatever the model, the message or the broker does?"""

import asyncio
import json
import threading

import numpy as np
import pytest

from runtime.errors import InferenceError
from runtime.serving.limits import LimitSettings
from runtime.serving.models.model import ServedModel
from runtime.serving.stream.stream import DEAD
from tests.runtime.serving.conftest import expected_scores, write_artifact
from tests.runtime.serving.stream.conftest import WAIT_S, Peer, json_request, until

ROWS = np.array([[1, 2, 3, 4], [0, -1, 0.5, 8]], np.float32)


def row(number):
    return np.array([[number, 1, 2, 3]], np.float32)


def reason(message):
    return dict(message.properties.UserProperty)


@pytest.fixture
def held(monkeypatch):
    """Inference in the model's thread that waits until it is let go; counts what has begun."""
    begun, let_go = threading.Semaphore(0), threading.Event()
    original = ServedModel.infer

    def infer(self, *arguments):
        begun.release()
        assert let_go.wait(WAIT_S)
        return original(self, *arguments)

    monkeypatch.setattr(ServedModel, "infer", infer)
    monkeypatch.setattr(ServedModel, "expected_ns", lambda *_: 1_000_000_000)
    yield begun, let_go
    let_go.set()


def test_json_in_and_out(peer, start_stream):
    start_stream()
    peer.ask(json_request(ROWS, "7"))
    message = peer.answers.get(timeout=WAIT_S)
    answer = json.loads(message.payload)
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "tiny", "1.0.0")
    assert message.properties.ContentType == "application/json"
    (output,) = answer["outputs"]
    assert np.allclose(np.reshape(output["data"], output["shape"]), expected_scores(ROWS), atol=1e-5)


def test_binary_in_and_out(peer, start_stream):
    start_stream(payload="binary")
    peer.ask(ROWS.tobytes())
    message = peer.answers.get(timeout=WAIT_S)
    assert dict(message.properties.UserProperty) == {"model": "tiny", "version": "1.0.0", "datatype": "FP32", "shape": "2,3"}
    assert np.allclose(np.frombuffer(message.payload, np.float32).reshape(2, 3), expected_scores(ROWS), atol=1e-5)


def test_many_are_answered_in_their_order(peer, start_stream):
    start_stream(payload="binary", max_inflight=8)
    for number in range(200):
        peer.ask(row(number).tobytes(), wait=False)
    for number in range(200):
        found = np.frombuffer(peer.answers.get(timeout=WAIT_S).payload, np.float32)
        assert np.allclose(found, expected_scores(row(number))[0], atol=1e-3), number


def test_what_correlates_comes_back_where_it_was_asked_for(peer, start_stream):
    start_stream()
    peer.ask(json_request(ROWS), ResponseTopic="plant/reply/me", CorrelationData=b"\x00call 9")
    message = peer.others.get(timeout=WAIT_S)
    assert (message.topic, message.properties.CorrelationData) == ("plant/reply/me", b"\x00call 9")


@pytest.mark.parametrize(
    ("payload", "properties", "code"),
    [
        (b"{", {}, "request.invalid"),
        (json_request(np.zeros((1, 5), np.float32)), {}, "request.invalid"),
        (json_request(np.zeros((600, 4), np.float32)), {}, "request.too_large"),
        (json_request(ROWS), {"ResponseTopic": "edge/1/plant/gate/desired"}, "request.invalid"),
        (json_request(ROWS), {"ResponseTopic": "plant/in"}, "request.invalid"),
    ],
    ids=["no JSON", "a wrong shape", "too large", "an answer to the fleet's line", "an answer to itself"],
)
def test_poison_goes_to_the_dead_letters_with_its_reason_and_is_not_seen_again(peer, start_stream, payload, properties, code):
    stream = start_stream(limits=LimitSettings(json_bytes=8192))
    peer.ask(payload, CorrelationData=b"42", **properties)
    dead = peer.dead.get(timeout=WAIT_S)
    assert dead.payload == payload
    assert (reason(dead)["code"], reason(dead)["topic"], dead.properties.CorrelationData) == (code, "plant/in", b"42")
    peer.ask(json_request(ROWS))
    peer.answers.get(timeout=WAIT_S)
    stream.run(stream.stream.stop(5))
    start_stream()
    peer.ask(json_request(ROWS))
    peer.answers.get(timeout=WAIT_S)
    assert peer.dead.empty()


def test_an_engine_that_fails_makes_dead_letters(peer, start_stream, monkeypatch):
    def fail(*_):
        raise InferenceError("no more memory")

    monkeypatch.setattr(ServedModel, "infer", fail)
    start_stream()
    peer.ask(json_request(ROWS))
    assert reason(peer.dead.get(timeout=WAIT_S))["code"] == "engine.inference_failed"


def test_the_broker_keeps_what_cannot_be_taken(peer, start_stream, held):
    begun, let_go = held
    stream = start_stream(payload="binary", max_inflight=4)
    for number in range(30):
        peer.ask(row(number).tobytes())
    assert begun.acquire(timeout=WAIT_S)
    assert stream.run(taken(stream)) == 4
    assert peer.answers.empty()
    let_go.set()
    for number in range(30):
        found = np.frombuffer(peer.answers.get(timeout=WAIT_S).payload, np.float32)
        assert np.allclose(found, expected_scores(row(number))[0], atol=1e-3)


def test_at_qos_0_the_socket_holds_back_what_cannot_be_taken(peer, start_stream, held):
    begun, let_go = held
    stream = start_stream(payload="binary", max_inflight=4, qos=0)
    for number in range(30):
        peer.ask(row(number).tobytes(), qos=0)
    assert begun.acquire(timeout=WAIT_S)
    assert stream.run(taken(stream)) == 4
    let_go.set()
    for number in range(30):
        found = np.frombuffer(peer.answers.get(timeout=WAIT_S).payload, np.float32)
        assert np.allclose(found, expected_scores(row(number))[0], atol=1e-3)


async def taken(stream):
    """How many messages are under way, once it is as many as may be."""
    await until(lambda: stream.stream.taken >= 4)
    for _ in range(20):  # turns in which more could come
        await asyncio.sleep(0)
    return stream.stream.taken


def test_a_model_that_is_not_there_yet_is_waited_for(peer, start_stream, repository, tmp_path):
    start_stream(model="later")
    peer.ask(json_request(ROWS))
    repository.switch(repository.open(write_artifact(tmp_path / "later", model="later")))
    assert json.loads(peer.answers.get(timeout=WAIT_S).payload)["model_name"] == "later"


def test_what_was_not_answered_is_answered_by_the_next_start(local_broker, peer, start_stream, held):
    begun, let_go = held
    first = start_stream(payload="binary")
    peer.ask(row(5).tobytes())
    assert begun.acquire(timeout=WAIT_S)
    first.run(first.stream.stop(0))
    let_go.set()
    start_stream(payload="binary")
    assert np.allclose(np.frombuffer(peer.answers.get(timeout=WAIT_S).payload, np.float32), expected_scores(row(5))[0], atol=1e-4)


def test_no_message_is_lost_when_the_broker_restarts(local_broker, start_stream):
    asking = Peer(local_broker, "asking")
    stream = start_stream(payload="binary", max_inflight=8)
    total = 300
    sent = [asking.ask(row(number).tobytes(), wait=False) for number in range(total)]
    answered = set()
    for _ in range(2):
        answered.add(number_of(asking.answers.get(timeout=WAIT_S)))
        local_broker.stop()
        local_broker.start()
    for info in sent:
        info.wait_for_publish(WAIT_S)
    while len(answered) < total:
        answered.add(number_of(asking.answers.get(timeout=WAIT_S)))
    assert answered == set(range(total))
    assert asking.dead.empty()
    assert stream.stream.counts[DEAD] == 0
    asking.stop()


def number_of(message):
    """Which row an answer is of: its scores are a straight line in the number."""
    found = np.frombuffer(message.payload, np.float32)[0]
    zero, one = expected_scores(row(0))[0][0], expected_scores(row(1))[0][0]
    return round((found - zero) / (one - zero))
