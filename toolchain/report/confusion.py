"""Which classes does the chosen model take for one another?"""

from collections.abc import Sequence

import msgspec

LARGEST_MATRIX = 32
"""Classes up to which every cell is drawn; beyond it the most frequent mistakes say more, and the page stays small."""
MISTAKES = 8


class Cell(msgspec.Struct, frozen=True):
    """count examples of one class were given one label: `share` of the class's row, 0..1."""

    count: int
    share: float
    tip: str
    is_right: bool


class Mistake(msgspec.Struct, frozen=True):
    truth: str
    prediction: str
    count: int
    share: float


class Row(msgspec.Struct, frozen=True):
    """One true class. recall: the share of it that was recognised, None when the split holds no example."""

    label: str
    total: int
    recall: float | None
    cells: tuple[Cell, ...]


class Confusion(msgspec.Struct, frozen=True):
    """rows is empty when there are too many classes to draw; mistakes are the most frequent ones, largest first."""

    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    mistakes: tuple[Mistake, ...]
    right: int
    total: int


def summarise(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Confusion | None:
    """What the matrix (rows: true classes, columns: predictions) shows. None for an empty one."""
    if not matrix:
        return None
    labels = tuple(classes) if len(classes) == len(matrix) else tuple(map(str, range(len(matrix))))
    mistakes = [
        Mistake(labels[truth], labels[guess], count, count / sum(row))
        for truth, row in enumerate(matrix)
        for guess, count in enumerate(row)
        if count and guess != truth
    ]
    mistakes.sort(key=lambda mistake: (-mistake.count, -mistake.share))
    return Confusion(
        labels=labels,
        rows=tuple(_row(truth, row, labels) for truth, row in enumerate(matrix)) if len(matrix) <= LARGEST_MATRIX else (),
        mistakes=tuple(mistakes[:MISTAKES]),
        right=sum(row[index] for index, row in enumerate(matrix)),
        total=sum(map(sum, matrix)),
    )


def _row(truth: int, row: Sequence[int], labels: Sequence[str]) -> Row:
    total = sum(row)
    cells = tuple(
        Cell(
            count=count,
            share=count / total if total else 0.0,
            tip=f"true {labels[truth]}, predicted {labels[guess]}\n{count} of {total}"
            + (f" ({100 * count / total:.1f} %)" if total else ""),
            is_right=guess == truth,
        )
        for guess, count in enumerate(row)
    )
    return Row(label=labels[truth], total=total, recall=row[truth] / total if total else None, cells=cells)
