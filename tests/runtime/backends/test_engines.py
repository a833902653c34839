"""What is particular to one engine: precision of OpenVINO, tensor types, the reference format, a missing package."""

import numpy as np
import pytest

from runtime.backends.base import get_backend
from runtime.backends.openvino import OpenVinoBackend
from runtime.errors import EngineMissingError, EngineOptionError, ModelLoadError


def test_openvino_computes_in_bf16_only_when_asked(model_files, layers):
    rows = np.random.default_rng(3).normal(size=(64, 6)).astype(np.float32)
    exact = OpenVinoBackend().load(model_files["openvino"], {}).infer({"input": rows})["output"]
    try:
        model = OpenVinoBackend().load(model_files["openvino"], {"precision": "bf16"})
    except EngineOptionError as error:
        assert "computes in f32" in str(error)  # noqa: PT017 - a CPU without bf16 must say so
        return
    rough = model.infer({"input": rows})["output"]
    assert 1e-4 < np.abs(rough - exact).max() / np.abs(exact).max() < 3e-2


def test_what_the_protocol_has_no_datatype_for_is_refused_by_name(tmp_path):
    from onnx import TensorProto, helper, save

    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    values = [helper.make_value_info(name, kind) for name in ("words", "same")]
    graph = helper.make_graph([helper.make_node("Identity", ["words"], ["same"])], "sequences", values[:1], values[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx")
    with pytest.raises(ModelLoadError, match="'words'"):
        get_backend("onnxruntime").load(tmp_path / "model.onnx", {})


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_missing_engine_is_named_with_its_extra(name, monkeypatch, model_files):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(EngineMissingError, match=rf"edgewright\[{name}\]"):
        get_backend(name).load(model_files[name], {})


@pytest.mark.parametrize(
    "arrays",
    [
        {"weight.0": np.zeros((2, 3), np.float32)},
        {"weight.0": np.zeros((2, 3), np.float32), "bias.0": np.zeros(4, np.float32)},
        {"weight.0": np.zeros((2, 3)), "bias.0": np.zeros(3)},
        {"weight.0": np.zeros(3, np.float32), "bias.0": np.zeros(3, np.float32)},
        {"weight.0": np.array([object()]), "bias.0": np.zeros(3, np.float32)},
    ],
    ids=["no bias", "bias width", "float64", "rank", "pickle"],
)
def test_reference_refuses_what_is_no_perceptron(tmp_path, arrays):
    np.savez(tmp_path / "model.npz", **arrays)
    with pytest.raises(ModelLoadError):
        get_backend("reference").load(tmp_path / "model.npz", {})


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_openvino_compiled_for_single_rows_answers_like_the_free_batch(model_files, rows):
    given = np.random.default_rng(3).normal(size=(rows, 6)).astype(np.float32)
    free = OpenVinoBackend().load(model_files["openvino"], {})
    single = OpenVinoBackend().load(model_files["openvino"], {"batch": 1})
    assert single.inputs == free.inputs
    assert single.outputs == free.outputs
    np.testing.assert_allclose(
        single.infer({"input": given})["output"], free.infer({"input": given})["output"], rtol=1e-5, atol=1e-6
    )


def test_openvino_leaves_a_batch_alone_that_is_fixed_in_the_file(tmp_path):
    """There is nothing to cut, and the model goes on taking the two rows it was made for."""
    import openvino
    from openvino import opset8

    given = opset8.parameter([2, 3], np.float32, name="input")
    given.output(0).set_names({"input"})
    result = opset8.relu(given)
    result.output(0).set_names({"output"})
    openvino.save_model(openvino.Model([result], [given], "fixed"), tmp_path / "model.xml")
    model = OpenVinoBackend().load(tmp_path / "model.xml", {"batch": 1})
    assert model.inputs[0].shape == (2, 3)
    rows = np.array([[-1, 0, 1], [2, -3, 4]], np.float32)
    np.testing.assert_array_equal(model.infer({"input": rows})["output"], np.maximum(rows, 0))
