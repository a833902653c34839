"""Does an unmodified `tritonclient` find over HTTP everything it may ask for, and understand every answer and refusal?"""

import gzip
import os
import uuid

import numpy as np
import pytest

from tests.runtime.conformance.conftest import LABELS
from tests.support.artifacts import FEATURES, scores

http = pytest.importorskip("tritonclient.http", reason="the extra dev is not installed")
shm = pytest.importorskip("tritonclient.utils.shared_memory")
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, triton_to_np_dtype  # noqa: E402 - as above

pytestmark = pytest.mark.e2e

ROWS = np.random.default_rng(5).normal(size=(2, FEATURES)).astype(np.float32)
DATATYPES = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
IN_JSON = [datatype for datatype in DATATYPES if datatype not in ("FP16", "BF16")]


@pytest.fixture(scope="module")
def client(daemon):
    with http.InferenceServerClient(f"127.0.0.1:{daemon.port}", concurrency=4) as client:
        yield client


@pytest.fixture
def region(client):
    """Makes regions that both sides see: gives (handle, name); all are gone afterwards."""
    made = []

    def make(size, *, key=None, registered=None, offset=0):
        name = f"region-{uuid.uuid4().hex[:8]}"
        key = key or f"/ew-{uuid.uuid4().hex}"
        handle = shm.create_shared_memory_region(name, key, size)
        made.append((handle, name))
        client.register_system_shared_memory(name, key, size if registered is None else registered, offset)
        return handle, name

    yield make
    for handle, name in made:
        client.unregister_system_shared_memory(name)
        shm.destroy_shared_memory_region(handle)


def tensor(name, array, datatype, *, binary=True):
    given = http.InferInput(name, list(array.shape), datatype)
    return given.set_data_from_numpy(array, binary_data=binary)


def sample(datatype):
    """Six values with the edges of their type among them."""
    kind = triton_to_np_dtype(datatype)
    if datatype == "BYTES":
        return np.array([[b"", b"a", "\u00fc\u20ac".encode()], [b"a\0b", b"\0", b"x" * 300]], np.object_)
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if np.dtype(kind).kind in "iu":
        bounds = np.iinfo(kind)
        return np.array([[bounds.min, 0, 1], [2, 3, bounds.max]], kind)
    return np.array([[-1.5, 0, 1], [0.25, 3, 1024]], kind)


def echo(client, datatype, array, *, binary=True, **more):
    inputs = [tensor("IN", array, datatype, binary=binary)]
    return client.infer(
        f"echo-{datatype.lower()}", inputs, outputs=[http.InferRequestedOutput("OUT", binary_data=binary)], **more
    )


def infer_tiny(client, **more):
    return client.infer("tiny", [tensor("input", ROWS, "FP32")], **more)


def refused(status, text):
    return pytest.raises(InferenceServerException, match=rf"^\[{status}\] .*{text}")


# health and descriptions


def test_health(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1.0.0")
    assert not client.is_model_ready("tiny", "2.0.0")
    assert not client.is_model_ready("nothing")


def test_server_metadata_names_every_extension(client):
    found = client.get_server_metadata()
    assert found["name"] == "edgewright"
    assert found["version"]
    assert {"binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"} <= set(
        found["extensions"]
    )
    assert "system_shared_memory" in found["extensions"]
    assert "cuda_shared_memory" not in found["extensions"]


@pytest.mark.parametrize("version", ["", "1.0.0"])
def test_model_metadata(client, version):
    assert client.get_model_metadata("arithmetic", version) == {
        "name": "arithmetic",
        "versions": ["1.0.0"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": name, "datatype": "INT32", "shape": [1, 16]} for name in ("INPUT0", "INPUT1")],
        "outputs": [{"name": name, "datatype": "INT32", "shape": [1, 16]} for name in ("OUTPUT0", "OUTPUT1")],
    }


@pytest.mark.parametrize("version", ["", "1.0.0"])
def test_model_config(client, version):
    config = client.get_model_config("echo-bytes", version)
    assert (config["name"], config["backend"], config["platform"]) == ("echo-bytes", "onnxruntime", "onnxruntime_onnx")
    assert config["input"] == [{"name": "IN", "data_type": "TYPE_STRING", "dims": [-1, -1]}]
    assert config["max_batch_size"] == 0
    assert client.get_model_config("echo-fp32")["output"] == [{"name": "OUT", "data_type": "TYPE_FP32", "dims": [-1, -1]}]


def test_statistics_count_requests_and_rows(client):
    def counts():
        (found,) = client.get_inference_statistics("tiny", "1.0.0")["model_stats"]
        return found

    before = counts()
    for _ in range(3):
        infer_tiny(client)
    after = counts()
    assert (after["name"], after["version"]) == ("tiny", "1.0.0")
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 3
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]
    assert after["inference_stats"]["fail"]["count"] == 0


def test_statistics_of_all_models(client):
    every = {one["name"] for one in client.get_inference_statistics()["model_stats"]}
    assert {"tiny", "arithmetic", *(f"echo-{datatype.lower()}" for datatype in DATATYPES)} == every
    with refused(404, "unknown model"):
        client.get_inference_statistics("nothing")


# inference


@pytest.mark.parametrize("datatype", DATATYPES)
def test_binary_tensors_of_every_datatype(client, datatype):
    array = sample(datatype)
    result = echo(client, datatype, array)
    assert result.get_output("OUT")["datatype"] == datatype
    found = result.as_numpy("OUT")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("datatype", IN_JSON)
def test_json_tensors_of_every_datatype_that_has_a_form_there(client, datatype):
    array = sample(datatype)
    found = echo(client, datatype, array, binary=False).as_numpy("OUT")
    if datatype == "BYTES":
        found = np.array([text.encode() for text in found.flat], np.object_).reshape(found.shape)
    np.testing.assert_array_equal(found, array)


def test_half_precision_in_json_is_refused_with_the_way_out(client):
    with refused(400, "FP16 has no form in JSON; send it as a binary tensor"):
        echo(client, "FP16", sample("FP16"), binary=False)
    with refused(400, "ask for it with binary_data true"):
        client.infer(
            "echo-bf16",
            [tensor("IN", sample("BF16"), "BF16")],
            outputs=[http.InferRequestedOutput("OUT", binary_data=False)],
        )


@pytest.mark.parametrize("binary", [True, False])
def test_several_inputs_and_outputs(client, binary):
    left, right = np.arange(16, dtype=np.int32).reshape(1, 16), np.full((1, 16), 2, np.int32)
    inputs = [tensor("INPUT1", right, "INT32", binary=binary), tensor("INPUT0", left, "INT32", binary=not binary)]
    outputs = [
        http.InferRequestedOutput("OUTPUT1", binary_data=not binary),
        http.InferRequestedOutput("OUTPUT0", binary_data=binary),
    ]
    result = client.infer("arithmetic", inputs, outputs=outputs)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), left + right)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), left - right)


def test_all_outputs_come_without_being_asked_for_and_only_those_that_are(client):
    ones = np.ones((1, 16), np.int32)
    inputs = [tensor("INPUT0", ones, "INT32"), tensor("INPUT1", ones, "INT32")]
    result = client.infer("arithmetic", inputs)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["OUTPUT0", "OUTPUT1"]
    result = client.infer("arithmetic", inputs, outputs=[http.InferRequestedOutput("OUTPUT1")])
    assert result.as_numpy("OUTPUT0") is None
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), ones - ones)


@pytest.mark.parametrize("version", ["", "1.0.0"])
def test_ids_and_versions(client, version):
    response = infer_tiny(client, model_version=version, request_id="a-1 \u00fc").get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("tiny", "1.0.0", "a-1 \u00fc")
    np.testing.assert_allclose(infer_tiny(client).as_numpy("output"), scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)


def test_parameters_are_taken(client):
    result = infer_tiny(
        client, parameters={"split_key": "user-7", "own": 3, "flag": True}, priority=1, timeout=1000, sequence_id=7
    )
    assert "parameters" not in result.get_response()
    assert infer_tiny(client, headers={"Edgewright-Split-Key": "user-7"}).as_numpy("output").shape == (2, 3)


def test_asynchronous_requests_each_get_their_own_answer(client):
    arrays = [np.full((1, index + 1), index, np.float32) for index in range(40)]
    pending = [client.async_infer("echo-fp32", [tensor("IN", array, "FP32")]) for array in arrays]
    for array, one in zip(arrays, pending, strict=True):
        np.testing.assert_array_equal(one.get_result().as_numpy("OUT"), array)


def test_a_stored_body_is_answered_as_a_live_one(client, daemon):
    body, json_size = http.InferenceServerClient.generate_request_body([tensor("input", ROWS, "FP32")])
    headers = {"Inference-Header-Content-Length": str(json_size)}
    response = client._post("v2/models/tiny/infer", body, headers, None)  # as the documentation of generate_request_body does
    found = http.InferenceServerClient.parse_response_body(
        response.read(), header_length=int(response.get("Inference-Header-Content-Length"))
    )
    np.testing.assert_allclose(found.as_numpy("output"), scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("size", [3, 5000])
def test_compressed_requests_and_answers(client, algorithm, size):
    array = np.arange(size, dtype=np.float32).reshape(1, size)
    result = echo(client, "FP32", array, request_compression_algorithm=algorithm, response_compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("OUT"), array)
    result = echo(client, "FP32", array, binary=False, response_compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("OUT"), array)


def test_a_decompression_bomb_is_refused(client):
    bomb = gzip.compress(b" " * (64 << 20))
    assert len(bomb) < 1 << 17
    response = client._post("v2/models/tiny/infer", bomb, {"Content-Encoding": "gzip"}, None)
    assert response.status_code == 413
    assert client.is_server_live()


# classification


def test_the_best_classes_with_their_labels(client):
    wanted = http.InferRequestedOutput("output", class_count=2)
    found = infer_tiny(client, outputs=[wanted]).as_numpy("output")
    assert found.shape == (2, 2)
    for row, best in zip(scores(ROWS, 1.0), found, strict=True):
        order = np.argsort(-row)[:2]
        for entry, index in zip(best, order, strict=True):
            value, place, label = entry.decode().split(":")
            assert (int(place), label) == (index, LABELS[index])
            assert float(value) == pytest.approx(row[index], abs=1e-5)


def test_more_classes_than_there_are_give_all_of_them(client):
    wanted = http.InferRequestedOutput("output", class_count=99, binary_data=False)
    found = infer_tiny(client, outputs=[wanted]).as_numpy("output")
    assert found.shape == (2, 3)


def test_classes_without_labels_and_ties(client):
    array = np.array([[3, 9, 9, -1]], np.int64)
    found = client.infer(
        "echo-int64", [tensor("IN", array, "INT64")], outputs=[http.InferRequestedOutput("OUT", class_count=3)]
    ).as_numpy("OUT")
    assert found.tolist() == [[b"9:1", b"9:2", b"3:0"]]


def test_strings_have_no_best_classes(client):
    with refused(400, "no best classes"):
        client.infer(
            "echo-bytes",
            [tensor("IN", sample("BYTES"), "BYTES")],
            outputs=[http.InferRequestedOutput("OUT", class_count=1)],
        )


# shared memory


def test_regions_are_listed_and_forgotten(client, region):
    _, name = region(64, registered=32, offset=16)
    (status,) = client.get_system_shared_memory_status(name)
    assert (status["name"], status["offset"], status["byte_size"]) == (name, 16, 32)
    region(64)
    assert len(client.get_system_shared_memory_status()) == 2
    client.unregister_system_shared_memory(name)
    assert len(client.get_system_shared_memory_status()) == 1
    with refused(400, "not registered"):
        client.get_system_shared_memory_status(name)
    client.unregister_system_shared_memory()
    assert client.get_system_shared_memory_status() == []


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "BF16", "UINT8", "INT64", "BOOL"])
def test_inputs_and_outputs_in_shared_memory(client, region, datatype):
    array = sample(datatype)
    source, source_name = region(array.nbytes + 64)
    target, target_name = region(array.nbytes + 64)
    shm.set_shared_memory_region(source, [array], offset=64)
    given = http.InferInput("IN", list(array.shape), datatype)
    given.set_shared_memory(source_name, array.nbytes, offset=64)
    wanted = http.InferRequestedOutput("OUT")
    wanted.set_shared_memory(target_name, array.nbytes + 32, offset=32)
    result = client.infer(f"echo-{datatype.lower()}", [given], outputs=[wanted])
    place = result.get_output("OUT")["parameters"]
    assert place == {"shared_memory_region": target_name, "shared_memory_byte_size": array.nbytes, "shared_memory_offset": 32}
    found = shm.get_contents_as_numpy(target, array.dtype, array.shape, offset=32)
    np.testing.assert_array_equal(found, array)
    del found  # it holds the region open


def test_strings_in_shared_memory(client, region):
    array = sample("BYTES")
    packed = serialize_byte_tensor(array)
    size = len(packed.item())
    source, source_name = region(size)
    target, target_name = region(size)
    shm.set_shared_memory_region(source, [packed])
    given = http.InferInput("IN", list(array.shape), "BYTES")
    given.set_shared_memory(source_name, size)
    wanted = http.InferRequestedOutput("OUT")
    wanted.set_shared_memory(target_name, size)
    client.infer("echo-bytes", [given], outputs=[wanted])
    np.testing.assert_array_equal(shm.get_contents_as_numpy(target, np.object_, array.shape), array)


def test_one_side_in_shared_memory(client, region):
    source, name = region(ROWS.nbytes)
    shm.set_shared_memory_region(source, [ROWS])
    given = http.InferInput("input", list(ROWS.shape), "FP32")
    given.set_shared_memory(name, ROWS.nbytes)
    np.testing.assert_allclose(client.infer("tiny", [given]).as_numpy("output"), scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["shrunk", "removed"])
@pytest.mark.parametrize("side", ["in", "out"])
def test_a_region_that_vanishes_is_an_error_and_no_end_of_the_daemon(client, region, how, side):
    key = f"ew-{uuid.uuid4().hex}"
    _, name = region(1 << 16, key=key)
    big = np.ones((1, 1 << 14), np.float32)
    path = f"/dev/shm/{key}"
    if how == "shrunk":
        os.truncate(path, 100)
    else:
        os.rename(path, f"{path}-away")  # noqa: PTH104 - of an object that is no file to its users
        os.unlink(f"{path}-away")  # noqa: PTH108
    given = tensor("IN", big, "FP32")
    wanted = http.InferRequestedOutput("OUT")
    if side == "in":
        given = http.InferInput("IN", [1, 1 << 14], "FP32")
        given.set_shared_memory(name, 1 << 16)
    else:
        wanted.set_shared_memory(name, 1 << 16)
    with refused(400, "has 100 bytes|was removed"):
        client.infer("echo-fp32", [given], outputs=[wanted])
    assert client.is_server_live()
    if how == "removed":
        open(path, "wb").close()  # noqa: PTH123 - for the client's own clean-up to find


@pytest.mark.parametrize(
    ("key", "size", "offset", "reason"),
    [
        ("absent-object", 8, 0, "cannot be opened"),
        ("../etc/passwd", 8, 0, "no name of a shared-memory object"),
        ("/../etc/passwd", 8, 0, "no name of a shared-memory object"),
        ("", 8, 0, "no name"),
        ("..", 8, 0, "no name"),
        ("edgewright-own", 8, 0, "the daemon's own"),
        ("OBJECT", 65, 0, "has 64 bytes, not 0 \\+ 65"),
        ("OBJECT", 8, 60, "has 64 bytes, not 60 \\+ 8"),
        ("OBJECT", 0, 0, "no part"),
        ("OBJECT", -8, 0, "byte_size"),
        ("OBJECT", 8, -8, "offset"),
        ("OBJECT", 2**62, 2**62, "not \\d+ \\+"),
        ("OBJECT", 2**70, 0, "byte_size"),
    ],
)
def test_registrations_that_cannot_be_are_refused(client, key, size, offset, reason):
    handle = shm.create_shared_memory_region("own", own := f"ew-{uuid.uuid4().hex}", 64)
    try:
        with refused(400, reason):
            client.register_system_shared_memory("refused", key.replace("OBJECT", own), size, offset)
    finally:
        shm.destroy_shared_memory_region(handle)
    assert client.get_system_shared_memory_status() == []


def test_a_symlink_among_the_objects_is_not_followed(client, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(64))
    link = f"/dev/shm/ew-{uuid.uuid4().hex}"
    os.symlink(tmp_path / "secret", link)  # noqa: PTH211 - of an object that is no file to its users
    try:
        with refused(400, "symlink"):
            client.register_system_shared_memory("linked", link.removeprefix("/dev/shm"), 64)
    finally:
        os.unlink(link)  # noqa: PTH108


def test_a_name_is_registered_once(client, region):
    _, name = region(64, key=(key := f"ew-{uuid.uuid4().hex}"))
    with refused(400, "registered already"):
        client.register_system_shared_memory(name, key, 64)
    client.unregister_system_shared_memory(name)
    client.register_system_shared_memory(name, key, 32)


@pytest.mark.parametrize(
    ("size", "offset", "reason"),
    [(64, 0, "needs 32 bytes, not 64"), (32, 33, "do not fit"), (32, 2**40, "do not fit"), (2**41, 0, "byte_size")],
)
def test_inputs_beyond_their_region_are_refused(client, region, size, offset, reason):
    _, name = region(64)
    given = http.InferInput("input", list(ROWS.shape), "FP32")
    given.set_shared_memory(name, size, offset)
    with refused(400, reason):
        client.infer("tiny", [given])


def test_outputs_too_large_for_their_region_are_refused(client, region):
    _, name = region(64)
    for size, reason in ((23, "has 24 bytes; 23 of region"), (128, None)):
        wanted = http.InferRequestedOutput("output")
        wanted.set_shared_memory(name, size, 0 if reason else 48)
        with refused(400, reason or "do not fit"):
            infer_tiny(client, outputs=[wanted])


def test_unknown_regions_are_refused(client):
    given = http.InferInput("input", list(ROWS.shape), "FP32")
    given.set_shared_memory("nowhere", ROWS.nbytes)
    with refused(400, "'nowhere' is not registered"):
        client.infer("tiny", [given])


def test_inputs_from_shared_memory_are_bounded_as_bodies_are(client, region):
    _, name = region(2 << 20)
    given = http.InferInput("IN", [1, 1 << 19], "FP32")
    given.set_shared_memory(name, 2 << 20)
    with refused(413, "inputs in shared memory are over the limit"):
        client.infer("echo-fp32", [given])


def test_memory_of_gpus_is_refused_clearly(client):
    with refused(403, "system shared memory instead"):
        client.get_cuda_shared_memory_status()
    with refused(403, "system shared memory instead"):
        client.register_cuda_shared_memory("gpu", b"handle", 0, 64)


# the repository


def index(client):
    return {one["name"]: (one["version"], one["state"]) for one in client.get_model_repository_index()}


def test_models_are_listed_unloaded_and_loaded_again(client):
    assert index(client)["arithmetic"] == ("1.0.0", "READY")
    client.unload_model("arithmetic")
    assert index(client)["arithmetic"] == ("", "UNAVAILABLE")
    assert not client.is_model_ready("arithmetic")
    with refused(404, "unknown model 'arithmetic'"):
        client.get_model_metadata("arithmetic")
    client.load_model("arithmetic")
    client.load_model("arithmetic")
    assert client.is_model_ready("arithmetic")
    assert index(client)["arithmetic"] == ("1.0.0", "READY")


def test_only_what_is_on_the_device_can_be_loaded(client):
    with refused(404, "no version of 'nothing'"):
        client.load_model("nothing")
    with refused(404, "no version of"):
        client.unload_model("..")
    with refused(400, "'config' is not accepted: what a model is, its signed manifest says"):
        client.load_model("tiny", config="{}")


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.get_trace_settings(),
        lambda client: client.get_trace_settings("tiny"),
        lambda client: client.update_trace_settings("tiny", {"trace_level": "TIMESTAMPS"}),
        lambda client: client.get_log_settings(),
        lambda client: client.update_log_settings({"log_verbose_level": 1}),
    ],
)
def test_traces_and_logs_are_refused_clearly(client, ask):
    with refused("40[45]", ""):
        ask(client)


# refusals


@pytest.mark.parametrize(
    ("name", "array", "datatype", "reason"),
    [
        ("other", ROWS, "FP32", "'input' is missing"),
        ("input", ROWS[:, :3], "FP32", r"must have shape \[-1, 4\], not \[2, 3\]"),
        ("input", ROWS[0], "FP32", r"must have shape \[-1, 4\], not \[4\]"),
        ("input", ROWS[:0], "FP32", "no elements"),
        ("input", ROWS.astype(np.float64), "FP64", "must be FP32"),
    ],
)
def test_inputs_that_do_not_fit_the_model(client, name, array, datatype, reason):
    with refused(400, reason):
        client.infer("tiny", [tensor(name, array, datatype)])


def test_surplus_inputs_and_unknown_outputs(client):
    with refused(400, "has no input 'more'"):
        client.infer("tiny", [tensor("input", ROWS, "FP32"), tensor("more", ROWS, "FP32")])
    with refused(400, "has no output 'nothing'"):
        infer_tiny(client, outputs=[http.InferRequestedOutput("nothing")])


def test_strings_that_are_no_text_are_the_callers_fault(client):
    with refused(400, "not UTF-8"):
        echo(client, "BYTES", np.array([[b"\xff"]], np.object_))
    assert client.get_inference_statistics("echo-bytes")["model_stats"][0]["inference_stats"]["fail"]["count"] == 0


def test_a_bomb_of_strings_is_refused_early(client):
    given = http.InferInput("IN", [1, 2_000_000], "BYTES")
    given._raw_data = bytes(8000)  # what announces two million strings and holds two thousand
    given._parameters["binary_data_size"] = 8000
    with refused(413, "more than 1000000 BYTES elements"):
        client.infer("echo-bytes", [given])


def test_unknown_models_and_versions(client):
    with refused(404, "unknown model 'nothing'"):
        client.infer("nothing", [tensor("input", ROWS, "FP32")])
    with refused(404, "serves version 1.0.0, not 2.0.0"):
        infer_tiny(client, model_version="2.0.0")
    with refused(404, "unknown model"):
        client.get_model_config("nothing")


def test_bodies_over_the_limit(client):
    with refused(413, "over the limit of 1048576 bytes"):
        echo(client, "FP32", np.zeros((1, 1 << 19), np.float32))
    assert client.is_server_live()
