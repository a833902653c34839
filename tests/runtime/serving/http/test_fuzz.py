"""Whatever a client sends, whole or cut or changed: is every answer well-formed and the fault said to be its own?

Requests are made from the protocol's own words (addresses, fields, parameters, header names) with values of any kind, in any
framing and compression, and then bytes of some are changed.
"""

import contextlib
import gzip
import json
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runtime.contract.artifact import TensorSpec
from runtime.serving.limits import LimitSettings, ServingSettings
from runtime.serving.models.repository import Repository
from tests.runtime.serving.conftest import Endpoint, write_artifact
from tests.support.daemon import DaemonProcess
from tests.support.devices import active_slot, write_onnx_artifact

ALLOWED = {200, 400, 403, 404, 405, 408, 413, 431, 503}
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-3, 40),
    st.floats(),
    st.sampled_from([2**31, 2**40, 2**63 - 1, 2**63, 2**64, 1e400]),
)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["input", "OUT", "region", "..", "/", "\0", "BOOL", "UINT8", "INT64", "FP16", "FP64", "BYTES"]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
# What fits: a document is drawn from these and then spoilt in a few places, so that each check is reached with all others passed.
DATA = {
    "FP32": [1, 2.5, -3, 4],
    "BYTES": ["a", "", "\u00fc", "x" * 40],
    "INT64": [1, 2, 3, -4],
    "BOOL": [True, False, True, True],
}
PLACES = st.fixed_dictionaries(
    {"shared_memory_region": st.just("region"), "shared_memory_byte_size": st.sampled_from([16, 8, 64])},
    optional={"shared_memory_offset": st.sampled_from([0, 16, 64, 120])},
)
OUTPUT_PARAMETERS = st.one_of(
    st.fixed_dictionaries({}, optional={"binary_data": st.booleans(), "classification": st.integers(0, 5)}), PLACES
)
BINARY = {"FP32": bytes(16), "BF16": bytes(8), "FP16": bytes(8), "BYTES": struct.pack("<I1sI2sII", 1, b"a", 2, b"bc", 0, 0)}
MODELS = {"tiny": ("input", "output", "FP32"), "text": ("IN", "OUT", "BYTES"), "half": ("IN", "OUT", "BF16")}
PARAMETERS = st.fixed_dictionaries({}, optional={"binary_data_output": st.booleans(), "split_key": TEXTS, "priority": VALUES})
REGISTER = st.fixed_dictionaries(
    {"key": st.just("OBJECT"), "byte_size": st.integers(0, 130)}, optional={"offset": st.integers(0, 130)}
)
OTHERS = st.one_of(REGISTER, st.fixed_dictionaries({"ready": VALUES}), st.fixed_dictionaries({"parameters": VALUES}), VALUES)


@st.composite
def inferences(draw, model):
    """A fitting request to a model, and the binary tensors behind it."""
    given, result, datatype = MODELS[model]
    tensor = {"name": given, "shape": draw(st.sampled_from([[1, 4], [1, 4], [2, 2], [4, 1]])), "datatype": datatype}
    tail = b""
    form = draw(st.sampled_from(["binary", "binary", "json", "shared"]))
    if form == "json":
        tensor["data"] = draw(st.sampled_from([DATA.get(datatype, [1, 2, 3, 4]), [DATA.get(datatype, [1, 2, 3, 4])]]))
    elif form == "binary":
        tail = BINARY[datatype]
        tensor["parameters"] = {"binary_data_size": len(tail)}
    else:
        tensor["parameters"] = draw(PLACES)
    document = {"inputs": [tensor]}
    if draw(st.booleans()):
        document["outputs"] = [{"name": result, "parameters": draw(OUTPUT_PARAMETERS)}]
    if draw(st.booleans()):
        document["parameters"] = draw(PARAMETERS)
    if draw(st.booleans()):
        document["id"] = draw(TEXTS)
    return document, tail


def places(document):
    """Every (container, key) within a document."""
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in items:
        yield document, key
        yield from places(value)


def spoil(draw, document):
    """Change, drop or double something somewhere within a document."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        found = list(places(document))
        if not found:
            return draw(VALUES)
        container, key = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.sampled_from(["change", "change", "number", "drop", "double"])):
            case "change":
                container[key] = draw(VALUES)
            case "number":
                container[key] = draw(NUMBERS)
            case "drop":
                del container[key]
            case "double" if isinstance(container, list):
                container.append(container[key])
            case "double":
                container[draw(TEXTS)] = container[key]
    return document


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
            "v2/systemsharedmemory/region/more/register", "v2/systemsharedmemory/region/more/unregister",
            "v2/systemsharedmemory/status", "v2/repository/index", "v2/repository/models/tiny/load", "v2/models/stats",
        ]
    ),
    st.lists(PARTS, max_size=7).map("/".join),
)  # fmt: skip
METHODS = st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS"])


@st.composite
def requests(draw):
    """One HTTP request as bytes."""
    model = draw(st.sampled_from([*MODELS, ""]))
    tail = b""
    if model:
        path = draw(st.sampled_from([f"v2/models/{model}/infer"] * 5 + [f"v2/models/{model}/versions/1.0.0/infer"]))
        document, tail = draw(inferences(model))
        method = "POST"
    else:
        path, document = draw(PATHS), draw(OTHERS)
        method = draw(METHODS)
    body = json.dumps(spoil(draw, document)).encode()
    headers = {"Host": "device"}
    if tail:
        headers["Inference-Header-Content-Length"] = str(draw(st.sampled_from([len(body)] * 9 + [-1, 0, 7, len(body) + 1])))
        body += draw(st.sampled_from([tail] * 9 + [b"", tail[:-1], tail + b"x", tail[::-1], b"\xff" * len(tail)]))
    encoding = draw(st.sampled_from([""] * 6 + ["gzip", "deflate", "br", "identity"]))
    if encoding:
        headers["Content-Encoding"] = encoding
        packed = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)(body)
        body = draw(st.sampled_from([packed] * 4 + [body, packed[:-2]]))
    if draw(st.booleans()):
        headers["Accept-Encoding"] = draw(st.sampled_from(["gzip", "deflate", "gzip;q=0", "br", ";;q", "gzip, deflate"]))
    if draw(st.booleans()):
        headers["Edgewright-Split-Key"] = draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=9))
    framing = draw(st.sampled_from(["length"] * 5 + ["chunked"] * 3 + ["wrong"]))
    if framing == "chunked":
        headers["Transfer-Encoding"] = "chunked"
        cut = draw(st.integers(0, len(body)))
        chunks = [part for part in (body[:cut], body[cut:]) if part]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in chunks) + b"0\r\n\r\n"
    else:
        headers["Content-Length"] = str(len(body) if framing == "length" else draw(st.integers(0, len(body) + 3)))
    lines = [f"{method} /{path} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()]]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@st.composite
def conversations(draw):
    """Some requests on one connection, perhaps with bytes of theirs changed, dropped or doubled."""
    raw = bytearray(b"".join(draw(st.lists(requests(), min_size=1, max_size=3))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 4]))):
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
    key = f"z{os.getpid() % 100000:05}"  # as long as the word it stands for, for lengths are told before
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
    with socket.create_connection(("127.0.0.1", endpoint.port)) as client, client.makefile("rb") as file:
        client.settimeout(10)
        with contextlib.suppress(OSError):  # refused before all was sent
            client.sendall(raw)
            client.shutdown(socket.SHUT_WR)
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


@settings(max_examples=250, **COMMON)
@given(conversations())
def test_the_surface_answers_or_closes_whatever_it_is_sent(surface, raw):
    fuzz(surface, raw)


def test_it_serves_as_before_after_that(surface):
    require_alive(surface[0])


@pytest.mark.slow
def test_forty_thousand_conversations_leave_a_daemon_as_large_as_it_was(tmp_path):
    """A daemon of its own, so that its memory can be told from the fuzzer's. 2,000 conversations, again and again."""
    for name, datatype in (("text", "BYTES"), ("half", "BF16")):
        ports = [TensorSpec(name=port, datatype=datatype, shape=(-1, -1)) for port in ("IN", "OUT")]
        write_onnx_artifact(active_slot(tmp_path / "state", name), name, ports[:1], ports[1:], [_echo()])
    write_artifact(active_slot(tmp_path / "state", "tiny"))
    daemon = DaemonProcess(tmp_path / "state", **{"limits.body_bytes": 20_000, "limits.header_bytes": 2_000}).start()
    found = []

    @settings(max_examples=2_000, database=None, phases=[Phase.generate], **COMMON)
    @given(conversations())
    def draw(raw):
        found.append(raw)

    draw()
    try:
        daemon.wait_until(lambda: daemon.infer(np.zeros((1, 4))).size, "it serves")
        sizes = []
        for _ in range(20):
            for raw in found:
                assert set(converse(daemon, raw)) <= ALLOWED
            sizes.append(resident_kb(daemon.pid))
        assert max(sizes[10:]) - max(sizes[:10]) < 2_000, sizes
        assert daemon.infer(np.zeros((1, 4))).size == 3
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def resident_kb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_the_fuzzer_reaches_what_it_is_for(surface):
    """A fuzzer that is refused at the door finds nothing: a fair part of its requests must be served and of each kind refused."""
    seen = []

    @settings(max_examples=150, database=None, derandomize=True, **COMMON)
    @given(requests())
    def run(raw):
        seen.extend(converse(surface[0], raw.replace(b"OBJECT", surface[1].encode())))

    run()
    assert {200, 400, 404, 405} <= set(seen)
    assert seen.count(200) > len(seen) / 12
