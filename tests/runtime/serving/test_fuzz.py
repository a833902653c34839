"""Whatever a client sends, whole or cut or changed: is every answer well-formed and the fault said to be its own?

Requests are made from the protocol's own words (addresses, fields, parameters, header names) with values of any kind, in any
framing and compression, and then bytes of some are changed.
"""

import gzip
import json
import os
import socket
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.contract.artifact import TensorSpec
from runtime.serving.limits import LimitSettings, ServingSettings
from runtime.serving.metrics import resident_bytes
from runtime.serving.repository import Repository
from tests.runtime.serving.conftest import Endpoint, write_artifact
from tests.support.devices import write_onnx_artifact

ALLOWED = {200, 400, 403, 404, 405, 408, 413, 431, 503}
DATATYPES = ["BOOL", "UINT8", "INT64", "UINT64", "FP16", "BF16", "FP32", "FP64", "BYTES", "FP8", ""]
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-3, 40),
    st.floats(),
    st.sampled_from([2**31, 2**40, 2**63 - 1, 2**63, 2**64, 1e400]),
)
TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(["input", "output", "IN", "OUT", "region", "tiny", "..", "/", "\0"]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
SHAPES = st.one_of(
    st.sampled_from([[1, 4], [2, 4], [1, 2], [4], [], [0, 4], [1, 0]]),
    st.lists(st.integers(0, 6), max_size=4),
    st.lists(NUMBERS, max_size=10),
    VALUES,
)
DATA = st.one_of(
    st.lists(st.floats(-5, 5), max_size=8),
    st.just([1, 2, 3, 4]),
    st.just([[1, 2, 3, 4]]),
    st.just(["a", "\u00fc"]),
    st.lists(VALUES, max_size=8),
    VALUES,
)
TENSOR_PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "binary_data_size": st.one_of(st.integers(0, 64), VALUES),
        "binary_data": st.one_of(st.booleans(), VALUES),
        "shared_memory_region": st.one_of(st.just("region"), VALUES),
        "shared_memory_byte_size": st.one_of(st.sampled_from([8, 16, 32]), VALUES),
        "shared_memory_offset": st.one_of(st.integers(0, 64), VALUES),
        "classification": st.one_of(st.integers(0, 5), VALUES),
        "anything": VALUES,
    },
)
INPUTS = st.fixed_dictionaries(
    {
        "name": st.one_of(st.sampled_from(["input", "IN"]), TEXTS),
        "shape": SHAPES,
        "datatype": st.one_of(st.sampled_from(DATATYPES), TEXTS),
    },
    optional={"data": DATA, "parameters": TENSOR_PARAMETERS},
)
OUTPUTS = st.fixed_dictionaries(
    {"name": st.one_of(st.sampled_from(["output", "OUT"]), TEXTS)}, optional={"parameters": TENSOR_PARAMETERS}
)
INFER = st.fixed_dictionaries(
    {"inputs": st.one_of(st.lists(INPUTS, min_size=1, max_size=3), VALUES)},
    optional={
        "id": TEXTS,
        "outputs": st.one_of(st.lists(OUTPUTS, max_size=3), VALUES),
        "parameters": st.one_of(
            st.fixed_dictionaries({}, optional={"binary_data_output": st.booleans(), "split_key": VALUES, "priority": VALUES}),
            VALUES,
        ),
    },
)
REGISTER = st.fixed_dictionaries(
    {"key": st.one_of(st.just("OBJECT"), TEXTS), "byte_size": st.one_of(st.integers(0, 200), VALUES)},
    optional={"offset": st.one_of(st.integers(0, 200), VALUES)},
)
OTHERS = st.one_of(REGISTER, st.fixed_dictionaries({"ready": VALUES}), st.fixed_dictionaries({"parameters": VALUES}), VALUES)
PARTS = st.one_of(
    st.sampled_from(
        [
            "v2", "models", "tiny", "text", "half", "versions", "1.0.0", "infer", "ready", "config", "stats", "health", "live", "trace",
            "setting", "logging", "repository", "index", "load", "unload", "systemsharedmemory", "cudasharedmemory", "region", "status",
            "register", "unregister", "metrics", "%2e%2e", "%ff", "..", "",
        ]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8),
)  # fmt: skip
PATHS = st.one_of(
    st.sampled_from(
        [
            "v2/models/tiny/infer", "v2/models/text/infer", "v2/models/half/infer", "v2/models/tiny/versions/1.0.0/infer",
            "v2/systemsharedmemory/region/more/register", "v2/systemsharedmemory/region/more/unregister",
            "v2/systemsharedmemory/status", "v2/repository/index", "v2/repository/models/tiny/load", "v2/models/stats",
        ]
    ),
    st.lists(PARTS, max_size=7).map("/".join),
)  # fmt: skip
METHODS = st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS"])


@st.composite
def requests(draw, key="OBJECT"):
    """One HTTP request as bytes."""
    path = draw(PATHS)
    body = json.dumps(draw(INFER if path.endswith("infer") else OTHERS)).replace("OBJECT", key).encode()
    headers = {"Host": "device"}
    if draw(st.booleans()):
        headers["Inference-Header-Content-Length"] = str(len(body) if draw(st.booleans()) else draw(st.integers(-1, 200)))
        body += draw(st.one_of(st.just(bytes(32)), st.just(struct.pack("<I1sI2s", 1, b"a", 2, b"bc")), st.binary(max_size=64)))
    encoding = draw(st.sampled_from(["", "", "", "gzip", "deflate", "br", "identity"]))
    if encoding:
        headers["Content-Encoding"] = encoding
        packed = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)(body)
        body = packed if draw(st.booleans()) else body
    if draw(st.booleans()):
        headers["Accept-Encoding"] = draw(st.sampled_from(["gzip", "deflate", "gzip;q=0", "br", ";;q", "gzip, deflate"]))
    if draw(st.booleans()):
        headers["Edgewright-Split-Key"] = draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=9))
    if draw(st.booleans()):
        headers["Content-Length"] = str(len(body))
    elif draw(st.booleans()):
        headers["Transfer-Encoding"] = "chunked"
        cut = draw(st.integers(0, len(body)))
        chunks = [part for part in (body[:cut], body[cut:]) if part]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in chunks) + b"0\r\n\r\n"
    else:
        headers["Content-Length"] = str(draw(st.integers(0, len(body) + 3)))
    lines = [f"{draw(METHODS)} /{path} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()]]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@st.composite
def conversations(draw, key="OBJECT"):
    """Some requests on one connection, perhaps with bytes of theirs changed, dropped or doubled."""
    raw = bytearray(b"".join(draw(st.lists(requests(key), min_size=1, max_size=3))))
    for _ in range(draw(st.sampled_from([0, 0, 1, 4]))):
        place = draw(st.integers(0, len(raw) - 1))
        end = min(len(raw), place + draw(st.integers(0, 8)))
        raw[place:end] = draw(st.one_of(st.just(b""), st.just(bytes(raw[place:end]) * 2), st.binary(min_size=1, max_size=4)))
        if not raw:
            return b"\r\n"
    return bytes(raw)


@pytest.fixture(scope="module")
def surface(tmp_path_factory):
    """An endpoint that serves numbers, strings and half precision, with a region of 128 bytes."""
    folder = tmp_path_factory.mktemp("fuzz")
    key = f"ew-fuzz-{os.getpid()}"
    path = f"/dev/shm/{key}"
    with open(path, "wb") as file:  # noqa: PTH123 - an object, no file
        file.write(bytes(128))
    repository = Repository()
    repository.switch(repository.open(write_artifact(folder / "tiny")))
    for name, datatype in (("text", "BYTES"), ("half", "BF16")):
        ports = [TensorSpec(name=port, datatype=datatype, shape=(-1, -1)) for port in ("IN", "OUT")]
        repository.switch(repository.open(write_onnx_artifact(folder / name, name, ports[:1], ports[1:], [_echo()])))
    endpoint = Endpoint(
        repository, ServingSettings(port=0), LimitSettings(body_bytes=20_000, json_bytes=10_000, header_bytes=2_000)
    )
    endpoint.server._app.regions.register("region", key, 0, 128)
    yield endpoint, key
    endpoint.stop()
    repository.close()
    os.unlink(path)  # noqa: PTH108


def _echo():
    from onnx import helper

    return helper.make_node("Identity", ["IN"], ["OUT"])


def converse(endpoint, raw):
    """Send all of it, then nothing more. Returns the statuses of the answers, each held against HTTP and the protocol."""
    with socket.create_connection((endpoint.host, endpoint.port)) as client, client.makefile("rb") as file:
        client.settimeout(10)
        try:
            client.sendall(raw)
            client.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError, OSError):
            pass  # refused before all was sent
        statuses = []
        while line := file.readline():
            if line == b"HTTP/1.1 100 Continue\r\n":
                assert file.readline() == b"\r\n"
                continue
            version, status, _ = line.split(b" ", 2)
            assert version == b"HTTP/1.1"
            statuses.append(int(status))
            headers = {}
            while (header := file.readline()) != b"\r\n":
                name, colon, value = header.partition(b": ")
                assert colon
                headers[name.lower()] = value.strip()
            body = file.read(int(headers[b"content-length"]))
            assert len(body) == int(headers[b"content-length"])
            if body or b"HEAD" not in raw:
                require_well_formed(int(status), headers, body)
        return statuses


def require_well_formed(status, headers, body):
    if b"content-encoding" in headers:
        body = {b"gzip": gzip.decompress, b"deflate": zlib.decompress}[headers[b"content-encoding"]](body)
    if status >= 400 and b'"ready":false' not in body:
        error = json.loads(body)
        assert error["error"]
        assert error["code"].startswith(("request.", "serving.")), error
    elif headers[b"content-type"] == b"application/json":
        assert body == b"" or json.loads(body) is not None
    elif b"inference-header-content-length" in headers:
        length = int(headers[b"inference-header-content-length"])
        sizes = [tensor.get("parameters", {}).get("binary_data_size", 0) for tensor in json.loads(body[:length])["outputs"]]
        assert len(body) == length + sum(sizes)


def require_alive(endpoint):
    body = b'{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'
    head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert converse(endpoint, head + body) == [200]
    assert endpoint.server._hub.buffered_bytes == 0


def fuzz(surface, raw):
    endpoint, key = surface
    statuses = converse(endpoint, raw.replace(b"OBJECT", key.encode()))
    assert set(statuses) <= ALLOWED, statuses


COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=400, **COMMON)
@given(conversations())
def test_the_surface_answers_or_closes_whatever_it_is_sent(surface, raw):
    fuzz(surface, raw)


def test_it_serves_as_before_after_that(surface):
    require_alive(surface[0])


@pytest.mark.slow
def test_twenty_thousand_conversations_leave_no_memory_behind(surface):
    def many(count):
        @settings(max_examples=count, database=None, **COMMON)
        @given(conversations())
        def run(raw):
            fuzz(surface, raw)

        run()

    many(2_000)
    before = resident_bytes()
    many(18_000)
    assert resident_bytes() - before < 64 << 20  # hypothesis itself keeps what it saw
    require_alive(surface[0])


def test_the_fuzzer_reaches_what_it_is_for(surface):
    """A fuzzer that is refused at the door finds nothing: a fair part of its requests must be served and of each kind refused."""
    seen = []

    @settings(max_examples=300, database=None, derandomize=True, **COMMON)
    @given(requests())
    def run(raw):
        seen.extend(converse(surface[0], raw.replace(b"OBJECT", surface[1].encode())))

    run()
    assert {200, 400, 403, 404, 405} <= set(seen)
    assert seen.count(200) > len(seen) / 50
