"""Does a variant still say what the float model says, and how good is it on the validation split?"""

from typing import TYPE_CHECKING

import numpy as np

from toolchain.benchmark.metrics import Metric
from toolchain.benchmark.run import outputs_of
from toolchain.benchmark.scores import confusion, predicted
from toolchain.data.splits import read_split
from toolchain.pipeline.products import CheckedModel, FloatModel, HeldOutData, SteeringData, TestedModel, Variant
from toolchain.pipeline.record import DropResult, ParityResult
from toolchain.pipeline.stage import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

FLOAT_TOLERANCE = 1e-3
"""Largest relative error of a float variant. Float32 engines agree within some 1e-6; bf16 sneaking in shows as 1.5e-3."""
FLOAT_AGREEMENT = 0.999
_RESAMPLES = 1000
_SEED = 0


def check(
    variant: Stored[Variant],
    form: Stored[FloatModel],
    base: Stored[FloatModel],
    data: Stored[SteeringData],
    metrics: "Sequence[Metric]",
) -> CheckedModel:
    """Parity with the float model of its form, the recipe's metrics, and the drop from the base's; on validation data only."""
    arrays, targets = read_split(data.folder, data.value.validation)
    outputs = outputs_of(variant, arrays)
    reference = [np.load(form.folder / name) for name in form.value.reference]
    start = np.load(base.folder / base.value.reference[0])
    results = tuple(metric.judge(outputs[0], targets, "validation") for metric in metrics)
    parity = compare(reference, outputs, classifies=data.value.output_kind == "classification", exact=_is_float(variant))
    return CheckedModel(metrics=results, drop=paired_drop(metrics[0], start, outputs[0], targets), parity=parity)


def test(
    variant: Stored[Variant],
    base: Stored[Variant],
    data: Stored[HeldOutData],
    classes: tuple[str, ...],
    metrics: "Sequence[Metric]",
) -> TestedModel:
    """The figures of the report. The one place where the test split is read."""
    arrays, targets = read_split(data.folder, data.value.test)
    outputs = outputs_of(variant, arrays)
    start = outputs if variant.digest == base.digest else outputs_of(base, arrays)
    results = tuple(metric.judge(outputs[0], targets, "test") for metric in metrics)
    drop = paired_drop(metrics[0], start[0], outputs[0], targets)
    return TestedModel(
        metrics=results,
        confusion=confusion(outputs[0], targets, len(classes)) if classes else (),
        drop=drop,
        resolution=(results[0].high - results[0].low) / 2,
    )


def paired_drop(metric: Metric, reference: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> DropResult:
    """How much worse `outputs` are than `reference` for the same targets, with a bootstrap over examples (fixed seed)."""
    generator = np.random.default_rng(_SEED)
    rows = [generator.integers(0, len(targets), len(targets)) for _ in range(_RESAMPLES)]
    with metric.scoring() as score:
        value = metric.drop(score(reference, targets), score(outputs, targets))
        drops = [metric.drop(score(reference[row], targets[row]), score(outputs[row], targets[row])) for row in rows]
    low, high = np.nanquantile(drops, [0.025, 0.975])
    return DropResult(value=value, low=float(low), high=float(high), n=len(targets))


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
