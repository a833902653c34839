"""What do scores say in classes, and boxes in detections? Answers are arrays with one row per example."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.errors import RequestError

Floats = NDArray[np.float64]
Answer = dict[str, np.ndarray]
NO_CLASS = -1


def argmax(scores: Floats, labels: Sequence[str]) -> Answer:
    """class int64[n] (the first of equals; -1 where a score is NaN), score float64[n], label str[n] where there are labels.

    scores: float64[n, classes].
    """
    _require_scores(scores, 2)
    broken = np.isnan(scores).any(axis=-1)
    classes = np.where(broken, NO_CLASS, scores.argmax(axis=-1))
    best = np.where(broken, np.nan, scores.max(axis=-1))
    return _named({"class": classes.astype(np.int64), "score": best}, labels)


def top_k(scores: Floats, labels: Sequence[str], *, k: int, threshold: float) -> Answer:
    """class int64[n, k], score float64[n, k], label str[n, k]: by falling score, equals by rising class.

    k: at most the number of classes. Below the threshold, and where a score is NaN: class -1, score NaN, label "".
    """
    _require_scores(scores, 2)
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, axis=-1)
    absent = ~(best >= threshold) | np.isnan(scores).any(axis=-1, keepdims=True)
    return _named({"class": np.where(absent, NO_CLASS, order).astype(np.int64), "score": np.where(absent, np.nan, best)}, labels)


def nms(boxes: Floats, scores: Floats, labels: Sequence[str], *, threshold: float, overlap: float, limit: int) -> Answer:
    """box float64[n, limit, 4], class int64[n, limit], score float64[n, limit], label str[n, limit], by falling score.

    boxes: float64[n, m, 4] as x1, y1, x2, y2; scores: float64[n, m, classes]. Within a class the best box stays and those over
    it by more than `overlap` (intersection over union) go, again and again. Source: greedy NMS as torchvision.ops.batched_nms.
    """
    _require_scores(scores, 3)
    if boxes.shape != (*scores.shape[:2], 4):
        raise RequestError(f"nms needs boxes {[*scores.shape[:2], 4]}, found {list(boxes.shape)}")
    rows = len(scores)
    answer = {
        "box": np.full((rows, limit, 4), np.nan),
        "class": np.full((rows, limit), NO_CLASS, np.int64),
        "score": np.full((rows, limit), np.nan),
    }
    for row in range(rows):
        found = [
            (places, label)
            for label in range(scores.shape[2])
            for places in _survivors(boxes[row], scores[row, :, label], threshold, overlap, limit)
        ]
        found.sort(key=lambda one: (-scores[row, one[0], one[1]], one[1], one[0]))
        for slot, (place, label) in enumerate(found[:limit]):
            answer["box"][row, slot] = boxes[row, place]
            answer["class"][row, slot] = label
            answer["score"][row, slot] = scores[row, place, label]
    return _named(answer, labels)


def _survivors(boxes: Floats, scores: Floats, threshold: float, overlap: float, limit: int) -> list[int]:
    """Which boxes of one class stay, best first."""
    candidates = np.flatnonzero(scores >= threshold)
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    while candidates.size and len(kept) < limit:
        best, rest = candidates[0], candidates[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[rest, 2:], boxes[best, 2:]) - np.maximum(boxes[rest, :2], boxes[best, :2])
        shared = np.maximum(sides, 0).prod(axis=-1)
        union = areas[rest] + areas[best] - shared
        candidates = rest[~(shared > overlap * union)]
    return kept


def _named(answer: Answer, labels: Sequence[str]) -> Answer:
    if labels:
        names = np.array([*labels, ""])
        classes = answer["class"]
        answer["label"] = names[np.where((classes < 0) | (classes >= len(labels)), len(labels), classes)]
    return answer


def _require_scores(scores: Floats, axes: int) -> None:
    if scores.ndim != axes or 0 in scores.shape[1:]:
        raise RequestError(f"expected scores with {axes} axes, found {list(scores.shape)}")
