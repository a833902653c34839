"""What should the engineer know about data that is fit to train on, yet odd?

Notes refuse nothing, for real data repeats itself, is unbalanced and has dead columns; but they are said, and stand in the report.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from toolchain.data.examples import Examples

IMBALANCE = 10
"""So many times more examples of one class than of another that accuracy hides the rarer one: at 10, answering always with
the larger of two classes scores 0.91."""
_SHOWN = 3


def notes_on(splits: Mapping[str, Examples], classes: Sequence[str]) -> tuple[str, ...]:
    """One line per oddity, in a fixed order."""
    return (*_leaks(splits), *_absent(splits, classes), *_imbalance(splits["train"], classes), *_constant(splits["train"]))


def _leaks(splits: Mapping[str, Examples]) -> Iterator[str]:
    """Rows that a split judges by, though an earlier one already holds them."""
    known: dict[bytes, str] = {}
    for name in ("train", "validation", "test"):
        places = _row_places(name, splits[name])
        both = [(place, known[digest]) for digest, place in places.items() if digest in known]
        if both:
            shown = ", ".join(f"{place} = {earlier}" for place, earlier in both[:_SHOWN])
            more = ", ..." if len(both) > _SHOWN else ""
            where = "training or validation data" if name == "test" else "training data"
            yield f"{len(both)} distinct {name} examples also occur in {where}: {shown}{more}"
        known = places | known


def _row_places(name: str, part: Examples) -> dict[bytes, str]:
    """The first row of each distinct content, in words."""
    rows = len(part.targets)
    arrays = [array.reshape(rows, -1) for array in part.inputs.values()]
    places: dict[bytes, str] = {}
    for row in range(rows):
        places.setdefault(hashlib.sha256(b"".join(array[row].tobytes() for array in arrays)).digest(), f"{name} row {row}")
    return places


def _absent(splits: Mapping[str, Examples], classes: Sequence[str]) -> Iterator[str]:
    for name, part in splits.items():
        for index in sorted(set(range(len(classes))) - set(np.unique(part.targets).tolist())):
            yield f"split {name!r} has no example of class {classes[index]}"


def _imbalance(train: Examples, classes: Sequence[str]) -> Iterator[str]:
    if not classes:
        return
    counts = np.bincount(train.targets, minlength=len(classes))
    most, least = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max()).argmin())
    if counts[most] >= IMBALANCE * counts[least]:
        yield (
            f"split 'train' has {counts[most]} examples of class {classes[most]} but {counts[least]} of {classes[least]}: "
            "accuracy hides the rarer one; consider f1_macro and train.class_weights"
        )


def _constant(train: Examples) -> Iterator[str]:
    """Columns of tables only: the margin of an image is often the same everywhere and harms nothing."""
    for key, array in train.inputs.items():
        if array.ndim != 2 or len(array) < 2:
            continue
        dead = np.flatnonzero((array == array[0]).all(axis=0)).tolist()
        if dead:
            shown = ", ".join(map(str, dead[:_SHOWN])) + (", ..." if len(dead) > _SHOWN else "")
            yield f"input {key!r} has {len(dead)} columns that never change in training data ({shown}): nothing can be learned from them"
