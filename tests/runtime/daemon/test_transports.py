"""Does one daemon serve gRPC and a stream beside HTTP when asked, and say plainly why it cannot?"""

import json
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from runtime import install as module
from runtime.config import Config, DeviceSettings
from runtime.install import install
from tests.runtime.serving.stream.conftest import TOPICS, WAIT_S, LocalBroker, Peer, json_request
from tests.runtime.update.conftest import direct
from tests.support.artifacts import FEATURES, PROFILE, scores, write_artifact
from tests.support.broker import free_port
from tests.support.daemon import DaemonProcess
from tests.support.store import ReleaseStore

ROWS = np.random.default_rng(5).normal(size=(2, FEATURES)).astype(np.float32)


@pytest.fixture
def state_dir(tmp_path, monkeypatch):
    """Of a device that belongs to no fleet and has a model installed."""
    monkeypatch.setattr(module, "delegate", direct)
    monkeypatch.setattr(module, "detect_profile", lambda _settings: PROFILE)
    store = ReleaseStore()
    write_artifact(tmp_path / "artifact")
    store.publish(tmp_path / "artifact")
    store.write_bundle(tmp_path / "tiny.edge")
    (tmp_path / "root.json").write_bytes(store.root)
    state_dir = tmp_path / "device"
    state_dir.mkdir()
    config = Config(device=DeviceSettings(state_dir=str(state_dir)))
    install(config, tmp_path / "tiny.edge", model="", target="", root=tmp_path / "root.json")
    return state_dir


@pytest.fixture
def start(state_dir):
    running = []

    def start_one(**settings):
        daemon = DaemonProcess(state_dir, **settings)
        running.append(daemon.start())
        return daemon

    yield start_one
    for daemon in running:
        daemon.stop()


def test_http_grpc_and_a_stream_give_the_same_answers(start, tmp_path):
    broker = LocalBroker(tmp_path / "broker")
    peer = Peer(broker)
    port = free_port()
    stream = {"broker": f"mqtt://127.0.0.1:{broker.port}", "model": "tiny", **TOPICS}
    daemon = start(
        **{"serving.grpc": "true", "serving.grpc_port": port}, **{f"stream.{key}": value for key, value in stream.items()}
    )
    expected = scores(ROWS, 1.0)
    assert np.allclose(daemon.wait_until(lambda: daemon.infer(ROWS).tolist(), "serving"), expected, atol=1e-5)
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        tensor = triton.InferInput("input", ROWS.shape, "FP32")
        tensor.set_data_from_numpy(ROWS)
        assert np.allclose(client.infer("tiny", [tensor]).as_numpy("output"), expected, atol=1e-5)
        with pytest.raises(InferenceServerException, match=r"request\.forbidden"):
            client.unload_model("tiny")
    daemon.wait_until(lambda: "stream of tiny" in daemon.log(), "the stream's start")
    until = time.monotonic() + WAIT_S
    while peer.answers.empty():  # what is asked before the stream has subscribed for the first time, nobody keeps
        assert time.monotonic() < until, daemon.log()
        peer.ask(json_request(ROWS))
    (output,) = json.loads(peer.answers.get(timeout=WAIT_S).payload)["outputs"]
    assert np.allclose(np.reshape(output["data"], output["shape"]), expected, atol=1e-5)
    daemon.wait_until(lambda: 'edgewright_stream_messages_total{outcome="answered"}' in metrics(daemon), "the stream's count")
    assert 'edgewright_grpc_calls_total{status="PERMISSION_DENIED"} 1' in metrics(daemon)
    assert daemon.stop() == 0
    peer.stop()
    broker.stop()


def metrics(daemon):
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.port}/metrics", timeout=10) as response:
        return response.read().decode()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stream.broker": "mqtt://127.0.0.1"}, "stream.model is missing"),
        (
            {"stream.broker": "mqtt://127.0.0.1", "stream.model": "tiny", "stream.topic_in": "edge/1/#"}
            | {"stream.topic_out": "a", "stream.topic_dead": "b"},
            "takes in the fleet's own line",
        ),
    ],
)
def test_a_stream_that_cannot_be_is_refused_at_the_start(start, settings, said):
    daemon = start(**settings)
    assert daemon.wait_for_end() == 2
    assert said in daemon.log()


def test_grpc_without_its_extra_is_refused_at_the_start(state_dir):
    daemon = DaemonProcess(state_dir, **{"serving.grpc": "true"})
    daemon.start(prelude="import sys; sys.modules['grpc'] = None")
    assert daemon.wait_for_end() == 5
    assert 'runtime: serving.grpc needs an extra: pip install "edgewright[grpc]" [extra.missing]' in daemon.log()
