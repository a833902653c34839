"""How is a float ONNX quantized for ONNX Runtime on the CPU? Unsigned activations, signed weights, per channel, as QDQ.

Signed activations would be 2-5 times slower on x86 (measured, FACTS of the design). Weights use 7 of their 8 bits where the
target's CPU may sum products in 16 bits. Source: ONNX Runtime documentation, "Quantize ONNX models".
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.data.splits import read_split
from toolchain.errors import StageError
from toolchain.pipeline.products import FloatModel, SteeringData, Variant
from toolchain.pipeline.stage import Stored

if TYPE_CHECKING:
    import numpy as np

MODEL_FILE = "model.onnx"
_CALIBRATION_BATCH = 32


def quantize(
    model: Stored[FloatModel], data: Stored[SteeringData], *, name: str, rows: int, weight_bits: int, work: Path
) -> Variant:
    """Write the quantized model. rows: how many training examples set the ranges of activations. Raises StageError."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source = model.value.variant
    prepared = work / "prepared.onnx"
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns through the root logger that pre-processing is advised, which has just been done
    try:
        quant_pre_process(str(model.folder / source.model_file), str(prepared))
        quantize_static(
            str(prepared), str(work / MODEL_FILE), _Rows(model, data, rows), quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True, reduce_range=weight_bits == 7,
            calibrate_method=CalibrationMethod.MinMax,
        )  # fmt: skip
    except Exception as error:
        raise StageError(f"ONNX Runtime cannot quantize the model: {type(error).__name__}: {error}") from error
    finally:
        root.setLevel(level)
    prepared.unlink()
    return Variant(
        name=name, engine="onnxruntime", precision="int8", model_file=MODEL_FILE, files=(MODEL_FILE,),
        size_bytes=(work / MODEL_FILE).stat().st_size, inputs=source.inputs, outputs=source.outputs,
    )  # fmt: skip


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
