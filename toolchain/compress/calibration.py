"""Which training examples set the ranges of quantized activations?

The usual draw is even over the training split, for sources often return it sorted. It fails where the split has a rhythm of its own
(every tenth frame dark) or holds broken rows; the other draw leaves out what no network was meant for and takes of every class alike.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from toolchain.compress.base import Ground
from toolchain.data.arrays import read_split

if TYPE_CHECKING:
    import numpy as np

Draw = Literal["even", "balanced"]
BATCH = 32
BROKEN_RATIO = 100.0
"""A row whose largest value is so many times that of the median row is taken for a broken sensor's."""
_SEED = 0


def draw(ground: Ground, kind: Draw) -> "dict[str, np.ndarray]":
    """Rows of the training split by input name, at most `compress.calibration_rows`; twice as many for a balanced draw."""
    arrays, targets = read_split(ground.data.folder, ground.data.value.train)
    wanted = ground.settings.calibration_rows
    chosen = _evenly(len(targets), wanted) if kind == "even" else _balanced(arrays, targets, 2 * wanted, ground)
    names = [spec.name for spec in ground.model.value.variant.inputs]
    return {name: array[chosen] for name, array in zip(names, arrays, strict=True)}


def batches(rows: "dict[str, np.ndarray]", ground: Ground, size: int = BATCH) -> "Iterator[dict[str, np.ndarray]]":
    """In batches of `size`, or of the only size the model takes; rows that fill none are left out.

    All are of one size, for ONNX Runtime's histograms stack what they collect.
    """
    fixed, count = ground.model.value.variant.inputs[0].shape[0], len(next(iter(rows.values())))
    size = fixed if fixed > 0 else min(size, count)
    for start in range(0, count - count % size, size):
        yield {name: array[start : start + size] for name, array in rows.items()}


def _evenly(rows: int, wanted: int) -> "np.ndarray":
    import numpy as np

    return np.unique(np.linspace(0, rows - 1, min(wanted, rows)).astype(int))


def _balanced(arrays: "list[np.ndarray]", targets: "np.ndarray", wanted: int, ground: Ground) -> "np.ndarray":
    """Sound rows in a seeded order, of each class in turn, until there are enough."""
    import numpy as np

    sound = np.flatnonzero(_is_sound(arrays))
    order = np.random.default_rng(_SEED).permutation(sound)
    if not ground.data.value.classes:
        return np.sort(order[:wanted])
    groups = [order[targets[order] == index] for index in range(len(ground.data.value.classes))]
    turns = np.concatenate([np.arange(len(group)) for group in groups])
    taken = np.concatenate(groups)[np.argsort(turns, kind="stable")]
    return np.sort(taken[:wanted])


def _is_sound(arrays: "list[np.ndarray]") -> "np.ndarray":
    """bool[rows]: neither one constant value throughout nor far beyond the median row. All of them, should that leave under half."""
    import numpy as np

    sound = np.ones(len(arrays[0]), bool)
    for array in arrays:
        flat = array.reshape(len(array), -1)
        if flat.dtype.kind != "f" or flat.shape[1] < 2:  # codes, and single numbers, which are constant by nature
            continue
        peaks = np.abs(flat).max(axis=1)
        sound &= (np.ptp(flat, axis=1) > 0) & (peaks <= BROKEN_RATIO * np.median(peaks))
    return sound if sound.mean() >= 0.5 else np.ones_like(sound)
