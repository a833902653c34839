"""What does one example cost in multiplications, and how many numbers does a float model hold?

Counted on the ONNX graph, so that a network, its pruned form and a file somebody brought are counted alike.
"""

from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from runtime.contract.artifact import TensorSpec

Shapes = dict[str, tuple[int, ...]]


class Cost(msgspec.Struct, frozen=True):
    """macs: multiply-accumulates of one example, 0 where a shape is not known before the model runs. parameters: floating-point
    numbers in the file."""

    macs: int
    parameters: int


def cost_of(path: Path, inputs: Sequence[TensorSpec]) -> Cost:
    """The cost of the ONNX file at `path` for a batch of one. inputs: what the data says about sizes the file leaves open.

    Counted are convolutions and matrix products, which bias, activations and normalisation add little to.
    """
    import onnx

    model = onnx.load(path)
    parameters = sum(prod(weight.dims) for weight in _weights(model, onnx))
    for value in model.graph.input:
        spec = next((spec for spec in inputs if spec.name == value.name), None)
        for index, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.HasField("dim_value"):
                size.dim_value = max(1, spec.shape[index]) if spec is not None else 1
    del model.graph.value_info[:]  # they were inferred for a free batch
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = _shapes(model)
    counts = [_macs(node, shapes) for node in model.graph.node]
    return Cost(macs=0 if None in counts else sum(count or 0 for count in counts), parameters=parameters)


def _weights(model: Any, onnx: Any) -> list[Any]:
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
    return [tensor for tensor in model.graph.initializer if tensor.data_type in kinds]


def _shapes(model: Any) -> Shapes:
    """Of every value whose sizes are all known."""
    shapes: Shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        sizes = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(size.HasField("dim_value") for size in sizes):
            shapes[value.name] = tuple(size.dim_value for size in sizes)
    return shapes


def _macs(node: Any, shapes: Shapes) -> int | None:
    """0 for an operator that is not counted, None where a shape is missing."""
    count = _COUNTS.get(node.op_type)
    if count is None:
        return 0
    try:
        return count(node, shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]])
    except KeyError:
        return None


def _convolution(node: Any, x: tuple[int, ...], weight: tuple[int, ...], y: tuple[int, ...]) -> int:
    """weight: [out, in / groups, ...kernel]: every output is a sum over all but its first size."""
    return prod(y) * prod(weight[1:])


def _transposed(node: Any, x: tuple[int, ...], weight: tuple[int, ...], y: tuple[int, ...]) -> int:
    """weight: [in, out / groups, ...kernel]: every input is spread over all but its first size."""
    return prod(x) * prod(weight[1:])


def _product(node: Any, x: tuple[int, ...], weight: tuple[int, ...], y: tuple[int, ...]) -> int:
    return prod(y) * x[-1]


def _gemm(node: Any, x: tuple[int, ...], weight: tuple[int, ...], y: tuple[int, ...]) -> int:
    is_transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return prod(y) * x[0 if is_transposed else 1]


_COUNTS: dict[str, Callable[..., int]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _gemm,
    "MatMul": _product,
}
