"""How is a float ONNX quantized for ONNX Runtime on the CPU? Unsigned activations, signed weights, per channel, as QDQ.

Signed activations would be 2-5 times slower on x86 (measured, FACTS of the design). Weights use 7 of their 8 bits where the
target's CPU may sum products in 16 bits. Source: ONNX Runtime documentation, "Quantize ONNX models".
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from toolchain.compress.base import Ground
from toolchain.data.splits import read_split
from toolchain.errors import StageError
from toolchain.pipeline.products import FloatModel, Precision, SteeringData, Variant
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.stage import Stored
from toolchain.recipe import Method

if TYPE_CHECKING:
    import numpy as np

MODEL_FILE = "model.onnx"
_CALIBRATION_BATCH = 32


class OnnxRuntimeInt8(msgspec.Struct, frozen=True, kw_only=True):
    """Static quantization with the ranges that the calibration examples show."""

    name: str
    engine: ClassVar[str] = "onnxruntime"
    precision: ClassVar[Precision] = "int8"
    method: ClassVar[Method | None] = "quantize"
    revision: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "numpy")
    needs_network: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True

    def unfit(self, ground: Ground) -> str:
        return ""

    def config(self, ground: Ground) -> dict[str, Any]:
        return {"calibration rows": ground.settings.calibration_rows, "weight bits": ground.weight_bits}

    def make(self, ground: Ground, name: str, work: Path, progress: Progress) -> Variant:
        """Raises StageError where ONNX Runtime cannot quantize the model."""
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        source = ground.model.value.variant
        prepared = work / "prepared.onnx"
        rows = _Rows(ground.model, ground.data, ground.settings.calibration_rows)
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it warns through the root logger that pre-processing is advised, which has just been done
        try:
            quant_pre_process(str(ground.model.folder / source.model_file), str(prepared))
            quantize_static(
                str(prepared), str(work / MODEL_FILE), rows, quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True,
                reduce_range=ground.weight_bits == 7, calibrate_method=CalibrationMethod.MinMax,
            )  # fmt: skip
        except Exception as error:
            raise StageError(f"ONNX Runtime cannot quantize the model: {type(error).__name__}: {error}") from error
        finally:
            root.setLevel(level)
        prepared.unlink()
        return Variant(
            name=name, form=ground.model.value.form, scheme=self.name, engine=self.engine, precision=self.precision,
            model_file=MODEL_FILE, files=(MODEL_FILE,), size_bytes=(work / MODEL_FILE).stat().st_size,
            inputs=source.inputs, outputs=source.outputs,
        )  # fmt: skip


ONNXRUNTIME_INT8 = OnnxRuntimeInt8(name="int8")


class _Rows:
    """Calibration examples in batches, in the shape ONNX Runtime's CalibrationDataReader asks for.

    Taken evenly from the whole training split: sources often return it sorted by class.
    """

    def __init__(self, model: Stored[FloatModel], data: Stored[SteeringData], rows: int) -> None:
        import numpy as np

        arrays, _ = read_split(data.folder, data.value.train)
        chosen = np.unique(np.linspace(0, data.value.train.rows - 1, min(rows, data.value.train.rows)).astype(int))
        names = [spec.name for spec in model.value.variant.inputs]
        self._batches = self._cut({name: array[chosen] for name, array in zip(names, arrays, strict=True)}, len(chosen))

    def get_next(self) -> "dict[str, np.ndarray] | None":
        return next(self._batches, None)

    @staticmethod
    def _cut(arrays: "dict[str, np.ndarray]", rows: int) -> "Iterator[dict[str, np.ndarray]]":
        for start in range(0, rows, _CALIBRATION_BATCH):
            yield {name: array[start : start + _CALIBRATION_BATCH] for name, array in arrays.items()}
