"""How do weights alone become small, where matrix products hold nearly all of them?

Activations stay float, so nothing has to be calibrated: weights are stored in 4 or 8 bits, blocks of 32 with a scale each, and
multiplied by ONNX Runtime's MatMulNBits. Convolutions have no such kernel. Round to nearest, as neural-compressor's RTN.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from toolchain.compress.base import Ground
from toolchain.compress.onnxruntime import MODEL_FILE, describe, quantizing
from toolchain.pipeline.products import Precision, Variant
from toolchain.pipeline.progress import Progress
from toolchain.recipe import Method

if TYPE_CHECKING:
    import onnx

SHARE = 0.8
"""Of all weights; with less in matrix products, the file hardly shrinks."""
BLOCK = 32


class WeightOnly(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of matrix products in `bits` bits, everything else as it was."""

    name: str
    precision: Precision
    bits: Literal[4, 8]
    engine: ClassVar[str] = "onnxruntime"
    method: ClassVar[Method | None] = "weight-only"
    revision: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "numpy")
    needs_network: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False

    def unfit(self, ground: Ground) -> str:
        import onnx

        share = _dense_share(onnx.load(ground.model.folder / ground.model.value.variant.model_file))
        return "" if share >= SHARE else f"matrix products hold {share:.0%} of its weights, less than {SHARE:.0%}"

    def config(self, ground: Ground) -> dict[str, Any]:
        return {"bits": self.bits, "block": BLOCK}

    def make(self, ground: Ground, name: str, work: Path, progress: Progress) -> Variant:
        """Raises StageError where ONNX Runtime cannot quantize the model."""
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

        model = onnx.load(ground.model.folder / ground.model.value.variant.model_file)
        with quantizing():
            _split_gemms(model)
            settings = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, bits=self.bits)
            quantizer = MatMulNBitsQuantizer(model, algo_config=settings)
            quantizer.process()
            quantizer.model.save_model_to_file(str(work / MODEL_FILE), False)
        return describe(ground, name, self.name, work, self.precision)


ONNXRUNTIME_WEIGHTS4 = WeightOnly(name="int4-weights", precision="int4", bits=4)
ONNXRUNTIME_WEIGHTS8 = WeightOnly(name="int8-weights", precision="int8", bits=8)


def _dense_share(model: "onnx.ModelProto") -> float:
    """Share of the model's constants that lie in constant matrices of MatMul and Gemm."""
    sizes = {item.name: _size(item) for item in model.graph.initializer}
    dense = {node.input[1] for node in model.graph.node if node.op_type in ("MatMul", "Gemm")}
    return sum(size for name, size in sizes.items() if name in dense) / max(1, sum(sizes.values()))


def _split_gemms(model: "onnx.ModelProto") -> None:
    """Gemm becomes MatMul and Add, for the kernel knows only the former; in place, where its factors are one."""
    from onnx import helper, numpy_helper

    constants = {item.name: item for item in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        plain = attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA", 0)
        if node.op_type != "Gemm" or node.input[1] not in constants or not plain:
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        name = f"{node.output[0]}_weight"
        matrix = weight.T.copy() if attributes.get("transB", 0) else weight
        model.graph.initializer.append(numpy_helper.from_array(matrix, name))
        has_bias = len(node.input) > 2 and node.input[2]
        product = f"{node.output[0]}_product" if has_bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product], name=f"{node.name}_matmul"))
        if has_bias:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}_add"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [item for item in model.graph.initializer if item.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _size(item: Any) -> int:
    size = 1
    for dimension in item.dims:
        size *= dimension
    return size
