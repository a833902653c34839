"""How is a float ONNX quantized for ONNX Runtime on the CPU? Unsigned activations, signed weights, per channel, as QDQ.

Signed activations would be 2-5 times slower on x86 (measured, FACTS of the design). Weights use 7 of their 8 bits where the
target's CPU may sum products in 16 bits. Source: ONNX Runtime documentation, "Quantize ONNX models".
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from toolchain.compress.base import Ground
from toolchain.compress.calibration import Draw, batches, draw
from toolchain.errors import BuildError, StageError
from toolchain.pipeline.products import Precision, Variant
from toolchain.pipeline.progress import Progress
from toolchain.recipe import Method

if TYPE_CHECKING:
    import numpy as np

MODEL_FILE = "model.onnx"
PERCENTILE = 99.9
"""Of the values of a tensor; the library's own 99.999 keeps every outlier of a small calibration set."""
SMOOTH_OPERATORS = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Reshape",
    "Flatten", "Transpose", "Squeeze", "Unsqueeze",
)  # fmt: skip
"""What computes, and what passes 8 bits on as they are. Sums, products and normalisations stay in float."""
DENSE = ("Gemm", "MatMul")
"""Operators whose int8 kernels can write float, so that one scale need not hold for all their outputs."""
WEIGHTED = ("Conv", "ConvTranspose", *DENSE)
"""Operators that compute with weights."""

Estimator = Literal["minmax", "percentile", "entropy"]


class OnnxRuntimeInt8(msgspec.Struct, frozen=True, kw_only=True):
    """Static quantization with the ranges that calibration examples show.

    estimator: how a range follows from the values seen. smooth: channels of unlike range are brought together first, and only
    what computes is quantized.
    """

    name: str
    estimator: Estimator = "minmax"
    draw: Draw = "even"
    smooth: bool = False
    engine: ClassVar[str] = "onnxruntime"
    precision: ClassVar[Precision] = "int8"
    method: ClassVar[Method | None] = "quantize"
    revision: ClassVar[int] = 4
    tools: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "numpy")
    needs_network: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True

    def unfit(self, ground: Ground) -> str:
        return ""

    def config(self, ground: Ground) -> dict[str, Any]:
        return {"calibration rows": ground.settings.calibration_rows, "weight bits": ground.weight_bits}

    def make(self, ground: Ground, name: str, work: Path, progress: Progress) -> Variant:
        """Raises StageError where ONNX Runtime cannot quantize the model."""
        rows = draw(ground, self.draw)
        with quantizing():
            float_model = FloatGraph.prepare(ground, work, rows, self.estimator, smooth=self.smooth)
            float_model.quantize(work / MODEL_FILE)
            float_model.clear()
        return describe(ground, name, self.name, work)


ONNXRUNTIME_INT8 = OnnxRuntimeInt8(name="int8")
ONNXRUNTIME_PERCENTILE = OnnxRuntimeInt8(name="int8-percentile", estimator="percentile")
ONNXRUNTIME_ENTROPY = OnnxRuntimeInt8(name="int8-entropy", estimator="entropy")
ONNXRUNTIME_BALANCED = OnnxRuntimeInt8(name="int8-balanced", draw="balanced")
ONNXRUNTIME_SMOOTH = OnnxRuntimeInt8(name="int8-smooth", draw="balanced", smooth=True)


class FloatGraph(msgspec.Struct, frozen=True, kw_only=True):
    """A float model made ready, and the ranges of its tensors: what any number of quantized models can be made from.

    keep: nodes that stay float in any case.
    """

    path: Path
    ranges: Any
    weight_bits: int
    smooth: bool
    keep: tuple[str, ...] = ()

    @classmethod
    def prepare(
        cls, ground: Ground, work: Path, rows: "dict[str, np.ndarray]", estimator: Estimator, *, smooth: bool
    ) -> "FloatGraph":
        from onnxruntime.quantization.shape_inference import quant_pre_process

        source = (ground.model.folder / ground.model.value.variant.model_file).absolute()
        path, keep = work.absolute() / "prepared.onnx", tuple[str, ...]()
        is_plain = _is_plain(source)
        with contextlib.chdir(work):  # where it cannot infer shapes it leaves the half-inferred model in the current folder
            quant_pre_process(str(source), str(path), skip_symbolic_shape=not is_plain)
        if smooth:
            from toolchain.compress.equalize import equalize

            keep = equalize(path, path, lambda: batches(rows, ground))
            quant_pre_process(str(path), str(path), skip_optimization=True, skip_symbolic_shape=not is_plain)
        ranges = _ranges(path, work / "augmented.onnx", batches(rows, ground), estimator)
        return cls(path=path, ranges=ranges, weight_bits=ground.weight_bits, smooth=smooth, keep=keep)

    def layers(self) -> list[str]:
        """Names of the nodes that compute with weights, in the order of the graph."""
        import onnx

        model = onnx.load(self.path)
        constants = {item.name for item in model.graph.initializer}
        return [node.name for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in constants]

    def quantize(self, target: Path, restored: Sequence[str] = ()) -> None:
        """restored: layers that stay float beside `keep`."""
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        operators = SMOOTH_OPERATORS if self.smooth else sorted({*QLinearOpsRegistry, *QDQRegistry})
        options = {"OpTypesToExcludeOutputQuantization": list(DENSE)} if self.smooth else {}
        quantizer = QDQQuantizer(
            onnx.load(self.path), True, self.weight_bits == 7, QuantType.QInt8, QuantType.QUInt8, self.ranges, [],
            [*self.keep, *restored], list(operators), options,
        )  # fmt: skip
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(str(target), False)

    def clear(self) -> None:
        self.path.unlink()


@contextlib.contextmanager
def quantizing() -> Iterator[None]:
    """ONNX Runtime's quantizer warns through the root logger, prints its progress, and raises many kinds of exceptions."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except BuildError:
        raise
    except Exception as error:
        raise StageError(f"ONNX Runtime cannot quantize the model: {type(error).__name__}: {error}") from error
    finally:
        root.setLevel(level)


def describe(ground: Ground, name: str, scheme: str, work: Path, precision: Precision = "int8") -> Variant:
    """The ONNX file in `work` as a variant."""
    source = ground.model.value
    return Variant(
        name=name, form=source.form, scheme=scheme, engine="onnxruntime", precision=precision, model_file=MODEL_FILE,
        files=(MODEL_FILE,), size_bytes=(work / MODEL_FILE).stat().st_size, inputs=source.variant.inputs,
        outputs=source.variant.outputs,
    )  # fmt: skip


def _is_plain(model: Path) -> bool:
    """Whether all its operators are ONNX's own: at a scaler or a forest of `ai.onnx.ml` symbolic shape inference gives up.

    Raises StageError where there is nothing to quantize.
    """
    import onnx

    nodes = onnx.load(model, load_external_data=False).graph.node
    if not any(node.op_type in WEIGHTED for node in nodes):
        raise StageError(f"it has no {', '.join(WEIGHTED[:-1])} or {WEIGHTED[-1]} to quantize")
    return all(node.domain in {"", "ai.onnx"} for node in nodes)


def _ranges(model: Path, scratch: Path, reader: "Iterator[dict[str, np.ndarray]]", estimator: Estimator) -> Any:
    """The library's own table of ranges. Entropy at the library's defaults is MinMax: as many bins as quantized ones."""
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    kinds: dict[Estimator, tuple[Any, dict[str, Any]]] = {
        "minmax": (CalibrationMethod.MinMax, {}),
        "percentile": (CalibrationMethod.Percentile, {"percentile": PERCENTILE, "symmetric": False}),
        "entropy": (CalibrationMethod.Entropy, {"num_bins": 2048, "num_quantized_bins": 128}),
    }
    method, options = kinds[estimator]
    calibrator = create_calibrator(str(model), None, str(scratch), method, extra_options=options)
    calibrator.collect_data(_Reader(reader))
    ranges = calibrator.compute_data()
    del calibrator  # it holds the file open
    scratch.unlink()
    return ranges


class _Reader:
    """Batches as ONNX Runtime's calibrators ask for them."""

    def __init__(self, batches: "Iterator[dict[str, np.ndarray]]") -> None:
        self._batches = batches

    def get_next(self) -> "dict[str, np.ndarray] | None":
        return next(self._batches, None)
