"""Does a variant still say what the float model says, and how good is it on the validation split?"""

from typing import TYPE_CHECKING

import numpy as np

from toolchain.benchmark.metrics import Metric
from toolchain.benchmark.run import outputs_of
from toolchain.benchmark.scores import confusion, predicted
from toolchain.data.splits import read_split
from toolchain.pipeline.products import CheckedModel, FloatModel, HeldOutData, SteeringData, TestedModel, Variant
from toolchain.pipeline.record import ParityResult
from toolchain.pipeline.stage import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

FLOAT_TOLERANCE = 1e-3
"""Largest relative error of a float variant. Float32 engines agree within some 1e-6; bf16 sneaking in shows as 1.5e-3."""
FLOAT_AGREEMENT = 0.999


def check(
    variant: Stored[Variant], model: Stored[FloatModel], data: Stored[SteeringData], metrics: "Sequence[Metric]"
) -> CheckedModel:
    """Parity with the reference outputs and the recipe's metrics, on validation data only."""
    arrays, targets = read_split(data.folder, data.value.validation)
    outputs = outputs_of(variant, arrays)
    reference = [np.load(model.folder / name) for name in model.value.reference]
    results = tuple(metric.judge(outputs[0], targets, "validation") for metric in metrics)
    parity = compare(reference, outputs, classifies=data.value.output_kind == "classification", exact=_is_float(variant))
    drop = metrics[0].drop(metrics[0].value(reference[0], targets), results[0].value)
    return CheckedModel(metrics=results, drop=drop, parity=parity)


def test(
    variant: Stored[Variant], data: Stored[HeldOutData], classes: tuple[str, ...], metrics: "Sequence[Metric]"
) -> TestedModel:
    """The figures of the report. The one place where the test split is read."""
    arrays, targets = read_split(data.folder, data.value.test)
    outputs = outputs_of(variant, arrays)
    results = tuple(metric.judge(outputs[0], targets, "test") for metric in metrics)
    return TestedModel(metrics=results, confusion=confusion(outputs[0], targets, len(classes)) if classes else ())


def compare(reference: list[np.ndarray], outputs: list[np.ndarray], *, classifies: bool, exact: bool) -> ParityResult:
    """How far outputs lie from the reference, over all outputs of the model; agreement looks at the first.

    exact: whether the variant computes in the reference's precision, so that it must reproduce it.
    """
    finite = all(np.isfinite(output).all() for output in outputs if output.dtype.kind == "f")
    same = len(reference) == len(outputs) and all(a.shape == b.shape for a, b in zip(reference, outputs, strict=True))
    if not (finite and same):
        return ParityResult(max_abs=-1.0, relative=-1.0, agreement=0.0, ok=False)
    wanted = np.concatenate([array.ravel().astype(np.float64) for array in reference])
    error = np.concatenate([array.ravel().astype(np.float64) for array in outputs]) - wanted
    scale = float(np.sqrt(np.square(wanted).mean()))
    relative = float(np.sqrt(np.square(error).mean())) / max(scale, np.finfo(np.float64).tiny)
    agreement = float((predicted(reference[0]) == predicted(outputs[0])).mean()) if classifies else 1.0
    ok = not exact or (relative <= FLOAT_TOLERANCE and agreement >= FLOAT_AGREEMENT)
    return ParityResult(max_abs=float(np.abs(error).max()), relative=relative, agreement=agreement, ok=ok)


def _is_float(variant: Stored[Variant]) -> bool:
    return variant.value.precision == "float32"
