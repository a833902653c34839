"""Does the lint agree with what NVIDIA's parser was seen to take and to refuse? The rows are the table of docs/tensorrt.md.

No NVIDIA library is here: the verdicts are those of the real parser on such graphs, recorded in docs/tensorrt.md with their source.
"""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolchain.convert.tensorrt import UNSUPPORTED, lint
from toolchain.errors import NetworkError

SIZE, CHANNELS = 8, 4


class Net:
    """A graph under construction: `then` appends a node to what came last."""

    def __init__(self, *shape: int | str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.last = "input"
        self.shape = shape or ("batch", CHANNELS, SIZE, SIZE)
        self._generator = np.random.default_rng(5)

    def weight(self, *shape: int) -> str:
        return self.constant(self._generator.normal(size=shape).astype(np.float32))

    def constant(self, value: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def then(self, operator: str, *more: str, outputs: int = 1, **attributes) -> "Net":
        names = [f"t{len(self.nodes)}" + (f"_{index}" if index else "") for index in range(outputs)]
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [self.last, *more], names, name=name, **attributes))
        self.last = names[0]
        return self

    def save(self, path: Path, *, opset: int = 17, domains: tuple[str, ...] = (), functions=()) -> Path:
        self.nodes[-1].output[0] = "output"
        given = helper.make_tensor_value_info("input", TensorProto.FLOAT, self.shape)
        result = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "net", [given], [result], self.weights)
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions), path)
        return path


def plain(channels: int = CHANNELS) -> Net:
    net = Net("batch", channels, SIZE, SIZE)
    net.then("Conv", net.weight(8, channels, 3, 3), net.weight(8), pads=[1, 1, 1, 1]).then("Relu")
    net.then("GlobalAveragePool").then("Flatten")
    return net.then("Gemm", net.weight(8, 3), net.weight(3))


def separable() -> Net:
    net = Net()
    net.then("Conv", net.weight(4, 1, 3, 3), net.weight(4), pads=[1, 1, 1, 1], group=4).then("Clip")
    return net.then("Conv", net.weight(8, 4, 1, 1), net.weight(8)).then("HardSwish").then("GlobalAveragePool").then("Flatten")


def residual() -> Net:
    net = Net()
    net.then("Conv", net.weight(4, 4, 3, 3), net.weight(4), pads=[1, 1, 1, 1]).then("Add", "input").then("Relu")
    return net.then("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).then("Flatten")


def normalised() -> Net:
    net = Net()
    net.then("Conv", net.weight(4, 4, 3, 3))
    return net.then("BatchNormalization", *[net.constant(np.ones(4, np.float32)) for _ in range(4)]).then("Sigmoid")


def transposed() -> Net:
    net = Net()
    return net.then("ConvTranspose", net.weight(4, 2, 2, 2), strides=[2, 2]).then("Softmax", axis=1)


def quantized(path: Path, net: Net, **options) -> Path:
    """By ONNX Runtime's own quantizer; options as `quantize_static` takes them, over the default ones."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    source = net.save(path.with_name("float.onnx"), opset=options.pop("opset", 17))
    rows = iter([{"input": np.random.default_rng(0).normal(size=(4, *net.shape[1:])).astype(np.float32)}])

    class Reader:
        def get_next(self):
            return next(rows, None)

    defaults = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "quant_format": QuantFormat.QDQ}
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises pre-processing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_static(str(source), str(path), Reader(), **(defaults | options))
    finally:
        root.setLevel(level)
    return path


def symmetric(path: Path, net: Net, **options) -> Path:
    from onnxruntime.quantization import QuantType

    extra = {"ActivationSymmetric": True, "QuantizeBias": False} | options.pop("extra", {})
    return quantized(path, net, activation_type=QuantType.QInt8, extra_options=extra, **options)


def asymmetric_signed(path: Path) -> Path:
    from onnxruntime.quantization import QuantType

    return quantized(path, plain(), activation_type=QuantType.QInt8, extra_options={"QuantizeBias": False})


def unsigned_symmetric(path: Path) -> Path:
    """Unsigned with zero point 128: symmetric in value, not in code."""
    return quantized(path, plain(), extra_options={"ActivationSymmetric": True, "QuantizeBias": False})


def handmade(path: Path, zero: np.ndarray, scale: float = 0.1, **attributes) -> Path:
    net = Net()
    pair = net.constant(np.full(zero.shape, scale, np.float32)), net.constant(zero)
    return net.then("QuantizeLinear", *pair, **attributes).then("DequantizeLinear", *pair, **attributes).save(path, opset=21)


def inner(path: Path) -> Path:
    """A custom operator in a branch, where only a walk into subgraphs finds it."""
    value = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)
    fancy = helper.make_graph(
        [helper.make_node("Fancy", ["input"], ["chosen"], name="fancy", domain="my.ops")], "then", [], [value]
    )
    same = helper.make_graph([helper.make_node("Identity", ["input"], ["chosen"], name="same")], "else", [], [value])
    net = Net()
    net.nodes.append(
        helper.make_node("If", [net.constant(np.array(True))], ["t0"], name="if0", then_branch=fancy, else_branch=same)
    )
    return net.save(path, domains=("my.ops",))


def function(path: Path) -> Path:
    """A node of another domain whose meaning the file itself gives: the parser unfolds it."""
    body = [helper.make_node("Relu", ["x"], ["y"], name="relu")]
    block = helper.make_function("local", "Block", ["x"], ["y"], body, [helper.make_opsetid("", 17)])
    return Net().then("Block", domain="local").save(path, domains=("local",), functions=[block])


def texts(path: Path) -> Path:
    tensors = [helper.make_tensor_value_info(name, TensorProto.STRING, [1]) for name in ("input", "output")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["output"], name="same")], "texts", tensors[:1], tensors[1:]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def integers(path: Path) -> Path:
    """What ONNX Runtime's dynamic quantization leaves."""
    net = Net()
    net.then("DynamicQuantizeLinear", outputs=3).then("ConvInteger", net.constant(np.ones((4, 4, 3, 3), np.uint8)))
    return net.then("Cast", to=TensorProto.FLOAT).save(path)


ACCEPTED: dict[str, Callable[[Path], Path]] = {
    "float CNN": lambda path: plain().save(path),
    "float CNN, opset 13": lambda path: plain().save(path, opset=13),
    "float CNN, opset 20": lambda path: plain().save(path, opset=20),
    "depthwise separable": lambda path: separable().save(path),
    "residual with pooling": lambda path: residual().save(path),
    "batch normalization": lambda path: normalised().save(path),
    "transposed convolution": lambda path: transposed().save(path),
    "symmetric int8 without bias, per channel": lambda path: symmetric(path, plain(), per_channel=True),
    "symmetric int8 without bias, per tensor": lambda path: symmetric(path, plain()),
    "symmetric int8 without bias, residual": lambda path: symmetric(path, residual(), per_channel=True),
    "symmetric int8 without bias, depthwise": lambda path: symmetric(path, separable(), per_channel=True),
    "symmetric int8 without bias, opset 21": lambda path: symmetric(path, plain(), per_channel=True, opset=21),
    "symmetric int8, only inputs quantized": lambda path: symmetric(
        path, plain(), per_channel=True, extra={"OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"]}
    ),
    "local function": function,
    "int8 by hand": lambda path: handmade(path, np.array(0, np.int8)),
}

REFUSED: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "onnxruntime's default": (lambda path: quantized(path, plain()), "DequantizeLinear", "int32"),
    "onnxruntime's default, activations": (lambda path: quantized(path, plain()), "QuantizeLinear", "uint8"),
    "int32 bias though symmetric": (
        lambda path: symmetric(path, plain(), per_channel=True, extra={"QuantizeBias": True}), "DequantizeLinear", "int32",
    ),
    "uint8 activations": (unsigned_symmetric, "QuantizeLinear", "zero point is not zero"),
    "uint8 with zero point 0": (lambda path: handmade(path, np.array(0, np.uint8)), "QuantizeLinear", "uint8"),
    "asymmetric int8 activations": (asymmetric_signed, "QuantizeLinear", "zero point is not zero"),
    "asymmetric int8 in one channel": (
        lambda path: handmade(path, np.array([0, 0, 1, 0], np.int8), axis=1), "DequantizeLinear", "zero point is not zero",
    ),
    "int16 activations": (lambda path: handmade(path, np.array(0, np.int16)), "QuantizeLinear", "int16 is not quantized"),
    "a scale of zero": (lambda path: handmade(path, np.array(0, np.int8), scale=0.0), "QuantizeLinear", "not positive"),
    "custom operator": (lambda path: Net().then("Fancy", domain="my.ops").save(path, domains=("my.ops",)), "Fancy", "my.ops"),
    "contributed operator": (
        lambda path: Net().then("FastGelu", domain="com.microsoft").save(path, domains=("com.microsoft",)), "FastGelu", "com.microsoft",
    ),
    "custom operator in a branch": (inner, "Fancy", "my.ops"),
    "integer operators": (integers, "ConvInteger", "no importer"),
    "text": (texts, "tensor", "string"),
    "indices of a pooling": (
        lambda path: Net().then("MaxPool", kernel_shape=[2, 2], outputs=2).save(path), "MaxPool", "indices",
    ),
    "dilated pooling": (
        lambda path: Net().then("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]).save(path), "MaxPool", "dilated",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_the_parser_takes_has_no_findings(case: str, tmp_path: Path) -> None:
    assert lint(ACCEPTED[case](tmp_path / "model.onnx")) == []


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_parser_refuses_is_found_with_node_reason_and_advice(case: str, tmp_path: Path) -> None:
    make, operator, word = REFUSED[case]
    findings = lint(make(tmp_path / "model.onnx"))
    assert any(finding.operator == operator and word in finding.reason for finding in findings), findings
    assert all(finding.node and finding.advice for finding in findings)


def test_the_advice_for_a_quantized_graph_leads_to_one_without_findings(tmp_path: Path) -> None:
    refused = lint(quantized(tmp_path / "model.onnx", plain()))
    assert {finding.operator for finding in refused} == {"QuantizeLinear", "DequantizeLinear"}
    assert all("tensorrt-int8" in finding.advice for finding in refused)
    assert lint(symmetric(tmp_path / "model.onnx", plain(), per_channel=True)) == []


def test_no_operator_of_an_ordinary_network_is_on_the_list() -> None:
    assert all(onnx.defs.has(name) for name in UNSUPPORTED)
    assert not UNSUPPORTED & {"Conv", "Gemm", "MatMul", "Relu", "Softmax", "Resize", "QuantizeLinear", "LayerNormalization"}


def test_a_file_that_is_no_onnx_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(NetworkError, match=r"model\.onnx is no ONNX file"):
        lint(tmp_path / "model.onnx")
    with pytest.raises(NetworkError, match=r"absent\.onnx"):
        lint(tmp_path / "absent.onnx")
