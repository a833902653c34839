"""Does an unmodified tritonclient work against the gRPC endpoint: every call, every datatype, every way of a tensor?"""

import asyncio
import queue

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, shared_memory

from runtime.backends.datatypes import BF16
from tests.runtime.serving.grpc.conftest import address
from tests.support.echo import COLUMNS, LABELS, ONNX_TYPES, echo_name, sample

TYPED = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def both(datatype, rows=2):
    return {"x": sample(datatype, rows), "y": sample(datatype, rows, seed=5)}


def as_inputs(arrays, datatype):
    inputs = []
    for name, array in arrays.items():
        one = triton.InferInput(name, array.shape, datatype)
        one.set_data_from_numpy(array["bf16"].view(ml_dtypes.bfloat16) if datatype == "BF16" else array)
        inputs.append(one)
    return inputs


def assert_echo(result, arrays, datatype):
    for name, array in arrays.items():
        found = result.as_numpy(f"{name}-out")
        if datatype == "BF16":
            assert found.dtype == ml_dtypes.bfloat16
            found = found.view("<u2").view(BF16)
        assert np.array_equal(found, array), name


@pytest.mark.parametrize("datatype", ONNX_TYPES)
def test_raw_tensors_of_every_datatype_come_back(client, datatype):
    arrays = both(datatype)
    assert_echo(client.infer(echo_name(datatype), as_inputs(arrays, datatype)), arrays, datatype)


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_of_every_datatype_come_back(echoes, client, datatype):
    arrays = both(datatype)
    request = service_pb2.ModelInferRequest(model_name=echo_name(datatype), id="typed")
    for name, array in arrays.items():
        tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        getattr(tensor.contents, TYPED[datatype]).extend(array.ravel().tolist())
    response = client._client_stub.ModelInfer(request)
    assert response.id == "typed"
    assert_echo(triton.InferResult(response), arrays, datatype)


def test_health(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo-fp32")
    assert client.is_model_ready("echo-fp32", "1.0.0")
    assert not client.is_model_ready("echo-fp32", "2.0.0")
    assert not client.is_model_ready("nothing")


def test_server_metadata(client):
    metadata = client.get_server_metadata()
    assert metadata.name == "edgewright"
    assert {"model_repository", "statistics", "system_shared_memory"} <= set(metadata.extensions)


def test_model_metadata(client):
    metadata = client.get_model_metadata("echo-int16", "1.0.0")
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("echo-int16", ["1.0.0"], "onnxruntime_onnx")
    found = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs]
    assert found == [("x", "INT16", [-1, COLUMNS]), ("y", "INT16", [-1, COLUMNS])]


@pytest.mark.parametrize(("datatype", "name"), [("FP32", "TYPE_FP32"), ("BYTES", "TYPE_STRING"), ("BF16", "TYPE_BF16")])
def test_model_config(client, datatype, name):
    config = client.get_model_config(echo_name(datatype), as_json=True)["config"]
    assert (config["name"], config["backend"]) == (echo_name(datatype), "onnxruntime")
    assert config["input"][0] == {"name": "x", "data_type": name, "dims": ["-1", str(COLUMNS)]}


def test_statistics_count_inferences(client):
    arrays = both("INT8", rows=4)
    before = client.get_inference_statistics("echo-int8").model_stats[0]
    client.infer("echo-int8", as_inputs(arrays, "INT8"))
    after = client.get_inference_statistics("echo-int8", "1.0.0").model_stats[0]
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert after.inference_stats.success.ns > before.inference_stats.success.ns
    assert {model.name for model in client.get_inference_statistics().model_stats} == {echo_name(one) for one in ONNX_TYPES}


def test_repository_index(client):
    index = client.get_model_repository_index()
    assert {(model.name, model.version, model.state) for model in index.models} == {
        (echo_name(datatype), "1.0.0", "READY") for datatype in ONNX_TYPES
    }


def test_loading_is_refused_where_it_is_not_allowed(client):
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match=r"request\.forbidden") as refused:
            change("echo-fp32")
        assert refused.value.status() == "StatusCode.PERMISSION_DENIED"


def test_only_the_outputs_asked_for_come_back(client):
    arrays = both("FP32")
    result = client.infer("echo-fp32", as_inputs(arrays, "FP32"), outputs=[triton.InferRequestedOutput("y-out")])
    assert np.array_equal(result.as_numpy("y-out"), arrays["y"])
    assert result.as_numpy("x-out") is None


def test_ids_and_versions_and_unknown_parameters(client):
    arrays = both("FP32")
    result = client.infer(
        "echo-fp32",
        as_inputs(arrays, "FP32"),
        model_version="1.0.0",
        request_id="anything",
        priority=3,
        timeout=1000,
        sequence_id=9,
        sequence_start=True,
        parameters={"mine": "yes", "split_key": "someone"},
    )
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("anything", "echo-fp32", "1.0.0")


def test_best_classes(client):
    arrays = {"x": np.array([[0.25, 2, -1], [5, 5, 6]], np.float32), "y": np.zeros((2, COLUMNS), np.float32)}
    wanted = [triton.InferRequestedOutput("x-out", class_count=2)]
    found = client.infer("echo-fp32", as_inputs(arrays, "FP32"), outputs=wanted).as_numpy("x-out")
    rows = [[cell.decode().split(":") for cell in row] for row in found]
    assert [[(float(value), int(index), label) for value, index, label in row] for row in rows] == [
        [(2, 1, LABELS[1]), (0.25, 0, LABELS[0])],
        [(6, 2, LABELS[2]), (5, 0, LABELS[0])],
    ]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_calls(client, algorithm):
    arrays = both("FP32", rows=200)
    result = client.infer("echo-fp32", as_inputs(arrays, "FP32"), compression_algorithm=algorithm)
    assert_echo(result, arrays, "FP32")


@pytest.fixture
def region(client):
    """A shared-memory region of 4 KiB, registered, with tritonclient's own means."""
    handle = shared_memory.create_shared_memory_region("tensors", "/grpc-conformance", 4096)
    client.register_system_shared_memory("tensors", "/grpc-conformance", 4096)
    yield handle
    client.unregister_system_shared_memory()
    shared_memory.destroy_shared_memory_region(handle)


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_shared_memory_in_and_out(client, region, datatype):
    arrays = both(datatype)
    inputs, offset = [], 0
    for name, array in arrays.items():
        raw = triton_bytes(array)
        shared_memory.set_shared_memory_region(region, [np.frombuffer(raw, np.uint8)], offset)
        one = triton.InferInput(name, array.shape, datatype)
        one.set_shared_memory("tensors", len(raw), offset)
        inputs.append(one)
        offset += 512
    outputs = [triton.InferRequestedOutput("x-out"), triton.InferRequestedOutput("y-out")]
    outputs[0].set_shared_memory("tensors", 512, 2048)
    result = client.infer(echo_name(datatype), inputs, outputs=outputs)
    assert np.array_equal(result.as_numpy("y-out"), arrays["y"])
    written = result.get_output("x-out")
    assert written.parameters["shared_memory_region"].string_param == "tensors"
    raw = triton_bytes(arrays["x"])
    assert written.parameters["shared_memory_byte_size"].int64_param == len(raw)
    found = np.frombuffer(region._mpsm_handle.buf, np.uint8, len(raw), 2048) if hasattr(region, "_mpsm_handle") else None
    if found is None:
        found = shared_memory.get_contents_as_numpy(region, np.uint8, [len(raw)], 2048)
    assert found.tobytes() == raw


def triton_bytes(array):
    if array.dtype != np.object_:
        return array.tobytes()
    return b"".join(len(one).to_bytes(4, "little") + one for one in array.flat)


def test_shared_memory_status_and_refusals(client, region):
    status = client.get_system_shared_memory_status(as_json=True)["regions"]["tensors"]
    assert (status["key"], status["byte_size"]) == ("/grpc-conformance", "4096")
    with pytest.raises(InferenceServerException, match=r"request\.shared_memory"):
        client.register_system_shared_memory("tensors", "/grpc-conformance", 4096)
    with pytest.raises(InferenceServerException, match=r"request\.shared_memory"):
        client.register_system_shared_memory("more", "/grpc-conformance", 8192)
    client.unregister_system_shared_memory("tensors")
    with pytest.raises(InferenceServerException, match=r"request\.shared_memory"):
        client.get_system_shared_memory_status("tensors")


def test_a_region_that_is_too_small_for_the_output(client, region):
    arrays = both("FP64")
    output = triton.InferRequestedOutput("x-out")
    output.set_shared_memory("tensors", 8)
    with pytest.raises(InferenceServerException, match=r"request\.shared_memory"):
        client.infer("echo-fp64", as_inputs(arrays, "FP64"), outputs=[output])


def test_a_stream_answers_in_order_and_survives_a_bad_request(echoes):
    answers = queue.Queue()
    with triton.InferenceServerClient(address(echoes)) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for index in range(40):
            arrays = {"x": np.full((1, COLUMNS), index, np.int32), "y": np.zeros((1, COLUMNS), np.int32)}
            name = "echo-int32" if index != 7 else "nothing"
            client.async_stream_infer(name, as_inputs(arrays, "INT32"), request_id=str(index))
        found = [answers.get(timeout=20) for _ in range(40)]
        client.stop_stream()
    for index, (result, error) in enumerate(found):
        if index == 7:
            assert "request.unknown_model" in error.message()
        else:
            assert error is None
            assert result.get_response().id == str(index)
            assert result.as_numpy("x-out")[0, 0] == index


def test_a_stream_says_which_answer_is_the_last_where_asked(echoes):
    answers = queue.Queue()
    with triton.InferenceServerClient(address(echoes)) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("echo-fp32", as_inputs(both("FP32"), "FP32"), enable_empty_final_response=True)
        result, error = answers.get(timeout=20)
        client.stop_stream()
    assert error is None
    assert result.get_response().parameters["triton_final_response"].bool_param


def test_many_calls_at_once(client):
    arrays = [{"x": np.full((1, COLUMNS), index, np.uint16), "y": np.zeros((1, COLUMNS), np.uint16)} for index in range(50)]
    answers = queue.Queue()
    for one in arrays:
        client.async_infer("echo-uint16", as_inputs(one, "UINT16"), lambda result, error: answers.put((result, error)))
    found = [answers.get(timeout=20) for _ in arrays]
    assert [error for _, error in found if error] == []
    assert sorted(result.as_numpy("x-out")[0, 0] for result, _ in found) == list(range(50))


def test_the_asynchronous_client(echoes):
    arrays = both("FP16")

    async def infer():
        async with triton_aio.InferenceServerClient(address(echoes)) as client:
            assert await client.is_server_ready()
            return await client.infer("echo-fp16", as_inputs(arrays, "FP16"))

    assert_echo(asyncio.run(infer()), arrays, "FP16")


def wrong_requests():
    x, y = both("FP32").values()
    yield "an unknown model", "nothing", {"x": x, "y": y}, "FP32", "NOT_FOUND", "request.unknown_model"
    yield "a missing input", "echo-fp32", {"x": x}, "FP32", "INVALID_ARGUMENT", "request.invalid"
    yield "an input too many", "echo-fp32", {"x": x, "y": y, "z": y}, "FP32", "INVALID_ARGUMENT", "request.invalid"
    yield (
        "another datatype",
        "echo-fp32",
        {"x": x.astype("f8"), "y": y.astype("f8")},
        "FP64",
        "INVALID_ARGUMENT",
        "request.invalid",
    )
    yield "another rank", "echo-fp32", {"x": x[0], "y": y}, "FP32", "INVALID_ARGUMENT", "request.invalid"
    yield "another width", "echo-fp32", {"x": x[:, :2], "y": y}, "FP32", "INVALID_ARGUMENT", "request.invalid"
    yield "two lengths of a batch", "echo-fp32", {"x": x[:0], "y": y}, "FP32", "INVALID_ARGUMENT", "request.invalid"


@pytest.mark.parametrize(("what", "model", "arrays", "datatype", "status", "code"), list(wrong_requests()))
def test_what_does_not_fit_is_refused(client, what, model, arrays, datatype, status, code):
    assert np_to_triton_dtype(arrays["x"].dtype) == datatype
    with pytest.raises(InferenceServerException) as refused:
        client.infer(model, as_inputs(arrays, datatype))
    assert refused.value.status() == f"StatusCode.{status}"
    assert f"[{code}]" in refused.value.message()


def test_another_version_and_another_output_are_refused(client):
    inputs = as_inputs(both("FP32"), "FP32")
    with pytest.raises(InferenceServerException, match=r"request\.unknown_model"):
        client.infer("echo-fp32", inputs, model_version="7")
    with pytest.raises(InferenceServerException, match="no output 'z'"):
        client.infer("echo-fp32", inputs, outputs=[triton.InferRequestedOutput("z")])
