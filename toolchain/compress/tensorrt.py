"""Which variants does TensorRT run, all of them ONNX? The float model as it is, cast to fp16, or with explicit symmetric int8.

Networks are strongly typed there, so precision is in the file. Int8 is ONNX Runtime's QuantizeLinear pairs in the one form
NVIDIA's parser takes: symmetric, signed, biases left in float32. They stand only before convolutions and matrix products, so that
what follows those is fused with them. Sources: "Working with Quantized Types", NVIDIA; docs/tensorrt.md.
"""

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from toolchain.compress.base import Ground, Scheme
from toolchain.compress.calibration import Draw, batches, draw
from toolchain.convert.onnx import strip_metadata
from toolchain.convert.tensorrt import Finding, lint
from toolchain.errors import StageError
from toolchain.pipeline.products import Precision, Variant
from toolchain.pipeline.progress import Progress
from toolchain.recipe import Method

if TYPE_CHECKING:
    import numpy as np
    import onnx

MODEL_FILE = "model.onnx"
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_LARGEST_HALF = 65504.0
_PERCENTILE = 99.99
"""Of the values of a tensor; the library's own 99.999 keeps every outlier of a small calibration set."""
_CHANNELS_PER_PACK = 4
"""Int8 kernels read input channels in packs of four; a convolution that has not as many was seen to find no kernel (A100,
TensorRT 11.3, a public report), and being the first layer of most networks it is the one that quantizes worst."""


class TensorRtFloat(msgspec.Struct, frozen=True, kw_only=True):
    """float32: the model as it is. float16: weights and arithmetic cast, inputs and outputs still float32.

    What float16 loses is seen by the check on validation data, as with every variant.
    """

    name: str
    precision: Precision
    engine: ClassVar[str] = "tensorrt"
    method: ClassVar[Method | None] = None
    revision: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime")
    needs_network: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False

    def unfit(self, ground: Ground) -> str:
        return _refused(_source(ground))

    def config(self, ground: Ground) -> dict[str, Any]:
        return {}

    def make(self, ground: Ground, name: str, work: Path, progress: Progress) -> Variant:
        if self.precision == "float16":
            _cast_to_half(_source(ground), work / MODEL_FILE)
        else:
            shutil.copyfile(_source(ground), work / MODEL_FILE)
        return _variant(ground, name, self.name, self.precision, work)


class TensorRtInt8(msgspec.Struct, frozen=True, kw_only=True):
    """calibration: how the examples set the ranges; a symmetric range is wide, so one outlier costs more than it would elsewhere.

    draw: which examples.
    """

    name: str
    calibration: Literal["MinMax", "Percentile"]
    draw: Draw = "even"
    engine: ClassVar[str] = "tensorrt"
    precision: ClassVar[Precision] = "int8"
    method: ClassVar[Method | None] = "quantize"
    revision: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "numpy")
    needs_network: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True

    def unfit(self, ground: Ground) -> str:
        import onnx

        if reason := _refused(_source(ground)):
            return reason
        if any(_products(onnx.load(_source(ground)).graph).values()):
            return ""
        return "it has no convolution or matrix product that TensorRT computes in int8"

    def config(self, ground: Ground) -> dict[str, Any]:
        return {"calibration rows": ground.settings.calibration_rows, "calibration": self.calibration, "draw": self.draw}

    def make(self, ground: Ground, name: str, work: Path, progress: Progress) -> Variant:
        """Raises StageError where ONNX Runtime cannot quantize the model, or the result is not what the parser takes."""
        try:
            self._quantize(ground, work)
        except Exception as error:
            raise StageError(f"ONNX Runtime cannot quantize the model for TensorRT: {type(error).__name__}: {error}") from error
        strip_metadata(work / MODEL_FILE)
        if findings := lint(work / MODEL_FILE):
            raise StageError(f"NVIDIA's parser would refuse the quantized model: {findings[0]}")
        return _variant(ground, name, self.name, self.precision, work)

    def _quantize(self, ground: Ground, work: Path) -> None:
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        prepared = work / "prepared.onnx"
        with _quiet():
            # Symbolic shapes are not needed for these operators, and a failure would leave a file where the build was started.
            quant_pre_process(str(_source(ground)), str(prepared), skip_symbolic_shape=True)
            model = onnx.load(prepared)
            _name_by_place(model.graph)
            onnx.save(model, prepared)
            left = [name for name, is_packed in _products(model.graph).items() if not is_packed]
            quantize_static(
                str(prepared), str(work / MODEL_FILE), _Reader(ground, self.draw), quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, per_channel=True,
                op_types_to_quantize=list(_PRODUCTS), nodes_to_exclude=left,
                calibrate_method=CalibrationMethod[self.calibration],
                extra_options={
                    "ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False, "CalibTensorRangeSymmetric": True,
                    "CalibPercentile": _PERCENTILE, "OpTypesToExcludeOutputQuantization": list(_PRODUCTS),
                },
            )  # fmt: skip
        prepared.unlink()


TENSORRT_FLOAT32 = TensorRtFloat(name="float32", precision="float32")
TENSORRT_FLOAT16 = TensorRtFloat(name="float16", precision="float16")
TENSORRT_INT8 = TensorRtInt8(name="int8", calibration="MinMax")
TENSORRT_INT8_PERCENTILE = TensorRtInt8(name="int8-percentile", calibration="Percentile")
TENSORRT_INT8_BALANCED = TensorRtInt8(name="int8-balanced", calibration="Percentile", draw="balanced")
TENSORRT_FLOATS: tuple[Scheme, ...] = (TENSORRT_FLOAT32, TENSORRT_FLOAT16)
TENSORRT_LADDER: tuple[Scheme, ...] = (TENSORRT_INT8, TENSORRT_INT8_PERCENTILE, TENSORRT_INT8_BALANCED)
"""The cheapest first."""


def _source(ground: Ground) -> Path:
    return ground.model.folder / ground.model.value.variant.model_file


def _variant(ground: Ground, name: str, scheme: str, precision: Precision, work: Path) -> Variant:
    source = ground.model.value.variant
    return Variant(
        name=name, form=ground.model.value.form, scheme=scheme, engine="tensorrt", precision=precision, model_file=MODEL_FILE,
        files=(MODEL_FILE,), size_bytes=(work / MODEL_FILE).stat().st_size, inputs=source.inputs, outputs=source.outputs,
    )  # fmt: skip


def _refused(path: Path) -> str:
    findings: list[Finding] = lint(path)
    more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
    return f"NVIDIA's parser would refuse it: {findings[0]}{more}" if findings else ""


def _cast_to_half(source: Path, target: Path) -> None:
    """Weights below float16's smallest become its smallest. In float32, between casts, stay nodes with a weight beyond its largest
    (a variance of raw inputs, say) and operators that know nothing else."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(source)
    _name_by_place(model.graph)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the float32 number")  # once for every tiny weight
        model = convert_float_to_float16(model, keep_io_types=True, node_block_list=_beyond_half(model.graph))
    _sort(model.graph)
    del model.graph.value_info[:]  # types of inner tensors are left as they were around nodes that keep float32
    onnx.save(model, target)
    strip_metadata(target)


def _name_by_place(graph: "onnx.GraphProto") -> None:
    """ONNX Runtime's tools go by the names of nodes, and some exporters give none."""
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"


def _beyond_half(graph: "onnx.GraphProto") -> list[str]:
    import numpy as np
    from onnx import TensorProto, numpy_helper

    floats = {item.name: numpy_helper.to_array(item) for item in graph.initializer if item.data_type == TensorProto.FLOAT}
    large = {name for name, array in floats.items() if array.size and float(np.abs(array).max()) > _LARGEST_HALF}
    return [node.name for node in graph.node if large & set(node.input)]


def _sort(graph: "onnx.GraphProto") -> None:
    """Put every node behind those it reads from, level by level; the cast appends its own at the end."""
    waiting = list(graph.node)
    made = {node_output for node in waiting for node_output in node.output}
    ready, ordered = set[str](), []
    while waiting:
        able = [node for node in waiting if all(name not in made or name in ready for name in node.input)]
        if not able:
            raise StageError("the cast to float16 left a graph with a cycle")
        ordered += able
        ready.update(name for node in able for name in node.output)
        placed = {id(node) for node in able}
        waiting = [node for node in waiting if id(node) not in placed]
    del graph.node[:]
    graph.node.extend(ordered)


def _products(graph: "onnx.GraphProto") -> dict[str, bool]:
    """What could be quantized, by name -> whether its input channels fill packs; depthwise kernels read them one by one."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    products = {}
    for node in graph.node:
        if node.op_type not in _PRODUCTS:
            continue
        axis = {"Conv": 1, "ConvTranspose": 0}.get(node.op_type)
        shape = shapes.get(node.input[1], ())
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        is_packed = axis is None or groups > 1 or len(shape) <= axis or shape[axis] % _CHANNELS_PER_PACK == 0
        products[node.name or node.output[0]] = is_packed
    return products


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime prints what it calibrates, and advises pre-processing through the root logger where it has just been done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)


class _Reader:
    """Batches as ONNX Runtime's calibrators ask for them."""

    def __init__(self, ground: Ground, kind: Draw) -> None:
        self._batches = batches(draw(ground, kind), ground)

    def get_next(self) -> "dict[str, np.ndarray] | None":
        return next(self._batches, None)
