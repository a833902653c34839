"""Do requests and responses of the protocol survive every encoding, and is every malformed one a RequestError?"""

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.backends.datatypes import BF16, BYTES, NUMPY_TYPES
from runtime.contract.artifact import TensorSpec
from runtime.errors import RegionError, RequestError, RequestTooLargeError
from runtime.serving.http.messages import MAX_DIMENSIONS, InferRequest, Span, Wanted, decode_request, encode_response
from runtime.serving.limits import LimitSettings
from runtime.serving.strings import as_array, read_strings, write_strings

DATATYPES = {numpy_type: name for name, numpy_type in NUMPY_TYPES.items()}
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
NUMBERS = st.sampled_from([kind for kind in NUMPY_TYPES.values() if kind not in (BF16, BYTES)]).flatmap(
    lambda kind: hnp.arrays(kind, SHAPES)
)
PATTERNS = hnp.arrays(np.uint16, SHAPES).map(lambda bits: bits.view(BF16))
ARRAYS = NUMBERS | PATTERNS
TEXTS = hnp.arrays(np.object_, SHAPES, elements=st.text(max_size=5).map(str.encode))
BINARY_ONLY = (np.dtype(np.float16), BF16)


def tensor(name, array, **more):
    return {"name": name, "shape": array.shape, "datatype": DATATYPES[array.dtype], **more}


def binary_request(arrays, **more):
    inputs = [tensor(name, array, parameters={"binary_data_size": array.nbytes}) for name, array in arrays.items()]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + b"".join(array.tobytes() for array in arrays.values()), len(head)


def json_request(array, data, **more):
    return json.dumps({"inputs": [tensor("x", array, data=data)], **more}).encode()


@given(st.dictionaries(st.text(min_size=1, max_size=5), ARRAYS, min_size=1, max_size=4))
def test_binary_tensors_arrive_bit_for_bit_and_aligned(arrays):
    request = decode_request(*binary_request(arrays))
    assert list(request.inputs) == list(arrays)
    for name, array in arrays.items():
        found = request.inputs[name]
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert found.flags.aligned
        assert not found.flags.writeable


@given(NUMBERS.filter(lambda array: array.dtype not in BINARY_ONLY), st.booleans())
def test_json_tensors_arrive_flat_or_nested(array, nested):
    finite = np.nan_to_num(array) if array.dtype.kind == "f" else array
    data = finite.tolist() if nested else finite.ravel().tolist()
    if array.dtype == np.uint64 and (finite > 2**63 - 1).any():
        return  # such numbers are for binary tensors; their refusal is tested below
    found = decode_request(json_request(finite, data)).inputs["x"]
    assert (found.dtype, found.shape) == (finite.dtype, finite.shape)
    np.testing.assert_array_equal(found, finite)


@given(TEXTS, st.booleans())
def test_strings_in_json_arrive_flat_or_nested(array, nested):
    texts = np.array([element.decode() for element in array.flat], object).reshape(array.shape)
    found = decode_request(json_request(array, texts.tolist() if nested else texts.ravel().tolist())).inputs["x"]
    assert (found.dtype, found.shape, found.tolist()) == (BYTES, array.shape, array.tolist())


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=9))
def test_strings_in_binary_are_those_of_tritonclient(elements):
    utils = pytest.importorskip("tritonclient.utils")
    array = as_array(elements)
    packed = write_strings(array)
    assert packed == utils.serialize_byte_tensor(array).item()
    assert utils.deserialize_bytes_tensor(packed).tolist() == elements
    head = json.dumps({"inputs": [tensor("x", array, parameters={"binary_data_size": len(packed)})]}).encode()
    assert decode_request(head + packed, len(head)).inputs["x"].tolist() == elements


@given(st.binary(max_size=60), st.integers(1, 12))
def test_any_bytes_are_strings_or_refused(raw, count):
    try:
        found = read_strings(raw, count, "x")
    except RequestError:
        return
    assert len(found) == count
    assert write_strings(found) == raw


@pytest.mark.parametrize(
    ("raw", "count", "reason"),
    [
        (b"\1\0\0\0a", 2, "2 BYTES elements need more than the 5 bytes"),
        (b"\xff\xff\xff\xffab", 1, "element 0 of 1 goes beyond"),
        (b"\1\0\0\0a\4\0\0", 2, "element 1 of 2 goes beyond"),
        (b"\2\0\0\0ab\4\0\0", 2, "element 1 of 2 goes beyond"),
        (b"\1\0\0\0ab", 1, "1 bytes follow"),
    ],
)
def test_strings_that_do_not_add_up_are_refused(raw, count, reason):
    with pytest.raises(RequestError, match=reason):
        read_strings(raw, count, "x")


def test_more_strings_than_allowed_are_refused_before_one_is_read():
    raw = b"\0\0\0\0" * 6
    inputs = [{"name": name, "shape": [3], "datatype": "BYTES", "parameters": {"binary_data_size": 12}} for name in ("x", "y")]
    head = json.dumps({"inputs": inputs}).encode()
    assert len(decode_request(head + raw, len(head), limits=LimitSettings(bytes_elements=6)).inputs) == 2
    with pytest.raises(RequestTooLargeError, match="more than 5 BYTES"):
        decode_request(head + raw, len(head), limits=LimitSettings(bytes_elements=5))


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(-5, 300)))
def test_noise_is_refused_and_nothing_else_happens(body, head_length):
    with pytest.raises(RequestError):
        decode_request(body, head_length)


@given(st.data())
def test_a_request_with_one_byte_changed_is_read_or_refused(data):
    body, head_length = binary_request({"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, id="7")
    position = data.draw(st.integers(0, len(body) - 1))
    changed = body[:position] + bytes([data.draw(st.integers(0, 255))]) + body[position + 1 :]
    try:
        request = decode_request(changed, head_length)
    except RequestError:
        return
    assert all(array.nbytes <= len(body) for array in request.inputs.values())


VALID = np.zeros((1, 2), np.float32)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([], "inputs"),
        ([tensor("x", VALID, data=[1, 2]), tensor("x", VALID, data=[1, 2])], "twice"),
        ([tensor("x", VALID)], "neither data"),
        ([tensor("x", VALID, data=[1])], "has 1 values, shape"),
        ([tensor("x", VALID, data=[[1], [2]])], "shape"),
        ([tensor("x", VALID, data=[[[1, 2]]])], "data is not FP32"),
        ([tensor("x", VALID, data=[[1, 2], [3]])], "data is not FP32"),
        ([tensor("x", VALID, data=["a", "b"])], "data is not FP32"),
        ([tensor("x", VALID, data=[None, 1])], "data is not FP32"),
        ([tensor("x", VALID, data=7)], "data is not FP32"),
        ([{"name": "x", "shape": [2], "datatype": "INT8", "data": [1, 128]}], "INT8"),
        ([{"name": "x", "shape": [2], "datatype": "UINT8", "data": [1, -1]}], "UINT8"),
        ([{"name": "x", "shape": [1], "datatype": "INT64", "data": [1.5]}], "INT64"),
        ([{"name": "x", "shape": [1], "datatype": "UINT64", "data": [2**70]}], "UINT64"),
        ([{"name": "x", "shape": [1], "datatype": "BOOL", "data": [2]}], "BOOL"),
        ([{"name": "x", "shape": [1], "datatype": "BYTES", "data": [1]}], "BYTES"),
        ([{"name": "x", "shape": [2, 1], "datatype": "BYTES", "data": [["a"], ["b", "c"]]}], "differ in length"),
        ([{"name": "x", "shape": [1], "datatype": "FP16", "data": [1]}], "FP16 has no form in JSON"),
        ([{"name": "x", "shape": [1], "datatype": "BF16", "data": [1]}], "BF16 has no form in JSON"),
        ([{"name": "x", "shape": [1], "datatype": "FP8", "data": [1]}], "'FP8' is not served"),
        ([{"name": "x", "shape": [0, 2**40], "datatype": "FP32", "parameters": {"binary_data_size": 0}}], "no elements"),
        ([{"name": "x" * 257, "shape": [1], "datatype": "FP32", "data": [1]}], "name"),
        ([{"name": "x", "shape": [-1], "datatype": "FP32", "data": [1]}], "shape"),
        ([{"name": "x", "shape": [1] * (MAX_DIMENSIONS + 1), "datatype": "FP32", "data": [1]}], "shape"),
        ([{"name": "x", "shape": [2**40] * 8, "datatype": "FP32", "data": [1]}], "has 1 values"),
        ([{"name": "x", "shape": [2**63], "datatype": "FP32", "data": [1]}], "shape"),
        ([{"name": "x", "datatype": "FP32", "data": [1]}], "shape"),
        ([tensor("x", VALID, parameters={"shared_memory_region": "r"})], "needs 8 bytes, not 0"),
        ([tensor("x", VALID, data=[1, 2], parameters={"shared_memory_region": "r"})], "both in shared memory"),
        ([tensor("x", VALID, parameters={"shared_memory_region": "r", "shared_memory_byte_size": 8})], "not offered"),
        ([tensor("x", VALID, parameters={"shared_memory_region": "r", "shared_memory_offset": -1})], "shared_memory_offset"),
        ([tensor("x", VALID, parameters={"binary_data_size": 8})], "ends 8 bytes before"),
        ([tensor("x", VALID, parameters={"binary_data_size": -8})], "binary_data_size"),
        ([tensor("x", VALID, parameters={"binary_data_size": 4})], "needs 8 bytes, not 4"),
    ],
)
def test_malformed_inputs_are_refused_with_the_reason(inputs, reason):
    body = json.dumps({"inputs": inputs}).encode()
    with pytest.raises(RequestError, match=reason):
        decode_request(body)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b'{"inputs": 3}', b"[" * 100_000, b'{"inputs": [], "inputs": []}'])
def test_bodies_that_are_no_request_are_refused(body):
    with pytest.raises(RequestError):
        decode_request(body)


@pytest.mark.parametrize("head_length", [0, -1, 10**18])
def test_head_lengths_outside_the_body_are_refused(head_length):
    with pytest.raises(RequestError, match="Inference-Header-Content-Length"):
        decode_request(b"{}", head_length)


def test_bytes_behind_the_last_tensor_are_refused():
    body, head_length = binary_request({"x": VALID})
    with pytest.raises(RequestError, match="3 bytes follow"):
        decode_request(body + b"abc", head_length)


def test_deeply_nested_data_is_refused_without_exhausting_the_stack():
    raw = b"[" * 50_000 + b"]" * 50_000
    body = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + raw + b"}]}"
    with pytest.raises(RequestError):
        decode_request(body)


def test_unknown_fields_and_parameters_are_ignored():
    body = json_request(VALID, [1, 2], parameters={"priority": 3, "own": {"a": 1}}, future=True)
    assert decode_request(body).inputs["x"].tolist() == [[1, 2]]


def test_numbers_beyond_a_datatype_become_infinite():
    assert decode_request(json_request(VALID, [1e300, -1e300])).inputs["x"].tolist() == [[math.inf, -math.inf]]


@pytest.mark.parametrize(
    ("outputs", "parameters", "expected"),
    [
        ([], {}, {}),
        ([{"name": "y"}], {}, {"y": Wanted()}),
        ([{"name": "y"}], {"binary_data_output": True}, {"y": Wanted(True)}),
        ([{"name": "y", "parameters": {"binary_data": False}}], {"binary_data_output": True}, {"y": Wanted()}),
        ([{"name": "y", "parameters": {"binary_data": True}}, {"name": "z"}], {}, {"y": Wanted(True), "z": Wanted()}),
        ([{"name": "y", "parameters": {"classification": 3}}], {}, {"y": Wanted(classes=3)}),
        (
            [{"name": "y", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}}],
            {},
            {"y": Wanted(span=Span("r", 0, 8))},
        ),
    ],
)
def test_outputs_are_binary_where_asked(outputs, parameters, expected):
    request = decode_request(json_request(VALID, [1, 2], outputs=outputs, parameters=parameters))
    assert request.outputs == expected
    assert request.is_binary == bool(parameters.get("binary_data_output"))


@pytest.mark.parametrize(
    "outputs",
    [
        [{"name": "y"}, {"name": "y"}],
        [{"name": "y", "parameters": {"classification": -1}}],
        [{"name": "y", "parameters": {"shared_memory_region": "r", "binary_data": True}}],
        [{"name": "y", "parameters": {"shared_memory_region": "r", "classification": 1}}],
        [{"name": 1}],
    ],
)
def test_outputs_that_cannot_be_given_are_refused(outputs):
    with pytest.raises(RequestError):
        decode_request(json_request(VALID, [1, 2], outputs=outputs))


SPECS = (TensorSpec(name="y", datatype="FP32", shape=(-1, 2)), TensorSpec(name="n", datatype="INT64", shape=(-1,)))
OUTPUTS = {"y": np.array([[0.5, -1.0]], np.float32), "n": np.array([3], np.int64)}


def asked(outputs=None, is_binary=False, id=""):
    return InferRequest(id, {}, outputs or {}, is_binary)


def test_a_json_response_holds_values_and_names_the_model():
    parts, head_length = encode_response(asked(id="7"), "m", "1.0.0", SPECS, OUTPUTS)
    assert head_length is None
    assert json.loads(b"".join(parts)) == {
        "model_name": "m",
        "model_version": "1.0.0",
        "id": "7",
        "outputs": [
            {"name": "y", "shape": [1, 2], "datatype": "FP32", "data": [0.5, -1.0]},
            {"name": "n", "shape": [1], "datatype": "INT64", "data": [3]},
        ],
    }


def test_a_binary_response_holds_raw_tensors_behind_the_json_part():
    parts, head_length = encode_response(asked(is_binary=True), "m", "1.0.0", SPECS, OUTPUTS)
    body = b"".join(parts)
    head = json.loads(body[:head_length])
    assert "id" not in head
    assert [output["parameters"] for output in head["outputs"]] == [{"binary_data_size": 8}, {"binary_data_size": 8}]
    assert body[head_length:] == OUTPUTS["y"].tobytes() + OUTPUTS["n"].tobytes()


def test_only_what_was_asked_for_comes_back_each_in_its_form():
    parts, head_length = encode_response(asked({"n": Wanted(True)}), "m", "1.0.0", SPECS, OUTPUTS)
    body = b"".join(parts)
    assert [output["name"] for output in json.loads(body[:head_length])["outputs"]] == ["n"]
    assert body[head_length:] == OUTPUTS["n"].tobytes()
    with pytest.raises(RequestError, match="'q'"):
        encode_response(asked({"q": Wanted(True)}), "m", "1.0.0", SPECS, OUTPUTS)


def test_nan_and_infinities_are_null_in_json_and_themselves_in_binary():
    outputs = OUTPUTS | {"y": np.array([[np.nan, np.inf]], np.float32)}
    parts, _ = encode_response(asked({"y": Wanted()}), "m", "1.0.0", SPECS, outputs)
    assert json.loads(b"".join(parts))["outputs"][0]["data"] == [None, None]
    parts, head_length = encode_response(asked({"y": Wanted(True)}), "m", "1.0.0", SPECS, outputs)
    assert b"".join(parts)[head_length:] == outputs["y"].tobytes()


@given(ARRAYS)
def test_any_output_goes_back_bit_for_bit_even_when_it_is_not_contiguous(array):
    strided = np.repeat(array, 2, axis=0)[::2]
    spec = TensorSpec(name="y", datatype=DATATYPES[array.dtype], shape=array.shape)
    parts, head_length = encode_response(asked(is_binary=True), "m", "1.0.0", (spec,), {"y": strided})
    body = b"".join(parts)
    head = msgspec.json.decode(body[:head_length])
    assert head["outputs"][0]["shape"] == list(array.shape)
    assert body[head_length:] == array.tobytes()


@given(PATTERNS | NUMBERS.filter(lambda array: array.dtype == np.float16))
def test_what_has_no_form_in_json_is_refused_there(array):
    spec = TensorSpec(name="y", datatype=DATATYPES[array.dtype], shape=array.shape)
    with pytest.raises(RequestError, match="ask for it with binary_data true"):
        encode_response(asked(), "m", "1.0.0", (spec,), {"y": array})


@given(TEXTS)
def test_strings_go_back_in_json_and_in_binary(array):
    spec = TensorSpec(name="y", datatype="BYTES", shape=array.shape)
    parts, _ = encode_response(asked(), "m", "1.0.0", (spec,), {"y": array})
    assert json.loads(b"".join(parts))["outputs"][0]["data"] == [element.decode() for element in array.flat]
    parts, head_length = encode_response(asked(is_binary=True), "m", "1.0.0", (spec,), {"y": array})
    assert read_strings(b"".join(parts)[head_length:], array.size, "y").tolist() == array.ravel().tolist()


def test_strings_that_are_no_text_go_back_in_binary_only():
    spec, outputs = (TensorSpec(name="y", datatype="BYTES", shape=(1,)),), {"y": as_array([b"\xff"])}
    with pytest.raises(RequestError, match="no UTF-8"):
        encode_response(asked(), "m", "1.0.0", spec, outputs)
    assert encode_response(asked(is_binary=True), "m", "1.0.0", spec, outputs)[1]


def test_large_outputs_are_not_copied():
    large = np.zeros((1, 4000), np.float32)
    spec = TensorSpec(name="y", datatype="FP32", shape=(-1, 4000))
    parts, _ = encode_response(asked(is_binary=True), "m", "1.0.0", (spec,), {"y": large})
    large[0, 0] = 1
    assert bytes(parts[1]) == large.tobytes()


def test_a_response_names_what_it_has_to_say_beyond_its_tensors():
    parts, _ = encode_response(asked(), "m", "1.0.0", SPECS, OUTPUTS, parameters={"variant": "split"})
    assert json.loads(b"".join(parts))["parameters"] == {"variant": "split"}


@pytest.mark.parametrize(("given", "key"), [("user-7", "user-7"), (7, "7"), (None, "")])
def test_the_key_of_a_split_is_a_parameter(given, key):
    parameters = {} if given is None else {"split_key": given}
    assert decode_request(json_request(VALID, [1, 2], parameters=parameters)).key == key


def test_an_output_without_a_region_to_go_to_is_refused():
    with pytest.raises(RegionError, match="has 8 bytes; 4 of region"):
        encode_response(asked({"y": Wanted(span=Span("r", 0, 4))}), "m", "1.0.0", SPECS, OUTPUTS)
    with pytest.raises(RegionError, match="not offered"):
        encode_response(asked({"y": Wanted(span=Span("r", 0, 8))}), "m", "1.0.0", SPECS, OUTPUTS)
