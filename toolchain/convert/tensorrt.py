"""What of an ONNX file would NVIDIA's parser refuse? Predicted here, where no NVIDIA library can be, before hours on a device are lost.

Only rules that are sure are here, each from the parser's own sources or from what it was seen to answer: onnx-tensorrt's
operators.md and importers of TensorRT 10.1 and 10.15 (an operator is listed only where both refuse it), and the errors "input has
type Int32" and "Non-zero zero point is not supported". A file without findings can still fail to build: kernels are the builder's
matter, and only a GPU shows them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from toolchain.errors import NetworkError

if TYPE_CHECKING:
    import numpy as np
    import onnx

_REWRITE = "express it by other operators, or leave engine tensorrt out of this target"
_SYMMETRIC = "quantize activations and weights as symmetric int8, such as by scheme tensorrt-int8"

UNSUPPORTED = frozenset({
    "AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im",
    "Compress", "ConcatFromSequence", "ConvInteger", "DFT", "Det", "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger",
    "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement",
    "OptionalHasElement", "QLinearConv", "QLinearMatMul", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
    "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence",
    "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Unique",
})  # fmt: skip
"""Marked N in operators.md of TensorRT 10.1 and of 10.15."""
_INTEGER_OPERATORS = frozenset({"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"})
_QUANTIZED = frozenset({"INT8", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1"})
"""What QuantizeLinear may make and DequantizeLinear take."""
_TYPES = _QUANTIZED | {"FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT32", "INT64", "UINT8", "BOOL"}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing the parser refuses. node: its name, else that of its first output, else of the tensor; advice: what to do."""

    node: str
    operator: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.node} ({self.operator}): {self.reason}; {self.advice}"


def lint(path: Path) -> list[Finding]:
    """Everything NVIDIA's parser is sure to refuse, in the order of the graph. Raises NetworkError for a file that is no ONNX."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
    except (OSError, DecodeError) as error:
        raise NetworkError(f"{path.name} is no ONNX file: {error}") from error
    functions = {(function.domain, function.name) for function in model.functions}
    findings = list(_graph(model.graph, functions, {}))
    for function in model.functions:
        for node in function.node:
            findings += _node(node, functions, {})
    return findings


def _graph(
    graph: "onnx.GraphProto", functions: set[tuple[str, str]], outer: Mapping[str, "onnx.TensorProto"]
) -> Iterator[Finding]:
    constants = {**outer, **{tensor.name: tensor for tensor in graph.initializer}}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if _is_plain_constant(node)}
    for value in (*graph.input, *graph.output):
        yield from _type(value.name, value.type.tensor_type.elem_type, "tensor")
    for tensor in graph.initializer:
        yield from _type(tensor.name, tensor.data_type, "weight")
    for node in graph.node:
        yield from _node(node, functions, constants)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _graph(inner, functions, constants)


def _is_plain_constant(node: "onnx.NodeProto") -> bool:
    return node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value"


def _node(
    node: "onnx.NodeProto", functions: set[tuple[str, str]], constants: Mapping[str, "onnx.TensorProto"]
) -> Iterator[Finding]:
    name = node.name or (node.output[0] if node.output else "")
    for reason, advice in _refusals(node, functions, constants):
        yield Finding(node=name, operator=node.op_type, reason=reason, advice=advice)


def _refusals(
    node: "onnx.NodeProto", functions: set[tuple[str, str]], constants: Mapping[str, "onnx.TensorProto"]
) -> Iterator[tuple[str, str]]:
    if node.domain not in ("", "ai.onnx"):
        if (node.domain, node.op_type) not in functions:
            # The parser looks at the name alone: one that ONNX has too would be taken for ONNX's own.
            yield f"it is of domain {node.domain!r}, which is not ONNX's", _REWRITE
    elif node.op_type in UNSUPPORTED:
        advice = _SYMMETRIC if node.op_type in _INTEGER_OPERATORS else _REWRITE
        yield "the parser has no importer for it", advice
    elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        yield from _quantization(node, constants)
    else:
        yield from _attributes(node)


def _quantization(node: "onnx.NodeProto", constants: Mapping[str, "onnx.TensorProto"]) -> Iterator[tuple[str, str]]:
    """Symmetric and at most 8 bits wide, with positive scales, as many as zero points."""
    from onnx import TensorProto

    points = constants.get(node.input[2]) if len(node.input) > 2 else None
    source = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    kind = TensorProto.DataType.Name((source or points).data_type) if source is not None or points is not None else ""  # type: ignore[union-attr]
    if kind == "INT32":
        yield (
            "it dequantizes int32, as ONNX Runtime does with a bias; only 8 and 4 bits are taken",
            f"keep biases in float32; {_SYMMETRIC}",
        )
    elif kind == "UINT8":
        yield "uint8 is quantized only on a DLA", _SYMMETRIC
    elif kind and kind not in _QUANTIZED:
        yield f"{kind.lower()} is not quantized, only {', '.join(sorted(_QUANTIZED)).lower()}", _SYMMETRIC
    values = None if points is None else _array(points)
    if values is not None and values.astype("float32").any():
        yield "its zero point is not zero: asymmetric quantization", _SYMMETRIC
    scales = constants.get(node.input[1])
    if scales is None:
        return
    scale = _array(scales)
    if not (scale > 0).all():
        yield "a scale is not positive", "give the channel that is all zero a scale of 1"
    if values is not None and values.size != scale.size:
        yield f"it has {scale.size} scales and {values.size} zero points", "give each scale its zero point"


def _attributes(node: "onnx.NodeProto") -> Iterator[tuple[str, str]]:
    """Settings of operators that are supported otherwise. Source: the restrictions column of operators.md."""
    import onnx

    found: dict[str, Any] = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type in ("MaxPool", "AveragePool", "LpPool") and any(step != 1 for step in found.get("dilations", ())):
        yield "its windows are dilated", _REWRITE
    if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1]:
        yield "it also gives indices", _REWRITE
    if node.op_type == "TopK" and not found.get("sorted", 1):
        yield "its results are unsorted", "set sorted to 1"
    if node.op_type == "LayerNormalization" and any(node.output[1:]):
        yield "it also gives mean or deviation", "compute those beside it"
    if node.op_type == "BatchNormalization" and found.get("training_mode", 0):
        yield "it is in training mode", "export the network in evaluation mode"
    if node.op_type == "LSTM" and (found.get("input_forget", 0) or found.get("layout", 0)):
        yield "input_forget and layout must be 0", _REWRITE
    if node.op_type == "Resize":
        if found.get("antialias", 0):
            yield "it smooths (antialias)", "set antialias to 0"
        if found.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
            yield "it keeps the aspect ratio", "give the sizes themselves"


def _type(name: str, kind: int, what: str) -> Iterator[Finding]:
    from onnx import TensorProto

    text = TensorProto.DataType.Name(kind)
    if kind and text not in _TYPES:
        yield Finding(node=name, operator=what, reason=f"{text.lower()} is no type of TensorRT's", advice=_REWRITE)


def _array(tensor: "onnx.TensorProto") -> "np.ndarray":
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)
