"""Does a variant still say what the float model says, and how good is it on the validation split?"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolchain.benchmark.metrics import Metric
from toolchain.benchmark.run import outputs_of
from toolchain.benchmark.scores import accuracy, confusion, correct, predicted, wilson
from toolchain.data.arrays import read_split
from toolchain.errors import StageError
from toolchain.pipeline.products import CheckedModel, FloatModel, HeldOutData, SteeringData, TestedModel, Variant
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.record import DropResult, MetricResult, ParityResult, SliceResult
from toolchain.pipeline.stage import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FLOAT_TOLERANCE = 1e-3
"""Largest relative error of a float variant. Float32 engines agree within some 1e-6; bf16 sneaking in shows as 1.5e-3."""
FLOAT_AGREEMENT = 0.999
SLICES = 20
_RESAMPLES = 1000
_SEED = 0
_FEWEST_DISCORDANT = 6
_Z95 = 1.959963984540054


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


def test(  # noqa: PLR0917 - exactly what the figures may depend on, and whom to tell
    variant: Stored[Variant],
    base: Stored[Variant],
    data: Stored[HeldOutData],
    classes: tuple[str, ...],
    metrics: "Sequence[Metric]",
    progress: Progress,
) -> TestedModel:
    """The figures of the report. The one place where the test split is read."""
    arrays, targets = read_split(data.folder, data.value.test)
    outputs = outputs_of(variant, arrays)
    start = outputs if variant.digest == base.digest else outputs_of(base, arrays)
    results = tuple(metric.judge(outputs[0], targets, "test") for metric in metrics)
    drop = paired_drop(metrics[0], start[0], outputs[0], targets)
    columns = {column.name: np.load(data.folder / column.file, allow_pickle=False) for column in data.value.slices}
    by_column = column_slices(columns, metrics[0], outputs[0], targets, progress.note)
    return TestedModel(
        metrics=results,
        confusion=confusion(outputs[0], targets, len(classes)) if classes else (),
        drop=drop,
        resolution=resolution(results[0], drop, discordant(metrics[0], start[0], outputs[0], targets)),
        slices=(*class_slices(classes, outputs[0], targets), *by_column),
    )


def paired_drop(metric: Metric, reference: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> DropResult:
    """How much worse `outputs` are than `reference` for the same targets, with a bootstrap over examples (fixed seed)."""
    generator = np.random.default_rng(_SEED)
    with metric.scoring() as score:
        value = metric.drop(score(reference, targets), score(outputs, targets))
        if score is accuracy:
            drops = metric.drop(1, 0) * _resampled_losses(reference, outputs, targets, generator)
        else:
            rows = (generator.integers(0, len(targets), len(targets)) for _ in range(_RESAMPLES))
            drops = np.array(
                [metric.drop(score(reference[row], targets[row]), score(outputs[row], targets[row])) for row in rows]
            )
    low, high = np.nanquantile(drops, [0.025, 0.975])
    return DropResult(value=value, low=float(low), high=float(high), n=len(targets))


def _resampled_losses(
    reference: np.ndarray, outputs: np.ndarray, targets: np.ndarray, generator: np.random.Generator
) -> NDArray[np.float64]:
    """By how much accuracy falls in each resample: float64[_RESAMPLES]. Drawing examples is drawing how many were lost and won."""
    before, after = correct(reference, targets), correct(outputs, targets)
    n = len(targets)
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    counts = generator.multinomial(n, [lost / n, won / n, 1 - (lost + won) / n], _RESAMPLES)
    losses: NDArray[np.float64] = (counts[:, 0] - counts[:, 1]) / n
    return losses


def discordant(metric: Metric, reference: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> int | None:
    """How many examples just one of the two gets right; None unless the metric is accuracy."""
    with metric.scoring() as score:
        if score is not accuracy:
            return None
    return int((correct(reference, targets) != correct(outputs, targets)).sum())


def resolution(result: MetricResult, drop: DropResult, discordant: int | None) -> float:
    """The smallest drop that this many examples could tell from none at 95 %.

    Accuracy: max(6, 1.96 sqrt(d)) / n with d discordant examples, by McNemar's test; of fewer than six, all may fall one way by chance
    (2 / 2^5 > 0.05). Other metrics: half the paired interval of the drop, or half the metric's own where the two models answer alike.
    Source: McNemar 1947; Dietterich 1998, "Approximate statistical tests for comparing supervised classification algorithms".
    """
    if discordant is not None:
        return max(_FEWEST_DISCORDANT, _Z95 * math.sqrt(discordant)) / drop.n
    return (drop.high - drop.low) / 2 or (result.high - result.low) / 2


def class_slices(classes: tuple[str, ...], outputs: np.ndarray, targets: np.ndarray) -> tuple[SliceResult, ...]:
    """The recall of each class that the split has examples of, with Wilson's interval; nothing unless the model classifies."""
    if not classes:
        return ()
    hits = correct(outputs, targets)
    found = []
    for label, name in enumerate(classes):
        own = hits[targets == label]
        if len(own):
            low, high = wilson(int(own.sum()), len(own))
            recall = MetricResult(
                name="recall", goal="max", value=float(own.mean()), low=low, high=high, n=len(own), split="test"
            )
            found.append(SliceResult(column="class", value=name, metric=recall))
    return tuple(found)


def column_slices(
    columns: "Mapping[str, np.ndarray]",
    metric: Metric,
    outputs: np.ndarray,
    targets: np.ndarray,
    note: "Callable[[str], None]",
) -> tuple[SliceResult, ...]:
    """The deciding metric for each value of each column, of at most SLICES values a column: those with most examples.

    A value for which the metric gives no number (the area under the curve of one class alone) has no slice; `note` is told.
    """
    found = []
    for column, values in columns.items():
        names, counts = np.unique(values.astype(str), return_counts=True)
        largest = sorted(names[np.argsort(-counts, kind="stable")[:SLICES]])
        for name in largest:
            rows = values.astype(str) == name
            try:
                result = metric.judge(outputs[rows], targets[rows], "test")
            except (StageError, ValueError, ArithmeticError) as error:
                note(f"slice {column} = {name} is left out: {error}")
                continue
            found.append(SliceResult(column=column, value=str(name), metric=result))
    return tuple(found)


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
