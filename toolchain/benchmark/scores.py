"""What do the built-in metrics compute, and how sure is a share of examples?

Scores take the model's first output and the targets of the same examples; higher or lower is better as `BUILT_IN` says.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Score = Callable[[np.ndarray, np.ndarray], float]
_Z95 = 1.959963984540054
_RESAMPLES = 1000
_SEED = 0


def accuracy(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(correct(outputs, targets).mean())


def correct(outputs: np.ndarray, targets: np.ndarray) -> NDArray[np.bool_]:
    """Whether each example's class is the right one: bool[n]. A single output column is a score split at one half."""
    result: NDArray[np.bool_] = predicted(outputs) == targets
    return result


def predicted(outputs: np.ndarray) -> NDArray[np.int64]:
    """The class each row of scores names: the highest; a lone column is the score of class 1."""
    if outputs.ndim == 1:  # an ONNX classifier's label output
        return outputs.astype(np.int64)
    if outputs.shape[-1] == 1:
        return (outputs[:, 0] > 0.5).astype(np.int64)
    classes: NDArray[np.int64] = outputs.argmax(axis=-1)
    return classes


def f1_macro(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Mean over classes of 2 TP / (2 TP + FP + FN); a class in neither targets nor predictions does not count."""
    classes = predicted(outputs)
    scores = []
    for label in np.unique(np.concatenate([classes, targets])):
        hits = int(((classes == label) & (targets == label)).sum())
        scores.append(2 * hits / (int((classes == label).sum()) + int((targets == label).sum())))
    return float(np.mean(scores))


def mean_absolute_error(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(np.abs(outputs.reshape(targets.shape) - targets).mean())


def root_mean_squared_error(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(np.sqrt(np.square(outputs.reshape(targets.shape) - targets).mean()))


def r_squared(outputs: np.ndarray, targets: np.ndarray) -> float:
    """The share of the targets' variance that is explained; below zero where their mean would do better, NaN where they are all equal."""
    residual = float(np.square(outputs.reshape(targets.shape) - targets).sum())
    total = float(np.square(targets - targets.mean()).sum())
    return 1 - residual / total if total else math.nan


def roc_auc(outputs: np.ndarray, targets: np.ndarray) -> float:
    """How often a positive example (target 1) scores above a negative one, ties counting half; NaN where one of them is absent.

    The score is a lone column, or the second of two less the first. Source: Mann and Whitney 1947, U / (n1 n0).
    """
    scores = outputs.reshape(len(outputs), -1)
    scores = scores[:, -1] - (scores[:, 0] if scores.shape[1] == 2 else 0)
    labels = targets.reshape(-1) > 0
    negatives = np.sort(scores[~labels])
    below, above = (np.searchsorted(negatives, scores[labels], side=side) for side in ("left", "right"))
    pairs = labels.sum() * len(negatives)
    return float((below + above).sum() / 2 / pairs) if pairs else math.nan


SCORES: dict[str, Score] = {
    "accuracy": accuracy,
    "f1_macro": f1_macro,
    "mae": mean_absolute_error,
    "rmse": root_mean_squared_error,
    "r2": r_squared,
    "roc_auc": roc_auc,
}


def interval(score: Score, outputs: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """95 % bounds of a score: Wilson's for accuracy, a bootstrap over examples (fixed seed) for every other."""
    if score is accuracy:
        return wilson(int(correct(outputs, targets).sum()), len(targets))
    generator = np.random.default_rng(_SEED)
    rows = [generator.integers(0, len(targets), len(targets)) for _ in range(_RESAMPLES)]
    values = [float(score(outputs[chosen], targets[chosen])) for chosen in rows]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % bounds of a share of n independent examples. Source: Wilson 1927."""
    share = hits / n
    centre = share + _Z95**2 / (2 * n)
    spread = _Z95 * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n**2))
    scale = 1 + _Z95**2 / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def confusion(outputs: np.ndarray, targets: np.ndarray, classes: int) -> tuple[tuple[int, ...], ...]:
    """Examples by true class (rows) and predicted class (columns)."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (targets, np.clip(predicted(outputs), 0, classes - 1)), 1)
    return tuple(tuple(int(count) for count in row) for row in table)
