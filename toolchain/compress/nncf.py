"""How is a model quantized for OpenVINO? By NNCF, on OpenVINO's own form of it; what stays float computes in f32.

NNCF on ONNX would quantize activations signed, which OpenVINO does not need and ONNX Runtime is slow at. Where a target's CPU may
sum products in 16 bits, weights take 7 of their 8 bits in all layers (NNCF's overflow fix), as for ONNX Runtime.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from toolchain.compress.base import Ground
from toolchain.compress.calibration import Draw, batches, draw
from toolchain.data.arrays import read_split
from toolchain.errors import BuildError, StageError
from toolchain.pipeline.products import Precision, Variant
from toolchain.pipeline.progress import Progress
from toolchain.recipe import Method


class OpenVinoInt8(msgspec.Struct, frozen=True, kw_only=True):
    """Static quantization with NNCF's fast bias correction.

    smooth: channels of unlike range are brought together first. accuracy: layers return to float, the worst first, until the
    recipe's metric keeps within its limit on validation data.
    """

    name: str
    draw: Draw = "even"
    smooth: bool = False
    accuracy: bool = False
    engine: ClassVar[str] = "openvino"
    precision: ClassVar[Precision] = "int8"
    method: ClassVar[Method | None] = "quantize"
    revision: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = ("openvino", "nncf", "onnx", "onnxruntime", "numpy")
    needs_network: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True

    def unfit(self, ground: Ground) -> str:
        return ""

    def config(self, ground: Ground) -> dict[str, Any]:
        judged = {"metric": ground.metric.identity, "max drop": ground.metric.max_drop} if self.accuracy else {}
        return {"calibration rows": ground.settings.calibration_rows, "weight bits": ground.weight_bits, **judged}

    def make(self, ground: Ground, name: str, work: Path, progress: Progress) -> Variant:
        """Raises NetworkError where OpenVINO lacks an operator, StageError where NNCF fails."""
        from toolchain.convert.openvino import read, write

        rows = draw(ground, self.draw)
        source = ground.model.folder / ground.model.value.variant.model_file
        kept: tuple[str, ...] = ()
        smoothed = work / "smoothed.onnx"
        with _quietly():
            if self.smooth:
                from toolchain.compress.equalize import equalize

                kept = equalize(source, smoothed, lambda: batches(rows, ground))
            model = read(smoothed if self.smooth else source)
            quantized = self._quantize(model, list(batches(rows, ground, size=1)), kept, ground)
            smoothed.unlink(missing_ok=True)
        return write(quantized, ground.model.value, work, name=name, scheme=self.name, precision=self.precision, hint="f32")

    def _quantize(self, model: Any, rows: list[Any], kept: Sequence[str], ground: Ground) -> Any:
        import nncf
        from nncf.quantization.advanced_parameters import OverflowFix

        fix = OverflowFix.ENABLE if ground.weight_bits == 7 else OverflowFix.DISABLE
        advanced = nncf.AdvancedQuantizationParameters(overflow_fix=fix)
        common: dict[str, Any] = {
            "subset_size": len(rows), "fast_bias_correction": True,
            "ignored_scope": nncf.IgnoredScope(names=list(kept)) if kept else None,
        }  # fmt: skip
        if not self.accuracy:
            return nncf.quantize(model, nncf.Dataset(rows), advanced_parameters=advanced, **common)
        judge = _Judge(ground)
        controlled = nncf.quantize_with_accuracy_control(
            model, nncf.Dataset(rows), nncf.Dataset(judge.examples(), lambda example: example[0]), judge, max_drop=ground.metric.max_drop,
            drop_type=nncf.DropType.ABSOLUTE, advanced_quantization_parameters=advanced, **common,
        )  # fmt: skip
        if not any(operation.get_type_name() == "FakeQuantize" for operation in controlled.get_ops()):
            raise StageError("NNCF took every layer back to float to keep the metric's limit, which leaves nothing of int8")
        return controlled


OPENVINO_INT8 = OpenVinoInt8(name="int8")
OPENVINO_BALANCED = OpenVinoInt8(name="int8-balanced", draw="balanced")
OPENVINO_SMOOTH = OpenVinoInt8(name="int8-smooth", draw="balanced", smooth=True)
OPENVINO_ACCURACY = OpenVinoInt8(name="int8-accuracy", draw="balanced", smooth=True, accuracy=True)


class _Judge:
    """The recipe's metric as NNCF asks for it: the higher the better, of a model and some of the examples."""

    def __init__(self, ground: Ground) -> None:
        self._metric = ground.metric
        self._arrays, self._targets = read_split(ground.data.folder, ground.data.value.validation)
        self._names = [spec.name for spec in ground.model.value.variant.inputs]
        fixed = ground.model.value.variant.inputs[0].shape[0]
        self._size = fixed if fixed > 0 else 1

    def examples(self) -> list[tuple[dict[str, Any], Any]]:
        """Inputs by name with their targets, in the smallest batches the model takes."""
        places = range(0, len(self._targets) - self._size + 1, self._size)
        return [
            (
                {name: array[start : start + self._size] for name, array in zip(self._names, self._arrays, strict=True)},
                self._targets[start : start + self._size],
            )
            for start in places
        ]

    def __call__(self, model: Any, examples: Iterable[tuple[dict[str, Any], Any]]) -> tuple[float, None]:
        import numpy as np

        pairs = [(model(inputs)[0], targets) for inputs, targets in examples]
        value = self._metric.value(np.concatenate([answer for answer, _ in pairs]), np.concatenate([item for _, item in pairs]))
        # Without a value per example NNCF ranks layers by this same metric; by distances of outputs it was seen to rank the culprit last.
        return (value if self._metric.goal == "max" else -value), None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """NNCF draws progress bars, tells each step and warns about its own dependencies; what fails comes as an exception."""
    from nncf.common.logging import nncf_logger

    # Not by nncf.set_log_level: that turns down the logger's handlers too, whoever added them, and they stay so.
    level = nncf_logger.level
    nncf_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except BuildError:
        raise
    except Exception as error:
        raise StageError(f"NNCF cannot quantize the model: {type(error).__name__}: {error}") from error
    finally:
        nncf_logger.setLevel(level)
