"""Are the models for TensorRT what NVIDIA's parser takes, close to the float model, and the same bytes every time?"""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.backends.base import get_backend
from runtime.contract.artifact import TensorSpec
from tests.support import fake_tensorrt
from toolchain.benchmark.metrics import Metric
from toolchain.compress.base import Ground
from toolchain.compress.tensorrt import (
    TENSORRT_FLOAT16,
    TENSORRT_FLOAT32,
    TENSORRT_FLOATS,
    TENSORRT_INT8,
    TENSORRT_INT8_PERCENTILE,
    TENSORRT_LADDER,
)
from toolchain.convert.tensorrt import lint
from toolchain.pipeline.products import FloatModel, Split, SteeringData, Variant
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.stage import Stored
from toolchain.recipe import CompressSection

ROWS = 32
TENSORRT_SCHEMES = (*TENSORRT_FLOATS, *TENSORRT_LADDER)


class Graph:
    """A small convolutional network with every kind of product: stem, convolution, depthwise, residual, Gemm."""

    def __init__(self, channels: int = 3, size: int = 8) -> None:
        generator = np.random.default_rng(8)
        self.weights: list[onnx.TensorProto] = []

        def weight(*shape: int) -> str:
            array = (generator.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
            self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
            return self.weights[-1].name

        def node(operator: str, inputs: list[str], output: str, **attributes) -> onnx.NodeProto:
            return helper.make_node(operator, inputs, [output], **attributes)  # without names, as some exporters leave them

        pads = [1, 1, 1, 1]
        self.nodes = [
            node("Conv", ["input", weight(8, channels, 3, 3), weight(8)], "stem", pads=pads),
            node("Relu", ["stem"], "a"),
            node("Conv", ["a", weight(8, 1, 3, 3), weight(8)], "deep", pads=pads, group=8),
            node("Relu", ["deep"], "b"),
            node("Conv", ["b", weight(8, 8, 1, 1), weight(8)], "point"),
            node("Add", ["point", "a"], "sum"),
            node("Relu", ["sum"], "c"),
            node("GlobalAveragePool", ["c"], "pooled"),
            node("Flatten", ["pooled"], "flat"),
            node("Gemm", ["flat", weight(5, 8), weight(5)], "output", transB=1),
        ]
        self.shape = (channels, size, size)

    def save(self, path: Path) -> None:
        given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *self.shape])
        result = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 5])
        graph = helper.make_graph(self.nodes, "net", [given], [result], self.weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def ground(folder: Path, graph: Graph) -> Ground:
    folder.mkdir(parents=True)
    graph.save(folder / "model.onnx")
    examples = np.random.default_rng(3).normal(size=(ROWS, *graph.shape)).astype(np.float32)
    np.save(folder / "inputs.npy", examples)
    np.save(folder / "targets.npy", np.zeros(ROWS, np.int64))
    split = Split(rows=ROWS, inputs=("inputs.npy",), targets="targets.npy")
    inputs = (TensorSpec(name="input", datatype="FP32", shape=(-1, *graph.shape)),)
    outputs = (TensorSpec(name="output", datatype="FP32", shape=(-1, 5)),)
    data = SteeringData(train=split, validation=split, inputs=inputs, classes=(), output_kind="tensor", digest="0" * 64)
    variant = Variant(
        name="onnxruntime-float32", scheme="float32", engine="onnxruntime", precision="float32", model_file="model.onnx",
        files=("model.onnx",), size_bytes=(folder / "model.onnx").stat().st_size, inputs=inputs, outputs=outputs,
    )  # fmt: skip
    return Ground(
        model=Stored(FloatModel(variant=variant, reference=()), folder, "f" * 64), data=Stored(data, folder, "0" * 64),
        metric=Metric(name="accuracy", goal="max", max_drop=0.01, reference="", code="", folder=folder),
        settings=CompressSection(calibration_rows=ROWS), weight_bits=8,
    )  # fmt: skip


def make(scheme, given: Ground, work: Path) -> Stored[Variant]:
    work.mkdir()
    return Stored(scheme.make(given, f"tensorrt-{scheme.name}", work, Silent()), work, "")


def answer(engine: str, path: Path, given: Ground) -> np.ndarray:
    rows = np.load(given.data.folder / "inputs.npy")
    model = get_backend(engine).load(path, {})
    result = model.infer({"input": rows})["output"]
    model.close()
    return result


@pytest.fixture
def given(tmp_path: Path) -> Ground:
    return ground(tmp_path / "float", Graph())


# What rounding costs here: float16 keeps 11 bits, int8 with one scale a tensor about 7.
@pytest.mark.parametrize(
    ("scheme", "least", "most"),
    [
        (TENSORRT_FLOAT32, 0, 0),
        (TENSORRT_FLOAT16, 1e-5, 3e-3),
        (TENSORRT_INT8, 1e-3, 6e-2),
        (TENSORRT_INT8_PERCENTILE, 1e-3, 6e-2),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_every_scheme_is_as_close_to_the_float_model_as_its_precision(given: Ground, tmp_path: Path, scheme, least, most) -> None:
    assert scheme.unfit(given) == ""
    made = make(scheme, given, tmp_path / "work")
    assert (made.value.engine, made.value.precision, made.value.scheme) == ("tensorrt", scheme.precision, scheme.name)
    assert lint(made.folder / made.value.model_file) == []
    exact = answer("onnxruntime", given.model.folder / "model.onnx", given)
    error = np.abs(answer("onnxruntime", made.folder / made.value.model_file, given) - exact).max() / np.abs(exact).max()
    assert least <= error <= most


@pytest.mark.parametrize("scheme", TENSORRT_SCHEMES, ids=lambda scheme: scheme.name)
def test_the_backend_opens_and_runs_every_scheme(given: Ground, tmp_path: Path, scheme, monkeypatch) -> None:
    """On fakes of NVIDIA's libraries: that inputs and outputs stay float32 and the batch free is what this shows."""
    fake_tensorrt.install(monkeypatch)
    made = make(scheme, given, tmp_path / "work")
    expected = answer("onnxruntime", made.folder / made.value.model_file, given)
    np.testing.assert_allclose(answer("tensorrt", made.folder / made.value.model_file, given), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scheme", TENSORRT_SCHEMES, ids=lambda scheme: scheme.name)
def test_another_folder_gives_the_same_bytes(tmp_path: Path, scheme) -> None:
    contents = set()
    for place in ("here", "elsewhere"):
        made = make(scheme, ground(tmp_path / place / "float", Graph()), tmp_path / place / "work")
        contents.add((made.folder / made.value.model_file).read_bytes())
    assert len(contents) == 1


def test_float16_is_float16_inside_and_half_the_size(given: Ground, tmp_path: Path) -> None:
    made = make(TENSORRT_FLOAT16, given, tmp_path / "work")
    graph = onnx.load(made.folder / "model.onnx").graph
    assert {tensor.data_type for tensor in graph.initializer} == {TensorProto.FLOAT16}
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {TensorProto.FLOAT}


def test_a_weight_float16_cannot_hold_stays_float32_with_its_node_and_no_other(tmp_path: Path) -> None:
    """As the variance of raw inputs does: its node lies between casts, and inner types an exporter wrote down do not contradict."""
    graph = Graph()
    parts = [np.ones(3), np.zeros(3), np.zeros(3), np.full(3, 70_000.0)]
    graph.weights += [numpy_helper.from_array(part.astype(np.float32), f"norm{index}") for index, part in enumerate(parts)]
    names = [f"norm{index}" for index in range(4)]
    graph.nodes.insert(0, helper.make_node("BatchNormalization", ["input", *names], ["even"]))
    graph.nodes.insert(1, helper.make_node("Relu", ["even"], ["positive"]))
    graph.nodes[2].input[0] = "positive"
    given = ground(tmp_path / "float", graph)
    path = given.model.folder / "model.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path)), path)
    cast = onnx.load(make(TENSORRT_FLOAT16, given, tmp_path / "work").folder / "model.onnx").graph
    kinds = {tensor.name: tensor.data_type for tensor in cast.initializer}
    assert {kinds[name] for name in names} == {TensorProto.FLOAT}
    assert {kind for name, kind in kinds.items() if name not in names} == {TensorProto.FLOAT16}


def quantized_inputs(graph: onnx.GraphProto, operator: str) -> list[tuple[str, ...]]:
    """For each node of the kind, what makes its inputs."""
    makers = {node.output[0]: node.op_type for node in graph.node}
    return [tuple(makers.get(name, "") for name in node.input) for node in graph.node if node.op_type == operator]


def test_int8_stands_before_products_only_and_leaves_biases_and_the_stem_alone(given: Ground, tmp_path: Path) -> None:
    made = make(TENSORRT_INT8, given, tmp_path / "work")
    graph = onnx.load(made.folder / "model.onnx").graph
    both = ("DequantizeLinear", "DequantizeLinear", "")
    assert quantized_inputs(graph, "Conv") == [("", "", ""), both, both]
    assert quantized_inputs(graph, "Gemm") == [both]
    assert quantized_inputs(graph, "Relu") == [("Conv",), ("Conv",), ("Add",)]
    scales = {tensor.name: tensor for tensor in graph.initializer}
    sizes = sorted(np.prod(scales[node.input[1]].dims, dtype=int) for node in graph.node if node.op_type == "DequantizeLinear")
    assert sizes == [1, 1, 1, 5, 8, 8]


def test_a_stem_of_four_channels_is_quantized_too(tmp_path: Path) -> None:
    made = make(TENSORRT_INT8, ground(tmp_path / "float", Graph(channels=4)), tmp_path / "work")
    graph = onnx.load(made.folder / "model.onnx").graph
    assert all(inputs[0] == "DequantizeLinear" for inputs in quantized_inputs(graph, "Conv"))


def test_a_model_without_products_needs_no_int8(tmp_path: Path) -> None:
    graph = Graph()
    graph.nodes = [helper.make_node("Relu", ["input"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["output"])]
    assert "no convolution or matrix product" in TENSORRT_INT8.unfit(ground(tmp_path / "float", graph))


@pytest.mark.parametrize("scheme", TENSORRT_SCHEMES, ids=lambda scheme: scheme.name)
def test_what_the_parser_refuses_is_left_out_with_the_reason(tmp_path: Path, scheme) -> None:
    graph = Graph()
    graph.nodes[1] = helper.make_node("Unique", ["stem"], ["a"], name="odd")
    given = ground(tmp_path / "float", graph)
    assert scheme.unfit(given).startswith("NVIDIA's parser would refuse it: odd (Unique): the parser has no importer for it")


def input_scale(path: Path) -> float:
    graph = onnx.load(path).graph
    (quantize,) = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "input"]
    return float(next(numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == quantize.input[1]))


def test_the_ladder_s_second_rung_cuts_off_outliers(tmp_path: Path, capsys) -> None:
    """One value in 200,000 is a thousand: by the extremes the range would be useless for all others."""
    given = ground(tmp_path / "float", Graph(channels=4, size=40))
    examples = np.load(given.data.folder / "inputs.npy")
    examples[0, 0, 0, 0] = 1_000.0
    np.save(given.data.folder / "inputs.npy", examples)
    schemes = (TENSORRT_INT8, TENSORRT_INT8_PERCENTILE)
    widest, cut = (input_scale(make(scheme, given, tmp_path / scheme.name).folder / "model.onnx") for scheme in schemes)
    assert widest == pytest.approx(1_000 / 127, rel=0.01)
    assert cut < widest / 50
    assert capsys.readouterr().out == ""
