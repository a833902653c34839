"""Does the endpoint keep HTTP and its own bounds, whatever a client sends, and answer each route as the protocol says?"""

import gzip
import json
import os
import re
import socket
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.backends.base import get_backend
from runtime.errors import ConfigError, InferenceError
from runtime.monitor.monitor import Monitor
from runtime.serving.limits import ServingSettings
from runtime.serving.models.model import ServedModel
from tests.runtime.serving.conftest import write_artifact

ROWS = np.array([[1, 2, 3, 4], [0, -1, 0.5, 8]], np.float32)


def expected_scores(rows):
    from_seed = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)  # as in conftest.weights
    return rows.astype(np.float64) @ from_seed.astype(np.float64)


class Client:
    """A socket that sends what it is told and reads whole responses."""

    def __init__(self, endpoint, unix_socket=""):
        if unix_socket:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(unix_socket)
        else:
            self.socket = socket.create_connection((endpoint.host, endpoint.port))
        self.socket.settimeout(10)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, raw):
        self.socket.sendall(raw)

    def read(self):
        """Status, headers by lower-case name, and body; None when the server closed the connection."""
        line = self.file.readline()
        if not line:
            return None
        headers = {}
        while (header := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode().partition(":")
            headers[name.lower()] = value.strip()
        return int(line.split()[1]), headers, self.file.read(int(headers.get("content-length", 0)))

    def ask(self, method, path, body=b"", **headers):
        self.send(message(method, path, body, **headers))
        return self.read()

    def is_closed(self):
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True


def message(method, path, body=b"", version="1.1", **headers):
    lines = [f"{method} {path} HTTP/{version}", "Host: device", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def json_body(rows=ROWS, **more):
    return json.dumps(
        {"inputs": [{"name": "input", "shape": rows.shape, "datatype": "FP32", "data": rows.tolist()}], **more}
    ).encode()


def infer(rows=ROWS, path="/v2/models/tiny/infer", **more):
    return message("POST", path, json_body(rows, **more))


@pytest.fixture
def client(endpoint):
    with Client(endpoint) as client:
        yield client


class Gated:
    """Waits in each inference until its gate is open, then fails or lets the real model run."""

    def __init__(self, inner):
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.failure = None
        self._inner = inner

    def infer(self, inputs):
        self.entered.release()
        assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        return self._inner.infer(inputs)

    def close(self):
        self._inner.close()


@pytest.fixture
def gated(repository, artifact):
    """The model `tiny` behind a gate; as nobody has measured it, it is taken for slow."""
    manifest, held = repository.get("tiny").manifest, repository.artifact("tiny")
    model = Gated(get_backend("reference").load(artifact / "model.npz", {}))
    repository.switch(ServedModel(manifest, held, model, Monitor(manifest)))
    yield model
    model.gate.set()


def scores_of(response):
    status, _, body = response
    assert status == 200, body
    return np.array(json.loads(body)["outputs"][0]["data"]).reshape(-1, 3)


# routes


def test_server_and_model_metadata(client):
    status, headers, body = client.ask("GET", "/v2")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert {"binary_tensor_data", "statistics", "system_shared_memory"} <= set(json.loads(body)["extensions"])
    for path in ("/v2/models/tiny", "/v2/models/tiny/", "/v2/models/tiny/versions/1.0.0", "/v2/models/tiny?verbose=1"):
        status, _, body = client.ask("GET", path)
        assert status == 200
        assert json.loads(body) == {
            "name": "tiny",
            "versions": ["1.0.0"],
            "platform": "reference_npz",
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 3]}],
        }


def test_health(client):
    assert client.ask("GET", "/v2/health/live")[0] == 200
    assert client.ask("GET", "/v2/health/ready")[2] == b'{"ready":true}'
    assert json.loads(client.ask("GET", "/v2/models/tiny/ready")[2]) == {"name": "tiny", "ready": True}
    assert client.ask("GET", "/v2/models/tiny/versions/1.0.0/ready")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "request.unknown_route"),
        ("GET", "/v2/models/tiny/trace/setting", 404, "request.unknown_route"),
        ("GET", "/v2/trace/setting", 404, "request.unknown_route"),
        ("POST", "/v2/logging", 404, "request.unknown_route"),
        ("GET", "/v2/cudasharedmemory/status", 403, "request.forbidden"),
        ("POST", "/v2/repository/models/tiny/unload", 403, "request.forbidden"),
        ("GET", "/v2/repository/index", 405, "request.bad_method"),
        ("GET", "/v2/repository/nothing", 404, "request.unknown_route"),
        ("GET", "/v2/systemsharedmemory/region/r/nothing", 404, "request.unknown_route"),
        ("GET", "/v2/systemsharedmemory/region/r/status", 400, "request.shared_memory"),
        ("GET", "/v2/systemsharedmemory/region/%ff/status", 400, "request.invalid"),
        ("GET", "/v2/systemsharedmemory/region//status", 404, "request.unknown_route"),
        ("GET", "/v2/models/other/stats", 404, "request.unknown_model"),
        ("GET", "/v2/models/other/config", 404, "request.unknown_model"),
        ("GET", "/v2/models//ready", 404, "request.unknown_route"),
        ("GET", "/v2/models/tiny/versions", 404, "request.unknown_route"),
        ("GET", "/v2/models/%2e%2e/infer", 405, "request.bad_method"),
        ("GET", "/v2/models/other", 404, "request.unknown_model"),
        ("GET", "/v2/models/tiny/versions/9.0.0", 404, "request.unknown_model"),
        ("GET", "/v2/models/tiny/infer", 405, "request.bad_method"),
        ("POST", "/v2", 405, "request.bad_method"),
        ("DELETE", "/v2/models/tiny", 405, "request.bad_method"),
    ],
)
def test_what_is_not_served_says_so(client, method, path, status, code):
    found, _, body = client.ask(method, path)
    assert (found, json.loads(body)["code"]) == (status, code)
    assert json.loads(body)["error"]
    assert client.ask("GET", "/v2/health/live")[0] == 200


def test_inference_in_json_and_binary_equals_numpy(client):
    np.testing.assert_allclose(
        scores_of(client.ask("POST", "/v2/models/tiny/infer", json_body())), expected_scores(ROWS), rtol=1e-5
    )
    head = json.dumps(
        {
            "id": "a1",
            "inputs": [{"name": "input", "shape": [2, 4], "datatype": "FP32", "parameters": {"binary_data_size": 32}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    path = "/v2/models/tiny/versions/1.0.0/infer"
    status, headers, body = client.ask("POST", path, head + ROWS.tobytes(), inference_header_content_length=len(head))
    assert status == 200
    assert headers["content-type"] == "application/octet-stream"
    length = int(headers["inference-header-content-length"])
    assert json.loads(body[:length])["id"] == "a1"
    found = np.frombuffer(body[length:], np.float32).reshape(2, 3)
    np.testing.assert_allclose(found, expected_scores(ROWS), rtol=1e-5)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "request.invalid"),
        (b"{", "request.invalid"),
        (b'{"inputs":[]}', "request.invalid"),
        (json_body(np.zeros((1, 5))), "request.invalid"),
        (json_body(np.zeros((0, 4))), "request.invalid"),
        (json_body(np.zeros((1, 1, 4))), "request.invalid"),
        (json_body().replace(b'"input"', b'"other"'), "request.invalid"),
        (json_body().replace(b"FP32", b"FP64"), "request.invalid"),
        (json_body(outputs=[{"name": "nothing"}]), "request.invalid"),
    ],
)
def test_requests_that_do_not_fit_the_model_are_400_and_no_failure_of_the_model(client, repository, body, code):
    status, _, found = client.ask("POST", "/v2/models/tiny/infer", body)
    assert (status, json.loads(found)["code"]) == (400, code)
    assert repository.get("tiny").monitor.totals().errors == 0
    assert client.ask("GET", "/v2/health/live")[0] == 200


def test_a_surplus_input_is_named(client):
    extra = {"name": "more", "shape": [1], "datatype": "FP32", "data": [1]}
    body = json.loads(json_body())
    body["inputs"].append(extra)
    status, _, found = client.ask("POST", "/v2/models/tiny/infer", json.dumps(body).encode())
    assert status == 400
    assert "'more'" in json.loads(found)["error"]


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"\x1f\x8b", 400),
        ("gzip", gzip.compress(json_body())[:-4], 400),
        ("gzip", gzip.compress(json_body()) + b"more", 400),
        ("gzip", zlib.compress(json_body()), 400),
        ("br", b"", 400),
        ("gzip", gzip.compress(b" " * 100_000), 413),
        ("gzip", gzip.compress(json_body()), 200),
        ("deflate", zlib.compress(json_body()), 200),
        ("identity", json_body(), 200),
    ],
)
def test_compressed_bodies_are_read_within_the_limit_of_any_body(start, encoding, body, status):
    with Client(start(body_bytes=50_000)) as client:
        found, _, answer = client.ask("POST", "/v2/models/tiny/infer", body, content_encoding=encoding)
        assert found == status, answer
        assert client.ask("GET", "/v2/health/live")[0] == 200


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br, Deflate;q=0.5, gzip;q=0", "deflate"),
        ("br;q=1.0", None),
        ("gzip;q=0.000", None),
        ("", None),
    ],
)
def test_long_answers_are_compressed_as_the_client_accepts(client, accepted, encoding):
    rows = np.ones((300, 4), np.float32)
    status, headers, body = client.ask("POST", "/v2/models/tiny/infer", json_body(rows), accept_encoding=accepted)
    assert (status, headers.get("content-encoding")) == (200, encoding)
    plain = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[encoding](body)
    assert json.loads(plain)["outputs"][0]["shape"] == [300, 3]
    assert "content-encoding" not in client.ask("POST", "/v2/models/tiny/infer", json_body(), accept_encoding=accepted)[1]


def test_metrics_count_inferences_and_responses(client):
    for _ in range(3):
        client.send(infer())
        assert client.read()[0] == 200
    client.ask("GET", "/nowhere")
    status, headers, body = client.ask("GET", "/metrics")
    text = body.decode()
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    labels = 'model="tiny",version="1.0.0",target="any-cpu",role="active"'
    assert f"edgewright_inferences_total{{{labels}}} 3" in text
    assert f"edgewright_monitored_rows_total{{{labels}}} 6" in text
    assert f'edgewright_inference_seconds_bucket{{{labels},le="+Inf"}} 3' in text
    assert 'edgewright_http_responses_total{status="404"} 1' in text
    assert "edgewright_http_connections 1" in text
    sample = re.compile(r'^(#.*|[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+)$')
    assert all(sample.match(line) for line in text.splitlines())
    assert int(re.search(r"process_resident_memory_bytes (\d+)", text)[1]) > 10_000_000


def test_nan_goes_through_and_is_counted_as_missing(client, repository):
    rows = ROWS.copy()
    rows[0, 2] = np.nan
    head = json.dumps(
        {"inputs": [{"name": "input", "shape": [2, 4], "datatype": "FP32", "parameters": {"binary_data_size": 32}}]}
    ).encode()
    status, _, body = client.ask(
        "POST", "/v2/models/tiny/infer", head + rows.tobytes(), Inference_Header_Content_Length=len(head)
    )
    assert status == 200
    assert json.loads(body)["outputs"][0]["data"][:3] == [None, None, None]
    window = repository.get("tiny").monitor.take()
    assert [stream.missing for stream in window.streams] == [0, 0, 1, 0]
    assert (window.rows, sum(window.classes)) == (2, 1)


# HTTP


def test_a_connection_serves_many_requests_and_closes_when_asked(client):
    for _ in range(50):
        client.send(infer())
        assert client.read()[0] == 200
    status, headers, _ = client.ask("GET", "/v2", Connection="close")
    assert (status, headers["connection"]) == (200, "close")
    assert client.is_closed()


def test_http_1_0_is_answered_and_closed(client):
    client.send(message("GET", "/v2/health/live", version="1.0"))
    assert client.read()[0] == 200
    assert client.is_closed()


def test_pipelined_requests_are_answered_in_order(client, endpoint):
    rows = [np.full((1, 4), index, np.float32) for index in range(100)]
    client.send(b"".join(infer(row) for row in rows))
    for row in rows:
        np.testing.assert_allclose(scores_of(client.read()), expected_scores(row), rtol=1e-5, atol=1e-6)
    assert endpoint.server._hub.buffered_bytes == 0


def test_requests_in_single_bytes_and_in_chunks_are_read(client):
    for byte in infer():
        client.send(bytes([byte]))
    assert client.read()[0] == 200
    body = json_body()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7))
    client.send(b"POST /v2/models/tiny/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    np.testing.assert_allclose(scores_of(client.read()), expected_scores(ROWS), rtol=1e-5)


def test_expectations_are_met_before_the_body_is_sent(client):
    body = json_body()
    client.send(message("POST", "/v2/models/tiny/infer", body, Expect="100-continue").removesuffix(body))
    assert client.file.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert client.file.readline() == b"\r\n"
    client.send(body)
    assert client.read()[0] == 200


def test_an_offered_upgrade_is_declined_by_answering(client):
    client.send(message("GET", "/v2", Connection="Upgrade", Upgrade="h2c"))
    assert client.read()[0] == 200
    assert client.is_closed()


def test_a_client_that_stops_sending_still_gets_its_answer(client):
    client.send(infer() + infer())
    client.socket.shutdown(socket.SHUT_WR)
    assert [client.read()[0], client.read()[0]] == [200, 200]
    assert client.is_closed()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/3.7\r\n\r\n",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -4\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\nInference-Header-Content-Length: 4_0\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_malformed_http_is_400_and_closed(client, raw):
    client.send(raw)
    status, headers, body = client.read()
    assert (status, json.loads(body)["code"]) == (400, "request.invalid")
    assert headers["connection"] == "close"
    assert client.is_closed()


def test_a_malformed_request_behind_good_ones_does_not_cost_their_answers(client):
    client.send(infer() + infer() + b"nonsense\r\n\r\n")
    assert [client.read()[0] for _ in range(3)] == [200, 200, 400]
    assert client.is_closed()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_requests_never_stop_the_endpoint(endpoint, data):
    raw = bytearray(infer())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with Client(endpoint) as client:
        client.send(bytes(raw))
        client.socket.shutdown(socket.SHUT_WR)
        while (response := client.read()) is not None:
            assert response[0] in (200, 400, 403, 404, 405, 413)
    with Client(endpoint) as client:
        client.send(infer())
        assert client.read()[0] == 200


# bounds


def test_an_announced_oversize_body_is_413_before_it_is_read(start):
    with Client(start(body_bytes=1000)) as client:
        client.send(b"POST /v2/models/tiny/infer HTTP/1.1\r\nContent-Length: 1001\r\n\r\n")
        status, _, body = client.read()
        assert (status, json.loads(body)["code"]) == (413, "request.too_large")
        assert client.is_closed()


def test_a_large_body_sent_all_the_same_does_not_lose_the_413(start):
    with Client(start(body_bytes=1000)) as client:
        sender = threading.Thread(target=_send_until_refused, args=(client, message("POST", "/v2", b"x" * 30_000_000)))
        sender.start()
        assert client.read()[0] == 413
        sender.join()


def _send_until_refused(client, raw):
    try:
        client.send(raw)
    except OSError as error:
        assert isinstance(error, BrokenPipeError | ConnectionResetError)  # noqa: PT017 - either is the server hanging up


def test_an_oversize_chunked_body_is_413(start):
    with Client(start(body_bytes=1000)) as client:
        client.send(b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"100\r\n" + b"x" * 256 + b"\r\n") * 4)
        assert client.read()[0] == 413


def test_a_body_of_exactly_the_limit_is_read(start):
    body = json_body()
    with Client(start(body_bytes=len(body))) as client:
        assert client.ask("POST", "/v2/models/tiny/infer", body)[0] == 200
        assert client.ask("POST", "/v2/models/tiny/infer", body + b" ")[0] == 413


def test_a_json_part_over_its_limit_is_413_and_the_connection_goes_on(start):
    with Client(start(json_bytes=200)) as client:
        assert client.ask("POST", "/v2/models/tiny/infer", json_body(id="x" * 200))[0] == 413
        assert client.ask("POST", "/v2/models/tiny/infer", json_body())[0] == 200


def test_bodies_of_all_connections_together_are_bounded(start):
    endpoint = start(buffered_bytes=1500)
    with Client(endpoint) as first, Client(endpoint) as second:
        first.send(message("POST", "/v2", b"x" * 1000).removesuffix(b"x"))
        _wait(lambda: endpoint.server._hub.buffered_bytes == 999)
        second.send(message("POST", "/v2", b"x" * 1000))
        status, _, body = second.read()
        assert (status, json.loads(body)["code"]) == (503, "serving.overloaded")
        first.send(b"x")
        assert first.read()[0] == 405
    assert endpoint.server._hub.buffered_bytes == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 600,
        b"GET / HTTP/1.1\r\nx: " + b"y" * 2000,
        b"GET / HTTP/1.1\r\n" + b"y" * 2000,
    ],
    ids=["target", "many", "value without end", "name without end"],
)
def test_oversize_headers_are_431(start, raw):
    with Client(start(header_bytes=1024)) as client:
        for part in (raw[:700], raw[700:1400], raw[1400:]):
            client.send(part)
        status, _, body = client.read()
        assert (status, json.loads(body)["code"]) == (431, "request.header_too_large")


def test_large_bodies_do_not_count_as_headers(start):
    with Client(start(header_bytes=1024)) as client:
        for _ in range(3):
            client.send(infer(np.zeros((500, 4))) * 2)
            assert [client.read()[0], client.read()[0]] == [200, 200]


@pytest.mark.parametrize("sent", [b"GET /v2 HT", infer()[:-5]], ids=["in the header", "in the body"])
def test_a_request_that_does_not_arrive_in_time_is_408(start, sent):
    with Client(start(request_s=1)) as client:
        client.send(sent)
        status, _, body = client.read()
        assert (status, json.loads(body)["code"]) == (408, "request.timeout")
        assert client.is_closed()


def test_idle_connections_are_closed(start):
    with Client(start(idle_s=1)) as client:
        assert client.ask("GET", "/v2")[0] == 200
        assert client.is_closed()


def test_a_client_that_does_not_read_its_answers_is_dropped(start):
    endpoint = start(request_s=1)
    with Client(endpoint) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            client.send(infer(np.zeros((500, 4))) * 10_000)
    assert endpoint.server.connections == 0


def test_connections_beyond_the_limit_are_503_and_others_go_on(start):
    endpoint = start(connections=2)
    with Client(endpoint) as first, Client(endpoint) as second:
        assert first.ask("GET", "/v2")[0] == second.ask("GET", "/v2")[0] == 200
        with Client(endpoint) as third:
            status, _, body = third.read()
            assert (status, json.loads(body)["code"]) == (503, "serving.overloaded")
        assert first.ask("GET", "/v2")[0] == 200


# slow and failing models


def test_a_slow_model_does_not_keep_the_rest_waiting(endpoint, gated):
    with Client(endpoint) as slow, Client(endpoint) as quick:
        slow.send(infer())
        assert gated.entered.acquire(timeout=5)
        assert quick.ask("GET", "/v2/health/live")[0] == 200
        gated.gate.set()
        np.testing.assert_allclose(scores_of(slow.read()), expected_scores(ROWS), rtol=1e-5)


def test_long_json_is_read_in_the_thread_of_the_model(endpoint):
    rows = np.random.default_rng(3).normal(size=(5000, 4)).astype(np.float32)
    with Client(endpoint) as client:
        np.testing.assert_allclose(
            scores_of(client.ask("POST", "/v2/models/tiny/infer", json_body(rows))), expected_scores(rows), rtol=1e-4, atol=1e-5
        )
        status, _, body = client.ask("POST", "/v2/models/tiny/infer", json_body(rows)[:-9])
        assert (status, json.loads(body)["code"]) == (400, "request.invalid")
    assert any(thread.name.startswith("infer-tiny") for thread in threading.enumerate())


def test_pipelined_requests_keep_their_order_behind_a_slow_one(endpoint, gated):
    with Client(endpoint) as client:
        client.send(infer(id="first") + message("GET", "/v2/health/live") + infer(id="last"))
        assert gated.entered.acquire(timeout=5)
        gated.gate.set()
        bodies = [json.loads(client.read()[2]) for _ in range(3)]
        assert (bodies[0]["id"], bodies[1], bodies[2]["id"]) == ("first", {"live": True}, "last")


def test_more_waiting_requests_than_allowed_are_503(start, gated):
    endpoint = start(waiting=1)
    with Client(endpoint) as first, Client(endpoint) as second:
        first.send(infer())
        assert gated.entered.acquire(timeout=5)
        second.send(infer())
        status, _, body = second.read()
        assert (status, json.loads(body)["code"]) == (503, "serving.overloaded")
        gated.gate.set()
        assert first.read()[0] == 200


def test_bodies_that_wait_for_a_slow_model_count_as_buffered(start, gated):
    body = json_body()
    endpoint = start(buffered_bytes=2 * len(body))
    with Client(endpoint) as first, Client(endpoint) as second, Client(endpoint) as third:
        first.send(infer())
        assert gated.entered.acquire(timeout=5)
        second.send(infer())
        _wait(lambda: endpoint.server._hub.buffered_bytes == 2 * len(body))
        third.send(infer())
        assert third.read()[0] == 503
        gated.gate.set()
        assert first.read()[0] == second.read()[0] == 200
    assert endpoint.server._hub.buffered_bytes == 0


@pytest.mark.parametrize(
    ("failure", "code"), [(InferenceError("engine says no"), "engine.inference_failed"), (KeyError("bug"), "daemon.error")]
)
def test_a_failing_model_is_500_with_its_code_and_counted(endpoint, gated, caplog, failure, code):
    gated.gate.set()
    gated.failure = failure
    with Client(endpoint) as client:
        client.send(infer())
        status, _, body = client.read()
        assert (status, json.loads(body)["code"]) == (500, code)
        assert "bug" not in body.decode()
        gated.failure = None
        client.send(infer())
        assert client.read()[0] == 200
    assert endpoint.repository.health("tiny")[:2] == (2, 1)
    assert ("a request failed unexpectedly" in caplog.text) == (code == "daemon.error")


def test_a_client_that_leaves_during_its_inference_leaves_nothing_behind(endpoint, repository, gated):
    with Client(endpoint) as client:
        client.send(infer())
        assert gated.entered.acquire(timeout=5)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
    _wait(lambda: endpoint.server.connections == 0)
    gated.gate.set()
    _wait(lambda: repository.health("tiny")[:2] == (1, 0))
    _wait(lambda: endpoint.server._hub.buffered_bytes == 0)
    with Client(endpoint) as client:
        client.send(infer())
        assert client.read()[0] == 200


# start, drain, stop


def test_the_unix_socket_serves_too_and_is_removed(start, tmp_path):
    path = str(tmp_path / "runtime.sock")
    endpoint = start(settings=ServingSettings(port=0, unix_socket=path))
    with Client(endpoint, path) as client:
        client.send(infer())
        np.testing.assert_allclose(scores_of(client.read()), expected_scores(ROWS), rtol=1e-5)
    assert os.stat(path).st_mode & 0o777 == 0o660  # noqa: PTH116 - the mode of the socket itself
    endpoint.run(endpoint.server.close())
    assert not (tmp_path / "runtime.sock").exists()


def test_a_socket_file_left_by_a_crash_is_replaced(start, tmp_path):
    path = str(tmp_path / "runtime.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    endpoint = start(settings=ServingSettings(port=0, unix_socket=path))
    with Client(endpoint, path) as client:
        assert client.ask("GET", "/v2")[0] == 200


def test_an_address_that_cannot_be_bound_is_a_configuration_error(start, endpoint, tmp_path):
    with pytest.raises(ConfigError, match=str(endpoint.port)):
        start(settings=ServingSettings(port=endpoint.port))
    with pytest.raises(ConfigError, match="absent"):
        start(settings=ServingSettings(port=0, unix_socket=str(tmp_path / "absent" / "runtime.sock")))


def test_draining_answers_what_is_under_way_and_refuses_the_rest(endpoint, gated):
    with Client(endpoint) as busy, Client(endpoint) as idle:
        busy.send(infer())
        assert idle.ask("GET", "/v2")[0] == 200
        assert gated.entered.acquire(timeout=5)
        drained = []
        drainer = threading.Thread(target=lambda: drained.append(endpoint.run(endpoint.server.drain())))
        drainer.start()
        assert idle.is_closed()
        _wait(lambda: not _accepts(endpoint))
        gated.gate.set()
        status, headers, _ = busy.read()
        assert (status, headers["connection"]) == (200, "close")
        drainer.join()
        assert drained == [True]


def test_draining_ends_in_time_even_when_a_model_hangs(start, gated):
    endpoint = start(settings=ServingSettings(port=0, drain_s=0))
    with Client(endpoint) as client:
        client.send(infer())
        assert gated.entered.acquire(timeout=5)
        assert endpoint.run(endpoint.server.drain()) is False
        assert client.is_closed()


def test_readiness_turns_false_while_draining(endpoint, gated):
    with Client(endpoint) as client:
        client.send(infer() + message("GET", "/v2/health/ready") + message("GET", "/v2/models/tiny/ready"))
        assert gated.entered.acquire(timeout=5)
        drainer = threading.Thread(target=lambda: endpoint.run(endpoint.server.drain()))
        drainer.start()
        _wait(lambda: not _accepts(endpoint))
        gated.gate.set()
        assert [client.read()[0] for _ in range(3)] == [200, 503, 503]
        drainer.join()


def _accepts(endpoint):
    try:
        socket.create_connection((endpoint.host, endpoint.port), timeout=1).close()
    except OSError:
        return False
    return True


def _wait(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true in time"
        time.sleep(0.005)


def test_an_answer_to_head_has_no_body(client):
    client.send(message("HEAD", "/v2") + message("GET", "/v2/health/live"))
    assert client.read()[::2] == (405, b"")
    assert client.read()[::2] == (200, b'{"live":true}')


# variants and batching, as a client sees them


def test_the_variant_that_answered_is_named_and_a_key_keeps_to_it(client, repository, tmp_path):
    repository.switch(repository.open(write_artifact(tmp_path / "b", version="1.1.0", scale=2.0), "split", 5_000))
    answers = {}
    for index in range(40):
        key = f"user-{index}"
        status, headers, body = client.ask("POST", "/v2/models/tiny/infer", json_body(), edgewright_split_key=key)
        answer = json.loads(body)
        assert status == 200
        assert headers.get("edgewright-variant") == answer.get("parameters", {}).get("variant")
        answers[key] = (answer["model_version"], headers.get("edgewright-variant"))
        scale = {"1.0.0": 1, "1.1.0": 2}[answer["model_version"]]
        np.testing.assert_allclose(answer["outputs"][0]["data"], scale * expected_scores(ROWS).ravel(), rtol=1e-4)
    assert set(answers.values()) == {("1.0.0", None), ("1.1.0", "split")}
    for key, (version, _) in answers.items():
        body = json_body(parameters={"split_key": key})
        assert json.loads(client.ask("POST", "/v2/models/tiny/infer", body)[2])["model_version"] == version
    assert json.loads(client.ask("GET", "/v2/models/tiny")[2])["versions"] == ["1.0.0", "1.1.0"]
    assert json.loads(client.ask("GET", "/v2/models/tiny/versions/1.1.0")[2])["versions"] == ["1.1.0"]
    stats = json.loads(client.ask("GET", "/v2/models/tiny/stats")[2])["model_stats"]
    assert {one["version"] for one in stats} == {"1.0.0", "1.1.0"}
    index = json.loads(client.ask("POST", "/v2/repository/index")[2])
    assert [(one["version"], one["state"], one["reason"]) for one in index] == [
        ("1.0.0", "READY", ""),
        ("1.1.0", "READY", "serves as split"),
    ]


def test_a_parameter_names_the_key_before_a_header_does(client, repository, tmp_path):
    repository.switch(repository.open(write_artifact(tmp_path / "b", version="1.1.0"), "split", 5_000))
    by_key = {}
    for key in ("user-0", "user-1", "user-2", "user-3", "user-4", "user-5"):
        body = json_body(parameters={"split_key": key})
        by_key[key] = json.loads(client.ask("POST", "/v2/models/tiny/infer", body)[2])["model_version"]
        other = "user-1" if by_key[key] != by_key.get("user-1") else "user-0"
        answer = client.ask("POST", "/v2/models/tiny/infer", body, edgewright_split_key=other)[2]
        assert json.loads(answer)["model_version"] == by_key[key]
    assert len(set(by_key.values())) == 2


def test_joining_is_told_in_the_configuration(start):
    endpoint = start(settings=ServingSettings(port=0, batch_rows=8, batch_delay_us=700))
    with Client(endpoint) as client:
        config = json.loads(client.ask("GET", "/v2/models/tiny/config")[2])
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (8, [4])
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 700


def test_where_memory_is_shared_is_by_address_unless_it_is_said(start, tmp_path, monkeypatch):
    for host, chosen, offered in (
        ("127.0.0.1", "local", True),
        ("localhost", "local", True),
        ("127.9.9.9", "local", True),
        ("::1", "local", True),
        ("0.0.0.0", "local", False),
        ("10.0.0.1", "local", False),
        ("", "local", False),
        ("10.0.0.1", "always", True),
        ("127.0.0.1", "never", False),
    ):
        assert ServingSettings(host=host, shared_memory=chosen).offers_shared_memory == offered
    path = str(tmp_path / "socket")
    monkeypatch.setattr("runtime.serving.limits._is_loopback", lambda _: False)  # as if it were bound to a network's address
    mixed = start(settings=ServingSettings(port=0, unix_socket=path))
    with Client(mixed) as far, Client(mixed, path) as near:
        assert far.ask("GET", "/v2/systemsharedmemory/status")[0] == 400
        assert near.ask("GET", "/v2/systemsharedmemory/status")[::2] == (200, b"[]")
    with Client(start(settings=ServingSettings(port=0, shared_memory="never"))) as client:
        status, _, body = client.ask("GET", "/v2/systemsharedmemory/status")
        assert (status, json.loads(body)["code"]) == (400, "request.shared_memory")


def test_inputs_from_shared_memory_that_wait_count_as_buffered(start, gated, tmp_path):
    endpoint = start(buffered_bytes=700)
    (tmp_path / "object").write_bytes(ROWS.tobytes() * 8)
    regions = endpoint.server._app.regions
    regions._directory = str(tmp_path)
    regions.register("r", "object", 0, 256)
    body = json.dumps(
        {
            "inputs": [
                {
                    "name": "input",
                    "shape": [16, 4],
                    "datatype": "FP32",
                    "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 256},
                }
            ]
        }
    ).encode()
    with Client(endpoint) as first, Client(endpoint) as second:
        first.send(message("POST", "/v2/models/tiny/infer", body))
        assert gated.entered.acquire(timeout=5)
        status, _, answer = second.ask("POST", "/v2/models/tiny/infer", body)
        assert (status, json.loads(answer)["code"]) == (503, "serving.overloaded")
        gated.gate.set()
        assert first.read()[0] == 200
        assert second.ask("POST", "/v2/models/tiny/infer", body)[0] == 200
    _wait(lambda: endpoint.server._hub.buffered_bytes == 0)
