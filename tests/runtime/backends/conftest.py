"""The same two-layer perceptron as a file for every backend, and its weights for NumPy to check against."""

from pathlib import Path

import numpy as np
import pytest

from runtime.backends.reference import write_model

FEATURES, HIDDEN, CLASSES = 6, 16, 3


@pytest.fixture(scope="session")
def layers():
    generator = np.random.default_rng(11)
    sizes = [(FEATURES, HIDDEN), (HIDDEN, CLASSES)]
    return [(generator.normal(size=size).astype(np.float32), generator.normal(size=size[1]).astype(np.float32)) for size in sizes]


def write_onnx(path: Path, layers) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    nodes, weights, last = [], [], "input"
    for index, (weight, bias) in enumerate(layers):
        weights += [numpy_helper.from_array(weight, f"w{index}"), numpy_helper.from_array(bias, f"b{index}")]
        is_last = index == len(layers) - 1
        nodes.append(helper.make_node("Gemm", [last, f"w{index}", f"b{index}"], ["output" if is_last else f"h{index}"]))
        if not is_last:
            nodes.append(helper.make_node("Relu", [f"h{index}"], [f"r{index}"]))
            last = f"r{index}"
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", CLASSES])],
        weights,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture(scope="session")
def model_files(layers, tmp_path_factory):
    """Backend name -> the perceptron as that engine reads it."""
    import openvino

    folder = tmp_path_factory.mktemp("models")
    write_onnx(folder / "model.onnx", layers)
    openvino.save_model(openvino.convert_model(folder / "model.onnx"), folder / "model.xml", compress_to_fp16=False)
    write_model(folder / "model.npz", layers)
    onnx = folder / "model.onnx"
    return {"onnxruntime": onnx, "openvino": folder / "model.xml", "reference": folder / "model.npz", "tensorrt": onnx}
