"""Do strings and bfloat16, which engines spell in ways of their own, come through them as they are?"""

import ml_dtypes
import numpy as np
import pytest

from runtime.backends.base import get_backend
from runtime.backends.datatypes import BF16, BYTES, numbers, zeros
from runtime.contract.artifact import TensorSpec
from runtime.errors import InferenceError, ModelLoadError
from runtime.monitor.streams import stream_plan, stream_rows
from tests.support.devices import write_onnx_artifact

TEXTS = np.array([["é".encode(), b""], [b"a\0b", b"\0"], [b"b'x'", "𝄞".encode()]], BYTES)


def bf16(values):
    return np.asarray(values, ml_dtypes.bfloat16).view(np.uint16).view(BF16)


def load(engine, folder, ports, nodes):
    """ports: (name, datatype) of inputs and outputs."""
    given, results = ([TensorSpec(name=name, datatype=kind, shape=(-1, 2)) for name, kind in side] for side in ports)
    return get_backend(engine).load(write_onnx_artifact(folder / "model", "m", given, results, nodes) / "model.onnx", {})


def node(kind, inputs, output):
    from onnx import helper

    return helper.make_node(kind, inputs, [output])


def echo(engine, folder, datatype):
    return load(engine, folder, ([("x", datatype)], [("y", datatype)]), [node("Identity", ["x"], "y")])


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_every_bit_pattern_of_bfloat16_comes_through(engine, tmp_path):
    model = echo(engine, tmp_path, "BF16")
    patterns = np.arange(1 << 16, dtype=np.uint16).view(BF16).reshape(-1, 2)
    for array in (patterns, patterns[::3], np.asfortranarray(patterns), np.broadcast_to(patterns[:1], (3, 2))):
        array.flags.writeable = False
        found = model.infer({"x": array})["y"]
        assert (found.dtype, found.shape) == (BF16, array.shape)
        assert found.tobytes() == array.tobytes()
        assert found.flags.writeable
    model.close()
    with pytest.raises(InferenceError, match="closed"):
        model.infer({"x": patterns})


def test_bfloat16_is_computed_with_and_goes_beside_other_types(tmp_path):
    """A sum of small integers is exact in bfloat16; the result is cast, so that one output is of another type."""
    from onnx import TensorProto, helper

    cast = helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT)
    total = helper.make_node("Add", ["wide", "more"], ["sum"])
    back = helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.BFLOAT16)
    ports = ([("x", "BF16"), ("more", "FP32")], [("y", "BF16"), ("sum", "FP32")])
    model = load("onnxruntime", tmp_path, ports, [cast, total, back])
    found = model.infer({"x": bf16([[1, 2]]), "more": np.array([[3, 4]], np.float32)})
    np.testing.assert_array_equal(numbers(found["y"]), [[4, 6]])
    np.testing.assert_array_equal(found["sum"], [[4, 6]])


def test_strings_come_through_onnxruntime_as_bytes(tmp_path):
    model = echo("onnxruntime", tmp_path, "BYTES")
    found = model.infer({"x": TEXTS})["y"]
    assert (found.dtype, found.tolist()) == (BYTES, TEXTS.tolist())
    assert model.infer({"x": TEXTS[::-1].T[:, :2].T})["y"].tolist() == TEXTS[::-1].T[:, :2].T.tolist()
    with pytest.raises(InferenceError, match="UTF-8"):
        model.infer({"x": np.array([[b"\xff", b""]], BYTES)})


def test_strings_are_refused_when_openvino_opens_them(tmp_path):
    with pytest.raises(ModelLoadError, match="'x' has type 'string'"):
        echo("openvino", tmp_path, "BYTES")


def test_strings_beside_bfloat16_are_refused_when_onnxruntime_opens_them(tmp_path):
    ports = ([("x", "BF16"), ("s", "BYTES")], [("y", "BF16"), ("t", "BYTES")])
    with pytest.raises(ModelLoadError, match="both BF16 and BYTES"):
        load("onnxruntime", tmp_path, ports, [node("Identity", ["x"], "y"), node("Identity", ["s"], "t")])


def test_numbers_of_bfloat16_are_those_of_ml_dtypes():
    patterns = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        expected = patterns.view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(numbers(patterns.view(BF16)), expected)
    same = np.ones(3)
    assert numbers(same) is same


def test_zeros_of_strings_are_empty():
    assert zeros("BYTES", (2, 1)).tolist() == [[b""], [b""]]
    assert numbers(zeros("BF16", (2,))).tolist() == [0, 0]


def test_bfloat16_is_watched_as_the_numbers_it_is():
    specs = (TensorSpec(name="x", datatype="BF16", shape=(-1, 2)),)
    plan = stream_plan(specs, (), "tensor")
    np.testing.assert_array_equal(stream_rows(plan, specs, {"x": bf16([[1, -2], [0.5, 3]])}), [[1, -2], [0.5, 3]])
