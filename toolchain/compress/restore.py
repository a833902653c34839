"""Which few layers must stay float for a quantized ONNX to be good enough?

Each layer alone is kept float and the answers compared with the float model's: what helps most ranks first. Then the worst stay float
one after the other, never more than a tenth of them (at least one), until the metric keeps within its limit on validation data.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from toolchain.compress.base import Ground
from toolchain.compress.calibration import draw
from toolchain.compress.onnxruntime import MODEL_FILE, FloatGraph, describe, quantizing
from toolchain.data.arrays import read_split
from toolchain.pipeline.products import Precision, Variant
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.stage import Stored
from toolchain.recipe import Method

if TYPE_CHECKING:
    import numpy as np

SHARE = 0.1
RANKING_ROWS = 128
"""Of the validation split; the ranking needs no targets, and as many quantized models as there are layers."""


class OnnxRuntimeRestored(msgspec.Struct, frozen=True, kw_only=True):
    """Quantization as by "int8-smooth", with the worst layers in float."""

    name: ClassVar[str] = "int8-restored"
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
        return {
            "calibration rows": ground.settings.calibration_rows, "weight bits": ground.weight_bits,
            "metric": ground.metric.identity, "max drop": ground.metric.max_drop,
        }  # fmt: skip

    def make(self, ground: Ground, name: str, work: Path, progress: Progress) -> Variant:
        """Raises StageError where ONNX Runtime cannot quantize the model."""
        with quantizing():
            graph = FloatGraph.prepare(ground, work, draw(ground, "balanced"), "minmax", smooth=True)
            trials = _Trials(graph, ground, work, describe_name=name, scheme=self.name)
            layers = graph.layers()
            ranked = sorted(layers, key=lambda layer: (trials.error([layer]), layers.index(layer)))
            drops = []
            for count in range(1, max(1, int(SHARE * len(layers))) + 1):
                drops.append(trials.drop(ranked[:count]))
                progress.note(f"{name}: drop {drops[-1]:.4f} with {', '.join(ranked[:count])} in float")
                if drops[-1] <= ground.metric.max_drop:
                    break
            best = min(range(len(drops)), key=drops.__getitem__)
            graph.quantize(work / MODEL_FILE, ranked[: best + 1])
            graph.clear()
        return describe(ground, name, self.name, work)


ONNXRUNTIME_RESTORED = OnnxRuntimeRestored()


class _Trials:
    """Quantized models with some layers in float, judged through the engine that will serve them."""

    def __init__(self, graph: FloatGraph, ground: Ground, work: Path, *, describe_name: str, scheme: str) -> None:
        import numpy as np

        self._graph, self._ground, self._work = graph, ground, work
        self._name, self._scheme = describe_name, scheme
        self._arrays, self._targets = read_split(ground.data.folder, ground.data.value.validation)
        self._reference = np.load(ground.model.folder / ground.model.value.reference[0])

    def error(self, restored: Sequence[str]) -> float:
        """Mean square distance of the first output from the float model's."""
        import numpy as np

        answers = self._answers(restored, [array[:RANKING_ROWS] for array in self._arrays])
        return float(np.square(answers.astype(np.float64) - self._reference[:RANKING_ROWS]).mean())

    def drop(self, restored: Sequence[str]) -> float:
        metric = self._ground.metric
        answers = self._answers(restored, self._arrays)
        return metric.drop(metric.value(self._reference, self._targets), metric.value(answers, self._targets))

    def _answers(self, restored: Sequence[str], arrays: "list[np.ndarray]") -> "np.ndarray":
        from toolchain.benchmark.run import outputs_of

        self._graph.quantize(self._work / MODEL_FILE, restored)
        variant = describe(self._ground, self._name, self._scheme, self._work)
        return outputs_of(Stored(variant, self._work, ""), arrays)[0]
