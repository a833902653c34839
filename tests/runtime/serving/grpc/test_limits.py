"""Does the gRPC endpoint keep its bounds, start only when asked, and stop as HTTP does?"""

import queue
import socket
import struct
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from runtime.errors import ConfigError, ExtraMissingError
from runtime.serving.models.model import ServedModel
from runtime.serving.server import load_grpc
from tests.runtime.serving.conftest import expected_scores
from tests.runtime.serving.grpc.conftest import address

ROWS = np.array([[1, 2, 3, 4], [0, -1, 0.5, 8]], np.float32)


def inputs(rows=ROWS):
    one = triton.InferInput("input", rows.shape, "FP32")
    one.set_data_from_numpy(rows)
    return [one]


def test_an_error_carries_its_code_in_the_text_and_as_metadata(start_grpc):
    with grpc.insecure_channel(address(start_grpc())) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as refused:
            call(service_pb2.ModelInferRequest(model_name="other").SerializeToString())
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert dict(refused.value.trailing_metadata())["edgewright-code"] == "request.unknown_model"
    assert refused.value.details().endswith("[request.unknown_model]")


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("ModelInfer", b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        ("ModelInfer", b"\x0a\x02\xff\xfe", grpc.StatusCode.INVALID_ARGUMENT),
        ("ModelMetadata", b"\x0a\x50no", grpc.StatusCode.INVALID_ARGUMENT),
        ("CudaSharedMemoryStatus", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("Nothing", b"", grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_malformed_and_unknown_calls_are_refused(start_grpc, method, body, status):
    with grpc.insecure_channel(address(start_grpc())) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(body)
        assert refused.value.code() is status
        assert channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"") == b"\x08\x01"


def test_a_message_over_the_limit_is_refused_and_one_below_is_answered(start_grpc, connect):
    client = connect(start_grpc(body_bytes=4096))
    rows = np.ones((230, 4), np.float32)  # 3,680 bytes and a head
    assert client.infer("tiny", inputs(rows)).as_numpy("output").shape == (230, 3)
    with pytest.raises(InferenceServerException) as refused:
        client.infer("tiny", inputs(np.ones((300, 4), np.float32)))
    assert refused.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_a_small_compressed_message_that_grows_over_the_limit_is_refused(start_grpc, connect):
    client = connect(start_grpc(body_bytes=64 * 1024))
    with pytest.raises(InferenceServerException) as refused:
        client.infer("tiny", inputs(np.zeros((100_000, 4), np.float32)), compression_algorithm="gzip")
    assert refused.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_values_one_by_one_have_the_limit_of_json(start_grpc):
    request = service_pb2.ModelInferRequest(model_name="tiny")
    request.inputs.add(name="input", datatype="FP32", shape=[200, 4]).contents.fp32_contents.extend([1.0] * 800)
    with grpc.insecure_channel(address(start_grpc(json_bytes=2048))) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError, match=r"request\.too_large"):
            call(request.SerializeToString())


def test_connections_beyond_the_limit_are_turned_away(start_grpc):
    endpoint = start_grpc(connections=2)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    channels = [grpc.insecure_channel(address(endpoint), options=options) for _ in range(3)]
    calls = [channel.unary_unary("/inference.GRPCInferenceService/ServerLive") for channel in channels]
    assert [call(b"") for call in calls[:2]] == [b"\x08\x01"] * 2
    with pytest.raises(grpc.RpcError) as refused:
        calls[2](b"")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    for channel in channels:
        channel.close()


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def slow_call(endpoint):
    """HTTP/2 by hand: a call whose message never comes whole."""
    client = socket.create_connection(endpoint.server.grpc.address)
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
        (b":authority", b"device"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    client.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0)
        + frame(4, 1, 0)  # grpc's own settings, acknowledged in advance
        + frame(1, 4, 1, b"".join(literal(*header) for header in headers))
        + frame(0, 0, 1, b"\0\0\0\0\x64begun")
    )
    return client


def test_a_request_that_never_arrives_whole_is_ended(start_grpc):
    endpoint = start_grpc(request_s=1)
    with slow_call(endpoint) as client:
        client.settimeout(20)
        received = b""
        while b"request.timeout" not in received:
            part = client.recv(65536)
            assert part, received
            received += part
    assert endpoint.server.grpc.service.answered == {'status="DEADLINE_EXCEEDED"': 1}


def test_half_the_calls_may_be_streams(start_grpc, connect):
    endpoint = start_grpc(connections=2)
    first, second = connect(endpoint), connect(endpoint)
    found, refused = queue.Queue(), queue.Queue()
    first.start_stream(lambda result, error: found.put(error))
    first.async_stream_infer("tiny", inputs())
    assert found.get(timeout=20) is None
    second.start_stream(lambda result, error: refused.put(error))
    assert "serving.overloaded" in refused.get(timeout=20).message()
    first.stop_stream()
    second.stop_stream()


@pytest.fixture
def held(monkeypatch):
    """Inference that waits until it is let go."""
    begun, let_go = threading.Event(), threading.Event()
    original = ServedModel.infer

    def infer(self, *arguments):
        begun.set()
        assert let_go.wait(30)
        return original(self, *arguments)

    monkeypatch.setattr(ServedModel, "infer", infer)
    monkeypatch.setattr(ServedModel, "expected_ns", lambda *_: 1_000_000_000)
    yield begun, let_go
    let_go.set()


def test_a_drain_answers_what_is_under_way_and_ends_streams(start_grpc, connect, held):
    begun, let_go = held
    endpoint = start_grpc()
    client, streaming = connect(endpoint), connect(endpoint)
    found, streamed = queue.Queue(), queue.Queue()
    streaming.start_stream(lambda result, error: streamed.put((result, error)))
    client.async_infer("tiny", inputs(), lambda result, error: found.put((result, error)))
    streaming.async_stream_infer("tiny", inputs())
    assert begun.wait(20)
    drained = threading.Thread(target=lambda: found.put(endpoint.run(endpoint.server.drain())))
    while endpoint.server.grpc.service.calls < 2:
        endpoint.run(turn())
    drained.start()
    while not endpoint.server.grpc.service.is_draining:
        endpoint.run(turn())
    with pytest.raises(InferenceServerException):
        connect(endpoint).is_server_ready()
    let_go.set()
    result, error = found.get(timeout=20)
    assert error is None
    assert np.allclose(result.as_numpy("output"), expected_scores(ROWS), atol=1e-5)
    result, error = streamed.get(timeout=20)
    assert error is None
    assert np.allclose(result.as_numpy("output"), expected_scores(ROWS), atol=1e-5)
    _, error = streamed.get(timeout=20)
    assert "serving.draining" in error.message()
    assert found.get(timeout=20) is True
    drained.join()


async def turn():
    """One turn of the endpoint's loop."""


def test_a_client_that_goes_away_frees_its_place(start_grpc, connect, held):
    begun, let_go = held
    endpoint = start_grpc()
    client = connect(endpoint)
    call = client.async_infer("tiny", inputs(), lambda result, error: None)
    assert begun.wait(20)
    call.cancel()
    while endpoint.server.grpc.service.calls:
        endpoint.run(turn())
    let_go.set()
    assert client.infer("tiny", inputs()).as_numpy("output").shape == (2, 3)


def test_a_port_in_use_is_said(start_grpc):
    taken = start_grpc().server.grpc.address[1]
    with pytest.raises(ConfigError, match=f"cannot serve gRPC on 127.0.0.1:{taken}"):
        start_grpc(serving={"grpc_port": taken})


def test_without_the_extra_it_says_how_to_install_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "runtime.serving.grpc.server", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ExtraMissingError, match=r'pip install "edgewright\[grpc\]"'):
        load_grpc()


def test_nothing_of_it_is_imported_unless_asked_for():
    program = (
        "import sys, runtime.serving.server, runtime.daemon; print('grpc' in sys.modules or 'google.protobuf' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
