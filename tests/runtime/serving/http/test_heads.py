"""Is what was read or written before used again without any difference from reading or writing it anew?"""

import json

import numpy as np
import pytest

from runtime.errors import RequestError
from runtime.serving.http.heads import MOST_HEADS, Heads, write
from runtime.serving.http.messages import decode_request, encode_response
from runtime.serving.limits import LimitSettings
from runtime.serving.regions import NO_REGIONS

GENERATOR = np.random.default_rng(4)


def binary(arrays, prefix="", **more):
    """A body and the length of its JSON part, padded by a prefix of blanks so that tensors may lie unaligned."""
    kinds = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64", np.dtype(np.uint8): "UINT8"}
    inputs = [
        {"name": name, "shape": array.shape, "datatype": kinds[array.dtype], "parameters": {"binary_data_size": array.nbytes}}
        for name, array in arrays.items()
    ]
    head = (prefix + json.dumps({"inputs": inputs, **more})).encode()
    return head + b"".join(array.tobytes() for array in arrays.values()), len(head)


def some_arrays():
    return {
        "a": GENERATOR.normal(size=(2, 3)).astype(np.float32),
        "b": GENERATOR.integers(-9, 9, size=(2,)),
        "c": GENERATOR.integers(0, 255, size=(5,)).astype(np.uint8),
    }


@pytest.mark.parametrize("blanks", range(9))
def test_a_json_part_read_again_gives_the_new_tensors(blanks):
    heads = Heads(LimitSettings())
    for _ in range(3):
        arrays = some_arrays()
        body, length = binary(arrays, " " * blanks, parameters={"binary_data_output": True, "split_key": "u"})
        found, anew = heads.read(body, length, NO_REGIONS), decode_request(body, length)
        assert (found.id, found.outputs, found.is_binary, found.key) == (anew.id, anew.outputs, anew.is_binary, anew.key)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found.inputs[name], array)
            assert found.inputs[name].dtype == array.dtype
            assert found.inputs[name].flags.aligned
            assert not found.inputs[name].flags.writeable
    assert len(heads._known) == 1


@pytest.mark.parametrize("change", [-1, 1])
def test_a_body_of_another_length_is_refused_although_its_json_part_is_known(change):
    heads = Heads(LimitSettings())
    body, length = binary(some_arrays())
    heads.read(body, length, NO_REGIONS)
    with pytest.raises(RequestError):
        heads.read(body[:change] if change < 0 else body + b"x", length, NO_REGIONS)


def test_what_may_differ_under_one_json_part_is_not_kept():
    heads = Heads(LimitSettings())
    texts = b'{"inputs":[{"name":"t","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":6}}]}'
    values = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1.5]}]}'
    heads.read(texts + b"\2\0\0\0hi", len(texts), NO_REGIONS)
    heads.read(values, len(values), NO_REGIONS)
    heads.read(*binary(some_arrays(), id="1"), NO_REGIONS)
    assert heads._known == {}


def test_only_so_many_are_kept():
    heads = Heads(LimitSettings())
    for number in range(MOST_HEADS + 2):
        heads.read(*binary({f"n{number}": np.zeros(1, np.float32)}), NO_REGIONS)
    assert len(heads._known) == 2


@pytest.mark.parametrize(
    "asked",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "output", "parameters": {"binary_data": True}}]},
        {"outputs": [{"name": "output", "parameters": {"classification": 2, "binary_data": True}}]},
        {},
    ],
    ids=["all binary", "one by name", "classes", "json"],
)
def test_a_response_written_again_is_the_response(repository, asked):
    served, heads = repository.get("tiny"), Heads(LimitSettings())
    for rows in (1, 3, 1, 3):
        body, length = binary({"input": GENERATOR.normal(size=(2, 4)).astype(np.float32)}, **asked)
        request = heads.read(body, length, NO_REGIONS)
        outputs = {"output": GENERATOR.normal(size=(rows, 3)).astype(np.float32)}
        for parameters in ({}, {"variant": "split"}):
            found = write(request, served, outputs, NO_REGIONS, parameters)
            manifest = served.manifest
            anew = encode_response(request, manifest.model, manifest.version, manifest.outputs, outputs, parameters=parameters)
            assert (b"".join(found[0]), found[1]) == (b"".join(anew[0]), anew[1])
